/*
 * utf8: checks UTF-8 that arrives in pieces, and fails at the first byte that cannot belong to
 * valid text (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
 *
 *   Cost       One pass; eight ASCII bytes at a time.
 */
#ifndef TRANSPORT_UTF8_H
#define TRANSPORT_UTF8_H

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"

/* Zeroed memory is the state between two characters. */
struct utf8_checker {
    uint8_t need;      /* continuation bytes still to come */
    uint8_t low, high; /* bounds of the next one */
};

/* False when `bytes`, after all that came before, cannot be part of valid UTF-8. The checker is
 * then useless. */
static inline bool utf8_check(struct utf8_checker *checker, struct bytes bytes)
{
    size_t at = 0;
    while (at < bytes.len) {
        uint8_t byte = bytes.data[at];
        if (checker->need != 0) {
            if (byte < checker->low || byte > checker->high) {
                return false;
            }
            checker->need--;
            checker->low = 0x80;
            checker->high = 0xbf;
            at++;
            continue;
        }
        if (byte < 0x80) {
            uint64_t eight;
            at++;
            while (bytes.len - at >= sizeof eight) {
                memcpy(&eight, bytes.data + at, sizeof eight);
                if ((eight & UINT64_C(0x8080808080808080)) != 0) {
                    break;
                }
                at += sizeof eight;
            }
            continue;
        }
        if (byte < 0xc2 || byte > 0xf4) {
            return false;
        }
        checker->need = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        checker->low = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
        checker->high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
        at++;
    }
    return true;
}

/* True when no character is unfinished. */
static inline bool utf8_is_complete(const struct utf8_checker *checker)
{
    return checker->need == 0;
}

static inline bool utf8_is_valid(struct bytes bytes)
{
    struct utf8_checker checker = {0, 0, 0};
    return utf8_check(&checker, bytes) && utf8_is_complete(&checker);
}

/* The longest prefix of valid UTF-8 text of at most `max` bytes that does not cut a character. */
static inline struct bytes utf8_cut(struct bytes text, size_t max)
{
    if (text.len > max) {
        text.len = max;
        while (text.len > 0 && (text.data[text.len] & 0xc0) == 0x80) {
            text.len--;
        }
    }
    return text;
}

#endif
