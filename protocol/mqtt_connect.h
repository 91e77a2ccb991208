/*
 * mqtt_connect: CONNECT (3.1) and CONNACK (3.2); mqtt_connack.c has the second.
 */
#ifndef PROTOCOL_MQTT_CONNECT_H
#define PROTOCOL_MQTT_CONNECT_H

#include "mqtt.h"

struct mqtt_will {
    struct bytes topic; /* valid topic name */
    struct bytes payload;
    struct bytes properties; /* the will's property list as on the wire, without its length; empty
                                before MQTT 5 */
    uint32_t delay_s;
    uint32_t expiry_s;
    bool has_expiry;
    uint8_t qos;
    bool retain;
};

struct mqtt_connect {
    enum mqtt_version version;
    bool is_bridge; /* bit 7 of the protocol level, as mosquitto's bridges set it (3.1 and 3.1.1) */
    bool clean_start; /* Clean Session before MQTT 5 */
    uint16_t keep_alive_s;
    struct bytes client_id; /* may be empty */
    bool has_user_name;
    bool has_password;
    bool has_will;
    struct bytes user_name;
    struct bytes password;
    struct mqtt_will will;
    /* MQTT 5; the standard's defaults when absent or older */
    uint32_t session_expiry_s;    /* 0; UINT32_MAX = does not expire. Before MQTT 5: derived, 0 when
                                     clean, else MAX */
    uint16_t receive_maximum;     /* 65535 */
    uint32_t maximum_packet_size; /* 0 = no limit */
    uint16_t topic_alias_maximum; /* 0 */
    bool request_response_information; /* false */
    bool request_problem_information;  /* true */
    bool has_authentication_method;
    struct bytes authentication_method;
    struct bytes authentication_data;
};

/*
 * Decodes the body of a CONNECT. When the protocol name or level is not known it answers
 * MQTT_UNSUPPORTED_PROTOCOL_VERSION with out->version set to the nearest known one (so that the
 * refusal can be encoded). On any error out->version is one of the three versions, as far as it
 * could be read; else 3.1.1.
 *
 * Errors:
 *   MQTT_MALFORMED_PACKET, MQTT_PROTOCOL_ERROR, MQTT_UNSUPPORTED_PROTOCOL_VERSION.
 *   MQTT_CLIENT_IDENTIFIER_NOT_VALID (3.1.1: empty without clean session; 3.1: empty; the old limit
 *   of 23 characters is not enforced).
 *   MQTT_TOPIC_NAME_INVALID (will topic).
 *   MQTT_PAYLOAD_FORMAT_INVALID (will payload declared UTF-8 and is not).
 * Credentials are not judged here, but 3.1 and 3.1.1 allow no password without a user name
 * [MQTT-3.1.2-22], and in 3.1 both may be missing from the end although the flags announce them.
 */
MUST_USE enum mqtt_reason mqtt_connect_decode(struct bytes body, struct mqtt_connect *out);

/* The version that mqtt_connect_decode would say, whether or not the rest can be decoded. */
enum mqtt_version mqtt_connect_version(struct bytes body);

/*
 * Encodes a whole CONNECT packet (for clients: tests, bridges). Fails the writer when it does not
 * fit. Properties that equal the standard's default are left out, and so is receive_maximum 0. The
 * will's delay and expiry come from their members; will.properties gives the rest of its list, and
 * must be empty or validated.
 */
void mqtt_connect_encode(struct writer *writer, const struct mqtt_connect *connect);

struct mqtt_connack {
    bool session_present;
    /* Encoded as the nearest return code before MQTT 5 (3.1.1, table 3.1). */
    enum mqtt_reason reason;
    /* MQTT 5. A value equal to the standard's default is left out of the packet. */
    uint32_t session_expiry_s;
    bool has_session_expiry;      /* send it: differs from what the client asked for */
    uint16_t receive_maximum;     /* 65535 */
    uint8_t maximum_qos;          /* 2 */
    bool retain_available;        /* true */
    uint32_t maximum_packet_size; /* 0 = not sent */
    struct bytes assigned_client_id;
    uint16_t topic_alias_maximum; /* 0 */
    struct bytes reason_string;
    bool has_server_keep_alive;
    uint16_t server_keep_alive_s;
    bool wildcard_subscription_available;   /* true */
    bool subscription_identifier_available; /* true */
    bool shared_subscription_available;     /* true */
    struct bytes response_information;
    struct bytes server_reference;
};

/* Defaults of the standard, reason `reason`. */
struct mqtt_connack mqtt_connack_of(enum mqtt_reason reason);

MUST_USE enum mqtt_reason mqtt_connack_decode(struct bytes body, enum mqtt_version version,
                                              struct mqtt_connack *out);
void mqtt_connack_encode(struct writer *writer, enum mqtt_version version,
                         const struct mqtt_connack *connack);

#endif
