#include "ws.h"

#include <wslay/wslay.h>

#include "connection.h"
#include "mem.h"
#include "swar.h"

enum {
    HEADER_BYTES_MIN = 2,
    KEY_BYTES = 4,
    FIN_BIT = 0x80,
    MASK_BIT = 0x80,
    LENGTH_OF_16_BITS = 126, /* in place of the length (5.2) */
    LENGTH_OF_64_BITS = 127,
};

/*
 * wslay is shown frames whose mask has been taken off: fetch keeps the mask bit and the key back,
 * and of the payload it tells wslay only how long it is. So the payload is neither copied nor
 * unmasked byte by byte, and wslay, which judges headers and counts payload, never knows.
 */
struct ws_frame {
    wslay_frame_context_ptr context;
    struct ws_frame *next; /* in the pool */
    uint8_t *input;        /* what wslay may still fetch in this feed */
    size_t input_len;
    size_t passed;          /* payload in front of `input` that was not delivered yet */
    uint64_t left;          /* payload of the current frame still to come */
    uint64_t message_bytes; /* of the message in progress */
    struct utf8_state utf8;
    uint8_t message_opcode; /* WS_TEXT or WS_BINARY; 0 between messages */
    bool stopped;           /* by the sink or a Close, within one feed */
    bool in_frame;          /* the header of a frame has been reported, its end not */
    bool fin;
    bool masked;
    uint8_t opcode;
    uint8_t header_len;  /* bytes of the header that have come, without the key; 0 between frames */
    uint8_t header_full; /* how many there will be, as far as is known */
    uint8_t key_len;
    uint8_t key_at; /* which byte of the key the next byte of payload needs */
    uint8_t key[KEY_BYTES];
    uint8_t control_len;
    uint8_t control[WS_CONTROL_MAX];
};

static const struct ws_verdict fine = {0, NULL};

/* What the decoders that have stopped point to. */
static struct ws_frame ended = {.stopped = true};

static struct ws_verdict violation(uint16_t code, const char *text)
{
    return (struct ws_verdict){code, text};
}

/* XORs `len` bytes with `pattern` (5.3). `to` is where they stand or before it, so what is written
 * has been read. Runs for every byte from a browser, hence the words. */
static void unmask(uint8_t *to, const uint8_t *from, size_t len, const uint8_t pattern[SWAR_BYTES])
{
    uint64_t mask = swar_load(pattern);
    uint64_t words[4];
    for (; len >= sizeof words; len -= sizeof words) {
        memcpy(words, from, sizeof words);
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            words[i] ^= mask;
        }
        memcpy(to, words, sizeof words);
        from += sizeof words;
        to += sizeof words;
    }
    for (; len >= SWAR_BYTES; len -= SWAR_BYTES) {
        uint64_t word = swar_load(from) ^ mask;
        memcpy(to, &word, sizeof word);
        from += SWAR_BYTES;
        to += SWAR_BYTES;
    }
    for (size_t i = 0; i < len; i++) {
        to[i] = from[i] ^ pattern[i];
    }
}

/* The same for payload of the current frame, where it stands. */
static void unmask_piece(struct ws_frame *frame, uint8_t *at, size_t len)
{
    uint8_t pattern[SWAR_BYTES];
    for (size_t i = 0; i < SWAR_BYTES; i++) {
        pattern[i] = frame->key[(frame->key_at + i) % KEY_BYTES];
    }
    frame->key_at = (uint8_t)((frame->key_at + len) % KEY_BYTES);
    unmask(at, at, len, pattern);
}

/* Gives wslay what has come of a header, as if the frame had no mask. */
static size_t fetch_header(struct ws_frame *frame, uint8_t *to)
{
    size_t len = 0;
    while (frame->header_len < frame->header_full && frame->input_len != 0) {
        uint8_t byte = *frame->input++;
        frame->input_len--;
        if (frame->header_len == 1) {
            frame->masked = (byte & MASK_BIT) != 0;
            byte = (uint8_t)(byte & ~MASK_BIT);
            frame->left = byte;
            if (byte >= LENGTH_OF_16_BITS) {
                frame->left = 0;
                frame->header_full = byte == LENGTH_OF_16_BITS ? 4 : 10;
            }
        } else if (frame->header_len > 1) {
            frame->left = frame->left << 8 | byte;
        }
        to[len++] = byte;
        frame->header_len++;
    }
    return len;
}

/* True when the key is there, or none is to come. */
static bool take_key(struct ws_frame *frame)
{
    if (frame->masked && frame->key_len == 0 && frame->input_len >= KEY_BYTES) {
        memcpy(frame->key, frame->input, KEY_BYTES); /* nearly always */
        frame->key_len = KEY_BYTES;
        frame->input += KEY_BYTES;
        frame->input_len -= KEY_BYTES;
    }
    while (frame->masked && frame->key_len < KEY_BYTES && frame->input_len != 0) {
        frame->key[frame->key_len++] = *frame->input++;
        frame->input_len--;
    }
    return !frame->masked || frame->key_len == KEY_BYTES;
}

/* Tells wslay of up to `len` bytes of payload, which stay where they are. */
static size_t pass_payload(struct ws_frame *frame, size_t len)
{
    len = len < frame->input_len ? len : frame->input_len;
    len = len < frame->left ? len : (size_t)frame->left;
    frame->input += len;
    frame->input_len -= len;
    frame->passed += len;
    frame->left -= len;
    return len;
}

/* wslay asks with room for more than a header, whatever it has kept of one. */
static ssize_t fetch(uint8_t *to, size_t len, int flags, void *user_data)
{
    struct ws_frame *frame = user_data;
    (void)flags;
    ENSURE(len > WS_HEADER_MAX);
    size_t given = fetch_header(frame, to);
    if (frame->header_len == frame->header_full && take_key(frame)) {
        given += pass_payload(frame, len - given);
    }
    return given != 0 ? (ssize_t)given : -1; /* wslay reports WANT_READ */
}

static void frame_destroy(struct ws_frame *frame)
{
    wslay_frame_context_free(frame->context);
    mem_free(frame);
}

void ws_pool_fini(struct ws_pool *pool)
{
    while (pool->free != NULL) {
        struct ws_frame *frame = pool->free;
        pool->free = frame->next;
        frame_destroy(frame);
    }
    pool->free_count = 0;
}

static void expect_header(struct ws_frame *frame)
{
    frame->header_len = 0;
    frame->header_full = HEADER_BYTES_MIN;
    frame->key_len = frame->key_at = 0;
    frame->control_len = 0;
    frame->in_frame = false;
}

static struct ws_frame *frame_take(struct ws_pool *pool)
{
    struct ws_frame *frame = pool->free;
    if (frame != NULL) {
        pool->free = frame->next;
        pool->free_count--;
    } else {
        frame = mem_alloc(sizeof *frame);
        if (frame == NULL) {
            return NULL;
        }
        struct wslay_frame_callbacks callbacks = {NULL, fetch, NULL};
        if (wslay_frame_context_init(&frame->context, &callbacks, frame) != 0) {
            mem_free(frame);
            return NULL;
        }
    }
    frame->passed = 0;
    frame->stopped = false;
    frame->message_opcode = 0;
    expect_header(frame);
    return frame;
}

/* A context is only usable again when it is not in the middle of a frame. */
static void frame_give_back(struct ws_pool *pool, struct ws_frame *frame)
{
    if (frame->header_len == 0 && pool->free_count < WS_POOL_FREE_MAX) {
        frame->next = pool->free;
        pool->free = frame;
        pool->free_count++;
    } else {
        frame_destroy(frame);
    }
}

void ws_decoder_fini(struct ws_decoder *decoder, struct ws_pool *pool)
{
    if (decoder->frame != NULL && decoder->frame != &ended) {
        frame_give_back(pool, decoder->frame);
    }
    decoder->frame = &ended;
}

void ws_decoder_stop(struct ws_decoder *decoder)
{
    if (decoder->frame == NULL) {
        decoder->frame = &ended;
    } else {
        decoder->frame->stopped = true;
    }
}

bool ws_close_code_is_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

/* Section 5.4: which data frame may come now. */
static struct ws_verdict begin_data_frame(struct ws_frame *frame,
                                          const struct wslay_frame_iocb *iocb,
                                          const struct ws_sink *sink)
{
    if (iocb->opcode == WS_CONTINUATION) {
        if (frame->message_opcode == 0) {
            return violation(WEBSOCKET_PROTOCOL_ERROR, "continuation frame without a message");
        }
    } else {
        if (frame->message_opcode != 0) {
            return violation(WEBSOCKET_PROTOCOL_ERROR, "new message inside a fragmented one");
        }
        if (iocb->opcode == WS_TEXT && !sink->allow_text) {
            return violation(WEBSOCKET_UNSUPPORTED_DATA,
                             "text message where only binary is spoken");
        }
    }
    uint64_t max = sink->message_bytes_max;
    uint64_t so_far = iocb->opcode == WS_CONTINUATION ? frame->message_bytes : 0;
    if (max != 0 && (so_far > max || iocb->payload_length > max - so_far)) {
        return violation(WEBSOCKET_TOO_BIG, "message too big");
    }
    frame->message_bytes = so_far + iocb->payload_length;
    if (iocb->opcode != WS_CONTINUATION) {
        frame->message_opcode = iocb->opcode;
        frame->utf8 = (struct utf8_state){0};
        if (sink->message_begin != NULL) {
            sink->message_begin(sink->ctx, iocb->opcode == WS_TEXT);
        }
    }
    return fine;
}

static struct ws_verdict begin_frame(struct ws_frame *frame, const struct wslay_frame_iocb *iocb,
                                     const struct ws_sink *sink)
{
    if (!frame->masked) {
        return violation(WEBSOCKET_PROTOCOL_ERROR, "frame without a mask");
    }
    if (iocb->rsv != 0) {
        return violation(WEBSOCKET_PROTOCOL_ERROR, "reserved bit set in a frame");
    }
    frame->fin = iocb->fin != 0;
    frame->opcode = iocb->opcode;
    frame->in_frame = true;
    switch (iocb->opcode) {
    case WS_CONTINUATION:
    case WS_TEXT:
    case WS_BINARY:
        return begin_data_frame(frame, iocb, sink);
    case WS_CLOSE:
    case WS_PING:
    case WS_PONG:
        ENSURE(iocb->payload_length <= WS_CONTROL_MAX); /* wslay refuses others */
        return fine;
    default:
        return violation(WEBSOCKET_PROTOCOL_ERROR, "reserved opcode");
    }
}

static struct ws_verdict take_close(struct ws_frame *frame, const struct ws_sink *sink)
{
    struct reader reader = reader_of(bytes_of(frame->control, frame->control_len));
    uint16_t code = WS_CLOSE_WITHOUT_CODE;
    if (frame->control_len != 0) {
        code = reader_u16(&reader);
        if (!reader_ok(&reader)) {
            return violation(WEBSOCKET_PROTOCOL_ERROR, "Close frame of one byte");
        }
        if (!ws_close_code_is_valid(code)) {
            return violation(WEBSOCKET_PROTOCOL_ERROR, "Close frame with an invalid code");
        }
    }
    struct bytes reason = reader_rest(&reader);
    if (!utf8_is_valid(reason)) {
        return violation(WEBSOCKET_INVALID_DATA, "Close reason is not UTF-8");
    }
    frame->stopped = true;
    sink->close(sink->ctx, code, reason);
    return fine;
}

static struct ws_verdict end_frame(struct ws_frame *frame, const struct ws_sink *sink)
{
    switch (frame->opcode) {
    case WS_CLOSE:
        return take_close(frame, sink);
    case WS_PING:
        sink->ping(sink->ctx, bytes_of(frame->control, frame->control_len));
        return fine;
    case WS_PONG:
        sink->pong(sink->ctx);
        return fine;
    default:
        break;
    }
    if (frame->fin) {
        if (frame->message_opcode == WS_TEXT && !utf8_state_is_complete(&frame->utf8)) {
            return violation(WEBSOCKET_INVALID_DATA, "text message ends inside a UTF-8 character");
        }
        frame->message_opcode = 0;
        if (sink->message_end != NULL) {
            sink->message_end(sink->ctx);
        }
    }
    return fine;
}

/* Delivers what wslay has passed over. Payload is in one piece as far as it came in one. */
static struct ws_verdict take_payload(struct ws_frame *frame, const struct ws_sink *sink)
{
    struct bytes payload = bytes_of(frame->input - frame->passed, frame->passed);
    if (payload.len == 0) {
        return fine;
    }
    unmask_piece(frame, frame->input - frame->passed, payload.len);
    frame->passed = 0;
    if (wslay_is_ctrl_frame(frame->opcode)) {
        ENSURE(payload.len <= (size_t)(WS_CONTROL_MAX - frame->control_len));
        bytes_copy(frame->control + frame->control_len, payload);
        frame->control_len = (uint8_t)(frame->control_len + payload.len);
        return fine;
    }
    if (frame->message_opcode == WS_TEXT && !utf8_feed(&frame->utf8, payload)) {
        return violation(WEBSOCKET_INVALID_DATA, "text message is not UTF-8");
    }
    sink->data(sink->ctx, payload);
    return fine;
}

/* One call of wslay: a header, a run of payload, or both. */
static struct ws_verdict step(struct ws_frame *frame, const struct ws_sink *sink)
{
    struct ws_verdict verdict = fine;
    struct wslay_frame_iocb iocb = {0};
    if (!frame->in_frame || frame->left != 0) { /* of an empty frame only the key may be missing */
        ssize_t n = wslay_frame_recv(frame->context, &iocb);
        if (n == WSLAY_ERR_WANT_READ) {
            return fine;
        }
        if (n < 0) {
            return violation(WEBSOCKET_PROTOCOL_ERROR, "malformed frame header");
        }
    }
    if (!frame->in_frame) {
        ENSURE(iocb.payload_length == frame->left + frame->passed);
        verdict = begin_frame(frame, &iocb, sink);
    }
    if (verdict.code != 0 || frame->stopped || frame->left != 0 || !take_key(frame)) {
        return verdict;
    }
    verdict = take_payload(frame, sink);
    if (verdict.code == 0 && !frame->stopped) {
        verdict = end_frame(frame, sink);
        expect_header(frame);
    }
    return verdict;
}

/*
 * A binary message in one frame, as clients send them: the length of its header with the key, when
 * it stands whole at the beginning of `input`, and of its payload. 0: it is something else, or not
 * all of it has come, or something is wrong with it.
 */
static size_t whole_message(struct bytes input, uint64_t message_bytes_max, size_t *payload_len)
{
    size_t header_len = HEADER_BYTES_MIN + KEY_BYTES;
    if (input.len < header_len || input.data[0] != (FIN_BIT | WS_BINARY) ||
        (input.data[1] & MASK_BIT) == 0) {
        return 0;
    }
    size_t len = input.data[1] & ~(unsigned)MASK_BIT;
    if (len == LENGTH_OF_16_BITS) {
        len = (size_t)input.data[2] << 8 | input.data[3];
        header_len += 2;
    }
    if (input.data[1] == (MASK_BIT | LENGTH_OF_64_BITS) ||
        (header_len != HEADER_BYTES_MIN + KEY_BYTES && len < LENGTH_OF_16_BITS) ||
        input.len < header_len + len || (message_bytes_max != 0 && len > message_bytes_max)) {
        return 0;
    }
    *payload_len = len;
    return header_len;
}

/*
 * Between messages, for a sink to which their borders do not matter: delivers the whole binary
 * messages at the beginning of the input as one run of bytes, which unmasking puts together where
 * the first one began. Returns how much of the input that was.
 */
static size_t take_stream(uint8_t *input, size_t len, const struct ws_sink *sink)
{
    uint8_t *end = input;
    size_t at = 0;
    size_t payload_len;
    size_t header_len;
    while ((header_len = whole_message(bytes_of(input + at, len - at), sink->message_bytes_max,
                                       &payload_len)) != 0) {
        const uint8_t *payload = input + at + header_len;
        uint8_t pattern[SWAR_BYTES];
        memcpy(pattern, payload - KEY_BYTES, KEY_BYTES);
        memcpy(pattern + KEY_BYTES, payload - KEY_BYTES, KEY_BYTES);
        unmask(end, payload, payload_len, pattern);
        end += payload_len;
        at += header_len + payload_len;
    }
    if (end != input) {
        sink->data(sink->ctx, bytes_of(input, (size_t)(end - input)));
    }
    return at;
}

static bool is_between_messages(const struct ws_frame *frame)
{
    return frame->header_len == 0 && frame->message_opcode == 0;
}

/* Whatever comes, frame by frame: until the end of the input or, for a sink to which borders do not
 * matter, of a message. *taken is how much of the input that was. */
static struct ws_verdict take_frames(struct ws_decoder *decoder, struct ws_pool *pool,
                                     uint8_t *input, size_t len, const struct ws_sink *sink,
                                     size_t *taken)
{
    *taken = len;
    if (decoder->frame == NULL) {
        decoder->frame = frame_take(pool);
        if (decoder->frame == NULL) {
            ws_decoder_fini(decoder, pool);
            return violation(WEBSOCKET_INTERNAL_ERROR, "out of memory");
        }
    }
    struct ws_frame *frame = decoder->frame;
    frame->input = input;
    frame->input_len = len;
    struct ws_verdict verdict = fine;
    do {
        size_t before = frame->input_len;
        verdict = step(frame, sink);
        ENSURE(frame->input_len != before);
    } while (verdict.code == 0 && !frame->stopped && frame->input_len != 0 &&
             (sink->message_begin != NULL || !is_between_messages(frame)));
    if (verdict.code == 0 && !frame->stopped) {
        verdict = take_payload(frame, sink);
    }
    *taken = len - frame->input_len;
    if (verdict.code != 0 || frame->stopped) {
        ws_decoder_fini(decoder, pool);
    } else if (is_between_messages(frame)) {
        frame_give_back(pool, frame);
        decoder->frame = NULL;
    }
    return verdict;
}

struct ws_verdict ws_decoder_feed(struct ws_decoder *decoder, struct ws_pool *pool, uint8_t *input,
                                  size_t len, const struct ws_sink *sink)
{
    struct ws_verdict verdict = fine;
    while (len != 0 && decoder->frame != &ended && verdict.code == 0) {
        size_t taken = 0;
        if (decoder->frame == NULL && sink->message_begin == NULL) {
            taken = take_stream(input, len, sink);
        }
        if (taken == 0) {
            verdict = take_frames(decoder, pool, input, len, sink, &taken);
        }
        input += taken;
        len -= taken;
    }
    return verdict;
}

size_t ws_header_write(uint8_t out[WS_HEADER_MAX], enum ws_opcode opcode, uint64_t payload_len)
{
    uint8_t first = (uint8_t)(0x80U | (unsigned)opcode);
    if (payload_len <= 125) {
        out[8] = first;
        out[9] = (uint8_t)payload_len;
        return 2;
    }
    size_t len_bytes = payload_len <= 0xffff ? 2 : 8;
    for (size_t i = 0; i < len_bytes; i++) {
        out[WS_HEADER_MAX - 1 - i] = (uint8_t)(payload_len >> (8 * i));
    }
    out[WS_HEADER_MAX - len_bytes - 1] = len_bytes == 2 ? 126 : 127;
    out[WS_HEADER_MAX - len_bytes - 2] = first;
    return len_bytes + 2;
}

size_t ws_control_write(uint8_t out[WS_CONTROL_FRAME_MAX], enum ws_opcode opcode,
                        struct bytes payload)
{
    ENSURE(payload.len <= WS_CONTROL_MAX);
    out[0] = (uint8_t)(0x80U | (unsigned)opcode);
    out[1] = (uint8_t)payload.len;
    bytes_copy(out + 2, payload);
    return 2 + payload.len;
}

size_t ws_close_write(uint8_t out[WS_CONTROL_FRAME_MAX], uint16_t code, struct bytes reason)
{
    if (code == WS_CLOSE_WITHOUT_CODE) {
        return ws_control_write(out, WS_CLOSE, BYTES_EMPTY);
    }
    uint8_t payload[WS_CONTROL_MAX];
    struct writer writer = writer_of(payload, sizeof payload);
    writer_u16(&writer, code);
    writer_bytes(&writer, utf8_cut(reason, writer_room(&writer)));
    return ws_control_write(out, WS_CLOSE, writer_written(&writer));
}
