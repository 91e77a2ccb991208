/* The WebSocket decoder, without sockets: whatever the pieces in which bytes arrive, the events are
 * the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "mem.h"
#include "ws.h"

enum { LOG_BYTES = 64 * 1024 };

/* Events in one line of text; pieces of payload are joined, because their borders are free. */
struct record {
    char text[LOG_BYTES];
    size_t len;
    unsigned pieces;                 /* data events */
    struct ws_decoder *stop_at_data; /* stopped by the data event */
};

static void put(struct record *record, const char *text, struct bytes bytes)
{
    struct writer writer = writer_of(record->text + record->len, LOG_BYTES - record->len - 1);
    writer_bytes(&writer, bytes_of_string(text));
    writer_bytes(&writer, bytes);
    assert_true(writer_ok(&writer));
    record->len += writer_len(&writer);
    record->text[record->len] = 0;
}

static void on_begin(void *ctx, bool text)
{
    put(ctx, text ? "<T:" : "<B:", BYTES_EMPTY);
}

static void on_data(void *ctx, struct bytes bytes)
{
    struct record *record = ctx;
    assert_true(bytes.len != 0);
    put(record, "", bytes);
    record->pieces++;
    if (record->stop_at_data != NULL) {
        ws_decoder_stop(record->stop_at_data);
    }
}

static void on_end(void *ctx)
{
    put(ctx, ">", BYTES_EMPTY);
}

static void on_ping(void *ctx, struct bytes payload)
{
    put(ctx, "[ping ", payload);
    put(ctx, "]", BYTES_EMPTY);
}

static void on_pong(void *ctx)
{
    put(ctx, "[pong]", BYTES_EMPTY);
}

static void on_close(void *ctx, uint16_t code, struct bytes reason)
{
    char text[32];
    (void)snprintf(text, sizeof text, "[close %u ", code);
    put(ctx, text, reason);
    put(ctx, "]", BYTES_EMPTY);
}

static struct ws_sink sink_of(struct record *record, uint64_t message_bytes_max)
{
    return (struct ws_sink){on_begin, on_data,           on_end, on_ping, on_pong, on_close,
                            record,   message_bytes_max, true};
}

/* The same for a user to whom borders do not matter. */
static struct ws_sink stream_sink_of(struct record *record, uint64_t message_bytes_max)
{
    struct ws_sink sink = sink_of(record, message_bytes_max);
    sink.message_begin = NULL;
    sink.message_end = NULL;
    return sink;
}

/* Writes one masked frame. */
static void frame(struct writer *writer, uint8_t first, struct bytes payload)
{
    static const uint8_t key[4] = {0x5a, 0xff, 0x00, 0x13};
    writer_u8(writer, first);
    if (payload.len < 126) {
        writer_u8(writer, (uint8_t)(0x80 | payload.len));
    } else {
        writer_u8(writer, 0x80 | 126);
        writer_u16(writer, (uint16_t)payload.len);
    }
    writer_bytes(writer, bytes_of(key, sizeof key));
    for (size_t i = 0; i < payload.len; i++) {
        writer_u8(writer, payload.data[i] ^ key[i % 4]);
    }
}

static void frame_of_text(struct writer *writer, uint8_t first, const char *payload)
{
    frame(writer, first, bytes_of_string(payload));
}

static int setup(void **state)
{
    static struct ws_pool pool;
    *state = &pool;
    return 0;
}

static int teardown(void **state)
{
    ws_pool_fini(*state);
    return 0;
}

/* Feeds a copy, because the decoder unmasks in place, of exactly this size. */
static struct ws_verdict feed(struct ws_decoder *decoder, struct ws_pool *pool, struct bytes input,
                              const struct ws_sink *sink)
{
    uint8_t *copy = mem_alloc(input.len);
    assert_non_null(copy);
    bytes_copy(copy, input);
    struct ws_verdict verdict = ws_decoder_feed(decoder, pool, copy, input.len, sink);
    mem_free(copy);
    return verdict;
}

/* Feeds `input` in two pieces, cut at `cut`, to a new decoder and returns the final verdict's code.
 */
static uint16_t feed_cut(struct ws_pool *pool, struct bytes input, size_t cut,
                         const struct ws_sink *sink)
{
    struct ws_decoder decoder = {NULL};
    struct ws_verdict first = feed(&decoder, pool, bytes_of(input.data, cut), sink);
    struct ws_verdict second = feed(&decoder, pool, bytes_from(input, cut), sink);
    if (first.code != 0) {
        assert_int_equal(second.code, 0); /* a stopped decoder ignores what follows */
    }
    ws_decoder_fini(&decoder, pool);
    return first.code != 0 ? first.code : second.code;
}

/* `events` without the borders of messages. */
static const char *without_borders(const char *events)
{
    static char text[LOG_BYTES];
    size_t len = 0;
    for (; *events != 0; events++) {
        if (strncmp(events, "<T:", 3) == 0 || strncmp(events, "<B:", 3) == 0) {
            events += 2;
        } else if (*events != '>') {
            text[len++] = *events;
        }
    }
    text[len] = 0;
    return text;
}

static void expect_everywhere(struct ws_pool *pool, struct bytes input, const char *events,
                              uint16_t code)
{
    for (size_t cut = 0; cut <= input.len; cut++) {
        struct record record = {.len = 0};
        struct ws_sink sink = sink_of(&record, 1000);
        assert_int_equal(feed_cut(pool, input, cut, &sink), code);
        assert_string_equal(record.text, events);
        record.len = 0;
        record.text[0] = 0;
        sink = stream_sink_of(&record, 1000);
        assert_int_equal(feed_cut(pool, input, cut, &sink), code);
        assert_string_equal(record.text, without_borders(events));
    }
}

static void splits(void **state)
{
    uint8_t space[4096];
    struct writer writer = writer_of(space, sizeof space);
    frame_of_text(&writer, 0x81, "hello");
    frame_of_text(&writer, 0x02, "frag");
    frame_of_text(&writer, 0x89, "p1");
    frame_of_text(&writer, 0x00, "");
    frame_of_text(&writer, 0x8a, "unasked");
    frame_of_text(&writer, 0x80, "mented");
    frame_of_text(&writer, 0x81, "");
    frame_of_text(&writer, 0x81, "\xce\xba\xe1\xbd\xb9\xf0\x9d\x84\x9e");
    char long_text[300] = {0};
    memset(long_text, 'x', sizeof long_text - 1);
    frame_of_text(&writer, 0x82, long_text);
    frame_of_text(&writer, 0x88,
                  "\x03\xe9"
                  "bye");
    frame_of_text(&writer, 0x81, "after the end");
    assert_true(writer_ok(&writer));
    char events[1024];
    (void)snprintf(
        events, sizeof events,
        "<T:hello><B:frag[ping p1][pong]mented><T:><T:\xce\xba\xe1\xbd\xb9\xf0\x9d\x84\x9e>"
        "<B:%s>[close 1001 bye]",
        long_text);
    expect_everywhere(*state, writer_written(&writer), events, 0);
}

static void violations(void **state)
{
    static const struct {
        const char *payload;
        const char *events;
        uint16_t code;
        uint8_t first;
    } cases[] = {
        {"x", "<B:ok>", 1002, 0x83},
        {"x", "<B:ok>", 1002, 0xc1},
        {"x", "<B:ok>", 1002, 0x80},
        {"x", "<B:ok>", 1002, 0x09},
        {"\x01", "<B:ok>", 1002, 0x88},
        {"\x03\xed", "<B:ok>", 1002, 0x88},
        {"\x03\xe8\xff", "<B:ok>", 1007, 0x88},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t space[256];
        struct writer writer = writer_of(space, sizeof space);
        frame_of_text(&writer, 0x82, "ok");
        frame_of_text(&writer, cases[i].first, cases[i].payload);
        frame_of_text(&writer, 0x82, "never seen");
        expect_everywhere(*state, writer_written(&writer), cases[i].events, cases[i].code);
    }
}

/* Fed byte by byte, a header is refused as soon as the byte has come that spoils it, be there a
 * mask or not. */
static void broken_headers(void **state)
{
    static const struct {
        size_t verdict_at; /* bytes */
        size_t len;
        uint8_t bytes[16];
    } cases[] = {
        {2, 2, {0x88, 0xfe}},             /* a control frame has at most 125 bytes */
        {2, 2, {0x89, 0xff}},             /* 5.5 */
        {2, 2, {0x09, 0x80}},             /* and is not fragmented */
        {2, 6, {0x82, 0x00}},             /* no mask, and no payload either (5.1) */
        {3, 5, {0x82, 0x03, 'a', 'b'}},   /* no mask */
        {4, 4, {0x82, 0xfe, 0x00, 0x7d}}, /* not the shortest length (5.2) */
        {10, 10, {0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff}},
        {10, 10, {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1}}, /* more than 2^63 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct record record = {.len = 0};
        struct ws_sink sink = sink_of(&record, 0);
        struct ws_decoder decoder = {NULL};
        size_t at = 0;
        uint16_t code = 0;
        while (code == 0 && at < cases[i].len) {
            code = feed(&decoder, *state, bytes_of(cases[i].bytes + at, 1), &sink).code;
            at++;
        }
        assert_int_equal(code, 1002);
        assert_int_equal(at, cases[i].verdict_at);
        assert_int_equal(record.len, 0);
        ws_decoder_fini(&decoder, *state);
    }
}

/* Every length around the words that are unmasked at once, in two pieces of every size, and behind
 * a message that makes it move. */
static void unmasking(void **state)
{
    char payload[80] = {0};
    for (size_t len = 0; len < sizeof payload; len++) {
        uint8_t space[128];
        char events[128];
        struct writer writer = writer_of(space, sizeof space);
        frame_of_text(&writer, 0x82, "0");
        frame(&writer, 0x82, bytes_of(payload, len));
        (void)snprintf(events, sizeof events, "<B:0><B:%s>", payload);
        expect_everywhere(*state, writer_written(&writer), events, 0);
        payload[len] = (char)('A' + len % 50);
    }
}

static void message_limit(void **state)
{
    uint8_t space[4096];
    uint8_t payload[1001] = {0};
    memset(payload, 'x', sizeof payload);
    struct record record = {.len = 0};
    struct ws_sink sink = sink_of(&record, 1000);
    struct writer writer = writer_of(space, sizeof space);
    frame(&writer, 0x82, bytes_of(payload, 1000));
    assert_int_equal(feed_cut(*state, writer_written(&writer), 5, &sink), 0);
    writer = writer_of(space, sizeof space);
    frame(&writer, 0x82, bytes_of(payload, 1001));
    assert_int_equal(feed_cut(*state, writer_written(&writer), 5, &sink), 1009);
    writer = writer_of(space, sizeof space);
    frame(&writer, 0x02, bytes_of(payload, 1000));
    frame(&writer, 0x80, bytes_of(payload, 1));
    assert_int_equal(feed_cut(*state, writer_written(&writer), 5, &sink), 1009);
    record.len = 0;
    sink = sink_of(&record, 0);
    assert_int_equal(feed_cut(*state, writer_written(&writer), 5, &sink), 0);
}

/* Whole binary messages in a row come as one piece, and so do those behind what has to be taken
 * frame by frame. */
static void stream_is_joined(void **state)
{
    uint8_t space[2048];
    char long_text[300] = {0};
    memset(long_text, 'x', sizeof long_text - 1);
    struct record record = {.len = 0};
    struct ws_sink sink = stream_sink_of(&record, 0);
    struct writer writer = writer_of(space, sizeof space);
    frame_of_text(&writer, 0x82, "one ");
    frame_of_text(&writer, 0x82, "");
    frame_of_text(&writer, 0x82, long_text);
    frame_of_text(&writer, 0x89, "p");
    frame_of_text(&writer, 0x82, "two ");
    frame_of_text(&writer, 0x82, "three");
    assert_int_equal(feed_cut(*state, writer_written(&writer), 0, &sink), 0);
    char events[400];
    (void)snprintf(events, sizeof events, "one %s[ping p]two three", long_text);
    assert_string_equal(record.text, events);
    assert_int_equal(record.pieces, 2);
}

/* What is wrong with a message is found behind those before it. */
static void stream_violations(void **state)
{
    static const struct {
        uint8_t header[10];
        uint16_t code;
    } cases[] = {
        {{0x82, 0xfe, 0x00, 0x7d}, 1002}, /* not the shortest length (5.2) */
        {{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 9}, 1002},
        {{0x82, 0x09}, 1002},             /* no mask */
        {{0x82, 0xfe, 0x03, 0xe9}, 1009}, /* 1001 bytes */
        {{0xa2, 0x81}, 1002},             /* a reserved bit */
        {{0x80, 0x81}, 1002},             /* continues nothing */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t space[2048];
        struct record record = {.len = 0};
        struct ws_sink sink = stream_sink_of(&record, 1000);
        memset(space, 'x', sizeof space);
        struct writer writer = writer_of(space, sizeof space);
        frame_of_text(&writer, 0x82, "fine");
        writer_bytes(&writer, bytes_of(cases[i].header, sizeof cases[i].header));
        assert_int_equal(feed_cut(*state, bytes_of(space, sizeof space), 0, &sink), cases[i].code);
        assert_string_equal(record.text, "fine");
        assert_int_equal(record.len, 4);
    }
}

static void stream_may_stop(void **state)
{
    uint8_t space[64];
    struct record record = {.len = 0};
    struct ws_sink sink = stream_sink_of(&record, 0);
    struct ws_decoder decoder = {NULL};
    record.stop_at_data = &decoder;
    struct writer writer = writer_of(space, sizeof space);
    frame_of_text(&writer, 0x82, "one");
    frame_of_text(&writer, 0x89, "never seen");
    frame_of_text(&writer, 0x82, "never seen");
    assert_int_equal(feed(&decoder, *state, writer_written(&writer), &sink).code, 0);
    assert_int_equal(feed(&decoder, *state, writer_written(&writer), &sink).code, 0);
    assert_string_equal(record.text, "one");
    ws_decoder_fini(&decoder, *state);
}

static void text_must_be_allowed(void **state)
{
    uint8_t space[64];
    struct record record = {.len = 0};
    struct ws_sink sink = sink_of(&record, 0);
    struct ws_decoder decoder = {NULL};
    sink.allow_text = false;
    struct writer writer = writer_of(space, sizeof space);
    frame_of_text(&writer, 0x81, "x");
    assert_int_equal(feed(&decoder, *state, writer_written(&writer), &sink).code, 1003);
    assert_int_equal(record.len, 0);
}

static void idle_decoder_borrows_nothing(void **state)
{
    uint8_t space[64];
    struct record record = {.len = 0};
    struct ws_sink sink = sink_of(&record, 0);
    struct ws_decoder decoder = {NULL};
    struct ws_pool *pool = *state;
    struct writer writer = writer_of(space, sizeof space);
    frame_of_text(&writer, 0x81, "hello");
    struct bytes whole = writer_written(&writer);
    for (size_t len = 1; len < whole.len; len++) {
        assert_int_equal(feed(&decoder, pool, bytes_of(whole.data, len), &sink).code, 0);
        assert_non_null(decoder.frame);
        assert_int_equal(feed(&decoder, pool, bytes_from(whole, len), &sink).code, 0);
        assert_null(decoder.frame);
    }
    uint64_t allocations = mem_alloc_count();
    assert_int_equal(ws_decoder_feed(&decoder, pool, space, whole.len, &sink).code, 0);
    assert_int_equal(mem_alloc_count(), allocations);
    assert_int_equal(pool->free_count, 1);
}

static void callback_may_stop(void **state)
{
    uint8_t space[64];
    struct record record = {.len = 0};
    struct ws_sink sink = sink_of(&record, 0);
    struct ws_decoder decoder = {NULL};
    record.stop_at_data = &decoder;
    struct writer writer = writer_of(space, sizeof space);
    frame_of_text(&writer, 0x81, "one");
    frame_of_text(&writer, 0x81, "two");
    assert_int_equal(feed(&decoder, *state, writer_written(&writer), &sink).code, 0);
    assert_int_equal(feed(&decoder, *state, writer_written(&writer), &sink).code, 0);
    assert_string_equal(record.text, "<T:one");
    ws_decoder_fini(&decoder, *state);
    assert_int_equal(feed(&decoder, *state, writer_written(&writer), &sink).code, 0);
    assert_string_equal(record.text, "<T:one");
}

static void without_memory(void **state)
{
    uint8_t space[64];
    struct record record = {.len = 0};
    struct ws_sink sink = sink_of(&record, 0);
    struct ws_decoder decoder = {NULL};
    struct ws_pool pool = {NULL, 0};
    (void)state;
    struct writer writer = writer_of(space, sizeof space);
    frame_of_text(&writer, 0x81, "one");
    mem_fail_at(1);
    assert_int_equal(ws_decoder_feed(&decoder, &pool, space, writer_len(&writer), &sink).code,
                     1011);
    mem_fail_at(0);
    assert_int_equal(feed(&decoder, &pool, writer_written(&writer), &sink).code, 0);
    assert_int_equal(record.len, 0); /* it has stopped */
    ws_pool_fini(&pool);
}

/* A frame much longer than the library's buffer is delivered in one piece when it was fed in one.
 */
static void long_frames_are_not_chopped(void **state)
{
    static uint8_t space[40000];
    static uint8_t payload[30000];
    struct record record = {.len = 0};
    struct ws_sink sink = sink_of(&record, 0);
    struct ws_decoder decoder = {NULL};
    memset(payload, 'y', sizeof payload);
    struct writer writer = writer_of(space, sizeof space);
    frame(&writer, 0x82, bytes_of(payload, sizeof payload));
    record.stop_at_data = &decoder; /* the first piece is then the only one */
    assert_int_equal(feed(&decoder, *state, writer_written(&writer), &sink).code, 0);
    assert_int_equal(record.len, 3 + sizeof payload);
}

static void headers(void **state)
{
    (void)state;
    static const struct {
        uint64_t payload;
        size_t len;
        uint8_t bytes[10];
    } cases[] = {
        {0, 2, {0x82, 0}},
        {125, 2, {0x82, 125}},
        {126, 4, {0x82, 126, 0, 126}},
        {65535, 4, {0x82, 126, 0xff, 0xff}},
        {65536, 10, {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t out[WS_HEADER_MAX];
        size_t len = ws_header_write(out, WS_BINARY, cases[i].payload);
        assert_int_equal(len, cases[i].len);
        assert_memory_equal(out + WS_HEADER_MAX - len, cases[i].bytes, len);
    }
}

static void close_frames(void **state)
{
    (void)state;
    uint8_t out[WS_CONTROL_FRAME_MAX];
    char reason[200];
    assert_int_equal(ws_close_write(out, 1000, bytes_of_string("bye")), 7);
    assert_memory_equal(out,
                        "\x88\x05\x03\xe8"
                        "bye",
                        7);
    assert_int_equal(ws_close_write(out, WS_CLOSE_WITHOUT_CODE, BYTES_EMPTY), 2);
    memset(reason, 'a', sizeof reason);
    reason[122] = (char)0xc3;
    reason[123] = (char)0xbc; /* the character that does not fit is left out whole */
    assert_int_equal(ws_close_write(out, 1000, bytes_of(reason, sizeof reason)), 2 + 2 + 122);
    assert_int_equal(out[1], 124);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(splits, setup, teardown),
        cmocka_unit_test_setup_teardown(violations, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(unmasking, setup, teardown),
        cmocka_unit_test_setup_teardown(message_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(stream_is_joined, setup, teardown),
        cmocka_unit_test_setup_teardown(stream_violations, setup, teardown),
        cmocka_unit_test_setup_teardown(stream_may_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(text_must_be_allowed, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_decoder_borrows_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(callback_may_stop, setup, teardown),
        cmocka_unit_test(without_memory),
        cmocka_unit_test_setup_teardown(long_frames_are_not_chopped, setup, teardown),
        cmocka_unit_test(headers),
        cmocka_unit_test(close_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
