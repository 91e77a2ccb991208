#include "mem.h"

#include <stdlib.h>
#include <string.h>

/* Relaxed atomics: the counts serve tests, and I/O threads may allocate too. */
static uint64_t alloc_count;
static uint64_t fail_at;

static int allowed(void)
{
    uint64_t n = __atomic_add_fetch(&alloc_count, 1, __ATOMIC_RELAXED);
    uint64_t at = __atomic_load_n(&fail_at, __ATOMIC_RELAXED);
    return at == 0 || n != at;
}

void *mem_alloc(size_t size)
{
    return allowed() ? malloc(size == 0 ? 1 : size) : NULL;
}

void *mem_zalloc(size_t size)
{
    return allowed() ? calloc(1, size == 0 ? 1 : size) : NULL;
}

void *mem_realloc(void *block, size_t size)
{
    return allowed() ? realloc(block, size == 0 ? 1 : size) : NULL;
}

void mem_free(void *block)
{
    free(block);
}

char *mem_copy_string(struct bytes bytes)
{
    char *copy = mem_alloc(bytes.len + 1);
    if (copy != NULL) {
        bytes_copy(copy, bytes);
        copy[bytes.len] = '\0';
    }
    return copy;
}

void mem_fail_at(uint64_t n)
{
    uint64_t at = n == 0 ? 0 : mem_alloc_count() + n;
    __atomic_store_n(&fail_at, at, __ATOMIC_RELAXED);
}

uint64_t mem_alloc_count(void)
{
    return __atomic_load_n(&alloc_count, __ATOMIC_RELAXED);
}
