/*
 * connection: one accepted client, as a stream of bytes, whatever carries it: TCP, TLS, WebSocket
 * or WebSocket in TLS.
 *
 * A connection detects what the client speaks by its first byte, does the TLS and HTTP handshakes
 * and then calls `open`. From there on its user sees only payload bytes and an end. Failures before
 * `open` are one on_refused.
 *
 *   Memory     An idle open connection owns its uv_tcp_t, this structure and its TLS session.
 *   Cost       Reading and flushing allocate nothing while the kernel takes what is written.
 *   Order      open, then any of the others as they come, then on_close, which is called from
 *              the loop, never from inside a function of this header but connection_flush_now.
 *              Nothing is called after it.
 *   Ownership  The transport owns the connection. A pointer to it is valid from `open` until
 *              on_close returns.
 *   Threads    The loop's own.
 */
#ifndef TRANSPORT_CONNECTION_H
#define TRANSPORT_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "output.h"

struct connection;
struct listener;

enum {
    CONNECTION_READ_BYTES = 64 * 1024, /* a connection's share of a turn, and of one on_bytes */
    LOOP_READ_BYTES = 256 * 1024, /* of all connections in a turn, and at most one share more */
    CONNECTION_UNSENT_PAUSE =
        256 * 1024,                /* a peer that leaves more than this unread is not read from */
    CONNECTION_ADDRESS_BYTES = 64, /* room for any peer address text */
};

/* RFC 6455, 7.4.1. On connections without WebSocket the code is ignored. */
enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_GOING_AWAY = 1001,
    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_UNSUPPORTED_DATA = 1003,
    WEBSOCKET_INVALID_DATA = 1007,
    WEBSOCKET_POLICY = 1008,
    WEBSOCKET_TOO_BIG = 1009,
    WEBSOCKET_INTERNAL_ERROR = 1011,
    WEBSOCKET_TRY_AGAIN_LATER = 1013,
};

/* What is known when a connection opens. Borrowed for the call of `open`: copy what must stay. */
struct connection_info {
    const char *peer_address; /* "192.0.2.1:4711", "[2001:db8::1]:4711" */
    struct listener *listener;
    bool is_websocket;
    bool is_http; /* http_handler has it */
    bool is_tls;
    bool is_stomp;       /* without WebSocket: the first bytes are STOMP's, not MQTT's */
    int subprotocol;     /* index into listener_options.subprotocols, -1 when none was negotiated */
    struct bytes path;   /* the request target, query included; empty without WebSocket */
    struct bytes origin; /* the Origin field; empty when absent */
    struct bytes authorization; /* the Authorization field, of a WebSocket; empty when absent */
    const char *tls_version;    /* "TLSv1.2"; this and all below are NULL when absent */
    const char *tls_cipher;
    const char *server_name;             /* SNI */
    const char *certificate_common_name; /* only of a client certificate that was verified */
    const char *certificate_subject;     /* all of it, RFC 2253 style: "CN=x,O=y" */
};

enum connection_cause {
    CONNECTION_CLOSED_BY_PEER, /* end of stream, without more words */
    CONNECTION_CLOSE_FRAME, /* the peer began the WebSocket closing handshake; websocket_code says
                               how */
    CONNECTION_RESET,       /* a socket error: reset, broken pipe, unreachable */
    CONNECTION_TIMED_OUT,   /* no answer to pings */
    CONNECTION_PROTOCOL_VIOLATION, /* the peer broke RFC 6455; websocket_code is what we answered */
    CONNECTION_TLS_ERROR,
    CONNECTION_CLOSED_LOCALLY, /* connection_close or connection_abort; the text is theirs */
    CONNECTION_NO_MEMORY,
};

/* Why a connection ended. Borrowed for the call of on_close. */
struct connection_end {
    enum connection_cause cause;
    uint16_t websocket_code; /* received, or sent with a violation; 1005 for a Close without a code;
                                else 0 */
    const char *text; /* for one log line: "peer closed the connection", "WebSocket close 1001" */
};

/*
 * What a listener's connections report, and to whom. `ctx` is listener_options.ctx, `user` what
 * open returned. A callback may call any function of this header for any open connection.
 */
struct connection_handler {
    /*
     * Asked once for each accepted socket, before anything is read, by the loop that accepts.
     * false: the server is full; a WebSocket client gets HTTP 503, others are closed, and
     * on_refused follows. May be NULL (never full).
     */
    bool (*accept)(void *ctx, struct listener *listener);

    /*
     * The byte stream is ready. The returned user is given to all other callbacks; NULL refuses the
     * connection (a WebSocket gets Close 1013), and no other callback follows, on_refused neither.
     */
    void *(*open)(void *ctx, struct connection *connection, const struct connection_info *info);

    /*
     * Bytes that arrived, at most CONNECTION_READ_BYTES: raw bytes, or payload of WebSocket data
     * messages chunk by chunk, borrowed for the call. Text payload is valid UTF-8 up to its last
     * complete character.
     */
    void (*on_bytes)(void *user, struct bytes bytes);

    /* Bytes of any kind have come from an open connection: payload, pongs, parts of records. Called
     * before what they mean is known, once for each read. May be NULL. */
    void (*on_inbound)(void *user, uint64_t now_ms);

    /* Borders of WebSocket messages, for users to whom they matter (connection_hear_messages). An
     * empty message has no on_bytes. May be NULL when nobody asks for them. */
    void (*on_message_begin)(void *user, bool text);
    void (*on_message_end)(void *user);

    /*
     * The connection was woken, and all that was written before has been taken by the kernel. The
     * user adds to `output` while output_has_room; when it has more than fits the transport asks
     * again in the next turn. Adding nothing is allowed. All that is added becomes one WebSocket
     * message (see connection_begin_message), or raw bytes.
     */
    void (*on_output)(void *user, struct output *output);

    /* The end, exactly once after an open that returned a user. */
    void (*on_close)(void *user, const struct connection_end *end);

    /* A client that never became a connection: bad HTTP, failed TLS, silence, garbage, full. For
     * one log line. Not called for a peer that left before it had sent a byte, as health checks
     * do. May be NULL. */
    void (*on_refused)(void *ctx, const char *peer_address, const char *reason);
};

/* Puts the connection on the flush list: on_output is called at the end of this turn, or, while the
 * kernel has not taken earlier output, as soon as it has. From inside on_output: in the next turn.
 * O(1), idempotent. */
void connection_wake(struct connection *connection);

/* The same at once, without waiting for the end of the turn. Must not be called from a callback of
 * this connection; on_close may come from inside it. */
void connection_flush_now(struct connection *connection);

/*
 * Ends the connection in order: nothing is delivered any more; on_output is asked until it adds
 * nothing; then the WebSocket Close frame, TLS close_notify and FIN go out, each with a deadline
 * (listener_options.close_timeout_ms). on_close follows as soon as the user's last output has been
 * taken over (not: as soon as the peer has agreed). `reason` becomes the Close reason (its first
 * 123 bytes, whole characters) and connection_end.text; it must be UTF-8 and is copied. Later
 * calls, and calls after connection_abort, have no effect.
 */
void connection_close(struct connection *connection, uint16_t websocket_code, const char *reason);

/* Ends the connection at once; what has not been sent is lost. on_close follows in this turn, with
 * `reason`. */
void connection_abort(struct connection *connection, const char *reason);

/* Stops and resumes reading, for a user that cannot take more. Bytes that were read before (at most
 * one read) may still be delivered after a pause. While paused the dead-peer check rests. */
void connection_pause_reading(struct connection *connection);
void connection_resume_reading(struct connection *connection);

/*
 * WebSocket only, without effect elsewhere: which data messages are accepted. Initially binary
 * only: a text message ends the connection with 1003. Call it in open.
 */
void connection_allow_text(struct connection *connection, bool allowed);

/* WebSocket only: from now on the borders of messages are reported. Without, what several messages
 * hold may come as one on_bytes. Call it in open. */
void connection_hear_messages(struct connection *connection);

/* Replaces what open returned, for users that learn from the first bytes what they are. */
void connection_set_user(struct connection *connection, void *user);

/* WebSocket only: the type of messages that on_output fills without connection_begin_message.
 * Initially binary. */
void connection_send_text(struct connection *connection, bool text);

/*
 * Inside on_output, for protocols to which messages matter: what is added from here on is a message
 * of its own, of the given type, sent even when it stays empty. Without WebSocket it has no effect.
 * Takes up to 16 bytes and one part of the output's room, so ask output_has_room before each
 * message.
 */
void connection_begin_message(struct connection *connection, struct output *output, bool text);

/* When the last byte arrived (any byte: payload, pong, handshake), or, while reading is paused,
 * when the peer was last seen to take some; on transport_loop_now_ms's clock. */
uint64_t connection_last_inbound_ms(struct connection *connection);

/* Writes "address:port" into `text` and returns it. */
const char *connection_peer_address(const struct connection *connection,
                                    char text[CONNECTION_ADDRESS_BYTES]);

bool connection_is_websocket(const struct connection *connection);
bool connection_is_tls(const struct connection *connection);
struct listener *connection_listener(const struct connection *connection);

/* Bytes given to the transport that the kernel has not taken yet. */
size_t connection_unsent_bytes(const struct connection *connection);

#endif
