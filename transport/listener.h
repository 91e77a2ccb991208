/*
 * listener: a bound address whose clients become connections.
 *
 *   Cost       accept: one allocation for each connection.
 *   Threads    The loop's own.
 *
 * Loops that were joined share the clients of a listener through listeners that follow it, one on
 * each of the other loops: they have no socket, and count together.
 */
#ifndef TRANSPORT_LISTENER_H
#define TRANSPORT_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connection.h"
#include "loop.h"
#include "status.h"
#include "tls.h"

enum {
    LISTENER_HTTP_HEAD_BYTES = 8 * 1024, /* default of http_head_bytes_max */
    LISTENER_HANDSHAKE_MS = 10 * 1000,
    LISTENER_CLOSE_MS = 5 * 1000,
    LISTENER_PING_MS = 25 * 1000,
    LISTENER_KEEPALIVE_S = 60,
    LISTENER_BACKLOG = 1024,
    LISTENER_SUBPROTOCOLS_MAX = 16,
};

/* What listener_options.speaks is made of. */
enum {
    LISTENER_RAW = 1 << 0,       /* a byte stream that begins with an MQTT CONNECT */
    LISTENER_WEBSOCKET = 1 << 1, /* HTTP/1.1 upgrade */
    LISTENER_STOMP = 1 << 2,     /* a byte stream that begins with CONNECT, STOMP or a line end */
};

enum listener_family { LISTENER_FAMILY_ANY, LISTENER_IPV4, LISTENER_IPV6 };

enum listener_tls {
    LISTENER_TLS_NONE,     /* a TLS client is refused */
    LISTENER_TLS_REQUIRED, /* a client without TLS is refused */
    LISTENER_TLS_OPTIONAL, /* by the first byte */
};

/* listener_options_default gives every number its default; the rest is zero and must be filled in.
 * Strings, lists and the handler are copied by listener_create. */
struct listener_options {
    /* Address, or name of which the first address counts; NULL: every address, IPv6 and IPv4. */
    const char *host;
    /* Not NULL: a Unix socket at this path; host and port are not looked at. */
    const char *unix_path;
    enum listener_family family;
    uint16_t port; /* 0: any free one; see listener_port */
    int backlog;

    unsigned speaks;
    enum listener_tls tls;
    /* Required unless LISTENER_TLS_NONE; the listener takes a reference. */
    struct tls_config *tls_config;

    const char *const *subprotocols; /* in any order: the client's order of preference decides */
    size_t subprotocol_count;
    /* Allowed Origin values, "https://example.org". None: all are welcome; else a missing one is
     * not. */
    const char *const *origins;
    size_t origin_count;
    size_t http_head_bytes_max;
    /* Of one WebSocket message, 1009 beyond. 0: no limit, for byte streams. */
    uint64_t message_bytes_max;

    uint32_t handshake_timeout_ms; /* from accept to open */
    uint32_t close_timeout_ms;     /* for each step of an orderly end */
    uint32_t ping_interval_ms;     /* WebSocket pings to idle peers; 0: none */
    uint32_t keepalive_s;          /* TCP keep-alive probes after this idle time, which find a peer
                                      that is gone in twice the time; 0: none */
    bool nodelay;                  /* small packets are sent at once (TCP_NODELAY) */
    uint64_t sockets_max; /* of all joined loops; a client beyond is closed at once; 0: no limit */

    struct connection_handler handler;
    /* Requests that are not for a WebSocket: those whose target is served here get `http_handler`,
     * and from its on_bytes on all bytes as they came, head included. NULL: none are. The other
     * members of http_handler are those of a byte stream; accept and on_refused are not looked at.
     */
    bool (*serves_http)(struct bytes target);
    struct connection_handler http_handler;
    void *ctx;
};

struct listener_options listener_options_default(void);

/*
 * Binds and listens. On STATUS_OK the caller owns *out and ends it with listener_close.
 * On an error `error` gets one readable line ("cannot listen on 127.0.0.1:1883: address already in
 * use"). A host name is resolved here, blocking: call it at start and on reload only.
 *
 * Requires: speaks != 0; all handler callbacks that are not marked optional.
 * Errors:   STATUS_NO_MEMORY, STATUS_NOT_FOUND (host), STATUS_IO (bind, listen).
 */
MUST_USE enum status listener_create(struct transport_loop *loop,
                                     const struct listener_options *options, struct listener **out,
                                     char *error, size_t error_size);

/*
 * Makes a listener of `loop` for the clients that `leader`, of another loop, has accepted and that
 * come here (transport_loops_join). Of `options` everything counts but the address and the backlog.
 * Call it between transport_loops_join and the loops' running on threads of their own.
 *
 * Errors: STATUS_NO_MEMORY.
 */
MUST_USE enum status listener_follow(struct transport_loop *loop,
                                     const struct listener_options *options,
                                     const struct listener *leader, struct listener **out);

/* Stops accepting, or, for one that follows, taking over. Its connections go on and keep the
 * listener alive until the last has ended; the caller's pointer is void. NULL is allowed. */
void listener_close(struct listener *listener);

/*
 * Takes over from `options` what is not about the address or what is spoken there: subprotocols,
 * origins, http_head_bytes_max, message_bytes_max, the times, nodelay and sockets_max. It counts
 * for new connections; connections that are there take over their next close_timeout_ms, and
 * ping_interval_ms if they had one before. The other members are not looked at.
 *
 * Errors: STATUS_NO_MEMORY: nothing has changed.
 */
MUST_USE enum status listener_configure(struct listener *listener,
                                        const struct listener_options *options);

/* The next steps of an orderly end get no more time than this. For a server that stops. */
void listener_limit_close_timeout(struct listener *listener, uint32_t close_timeout_ms);

/* Sockets that were accepted and are not closed yet, whatever their state, without those that the
 * handler's accept refused, of this listener and those that follow it. In accept and open this
 * includes the one that is asked for. */
size_t listener_sockets(const struct listener *listener);

/* The bound port. */
uint16_t listener_port(const struct listener *listener);

/* "0.0.0.0:1883", for log lines. Lives as long as the listener. */
const char *listener_address(const struct listener *listener);

/* listener_options.ctx. */
void *listener_ctx(const struct listener *listener);

/* New connections use `config` from now on (a reference is taken): certificates reloaded without a
 * dropped client. */
void listener_set_tls(struct listener *listener, struct tls_config *config);

#endif
