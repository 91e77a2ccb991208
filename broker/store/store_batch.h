/*
 * store_batch: the changes of a while, put together: what the core calls between two commits
 * becomes, for each row, at most one write.
 *
 * A message that is appended and whose recipients are all finished in the same batch leaves
 * nothing to write; several updates of one message are one; of a session that is put several times
 * the last form stays. The implementations of store.h fill a batch on the core's thread and hand it
 * as a whole to whoever writes it.
 *
 *   Cost       O(1) expected for each change. No allocation on the steady path: entries live in an
 *              arena that keeps its chunks, maps keep their buckets.
 *   Ownership  An appended message is held until it is finished or the batch is reset.
 *   Threads    None of its own. Only store_batch_reset, _fini and the changes touch the counts of
 *              messages: they belong to the core's thread. Reading it does not.
 *   Errors     Out of memory marks the batch failed; later changes to it do nothing.
 */
#ifndef STORE_BATCH_H
#define STORE_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hash.h"
#include "map.h"
#include "store.h"

enum store_change {
    STORE_CHANGE_NONE = 0, /* came and went within the batch */
    STORE_CHANGE_PUT,      /* is to be there, whatever was */
    STORE_CHANGE_UPDATE,   /* packet_id and state of what is there */
    STORE_CHANGE_DELETE,   /* is not to be there */
};

struct store_batch_message;

/* What happens to one recipient of one message. */
struct store_batch_part {
    struct map_node node;
    struct store_batch_part *next; /* of the same message */
    struct store_batch_message *message;
    struct store_recipient recipient; /* PUT: all of it. UPDATE: packet_id and state */
    enum store_change change;
    bool applied; /* for the one that writes */
};

/* What happens to one message. */
struct store_batch_message {
    struct map_node node;
    struct store_batch_message *next; /* in the order of their first change */
    uint64_t arrival;
    struct message *message; /* one reference; NULL: appended in an earlier batch */
    uint64_t expires_unix_ms;
    struct store_batch_part *first_part, *last_part;
    size_t put_count; /* parts whose change is PUT */
    bool appended;    /* in this batch; with message NULL, it has gone again */
};

struct store_batch_session;

struct store_batch_subscription {
    struct map_node node;
    struct store_batch_subscription *next; /* of the same session */
    const struct store_batch_session *owner;
    uint64_t filter_hash;                   /* under the batch's seed */
    struct store_subscription subscription; /* DELETE: session and filter only */
    enum store_change change;
};

/* What happens to one session: first it is deleted with its subscriptions (is_deleted), then put
 * (is_put), then its subscriptions change. */
struct store_batch_session {
    struct map_node node;
    struct store_batch_session *next;
    struct store_session session;
    struct store_will will;
    struct store_batch_subscription *first_subscription;
    bool is_deleted;
    bool is_put;
};

struct store_batch_chunk;

struct store_batch {
    struct hash_seed seed;
    uint64_t ticket;
    uint64_t change_count; /* calls since the last reset; 0: there is nothing to commit */
    struct store_batch_message *first_message, *last_message;
    struct store_batch_session *first_session, *last_session;
    struct map messages, parts, sessions, subscriptions;
    struct store_batch_chunk *chunks; /* the current one first */
    struct store_batch_chunk *spare;
    bool failed;
};

/* Makes an empty batch. `seed` keys the hashes of filters. No allocation. */
void store_batch_init(struct store_batch *batch, const struct hash_seed *seed, uint64_t ticket);

/* Releases the messages and frees everything. */
void store_batch_fini(struct store_batch *batch);

/* Releases the messages and makes the batch empty under a new ticket; keeps memory for the next. */
void store_batch_reset(struct store_batch *batch, uint64_t ticket);

/* The changes of store.h. */
void store_batch_append(struct store_batch *batch, struct message *message,
                        uint64_t expires_unix_ms, const struct store_recipient *recipients,
                        size_t count);
void store_batch_add(struct store_batch *batch, uint64_t arrival,
                     const struct store_recipient *recipient);
void store_batch_update(struct store_batch *batch, uint64_t arrival, enum store_role role,
                        uint64_t session, uint16_t packet_id, enum store_state state);
void store_batch_finish(struct store_batch *batch, uint64_t arrival, enum store_role role,
                        uint64_t session);
void store_batch_put_session(struct store_batch *batch, const struct store_session *session);
void store_batch_delete_session(struct store_batch *batch, uint64_t number);
void store_batch_put_subscription(struct store_batch *batch,
                                  const struct store_subscription *subscription);
void store_batch_delete_subscription(struct store_batch *batch, uint64_t session,
                                     struct bytes filter);

/* The change to one recipient, or NULL. */
struct store_batch_part *store_batch_find_part(const struct store_batch *batch, uint64_t arrival,
                                               enum store_role role, uint64_t session);

/* True when there is nothing to write: every change has been taken back by a later one. */
bool store_batch_leaves_nothing(const struct store_batch *batch);

#endif
