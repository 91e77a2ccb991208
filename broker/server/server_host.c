/*
 * Between a client and its connection. A client's link is its connection and a connection's user is
 * its client, so nothing stands between them in memory.
 */
#include <string.h>
#include <sys/random.h>

#include "server_state.h"

enum { FULL_WARNING_MS = 10 * 1000 };

static struct server_listener *listener_of(const struct connection *connection)
{
    return listener_ctx(connection_listener(connection));
}

static uint64_t now_ms_of(const struct mqtt_client *client)
{
    const struct connection *connection = mqtt_client_link(client);
    return transport_loop_now_ms(listener_of(connection)->server->loop);
}

static const char *transport_name(const struct connection *connection)
{
    if (connection_is_websocket(connection)) {
        return connection_is_tls(connection) ? "WebSocket with TLS" : "WebSocket";
    }
    return connection_is_tls(connection) ? "TLS" : "TCP";
}

static const char *protocol_name(enum mqtt_version version)
{
    switch (version) {
    case MQTT_VERSION_3_1:
        return "MQTT 3.1";
    case MQTT_VERSION_3_1_1:
        return "MQTT 3.1.1";
    case MQTT_VERSION_5:
        return "MQTT 5.0";
    }
    return NULL;
}

/* `address` is the memory that the result points to. */
static struct log_client describe(const struct connection *connection,
                                  const struct mqtt_client *client,
                                  char address[CONNECTION_ADDRESS_BYTES])
{
    uint64_t now_ms = now_ms_of(client);
    return (struct log_client){
        .client_id = mqtt_client_id(client),
        .user_name = mqtt_client_user_name(client),
        .address = connection_peer_address(connection, address),
        .transport = transport_name(connection),
        .protocol = protocol_name(mqtt_client_version(client)),
        .clean_start = mqtt_client_clean_start(client),
        .keep_alive_s = mqtt_client_keep_alive_s(client),
        .connected_ms = now_ms - mqtt_client_opened_ms(client),
    };
}

static void wake(void *link)
{
    connection_wake(link);
}

/* RFC 6455, 7.4.1, for what MQTT says with a reason code. */
static uint16_t websocket_code_of(enum mqtt_reason reason)
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

static void close_link(void *link, enum mqtt_reason reason)
{
    connection_close(link, websocket_code_of(reason),
                     reason == MQTT_NORMAL_DISCONNECTION ? "" : mqtt_reason_name(reason));
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

static void fill_random(void *ctx, uint8_t *out, size_t len)
{
    (void)ctx;
    /* Up to 256 bytes come whole and uninterrupted once the pool is up (getrandom(2)). */
    ENSURE(len <= 256 && getrandom(out, len, 0) == (ssize_t)len);
}

static struct log *log_of(void *link)
{
    return listener_of(link)->server->log;
}

static void on_connected(void *link, const struct mqtt_client *client)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct log_client who = describe(link, client, address);
    log_client_connected(log_of(link), &who);
}

static void on_refused(void *link, const struct mqtt_client *client, struct bytes client_id,
                       enum mqtt_reason reason)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct log_client who = describe(link, client, address);
    who.client_id = client_id;
    log_client_refused(log_of(link), &who, mqtt_reason_name(reason));
}

static void on_gone(void *link, const struct mqtt_client *client, const char *why)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct log_client who = describe(link, client, address);
    log_client_disconnected(log_of(link), &who, why);
}

static void on_subscribe(void *link, const struct mqtt_client *client, struct bytes filter,
                         enum mqtt_reason granted)
{
    struct log *log = log_of(link);
    if (log_wants(log, LOG_TYPE_SUBSCRIBE)) {
        struct log_field fields[] = {log_text("client_id", mqtt_client_id(client)),
                                     log_text("filter", filter),
                                     log_number("reason_code", granted)};
        log_event(log, LOG_TYPE_SUBSCRIBE, "subscribe", "subscription", fields,
                  sizeof fields / sizeof *fields);
    }
}

static void on_unsubscribe(void *link, const struct mqtt_client *client, struct bytes filter)
{
    struct log *log = log_of(link);
    if (log_wants(log, LOG_TYPE_UNSUBSCRIBE)) {
        struct log_field fields[] = {log_text("client_id", mqtt_client_id(client)),
                                     log_text("filter", filter)};
        log_event(log, LOG_TYPE_UNSUBSCRIBE, "unsubscribe", "subscription ended", fields,
                  sizeof fields / sizeof *fields);
    }
}

static void on_publish_refused(void *link, const struct mqtt_client *client, struct bytes topic,
                               enum mqtt_reason reason)
{
    struct log_field fields[] = {log_text("client_id", mqtt_client_id(client)),
                                 log_text("topic", topic),
                                 log_string("reason", mqtt_reason_name(reason))};
    log_event(log_of(link), LOG_TYPE_NOTICE, "publish_refused",
              "refused to publish; more refusals of this client are not logged", fields,
              sizeof fields / sizeof *fields);
}

struct mqtt_host server_mqtt_host(struct server *server)
{
    return (struct mqtt_host){
        .ctx = server,
        .wake = wake,
        .close = close_link,
        .set_reading = set_reading,
        .last_inbound_ms = last_inbound_ms,
        .random = fill_random,
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
    const char *user = NULL;
    if (listener->settings->certificate_is_user) {
        user = listener->use_subject ? info->certificate_subject : info->certificate_common_name;
    }
    return mqtt_client_open(listener->server->clients,
                            transport_loop_now_ms(listener->server->loop), connection,
                            listener->settings, bytes_of_string(user));
}

static void on_bytes(void *user, struct bytes bytes)
{
    mqtt_client_receive(user, now_ms_of(user), bytes);
}

static void on_output(void *user, struct output *output)
{
    mqtt_client_send(user, now_ms_of(user), output);
}

static void on_close(void *user, const struct connection_end *end)
{
    struct mqtt_client *client = user;
    mqtt_client_close(client, now_ms_of(client), end->text);
}

/* An operator must hear of it, and not once for each client. */
static void warn_when_full(struct server *server)
{
    uint64_t now_ms = transport_loop_now_ms(server->loop);
    uint64_t sockets = transport_loop_statistics(server->loop)->sockets_current;
    if (server->sockets_max == 0 || sockets < server->sockets_max ||
        (server->full_warning_ms != 0 && now_ms - server->full_warning_ms < FULL_WARNING_MS)) {
        return;
    }
    server->full_warning_ms = now_ms;
    log_write(server->log, LOG_TYPE_WARNING,
              "clients are refused: %llu are connected, and the limit of open files (ulimit -n, "
              "LimitNOFILE) allows no more",
              (unsigned long long)sockets);
}

static void on_refused_connection(void *ctx, const char *peer_address, const char *reason)
{
    const struct server_listener *listener = ctx;
    warn_when_full(listener->server);
    if (!listener->server->config->log.connection_messages) {
        return;
    }
    struct log_field fields[] = {log_string("address", peer_address), log_string("reason", reason)};
    log_event(listener->server->log, LOG_TYPE_NOTICE, "connection_refused", "connection refused",
              fields, sizeof fields / sizeof *fields);
}

struct connection_handler server_connection_handler(void)
{
    return (struct connection_handler){
        .accept = on_accept,
        .open = on_open,
        .on_bytes = on_bytes,
        .on_output = on_output,
        .on_close = on_close,
        .on_refused = on_refused_connection,
    };
}
