/*
 * client: what every kind of client begins with, and what it asks of the rest of the broker.
 *
 * A connection and the core know a client by this structure alone: whether it speaks MQTT or STOMP
 * is in its kind. A session's client may also be a part of one, such as a STOMP subscription; then
 * no connection has it and only the core's side of the kind is there.
 *
 *   Threads    All calls come from the core's thread.
 */
#ifndef BROKER_CLIENT_H
#define BROKER_CLIENT_H

#include "access.h"
#include "mqtt.h"
#include "output.h"

struct client_kind;

/* The beginning of each client's structure. */
struct client {
    const struct client_kind *kind;
};

/* What a log line says of a client. Borrowed from the client. */
struct client_facts {
    struct bytes client_id; /* empty before it was accepted */
    struct bytes user_name; /* data NULL: anonymous */
    const char *protocol;   /* "MQTT 5.0"; NULL while it is not known */
    uint64_t opened_ms;
    uint16_t keep_alive_s;
    bool clean_start;
};

struct client_kind {
    /* The connection's side. */

    /* Bytes from the peer, cut anywhere. After host.close they are ignored. */
    void (*receive)(struct client *client, uint64_t now_ms, struct bytes in);
    /* Borders of the WebSocket messages that the bytes come in. NULL: they do not matter. */
    void (*message_begin)(struct client *client, bool text);
    void (*message_end)(struct client *client, uint64_t now_ms);
    /* Adds what there is to send, until `output` has no more room (then host.wake is called for
     * the rest). */
    void (*send)(struct client *client, uint64_t now_ms, struct output *output);
    /* The connection is gone, `why` in words; the client is freed. */
    void (*close)(struct client *client, uint64_t now_ms, const char *why);
    void *(*link)(const struct client *client);
    void (*describe)(const struct client *client, struct client_facts *out);

    /* The core's side: struct core_effects for this client's sessions. */
    void (*output_ready)(struct client *client);
    void (*session_lost)(struct client *client, enum mqtt_reason reason);
};

/* What a client asks of the rest of the broker. `link` is what it was opened with. */
struct client_host {
    void *ctx;
    /* There is output: call kind->send at the end of this loop turn. */
    void (*wake)(void *link);
    /* Send what there is, then close the connection. Must not call back into the client before it
     * returns. */
    void (*close)(void *link, enum mqtt_reason reason);
    /* Stop or go on reading: a client that takes no answers may not ask for more of them. */
    void (*set_reading)(void *link, bool reading);
    /* Inside kind->send: what is added from here on is a message of its own, if the connection has
     * messages. NULL: it never has. */
    void (*begin_message)(void *link, struct output *output, bool text);
    /* When the last byte of any kind came in. */
    uint64_t (*last_inbound_ms)(void *link);
    /* Fills `out` with bytes that nobody can guess. */
    void (*random)(void *ctx, uint8_t *out, size_t len);
    /* The store has committed `ticket`: for others who wait. May be NULL. */
    void (*committed)(void *ctx, uint64_t ticket);
    /* The store has failed: the process must stop. */
    void (*store_failed)(void *ctx, const char *why);
    /* Only needed when a listener has a password file. */
    struct access_checker checker;
    /* Milliseconds since 1970, for times that peers write so. NULL: nobody asks. */
    uint64_t (*unix_ms)(void *ctx);
    /* For the log: CONNECT was accepted; refused; and, exactly once unless it was refused, why it
     * is gone. */
    void (*on_connected)(void *link, const struct client *client);
    void (*on_refused)(void *link, const struct client *client, struct bytes client_id,
                       enum mqtt_reason reason);
    void (*on_gone)(void *link, const struct client *client, const char *why);
    /* For the log: each subscription and its reason code, each one that ends. */
    void (*on_subscribe)(void *link, const struct client *client, struct bytes filter,
                         enum mqtt_reason granted);
    void (*on_unsubscribe)(void *link, const struct client *client, struct bytes filter);
    /* For the log: a message was refused; only the first of each client, as the rest may be many.
     */
    void (*on_publish_refused)(void *link, const struct client *client, struct bytes topic,
                               enum mqtt_reason reason);
};

#endif
