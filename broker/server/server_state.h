/*
 * server_state: the structures behind server.h, for the server's own files: server.c (life,
 * signals, time), server_store.c (the store), server_listener.c (listeners and their settings),
 * server_host.c (between clients and connections), sys_topics.c.
 */
#ifndef SERVER_SERVER_STATE_H
#define SERVER_SERVER_STATE_H

#include <uv.h>

#include "connection.h"
#include "core.h"
#include "listener.h"
#include "loop.h"
#include "mqtt_client.h"
#include "server.h"
#include "sys_topics.h"

/* One listener of the configuration and what its clients are held to. */
struct server_listener {
    struct server *server;
    struct listener *listener; /* NULL: an optional one that could not be opened */
    struct mqtt_settings *settings;
    bool use_subject; /* the certificate's whole subject is the user name, not its common name */
    uint32_t connections_max;
};

struct server {
    const struct options *options;
    struct config *config;
    struct log *log;
    uv_loop_t uv;
    struct transport_loop *loop;
    struct mqtt_clients *clients;
    struct core *core;
    struct store *store; /* NULL: persistence false */
    struct sys_topics *sys_topics;
    struct server_listener *listeners; /* as many as the configuration has, in its order */
    size_t listener_count;
    uv_timer_t deadline_timer; /* the core's and the clients' next deadline */
    uint64_t deadline_ms;      /* for which it is armed */
    uint64_t started_ms;
    uint64_t sockets_max;     /* what the limit of open files leaves for clients; 0: no limit */
    uint64_t full_warning_ms; /* when running out of them was last logged; 0: never */
    uv_timer_t sys_timer;
    uv_timer_t drain_timer;
    uv_signal_t signals[3];
    uv_async_t store_async; /* the store has something to be collected */
    uv_check_t store_check; /* the end of a turn: what changed goes to the store */
    uv_prepare_t store_prepare;
    bool store_handles_open;
    bool failed; /* the store's promise cannot be kept */
    bool handles_open;
    bool draining;
};

/* server_listener.c */
MUST_USE enum status server_open_listeners(struct server *server);

/* Frees what the listeners' clients, now gone, were held to. */
void server_release_listeners(struct server *server);

/* Takes over settings and certificates of a configuration that was read again, which must live from
 * then on. They count for new connections. Errors: STATUS_INVALID (listeners were added, moved or
 * removed), STATUS_IO (a certificate); the log says which, and nothing has changed then. */
MUST_USE enum status server_reload_listeners(struct server *server, const struct config *config);

/* server_store.c */

/* Before the transport's loop is made: see there. */
MUST_USE enum status server_open_store_handles(struct server *server);
void server_store_failed(void *ctx, const char *why);

/* Makes durable what there is and closes the store, behind the core. Its handles end with the next
 * run of the loop. */
void server_close_store(struct server *server);

/* server_host.c */
struct mqtt_host server_mqtt_host(struct server *server);
struct connection_handler server_connection_handler(void);

#endif
