#include "http_request.h"

#include <http_parser.h>
#include <limits.h>

#include "mem.h"

enum { NAME_BYTES_MAX = 32, TEXT_BYTES_MIN = 512, BODY_BYTES_MIN = 1024 };

/* The fields that somebody asks for; the first is the target of the request line. */
enum kept {
    TARGET,
    AUTHORIZATION,
    CONTENT_TYPE,
    HOST,
    ORIGIN,
    LAST_EVENT_ID,
    IDEMPOTENCY_KEY,
    EXPECT,
    KEPT_COUNT
};

static const char *const kept_names[KEPT_COUNT] = {
    [AUTHORIZATION] = "authorization",
    [CONTENT_TYPE] = "content-type",
    [HOST] = "host",
    [ORIGIN] = "origin",
    [LAST_EVENT_ID] = "last-event-id",
    [IDEMPOTENCY_KEY] = "idempotency-key",
    [EXPECT] = "expect",
};

struct buffer {
    uint8_t *data;
    size_t len;
    size_t capacity;
};

/* A value's place in the text. */
struct place {
    size_t at;
    size_t len;
    bool is_there;
};

struct http_reader {
    http_parser parser;
    size_t head_max;
    size_t body_max;
    size_t head_len;    /* of this request, so far */
    struct buffer text; /* kept values, one behind the other */
    struct buffer body;
    struct place kept[KEPT_COUNT];
    enum kept collecting; /* KEPT_COUNT: nothing */
    size_t name_len;
    char name[NAME_BYTES_MAX];
    bool in_value;
    bool in_body;
    bool is_inside;
    bool complete;
    bool wants_continue;
    enum http_read failure; /* HTTP_READ_MORE: none */
};

static int fail(struct http_reader *reader, enum http_read failure)
{
    reader->failure = failure;
    return -1; /* 1 has a meaning of its own at the end of a head */
}

static bool append(struct buffer *buffer, const char *at, size_t len, size_t min)
{
    if (buffer->capacity - buffer->len < len) {
        size_t capacity = buffer->capacity * 2 > min ? buffer->capacity * 2 : min;
        while (capacity - buffer->len < len) {
            capacity *= 2;
        }
        uint8_t *grown = mem_realloc(buffer->data, capacity);
        if (grown == NULL) {
            return false;
        }
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->len, at, len);
    buffer->len += len;
    return true;
}

static void drop(struct buffer *buffer)
{
    mem_free(buffer->data);
    *buffer = (struct buffer){NULL, 0, 0};
}

static int collect(struct http_reader *reader, const char *at, size_t len)
{
    struct place *place = &reader->kept[reader->collecting];
    if (!append(&reader->text, at, len, TEXT_BYTES_MIN)) {
        return fail(reader, HTTP_READ_NO_MEMORY);
    }
    place->len += len;
    return 0;
}

static void begin_place(struct http_reader *reader, enum kept kept)
{
    reader->collecting = kept;
    reader->kept[kept] = (struct place){reader->text.len, 0, true};
}

static int on_message_begin(http_parser *parser)
{
    struct http_reader *reader = parser->data;
    reader->is_inside = true;
    return 0;
}

static int on_url(http_parser *parser, const char *at, size_t len)
{
    struct http_reader *reader = parser->data;
    if (!reader->kept[TARGET].is_there) {
        begin_place(reader, TARGET);
    }
    return collect(reader, at, len);
}

static int on_header_field(http_parser *parser, const char *at, size_t len)
{
    struct http_reader *reader = parser->data;
    if (reader->in_value) {
        reader->in_value = false;
        reader->name_len = 0;
    }
    for (size_t i = 0; i < len && reader->name_len + i < NAME_BYTES_MAX; i++) {
        char c = at[i];
        reader->name[reader->name_len + i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    reader->name_len += len;
    return 0;
}

static enum kept named_field(const struct http_reader *reader)
{
    struct bytes name = bytes_of(reader->name, reader->name_len);
    for (unsigned kept = TARGET + 1; kept < KEPT_COUNT; kept++) {
        if (name.len <= NAME_BYTES_MAX && bytes_equal_string(name, kept_names[kept])) {
            return (enum kept)kept;
        }
    }
    return KEPT_COUNT;
}

static int on_header_value(http_parser *parser, const char *at, size_t len)
{
    struct http_reader *reader = parser->data;
    if (!reader->in_value) {
        reader->in_value = true;
        reader->collecting = named_field(reader);
        if (reader->collecting != KEPT_COUNT) {
            if (reader->kept[reader->collecting].is_there) {
                return fail(reader, HTTP_READ_BAD);
            }
            begin_place(reader, reader->collecting);
        }
    }
    return reader->collecting == KEPT_COUNT ? 0 : collect(reader, at, len);
}

static struct bytes kept_value(const struct http_reader *reader, enum kept kept)
{
    const struct place *place = &reader->kept[kept];
    if (!place->is_there || place->len == 0) {
        return BYTES_EMPTY;
    }
    struct bytes value = bytes_of(reader->text.data + place->at, place->len);
    while (value.len != 0 &&
           (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t')) {
        value.len--;
    }
    return value;
}

static bool expects_continue(const struct http_reader *reader)
{
    static const char expected[] = "100-continue";
    struct bytes value = kept_value(reader, EXPECT);
    if (value.len != sizeof expected - 1 || reader->parser.http_minor == 0) {
        return false;
    }
    for (size_t i = 0; i < value.len; i++) {
        if ((value.data[i] | 0x20) != expected[i] && value.data[i] != (uint8_t)expected[i]) {
            return false;
        }
    }
    return true;
}

static int on_headers_complete(http_parser *parser)
{
    struct http_reader *reader = parser->data;
    bool has_length = parser->content_length != ULLONG_MAX && parser->content_length != 0;
    bool has_body = has_length || (parser->flags & F_CHUNKED) != 0;
    reader->in_body = true;
    if (has_length && parser->content_length > reader->body_max) {
        return fail(reader, HTTP_READ_BODY_TOO_LARGE);
    }
    reader->wants_continue = has_body && expects_continue(reader);
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t len)
{
    struct http_reader *reader = parser->data;
    reader->wants_continue = false;
    if (len > reader->body_max - reader->body.len) {
        return fail(reader, HTTP_READ_BODY_TOO_LARGE);
    }
    return append(&reader->body, at, len, BODY_BYTES_MIN) ? 0 : fail(reader, HTTP_READ_NO_MEMORY);
}

/* Nothing behind the request is looked at before the next call. */
static int on_message_complete(http_parser *parser)
{
    struct http_reader *reader = parser->data;
    reader->complete = true;
    http_parser_pause(parser, 1);
    return 0;
}

struct http_reader *http_reader_create(size_t head_max, size_t body_max)
{
    struct http_reader *reader = mem_zalloc(sizeof *reader);
    if (reader != NULL) {
        http_parser_init(&reader->parser, HTTP_REQUEST);
        reader->parser.data = reader;
        reader->head_max = head_max;
        reader->body_max = body_max;
        reader->collecting = KEPT_COUNT;
    }
    return reader;
}

void http_reader_destroy(struct http_reader *reader)
{
    if (reader != NULL) {
        drop(&reader->text);
        drop(&reader->body);
        mem_free(reader);
    }
}

bool http_reader_is_inside(const struct http_reader *reader)
{
    return reader->is_inside;
}

/* Forgets the request before. */
static void begin(struct http_reader *reader)
{
    drop(&reader->text);
    drop(&reader->body);
    memset(reader->kept, 0, sizeof reader->kept);
    reader->head_len = 0;
    reader->name_len = 0;
    reader->collecting = KEPT_COUNT;
    reader->in_value = false;
    reader->in_body = false;
    reader->complete = false;
    reader->wants_continue = false;
    http_parser_pause(&reader->parser, 0);
}

static enum request_method method_of(unsigned method)
{
    switch (method) {
    case HTTP_GET:
        return METHOD_GET;
    case HTTP_HEAD:
        return METHOD_HEAD;
    case HTTP_POST:
        return METHOD_POST;
    case HTTP_OPTIONS:
        return METHOD_OPTIONS;
    default:
        return METHOD_OTHER;
    }
}

static enum http_read finish(struct http_reader *reader, struct http_request *out)
{
    struct bytes target = kept_value(reader, TARGET);
    const uint8_t *mark = target.len == 0 ? NULL : memchr(target.data, '?', target.len);
    size_t path_len = mark == NULL ? target.len : (size_t)(mark - target.data);
    *out = (struct http_request){
        .method = method_of(reader->parser.method),
        .keep_alive = http_should_keep_alive(&reader->parser) != 0,
        .is_1_1 = reader->parser.http_minor != 0,
        .path = bytes_of(target.data, path_len),
        .query = bytes_from(target, path_len + 1),
        .authorization = kept_value(reader, AUTHORIZATION),
        .content_type = kept_value(reader, CONTENT_TYPE),
        .host = kept_value(reader, HOST),
        .origin = kept_value(reader, ORIGIN),
        .last_event_id = kept_value(reader, LAST_EVENT_ID),
        .idempotency_key = kept_value(reader, IDEMPOTENCY_KEY),
        .body = bytes_of(reader->body.data, reader->body.len),
    };
    reader->is_inside = false;
    return HTTP_READ_REQUEST;
}

/* What the library has not liked. */
static enum http_read failure_of(const struct http_reader *reader)
{
    if (reader->failure != HTTP_READ_MORE) {
        return reader->failure;
    }
    return HTTP_PARSER_ERRNO(&reader->parser) == HPE_HEADER_OVERFLOW ? HTTP_READ_HEAD_TOO_LARGE
                                                                     : HTTP_READ_BAD;
}

enum http_read http_reader_feed(struct http_reader *reader, struct bytes *in,
                                struct http_request *out)
{
    static const http_parser_settings settings = {
        .on_message_begin = on_message_begin,
        .on_url = on_url,
        .on_header_field = on_header_field,
        .on_header_value = on_header_value,
        .on_headers_complete = on_headers_complete,
        .on_body = on_body,
        .on_message_complete = on_message_complete,
    };
    if (reader->complete) {
        begin(reader);
    }
    while (in->len != 0) {
        /* The head is measured before the library sees it; trailers of chunks count as well. */
        size_t room = reader->in_body ? in->len : reader->head_max - reader->head_len;
        if (room == 0) {
            return HTTP_READ_HEAD_TOO_LARGE;
        }
        size_t len = in->len < room ? in->len : room;
        size_t taken = http_parser_execute(&reader->parser, &settings, (const char *)in->data, len);
        reader->head_len += reader->in_body ? 0 : taken;
        *in = bytes_from(*in, taken);
        if (reader->complete) {
            return finish(reader, out);
        }
        if (HTTP_PARSER_ERRNO(&reader->parser) != HPE_OK) {
            return failure_of(reader);
        }
    }
    bool wants_continue = reader->wants_continue;
    reader->wants_continue = false;
    return wants_continue ? HTTP_READ_CONTINUE : HTTP_READ_MORE;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool http_decode_percent(struct bytes text, bool plus_is_blank, struct writer *writer)
{
    enum { ESCAPE_LEN = 3 };
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '%') {
            int high = i + 1 < text.len ? hex_digit(text.data[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_digit(text.data[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (uint8_t)(high << 4 | low);
            i += ESCAPE_LEN - 1;
        } else if (c == '+' && plus_is_blank) {
            c = ' ';
        }
        writer_u8(writer, c);
    }
    return writer_ok(writer);
}

static struct bytes cut(struct bytes *text, uint8_t end)
{
    struct bytes part = bytes_of(text->data, 0);
    while (part.len < text->len && text->data[part.len] != end) {
        part.len++;
    }
    *text = bytes_from(*text, part.len + 1);
    return part;
}

bool http_query_next(struct bytes *query, struct bytes *name, struct bytes *value)
{
    while (query->len != 0) {
        *value = cut(query, '&');
        if (value->len != 0) {
            *name = cut(value, '=');
            return true;
        }
    }
    return false;
}
