#include "mqtt_connect.h"

#include "mqtt_codec.h"
#include "topic.h"

/* Connect Flags (3.1.2.3) */
enum {
    FLAG_RESERVED = 0x01,
    FLAG_CLEAN_START = 0x02,
    FLAG_WILL = 0x04,
    FLAG_WILL_QOS_AT = 3,
    FLAG_WILL_RETAIN = 0x20,
    FLAG_PASSWORD = 0x40,
    FLAG_USER_NAME = 0x80,
    FLAGS_OF_WILL = FLAG_WILL_RETAIN | 3 << FLAG_WILL_QOS_AT,
};

enum {
    LEVEL_BRIDGE = 0x80, /* not in the standard: mosquitto's bridges say so who they are */
    RECEIVE_MAXIMUM_DEFAULT = UINT16_MAX,
};

static bool has_flag(uint8_t flags, unsigned flag)
{
    return (flags & flag) != 0;
}

/* 3.1.2.1 and 3.1.2.2. On an unknown version, out->version is the one to refuse in. */
static enum mqtt_reason read_version(struct reader *reader, struct mqtt_connect *out)
{
    struct bytes name = mqtt_binary_read(reader);
    uint8_t level = reader_u8(reader);
    if (!reader_ok(reader)) {
        return MQTT_MALFORMED_PACKET;
    }
    uint8_t base_level = level & (uint8_t)~LEVEL_BRIDGE;
    bool is_mqtt = bytes_equal_string(name, "MQTT");
    bool is_mqisdp = bytes_equal_string(name, "MQIsdp");
    if (is_mqtt && level == MQTT_VERSION_5) {
        out->version = MQTT_VERSION_5;
    } else if (is_mqtt && base_level == MQTT_VERSION_3_1_1) {
        out->version = MQTT_VERSION_3_1_1;
    } else if (is_mqisdp && base_level == MQTT_VERSION_3_1) {
        out->version = MQTT_VERSION_3_1;
    } else {
        if (is_mqisdp) {
            out->version = MQTT_VERSION_3_1;
        } else if (base_level >= MQTT_VERSION_5) {
            out->version = MQTT_VERSION_5;
        }
        return MQTT_UNSUPPORTED_PROTOCOL_VERSION;
    }
    out->is_bridge = level != base_level;
    return MQTT_SUCCESS;
}

static bool flags_are_valid(uint8_t flags, enum mqtt_version version)
{
    if ((flags >> FLAG_WILL_QOS_AT & 3) == 3) {
        return false; /* [MQTT-3.1.2-12] */
    }
    if (version != MQTT_VERSION_5 && has_flag(flags, FLAG_PASSWORD) &&
        !has_flag(flags, FLAG_USER_NAME)) {
        return false; /* 3.1.1 [MQTT-3.1.2-22] */
    }
    if (version == MQTT_VERSION_3_1) {
        return true; /* the rules below came with 3.1.1 */
    }
    bool will_is_consistent = has_flag(flags, FLAG_WILL) || !has_flag(flags, FLAGS_OF_WILL);
    return !has_flag(flags, FLAG_RESERVED) && will_is_consistent;
}

static void take_property(struct mqtt_connect *out, const struct mqtt_property *property)
{
    switch (property->id) {
    case MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL:
        out->session_expiry_s = property->number;
        break;
    case MQTT_PROPERTY_RECEIVE_MAXIMUM:
        out->receive_maximum = (uint16_t)property->number;
        break;
    case MQTT_PROPERTY_MAXIMUM_PACKET_SIZE:
        out->maximum_packet_size = property->number;
        break;
    case MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM:
        out->topic_alias_maximum = (uint16_t)property->number;
        break;
    case MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION:
        out->request_response_information = property->number == 1;
        break;
    case MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION:
        out->request_problem_information = property->number == 1;
        break;
    case MQTT_PROPERTY_AUTHENTICATION_METHOD:
        out->has_authentication_method = true;
        out->authentication_method = property->value;
        break;
    case MQTT_PROPERTY_AUTHENTICATION_DATA:
        out->authentication_data = property->value;
        break;
    default:
        break;
    }
}

static enum mqtt_reason read_properties(struct reader *reader, struct mqtt_connect *out)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, MQTT_PLACE_CONNECT);
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        take_property(out, &property);
    }
    bool has_data = mqtt_properties_has(&properties, MQTT_PROPERTY_AUTHENTICATION_DATA);
    enum mqtt_reason reason = mqtt_properties_reason(&properties);
    if (reason == MQTT_SUCCESS && has_data && !out->has_authentication_method) {
        return MQTT_PROTOCOL_ERROR; /* 3.1.2.11.10 */
    }
    return reason;
}

/* 3.1.3.2. Says in *is_utf8 what the will declares its payload to be. */
static enum mqtt_reason read_will_properties(struct reader *reader, struct mqtt_will *will,
                                             bool *is_utf8)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, MQTT_PLACE_WILL);
    will->properties = bytes_of(properties.reader.at, reader_left(&properties.reader));
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        if (property.id == MQTT_PROPERTY_WILL_DELAY_INTERVAL) {
            will->delay_s = property.number;
        } else if (property.id == MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL) {
            will->has_expiry = true;
            will->expiry_s = property.number;
        } else if (property.id == MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR) {
            *is_utf8 = property.number == 1;
        }
    }
    return mqtt_properties_reason(&properties);
}

/*
 * User name and password. In 3.1 "the Remaining Length field from the fixed header takes
 * precedence": a string that the flags announce may be missing from the end, and the connection
 * goes on without it (3.1, section 3.1).
 */
static void read_credentials(struct reader *reader, uint8_t flags, struct mqtt_connect *out)
{
    bool may_be_missing = out->version == MQTT_VERSION_3_1;
    if (has_flag(flags, FLAG_USER_NAME) && !(may_be_missing && reader_left(reader) == 0)) {
        out->has_user_name = true;
        out->user_name = mqtt_string_read(reader);
    }
    if (has_flag(flags, FLAG_PASSWORD) && !(may_be_missing && reader_left(reader) == 0)) {
        out->has_password = true;
        out->password = mqtt_binary_read(reader);
    }
}

/* 3.1.3. Rules about the meaning of a field come after the whole packet proved well-formed. */
static enum mqtt_reason read_payload(struct reader *reader, uint8_t flags, struct mqtt_connect *out)
{
    out->client_id = mqtt_string_read(reader);
    bool will_is_utf8 = false;
    if (has_flag(flags, FLAG_WILL)) {
        out->has_will = true;
        out->will.qos = flags >> FLAG_WILL_QOS_AT & 3;
        out->will.retain = has_flag(flags, FLAG_WILL_RETAIN);
        if (out->version == MQTT_VERSION_5) {
            enum mqtt_reason reason = read_will_properties(reader, &out->will, &will_is_utf8);
            if (reason != MQTT_SUCCESS) {
                return reason;
            }
        }
        out->will.topic = mqtt_string_read(reader);
        out->will.payload = mqtt_binary_read(reader);
    }
    read_credentials(reader, flags, out);
    if (!reader_ok(reader) || reader_left(reader) != 0) {
        return MQTT_MALFORMED_PACKET;
    }
    if (out->has_will && !topic_name_is_valid(out->will.topic)) {
        return MQTT_TOPIC_NAME_INVALID;
    }
    if (will_is_utf8 && !utf8_is_valid(out->will.payload)) {
        return MQTT_PAYLOAD_FORMAT_INVALID;
    }
    bool server_may_assign_id =
        out->version == MQTT_VERSION_5 || (out->version == MQTT_VERSION_3_1_1 && out->clean_start);
    if (out->client_id.len == 0 && !server_may_assign_id) {
        return MQTT_CLIENT_IDENTIFIER_NOT_VALID; /* 3.1.1 [MQTT-3.1.3-8] */
    }
    return MQTT_SUCCESS;
}

enum mqtt_version mqtt_connect_version(struct bytes body)
{
    struct reader reader = reader_of(body);
    struct mqtt_connect connect = {.version = MQTT_VERSION_3_1_1};
    (void)!read_version(&reader, &connect);
    return connect.version;
}

enum mqtt_reason mqtt_connect_decode(struct bytes body, struct mqtt_connect *out)
{
    struct reader reader = reader_of(body);
    *out = (struct mqtt_connect){
        .version = MQTT_VERSION_3_1_1,
        .receive_maximum = RECEIVE_MAXIMUM_DEFAULT,
        .request_problem_information = true,
    };
    enum mqtt_reason reason = read_version(&reader, out);
    if (reason != MQTT_SUCCESS) {
        return reason;
    }
    uint8_t flags = reader_u8(&reader);
    out->keep_alive_s = reader_u16(&reader);
    if (!reader_ok(&reader) || !flags_are_valid(flags, out->version)) {
        return MQTT_MALFORMED_PACKET;
    }
    out->clean_start = has_flag(flags, FLAG_CLEAN_START);
    if (out->version == MQTT_VERSION_5) {
        reason = read_properties(&reader, out);
        if (reason != MQTT_SUCCESS) {
            return reason;
        }
    } else {
        out->session_expiry_s = out->clean_start ? 0 : UINT32_MAX;
    }
    return read_payload(&reader, flags, out);
}

static uint8_t flags_of(const struct mqtt_connect *connect)
{
    unsigned flags = (connect->clean_start ? FLAG_CLEAN_START : 0U) |
                     (connect->has_user_name ? FLAG_USER_NAME : 0U) |
                     (connect->has_password ? FLAG_PASSWORD : 0U);
    if (connect->has_will) {
        flags |= FLAG_WILL | (unsigned)connect->will.qos << FLAG_WILL_QOS_AT |
                 (connect->will.retain ? FLAG_WILL_RETAIN : 0U);
    }
    return (uint8_t)flags;
}

static void write_properties(struct writer *writer, const struct mqtt_connect *connect)
{
    size_t properties = mqtt_length_open(writer);
    if (connect->session_expiry_s != 0) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL,
                                   connect->session_expiry_s);
    }
    if (connect->receive_maximum != RECEIVE_MAXIMUM_DEFAULT && connect->receive_maximum != 0) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_RECEIVE_MAXIMUM, connect->receive_maximum);
    }
    if (connect->maximum_packet_size != 0) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE,
                                   connect->maximum_packet_size);
    }
    if (connect->topic_alias_maximum != 0) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM,
                                   connect->topic_alias_maximum);
    }
    if (connect->request_response_information) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION, 1);
    }
    if (!connect->request_problem_information) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION, 0);
    }
    if (connect->has_authentication_method) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_AUTHENTICATION_METHOD,
                                  connect->authentication_method);
    }
    mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_AUTHENTICATION_DATA,
                                     connect->authentication_data);
    mqtt_length_close(writer, properties);
}

/* The members stand for delay and expiry, the list for everything else, so that neither is written
 * twice. */
static void write_will_properties(struct writer *writer, const struct mqtt_will *will)
{
    size_t properties = mqtt_length_open(writer);
    if (will->delay_s != 0) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_WILL_DELAY_INTERVAL, will->delay_s);
    }
    if (will->has_expiry) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL, will->expiry_s);
    }
    struct reader list = reader_of(will->properties);
    enum mqtt_property_id id;
    struct bytes whole;
    while (mqtt_property_skip(&list, &id, &whole)) {
        if (id != MQTT_PROPERTY_WILL_DELAY_INTERVAL &&
            id != MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL) {
            writer_bytes(writer, whole);
        }
    }
    mqtt_length_close(writer, properties);
}

void mqtt_connect_encode(struct writer *writer, const struct mqtt_connect *connect)
{
    size_t packet = mqtt_packet_open(writer, MQTT_CONNECT, 0);
    bool is_3_1 = connect->version == MQTT_VERSION_3_1;
    mqtt_string_write(writer, bytes_of_string(is_3_1 ? "MQIsdp" : "MQTT"));
    writer_u8(writer, (uint8_t)(connect->version | (connect->is_bridge ? LEVEL_BRIDGE : 0)));
    writer_u8(writer, flags_of(connect));
    writer_u16(writer, connect->keep_alive_s);
    if (connect->version == MQTT_VERSION_5) {
        write_properties(writer, connect);
    }
    mqtt_string_write(writer, connect->client_id);
    if (connect->has_will) {
        if (connect->version == MQTT_VERSION_5) {
            write_will_properties(writer, &connect->will);
        }
        mqtt_string_write(writer, connect->will.topic);
        mqtt_string_write(writer, connect->will.payload);
    }
    if (connect->has_user_name) {
        mqtt_string_write(writer, connect->user_name);
    }
    if (connect->has_password) {
        mqtt_string_write(writer, connect->password);
    }
    mqtt_length_close(writer, packet);
}
