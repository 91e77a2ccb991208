/*
 * core: what the broker is, without sockets, clock or files. Sessions, subscriptions, routing,
 * queues, retained messages and wills; inputs come as calls with the time in them, effects go out
 * through struct core_effects and core_next.
 *
 * The life of a message: a client's decoder makes a `struct message` and calls core_publish. The
 * core stores it if it is retained, finds the matching subscriptions and appends a slot to each
 * session's queue; the first one wakes the session's client (effects.output_ready). When the
 * client's connection can be written to, the client takes deliveries with core_next until its
 * output is full or nothing may be sent, and encodes them.
 *
 *   Threads    All calls come from one thread.
 *   Replay     The same calls give the same effects: no address, clock or random number decides
 *              anything. The hash seed is injected.
 *   Memory     Every queue has a limit in core_options.
 */
#ifndef BROKER_CORE_H
#define BROKER_CORE_H

#include "hash.h"
#include "message.h"
#include "mqtt.h"
#include "status.h"

struct core;
struct session;

#define CORE_SESSION_NEVER_EXPIRES UINT32_MAX

/* Subscription Identifiers that one delivery carries at most. */
enum { CORE_IDENTIFIERS_MAX = 1024 };

/* Longest name of a queue. */
enum { CORE_QUEUE_NAME_MAX = 1024 };

struct core_options {
    struct hash_seed seed;
    size_t queued_messages_max; /* per session, not sent yet; 0 = no limit */
    size_t queued_bytes_max;    /* per session; 0 = no limit */
    uint16_t inflight_max;      /* messages in flight to one client; 0 = 65535 */
    size_t inflight_bytes_max;  /* of them together, but one always goes; 0 = no limit */
    size_t subscriptions_max;   /* per session; 0 = no limit */
    size_t queues_max;          /* 0 = no limit */
    size_t topic_nodes_max;     /* distinct filter prefixes, and distinct retained prefixes */
    uint32_t topic_levels_max;  /* at most TOPIC_LEVELS_MAX */
    /* Longest Session Expiry Interval granted; CORE_SESSION_NEVER_EXPIRES = no limit. */
    uint32_t session_expiry_max_s;
    uint8_t qos_max;  /* highest QoS granted to a subscription */
    bool queue_qos0;  /* QoS 0 messages wait for offline sessions too */
    bool upgrade_qos; /* deliver at the subscription's QoS even if published lower */
};

/* The defaults that an embedder and the tests start from. */
struct core_options core_options_default(void);

/* What the core asks of the rest. `client` is what core_connect was given. None may call back into
 * the core. */
struct core_effects {
    void *ctx;
    /* core_next has something for this client. Called once until a core_next has returned
     * CORE_NOTHING. */
    void (*output_ready)(void *ctx, void *client);
    /* The session was taken from this client, which must go: say `reason` and close. It may not use
     * the session any more. */
    void (*session_lost)(void *ctx, void *client, enum mqtt_reason reason);
    /* Answers that waited for `ticket` or less (core_ticket) may go. Only with a store. */
    void (*committed)(void *ctx, uint64_t ticket);
    /* The store has failed: nothing more can be promised, so the process must stop. */
    void (*store_failed)(void *ctx, const char *why);
    /* May the session that was given this `reader` get messages of `topic`? Only asked for sessions
     * that have one. */
    bool (*may_read)(void *ctx, struct shared *reader, struct bytes topic);
};

/* Figures for $SYS and metrics; all but the gauges count since the start. */
struct core_stats {
    uint64_t sessions;           /* gauge: connected or not */
    uint64_t sessions_connected; /* gauge */
    uint64_t sessions_connected_max;
    uint64_t sessions_expired;
    uint64_t subscriptions;        /* gauge */
    uint64_t shared_subscriptions; /* gauge */
    uint64_t queues;               /* gauge */
    uint64_t retained_messages;    /* gauge */
    uint64_t retained_bytes;       /* gauge */
    uint64_t queued_messages;      /* gauge: slots waiting or in flight in all sessions */
    uint64_t queued_bytes; /* gauge: added up over sessions; a shared payload counts for each */
    uint64_t published;    /* messages accepted */
    uint64_t delivered;    /* deliveries handed to clients, first attempts */
    uint64_t dropped;      /* deliveries given up: queue full or too large */
    uint64_t expired;      /* deliveries given up: Message Expiry Interval */
};

/* Errors: STATUS_NO_MEMORY. On STATUS_OK the caller ends *out with core_destroy. */
MUST_USE enum status core_create(const struct core_options *options,
                                 const struct core_effects *effects, uint64_t now_ms,
                                 struct core **out);

struct store;

/*
 * Makes what has to outlive the process durable in `store` (borrowed until core_destroy), and takes
 * over what is in it. Before any client, once. `unix_ms` is the Unix time at `now_ms`.
 *
 * A session that had a client when the process ended has lost it now: its expiry interval and its
 * will delay begin. Errors: STATUS_NO_MEMORY, STATUS_IO; the core must then be destroyed.
 */
MUST_USE enum status core_open_store(struct core *core, uint64_t now_ms, uint64_t unix_ms,
                                     struct store *store);

/*
 * The ticket that the answer to the latest core_connect, core_publish, core_publish_qos2,
 * core_release, core_pubrec, core_subscribe or core_unsubscribe has to wait for, since it promises
 * something: until effects.committed. 0: it may go at once. Answers keep their order.
 */
uint64_t core_ticket(const struct core *core);

/* Frees everything; sends no wills. NULL is allowed. */
void core_destroy(struct core *core);

/* New limits for what happens from now on (SIGHUP). The seed is ignored. */
void core_configure(struct core *core, const struct core_options *options);

struct core_stats core_stats(const struct core *core);

/* The time at which core_advance must be called next; TIMER_NEVER when nothing waits. */
uint64_t core_next_deadline_ms(const struct core *core);

/* Ends expired sessions, publishes delayed wills, forgets expired retained messages. */
void core_advance(struct core *core, uint64_t now_ms);

/* A will as the client's CONNECT gave it. */
struct core_will {
    struct message *message; /* qos and retain set; one reference, given to the core */
    uint32_t delay_s;
    uint32_t expiry_s; /* Message Expiry Interval, counted from publication */
    bool has_expiry;
};

struct core_connect {
    struct bytes client_id; /* not empty */
    bool clean_start;
    uint32_t session_expiry_s;
    uint16_t receive_maximum;     /* the client's; at least 1 */
    const struct core_will *will; /* NULL = none */
    /* What the session is allowed to read, also while its client is away: effects.may_read is asked
     * with it. NULL = everything. The core takes a reference. */
    struct shared *reader;
    void *client;
};

/*
 * Opens a session for a client that was let in: creates one, or resumes the one of that client id,
 * or with clean_start ends it first. A client that holds it loses it
 * (MQTT_SESSION_TAKEN_OVER, 3.1.4-3). *session_present is what CONNACK must say. The session
 * belongs to the core; the client may use it until core_disconnect, or until session_lost.
 *
 * Takes will->message in any case. Errors: STATUS_NO_MEMORY, or STATUS_LIMIT when the store has no
 * room for a new session; nothing has changed then but a takeover.
 */
MUST_USE enum status core_connect(struct core *core, uint64_t now_ms,
                                  const struct core_connect *connect, struct session **out,
                                  bool *session_present);

/* The expiry that was granted: the wish, cut to session_expiry_max_s. */
uint32_t core_session_expiry_s(const struct session *session);

struct bytes core_session_client_id(const struct session *session);

/* A number that names this session and no other, never 0. */
uint64_t core_session_number(const struct session *session);

/* From now on the session is held to `reader`, of which a reference is taken; NULL: to nothing. */
void core_session_set_reader(struct session *session, struct shared *reader);

/* Changes the expiry at DISCONNECT (3.14.2.2.2); the caller has checked that it may. */
void core_session_set_expiry(struct core *core, struct session *session, uint32_t expiry_s);

/*
 * The client is gone. `with_will` is false only after a DISCONNECT with reason 0x00 (3.1.2-10). A
 * session with expiry 0 ends now; otherwise it waits. The caller must not use the session again.
 */
void core_disconnect(struct core *core, uint64_t now_ms, struct session *session, bool with_will);

/* The process is about to end, and all clients with it: what is published from now on, their wills,
 * is for sessions that outlive it and for the retained messages alone. */
void core_begin_end(struct core *core);

/* Ends the session of `client_id`: its client, if any, loses it. Errors: STATUS_NOT_FOUND. */
MUST_USE enum status core_end_session(struct core *core, uint64_t now_ms, struct bytes client_id,
                                      enum mqtt_reason reason);

/* True when `topic` has no more levels than topic_levels_max. */
bool core_accepts_topic(const struct core *core, struct bytes topic);

/*
 * Accepts a message: stores it when message->retain (an empty payload clears), and queues it for
 * all matching sessions. `from` is the publisher's session, NULL for the broker itself. Borrows
 * `message`, whose sequence and publisher it sets: a message is published once.
 *
 * Answers MQTT_SUCCESS, MQTT_NO_MATCHING_SUBSCRIBERS, MQTT_TOPIC_NAME_INVALID (too many levels) or
 * MQTT_QUOTA_EXCEEDED (no room for a retained topic: with these two nothing was stored or sent; or
 * the message is for a queue that is full).
 */
MUST_USE enum mqtt_reason core_publish(struct core *core, uint64_t now_ms, struct session *from,
                                       struct message *message);

/*
 * The same for QoS 2: a packet identifier that was received before and not released is a repetition
 * and is answered MQTT_SUCCESS without publishing again (4.3.3).
 */
MUST_USE enum mqtt_reason core_publish_qos2(struct core *core, uint64_t now_ms,
                                            struct session *from, uint16_t packet_id,
                                            struct message *message);

/* PUBREL from the publisher. False when the identifier is not known (answer PUBCOMP 0x92). */
bool core_release(struct core *core, struct session *session, uint16_t packet_id);

/* QoS 2 messages received and not released: they count against our Receive Maximum. */
size_t core_unreleased_count(const struct session *session);

/* True when a repetition of this QoS 2 identifier is expected. */
bool core_is_unreleased(const struct session *session, uint16_t packet_id);

/* Sessions that the message published last was queued for. */
uint32_t core_matched(const struct core *core);

/*
 * Watches over a message that was just published: how many of the sessions that it was queued for
 * have acknowledged it, or, at QoS 0, were sent it. `changed` is called from inside the core after
 * each, and must not call back.
 */
struct core_watch {
    struct core_watch *next;
    uint64_t sequence;
    uint32_t matched;
    uint32_t acknowledged;
    void (*changed)(struct core_watch *watch);
};

/* Begins to watch over `message`, published last; the watch belongs to the caller. */
void core_watch_begin(struct core *core, struct core_watch *watch, const struct message *message,
                      void (*changed)(struct core_watch *watch));

/* Requires that it was begun. */
void core_watch_end(struct core *core, struct core_watch *watch);

struct core_subscribe {
    struct bytes filter; /* as sent, "$share/..." included */
    uint32_t identifier; /* 0 = none */
    uint8_t qos;
    bool no_local;
    bool retain_as_published;
    uint8_t retain_handling;
};

/*
 * Adds or replaces a subscription and lets its retained messages follow. Answers the granted QoS,
 * or MQTT_TOPIC_FILTER_INVALID, MQTT_QUOTA_EXCEEDED (subscriptions_max, topic_nodes_max, queue
 * full), MQTT_UNSPECIFIED_ERROR (no memory).
 */
MUST_USE enum mqtt_reason core_subscribe(struct core *core, uint64_t now_ms,
                                         struct session *session,
                                         const struct core_subscribe *subscribe);

/* Answers MQTT_SUCCESS, MQTT_NO_SUBSCRIPTION_EXISTED or MQTT_TOPIC_FILTER_INVALID. */
MUST_USE enum mqtt_reason core_unsubscribe(struct core *core, struct session *session,
                                           struct bytes filter);

/*
 * A queue: what is published to "$queue/<name>" is kept, also while nobody is there, until one of
 * its consumers has acknowledged it. Consumers are the shared subscriptions
 * "$share/queue/$queue/<name>": each message goes to one of them, at QoS 1, or at QoS 0 to one that
 * subscribed so; what a consumer leaves unacknowledged goes to the next, in the original order. A
 * subscription makes the queue. It is an ordinary session without a client, of the client id
 * "$queue/<name>", that never expires and holds what waits: core_end_session ends it.
 *
 * core_queue_open makes the queue `name` unless it is there. Errors: STATUS_INVALID (empty, longer
 * than CORE_QUEUE_NAME_MAX, with a wildcard or NUL), STATUS_LIMIT (queues_max, topic_nodes_max),
 * STATUS_NO_MEMORY.
 */
MUST_USE enum status core_queue_open(struct core *core, uint64_t now_ms, struct bytes name);
bool core_queue_exists(const struct core *core, struct bytes name);

/* Client ids that clients cannot have: queues, and the subscriptions of STOMP clients. */
bool core_client_id_is_reserved(struct bytes client_id);

/* True when the session has a subscription to this filter. */
bool core_is_subscribed(const struct core *core, const struct session *session,
                        struct bytes filter);

enum core_next {
    CORE_NOTHING,  /* until output_ready is called again */
    CORE_DELIVERY, /* *out is filled */
    CORE_AGAIN, /* there is more, but enough was done for one call: ask again in the next loop turn
                 */
};

/* What a client must send next. Borrowed; valid until the next call into the core. */
struct core_delivery {
    struct message *message; /* NULL: send PUBREL for packet_id */
    uint16_t packet_id;      /* 0 at QoS 0 */
    uint8_t qos;
    bool retain;
    bool dup;         /* sent to this client before */
    bool redelivered; /* or to another one, which did not acknowledge it */
    bool has_expiry;
    uint32_t expiry_s; /* what is left of the Message Expiry Interval */
    size_t identifier_count;
    const uint32_t *identifiers;
    uint32_t one_identifier; /* where identifiers points when there is one */
};

/*
 * Takes the next delivery of a connected session: first what is in flight since before the client
 * came back, in the original order, then the queue, as far as the client's Receive Maximum and
 * inflight_max allow. Once taken it counts as sent.
 */
MUST_USE enum core_next core_next(struct core *core, uint64_t now_ms, struct session *session,
                                  struct core_delivery *out);

/* The delivery just taken cannot be sent (larger than the client's Maximum Packet Size): treat it
 * as done (3.1.2-25) and count it as dropped. */
void core_give_up(struct core *core, struct session *session, const struct core_delivery *delivery);

/* PUBACK. False when no such message is in flight at QoS 1. */
bool core_puback(struct core *core, struct session *session, uint16_t packet_id);

/* What a client says about a message that it was given at QoS 1. */
enum core_verdict {
    CORE_ACCEPTED,
    CORE_RETURNED, /* to be given again: to another consumer of the queue, or to the same client */
    CORE_REJECTED, /* never again */
};

/*
 * The same as core_puback for clients that say more. With `cumulative` the verdict is about every
 * message that was sent up to this one. False when no such message is in flight at QoS 1.
 */
bool core_settle(struct core *core, struct session *session, uint16_t packet_id,
                 enum core_verdict verdict, bool cumulative);

/*
 * PUBREC. True: answer PUBREL. False: no such message is in flight at QoS 2 (answer PUBREL 0x92 in
 * MQTT 5), or `reason` refused it, which ends it (*refused; nothing to answer).
 */
bool core_pubrec(struct core *core, struct session *session, uint16_t packet_id,
                 enum mqtt_reason reason, bool *refused);

/* PUBCOMP. False when no PUBREL is in flight for it. */
bool core_pubcomp(struct core *core, struct session *session, uint16_t packet_id);

/* The retained message of a topic, borrowed, or NULL. */
struct message *core_retained(struct core *core, uint64_t now_ms, struct bytes topic);

/* Asserts the invariants of everything. O(all): for tests. */
void core_check(const struct core *core);

#endif
