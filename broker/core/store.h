/*
 * store: the durable state behind the core. The core says what changes; the store puts the changes
 * of a while together into a batch, makes one batch durable after the other, and reports; the core
 * holds back what it owes to clients until then.
 *
 * The core owns this interface; broker/store has two implementations: memory_store.h, under the
 * simulator and the replay scripts, and lmdb_store.h on disk. The core cannot tell them apart. A
 * core without a store (NULL) keeps nothing.
 *
 * What is stored:
 *   messages       by arrival (message->sequence), each with its recipients: the sessions in whose
 *                  queue or window it is, its place as the retained message of its topic, and the
 *                  QoS 2 exchange of its sender. A message whose last recipient is finished goes.
 *   sessions       by number, with client id, expiry, will
 *   subscriptions  of each session, by filter
 *
 *   Threads    All calls come from the core's thread, and so do the events. An implementation
 *              writes and reads elsewhere: no call waits for a disk.
 *   Order      Changes become durable in the order of the calls; a batch does so as a whole or not
 *              at all.
 *   Errors     A change never fails towards the core. A store that cannot keep its promise any more
 *              (a failed sync, no memory for a batch) reports events.failed once and commits
 *              nothing from then on: the process must stop. One that has no room (disk or map full)
 *              says so through store_is_full, and goes on when there is room.
 *   Time       Unix milliseconds: they outlive the process.
 */
#ifndef BROKER_STORE_H
#define BROKER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "message.h"
#include "status.h"

#define STORE_TIME_NEVER UINT64_MAX

enum store_role {
    STORE_QUEUED = 0,   /* in the session's queue or window */
    STORE_SENDER = 1,   /* the session published it at QoS 2 and has not released packet_id */
    STORE_RETAINED = 2, /* the retained message of its topic; session is 0 */
    STORE_SECOND = 3,   /* STORE_QUEUED once more: the session has the message twice */
};

enum store_state {
    STORE_WAITING = 0, /* packet_id is 0, or, when it is not, given and perhaps sent */
    STORE_RELEASED = 1 /* QoS 2: PUBREC came, PUBCOMP is awaited */
};

/* One recipient. (role, session) is unique in a message. */
struct store_recipient {
    uint64_t session; /* its number; 0 for STORE_RETAINED */
    uint32_t group;   /* STORE_QUEUED through a shared subscription: the group's number; else 0 */
    uint16_t packet_id;
    uint8_t role;  /* enum store_role */
    uint8_t state; /* enum store_state */
    uint8_t qos;
    bool retain; /* the RETAIN flag of the delivery */
    uint16_t identifier_count;
    const uint32_t *identifiers; /* Subscription Identifiers; borrowed */
};

/* A message as it is read back. */
struct store_message {
    uint64_t arrival;
    uint64_t expires_unix_ms; /* STORE_TIME_NEVER */
    uint64_t publisher;       /* session number, 0 = none */
    uint8_t qos;              /* as published */
    bool retain;
    struct bytes topic;
    size_t properties_len;
    size_t payload_len;
};

struct store_will {
    struct bytes topic, properties, payload;
    uint8_t qos;
    bool retain;
    uint32_t delay_s;
    bool has_expiry;
    uint32_t expiry_s;
    uint64_t due_unix_ms; /* STORE_TIME_NEVER while the client is connected */
};

struct store_session {
    uint64_t number;
    struct bytes client_id;
    uint32_t expiry_s;
    uint64_t expires_unix_ms;      /* STORE_TIME_NEVER while connected, or for ever */
    bool connected;                /* a client held it */
    const struct store_will *will; /* NULL = none */
};

struct store_subscription {
    uint64_t session;
    struct bytes filter; /* "$share/..." included */
    uint32_t identifier;
    uint32_t group; /* number of the share group; 0 = not shared */
    uint8_t qos;
    bool no_local;
    bool retain_as_published;
    bool scan_pending; /* its retained messages have not all been sent */
};

/* What store_load finds, in this order: sessions, subscriptions, messages by arrival. Everything is
 * borrowed for the call. Returning anything but STATUS_OK ends the load with that status. */
struct store_loader {
    void *ctx;
    enum status (*on_session)(void *ctx, const struct store_session *session);
    enum status (*on_subscription)(void *ctx, const struct store_subscription *subscription);
    /* `properties` and `payload` are there only when one of the recipients is STORE_RETAINED. */
    enum status (*on_message)(void *ctx, const struct store_message *message,
                              struct bytes properties, struct bytes payload,
                              const struct store_recipient *recipients, size_t count);
};

/* One answer to store_fetch. */
struct store_fetched {
    uint64_t arrival;
    /* One reference, given to the callee; its sequence, publisher_id, qos and retain are as stored,
     * expires_at_ms is in Unix milliseconds. NULL: it cannot be read any more (corrupt); the
     * session's part in it is then lost and was logged. */
    struct message *message;
    struct store_recipient recipient; /* the session's own part; identifiers borrowed */
};

/* None may call back into the store but with changes and store_fetch. */
struct store_events {
    void *ctx;
    /* All changes made before store_ticket returned `ticket` or less are durable. */
    void (*committed)(void *ctx, uint64_t ticket);
    /* The answer to one store_fetch, in the order of its arrivals; count may be less than asked
     * for, but not 0. */
    void (*fetched)(void *ctx, uint64_t session, const struct store_fetched *items, size_t count);
    /* The promise cannot be kept any more, and why. */
    void (*failed)(void *ctx, const char *why);
};

struct store;

struct store_ops {
    void (*set_events)(struct store *store, const struct store_events *events);
    enum status (*load)(struct store *store, const struct store_loader *loader);
    void (*append)(struct store *store, struct message *message, uint64_t expires_unix_ms,
                   const struct store_recipient *recipients, size_t count);
    void (*add)(struct store *store, uint64_t arrival, const struct store_recipient *recipient);
    void (*update)(struct store *store, uint64_t arrival, enum store_role role, uint64_t session,
                   uint16_t packet_id, enum store_state state);
    void (*finish)(struct store *store, uint64_t arrival, enum store_role role, uint64_t session);
    void (*put_session)(struct store *store, const struct store_session *session);
    void (*delete_session)(struct store *store, uint64_t number);
    void (*put_subscription)(struct store *store, const struct store_subscription *subscription);
    void (*delete_subscription)(struct store *store, uint64_t session, struct bytes filter);
    void (*fetch)(struct store *store, uint64_t session, const uint64_t *arrivals, size_t count);
    uint64_t (*ticket)(const struct store *store);
    bool (*is_full)(const struct store *store);
    void (*flush)(struct store *store);
    void (*destroy)(struct store *store);
};

/* The beginning of every implementation's structure. */
struct store {
    const struct store_ops *ops;
};

/* Set once, before anything else. */
static inline void store_set_events(struct store *store, const struct store_events *events)
{
    store->ops->set_events(store, events);
}

/* Reads everything. Once, after set_events and before any change. Errors: STATUS_IO (the log says
 * what), STATUS_NO_MEMORY, or what the loader returned. */
MUST_USE static inline enum status store_load(struct store *store,
                                              const struct store_loader *loader)
{
    return store->ops->load(store, loader);
}

/* A new message with its recipients, at least one. One reference to `message` is taken while it is
 * needed; recipients are copied. Its arrival is message->sequence, larger than all before. */
static inline void store_append(struct store *store, struct message *message,
                                uint64_t expires_unix_ms, const struct store_recipient *recipients,
                                size_t count)
{
    store->ops->append(store, message, expires_unix_ms, recipients, count);
}

/* One more recipient for a message that is stored and has unfinished ones. */
static inline void store_add(struct store *store, uint64_t arrival,
                             const struct store_recipient *recipient)
{
    store->ops->add(store, arrival, recipient);
}

/* The session's STORE_QUEUED or STORE_SECOND part changes: a packet identifier was given, or PUBREC
 * came. */
static inline void store_update(struct store *store, uint64_t arrival, enum store_role role,
                                uint64_t session, uint16_t packet_id, enum store_state state)
{
    store->ops->update(store, arrival, role, session, packet_id, state);
}

/* A recipient is done with the message. */
static inline void store_finish(struct store *store, uint64_t arrival, enum store_role role,
                                uint64_t session)
{
    store->ops->finish(store, arrival, role, session);
}

/* A session is new or has changed; everything is copied. */
static inline void store_put_session(struct store *store, const struct store_session *session)
{
    store->ops->put_session(store, session);
}

/* The session and all its subscriptions go. Its parts in messages have been finished one by one. */
static inline void store_delete_session(struct store *store, uint64_t number)
{
    store->ops->delete_session(store, number);
}

static inline void store_put_subscription(struct store *store,
                                          const struct store_subscription *subscription)
{
    store->ops->put_subscription(store, subscription);
}

static inline void store_delete_subscription(struct store *store, uint64_t session,
                                             struct bytes filter)
{
    store->ops->delete_subscription(store, session, filter);
}

enum { STORE_FETCH_MAX = 256 };

/*
 * Asks for messages back whose `session` part, STORE_QUEUED or STORE_SECOND, is not finished, 1 to
 * STORE_FETCH_MAX of them; they must have been committed. The answer is one events.fetched, never
 * before this returns. At most one fetch of a session is in progress.
 */
static inline void store_fetch(struct store *store, uint64_t session, const uint64_t *arrivals,
                               size_t count)
{
    store->ops->fetch(store, session, arrivals, count);
}

/* The ticket of the batch that the next change will be in. Tickets begin at 1 and grow. */
static inline uint64_t store_ticket(const struct store *store)
{
    return store->ops->ticket(store);
}

/* True while there is no room: nothing new should be accepted. What was accepted is kept and
 * written when there is room again. */
static inline bool store_is_full(const struct store *store)
{
    return store->ops->is_full(store);
}

/* Hands the batch on when none is being written; called at the end of each loop turn. */
static inline void store_flush(struct store *store)
{
    store->ops->flush(store);
}

/* Makes durable what there is, waiting for it, unless the store has failed. NULL is allowed. */
static inline void store_destroy(struct store *store)
{
    if (store != NULL) {
        store->ops->destroy(store);
    }
}

#endif
