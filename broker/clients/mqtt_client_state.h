/*
 * mqtt_client_state: the structures behind mqtt_client.h, for its own files. mqtt_client.c opens,
 * closes and keeps time, mqtt_connection.c answers CONNECT, mqtt_login.c waits for its password to
 * be checked, mqtt_packets.c answers the other packets, mqtt_output.c sends.
 */
#ifndef BROKER_MQTT_CLIENT_STATE_H
#define BROKER_MQTT_CLIENT_STATE_H

#include "control.h"
#include "mqtt_alias.h"
#include "mqtt_client.h"
#include "mqtt_decoder.h"
#include "timer_wheel.h"

enum {
    ENTRIES_MAX = 16 * 1024,       /* in one SUBSCRIBE or UNSUBSCRIBE: the loop is not held up */
    LOGIN_TIMEOUT_MS = 30 * 1000,  /* for a password to be checked, with those before it */
    LOGIN_EARLY_PAUSE = 16 * 1024, /* bytes of packets sent meanwhile; then nothing more is read */
    LOGIN_EARLY_MAX = 1024 * 1024, /* of those that had been read by then */
};

struct mqtt_clients {
    struct client_host host;
    struct core *core;
    struct timer_wheel wheel;
    struct mqtt_client *first; /* all open clients */
    struct control_hub control_hub;
    struct mqtt_client_stats stats;
};

enum client_state {
    CLIENT_NEW,       /* CONNECT is awaited */
    CLIENT_CHECKING,  /* CONNECT came, and its password is being checked; what follows waits */
    CLIENT_CONNECTED, /* it has a session */
    CLIENT_CLOSING,   /* host.close was called */
};

/* A packet that came while the password was being checked, with its message. */
struct early {
    struct early *next;
    struct mqtt_packet packet;
    uint8_t body[];
};

/* Those packets in their order. */
struct earlies {
    struct early *first;
    struct early **end;
    size_t bytes;
};

/* A CONNECT whose password is being checked. */
struct login {
    struct access_check *check;
    struct earlies earlies;
    uint64_t mark; /* of the entry that the check began with */
    size_t len;
    uint8_t body[];
};

/* What most clients do not need; made with the first of it. */
struct client_extra {
    struct access_rights *rights;      /* NULL: it may do everything */
    struct login *login;               /* CLIENT_CHECKING only */
    struct alias_choices *aliases_out; /* NULL until we set up one */
    uint64_t login_mark;       /* of its entry in the password file; 0: it came in without */
    uint32_t packet_bytes_max; /* what the client accepts; 0 = anything */
    uint16_t alias_maximum;    /* what the client accepts */
    uint16_t user_name_len;
    uint8_t user_name[];
};

/* Of these there are as many as clients, most of them idle: each member is one that an idle client
 * needs. */
struct mqtt_client {
    struct client base; /* first */
    struct mqtt_clients *clients;
    struct mqtt_client *next, *previous;
    void *link;
    struct mqtt_settings *settings; /* one reference held */
    struct session *session;        /* NULL unless CLIENT_CONNECTED */
    struct mqtt_decoder decoder;    /* unused when packets come from another thread's */
    struct control *control;
    struct client_extra *extra; /* NULL: none of it */
    struct timer timer;         /* connect deadline, then keep alive */
    uint64_t opened_ms;
    uint32_t pings_due; /* PINGRESPs to be sent behind the deliveries that are ready */
    uint16_t keep_alive_s;
    uint8_t version : 3;    /* enum mqtt_version; 0 before CONNECT */
    uint8_t state : 2;      /* enum client_state */
    bool has_user_name : 1; /* false: anonymous, or, before CONNECT, no certificate */
    bool clean_start : 1;
    bool is_paused : 1;    /* not read from: it leaves answers unread */
    bool told_refused : 1; /* a refused PUBLISH of it is in the log */
    bool refused : 1;      /* by CONNACK: the log has said so */
    bool is_bridge : 1;
    bool resumed : 1;         /* its session is older than this connection */
    bool expires_at_once : 1; /* Session Expiry Interval 0 at CONNECT (3.14.2.2.2) */
    bool takes_problems : 1;  /* Request Problem Information: acknowledgements may carry words */
    bool greeted : 1;         /* CONNACK is on its way: deliveries may follow */
};

/* NULL: it may do everything. */
static inline struct access_rights *client_rights(const struct mqtt_client *client)
{
    return client->extra == NULL ? NULL : client->extra->rights;
}

/* mqtt_client.c */

/* What most clients do not need, made when it is not there. NULL: no memory. */
MUST_USE struct client_extra *client_extra_get(struct mqtt_client *client);

/* Remembers who the client is, data NULL: anonymous. False: no memory; nothing has changed then. */
MUST_USE bool client_set_user_name(struct mqtt_client *client, struct bytes user_name);

/* Ends the client for what it did or we decided: DISCONNECT with `reason`, and `why` as its Reason
 * String, to MQTT 5 clients, then host.close. */
void client_fail(struct mqtt_client *client, uint64_t now_ms, enum mqtt_reason reason,
                 const char *why);

enum leave {
    LEAVE_WITH_WILL,
    LEAVE_WITHOUT_WILL,
    LEAVE_SESSION_LOST, /* the core took the session already */
};

/* Leaves the session, says why the client is gone, and asks for the connection to be closed. */
void client_leave(struct mqtt_client *client, uint64_t now_ms, enum leave leave,
                  enum mqtt_reason reason, const char *why);

/* mqtt_connection.c */
void client_on_connect(struct mqtt_client *client, uint64_t now_ms, struct bytes body);

/* What the check of `login` has found out; goes on with the CONNECT, or begins another check when
 * the user's entry has changed meanwhile. */
void client_on_checked(struct mqtt_client *client, uint64_t now_ms, const struct login *login,
                       enum status result);

/* mqtt_login.c */

/* Has the password checked. False: no memory. */
MUST_USE bool client_begin_check(struct mqtt_client *client, uint64_t now_ms, struct bytes body,
                                 const struct access_grant *grant, struct bytes password);

/* From here on the time of its message is counted (3.3.2.3.3). */
static inline void client_count_expiry(const struct mqtt_packet *packet, uint64_t now_ms)
{
    struct message *message = packet->message;
    if (message != NULL && !packet->expiry_counts &&
        message->expires_at_ms != MESSAGE_EXPIRES_NEVER) {
        message->expires_at_ms += now_ms;
    }
}

/* No answer is wanted any more. */
void client_cancel_check(struct mqtt_client *client);

/* A packet that comes while the password is being checked. Takes its message. */
void client_keep_early(struct mqtt_client *client, uint64_t now_ms,
                       const struct mqtt_packet *packet);

/* Gives the client the rights that its listener's ACL says, if there is one. False: no memory. */
MUST_USE bool client_take_rights(struct mqtt_client *client, struct bytes client_id);

/* mqtt_packets.c: a packet of a connected client, without a violation. Takes its message. */
void client_on_packet(struct mqtt_client *client, uint64_t now_ms,
                      const struct mqtt_packet *packet);

/* A packet that breaks the standard: its type and the reason are the words for the log. */
void client_fail_packet(struct mqtt_client *client, uint64_t now_ms, enum mqtt_type type,
                        enum mqtt_reason reason);

/* mqtt_output.c */

/* Room for one control packet of at most `len` bytes; a failed writer when there is no memory. End
 * with client_control_end. */
struct writer client_control_begin(struct mqtt_client *client, size_t len);

/* Queues what was written, to go when the store has committed `ticket` (0: at once) and what is
 * before it is gone, and wakes the connection. False when there was no memory: nothing is queued
 * then. */
bool client_control_end(struct mqtt_client *client, const struct writer *writer, uint64_t ticket);

/* The same; without memory the client has to go. */
void client_control_send(struct mqtt_client *client, uint64_t now_ms, const struct writer *writer,
                         uint64_t ticket);

/* The client has published `bytes` that wait for `ticket`. Too many, and it is not read from. */
void client_count_uncommitted(struct mqtt_client *client, uint64_t ticket, size_t bytes);

/* True when a packet of `len` bytes is within the client's Maximum Packet Size. */
bool client_takes_size(const struct mqtt_client *client, size_t len);

#endif
