/*
 * access_lines: the lines of a password or ACL file, without blanks at their ends; empty lines and
 * comments, which begin with '#', are passed over. And how mistakes in them are reported.
 */
#ifndef BROKER_ACCESS_LINES_H
#define BROKER_ACCESS_LINES_H

#include "bytes.h"
#include "status.h"

/* Told each mistake in the order of the lines. `text` is printable: what it quotes from the file is
 * made so. */
typedef void access_report_fn(void *ctx, unsigned line, const char *text);

struct access_lines {
    struct bytes rest;
    unsigned line; /* number of the line read last, from 1 */
};

static inline bool access_is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static inline struct bytes access_trim(struct bytes text)
{
    while (text.len != 0 && access_is_blank(text.data[0])) {
        text = bytes_from(text, 1);
    }
    while (text.len != 0 && access_is_blank(text.data[text.len - 1])) {
        text.len--;
    }
    return text;
}

/* False at the end. */
static inline bool access_lines_next(struct access_lines *lines, struct bytes *out)
{
    while (lines->rest.len != 0) {
        const uint8_t *end = memchr(lines->rest.data, '\n', lines->rest.len);
        size_t len = end == NULL ? lines->rest.len : (size_t)(end - lines->rest.data);
        *out = access_trim(bytes_of(lines->rest.data, len));
        lines->rest = bytes_from(lines->rest, len + 1);
        lines->line++;
        if (out->len != 0 && out->data[0] != '#') {
            return true;
        }
    }
    return false;
}

/* Up to 40 bytes of `text` without what a terminal or a log would stumble over. */
struct access_shown {
    char text[48];
};
static inline const char *access_show(struct access_shown *shown, struct bytes text)
{
    enum { SHOWN_MAX = 40 };
    size_t len = text.len < SHOWN_MAX ? text.len : SHOWN_MAX;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = text.data[i];
        shown->text[i] = c >= ' ' && c < 0x7F && c != '"' ? (char)c : '?';
    }
    memcpy(shown->text + len, text.len > len ? "..." : "", text.len > len ? 4 : 1);
    return shown->text;
}

#endif
