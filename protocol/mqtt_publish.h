/*
 * mqtt_publish: PUBLISH (3.3). The hot packet: decode borrows everything, encode is a few copies.
 */
#ifndef PROTOCOL_MQTT_PUBLISH_H
#define PROTOCOL_MQTT_PUBLISH_H

#include "mqtt.h"

struct mqtt_publish {
    uint8_t qos;
    bool retain;
    bool dup;
    bool has_expiry;
    bool payload_is_utf8; /* Payload Format Indicator 1; not checked here */
    uint16_t packet_id;   /* 0 at QoS 0 */
    uint16_t topic_alias; /* 0 = absent */
    uint32_t expiry_s;    /* valid when has_expiry */
    struct bytes topic;   /* may be empty with a topic alias (MQTT 5) */
    struct bytes payload;
    /*
     * The property list as on the wire, without its length: everything, also what is not passed on.
     * forward_len is the length of what mqtt_publish_forward would write: equal to properties.len
     * when the list can be passed on as it stands.
     */
    struct bytes properties;
    size_t forward_len;
};

/*
 * Decodes the body of a PUBLISH with the fixed header's `flags`.
 *
 * Errors: MQTT_MALFORMED_PACKET (QoS 3; DUP at QoS 0 [MQTT-3.3.1-2] is malformed but
 * in MQTT 3.1, where it means nothing; packet id 0; lengths), MQTT_PROTOCOL_ERROR (empty topic
 * without alias; a Subscription Identifier from a client 3.3.4-6; repeated properties; alias 0 is
 * MQTT_TOPIC_ALIAS_INVALID), MQTT_TOPIC_NAME_INVALID (wildcards or not a valid name).
 */
MUST_USE enum mqtt_reason mqtt_publish_decode(struct bytes body, uint8_t flags,
                                              enum mqtt_version version, struct mqtt_publish *out);

/*
 * Copies the properties that a server passes on unaltered (payload format, content type, response
 * topic, correlation data, user properties in order, 3.3.2.3) to `to`; works for a will's list too.
 * `properties` was validated by a decode.
 */
void mqtt_publish_forward(struct bytes properties, struct writer *to);

/* What mqtt_publish_forward would write. */
size_t mqtt_publish_forward_len(struct bytes properties);

/* One PUBLISH to be sent. */
struct mqtt_publish_out {
    uint8_t qos;
    bool retain;
    bool dup;
    bool has_expiry;
    uint16_t packet_id;
    uint16_t topic_alias; /* 0 = absent */
    uint32_t expiry_s;
    const uint32_t *subscription_ids;
    size_t subscription_id_count;
    struct bytes topic;    /* empty when the alias stands for it */
    size_t properties_len; /* forwardable list, without its length; ignored before MQTT 5 */
    size_t payload_len;
};

/* Bytes of the whole packet, fixed header and payload included. More than 268,435,460 cannot be
 * sent. */
size_t mqtt_publish_size(const struct mqtt_publish_out *publish, enum mqtt_version version);

/* What mqtt_publish_encode_head writes: mqtt_publish_size less the forwardable properties and the
 * payload. */
size_t mqtt_publish_head_size(const struct mqtt_publish_out *publish, enum mqtt_version version);

/*
 * Writes everything up to the forwardable properties. The caller appends those (MQTT 5 only) and
 * the payload, each by copy or by reference.
 */
void mqtt_publish_encode_head(struct writer *writer, const struct mqtt_publish_out *publish,
                              enum mqtt_version version);

#endif
