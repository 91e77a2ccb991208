#include "mem_pool.h"

#include "mem.h"

/* malloc's blocks have sizes 8, 24, 40, ... behind its own eight bytes: so have ours, and waste
 * nothing. */
enum { STEP = 16, FIRST = 8, SIZES = (MEM_POOL_BLOCK_MAX - FIRST + STEP - 1) / STEP + 1 };

struct kept {
    struct kept *next;
};

static _Thread_local struct {
    struct kept *blocks[SIZES];
    size_t bytes;
} pool;

static size_t index_of(size_t size)
{
    return size <= FIRST ? 0 : (size - FIRST + STEP - 1) / STEP;
}

static size_t bytes_at(size_t index)
{
    return FIRST + index * STEP;
}

void *mem_pool_alloc(size_t size)
{
    size_t index = index_of(size);
    if (index >= SIZES) {
        return mem_alloc(size);
    }
    struct kept *block = pool.blocks[index];
    if (block == NULL) {
        return mem_alloc(bytes_at(index));
    }
    if (!mem_allows()) {
        return NULL;
    }
    pool.blocks[index] = block->next;
    pool.bytes -= bytes_at(index);
    return block;
}

void mem_pool_free(void *block, size_t size)
{
    size_t index = index_of(size);
    if (block == NULL || index >= SIZES || pool.bytes + bytes_at(index) > MEM_POOL_BYTES_MAX) {
        mem_free(block);
        return;
    }
    struct kept *kept = block;
    kept->next = pool.blocks[index];
    pool.blocks[index] = kept;
    pool.bytes += bytes_at(index);
}

size_t mem_pool_bytes(void)
{
    return pool.bytes;
}

void mem_pool_drain(void)
{
    for (size_t i = 0; i < SIZES; i++) {
        while (pool.blocks[i] != NULL) {
            struct kept *block = pool.blocks[i];
            pool.blocks[i] = block->next;
            mem_free(block);
        }
    }
    pool.bytes = 0;
}
