/*
 * stomp_client: one STOMP client, 1.0 to 1.2: its frames become calls of the core, the core's
 * deliveries its MESSAGE frames.
 *
 * Sans-I/O like mqtt_client.h, and with the same life, host and settings. A subscription is a
 * session of the core's: so each has its own window for acknowledgements, two subscriptions to one
 * destination get a message each, and a durable one is nothing but a session that stays.
 *
 *   Memory     About 250 bytes while idle, and for each subscription about 130 and a session.
 *   Threads    All calls come from the core's thread.
 */
#ifndef BROKER_STOMP_CLIENT_H
#define BROKER_STOMP_CLIENT_H

#include "client.h"
#include "core.h"
#include "mqtt_client.h"

enum {
    STOMP_TRANSACTIONS_MAX = 64,               /* that one connection has open */
    STOMP_ACTIONS_MAX = 10000,                 /* in all of them */
    STOMP_ACTION_BYTES_MAX = 16 * 1024 * 1024, /* of their messages */
    STOMP_HEART_BEAT_MIN_MS = 1000,            /* nobody is asked, or promised, to be quicker */
};

struct stomp_clients;
struct stomp_client;

/* Errors: STATUS_NO_MEMORY. The caller ends *out with stomp_clients_destroy. The effects that the
 * core needs are those of mqtt_clients_effects: they find the client by its kind. Answers wait in
 * `control_hub`, which is mqtt_clients_control and must live longer. */
MUST_USE enum status stomp_clients_create(const struct client_host *host,
                                          struct control_hub *control_hub, uint64_t now_ms,
                                          struct stomp_clients **out);

/* The core that all clients talk to; set once, before the first client. */
void stomp_clients_set_core(struct stomp_clients *clients, struct core *core);

/* Requires that all clients are closed. NULL is allowed. */
void stomp_clients_destroy(struct stomp_clients *clients);

/* Time: heart-beats both ways and connect deadlines. */
uint64_t stomp_clients_next_deadline_ms(const struct stomp_clients *clients);
void stomp_clients_advance(struct stomp_clients *clients, uint64_t now_ms);

/* The broker stops: every client gets ERROR and is closed. */
void stomp_clients_shut_down(struct stomp_clients *clients, uint64_t now_ms);

/* The files of some `struct access` were replaced; like mqtt_clients_on_access_changed. */
void stomp_clients_on_access_changed(struct stomp_clients *clients, uint64_t now_ms);

/* Frames count as packets, SEND and MESSAGE as PUBLISH. */
struct mqtt_client_stats stomp_clients_stats(const struct stomp_clients *clients);

/* Clients that are connected, and the sessions that their subscriptions are. */
uint64_t stomp_clients_connected(const struct stomp_clients *clients);
uint64_t stomp_clients_sessions(const struct stomp_clients *clients);

/* A connection that will speak STOMP; like mqtt_client_open. */
MUST_USE struct client *stomp_client_open(struct stomp_clients *clients, uint64_t now_ms,
                                          void *link, struct mqtt_settings *settings,
                                          struct bytes certificate_user);

/* True when `first`, the first bytes of a connection, are of STOMP rather than of MQTT. */
bool stomp_client_is_meant(struct bytes first);

#endif
