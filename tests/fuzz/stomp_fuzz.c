/*
 * stomp_fuzz: a byte stream through the STOMP scanner and decoder, in one piece and cut, and
 * through the encoder and back; destinations to topics and back.
 *
 * Input: one byte that chooses version and cut, then the stream. Frames are copied to allocations
 * of exactly their size, so that the sanitizer sees the first byte read too far.
 */
#include <stdint.h>
#include <stdlib.h>

#include "stomp_destination.h"
#include "stomp_frame.h"
#include "topic.h"

enum { INPUT_MAX = 1 << 16, FRAME_MAX = 20000, ROOM = 4 * STOMP_HEAD_BYTES_MAX + INPUT_MAX };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t scratch[2][STOMP_HEAD_BYTES_MAX];
static uint8_t room[ROOM];

static struct bytes copy_of(struct bytes bytes)
{
    uint8_t *copy = malloc(bytes.len + 1);
    ENSURE(copy != NULL);
    bytes_copy(copy + 1, bytes);
    return bytes_of(copy + 1, bytes.len);
}

static void free_copy(struct bytes copy)
{
    free((uint8_t *)(uintptr_t)copy.data - 1);
}

/* The same answer however the stream is cut. */
static enum stomp_result scan_in_pieces(struct bytes in, size_t step, struct stomp_scan *scan)
{
    enum stomp_result result = STOMP_MORE;
    for (size_t len = 0; result == STOMP_MORE && len < in.len;) {
        len = in.len - len < step ? in.len : len + step;
        struct bytes copy = copy_of(bytes_of(in.data, len));
        result = stomp_frame_scan(scan, copy, FRAME_MAX);
        free_copy(copy);
    }
    return result;
}

static const char *command_name(const struct stomp_frame *frame)
{
    return frame->command == STOMP_UNKNOWN ? "MESSAGE" : "SEND";
}

/* What was decoded comes back when it is encoded, as far as the version can say it. */
static void encode_again(const struct stomp_frame *frame, enum stomp_version version)
{
    if (version != STOMP_1_2) {
        return;
    }
    struct writer writer = writer_of(room, sizeof room);
    stomp_write_command(&writer, command_name(frame));
    for (size_t i = 0; i < frame->header_count; i++) {
        if (!bytes_equal_string(frame->headers[i].name, "content-length")) {
            stomp_write_header(&writer, version, frame->headers[i].name, frame->headers[i].value);
        }
    }
    stomp_write_number(&writer, "content-length", frame->body.len);
    stomp_write_head_end(&writer);
    writer_bytes(&writer, frame->body);
    stomp_write_end(&writer);
    ENSURE(writer_ok(&writer));
    static struct stomp_frame again;
    struct stomp_scan scan = {0};
    struct bytes written = writer_written(&writer);
    if (stomp_frame_scan(&scan, written, SIZE_MAX) != STOMP_OK) {
        return; /* escapes have made the head too large */
    }
    ENSURE(scan.frame_len == written.len);
    enum stomp_result result = stomp_frame_decode(written, &scan, version, scratch[1], &again);
    if (result == STOMP_HEAD_TOO_LARGE) {
        return; /* the content-length was one header too many */
    }
    ENSURE(result == STOMP_OK && bytes_equal(again.body, frame->body));
    size_t at = 0;
    for (size_t i = 0; i < frame->header_count; i++) {
        if (!bytes_equal_string(frame->headers[i].name, "content-length")) {
            ENSURE(bytes_equal(again.headers[at].name, frame->headers[i].name));
            ENSURE(bytes_equal(again.headers[at].value, frame->headers[i].value));
            at++;
        }
    }
}

static void try_destination(struct bytes text)
{
    struct stomp_destination destination;
    if (stomp_destination_parse(text, &destination) != NULL ||
        destination.kind == STOMP_TEMP_QUEUE) {
        return;
    }
    static uint8_t topic_room[2][STOMP_HEAD_BYTES_MAX + 16];
    static uint8_t text_room[4 * STOMP_HEAD_BYTES_MAX];
    struct writer topic = writer_of(topic_room[0], sizeof topic_room[0]);
    stomp_destination_topic(&destination, false, &topic);
    ENSURE(writer_ok(&topic));
    if (!topic_name_is_valid(writer_written(&topic))) {
        return;
    }
    for (unsigned style = STOMP_DOTS; style <= STOMP_PLAIN; style++) {
        struct writer written = writer_of(text_room, sizeof text_room);
        stomp_destination_write(writer_written(&topic), (enum stomp_style)style, &written);
        ENSURE(writer_ok(&written) &&
               writer_len(&written) <= stomp_destination_room(writer_len(&topic)));
        ENSURE(stomp_destination_parse(writer_written(&written), &destination) == NULL);
        struct writer back = writer_of(topic_room[1], sizeof topic_room[1]);
        stomp_destination_topic(&destination, false, &back);
        ENSURE(bytes_equal(writer_written(&back), writer_written(&topic)));
    }
}

/* One frame off the stream; false at its end. */
static bool take_frame(struct bytes *in, enum stomp_version version, size_t step)
{
    static struct stomp_frame frame;
    *in = stomp_skip_line_ends(*in);
    if (in->len == 0) {
        return false;
    }
    struct stomp_scan scan = {0};
    struct stomp_scan pieces = {0};
    enum stomp_result result = stomp_frame_scan(&scan, *in, FRAME_MAX);
    enum stomp_result cut = scan_in_pieces(*in, step, &pieces);
    ENSURE((cut == STOMP_OK) == (result == STOMP_OK));
    if (result != STOMP_OK) {
        return false;
    }
    ENSURE(pieces.frame_len == scan.frame_len && scan.frame_len <= FRAME_MAX);
    struct bytes copy = copy_of(bytes_of(in->data, scan.frame_len));
    result = stomp_frame_decode(copy, &scan, version, scratch[0], &frame);
    if (result == STOMP_OK) {
        struct bytes destination;
        encode_again(&frame, version);
        if (stomp_frame_header(&frame, "destination", &destination)) {
            try_destination(destination);
        }
    }
    free_copy(copy);
    *in = bytes_from(*in, scan.frame_len);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum stomp_version versions[] = {STOMP_VERSION_NONE, STOMP_1_0, STOMP_1_1,
                                                  STOMP_1_2};
    if (size == 0 || size > INPUT_MAX) {
        return 0;
    }
    struct bytes in = bytes_of(data + 1, size - 1);
    while (take_frame(&in, versions[data[0] & 3], 1 + (data[0] >> 2))) {
    }
    return 0;
}
