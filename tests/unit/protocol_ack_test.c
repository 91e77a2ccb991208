#include "protocol_support.h"

#include "mqtt_ack.h"

#define V31 MQTT_VERSION_3_1
#define V311 MQTT_VERSION_3_1_1
#define V5 MQTT_VERSION_5

static enum mqtt_reason decode_as(struct bytes body, enum mqtt_type type, enum mqtt_version version)
{
    struct mqtt_ack ack;
    enum mqtt_reason reason = mqtt_ack_decode(body, type, version, &ack);
    touch(ack.reason_string);
    return reason;
}

static enum mqtt_reason decode_puback(struct bytes body, enum mqtt_version version)
{
    return decode_as(body, MQTT_PUBACK, version);
}

static enum mqtt_reason decode_pubrel(struct bytes body, enum mqtt_version version)
{
    return decode_as(body, MQTT_PUBREL, version);
}

static void each_error_has_its_reason(void **state)
{
    (void)state;
    static const struct decode_case puback[] = {
        {"plain", V31, "0001", MQTT_SUCCESS},
        {"plain", V311, "FFFF", MQTT_SUCCESS},
        {"remaining length 2", V5, "0001", MQTT_SUCCESS},
        {"remaining length 3", V5, "0001 10", MQTT_SUCCESS},
        {"no properties", V5, "0001 00 00", MQTT_SUCCESS},
        {"reason string", V5, "0001 80 04 1F 0001 'r'", MQTT_SUCCESS},
        {"user properties", V5, "0001 00 0A 26 0000 0000 26 0000 0000", MQTT_SUCCESS},
        {"packet id 0", V311, "0000", MQTT_MALFORMED_PACKET},
        {"packet id 0", V5, "0000", MQTT_MALFORMED_PACKET},
        {"empty", V311, "", MQTT_MALFORMED_PACKET},
        {"half", V5, "01", MQTT_MALFORMED_PACKET},
        {"trailing byte", V311, "0001 00", MQTT_MALFORMED_PACKET},
        {"trailing byte", V5, "0001 00 00 00", MQTT_MALFORMED_PACKET},
        {"reason of PUBREL", V5, "0001 92", MQTT_PROTOCOL_ERROR},
        {"unknown reason", V5, "0001 01", MQTT_PROTOCOL_ERROR},
        {"reason string twice", V5, "0001 00 06 1F 0000 1F 0000", MQTT_PROTOCOL_ERROR},
        {"reason string not UTF-8", V5, "0001 00 04 1F 0001 FF", MQTT_MALFORMED_PACKET},
        {"property of CONNACK", V5, "0001 00 03 13 0000", MQTT_MALFORMED_PACKET},
        {"properties cut", V5, "0001 00 04 1F 0001", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_puback, puback);
    static const struct decode_case pubrel[] = {
        {"not found", V5, "0001 92", MQTT_SUCCESS},
        {"reason of PUBACK", V5, "0001 10", MQTT_PROTOCOL_ERROR},
        {"plain", V311, "0001", MQTT_SUCCESS},
    };
    CHECK_CASES(decode_pubrel, pubrel);
}

/* 3.4.2.1, 3.5.2.1, 3.6.2.1 and 3.7.2.1 for all 256 codes. */
static void allowed_reasons(void **state)
{
    (void)state;
    static const uint8_t of_publish[] = {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99};
    for (unsigned code = 0; code <= 0xFF; code++) {
        uint8_t body[3] = {0, 1, (uint8_t)code};
        bool allowed = memchr(of_publish, (int)code, sizeof of_publish) != NULL;
        enum mqtt_reason wanted = allowed ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR;
        assert_int_equal(decode_as(bytes_of(body, 3), MQTT_PUBACK, V5), wanted);
        assert_int_equal(decode_as(bytes_of(body, 3), MQTT_PUBREC, V5), wanted);
        wanted = code == 0 || code == 0x92 ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR;
        assert_int_equal(decode_as(bytes_of(body, 3), MQTT_PUBREL, V5), wanted);
        assert_int_equal(decode_as(bytes_of(body, 3), MQTT_PUBCOMP, V5), wanted);
    }
}

static void encoding(void **state)
{
    (void)state;
    static const struct {
        enum mqtt_type type;
        enum mqtt_version version;
        struct mqtt_ack ack;
        const char *reason_string, *packet;
    } cases[] = {
        {MQTT_PUBACK, V311, {.packet_id = 1}, "", "40 02 0001"},
        {MQTT_PUBREC, V5, {.packet_id = 2}, "", "50 02 0002"},
        {MQTT_PUBREL, V5, {.packet_id = 3}, "", "62 02 0003"},
        {MQTT_PUBCOMP, V31, {.packet_id = 4, .reason = 0x92}, "", "70 02 0004"},
        {MQTT_PUBREL, V5, {.packet_id = 5, .reason = 0x92}, "", "62 03 0005 92"},
        {MQTT_PUBREC, V5, {.packet_id = 6, .reason = 0x10}, "", "50 03 0006 10"},
        {MQTT_PUBACK, V5, {.packet_id = 7, .reason = 0x87}, "no", "40 09 0007 87 05 1F 0002 'no'"},
        {MQTT_PUBACK, V5, {.packet_id = 8}, "ok", "40 09 0008 00 05 1F 0002 'ok'"},
        {MQTT_PUBACK, V311, {.packet_id = 9, .reason = 0x87}, "no", "40 02 0009"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t room[32];
        struct writer writer = writer_of(room, sizeof room);
        struct mqtt_ack ack = cases[i].ack;
        ack.reason_string = bytes_of_string(cases[i].reason_string);
        mqtt_ack_encode(&writer, cases[i].type, cases[i].version, &ack);
        assert_written(&writer, cases[i].packet);
        struct mqtt_ack again;
        struct bytes body =
            body_of_written(&writer, cases[i].type, cases[i].type == MQTT_PUBREL ? 2 : 0);
        assert_int_equal(mqtt_ack_decode(body, cases[i].type, cases[i].version, &again),
                         MQTT_SUCCESS);
        assert_int_equal(again.packet_id, ack.packet_id);
        assert_int_equal(again.reason, cases[i].version == V5 ? ack.reason : MQTT_SUCCESS);
        assert_bytes(again.reason_string, cases[i].version == V5 ? cases[i].reason_string : "");
        size_t whole = writer_len(&writer);
        for (size_t len = 0; len < whole; len++) {
            writer = writer_of(room, len);
            mqtt_ack_encode(&writer, cases[i].type, cases[i].version, &ack);
            assert_false(writer_ok(&writer));
        }
    }
}

static void damage(void **state)
{
    (void)state;
    static const char full[] = "0001 10 09 1F 0001 'r' 26 0000 0000";
    /* Without the properties, and without the reason: both are short forms. */
    assert_int_equal(count_good_prefixes(decode_puback, full, V5), 2);
    assert_int_equal(count_good_prefixes(decode_puback, "0001", V311), 0);
    flip_bytes(decode_puback, full, V5);
    flip_bytes(decode_pubrel, "0001 92 09 1F 0001 'r' 26 0000 0000", V5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_error_has_its_reason),
        cmocka_unit_test(allowed_reasons),
        cmocka_unit_test(encoding),
        cmocka_unit_test(damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
