/*
 * message: one published application message, shared by everything that holds it.
 *
 * One allocation: this struct, then topic, forwardable MQTT 5 properties (as on the wire, without
 * their length) and payload. The creator fills the areas and the members, then hands it to the
 * core; from that moment it is immutable and only counted. Queues, the retained store and
 * half-written outputs each hold one reference; transport/ holds it through `shared` without
 * knowing what it is.
 *
 *   Memory     69 bytes + topic + properties + payload.
 *   Threads    One at a time (see shared.h): an I/O thread may make it and hand it on.
 */
#ifndef CORE_MESSAGE_H
#define CORE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "shared.h"

#define MESSAGE_EXPIRES_NEVER UINT64_MAX

enum { MESSAGE_HEAD_MAX = 7 }; /* the fixed header of a PUBLISH and the length of its topic */

struct message {
    struct shared shared; /* first: a message is handed to transport/ as its `shared` */
    uint64_t sequence;    /* global order of arrival; set by the core when it accepts the message */
    uint64_t expires_at_ms; /* MESSAGE_EXPIRES_NEVER without a Message Expiry Interval */
    uint64_t publisher_id;  /* session number of the publisher, for No Local; 0 = no client */
    uint64_t ticket;        /* of the store, from which on it is durable; 0 = needs no store */
    uint32_t payload_len;
    uint32_t properties_len;
    uint16_t topic_len;
    uint8_t qos;
    bool retain;    /* the RETAIN flag as published */
    bool is_stored; /* the store has it, or is about to */
    uint8_t head_len;
    uint8_t head[MESSAGE_HEAD_MAX]; /* the last head_len of them: see message_packet */
    uint8_t data[];
};

/*
 * Makes a message with a copy of `topic` and `payload` and an area of `properties_len` bytes that
 * the caller fills through message_properties_area. A payload with a length but NULL data is left
 * to be filled through message_payload_area: for payloads that arrive in pieces. All other members
 * are zero, except expires_at_ms, which is MESSAGE_EXPIRES_NEVER. The caller owns the one
 * reference.
 *
 * Errors: STATUS_NO_MEMORY; STATUS_LIMIT when a length does not fit its member. *out is then NULL.
 */
MUST_USE enum status message_create(struct bytes topic, size_t properties_len, struct bytes payload,
                                    struct message **out);

/* Where the creator writes. Only before the message is handed to the core. */
static inline uint8_t *message_properties_area(struct message *message)
{
    return message->data + message->topic_len;
}

static inline uint8_t *message_payload_area(struct message *message)
{
    return message->data + message->topic_len + message->properties_len;
}

/* Borrowed from the message. */
static inline struct bytes message_topic(const struct message *message)
{
    return bytes_of(message->data, message->topic_len);
}

static inline struct bytes message_properties(const struct message *message)
{
    return bytes_of(message->data + message->topic_len, message->properties_len);
}

static inline struct bytes message_payload(const struct message *message)
{
    return bytes_of(message->data + message->topic_len + message->properties_len,
                    message->payload_len);
}

/*
 * The message as the PUBLISH that most subscribers get, of which the encoding is thus shared: QoS
 * 0, not retained, MQTT 3.1 or 3.1.1. Empty when there are properties, because those stand in
 * between, or when it is too long to be sent.
 */
static inline struct bytes message_packet(const struct message *message)
{
    size_t at = offsetof(struct message, data) - message->head_len;
    size_t len = message->head_len + (size_t)message->topic_len + message->payload_len;
    return bytes_of((const uint8_t *)message + at, message->head_len == 0 ? 0 : len);
}

/* Bytes of memory that the message takes: what queues and limits count. */
static inline size_t message_size(const struct message *message)
{
    return offsetof(struct message, data) + message->topic_len + message->properties_len +
           message->payload_len;
}

/* True from the moment that the expiry interval has passed (3.3.2.3.3). */
static inline bool message_is_expired(const struct message *message, uint64_t now_ms)
{
    return now_ms >= message->expires_at_ms;
}

/* One more reference; returns its argument. */
static inline struct message *message_hold(struct message *message)
{
    (void)shared_hold(&message->shared);
    return message;
}

/* Drops one reference; the last one frees. NULL is allowed. */
static inline void message_release(struct message *message)
{
    if (message != NULL) {
        shared_release(&message->shared);
    }
}

#endif
