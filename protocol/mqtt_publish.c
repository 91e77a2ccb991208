#include "mqtt_publish.h"

#include "mqtt_codec.h"
#include "topic.h"

enum { FLAG_RETAIN = 0x01, FLAG_DUP = 0x08 };

/* What a server passes on unaltered (3.3.2.3.2, .5, .6, .7 and .9). */
static bool is_forwarded(enum mqtt_property_id id)
{
    switch (id) {
    case MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR:
    case MQTT_PROPERTY_CONTENT_TYPE:
    case MQTT_PROPERTY_RESPONSE_TOPIC:
    case MQTT_PROPERTY_CORRELATION_DATA:
    case MQTT_PROPERTY_USER_PROPERTY:
        return true;
    default:
        return false;
    }
}

static enum mqtt_reason take_property(struct mqtt_publish *out,
                                      const struct mqtt_property *property)
{
    switch (property->id) {
    case MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR:
        out->payload_is_utf8 = property->number == 1;
        return MQTT_SUCCESS;
    case MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL:
        out->has_expiry = true;
        out->expiry_s = property->number;
        return MQTT_SUCCESS;
    case MQTT_PROPERTY_TOPIC_ALIAS:
        out->topic_alias = (uint16_t)property->number;
        return out->topic_alias == 0 ? MQTT_TOPIC_ALIAS_INVALID : MQTT_SUCCESS; /* 3.3.2.3.4 */
    case MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER:
        return MQTT_PROTOCOL_ERROR; /* only a server sends it [MQTT-3.3.4-6] */
    default:
        return MQTT_SUCCESS;
    }
}

/* One pass over the list; none at all over an empty one, which is the usual case. */
static enum mqtt_reason read_properties(struct reader *reader, struct mqtt_publish *out)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, MQTT_PLACE_PUBLISH);
    const uint8_t *from = properties.reader.at;
    out->properties = bytes_of(from, reader_left(&properties.reader));
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        enum mqtt_reason reason = take_property(out, &property);
        if (reason != MQTT_SUCCESS) {
            return reason;
        }
        if (is_forwarded(property.id)) {
            out->forward_len += (size_t)(properties.reader.at - from);
        }
        from = properties.reader.at;
    }
    return mqtt_properties_reason(&properties);
}

enum mqtt_reason mqtt_publish_decode(struct bytes body, uint8_t flags, enum mqtt_version version,
                                     struct mqtt_publish *out)
{
    struct reader reader = reader_of(body);
    *out = (struct mqtt_publish){
        .qos = flags >> 1 & 3,
        .retain = (flags & FLAG_RETAIN) != 0,
        .dup = (flags & FLAG_DUP) != 0,
    };
    if (out->qos == 3 || (out->qos == 0 && out->dup && version != MQTT_VERSION_3_1)) {
        return MQTT_MALFORMED_PACKET; /* [MQTT-3.3.1-4], [MQTT-3.3.1-2] */
    }
    out->topic = mqtt_string_read(&reader);
    if (out->qos != 0) {
        out->packet_id = reader_u16(&reader);
        if (out->packet_id == 0) {
            return MQTT_MALFORMED_PACKET; /* or the body ended: the same answer */
        }
    }
    if (version == MQTT_VERSION_5) {
        enum mqtt_reason reason = read_properties(&reader, out);
        if (reason != MQTT_SUCCESS) {
            return reason;
        }
    }
    if (!reader_ok(&reader)) {
        return MQTT_MALFORMED_PACKET;
    }
    out->payload = reader_rest(&reader);
    if (out->topic.len == 0) {
        return out->topic_alias != 0 ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR; /* 3.3.2.1 */
    }
    return topic_name_is_valid(out->topic) ? MQTT_SUCCESS : MQTT_TOPIC_NAME_INVALID;
}

void mqtt_publish_forward(struct bytes properties, struct writer *to)
{
    struct reader list = reader_of(properties);
    enum mqtt_property_id id;
    struct bytes whole;
    while (mqtt_property_skip(&list, &id, &whole)) {
        if (is_forwarded(id)) {
            writer_bytes(to, whole);
        }
    }
}

size_t mqtt_publish_forward_len(struct bytes properties)
{
    struct reader list = reader_of(properties);
    enum mqtt_property_id id;
    struct bytes whole;
    size_t len = 0;
    while (mqtt_property_skip(&list, &id, &whole)) {
        if (is_forwarded(id)) {
            len += whole.len;
        }
    }
    return len;
}

/* The lengths that a PUBLISH is made of. */
struct layout {
    size_t properties; /* the whole list, without its length */
    size_t remaining;  /* 2.1.4 */
};

/* mqtt_varint_len for lengths that may be too large to be sent at all. */
static size_t length_len(size_t len)
{
    return mqtt_varint_len(len > MQTT_REMAINING_LENGTH_MAX ? MQTT_REMAINING_LENGTH_MAX
                                                           : (uint32_t)len);
}

static inline struct layout layout_of(const struct mqtt_publish_out *publish,
                                      enum mqtt_version version)
{
    struct layout layout = {0, 2 + publish->topic.len + publish->payload_len};
    if (publish->qos != 0) {
        layout.remaining += 2;
    }
    if (version != MQTT_VERSION_5) {
        return layout;
    }
    layout.properties = publish->properties_len;
    if (publish->has_expiry) {
        layout.properties += 5;
    }
    if (publish->topic_alias != 0) {
        layout.properties += 3;
    }
    for (size_t i = 0; i < publish->subscription_id_count; i++) {
        layout.properties += 1 + mqtt_varint_len(publish->subscription_ids[i]);
    }
    layout.remaining += length_len(layout.properties) + layout.properties;
    return layout;
}

size_t mqtt_publish_size(const struct mqtt_publish_out *publish, enum mqtt_version version)
{
    size_t remaining = layout_of(publish, version).remaining;
    return 1 + length_len(remaining) + remaining;
}

size_t mqtt_publish_head_size(const struct mqtt_publish_out *publish, enum mqtt_version version)
{
    size_t appended = publish->payload_len;
    if (version == MQTT_VERSION_5) {
        appended += publish->properties_len;
    }
    return mqtt_publish_size(publish, version) - appended;
}

void mqtt_publish_encode_head(struct writer *writer, const struct mqtt_publish_out *publish,
                              enum mqtt_version version)
{
    struct layout layout = layout_of(publish, version);
    ENSURE(layout.remaining <= MQTT_REMAINING_LENGTH_MAX && publish->qos <= 2);
    unsigned flags = (unsigned)publish->qos << 1 | (publish->retain ? FLAG_RETAIN : 0U) |
                     (publish->dup ? FLAG_DUP : 0U);
    mqtt_header_encode(writer, MQTT_PUBLISH, (uint8_t)flags, (uint32_t)layout.remaining);
    mqtt_string_write(writer, publish->topic);
    if (publish->qos != 0) {
        writer_u16(writer, publish->packet_id);
    }
    if (version != MQTT_VERSION_5) {
        return;
    }
    mqtt_varint_write(writer, (uint32_t)layout.properties);
    if (publish->has_expiry) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL,
                                   publish->expiry_s);
    }
    if (publish->topic_alias != 0) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_TOPIC_ALIAS, publish->topic_alias);
    }
    for (size_t i = 0; i < publish->subscription_id_count; i++) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER,
                                   publish->subscription_ids[i]);
    }
}
