#include "ws.h"

#include <wslay/wslay.h>

#include "connection.h"
#include "mem.h"

struct ws_frame {
    wslay_frame_context_ptr context;
    struct ws_frame *next; /* in the pool */
    const uint8_t *input;  /* what wslay may still fetch in this feed */
    size_t input_len;
    uint64_t given;         /* bytes that wslay has fetched */
    uint64_t consumed;      /* bytes of headers and payload that it has reported */
    uint64_t left;          /* payload of the current frame still to come */
    size_t gathered;        /* bytes in the pool's gather buffer, within one feed */
    uint64_t message_bytes; /* of the message in progress */
    struct utf8_state utf8;
    uint8_t message_opcode; /* WS_TEXT or WS_BINARY; 0 between messages */
    bool stopped;           /* by the sink or a Close, within one feed */
    bool in_frame;          /* the header of a frame has been reported, its end not */
    bool fin;
    uint8_t opcode;
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

static ssize_t fetch(uint8_t *to, size_t len, int flags, void *user_data)
{
    struct ws_frame *frame = user_data;
    (void)flags;
    if (frame->input_len == 0) {
        return -1; /* wslay reports WANT_READ */
    }
    if (len > frame->input_len) {
        len = frame->input_len;
    }
    memcpy(to, frame->input, len);
    frame->input += len;
    frame->input_len -= len;
    frame->given += len;
    return (ssize_t)len;
}

enum status ws_pool_init(struct ws_pool *pool)
{
    pool->free = NULL;
    pool->free_count = 0;
    pool->gather = mem_alloc(WS_GATHER_BYTES);
    return pool->gather == NULL ? STATUS_NO_MEMORY : STATUS_OK;
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
    mem_free(pool->gather);
    pool->gather = NULL;
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
    frame->given = frame->consumed = frame->left = 0;
    frame->gathered = 0;
    frame->in_frame = frame->stopped = false;
    frame->message_opcode = 0;
    frame->control_len = 0;
    return frame;
}

static bool frame_at_border(const struct ws_frame *frame)
{
    return !frame->in_frame && frame->given == frame->consumed && frame->input_len == 0;
}

/* A context is only usable again when it has no bytes of an earlier frame inside. */
static void frame_give_back(struct ws_pool *pool, struct ws_frame *frame)
{
    if (frame_at_border(frame) && pool->free_count < WS_POOL_FREE_MAX) {
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
    decoder->frame->stopped = true;
}

bool ws_close_code_is_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static void deliver_gathered(struct ws_pool *pool, struct ws_frame *frame,
                             const struct ws_sink *sink)
{
    size_t len = frame->gathered;
    frame->gathered = 0;
    if (len != 0) {
        sink->data(sink->ctx, bytes_of(pool->gather, len));
    }
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
        sink->message_begin(sink->ctx, iocb->opcode == WS_TEXT);
    }
    return fine;
}

static struct ws_verdict begin_frame(struct ws_frame *frame, const struct wslay_frame_iocb *iocb,
                                     const struct ws_sink *sink)
{
    if (iocb->mask == 0) {
        return violation(WEBSOCKET_PROTOCOL_ERROR, "frame without a mask");
    }
    if (iocb->rsv != 0) {
        return violation(WEBSOCKET_PROTOCOL_ERROR, "reserved bit set in a frame");
    }
    size_t header = 2 + 4;
    if (iocb->payload_length > 0xffff) {
        header += 8;
    } else if (iocb->payload_length > 125) {
        header += 2;
    }
    frame->consumed += header;
    frame->left = iocb->payload_length;
    frame->fin = iocb->fin != 0;
    frame->opcode = iocb->opcode;
    frame->in_frame = true;
    frame->control_len = 0;
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
        sink->message_end(sink->ctx);
    }
    return fine;
}

static struct ws_verdict take_payload(struct ws_pool *pool, struct ws_frame *frame,
                                      struct bytes payload, const struct ws_sink *sink)
{
    frame->consumed += payload.len;
    bool whole = frame->left == payload.len && frame->gathered == 0;
    frame->left -= payload.len;
    if (wslay_is_ctrl_frame(frame->opcode)) {
        ENSURE(payload.len <= (size_t)(WS_CONTROL_MAX - frame->control_len));
        bytes_copy(frame->control + frame->control_len, payload);
        frame->control_len = (uint8_t)(frame->control_len + payload.len);
        return fine;
    }
    if (frame->message_opcode == WS_TEXT && !utf8_feed(&frame->utf8, payload)) {
        return violation(WEBSOCKET_INVALID_DATA, "text message is not UTF-8");
    }
    if (whole) {
        if (payload.len != 0) {
            sink->data(sink->ctx, payload);
        }
        return fine;
    }
    /* wslay's buffer is small. Its pieces are put together, so that the user gets a packet in one.
     */
    if (payload.len > WS_GATHER_BYTES - frame->gathered) {
        deliver_gathered(pool, frame, sink);
    }
    ENSURE(payload.len <= WS_GATHER_BYTES);
    bytes_copy(pool->gather + frame->gathered, payload);
    frame->gathered += payload.len;
    return fine;
}

static struct ws_verdict take_chunk(struct ws_pool *pool, struct ws_frame *frame,
                                    const struct wslay_frame_iocb *iocb, const struct ws_sink *sink)
{
    struct ws_verdict verdict = fine;
    if (!frame->in_frame) {
        verdict = begin_frame(frame, iocb, sink);
    }
    if (verdict.code == 0 && !frame->stopped) {
        verdict = take_payload(pool, frame, bytes_of(iocb->data, iocb->data_length), sink);
    }
    if (verdict.code == 0 && !frame->stopped && frame->left == 0) {
        deliver_gathered(pool, frame, sink);
        frame->in_frame = false;
        if (!frame->stopped) {
            verdict = end_frame(frame, sink);
        }
    }
    return verdict;
}

struct ws_verdict ws_decoder_feed(struct ws_decoder *decoder, struct ws_pool *pool,
                                  struct bytes input, const struct ws_sink *sink)
{
    if (decoder->frame == &ended || input.len == 0) {
        return fine;
    }
    if (decoder->frame == NULL) {
        decoder->frame = frame_take(pool);
        if (decoder->frame == NULL) {
            ws_decoder_fini(decoder, pool);
            return violation(WEBSOCKET_INTERNAL_ERROR, "out of memory");
        }
    }
    struct ws_frame *frame = decoder->frame;
    frame->input = input.data;
    frame->input_len = input.len;
    struct ws_verdict verdict = fine;
    while (verdict.code == 0 && !frame->stopped) {
        struct wslay_frame_iocb iocb = {0};
        size_t input_before = frame->input_len;
        ssize_t n = wslay_frame_recv(frame->context, &iocb);
        if (n >= 0) {
            verdict = take_chunk(pool, frame, &iocb, sink);
        } else if (n != WSLAY_ERR_WANT_READ) {
            verdict = violation(WEBSOCKET_PROTOCOL_ERROR, "malformed frame header");
        } else if (frame->input_len == 0) {
            break;
        } else {
            ENSURE(frame->input_len != input_before);
        }
    }
    if (verdict.code == 0 && !frame->stopped) {
        deliver_gathered(pool, frame, sink);
    }
    frame->gathered = 0;
    if (verdict.code != 0 || frame->stopped) {
        ws_decoder_fini(decoder, pool);
    } else if (frame_at_border(frame) && frame->message_opcode == 0) {
        frame_give_back(pool, frame);
        decoder->frame = NULL;
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
