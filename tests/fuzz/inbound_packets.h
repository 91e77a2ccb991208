/* What inbound_fuzz.c knows of packets and frames by themselves. */
#ifndef FUZZ_INBOUND_PACKETS_H
#define FUZZ_INBOUND_PACKETS_H

#include "mqtt_connect.h"

static inline struct bytes connect_packet(uint8_t *room, size_t size, enum mqtt_version version,
                                          const char *client_id, bool clean_start)
{
    struct writer writer = writer_of(room, size);
    struct mqtt_connect packet = {
        .version = version,
        .clean_start = clean_start,
        .client_id = bytes_of_string(client_id),
        .session_expiry_s = version == MQTT_VERSION_5 && !clean_start ? 100 : 0,
        .receive_maximum = UINT16_MAX,
        .request_problem_information = true,
    };
    mqtt_connect_encode(&writer, &packet);
    ENSURE(writer_ok(&writer));
    return writer_written(&writer);
}

static inline bool may_come_from_server(enum mqtt_type type)
{
    return type != MQTT_CONNECT && type != MQTT_SUBSCRIBE && type != MQTT_UNSUBSCRIBE &&
           type != MQTT_PINGREQ && type != MQTT_AUTH;
}

/* The beginning of a STOMP frame. */
static inline bool may_be_from_server(struct bytes frame)
{
    static const char *const commands[] = {"CONNECTED\n", "MESSAGE\n", "RECEIPT\n", "ERROR\n"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (bytes_start_with(frame, bytes_of_string(commands[i]))) {
            return true;
        }
    }
    return false;
}

#endif
