#include "protocol_support.h"

#include "mqtt_connect.h"

/* Shorthand for the heads of CONNECT bodies: name and level. */
#define V31 "0006 'MQIsdp' 03 "
#define V311 "0004 'MQTT' 04 "
#define V5 "0004 'MQTT' 05 "

static enum mqtt_reason decode(struct bytes body, enum mqtt_version version)
{
    (void)version;
    struct mqtt_connect connect;
    enum mqtt_reason reason = mqtt_connect_decode(body, &connect);
    assert_true(connect.version >= MQTT_VERSION_3_1 && connect.version <= MQTT_VERSION_5);
    if (reason == MQTT_SUCCESS) {
        touch(connect.client_id);
        touch(connect.user_name);
        touch(connect.password);
        touch(connect.will.topic);
        touch(connect.will.payload);
        touch(connect.will.properties);
        touch(connect.authentication_method);
        touch(connect.authentication_data);
    }
    return reason;
}

static const char full_5[] =
    V5 "EE 003C 24 11 00000010 21 0005 27 00001000 22 0007 19 01 17 00 15 0001 'm' 16 0001 'd'"
       " 26 0001 'a' 0002 'bc' 0001 'c'"
       " 1F 18 00000001 02 00000002 01 01 03 0001 't' 08 0001 'r' 09 0001 'c' 26 0001 'k' 0001 'v'"
       " 0003 'w/t' 0003 'bye' 0001 'u' 0002 'pw'";
static const char full_3_1_1[] = V311 "EE 003C 0001 'c' 0003 'w/t' 0003 'bye' 0001 'u' 0002 'pw'";

static void version_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum mqtt_reason reason;
        enum mqtt_version version;
        bool is_bridge;
    } cases[] = {
        {V31 "02 0000 0001 'c'", MQTT_SUCCESS, MQTT_VERSION_3_1, false},
        {V311 "02 0000 0001 'c'", MQTT_SUCCESS, MQTT_VERSION_3_1_1, false},
        {V5 "02 0000 00 0001 'c'", MQTT_SUCCESS, MQTT_VERSION_5, false},
        {"0006 'MQIsdp' 83 02 0000 0001 'c'", MQTT_SUCCESS, MQTT_VERSION_3_1, true},
        {"0004 'MQTT' 84 02 0000 0001 'c'", MQTT_SUCCESS, MQTT_VERSION_3_1_1, true},
        {"0004 'MQTT' 85 02 0000 00 0001 'c'", MQTT_UNSUPPORTED_PROTOCOL_VERSION, MQTT_VERSION_5,
         false},
        {"0004 'MQTT' 03 02 0000 0001 'c'", MQTT_UNSUPPORTED_PROTOCOL_VERSION, MQTT_VERSION_3_1_1,
         false},
        {"0004 'MQTT' 06", MQTT_UNSUPPORTED_PROTOCOL_VERSION, MQTT_VERSION_5, false},
        {"0006 'MQIsdp' 04", MQTT_UNSUPPORTED_PROTOCOL_VERSION, MQTT_VERSION_3_1, false},
        {"0004 'mqtt' 04", MQTT_UNSUPPORTED_PROTOCOL_VERSION, MQTT_VERSION_3_1_1, false},
        {"0000 04", MQTT_UNSUPPORTED_PROTOCOL_VERSION, MQTT_VERSION_3_1_1, false},
        {"0004 'MQTT'", MQTT_MALFORMED_PACKET, MQTT_VERSION_3_1_1, false},
        {"FFFF 'MQTT' 05", MQTT_MALFORMED_PACKET, MQTT_VERSION_3_1_1, false},
        {"", MQTT_MALFORMED_PACKET, MQTT_VERSION_3_1_1, false},
        {V5 "03 0000 00 0001 'c'", MQTT_MALFORMED_PACKET, MQTT_VERSION_5, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct packet body = packet_of(cases[i].body);
        struct mqtt_connect connect;
        enum mqtt_reason reason = mqtt_connect_decode(bytes_of_packet(&body), &connect);
        if (reason != cases[i].reason || connect.version != cases[i].version ||
            (reason == MQTT_SUCCESS && connect.is_bridge != cases[i].is_bridge)) {
            fail_msg("%s: 0x%02X, version %d", cases[i].body, (unsigned)reason,
                     (int)connect.version);
        }
    }
}

static const struct decode_case errors[] = {
    {"reserved flag", 0, V311 "03 0000 0001 'c'", MQTT_MALFORMED_PACKET},
    {"reserved flag", 0, V5 "03 0000 00 0001 'c'", MQTT_MALFORMED_PACKET},
    {"reserved flag is unused in 3.1", 0, V31 "03 0000 0001 'c'", MQTT_SUCCESS},
    {"will QoS without will", 0, V311 "0A 0000 0001 'c'", MQTT_MALFORMED_PACKET},
    {"will QoS without will", 0, V5 "12 0000 00 0001 'c'", MQTT_MALFORMED_PACKET},
    {"will retain without will", 0, V311 "22 0000 0001 'c'", MQTT_MALFORMED_PACKET},
    {"will retain without will", 0, V5 "22 0000 00 0001 'c'", MQTT_MALFORMED_PACKET},
    {"will QoS 3", 0, V311 "1E 0000 0001 'c' 0001 't' 0000", MQTT_MALFORMED_PACKET},
    {"will QoS 3", 0, V5 "1E 0000 00 0001 'c' 00 0001 't' 0000", MQTT_MALFORMED_PACKET},
    {"will QoS 3", 0, V31 "1E 0000 0001 'c' 0001 't' 0000", MQTT_MALFORMED_PACKET},
    {"password alone", 0, V311 "42 0000 0001 'c' 0001 'p'", MQTT_MALFORMED_PACKET},
    {"password alone", 0, V31 "42 0000 0001 'c' 0001 'p'", MQTT_MALFORMED_PACKET},
    {"password alone", 0, V5 "42 0000 00 0001 'c' 0001 'p'", MQTT_SUCCESS},
    {"user name alone", 0, V311 "82 0000 0001 'c' 0001 'u'", MQTT_SUCCESS},
    {"user name missing", 0, V311 "82 0000 0001 'c'", MQTT_MALFORMED_PACKET},
    {"user name missing", 0, V5 "82 0000 00 0001 'c'", MQTT_MALFORMED_PACKET},
    {"user name missing", 0, V31 "82 0000 0001 'c'", MQTT_SUCCESS},
    {"password missing", 0, V31 "C2 0000 0001 'c' 0001 'u'", MQTT_SUCCESS},
    {"password cut", 0, V31 "C2 0000 0001 'c' 0001 'u' 00", MQTT_MALFORMED_PACKET},
    {"user name not UTF-8", 0, V311 "82 0000 0001 'c' 0001 FF", MQTT_MALFORMED_PACKET},
    {"password of any bytes", 0, V311 "C2 0000 0001 'c' 0001 'u' 0002 00FF", MQTT_SUCCESS},
    {"client id not UTF-8", 0, V311 "02 0000 0002 C080", MQTT_MALFORMED_PACKET},
    {"client id with NUL", 0, V311 "02 0000 0001 00", MQTT_MALFORMED_PACKET},
    {"client id with surrogate", 0, V5 "02 0000 00 0003 EDA080", MQTT_MALFORMED_PACKET},
    {"no client id", 0, V311 "02 0000 0000", MQTT_SUCCESS},
    {"no client id, not clean", 0, V311 "00 0000 0000", MQTT_CLIENT_IDENTIFIER_NOT_VALID},
    {"no client id", 0, V5 "00 0000 00 0000", MQTT_SUCCESS},
    {"no client id", 0, V31 "02 0000 0000", MQTT_CLIENT_IDENTIFIER_NOT_VALID},
    {"long client id", 0, V31 "02 0000 0018 'abcdefghijklmnopqrstuvwx'", MQTT_SUCCESS},
    {"trailing byte", 0, V311 "02 0000 0001 'c' 00", MQTT_MALFORMED_PACKET},
    {"trailing byte", 0, V5 "02 0000 00 0001 'c' 00", MQTT_MALFORMED_PACKET},
    {"trailing byte", 0, V31 "02 0000 0001 'c' 00", MQTT_MALFORMED_PACKET},
    {"will topic empty", 0, V311 "06 0000 0001 'c' 0000 0000", MQTT_TOPIC_NAME_INVALID},
    {"will topic +", 0, V5 "06 0000 00 0001 'c' 00 0001 '+' 0000", MQTT_TOPIC_NAME_INVALID},
    {"will topic #", 0, V311 "06 0000 0001 'c' 0003 'a/#' 0000", MQTT_TOPIC_NAME_INVALID},
    {"will topic not UTF-8", 0, V311 "06 0000 0001 'c' 0001 FF 0000", MQTT_MALFORMED_PACKET},
    {"will payload empty", 0, V311 "06 0000 0001 'c' 0001 't' 0000", MQTT_SUCCESS},
    {"will text", 0, V5 "06 0000 00 0001 'c' 02 01 01 0001 't' 0003 'a' 00 'b'", MQTT_SUCCESS},
    {"will no text", 0, V5 "06 0000 00 0001 'c' 02 01 01 0001 't' 0001 FF",
     MQTT_PAYLOAD_FORMAT_INVALID},
    {"will bytes", 0, V5 "06 0000 00 0001 'c' 02 01 00 0001 't' 0001 FF", MQTT_SUCCESS},
    {"will format 2", 0, V5 "06 0000 00 0001 'c' 02 01 02 0001 't' 0000", MQTT_PROTOCOL_ERROR},
    {"will delay twice", 0, V5 "06 0000 00 0001 'c' 0A 18 00000001 18 00000001 0001 't' 0000",
     MQTT_PROTOCOL_ERROR},
    {"will with topic alias", 0, V5 "06 0000 00 0001 'c' 03 23 0001 0001 't' 0000",
     MQTT_MALFORMED_PACKET},
    {"will response topic #", 0, V5 "06 0000 00 0001 'c' 04 08 0001 '#' 0001 't' 0000",
     MQTT_PROTOCOL_ERROR},
    {"receive maximum 0", 0, V5 "02 0000 03 21 0000 0001 'c'", MQTT_PROTOCOL_ERROR},
    {"packet size 0", 0, V5 "02 0000 05 27 00000000 0001 'c'", MQTT_PROTOCOL_ERROR},
    {"packet size twice", 0, V5 "02 0000 0A 27 00000001 27 00000001 0001 'c'", MQTT_PROTOCOL_ERROR},
    {"problem information 2", 0, V5 "02 0000 02 17 02 0001 'c'", MQTT_PROTOCOL_ERROR},
    {"response information 2", 0, V5 "02 0000 02 19 02 0001 'c'", MQTT_PROTOCOL_ERROR},
    {"data without method", 0, V5 "02 0000 04 16 0001 'd' 0001 'c'", MQTT_PROTOCOL_ERROR},
    {"empty data without method", 0, V5 "02 0000 03 16 0000 0001 'c'", MQTT_PROTOCOL_ERROR},
    {"method without data", 0, V5 "02 0000 04 15 0001 'm' 0001 'c'", MQTT_SUCCESS},
    {"unknown property", 0, V5 "02 0000 02 7F 00 0001 'c'", MQTT_MALFORMED_PACKET},
    {"property of the will", 0, V5 "02 0000 05 18 00000001 0001 'c'", MQTT_MALFORMED_PACKET},
    {"properties too long", 0, V5 "02 0000 7F 0001 'c'", MQTT_MALFORMED_PACKET},
};

static void each_error_has_its_reason(void **state)
{
    (void)state;
    CHECK_CASES(decode, errors);
}

static void all_fields_5(void **state)
{
    (void)state;
    struct packet body = packet_of(full_5);
    struct mqtt_connect connect;
    assert_int_equal(mqtt_connect_decode(bytes_of_packet(&body), &connect), MQTT_SUCCESS);
    assert_int_equal(connect.version, MQTT_VERSION_5);
    assert_true(connect.clean_start && connect.has_will && connect.has_user_name &&
                connect.has_password && connect.has_authentication_method);
    assert_int_equal(connect.keep_alive_s, 60);
    assert_int_equal(connect.session_expiry_s, 16);
    assert_int_equal(connect.receive_maximum, 5);
    assert_int_equal(connect.maximum_packet_size, 4096);
    assert_int_equal(connect.topic_alias_maximum, 7);
    assert_true(connect.request_response_information);
    assert_false(connect.request_problem_information);
    assert_bytes(connect.authentication_method, "m");
    assert_bytes(connect.authentication_data, "d");
    assert_bytes(connect.client_id, "c");
    assert_bytes(connect.will.topic, "w/t");
    assert_bytes(connect.will.payload, "bye");
    assert_int_equal(connect.will.qos, 1);
    assert_true(connect.will.retain && connect.will.has_expiry);
    assert_int_equal(connect.will.delay_s, 1);
    assert_int_equal(connect.will.expiry_s, 2);
    assert_int_equal(connect.will.properties.len, 0x1F);
    assert_bytes(connect.user_name, "u");
    assert_bytes(connect.password, "pw");
}

static void defaults(void **state)
{
    (void)state;
    struct mqtt_connect connect;
    struct packet body = packet_of(V5 "00 0000 00 0000");
    assert_int_equal(mqtt_connect_decode(bytes_of_packet(&body), &connect), MQTT_SUCCESS);
    assert_int_equal(connect.session_expiry_s, 0);
    assert_int_equal(connect.receive_maximum, 65535);
    assert_int_equal(connect.maximum_packet_size, 0);
    assert_int_equal(connect.topic_alias_maximum, 0);
    assert_false(connect.request_response_information || connect.clean_start);
    assert_true(connect.request_problem_information);
    body = packet_of(V311 "00 0000 0001 'c'");
    assert_int_equal(mqtt_connect_decode(bytes_of_packet(&body), &connect), MQTT_SUCCESS);
    assert_int_equal(connect.session_expiry_s, UINT32_MAX);
    body = packet_of(V311 "02 0000 0001 'c'");
    assert_int_equal(mqtt_connect_decode(bytes_of_packet(&body), &connect), MQTT_SUCCESS);
    assert_int_equal(connect.session_expiry_s, 0);
    body = packet_of(V31 "C2 0000 0001 'c'");
    assert_int_equal(mqtt_connect_decode(bytes_of_packet(&body), &connect), MQTT_SUCCESS);
    assert_false(connect.has_user_name || connect.has_password);
}

/* Decoding what was encoded from what was decoded gives the same bytes again. */
static void round_trip(const char *text)
{
    struct packet body = packet_of(text);
    struct mqtt_connect connect;
    assert_int_equal(mqtt_connect_decode(bytes_of_packet(&body), &connect), MQTT_SUCCESS);
    uint8_t room[2][PACKET_MAX];
    struct writer first = writer_of(room[0], PACKET_MAX);
    mqtt_connect_encode(&first, &connect);
    struct mqtt_connect again;
    assert_int_equal(mqtt_connect_decode(body_of_written(&first, MQTT_CONNECT, 0), &again),
                     MQTT_SUCCESS);
    struct writer second = writer_of(room[1], PACKET_MAX);
    mqtt_connect_encode(&second, &again);
    assert_int_equal(writer_len(&first), writer_len(&second));
    assert_memory_equal(room[0], room[1], writer_len(&first));
    for (size_t len = 0; len < writer_len(&first); len++) {
        struct writer small = writer_of(room[1], len);
        mqtt_connect_encode(&small, &connect);
        assert_false(writer_ok(&small));
    }
}

static void round_trips(void **state)
{
    (void)state;
    round_trip(full_5);
    round_trip(full_3_1_1);
    round_trip(V31 "EE 003C 0001 'c' 0003 'w/t' 0003 'bye' 0001 'u' 0002 'pw'");
    round_trip("0004 'MQTT' 84 02 0000 0001 'c'");
    round_trip(V5 "00 0000 00 0000");

    /* Without user properties the encoder writes this packet byte for byte. */
    struct packet body = packet_of(full_3_1_1);
    struct mqtt_connect connect;
    assert_int_equal(mqtt_connect_decode(bytes_of_packet(&body), &connect), MQTT_SUCCESS);
    uint8_t room[PACKET_MAX];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_connect_encode(&writer, &connect);
    struct bytes written = body_of_written(&writer, MQTT_CONNECT, 0);
    assert_true(bytes_equal(written, bytes_of_packet(&body)));
}

static void long_packets_get_long_lengths(void **state)
{
    (void)state;
    static const size_t payloads[] = {90, 100, 113, 114, 115, 127, 128, 500, 16383, 16384, 65535};
    uint8_t *payload = calloc(1, 65536);
    uint8_t *room = malloc(70000);
    for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++) {
        struct mqtt_connect connect = {
            .version = MQTT_VERSION_5,
            .has_will = true,
            .will = {.topic = bytes_of_string("t"), .payload = bytes_of(payload, payloads[i])},
            .request_problem_information = true,
        };
        struct writer writer = writer_of(room, 70000);
        mqtt_connect_encode(&writer, &connect);
        struct mqtt_connect again;
        assert_int_equal(mqtt_connect_decode(body_of_written(&writer, MQTT_CONNECT, 0), &again),
                         MQTT_SUCCESS);
        assert_int_equal(again.will.payload.len, payloads[i]);
        assert_int_equal(again.receive_maximum, 65535);
        struct writer exact = writer_of(room, writer_len(&writer));
        mqtt_connect_encode(&exact, &connect);
        assert_true(writer_ok(&exact));
    }
    free(payload);
    free(room);
}

static void damage(void **state)
{
    (void)state;
    assert_int_equal(count_good_prefixes(decode, full_5, 0), 0);
    assert_int_equal(count_good_prefixes(decode, full_3_1_1, 0), 0);
    /* 3.1 lets the user name and the password go missing. */
    assert_int_equal(count_good_prefixes(decode, V31 "C2 0000 0001 'c' 0001 'u' 0001 'p'", 0), 2);
    flip_bytes(decode, full_5, 0);
    flip_bytes(decode, full_3_1_1, 0);
}

/* CONNACK */

static enum mqtt_reason decode_ack(struct bytes body, enum mqtt_version version)
{
    struct mqtt_connack connack;
    enum mqtt_reason reason = mqtt_connack_decode(body, version, &connack);
    touch(connack.assigned_client_id);
    touch(connack.reason_string);
    touch(connack.response_information);
    touch(connack.server_reference);
    return reason;
}

static const char full_connack[] =
    "0000 32 11 00000010 21 0005 24 01 25 00 27 00001000 12 0001 'a' 22 0007 1F 0001 'r'"
    " 28 00 29 00 2A 00 13 000A 1A 0001 'i' 1C 0001 's' 26 0000 0000";

static void connack_errors(void **state)
{
    (void)state;
    static const struct decode_case cases[] = {
        {"accepted", MQTT_VERSION_3_1_1, "0000", MQTT_SUCCESS},
        {"session", MQTT_VERSION_3_1_1, "0100", MQTT_SUCCESS},
        {"reserved flags", MQTT_VERSION_3_1_1, "0200", MQTT_MALFORMED_PACKET},
        {"reserved flags", MQTT_VERSION_5, "0300 00", MQTT_MALFORMED_PACKET},
        {"reserved byte", MQTT_VERSION_3_1, "FF00", MQTT_SUCCESS},
        {"session and refusal", MQTT_VERSION_3_1_1, "0105", MQTT_PROTOCOL_ERROR},
        {"session and refusal", MQTT_VERSION_5, "0187 00", MQTT_PROTOCOL_ERROR},
        {"code 6", MQTT_VERSION_3_1_1, "0006", MQTT_PROTOCOL_ERROR},
        {"reason of another packet", MQTT_VERSION_5, "0010 00", MQTT_PROTOCOL_ERROR},
        {"trailing byte", MQTT_VERSION_3_1_1, "0000 00", MQTT_MALFORMED_PACKET},
        {"trailing byte", MQTT_VERSION_5, "0000 00 00", MQTT_MALFORMED_PACKET},
        {"no properties", MQTT_VERSION_5, "0000", MQTT_MALFORMED_PACKET},
        {"maximum QoS 2", MQTT_VERSION_5, "0000 02 24 02", MQTT_PROTOCOL_ERROR},
    };
    CHECK_CASES(decode_ack, cases);
    assert_int_equal(count_good_prefixes(decode_ack, full_connack, MQTT_VERSION_5), 0);
    flip_bytes(decode_ack, full_connack, MQTT_VERSION_5);
}

static void connack_encoding(void **state)
{
    (void)state;
    uint8_t room[256];
    struct mqtt_connack connack = mqtt_connack_of(MQTT_SUCCESS);
    struct writer writer = writer_of(room, sizeof room);
    mqtt_connack_encode(&writer, MQTT_VERSION_5, &connack);
    assert_written(&writer, "20 03 00 00 00");
    connack.session_present = true;
    writer = writer_of(room, sizeof room);
    mqtt_connack_encode(&writer, MQTT_VERSION_3_1_1, &connack);
    assert_written(&writer, "20 02 01 00");
    writer = writer_of(room, sizeof room);
    mqtt_connack_encode(&writer, MQTT_VERSION_3_1, &connack);
    assert_written(&writer, "20 02 00 00");
    connack.reason = MQTT_SERVER_BUSY; /* and the flag must go */
    writer = writer_of(room, sizeof room);
    mqtt_connack_encode(&writer, MQTT_VERSION_5, &connack);
    assert_written(&writer, "20 03 00 89 00");

    struct packet body = packet_of(full_connack);
    assert_int_equal(mqtt_connack_decode(bytes_of_packet(&body), MQTT_VERSION_5, &connack),
                     MQTT_SUCCESS);
    assert_bytes(connack.assigned_client_id, "a");
    assert_bytes(connack.server_reference, "s");
    assert_int_equal(connack.server_keep_alive_s, 10);
    assert_int_equal(connack.maximum_qos, 1);
    assert_false(connack.retain_available || connack.wildcard_subscription_available ||
                 connack.subscription_identifier_available ||
                 connack.shared_subscription_available);
    writer = writer_of(room, sizeof room);
    mqtt_connack_encode(&writer, MQTT_VERSION_5, &connack);
    assert_written(&writer, "20 30 0000 2D 11 00000010 21 0005 24 01 25 00 27 00001000"
                            " 12 0001 'a' 22 0007 1F 0001 'r' 28 00 29 00 2A 00 13 000A"
                            " 1A 0001 'i' 1C 0001 's'");
}

static void return_codes(void **state)
{
    (void)state;
    static const struct {
        enum mqtt_reason reason;
        uint8_t code;
    } cases[] = {
        {MQTT_SUCCESS, 0},
        {MQTT_UNSUPPORTED_PROTOCOL_VERSION, 1},
        {MQTT_CLIENT_IDENTIFIER_NOT_VALID, 2},
        {MQTT_SERVER_UNAVAILABLE, 3},
        {MQTT_SERVER_BUSY, 3},
        {MQTT_QUOTA_EXCEEDED, 3},
        {MQTT_BAD_USER_NAME_OR_PASSWORD, 4},
        {MQTT_NOT_AUTHORIZED, 5},
        {MQTT_BANNED, 5},
        {MQTT_TOPIC_NAME_INVALID, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t room[4];
        struct mqtt_connack connack = mqtt_connack_of(cases[i].reason);
        struct writer writer = writer_of(room, sizeof room);
        mqtt_connack_encode(&writer, MQTT_VERSION_3_1_1, &connack);
        assert_true(writer_ok(&writer));
        assert_int_equal(room[3], cases[i].code);
        struct mqtt_connack again;
        assert_int_equal(mqtt_connack_decode(bytes_of(room + 2, 2), MQTT_VERSION_3_1_1, &again),
                         MQTT_SUCCESS);
        assert_int_equal(again.reason == MQTT_SUCCESS, cases[i].reason == MQTT_SUCCESS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_is_known), cmocka_unit_test(each_error_has_its_reason),
        cmocka_unit_test(all_fields_5),     cmocka_unit_test(defaults),
        cmocka_unit_test(round_trips),      cmocka_unit_test(long_packets_get_long_lengths),
        cmocka_unit_test(damage),           cmocka_unit_test(connack_errors),
        cmocka_unit_test(connack_encoding), cmocka_unit_test(return_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
