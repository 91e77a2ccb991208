/*
 * ws_echo [options] PORT: sends every WebSocket message back, text as text and binary as binary.
 *
 * The transport room without a broker, for framing tests, test suites of WebSocket implementations
 * and measurements. PORT 0 takes any free port. The bound port is printed as "port N" on standard
 * output, the end of each connection on standard error. SIGTERM and SIGINT close all connections
 * with 1001.
 *
 * Options, each with a value: --ping MS, --handshake MS, --close MS, --max-connections N, --origin
 * ORIGIN and --subprotocol NAME (repeatable),
 * --cert FILE and --key FILE (TLS; repeatable in pairs), --ca FILE and --crl FILE (client
 * certificates are required), --tls optional, --raw yes (echo streams that begin like MQTT, too),
 * --head BYTES.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "connection.h"
#include "listener.h"
#include "loop.h"
#include "mem.h"
#include "tls.h"

enum {
    MESSAGE_BYTES_MAX = 16 * 1024 * 1024,
    QUEUE_MAX = 64, /* messages of one client not yet sent back; then it is not read from */
    LIST_MAX = 8,
};

/* One message on its way back. Grows while it is received, and is shared with the transport
 * afterwards. */
struct message {
    struct shared shared;
    struct message *next;
    size_t len, size;
    bool text;
    uint8_t data[];
};

struct echo {
    struct connection *connection;
    struct message *receiving;
    struct message *first, **last;
    unsigned queued;
};

struct server {
    uv_loop_t uv;
    struct transport_loop *loop;
    struct listener *listener;
    struct tls_config *tls;
    struct listener_options options;
    uv_signal_t signals[2];
    uint64_t connections_max;
    const char *subprotocols[LIST_MAX];
    const char *origins[LIST_MAX];
    struct tls_certificate certificates[LIST_MAX];
    struct tls_options tls_options;
    size_t key_count;
    bool stopping;
};

static void message_destroy(struct shared *shared)
{
    mem_free(shared); /* its first member */
}

static struct message *message_create(size_t size)
{
    struct message *message = mem_alloc(sizeof *message + size);
    if (message != NULL) {
        *message = (struct message){.shared = {1, message_destroy}, .size = size};
    }
    return message;
}

static void message_release(struct message *message)
{
    if (message != NULL) {
        shared_release(&message->shared);
    }
}

static void *on_open(void *ctx, struct connection *connection, const struct connection_info *info)
{
    (void)ctx;
    struct echo *echo = mem_zalloc(sizeof *echo);
    if (echo == NULL) {
        return NULL;
    }
    echo->connection = connection;
    echo->last = &echo->first;
    connection_allow_text(connection, true);
    connection_hear_messages(connection);
    (void)fprintf(
        stderr,
        "open %s websocket=%d subprotocol=%d path=%.*s tls=%s cipher=%s sni=%s cn=%s subject=%s\n",
        info->peer_address, info->is_websocket, info->subprotocol, (int)info->path.len,
        info->path.len == 0 ? "" : (const char *)info->path.data,
        info->is_tls ? info->tls_version : "-", info->is_tls ? info->tls_cipher : "-",
        info->server_name != NULL ? info->server_name : "-",
        info->certificate_common_name != NULL ? info->certificate_common_name : "-",
        info->certificate_subject != NULL ? info->certificate_subject : "-");
    return echo;
}

static void on_message_begin(void *user, bool text)
{
    struct echo *echo = user;
    echo->receiving = message_create(256);
    if (echo->receiving == NULL) {
        connection_abort(echo->connection, "out of memory");
    } else {
        echo->receiving->text = text;
    }
}

static void append(struct echo *echo, struct bytes bytes)
{
    struct message *message = echo->receiving;
    if (message->len + bytes.len > message->size) {
        size_t size = (message->len + bytes.len) * 2;
        message = mem_realloc(message, sizeof *message + size);
        if (message == NULL) {
            connection_abort(echo->connection, "out of memory");
            return;
        }
        message->size = size;
        echo->receiving = message;
    }
    memcpy(message->data + message->len, bytes.data, bytes.len);
    message->len += bytes.len;
}

static void on_message_end(void *user)
{
    struct echo *echo = user;
    *echo->last = echo->receiving;
    echo->last = &echo->receiving->next;
    echo->receiving = NULL;
    if (++echo->queued >= QUEUE_MAX) {
        connection_pause_reading(echo->connection);
    }
    connection_wake(echo->connection);
}

/* Without WebSocket there are no messages: each piece is one. */
static void on_bytes(void *user, struct bytes bytes)
{
    struct echo *echo = user;
    if (connection_is_websocket(echo->connection)) {
        append(echo, bytes);
        return;
    }
    on_message_begin(user, false);
    if (echo->receiving != NULL) {
        append(echo, bytes);
        on_message_end(user);
    }
}

static void on_output(void *user, struct output *output)
{
    struct echo *echo = user;
    while (echo->first != NULL && output_has_room(output)) {
        struct message *message = echo->first;
        connection_begin_message(echo->connection, output, message->text);
        output_add(output, bytes_of(message->data, message->len), &message->shared);
        echo->first = message->next;
        if (echo->first == NULL) {
            echo->last = &echo->first;
        }
        echo->queued--;
        message_release(message);
    }
    if (echo->queued < QUEUE_MAX / 2) {
        connection_resume_reading(echo->connection);
    }
}

static void on_close(void *user, const struct connection_end *end)
{
    struct echo *echo = user;
    (void)fprintf(stderr, "end %d %u %s\n", (int)end->cause, end->websocket_code, end->text);
    message_release(echo->receiving);
    while (echo->first != NULL) {
        struct message *message = echo->first;
        echo->first = message->next;
        message_release(message);
    }
    mem_free(echo);
}

static void on_refused(void *ctx, const char *peer_address, const char *reason)
{
    (void)ctx;
    (void)fprintf(stderr, "refused %s %s\n", peer_address, reason);
}

static bool on_accept(void *ctx, struct listener *listener)
{
    const struct server *server = ctx;
    (void)listener;
    return transport_loop_statistics(server->loop)->connections_current < server->connections_max;
}

static void stop(uv_signal_t *handle, int number)
{
    struct server *server = handle->data;
    (void)number;
    if (!server->stopping) {
        server->stopping = true;
        listener_close(server->listener);
        transport_loop_close_all(server->loop, WEBSOCKET_GOING_AWAY, "the server stops");
        uv_close((uv_handle_t *)&server->signals[0], NULL);
        uv_close((uv_handle_t *)&server->signals[1], NULL);
    }
}

static bool parse_list_option(struct server *server, const char *name, const char *value)
{
    struct listener_options *options = &server->options;
    if (strcmp(name, "--origin") == 0 && options->origin_count < LIST_MAX) {
        server->origins[options->origin_count++] = value;
    } else if (strcmp(name, "--subprotocol") == 0 && options->subprotocol_count < LIST_MAX) {
        server->subprotocols[options->subprotocol_count++] = value;
    } else if (strcmp(name, "--cert") == 0 && server->tls_options.certificate_count < LIST_MAX) {
        server->certificates[server->tls_options.certificate_count++].certfile = value;
        options->tls = LISTENER_TLS_REQUIRED;
    } else if (strcmp(name, "--key") == 0 && server->key_count < LIST_MAX) {
        server->certificates[server->key_count++].keyfile = value;
    } else {
        return false;
    }
    return true;
}

static bool parse_option(struct server *server, const char *name, const char *value)
{
    struct listener_options *options = &server->options;
    uint32_t number = (uint32_t)strtoul(value, NULL, 10);
    if (strcmp(name, "--ping") == 0) {
        options->ping_interval_ms = number;
    } else if (strcmp(name, "--handshake") == 0) {
        options->handshake_timeout_ms = number;
    } else if (strcmp(name, "--close") == 0) {
        options->close_timeout_ms = number;
    } else if (strcmp(name, "--head") == 0) {
        options->http_head_bytes_max = number;
    } else if (strcmp(name, "--max-connections") == 0) {
        server->connections_max = number;
    } else if (strcmp(name, "--ca") == 0) {
        server->tls_options.cafile = value;
        server->tls_options.require_certificate = true;
    } else if (strcmp(name, "--crl") == 0) {
        server->tls_options.crlfile = value;
    } else if (strcmp(name, "--tls") == 0 && strcmp(value, "optional") == 0) {
        options->tls = LISTENER_TLS_OPTIONAL;
    } else if (strcmp(name, "--raw") == 0) {
        options->speaks |= LISTENER_RAW;
    } else {
        return parse_list_option(server, name, value);
    }
    return true;
}

static void fill_options(struct server *server)
{
    server->connections_max = UINT64_MAX;
    server->options = listener_options_default();
    server->options.host = "127.0.0.1";
    server->options.speaks = LISTENER_WEBSOCKET;
    server->options.message_bytes_max = MESSAGE_BYTES_MAX;
    server->options.subprotocols = server->subprotocols;
    server->options.origins = server->origins;
    server->options.ctx = server;
    server->options.handler = (struct connection_handler){
        .accept = on_accept,
        .open = on_open,
        .on_bytes = on_bytes,
        .on_message_begin = on_message_begin,
        .on_message_end = on_message_end,
        .on_output = on_output,
        .on_close = on_close,
        .on_refused = on_refused,
    };
    server->tls_options.certificates = server->certificates;
}

static bool start(struct server *server)
{
    char error[512] = "";
    if (server->options.tls != LISTENER_TLS_NONE &&
        tls_config_create(&server->tls_options, &server->tls, error, sizeof error) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", error);
        return false;
    }
    server->options.tls_config = server->tls;
    struct transport_loop_options loop_options = {.uv = &server->uv};
    if (uv_loop_init(&server->uv) != 0 ||
        transport_loop_create(&loop_options, &server->loop) != STATUS_OK) {
        return false;
    }
    if (listener_create(server->loop, &server->options, &server->listener, error, sizeof error) !=
        STATUS_OK) {
        (void)fprintf(stderr, "%s\n", error);
        return false;
    }
    static const int numbers[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(&server->uv, &server->signals[i]);
        server->signals[i].data = server;
        (void)uv_signal_start(&server->signals[i], stop, numbers[i]);
    }
    (void)printf("port %u\n", listener_port(server->listener));
    (void)fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    static struct server server;
    fill_options(&server);
    int at = 1;
    while (at + 1 < argc && parse_option(&server, argv[at], argv[at + 1])) {
        at += 2;
    }
    if (at + 1 != argc || server.key_count != server.tls_options.certificate_count) {
        (void)fprintf(stderr, "usage: ws_echo [--option value]... PORT\n");
        return 2;
    }
    server.options.port = (uint16_t)strtoul(argv[at], NULL, 10);
    if (!start(&server)) {
        return 1;
    }
    (void)uv_run(&server.uv, UV_RUN_DEFAULT);
    transport_loop_destroy(server.loop);
    tls_config_release(server.tls);
    return uv_loop_close(&server.uv) == 0 ? 0 : 1;
}
