#include "http_head.h"

#include <http_parser.h>
#include <strings.h>

#include "mem.h"

enum { NAME_MAX_BYTES = 32, STORE_BYTES_MIN = 512 };

struct value {
    size_t at, len; /* in store */
    enum http_field field;
};

struct http_head {
    http_parser parser;
    size_t bytes_max;
    size_t bytes;
    uint8_t *kept; /* bytes_max, when all is kept; else NULL */
    char *store;   /* the values, one behind the other */
    size_t store_used, store_size;
    struct value values[HTTP_VALUES_MAX];
    unsigned value_count;
    enum http_head_result result;
    bool in_value;   /* the last callback was for a value */
    bool collecting; /* the value in progress is one that is kept */
    size_t name_len; /* may exceed the buffer: such a name is none of ours */
    char name[NAME_MAX_BYTES];
};

static const char *const field_names[HTTP_FIELD_COUNT] = {
    [HTTP_TARGET] = "",
    [HTTP_HOST] = "host",
    [HTTP_UPGRADE] = "upgrade",
    [HTTP_CONNECTION] = "connection",
    [HTTP_ORIGIN] = "origin",
    [HTTP_WEBSOCKET_KEY] = "sec-websocket-key",
    [HTTP_WEBSOCKET_VERSION] = "sec-websocket-version",
    [HTTP_WEBSOCKET_PROTOCOL] = "sec-websocket-protocol",
    [HTTP_AUTHORIZATION] = "authorization",
};

bool http_equal_nocase(struct bytes a, const char *b)
{
    return a.len == strlen(b) && (a.len == 0 || strncasecmp((const char *)a.data, b, a.len) == 0);
}

/* Callbacks return non-zero to stop the parser, with the reason in head->result. */
static int stop(struct http_head *head, enum http_head_result result)
{
    head->result = result;
    return -1;
}

static int begin_value(struct http_head *head, enum http_field field)
{
    if (head->value_count == HTTP_VALUES_MAX) {
        return stop(head, HTTP_HEAD_TOO_LARGE);
    }
    head->values[head->value_count++] = (struct value){head->store_used, 0, field};
    return 0;
}

static int append_value(struct http_head *head, const char *at, size_t len)
{
    size_t needed = head->store_used + len;
    if (needed > head->store_size) {
        size_t size =
            head->store_size * 2 > STORE_BYTES_MIN ? head->store_size * 2 : STORE_BYTES_MIN;
        while (size < needed) {
            size *= 2;
        }
        char *store = mem_realloc(head->store, size);
        if (store == NULL) {
            return stop(head, HTTP_HEAD_NO_MEMORY);
        }
        head->store = store;
        head->store_size = size;
    }
    memcpy(head->store + head->store_used, at, len);
    head->store_used = needed;
    head->values[head->value_count - 1].len += len;
    return 0;
}

static int on_url(http_parser *parser, const char *at, size_t len)
{
    struct http_head *head = parser->data;
    if (head->value_count == 0) {
        int stopped = begin_value(head, HTTP_TARGET);
        if (stopped != 0) {
            return stopped;
        }
    }
    return append_value(head, at, len);
}

static int on_header_field(http_parser *parser, const char *at, size_t len)
{
    struct http_head *head = parser->data;
    if (head->in_value) {
        head->in_value = false;
        head->name_len = 0;
    }
    for (size_t i = 0; i < len && head->name_len + i < NAME_MAX_BYTES; i++) {
        head->name[head->name_len + i] = at[i];
    }
    head->name_len += len;
    return 0;
}

/* The field whose name has just ended, or HTTP_FIELD_COUNT for one that nobody asks for. */
static enum http_field named_field(const struct http_head *head)
{
    if (head->name_len <= NAME_MAX_BYTES) {
        for (unsigned field = HTTP_HOST; field < HTTP_FIELD_COUNT; field++) {
            if (http_equal_nocase(bytes_of(head->name, head->name_len), field_names[field])) {
                return (enum http_field)field;
            }
        }
    }
    return HTTP_FIELD_COUNT;
}

static int on_header_value(http_parser *parser, const char *at, size_t len)
{
    struct http_head *head = parser->data;
    if (!head->in_value) {
        enum http_field field = named_field(head);
        head->in_value = true;
        head->collecting = field != HTTP_FIELD_COUNT;
        int stopped = head->collecting ? begin_value(head, field) : 0;
        if (stopped != 0) {
            return stopped;
        }
    }
    return head->collecting ? append_value(head, at, len) : 0;
}

static int on_headers_complete(http_parser *parser)
{
    struct http_head *head = parser->data;
    head->result = HTTP_HEAD_DONE;
    return 2; /* whatever follows is not HTTP: the parser stops behind the head */
}

struct http_head *http_head_create(size_t bytes_max, bool keep_bytes)
{
    struct http_head *head = mem_zalloc(sizeof *head);
    if (head != NULL && keep_bytes) {
        head->kept = mem_alloc(bytes_max);
        if (head->kept == NULL) {
            mem_free(head);
            return NULL;
        }
    }
    if (head != NULL) {
        http_parser_init(&head->parser, HTTP_REQUEST);
        head->parser.data = head;
        head->bytes_max = bytes_max;
    }
    return head;
}

void http_head_destroy(struct http_head *head)
{
    if (head != NULL) {
        mem_free(head->kept);
        mem_free(head->store);
        mem_free(head);
    }
}

enum http_head_result http_head_feed(struct http_head *head, struct bytes bytes, size_t *consumed)
{
    static const http_parser_settings settings = {
        .on_url = on_url,
        .on_header_field = on_header_field,
        .on_header_value = on_header_value,
        .on_headers_complete = on_headers_complete,
    };
    ENSURE(head->result == HTTP_HEAD_MORE);
    *consumed = 0;
    if (bytes.len == 0) {
        return HTTP_HEAD_MORE; /* the library takes an empty input for the end of the stream */
    }
    size_t room = head->bytes_max - head->bytes;
    size_t len = bytes.len < room ? bytes.len : room;
    if (len != 0) {
        *consumed = http_parser_execute(&head->parser, &settings, (const char *)bytes.data, len);
        if (head->kept != NULL) {
            memcpy(head->kept + head->bytes, bytes.data, *consumed);
        }
        head->bytes += *consumed;
    }
    if (head->result != HTTP_HEAD_MORE) {
        return head->result;
    }
    if (HTTP_PARSER_ERRNO(&head->parser) != HPE_OK) {
        head->result = HTTP_PARSER_ERRNO(&head->parser) == HPE_HEADER_OVERFLOW ? HTTP_HEAD_TOO_LARGE
                                                                               : HTTP_HEAD_BAD;
    } else if (len < bytes.len) {
        head->result = HTTP_HEAD_TOO_LARGE;
    }
    return head->result;
}

struct bytes http_head_bytes(const struct http_head *head)
{
    return head->kept == NULL ? BYTES_EMPTY : bytes_of(head->kept, head->bytes);
}

bool http_head_is_get(const struct http_head *head)
{
    return head->parser.method == HTTP_GET;
}

bool http_head_is_1_1(const struct http_head *head)
{
    return head->parser.http_major == 1 && head->parser.http_minor >= 1;
}

unsigned http_head_count(const struct http_head *head, enum http_field field)
{
    unsigned count = 0;
    for (unsigned i = 0; i < head->value_count; i++) {
        count += head->values[i].field == field;
    }
    return count;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct bytes trim(struct bytes text)
{
    while (text.len != 0 && is_blank(text.data[0])) {
        text = bytes_from(text, 1);
    }
    while (text.len != 0 && is_blank(text.data[text.len - 1])) {
        text.len--;
    }
    return text;
}

struct bytes http_head_value(const struct http_head *head, enum http_field field, unsigned n)
{
    for (unsigned i = 0; i < head->value_count; i++) {
        const struct value *value = &head->values[i];
        if (value->field == field && n-- == 0) {
            return value->len == 0 ? BYTES_EMPTY
                                   : trim(bytes_of(head->store + value->at, value->len));
        }
    }
    return BYTES_EMPTY;
}

/* The cursor counts places in the store, shifted by one for each value, so that every value has an
 * end of its own. */
bool http_head_next_token(const struct http_head *head, enum http_field field, size_t *cursor,
                          struct bytes *token)
{
    for (unsigned i = 0; i < head->value_count; i++) {
        const struct value *value = &head->values[i];
        size_t start = value->at + i;
        if (value->field != field || *cursor > start + value->len || value->len == 0) {
            continue;
        }
        struct bytes rest = bytes_of(head->store + value->at, value->len);
        if (*cursor > start) {
            rest = bytes_from(rest, *cursor - start);
        }
        while (rest.len != 0) {
            const uint8_t *comma = memchr(rest.data, ',', rest.len);
            size_t len = comma == NULL ? rest.len : (size_t)(comma - rest.data);
            *token = trim(bytes_of(rest.data, len));
            rest = bytes_from(rest, len + 1);
            *cursor = start + value->len - rest.len;
            if (rest.len == 0) {
                *cursor = start + value->len + 1;
            }
            if (token->len != 0) {
                return true;
            }
        }
    }
    return false;
}

bool http_head_has_token(const struct http_head *head, enum http_field field, const char *token)
{
    size_t cursor = 0;
    struct bytes found;
    while (http_head_next_token(head, field, &cursor, &found)) {
        if (http_equal_nocase(found, token)) {
            return true;
        }
    }
    return false;
}
