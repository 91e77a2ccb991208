/*
 * ws: WebSocket frames (RFC 6455, 5 and 7), without sockets: bytes from a client in, events out,
 * and headers of frames for the way back.
 *
 * wslay takes the frames apart, and this module knows what they mean: which opcode may follow
 * which, masks, UTF-8, close codes and the size of a message. wslay's frame context is borrowed
 * from a pool from the first byte of a frame until the end of its message, so that a decoder
 * between messages is one pointer. Whole binary messages in one frame, for a sink that takes them
 * as a stream, need neither: their headers are judged here.
 *
 *   Cost       feed: payload is unmasked in the input, eight bytes at a time and more, and not
 *              copied; where messages are joined unmasking moves it. No allocation once the pool
 *              has grown to the number of frames that are incomplete at the same time.
 *   Threads    A pool and the decoders that use it belong to one thread.
 */
#ifndef TRANSPORT_WS_H
#define TRANSPORT_WS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "status.h"
#include "utf8.h"

enum {
    WS_HEADER_MAX = 10, /* of a frame that a server sends: no mask */
    WS_CONTROL_MAX = 125,
    WS_CONTROL_FRAME_MAX = 2 + WS_CONTROL_MAX,
    WS_POOL_FREE_MAX = 64,        /* idle frame readers kept for the next frames */
    WS_CLOSE_WITHOUT_CODE = 1005, /* 7.1.5: never on the wire */
};

enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10,
};

struct ws_frame; /* one borrowed frame reader */

/* Zeroed memory is an empty pool. */
struct ws_pool {
    struct ws_frame *free;
    unsigned free_count;
};

/* Requires: every decoder has given back its frame reader. */
void ws_pool_fini(struct ws_pool *pool);

/* Receiving side of one connection. Zeroed memory is a new decoder. */
struct ws_decoder {
    struct ws_frame
        *frame; /* NULL between messages; a decoder that has stopped has one of its own */
};

/* Where events go. Bytes are borrowed for the call. */
struct ws_sink {
    /* Borders of messages. Both NULL: they do not matter, and the payload of several messages may
     * come as one. */
    void (*message_begin)(void *ctx, bool text);
    void (*data)(void *ctx, struct bytes bytes);
    void (*message_end)(void *ctx);
    void (*ping)(void *ctx, struct bytes payload);
    void (*pong)(void *ctx);
    /* The peer's Close; code WS_CLOSE_WITHOUT_CODE when it has none. The decoder has stopped. */
    void (*close)(void *ctx, uint16_t code, struct bytes reason);
    void *ctx;
    uint64_t message_bytes_max; /* 0: no limit */
    bool allow_text;            /* a text message is a violation otherwise */
};

/* What to answer a peer: code 0 when nothing is wrong. `text` is for the log and never NULL with a
 * code. */
struct ws_verdict {
    uint16_t code; /* 1002, 1003, 1007 or 1009; 1011 when memory ran out */
    const char *text;
};

/*
 * Decodes `len` bytes of input and unmasks the payload in them: the caller's buffer is written to.
 * After a verdict with a code, and after a Close, the decoder has stopped and ignores its input.
 */
MUST_USE struct ws_verdict ws_decoder_feed(struct ws_decoder *decoder, struct ws_pool *pool,
                                           uint8_t *input, size_t len, const struct ws_sink *sink);

/* Nothing more is decoded. Requires: called from one of the sink's functions, by the decoder's
 * feed.
 */
void ws_decoder_stop(struct ws_decoder *decoder);

/* Gives back what the decoder has borrowed and stops it. */
void ws_decoder_fini(struct ws_decoder *decoder, struct ws_pool *pool);

/* Writes the header of an unfragmented frame, right-aligned: it ends where out[WS_HEADER_MAX] would
 * be. Returns its length. */
size_t ws_header_write(uint8_t out[WS_HEADER_MAX], enum ws_opcode opcode, uint64_t payload_len);

/* Writes a whole control frame and returns its length. Requires: payload.len <= WS_CONTROL_MAX. */
size_t ws_control_write(uint8_t out[WS_CONTROL_FRAME_MAX], enum ws_opcode opcode,
                        struct bytes payload);

/* Writes a Close frame; code WS_CLOSE_WITHOUT_CODE gives an empty one. The reason is cut to what
 * fits. */
size_t ws_close_write(uint8_t out[WS_CONTROL_FRAME_MAX], uint16_t code, struct bytes reason);

/* True for a code that may appear in a Close frame (7.4). */
bool ws_close_code_is_valid(uint16_t code);

#endif
