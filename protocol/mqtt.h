/*
 * mqtt: what all MQTT packets share: versions, types, reason codes, the fixed header and the
 * property list.
 *
 * Pure functions over bytes. Each packet has one file with its decode and its encode side by side.
 * A decode function borrows from its input, validates everything that can be validated without
 * knowing a session (flags, lengths, UTF-8, allowed and repeated properties, ranges) and answers
 * with a reason code: MQTT_SUCCESS, or what an MQTT 5 server must say about the mistake. How that
 * is told to an older client is the caller's business.
 *
 * Section numbers are those of the OASIS MQTT 5.0 standard unless they say 3.1.1.
 */
#ifndef PROTOCOL_MQTT_H
#define PROTOCOL_MQTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "status.h"

enum mqtt_version {
    MQTT_VERSION_3_1 = 3,
    MQTT_VERSION_3_1_1 = 4,
    MQTT_VERSION_5 = 5,
};

/* 2.1.2 */
enum mqtt_type {
    MQTT_CONNECT = 1,
    MQTT_CONNACK = 2,
    MQTT_PUBLISH = 3,
    MQTT_PUBACK = 4,
    MQTT_PUBREC = 5,
    MQTT_PUBREL = 6,
    MQTT_PUBCOMP = 7,
    MQTT_SUBSCRIBE = 8,
    MQTT_SUBACK = 9,
    MQTT_UNSUBSCRIBE = 10,
    MQTT_UNSUBACK = 11,
    MQTT_PINGREQ = 12,
    MQTT_PINGRESP = 13,
    MQTT_DISCONNECT = 14,
    MQTT_AUTH = 15,
};

/* 2.4. Several names share 0, as in the standard. */
enum mqtt_reason {
    MQTT_SUCCESS = 0x00,
    MQTT_NORMAL_DISCONNECTION = 0x00,
    MQTT_GRANTED_QOS_0 = 0x00,
    MQTT_GRANTED_QOS_1 = 0x01,
    MQTT_GRANTED_QOS_2 = 0x02,
    MQTT_DISCONNECT_WITH_WILL = 0x04,
    MQTT_NO_MATCHING_SUBSCRIBERS = 0x10,
    MQTT_NO_SUBSCRIPTION_EXISTED = 0x11,
    MQTT_CONTINUE_AUTHENTICATION = 0x18,
    MQTT_REAUTHENTICATE = 0x19,
    MQTT_UNSPECIFIED_ERROR = 0x80,
    MQTT_MALFORMED_PACKET = 0x81,
    MQTT_PROTOCOL_ERROR = 0x82,
    MQTT_IMPLEMENTATION_SPECIFIC_ERROR = 0x83,
    MQTT_UNSUPPORTED_PROTOCOL_VERSION = 0x84,
    MQTT_CLIENT_IDENTIFIER_NOT_VALID = 0x85,
    MQTT_BAD_USER_NAME_OR_PASSWORD = 0x86,
    MQTT_NOT_AUTHORIZED = 0x87,
    MQTT_SERVER_UNAVAILABLE = 0x88,
    MQTT_SERVER_BUSY = 0x89,
    MQTT_BANNED = 0x8A,
    MQTT_SERVER_SHUTTING_DOWN = 0x8B,
    MQTT_BAD_AUTHENTICATION_METHOD = 0x8C,
    MQTT_KEEP_ALIVE_TIMEOUT = 0x8D,
    MQTT_SESSION_TAKEN_OVER = 0x8E,
    MQTT_TOPIC_FILTER_INVALID = 0x8F,
    MQTT_TOPIC_NAME_INVALID = 0x90,
    MQTT_PACKET_IDENTIFIER_IN_USE = 0x91,
    MQTT_PACKET_IDENTIFIER_NOT_FOUND = 0x92,
    MQTT_RECEIVE_MAXIMUM_EXCEEDED = 0x93,
    MQTT_TOPIC_ALIAS_INVALID = 0x94,
    MQTT_PACKET_TOO_LARGE = 0x95,
    MQTT_MESSAGE_RATE_TOO_HIGH = 0x96,
    MQTT_QUOTA_EXCEEDED = 0x97,
    MQTT_ADMINISTRATIVE_ACTION = 0x98,
    MQTT_PAYLOAD_FORMAT_INVALID = 0x99,
    MQTT_RETAIN_NOT_SUPPORTED = 0x9A,
    MQTT_QOS_NOT_SUPPORTED = 0x9B,
    MQTT_USE_ANOTHER_SERVER = 0x9C,
    MQTT_SERVER_MOVED = 0x9D,
    MQTT_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E,
    MQTT_CONNECTION_RATE_EXCEEDED = 0x9F,
    MQTT_MAXIMUM_CONNECT_TIME = 0xA0,
    MQTT_SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1,
    MQTT_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2,
};

/* The standard's name of a reason code in words, for log lines. Never NULL. */
const char *mqtt_reason_name(enum mqtt_reason reason);

/* "CONNECT", "PUBLISH" ... for log lines. Never NULL. */
const char *mqtt_type_name(enum mqtt_type type);

enum {
    MQTT_REMAINING_LENGTH_MAX = 268435455, /* 2.1.4 */
    MQTT_FIXED_HEADER_MAX = 5,
    MQTT_STRING_MAX = 65535, /* 1.5.4 */
};

/* 2.1. One packet's fixed header. */
struct mqtt_header {
    enum mqtt_type type;
    uint8_t flags;      /* the low four bits of the first byte */
    uint8_t header_len; /* 2 to 5 */
    uint32_t remaining; /* bytes after the header */
};

enum mqtt_header_result {
    MQTT_HEADER_COMPLETE,   /* *out is filled; the body may still be incomplete */
    MQTT_HEADER_INCOMPLETE, /* more bytes are needed */
    MQTT_HEADER_MALFORMED,  /* type 0, flags that this type may not have (2.1.3), or a length over
                               four bytes */
};

/*
 * For a peer whose version is not known yet (or need not be told apart): the flags must be those
 * of 2.1.3, AUTH is let through, and a length may have more bytes than it needs, which 3.1.1 does
 * not forbid.
 */
MUST_USE enum mqtt_header_result mqtt_header_decode(struct bytes in, struct mqtt_header *out);

/*
 * The same once the version is known. MQTT 5: the length must have its shortest form
 * [MQTT-1.5.5-1]. Before: AUTH is MQTT_HEADER_MALFORMED. 3.1: flags are free where it calls them
 * unused; a PUBREL, SUBSCRIBE or UNSUBSCRIBE that is sent again has DUP set there.
 */
MUST_USE enum mqtt_header_result mqtt_header_decode_as(struct bytes in, enum mqtt_version version,
                                                       struct mqtt_header *out);

/* First byte and remaining length. `flags` are the low four bits. */
void mqtt_header_encode(struct writer *writer, enum mqtt_type type, uint8_t flags,
                        uint32_t remaining);

/* 1.5.5 Variable Byte Integer: at most four bytes, shortest form required. Fails the reader
 * otherwise. */
uint32_t mqtt_varint_read(struct reader *reader);
void mqtt_varint_write(struct writer *writer, uint32_t value);
size_t mqtt_varint_len(uint32_t value);

/* 1.5.4 UTF-8 Encoded String and 1.5.6 Binary Data, with their two-byte length. Reading a string
 * checks UTF-8. */
struct bytes mqtt_string_read(struct reader *reader);
struct bytes mqtt_binary_read(struct reader *reader);
void mqtt_string_write(struct writer *writer, struct bytes string); /* requires len <= 65535 */

/* 2.2.2.2 */
enum mqtt_property_id {
    MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR = 1,
    MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL = 2,
    MQTT_PROPERTY_CONTENT_TYPE = 3,
    MQTT_PROPERTY_RESPONSE_TOPIC = 8,
    MQTT_PROPERTY_CORRELATION_DATA = 9,
    MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER = 11,
    MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL = 17,
    MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER = 18,
    MQTT_PROPERTY_SERVER_KEEP_ALIVE = 19,
    MQTT_PROPERTY_AUTHENTICATION_METHOD = 21,
    MQTT_PROPERTY_AUTHENTICATION_DATA = 22,
    MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION = 23,
    MQTT_PROPERTY_WILL_DELAY_INTERVAL = 24,
    MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION = 25,
    MQTT_PROPERTY_RESPONSE_INFORMATION = 26,
    MQTT_PROPERTY_SERVER_REFERENCE = 28,
    MQTT_PROPERTY_REASON_STRING = 31,
    MQTT_PROPERTY_RECEIVE_MAXIMUM = 33,
    MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM = 34,
    MQTT_PROPERTY_TOPIC_ALIAS = 35,
    MQTT_PROPERTY_MAXIMUM_QOS = 36,
    MQTT_PROPERTY_RETAIN_AVAILABLE = 37,
    MQTT_PROPERTY_USER_PROPERTY = 38,
    MQTT_PROPERTY_MAXIMUM_PACKET_SIZE = 39,
    MQTT_PROPERTY_WILDCARD_SUBSCRIPTION_AVAILABLE = 40,
    MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE = 41,
    MQTT_PROPERTY_SHARED_SUBSCRIPTION_AVAILABLE = 42,
};

/* One property as read from the wire; which members count depends on the identifier's data type. */
struct mqtt_property {
    enum mqtt_property_id id;
    uint32_t number;    /* byte, two byte, four byte and variable byte integers */
    struct bytes name;  /* key of a user property */
    struct bytes value; /* strings, binary data, value of a user property */
};

/* Where a property list stands; decides which identifiers it may hold. */
enum mqtt_property_place {
    MQTT_PLACE_CONNECT = 1 << 0,
    MQTT_PLACE_CONNACK = 1 << 1,
    MQTT_PLACE_PUBLISH = 1 << 2,
    MQTT_PLACE_WILL = 1 << 3,
    MQTT_PLACE_PUBACK = 1 << 4, /* PUBACK, PUBREC, PUBREL and PUBCOMP */
    MQTT_PLACE_SUBSCRIBE = 1 << 5,
    MQTT_PLACE_SUBACK = 1 << 6, /* and UNSUBACK */
    MQTT_PLACE_UNSUBSCRIBE = 1 << 7,
    MQTT_PLACE_DISCONNECT = 1 << 8,
    MQTT_PLACE_AUTH = 1 << 9,
};

/*
 * Iteration over the properties of one packet. After mqtt_properties_open, call
 * mqtt_properties_next until it returns false, then ask mqtt_properties_reason: MQTT_SUCCESS,
 * MQTT_MALFORMED_PACKET (lengths, UTF-8, unknown or misplaced identifier) or MQTT_PROTOCOL_ERROR
 * (repeated where not allowed, value out of the standard's range).
 */
struct mqtt_properties {
    struct reader reader;
    enum mqtt_property_place place;
    uint64_t seen; /* bit n: identifier n was there */
    enum mqtt_reason reason;
};

/* Reads the property length and opens the list behind it. */
void mqtt_properties_open(struct mqtt_properties *properties, struct reader *packet,
                          enum mqtt_property_place place);

/* Opens a list that was validated before and stands without its length (message.properties, for
 * instance). */
void mqtt_properties_open_raw(struct mqtt_properties *properties, struct bytes list,
                              enum mqtt_property_place place);
bool mqtt_properties_next(struct mqtt_properties *properties, struct mqtt_property *out);
MUST_USE enum mqtt_reason mqtt_properties_reason(const struct mqtt_properties *properties);

/* Writes one property with its identifier. */
void mqtt_property_write_number(struct writer *writer, enum mqtt_property_id id, uint32_t value);
void mqtt_property_write_bytes(struct writer *writer, enum mqtt_property_id id, struct bytes value);
void mqtt_property_write_pair(struct writer *writer, struct bytes name, struct bytes value);

#endif
