/*
 * slot: one message on its way to one session, and the two structures that hold slots.
 *
 * A session has a queue (not sent yet, in order) and a window (sent at QoS 1 or 2, not
 * acknowledged). A slot moves from the first to the second. Both are empty for an idle session and
 * then own no memory: chunks and small windows come from a pool that the core owns.
 *
 *   Cost       queue push and pop, window add, find and finish: O(1); no allocation while the
 *              pool has some.
 *   Memory     24 bytes for each slot.
 *   Threads    None of its own; belongs to the core's thread.
 */
#ifndef BROKER_SLOT_H
#define BROKER_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"
#include "status.h"

struct share_group;
struct retained_scan;

enum slot_kind {
    SLOT_EMPTY = 0, /* done or given to another session */
    SLOT_PUBLISH,   /* a message to be sent, or sent and not acknowledged */
    SLOT_STORED,    /* the same, but the message is in the store only: to be fetched first */
    SLOT_PUBREL,    /* QoS 2: PUBREC came, PUBCOMP is awaited; holds no message any more */
    SLOT_SCAN,      /* retained messages still to be read for a new subscription */
};

/* The Subscription Identifiers of a message that several of a session's subscriptions match
 * (3.3.4). */
struct identifier_list {
    size_t count;
    uint32_t identifiers[];
};

struct slot {
    union {
        struct message *message;    /* SLOT_PUBLISH: one reference held */
        struct retained_scan *scan; /* SLOT_SCAN: owned */
        uint64_t arrival;           /* SLOT_STORED, SLOT_PUBREL: the message's sequence */
    };
    union {
        struct share_group *group;    /* is_shared: one reference held */
        struct identifier_list *list; /* has_list: owned */
    };
    union {
        uint32_t identifier;   /* Subscription Identifier unless has_list; 0 = none */
        uint32_t stored_bytes; /* SLOT_STORED: what the message takes in memory */
    };
    uint16_t packet_id;    /* in the window only */
    uint8_t kind : 5;      /* enum slot_kind */
    uint8_t epoch : 1;     /* that of its session when packet_id was given (durable_assign) */
    uint8_t is_stored : 1; /* the store knows that the message is on its way to the session */
    uint8_t is_second : 1; /* it may be on its way twice: there it is STORE_SECOND */
    uint8_t qos : 2;
    uint8_t retain : 1;
    uint8_t is_shared : 1;
    uint8_t has_list : 1;
    uint8_t sent_before : 1; /* on any connection: the next PUBLISH carries DUP */
    uint8_t in_quota : 1;    /* counts against Receive Maximum on this connection */
    uint8_t returned : 1;    /* another consumer, or an earlier try, did not acknowledge it */
};

enum { SLOTS_PER_CHUNK = 21, SLOT_POOL_CHUNKS_MAX = 8192, WINDOW_SMALL = 16 };

struct slot_chunk {
    struct slot_chunk *next;
    struct slot slots[SLOTS_PER_CHUNK];
};

/* Chunks and small windows that no session uses just now. Zeroed memory is an empty pool. */
struct slot_pool {
    struct slot_chunk *chunks;
    size_t chunk_count;
};

void slot_pool_fini(struct slot_pool *pool);

/* The message's place in the order of arrival. Not for SLOT_EMPTY and SLOT_SCAN. */
static inline uint64_t slot_arrival(const struct slot *slot)
{
    return slot->kind == SLOT_PUBLISH ? slot->message->sequence : slot->arrival;
}

/* What a SLOT_PUBLISH or SLOT_STORED counts against limits in bytes. */
static inline size_t slot_bytes(const struct slot *slot)
{
    return slot->kind == SLOT_PUBLISH ? message_size(slot->message) : slot->stored_bytes;
}

/* FIFO. Zeroed memory is an empty queue. */
struct slot_queue {
    struct slot_chunk *head;
    struct slot_chunk *tail;
    uint16_t head_at; /* first slot in head */
    uint16_t tail_at; /* first free slot in tail */
    uint32_t count;
};

/* A zeroed slot at the end of the queue, to be filled; NULL when there is no memory. */
MUST_USE struct slot *slot_queue_push(struct slot_queue *queue, struct slot_pool *pool);

/* The same in front of the queue. */
MUST_USE struct slot *slot_queue_unshift(struct slot_queue *queue, struct slot_pool *pool);

/* The first and the last slot, NULL when empty. Valid until the next push or pop. */
struct slot *slot_queue_first(const struct slot_queue *queue);
struct slot *slot_queue_last(const struct slot_queue *queue);

/* The first chunk, of which nothing is left, goes back to the pool. */
void slot_queue_drop_chunk(struct slot_queue *queue, struct slot_pool *pool);

/* Forgets the first slot, whose references the caller has moved or released. */
static inline void slot_queue_pop(struct slot_queue *queue, struct slot_pool *pool)
{
    ENSURE(queue->count != 0);
    queue->count--;
    queue->head_at++;
    if (queue->count == 0 || queue->head_at == SLOTS_PER_CHUNK) {
        slot_queue_drop_chunk(queue, pool);
    }
}

/* Takes the SLOT_EMPTY ones out. O(count). */
void slot_queue_compact(struct slot_queue *queue, struct slot_pool *pool);

/* Steps over all slots in order: start with slot_cursor_of. */
struct slot_cursor {
    struct slot_chunk *chunk;
    uint16_t at;
};
struct slot *slot_queue_next(const struct slot_queue *queue, struct slot_cursor *cursor);
static inline struct slot_cursor slot_cursor_of(const struct slot_queue *queue)
{
    return (struct slot_cursor){queue->head, queue->head_at};
}

/*
 * The slots that were sent at QoS 1 or 2, in the order in which they were sent. Packet identifiers
 * are given in sequence, so the slot of identifier p stands in the ring p - base places behind the
 * first. A client that acknowledges later messages and withholds an early one would stretch the
 * ring without end: such stragglers move to a small array in front of it, and identifiers that they
 * hold are passed over. Zeroed memory is an empty window.
 */
struct slot_window {
    struct window_ring *ring; /* NULL while nothing is in flight */
    uint32_t sent;            /* positions before this one were sent on this connection */
    uint16_t next_id;         /* identifier of the next slot; 0 = not used yet, begin at 1 */
};

struct window_ring {
    struct slot *stragglers; /* older than all of the ring, in order; none is finished */
    uint32_t straggler_count;
    uint32_t capacity; /* a power of two */
    uint32_t start;    /* index of the slot with identifier base */
    uint32_t count;    /* slots in use, finished ones between unfinished ones included */
    uint32_t open;     /* of them unfinished */
    uint16_t base;     /* identifier of the first slot; meaningless when count is 0 */
    size_t bytes;      /* of the messages in it; the user's */
    struct slot slots[];
};

enum { WINDOW_SPAN_MAX = 65535, WINDOW_STRAGGLERS_MAX = 1024, WINDOW_SPILL_MIN = 64 };

/* Positions from the oldest slot on; those that are finished already are SLOT_EMPTY. */
static inline uint32_t slot_window_count(const struct slot_window *window)
{
    return window->ring == NULL ? 0 : window->ring->straggler_count + window->ring->count;
}

/* Bytes of the messages that are in it and in memory. */
static inline size_t slot_window_bytes(const struct slot_window *window)
{
    return window->ring == NULL ? 0 : window->ring->bytes;
}

/* True when a client withholds so many acknowledgements that no identifier can be given. */
bool slot_window_is_full(const struct slot_window *window);

/*
 * A slot at the end, with the next free packet identifier, copied from `slot`, and counted as sent
 * when `is_sent`, which requires that all before it are; NULL when there is no memory: the window
 * is then unchanged but for identifiers passed over. Requires: not full.
 */
MUST_USE struct slot *slot_window_add(struct slot_window *window, struct slot_pool *pool,
                                      const struct slot *slot, bool is_sent);

/*
 * The same for a slot that had its identifier before a restart. Requires that it comes behind all
 * others in the order of identifiers, by less than WINDOW_SPAN_MAX.
 */
MUST_USE struct slot *slot_window_restore(struct slot_window *window, struct slot_pool *pool,
                                          const struct slot *slot, uint16_t packet_id);

/* The unfinished slot with this identifier, or NULL. */
struct slot *slot_window_find(const struct slot_window *window, uint16_t packet_id);

/* The slot at `position` (0 <= position < slot_window_count). */
struct slot *slot_window_at(const struct slot_window *window, uint32_t position);

/* Finishes a slot whose references are released. Its identifier will be given again. */
void slot_window_finish(struct slot_window *window, struct slot_pool *pool, struct slot *slot);

/* Finishes all slots that were made SLOT_EMPTY. O(count). */
void slot_window_sweep(struct slot_window *window, struct slot_pool *pool);

/* Frees all memory; the slots' references must have been released. */
void slot_window_fini(struct slot_window *window, struct slot_pool *pool);

#endif
