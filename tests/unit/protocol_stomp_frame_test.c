#include "protocol_support.h"

#include <stdio.h>

#include "stomp_frame.h"

enum { FRAME_MAX = 64 * 1024 };

static uint8_t scratch[STOMP_HEAD_BYTES_MAX];

/* Scans a whole input and decodes it. */
static enum stomp_result decode(struct bytes in, enum stomp_version version,
                                struct stomp_frame *out)
{
    struct stomp_scan scan = {0};
    enum stomp_result result = stomp_frame_scan(&scan, in, FRAME_MAX);
    *out = (struct stomp_frame){.header_count = 0}; /* what a failed scan leaves */
    if (result == STOMP_OK) {
        result = stomp_frame_decode(in, &scan, version, scratch, out);
    }
    return result;
}

static void check_header(const struct stomp_frame *frame, const char *name, const char *value)
{
    struct bytes found;
    assert_true(stomp_frame_header(frame, name, &found));
    assert_int_equal(found.len, strlen(value));
    assert_memory_equal(found.data, value, found.len);
}

#define LITERAL(text) bytes_of(text, sizeof(text) - 1)
#define CONSTANT(text)                                                                             \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }

static void whole_frames(void **state)
{
    (void)state;
    struct stomp_frame frame;
    assert_int_equal(
        decode(LITERAL("SEND\ndestination:/topic/a\nx:1\nx:2\n\nbody\0"), STOMP_1_2, &frame),
        STOMP_OK);
    assert_int_equal(frame.command, STOMP_SEND);
    assert_int_equal(frame.header_count, 3);
    check_header(&frame, "destination", "/topic/a");
    check_header(&frame, "x", "1"); /* the first counts */
    assert_true(bytes_equal_string(frame.body, "body"));

    assert_int_equal(decode(LITERAL("CONNECT\r\naccept-version:1.2\r\nempty:\r\n\r\n\0"),
                            STOMP_VERSION_NONE, &frame),
                     STOMP_OK);
    assert_int_equal(frame.command, STOMP_CONNECT);
    check_header(&frame, "accept-version", "1.2");
    check_header(&frame, "empty", "");
    assert_int_equal(frame.body.len, 0);

    assert_int_equal(decode(LITERAL("SEND\ncontent-length:3\n\na\0b\0"), STOMP_1_2, &frame),
                     STOMP_OK);
    assert_int_equal(frame.body.len, 3);
    assert_memory_equal(frame.body.data, "a\0b", 3);

    assert_int_equal(decode(LITERAL("HELLO\n\n\0"), STOMP_1_2, &frame), STOMP_OK);
    assert_int_equal(frame.command, STOMP_UNKNOWN);
    assert_true(bytes_equal_string(frame.command_name, "HELLO"));
}

static void every_command(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum stomp_command command;
    } all[] = {
        {"CONNECT", STOMP_CONNECT},
        {"STOMP", STOMP_CONNECT},
        {"SEND", STOMP_SEND},
        {"SUBSCRIBE", STOMP_SUBSCRIBE},
        {"UNSUBSCRIBE", STOMP_UNSUBSCRIBE},
        {"ACK", STOMP_ACK},
        {"NACK", STOMP_NACK},
        {"BEGIN", STOMP_BEGIN},
        {"COMMIT", STOMP_COMMIT},
        {"ABORT", STOMP_ABORT},
        {"DISCONNECT", STOMP_DISCONNECT},
        {"MESSAGE", STOMP_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char text[64];
        int len = snprintf(text, sizeof text, "%s\n\n", all[i].name);
        struct stomp_frame frame;
        assert_int_equal(decode(bytes_of(text, (size_t)len + 1), STOMP_1_2, &frame), STOMP_OK);
        assert_int_equal(frame.command, all[i].command);
    }
}

/* The same frame cut at every point, and byte by byte, from blocks of exactly the size that is
 * there: a read past the end would be found. */
static void every_split(void **state)
{
    (void)state;
    static const struct bytes frames[] = {
        CONSTANT("SEND\ndestination:/queue/a\ncontent-length:5\n\nab\0cd\0"),
        CONSTANT("SEND\r\ndestination:/queue/a\r\n\r\nhello\0"),
        CONSTANT("DISCONNECT\nreceipt:77\n\n\0"),
    };
    for (size_t f = 0; f < sizeof frames / sizeof frames[0]; f++) {
        struct bytes whole = frames[f];
        for (size_t step = 1; step < whole.len; step++) {
            struct stomp_scan scan = {0};
            for (size_t len = step; len < whole.len; len += step) {
                uint8_t *copy = test_malloc(len);
                memcpy(copy, whole.data, len);
                assert_int_equal(stomp_frame_scan(&scan, bytes_of(copy, len), FRAME_MAX),
                                 STOMP_MORE);
                test_free(copy);
            }
            assert_int_equal(stomp_frame_scan(&scan, whole, FRAME_MAX), STOMP_OK);
            assert_int_equal(scan.frame_len, whole.len);
        }
        /* What stands behind the frame is not its business. */
        uint8_t more[128];
        memcpy(more, whole.data, whole.len);
        memset(more + whole.len, 'x', sizeof more - whole.len);
        struct stomp_scan scan = {0};
        assert_int_equal(stomp_frame_scan(&scan, bytes_of(more, sizeof more), FRAME_MAX), STOMP_OK);
        assert_int_equal(scan.frame_len, whole.len);
    }
}

static void malformed(void **state)
{
    (void)state;
    static const struct {
        struct bytes in;
        enum stomp_version version;
        enum stomp_result result;
    } cases[] = {
        {CONSTANT("SEND\nno colon\n\n\0"), STOMP_1_2, STOMP_BAD_HEAD},
        {CONSTANT("SEND\n:no name\n\n\0"), STOMP_1_2, STOMP_BAD_HEAD},
        {CONSTANT("SEND\na:\0b\n\n\0"), STOMP_1_2, STOMP_BAD_HEAD},
        {CONSTANT("SEND\0"), STOMP_1_2, STOMP_BAD_HEAD},
        {CONSTANT("\x10\x0c\0\4MQTT"), STOMP_1_2, STOMP_BAD_HEAD},
        {CONSTANT("GET / HTTP/1.1\r\n"), STOMP_1_2, STOMP_BAD_HEAD},
        {CONSTANT("ABCDEFGHIJKLMNOPQ"), STOMP_1_2, STOMP_BAD_HEAD},
        {CONSTANT("SEND\ncontent-length:x\n\n\0"), STOMP_1_2, STOMP_BAD_LENGTH},
        {CONSTANT("SEND\ncontent-length:\n\n\0"), STOMP_1_2, STOMP_BAD_LENGTH},
        {CONSTANT("SEND\ncontent-length:-1\n\n\0"), STOMP_1_2, STOMP_BAD_LENGTH},
        {CONSTANT("SEND\ncontent-length:99999999999999999999\n\n\0"), STOMP_1_2, STOMP_BAD_LENGTH},
        {CONSTANT("SEND\ncontent-length:18446744073709551615\n\n\0"), STOMP_1_2, STOMP_TOO_LARGE},
        {CONSTANT("SEND\ncontent-length:70000\n\n\0"), STOMP_1_2, STOMP_TOO_LARGE},
        {CONSTANT("SEND\ncontent-length:1\n\nab\0"), STOMP_1_2, STOMP_BAD_LENGTH},
        {CONSTANT("SEND\na:\\t\n\n\0"), STOMP_1_2, STOMP_BAD_ESCAPE},
        {CONSTANT("SEND\na\\:b\n\n\0"), STOMP_1_2, STOMP_BAD_ESCAPE},
        {CONSTANT("SEND\na:b\\\n\n\0"), STOMP_1_2, STOMP_BAD_ESCAPE},
        {CONSTANT("SEND\na:\\r\n\n\0"), STOMP_1_1, STOMP_BAD_ESCAPE},
        {CONSTANT("SEND\na:\xff\n\n\0"), STOMP_1_2, STOMP_BAD_UTF8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct stomp_frame frame;
        assert_int_equal(decode(cases[i].in, cases[i].version, &frame), cases[i].result);
        assert_true(strlen(stomp_result_text(cases[i].result)) > 10);
    }
}

static void limits(void **state)
{
    (void)state;
    uint8_t *big = test_malloc(FRAME_MAX + 2);
    memset(big, 'a', FRAME_MAX + 2);
    memcpy(big, "SEND\n", 5);
    struct stomp_scan scan = {0};
    assert_int_equal(stomp_frame_scan(&scan, bytes_of(big, STOMP_HEAD_BYTES_MAX - 1), FRAME_MAX),
                     STOMP_MORE);
    assert_int_equal(stomp_frame_scan(&scan, bytes_of(big, STOMP_HEAD_BYTES_MAX), FRAME_MAX),
                     STOMP_HEAD_TOO_LARGE);
    /* A body without content-length is stopped by the frame's limit. */
    memcpy(big, "SEND\n\n", 6);
    scan = (struct stomp_scan){0};
    assert_int_equal(stomp_frame_scan(&scan, bytes_of(big, FRAME_MAX), FRAME_MAX), STOMP_MORE);
    assert_int_equal(stomp_frame_scan(&scan, bytes_of(big, FRAME_MAX + 1), FRAME_MAX),
                     STOMP_TOO_LARGE);
    big[FRAME_MAX - 1] = 0;
    scan = (struct stomp_scan){0};
    assert_int_equal(stomp_frame_scan(&scan, bytes_of(big, FRAME_MAX), FRAME_MAX), STOMP_OK);
    /* Headers are counted. */
    for (unsigned count = STOMP_HEADERS_MAX; count <= STOMP_HEADERS_MAX + 1; count++) {
        struct writer writer = writer_of(big, FRAME_MAX);
        stomp_write_command(&writer, "SEND");
        for (unsigned i = 0; i < count; i++) {
            stomp_write_number(&writer, "n", i);
        }
        stomp_write_head_end(&writer);
        stomp_write_end(&writer);
        struct stomp_frame frame;
        assert_int_equal(decode(writer_written(&writer), STOMP_1_2, &frame),
                         count == STOMP_HEADERS_MAX ? STOMP_OK : STOMP_HEAD_TOO_LARGE);
    }
    test_free(big);
}

/* What each version makes of the same name and value. */
static void escapes(void **state)
{
    (void)state;
    static const struct {
        enum stomp_version version;
        const char *line;
        const char *name;
        const char *value;
    } cases[] = {
        {STOMP_1_2, "a\\cb:c\\\\d\\ne\\rf\\cg\n", "a:b", "c\\d\ne\rf:g"},
        {STOMP_1_1, "a\\cb:c\\\\d\\ne f\\cg\n", "a:b", "c\\d\ne f:g"},
        {STOMP_1_0, "ab:c\\d e f:g\n", "ab", "c\\d e f:g"},
        {STOMP_VERSION_NONE, "ab:c\\d e f:g\n", "ab", "c\\d e f:g"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t data[256];
        struct writer writer = writer_of(data, sizeof data);
        stomp_write_header(&writer, cases[i].version, bytes_of_string(cases[i].name),
                           bytes_of_string(cases[i].value));
        assert_true(bytes_equal_string(writer_written(&writer), cases[i].line));
        assert_true(writer_len(&writer) <=
                    stomp_header_room(strlen(cases[i].name), strlen(cases[i].value)));
        writer = writer_of(data, sizeof data);
        stomp_write_command(&writer, "SEND");
        writer_bytes(&writer, bytes_of_string(cases[i].line));
        stomp_write_head_end(&writer);
        stomp_write_end(&writer);
        struct stomp_frame frame;
        assert_int_equal(decode(writer_written(&writer), cases[i].version, &frame), STOMP_OK);
        check_header(&frame, cases[i].name, cases[i].value);
    }
}

/* Nobody gets a header, or a frame, out of a value. */
static void no_injection(void **state)
{
    (void)state;
    static const enum stomp_version versions[] = {STOMP_VERSION_NONE, STOMP_1_0, STOMP_1_1,
                                                  STOMP_1_2};
    for (size_t i = 0; i < 4; i++) {
        uint8_t data[256];
        struct writer writer = writer_of(data, sizeof data);
        stomp_write_command(&writer, "MESSAGE");
        stomp_write_header(&writer, versions[i], LITERAL("a"), LITERAL("1\nb:2\r\n\r\nEVIL"));
        stomp_write_header(&writer, versions[i], LITERAL("c"), LITERAL("1\0"));
        stomp_write_header(&writer, versions[i], LITERAL("d\0e"), LITERAL("1"));
        stomp_write_header(&writer, versions[i], BYTES_EMPTY, LITERAL("1"));
        stomp_write_header(&writer, versions[i], LITERAL("f\ng:h"), LITERAL("1"));
        stomp_write_head_end(&writer);
        stomp_write_end(&writer);
        struct stomp_frame frame;
        assert_int_equal(decode(writer_written(&writer), versions[i], &frame), STOMP_OK);
        struct bytes value;
        assert_int_equal(frame.header_count, versions[i] >= STOMP_1_1 ? 2 : 1);
        assert_true(stomp_frame_header(&frame, "a", &value));
        assert_false(stomp_frame_header(&frame, "b", &value));
        assert_int_equal(frame.body.len, 0);
    }
}

/* Random names and values come back from 1.2 as they went in. */
static void random_headers(void **state)
{
    (void)state;
    static const char alphabet[] = "ab:\\\n\r\tn c";
    uint32_t seed = 1;
    for (unsigned round = 0; round < 20000; round++) {
        char text[2][24];
        size_t len[2];
        for (unsigned part = 0; part < 2; part++) {
            seed = seed * 1664525 + 1013904223;
            len[part] = (seed >> 16) % 20 + (part == 0);
            for (size_t i = 0; i < len[part]; i++) {
                seed = seed * 1664525 + 1013904223;
                text[part][i] = alphabet[(seed >> 16) % (sizeof alphabet - 1)];
            }
            text[part][len[part]] = '\0';
        }
        uint8_t data[256];
        struct writer writer = writer_of(data, sizeof data);
        stomp_write_command(&writer, "SEND");
        stomp_write_header(&writer, STOMP_1_2, bytes_of(text[0], len[0]),
                           bytes_of(text[1], len[1]));
        stomp_write_head_end(&writer);
        stomp_write_end(&writer);
        struct stomp_frame frame;
        assert_int_equal(decode(writer_written(&writer), STOMP_1_2, &frame), STOMP_OK);
        assert_int_equal(frame.header_count, 1);
        check_header(&frame, text[0], text[1]);
    }
}

static void numbers(void **state)
{
    (void)state;
    uint64_t value = 0;
    assert_true(stomp_number_read(LITERAL("0"), 10, &value));
    assert_int_equal(value, 0);
    assert_true(stomp_number_read(LITERAL("0010"), 10, &value));
    assert_int_equal(value, 10);
    assert_false(stomp_number_read(LITERAL("11"), 10, &value));
    assert_false(stomp_number_read(LITERAL("5"), 3, &value));
    assert_false(stomp_number_read(LITERAL("1 "), 10, &value));
    assert_false(stomp_number_read(BYTES_EMPTY, 10, &value));
    assert_true(stomp_number_read(LITERAL("18446744073709551615"), UINT64_MAX, &value));
    assert_true(value == UINT64_MAX);
    assert_false(stomp_number_read(LITERAL("18446744073709551616"), UINT64_MAX, &value));
}

static void line_ends(void **state)
{
    (void)state;
    assert_int_equal(stomp_skip_line_ends(LITERAL("\n\r\n\nA\n")).len, 2);
    assert_int_equal(stomp_skip_line_ends(LITERAL("\n\n")).len, 0);
    assert_int_equal(stomp_skip_line_ends(BYTES_EMPTY).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_frames), cmocka_unit_test(every_command),
        cmocka_unit_test(every_split),  cmocka_unit_test(malformed),
        cmocka_unit_test(limits),       cmocka_unit_test(escapes),
        cmocka_unit_test(no_injection), cmocka_unit_test(random_headers),
        cmocka_unit_test(numbers),      cmocka_unit_test(line_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
