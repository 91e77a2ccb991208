/* The pool that keeps nothing, for builds with a sanitizer. */
#include "mem_pool.h"

#include "mem.h"

void *mem_pool_alloc(size_t size)
{
    return mem_alloc(size);
}

void mem_pool_free(void *block, size_t size)
{
    (void)size;
    mem_free(block);
}

size_t mem_pool_bytes(void)
{
    return 0;
}

void mem_pool_drain(void)
{
}
