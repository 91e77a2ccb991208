#include "protocol_support.h"

#include "mqtt_disconnect.h"

#define V31 MQTT_VERSION_3_1
#define V311 MQTT_VERSION_3_1_1
#define V5 MQTT_VERSION_5

static enum mqtt_reason decode_disconnect(struct bytes body, enum mqtt_version version)
{
    struct mqtt_disconnect disconnect;
    enum mqtt_reason reason = mqtt_disconnect_decode(body, version, &disconnect);
    touch(disconnect.reason_string);
    touch(disconnect.server_reference);
    return reason;
}

static enum mqtt_reason decode_auth(struct bytes body, enum mqtt_version version)
{
    (void)version;
    struct mqtt_auth auth;
    enum mqtt_reason reason = mqtt_auth_decode(body, &auth);
    touch(auth.method);
    touch(auth.data);
    touch(auth.reason_string);
    return reason;
}

static void disconnect_errors(void **state)
{
    (void)state;
    static const struct decode_case cases[] = {
        {"empty", V31, "", MQTT_SUCCESS},
        {"empty", V311, "", MQTT_SUCCESS},
        {"remaining length 0", V5, "", MQTT_SUCCESS},
        {"remaining length 1", V5, "04", MQTT_SUCCESS},
        {"remaining length 2", V5, "04 00", MQTT_SUCCESS},
        {"session expiry", V5, "00 05 11 00000001", MQTT_SUCCESS},
        {"body", V31, "00", MQTT_MALFORMED_PACKET},
        {"body", V311, "00", MQTT_MALFORMED_PACKET},
        {"trailing byte", V5, "00 00 00", MQTT_MALFORMED_PACKET},
        {"session expiry twice", V5, "00 0A 11 00000001 11 00000001", MQTT_PROTOCOL_ERROR},
        {"property of CONNECT", V5, "00 03 21 0001", MQTT_MALFORMED_PACKET},
        {"property cut", V5, "00 04 11 000000", MQTT_MALFORMED_PACKET},
        {"properties cut", V5, "00 05", MQTT_MALFORMED_PACKET},
        {"reason string not UTF-8", V5, "00 04 1F 0001 FF", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_disconnect, cases);
}

/* 3.14.2.1: the codes that a client may send, of all 256. */
static void disconnect_reasons(void **state)
{
    (void)state;
    static const uint8_t of_client[] = {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90,
                                        0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99};
    for (unsigned code = 0; code <= 0xFF; code++) {
        uint8_t body = (uint8_t)code;
        bool allowed = memchr(of_client, (int)code, sizeof of_client) != NULL;
        assert_int_equal(decode_disconnect(bytes_of(&body, 1), V5),
                         allowed ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR);
    }
}

static void disconnect_encoding(void **state)
{
    (void)state;
    struct mqtt_disconnect plain = {.reason = MQTT_NORMAL_DISCONNECTION};
    struct mqtt_disconnect refusal = {.reason = MQTT_SESSION_TAKEN_OVER};
    struct mqtt_disconnect full = {
        .reason = MQTT_QUOTA_EXCEEDED,
        .has_session_expiry = true,
        .session_expiry_s = 7,
        .reason_string = bytes_of_string("why"),
        .server_reference = bytes_of_string("s"),
    };
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_disconnect_encode(&writer, V5, &plain);
    assert_written(&writer, "E0 00");
    writer = writer_of(room, sizeof room);
    mqtt_disconnect_encode(&writer, V5, &refusal);
    assert_written(&writer, "E0 01 8E");
    writer = writer_of(room, sizeof room);
    mqtt_disconnect_encode(&writer, V311, &refusal);
    assert_written(&writer, "E0 00");
    writer = writer_of(room, sizeof room);
    mqtt_disconnect_encode(&writer, V5, &full);
    assert_written(&writer, "E0 11 97 0F 11 00000007 1F 0003 'why' 1C 0001 's'");
    struct mqtt_disconnect again;
    assert_int_equal(
        mqtt_disconnect_decode(body_of_written(&writer, MQTT_DISCONNECT, 0), V5, &again),
        MQTT_SUCCESS);
    assert_int_equal(again.reason, MQTT_QUOTA_EXCEEDED);
    assert_true(again.has_session_expiry);
    assert_int_equal(again.session_expiry_s, 7);
    assert_bytes(again.reason_string, "why");
    assert_bytes(again.server_reference, "s");
}

static void auth_errors(void **state)
{
    (void)state;
    static const struct decode_case cases[] = {
        {"remaining length 0", V5, "", MQTT_SUCCESS},
        {"success without properties", V5, "00 00", MQTT_SUCCESS},
        {"continue", V5, "18 04 15 0001 'm'", MQTT_SUCCESS},
        {"re-authenticate with data", V5, "19 08 15 0001 'm' 16 0001 'd'", MQTT_SUCCESS},
        {"continue without properties", V5, "18", MQTT_PROTOCOL_ERROR},
        {"continue without method", V5, "18 00", MQTT_PROTOCOL_ERROR},
        {"data without method", V5, "00 04 16 0001 'd'", MQTT_PROTOCOL_ERROR},
        {"method twice", V5, "18 08 15 0001 'm' 15 0001 'm'", MQTT_PROTOCOL_ERROR},
        {"unknown reason", V5, "01 04 15 0001 'm'", MQTT_PROTOCOL_ERROR},
        {"refusal", V5, "87 04 15 0001 'm'", MQTT_PROTOCOL_ERROR},
        {"trailing byte", V5, "18 04 15 0001 'm' 00", MQTT_MALFORMED_PACKET},
        {"method not UTF-8", V5, "18 04 15 0001 FF", MQTT_MALFORMED_PACKET},
        {"property of CONNECT", V5, "18 03 21 0001", MQTT_MALFORMED_PACKET},
    };
    CHECK_CASES(decode_auth, cases);
}

static void auth_encoding(void **state)
{
    (void)state;
    struct mqtt_auth success = {.reason = MQTT_SUCCESS};
    struct mqtt_auth full = {
        .reason = MQTT_CONTINUE_AUTHENTICATION,
        .has_method = true,
        .method = bytes_of_string("m"),
        .data = bytes_of_string("dd"),
        .reason_string = bytes_of_string("r"),
    };
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_auth_encode(&writer, &success);
    assert_written(&writer, "F0 00");
    writer = writer_of(room, sizeof room);
    mqtt_auth_encode(&writer, &full);
    assert_written(&writer, "F0 0F 18 0D 15 0001 'm' 16 0002 'dd' 1F 0001 'r'");
    struct mqtt_auth again;
    assert_int_equal(mqtt_auth_decode(body_of_written(&writer, MQTT_AUTH, 0), &again),
                     MQTT_SUCCESS);
    assert_int_equal(again.reason, MQTT_CONTINUE_AUTHENTICATION);
    assert_true(again.has_method);
    assert_bytes(again.method, "m");
    assert_bytes(again.data, "dd");
    assert_bytes(again.reason_string, "r");
}

static void empty_packets(void **state)
{
    (void)state;
    uint8_t room[6];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_empty_encode(&writer, MQTT_PINGREQ);
    mqtt_empty_encode(&writer, MQTT_PINGRESP);
    mqtt_empty_encode(&writer, MQTT_DISCONNECT);
    assert_written(&writer, "C000 D000 E000");
}

static void damage(void **state)
{
    (void)state;
    static const char disconnect[] = "04 11 11 00000001 1F 0001 'r' 1C 0000 26 0000 0000";
    static const char auth[] = "18 0C 15 0001 'm' 16 0001 'd' 1F 0001 'r'";
    /* Nothing at all, and the reason alone. */
    assert_int_equal(count_good_prefixes(decode_disconnect, disconnect, V5), 2);
    assert_int_equal(count_good_prefixes(decode_auth, auth, V5), 1);
    flip_bytes(decode_disconnect, disconnect, V5);
    flip_bytes(decode_auth, auth, V5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disconnect_errors),
        cmocka_unit_test(disconnect_reasons),
        cmocka_unit_test(disconnect_encoding),
        cmocka_unit_test(auth_errors),
        cmocka_unit_test(auth_encoding),
        cmocka_unit_test(empty_packets),
        cmocka_unit_test(damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
