#include "mqtt_ack.h"

#include "mqtt_codec.h"

enum { SHORT_BYTES = 4 }; /* an acknowledgement that says success by saying nothing */

/* 3.4.2.1, 3.5.2.1 for the answers to PUBLISH; 3.6.2.1, 3.7.2.1 for PUBREL and PUBCOMP. */
static bool reason_is_allowed(enum mqtt_type type, enum mqtt_reason reason)
{
    static const uint8_t of_publish[] = {
        MQTT_SUCCESS,
        MQTT_NO_MATCHING_SUBSCRIBERS,
        MQTT_UNSPECIFIED_ERROR,
        MQTT_IMPLEMENTATION_SPECIFIC_ERROR,
        MQTT_NOT_AUTHORIZED,
        MQTT_TOPIC_NAME_INVALID,
        MQTT_PACKET_IDENTIFIER_IN_USE,
        MQTT_QUOTA_EXCEEDED,
        MQTT_PAYLOAD_FORMAT_INVALID,
    };
    if (type == MQTT_PUBACK || type == MQTT_PUBREC) {
        return mqtt_reason_is_in(reason, bytes_of(of_publish, sizeof of_publish));
    }
    return reason == MQTT_SUCCESS || reason == MQTT_PACKET_IDENTIFIER_NOT_FOUND;
}

static enum mqtt_reason read_properties(struct reader *reader, struct mqtt_ack *out)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, MQTT_PLACE_PUBACK);
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        if (property.id == MQTT_PROPERTY_REASON_STRING) {
            out->reason_string = property.value;
        }
    }
    return mqtt_properties_reason(&properties);
}

enum mqtt_reason mqtt_ack_decode(struct bytes body, enum mqtt_type type, enum mqtt_version version,
                                 struct mqtt_ack *out)
{
    struct reader reader = reader_of(body);
    *out = (struct mqtt_ack){.packet_id = reader_u16(&reader), .reason = MQTT_SUCCESS};
    if (out->packet_id == 0) {
        return MQTT_MALFORMED_PACKET; /* or the body ended: the same answer */
    }
    /* Reason code and properties may be missing from the end (3.4.2.1, 3.4.2.2.1). */
    if (version == MQTT_VERSION_5 && reader_left(&reader) != 0) {
        out->reason = (enum mqtt_reason)reader_u8(&reader);
        if (!reason_is_allowed(type, out->reason)) {
            return MQTT_PROTOCOL_ERROR;
        }
        if (reader_left(&reader) != 0) {
            enum mqtt_reason reason = read_properties(&reader, out);
            if (reason != MQTT_SUCCESS) {
                return reason;
            }
        }
    }
    return reader_left(&reader) == 0 ? MQTT_SUCCESS : MQTT_MALFORMED_PACKET;
}

void mqtt_ack_encode(struct writer *writer, enum mqtt_type type, enum mqtt_version version,
                     const struct mqtt_ack *ack)
{
    uint8_t flags = type == MQTT_PUBREL ? 0x02 : 0x00; /* [MQTT-3.6.1-1] */
    bool has_string = ack->reason_string.len != 0;
    if (version != MQTT_VERSION_5 || (ack->reason == MQTT_SUCCESS && !has_string)) {
        uint8_t *at = writer_take(writer, SHORT_BYTES);
        if (at != NULL) {
            at[0] = (uint8_t)((unsigned)type << 4 | flags);
            at[1] = SHORT_BYTES - 2;
            at[2] = (uint8_t)(ack->packet_id >> 8);
            at[3] = (uint8_t)ack->packet_id;
        }
        return;
    }
    size_t packet = mqtt_packet_open(writer, type, flags);
    writer_u16(writer, ack->packet_id);
    writer_u8(writer, (uint8_t)ack->reason);
    if (has_string) {
        size_t properties = mqtt_length_open(writer);
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_REASON_STRING, ack->reason_string);
        mqtt_length_close(writer, properties);
    }
    mqtt_length_close(writer, packet);
}
