#include "protocol_support.h"

static enum mqtt_header_result header_of(const char *text, enum mqtt_version version,
                                         struct mqtt_header *out)
{
    struct packet packet = packet_of(text);
    struct bytes in = exact_copy(bytes_of_packet(&packet));
    enum mqtt_header_result result =
        version == 0 ? mqtt_header_decode(in, out) : mqtt_header_decode_as(in, version, out);
    exact_free(in);
    return result;
}

/* 2.1.3, for all 256 first bytes. */
static void header_flags(void **state)
{
    (void)state;
    for (unsigned first = 0; first <= 0xFF; first++) {
        unsigned type = first >> 4;
        unsigned flags = first & 0x0F;
        unsigned wanted = type == 6 || type == 8 || type == 10 ? 2 : 0;
        bool valid = type == 3 ? (flags & 6) != 6 : type != 0 && flags == wanted;
        uint8_t bytes[2] = {(uint8_t)first, 0};
        struct bytes in = bytes_of(bytes, 2);
        struct mqtt_header header;
        bool known = mqtt_header_decode(in, &header) == MQTT_HEADER_COMPLETE;
        assert_int_equal(known, valid);
        if (known) {
            assert_int_equal(header.type, type);
            assert_int_equal(header.flags, flags);
        }
        assert_int_equal(mqtt_header_decode_as(in, MQTT_VERSION_5, &header),
                         valid ? MQTT_HEADER_COMPLETE : MQTT_HEADER_MALFORMED);
        assert_int_equal(mqtt_header_decode_as(in, MQTT_VERSION_3_1_1, &header),
                         valid && type != 15 ? MQTT_HEADER_COMPLETE : MQTT_HEADER_MALFORMED);
        bool old = type == 3 || type == 1 ? valid : type != 0 && type != 15;
        assert_int_equal(mqtt_header_decode_as(in, MQTT_VERSION_3_1, &header),
                         old ? MQTT_HEADER_COMPLETE : MQTT_HEADER_MALFORMED);
        /* The first byte alone is enough to refuse. */
        assert_int_equal(mqtt_header_decode(bytes_of(bytes, 1), &header),
                         valid ? MQTT_HEADER_INCOMPLETE : MQTT_HEADER_MALFORMED);
    }
    struct mqtt_header header;
    assert_int_equal(mqtt_header_decode(BYTES_EMPTY, &header), MQTT_HEADER_INCOMPLETE);
}

static void header_lengths(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        uint32_t remaining;
        uint8_t len;
    } good[] = {
        {"3000", 0, 2},
        {"307F", 127, 2},
        {"308001", 128, 3},
        {"30FF7F", 16383, 3},
        {"30808001", 16384, 4},
        {"30FFFF7F", 2097151, 4},
        {"3080808001", 2097152, 5},
        {"30FFFFFF7F", 268435455, 5},
        {"308001 FFFF", 128, 3},
    };
    struct mqtt_header header;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(header_of(good[i].bytes, 0, &header), MQTT_HEADER_COMPLETE);
        assert_int_equal(header.remaining, good[i].remaining);
        assert_int_equal(header.header_len, good[i].len);
    }
    static const char *const cut[] = {"30", "3080", "30FFFF", "30FFFFFF"};
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        assert_int_equal(header_of(cut[i], 0, &header), MQTT_HEADER_INCOMPLETE);
    }
    assert_int_equal(header_of("30FFFFFFFF", 0, &header), MQTT_HEADER_MALFORMED);
    assert_int_equal(header_of("308080808001", 0, &header), MQTT_HEADER_MALFORMED);
    static const char *const padded[] = {"308000", "30818000", "3080808000"};
    for (size_t i = 0; i < sizeof padded / sizeof padded[0]; i++) {
        assert_int_equal(header_of(padded[i], 0, &header), MQTT_HEADER_COMPLETE);
        assert_int_equal(header_of(padded[i], MQTT_VERSION_3_1_1, &header), MQTT_HEADER_COMPLETE);
        assert_int_equal(header_of(padded[i], MQTT_VERSION_5, &header), MQTT_HEADER_MALFORMED);
    }
}

static void varints(void **state)
{
    (void)state;
    static const uint32_t edges[] = {0,     1,       127,     128,       16383,
                                     16384, 2097151, 2097152, 268435455, 4711};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        uint8_t room[4];
        struct writer writer = writer_of(room, sizeof room);
        mqtt_varint_write(&writer, edges[i]);
        assert_true(writer_ok(&writer));
        assert_int_equal(writer_len(&writer), mqtt_varint_len(edges[i]));
        struct reader reader = reader_of(writer_written(&writer));
        assert_int_equal(mqtt_varint_read(&reader), edges[i]);
        assert_true(reader_ok(&reader));
        assert_int_equal(reader_left(&reader), 0);
    }
    static const char *const bad[] = {"",           "80",   "FFFF", "FFFFFF", "FFFFFFFF",
                                      "8080808001", "8000", "FF00", "818000", "80808000"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct packet packet = packet_of(bad[i]);
        struct reader reader = reader_of(bytes_of_packet(&packet));
        assert_int_equal(mqtt_varint_read(&reader), 0);
        assert_false(reader_ok(&reader));
    }
}

static void strings(void **state)
{
    (void)state;
    struct packet packet = packet_of("0003 'abc' 0000 0002 C3A9 0002 FF00 0001 00");
    struct reader reader = reader_of(bytes_of_packet(&packet));
    assert_bytes(mqtt_string_read(&reader), "abc");
    assert_bytes(mqtt_string_read(&reader), "");
    assert_bytes(mqtt_string_read(&reader), "\xC3\xA9");
    assert_int_equal(mqtt_binary_read(&reader).len, 2);
    assert_true(reader_ok(&reader));
    (void)mqtt_string_read(&reader);
    assert_false(reader_ok(&reader));

    static const char *const cut[] = {"", "00", "0003 'ab'", "FFFF 'ab'"};
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        struct packet short_packet = packet_of(cut[i]);
        reader = reader_of(bytes_of_packet(&short_packet));
        (void)mqtt_binary_read(&reader);
        assert_false(reader_ok(&reader));
    }
    uint8_t room[6];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_string_write(&writer, bytes_of_string("abcd"));
    assert_written(&writer, "0004 'abcd'");
    writer = writer_of(room, 5);
    mqtt_string_write(&writer, bytes_of_string("abcd"));
    assert_false(writer_ok(&writer));
}

/* Table 2-4, typed in once more: identifier, where it may stand, and a good value in bytes. */
enum {
    AT_CONNECT = MQTT_PLACE_CONNECT,
    AT_CONNACK = MQTT_PLACE_CONNACK,
    AT_MESSAGE = MQTT_PLACE_PUBLISH | MQTT_PLACE_WILL,
    AT_CONNECTION = AT_CONNECT | AT_CONNACK,
    AT_ALL = 0x3FF,
};
static const struct {
    unsigned id;
    unsigned places;
    const char *value;
} table[] = {
    {1, AT_MESSAGE, "01"},
    {2, AT_MESSAGE, "00000001"},
    {3, AT_MESSAGE, "0001 'a'"},
    {8, AT_MESSAGE, "0001 'a'"},
    {9, AT_MESSAGE, "0001 FF"},
    {11, MQTT_PLACE_PUBLISH | MQTT_PLACE_SUBSCRIBE, "01"},
    {17, AT_CONNECTION | MQTT_PLACE_DISCONNECT, "00000000"},
    {18, AT_CONNACK, "0001 'a'"},
    {19, AT_CONNACK, "0000"},
    {21, AT_CONNECTION | MQTT_PLACE_AUTH, "0001 'a'"},
    {22, AT_CONNECTION | MQTT_PLACE_AUTH, "0001 FF"},
    {23, AT_CONNECT, "00"},
    {24, MQTT_PLACE_WILL, "00000000"},
    {25, AT_CONNECT, "01"},
    {26, AT_CONNACK, "0001 'a'"},
    {28, AT_CONNACK | MQTT_PLACE_DISCONNECT, "0001 'a'"},
    {31,
     AT_CONNACK | MQTT_PLACE_PUBACK | MQTT_PLACE_SUBACK | MQTT_PLACE_DISCONNECT | MQTT_PLACE_AUTH,
     "0001 'a'"},
    {33, AT_CONNECTION, "0001"},
    {34, AT_CONNECTION, "0000"},
    {35, MQTT_PLACE_PUBLISH, "0001"},
    {36, AT_CONNACK, "01"},
    {37, AT_CONNACK, "01"},
    {38, AT_ALL, "0001 'a' 0000"},
    {39, AT_CONNECTION, "00000001"},
    {40, AT_CONNACK, "01"},
    {41, AT_CONNACK, "00"},
    {42, AT_CONNACK, "01"},
};

static enum mqtt_reason read_list(struct bytes list, enum mqtt_property_place place, size_t *count)
{
    struct bytes copy = exact_copy(list);
    struct mqtt_properties properties;
    mqtt_properties_open_raw(&properties, copy, place);
    struct mqtt_property property;
    *count = 0;
    while (mqtt_properties_next(&properties, &property)) {
        touch(property.name);
        touch(property.value);
        ++*count;
    }
    assert_false(mqtt_properties_next(&properties, &property));
    exact_free(copy);
    return mqtt_properties_reason(&properties);
}

static const char *value_of(unsigned id, unsigned *places)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].id == id) {
            *places = table[i].places;
            return table[i].value;
        }
    }
    *places = 0;
    return "00000000";
}

/* What holds for a property at a place where it may stand. */
static void check_allowed(struct packet *list, enum mqtt_property_place place)
{
    size_t count;
    for (size_t len = 1; len < list->len; len++) {
        assert_int_equal(read_list(bytes_of(list->data, len), place, &count),
                         MQTT_MALFORMED_PACKET);
    }
    unsigned id = list->data[0];
    bool repeats = id == 38 || (id == 11 && place == MQTT_PLACE_PUBLISH);
    memcpy(list->data + list->len, list->data, list->len);
    list->len *= 2;
    assert_int_equal(read_list(bytes_of_packet(list), place, &count),
                     repeats ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR);
    assert_int_equal(count, repeats ? 2 : 1);
}

static void check_property(unsigned id, enum mqtt_property_place place)
{
    unsigned places;
    struct packet value = packet_of(value_of(id, &places));
    struct packet list = {{(uint8_t)id}, 1 + value.len};
    memcpy(list.data + 1, value.data, value.len);
    bool allowed = (places & (unsigned)place) != 0;
    size_t count;
    enum mqtt_reason reason = read_list(bytes_of_packet(&list), place, &count);
    if (reason != (allowed ? MQTT_SUCCESS : MQTT_MALFORMED_PACKET)) {
        fail_msg("property %u at place %u: 0x%02X", id, (unsigned)place, (unsigned)reason);
    }
    assert_int_equal(count, allowed);
    if (allowed) {
        check_allowed(&list, place);
    }
}

static void property_table(void **state)
{
    (void)state;
    for (unsigned id = 0; id < 128; id++) {
        for (unsigned place = 1; place <= MQTT_PLACE_AUTH; place <<= 1) {
            check_property(id, (enum mqtt_property_place)place);
        }
    }
}

static void property_values(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        enum mqtt_property_place place;
        enum mqtt_reason reason;
    } cases[] = {
        {"01 02", MQTT_PLACE_PUBLISH, MQTT_PROTOCOL_ERROR},
        {"17 02", MQTT_PLACE_CONNECT, MQTT_PROTOCOL_ERROR},
        {"19 FF", MQTT_PLACE_CONNECT, MQTT_PROTOCOL_ERROR},
        {"24 02", MQTT_PLACE_CONNACK, MQTT_PROTOCOL_ERROR},
        {"25 02", MQTT_PLACE_CONNACK, MQTT_PROTOCOL_ERROR},
        {"28 02", MQTT_PLACE_CONNACK, MQTT_PROTOCOL_ERROR},
        {"29 02", MQTT_PLACE_CONNACK, MQTT_PROTOCOL_ERROR},
        {"2A 02", MQTT_PLACE_CONNACK, MQTT_PROTOCOL_ERROR},
        {"21 0000", MQTT_PLACE_CONNECT, MQTT_PROTOCOL_ERROR},
        {"27 00000000", MQTT_PLACE_CONNECT, MQTT_PROTOCOL_ERROR},
        {"0B 00", MQTT_PLACE_SUBSCRIBE, MQTT_PROTOCOL_ERROR},
        {"0B FFFFFF7F", MQTT_PLACE_SUBSCRIBE, MQTT_SUCCESS},
        {"0B FFFFFFFF01", MQTT_PLACE_SUBSCRIBE, MQTT_MALFORMED_PACKET},
        {"0B 8000", MQTT_PLACE_SUBSCRIBE, MQTT_MALFORMED_PACKET},
        {"8B00 01", MQTT_PLACE_SUBSCRIBE, MQTT_MALFORMED_PACKET}, /* identifier not shortest */
        {"8B01 01", MQTT_PLACE_SUBSCRIBE, MQTT_MALFORMED_PACKET}, /* identifier 139 */
        {"08 0000", MQTT_PLACE_PUBLISH, MQTT_PROTOCOL_ERROR},
        {"08 0001 '+'", MQTT_PLACE_PUBLISH, MQTT_PROTOCOL_ERROR},
        {"08 0003 'a/#'", MQTT_PLACE_WILL, MQTT_PROTOCOL_ERROR},
        {"08 0001 FF", MQTT_PLACE_PUBLISH, MQTT_MALFORMED_PACKET},
        {"03 0001 FF", MQTT_PLACE_PUBLISH, MQTT_MALFORMED_PACKET},
        {"26 0001 FF 0000", MQTT_PLACE_PUBLISH, MQTT_MALFORMED_PACKET},
        {"26 0000 0001 00", MQTT_PLACE_PUBLISH, MQTT_MALFORMED_PACKET},
        {"", MQTT_PLACE_PUBLISH, MQTT_SUCCESS},
    };
    size_t count;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct packet list = packet_of(cases[i].list);
        enum mqtt_reason reason = read_list(bytes_of_packet(&list), cases[i].place, &count);
        if (reason != cases[i].reason) {
            fail_msg("%s: 0x%02X", cases[i].list, (unsigned)reason);
        }
    }
}

static void property_lengths(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     "01",         "06 230001", "80",
                                      "8000", "FFFFFFFF7F", "02 230001"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct packet packet = packet_of(bad[i]);
        struct reader reader = reader_of(bytes_of_packet(&packet));
        struct mqtt_properties properties;
        mqtt_properties_open(&properties, &reader, MQTT_PLACE_PUBLISH);
        struct mqtt_property property;
        while (mqtt_properties_next(&properties, &property)) {
        }
        assert_int_equal(mqtt_properties_reason(&properties), MQTT_MALFORMED_PACKET);
    }
    struct packet packet = packet_of("03 230001 'rest'");
    struct reader reader = reader_of(bytes_of_packet(&packet));
    struct mqtt_properties properties;
    mqtt_properties_open(&properties, &reader, MQTT_PLACE_PUBLISH);
    struct mqtt_property property;
    assert_true(mqtt_properties_next(&properties, &property));
    assert_int_equal(property.id, MQTT_PROPERTY_TOPIC_ALIAS);
    assert_int_equal(property.number, 1);
    assert_false(mqtt_properties_next(&properties, &property));
    assert_int_equal(mqtt_properties_reason(&properties), MQTT_SUCCESS);
    assert_bytes(reader_rest(&reader), "rest");
}

static void property_encoding(void **state)
{
    (void)state;
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    mqtt_property_write_number(&writer, MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR, 1);
    mqtt_property_write_number(&writer, MQTT_PROPERTY_RECEIVE_MAXIMUM, 0x1234);
    mqtt_property_write_number(&writer, MQTT_PROPERTY_WILL_DELAY_INTERVAL, 0x12345678);
    mqtt_property_write_number(&writer, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, 128);
    mqtt_property_write_bytes(&writer, MQTT_PROPERTY_CONTENT_TYPE, bytes_of_string("t"));
    mqtt_property_write_bytes(&writer, MQTT_PROPERTY_CORRELATION_DATA, BYTES_EMPTY);
    mqtt_property_write_pair(&writer, bytes_of_string("n"), bytes_of_string("v"));
    assert_written(&writer,
                   "0101 211234 1812345678 0B8001 03 0001 't' 09 0000 26 0001 'n' 0001 'v'");
}

static void names_are_never_missing(void **state)
{
    (void)state;
    for (int code = -1; code < 300; code++) {
        assert_non_null(mqtt_reason_name((enum mqtt_reason)code));
        assert_non_null(mqtt_type_name((enum mqtt_type)code));
    }
    assert_string_equal(mqtt_reason_name(MQTT_SESSION_TAKEN_OVER), "Session taken over");
    assert_string_equal(mqtt_reason_name((enum mqtt_reason)3), "Unknown reason");
    assert_string_equal(mqtt_type_name(MQTT_PUBREL), "PUBREL");
    assert_string_equal(mqtt_type_name((enum mqtt_type)16), "unknown packet");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_flags),
        cmocka_unit_test(header_lengths),
        cmocka_unit_test(varints),
        cmocka_unit_test(strings),
        cmocka_unit_test(property_table),
        cmocka_unit_test(property_values),
        cmocka_unit_test(property_lengths),
        cmocka_unit_test(property_encoding),
        cmocka_unit_test(names_are_never_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
