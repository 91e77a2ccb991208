/*
 * mem_pool: blocks that are asked for and freed by the thousand within one turn of a loop, as
 * messages are. Freed ones are kept by size for the next, since the C library keeps seven of a size
 * for a thread and puts all others through its lists, which took 15 % of what a busy pair of
 * clients costs.
 *
 *   Cost       A few instructions while there is a block of that size, else mem_alloc's.
 *   Memory     A block takes what mem_alloc would take. A thread keeps at most MEM_POOL_BYTES_MAX,
 *              about what a processor's second cache holds: more would not be faster.
 *   Threads    Any. A block may be freed by another thread than made it: that one keeps it then.
 *
 * Builds with a sanitizer have mem_pool_off.c instead, so that it sees each block come and go.
 */
#ifndef BASE_MEM_POOL_H
#define BASE_MEM_POOL_H

#include <stddef.h>

#include "status.h"

enum {
    MEM_POOL_BLOCK_MAX =
        1024, /* larger blocks are not kept: to fill them costs more than to get them */
    MEM_POOL_BYTES_MAX = 1024 * 1024,
};

/* `size` bytes, uninitialised; NULL when there is no memory. Counts as an allocation, kept block or
 * not. End with mem_pool_free. */
MUST_USE void *mem_pool_alloc(size_t size);

/* Frees or keeps a block of mem_pool_alloc. `size` is what it was asked for with. NULL is allowed.
 */
void mem_pool_free(void *block, size_t size);

/* Bytes in the blocks that the calling thread keeps. */
size_t mem_pool_bytes(void);

/* Frees them: for a thread that ends. */
void mem_pool_drain(void);

#endif
