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

struct transport_loop {
    uv_loop_t *uv;
    void (*turn_end)(void *ctx);
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
    unsigned reads;                  /* of `reader`, without another in between */

    struct transport_statistics statistics;
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

/* Puts a connection that is not on it at the end of the flush list. */
void loop_queue_flush(struct transport_loop *loop, struct connection *connection);

/* Forgets a connection that is about to be freed. */
void loop_unqueue_flush(struct transport_loop *loop, struct connection *connection);

#endif
