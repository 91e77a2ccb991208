/*
 * Between a client and its connection when both are on one thread. A client's link is its
 * connection and a connection's user is its client, so nothing stands between them in memory.
 */
#include <sys/random.h>
#include <time.h>

#include "server_state.h"

static struct server_listener *listener_of(const struct connection *connection)
{
    return listener_ctx(connection_listener(connection));
}

static uint64_t now_ms_of(const struct client *client)
{
    return transport_loop_now_ms(listener_of(client->kind->link(client))->server->loop);
}

/* `address` is the memory that the result points to. */
static struct server_peer peer_of(const struct connection *connection,
                                  char address[CONNECTION_ADDRESS_BYTES])
{
    return (struct server_peer){
        .server = listener_of(connection)->server,
        .address = connection_peer_address(connection, address),
        .is_websocket = connection_is_websocket(connection),
        .is_tls = connection_is_tls(connection),
    };
}

static void wake(void *link)
{
    connection_wake(link);
}

/* RFC 6455, 7.4.1, for what MQTT says with a reason code. */
uint16_t server_websocket_code(enum mqtt_reason reason)
{
    switch (reason) {
    case MQTT_NORMAL_DISCONNECTION:
    case MQTT_SESSION_TAKEN_OVER:
    case MQTT_KEEP_ALIVE_TIMEOUT:
        return WEBSOCKET_NORMAL;
    case MQTT_SERVER_SHUTTING_DOWN:
        return WEBSOCKET_GOING_AWAY;
    case MQTT_PACKET_TOO_LARGE:
        return WEBSOCKET_TOO_BIG;
    case MQTT_MALFORMED_PACKET:
    case MQTT_PROTOCOL_ERROR:
        return WEBSOCKET_PROTOCOL_ERROR;
    case MQTT_SERVER_BUSY:
    case MQTT_SERVER_UNAVAILABLE:
        return WEBSOCKET_TRY_AGAIN_LATER;
    default:
        return WEBSOCKET_POLICY;
    }
}

const char *server_close_text(enum mqtt_reason reason)
{
    return reason == MQTT_NORMAL_DISCONNECTION ? "" : mqtt_reason_name(reason);
}

static void close_link(void *link, enum mqtt_reason reason)
{
    connection_close(link, server_websocket_code(reason), server_close_text(reason));
}

static void set_reading(void *link, bool reading)
{
    if (reading) {
        connection_resume_reading(link);
    } else {
        connection_pause_reading(link);
    }
}

static uint64_t last_inbound_ms(void *link)
{
    return connection_last_inbound_ms(link);
}

static void begin_message(void *link, struct output *output, bool text)
{
    connection_begin_message(link, output, text);
}

uint64_t server_unix_ms(void *ctx)
{
    (void)ctx;
    struct timespec now;
    ENSURE(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void server_random(void *ctx, uint8_t *out, size_t len)
{
    (void)ctx;
    /* Up to 256 bytes come whole and uninterrupted once the pool is up (getrandom(2)). */
    ENSURE(len <= 256 && getrandom(out, len, 0) == (ssize_t)len);
}

static struct server *server_of(const void *link)
{
    return listener_of(link)->server;
}

static void on_connected(void *link, const struct client *client)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct server_peer peer = peer_of(link, address);
    server_on_connected(&peer, client);
}

static void on_refused(void *link, const struct client *client, struct bytes client_id,
                       enum mqtt_reason reason)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct server_peer peer = peer_of(link, address);
    server_on_refused(&peer, client, client_id, reason);
}

static void on_gone(void *link, const struct client *client, const char *why)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct server_peer peer = peer_of(link, address);
    server_on_gone(&peer, client, why);
}

static void on_subscribe(void *link, const struct client *client, struct bytes filter,
                         enum mqtt_reason granted)
{
    server_on_subscribe(server_of(link), client, filter, granted);
}

static void on_unsubscribe(void *link, const struct client *client, struct bytes filter)
{
    server_on_unsubscribe(server_of(link), client, filter);
}

static void on_publish_refused(void *link, const struct client *client, struct bytes topic,
                               enum mqtt_reason reason)
{
    server_on_publish_refused(server_of(link), client, topic, reason);
}

struct client_host server_client_host(struct server *server)
{
    return (struct client_host){
        .ctx = server,
        .wake = wake,
        .close = close_link,
        .set_reading = set_reading,
        .begin_message = begin_message,
        .last_inbound_ms = last_inbound_ms,
        .random = server_random,
        .unix_ms = server_unix_ms,
        .committed = server_on_committed,
        .checker = password_checks_checker(server->password_checks),
        .store_failed = server_store_failed,
        .on_connected = on_connected,
        .on_refused = on_refused,
        .on_gone = on_gone,
        .on_subscribe = on_subscribe,
        .on_unsubscribe = on_unsubscribe,
        .on_publish_refused = on_publish_refused,
    };
}

/* Sockets count from accept on: whoever only connects takes a place as well. */
static bool has_room(const struct server_listener *settings, const struct listener *listener)
{
    return listener_sockets(listener) <= settings->connections_max;
}

static bool on_accept(void *ctx, struct listener *listener)
{
    return has_room(ctx, listener);
}

static void *on_open(void *ctx, struct connection *connection, const struct connection_info *info)
{
    struct server_listener *listener = ctx;
    if (listener->listener != NULL && !has_room(listener, listener->listener)) {
        return NULL; /* a reload has lowered max_connections during the handshake */
    }
    return server_open_client(listener, connection, info);
}

static void on_bytes(void *user, struct bytes bytes)
{
    struct client *client = user;
    client->kind->receive(client, now_ms_of(client), bytes);
}

static void on_message_begin(void *user, bool text)
{
    struct client *client = user;
    client->kind->message_begin(client, text);
}

static void on_message_end(void *user)
{
    struct client *client = user;
    client->kind->message_end(client, now_ms_of(client));
}

static void on_output(void *user, struct output *output)
{
    struct client *client = user;
    client->kind->send(client, now_ms_of(client), output);
}

static void on_close(void *user, const struct connection_end *end)
{
    struct client *client = user;
    client->kind->close(client, now_ms_of(client), end->text);
}

static void on_refused_connection(void *ctx, const char *peer_address, const char *reason)
{
    struct server *server = ((const struct server_listener *)ctx)->server;
    server_on_refused_connection(server, transport_loop_sockets(server->loop), peer_address,
                                 reason);
}

struct connection_handler server_connection_handler(void)
{
    return (struct connection_handler){
        .accept = on_accept,
        .open = on_open,
        .on_bytes = on_bytes,
        .on_message_begin = on_message_begin,
        .on_message_end = on_message_end,
        .on_output = on_output,
        .on_close = on_close,
        .on_refused = on_refused_connection,
    };
}
