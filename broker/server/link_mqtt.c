/* MQTT on two threads: its decoder beside the connection, its client beside the core. */
#include <string.h>

#include "link.h"

/* A packet in a record. A message goes with it; a body stands behind it. */
struct packet {
    struct mqtt_packet packet;
    uint8_t body[];
};

static void decode(struct io_link *io, void *decoder, struct bytes bytes)
{
    struct mqtt_packet found;
    while (mqtt_decoder_next(decoder, io->settings, &bytes, &found)) {
        size_t body_len = found.message == NULL ? found.body.len : 0;
        struct packet *packet = io_link_packet_begin(io, sizeof *packet + body_len);
        if (packet == NULL) {
            message_release(found.message);
            mqtt_decoder_stop(decoder);
            return;
        }
        packet->packet = found;
        packet->packet.body = bytes_of(packet->body, body_len);
        bytes_copy(packet->body, bytes_of(found.body.data, body_len));
        io_link_packet_end(io, sizeof *packet + body_len,
                           found.message == NULL ? 0 : message_size(found.message));
    }
}

static void decoder_fini(void *decoder)
{
    mqtt_decoder_fini(decoder);
}

static void *open_client(struct link *link, uint64_t now_ms, struct bytes user)
{
    return mqtt_client_open(link->thread->server->mqtt_clients, now_ms, link, link->settings, user);
}

static void receive(void *client, uint64_t now_ms, const void *record)
{
    const struct packet *packet = record;
    if (client == NULL) {
        message_release(packet->packet.message);
    } else {
        mqtt_client_packet(client, now_ms, &packet->packet);
    }
}

static void send_output(void *client, uint64_t now_ms, struct output *output)
{
    mqtt_client_send(client, now_ms, output);
}

static void close_client(void *client, uint64_t now_ms, const char *why)
{
    mqtt_client_close(client, now_ms, why);
}

const struct link_protocol link_mqtt = {
    .decoder_bytes = sizeof(struct mqtt_decoder),
    .decode = decode,
    .decoder_fini = decoder_fini,
    .open = open_client,
    .receive = receive,
    .send = send_output,
    .close = close_client,
};
