/*
 * control: packets and frames that are not deliveries, encoded and waiting for a client's next
 * flush, or before that for the store: an answer that promises something waits for its ticket
 * (core_ticket), and those behind it keep their order. Nothing here is ever dropped: a connection
 * that does not take them is not read from.
 *
 *   Memory     Nothing while nothing waits; blocks of CONTROL_BYTES_MIN come from a pool.
 *   Threads    The core's.
 */
#ifndef BROKER_CONTROL_H
#define BROKER_CONTROL_H

#include "bytes.h"
#include "shared.h"

enum {
    CONTROL_BYTES_MIN = 256,
    CONTROL_POOL_MAX = 1024,
    CONTROL_HOLDS_MAX = 4,              /* a store has one batch in writing and one that fills */
    CONTROL_BYTES_PAUSE = 64 * 1024,    /* a client with so many unread answers is not read from */
    CONTROL_UNCOMMITTED_MAX = 64 << 20, /* bytes of messages before publishers have to wait */
};

struct control;

/* What the answers of all clients of one core share. Zeroed but for `wake` it is ready. */
struct control_hub {
    void (*wake)(void *link); /* struct client_host's */
    struct control *pool;     /* blocks that no client uses just now */
    size_t pool_count;
    struct control **waiting; /* those that wait for the store */
    uint32_t waiting_count, waiting_capacity;
    size_t uncommitted[2]; /* bytes of messages in batches with an even and an odd ticket */
};

/* What waits for one client, which holds one reference. */
struct control {
    struct shared shared; /* first */
    struct control_hub *hub;
    struct control *next; /* in the pool */
    void *link;           /* whom to wake */
    size_t len;
    size_t capacity;
    size_t ready; /* bytes that may go; those behind wait for the store */
    struct control_hold {
        uint64_t ticket; /* bytes up to `end` may go when this one is committed */
        size_t end;
    } holds[CONTROL_HOLDS_MAX];
    uint32_t hold_count;
    uint32_t waiting_at; /* its place in hub->waiting while hold_count is not 0 */
    uint8_t data[];
};

/* Room for `len` more bytes in *control, which is made if it is NULL. A failed writer when there is
 * no memory. End with control_end. */
struct writer control_begin(struct control **control, struct control_hub *hub, void *link,
                            size_t len);

/* What was written may go when `ticket` is committed; 0: with what is before it. False when there
 * was no memory: then it was not written. */
MUST_USE bool control_end(struct control *control, const struct writer *writer, uint64_t ticket);

/* The first `len` bytes, which were ready, are sent. */
void control_sent(struct control *control, size_t len);

/* Forgets what waits for the store. NULL is allowed. */
void control_drop_held(struct control *control);

/* Lets go of *control, if there is one, and makes it NULL. */
void control_release(struct control **control);

/* What waited for `ticket` or less is ready, and its clients are woken. */
void control_on_committed(struct control_hub *hub, uint64_t ticket);

/* Counts a message in the batch of `ticket`. True: so much waits for the store that its publisher
 * is not to be read from until its answers are gone. */
bool control_count_uncommitted(struct control_hub *hub, uint64_t ticket, size_t bytes);

void control_hub_fini(struct control_hub *hub);

#endif
