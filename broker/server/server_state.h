/*
 * server_state: the structures behind server.h, for the server's own files: server.c (life,
 * signals, time), server_store.c (the store), server_listener.c (listeners and their settings),
 * server_host.c (between clients and connections on one thread), link.h (on two), server_events.c
 * (the log), server_client.c (kinds of clients), sys_topics.c.
 */
#ifndef SERVER_SERVER_STATE_H
#define SERVER_SERVER_STATE_H

#include <uv.h>

#include "access_files.h"
#include "connection.h"
#include "core.h"
#include "http_client.h"
#include "listener.h"
#include "loop.h"
#include "mqtt_client.h"
#include "password_checks.h"
#include "server.h"
#include "stomp_client.h"
#include "sys_topics.h"

/* One listener of the configuration and what its clients are held to. */
struct server_listener {
    struct server *server;
    /* NULL: an optional one that could not be opened, or closed. With I/O threads it is one of
     * theirs. */
    struct listener *listener;
    struct access *access; /* what its files say */
    struct mqtt_settings *settings;
    int mqtt_subprotocols; /* the first of its WebSocket subprotocols; 0: it speaks STOMP alone */
    bool use_subject; /* the certificate's whole subject is the user name, not its common name */
    uint32_t connections_max;
};

struct server {
    const struct options *options;
    struct config *config;
    struct log *log;
    uv_loop_t uv;
    struct transport_loop *loop;    /* without I/O threads the connections' too */
    struct server_threads *threads; /* NULL: none */
    struct mqtt_clients *mqtt_clients;
    struct stomp_clients *stomp_clients;
    struct http_clients *http_clients;
    struct password_checks *password_checks;
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

/* Takes over settings, certificates and access files of a configuration that was read again, which
 * must live from then on. They count for new connections. Errors: STATUS_INVALID (listeners were
 * added, moved or removed), STATUS_IO (a certificate, a file); the log says which, and nothing has
 * changed then. */
MUST_USE enum status server_reload_listeners(struct server *server, const struct config *config);

/* server_store.c */

/* Before the transport's loop is made: see there. */
MUST_USE enum status server_open_store_handles(struct server *server);
void server_store_failed(void *ctx, const char *why);

/* Makes durable what there is and closes the store, behind the core. Its handles end with the next
 * run of the loop. */
void server_close_store(struct server *server);

/* server_client.c: which kinds of clients there are, and which one a connection gets. */

/* The clients of each kind, and the core that they share. */
MUST_USE enum status server_create_clients(struct server *server, const struct client_host *host,
                                           const struct http_host *http_host, uint64_t now_ms,
                                           const struct core_options *options);
void server_destroy_clients(struct server *server);
uint64_t server_clients_deadline_ms(const struct server *server);
void server_advance_clients(struct server *server, uint64_t now_ms);
void server_shut_down_clients(struct server *server, uint64_t now_ms);

/* The files of some `struct access` were replaced. */
void server_recheck_clients(struct server *server, uint64_t now_ms);

/* Adds what the clients have counted. */
void server_count_clients(const struct server *server, struct sys_figures *figures);

/* NULL: there is no memory. `info` says what the connection has asked for. */
struct client *server_open_client(struct server_listener *listener, struct connection *connection,
                                  const struct connection_info *info);

/* A WebSocket that wants messages as they are: http_push_open. */
bool server_is_push(const struct connection_info *info);

/* server_host.c: without I/O threads */
struct client_host server_client_host(struct server *server);
struct connection_handler server_connection_handler(void);

/* Milliseconds since 1970. */
uint64_t server_unix_ms(void *ctx);

/* Fills `out` with at most 256 bytes that nobody can guess. */
void server_random(void *ctx, uint8_t *out, size_t len);

/* What a WebSocket Close says where MQTT has a reason code. */
uint16_t server_websocket_code(enum mqtt_reason reason);
const char *server_close_text(enum mqtt_reason reason);

/*
 * server_threads.c: with I/O threads
 *
 * server_threads_listen binds the listener of configuration `index`, whose other members are set.
 * Errors: those of the transport; server_threads_destroy undoes what was done.
 */
MUST_USE enum status server_threads_create(struct server *server, size_t count);
MUST_USE enum status server_threads_listen(struct server *server, size_t index,
                                           struct listener_options *options, char *error,
                                           size_t error_size);

/* Errors: STATUS_IO (the system gives no thread; the log says so). */
MUST_USE enum status server_threads_start(struct server *server);

/* Takes over what a reload has changed about a listener, on all threads, before it returns. */
MUST_USE enum status server_threads_configure(struct server *server, size_t index,
                                              const struct listener_options *options);

/* At the end of each turn of the broker's loop. */
void server_threads_turn_end(struct server *server);

void server_threads_add_statistics(const struct server *server, struct transport_statistics *sum);

/* The two steps of an orderly end: before and after the clients are told. */
void server_threads_stop_listening(struct server *server, uint32_t close_timeout_ms);
void server_threads_close_all(struct server *server);

/* Ends what is left at once, waits for the threads and frees them. */
void server_threads_destroy(struct server *server);

/* server_events.c: log lines */

/* The other end of a connection. */
struct server_peer {
    struct server *server;
    const char *address;
    bool is_websocket, is_tls;
};

const char *server_transport_name(const struct server_peer *peer);
void server_on_http_stream(const struct server_peer *peer, const struct http_client *client);
void server_on_http_stream_end(const struct server_peer *peer, const struct http_client *client,
                               const char *why);
void server_on_connected(const struct server_peer *peer, const struct client *client);
void server_on_refused(const struct server_peer *peer, const struct client *client,
                       struct bytes client_id, enum mqtt_reason reason);
void server_on_gone(const struct server_peer *peer, const struct client *client, const char *why);
void server_on_subscribe(struct server *server, const struct client *client, struct bytes filter,
                         enum mqtt_reason granted);
void server_on_unsubscribe(struct server *server, const struct client *client, struct bytes filter);
void server_on_publish_refused(struct server *server, const struct client *client,
                               struct bytes topic, enum mqtt_reason reason);
/* `sockets`: how many there were at that moment. */
void server_on_refused_connection(struct server *server, uint64_t sockets, const char *peer_address,
                                  const char *reason);

/* server.c: of all loops together */
struct transport_statistics server_statistics(const struct server *server);
/* server_http.c */
struct http_host server_http_host(struct server *server);
struct connection_handler server_http_handler(void);
void server_on_http_refused(struct server *server, const char *address, struct bytes user_name,
                            const char *why);
void server_on_committed(void *server, uint64_t ticket);

#endif
