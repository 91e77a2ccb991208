#include "mqtt.h"

#include "mqtt_codec.h"
#include "topic.h"

const char *mqtt_reason_name(enum mqtt_reason reason)
{
    static const char *const names[] = {
        [MQTT_SUCCESS] = "Success",
        [MQTT_GRANTED_QOS_1] = "Granted QoS 1",
        [MQTT_GRANTED_QOS_2] = "Granted QoS 2",
        [MQTT_DISCONNECT_WITH_WILL] = "Disconnect with Will Message",
        [MQTT_NO_MATCHING_SUBSCRIBERS] = "No matching subscribers",
        [MQTT_NO_SUBSCRIPTION_EXISTED] = "No subscription existed",
        [MQTT_CONTINUE_AUTHENTICATION] = "Continue authentication",
        [MQTT_REAUTHENTICATE] = "Re-authenticate",
        [MQTT_UNSPECIFIED_ERROR] = "Unspecified error",
        [MQTT_MALFORMED_PACKET] = "Malformed Packet",
        [MQTT_PROTOCOL_ERROR] = "Protocol Error",
        [MQTT_IMPLEMENTATION_SPECIFIC_ERROR] = "Implementation specific error",
        [MQTT_UNSUPPORTED_PROTOCOL_VERSION] = "Unsupported Protocol Version",
        [MQTT_CLIENT_IDENTIFIER_NOT_VALID] = "Client Identifier not valid",
        [MQTT_BAD_USER_NAME_OR_PASSWORD] = "Bad User Name or Password",
        [MQTT_NOT_AUTHORIZED] = "Not authorized",
        [MQTT_SERVER_UNAVAILABLE] = "Server unavailable",
        [MQTT_SERVER_BUSY] = "Server busy",
        [MQTT_BANNED] = "Banned",
        [MQTT_SERVER_SHUTTING_DOWN] = "Server shutting down",
        [MQTT_BAD_AUTHENTICATION_METHOD] = "Bad authentication method",
        [MQTT_KEEP_ALIVE_TIMEOUT] = "Keep Alive timeout",
        [MQTT_SESSION_TAKEN_OVER] = "Session taken over",
        [MQTT_TOPIC_FILTER_INVALID] = "Topic Filter invalid",
        [MQTT_TOPIC_NAME_INVALID] = "Topic Name invalid",
        [MQTT_PACKET_IDENTIFIER_IN_USE] = "Packet Identifier in use",
        [MQTT_PACKET_IDENTIFIER_NOT_FOUND] = "Packet Identifier not found",
        [MQTT_RECEIVE_MAXIMUM_EXCEEDED] = "Receive Maximum exceeded",
        [MQTT_TOPIC_ALIAS_INVALID] = "Topic Alias invalid",
        [MQTT_PACKET_TOO_LARGE] = "Packet too large",
        [MQTT_MESSAGE_RATE_TOO_HIGH] = "Message rate too high",
        [MQTT_QUOTA_EXCEEDED] = "Quota exceeded",
        [MQTT_ADMINISTRATIVE_ACTION] = "Administrative action",
        [MQTT_PAYLOAD_FORMAT_INVALID] = "Payload format invalid",
        [MQTT_RETAIN_NOT_SUPPORTED] = "Retain not supported",
        [MQTT_QOS_NOT_SUPPORTED] = "QoS not supported",
        [MQTT_USE_ANOTHER_SERVER] = "Use another server",
        [MQTT_SERVER_MOVED] = "Server moved",
        [MQTT_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED] = "Shared Subscriptions not supported",
        [MQTT_CONNECTION_RATE_EXCEEDED] = "Connection rate exceeded",
        [MQTT_MAXIMUM_CONNECT_TIME] = "Maximum connect time",
        [MQTT_SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED] = "Subscription Identifiers not supported",
        [MQTT_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED] = "Wildcard Subscriptions not supported",
    };
    size_t index = (size_t)reason;
    if (index >= sizeof names / sizeof names[0] || names[index] == NULL) {
        return "Unknown reason";
    }
    return names[index];
}

const char *mqtt_type_name(enum mqtt_type type)
{
    static const char *const names[] = {
        [MQTT_CONNECT] = "CONNECT",   [MQTT_CONNACK] = "CONNACK",
        [MQTT_PUBLISH] = "PUBLISH",   [MQTT_PUBACK] = "PUBACK",
        [MQTT_PUBREC] = "PUBREC",     [MQTT_PUBREL] = "PUBREL",
        [MQTT_PUBCOMP] = "PUBCOMP",   [MQTT_SUBSCRIBE] = "SUBSCRIBE",
        [MQTT_SUBACK] = "SUBACK",     [MQTT_UNSUBSCRIBE] = "UNSUBSCRIBE",
        [MQTT_UNSUBACK] = "UNSUBACK", [MQTT_PINGREQ] = "PINGREQ",
        [MQTT_PINGRESP] = "PINGRESP", [MQTT_DISCONNECT] = "DISCONNECT",
        [MQTT_AUTH] = "AUTH",
    };
    size_t index = (size_t)type;
    if (index >= sizeof names / sizeof names[0] || names[index] == NULL) {
        return "unknown packet";
    }
    return names[index];
}

/* 2.1.3, table 2-2: the flags of a type are fixed, except for PUBLISH. */
static bool flags_are_valid(enum mqtt_type type, uint8_t flags, enum mqtt_version version)
{
    if (type == MQTT_PUBLISH) {
        return (flags & 0x06) != 0x06; /* QoS 3 [MQTT-3.3.1-4] */
    }
    if (version == MQTT_VERSION_3_1 && type != MQTT_CONNECT) {
        return true; /* "not used", and a PUBREL that is sent again carries DUP (MQTT 3.1, 2.1) */
    }
    bool has_bit_1 = type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE;
    return flags == (has_bit_1 ? 0x02 : 0x00);
}

enum mqtt_header_result mqtt_header_decode_as(struct bytes in, enum mqtt_version version,
                                              struct mqtt_header *out)
{
    if (in.len == 0) {
        return MQTT_HEADER_INCOMPLETE;
    }
    enum mqtt_type type = (enum mqtt_type)(in.data[0] >> 4);
    uint8_t flags = in.data[0] & 0x0F;
    if (type == 0 || !flags_are_valid(type, flags, version) ||
        (type == MQTT_AUTH && version != MQTT_VERSION_5)) {
        return MQTT_HEADER_MALFORMED;
    }
    uint32_t remaining = 0;
    for (size_t i = 1; i < MQTT_FIXED_HEADER_MAX; i++) {
        if (i >= in.len) {
            return MQTT_HEADER_INCOMPLETE;
        }
        uint8_t byte = in.data[i];
        remaining |= (uint32_t)(byte & 0x7F) << (7 * (i - 1));
        if ((byte & 0x80) == 0) {
            if (byte == 0 && i > 1 && version == MQTT_VERSION_5) {
                return MQTT_HEADER_MALFORMED; /* not the shortest form [MQTT-1.5.5-1] */
            }
            *out = (struct mqtt_header){type, flags, (uint8_t)(i + 1), remaining};
            return MQTT_HEADER_COMPLETE;
        }
    }
    return MQTT_HEADER_MALFORMED;
}

/*
 * AUTH passes here because the version may not be known; apart from it these are the rules
 * of 3.1.1, which all versions have in common or relax.
 */
enum mqtt_header_result mqtt_header_decode(struct bytes in, struct mqtt_header *out)
{
    bool is_auth = in.len != 0 && in.data[0] == MQTT_AUTH << 4;
    return mqtt_header_decode_as(in, is_auth ? MQTT_VERSION_5 : MQTT_VERSION_3_1_1, out);
}

void mqtt_header_encode(struct writer *writer, enum mqtt_type type, uint8_t flags,
                        uint32_t remaining)
{
    writer_u8(writer, (uint8_t)((unsigned)type << 4 | (flags & 0x0FU)));
    mqtt_varint_write(writer, remaining);
}

uint32_t mqtt_varint_read(struct reader *reader)
{
    uint32_t value = 0;
    for (unsigned shift = 0; shift < 28; shift += 7) {
        uint8_t byte = reader_u8(reader);
        value |= (uint32_t)(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            if (byte == 0 && shift != 0) {
                break; /* not the shortest form [MQTT-1.5.5-1] */
            }
            return value;
        }
    }
    reader_fail(reader);
    return 0;
}

void mqtt_varint_write(struct writer *writer, uint32_t value)
{
    ENSURE(value <= MQTT_REMAINING_LENGTH_MAX);
    while (value >= 0x80) {
        writer_u8(writer, (uint8_t)(value | 0x80));
        value >>= 7;
    }
    writer_u8(writer, (uint8_t)value);
}

size_t mqtt_varint_len(uint32_t value)
{
    if (value < 1U << 7) {
        return 1;
    }
    if (value < 1U << 14) {
        return 2;
    }
    return value < 1U << 21 ? 3 : 4;
}

struct bytes mqtt_binary_read(struct reader *reader)
{
    return reader_bytes(reader, reader_u16(reader));
}

struct bytes mqtt_string_read(struct reader *reader)
{
    struct bytes string = mqtt_binary_read(reader);
    if (!utf8_is_valid_string(string)) {
        reader_fail(reader);
        return BYTES_EMPTY;
    }
    return string;
}

void mqtt_string_write(struct writer *writer, struct bytes string)
{
    ENSURE(string.len <= MQTT_STRING_MAX);
    writer_u16(writer, (uint16_t)string.len);
    writer_bytes(writer, string);
}

size_t mqtt_length_open(struct writer *writer)
{
    writer_u8(writer, 0);
    return writer_len(writer);
}

void mqtt_length_close(struct writer *writer, size_t start)
{
    if (!writer_ok(writer)) {
        return;
    }
    size_t len = writer_len(writer) - start;
    if (len > MQTT_REMAINING_LENGTH_MAX) {
        writer->failed = true;
        return;
    }
    size_t len_bytes = mqtt_varint_len((uint32_t)len);
    if (writer_take(writer, len_bytes - 1) == NULL) {
        return;
    }
    uint8_t *part = writer->start + start;
    memmove(part + len_bytes - 1, part, len);
    struct writer prefix = writer_of(part - 1, len_bytes);
    mqtt_varint_write(&prefix, (uint32_t)len);
}

size_t mqtt_packet_open(struct writer *writer, enum mqtt_type type, uint8_t flags)
{
    writer_u8(writer, (uint8_t)((unsigned)type << 4 | flags));
    return mqtt_length_open(writer);
}

/* 2.2.2.2, table 2-4 */
enum data_type {
    TYPE_NONE = 0, /* the standard names no such property */
    TYPE_BYTE,
    TYPE_TWO_BYTE,
    TYPE_FOUR_BYTE,
    TYPE_VARINT,
    TYPE_STRING,
    TYPE_TOPIC, /* a string that must be a topic name */
    TYPE_BINARY,
    TYPE_PAIR,
};

enum {
    PLACE_MESSAGE = MQTT_PLACE_PUBLISH | MQTT_PLACE_WILL,
    PLACE_BOTH_CONNECT = MQTT_PLACE_CONNECT | MQTT_PLACE_CONNACK,
    PLACE_AUTHENTICATION = PLACE_BOTH_CONNECT | MQTT_PLACE_AUTH,
    PLACE_REASON = MQTT_PLACE_CONNACK | MQTT_PLACE_PUBACK | MQTT_PLACE_SUBACK |
                   MQTT_PLACE_DISCONNECT | MQTT_PLACE_AUTH,
    PLACE_ALL = PLACE_MESSAGE | PLACE_BOTH_CONNECT | PLACE_REASON | MQTT_PLACE_SUBSCRIBE |
                MQTT_PLACE_UNSUBSCRIBE,
};

struct property_rule {
    uint8_t data_type;
    uint16_t places;
    uint16_t repeats;  /* the places where it may stand more than once */
    uint32_t min, max; /* numbers only */
};

#define FLAG_RULE(places)                                                                          \
    {                                                                                              \
        TYPE_BYTE, places, 0, 0, 1                                                                 \
    }
#define TWO_BYTE_RULE(places, min)                                                                 \
    {                                                                                              \
        TYPE_TWO_BYTE, places, 0, min, UINT16_MAX                                                  \
    }
#define FOUR_BYTE_RULE(places, min)                                                                \
    {                                                                                              \
        TYPE_FOUR_BYTE, places, 0, min, UINT32_MAX                                                 \
    }
#define BYTES_RULE(data_type, places)                                                              \
    {                                                                                              \
        data_type, places, 0, 0, 0                                                                 \
    }

static const struct property_rule property_rules[] = {
    [MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR] = FLAG_RULE(PLACE_MESSAGE),
    [MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL] = FOUR_BYTE_RULE(PLACE_MESSAGE, 0),
    [MQTT_PROPERTY_CONTENT_TYPE] = BYTES_RULE(TYPE_STRING, PLACE_MESSAGE),
    [MQTT_PROPERTY_RESPONSE_TOPIC] = BYTES_RULE(TYPE_TOPIC, PLACE_MESSAGE),
    [MQTT_PROPERTY_CORRELATION_DATA] = BYTES_RULE(TYPE_BINARY, PLACE_MESSAGE),
    [MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER] = {TYPE_VARINT,
                                               MQTT_PLACE_PUBLISH | MQTT_PLACE_SUBSCRIBE,
                                               MQTT_PLACE_PUBLISH, 1, MQTT_REMAINING_LENGTH_MAX},
    [MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL] =
        FOUR_BYTE_RULE(PLACE_BOTH_CONNECT | MQTT_PLACE_DISCONNECT, 0),
    [MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER] = BYTES_RULE(TYPE_STRING, MQTT_PLACE_CONNACK),
    [MQTT_PROPERTY_SERVER_KEEP_ALIVE] = TWO_BYTE_RULE(MQTT_PLACE_CONNACK, 0),
    [MQTT_PROPERTY_AUTHENTICATION_METHOD] = BYTES_RULE(TYPE_STRING, PLACE_AUTHENTICATION),
    [MQTT_PROPERTY_AUTHENTICATION_DATA] = BYTES_RULE(TYPE_BINARY, PLACE_AUTHENTICATION),
    [MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION] = FLAG_RULE(MQTT_PLACE_CONNECT),
    [MQTT_PROPERTY_WILL_DELAY_INTERVAL] = FOUR_BYTE_RULE(MQTT_PLACE_WILL, 0),
    [MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION] = FLAG_RULE(MQTT_PLACE_CONNECT),
    [MQTT_PROPERTY_RESPONSE_INFORMATION] = BYTES_RULE(TYPE_STRING, MQTT_PLACE_CONNACK),
    [MQTT_PROPERTY_SERVER_REFERENCE] =
        BYTES_RULE(TYPE_STRING, MQTT_PLACE_CONNACK | MQTT_PLACE_DISCONNECT),
    [MQTT_PROPERTY_REASON_STRING] = BYTES_RULE(TYPE_STRING, PLACE_REASON),
    [MQTT_PROPERTY_RECEIVE_MAXIMUM] = TWO_BYTE_RULE(PLACE_BOTH_CONNECT, 1),
    [MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM] = TWO_BYTE_RULE(PLACE_BOTH_CONNECT, 0),
    /* 0 is wrong as well, but has a reason code of its own: see mqtt_publish_decode. */
    [MQTT_PROPERTY_TOPIC_ALIAS] = TWO_BYTE_RULE(MQTT_PLACE_PUBLISH, 0),
    [MQTT_PROPERTY_MAXIMUM_QOS] = FLAG_RULE(MQTT_PLACE_CONNACK),
    [MQTT_PROPERTY_RETAIN_AVAILABLE] = FLAG_RULE(MQTT_PLACE_CONNACK),
    [MQTT_PROPERTY_USER_PROPERTY] = {TYPE_PAIR, PLACE_ALL, PLACE_ALL, 0, 0},
    [MQTT_PROPERTY_MAXIMUM_PACKET_SIZE] = FOUR_BYTE_RULE(PLACE_BOTH_CONNECT, 1),
    [MQTT_PROPERTY_WILDCARD_SUBSCRIPTION_AVAILABLE] = FLAG_RULE(MQTT_PLACE_CONNACK),
    [MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE] = FLAG_RULE(MQTT_PLACE_CONNACK),
    [MQTT_PROPERTY_SHARED_SUBSCRIPTION_AVAILABLE] = FLAG_RULE(MQTT_PLACE_CONNACK),
};

static const struct property_rule *rule_of(uint32_t id)
{
    static const struct property_rule none = {TYPE_NONE, 0, 0, 0, 0};
    return id < sizeof property_rules / sizeof property_rules[0] ? &property_rules[id] : &none;
}

void mqtt_properties_open(struct mqtt_properties *properties, struct reader *packet,
                          enum mqtt_property_place place)
{
    struct bytes list = reader_bytes(packet, mqtt_varint_read(packet));
    mqtt_properties_open_raw(properties, list, place);
    if (!reader_ok(packet)) {
        properties->reason = MQTT_MALFORMED_PACKET;
    }
}

void mqtt_properties_open_raw(struct mqtt_properties *properties, struct bytes list,
                              enum mqtt_property_place place)
{
    *properties =
        (struct mqtt_properties){.reader = reader_of(list), .place = place, .reason = MQTT_SUCCESS};
}

/* Ends the iteration. */
static bool refuse(struct mqtt_properties *properties, enum mqtt_reason reason)
{
    properties->reason = reason;
    properties->reader.at = properties->reader.end;
    return false;
}

static void read_value(struct reader *reader, enum data_type data_type, struct mqtt_property *out)
{
    switch (data_type) {
    case TYPE_NONE:
        reader_fail(reader);
        break;
    case TYPE_BYTE:
        out->number = reader_u8(reader);
        break;
    case TYPE_TWO_BYTE:
        out->number = reader_u16(reader);
        break;
    case TYPE_FOUR_BYTE:
        out->number = reader_u32(reader);
        break;
    case TYPE_VARINT:
        out->number = mqtt_varint_read(reader);
        break;
    case TYPE_STRING:
    case TYPE_TOPIC:
        out->value = mqtt_string_read(reader);
        break;
    case TYPE_BINARY:
        out->value = mqtt_binary_read(reader);
        break;
    case TYPE_PAIR:
        out->name = mqtt_string_read(reader);
        out->value = mqtt_string_read(reader);
        break;
    }
}

static bool value_is_in_range(const struct property_rule *rule,
                              const struct mqtt_property *property)
{
    if (rule->data_type == TYPE_TOPIC) {
        return topic_name_is_valid(property->value); /* [MQTT-3.3.2-14] */
    }
    return rule->data_type > TYPE_VARINT ||
           (property->number >= rule->min && property->number <= rule->max);
}

bool mqtt_properties_next(struct mqtt_properties *properties, struct mqtt_property *out)
{
    struct reader *reader = &properties->reader;
    if (reader_left(reader) == 0) {
        return false;
    }
    uint32_t id = mqtt_varint_read(reader);
    const struct property_rule *rule = rule_of(id);
    if ((rule->places & (unsigned)properties->place) == 0) {
        return refuse(properties, MQTT_MALFORMED_PACKET); /* 2.2.2.2 */
    }
    *out = (struct mqtt_property){.id = (enum mqtt_property_id)id};
    read_value(reader, (enum data_type)rule->data_type, out);
    if (!reader_ok(reader)) {
        return refuse(properties, MQTT_MALFORMED_PACKET);
    }
    bool repeated = mqtt_properties_has(properties, out->id) &&
                    (rule->repeats & (unsigned)properties->place) == 0;
    if (repeated || !value_is_in_range(rule, out)) {
        return refuse(properties, MQTT_PROTOCOL_ERROR);
    }
    properties->seen |= UINT64_C(1) << id;
    return true;
}

enum mqtt_reason mqtt_properties_reason(const struct mqtt_properties *properties)
{
    return properties->reason;
}

bool mqtt_property_skip(struct reader *list, enum mqtt_property_id *id, struct bytes *whole)
{
    static const uint8_t fixed_len[] = {
        [TYPE_BYTE] = 1,
        [TYPE_TWO_BYTE] = 2,
        [TYPE_FOUR_BYTE] = 4,
    };
    if (reader_left(list) == 0) {
        return false;
    }
    const uint8_t *start = list->at;
    *id = (enum mqtt_property_id)reader_u8(list); /* all known identifiers fit in one byte */
    uint8_t data_type = rule_of((uint32_t)*id)->data_type;
    if (data_type == TYPE_VARINT) {
        (void)mqtt_varint_read(list);
    } else if (data_type <= TYPE_FOUR_BYTE) {
        (void)reader_bytes(list, fixed_len[data_type]);
    } else {
        (void)mqtt_binary_read(list);
        if (data_type == TYPE_PAIR) {
            (void)mqtt_binary_read(list);
        }
    }
    ENSURE(reader_ok(list) && data_type != TYPE_NONE);
    *whole = bytes_of(start, (size_t)(list->at - start));
    return true;
}

void mqtt_property_write_number(struct writer *writer, enum mqtt_property_id id, uint32_t value)
{
    uint8_t data_type = rule_of((uint32_t)id)->data_type;
    ENSURE(data_type != TYPE_NONE && data_type <= TYPE_VARINT);
    writer_u8(writer, (uint8_t)id);
    switch (data_type) {
    case TYPE_BYTE:
        ENSURE(value <= UINT8_MAX);
        writer_u8(writer, (uint8_t)value);
        break;
    case TYPE_TWO_BYTE:
        ENSURE(value <= UINT16_MAX);
        writer_u16(writer, (uint16_t)value);
        break;
    case TYPE_FOUR_BYTE:
        writer_u32(writer, value);
        break;
    default:
        mqtt_varint_write(writer, value);
        break;
    }
}

void mqtt_property_write_bytes(struct writer *writer, enum mqtt_property_id id, struct bytes value)
{
    uint8_t data_type = rule_of((uint32_t)id)->data_type;
    ENSURE(data_type == TYPE_STRING || data_type == TYPE_TOPIC || data_type == TYPE_BINARY);
    writer_u8(writer, (uint8_t)id);
    mqtt_string_write(writer, value);
}

void mqtt_property_write_bytes_if_any(struct writer *writer, enum mqtt_property_id id,
                                      struct bytes value)
{
    if (value.len != 0) {
        mqtt_property_write_bytes(writer, id, value);
    }
}

void mqtt_property_write_pair(struct writer *writer, struct bytes name, struct bytes value)
{
    writer_u8(writer, MQTT_PROPERTY_USER_PROPERTY);
    mqtt_string_write(writer, name);
    mqtt_string_write(writer, value);
}
