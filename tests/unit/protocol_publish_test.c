#include "protocol_support.h"

#include "mqtt_publish.h"

#define V311 MQTT_VERSION_3_1_1
#define V5 MQTT_VERSION_5

static enum mqtt_reason decode_with(struct bytes body, uint8_t flags, enum mqtt_version version)
{
    struct mqtt_publish publish;
    enum mqtt_reason reason = mqtt_publish_decode(body, flags, version, &publish);
    touch(publish.topic);
    touch(publish.properties);
    touch(publish.payload);
    if (reason == MQTT_SUCCESS) {
        assert_int_equal(mqtt_publish_forward_len(publish.properties), publish.forward_len);
    }
    return reason;
}

static enum mqtt_reason decode_qos_0(struct bytes body, enum mqtt_version version)
{
    return decode_with(body, 0, version);
}

static enum mqtt_reason decode_qos_0_dup(struct bytes body, enum mqtt_version version)
{
    return decode_with(body, 8, version);
}

static enum mqtt_reason decode_qos_1(struct bytes body, enum mqtt_version version)
{
    return decode_with(body, 2, version);
}

static enum mqtt_reason decode_qos_3(struct bytes body, enum mqtt_version version)
{
    return decode_with(body, 6, version);
}

static void each_error_has_its_reason(void **state)
{
    (void)state;
    static const struct decode_case qos_0[] = {
        {"plain", V311, "0003 'a/b' 'x'", MQTT_SUCCESS},
        {"plain", V5, "0003 'a/b' 00 'x'", MQTT_SUCCESS},
        {"empty payload", V311, "0001 'a'", MQTT_SUCCESS},
        {"empty payload", V5, "0001 'a' 00", MQTT_SUCCESS},
        {"no properties", V5, "0001 'a'", MQTT_MALFORMED_PACKET},
        {"empty topic", V311, "0000 'x'", MQTT_PROTOCOL_ERROR},
        {"empty topic", V5, "0000 00 'x'", MQTT_PROTOCOL_ERROR},
        {"empty topic and alias", V5, "0000 03 23 0001 'x'", MQTT_SUCCESS},
        {"topic and alias", V5, "0001 'a' 03 23 FFFF 'x'", MQTT_SUCCESS},
        {"alias 0", V5, "0001 'a' 03 23 0000 'x'", MQTT_TOPIC_ALIAS_INVALID},
        {"alias twice", V5, "0001 'a' 06 23 0001 23 0001", MQTT_PROTOCOL_ERROR},
        {"topic +", V311, "0001 '+'", MQTT_TOPIC_NAME_INVALID},
        {"topic a/#", V5, "0003 'a/#' 00", MQTT_TOPIC_NAME_INVALID},
        {"topic not UTF-8", V311, "0001 FF", MQTT_MALFORMED_PACKET},
        {"topic with NUL", V5, "0002 'a' 00 00", MQTT_MALFORMED_PACKET},
        {"topic with surrogate", V5, "0003 EDBFBF 00", MQTT_MALFORMED_PACKET},
        {"subscription identifier", V5, "0001 'a' 02 0B 01", MQTT_PROTOCOL_ERROR},
        {"subscription identifier 0", V5, "0001 'a' 02 0B 00", MQTT_PROTOCOL_ERROR},
        {"format 2", V5, "0001 'a' 02 01 02", MQTT_PROTOCOL_ERROR},
        {"expiry twice", V5, "0001 'a' 0A 02 00000000 02 00000000", MQTT_PROTOCOL_ERROR},
        {"response topic #", V5, "0001 'a' 04 08 0001 '#'", MQTT_PROTOCOL_ERROR},
        {"content type not UTF-8", V5, "0001 'a' 04 03 0001 FF", MQTT_MALFORMED_PACKET},
        {"property of CONNECT", V5, "0001 'a' 03 21 0001", MQTT_MALFORMED_PACKET},
        {"property cut by its list", V5, "0001 'a' 02 23 0001", MQTT_MALFORMED_PACKET},
        {"list cut by the packet", V5, "0001 'a' 04 23 0001", MQTT_MALFORMED_PACKET},
        {"any payload", V5, "0001 'a' 02 01 01 FF", MQTT_SUCCESS},
    };
    CHECK_CASES(decode_qos_0, qos_0);
    static const struct decode_case dup[] = {
        {"DUP at QoS 0", V5, "0001 'a' 00", MQTT_MALFORMED_PACKET},
        {"DUP at QoS 0", V311, "0001 'a'", MQTT_MALFORMED_PACKET},
        {"DUP at QoS 0", MQTT_VERSION_3_1, "0001 'a'", MQTT_SUCCESS},
    };
    CHECK_CASES(decode_qos_0_dup, dup);
    static const struct decode_case qos_1[] = {
        {"plain", V311, "0001 'a' 0001 'x'", MQTT_SUCCESS},
        {"packet id 0", V311, "0001 'a' 0000 'x'", MQTT_MALFORMED_PACKET},
        {"packet id 0", V5, "0001 'a' 0000 00 'x'", MQTT_MALFORMED_PACKET},
        {"no packet id", V311, "0001 'a'", MQTT_MALFORMED_PACKET},
        {"half a packet id", V311, "0001 'a' 01", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_qos_1, qos_1);
    static const struct decode_case qos_3[] = {
        {"QoS 3", V311, "0001 'a' 0001 'x'", MQTT_MALFORMED_PACKET},
        {"QoS 3", V5, "0001 'a' 0001 00 'x'", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_qos_3, qos_3);
}

/* Forwardable: format, response topic, correlation data, content type, both user properties. */
static const char full[] = "0003 'a/b' 0102 2A 01 01 26 0001 'k' 0001 '1' 02 0000000A 23 0007"
                           " 08 0001 'r' 09 0002 00FF 26 0001 'k' 0001 '2' 03 0001 't'"
                           " 26 0000 0000 'pay'";
static const char full_forward[] = "01 01 26 0001 'k' 0001 '1' 08 0001 'r' 09 0002 00FF"
                                   " 26 0001 'k' 0001 '2' 03 0001 't' 26 0000 0000";

static void all_fields(void **state)
{
    (void)state;
    struct packet body = packet_of(full);
    struct packet forward = packet_of(full_forward);
    struct mqtt_publish publish;
    assert_int_equal(mqtt_publish_decode(bytes_of_packet(&body), 0x0D, V5, &publish), MQTT_SUCCESS);
    assert_int_equal(publish.qos, 2);
    assert_true(publish.dup && publish.retain && publish.has_expiry && publish.payload_is_utf8);
    assert_int_equal(publish.packet_id, 0x0102);
    assert_int_equal(publish.topic_alias, 7);
    assert_int_equal(publish.expiry_s, 10);
    assert_bytes(publish.topic, "a/b");
    assert_bytes(publish.payload, "pay");
    assert_int_equal(publish.forward_len, forward.len);
    assert_int_equal(publish.properties.len, forward.len + 8); /* expiry and alias */

    uint8_t room[PACKET_MAX];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_publish_forward(publish.properties, &writer);
    assert_written(&writer, full_forward);

    /* A list that passes whole says so. */
    struct packet short_body = packet_of("0001 'a' 02 01 00 'x'");
    assert_int_equal(mqtt_publish_decode(bytes_of_packet(&short_body), 0, V5, &publish),
                     MQTT_SUCCESS);
    assert_int_equal(publish.forward_len, publish.properties.len);
    assert_false(publish.payload_is_utf8);
}

static void forward_of_a_will(void **state)
{
    (void)state;
    struct packet list = packet_of("18 00000001 01 01 02 00000002 26 0000 0001 'x'");
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_publish_forward(bytes_of_packet(&list), &writer);
    assert_written(&writer, "01 01 26 0000 0001 'x'");
    assert_int_equal(mqtt_publish_forward_len(bytes_of_packet(&list)), 8);
    assert_int_equal(mqtt_publish_forward_len(BYTES_EMPTY), 0);
}

static void encode(struct writer *writer, const struct mqtt_publish_out *out,
                   enum mqtt_version version, struct bytes properties, struct bytes payload)
{
    mqtt_publish_encode_head(writer, out, version);
    assert_int_equal(writer_len(writer), mqtt_publish_head_size(out, version));
    if (version == V5) {
        writer_bytes(writer, properties);
    }
    writer_bytes(writer, payload);
    assert_int_equal(writer_len(writer), mqtt_publish_size(out, version));
}

static void encoding(void **state)
{
    (void)state;
    static const uint32_t ids[] = {5, 128};
    struct packet list = packet_of("01 01");
    struct mqtt_publish_out out = {
        .qos = 1,
        .retain = true,
        .dup = true,
        .has_expiry = true,
        .packet_id = 0x0102,
        .topic_alias = 3,
        .expiry_s = 9,
        .subscription_ids = ids,
        .subscription_id_count = 2,
        .topic = bytes_of_string("a/b"),
        .properties_len = 2,
        .payload_len = 3,
    };
    uint8_t room[128];
    struct writer writer = writer_of(room, sizeof room);
    encode(&writer, &out, V5, bytes_of_packet(&list), bytes_of_string("pay"));
    assert_written(&writer,
                   "3B 1A 0003 'a/b' 0102 0F 02 00000009 23 0003 0B 05 0B 8001 01 01 'pay'");
    writer = writer_of(room, sizeof room);
    encode(&writer, &out, V311, bytes_of_packet(&list), bytes_of_string("pay"));
    assert_written(&writer, "3B 0A 0003 'a/b' 0102 'pay'");
    out = (struct mqtt_publish_out){.topic = bytes_of_string("t"), .payload_len = 1};
    writer = writer_of(room, sizeof room);
    encode(&writer, &out, V5, BYTES_EMPTY, bytes_of_string("x"));
    assert_written(&writer, "30 05 0001 't' 00 'x'");
    writer = writer_of(room, 5);
    mqtt_publish_encode_head(&writer, &out, V5);
    assert_false(writer_ok(&writer));
}

static void round_trips(void **state)
{
    (void)state;
    static const size_t payloads[] = {0, 1, 117, 118, 127, 128, 16370, 16384, 60000};
    uint8_t *room = malloc(70000);
    uint8_t *payload = calloc(1, 60000);
    struct packet forward = packet_of(full_forward);
    for (unsigned round = 0; round < 9 * 3 * 2; round++) {
        enum mqtt_version version = round % 2 == 0 ? V5 : V311;
        struct mqtt_publish_out out = {
            .qos = (uint8_t)(round % 3),
            .packet_id = 77,
            .has_expiry = true,
            .expiry_s = UINT32_MAX,
            .topic = bytes_of_string("some/topic"),
            .properties_len = forward.len,
            .payload_len = payloads[round / 6],
        };
        struct writer writer = writer_of(room, 70000);
        encode(&writer, &out, version, bytes_of_packet(&forward),
               bytes_of(payload, out.payload_len));
        uint8_t flags = (uint8_t)(out.qos << 1);
        struct bytes body = body_of_written(&writer, MQTT_PUBLISH, flags);
        struct mqtt_publish publish;
        assert_int_equal(mqtt_publish_decode(body, flags, version, &publish), MQTT_SUCCESS);
        assert_bytes(publish.topic, "some/topic");
        assert_int_equal(publish.payload.len, out.payload_len);
        assert_int_equal(publish.packet_id, out.qos == 0 ? 0 : 77);
        assert_int_equal(publish.has_expiry, version == V5);
        assert_int_equal(publish.forward_len, version == V5 ? forward.len : 0);
    }
    free(payload);
    free(room);
}

/* The length of the property list takes two bytes from 128 on. */
static void long_property_lists(void **state)
{
    (void)state;
    uint8_t value[300] = {0};
    memset(value, 'v', sizeof value);
    for (size_t len = 120; len < sizeof value; len++) {
        uint8_t list[400];
        struct writer properties = writer_of(list, sizeof list);
        mqtt_property_write_pair(&properties, bytes_of_string("k"), bytes_of(value, len));
        struct bytes written = writer_written(&properties);
        struct mqtt_publish_out out = {
            .topic = bytes_of_string("t"), .properties_len = written.len, .payload_len = 1};
        uint8_t room[512];
        struct writer writer = writer_of(room, sizeof room);
        encode(&writer, &out, V5, written, bytes_of_string("x"));
        struct mqtt_publish publish;
        struct bytes body = body_of_written(&writer, MQTT_PUBLISH, 0);
        assert_int_equal(mqtt_publish_decode(body, 0, V5, &publish), MQTT_SUCCESS);
        assert_true(bytes_equal(publish.properties, written));
        assert_bytes(publish.payload, "x");
    }
}

static void sizes_beyond_the_limit_are_told(void **state)
{
    (void)state;
    struct mqtt_publish_out out = {.topic = bytes_of_string("t"), .payload_len = 268435452};
    assert_true(mqtt_publish_size(&out, V311) == 268435460);
    out.payload_len++;
    assert_true(mqtt_publish_size(&out, V311) > 268435460);
    assert_true(mqtt_publish_size(&out, V5) > 268435460);
    out.properties_len = (size_t)1 << 32;
    assert_true(mqtt_publish_size(&out, V5) > (size_t)1 << 32);
}

static void damage(void **state)
{
    (void)state;
    /* What is cut off the payload is still a packet. */
    assert_int_equal(count_good_prefixes(decode_qos_1, "0003 'a/b' 0001 'pay'", V311), 3);
    assert_int_equal(count_good_prefixes(decode_qos_1,
                                         "0003 'a/b' 0001 0C 01 01 23 0001 26 0000 0002 'ab' 'pay'",
                                         V5),
                     3);
    flip_bytes(decode_qos_1, "0003 'a/b' 0001 0C 01 01 23 0001 26 0000 0002 'ab' 'pay'", V5);
    flip_bytes(decode_qos_0, "0003 'a/b' 0C 01 01 23 0001 26 0000 0002 'ab' 'pay'", V5);
    flip_bytes(decode_qos_1, "0003 'a/b' 0001 'pay'", V311);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_error_has_its_reason),
        cmocka_unit_test(all_fields),
        cmocka_unit_test(forward_of_a_will),
        cmocka_unit_test(encoding),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(long_property_lists),
        cmocka_unit_test(sizes_beyond_the_limit_are_told),
        cmocka_unit_test(damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
