/* Between HTTP clients and their connections without I/O threads; see server_host.c. And what both
 * ways share. */
#include "server_state.h"

static struct server_listener *listener_of(const struct connection *connection)
{
    return listener_ctx(connection_listener(connection));
}

static uint64_t now_ms_of(const struct http_client *client)
{
    return transport_loop_now_ms(listener_of(http_client_link(client))->server->loop);
}

static void wake(void *link)
{
    connection_wake(link);
}

static void close_link(void *link, enum mqtt_reason reason, const char *why)
{
    connection_close(link, server_websocket_code(reason), why);
}

static void set_reading(void *link, bool reading)
{
    if (reading) {
        connection_resume_reading(link);
    } else {
        connection_pause_reading(link);
    }
}

static void begin_message(void *link, struct output *output, bool text)
{
    connection_begin_message(link, output, text);
}

void server_on_http_refused(struct server *server, const char *address, struct bytes user_name,
                            const char *why)
{
    if (!server->config->log.connection_messages) {
        return;
    }
    struct log_field fields[] = {
        log_string("address", address),
        log_text("user", user_name),
        log_string("reason", why),
    };
    log_event(server->log, LOG_TYPE_NOTICE, "http_refused", "HTTP request refused", fields,
              sizeof fields / sizeof *fields);
}

static void on_refused(void *link, const struct http_client *client, struct bytes user_name,
                       const char *why)
{
    char address[CONNECTION_ADDRESS_BYTES];
    (void)client;
    server_on_http_refused(listener_of(link)->server, connection_peer_address(link, address),
                           user_name, why);
}

void server_on_committed(void *server, uint64_t ticket)
{
    http_clients_on_committed(((struct server *)server)->http_clients, ticket);
}

static struct log_client describe(const struct server_peer *peer, const struct http_client *client)
{
    return (struct log_client){
        .client_id = http_client_id(client),
        .user_name = http_client_user_name(client),
        .address = peer->address,
        .transport = server_transport_name(peer),
        .protocol = http_client_protocol(client),
        .connected_ms = transport_loop_now_ms(peer->server->loop) - http_client_opened_ms(client),
    };
}

void server_on_http_stream(const struct server_peer *peer, const struct http_client *client)
{
    struct log_client who = describe(peer, client);
    log_client_connected(peer->server->log, &who);
}

void server_on_http_stream_end(const struct server_peer *peer, const struct http_client *client,
                               const char *why)
{
    struct log_client who = describe(peer, client);
    log_client_disconnected(peer->server->log, &who, why);
}

static struct server_peer peer_of(const struct connection *connection,
                                  char address[CONNECTION_ADDRESS_BYTES])
{
    return (struct server_peer){listener_of(connection)->server,
                                connection_peer_address(connection, address),
                                connection_is_websocket(connection), connection_is_tls(connection)};
}

static void on_stream(void *link, const struct http_client *client)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct server_peer peer = peer_of(link, address);
    server_on_http_stream(&peer, client);
}

static void on_stream_end(void *link, const struct http_client *client, const char *why)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct server_peer peer = peer_of(link, address);
    server_on_http_stream_end(&peer, client, why);
}

struct http_host server_http_host(struct server *server)
{
    return (struct http_host){
        .ctx = server,
        .wake = wake,
        .close = close_link,
        .set_reading = set_reading,
        .random = server_random,
        .checker = password_checks_checker(server->password_checks),
        .begin_message = begin_message,
        .on_stream = on_stream,
        .on_stream_end = on_stream_end,
        .on_refused = on_refused,
    };
}

static void *on_open(void *ctx, struct connection *connection, const struct connection_info *info)
{
    struct server_listener *listener = ctx;
    const char *user = NULL;
    if (listener->settings->certificate_is_user) {
        user = listener->use_subject ? info->certificate_subject : info->certificate_common_name;
    }
    return http_client_open(listener->server->http_clients,
                            transport_loop_now_ms(listener->server->loop), connection,
                            listener->settings, bytes_of_string(user));
}

static void on_bytes(void *user, struct bytes bytes)
{
    http_client_receive(user, now_ms_of(user), bytes);
}

static void on_output(void *user, struct output *output)
{
    http_client_send(user, now_ms_of(user), output);
}

static void on_close(void *user, const struct connection_end *end)
{
    struct http_client *client = user;
    http_client_close(client, now_ms_of(client), end->text);
}

struct connection_handler server_http_handler(void)
{
    return (struct connection_handler){
        .open = on_open,
        .on_bytes = on_bytes,
        .on_output = on_output,
        .on_close = on_close,
    };
}
