/*
 * STOMP on two threads: bytes go to the broker as they come, and its client takes them apart there.
 * So does a WebSocket whose first bytes must tell what it speaks: such a link keeps its MQTT
 * client, or gets a STOMP client in its place.
 */
#include "link.h"

#include "connection.h"

/* Bytes in a record. */
struct piece {
    size_t len;
    uint8_t data[];
};

static void decode(struct io_link *io, void *decoder, struct bytes bytes)
{
    (void)decoder;
    struct piece *piece = io_link_packet_begin(io, sizeof *piece + bytes.len);
    if (piece != NULL) {
        piece->len = bytes.len;
        bytes_copy(piece->data, bytes);
        io_link_packet_end(io, sizeof *piece + bytes.len, 0);
    }
}

static void decoder_fini(void *decoder)
{
    (void)decoder;
}

static void *open_stomp(struct link *link, uint64_t now_ms, struct bytes user)
{
    return stomp_client_open(link->thread->server->stomp_clients, now_ms, link, link->settings,
                             user);
}

static void *open_undecided(struct link *link, uint64_t now_ms, struct bytes user)
{
    return mqtt_client_open(link->thread->server->mqtt_clients, now_ms, link, link->settings, user);
}

static void receive(void *client, uint64_t now_ms, const void *record)
{
    const struct piece *piece = record;
    struct client *self = client;
    if (self != NULL) {
        self->kind->receive(self, now_ms, bytes_of(piece->data, piece->len));
    }
}

/* The first bytes of a client that may be anything. From here on the link is like those of STOMP,
 * whatever its client is: both take bytes. */
static void decide(void *client, uint64_t now_ms, const void *record)
{
    const struct piece *piece = record;
    struct client *self = client;
    if (self == NULL) {
        return;
    }
    struct link *link = self->kind->link(self);
    link->protocol = &link_stomp;
    if (stomp_client_is_meant(bytes_of(piece->data, piece->len))) {
        struct client_facts facts;
        self->kind->describe(self, &facts); /* before CONNECT its user is the certificate's */
        struct client *other = open_stomp(link, now_ms, facts.user_name);
        if (other == NULL) {
            mqtt_client_disconnect(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
            return;
        }
        link->client = other;
        mqtt_client_discard(client);
    }
    receive(link->client, now_ms, record);
}

const struct link_protocol link_stomp = {
    .decode = decode,
    .decoder_fini = decoder_fini,
    .open = open_stomp,
    .receive = receive,
    .send = link_client_send,
    .close = link_client_close,
};

const struct link_protocol link_undecided = {
    .decode = decode,
    .decoder_fini = decoder_fini,
    .open = open_undecided,
    .receive = decide,
    .send = link_client_send,
    .close = link_client_close,
};
