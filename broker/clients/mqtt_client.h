/*
 * mqtt_client: one MQTT client, 3.1 to 5.0: its packets become calls of the core, the core's
 * deliveries its packets.
 *
 * Sans-I/O like the core: bytes and the time go in, bytes come out when the connection asks for
 * them, and what the connection must do goes out through struct client_host. One `struct
 * mqtt_clients` stands for all clients of one core.
 *
 *   Life       mqtt_client_open -> mqtt_client_receive and mqtt_client_send as often as the
 * connection likes -> mqtt_client_close. When the client has to go, host.close is called once; the
 * connection then sends what mqtt_client_send still yields, closes, and calls mqtt_client_close.
 *   Memory     About 150 bytes and the session while idle: no buffers.
 *   Threads    All calls come from the core's thread.
 */
#ifndef BROKER_MQTT_CLIENT_H
#define BROKER_MQTT_CLIENT_H

#include "access.h"
#include "client.h"
#include "core.h"
#include "mqtt_decoder.h"

struct control_hub;
struct mqtt_clients;
struct mqtt_client;

/*
 * What a listener holds its clients to. Immutable and counted: a client keeps to what it was told
 * in CONNACK until it is gone, whatever a reload brings for others.
 */
struct mqtt_settings {
    struct shared shared;  /* first */
    struct access *access; /* the listener's files, whatever a reload makes of them; NULL: none */
    bool allow_anonymous;
    bool certificate_is_user;
    bool allow_zero_length_client_id;
    bool retain_available;
    uint8_t qos_max;
    uint16_t topic_alias_maximum; /* aliases that a client may set up; 0 = none */
    uint16_t receive_maximum;     /* what we announce to MQTT 5 clients; at least 1 */
    uint16_t keep_alive_max_s;    /* what an MQTT 5 client is held to; 65535 = anything */
    uint32_t packet_bytes_max;    /* a whole packet from a client */
    uint32_t payload_bytes_max;   /* of one message */
    uint32_t subscriptions_max;   /* of one STOMP connection */
    uint32_t connect_timeout_ms;  /* until CONNECT is complete */
    const char *auto_id_prefix;   /* of client ids that we assign; never NULL */
    const char *client_id_prefix; /* client ids must begin so; NULL = any */
    const char *http_cors_origin; /* origins of pages that may use the HTTP API; NULL = none */
    /* For clients that ask (3.2.2.3.15); %c and %u stand for client id and user name; NULL = none
     */
    const char *response_information;
};

/*
 * A copy of `values` with its strings, in one allocation, and a reference to its access. The caller
 * owns one reference, and ends it with shared_release(&(*out)->shared). Errors: STATUS_NO_MEMORY.
 */
MUST_USE enum status mqtt_settings_create(const struct mqtt_settings *values,
                                          struct mqtt_settings **out);

/* Counts since the start, for $SYS. */
struct mqtt_client_stats {
    uint64_t connections; /* CONNECTs accepted */
    uint64_t packets_received;
    uint64_t packets_sent;
    uint64_t publish_received;
    uint64_t publish_sent;
    uint64_t publish_bytes_received; /* payloads */
    uint64_t publish_bytes_sent;
};

/* Errors: STATUS_NO_MEMORY. The caller ends *out with mqtt_clients_destroy. */
MUST_USE enum status mqtt_clients_create(const struct client_host *host, uint64_t now_ms,
                                         struct mqtt_clients **out);

/* The core that all clients talk to, made with mqtt_clients_effects; set once, before the first
 * client. */
void mqtt_clients_set_core(struct mqtt_clients *clients, struct core *core);

/* What core_create needs so that the core reaches its clients. */
struct core_effects mqtt_clients_effects(struct mqtt_clients *clients);

/* Requires that all clients are closed. NULL is allowed. */
void mqtt_clients_destroy(struct mqtt_clients *clients);

/* Time: keep alive and connect deadlines. */
uint64_t mqtt_clients_next_deadline_ms(const struct mqtt_clients *clients);
void mqtt_clients_advance(struct mqtt_clients *clients, uint64_t now_ms);

/* The broker stops: every client gets DISCONNECT 0x8B (MQTT 5) and is closed. Its connection ends
 * without its DISCONNECT, so its will is published (3.1.2.5), for sessions and as retained message;
 * one with a delay goes on waiting where the session is stored. */
void mqtt_clients_shut_down(struct mqtt_clients *clients, uint64_t now_ms);

/* The files of some `struct access` were replaced: who came in with an entry of the password file
 * that has changed goes, and the others are held to the ACL as it is now. */
void mqtt_clients_on_access_changed(struct mqtt_clients *clients, uint64_t now_ms);

/* Where the answers of these clients wait, for other kinds of clients of the same core. */
struct control_hub *mqtt_clients_control(struct mqtt_clients *clients);

struct mqtt_client_stats mqtt_clients_stats(const struct mqtt_clients *clients);

/*
 * A connection that will speak MQTT. `settings` is borrowed for the client's life;
 * `certificate_user` (the name in its certificate, or empty) is copied. NULL when there is no
 * memory.
 */
MUST_USE struct mqtt_client *mqtt_client_open(struct mqtt_clients *clients, uint64_t now_ms,
                                              void *link, struct mqtt_settings *settings,
                                              struct bytes certificate_user);

/* Bytes from the client, cut anywhere. After host.close they are ignored. */
void mqtt_client_receive(struct mqtt_client *client, uint64_t now_ms, struct bytes in);

/* The same for a client whose decoder lives on another thread: one packet that it has found. Takes
 * its message. */
void mqtt_client_packet(struct mqtt_client *client, uint64_t now_ms,
                        const struct mqtt_packet *packet);

/* Adds what there is to send, until `output` has no more room (then host.wake is called for the
 * rest). */
void mqtt_client_send(struct mqtt_client *client, uint64_t now_ms, struct output *output);

/* The client is put off by the broker: MQTT 5 clients get DISCONNECT with `reason`. */
void mqtt_client_disconnect(struct mqtt_client *client, uint64_t now_ms, enum mqtt_reason reason,
                            const char *why);

/* The connection is gone, `why` in words; the client is freed. */
void mqtt_client_close(struct mqtt_client *client, uint64_t now_ms, const char *why);

/* The kind of these clients: each begins with a struct client. */
const struct client_kind *mqtt_client_kind(void);

static inline struct client *mqtt_client_base(struct mqtt_client *client)
{
    return (struct client *)(void *)client;
}

/* Frees a client that has received nothing yet, without a word: its connection speaks something
 * else. */
void mqtt_client_discard(struct mqtt_client *client);

/* What mqtt_client_open was given. */
void *mqtt_client_link(const struct mqtt_client *client);

/* For log lines; empty or 0 before CONNECT was accepted. */
struct bytes mqtt_client_id(const struct mqtt_client *client);
struct bytes mqtt_client_user_name(const struct mqtt_client *client); /* data NULL: anonymous */
enum mqtt_version mqtt_client_version(const struct mqtt_client *client);
bool mqtt_client_is_connected(const struct mqtt_client *client);
bool mqtt_client_clean_start(const struct mqtt_client *client);
uint16_t mqtt_client_keep_alive_s(const struct mqtt_client *client);
uint64_t mqtt_client_opened_ms(const struct mqtt_client *client);

#endif
