#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem.h"
#include "mqtt_client.h"
#include "mqtt_connect.h"
#include "mqtt_decoder.h"

enum { STREAM_MAX = 1024, PACKETS_MAX = 16 };

static const struct mqtt_settings settings = {
    .retain_available = true,
    .qos_max = 1,
    .topic_alias_maximum = 2,
    .packet_bytes_max = 300,
    .payload_bytes_max = 20,
};

/* What was decoded, in short. */
struct heard {
    uint8_t type, violation, refusal, qos;
    uint16_t packet_id;
    char text[32]; /* topic=payload, or the body's length */
};

struct ear {
    struct mqtt_decoder decoder;
    struct heard heard[PACKETS_MAX];
    size_t count;
};

static void write_text(char text[32], const struct mqtt_packet *packet)
{
    struct writer writer = writer_of((uint8_t *)text, 31);
    if (packet->message != NULL) {
        writer_bytes(&writer, message_topic(packet->message));
        writer_u8(&writer, '=');
        writer_bytes(&writer, message_payload(packet->message));
    } else {
        writer_u8(&writer, (uint8_t)('0' + packet->body.len % 64));
    }
    assert_true(writer_ok(&writer));
}

static void hear(struct ear *ear, struct bytes in)
{
    struct mqtt_packet packet;
    while (mqtt_decoder_next(&ear->decoder, &settings, &in, &packet)) {
        assert_true(ear->count < PACKETS_MAX);
        struct heard *heard = &ear->heard[ear->count++];
        *heard = (struct heard){packet.type, packet.violation, packet.refusal,
                                packet.qos,  packet.packet_id, ""};
        write_text(heard->text, &packet);
        message_release(packet.message);
    }
    assert_true(ear->decoder.stopped || in.len == 0);
}

static void write_connect(struct writer *writer)
{
    struct mqtt_connect connect = {.version = MQTT_VERSION_5,
                                   .clean_start = true,
                                   .receive_maximum = 100,
                                   .request_problem_information = true,
                                   .client_id = bytes_of_string("decoder")};
    mqtt_connect_encode(writer, &connect);
}

static void write_raw(struct writer *writer, const char *bytes, size_t len)
{
    writer_bytes(writer, bytes_of(bytes, len));
}

#define RAW(writer, literal) write_raw(writer, literal, sizeof(literal) - 1)

/* CONNECT, then what `fill` adds. */
static struct bytes stream(uint8_t buffer[STREAM_MAX], void (*fill)(struct writer *writer))
{
    struct writer writer = writer_of(buffer, STREAM_MAX);
    write_connect(&writer);
    fill(&writer);
    assert_true(writer_ok(&writer));
    return writer_written(&writer);
}

static void fill_good(struct writer *writer)
{
    RAW(writer, "\x30\x07\x00\x01"
                "a\x00"
                "one");      /* QoS 0 */
    RAW(writer, "\xc0\x00"); /* PINGREQ */
    RAW(writer, "\x32\x0b\x00\x01"
                "b\x00\x07\x03\x23\x00\x01"
                "tw"); /* QoS 1, alias 1 is "b" */
    RAW(writer, "\x30\x08\x00\x00\x03\x23\x00\x01"
                "yo");               /* by alias */
    RAW(writer, "\x40\x02\x00\x09"); /* PUBACK */
    RAW(writer, "\x30\x19\x00\x01"
                "c\x00"
                "123456789012345678901"); /* 21 bytes are too many */
    RAW(writer, "\x30\x08\x00\x01"
                "d\x02\x01\x01"
                "\xff\xfe"); /* says that it is UTF-8 */
    RAW(writer, "\xe0\x00"); /* DISCONNECT */
}

static void check_good(const struct ear *ear)
{
    static const struct heard expected[] = {
        {MQTT_CONNECT, 0, 0, 0, 0, "D"},
        {MQTT_PUBLISH, 0, 0, 0, 0, "a=one"},
        {MQTT_PINGREQ, 0, 0, 0, 0, "0"},
        {MQTT_PUBLISH, 0, 0, 1, 7, "b=tw"},
        {MQTT_PUBLISH, 0, 0, 0, 0, "b=yo"},
        {MQTT_PUBACK, 0, 0, 0, 0, "2"},
        {MQTT_PUBLISH, 0, MQTT_IMPLEMENTATION_SPECIFIC_ERROR, 0, 0, "1"},
        {MQTT_PUBLISH, 0, MQTT_PAYLOAD_FORMAT_INVALID, 0, 0, "1"},
        {MQTT_DISCONNECT, 0, 0, 0, 0, "0"},
    };
    assert_int_equal(ear->count, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < ear->count; i++) {
        assert_int_equal(ear->heard[i].type, expected[i].type);
        assert_int_equal(ear->heard[i].violation, expected[i].violation);
        assert_int_equal(ear->heard[i].refusal, expected[i].refusal);
        assert_int_equal(ear->heard[i].qos, expected[i].qos);
        assert_int_equal(ear->heard[i].packet_id, expected[i].packet_id);
        if (i != 0) {
            assert_string_equal(ear->heard[i].text, expected[i].text);
        }
    }
}

/* The same packets, wherever the stream is cut. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    uint8_t buffer[STREAM_MAX];
    struct bytes all = stream(buffer, fill_good);
    for (size_t first = 0; first <= all.len; first++) {
        for (size_t second = first; second <= all.len; second += 5) {
            struct ear ear = {.count = 0};
            hear(&ear, bytes_of(all.data, first));
            hear(&ear, bytes_of(all.data + first, second - first));
            hear(&ear, bytes_from(all, second));
            check_good(&ear);
            assert_null(ear.decoder.tail);
            mqtt_decoder_fini(&ear.decoder);
        }
    }
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    uint8_t buffer[STREAM_MAX];
    struct bytes all = stream(buffer, fill_good);
    struct ear ear = {.count = 0};
    for (size_t i = 0; i < all.len; i++) {
        hear(&ear, bytes_of(all.data + i, 1));
    }
    check_good(&ear);
    mqtt_decoder_fini(&ear.decoder);
}

static void fill_malformed(struct writer *writer)
{
    RAW(writer, "\xc1\x00\xc0\x00");
}

static void fill_too_large(struct writer *writer)
{
    RAW(writer, "\x30\xac\x02\x00"); /* 303 bytes; its body is not waited for */
}

static void fill_qos_2(struct writer *writer)
{
    RAW(writer, "\x34\x06\x00\x01"
                "a\x00\x01\x00\xc0\x00");
}

static void fill_strange_alias(struct writer *writer)
{
    RAW(writer, "\x30\x07\x00\x01"
                "a\x03\x23\x00\x03\xc0\x00");
}

static void fill_unknown_alias(struct writer *writer)
{
    RAW(writer, "\x30\x06\x00\x00\x03\x23\x00\x02\xc0\x00");
}

static void fill_bad_topic(struct writer *writer)
{
    RAW(writer, "\x30\x04\x00\x01"
                "#\x00\xc0\x00");
}

static void test_violations(void **state)
{
    (void)state;
    static const struct {
        void (*fill)(struct writer *writer);
        enum mqtt_reason reason;
    } cases[] = {
        {fill_malformed, MQTT_MALFORMED_PACKET},   {fill_too_large, MQTT_PACKET_TOO_LARGE},
        {fill_qos_2, MQTT_QOS_NOT_SUPPORTED},      {fill_strange_alias, MQTT_TOPIC_ALIAS_INVALID},
        {fill_unknown_alias, MQTT_PROTOCOL_ERROR}, {fill_bad_topic, MQTT_TOPIC_NAME_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t buffer[STREAM_MAX];
        struct bytes all = stream(buffer, cases[i].fill);
        struct ear ear = {.count = 0};
        hear(&ear, all);
        assert_int_equal(ear.count, 2); /* what follows a violation is not decoded */
        assert_int_equal(ear.heard[1].violation, cases[i].reason);
        hear(&ear, bytes_of("\xc0\x00", 2));
        assert_int_equal(ear.count, 2);
        mqtt_decoder_fini(&ear.decoder);
    }
}

static void test_first_must_be_connect(void **state)
{
    (void)state;
    struct ear ear = {.count = 0};
    hear(&ear, bytes_of("\xc0\x00", 2));
    assert_int_equal(ear.count, 1);
    assert_int_equal(ear.heard[0].violation, MQTT_PROTOCOL_ERROR);
    mqtt_decoder_fini(&ear.decoder);
}

static void test_no_memory(void **state)
{
    (void)state;
    uint8_t buffer[STREAM_MAX];
    struct writer writer = writer_of(buffer, STREAM_MAX);
    write_connect(&writer);
    struct ear ear = {.count = 0};
    hear(&ear, writer_written(&writer));
    struct bytes in = bytes_of("\x32\x07\x00\x01"
                               "a\x00\x05\x00x",
                               9);
    struct mqtt_packet packet;
    mem_fail_at(1); /* the message */
    assert_true(mqtt_decoder_next(&ear.decoder, &settings, &in, &packet));
    assert_null(packet.message);
    assert_int_equal(packet.refusal, MQTT_QUOTA_EXCEEDED);
    assert_int_equal(packet.packet_id, 5);
    assert_true(bytes_equal_string(packet.body, "a"));
    assert_false(mqtt_decoder_next(&ear.decoder, &settings, &in, &packet));
    in = bytes_of("\x32\x07", 2);
    mem_fail_at(1); /* the copy of an unfinished packet */
    assert_true(mqtt_decoder_next(&ear.decoder, &settings, &in, &packet));
    mem_fail_at(0);
    assert_int_equal(packet.violation, MQTT_SERVER_BUSY);
    mqtt_decoder_fini(&ear.decoder);
}

static void test_stop_forgets(void **state)
{
    (void)state;
    struct ear ear = {.count = 0};
    hear(&ear, bytes_of("\x10", 1));
    assert_non_null(ear.decoder.tail);
    mqtt_decoder_stop(&ear.decoder);
    assert_null(ear.decoder.tail);
    hear(&ear, bytes_of("\x10\x00", 2));
    assert_int_equal(ear.count, 0);
    mqtt_decoder_fini(&ear.decoder);
}

/* The decoder knows no time: what it says is how long, not until when. */
static void test_expiry_is_relative(void **state)
{
    (void)state;
    uint8_t buffer[STREAM_MAX];
    struct writer writer = writer_of(buffer, STREAM_MAX);
    write_connect(&writer);
    struct ear ear = {.count = 0};
    hear(&ear, writer_written(&writer));
    struct bytes in = bytes_of("\x30\x0a\x00\x01"
                               "a\x05\x02\x00\x00\x02\x58x",
                               12);
    struct mqtt_packet packet;
    assert_true(mqtt_decoder_next(&ear.decoder, &settings, &in, &packet));
    assert_int_equal(packet.message->expires_at_ms, 600 * 1000);
    assert_false(packet.expiry_counts);
    message_release(packet.message);
    in = bytes_of("\x30\x05\x00\x01"
                  "a\x00x",
                  7);
    assert_true(mqtt_decoder_next(&ear.decoder, &settings, &in, &packet));
    assert_true(packet.message->expires_at_ms == MESSAGE_EXPIRES_NEVER);
    message_release(packet.message);
    mqtt_decoder_fini(&ear.decoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_anywhere),       cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_violations),         cmocka_unit_test(test_first_must_be_connect),
        cmocka_unit_test(test_no_memory),          cmocka_unit_test(test_stop_forgets),
        cmocka_unit_test(test_expiry_is_relative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
