/* Blocks that are kept, or, in builds with a sanitizer, are not: their users see no difference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "mem_pool.h"

enum { SIZE_MAX_TESTED = MEM_POOL_BLOCK_MAX + 64 };

static int drain(void **state)
{
    (void)state;
    mem_pool_drain();
    assert_int_equal(mem_pool_bytes(), 0);
    return 0;
}

static bool keeps(void)
{
    mem_pool_free(mem_pool_alloc(1), 1);
    bool kept = mem_pool_bytes() != 0;
    mem_pool_drain();
    return kept;
}

/* Blocks of all sizes at once, then again from what is kept: each can be filled to its end. */
static void every_size(void **state)
{
    static uint8_t *blocks[SIZE_MAX_TESTED];
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (size_t size = 0; size < SIZE_MAX_TESTED; size++) {
            blocks[size] = mem_pool_alloc(size);
            assert_non_null(blocks[size]);
            memset(blocks[size], (int)(size % 251), size);
        }
        for (size_t size = 0; size < SIZE_MAX_TESTED; size++) {
            for (size_t i = 0; i < size; i++) {
                assert_int_equal(blocks[size][i], size % 251);
            }
            mem_pool_free(blocks[size], size);
        }
    }
    mem_pool_free(NULL, 100);
}

static void last_one_freed_comes_first(void **state)
{
    (void)state;
    if (!keeps()) {
        skip();
    }
    void *first = mem_pool_alloc(100);
    void *second = mem_pool_alloc(100);
    mem_pool_free(first, 100);
    mem_pool_free(second, 100);
    size_t bytes = mem_pool_bytes();
    assert_true(bytes >= 200 && bytes <= 232);
    assert_ptr_equal(mem_pool_alloc(100), second);
    assert_ptr_equal(mem_pool_alloc(100), first);
    assert_int_equal(mem_pool_bytes(), 0);
    mem_free(first);
    mem_free(second);
}

static void what_is_kept_is_bounded(void **state)
{
    enum { COUNT = 4 * MEM_POOL_BYTES_MAX / MEM_POOL_BLOCK_MAX, LARGE = 100 * 1024 };
    static void *blocks[COUNT];
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = mem_pool_alloc(MEM_POOL_BLOCK_MAX);
        assert_non_null(blocks[i]);
    }
    for (size_t i = 0; i < COUNT; i++) {
        mem_pool_free(blocks[i], MEM_POOL_BLOCK_MAX);
        assert_true(mem_pool_bytes() <= MEM_POOL_BYTES_MAX);
    }
    mem_pool_drain();
    void *large = mem_pool_alloc(LARGE);
    mem_pool_free(large, LARGE);
    assert_int_equal(mem_pool_bytes(), 0);
}

/* A test that makes an allocation fail, or counts, need not know what is kept. */
static void kept_blocks_count_as_allocations(void **state)
{
    (void)state;
    mem_pool_free(mem_pool_alloc(100), 100);
    size_t kept = mem_pool_bytes();
    uint64_t allocations = mem_alloc_count();
    mem_fail_at(2);
    void *block = mem_pool_alloc(100);
    assert_non_null(block);
    assert_int_equal(mem_alloc_count(), allocations + 1);
    mem_pool_free(block, 100);
    assert_null(mem_pool_alloc(100));
    assert_int_equal(mem_pool_bytes(), kept);
    mem_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_size, drain),
        cmocka_unit_test_teardown(last_one_freed_comes_first, drain),
        cmocka_unit_test_teardown(what_is_kept_is_bounded, drain),
        cmocka_unit_test_teardown(kept_blocks_count_as_allocations, drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
