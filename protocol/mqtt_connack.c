#include "mqtt_connect.h"

#include "mqtt_codec.h"

enum { FLAG_SESSION_PRESENT = 0x01, QOS_DEFAULT = 2, RECEIVE_MAXIMUM_DEFAULT = UINT16_MAX };

/* Connect Return codes (3.1.1, table 3.1) */
enum return_code {
    RETURN_ACCEPTED = 0,
    RETURN_UNACCEPTABLE_PROTOCOL_VERSION = 1,
    RETURN_IDENTIFIER_REJECTED = 2,
    RETURN_SERVER_UNAVAILABLE = 3,
    RETURN_BAD_USER_NAME_OR_PASSWORD = 4,
    RETURN_NOT_AUTHORIZED = 5,
};

/* "Server unavailable" invites to come back; what would be refused again tomorrow is "not
 * authorized". */
static enum return_code return_code_of(enum mqtt_reason reason)
{
    switch (reason) {
    case MQTT_SUCCESS:
        return RETURN_ACCEPTED;
    case MQTT_UNSUPPORTED_PROTOCOL_VERSION:
        return RETURN_UNACCEPTABLE_PROTOCOL_VERSION;
    case MQTT_CLIENT_IDENTIFIER_NOT_VALID:
        return RETURN_IDENTIFIER_REJECTED;
    case MQTT_BAD_USER_NAME_OR_PASSWORD:
        return RETURN_BAD_USER_NAME_OR_PASSWORD;
    case MQTT_NOT_AUTHORIZED:
    case MQTT_BANNED:
    case MQTT_BAD_AUTHENTICATION_METHOD:
    case MQTT_TOPIC_NAME_INVALID:
    case MQTT_PAYLOAD_FORMAT_INVALID:
    case MQTT_RETAIN_NOT_SUPPORTED:
    case MQTT_QOS_NOT_SUPPORTED:
        return RETURN_NOT_AUTHORIZED;
    default:
        return RETURN_SERVER_UNAVAILABLE;
    }
}

/* The way back. MQTT_PROTOCOL_ERROR in *out for a code that the standard does not name. */
static bool reason_of(uint8_t code, enum mqtt_reason *out)
{
    static const uint8_t reasons[] = {
        [RETURN_ACCEPTED] = MQTT_SUCCESS,
        [RETURN_UNACCEPTABLE_PROTOCOL_VERSION] = MQTT_UNSUPPORTED_PROTOCOL_VERSION,
        [RETURN_IDENTIFIER_REJECTED] = MQTT_CLIENT_IDENTIFIER_NOT_VALID,
        [RETURN_SERVER_UNAVAILABLE] = MQTT_SERVER_UNAVAILABLE,
        [RETURN_BAD_USER_NAME_OR_PASSWORD] = MQTT_BAD_USER_NAME_OR_PASSWORD,
        [RETURN_NOT_AUTHORIZED] = MQTT_NOT_AUTHORIZED,
    };
    if (code >= sizeof reasons) {
        return false;
    }
    *out = (enum mqtt_reason)reasons[code];
    return true;
}

/* 3.2.2.2 */
static bool reason_is_allowed(enum mqtt_reason reason)
{
    static const uint8_t of_connack[] = {
        MQTT_SUCCESS,
        MQTT_UNSPECIFIED_ERROR,
        MQTT_MALFORMED_PACKET,
        MQTT_PROTOCOL_ERROR,
        MQTT_IMPLEMENTATION_SPECIFIC_ERROR,
        MQTT_UNSUPPORTED_PROTOCOL_VERSION,
        MQTT_CLIENT_IDENTIFIER_NOT_VALID,
        MQTT_BAD_USER_NAME_OR_PASSWORD,
        MQTT_NOT_AUTHORIZED,
        MQTT_SERVER_UNAVAILABLE,
        MQTT_SERVER_BUSY,
        MQTT_BANNED,
        MQTT_BAD_AUTHENTICATION_METHOD,
        MQTT_TOPIC_NAME_INVALID,
        MQTT_PACKET_TOO_LARGE,
        MQTT_QUOTA_EXCEEDED,
        MQTT_PAYLOAD_FORMAT_INVALID,
        MQTT_RETAIN_NOT_SUPPORTED,
        MQTT_QOS_NOT_SUPPORTED,
        MQTT_USE_ANOTHER_SERVER,
        MQTT_SERVER_MOVED,
        MQTT_CONNECTION_RATE_EXCEEDED,
    };
    return mqtt_reason_is_in(reason, bytes_of(of_connack, sizeof of_connack));
}

struct mqtt_connack mqtt_connack_of(enum mqtt_reason reason)
{
    return (struct mqtt_connack){
        .reason = reason,
        .receive_maximum = RECEIVE_MAXIMUM_DEFAULT,
        .maximum_qos = QOS_DEFAULT,
        .retain_available = true,
        .wildcard_subscription_available = true,
        .subscription_identifier_available = true,
        .shared_subscription_available = true,
    };
}

static void take_property(struct mqtt_connack *out, const struct mqtt_property *property)
{
    bool flag = property->number == 1;
    switch (property->id) {
    case MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL:
        out->has_session_expiry = true;
        out->session_expiry_s = property->number;
        break;
    case MQTT_PROPERTY_RECEIVE_MAXIMUM:
        out->receive_maximum = (uint16_t)property->number;
        break;
    case MQTT_PROPERTY_MAXIMUM_QOS:
        out->maximum_qos = (uint8_t)property->number;
        break;
    case MQTT_PROPERTY_RETAIN_AVAILABLE:
        out->retain_available = flag;
        break;
    case MQTT_PROPERTY_MAXIMUM_PACKET_SIZE:
        out->maximum_packet_size = property->number;
        break;
    case MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER:
        out->assigned_client_id = property->value;
        break;
    case MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM:
        out->topic_alias_maximum = (uint16_t)property->number;
        break;
    case MQTT_PROPERTY_REASON_STRING:
        out->reason_string = property->value;
        break;
    case MQTT_PROPERTY_SERVER_KEEP_ALIVE:
        out->has_server_keep_alive = true;
        out->server_keep_alive_s = (uint16_t)property->number;
        break;
    case MQTT_PROPERTY_WILDCARD_SUBSCRIPTION_AVAILABLE:
        out->wildcard_subscription_available = flag;
        break;
    case MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE:
        out->subscription_identifier_available = flag;
        break;
    case MQTT_PROPERTY_SHARED_SUBSCRIPTION_AVAILABLE:
        out->shared_subscription_available = flag;
        break;
    case MQTT_PROPERTY_RESPONSE_INFORMATION:
        out->response_information = property->value;
        break;
    case MQTT_PROPERTY_SERVER_REFERENCE:
        out->server_reference = property->value;
        break;
    default:
        break;
    }
}

static enum mqtt_reason read_properties(struct reader *reader, struct mqtt_connack *out)
{
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, reader, MQTT_PLACE_CONNACK);
    struct mqtt_property property;
    while (mqtt_properties_next(&properties, &property)) {
        take_property(out, &property);
    }
    return mqtt_properties_reason(&properties);
}

enum mqtt_reason mqtt_connack_decode(struct bytes body, enum mqtt_version version,
                                     struct mqtt_connack *out)
{
    struct reader reader = reader_of(body);
    *out = mqtt_connack_of(MQTT_SUCCESS);
    uint8_t flags = reader_u8(&reader);
    uint8_t code = reader_u8(&reader);
    if (!reader_ok(&reader)) {
        return MQTT_MALFORMED_PACKET;
    }
    if (version == MQTT_VERSION_3_1) {
        flags = 0; /* a reserved byte of any value */
    }
    if ((flags & ~FLAG_SESSION_PRESENT) != 0) {
        return MQTT_MALFORMED_PACKET; /* [MQTT-3.2.2-1] */
    }
    out->session_present = flags != 0;
    out->reason = (enum mqtt_reason)code;
    bool known =
        version == MQTT_VERSION_5 ? reason_is_allowed(out->reason) : reason_of(code, &out->reason);
    if (!known || (out->session_present && out->reason != MQTT_SUCCESS)) {
        return MQTT_PROTOCOL_ERROR; /* [MQTT-3.2.2-8], [MQTT-3.2.2-6] */
    }
    if (version == MQTT_VERSION_5) {
        enum mqtt_reason reason = read_properties(&reader, out);
        if (reason != MQTT_SUCCESS) {
            return reason;
        }
    }
    return reader_left(&reader) == 0 ? MQTT_SUCCESS : MQTT_MALFORMED_PACKET;
}

static void write_if(struct writer *writer, bool wanted, enum mqtt_property_id id, uint32_t value)
{
    if (wanted) {
        mqtt_property_write_number(writer, id, value);
    }
}

static void write_properties(struct writer *writer, const struct mqtt_connack *connack)
{
    size_t properties = mqtt_length_open(writer);
    write_if(writer, connack->has_session_expiry, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL,
             connack->session_expiry_s);
    write_if(writer, connack->receive_maximum != RECEIVE_MAXIMUM_DEFAULT,
             MQTT_PROPERTY_RECEIVE_MAXIMUM, connack->receive_maximum);
    write_if(writer, connack->maximum_qos != QOS_DEFAULT, MQTT_PROPERTY_MAXIMUM_QOS,
             connack->maximum_qos);
    write_if(writer, !connack->retain_available, MQTT_PROPERTY_RETAIN_AVAILABLE, 0);
    write_if(writer, connack->maximum_packet_size != 0, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE,
             connack->maximum_packet_size);
    mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER,
                                     connack->assigned_client_id);
    write_if(writer, connack->topic_alias_maximum != 0, MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM,
             connack->topic_alias_maximum);
    mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_REASON_STRING, connack->reason_string);
    write_if(writer, !connack->wildcard_subscription_available,
             MQTT_PROPERTY_WILDCARD_SUBSCRIPTION_AVAILABLE, 0);
    write_if(writer, !connack->subscription_identifier_available,
             MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE, 0);
    write_if(writer, !connack->shared_subscription_available,
             MQTT_PROPERTY_SHARED_SUBSCRIPTION_AVAILABLE, 0);
    write_if(writer, connack->has_server_keep_alive, MQTT_PROPERTY_SERVER_KEEP_ALIVE,
             connack->server_keep_alive_s);
    mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_RESPONSE_INFORMATION,
                                     connack->response_information);
    mqtt_property_write_bytes_if_any(writer, MQTT_PROPERTY_SERVER_REFERENCE,
                                     connack->server_reference);
    mqtt_length_close(writer, properties);
}

void mqtt_connack_encode(struct writer *writer, enum mqtt_version version,
                         const struct mqtt_connack *connack)
{
    /* A refusal never says that there is a session [MQTT-3.2.2-6], and 3.1 has no such flag. */
    bool session_present =
        connack->session_present && connack->reason == MQTT_SUCCESS && version != MQTT_VERSION_3_1;
    unsigned code = version == MQTT_VERSION_5 ? (unsigned)connack->reason
                                              : (unsigned)return_code_of(connack->reason);
    size_t packet = mqtt_packet_open(writer, MQTT_CONNACK, 0);
    writer_u8(writer, session_present ? FLAG_SESSION_PRESENT : 0);
    writer_u8(writer, (uint8_t)code);
    if (version == MQTT_VERSION_5) {
        write_properties(writer, connack);
    }
    mqtt_length_close(writer, packet);
}
