/*
 * http_client: one HTTP connection to the push API: requests become calls of the core, and what
 * came of them becomes answers.
 *
 * Sans-I/O like mqtt_client.h, with the same life: open, receive and send as often as the
 * connection likes, close. A host is told what the connection must do.
 *
 *   Paths      /healthz, /readyz, /api/v1/publish, /api/v1/topics/TOPIC, /api/v1/subscribe and, as
 * a WebSocket, /api/v1/ws; docs/http.md describes them. Order      One request at a time: what
 * comes behind it waits until its answer has gone out. Memory     About 700 bytes between requests.
 *   Threads    All calls come from the core's thread.
 */
#ifndef BROKER_HTTP_CLIENT_H
#define BROKER_HTTP_CLIENT_H

#include "access.h"
#include "client.h"
#include "core.h"
#include "mqtt_client.h"
#include "output.h"

struct http_clients;
struct http_client;

/* What a client asks of the rest of the broker. `link` is what it was opened with. */
struct http_host {
    void *ctx;
    /* There is output: call http_client_send at the end of this loop turn. */
    void (*wake)(void *link);
    /* Send what there is, then close the connection; `why`, a constant, in words. Must not call
     * back. */
    void (*close)(void *link, enum mqtt_reason reason, const char *why);
    /* Stop or go on reading. */
    void (*set_reading)(void *link, bool reading);
    /* Fills `out` with bytes that nobody can guess. */
    void (*random)(void *ctx, uint8_t *out, size_t len);
    struct access_checker checker;
    /* See struct client_host. NULL: there are no WebSockets. */
    void (*begin_message)(void *link, struct output *output, bool text);
    /* For the log: a stream has begun; has ended, why; a request was refused for who sent it. */
    void (*on_stream)(void *link, const struct http_client *client);
    void (*on_stream_end)(void *link, const struct http_client *client, const char *why);
    void (*on_refused)(void *link, const struct http_client *client, struct bytes user_name,
                       const char *why);
};

/* Errors: STATUS_NO_MEMORY. The caller ends *out with http_clients_destroy. */
MUST_USE enum status http_clients_create(const struct http_host *host, uint64_t now_ms,
                                         struct http_clients **out);

/* The core that all clients talk to; set once, before the first client. */
void http_clients_set_core(struct http_clients *clients, struct core *core);

/* Requires that all clients are closed. NULL is allowed. */
void http_clients_destroy(struct http_clients *clients);

/* Time: requests that do not end, connections that idle, answers that nobody takes. */
uint64_t http_clients_next_deadline_ms(const struct http_clients *clients);
void http_clients_advance(struct http_clients *clients, uint64_t now_ms);

/* The broker stops: /readyz says so, streams end, connections close. */
void http_clients_shut_down(struct http_clients *clients, uint64_t now_ms);

/* Files of some `struct access` were replaced; see mqtt_clients_on_access_changed. */
void http_clients_on_access_changed(struct http_clients *clients, uint64_t now_ms);

/* The store has committed `ticket`: answers that waited for it may go. */
void http_clients_on_committed(struct http_clients *clients, uint64_t ticket);

/* True for a request target that is answered here: the first line of a connection decides. */
bool http_client_serves(struct bytes target);

/* A connection that will speak HTTP. `settings` is held for the client's life, `certificate_user`
 * copied. NULL when there is no memory. */
MUST_USE struct http_client *http_client_open(struct http_clients *clients, uint64_t now_ms,
                                              void *link, struct mqtt_settings *settings,
                                              struct bytes certificate_user);

/* The request that a WebSocket began with. */
struct http_upgrade {
    struct bytes target;
    struct bytes authorization; /* the field; empty: there is none */
};

/* True for the target of a WebSocket that, without a subprotocol, gets messages as they are. */
bool http_push_serves(struct bytes target);

/* Such a WebSocket, whose client is used through its kind alone. `upgrade` is copied; else like
 * http_client_open. */
MUST_USE struct client *http_push_open(struct http_clients *clients, uint64_t now_ms, void *link,
                                       struct mqtt_settings *settings,
                                       struct bytes certificate_user,
                                       const struct http_upgrade *upgrade);

/* Bytes from the peer, cut anywhere. */
void http_client_receive(struct http_client *client, uint64_t now_ms, struct bytes in);

/* Adds what there is to send; see mqtt_client_send. */
void http_client_send(struct http_client *client, uint64_t now_ms, struct output *output);

/* The connection is gone, `why` in words; the client is freed. */
void http_client_close(struct http_client *client, uint64_t now_ms, const char *why);

void *http_client_link(const struct http_client *client);

/* For log lines. */
struct bytes
http_client_id(const struct http_client *client); /* of its stream's session, or empty */
const char *http_client_protocol(const struct http_client *client);
uint64_t http_client_opened_ms(const struct http_client *client);
struct bytes http_client_user_name(const struct http_client *client); /* data NULL: anonymous */

#endif
