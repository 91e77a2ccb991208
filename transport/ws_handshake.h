/*
 * ws_handshake: decides whether a complete HTTP head opens a WebSocket (RFC 6455, 4.2), and writes
 * the answer.
 */
#ifndef TRANSPORT_WS_HANDSHAKE_H
#define TRANSPORT_WS_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "bytes.h"
#include "http_head.h"
#include "listener.h"

enum { WS_RESPONSE_BYTES = 2048 };

struct ws_handshake {
    bool accepted;
    int subprotocol;    /* index into the listener's list, -1 for none */
    const char *reason; /* when refused, for the log */
    size_t response_len;
    char response[WS_RESPONSE_BYTES]; /* a whole HTTP response */
};

/* Decides about a complete head. `full`: the server takes no more clients. */
void ws_handshake_decide(const struct http_head *head, const struct listener_options *options,
                         bool full, struct ws_handshake *out);

/* The answer to whoever asks for something else than a WebSocket while the server is full. */
void ws_handshake_refuse_full(struct ws_handshake *out);

/* The answer to a head that could not be parsed: HTTP_HEAD_BAD or HTTP_HEAD_TOO_LARGE. */
void ws_handshake_refuse(enum http_head_result result, struct ws_handshake *out);

#endif
