/*
 * loop_internal: the inside of struct transport_loop, for the files of this room.
 */
#ifndef TRANSPORT_LOOP_INTERNAL_H
#define TRANSPORT_LOOP_INTERNAL_H

#include <uv.h>

#include "connection.h"
#include "loop.h"
#include "timer_wheel.h"
#include "tls_session.h"
#include "ws.h"

/* Room behind the scratch's nominal size for what the transport itself adds: frame headers, control
 * frames. */
enum { LOOP_SCRATCH_EXTRA = 512 };

struct arrivals;
struct listener_group;

struct transport_loop {
    uv_loop_t *uv;
    void (*turn_end)(void *ctx);
    void (*flushed)(void *ctx);
    void *ctx;

    uv_timer_t timer; /* for the wheel's next deadline */
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;    /* runs while the flush list is not empty, so that the loop does not block */
    uint64_t timer_ms; /* when `timer` will fire; TIMER_NEVER when stopped */
    struct timer_wheel wheel;
    struct timer tls_sweep; /* armed while a TLS session might become idle */

    struct listener *listeners;
    struct connection *flush_first, **flush_last; /* linked by next_flush */
    const struct connection *reader; /* the last that has read in this turn; never looked into */
    size_t turn_bytes;     /* read in this turn: from LOOP_READ_BYTES on nobody reads any more */
    uint32_t turn_readers; /* connections that had something to read in this turn */
    uint32_t first_unread; /* the number of the first that found nothing left; 0: none did */
    uint32_t
        readers_passed; /* that many come behind the others, who were left over the last time */

    struct transport_statistics statistics; /* changed with loop_count */
    struct transport_loop *const *joined;   /* all that share clients, this one too; NULL: alone */
    size_t joined_count;
    struct arrivals *arrivals; /* clients that the others have accepted for it; NULL: alone */
    size_t sockets_assigned;   /* atomic: its sockets, and those on their way to it */
    struct ws_pool ws_pool;
    struct tls_buffers tls;

    /* The flush in progress: its output, and the WebSocket message that is being put together in
     * it. */
    struct output output;
    bool in_message, message_is_text;
    bool message_is_explicit; /* sent even when it stays empty */
    uint8_t *message_slot;    /* room for the frame header, in parts[message_part] */
    unsigned message_part;
    size_t message_start; /* output.total behind the slot */

    uint8_t *read_buffer; /* CONNECTION_READ_BYTES */
    uint8_t *scratch;     /* OUTPUT_SCRATCH_BYTES + LOOP_SCRATCH_EXTRA */
};

/* Counters have one writer and may be read by any thread. */
static inline void loop_count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline void loop_uncount(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter - n, __ATOMIC_RELAXED);
}

/* The loop that the next client of `loop` goes to. */
struct transport_loop *loop_emptiest(struct transport_loop *loop);

/* Gives an accepted socket to another loop, which closes it if it cannot take it. The group holds a
 * place for it unless it is refused. Errors: STATUS_NO_MEMORY: the socket is still the caller's. */
MUST_USE enum status loop_hand_over(struct transport_loop *to, struct listener_group *group, int fd,
                                    bool refused_full);

/* One more or one less listener that waits for arrivals. */
void loop_follow(struct transport_loop *loop);
void loop_unfollow(struct transport_loop *loop);

/* At the end of the loop: before and after its handles are closed. */
void loop_close_arrivals(struct transport_loop *loop);
void loop_free_arrivals(struct transport_loop *loop);

/* One more or one less socket that is this loop's. From any thread. */
void loop_assign(struct transport_loop *loop);
void loop_unassign(struct transport_loop *loop);

/* Puts a connection that is not on it at the end of the flush list. */
void loop_queue_flush(struct transport_loop *loop, struct connection *connection);

/* Forgets a connection that is about to be freed. */
void loop_unqueue_flush(struct transport_loop *loop, struct connection *connection);

#endif
