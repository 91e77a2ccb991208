/*
 * mqtt_ack: PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7), which share one shape.
 */
#ifndef PROTOCOL_MQTT_ACK_H
#define PROTOCOL_MQTT_ACK_H

#include "mqtt.h"

struct mqtt_ack {
    uint16_t packet_id;
    enum mqtt_reason reason; /* MQTT_SUCCESS before MQTT 5 */
    struct bytes reason_string;
};

/* Decodes the body of one of the four; `type` decides which reason codes are allowed (others:
 * MQTT_PROTOCOL_ERROR). */
MUST_USE enum mqtt_reason mqtt_ack_decode(struct bytes body, enum mqtt_type type,
                                          enum mqtt_version version, struct mqtt_ack *out);

/* Writes the shortest form: two bytes of body on success or before MQTT 5. */
void mqtt_ack_encode(struct writer *writer, enum mqtt_type type, enum mqtt_version version,
                     const struct mqtt_ack *ack);

#endif
