/*
 * http_head: the head of one HTTP request, from bytes in pieces to the few fields that an upgrade
 * needs.
 *
 * Only http_head.c knows the HTTP parser library. Values are copied as they arrive; everything else
 * is checked and forgotten.
 *
 *   Memory     Bounded by the limit given at creation; freed when the handshake is over.
 */
#ifndef TRANSPORT_HTTP_HEAD_H
#define TRANSPORT_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>

#include "bytes.h"
#include "status.h"

enum { HTTP_VALUES_MAX = 32 }; /* occurrences of the fields below in one request */

enum http_field {
    HTTP_TARGET, /* of the request line */
    HTTP_HOST,
    HTTP_UPGRADE,
    HTTP_CONNECTION,
    HTTP_ORIGIN,
    HTTP_WEBSOCKET_KEY,
    HTTP_WEBSOCKET_VERSION,
    HTTP_WEBSOCKET_PROTOCOL,
    HTTP_AUTHORIZATION,
    HTTP_FIELD_COUNT
};

enum http_head_result {
    HTTP_HEAD_MORE, /* everything was consumed */
    HTTP_HEAD_DONE,
    HTTP_HEAD_BAD,       /* not HTTP/1 */
    HTTP_HEAD_TOO_LARGE, /* more than the limit, or more than HTTP_VALUES_MAX values */
    HTTP_HEAD_NO_MEMORY,
};

struct http_head;

/* A parser for heads of up to `bytes_max` bytes; with `keep_bytes` it keeps them for
 * http_head_bytes. NULL when there is no memory. */
MUST_USE struct http_head *http_head_create(size_t bytes_max, bool keep_bytes);

/* NULL is allowed. */
void http_head_destroy(struct http_head *head);

/* Parses on. With HTTP_HEAD_DONE *consumed says where the bytes behind the head begin. Requires:
 * every earlier result was HTTP_HEAD_MORE. */
MUST_USE enum http_head_result http_head_feed(struct http_head *head, struct bytes bytes,
                                              size_t *consumed);

/* The following are for complete heads; bytes live as long as the head. */

/* The whole head as it came; empty when it was not kept. */
struct bytes http_head_bytes(const struct http_head *head);

bool http_head_is_get(const struct http_head *head);
bool http_head_is_1_1(const struct http_head *head); /* or later 1.x */

/* How often the field is there. */
unsigned http_head_count(const struct http_head *head, enum http_field field);

/* Its n-th value, without surrounding blanks; empty when there is none. */
struct bytes http_head_value(const struct http_head *head, enum http_field field, unsigned n);

/* Goes through the comma-separated tokens of all values of `field`, in order. *cursor starts at 0.
 * Returns false at the end. */
bool http_head_next_token(const struct http_head *head, enum http_field field, size_t *cursor,
                          struct bytes *token);

/* True when one of the tokens is `token`, upper and lower case being the same. */
bool http_head_has_token(const struct http_head *head, enum http_field field, const char *token);

/* Compares without regard to the case of ASCII letters. */
bool http_equal_nocase(struct bytes a, const char *b);

#endif
