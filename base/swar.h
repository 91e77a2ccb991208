/*
 * swar: looks at eight bytes at once in one 64-bit word. Used by the UTF-8 and topic checks, which
 * see every topic of every PUBLISH.
 *
 *   Cost   Inline; the result does not depend on the byte order of the machine.
 */
#ifndef BASE_SWAR_H
#define BASE_SWAR_H

#include <stdint.h>
#include <string.h>

#define SWAR_ONES UINT64_C(0x0101010101010101)
#define SWAR_HIGH_BITS UINT64_C(0x8080808080808080)

enum { SWAR_BYTES = 8 };

static inline uint64_t swar_load(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Not 0 exactly when a byte of `word` is 0. Which byte it is cannot be told from the result. */
static inline uint64_t swar_zero_bytes(uint64_t word)
{
    return (word - SWAR_ONES) & ~word & SWAR_HIGH_BITS;
}

/* Not 0 exactly when a byte of `word` equals `byte`. */
static inline uint64_t swar_equal_bytes(uint64_t word, uint8_t byte)
{
    return swar_zero_bytes(word ^ (SWAR_ONES * byte));
}

#endif
