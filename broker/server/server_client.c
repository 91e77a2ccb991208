/*
 * Kinds of clients: which there are, and which one a connection gets. What it speaks is known from
 * the subprotocol that it asked for, from its first bytes, or, on a WebSocket without subprotocol,
 * only when these have come: until then it has an MQTT client with a kind of its own.
 */
#include "server_state.h"

/* One kind decides: the client that waits for its first bytes. */
static void decide(struct client *client, uint64_t now_ms, struct bytes in);

static const struct client_kind *undecided_kind(void)
{
    static struct client_kind kind;
    kind = *mqtt_client_kind();
    kind.receive = decide;
    return &kind;
}

static struct server_listener *listener_of(const struct connection *connection)
{
    return listener_ctx(connection_listener(connection));
}

static void decide(struct client *client, uint64_t now_ms, struct bytes in)
{
    struct connection *connection = client->kind->link(client);
    client->kind = mqtt_client_kind();
    if (!stomp_client_is_meant(in)) {
        connection_allow_text(connection, false);
        client->kind->receive(client, now_ms, in);
        return;
    }
    struct server_listener *listener = listener_of(connection);
    struct client_facts facts;
    client->kind->describe(client, &facts); /* before CONNECT its user is the certificate's */
    struct client *other = stomp_client_open(listener->server->stomp_clients, now_ms, connection,
                                             listener->settings, facts.user_name);
    if (other == NULL) {
        connection_abort(connection, "out of memory");
        return;
    }
    connection_set_user(connection, other);
    mqtt_client_discard((struct mqtt_client *)(void *)client);
    other->kind->receive(other, now_ms, in);
}

static bool speaks_stomp(const struct server_listener *listener, const struct connection_info *info)
{
    return info->is_stomp || listener->mqtt_subprotocols == 0 ||
           info->subprotocol >= listener->mqtt_subprotocols;
}

bool server_is_push(const struct connection_info *info)
{
    return info->is_websocket && info->subprotocol < 0 && http_push_serves(info->path);
}

struct client *server_open_client(struct server_listener *listener, struct connection *connection,
                                  const struct connection_info *info)
{
    struct server *server = listener->server;
    uint64_t now_ms = transport_loop_now_ms(server->loop);
    const char *certificate = NULL;
    if (listener->settings->certificate_is_user) {
        certificate =
            listener->use_subject ? info->certificate_subject : info->certificate_common_name;
    }
    struct bytes user = bytes_of_string(certificate);
    if (server_is_push(info)) {
        struct http_upgrade upgrade = {info->path, info->authorization};
        connection_allow_text(connection, true);
        connection_hear_messages(connection);
        return http_push_open(server->http_clients, now_ms, connection, listener->settings, user,
                              &upgrade);
    }
    if (speaks_stomp(listener, info)) {
        connection_allow_text(connection, true);
        return stomp_client_open(server->stomp_clients, now_ms, connection, listener->settings,
                                 user);
    }
    struct mqtt_client *client =
        mqtt_client_open(server->mqtt_clients, now_ms, connection, listener->settings, user);
    if (client == NULL) {
        return NULL;
    }
    if (info->is_websocket && info->subprotocol < 0) {
        connection_allow_text(connection, true);
        mqtt_client_base(client)->kind = undecided_kind();
    }
    return mqtt_client_base(client);
}

enum status server_create_clients(struct server *server, const struct client_host *host,
                                  const struct http_host *http_host, uint64_t now_ms,
                                  const struct core_options *options)
{
    enum status status = mqtt_clients_create(host, now_ms, &server->mqtt_clients);
    if (status == STATUS_OK) {
        status = stomp_clients_create(host, mqtt_clients_control(server->mqtt_clients), now_ms,
                                      &server->stomp_clients);
    }
    if (status == STATUS_OK) {
        status = http_clients_create(http_host, now_ms, &server->http_clients);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct core_effects effects = mqtt_clients_effects(server->mqtt_clients);
    status = core_create(options, &effects, now_ms, &server->core);
    if (status != STATUS_OK) {
        return status;
    }
    mqtt_clients_set_core(server->mqtt_clients, server->core);
    stomp_clients_set_core(server->stomp_clients, server->core);
    http_clients_set_core(server->http_clients, server->core);
    return STATUS_OK;
}

void server_destroy_clients(struct server *server)
{
    http_clients_destroy(server->http_clients);
    stomp_clients_destroy(server->stomp_clients);
    mqtt_clients_destroy(server->mqtt_clients);
}

uint64_t server_clients_deadline_ms(const struct server *server)
{
    uint64_t mqtt_ms = mqtt_clients_next_deadline_ms(server->mqtt_clients);
    uint64_t stomp_ms = stomp_clients_next_deadline_ms(server->stomp_clients);
    uint64_t http_ms = http_clients_next_deadline_ms(server->http_clients);
    uint64_t first_ms = mqtt_ms < stomp_ms ? mqtt_ms : stomp_ms;
    return http_ms < first_ms ? http_ms : first_ms;
}

void server_advance_clients(struct server *server, uint64_t now_ms)
{
    mqtt_clients_advance(server->mqtt_clients, now_ms);
    stomp_clients_advance(server->stomp_clients, now_ms);
    http_clients_advance(server->http_clients, now_ms);
}

void server_recheck_clients(struct server *server, uint64_t now_ms)
{
    mqtt_clients_on_access_changed(server->mqtt_clients, now_ms);
    stomp_clients_on_access_changed(server->stomp_clients, now_ms);
    http_clients_on_access_changed(server->http_clients, now_ms);
}

void server_shut_down_clients(struct server *server, uint64_t now_ms)
{
    mqtt_clients_shut_down(server->mqtt_clients, now_ms);
    stomp_clients_shut_down(server->stomp_clients, now_ms);
    http_clients_shut_down(server->http_clients, now_ms);
}

static void count(struct sys_figures *figures, struct mqtt_client_stats stats)
{
    figures->messages_received += stats.packets_received;
    figures->messages_sent += stats.packets_sent;
    figures->publish_received += stats.publish_received;
    figures->publish_sent += stats.publish_sent;
    figures->publish_bytes_received += stats.publish_bytes_received;
    figures->publish_bytes_sent += stats.publish_bytes_sent;
    figures->connections += stats.connections;
}

/* A STOMP client is one client, whatever its number of subscriptions, each of which is a session;
 * a queue is none. */
void server_count_clients(const struct server *server, struct sys_figures *figures)
{
    struct mqtt_client_stats stomp = stomp_clients_stats(server->stomp_clients);
    uint64_t clients = stomp_clients_connected(server->stomp_clients);
    uint64_t sessions = stomp_clients_sessions(server->stomp_clients);
    count(figures, mqtt_clients_stats(server->mqtt_clients));
    count(figures, stomp);
    figures->stomp_connected = clients;
    figures->stomp_connections = stomp.connections;
    figures->stomp_received = stomp.publish_received;
    figures->stomp_sent = stomp.publish_sent;
    figures->core.sessions_connected += clients - sessions;
    figures->core.sessions += clients - sessions - figures->core.queues;
}
