#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core_reference.h"
#include "mem.h"
#include "topic_tree.h"

static struct bytes text(const char *string)
{
    return bytes_of_string(string);
}

static struct topic_node *put(struct topic_tree *tree, const char *topic)
{
    struct topic_node *node = NULL;
    assert_int_equal(topic_tree_put(tree, text(topic), &node), STATUS_OK);
    assert_non_null(node);
    return node;
}

static void keeps_one_node_for_each_prefix(void **state)
{
    (void)state;
    struct topic_tree tree;
    assert_int_equal(topic_tree_init(&tree, &test_seed, 100, 8, NULL), STATUS_OK);
    struct topic_node *abc = put(&tree, "a/b/c");
    struct topic_node *abd = put(&tree, "a/b/d");
    struct topic_node *ab = put(&tree, "a/b");
    assert_int_equal(tree.node_count, 4);
    assert_ptr_equal(abc->parent, ab);
    assert_ptr_equal(abd->parent, ab);
    assert_ptr_equal(topic_tree_find(&tree, text("a/b")), ab);
    assert_ptr_equal(put(&tree, "a/b"), ab);
    assert_null(topic_tree_find(&tree, text("a/b/c/")));
    assert_null(topic_tree_find(&tree, text("a/c")));
    assert_null(topic_tree_find(&tree, text("b/c")));
    topic_tree_check(&tree);
    topic_tree_fini(&tree);
}

static void empty_levels_are_levels(void **state)
{
    (void)state;
    struct topic_tree tree;
    assert_int_equal(topic_tree_init(&tree, &test_seed, 100, 0, NULL), STATUS_OK);
    const struct topic_node *plain = put(&tree, "a");
    const struct topic_node *leading = put(&tree, "/a");
    const struct topic_node *trailing = put(&tree, "a/");
    const struct topic_node *slash = put(&tree, "/");
    assert_ptr_not_equal(plain, leading);
    assert_ptr_not_equal(plain, trailing);
    assert_ptr_not_equal(leading, slash);
    assert_int_equal(tree.node_count, 5);
    assert_true(bytes_equal_string(topic_node_level(&tree, leading), "a"));
    assert_true(bytes_equal_string(topic_node_level(&tree, trailing), ""));
    topic_tree_check(&tree);
    topic_tree_fini(&tree);
}

static void prunes_what_nothing_needs(void **state)
{
    (void)state;
    struct topic_tree tree;
    assert_int_equal(topic_tree_init(&tree, &test_seed, 100, 0, NULL), STATUS_OK);
    struct topic_node *deep = put(&tree, "a/b/c/d");
    struct topic_node *middle = put(&tree, "a/b");
    topic_tree_release(&tree, deep);
    assert_int_equal(tree.node_count, 2);
    assert_ptr_equal(topic_tree_find(&tree, text("a/b")), middle);
    assert_null(topic_tree_find(&tree, text("a/b/c")));
    topic_tree_check(&tree);
    topic_tree_release(&tree, middle);
    assert_int_equal(tree.node_count, 0);
    topic_tree_check(&tree);
    topic_tree_fini(&tree);
}

static void a_held_node_stays_where_it_is(void **state)
{
    (void)state;
    struct topic_tree tree;
    assert_int_equal(topic_tree_init(&tree, &test_seed, 100, 0, NULL), STATUS_OK);
    struct topic_node *node = put(&tree, "x/y");
    topic_tree_hold(node);
    topic_tree_release(&tree, node);
    assert_ptr_equal(topic_tree_find(&tree, text("x/y")), node);
    topic_tree_release(&tree, node);
    assert_null(topic_tree_find(&tree, text("x")));
    topic_tree_fini(&tree);
}

static void new_children_come_first(void **state)
{
    (void)state;
    struct topic_tree tree;
    assert_int_equal(topic_tree_init(&tree, &test_seed, 100, 0, NULL), STATUS_OK);
    put(&tree, "a/1");
    put(&tree, "a/2");
    put(&tree, "b");
    static const char *const wanted[] = {"b", "a", "2", "1"};
    const struct topic_node *node = tree.root;
    for (size_t i = 0; i < 4; i++) {
        node = topic_tree_next(node);
        assert_non_null(node);
        assert_true(bytes_equal_string(topic_node_level(&tree, node), wanted[i]));
    }
    assert_null(topic_tree_next(node));
    topic_tree_fini(&tree);
}

static void limits_leave_the_tree_unchanged(void **state)
{
    (void)state;
    struct topic_tree tree;
    struct topic_node *node = NULL;
    assert_int_equal(topic_tree_init(&tree, &test_seed, 4, 0, NULL), STATUS_OK);
    put(&tree, "a/b");
    assert_int_equal(topic_tree_put(&tree, text("a/c/d/e"), &node), STATUS_LIMIT);
    assert_null(node);
    assert_int_equal(tree.node_count, 2);
    assert_null(topic_tree_find(&tree, text("a/c")));
    put(&tree, "a/c/d");
    topic_tree_check(&tree);
    topic_tree_fini(&tree);
}

static void levels_have_a_limit(void **state)
{
    (void)state;
    struct topic_tree tree;
    struct topic_node *node = NULL;
    char deep[TOPIC_LEVELS_MAX + 1];
    memset(deep, '/', sizeof deep);
    assert_int_equal(topic_tree_init(&tree, &test_seed, 1000, 0, NULL), STATUS_OK);
    assert_int_equal(topic_tree_put(&tree, bytes_of(deep, TOPIC_LEVELS_MAX), &node), STATUS_LIMIT);
    assert_int_equal(tree.node_count, 0);
    assert_int_equal(topic_tree_put(&tree, bytes_of(deep, TOPIC_LEVELS_MAX - 1), &node), STATUS_OK);
    assert_int_equal(tree.node_count, TOPIC_LEVELS_MAX);
    topic_tree_check(&tree);
    topic_tree_fini(&tree);
}

static void failed_allocations_leave_the_tree_unchanged(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 2; n++) {
        struct topic_tree none;
        mem_fail_at(n);
        assert_int_equal(topic_tree_init(&none, &test_seed, 10, 8, NULL), STATUS_NO_MEMORY);
    }
    mem_fail_at(0);
    struct topic_tree tree;
    assert_int_equal(topic_tree_init(&tree, &test_seed, 1000, 8, NULL), STATUS_OK);
    unsigned refused = 0;
    for (unsigned i = 0; i < 60; i++) {
        char topic[32];
        (void)snprintf(topic, sizeof topic, "a/%u/x/%u", i, i);
        for (uint64_t n = 1;; n++) {
            struct topic_node *node = NULL;
            size_t before = tree.node_count;
            mem_fail_at(n);
            enum status status = topic_tree_put(&tree, text(topic), &node);
            mem_fail_at(0);
            topic_tree_check(&tree);
            if (status == STATUS_OK) {
                break;
            }
            refused++;
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(tree.node_count, before);
            assert_null(node);
        }
    }
    assert_true(refused > 180); /* at least the three nodes of each topic */
    topic_tree_fini(&tree);
}

static unsigned forgotten;

static void count_forgotten(struct topic_node *node)
{
    (void)node;
    forgotten++;
}

static void grows_and_shrinks_and_forgets_each_node_once(void **state)
{
    (void)state;
    struct topic_tree tree;
    enum { TOPICS = 20000 };
    static struct topic_node *nodes[TOPICS];
    assert_int_equal(topic_tree_init(&tree, &test_seed, SIZE_MAX, 0, count_forgotten), STATUS_OK);
    for (unsigned i = 0; i < TOPICS; i++) {
        char topic[32];
        (void)snprintf(topic, sizeof topic, "t/%u", i);
        nodes[i] = put(&tree, topic);
    }
    topic_tree_check(&tree);
    size_t grown = tree.slot_count;
    for (unsigned i = 0; i < TOPICS - 10; i++) {
        topic_tree_release(&tree, nodes[i * 7 % (TOPICS - 10)]);
    }
    topic_tree_check(&tree);
    assert_int_equal(tree.node_count, 11);
    assert_true(tree.slot_count < grown / 8);
    assert_int_equal(forgotten, TOPICS - 10);
    topic_tree_fini(&tree);
    assert_int_equal(forgotten, TOPICS + 2); /* the node "t" and the root too */
}

/* Among so many nodes some share the 32 bits of their hash, some of those their level too. */
static void equal_hashes_are_told_apart(void **state)
{
    (void)state;
    struct topic_tree tree;
    enum { TOPICS = 200000 };
    assert_int_equal(topic_tree_init(&tree, &test_seed, SIZE_MAX, 0, NULL), STATUS_OK);
    for (unsigned i = 0; i < TOPICS; i++) {
        char topic[32];
        (void)snprintf(topic, sizeof topic, "%u/x", i);
        put(&tree, topic);
    }
    assert_int_equal(tree.node_count, 2 * TOPICS);
    topic_tree_check(&tree);
    topic_tree_fini(&tree);
}

static void random_use_agrees_with_counts(void **state)
{
    (void)state;
    enum { HELD_MAX = 300 };
    static struct topic_node *held[HELD_MAX];
    static char topics[HELD_MAX][RANDOM_TOPIC_BYTES];
    size_t count = 0;
    uint64_t random = 7;
    struct topic_tree tree;
    assert_int_equal(topic_tree_init(&tree, &test_seed, SIZE_MAX, 16, NULL), STATUS_OK);
    for (unsigned step = 0; step < 20000; step++) {
        if (count < HELD_MAX && random_below(&random, 100) < (step / 2000 % 2 == 0 ? 60 : 40)) {
            random_topic(&random, true, topics[count]);
            held[count] = put(&tree, topics[count]);
            count++;
        } else if (count != 0) {
            size_t i = random_below(&random, (unsigned)count);
            assert_ptr_equal(topic_tree_find(&tree, text(topics[i])), held[i]);
            topic_tree_release(&tree, held[i]);
            count--;
            held[i] = held[count];
            memmove(topics[i], topics[count], sizeof topics[i]);
        }
        if (step % 50 == 0) {
            topic_tree_check(&tree);
        }
    }
    while (count != 0) {
        topic_tree_release(&tree, held[--count]);
    }
    topic_tree_check(&tree);
    assert_int_equal(tree.node_count, 0);
    topic_tree_fini(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_one_node_for_each_prefix),
        cmocka_unit_test(empty_levels_are_levels),
        cmocka_unit_test(prunes_what_nothing_needs),
        cmocka_unit_test(a_held_node_stays_where_it_is),
        cmocka_unit_test(new_children_come_first),
        cmocka_unit_test(limits_leave_the_tree_unchanged),
        cmocka_unit_test(levels_have_a_limit),
        cmocka_unit_test(failed_allocations_leave_the_tree_unchanged),
        cmocka_unit_test(grows_and_shrinks_and_forgets_each_node_once),
        cmocka_unit_test(equal_hashes_are_told_apart),
        cmocka_unit_test(random_use_agrees_with_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
