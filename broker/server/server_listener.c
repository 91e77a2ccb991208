/* Listeners: from the configuration to sockets, certificates and the settings of their clients. */
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "server_state.h"

enum { ERROR_BYTES = 512, NAME_BYTES = 320 };

/* MQTT's first: a listener for STOMP alone has what is behind them. */
static const char *const subprotocols[] = {"mqtt", "mqttv3.1", "v12.stomp", "v11.stomp",
                                           "v10.stomp"};

enum { SUBPROTOCOLS = sizeof subprotocols / sizeof *subprotocols, SUBPROTOCOLS_OF_MQTT = 2 };

static enum status create_settings(const struct config *config,
                                   const struct config_listener *listener, struct access *access,
                                   struct mqtt_settings **out)
{
    struct mqtt_settings values = {
        .access = access,
        .allow_anonymous = listener->allow_anonymous,
        .certificate_is_user =
            listener->use_identity_as_username || listener->use_subject_as_username,
        .allow_zero_length_client_id = listener->allow_zero_length_clientid,
        .retain_available = config->retain_available,
        .qos_max = (uint8_t)listener->max_qos,
        .topic_alias_maximum = (uint16_t)listener->max_topic_alias,
        .receive_maximum = (uint16_t)config->receive_maximum,
        .keep_alive_max_s = (uint16_t)config->max_keepalive_s,
        .packet_bytes_max = config->max_packet_size,
        .payload_bytes_max = config->message_size_limit,
        .subscriptions_max = config->max_subscriptions,
        .connect_timeout_ms = config->connect_timeout_s * 1000,
        .auto_id_prefix = listener->auto_id_prefix,
        .client_id_prefix = config->clientid_prefixes,
        .http_cors_origin = listener->http_cors_origin,
        .response_information = config->response_information,
    };
    return mqtt_settings_create(&values, out);
}

/* Names the place in the configuration when there is one. */
static void report_error(const struct server *server, const struct config_listener *listener,
                         const char *text)
{
    if (listener->file != NULL && listener->line != 0) {
        server_report_config(server->log, CONFIG_ERROR, listener->file, listener->line, text);
    } else {
        log_write(server->log, LOG_TYPE_ERROR, "%s", text);
    }
}

static enum status load_tls(struct server *server, const struct config_listener *listener,
                            struct tls_config **out)
{
    struct tls_certificate certificates[CONFIG_CERTIFICATES_MAX];
    *out = NULL;
    if (listener->certificate_count == 0) {
        return STATUS_OK;
    }
    for (size_t i = 0; i < listener->certificate_count; i++) {
        certificates[i] = (struct tls_certificate){listener->certificates[i].certfile,
                                                   listener->certificates[i].keyfile};
    }
    struct tls_options options = {
        .certificates = certificates,
        .certificate_count = listener->certificate_count,
        .cafile = listener->cafile,
        .crlfile = listener->crlfile,
        .require_certificate = listener->require_certificate,
    };
    char error[ERROR_BYTES] = "out of memory";
    enum status status = tls_config_create(&options, out, error, sizeof error);
    if (status != STATUS_OK) {
        report_error(server, listener, error);
        return STATUS_IO;
    }
    return STATUS_OK;
}

static unsigned speaks(const struct config_listener *listener)
{
    switch (listener->protocol) {
    case CONFIG_PROTOCOL_MQTT:
        return LISTENER_RAW;
    case CONFIG_PROTOCOL_WEBSOCKETS:
        return LISTENER_WEBSOCKET;
    case CONFIG_PROTOCOL_STOMP:
        return LISTENER_STOMP | LISTENER_WEBSOCKET;
    case CONFIG_PROTOCOL_DEFAULT:
    case CONFIG_PROTOCOL_ANY:
        break;
    }
    return LISTENER_RAW | LISTENER_STOMP | LISTENER_WEBSOCKET;
}

static enum listener_family family_of(const struct config_listener *listener)
{
    switch (listener->family) {
    case CONFIG_FAMILY_IPV4:
        return LISTENER_IPV4;
    case CONFIG_FAMILY_IPV6:
        return LISTENER_IPV6;
    case CONFIG_FAMILY_ANY:
        break;
    }
    return LISTENER_FAMILY_ANY;
}

/* A port that was given certificates is expected to keep others out, unless it was said otherwise.
 */
static enum listener_tls tls_mode_of(const struct config_listener *listener)
{
    if (listener->certificate_count == 0) {
        return LISTENER_TLS_NONE;
    }
    return listener->protocol == CONFIG_PROTOCOL_ANY ? LISTENER_TLS_OPTIONAL
                                                     : LISTENER_TLS_REQUIRED;
}

static struct listener_options options_of(const struct config *config,
                                          const struct config_listener *wanted,
                                          struct server_listener *listener, struct tls_config *tls)
{
    struct listener_options options = listener_options_default();
    options.host = wanted->host;
    options.unix_path = wanted->unix_path;
    options.family = family_of(wanted);
    options.port = wanted->port;
    options.speaks = speaks(wanted);
    options.tls = tls_mode_of(wanted);
    options.tls_config = tls;
    int skipped = SUBPROTOCOLS_OF_MQTT - listener->mqtt_subprotocols;
    options.subprotocols = subprotocols + skipped;
    options.subprotocol_count = (size_t)(SUBPROTOCOLS - skipped);
    options.origins = wanted->websockets_origins;
    options.origin_count = wanted->websockets_origin_count;
    options.http_head_bytes_max = config->websockets_headers_size;
    options.handshake_timeout_ms = config->handshake_timeout_s * 1000;
    options.ping_interval_ms = config->websocket_ping_interval_s * 1000;
    options.nodelay = config->set_tcp_nodelay;
    options.sockets_max = listener->server->sockets_max;
    options.handler = server_connection_handler();
    options.serves_http = http_client_serves;
    options.http_handler = server_http_handler();
    options.ctx = listener;
    return options;
}

/* One line that says where and how to connect. */
static void announce(const struct server *server, const struct config_listener *wanted,
                     const struct server_listener *listener)
{
    const char *address = listener_address(listener->listener);
    const char *s = wanted->certificate_count == 0 ? "" : "s";
    static const struct {
        unsigned speaks;
        const char *scheme;
    } schemes[] = {{LISTENER_RAW, "mqtt"}, {LISTENER_WEBSOCKET, "ws"}, {LISTENER_STOMP, "stomp"}};
    char urls[3 * NAME_BYTES] = "";
    size_t len = 0;
    for (size_t i = 0; wanted->unix_path == NULL && i < sizeof schemes / sizeof *schemes; i++) {
        if ((speaks(wanted) & schemes[i].speaks) != 0) {
            len += (size_t)snprintf(urls + len, NAME_BYTES, ", %s%s://%s", schemes[i].scheme, s,
                                    address);
        }
    }
    log_write(server->log, LOG_TYPE_NOTICE, "listening on %s%s", address, urls);
}

static enum status open_listener(struct server *server, const struct config_listener *wanted,
                                 const struct access_files *files, struct server_listener *listener)
{
    listener->server = server;
    listener->use_subject = wanted->use_subject_as_username;
    listener->mqtt_subprotocols =
        wanted->protocol == CONFIG_PROTOCOL_STOMP ? 0 : SUBPROTOCOLS_OF_MQTT;
    listener->connections_max = wanted->max_connections;
    enum status status = access_create(&listener->access);
    if (status != STATUS_OK) {
        return status;
    }
    access_set_files(listener->access, files->passwords, files->acl);
    status = create_settings(server->config, wanted, listener->access, &listener->settings);
    if (status != STATUS_OK) {
        return status;
    }
    struct tls_config *tls = NULL;
    status = load_tls(server, wanted, &tls);
    if (status != STATUS_OK) {
        return status;
    }
    struct listener_options options = options_of(server->config, wanted, listener, tls);
    size_t index = (size_t)(listener - server->listeners);
    if (wanted->optional && options.port == 0 && index != 0 && listener[-1].listener != NULL) {
        options.port = listener_port(listener[-1].listener); /* both halves of a loopback pair */
    }
    char error[ERROR_BYTES] = "out of memory";
    status = server->threads == NULL
                 ? listener_create(server->loop, &options, &listener->listener, error, sizeof error)
                 : server_threads_listen(server, index, &options, error, sizeof error);
    tls_config_release(tls);
    if (status != STATUS_OK) {
        if (wanted->optional) {
            return STATUS_OK;
        }
        report_error(server, wanted, error);
        return STATUS_IO;
    }
    announce(server, wanted, listener);
    return STATUS_OK;
}

enum status server_open_listeners(struct server *server)
{
    server->listener_count = server->config->listener_count;
    server->listeners = mem_zalloc(server->listener_count * sizeof *server->listeners);
    if (server->listeners == NULL) {
        server->listener_count = 0;
        return STATUS_NO_MEMORY;
    }
    struct access_files *files = NULL;
    enum status status =
        access_files_load(server->config, server_report_config, server->log, &files);
    for (size_t i = 0; status == STATUS_OK && i < server->listener_count; i++) {
        status =
            open_listener(server, &server->config->listeners[i], &files[i], &server->listeners[i]);
    }
    access_files_destroy(files, server->listener_count);
    return status;
}

static bool is_same_string(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool is_same_place(const struct config_listener *a, const struct config_listener *b)
{
    return is_same_string(a->host, b->host) && is_same_string(a->unix_path, b->unix_path) &&
           a->port == b->port && a->family == b->family && a->protocol == b->protocol &&
           (a->certificate_count == 0) == (b->certificate_count == 0);
}

/* Everything that a reload needs for one listener, made before anything is changed. */
struct reload {
    struct mqtt_settings *settings;
    struct tls_config *tls;
};

static enum status prepare_reload(struct server *server, const struct config *config, size_t index,
                                  struct reload *out)
{
    enum status status = create_settings(config, &config->listeners[index],
                                         server->listeners[index].access, &out->settings);
    return status == STATUS_OK ? load_tls(server, &config->listeners[index], &out->tls) : status;
}

static void release_settings(struct mqtt_settings *settings)
{
    if (settings != NULL) {
        shared_release(&settings->shared);
    }
}

void server_release_listeners(struct server *server)
{
    for (size_t i = 0; i < server->listener_count; i++) {
        release_settings(server->listeners[i].settings);
        access_release(server->listeners[i].access);
    }
    mem_free(server->listeners);
}

/* Clients that are connected keep the settings that they were told of. */
static void take_settings(const struct config *config, const struct config_listener *wanted,
                          const struct access_files *files, struct server_listener *listener,
                          struct reload *reload)
{
    access_set_files(listener->access, files->passwords, files->acl);
    struct mqtt_settings *before = listener->settings;
    struct tls_config *tls = reload->tls;
    listener->settings = reload->settings;
    reload->settings = before;
    listener->use_subject = wanted->use_subject_as_username;
    listener->connections_max = wanted->max_connections;
    if (listener->listener == NULL) {
        return;
    }
    struct server *server = listener->server;
    struct listener_options options = options_of(config, wanted, listener, tls);
    enum status status;
    if (server->threads != NULL) {
        status = server_threads_configure(server, (size_t)(listener - server->listeners), &options);
    } else {
        if (tls != NULL) {
            listener_set_tls(listener->listener, tls);
        }
        status = listener_configure(listener->listener, &options);
    }
    if (status != STATUS_OK) {
        report_error(listener->server, wanted,
                     "out of memory: the listener keeps its origins and time limits; reload again");
    }
}

enum status server_reload_listeners(struct server *server, const struct config *config)
{
    bool moved = config->listener_count != server->listener_count;
    for (size_t i = 0; !moved && i < server->listener_count; i++) {
        moved = !is_same_place(&server->config->listeners[i], &config->listeners[i]);
    }
    if (moved) {
        log_write(server->log, LOG_TYPE_WARNING,
                  "listeners were added, moved or removed, or speak something else: that needs a "
                  "restart");
        return STATUS_INVALID;
    }
    struct reload reloads[CONFIG_LISTENERS_MAX] = {{NULL, NULL}};
    struct access_files *files = NULL;
    enum status status = access_files_load(config, server_report_config, server->log, &files);
    for (size_t i = 0; status == STATUS_OK && i < server->listener_count; i++) {
        status = prepare_reload(server, config, i, &reloads[i]);
    }
    for (size_t i = 0; i < server->listener_count; i++) {
        if (status == STATUS_OK) {
            take_settings(config, &config->listeners[i], &files[i], &server->listeners[i],
                          &reloads[i]);
        }
        release_settings(reloads[i].settings);
        tls_config_release(reloads[i].tls);
    }
    access_files_destroy(files, server->listener_count);
    if (status == STATUS_OK) {
        server_recheck_clients(server, transport_loop_now_ms(server->loop));
    }
    return status;
}
