/* core/id_set: compared with a plain array, and the ways in which a removal can break a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "id_set.h"
#include "mem.h"

static uint64_t arrival_of(uint16_t id)
{
    return ID_SET_ARRIVAL_MAX - id;
}

/* Takes the identifier out, with the number that it came with. */
static bool take(struct id_set *set, uint16_t id)
{
    uint64_t arrival = 0;
    bool there = id_set_remove(set, id, &arrival);
    assert_true(arrival == (there ? arrival_of(id) : 0));
    return there;
}

static void add(struct id_set *set, uint16_t id)
{
    assert_int_equal(id_set_add(set, id, arrival_of(id)), STATUS_OK);
}

static void empty_set_has_nothing_and_no_memory(void **state)
{
    (void)state;
    uint64_t before = mem_alloc_count();
    struct id_set set = {0};
    assert_false(id_set_has(&set, 1));
    assert_false(take(&set, 1));
    id_set_fini(&set);
    assert_int_equal(mem_alloc_count(), before);
}

/* Identifiers 16 apart share a home in a small set: a removal must close the run behind it. */
static void removal_from_a_run_keeps_the_rest_reachable(void **state)
{
    (void)state;
    static const uint16_t run[] = {3, 19, 35, 4, 51, 5};
    for (size_t gone = 0; gone < sizeof run / sizeof *run; gone++) {
        struct id_set set = {0};
        for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
            add(&set, run[i]);
        }
        assert_true(take(&set, run[gone]));
        assert_false(take(&set, run[gone]));
        for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
            assert_int_equal(id_set_has(&set, run[i]), i != gone);
        }
        id_set_fini(&set);
    }
}

/* A run that goes over the end of the table to its beginning. */
static void removal_from_a_run_that_wraps(void **state)
{
    (void)state;
    static const uint16_t run[] = {14, 30, 15, 31, 16, 47, 1};
    for (size_t gone = 0; gone < sizeof run / sizeof *run; gone++) {
        struct id_set set = {0};
        for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
            add(&set, run[i]);
        }
        assert_true(take(&set, run[gone]));
        for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
            assert_int_equal(id_set_has(&set, run[i]), i != gone);
        }
        id_set_fini(&set);
    }
}

static void holds_all_identifiers(void **state)
{
    (void)state;
    struct id_set set = {0};
    for (uint32_t id = 1; id <= UINT16_MAX; id++) {
        add(&set, (uint16_t)id);
    }
    assert_int_equal(id_set_count(&set), UINT16_MAX);
    for (uint32_t id = 1; id <= UINT16_MAX; id++) {
        assert_true(id_set_has(&set, (uint16_t)id));
        assert_true(take(&set, (uint16_t)id));
    }
    assert_int_equal(id_set_count(&set), 0);
    assert_null(set.table); /* a large table is not kept for nothing */
    id_set_fini(&set);
}

static void random_changes_agree_with_an_array(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        /* Few identifiers: long runs; many: growth. */
        uint16_t span = seed % 2 == 0 ? 200 : 3000;
        bool *model = calloc(span + 1U, sizeof *model);
        struct id_set set = {0};
        uint32_t count = 0;
        uint64_t random = seed;
        for (unsigned step = 0; step < 20000; step++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            uint16_t id = (uint16_t)((random >> 40) % span + 1);
            assert_int_equal(id_set_has(&set, id), model[id]);
            if (model[id]) {
                assert_true(take(&set, id));
                count--;
            } else {
                add(&set, id);
                count++;
            }
            model[id] = !model[id];
            assert_int_equal(id_set_count(&set), count);
        }
        for (uint32_t id = 1; id <= span; id++) {
            assert_int_equal(id_set_has(&set, (uint16_t)id), model[id]);
        }
        uint16_t popped;
        uint64_t arrival;
        while (id_set_pop(&set, &popped, &arrival)) {
            assert_true(model[popped] && arrival == arrival_of(popped));
            model[popped] = false;
            count--;
        }
        assert_int_equal(count, 0);
        id_set_fini(&set);
        free(model);
    }
}

static void without_memory_nothing_changes(void **state)
{
    (void)state;
    struct id_set set = {0};
    mem_fail_at(1);
    assert_int_equal(id_set_add(&set, 1, arrival_of(1)), STATUS_NO_MEMORY);
    assert_int_equal(id_set_count(&set), 0);
    for (uint16_t id = 1; id <= 12; id++) {
        add(&set, id);
    }
    mem_fail_at(1); /* the thirteenth needs a larger table */
    assert_int_equal(id_set_add(&set, 13, arrival_of(13)), STATUS_NO_MEMORY);
    mem_fail_at(0);
    assert_int_equal(id_set_count(&set), 12);
    for (uint16_t id = 1; id <= 12; id++) {
        assert_true(id_set_has(&set, id));
    }
    assert_false(id_set_has(&set, 13));
    id_set_fini(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_set_has_nothing_and_no_memory),
        cmocka_unit_test(removal_from_a_run_keeps_the_rest_reachable),
        cmocka_unit_test(removal_from_a_run_that_wraps),
        cmocka_unit_test(holds_all_identifiers),
        cmocka_unit_test(random_changes_agree_with_an_array),
        cmocka_unit_test(without_memory_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
