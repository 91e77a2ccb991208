#include "mqtt_disconnect.h"

#include "mqtt_codec.h"

/* 3.14.2.1, table 3-10: the codes that a client may send. */
static bool client_may_send(enum mqtt_reason reason)
{
    static const uint8_t of_client[] = {
        MQTT_NORMAL_DISCONNECTION,  MQTT_DISCONNECT_WITH_WILL,
        MQTT_UNSPECIFIED_ERROR,     MQTT_MALFORMED_PACKET,
        MQTT_PROTOCOL_ERROR,        MQTT_IMPLEMENTATION_SPECIFIC_ERROR,
        MQTT_TOPIC_NAME_INVALID,    MQTT_RECEIVE_MAXIMUM_EXCEEDED,
        MQTT_TOPIC_ALIAS_INVALID,   MQTT_PACKET_TOO_LARGE,
        MQTT_MESSAGE_RATE_TOO_HIGH, MQTT_QUOTA_EXCEEDED,
        MQTT_ADMINISTRATIVE_ACTION, MQTT_PAYLOAD_FORMAT_INVALID,
    };
    return mqtt_reason_is_in(reason, bytes_of(of_client, sizeof of_client));
}

static enum mqtt_reason read_disconnect_properties(struct reader *reader,
                                                   struct mqtt_disconnect *out)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, MQTT_PLACE_DISCONNECT);
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        if (property.id == MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL) {
            out->has_session_expiry = true;
            out->session_expiry_s = property.number;
        } else if (property.id == MQTT_PROPERTY_REASON_STRING) {
            out->reason_string = property.value;
        } else if (property.id == MQTT_PROPERTY_SERVER_REFERENCE) {
            out->server_reference = property.value;
        }
    }
    return mqtt_properties_reason(&properties);
}

enum mqtt_reason mqtt_disconnect_decode(struct bytes body, enum mqtt_version version,
                                        struct mqtt_disconnect *out)
{
    struct reader reader = reader_of(body);
    *out = (struct mqtt_disconnect){.reason = MQTT_NORMAL_DISCONNECTION};
    /* Reason code and properties may be missing from the end (3.14.2.1, 3.14.2.2.1). */
    if (version == MQTT_VERSION_5 && body.len != 0) {
        out->reason = (enum mqtt_reason)reader_u8(&reader);
        if (!client_may_send(out->reason)) {
            return MQTT_PROTOCOL_ERROR;
        }
        if (reader_left(&reader) != 0) {
            enum mqtt_reason reason = read_disconnect_properties(&reader, out);
            if (reason != MQTT_SUCCESS) {
                return reason;
            }
        }
    }
    return reader_left(&reader) == 0 ? MQTT_SUCCESS : MQTT_MALFORMED_PACKET;
}

void mqtt_disconnect_encode(struct writer *writer, enum mqtt_version version,
                            const struct mqtt_disconnect *disconnect)
{
    bool has_properties = disconnect->has_session_expiry || disconnect->reason_string.len != 0 ||
                          disconnect->server_reference.len != 0;
    bool is_plain = disconnect->reason == MQTT_NORMAL_DISCONNECTION && !has_properties;
    if (version != MQTT_VERSION_5 || is_plain) {
        mqtt_empty_encode(writer, MQTT_DISCONNECT);
        return;
    }
    size_t packet = mqtt_packet_open(writer, MQTT_DISCONNECT, 0);
    writer_u8(writer, (uint8_t)disconnect->reason);
    if (has_properties) {
        size_t properties = mqtt_length_open(writer);
        if (disconnect->has_session_expiry) {
            mqtt_property_write_number(writer, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL,
                                       disconnect->session_expiry_s);
        }
        mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_REASON_STRING,
                                         disconnect->reason_string);
        mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_SERVER_REFERENCE,
                                         disconnect->server_reference);
        mqtt_length_close(writer, properties);
    }
    mqtt_length_close(writer, packet);
}

static enum mqtt_reason read_auth_properties(struct reader *reader, struct mqtt_auth *out)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, MQTT_PLACE_AUTH);
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        if (property.id == MQTT_PROPERTY_AUTHENTICATION_METHOD) {
            out->has_method = true;
            out->method = property.value;
        } else if (property.id == MQTT_PROPERTY_AUTHENTICATION_DATA) {
            out->data = property.value;
        } else if (property.id == MQTT_PROPERTY_REASON_STRING) {
            out->reason_string = property.value;
        }
    }
    enum mqtt_reason reason = mqtt_properties_reason(&properties);
    bool has_any = properties.seen != 0;
    if (reason == MQTT_SUCCESS && !out->has_method && has_any) {
        return MQTT_PROTOCOL_ERROR; /* 3.15.2.2.2 */
    }
    return reason;
}

enum mqtt_reason mqtt_auth_decode(struct bytes body, struct mqtt_auth *out)
{
    struct reader reader = reader_of(body);
    *out = (struct mqtt_auth){.reason = MQTT_SUCCESS};
    if (body.len == 0) {
        return MQTT_SUCCESS; /* 3.15.2.1 */
    }
    out->reason = (enum mqtt_reason)reader_u8(&reader);
    if (out->reason != MQTT_SUCCESS && out->reason != MQTT_CONTINUE_AUTHENTICATION &&
        out->reason != MQTT_REAUTHENTICATE) {
        return MQTT_PROTOCOL_ERROR; /* [MQTT-3.15.2-1] */
    }
    if (reader_left(&reader) != 0) {
        enum mqtt_reason reason = read_auth_properties(&reader, out);
        if (reason != MQTT_SUCCESS) {
            return reason;
        }
    }
    if (reader_left(&reader) != 0) {
        return MQTT_MALFORMED_PACKET;
    }
    /* Only a success may go without a method, since its properties may be left out (3.15.2.1). */
    return out->reason == MQTT_SUCCESS || out->has_method ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR;
}

void mqtt_auth_encode(struct writer *writer, const struct mqtt_auth *auth)
{
    bool has_properties = auth->has_method || auth->data.len != 0 || auth->reason_string.len != 0;
    if (auth->reason == MQTT_SUCCESS && !has_properties) {
        mqtt_empty_encode(writer, MQTT_AUTH);
        return;
    }
    size_t packet = mqtt_packet_open(writer, MQTT_AUTH, 0);
    writer_u8(writer, (uint8_t)auth->reason);
    size_t properties = mqtt_length_open(writer);
    if (auth->has_method) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_AUTHENTICATION_METHOD, auth->method);
    }
    mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_AUTHENTICATION_DATA, auth->data);
    mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_REASON_STRING, auth->reason_string);
    mqtt_length_close(writer, properties);
    mqtt_length_close(writer, packet);
}

void mqtt_empty_encode(struct writer *writer, enum mqtt_type type)
{
    mqtt_header_encode(writer, type, 0, 0);
}
