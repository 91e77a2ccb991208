/*
 * loop: one I/O loop of the transport: what all connections of one thread share.
 *
 * Wraps a uv_loop_t and owns the one read buffer, the output scratch, the pool of WebSocket frame
 * readers, the wheel with every deadline of the room and the list of connections that have
 * something to send. An idle connection therefore owns none of these.
 *
 * A turn is one pass of uv_run. When the callbacks of a turn have run, and again before the loop
 * blocks, the loop calls `turn_end` and then flushes each connection on the flush list once. A
 * connection whose flush produced its fill goes to the end of the list for the next turn, and the
 * loop does not block meanwhile.
 *
 *   Cost       A turn costs O(connections that read or were woken), never O(connections).
 *   Memory     About 0.5 MiB per loop, and as much again from the first TLS connection on.
 *   Threads    All calls for one loop, its listeners and connections come from the thread that runs
 *              it, unless said otherwise. Loops that were joined share the clients that their
 *              listeners accept; nothing else is common to two loops.
 */
#ifndef TRANSPORT_LOOP_H
#define TRANSPORT_LOOP_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

struct uv_loop_s;
struct transport_loop;

struct transport_loop_options {
    struct uv_loop_s *uv; /* borrowed; outlives the transport loop */

    /* Called at the end of every turn, before the flush; may be NULL. Here the server wakes the
     * connections that have output. It runs at least twice a turn, so it must be cheap when there
     * is nothing to do. */
    void (*turn_end)(void *ctx);

    /* Called when a flush is over; may be NULL. Between this and the next turn nothing happens. */
    void (*flushed)(void *ctx);
    void *ctx;
};

/* Counted since the loop was made, except where "current" is said. */
struct transport_statistics {
    uint64_t bytes_received;   /* from the kernel: TLS and framing included */
    uint64_t bytes_sent;       /* taken by the kernel */
    uint64_t sockets_current;  /* accepted and not yet closed, in whatever state */
    uint64_t sockets_accepted; /* all */
    uint64_t sockets_max;      /* highest sockets_current seen */
    uint64_t
        connections_current; /* opened (see connection_handler.open) and on_close not yet called */
    uint64_t connections_opened;
    uint64_t websockets_opened;
    uint64_t tls_handshakes;
    uint64_t tls_handshakes_resumed;
    uint64_t tls_handshakes_failed;
    uint64_t handshakes_refused; /* every on_refused */
    uint64_t pings_sent;         /* WebSocket pings to idle peers */
    uint64_t peers_dead;         /* closed because pings stayed unanswered */
    uint64_t writes;             /* system calls that wrote */
    uint64_t writes_incomplete;  /* the kernel did not take everything */
};

/*
 * Makes a loop around options->uv. Its handles do not keep uv_run alive: connections and listeners
 * do. On STATUS_OK the caller owns *out and ends it with transport_loop_destroy.
 *
 * Errors: STATUS_NO_MEMORY, STATUS_IO (libuv refused a handle).
 */
MUST_USE enum status transport_loop_create(const struct transport_loop_options *options,
                                           struct transport_loop **out);

/*
 * Aborts all connections (each on_close is called), closes all listeners and handles, runs the uv
 * loop until they are gone, and frees everything. Must not be called from a callback of the loop.
 * Other handles that the caller has on the uv loop must be closed or unreferenced before. NULL is
 * allowed.
 */
void transport_loop_destroy(struct transport_loop *loop);

/* Begins connection_close(websocket_code, reason) for every connection; those that are not open yet
 * are dropped. */
void transport_loop_close_all(struct transport_loop *loop, uint16_t websocket_code,
                              const char *reason);

/* Drops every connection at once, with on_close or on_refused. Must not be called from a callback
 * of a connection. */
void transport_loop_abort_all(struct transport_loop *loop, const char *reason);

/* Monotonic milliseconds, read once per turn. The same clock on all loops. */
uint64_t transport_loop_now_ms(const struct transport_loop *loop);

/* The live counters, for the loop's own thread; valid as long as the loop. */
const struct transport_statistics *transport_loop_statistics(const struct transport_loop *loop);

/* Adds the loop's counters to *sum. From any thread: each counter is right, though they may not all
 * be of the same moment. */
void transport_loop_add_statistics(const struct transport_loop *loop,
                                   struct transport_statistics *sum);

/* Sockets of all joined loops, those on their way to one included: what sockets_max limits. */
uint64_t transport_loop_sockets(const struct transport_loop *loop);

/*
 * Makes the loops share their clients: one that is accepted by a listener of any of them goes to
 * the loop that has the fewest, or stays if that is among the fewest. It is served there by the
 * listener that follows the one that accepted it (listener_follow); without one it is closed.
 * `loops` is borrowed and outlives them. Called once, before the loops run on threads of their own;
 * a loop is destroyed after all have ended their work.
 *
 * Errors: STATUS_IO (libuv refused a handle): no client is shared then.
 */
MUST_USE enum status transport_loops_join(struct transport_loop *const *loops, size_t count);

struct uv_loop_s *transport_loop_uv(const struct transport_loop *loop);

#endif
