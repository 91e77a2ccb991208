#include "http_response.h"

#include <stdarg.h>
#include <stdio.h>

static const char *reason_phrase(unsigned status)
{
    static const struct {
        unsigned status;
        const char *phrase;
    } table[] = {
        {200, "OK"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {422, "Unprocessable Content"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].status == status) {
            return table[i].phrase;
        }
    }
    return "Other";
}

static PRINTF_LIKE(2, 3) void put(struct writer *writer, const char *format, ...)
{
    char line[128];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ENSURE(len >= 0 && (size_t)len < sizeof line);
    writer_bytes(writer, bytes_of(line, (size_t)len));
}

static void put_field(struct writer *writer, const char *name, struct bytes value)
{
    put(writer, "%s: ", name);
    writer_bytes(writer, value);
    put(writer, "\r\n");
}

static void put_cors(const struct http_response *response, struct writer *writer)
{
    if (response->allow_origin.len == 0) {
        return;
    }
    put_field(writer, "Access-Control-Allow-Origin", response->allow_origin);
    put(writer, "Vary: Origin\r\n");
    if (response->is_preflight) {
        put(writer, "Access-Control-Allow-Methods: GET, HEAD, POST\r\n");
        put(writer, "Access-Control-Allow-Headers: "
                    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID\r\n");
        put(writer, "Access-Control-Max-Age: 600\r\n");
    }
}

void http_response_head(const struct http_response *response, struct writer *writer)
{
    put(writer, "HTTP/1.1 %u %s\r\n", response->status, reason_phrase(response->status));
    if (response->content_type_bytes.len != 0) {
        put_field(writer, "Content-Type", response->content_type_bytes);
    } else if (response->content_type != NULL) {
        put(writer, "Content-Type: %s\r\n", response->content_type);
    }
    if (!response->until_close && response->status != 204) {
        put(writer, "Content-Length: %zu\r\n", response->content_length);
    }
    if (response->allow != NULL) {
        put(writer, "Allow: %s\r\n", response->allow);
    }
    if (response->asks_for_login) {
        put(writer, "WWW-Authenticate: Basic realm=\"dunlin\", charset=\"UTF-8\"\r\n");
    }
    put_cors(response, writer);
    put(writer, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    put(writer, "Connection: %s\r\n\r\n", response->keep_alive ? "keep-alive" : "close");
}

struct bytes http_response_continue(void)
{
    return bytes_of_string("HTTP/1.1 100 Continue\r\n\r\n");
}

bool http_field_is_clean(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < ' ' || text.data[i] > '~') {
            return false;
        }
    }
    return true;
}
