/* HTTP on two threads: bytes go to the broker as they came, and are read beside the core. */
#include "link.h"

#include "http_client.h"

enum { PIECE_BYTES_MAX = 16 * 1024 };

/* Bytes in a record. */
struct piece {
    size_t len;
    uint8_t bytes[];
};

static void decode(struct io_link *io, void *decoder, struct bytes bytes)
{
    (void)decoder;
    while (bytes.len != 0) {
        size_t len = bytes.len < PIECE_BYTES_MAX ? bytes.len : PIECE_BYTES_MAX;
        struct piece *piece = io_link_packet_begin(io, sizeof *piece + len);
        if (piece == NULL) {
            return;
        }
        piece->len = len;
        bytes_copy(piece->bytes, bytes_of(bytes.data, len));
        io_link_packet_end(io, sizeof *piece + len, 0);
        bytes = bytes_from(bytes, len);
    }
}

static void decoder_fini(void *decoder)
{
    (void)decoder; /* it keeps nothing */
}

static void *open_client(struct link *link, uint64_t now_ms, struct bytes user)
{
    return http_client_open(link->thread->server->http_clients, now_ms, link, link->settings, user);
}

static void receive(void *client, uint64_t now_ms, const void *record)
{
    const struct piece *piece = record;
    if (client != NULL) {
        http_client_receive(client, now_ms, bytes_of(piece->bytes, piece->len));
    }
}

static void send_output(void *client, uint64_t now_ms, struct output *output)
{
    http_client_send(client, now_ms, output);
}

static void close_client(void *client, uint64_t now_ms, const char *why)
{
    http_client_close(client, now_ms, why);
}

const struct link_protocol link_http = {
    .decoder_bytes = 1,
    .decode = decode,
    .decoder_fini = decoder_fini,
    .open = open_client,
    .receive = receive,
    .send = send_output,
    .close = close_client,
};

static void close_link(void *client_link, enum mqtt_reason reason, const char *why)
{
    struct link *link = client_link;
    link_mqtt_host(link->thread->server).close(client_link, reason);
    link->close_text = why;
}

static void on_refused(void *client_link, const struct http_client *client, struct bytes user_name,
                       const char *why)
{
    const struct link *link = client_link;
    (void)client;
    server_on_http_refused(link->thread->server, link->address, user_name, why);
}

static struct server_peer peer_of(const struct link *link)
{
    return (struct server_peer){link->thread->server, link->address, link->is_websocket,
                                link->is_tls};
}

static void on_stream(void *client_link, const struct http_client *client)
{
    struct server_peer peer = peer_of(client_link);
    server_on_http_stream(&peer, client);
}

static void on_stream_end(void *client_link, const struct http_client *client, const char *why)
{
    struct server_peer peer = peer_of(client_link);
    server_on_http_stream_end(&peer, client, why);
}

struct http_host link_http_host(struct server *server)
{
    struct client_host host = link_mqtt_host(server);
    return (struct http_host){
        .ctx = server,
        .wake = host.wake,
        .close = close_link,
        .set_reading = host.set_reading,
        .random = host.random,
        .checker = host.checker,
        .begin_message = host.begin_message,
        .on_stream = on_stream,
        .on_stream_end = on_stream_end,
        .on_refused = on_refused,
    };
}
