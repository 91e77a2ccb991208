/*
 * core_state: the structures behind core.h, seen by the core's own files only.
 *
 * session.c opens and ends sessions, session_queue.c fills and empties their queues, subscribe.c
 * keeps subscriptions and shared groups, scan.c reads retained messages for new ones, router.c
 * brings a message to sessions, delivery.c hands it to clients, durable.c tells the store and waits
 * for it, spill.c takes messages out of memory and reads them back, recovery.c reads all after a
 * start.
 */
#ifndef BROKER_CORE_STATE_H
#define BROKER_CORE_STATE_H

#include "core.h"
#include "id_set.h"
#include "map.h"
#include "retained.h"
#include "slot.h"
#include "store.h"
#include "stored_run.h"
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
    struct core_watch *watches; /* NULL most of the time */
    uint32_t matched;           /* places in queues that the message published last has got */
    uint64_t now_ms;            /* of the call that is being served */
    uint64_t sequence;          /* of the message accepted last */
    uint64_t session_number;
    uint32_t group_number;
    struct core_stats stats;

    /* Durability (durable.c) */
    struct store *store;     /* NULL: nothing outlives the process; borrowed */
    uint64_t unix_offset_ms; /* Unix time when now_ms was 0 */
    uint64_t committed;      /* tickets up to this one are durable */
    uint64_t changes;        /* counted */
    uint64_t changed;        /* the ticket of the latest one */
    uint64_t ticket;         /* what the answer to the call being served waits for; 0 = nothing */
    struct map durables;     /* struct session_durable by session number */
    struct durable_part *parts; /* of the message being routed */
    size_t part_count, part_capacity;
    bool part_failed;                   /* no memory for one of them */
    bool is_ending;                     /* core_begin_end */
    struct store_recipient *recipients; /* part_capacity + 2 of them */
    struct session **waiting;           /* sessions blocked until the next commit */
    size_t waiting_count, waiting_capacity;
    struct session_durable *spill_list;
};

/* A session that is to have the message being routed, and the slot in its queue. */
struct durable_part {
    struct session *session;
    struct slot *slot; /* NULL: it is a queue's, which may have moved it on already */
};

/* What only a session that outlives the process needs. */
struct session_durable {
    struct map_node node; /* in core->durables */
    struct session *session;
    struct session_durable *next_spill; /* in core->spill_list */
    struct session_backlog *backlog;    /* NULL: all that waits is in session->queue; owned */
    uint64_t assigned_at; /* ticket by which all packet identifiers given are durable */
    bool epoch;           /* of the identifiers given last; only they may not be durable yet */
    bool on_spill_list;
    bool is_fetching; /* an answer to store_fetch is awaited */
};

/*
 * What stands in front of a session's queue: first slots, then what is in the store only. Entries
 * of the run become slots at the end of `front` to be fetched, when that is empty, and slots become
 * entries again when their session has no client. It is there while there is something in it.
 */
struct session_backlog {
    struct slot_queue front;
    struct stored_run run;
    bool
        front_may_leave; /* the slots of a queue's anchor are not on their way to a consumer only */
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

/* What only a session needs that may be without its client, or leaves a will. */
struct session_absence {
    struct timer timer; /* will delay or expiry, whichever is earlier; armed while disconnected */
    struct session *session;
    struct session_will *will;       /* NULL: none */
    struct session_durable *durable; /* NULL: it ends with the process; owned */
    uint64_t expires_at_ms;          /* TIMER_NEVER while connected, or for ever */
    uint32_t expiry_s;
};

struct session {
    struct map_node node; /* in core->sessions */
    uint64_t number;
    void *client;              /* NULL while disconnected */
    struct slot_queue queue;   /* not sent yet; durable->backlog stands before it */
    struct slot_window window; /* sent at QoS 1 and 2, not acknowledged */
    struct id_set unreleased;  /* QoS 2 identifiers from the client, PUBREL awaited */
    struct session_subscription *subscriptions;
    struct share_member *queue_members; /* of them those of queues */
    struct session_absence *absence; /* NULL: it ends with its connection, without a will; owned */
    struct shared *reader; /* what effects.may_read is asked with; NULL: it may read everything */
    size_t queued_bytes;   /* of the messages in queue */
    uint32_t subscription_count;
    uint32_t scans;        /* SLOT_SCAN in queue */
    uint32_t shared_slots; /* slots in queue and window that came through a shared subscription */
    uint16_t receive_maximum;
    uint16_t quota_used;
    uint16_t client_id_len;
    bool output_pending : 1; /* output_ready was called and core_next has not returned CORE_NOTHING
                                since */
    bool blocked : 1;        /* nothing can be sent before an acknowledgement or a commit comes */
    bool is_waiting : 1;     /* in core->waiting */
    bool is_durable : 1;     /* absence->durable is there */
    bool has_shared : 1;     /* some of its subscriptions are shared, or were */
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
    uint32_t number;     /* names it in the store */
    uint64_t owner;      /* queue: the session number under which the store has its messages */
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
    uint64_t sequence;        /* newer messages reach the new subscription live */
    struct slot_queue found;  /* of a scan that gathers: not sent yet */
    struct message *aside;    /* it waits until one of its copies in flight is acknowledged; held */
    struct scan_known *known; /* NULL: it was not interrupted by a crash; held */
    uint32_t identifier;
    uint8_t qos;
    bool no_local;
    bool is_gathered;  /* all that it will gather is in `found`, or was sent */
    bool is_too_large; /* it was not all that there is */
};

/* What a session had before a restart: arrivals, sorted. */
struct scan_known {
    struct shared shared;
    size_t count;
    uint64_t arrivals[];
};

enum {
    SCAN_BUDGET = 64,     /* retained topics looked at in one step */
    GATHER_MAX = 16,      /* steps of a scan that gathers in one core_next */
    GATHERED_MAX = 65536, /* slots that one scan may hold, 1.5 MiB */
};

/* router.c: core_publish within another call. */
MUST_USE enum mqtt_reason router_publish(struct core *core, uint64_t now_ms, struct session *from,
                                         struct message *message);
static inline bool session_may_read(const struct core *core, const struct session *session,
                                    const struct message *message)
{
    return session->reader == NULL ||
           core->effects.may_read(core->effects.ctx, session->reader, message_topic(message));
}

/* session.c */

/* The session of that client id, or NULL. */
struct session *session_find(const struct core *core, struct bytes client_id);

/* A new session without a client, with the next number or, when not 0, that of before a restart;
 * NULL when there is no memory. No other may have that id. */
struct session *session_create(struct core *core, struct bytes client_id, uint64_t number);

/* The session can be without a client from now on. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status session_allow_absence(struct session *session);

/* Ends a session without a word: its memory, subscriptions and queue. */
void session_forget(struct core *core, struct session *session);

/* Arms the timer of a session without a client for its will or its end. Requires: it can be
 * without one. */
void session_arm_timer(struct core *core, struct session *session);

/* The session's timer fired: its will is due, or it has expired. */
void session_on_timer(struct core *core, uint64_t now_ms, struct session_absence *absence);

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

/* Drops the first slot, whose references were moved or released. */
void session_drop_first(struct core *core, struct session *session);

/* What stands in front of the session's queue, or NULL. */
static inline struct session_backlog *session_backlog(const struct session *session)
{
    return !session->is_durable ? NULL : session->absence->durable->backlog;
}

/* How many wait to be sent. */
static inline uint32_t session_waiting(const struct session *session)
{
    const struct session_backlog *backlog = session_backlog(session);
    return session->queue.count + (backlog == NULL ? 0 : backlog->front.count + backlog->run.count);
}

/* The first slot that waits. NULL when nothing waits, or when the first is in the store only and
 * has no slot: then there is a backlog. */
static inline struct slot *session_first(const struct session *session)
{
    const struct session_backlog *backlog = session_backlog(session);
    return slot_queue_first(backlog == NULL ? &session->queue : &backlog->front);
}

/* The backlog, made when there is none; NULL when there is no memory. Requires: durable. */
MUST_USE struct session_backlog *session_make_backlog(struct session *session);

/* The backlog goes when it is empty. */
void session_trim_backlog(struct session *session);

/* A zeroed slot in front of all that waits; NULL when there is no memory. */
MUST_USE struct slot *session_unshift(struct core *core, struct session *session);

/* Makes the first entry that is in the store only a slot at the end of the backlog's front. False:
 * no memory. Requires: there is one. */
MUST_USE bool session_unpack(struct core *core, struct session *session);

/* Steps over all slots that wait, those of the front first; without entries of the run. */
struct session_cursor {
    const struct slot_queue *queues[2];
    struct slot_cursor at;
    uint8_t number;
};
struct session_cursor session_cursor_of(const struct session *session);
struct slot *session_next_slot(struct session_cursor *cursor);

/* Takes the SLOT_EMPTY ones out of what waits. */
void session_compact(struct core *core, struct session *session);

/* Drops one reference; the last one frees the group. */
void share_group_release(struct share_group *group);

/* durable.c. All of it does nothing without a store. */

/* The current call's answer must wait for the changes made so far. */
void durable_hold_answer(struct core *core);

/* True when nothing more should be accepted that would have to be stored. */
bool durable_is_full(const struct core *core);

/* True when there is no room for a message that may have to be stored. */
bool durable_refuses(const struct core *core, const struct message *message);

/* Makes a session outlive the process, or no more; durable_make does so for one that the store has
 * already. Requires: it can be absent. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status durable_attach(struct core *core, struct session *session);
MUST_USE enum status durable_make(struct core *core, struct session *session);
void durable_detach(struct core *core, struct session *session);

/* Tells the store how a durable session is now. */
void durable_put_session(struct core *core, const struct session *session);

/* Tells the store of a subscription of a durable session. */
void durable_put_subscription(struct core *core, const struct session_subscription *subscription,
                              bool scan_pending);
void durable_delete_subscription(struct core *core,
                                 const struct session_subscription *subscription);

/* Notes that the message being routed is in the session's queue, in `slot`. False: no memory. */
MUST_USE bool durable_note(struct core *core, struct session *session, struct slot *slot);

/* Stores the routed message for all that were noted, as retained, and, with a packet_id, for its
 * sender. False: no memory; then nothing is stored. */
MUST_USE bool durable_append(struct core *core, const struct session *from, uint16_t packet_id,
                             struct message *message);

/* The noted slots get a message that is stored already; with is_stored false they stay in memory.
 */
void durable_add_parts(struct core *core, bool is_stored);

/* A part in a stored message that is no slot is done with. */
void durable_finish_part(struct core *core, uint64_t arrival, enum store_role role,
                         uint64_t session_number);

/* A stored slot is done with. */
void durable_finish(struct core *core, const struct session *session, const struct slot *slot);

/* True when the store remembers the packet identifier under which the session gets the slot's
 * message: not that of a queue's message, which goes back to the queue after a crash. */
MUST_USE bool durable_keeps_identifier(const struct core *core, const struct session *session,
                                       const struct slot *slot);

/* True when an identifier given to such a slot now would become durable later than its message, or
 * when both must be durable before anything is sent. */
MUST_USE bool durable_is_older(const struct core *core, const struct slot *slot);

/* A slot of the window has got its packet identifier. */
void durable_assign(struct core *core, struct session *session, struct slot *slot);

/* A slot of the window has a new state: PUBREC came. */
void durable_update(struct core *core, const struct session *session, const struct slot *slot);

/* The session's window has a message that it did not get through its queue. */
void durable_add(struct core *core, struct session *session, struct slot *slot);

/* True when the message must be durable before it is delivered, and is not so yet. */
bool durable_must_wait(const struct core *core, const struct message *message);

/*
 * Identifiers are given in epochs, each durable with one ticket, so that one bit of a slot says
 * whether its own one is durable.
 *
 * assignment_pending   the last epoch's are not
 * identifier_is_pending   the slot's is not
 * may_assign   a new one may be given: the last epoch is durable, or this is its batch
 * is_assigning   the latter
 */
bool durable_assignment_pending(const struct core *core, const struct session *session);
bool durable_identifier_is_pending(const struct core *core, const struct session *session,
                                   const struct slot *slot);
bool durable_may_assign(const struct core *core, const struct session *session);
bool durable_is_assigning(const struct core *core, const struct session *session);

/* Nothing goes to the session's client before the next commit. */
void durable_wait(struct core *core, struct session *session);

/* The durable session of that number, or NULL. */
struct session *durable_find(const struct core *core, uint64_t number);

/* The store's events; `ctx` is the core. */
void durable_on_committed(void *ctx, uint64_t ticket);
void durable_on_failed(void *ctx, const char *why);

void durable_fini(struct core *core);

/* The number under which the store has a stored slot: what a queue's consumer has is still the
 * queue's. */
uint64_t durable_owner_of(const struct session *session, const struct slot *slot);

/* spill.c */

/* Asks for the messages that the session needs next and that are in the store only: nothing can be
 * sent before they come. False: no memory to ask for them. */
MUST_USE bool spill_fetch(struct core *core, struct session *session);

/* The client of a durable session is gone: QoS 0 messages that waited for it would keep what stands
 * behind them in memory. */
void spill_drop_qos0(struct core *core, struct session *session);

/* The session is without a client: what the store has need not be in memory. */
void spill_session(struct core *core, struct session *session);

/* After a commit: what has become durable goes. */
void spill_listed(struct core *core);

/* A durable session ends. */
void spill_forget(struct core *core, struct session_durable *durable);

/* The store's answer; `ctx` is the core. */
void spill_on_fetched(void *ctx, uint64_t number, const struct store_fetched *items, size_t count);

/* watch.c */

/* A session has got the message that came as number `sequence` for good. */
void watches_count(struct core *core, uint64_t sequence);

/* The same, for the hot path. */
static inline void acknowledge(struct core *core, uint64_t sequence)
{
    if (core->watches != NULL) {
        watches_count(core, sequence);
    }
}

/* delivery.c */

/* There is room in the window, or a commit came: what waited for it may go. */
void session_go_on(struct core *core, struct session *session);

/* Releases what the last delivery borrowed. */
void core_end_loan(struct core *core);

/* scan.c */

/* Lets the retained messages that match a subscription follow in its session's queue. False: no
 * memory. */
MUST_USE bool scan_open(struct core *core, const struct session_subscription *subscription,
                        const struct core_subscribe *subscribe, uint8_t qos);

/* The same after a crash had interrupted it. *known serves all scans of the session: NULL for the
 * first one, then the caller's to release. */
MUST_USE bool scan_again(struct core *core, const struct session_subscription *subscription,
                         struct scan_known **known);

/* Whoever unsubscribes, or subscribes again, wants no more of an earlier scan [MQTT-3.10.4-2]. */
void scan_cancel(struct core *core, const struct session_subscription *subscription);

/* Frees a scan of the session; what it has found and not sent is given up. */
void scan_close(struct core *core, struct session *session, struct retained_scan *scan);

/* True when the scan must have found all before anything is sent. */
bool scan_gathers(const struct core *core, const struct session *session,
                  const struct retained_scan *scan);

enum scan_step {
    SCAN_MESSAGE,
    SCAN_AGAIN, /* enough was done for one call */
    SCAN_WAITS, /* for an acknowledgement */
    SCAN_END,
};

/*
 * The next message, with one reference, for SCAN_MESSAGE; `is_durable` when the store must be told
 * that it is the session's (durable_add). The store can have a message as the same session's twice
 * and no more: when it has, and both copies are in flight, a third one waits.
 */
enum scan_step scan_step(const struct core *core, const struct session *session,
                         struct retained_scan *scan, struct slot *out, bool *is_durable);

/* Goes on gathering for a while. SCAN_END: it has all. */
enum scan_step scan_gather(struct core *core, struct session *session, struct retained_scan *scan);

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

/* The queue whose messages `session` holds, or NULL. */
struct share_group *queue_of_anchor(const struct session *session);

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
