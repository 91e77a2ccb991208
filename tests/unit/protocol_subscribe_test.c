#include "protocol_support.h"

#include "mqtt_subscribe.h"

#define V31 MQTT_VERSION_3_1
#define V311 MQTT_VERSION_3_1_1
#define V5 MQTT_VERSION_5

static enum mqtt_reason decode_subscribe(struct bytes body, enum mqtt_version version)
{
    struct mqtt_subscribe subscribe;
    struct mqtt_subscription entry;
    enum mqtt_reason reason = mqtt_subscribe_decode(body, version, &subscribe);
    if (reason == MQTT_SUCCESS) {
        size_t count = 0;
        for (; mqtt_subscribe_next(&subscribe, &entry); count++) {
            touch(entry.filter);
            assert_true(entry.qos <= 2 && entry.retain_handling <= 2);
        }
        assert_int_equal(count, subscribe.count);
        assert_false(mqtt_subscribe_next(&subscribe, &entry));
    }
    return reason;
}

static enum mqtt_reason decode_unsubscribe(struct bytes body, enum mqtt_version version)
{
    struct mqtt_subscribe unsubscribe;
    struct bytes filter;
    enum mqtt_reason reason = mqtt_unsubscribe_decode(body, version, &unsubscribe);
    if (reason == MQTT_SUCCESS) {
        size_t count = 0;
        for (; mqtt_unsubscribe_next(&unsubscribe, &filter); count++) {
            touch(filter);
        }
        assert_int_equal(count, unsubscribe.count);
        assert_false(mqtt_unsubscribe_next(&unsubscribe, &filter));
    }
    return reason;
}

static enum mqtt_reason decode_suback(struct bytes body, enum mqtt_version version)
{
    struct mqtt_suback suback;
    enum mqtt_reason reason = mqtt_suback_decode(body, MQTT_SUBACK, version, &suback);
    touch(suback.reasons);
    return reason;
}

static enum mqtt_reason decode_unsuback(struct bytes body, enum mqtt_version version)
{
    struct mqtt_suback unsuback;
    enum mqtt_reason reason = mqtt_suback_decode(body, MQTT_UNSUBACK, version, &unsuback);
    touch(unsuback.reasons);
    return reason;
}

static void subscribe_errors(void **state)
{
    (void)state;
    static const struct decode_case cases[] = {
        {"plain", V31, "0001 0001 'a' 00", MQTT_SUCCESS},
        {"two", V311, "0001 0001 'a' 01 0001 'b' 02", MQTT_SUCCESS},
        {"all options", V5, "0001 00 0001 'a' 2E", MQTT_SUCCESS},
        {"identifier", V5, "0001 02 0B 01 0001 'a' 00", MQTT_SUCCESS},
        {"packet id 0", V311, "0000 0001 'a' 00", MQTT_MALFORMED_PACKET},
        {"packet id 0", V5, "0000 00 0001 'a' 00", MQTT_MALFORMED_PACKET},
        {"empty", V311, "", MQTT_MALFORMED_PACKET},
        {"no entry", V31, "0001", MQTT_PROTOCOL_ERROR},
        {"no entry", V311, "0001", MQTT_PROTOCOL_ERROR},
        {"no entry", V5, "0001 00", MQTT_PROTOCOL_ERROR},
        {"no options", V311, "0001 0001 'a'", MQTT_MALFORMED_PACKET},
        {"filter cut", V311, "0001 0002 'a'", MQTT_MALFORMED_PACKET},
        {"second cut", V311, "0001 0001 'a' 00 00", MQTT_MALFORMED_PACKET},
        {"QoS 3", V31, "0001 0001 'a' 03", MQTT_MALFORMED_PACKET},
        {"QoS 3", V311, "0001 0001 'a' 03", MQTT_MALFORMED_PACKET},
        {"QoS 3", V5, "0001 00 0001 'a' 03", MQTT_PROTOCOL_ERROR},
        {"reserved bits", V311, "0001 0001 'a' 04", MQTT_MALFORMED_PACKET},
        {"reserved bits", V311, "0001 0001 'a' 80", MQTT_MALFORMED_PACKET},
        {"reserved bits", V5, "0001 00 0001 'a' 40", MQTT_MALFORMED_PACKET},
        {"reserved bits", V5, "0001 00 0001 'a' 80", MQTT_MALFORMED_PACKET},
        {"retain handling 3", V5, "0001 00 0001 'a' 30", MQTT_PROTOCOL_ERROR},
        {"no local, shared", V5, "0001 00 000A '$share/g/a' 04", MQTT_PROTOCOL_ERROR},
        {"shared", V5, "0001 00 000A '$share/g/a' 08", MQTT_SUCCESS},
        {"no local, nearly shared", V5, "0001 00 0006 '$share' 04", MQTT_SUCCESS},
        {"second wrong", V5, "0001 00 0001 'a' 00 0001 'b' 03", MQTT_PROTOCOL_ERROR},
        {"not UTF-8", V311, "0001 0001 FF 00", MQTT_MALFORMED_PACKET},
        {"NUL", V5, "0001 00 0001 00 00", MQTT_MALFORMED_PACKET},
        {"invalid filters wait for their entry", V5, "0001 00 0002 'a#' 00 0000 00", MQTT_SUCCESS},
        {"identifier 0", V5, "0001 02 0B 00 0001 'a' 00", MQTT_PROTOCOL_ERROR},
        {"identifier twice", V5, "0001 04 0B 01 0B 02 0001 'a' 00", MQTT_PROTOCOL_ERROR},
        {"property of UNSUBACK", V5, "0001 03 1F 0000 0001 'a' 00", MQTT_MALFORMED_PACKET},
        {"no property length", V5, "0001", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_subscribe, cases);
}

static void unsubscribe_errors(void **state)
{
    (void)state;
    static const struct decode_case cases[] = {
        {"plain", V31, "0001 0001 'a'", MQTT_SUCCESS},
        {"two", V311, "0001 0001 'a' 0001 'b'", MQTT_SUCCESS},
        {"user property", V5, "0001 05 26 0000 0000 0001 'a'", MQTT_SUCCESS},
        {"packet id 0", V311, "0000 0001 'a'", MQTT_MALFORMED_PACKET},
        {"no entry", V311, "0001", MQTT_PROTOCOL_ERROR},
        {"no entry", V5, "0001 00", MQTT_PROTOCOL_ERROR},
        {"cut", V311, "0001 0002 'a'", MQTT_MALFORMED_PACKET},
        {"trailing byte", V311, "0001 0001 'a' 00", MQTT_MALFORMED_PACKET},
        {"not UTF-8", V5, "0001 00 0001 FF", MQTT_MALFORMED_PACKET},
        {"identifier", V5, "0001 02 0B 01 0001 'a'", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_unsubscribe, cases);
}

static void acknowledgement_errors(void **state)
{
    (void)state;
    static const struct decode_case suback[] = {
        {"all codes", V311, "0001 00010280", MQTT_SUCCESS},
        {"code 3", V311, "0001 03", MQTT_PROTOCOL_ERROR},
        {"reason of MQTT 5", V311, "0001 87", MQTT_PROTOCOL_ERROR},
        {"reasons", V5, "0001 00 00010280838F879197 9EA1A2", MQTT_SUCCESS},
        {"reason of UNSUBACK", V5, "0001 00 11", MQTT_PROTOCOL_ERROR},
        {"no code", V311, "0001", MQTT_MALFORMED_PACKET},
        {"no reason", V5, "0001 00", MQTT_MALFORMED_PACKET},
        {"packet id 0", V311, "0000 00", MQTT_MALFORMED_PACKET},
        {"reason string", V5, "0001 04 1F 0001 'r' 00", MQTT_SUCCESS},
    };
    CHECK_CASES(decode_suback, suback);
    static const struct decode_case unsuback[] = {
        {"plain", V311, "0001", MQTT_SUCCESS},
        {"with code", V311, "0001 00", MQTT_MALFORMED_PACKET},
        {"reasons", V5, "0001 00 00118083878F91", MQTT_SUCCESS},
        {"reason of SUBACK", V5, "0001 00 01", MQTT_PROTOCOL_ERROR},
        {"no reason", V5, "0001 00", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_unsuback, unsuback);
}

static void subscribe_round_trip(void **state)
{
    (void)state;
    const struct mqtt_subscription entries[] = {
        {.filter = bytes_of_string("a/+"), .qos = 1, .no_local = true},
        {.filter = bytes_of_string("#"), .qos = 2, .retain_as_published = true},
        {.filter = bytes_of_string("c"), .retain_handling = 2},
    };
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_subscribe_encode(&writer, V5, 0x0102, 300, entries, 3);
    assert_written(&writer, "82 14 0102 03 0B AC02 0003 'a/+' 05 0001 '#' 0A 0001 'c' 20");
    struct mqtt_subscribe again;
    assert_int_equal(mqtt_subscribe_decode(body_of_written(&writer, MQTT_SUBSCRIBE, 2), V5, &again),
                     MQTT_SUCCESS);
    assert_int_equal(again.packet_id, 0x0102);
    assert_int_equal(again.identifier, 300);
    assert_int_equal(again.count, 3);
    struct mqtt_subscription entry;
    for (size_t i = 0; i < 3; i++) {
        assert_true(mqtt_subscribe_next(&again, &entry));
        assert_true(bytes_equal(entry.filter, entries[i].filter));
        assert_int_equal(entry.qos, entries[i].qos);
        assert_int_equal(entry.no_local, entries[i].no_local);
        assert_int_equal(entry.retain_as_published, entries[i].retain_as_published);
        assert_int_equal(entry.retain_handling, entries[i].retain_handling);
    }
    assert_false(mqtt_subscribe_next(&again, &entry));

    writer = writer_of(room, sizeof room);
    mqtt_subscribe_encode(&writer, V311, 1, 300, entries, 3);
    assert_written(&writer, "82 10 0001 0003 'a/+' 01 0001 '#' 02 0001 'c' 00");
    writer = writer_of(room, 15);
    mqtt_subscribe_encode(&writer, V311, 1, 0, entries, 3);
    assert_false(writer_ok(&writer));
}

static void unsubscribe_round_trip(void **state)
{
    (void)state;
    const struct bytes filters[] = {bytes_of_string("a/+"), bytes_of_string("b")};
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_unsubscribe_encode(&writer, V5, 9, filters, 2);
    assert_written(&writer, "A2 0B 0009 00 0003 'a/+' 0001 'b'");
    writer = writer_of(room, sizeof room);
    mqtt_unsubscribe_encode(&writer, V311, 9, filters, 2);
    assert_written(&writer, "A2 0A 0009 0003 'a/+' 0001 'b'");
    struct mqtt_subscribe again;
    assert_int_equal(
        mqtt_unsubscribe_decode(body_of_written(&writer, MQTT_UNSUBSCRIBE, 2), V311, &again),
        MQTT_SUCCESS);
    assert_int_equal(again.packet_id, 9);
    assert_int_equal(again.count, 2);
    struct bytes filter;
    assert_true(mqtt_unsubscribe_next(&again, &filter));
    assert_bytes(filter, "a/+");
}

static void acknowledgement_encoding(void **state)
{
    (void)state;
    struct packet reasons = packet_of("00 01 02 87 8F");
    struct mqtt_suback suback = {.packet_id = 7, .reasons = bytes_of_packet(&reasons)};
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_suback_encode(&writer, MQTT_SUBACK, V5, &suback);
    assert_written(&writer, "90 08 0007 00 000102878F");
    struct mqtt_suback again;
    assert_int_equal(
        mqtt_suback_decode(body_of_written(&writer, MQTT_SUBACK, 0), MQTT_SUBACK, V5, &again),
        MQTT_SUCCESS);
    assert_int_equal(again.packet_id, 7);
    assert_true(bytes_equal(again.reasons, bytes_of_packet(&reasons)));
    writer = writer_of(room, sizeof room);
    mqtt_suback_encode(&writer, MQTT_SUBACK, V311, &suback);
    assert_written(&writer, "90 07 0007 0001028080");
    reasons = packet_of("00 11 87");
    suback.reasons = bytes_of_packet(&reasons);
    writer = writer_of(room, sizeof room);
    mqtt_suback_encode(&writer, MQTT_UNSUBACK, V5, &suback);
    assert_written(&writer, "B0 06 0007 00 001187");
    writer = writer_of(room, sizeof room);
    mqtt_suback_encode(&writer, MQTT_UNSUBACK, V31, &suback);
    assert_written(&writer, "B0 02 0007");
    suback.reason_string = bytes_of_string("no");
    writer = writer_of(room, sizeof room);
    mqtt_suback_encode(&writer, MQTT_UNSUBACK, V5, &suback);
    assert_written(&writer, "B0 0B 0007 05 1F 0002 'no' 001187");
    assert_int_equal(
        mqtt_suback_decode(body_of_written(&writer, MQTT_UNSUBACK, 0), MQTT_UNSUBACK, V5, &again),
        MQTT_SUCCESS);
    assert_bytes(again.reason_string, "no");
    writer = writer_of(room, sizeof room);
    mqtt_suback_encode(&writer, MQTT_SUBACK, V311, &suback);
    assert_written(&writer, "90 05 0007 001180");
}

static void damage(void **state)
{
    (void)state;
    static const char subscribe[] = "0001 07 0B05 26 0000 0000 0003 'a/+' 2D 000A '$share/g/a' 11";
    static const char unsubscribe[] = "0001 05 26 0000 0000 0003 'a/#' 0001 'b'";
    static const char suback[] = "0001 04 1F 0001 'r' 00 87 01";
    /* Whole entries make a packet. */
    assert_int_equal(count_good_prefixes(decode_subscribe, subscribe, V5), 1);
    assert_int_equal(count_good_prefixes(decode_unsubscribe, unsubscribe, V5), 1);
    assert_int_equal(count_good_prefixes(decode_suback, suback, V5), 2);
    flip_bytes(decode_subscribe, subscribe, V5);
    flip_bytes(decode_unsubscribe, unsubscribe, V5);
    flip_bytes(decode_suback, suback, V5);
    flip_bytes(decode_unsuback, suback, V5);
    flip_bytes(decode_subscribe, "0001 0003 'a/+' 01 0001 'b' 02", V311);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subscribe_errors),
        cmocka_unit_test(unsubscribe_errors),
        cmocka_unit_test(acknowledgement_errors),
        cmocka_unit_test(subscribe_round_trip),
        cmocka_unit_test(unsubscribe_round_trip),
        cmocka_unit_test(acknowledgement_encoding),
        cmocka_unit_test(damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
