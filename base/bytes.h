/*
 * bytes: a borrowed run of bytes, and the two cursors through which everything is parsed and
 * encoded.
 *
 * A reader never reads past its end: the first read that would marks it failed, and from then on
 * every read yields zero or nothing. A parser therefore reads a whole structure and asks reader_ok
 * once. A writer is its mirror: the first write that does not fit marks it failed and later writes
 * do nothing.
 *
 *   Cost       Inline; no allocation.
 *   Ownership  Neither `struct bytes` nor a cursor owns what it points to.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const uint8_t *data; /* may be NULL when len is 0 */
    size_t len;
};

#define BYTES_EMPTY ((struct bytes){NULL, 0})

static inline struct bytes bytes_of(const void *data, size_t len)
{
    return (struct bytes){data, len};
}

/* The characters of a C string without its terminator. NULL gives empty bytes. */
static inline struct bytes bytes_of_string(const char *string)
{
    return (struct bytes){(const uint8_t *)string, string == NULL ? 0 : strlen(string)};
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool bytes_equal_string(struct bytes a, const char *string)
{
    return bytes_equal(a, bytes_of_string(string));
}

static inline bool bytes_start_with(struct bytes whole, struct bytes prefix)
{
    return whole.len >= prefix.len &&
           (prefix.len == 0 || memcmp(whole.data, prefix.data, prefix.len) == 0);
}

/* `whole` from offset `from` on; empty when from is past the end. */
static inline struct bytes bytes_from(struct bytes whole, size_t from)
{
    if (from >= whole.len) {
        return BYTES_EMPTY;
    }
    return (struct bytes){whole.data + from, whole.len - from};
}

/* memcpy that allows (NULL, 0). */
static inline void bytes_copy(void *to, struct bytes from)
{
    if (from.len != 0) {
        memcpy(to, from.data, from.len);
    }
}

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static inline struct reader reader_of(struct bytes bytes)
{
    static const uint8_t nothing = 0;
    const uint8_t *start = bytes.data != NULL ? bytes.data : &nothing;
    return (struct reader){start, start + bytes.len, false};
}

static inline bool reader_ok(const struct reader *reader)
{
    return !reader->failed;
}

static inline size_t reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* Marks the reader failed and leaves nothing to read. */
static inline void reader_fail(struct reader *reader)
{
    reader->failed = true;
    reader->at = reader->end;
}

/* The next `len` bytes, borrowed from the input. */
static inline struct bytes reader_bytes(struct reader *reader, size_t len)
{
    if (len > reader_left(reader)) {
        reader_fail(reader);
        return BYTES_EMPTY;
    }
    struct bytes bytes = {reader->at, len};
    reader->at += len;
    return bytes;
}

/* All that is left. */
static inline struct bytes reader_rest(struct reader *reader)
{
    return reader_bytes(reader, reader_left(reader));
}

static inline uint8_t reader_u8(struct reader *reader)
{
    struct bytes b = reader_bytes(reader, 1);
    return b.len == 0 ? 0 : b.data[0];
}

static inline uint16_t reader_u16(struct reader *reader)
{
    struct bytes b = reader_bytes(reader, 2);
    return b.len == 0 ? 0 : (uint16_t)((unsigned)b.data[0] << 8 | b.data[1]);
}

static inline uint32_t reader_u32(struct reader *reader)
{
    uint32_t high = reader_u16(reader);
    uint32_t low = reader_u16(reader);
    return high << 16 | low;
}

struct writer {
    uint8_t *start;
    uint8_t *at;
    uint8_t *end;
    bool failed;
};

static inline struct writer writer_of(void *data, size_t capacity)
{
    return (struct writer){data, data, (uint8_t *)data + capacity, false};
}

static inline bool writer_ok(const struct writer *writer)
{
    return !writer->failed;
}

static inline size_t writer_len(const struct writer *writer)
{
    return (size_t)(writer->at - writer->start);
}

static inline size_t writer_room(const struct writer *writer)
{
    return (size_t)(writer->end - writer->at);
}

/* `len` bytes to be filled by the caller, or NULL when they do not fit. */
static inline uint8_t *writer_take(struct writer *writer, size_t len)
{
    if (writer->failed || len > writer_room(writer)) {
        writer->failed = true;
        return NULL;
    }
    uint8_t *at = writer->at;
    writer->at += len;
    return at;
}

static inline void writer_bytes(struct writer *writer, struct bytes bytes)
{
    uint8_t *at = writer_take(writer, bytes.len);
    if (at != NULL) {
        bytes_copy(at, bytes);
    }
}

static inline void writer_u8(struct writer *writer, uint8_t value)
{
    uint8_t *at = writer_take(writer, 1);
    if (at != NULL) {
        at[0] = value;
    }
}

static inline void writer_u16(struct writer *writer, uint16_t value)
{
    uint8_t *at = writer_take(writer, 2);
    if (at != NULL) {
        at[0] = (uint8_t)(value >> 8);
        at[1] = (uint8_t)value;
    }
}

static inline void writer_u32(struct writer *writer, uint32_t value)
{
    writer_u16(writer, (uint16_t)(value >> 16));
    writer_u16(writer, (uint16_t)value);
}

static inline struct bytes writer_written(const struct writer *writer)
{
    return (struct bytes){writer->start, writer_len(writer)};
}

#endif
