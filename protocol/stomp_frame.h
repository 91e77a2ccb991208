/*
 * stomp_frame: STOMP 1.0, 1.1 and 1.2 frames, bytes <-> structures.
 *
 * A byte stream is cut into frames in two steps. stomp_frame_scan finds where the frame at the
 * beginning of the stream ends; it remembers how far it has looked, so that a frame that comes byte
 * by byte costs no more than one that comes whole. stomp_frame_decode then takes the frame apart
 * where it stands: only header values with escapes are copied.
 *
 *   Cost       One pass for each step. No allocation.
 *   Ownership  A decoded frame borrows from the input and from the caller's scratch.
 *   Threads    Pure functions.
 */
#ifndef PROTOCOL_STOMP_FRAME_H
#define PROTOCOL_STOMP_FRAME_H

#include "bytes.h"
#include "status.h"

enum {
    STOMP_HEADERS_MAX = 128,          /* in one frame */
    STOMP_HEAD_BYTES_MAX = 16 * 1024, /* command, headers and the empty line behind them */
    STOMP_COMMAND_BYTES_MAX = 16,     /* longer than any command: the first line is garbage */
};

/* What a connection speaks. Before CONNECT was answered nothing is escaped. */
enum stomp_version { STOMP_VERSION_NONE = 0, STOMP_1_0 = 10, STOMP_1_1 = 11, STOMP_1_2 = 12 };

enum stomp_command {
    STOMP_UNKNOWN, /* none that a client sends */
    STOMP_CONNECT, /* STOMP as well, which means the same */
    STOMP_SEND,
    STOMP_SUBSCRIBE,
    STOMP_UNSUBSCRIBE,
    STOMP_ACK,
    STOMP_NACK,
    STOMP_BEGIN,
    STOMP_COMMIT,
    STOMP_ABORT,
    STOMP_DISCONNECT,
};

/* Where the search for a frame's end stands. Zeroed memory is the beginning of a frame. */
struct stomp_scan {
    size_t searched;  /* bytes that were looked at and need not be again */
    size_t head_len;  /* with the empty line; 0 while it has not come */
    size_t frame_len; /* with the NUL; 0 while it is not known */
    bool has_length;  /* frame_len comes from content-length */
};

enum stomp_result {
    STOMP_OK,         /* the frame is whole */
    STOMP_MORE,       /* the rest has not come yet */
    STOMP_BAD_HEAD,   /* no command line, NUL among the headers, a header without a colon or name */
    STOMP_BAD_LENGTH, /* content-length is no number, or no NUL stands behind so many bytes */
    STOMP_BAD_ESCAPE, /* a sequence that the version does not know */
    STOMP_BAD_UTF8,   /* in command or headers */
    STOMP_TOO_LARGE,  /* the frame has more than the given number of bytes */
    STOMP_HEAD_TOO_LARGE, /* STOMP_HEAD_BYTES_MAX or STOMP_HEADERS_MAX */
};

/* A sentence about `result` for an ERROR frame and the log. Never NULL. */
const char *stomp_result_text(enum stomp_result result);

/* `in` without the line ends at its beginning: between frames they are heart-beats or padding. */
struct bytes stomp_skip_line_ends(struct bytes in);

/*
 * Looks for the end of the frame that `in` begins with. Each call gets what the one before had, and
 * perhaps more behind it. On STOMP_OK scan->frame_len bytes are the frame. On STOMP_MORE
 * scan->frame_len is its length when that is known already.
 *
 * Requires: `in` does not begin with a line end. Errors: STOMP_BAD_HEAD, STOMP_BAD_LENGTH,
 * STOMP_TOO_LARGE (more than frame_bytes_max), STOMP_HEAD_TOO_LARGE.
 */
MUST_USE enum stomp_result stomp_frame_scan(struct stomp_scan *scan, struct bytes in,
                                            size_t frame_bytes_max);

struct stomp_header {
    struct bytes name;
    struct bytes value;
};

struct stomp_frame {
    enum stomp_command command;
    struct bytes command_name; /* as sent, for messages about unknown ones */
    size_t header_count;
    struct stomp_header headers[STOMP_HEADERS_MAX];
    struct bytes body;
};

/*
 * Takes a scanned frame apart. `version` says which escapes there are: none in 1.0 and before
 * CONNECT is answered; \n \c \\ in 1.1; \r as well in 1.2. Values that had escapes are put into
 * `scratch`, of STOMP_HEAD_BYTES_MAX bytes, which never overflows.
 *
 * Errors: STOMP_BAD_HEAD, STOMP_BAD_ESCAPE, STOMP_BAD_UTF8, STOMP_HEAD_TOO_LARGE.
 */
MUST_USE enum stomp_result stomp_frame_decode(struct bytes in, const struct stomp_scan *scan,
                                              enum stomp_version version, uint8_t *scratch,
                                              struct stomp_frame *out);

/* The value of the first header of that name: what repeats it does not count (1.2, Repeated Header
 * Entries). False when there is none; *value is then empty. */
bool stomp_frame_header(const struct stomp_frame *frame, const char *name, struct bytes *value);

/* Writes the line of a command. */
void stomp_write_command(struct writer *writer, const char *command);

/*
 * Writes one header line, escaped as `version` has it. 1.0 and frames before CONNECTED cannot
 * escape: line ends in the value become spaces there, and so does a carriage return in 1.1; a
 * header whose name cannot be written, or that has a NUL, is left out.
 */
void stomp_write_header(struct writer *writer, enum stomp_version version, struct bytes name,
                        struct bytes value);

/* Writes a number, at most 20 digits; alone, or as a header line. */
void stomp_write_digits(struct writer *writer, uint64_t value);
void stomp_write_number(struct writer *writer, const char *name, uint64_t value);

/* Ends the headers. The body follows, then stomp_write_end. */
void stomp_write_head_end(struct writer *writer);
void stomp_write_end(struct writer *writer);

/* The most that stomp_write_header needs. */
static inline size_t stomp_header_room(size_t name_len, size_t value_len)
{
    return 2 * (name_len + value_len) + 2;
}

/* Reads a decimal number that fills `text` and is at most `max`. */
MUST_USE bool stomp_number_read(struct bytes text, uint64_t max, uint64_t *out);

#endif
