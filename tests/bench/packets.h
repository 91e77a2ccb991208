/*
 * packets: the few MQTT packets that a load generator sends, encoded from scratch so that a mistake
 * in the broker's own codec cannot hide here.
 *
 *   Place  tests/bench, below net.c and the scenarios.
 *   Cost   Called at set-up; a measured PUBLISH is a copy of one encoded here with a few bytes
 * patched.
 */
#ifndef BENCH_PACKETS_H
#define BENCH_PACKETS_H

#include "support.h"

enum packet_type {
    PACKET_CONNECT = 1,
    PACKET_CONNACK = 2,
    PACKET_PUBLISH = 3,
    PACKET_PUBACK = 4,
    PACKET_PUBREC = 5,
    PACKET_PUBREL = 6,
    PACKET_PUBCOMP = 7,
    PACKET_SUBSCRIBE = 8,
    PACKET_SUBACK = 9,
    PACKET_PINGREQ = 12,
    PACKET_PINGRESP = 13,
    PACKET_DISCONNECT = 14,
};

/* Every payload begins with when it was (to be) sent, 8 bytes, and by which publisher, 4 bytes,
 * both in the byte order of this machine. */
#define STAMP_BYTES 12

struct connect_packet {
    const char *client_id;
    uint8_t version; /* 4 or 5 */
    bool persistent; /* Clean Session 0, or Clean Start 0 with a Session Expiry Interval */
};

struct publish_packet {
    const char *topic;
    uint8_t version;
    uint8_t qos;
    bool retain;
    size_t payload_len; /* at least STAMP_BYTES */
};

/* Where the parts of an encoded PUBLISH are that get patched. */
struct publish_layout {
    size_t topic_at;
    size_t id_at; /* 0 at QoS 0 */
    size_t payload_at;
};

void packet_connect(struct buffer *to, const struct connect_packet *packet);
struct publish_layout packet_publish(struct buffer *to, const struct publish_packet *packet);
void packet_disconnect(struct buffer *to);

/* A SUBSCRIBE whose filters are `filters`: already in the wire's form, length, filter and options
 * each. */
void packet_subscribe(struct buffer *to, uint8_t version, const struct buffer *filters);
/* Appends one filter in the wire's form. */
void packet_filter(struct buffer *filters, const char *filter, uint8_t qos);

#endif
