/*
 * http_request: HTTP/1.1 requests (RFC 9112) out of a stream of bytes: heads and bodies, one
 * request after the other, cut anywhere. Only http_request.c knows the parser library here.
 *
 * A request is read whole before anybody sees it. The reader stops behind each one, so that the
 * next is not begun before the answer to this one is under way: pipelined requests are answered in
 * their order.
 *
 *   Memory     Nothing but the structure between two requests; then what came, within the limits.
 *   Ownership  A request borrows from the reader until the next call.
 */
#ifndef HTTP_HTTP_REQUEST_H
#define HTTP_HTTP_REQUEST_H

#include <stdbool.h>

#include "bytes.h"
#include "status.h"

enum request_method {
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_OPTIONS,
    METHOD_OTHER,
};

/* What is kept of a head. A field that is not there is empty. */
struct http_request {
    enum request_method method;
    bool keep_alive;    /* the connection stays open behind it */
    bool is_1_1;        /* or later 1.x; what 1.0 does not know may not be sent to it */
    struct bytes path;  /* as sent, with its percent signs */
    struct bytes query; /* behind the '?' */
    struct bytes authorization;
    struct bytes content_type;
    struct bytes host;
    struct bytes origin;
    struct bytes last_event_id;
    struct bytes idempotency_key;
    struct bytes body;
};

enum http_read {
    HTTP_READ_MORE,     /* all of the input was taken */
    HTTP_READ_CONTINUE, /* the same, and the peer waits for "100 Continue" before its body */
    HTTP_READ_REQUEST,  /* *out is a request */
    /* From here on the connection is to be closed; no further call. */
    HTTP_READ_BAD, /* not HTTP/1, a contradiction, a field twice that is only there once */
    HTTP_READ_HEAD_TOO_LARGE, /* 431 */
    HTTP_READ_BODY_TOO_LARGE, /* 413 */
    HTTP_READ_NO_MEMORY,
};

struct http_reader;

/* Requests with heads of at most `head_max` and bodies of at most `body_max` bytes. NULL: no
 * memory. */
MUST_USE struct http_reader *http_reader_create(size_t head_max, size_t body_max);

/* NULL is allowed. */
void http_reader_destroy(struct http_reader *reader);

/* Takes bytes from the front of *in until a request is complete. */
MUST_USE enum http_read http_reader_feed(struct http_reader *reader, struct bytes *in,
                                         struct http_request *out);

/* True when a request has begun and is not complete. */
bool http_reader_is_inside(const struct http_reader *reader);

/*
 * Replaces %XX in `text` by its byte, and with `plus_is_blank` '+' by a blank, as query strings
 * have it. False when a percent sign is followed by anything else, or it does not fit.
 */
MUST_USE bool http_decode_percent(struct bytes text, bool plus_is_blank, struct writer *writer);

/* Cuts the next NAME=VALUE off *query; both are still encoded. False at the end. */
bool http_query_next(struct bytes *query, struct bytes *name, struct bytes *value);

#endif
