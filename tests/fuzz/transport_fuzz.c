/*
 * The first byte chooses: an HTTP head and the decision about it, or WebSocket frames. The second
 * says where the rest is cut in two; both ways of feeding it must end the same.
 */
#include <stddef.h>
#include <stdint.h>

#include "http_head.h"
#include "mem.h"
#include "ws.h"
#include "ws_handshake.h"

struct outcome {
    uint64_t payload_hash; /* with the borders of messages */
    uint64_t stream_hash;  /* without */
    size_t messages, pings, pongs;
    uint16_t close_code, verdict;
};

static void on_begin(void *ctx, bool text)
{
    struct outcome *outcome = ctx;
    outcome->messages += text ? 2 : 1;
}

static void on_data(void *ctx, struct bytes bytes)
{
    struct outcome *outcome = ctx;
    for (size_t i = 0; i < bytes.len; i++) {
        outcome->payload_hash = (outcome->payload_hash ^ bytes.data[i]) * 0x100000001b3U;
        outcome->stream_hash = (outcome->stream_hash ^ bytes.data[i]) * 0x100000001b3U;
    }
}

static void on_end(void *ctx)
{
    struct outcome *outcome = ctx;
    outcome->payload_hash += 1;
}

static void on_ping(void *ctx, struct bytes payload)
{
    struct outcome *outcome = ctx;
    outcome->pings++;
    on_data(ctx, payload);
}

static void on_pong(void *ctx)
{
    struct outcome *outcome = ctx;
    outcome->pongs++;
}

static void on_close(void *ctx, uint16_t code, struct bytes reason)
{
    struct outcome *outcome = ctx;
    outcome->close_code = code;
    ENSURE(utf8_is_valid(reason));
}

/* Feeds a copy of exactly this size: the decoder unmasks in place. */
static uint16_t feed(struct ws_decoder *decoder, struct ws_pool *pool, struct bytes input,
                     const struct ws_sink *sink)
{
    uint8_t *copy = mem_alloc(input.len);
    ENSURE(copy != NULL);
    bytes_copy(copy, input);
    uint16_t code = ws_decoder_feed(decoder, pool, copy, input.len, sink).code;
    mem_free(copy);
    return code;
}

/* In one piece and in two, with the borders of messages and without. Payload that is delivered
 * before a violation is found depends on the pieces, so it only counts without one. */
static void fuzz_frames(struct bytes input, size_t cut)
{
    struct outcome outcomes[4] = {{0}, {0}, {0}, {0}};
    struct ws_pool pool = {NULL, 0};
    for (int i = 0; i < 4; i++) {
        struct ws_sink sink = {on_begin, on_data,      on_end, on_ping, on_pong,
                               on_close, &outcomes[i], 100000, true};
        struct ws_decoder decoder = {NULL};
        size_t first = i % 2 == 0 ? input.len : cut;
        if (i >= 2) {
            sink.message_begin = NULL;
            sink.message_end = NULL;
        }
        outcomes[i].verdict = feed(&decoder, &pool, bytes_of(input.data, first), &sink);
        if (outcomes[i].verdict == 0) {
            outcomes[i].verdict = feed(&decoder, &pool, bytes_from(input, first), &sink);
        }
        ws_decoder_fini(&decoder, &pool);
    }
    for (int i = 1; i < 4; i++) {
        ENSURE(outcomes[0].verdict == outcomes[i].verdict);
        if (outcomes[0].verdict == 0) {
            ENSURE(outcomes[0].stream_hash == outcomes[i].stream_hash);
            ENSURE(outcomes[0].pings == outcomes[i].pings);
            ENSURE(outcomes[0].pongs == outcomes[i].pongs);
            ENSURE(outcomes[0].close_code == outcomes[i].close_code);
        }
    }
    if (outcomes[0].verdict == 0) {
        ENSURE(outcomes[0].payload_hash == outcomes[1].payload_hash);
        ENSURE(outcomes[0].messages == outcomes[1].messages);
    }
    ws_pool_fini(&pool);
}

static enum http_head_result parse(struct bytes input, size_t cut, size_t *consumed,
                                   struct ws_handshake *answer)
{
    static const char *const names[] = {"mqtt", "mqttv3.1"};
    struct listener_options options = {.subprotocols = names, .subprotocol_count = 2};
    struct http_head *head = http_head_create(1000, true);
    *consumed = 0;
    answer->response_len = 0;
    if (head == NULL) {
        return HTTP_HEAD_NO_MEMORY;
    }
    enum http_head_result result = http_head_feed(head, bytes_of(input.data, cut), consumed);
    if (result == HTTP_HEAD_MORE) {
        size_t more;
        result = http_head_feed(head, bytes_from(input, cut), &more);
        *consumed += more;
    }
    if (result == HTTP_HEAD_DONE) {
        ws_handshake_decide(head, &options, false, answer);
    } else if (result != HTTP_HEAD_MORE) {
        ws_handshake_refuse(result, answer);
    }
    http_head_destroy(head);
    return result;
}

static void fuzz_head(struct bytes input, size_t cut)
{
    static struct ws_handshake whole, pieces;
    size_t consumed_whole, consumed_pieces;
    enum http_head_result result = parse(input, input.len, &consumed_whole, &whole);
    ENSURE(parse(input, cut, &consumed_pieces, &pieces) == result);
    if (result == HTTP_HEAD_DONE) {
        ENSURE(consumed_whole == consumed_pieces);
        ENSURE(whole.response_len == pieces.response_len);
        ENSURE(memcmp(whole.response, pieces.response, whole.response_len) == 0);
        ENSURE(strlen(whole.response) == whole.response_len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct bytes input = bytes_of(data + 2, size - 2);
    size_t cut = data[1] < input.len ? data[1] : input.len;
    if ((data[0] & 1) == 0) {
        fuzz_head(input, cut);
    } else {
        fuzz_frames(input, cut);
    }
    return 0;
}
