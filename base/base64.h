/*
 * base64: bytes as text in the standard alphabet (RFC 4648, 4).
 *
 *   Cost   One pass; no allocation.
 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stdbool.h>

#include "bytes.h"
#include "status.h"

/* Characters that base64_encode writes for `len` bytes, padding included. */
static inline size_t base64_encoded_len(size_t len)
{
    return (len + 2) / 3 * 4;
}

/* Bytes that a text of `len` characters decodes to at most. */
static inline size_t base64_decoded_max(size_t len)
{
    return len / 4 * 3 + 2;
}

/* Writes `bytes` with padding; fails the writer when they do not fit. */
void base64_encode(struct bytes bytes, struct writer *writer);

/*
 * Writes what `text` stands for, with its padding or without any. False when it is no base64 or
 * does not fit: characters outside the alphabet, blanks included, a wrong number of them, or bits
 * behind the last byte that are not zero, so that every value has one text.
 */
MUST_USE bool base64_decode(struct bytes text, struct writer *writer);

#endif
