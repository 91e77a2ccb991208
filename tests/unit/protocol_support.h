/*
 * protocol_support: how the tests of protocol/ write packets down and mistreat them.
 */
#ifndef TESTS_PROTOCOL_SUPPORT_H
#define TESTS_PROTOCOL_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mqtt.h"

enum { PACKET_MAX = 1024, FLIP_ROUNDS = 20000 };

struct packet {
    uint8_t data[PACKET_MAX];
    size_t len;
};

static inline struct bytes bytes_of_packet(const struct packet *packet)
{
    return bytes_of(packet->data, packet->len);
}

/* Bytes as a test writes them: pairs of hex digits, 'text' in quotes, blanks anywhere. */
static inline struct packet packet_of(const char *text)
{
    struct packet packet = {{0}, 0};
    for (const char *at = text; *at != '\0';) {
        assert_true(packet.len < PACKET_MAX);
        if (*at == ' ') {
            at++;
        } else if (*at == '\'') {
            for (at++; *at != '\''; at++) {
                packet.data[packet.len++] = (uint8_t)*at;
            }
            at++;
        } else {
            char digits[3] = {at[0], at[1], '\0'};
            char *end;
            packet.data[packet.len++] = (uint8_t)strtoul(digits, &end, 16);
            assert_true(end == digits + 2);
            at += 2;
        }
    }
    return packet;
}

/* One way to decode a body: which packet, as which version. Must look at everything that the decode
 * returns. */
typedef enum mqtt_reason decode_fn(struct bytes body, enum mqtt_version version);

/* A copy that ends where its allocation ends, so that a sanitizer sees the first byte read too far.
 * The spare byte in front keeps that true for no bytes at all. */
static inline struct bytes exact_copy(struct bytes bytes)
{
    uint8_t *block = malloc(bytes.len + 1);
    assert_non_null(block);
    bytes_copy(block + 1, bytes);
    return bytes_of(block + 1, bytes.len);
}

static inline void exact_free(struct bytes copy)
{
    free((void *)(copy.data - 1));
}

static inline enum mqtt_reason decode_exactly(decode_fn *decode, struct bytes body,
                                              enum mqtt_version version)
{
    struct bytes copy = exact_copy(body);
    enum mqtt_reason reason = decode(copy, version);
    exact_free(copy);
    return reason;
}

struct decode_case {
    const char *what;
    enum mqtt_version version;
    const char *body;
    enum mqtt_reason reason;
};

static inline void check_cases(decode_fn *decode, const struct decode_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct packet body = packet_of(cases[i].body);
        enum mqtt_reason reason = decode_exactly(decode, bytes_of_packet(&body), cases[i].version);
        if (reason != cases[i].reason) {
            fail_msg("%s (version %d): 0x%02X instead of 0x%02X", cases[i].what,
                     (int)cases[i].version, (unsigned)reason, (unsigned)cases[i].reason);
        }
    }
}

#define CHECK_CASES(decode, cases) check_cases(decode, cases, sizeof(cases) / sizeof((cases)[0]))

/* Every proper prefix of `text`; returns how many of them decode, which the test knows. */
static inline size_t count_good_prefixes(decode_fn *decode, const char *text,
                                         enum mqtt_version version)
{
    struct packet body = packet_of(text);
    assert_int_equal(decode_exactly(decode, bytes_of_packet(&body), version), MQTT_SUCCESS);
    size_t good = 0;
    for (size_t len = 0; len < body.len; len++) {
        good += decode_exactly(decode, bytes_of(body.data, len), version) == MQTT_SUCCESS;
    }
    return good;
}

/* xorshift64: the same sequence on every machine. */
static inline uint32_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

/* Damages one to four bytes of `text` at random, many times. The sanitizers judge; so does the
 * reason code. */
static inline void flip_bytes(decode_fn *decode, const char *text, enum mqtt_version version)
{
    struct packet whole = packet_of(text);
    uint64_t state = UINT64_C(0x9E3779B97F4A7C15);
    for (int round = 0; round < FLIP_ROUNDS; round++) {
        struct packet body = whole;
        for (uint32_t flips = 1 + next_random(&state) % 4; flips != 0; flips--) {
            body.data[next_random(&state) % body.len] = (uint8_t)next_random(&state);
        }
        size_t len = next_random(&state) % 4 == 0 ? next_random(&state) % body.len : body.len;
        enum mqtt_reason reason = decode_exactly(decode, bytes_of(body.data, len), version);
        assert_true(reason == MQTT_SUCCESS || reason >= MQTT_UNSPECIFIED_ERROR);
        assert_string_not_equal(mqtt_reason_name(reason), "Unknown reason");
    }
}

/* Reads every byte, so that a borrowed run that leaves the packet is noticed. */
static inline unsigned touch(struct bytes bytes)
{
    static volatile unsigned sink;
    unsigned sum = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        sum += bytes.data[i];
    }
    sink = sum;
    return sink;
}

/* The body of the one packet in `writer`, whose fixed header is checked. */
static inline struct bytes body_of_written(const struct writer *writer, enum mqtt_type type,
                                           uint8_t flags)
{
    assert_true(writer_ok(writer));
    struct bytes written = writer_written(writer);
    struct mqtt_header header;
    assert_int_equal(mqtt_header_decode_as(written, MQTT_VERSION_5, &header), MQTT_HEADER_COMPLETE);
    assert_int_equal(header.type, type);
    assert_int_equal(header.flags, flags);
    assert_int_equal(header.header_len + header.remaining, written.len);
    return bytes_from(written, header.header_len);
}

static inline void assert_written(const struct writer *writer, const char *text)
{
    struct packet wanted = packet_of(text);
    assert_true(writer_ok(writer));
    assert_int_equal(writer_len(writer), wanted.len);
    assert_memory_equal(writer->start, wanted.data, wanted.len);
}

static inline void assert_bytes(struct bytes bytes, const char *text)
{
    assert_int_equal(bytes.len, strlen(text));
    assert_true(bytes_equal_string(bytes, text));
}

#endif
