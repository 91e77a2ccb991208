/*
 * http_response: HTTP/1.1 answers as bytes.
 *
 *   Cost   A few hundred bytes are written; the body is not touched.
 */
#ifndef HTTP_HTTP_RESPONSE_H
#define HTTP_HTTP_RESPONSE_H

#include <stdbool.h>

#include "bytes.h"
#include "status.h"

enum { HTTP_RESPONSE_HEAD_MAX = 1024 };

/* What a head says. Texts are ours, or were checked by http_field_is_clean. */
struct http_response {
    unsigned status;
    const char *content_type;        /* NULL: no body */
    struct bytes content_type_bytes; /* instead of content_type, when not empty */
    size_t content_length;
    bool until_close; /* the body has no length: it ends with the connection */
    bool keep_alive;
    const char *allow;         /* of 405 and OPTIONS; may be NULL */
    bool asks_for_login;       /* 401 */
    struct bytes allow_origin; /* CORS; empty: not allowed */
    bool is_preflight;         /* the answer to a CORS preflight */
};

/* Writes the head, blank line included; HTTP_RESPONSE_HEAD_MAX bytes are enough when
 * content_type_bytes and allow_origin together have at most 512. */
void http_response_head(const struct http_response *response, struct writer *writer);

/* "HTTP/1.1 100 Continue" */
struct bytes http_response_continue(void);

/* True for a text that can stand in a field: visible ASCII and blanks. */
bool http_field_is_clean(struct bytes text);

#endif
