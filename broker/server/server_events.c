/* What happens to clients, in the log. */
#include "server_state.h"

const char *server_transport_name(const struct server_peer *peer)
{
    if (peer->is_websocket) {
        return peer->is_tls ? "WebSocket with TLS" : "WebSocket";
    }
    return peer->is_tls ? "TLS" : "TCP";
}

static struct log_client describe(const struct server_peer *peer, const struct client *client)
{
    struct client_facts facts;
    client->kind->describe(client, &facts);
    return (struct log_client){
        .client_id = facts.client_id,
        .user_name = facts.user_name,
        .address = peer->address,
        .transport = server_transport_name(peer),
        .protocol = facts.protocol,
        .clean_start = facts.clean_start,
        .keep_alive_s = facts.keep_alive_s,
        .connected_ms = transport_loop_now_ms(peer->server->loop) - facts.opened_ms,
    };
}

static struct bytes client_id_of(const struct client *client)
{
    struct client_facts facts;
    client->kind->describe(client, &facts);
    return facts.client_id;
}

void server_on_connected(const struct server_peer *peer, const struct client *client)
{
    struct log_client who = describe(peer, client);
    log_client_connected(peer->server->log, &who);
}

void server_on_refused(const struct server_peer *peer, const struct client *client,
                       struct bytes client_id, enum mqtt_reason reason)
{
    struct log_client who = describe(peer, client);
    who.client_id = client_id;
    log_client_refused(peer->server->log, &who, mqtt_reason_name(reason));
}

void server_on_gone(const struct server_peer *peer, const struct client *client, const char *why)
{
    struct log_client who = describe(peer, client);
    log_client_disconnected(peer->server->log, &who, why);
}

void server_on_subscribe(struct server *server, const struct client *client, struct bytes filter,
                         enum mqtt_reason granted)
{
    struct log *log = server->log;
    if (log_wants(log, LOG_TYPE_SUBSCRIBE)) {
        struct log_field fields[] = {log_text("client_id", client_id_of(client)),
                                     log_text("filter", filter),
                                     log_number("reason_code", granted)};
        log_event(log, LOG_TYPE_SUBSCRIBE, "subscribe", "subscription", fields,
                  sizeof fields / sizeof *fields);
    }
}

void server_on_unsubscribe(struct server *server, const struct client *client, struct bytes filter)
{
    struct log *log = server->log;
    if (log_wants(log, LOG_TYPE_UNSUBSCRIBE)) {
        struct log_field fields[] = {log_text("client_id", client_id_of(client)),
                                     log_text("filter", filter)};
        log_event(log, LOG_TYPE_UNSUBSCRIBE, "unsubscribe", "subscription ended", fields,
                  sizeof fields / sizeof *fields);
    }
}

void server_on_publish_refused(struct server *server, const struct client *client,
                               struct bytes topic, enum mqtt_reason reason)
{
    struct log_field fields[] = {log_text("client_id", client_id_of(client)),
                                 log_text("topic", topic),
                                 log_string("reason", mqtt_reason_name(reason))};
    log_event(server->log, LOG_TYPE_NOTICE, "publish_refused",
              "refused to publish; more refusals of this client are not logged", fields,
              sizeof fields / sizeof *fields);
}

/* An operator must hear of it, and not once for each client. */
static void warn_when_full(struct server *server, uint64_t sockets)
{
    enum { FULL_WARNING_MS = 10 * 1000 };
    uint64_t now_ms = transport_loop_now_ms(server->loop);
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

void server_on_refused_connection(struct server *server, uint64_t sockets, const char *peer_address,
                                  const char *reason)
{
    warn_when_full(server, sockets);
    if (!server->config->log.connection_messages) {
        return;
    }
    struct log_field fields[] = {log_string("address", peer_address), log_string("reason", reason)};
    log_event(server->log, LOG_TYPE_NOTICE, "connection_refused", "connection refused", fields,
              sizeof fields / sizeof *fields);
}
