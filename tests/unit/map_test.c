#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core_reference.h"
#include "map.h"
#include "mem.h"

struct entry {
    struct map_node node; /* first: a node is its entry */
    unsigned key;
    unsigned visits;
    bool present;
};

static bool is_key(const struct map_node *node, const void *key)
{
    return ((const struct entry *)(const void *)node)->key == *(const unsigned *)key;
}

static void add(struct map *map, struct entry *entry, uint64_t hash)
{
    assert_int_equal(map_add(map, hash, &entry->node), STATUS_OK);
    entry->present = true;
}

static struct entry *find(const struct map *map, uint64_t hash, unsigned key)
{
    return (struct entry *)(void *)map_find(map, hash, is_key, &key);
}

/* Many keys share a hash, and hashes differ in high bits only: what is found is decided by the key.
 */
static uint64_t bad_hash(unsigned key)
{
    return (uint64_t)(key % 16) << 40;
}

static void equal_hashes_are_told_apart_by_key(void **state)
{
    (void)state;
    enum { KEYS = 200 };
    static struct entry entries[KEYS];
    struct map map;
    map_init(&map);
    assert_null(find(&map, 0, 0));
    for (unsigned i = 0; i < KEYS; i++) {
        entries[i].key = i;
        add(&map, &entries[i], bad_hash(i));
    }
    for (unsigned i = 0; i < KEYS; i += 2) {
        map_remove(&map, &entries[i].node);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        assert_ptr_equal(find(&map, bad_hash(i), i), i % 2 == 0 ? NULL : &entries[i]);
    }
    assert_int_equal(map.count, KEYS / 2);
    map_fini(&map);
    assert_int_equal(map.count, 0);
}

static void random_use_agrees_with_a_table(void **state)
{
    (void)state;
    enum { KEYS = 3000 };
    static struct entry entries[KEYS];
    uint64_t random = 3;
    struct map map;
    size_t count = 0;
    map_init(&map);
    for (unsigned step = 0; step < 60000; step++) {
        unsigned key = random_below(&random, KEYS);
        uint64_t hash = hash_bytes(&test_seed, bytes_of(&key, sizeof key));
        struct entry *entry = &entries[key];
        entry->key = key;
        assert_ptr_equal(find(&map, hash, key), entry->present ? entry : NULL);
        if (entry->present) {
            map_remove(&map, &entry->node);
            entry->present = false;
            count--;
        } else {
            add(&map, entry, hash);
            count++;
        }
        assert_int_equal(map.count, count);
        assert_true(2 * map.bucket_count >= map.count);
    }
    map_fini(&map);
}

static struct map *removing_from;

static void visit(void *ctx, struct map_node *node)
{
    struct entry *entry = (struct entry *)(void *)node;
    entry->visits++;
    ++*(size_t *)ctx;
    if (entry->key % 3 == 0) {
        map_remove(removing_from, node);
        memset(node, 0xff, sizeof *node); /* as if it had been freed */
    }
}

static void each_visits_all_and_may_remove_the_visited(void **state)
{
    (void)state;
    enum { KEYS = 500 };
    static struct entry entries[KEYS];
    struct map map;
    size_t visits = 0;
    map_init(&map);
    map_each(&map, visit, &visits);
    assert_int_equal(visits, 0);
    for (unsigned i = 0; i < KEYS; i++) {
        entries[i].key = i;
        add(&map, &entries[i], bad_hash(i) + i / 20);
    }
    removing_from = &map;
    map_each(&map, visit, &visits);
    assert_int_equal(visits, KEYS);
    for (unsigned i = 0; i < KEYS; i++) {
        assert_int_equal(entries[i].visits, 1);
        assert_ptr_equal(find(&map, bad_hash(i) + i / 20, i), i % 3 == 0 ? NULL : &entries[i]);
    }
    map_fini(&map);
}

static void only_the_first_add_needs_memory(void **state)
{
    (void)state;
    static struct entry entries[1000];
    struct map map;
    map_init(&map);
    mem_fail_at(1);
    assert_int_equal(map_add(&map, 0, &entries[0].node), STATUS_NO_MEMORY);
    mem_fail_at(0);
    assert_int_equal(map.count, 0);
    for (unsigned i = 0; i < 1000; i++) {
        entries[i].key = i;
        if (i != 0) {
            mem_fail_at(1);
        }
        add(&map, &entries[i], i);
    }
    mem_fail_at(0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_ptr_equal(find(&map, i, i), &entries[i]);
    }
    map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_hashes_are_told_apart_by_key),
        cmocka_unit_test(random_use_agrees_with_a_table),
        cmocka_unit_test(each_visits_all_and_may_remove_the_visited),
        cmocka_unit_test(only_the_first_add_needs_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
