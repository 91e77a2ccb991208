#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core_reference.h"
#include "mem.h"
#include "topic_trie.h"

/* Subscribers are only names for the trie: addresses inside this array. */
enum { SUBSCRIBERS = 100000 };
static char subscribers[SUBSCRIBERS];

static struct bytes text(const char *string)
{
    return bytes_of_string(string);
}

static struct topic_trie *create(size_t nodes_max)
{
    struct topic_trie *trie = NULL;
    assert_int_equal(topic_trie_create(&test_seed, nodes_max, &trie), STATUS_OK);
    return trie;
}

static bool add(struct topic_trie *trie, const char *filter, unsigned subscriber, uint32_t id)
{
    struct subscription subscription = {.subscriber = &subscribers[subscriber], .identifier = id};
    bool replaced = true;
    assert_int_equal(topic_trie_add(trie, text(filter), &subscription, &replaced), STATUS_OK);
    return replaced;
}

static void drop(struct topic_trie *trie, const char *filter, unsigned subscriber)
{
    assert_int_equal(topic_trie_remove(trie, text(filter), &subscribers[subscriber]), STATUS_OK);
}

struct matches {
    size_t count;
    struct subscription items[2000];
};

static void collect(void *ctx, const struct subscription *subscription)
{
    struct matches *matches = ctx;
    assert_true(matches->count < 2000);
    matches->items[matches->count++] = *subscription;
}

/* The second time a topic is remembered, from the third on matches come from memory: they must be
 * the same, in the same order. */
static size_t match(struct topic_trie *trie, const char *topic, struct matches *matches)
{
    static struct matches again;
    matches->count = 0;
    topic_trie_match(trie, text(topic), collect, matches);
    for (unsigned i = 0; i < 2; i++) {
        again.count = 0;
        topic_trie_match(trie, text(topic), collect, &again);
        assert_int_equal(again.count, matches->count);
        assert_memory_equal(again.items, matches->items, again.count * sizeof again.items[0]);
    }
    return matches->count;
}

static size_t match_count(struct topic_trie *trie, const char *topic)
{
    static struct matches matches;
    return match(trie, topic, &matches);
}

static void finds_what_the_specification_says(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *topic;
        size_t matches;
    } cases[] = {
        {"sport/tennis/player1/#", "sport/tennis/player1", 1},
        {"sport/tennis/player1/#", "sport/tennis/player1/ranking", 1},
        {"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", 1},
        {"sport/#", "sport", 1},
        {"sport/#", "sports", 0},
        {"#", "a/b/c", 1},
        {"sport/tennis/+", "sport/tennis/player1", 1},
        {"sport/tennis/+", "sport/tennis/player1/ranking", 0},
        {"sport/+", "sport", 0},
        {"sport/+", "sport/", 1},
        {"+", "/finance", 0},
        {"+/+", "/finance", 1},
        {"/+", "/finance", 1},
        {"+/tennis/#", "sport/tennis", 1},
        {"#", "$SYS/x", 0},
        {"+/monitor/Clients", "$SYS/monitor/Clients", 0},
        {"+/#", "$SYS", 0},
        {"$SYS/#", "$SYS/x", 1},
        {"$SYS/monitor/+", "$SYS/monitor/Clients", 1},
        {"a/$b", "a/$b", 1},
        {"a/+", "a/$b", 1},
        {"a/#", "a/$b", 1},
        {"ACCOUNTS", "Accounts", 0},
        {"a/b", "a", 0},
        {"a", "a/b", 0},
        {"a/+/+/#", "a/b/c", 1},
        {"a/+/+/#", "a/b", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct topic_trie *trie = create(100);
        assert_false(add(trie, cases[i].filter, 1, 0));
        assert_int_equal(match_count(trie, cases[i].topic), cases[i].matches);
        assert_int_equal(reference_match(cases[i].filter, cases[i].topic), cases[i].matches);
        topic_trie_check(trie);
        topic_trie_destroy(trie);
    }
}

/* A topic that was remembered follows every change. */
static void remembered_topics_follow_changes(void **state)
{
    (void)state;
    static struct matches matches;
    struct topic_trie *trie = create(100);
    add(trie, "x", 0, 0);
    assert_int_equal(match_count(trie, "a/b"), 0);
    add(trie, "a/b", 1, 7);
    assert_int_equal(match_count(trie, "a/b"), 1);
    assert_true(add(trie, "a/b", 1, 8));
    assert_int_equal(match(trie, "a/b", &matches), 1);
    assert_int_equal(matches.items[0].identifier, 8);
    for (unsigned i = 2; i < 100; i++) { /* the list moves, an index comes and goes */
        add(trie, "a/b", i, i);
        assert_int_equal(match_count(trie, "a/b"), i);
    }
    add(trie, "a/#", 1, 0);
    add(trie, "+/b", 1, 0);
    add(trie, "#", 1, 0);
    add(trie, "+/+", 1, 0); /* the fifth list: too many to be remembered */
    assert_int_equal(match_count(trie, "a/b"), 103);
    drop(trie, "#", 1);
    assert_int_equal(match_count(trie, "a/b"), 102);
    for (unsigned i = 1; i < 100; i++) {
        drop(trie, "a/b", i);
        assert_int_equal(match_count(trie, "a/b"), 102 - i);
    }
    topic_trie_check(trie);
    topic_trie_destroy(trie);
}

static void long_topics_are_not_remembered(void **state)
{
    (void)state;
    char topic[200] = {0};
    struct topic_trie *trie = create(1000);
    add(trie, "#", 1, 0);
    for (size_t len = 1; len < sizeof topic; len++) {
        topic[len - 1] = len % 9 == 0 ? '/' : 'a';
        assert_int_equal(match_count(trie, topic), 1);
        add(trie, topic, 2, 0);
        assert_int_equal(match_count(trie, topic), 2);
    }
    topic_trie_check(trie);
    topic_trie_destroy(trie);
}

static void replaces_what_a_subscriber_had(void **state)
{
    (void)state;
    struct topic_trie *trie = create(100);
    struct matches matches;
    assert_false(add(trie, "a/+", 1, 5));
    assert_true(add(trie, "a/+", 1, 6));
    assert_false(add(trie, "a/+", 2, 7));
    assert_false(add(trie, "a/b", 1, 8));
    assert_true(add(trie, "a/+", 2, 9));
    assert_int_equal(topic_trie_count(trie), 3);
    assert_int_equal(match(trie, "a/b", &matches), 3);
    assert_int_equal(topic_trie_find(trie, text("a/+"), &subscribers[1])->identifier, 6);
    assert_int_equal(topic_trie_find(trie, text("a/+"), &subscribers[2])->identifier, 9);
    assert_null(topic_trie_find(trie, text("a/+"), &subscribers[3]));
    assert_null(topic_trie_find(trie, text("a"), &subscribers[1]));
    assert_null(topic_trie_find(trie, text("z"), &subscribers[1]));
    topic_trie_check(trie);
    topic_trie_destroy(trie);
}

static void keeps_all_of_a_subscription(void **state)
{
    (void)state;
    struct topic_trie *trie = create(100);
    struct matches matches;
    bool replaced = true;
    const struct subscription wish = {.subscriber = &subscribers[9],
                                      .identifier = 268435455,
                                      .qos = 2,
                                      .no_local = true,
                                      .retain_as_published = true,
                                      .is_group = true};
    assert_int_equal(topic_trie_add(trie, text("t"), &wish, &replaced), STATUS_OK);
    assert_false(replaced);
    assert_int_equal(match(trie, "t", &matches), 1);
    assert_ptr_equal(matches.items[0].subscriber, &subscribers[9]);
    assert_int_equal(matches.items[0].identifier, 268435455);
    assert_int_equal(matches.items[0].qos, 2);
    assert_true(matches.items[0].no_local && matches.items[0].retain_as_published &&
                matches.items[0].is_group);
    assert_true(sizeof(struct subscription) == 16);
    topic_trie_destroy(trie);
}

static void removing_what_is_not_there_changes_nothing(void **state)
{
    (void)state;
    struct topic_trie *trie = create(100);
    add(trie, "a/b", 1, 0);
    static const char *const absent[] = {"a", "a/b/c", "a/+", "#", "x"};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(topic_trie_remove(trie, text(absent[i]), &subscribers[1]),
                         STATUS_NOT_FOUND);
    }
    assert_int_equal(topic_trie_remove(trie, text("a/b"), &subscribers[2]), STATUS_NOT_FOUND);
    assert_int_equal(topic_trie_node_count(trie), 2);
    topic_trie_check(trie);
    drop(trie, "a/b", 1);
    assert_int_equal(topic_trie_node_count(trie), 0);
    topic_trie_check(trie);
    topic_trie_destroy(trie);
}

static void limits_leave_the_trie_unchanged(void **state)
{
    (void)state;
    struct topic_trie *trie = create(3);
    struct subscription subscription = {.subscriber = &subscribers[1]};
    bool replaced = true;
    add(trie, "a/b", 1, 0);
    assert_int_equal(topic_trie_add(trie, text("+/#"), &subscription, &replaced), STATUS_LIMIT);
    assert_false(replaced);
    topic_trie_check(trie);
    assert_int_equal(topic_trie_node_count(trie), 2);
    assert_int_equal(match_count(trie, "x/y"), 0);
    add(trie, "+", 1, 0);
    char deep[TOPIC_LEVELS_MAX];
    memset(deep, '/', sizeof deep);
    assert_int_equal(topic_trie_add(trie, bytes_of(deep, sizeof deep), &subscription, &replaced),
                     STATUS_LIMIT);
    topic_trie_check(trie);
    topic_trie_destroy(trie);
}

/* Filters of the greatest depth, and topics beyond it, which only a '#' can match. */
static void deep_topics_match(void **state)
{
    (void)state;
    struct topic_trie *trie = create(1000);
    char plus[2 * TOPIC_LEVELS_MAX] = "";
    for (size_t i = 0; i < TOPIC_LEVELS_MAX; i++) {
        memcpy(plus + 2 * i, "+/", 2);
    }
    plus[2 * TOPIC_LEVELS_MAX - 1] = '\0';
    add(trie, plus, 1, 0);
    add(trie, "a/#", 2, 0);
    char hash[2 * TOPIC_LEVELS_MAX];
    memcpy(hash, plus, sizeof hash);
    hash[2 * TOPIC_LEVELS_MAX - 2] = '#';
    add(trie, hash, 3, 0);
    char topic[2 * TOPIC_LEVELS_MAX + 2] = "";
    for (size_t i = 0; i <= TOPIC_LEVELS_MAX; i++) {
        memcpy(topic + 2 * i, "a/", 2);
    }
    topic[2 * TOPIC_LEVELS_MAX + 1] = '\0';
    assert_int_equal(match_count(trie, topic), 2);
    topic[2 * TOPIC_LEVELS_MAX - 1] = '\0';
    assert_int_equal(match_count(trie, topic), 3);
    topic[2 * TOPIC_LEVELS_MAX - 3] = '\0';
    assert_int_equal(match_count(trie, topic), 2);
    topic[2 * TOPIC_LEVELS_MAX - 5] = '\0';
    assert_int_equal(match_count(trie, topic), 1);
    topic_trie_check(trie);
    topic_trie_destroy(trie);
}

/* Every '+' leaves a branch: all 2^10 ways through the trie are walked, each once. */
static void every_branch_is_walked(void **state)
{
    (void)state;
    enum { DEPTH = 10 };
    struct topic_trie *trie = create(SIZE_MAX);
    for (unsigned bits = 0; bits < 1U << DEPTH; bits++) {
        char filter[2 * DEPTH];
        for (size_t i = 0; i < DEPTH; i++) {
            filter[2 * i] = (bits >> i & 1) != 0 ? '+' : 'a';
            filter[2 * i + 1] = '/';
        }
        filter[2 * DEPTH - 1] = '\0';
        add(trie, filter, 1, bits);
    }
    static struct matches matches;
    static bool seen[1U << DEPTH];
    assert_int_equal(match(trie, "a/a/a/a/a/a/a/a/a/a", &matches), 1U << DEPTH);
    for (size_t i = 0; i < matches.count; i++) {
        assert_false(seen[matches.items[i].identifier]);
        seen[matches.items[i].identifier] = true;
    }
    assert_int_equal(match_count(trie, "a/a/a/a/b/a/a/a/a/a"), 1U << (DEPTH - 1));
    topic_trie_destroy(trie);
}

/* The model: a flat list of (filter, subscriber). `stamp` is the identifier of the latest add. */
enum { MODEL_MAX = 1500, MODEL_SUBSCRIBERS = 60 };
struct model {
    size_t count;
    struct {
        char filter[RANDOM_TOPIC_BYTES];
        unsigned subscriber;
        uint32_t stamp;
    } items[MODEL_MAX];
};

static size_t model_find(const struct model *model, const char *filter, unsigned subscriber)
{
    size_t i = 0;
    while (i < model->count && (model->items[i].subscriber != subscriber ||
                                strcmp(model->items[i].filter, filter) != 0)) {
        i++;
    }
    return i;
}

static void model_step(struct model *model, struct topic_trie *trie, uint64_t *random, bool grow)
{
    char filter[RANDOM_TOPIC_BYTES];
    random_topic(random, true, filter);
    unsigned subscriber = random_below(random, MODEL_SUBSCRIBERS);
    if (model->count < MODEL_MAX && random_below(random, 100) < (grow ? 70 : 30)) {
        uint32_t stamp = (uint32_t)random_next(random);
        size_t at = model_find(model, filter, subscriber);
        assert_int_equal(add(trie, filter, subscriber, stamp), at != model->count);
        model->count += at == model->count;
        memcpy(model->items[at].filter, filter, sizeof filter);
        model->items[at].subscriber = subscriber;
        model->items[at].stamp = stamp;
    } else if (model->count != 0) {
        size_t at = random_below(random, (unsigned)model->count);
        drop(trie, model->items[at].filter, model->items[at].subscriber);
        model->count--;
        memmove(&model->items[at], &model->items[model->count], sizeof model->items[0]);
        bool there = model_find(model, filter, subscriber) != model->count;
        assert_int_equal(topic_trie_find(trie, text(filter), &subscribers[subscriber]) != NULL,
                         there);
    }
}

/* Each expected match is reported once, with its latest stamp, and nothing else is. */
static void model_compare(const struct model *model, struct topic_trie *trie, const char *topic)
{
    static struct matches matches;
    size_t expected = 0;
    match(trie, topic, &matches);
    for (size_t i = 0; i < model->count; i++) {
        if (!reference_match(model->items[i].filter, topic)) {
            continue;
        }
        expected++;
        size_t found = 0;
        for (size_t j = 0; j < matches.count; j++) {
            found += matches.items[j].identifier == model->items[i].stamp &&
                     matches.items[j].subscriber == &subscribers[model->items[i].subscriber];
        }
        assert_int_equal(found, 1);
    }
    assert_int_equal(matches.count, expected);
    assert_int_equal(topic_trie_count(trie), model->count);
}

static void agrees_with_brute_force(void **state)
{
    (void)state;
    static struct model model;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        uint64_t random = seed;
        struct topic_trie *trie = create(SIZE_MAX);
        model.count = 0;
        for (unsigned step = 0; step < 4000; step++) {
            model_step(&model, trie, &random, step / 1000 % 2 == 0);
            if (step % 20 == 0) {
                char topic[RANDOM_TOPIC_BYTES];
                random_topic(&random, false, topic);
                model_compare(&model, trie, topic);
            }
            if (step % 200 == 0) {
                topic_trie_check(trie);
            }
        }
        while (model.count != 0) {
            model.count--;
            drop(trie, model.items[model.count].filter, model.items[model.count].subscriber);
        }
        topic_trie_check(trie);
        assert_int_equal(topic_trie_node_count(trie), 0);
        topic_trie_destroy(trie);
    }
}

static void the_order_of_matches_does_not_depend_on_addresses(void **state)
{
    (void)state;
    static struct matches first, second;
    struct topic_trie *tries[2] = {create(SIZE_MAX), create(SIZE_MAX)};
    static const char *const filters[] = {"a/b", "a/+", "#", "a/#", "+/b", "+/+"};
    for (unsigned i = 0; i < 600; i++) {
        add(tries[0], filters[i % 6], i, i);
        add(tries[1], filters[i % 6], SUBSCRIBERS - 1 - i * 37, i);
    }
    for (unsigned i = 0; i < 600; i += 5) {
        drop(tries[0], filters[i % 6], i);
        drop(tries[1], filters[i % 6], SUBSCRIBERS - 1 - i * 37);
    }
    assert_int_equal(match(tries[0], "a/b", &first), 480);
    assert_int_equal(match(tries[1], "a/b", &second), 480);
    for (size_t i = 0; i < 480; i++) {
        assert_int_equal(first.items[i].identifier, second.items[i].identifier);
    }
    topic_trie_destroy(tries[0]);
    topic_trie_destroy(tries[1]);
}

static void failed_allocations_leave_the_trie_unchanged(void **state)
{
    (void)state;
    struct topic_trie *trie = NULL;
    for (uint64_t n = 1; n <= 4; n++) {
        mem_fail_at(n);
        assert_int_equal(topic_trie_create(&test_seed, 10, &trie), STATUS_NO_MEMORY);
        assert_null(trie);
    }
    mem_fail_at(0);
    trie = create(SIZE_MAX);
    static const char *const filters[] = {"a", "+/b/#", "x/y/z/+"};
    unsigned refused = 0;
    for (unsigned i = 0; i < 300; i++) {
        char filter[32];
        (void)snprintf(filter, sizeof filter, "%s", filters[i % 3]);
        if (i >= 240) { /* new nodes rather than longer lists */
            (void)snprintf(filter, sizeof filter, "%u/+/%u/#", i, i);
        }
        struct subscription subscription = {.subscriber = &subscribers[i]};
        enum status status = STATUS_NO_MEMORY;
        for (uint64_t n = 1; status != STATUS_OK; n++) {
            bool replaced = true;
            size_t nodes = topic_trie_node_count(trie);
            mem_fail_at(n);
            status = topic_trie_add(trie, text(filter), &subscription, &replaced);
            mem_fail_at(0);
            topic_trie_check(trie);
            assert_false(replaced);
            if (status != STATUS_OK) {
                refused++;
                assert_int_equal(status, STATUS_NO_MEMORY);
                assert_int_equal(topic_trie_count(trie), i);
                assert_int_equal(topic_trie_node_count(trie), nodes);
            }
        }
    }
    assert_true(refused > 60 * 4);
    for (unsigned i = 0; i < 240; i++) { /* removing needs no memory */
        mem_fail_at(1);
        drop(trie, filters[i % 3], i);
        mem_fail_at(0);
        topic_trie_check(trie);
    }
    topic_trie_destroy(trie);
}

/* The list grows by doubling: some forty allocations, not one for each subscriber. */
static void a_hundred_thousand_subscribers_share_a_filter(void **state)
{
    (void)state;
    struct topic_trie *trie = create(100);
    uint64_t allocated = mem_alloc_count();
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        assert_false(add(trie, "news", i, i));
    }
    assert_true(mem_alloc_count() - allocated < 40);
    topic_trie_check(trie);
    assert_int_equal(topic_trie_count(trie), SUBSCRIBERS);
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        drop(trie, "news", (unsigned)(i * UINT64_C(7919) % SUBSCRIBERS));
        if (i % 9973 == 0) {
            topic_trie_check(trie);
        }
    }
    assert_int_equal(topic_trie_node_count(trie), 0);
    topic_trie_destroy(trie);
}

static void matching_allocates_nothing(void **state)
{
    (void)state;
    struct topic_trie *trie = create(SIZE_MAX);
    for (unsigned i = 0; i < 100; i++) {
        add(trie, i % 2 == 0 ? "a/+/c" : "a/#", i, 0);
    }
    uint64_t allocated = mem_alloc_count();
    assert_int_equal(match_count(trie, "a/b/c"), 100);
    assert_int_equal(mem_alloc_count(), allocated);
    topic_trie_destroy(trie);
    topic_trie_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_the_specification_says),
        cmocka_unit_test(remembered_topics_follow_changes),
        cmocka_unit_test(long_topics_are_not_remembered),
        cmocka_unit_test(replaces_what_a_subscriber_had),
        cmocka_unit_test(keeps_all_of_a_subscription),
        cmocka_unit_test(removing_what_is_not_there_changes_nothing),
        cmocka_unit_test(limits_leave_the_trie_unchanged),
        cmocka_unit_test(deep_topics_match),
        cmocka_unit_test(every_branch_is_walked),
        cmocka_unit_test(agrees_with_brute_force),
        cmocka_unit_test(the_order_of_matches_does_not_depend_on_addresses),
        cmocka_unit_test(failed_allocations_leave_the_trie_unchanged),
        cmocka_unit_test(a_hundred_thousand_subscribers_share_a_filter),
        cmocka_unit_test(matching_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
