/*
 * mqtt_subscribe: SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (3.8 to 3.11).
 */
#ifndef PROTOCOL_MQTT_SUBSCRIBE_H
#define PROTOCOL_MQTT_SUBSCRIBE_H

#include "mqtt.h"

/* One entry of a SUBSCRIBE. Before MQTT 5 only qos is set. */
struct mqtt_subscription {
    struct bytes filter; /* as sent, "$share/..." included; NOT yet checked to be a valid filter:
                            that is answered per entry */
    uint8_t qos;
    bool no_local;
    bool retain_as_published;
    uint8_t retain_handling; /* 0, 1, 2 */
};

/* A decoded SUBSCRIBE or UNSUBSCRIBE; entries are read one by one from the body that was validated
 * as a whole. */
struct mqtt_subscribe {
    uint16_t packet_id;
    uint32_t identifier; /* Subscription Identifier; 0 = absent */
    size_t count;        /* entries, at least 1 */
    struct reader entries;
    enum mqtt_version version;
};

/*
 * Validates the whole packet: flags were checked with the header; UTF-8, option bits and retain
 * handling (MQTT_MALFORMED_PACKET / MQTT_PROTOCOL_ERROR per 3.8.3.1), no entry
 * (MQTT_PROTOCOL_ERROR), identifier 0 (MQTT_PROTOCOL_ERROR), No Local on a shared subscription
 * (MQTT_PROTOCOL_ERROR, 3.8.3-4), packet id 0.
 */
MUST_USE enum mqtt_reason mqtt_subscribe_decode(struct bytes body, enum mqtt_version version,
                                                struct mqtt_subscribe *out);
MUST_USE enum mqtt_reason mqtt_unsubscribe_decode(struct bytes body, enum mqtt_version version,
                                                  struct mqtt_subscribe *out);

/* The next entry of a packet that decoded well. False after the last. */
bool mqtt_subscribe_next(struct mqtt_subscribe *subscribe, struct mqtt_subscription *out);
bool mqtt_unsubscribe_next(struct mqtt_subscribe *unsubscribe, struct bytes *out_filter);

/* For clients and tests. */
void mqtt_subscribe_encode(struct writer *writer, enum mqtt_version version, uint16_t packet_id,
                           uint32_t identifier, const struct mqtt_subscription *entries,
                           size_t count);
void mqtt_unsubscribe_encode(struct writer *writer, enum mqtt_version version, uint16_t packet_id,
                             const struct bytes *filters, size_t count);

struct mqtt_suback {
    uint16_t packet_id;
    struct bytes reasons;       /* one byte for each entry */
    struct bytes reason_string; /* MQTT 5; empty = none */
};

/* SUBACK (failures become 0x80 before MQTT 5) and UNSUBACK (no reasons before MQTT 5). */
void mqtt_suback_encode(struct writer *writer, enum mqtt_type type, enum mqtt_version version,
                        const struct mqtt_suback *suback);
MUST_USE enum mqtt_reason mqtt_suback_decode(struct bytes body, enum mqtt_type type,
                                             enum mqtt_version version, struct mqtt_suback *out);

#endif
