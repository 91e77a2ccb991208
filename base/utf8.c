#include "utf8.h"

#include "swar.h"

/*
 * Begins the sequence that `lead` announces. The first continuation byte has a range of its own,
 * which is where overlong forms, surrogates and values over U+10FFFF are refused (RFC 3629, section
 * 4). False for a byte that cannot begin a character.
 */
static inline bool begin_character(struct utf8_state *state, uint8_t lead)
{
    if (lead >= 0x80 && (lead < 0xC2 || lead > 0xF4)) {
        return false;
    }
    state->low = 0x80;
    state->high = 0xBF;
    if (lead < 0x80) {
        state->needed = 0;
    } else if (lead < 0xE0) {
        state->needed = 1;
    } else if (lead < 0xF0) {
        state->needed = 2;
        state->low = lead == 0xE0 ? 0xA0 : 0x80;
        state->high = lead == 0xED ? 0x9F : 0xBF;
    } else {
        state->needed = 3;
        state->low = lead == 0xF0 ? 0x90 : 0x80;
        state->high = lead == 0xF4 ? 0x8F : 0xBF;
    }
    return true;
}

/* The bytes of the character at `at`, or 0 when there is no whole and well-formed one. */
static inline size_t character_len(const uint8_t *at, const uint8_t *end)
{
    struct utf8_state state;
    if (!begin_character(&state, at[0])) {
        return 0;
    }
    size_t needed = state.needed;
    if (needed == 0) {
        return 1;
    }
    if ((size_t)(end - at) <= needed || at[1] < state.low || at[1] > state.high) {
        return 0;
    }
    for (size_t i = 2; i <= needed; i++) {
        if ((at[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return needed + 1;
}

/* The first eight bytes that are not plain ASCII, or the last bytes when fewer than eight are left.
 */
static inline const uint8_t *skip_ascii(const uint8_t *at, const uint8_t *end, bool nul_allowed)
{
    while (end - at >= SWAR_BYTES) {
        uint64_t word = swar_load(at);
        uint64_t stop = word & SWAR_HIGH_BITS;
        if (!nul_allowed) {
            stop |= swar_zero_bytes(word);
        }
        if (stop != 0) {
            break;
        }
        at += SWAR_BYTES;
    }
    return at;
}

static bool is_well_formed(struct bytes bytes, bool nul_allowed)
{
    if (bytes.len == 0) {
        return true;
    }
    const uint8_t *at = bytes.data;
    const uint8_t *end = at + bytes.len;
    while (at < end) {
        at = skip_ascii(at, end, nul_allowed);
        if (end - at < SWAR_BYTES && bytes.len >= SWAR_BYTES &&
            skip_ascii(end - SWAR_BYTES, end, nul_allowed) == end) {
            return true; /* the last eight bytes are plain, those before them were well-formed */
        }
        /* Eight bytes by hand before the next word is tried keep text without ASCII fast too. */
        const uint8_t *pause = end - at > SWAR_BYTES ? at + SWAR_BYTES : end;
        while (at < pause) {
            size_t len = character_len(at, end);
            if (len == 0 || (at[0] == 0 && !nul_allowed)) {
                return false;
            }
            at += len;
        }
    }
    return true;
}

bool utf8_is_valid_string(struct bytes bytes)
{
    return is_well_formed(bytes, false);
}

bool utf8_is_valid(struct bytes bytes)
{
    return is_well_formed(bytes, true);
}

/* Leaves a state from which no byte leads back, so that a caller who goes on after `false` hears it
 * again. */
static bool refuse(struct utf8_state *state)
{
    *state = (struct utf8_state){.needed = 1, .low = 1, .high = 0};
    return false;
}

bool utf8_feed(struct utf8_state *state, struct bytes piece)
{
    if (piece.len == 0) {
        return state->low <= state->high;
    }
    const uint8_t *at = piece.data;
    const uint8_t *end = at + piece.len;
    while (at < end) {
        if (state->needed != 0) {
            if (*at < state->low || *at > state->high) {
                return refuse(state);
            }
            state->needed--;
            state->low = 0x80;
            state->high = 0xBF;
            at++;
        } else if (*at < 0x80) {
            const uint8_t *after = skip_ascii(at, end, true);
            at = after == at ? at + 1 : after;
        } else if (!begin_character(state, *at++)) {
            return refuse(state);
        }
    }
    return true;
}

bool utf8_state_is_complete(const struct utf8_state *state)
{
    return state->needed == 0;
}

struct bytes utf8_cut(struct bytes text, size_t max)
{
    if (text.len <= max) {
        return text;
    }
    while (max > 0 && (text.data[max] & 0xC0) == 0x80) {
        max--;
    }
    return bytes_of(text.data, max);
}
