/*
 * stomp_client_state: the structures behind stomp_client.h, for its own files. stomp_client.c cuts
 * the byte stream into frames and keeps time, stomp_connect.c answers CONNECT, stomp_frames.c the
 * other frames, stomp_subscribe.c keeps subscriptions, stomp_transaction.c what waits for a COMMIT,
 * stomp_headers.c turns headers into a message's properties and back, stomp_output.c sends.
 */
#ifndef BROKER_STOMP_CLIENT_STATE_H
#define BROKER_STOMP_CLIENT_STATE_H

#include "control.h"
#include "map.h"
#include "stomp_client.h"
#include "stomp_destination.h"
#include "stomp_frame.h"
#include "timer_wheel.h"

struct stomp_clients {
    struct client_host host;
    struct core *core;
    struct timer_wheel wheel;
    struct hash_seed seed;
    struct stomp_client *first; /* all open clients */
    struct map by_id;           /* subscriptions, by client and id */
    struct map by_number;       /* and by client and number */
    struct control_hub *control_hub;
    uint64_t number; /* of the client that came last */
    uint64_t connected;
    uint64_t sessions;
    struct mqtt_client_stats stats;
};

#define STOMP_LEFT "the client sent DISCONNECT"

enum {
    STOMP_LOGIN_TIMEOUT_MS = 30 * 1000,
    STOMP_EARLY_PAUSE = 4 * 1024, /* waiting while a password is checked: no more is read then */
};

enum stomp_state {
    STOMP_NEW,      /* CONNECT is awaited */
    STOMP_CHECKING, /* its password is being checked; what comes meanwhile waits in the tail */
    STOMP_CONNECTED,
    STOMP_CLOSING, /* host.close was called */
};

/* The beginning of a frame whose rest has not come yet. */
struct stomp_tail {
    size_t len;
    size_t capacity;
    uint8_t data[];
};

/* A CONNECT whose password is being checked. */
struct stomp_login {
    struct access_check *check;
    uint64_t mark; /* access_grant.mark */
    size_t len;
    uint8_t frame[];
};

struct stomp_client {
    struct client base; /* first */
    struct stomp_clients *clients;
    struct stomp_client *next, *previous;
    void *link;
    struct mqtt_settings *settings; /* one reference held */
    struct stomp_tail *tail;
    struct stomp_scan scan; /* of the frame that tail begins */
    struct control *control;
    struct stomp_subscription *subscriptions;
    struct stomp_subscription *ready_first, *ready_last; /* those that may have deliveries */
    struct stomp_transaction *transactions;
    char *user_name;              /* NULL: anonymous, or, before CONNECT, no certificate */
    char *client_id;              /* NULL before CONNECT */
    struct stomp_login *login;    /* STOMP_CHECKING only */
    struct access_rights *rights; /* NULL: it may do everything */
    uint64_t login_mark;          /* access_grant.mark */
    struct bytes frame;           /* the one at hand, whole; borrowed */
    struct bytes receipt;         /* that the frame at hand asks for; borrowed from it */
    uint64_t ticket;    /* of the store, for what the frame at hand has changed; 0 = none */
    struct timer timer; /* connect deadline, then heart-beats */
    uint64_t number;    /* names this client and no other */
    uint64_t opened_ms;
    uint64_t last_sent_ms;
    size_t action_bytes; /* of the messages in all transactions */
    uint32_t action_count;
    uint32_t send_interval_ms;    /* how often the client wants to hear from us; 0 = never */
    uint32_t receive_interval_ms; /* and we from it */
    uint32_t subscription_count;
    uint32_t subscription_number; /* of the one that came last */
    uint16_t user_name_len;
    uint16_t client_id_len;
    uint8_t version; /* enum stomp_version */
    uint8_t state;   /* enum stomp_state */
    bool is_paused;  /* not read from: it leaves answers unread */
    bool is_leaving; /* DISCONNECT came: its receipt waits for others that wait for the store */
    bool refused;    /* CONNECT was: the log has said so */
    bool beat_due;   /* a heart-beat goes out unless something else does */
};

enum stomp_ack_mode { STOMP_ACK_AUTO, STOMP_ACK_CLIENT, STOMP_ACK_INDIVIDUAL };

/* One subscription; it is the client of its session. */
struct stomp_subscription {
    struct client base; /* first */
    struct stomp_client *client;
    struct stomp_subscription *next, *previous; /* of the same client */
    struct stomp_subscription *next_ready;
    struct map_node id_node, number_node;
    struct session *session; /* NULL once it was lost */
    uint32_t number;         /* in message-id: no other one of this client had it */
    uint16_t id_len;
    uint8_t reply_len; /* of the topic that is behind id; 0 unless it is a temp-queue */
    uint8_t ack_mode;  /* enum stomp_ack_mode */
    uint8_t style;     /* enum stomp_style: how its client writes destinations */
    uint8_t qos;
    bool has_id;     /* false in 1.0 without an id: the destination is it */
    bool is_durable; /* the session stays when the connection ends */
    bool is_ready;   /* in the client's list */
    uint8_t id[];
};

/* A message on its way to the core. */
struct stomp_publication {
    struct message *message; /* one reference */
    bool opens_queue;        /* its topic is a queue, which is made when there is none */
};

/* What ACK and NACK name: parts of message-id. */
struct stomp_settlement {
    uint32_t subscription;
    uint16_t packet_id; /* 0: it was sent at QoS 0, there is nothing to settle */
    enum core_verdict verdict;
};

/* stomp_client.c */

/* Ends the client: ERROR with `text`, one readable sentence, then host.close. */
void stomp_fail(struct stomp_client *client, uint64_t now_ms, enum mqtt_reason reason,
                const char *text);

/* Says why the client is gone, and asks for the connection to be closed. */
void stomp_leave(struct stomp_client *client, uint64_t now_ms, enum mqtt_reason reason,
                 const char *why);

/* The same without a call of the core: its subscriptions go when the connection does. */
void stomp_begin_leaving(struct stomp_client *client, enum mqtt_reason reason, const char *why);

/* Starts what the timer is for once CONNECT was accepted. */
void stomp_arm_heart_beats(struct stomp_client *client, uint64_t now_ms);

/* What the frame at hand has asked of the core is not durable before now. */
void stomp_take_ticket(struct stomp_client *client);

/* Handles what waited for the answer to CONNECT. */
void stomp_go_on(struct stomp_client *client, uint64_t now_ms);

/* stomp_connect.c */
void stomp_on_connect(struct stomp_client *client, uint64_t now_ms,
                      const struct stomp_frame *frame);
void stomp_cancel_login(struct stomp_client *client);

/* The files have changed: a client may have to go, or is held to an ACL from now on. */
void stomp_recheck(struct stomp_client *client, uint64_t now_ms);

/* stomp_frames.c: a frame of a connected client. */
void stomp_on_frame(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame);

/* Gives a message to the core. False: the client was sent away. */
bool stomp_publish(struct stomp_client *client, uint64_t now_ms,
                   const struct stomp_publication *publication);

/* Settles deliveries. What is not in flight any more, or never was, is passed over. */
void stomp_settle(struct stomp_client *client, const struct stomp_settlement *settlement);

/* stomp_subscribe.c */
void stomp_on_subscribe(struct stomp_client *client, uint64_t now_ms,
                        const struct stomp_frame *frame);
void stomp_on_unsubscribe(struct stomp_client *client, uint64_t now_ms,
                          const struct stomp_frame *frame);
struct stomp_subscription *stomp_find_number(const struct stomp_client *client, uint32_t number);

/*
 * Writes the topic that answers to the temp-queue `name` come to; the queue is made when the client
 * has none of that name. False: the client was sent away.
 */
bool stomp_temp_queue(struct stomp_client *client, uint64_t now_ms, struct bytes name,
                      struct writer *topic);

/* Ends all subscriptions; durable ones stay without the client. */
void stomp_drop_subscriptions(struct stomp_client *client, uint64_t now_ms);

/* stomp_transaction.c */
void stomp_on_begin(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame);
void stomp_on_commit(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame);
void stomp_on_abort(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame);

/* Keeps a message or a settlement for the COMMIT of `name`. Takes the message in any case. False:
 * the client was sent away. */
bool stomp_keep_publication(struct stomp_client *client, uint64_t now_ms, struct bytes name,
                            const struct stomp_publication *publication);
bool stomp_keep_settlement(struct stomp_client *client, uint64_t now_ms, struct bytes name,
                           const struct stomp_settlement *settlement);

/* Aborts all. */
void stomp_drop_transactions(struct stomp_client *client);

/* stomp_headers.c */

/* Room for what stomp_write_properties writes: a header's line has two bytes that are none of its
 * text, a property five. */
enum { STOMP_PROPERTIES_MAX = STOMP_HEAD_BYTES_MAX + 5 * (STOMP_HEADERS_MAX + 1) };

/* Writes the headers of a SEND as MQTT 5 properties: content type, correlation data, response topic
 * (`reply_topic`, empty = none), and the rest as user properties. */
void stomp_write_properties(struct writer *writer, const struct stomp_frame *frame,
                            struct bytes reply_topic);

/* The other way round, for a MESSAGE. The writer has room for stomp_properties_room. */
void stomp_write_message_headers(struct writer *writer, enum stomp_version version,
                                 enum stomp_style style, struct bytes properties);
size_t stomp_properties_room(struct bytes properties);

/* stomp_output.c */

/* Every RECEIPT goes out here, when what its frame asked for is done, and durable. */
void stomp_send_receipt(struct stomp_client *client, uint64_t now_ms, struct bytes receipt);

void stomp_send_connected(struct stomp_client *client, uint64_t now_ms);

/* Without memory nothing is sent. `receipt` may be empty. */
void stomp_send_error(struct stomp_client *client, struct bytes receipt, const char *text);

/* A message of `bytes` waits for the store. Too many, and their sender is not read from. */
void stomp_count_uncommitted(struct stomp_client *client, size_t bytes);

void stomp_send_output(struct stomp_client *client, uint64_t now_ms, struct output *output);

#endif
