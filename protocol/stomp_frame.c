#include "stomp_frame.h"

#include "utf8.h"

static const struct {
    const char *name;
    enum stomp_command command;
} commands[] = {
    {"CONNECT", STOMP_CONNECT},
    {"STOMP", STOMP_CONNECT},
    {"SEND", STOMP_SEND},
    {"SUBSCRIBE", STOMP_SUBSCRIBE},
    {"ACK", STOMP_ACK},
    {"NACK", STOMP_NACK},
    {"BEGIN", STOMP_BEGIN},
    {"COMMIT", STOMP_COMMIT},
    {"ABORT", STOMP_ABORT},
    {"UNSUBSCRIBE", STOMP_UNSUBSCRIBE},
    {"DISCONNECT", STOMP_DISCONNECT},
};

const char *stomp_result_text(enum stomp_result result)
{
    switch (result) {
    case STOMP_OK:
    case STOMP_MORE:
        break;
    case STOMP_BAD_HEAD:
        return "malformed frame: not a command line followed by name:value lines";
    case STOMP_BAD_LENGTH:
        return "malformed frame: content-length and the frame's end do not agree";
    case STOMP_BAD_ESCAPE:
        return "malformed frame: unknown escape sequence in a header";
    case STOMP_BAD_UTF8:
        return "malformed frame: headers are not UTF-8";
    case STOMP_TOO_LARGE:
        return "frame larger than max_packet_size";
    case STOMP_HEAD_TOO_LARGE:
        return "frame with too many headers";
    }
    return "whole frame";
}

struct bytes stomp_skip_line_ends(struct bytes in)
{
    size_t at = 0;
    while (at < in.len && (in.data[at] == '\n' || in.data[at] == '\r')) {
        at++;
    }
    return bytes_from(in, at);
}

bool stomp_number_read(struct bytes text, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    if (text.len == 0) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9 || digit > max || value > (max - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

/* Takes the next line off `reader`, without its end. A carriage return belongs to the end. */
static bool next_line(struct reader *reader, struct bytes *line)
{
    const uint8_t *end =
        reader_left(reader) == 0 ? NULL : memchr(reader->at, '\n', reader_left(reader));
    if (end == NULL) {
        return false;
    }
    *line = reader_bytes(reader, (size_t)(end - reader->at));
    (void)reader_u8(reader);
    if (line->len != 0 && line->data[line->len - 1] == '\r') {
        line->len--;
    }
    return true;
}

/* A header line at its first colon. In 1.0 and 1.1 a value may hold colons that are not escaped. */
static bool split_header(struct bytes line, struct stomp_header *out)
{
    const uint8_t *colon = line.len == 0 ? NULL : memchr(line.data, ':', line.len);
    if (colon == NULL || colon == line.data) {
        return false;
    }
    size_t name_len = (size_t)(colon - line.data);
    *out = (struct stomp_header){bytes_of(line.data, name_len), bytes_from(line, name_len + 1)};
    return true;
}

/* The empty line that ends the headers, looked for behind `from`. 0: it has not come. */
static size_t find_head_end(struct bytes in, size_t from)
{
    while (from < in.len) {
        const uint8_t *at = memchr(in.data + from, '\n', in.len - from);
        if (at == NULL) {
            return 0;
        }
        size_t next = (size_t)(at - in.data) + 1;
        if (next < in.len && in.data[next] == '\n') {
            return next + 1;
        }
        if (next + 1 < in.len && in.data[next] == '\r' && in.data[next + 1] == '\n') {
            return next + 2;
        }
        from = next;
    }
    return 0;
}

/* The head is there: what does it say about the length? */
static enum stomp_result read_length(struct stomp_scan *scan, struct bytes in,
                                     size_t frame_bytes_max)
{
    struct reader reader = reader_of(bytes_of(in.data, scan->head_len));
    struct bytes line;
    (void)next_line(&reader, &line);
    while (next_line(&reader, &line)) {
        struct stomp_header header;
        if (!split_header(line, &header) || !bytes_equal_string(header.name, "content-length")) {
            continue;
        }
        uint64_t len = 0;
        if (!stomp_number_read(header.value, UINT64_MAX, &len)) {
            return STOMP_BAD_LENGTH;
        }
        if (scan->head_len >= frame_bytes_max || len > frame_bytes_max - scan->head_len - 1) {
            return STOMP_TOO_LARGE;
        }
        scan->has_length = true;
        scan->frame_len = scan->head_len + (size_t)len + 1;
        return STOMP_OK;
    }
    return STOMP_OK;
}

/* Garbage is told from a frame by its first line: there is no need to wait for more of it. */
static bool command_line_is_possible(struct bytes in)
{
    size_t len = in.len < STOMP_COMMAND_BYTES_MAX ? in.len : STOMP_COMMAND_BYTES_MAX;
    for (size_t i = 0; i < len; i++) {
        if (in.data[i] == '\n') {
            return true;
        }
        if ((in.data[i] < 'A' || in.data[i] > 'Z') && in.data[i] != '\r') {
            return false;
        }
    }
    return in.len <= STOMP_COMMAND_BYTES_MAX;
}

static enum stomp_result scan_head(struct stomp_scan *scan, struct bytes in, size_t frame_bytes_max)
{
    if (!command_line_is_possible(in)) {
        return STOMP_BAD_HEAD;
    }
    struct bytes head = in;
    if (head.len > STOMP_HEAD_BYTES_MAX) {
        head.len = STOMP_HEAD_BYTES_MAX;
    }
    size_t end = find_head_end(head, scan->searched);
    size_t seen = end != 0 ? end : head.len;
    if (seen > scan->searched &&
        memchr(head.data + scan->searched, 0, seen - scan->searched) != NULL) {
        return STOMP_BAD_HEAD;
    }
    if (end == 0) {
        if (in.len >= STOMP_HEAD_BYTES_MAX) {
            return STOMP_HEAD_TOO_LARGE;
        }
        if (in.len > frame_bytes_max) {
            return STOMP_TOO_LARGE;
        }
        scan->searched = head.len < 2 ? 0 : head.len - 2; /* the end may be cut in its middle */
        return STOMP_MORE;
    }
    scan->head_len = end;
    scan->searched = end;
    return read_length(scan, in, frame_bytes_max);
}

enum stomp_result stomp_frame_scan(struct stomp_scan *scan, struct bytes in, size_t frame_bytes_max)
{
    if (scan->head_len == 0) {
        enum stomp_result result = scan_head(scan, in, frame_bytes_max);
        if (result != STOMP_OK) {
            return result;
        }
    }
    if (scan->has_length) {
        if (in.len < scan->frame_len) {
            return STOMP_MORE;
        }
        return in.data[scan->frame_len - 1] == 0 ? STOMP_OK : STOMP_BAD_LENGTH;
    }
    const uint8_t *nul = scan->searched >= in.len
                             ? NULL
                             : memchr(in.data + scan->searched, 0, in.len - scan->searched);
    scan->searched = in.len;
    size_t len = nul == NULL ? in.len : (size_t)(nul - in.data) + 1;
    if (len > frame_bytes_max) {
        return STOMP_TOO_LARGE;
    }
    if (nul == NULL) {
        return STOMP_MORE;
    }
    scan->frame_len = len;
    return STOMP_OK;
}

/* What the character behind a backslash stands for; 0: nothing. */
static uint8_t unescaped(uint8_t character, enum stomp_version version)
{
    switch (character) {
    case 'n':
        return '\n';
    case 'c':
        return ':';
    case '\\':
        return '\\';
    case 'r':
        return version == STOMP_1_2 ? '\r' : 0;
    default:
        return 0;
    }
}

/* Replaces *text by what it stands for, in `scratch` if anything is escaped. */
static bool unescape(struct bytes *text, enum stomp_version version, struct writer *scratch)
{
    if (version < STOMP_1_1 || text->len == 0 || memchr(text->data, '\\', text->len) == NULL) {
        return true;
    }
    uint8_t *start = scratch->at;
    struct reader reader = reader_of(*text);
    while (reader_left(&reader) != 0) {
        uint8_t byte = reader_u8(&reader);
        if (byte == '\\') {
            byte = unescaped(reader_u8(&reader), version);
            if (byte == 0) {
                return false;
            }
        }
        writer_u8(scratch, byte);
    }
    *text = bytes_of(start, (size_t)(scratch->at - start));
    return true;
}

static enum stomp_command command_of(struct bytes name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (bytes_equal_string(name, commands[i].name)) {
            return commands[i].command;
        }
    }
    return STOMP_UNKNOWN;
}

enum stomp_result stomp_frame_decode(struct bytes in, const struct stomp_scan *scan,
                                     enum stomp_version version, uint8_t *scratch,
                                     struct stomp_frame *out)
{
    struct bytes head = bytes_of(in.data, scan->head_len);
    struct reader reader = reader_of(head);
    struct writer writer = writer_of(scratch, STOMP_HEAD_BYTES_MAX);
    struct bytes line;
    out->header_count = 0;
    out->body = bytes_of(in.data + scan->head_len, scan->frame_len - scan->head_len - 1);
    if (!next_line(&reader, &out->command_name) || out->command_name.len == 0) {
        return STOMP_BAD_HEAD;
    }
    if (!utf8_is_valid_string(head)) {
        return STOMP_BAD_UTF8;
    }
    out->command = command_of(out->command_name);
    while (next_line(&reader, &line) && line.len != 0) {
        if (out->header_count == STOMP_HEADERS_MAX) {
            return STOMP_HEAD_TOO_LARGE;
        }
        struct stomp_header *header = &out->headers[out->header_count];
        if (!split_header(line, header)) {
            return STOMP_BAD_HEAD;
        }
        if (!unescape(&header->name, version, &writer) ||
            !unescape(&header->value, version, &writer)) {
            return STOMP_BAD_ESCAPE;
        }
        out->header_count++;
    }
    ENSURE(writer_ok(&writer)); /* what is unescaped is shorter than the head */
    return STOMP_OK;
}

bool stomp_frame_header(const struct stomp_frame *frame, const char *name, struct bytes *value)
{
    for (size_t i = 0; i < frame->header_count; i++) {
        if (bytes_equal_string(frame->headers[i].name, name)) {
            *value = frame->headers[i].value;
            return true;
        }
    }
    *value = BYTES_EMPTY;
    return false;
}

void stomp_write_command(struct writer *writer, const char *command)
{
    writer_bytes(writer, bytes_of_string(command));
    writer_u8(writer, '\n');
}

static void write_escape(struct writer *writer, char letter)
{
    writer_u8(writer, '\\');
    writer_u8(writer, (uint8_t)letter);
}

static void write_text(struct writer *writer, enum stomp_version version, struct bytes text)
{
    bool escapes = version >= STOMP_1_1;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = text.data[i];
        if (byte == '\n' && escapes) {
            write_escape(writer, 'n');
        } else if (byte == '\r' && version == STOMP_1_2) {
            write_escape(writer, 'r');
        } else if (byte == '\n' || byte == '\r') {
            writer_u8(writer, ' ');
        } else if (byte == ':' && escapes) {
            write_escape(writer, 'c');
        } else if (byte == '\\' && escapes) {
            write_escape(writer, '\\');
        } else {
            writer_u8(writer, byte);
        }
    }
}

static bool has_any(struct bytes text, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (text.len != 0 && memchr(text.data, bytes[i], text.len) != NULL) {
            return true;
        }
    }
    return false;
}

void stomp_write_header(struct writer *writer, enum stomp_version version, struct bytes name,
                        struct bytes value)
{
    static const char never[] = {0};
    static const char unescapable[] = {':', '\n', '\r'};
    if (name.len == 0 || has_any(name, never, 1) || has_any(value, never, 1) ||
        (version < STOMP_1_1 && has_any(name, unescapable, sizeof unescapable))) {
        return;
    }
    write_text(writer, version, name);
    writer_u8(writer, ':');
    write_text(writer, version, value);
    writer_u8(writer, '\n');
}

void stomp_write_digits(struct writer *writer, uint64_t value)
{
    uint8_t digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    writer_bytes(writer, bytes_of(digits + at, sizeof digits - at));
}

void stomp_write_number(struct writer *writer, const char *name, uint64_t value)
{
    writer_bytes(writer, bytes_of_string(name));
    writer_u8(writer, ':');
    stomp_write_digits(writer, value);
    writer_u8(writer, '\n');
}

void stomp_write_head_end(struct writer *writer)
{
    writer_u8(writer, '\n');
}

void stomp_write_end(struct writer *writer)
{
    writer_u8(writer, 0);
}
