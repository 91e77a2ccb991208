/*
 * core_state: the structures behind core.h, seen by the core's own files only.
 *
 * session.c opens and ends sessions, session_queue.c fills and empties their queues, subscribe.c
 * keeps subscriptions and shared groups, router.c brings a message to sessions, delivery.c hands it
 * to clients.
 */
#ifndef BROKER_CORE_STATE_H
#define BROKER_CORE_STATE_H

#include "core.h"
#include "id_set.h"
#include "map.h"
#include "retained.h"
#include "slot.h"
#include "timer_wheel.h"
#include "topic_trie.h"

struct core {
    struct core_options options;
    struct core_effects effects;
    struct map sessions;      /* by client id */
    struct map subscriptions; /* by session and filter */
    struct map groups;        /* by "<group>/<filter>" */
    struct topic_trie *trie;
    struct retained *retained;
    struct timer_wheel wheel; /* session timers */
    uint64_t sweep_at_ms;     /* when expired retained messages are looked for again */
    struct slot_pool pool;
    struct message *lent; /* what the last delivery points to: kept until the next one */
    struct identifier_list *lent_list;
    uint64_t now_ms;   /* of the call that is being served */
    uint64_t sequence; /* of the message accepted last */
    uint64_t session_number;
    struct core_stats stats;
};

/* One subscription, from the session's side. What was asked for is in the trie, or, for a shared
 * one, in its membership. */
struct session_subscription {
    struct map_node node; /* in core->subscriptions */
    struct session *session;
    struct session_subscription *next, *previous; /* of the same session */
    struct share_member *member;                  /* NULL for one that is not shared; owned */
    uint16_t filter_len;
    uint8_t filter[]; /* as sent, "$share/..." included */
};

struct session_will {
    struct core_will will;
    uint64_t due_at_ms; /* TIMER_NEVER while the client is connected */
};

struct session {
    struct map_node node; /* in core->sessions */
    uint64_t number;
    void *client;              /* NULL while disconnected */
    struct slot_queue queue;   /* not sent yet */
    struct slot_window window; /* sent at QoS 1 and 2, not acknowledged */
    struct id_set unreleased;  /* QoS 2 identifiers from the client, PUBREL awaited */
    struct session_subscription *subscriptions;
    struct share_member *queue_members; /* of them those of queues */
    struct session_will *will;
    struct timer timer; /* will delay or expiry, whichever is earlier; armed while disconnected */
    uint64_t expires_at_ms; /* TIMER_NEVER while connected, or for ever */
    size_t inflight_bytes;  /* of the messages in window */
    size_t queued_bytes;    /* of the messages in queue */
    uint32_t expiry_s;
    uint32_t subscription_count;
    uint32_t share_count;  /* of them shared */
    uint32_t scans;        /* SLOT_SCAN in queue */
    uint32_t shared_slots; /* slots in queue and window that came through a shared subscription */
    uint16_t receive_maximum;
    uint16_t quota_used;
    uint16_t client_id_len;
    bool output_pending; /* output_ready was called and core_next has not returned CORE_NOTHING
                            since */
    bool blocked;        /* nothing can be sent before an acknowledgement comes */
    uint8_t client_id[];
};

/* A session's place in a group. */
struct share_member {
    struct session *session;
    struct share_group *group;
    uint32_t index; /* in group->members */
    uint32_t identifier;
    uint8_t qos;
    bool retain_as_published;
    struct share_member *next_queue; /* in session->queue_members */
};

/*
 * One "$share/<group>/<filter>". When it is "$share/queue/$queue/<name>" it is a queue: then one
 * member, the anchor, is a session that no client has and that holds what waits (queue.c).
 */
struct share_group {
    struct map_node node; /* in core->groups while it has members */
    struct share_group *next_matched;
    struct share_member **members; /* those of connected sessions first */
    struct share_member *anchor;   /* NULL: no queue, or one that was ended */
    uint32_t member_count;
    uint32_t online_count;
    uint32_t capacity;
    uint32_t turn;       /* round robin over the members */
    uint32_t references; /* slots that came through it, and 1 while it has members */
    uint16_t key_len;
    uint16_t filter_at; /* the filter's offset in key */
    bool is_queue;
    bool is_starved; /* queue: no connected member may take a message */
    bool is_listed;  /* queue_take_back has it in its list, by next_matched */
    uint8_t key[];
};

/* A retained scan that stands in a queue until it was read to its end. */
struct retained_scan {
    struct retained_cursor *cursor;
    const struct session_subscription *subscription;
    uint64_t sequence; /* newer messages reach the new subscription live */
    uint32_t identifier;
    uint8_t qos;
    bool no_local;
};

/* session.c */

/* The session of that client id, or NULL. */
struct session *session_find(const struct core *core, struct bytes client_id);

/* A new session without a client; NULL when there is no memory. No other may have that id. */
struct session *session_create(struct core *core, struct bytes client_id);

/* Ends a session without a word: its memory, subscriptions and queue. */
void session_forget(struct core *core, struct session *session);

/* The session's timer fired: its will is due, or it has expired. */
void session_on_timer(struct core *core, uint64_t now_ms, struct session *session);

/* session_queue.c */

/* The QoS at which a subscription of `subscription_qos` gets a message of `message_qos`. */
static inline uint8_t delivery_qos(const struct core *core, uint8_t message_qos,
                                   uint8_t subscription_qos)
{
    return message_qos > subscription_qos || core->options.upgrade_qos ? subscription_qos
                                                                       : message_qos;
}

/* True when the session's queue has no room for `message`; expired ones in front are forgotten. */
bool session_is_full(struct core *core, struct session *session, const struct message *message);

/* Appends `message` to the session's queue, or drops and counts it. `group` is NULL or how it came
 * here. */
void session_enqueue(struct core *core, struct session *session, struct message *message,
                     const struct subscription *subscription, struct share_group *group);

/* Lets the client know that there is something to send, unless it knows or is blocked. */
void session_wake(struct core *core, struct session *session);

/* Releases the message of a SLOT_PUBLISH. */
void slot_release_message(struct session *session, struct slot *slot);

/* Releases what a slot holds and takes it out of the counts; the slot stays where it is, as
 * SLOT_EMPTY. */
void slot_release(struct core *core, struct session *session, struct slot *slot);

/* Takes a slot of the queue out of the byte counts, before it is released or moved. */
void session_leave_queue(struct core *core, struct session *session, const struct slot *slot);

/* Drops the first slot of the queue. */
void session_pop(struct core *core, struct session *session);

/* Drops all that waits. */
void session_clear_queue(struct core *core, struct session *session);

/* Drops one reference; the last one frees the group. */
void share_group_release(struct share_group *group);

/* delivery.c */

/* Releases what the last delivery borrowed. */
void core_end_loan(struct core *core);

/* subscribe.c */

/* Removes all subscriptions of a session that ends. */
void session_drop_subscriptions(struct core *core, struct session *session);

/* Moves the session's places in its groups when it comes or goes. */
void session_update_groups(struct core *core, struct session *session);

/* queue.c */

/* True when a shared subscription to `filter` in the group of that name is one to a queue. */
bool queue_is_named(struct bytes group_name, struct bytes filter);

/* The name in "$queue/<name>". */
struct bytes queue_name(struct bytes filter);

/* True when `session` is the one that holds the messages of the queue `group`. */
bool queue_is_anchor(const struct share_group *group, const struct session *session);

/* Takes a published message. False when the queue is full. */
MUST_USE bool queue_accept(struct core *core, struct share_group *group, struct message *message);

/* Gives what waits to connected members that may take more; to `except` only when no other can. */
void queue_dispatch(struct core *core, struct share_group *group, const struct session *except);

/* A member may take more, or again. False when nothing came of it. */
bool queue_refill(struct core *core, struct session *session);

/* What the session has from queues and has not acknowledged goes back to them, in its place. */
void queue_take_back(struct core *core, struct session *session);

/* Puts a slot of the session's window back into the queue that it came from. False: no memory. */
MUST_USE bool queue_put_back(struct core *core, struct session *session, struct slot *slot);

/* subscribe.c */

/* Gives a shared message to one member, not to `except`; with `online_only` not to one that is
 * away. False when there was nobody. */
bool share_group_deliver(struct core *core, struct share_group *group, struct message *message,
                         const struct session *except, bool online_only);

/* Gives what the session got through shared subscriptions, and has not begun at QoS 2, to other
 * members (4.8.2). */
void session_hand_over_shared(struct core *core, struct session *session, bool online_only);

#endif
