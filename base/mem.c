#include "mem.h"

#include <stdlib.h>
#include <string.h>

/* Each thread counts for itself: a count that all share would be the one line of memory that all of
 * them write. */
static _Thread_local uint64_t alloc_count;
static _Thread_local uint64_t fail_at;

bool mem_allows(void)
{
    return ++alloc_count != fail_at;
}

void *mem_alloc(size_t size)
{
    return mem_allows() ? malloc(size == 0 ? 1 : size) : NULL;
}

void *mem_zalloc(size_t size)
{
    return mem_allows() ? calloc(1, size == 0 ? 1 : size) : NULL;
}

void *mem_realloc(void *block, size_t size)
{
    return mem_allows() ? realloc(block, size == 0 ? 1 : size) : NULL;
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
    fail_at = n == 0 ? 0 : alloc_count + n;
}

uint64_t mem_alloc_count(void)
{
    return alloc_count;
}
