#include "mqtt_subscribe.h"

#include "mqtt_codec.h"
#include "topic.h"

/* The bits of the options byte (3.8.3.1). */
enum {
    OPTION_QOS = 0x03,
    OPTION_NO_LOCAL = 0x04,
    OPTION_RETAIN_AS_PUBLISHED = 0x08,
    OPTION_RETAIN_HANDLING_AT = 4,
    OPTION_RESERVED = 0xC0,
    OPTION_RESERVED_BEFORE_5 = 0xFC,
};

/* What all four packets begin with. */
struct head {
    uint16_t packet_id;
    uint32_t identifier;
    struct bytes reason_string;
    struct reader entries;
};

static enum mqtt_reason read_properties(struct reader *reader, enum mqtt_property_place place,
                                        struct head *out)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, place);
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        if (property.id == MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER) {
            out->identifier = property.number;
        } else if (property.id == MQTT_PROPERTY_REASON_STRING) {
            out->reason_string = property.value;
        }
    }
    return mqtt_properties_reason(&properties);
}

static enum mqtt_reason read_head(struct bytes body, enum mqtt_version version,
                                  enum mqtt_property_place place, struct head *out)
{
    struct reader reader = reader_of(body);
    *out = (struct head){.packet_id = reader_u16(&reader)};
    if (out->packet_id == 0) {
        return MQTT_MALFORMED_PACKET; /* or the body ended: the same answer */
    }
    if (version == MQTT_VERSION_5) {
        enum mqtt_reason reason = read_properties(&reader, place, out);
        if (reason != MQTT_SUCCESS) {
            return reason;
        }
    }
    out->entries = reader;
    return MQTT_SUCCESS;
}

static struct mqtt_subscribe subscribe_of(const struct head *head, enum mqtt_version version)
{
    return (struct mqtt_subscribe){.packet_id = head->packet_id,
                                   .identifier = head->identifier,
                                   .entries = head->entries,
                                   .version = version};
}

static enum mqtt_reason check_options(uint8_t options, struct bytes filter,
                                      enum mqtt_version version)
{
    uint8_t qos = options & OPTION_QOS;
    if (version != MQTT_VERSION_5) {
        bool malformed = qos == 3 || (options & OPTION_RESERVED_BEFORE_5) != 0;
        return malformed ? MQTT_MALFORMED_PACKET : MQTT_SUCCESS; /* 3.1.1 [MQTT-3.8.3-4] */
    }
    if ((options & OPTION_RESERVED) != 0) {
        return MQTT_MALFORMED_PACKET; /* [MQTT-3.8.3-5] */
    }
    if (qos == 3 || (options >> OPTION_RETAIN_HANDLING_AT & 3) == 3) {
        return MQTT_PROTOCOL_ERROR;
    }
    bool no_local = (options & OPTION_NO_LOCAL) != 0;
    if (no_local && bytes_start_with(filter, bytes_of_string("$share/"))) {
        return MQTT_PROTOCOL_ERROR; /* [MQTT-3.8.3-4] */
    }
    return MQTT_SUCCESS;
}

enum mqtt_reason mqtt_subscribe_decode(struct bytes body, enum mqtt_version version,
                                       struct mqtt_subscribe *out)
{
    struct head head;
    enum mqtt_reason reason = read_head(body, version, MQTT_PLACE_SUBSCRIBE, &head);
    *out = subscribe_of(&head, version);
    if (reason != MQTT_SUCCESS) {
        return reason;
    }
    struct reader reader = out->entries;
    while (reader_left(&reader) != 0) {
        struct bytes filter = mqtt_string_read(&reader);
        uint8_t options = reader_u8(&reader);
        if (!reader_ok(&reader)) {
            return MQTT_MALFORMED_PACKET;
        }
        reason = check_options(options, filter, version);
        if (reason != MQTT_SUCCESS) {
            return reason;
        }
        out->count++;
    }
    return out->count != 0 ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR; /* [MQTT-3.8.3-2] */
}

enum mqtt_reason mqtt_unsubscribe_decode(struct bytes body, enum mqtt_version version,
                                         struct mqtt_subscribe *out)
{
    struct head head;
    enum mqtt_reason reason = read_head(body, version, MQTT_PLACE_UNSUBSCRIBE, &head);
    *out = subscribe_of(&head, version);
    if (reason != MQTT_SUCCESS) {
        return reason;
    }
    struct reader reader = out->entries;
    while (reader_left(&reader) != 0) {
        (void)mqtt_string_read(&reader);
        if (!reader_ok(&reader)) {
            return MQTT_MALFORMED_PACKET;
        }
        out->count++;
    }
    return out->count != 0 ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR; /* [MQTT-3.10.3-2] */
}

bool mqtt_subscribe_next(struct mqtt_subscribe *subscribe, struct mqtt_subscription *out)
{
    if (reader_left(&subscribe->entries) == 0) {
        return false;
    }
    /* UTF-8 was checked by the decode. */
    *out = (struct mqtt_subscription){.filter = mqtt_binary_read(&subscribe->entries)};
    uint8_t options = reader_u8(&subscribe->entries);
    ENSURE(reader_ok(&subscribe->entries));
    out->qos = options & OPTION_QOS;
    out->no_local = (options & OPTION_NO_LOCAL) != 0;
    out->retain_as_published = (options & OPTION_RETAIN_AS_PUBLISHED) != 0;
    out->retain_handling = options >> OPTION_RETAIN_HANDLING_AT & 3;
    return true;
}

bool mqtt_unsubscribe_next(struct mqtt_subscribe *unsubscribe, struct bytes *out_filter)
{
    if (reader_left(&unsubscribe->entries) == 0) {
        return false;
    }
    *out_filter = mqtt_binary_read(&unsubscribe->entries);
    ENSURE(reader_ok(&unsubscribe->entries));
    return true;
}

void mqtt_subscribe_encode(struct writer *writer, enum mqtt_version version, uint16_t packet_id,
                           uint32_t identifier, const struct mqtt_subscription *entries,
                           size_t count)
{
    size_t packet = mqtt_packet_open(writer, MQTT_SUBSCRIBE, 0x02); /* [MQTT-3.8.1-1] */
    writer_u16(writer, packet_id);
    if (version == MQTT_VERSION_5) {
        size_t properties = mqtt_length_open(writer);
        if (identifier != 0) {
            mqtt_property_write_number(writer, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, identifier);
        }
        mqtt_length_close(writer, properties);
    }
    for (size_t i = 0; i < count; i++) {
        unsigned options = entries[i].qos;
        if (version == MQTT_VERSION_5) {
            options |= (entries[i].no_local ? OPTION_NO_LOCAL : 0U) |
                       (entries[i].retain_as_published ? OPTION_RETAIN_AS_PUBLISHED : 0U) |
                       (unsigned)entries[i].retain_handling << OPTION_RETAIN_HANDLING_AT;
        }
        mqtt_string_write(writer, entries[i].filter);
        writer_u8(writer, (uint8_t)options);
    }
    mqtt_length_close(writer, packet);
}

void mqtt_unsubscribe_encode(struct writer *writer, enum mqtt_version version, uint16_t packet_id,
                             const struct bytes *filters, size_t count)
{
    size_t packet = mqtt_packet_open(writer, MQTT_UNSUBSCRIBE, 0x02); /* [MQTT-3.10.1-1] */
    writer_u16(writer, packet_id);
    if (version == MQTT_VERSION_5) {
        mqtt_varint_write(writer, 0);
    }
    for (size_t i = 0; i < count; i++) {
        mqtt_string_write(writer, filters[i]);
    }
    mqtt_length_close(writer, packet);
}

/* 3.9.3 and 3.11.3; 3.1.1, 3.9.3 */
static bool reason_is_allowed(enum mqtt_type type, enum mqtt_version version,
                              enum mqtt_reason reason)
{
    static const uint8_t of_suback[] = {
        MQTT_GRANTED_QOS_0,
        MQTT_GRANTED_QOS_1,
        MQTT_GRANTED_QOS_2,
        MQTT_UNSPECIFIED_ERROR,
        MQTT_IMPLEMENTATION_SPECIFIC_ERROR,
        MQTT_NOT_AUTHORIZED,
        MQTT_TOPIC_FILTER_INVALID,
        MQTT_PACKET_IDENTIFIER_IN_USE,
        MQTT_QUOTA_EXCEEDED,
        MQTT_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        MQTT_SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        MQTT_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
    };
    static const uint8_t of_unsuback[] = {
        MQTT_SUCCESS,
        MQTT_NO_SUBSCRIPTION_EXISTED,
        MQTT_UNSPECIFIED_ERROR,
        MQTT_IMPLEMENTATION_SPECIFIC_ERROR,
        MQTT_NOT_AUTHORIZED,
        MQTT_TOPIC_FILTER_INVALID,
        MQTT_PACKET_IDENTIFIER_IN_USE,
    };
    if (type == MQTT_UNSUBACK) {
        return mqtt_reason_is_in(reason, bytes_of(of_unsuback, sizeof of_unsuback));
    }
    size_t known = version == MQTT_VERSION_5 ? sizeof of_suback : 4;
    return mqtt_reason_is_in(reason, bytes_of(of_suback, known));
}

void mqtt_suback_encode(struct writer *writer, enum mqtt_type type, enum mqtt_version version,
                        const struct mqtt_suback *suback)
{
    size_t packet = mqtt_packet_open(writer, type, 0);
    writer_u16(writer, suback->packet_id);
    if (version == MQTT_VERSION_5) {
        size_t properties = mqtt_length_open(writer);
        mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_REASON_STRING,
                                         suback->reason_string);
        mqtt_length_close(writer, properties);
        writer_bytes(writer, suback->reasons);
    } else if (type == MQTT_SUBACK) {
        for (size_t i = 0; i < suback->reasons.len; i++) {
            uint8_t reason = suback->reasons.data[i];
            writer_u8(writer, reason >= MQTT_UNSPECIFIED_ERROR ? MQTT_UNSPECIFIED_ERROR : reason);
        }
    }
    mqtt_length_close(writer, packet);
}

enum mqtt_reason mqtt_suback_decode(struct bytes body, enum mqtt_type type,
                                    enum mqtt_version version, struct mqtt_suback *out)
{
    struct head head;
    *out = (struct mqtt_suback){0};
    enum mqtt_reason reason = read_head(body, version, MQTT_PLACE_SUBACK, &head);
    if (reason != MQTT_SUCCESS) {
        return reason;
    }
    *out = (struct mqtt_suback){.packet_id = head.packet_id,
                                .reasons = reader_rest(&head.entries),
                                .reason_string = head.reason_string};
    bool has_reasons = version == MQTT_VERSION_5 || type == MQTT_SUBACK;
    if (has_reasons != (out->reasons.len != 0)) {
        return MQTT_MALFORMED_PACKET;
    }
    for (size_t i = 0; i < out->reasons.len; i++) {
        if (!reason_is_allowed(type, version, (enum mqtt_reason)out->reasons.data[i])) {
            return MQTT_PROTOCOL_ERROR;
        }
    }
    return MQTT_SUCCESS;
}
