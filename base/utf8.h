/*
 * utf8: what is well-formed UTF-8 (RFC 3629): no surrogates, no overlong forms, nothing over
 * U+10FFFF.
 *
 *   Cost   One pass; eight bytes of ASCII at a time. No allocation.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"

/*
 * Well-formed UTF-8 (RFC 3629): no surrogates, no overlong forms, and no U+0000 [MQTT-1.5.4-2].
 * Noncharacters and control characters are allowed (the standard says SHOULD NOT).
 */
bool utf8_is_valid_string(struct bytes bytes);

/* The same, but U+0000 is allowed: text payloads and WebSocket text. */
bool utf8_is_valid(struct bytes bytes);

/*
 * Incremental UTF-8 check for text that comes in pieces. Start with {0}; feed each piece;
 * utf8_state_is_complete after the last. Returns false as soon as the text cannot become valid.
 */
struct utf8_state {
    uint8_t needed;    /* continuation bytes still to come */
    uint8_t low, high; /* range allowed for the next one */
};
bool utf8_feed(struct utf8_state *state, struct bytes piece);
bool utf8_state_is_complete(const struct utf8_state *state);

/* The longest prefix of the well-formed `text` that has at most `max` bytes and cuts no character.
 */
struct bytes utf8_cut(struct bytes text, size_t max);

#endif
