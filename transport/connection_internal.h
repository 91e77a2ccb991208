/*
 * connection_internal: the inside of struct connection, for the files of this room.
 *
 *   connection.c        life: accept, detection, deadlines, the orderly end
 *   connection_read.c   bytes from the kernel through TLS, HTTP and WebSocket to the user
 *   connection_write.c  the user's output through WebSocket and TLS to the kernel
 *
 * What is needed for moments only (HTTP head, control frames, an unfinished write, the closing
 * state) lives in blocks of its own that exist for these moments.
 */
#ifndef TRANSPORT_CONNECTION_INTERNAL_H
#define TRANSPORT_CONNECTION_INTERNAL_H

#include <uv.h>

#include "connection.h"
#include "detect.h"
#include "http_head.h"
#include "listener_internal.h"
#include "loop_internal.h"
#include "timer_wheel.h"
#include "tls_session.h"
#include "ws.h"

enum connection_state {
    CONNECTION_DETECT,        /* nothing received yet, or nothing inside TLS */
    CONNECTION_TLS_HANDSHAKE, /* then DETECT again, inside */
    CONNECTION_HTTP_HEAD,
    CONNECTION_OPEN,
    CONNECTION_DRAINING, /* connection_close was called: the user's last output */
    CONNECTION_CLOSING,  /* our Close frame is out, the peer's is awaited */
    CONNECTION_LINGER,   /* FIN is out, the peer's is awaited; input is thrown away */
    CONNECTION_CLOSED,   /* uv_close was called */
};

/* What connection_close and connection_abort were told. */
struct connection_closing {
    uint16_t websocket_code;
    char reason[];
};

/* A peer that goes on sending after the end is not heard out for ever. */
enum { CONNECTION_LINGER_BYTES = 1024 * 1024 };

/* A pong that waits for the next flush. Of several pings only the latest is answered (RFC 6455,
 * 5.5.3). */
struct connection_control {
    uint8_t pong_len;
    uint8_t pong_payload[WS_CONTROL_MAX];
};

/* TLS: plaintext for which the kernel had no room yet. */
struct connection_held;

/* What a connection needs now and then. Each pointer is NULL when it is not needed, and all of this
 * exists only while something in it is. */
struct connection_extra {
    struct http_head *http;             /* HTTP_HEAD only */
    struct connection_closing *closing; /* from connection_close or _abort on */
    struct connection_control *control; /* a WebSocket pong to send */
    struct connection_held *held;
    uv_shutdown_t *fin;   /* LINGER only */
    uint32_t unsent_seen; /* unsent bytes at the last look of connection_unsent_moves */
    uint32_t lingered;    /* LINGER only: bytes thrown away */
    uint8_t first_len;    /* DETECT only: bytes that do not tell yet what comes */
    uint8_t first[DETECT_BYTES_MAX];
};

/*
 * Most of a broker's memory is idle connections, so that each member here is one that an idle
 * connection needs. `io` comes first: libuv's handle has the connection's address, and its `data`
 * is the listener, which tells our handles from others. Next come the members that every message
 * needs, close together.
 */
struct connection {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
    } io;
    void *user; /* NULL before open and after on_close */
    struct connection *next_flush;
    struct tls_session *tls;        /* NULL without TLS */
    struct connection_extra *extra; /* NULL most of the time */
    struct ws_decoder ws;
    uint64_t last_inbound_ms;
    uint16_t writes_in_progress;
    uint8_t state; /* enum connection_state */
    bool is_websocket : 1;
    bool is_http : 1;      /* the listener's http_handler has it */
    bool refused_full : 1; /* the server was full at accept */
    bool allow_text : 1;
    bool send_text : 1;
    bool ping_due : 1; /* a WebSocket ping is to be sent */
    bool on_flush_list : 1;
    bool woken : 1;          /* on_output is to be called */
    bool aborting : 1;       /* connection_abort was called; done at the end of the turn */
    bool reading : 1;        /* uv_read_start is in force */
    bool paused : 1;         /* by the user */
    bool handshake_over : 1; /* open was called or on_refused: neither happens again */
    bool passed_on : 1;      /* another loop has the client: here only the handle is closed */
    bool hears_messages : 1; /* the user wants to know where messages begin and end */
    uint8_t pings_unanswered : 2;
    uint8_t address_bytes; /* 4, 16, or 0 for a Unix socket */
    uint16_t port;
    struct timer timer;  /* handshake, then pings, then the steps of the end */
    uint8_t address[16]; /* network order; IPv4 in the first four */
};

_Static_assert(offsetof(struct connection, io) == 0, "a handle's address is its connection's");

static inline struct listener *listener_of(const struct connection *connection)
{
    return connection->io.handle.data;
}

static inline struct transport_loop *connection_loop(const struct connection *connection)
{
    return listener_of(connection)->loop;
}

static inline const struct connection_handler *
connection_handler_of(const struct connection *connection)
{
    const struct listener_options *options = &listener_of(connection)->options;
    return connection->is_http ? &options->http_handler : &options->handler;
}

/* connection.c */

/* The block for what is needed now and then, made when it is not there. NULL: no memory. */
MUST_USE struct connection_extra *connection_extra_get(struct connection *connection);

/* Frees that block when nothing is in it any more. */
void connection_extra_settle(struct connection *connection);

typedef void connection_visit_fn(struct connection *connection, void *ctx);

/* Calls `visit` for each connection of the loop that uv_close has not finished with. Walks all
 * handles of the libuv loop. */
void connection_for_each(struct transport_loop *loop, connection_visit_fn *visit, void *ctx);

/* Takes over the client that waits at `listener`, or passes it on to a loop that has fewer. Errors:
 * STATUS_NO_MEMORY: the client is still waiting. */
MUST_USE enum status connection_accept(struct listener *listener);

/* Takes over a client that another loop has accepted: counted there, and `refused_full` if there
 * was no place for it. Errors: STATUS_NO_MEMORY, STATUS_IO: the socket is still the caller's. */
MUST_USE enum status connection_adopt(struct listener *listener, int fd, bool refused_full);

/* Reports the end to the user, once: on_close after open, on_refused before. A reason given to
 * connection_close or connection_abort goes before the given one. Must not be called from inside
 * the user's functions. */
void connection_report_end(struct connection *connection, const struct connection_end *end);

/* Reports the end and closes the socket at once. */
void connection_drop(struct connection *connection, enum connection_cause cause, const char *text);

/* Reports the end; what was written before, the TLS close and a FIN still go out. Input is thrown
 * away from now on. */
void connection_finish(struct connection *connection, const struct connection_end *end);

/* FIN, then wait for the peer's. The end must have been reported. */
void connection_linger(struct connection *connection);

/* Closes the socket. Idempotent. The end must have been reported. */
void connection_destroy_soon(struct connection *connection);

/* The byte stream is ready: calls open. False when the connection was refused or ended. */
MUST_USE bool connection_opened(struct connection *connection, struct connection_info *info);

void connection_arm(struct connection *connection, uint64_t from_now_ms);

/* Fires the connection's deadline. */
void connection_on_timer(struct connection *connection);

/* connection_read.c */

/* Reads or stops reading as state and flags ask for. */
void connection_update_reading(struct connection *connection);

/* connection_write.c */

/* One turn's flush of a connection on the flush list. */
void connection_flush(struct connection *connection);

/*
 * Gives `parts` to the kernel, behind what it has not taken yet; TLS in between. Consumes the
 * references. Scratch parts are copied if need be. False: the connection has been dropped.
 */
MUST_USE bool connection_write_parts(struct connection *connection, struct output_part *parts,
                                     unsigned count);

/* The same for bytes without an owner. */
MUST_USE bool connection_write_bytes(struct connection *connection, struct bytes bytes);

/* Writes what a TLS session has left in the loop's buffers. */
MUST_USE bool connection_write_cipher(struct connection *connection);

/* Frees plaintext that was held back. */
void connection_release_held(struct connection *connection);

/* True when there is unsent output and the peer has taken some of it since the last call. */
bool connection_unsent_moves(struct connection *connection);

static inline struct connection_held *connection_held(const struct connection *connection)
{
    return connection->extra != NULL ? connection->extra->held : NULL;
}

static inline struct connection_closing *connection_closing(const struct connection *connection)
{
    return connection->extra != NULL ? connection->extra->closing : NULL;
}

static inline bool connection_is_live(const struct connection *connection)
{
    return connection->state != CONNECTION_CLOSED && !connection->aborting;
}

#endif
