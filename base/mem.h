/*
 * mem: the one allocator. Everything the broker allocates itself goes through here, so that a test
 * can make the n-th allocation fail and see that the caller copes.
 *
 *   Threads    Any. A block may be freed by another thread than made it. What tests ask for and
 * count (mem_fail_at, mem_alloc_count) is the calling thread's own.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "status.h"

/* `size` bytes, uninitialised; NULL when there is no memory. size 0 is treated as 1. End with
 * mem_free. */
MUST_USE void *mem_alloc(size_t size);

/* The same, zeroed. */
MUST_USE void *mem_zalloc(size_t size);

/* Grows or shrinks; on NULL the old block is unchanged and still owned. */
MUST_USE void *mem_realloc(void *block, size_t size);

/* Frees what the functions above returned. NULL is allowed. */
void mem_free(void *block);

/* A copy of `bytes` followed by a NUL (not counted). NULL when there is no memory. */
MUST_USE char *mem_copy_string(struct bytes bytes);

/* Counts an allocation of this thread's; false: it is the one that is to fail. For what stands
 * before the allocator. */
bool mem_allows(void);

/* Makes this thread's n-th allocation from now (1 = the next) fail, and only that one. 0 switches
 * it off. */
void mem_fail_at(uint64_t n);

/* Allocations that this thread has asked for so far, for tests that count. */
uint64_t mem_alloc_count(void);

#endif
