/*
 * channel: records from one thread to another, in batches.
 *
 * The sender writes records into chunks of memory that are its own until it publishes them; the
 * receiver takes all published chunks at once and reads them where they stand. Chunks that have
 * been read go back to the sender. The lock is held for a few pointers, once for each batch, and
 * the receiver's loop is woken only when it had nothing to read.
 *
 *   Cost       A record: a bounds check. A batch: one lock on either side, and one system call
 *              when the receiver was idle. No allocation once the pool has the chunks it needs.
 *   Memory     CHANNEL_POOL_MAX chunks are kept. What waits to be read is the sender's to limit:
 *              channel_is_behind.
 *   Order      Records arrive in the order in which they were ended.
 *   Threads    One sender and one receiver; each function says whose it is.
 */
#ifndef TRANSPORT_CHANNEL_H
#define TRANSPORT_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

enum {
    CHANNEL_POOL_MAX = 4,
    CHANNEL_SPARE_BYTES = 2 * 1024 * 1024, /* put aside; not touched while there is memory */
    CHANNEL_SMALL_BYTES = 1024,
};

struct uv_loop_s;
struct channel;

struct channel_options {
    struct uv_loop_s *uv; /* the receiver's; outlives the channel */
    size_t chunk_bytes;
    size_t behind_bytes; /* the sender should stop when so much waits to be read */
    /* There is something to read. Called by the receiver's loop. */
    void (*on_batch)(void *ctx);
    void *ctx;
};

/* Called before both threads run. The handle does not keep uv_run alive: see channel_set_ref.
 * Errors: STATUS_NO_MEMORY, STATUS_IO. */
MUST_USE enum status channel_create(const struct channel_options *options, struct channel **out);

/* The first half of the end: closes the handle, when both threads have ended. Run the receiver's
 * loop, then call channel_destroy. NULL is allowed. */
void channel_close(struct channel *channel);

/* Frees it, and what was not read. NULL is allowed. */
void channel_destroy(struct channel *channel);

/* Whether the channel keeps the receiver's uv_run alive. */
void channel_set_ref(struct channel *channel, bool ref);

/*
 * Sender: room for one record of at most `bytes`, aligned for any type; NULL when there is no
 * memory. Nothing is sent before channel_end; a record that is not ended is forgotten by the next
 * channel_begin. A chunk that is full is published at once.
 */
MUST_USE void *channel_begin(struct channel *channel, uint32_t kind, size_t bytes);

/* Sender: the same for at most CHANNEL_SMALL_BYTES, from memory that is put aside when there is no
 * other: how things end can always be said. */
void *channel_begin_small(struct channel *channel, uint32_t kind, size_t bytes);

/* Sender: the record that was begun last and is not ended. */
void *channel_current(struct channel *channel);

/* Sender: the record has `bytes`, and stands for so many more in memory elsewhere. */
void channel_end(struct channel *channel, size_t bytes, size_t elsewhere_bytes);

/* Sender: lets the receiver have what was ended. At the end of a turn. */
void channel_publish(struct channel *channel);

/* Sender: too much waits to be read. The receiver learns that the sender waits: see
 * channel_must_tell. */
MUST_USE bool channel_is_behind(struct channel *channel);

/* Receiver: the next record, borrowed until the next call; NULL: nothing is there. */
MUST_USE void *channel_next(struct channel *channel, uint32_t *kind, size_t *bytes);

/* Receiver: on_batch is to be called again in the next turn. For one that stops early. */
void channel_again(struct channel *channel);

/* Receiver: true once when the sender waits and half of what it may send has been read. Ask after
 * reading; the sender has to be told then, in whatever way. */
MUST_USE bool channel_must_tell(struct channel *channel);

#endif
