#include "ws_handshake.h"

#include <mbedtls/base64.h>
#include <mbedtls/md.h>
#include <stdarg.h>
#include <stdio.h>

enum { KEY_CHARACTERS = 24, KEY_BYTES = 16, SHA1_BYTES = 20, ACCEPT_BYTES = 32 };

static PRINTF_LIKE(2, 3) void append(struct ws_handshake *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = sizeof out->response - out->response_len;
    int n = vsnprintf(out->response + out->response_len, room, format, args);
    va_end(args);
    ENSURE(n >= 0);
    size_t len = (size_t)n;
    out->response_len += len < room ? len : room - 1;
}

/* `extra` are more header lines, each with its line end; `body` is one readable sentence. */
static void refuse(struct ws_handshake *out, const char *status, const char *extra,
                   const char *reason, const char *body)
{
    out->accepted = false;
    out->reason = reason;
    out->response_len = 0;
    append(out,
           "HTTP/1.1 %s\r\n%sConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
           "Content-Length: %zu\r\n\r\n%s\n",
           status, extra, strlen(body) + 1, body);
}

static bool key_is_valid(struct bytes key)
{
    uint8_t decoded[KEY_BYTES + 2];
    size_t len = 0;
    return key.len == KEY_CHARACTERS &&
           mbedtls_base64_decode(decoded, sizeof decoded, &len, key.data, key.len) == 0 &&
           len == KEY_BYTES;
}

/* Section 4.2.2, step 5.4. False when the digest could not be computed. */
static bool accept_value(struct bytes key, char out[ACCEPT_BYTES])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t input[KEY_CHARACTERS + sizeof guid - 1];
    uint8_t digest[SHA1_BYTES];
    size_t len;
    memcpy(input, key.data, KEY_CHARACTERS);
    memcpy(input + KEY_CHARACTERS, guid, sizeof guid - 1);
    return mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA1), input, sizeof input, digest) ==
               0 &&
           mbedtls_base64_encode((unsigned char *)out, ACCEPT_BYTES, &len, digest, sizeof digest) ==
               0;
}

/* Section 4.2.2, step 5.5: the client's first choice that we have. False: it offered only others.
 */
static bool choose_subprotocol(const struct http_head *head, const struct listener_options *options,
                               int *index, struct bytes *token)
{
    size_t cursor = 0;
    bool offered = false;
    *index = -1;
    while (http_head_next_token(head, HTTP_WEBSOCKET_PROTOCOL, &cursor, token)) {
        offered = true;
        for (size_t i = 0; i < options->subprotocol_count; i++) {
            if (http_equal_nocase(*token, options->subprotocols[i])) {
                *index = (int)i;
                return true;
            }
        }
    }
    return !offered;
}

static bool origin_is_allowed(const struct http_head *head, const struct listener_options *options)
{
    if (options->origin_count == 0) {
        return true;
    }
    struct bytes origin = http_head_value(head, HTTP_ORIGIN, 0);
    for (size_t i = 0; i < options->origin_count; i++) {
        if (http_equal_nocase(origin, options->origins[i])) {
            return http_head_count(head, HTTP_ORIGIN) == 1;
        }
    }
    return false;
}

static void refuse_subprotocol(const struct listener_options *options, struct ws_handshake *out)
{
    char body[512] = "None of the offered WebSocket subprotocols is served here; served are:";
    size_t used = strlen(body);
    for (size_t i = 0; i < options->subprotocol_count; i++) {
        int n = snprintf(body + used, sizeof body - used, " %s", options->subprotocols[i]);
        if (n < 0 || (size_t)n >= sizeof body - used) {
            break;
        }
        used += (size_t)n;
    }
    body[used] = 0;
    refuse(out, "400 Bad Request", "", "no WebSocket subprotocol in common", body);
}

void ws_handshake_refuse_full(struct ws_handshake *out)
{
    out->subprotocol = -1;
    refuse(out, "503 Service Unavailable", "Retry-After: 10\r\n", "too many connections",
           "Too many connections; try again later.");
}

/* Everything but the subprotocol. False: `out` has the refusal. */
static bool request_is_acceptable(const struct http_head *head,
                                  const struct listener_options *options, bool full,
                                  struct ws_handshake *out)
{
    static const char bad[] = "400 Bad Request";
    if (!http_head_is_get(head)) {
        refuse(out, "405 Method Not Allowed", "Allow: GET\r\n", "HTTP method is not GET",
               "Only GET is served here, to open a WebSocket.");
    } else if (!http_head_is_1_1(head)) {
        refuse(out, bad, "", "HTTP version below 1.1", "A WebSocket needs HTTP/1.1.");
    } else if (http_head_count(head, HTTP_HOST) != 1) {
        refuse(out, bad, "", "HTTP request without one Host",
               "The Host header must be there, once.");
    } else if (!http_head_has_token(head, HTTP_UPGRADE, "websocket")) {
        refuse(out, "426 Upgrade Required", "Upgrade: websocket\r\nConnection: Upgrade\r\n",
               "HTTP request that does not open a WebSocket",
               "This port speaks MQTT over WebSocket: connect with an MQTT client, not a browser's "
               "address bar.");
    } else if (!http_head_has_token(head, HTTP_CONNECTION, "upgrade")) {
        refuse(out, bad, "", "Connection header without Upgrade",
               "The Connection header must contain Upgrade. Is a proxy removing it?");
    } else if (http_head_count(head, HTTP_WEBSOCKET_VERSION) != 1 ||
               !bytes_equal_string(http_head_value(head, HTTP_WEBSOCKET_VERSION, 0), "13")) {
        refuse(out, "426 Upgrade Required",
               "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
               "WebSocket version is not 13",
               "Only version 13 of the WebSocket protocol is spoken.");
    } else if (http_head_count(head, HTTP_WEBSOCKET_KEY) != 1 ||
               !key_is_valid(http_head_value(head, HTTP_WEBSOCKET_KEY, 0))) {
        refuse(out, bad, "", "Sec-WebSocket-Key missing or wrong",
               "Sec-WebSocket-Key must be there once: 16 bytes in base64.");
    } else if (!origin_is_allowed(head, options)) {
        refuse(out, "403 Forbidden", "", "Origin is not allowed",
               "Pages of this origin may not connect here.");
    } else if (full) {
        ws_handshake_refuse_full(out);
    } else {
        return true;
    }
    return false;
}

void ws_handshake_decide(const struct http_head *head, const struct listener_options *options,
                         bool full, struct ws_handshake *out)
{
    struct bytes token = BYTES_EMPTY;
    char accept[ACCEPT_BYTES];
    out->subprotocol = -1;
    if (!request_is_acceptable(head, options, full, out)) {
        return;
    }
    if (!choose_subprotocol(head, options, &out->subprotocol, &token)) {
        refuse_subprotocol(options, out);
        return;
    }
    if (!accept_value(http_head_value(head, HTTP_WEBSOCKET_KEY, 0), accept)) {
        refuse(out, "500 Internal Server Error", "", "SHA-1 failed", "The server has a problem.");
        return;
    }
    out->accepted = true;
    out->reason = NULL;
    out->response_len = 0;
    append(out,
           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Accept: %s\r\n",
           accept);
    if (out->subprotocol >= 0) {
        /* The client's spelling; it matches a short configured name, so it fits and has no odd
         * characters. */
        append(out, "Sec-WebSocket-Protocol: %.*s\r\n", (int)token.len, (const char *)token.data);
    }
    append(out, "\r\n");
}

void ws_handshake_refuse(enum http_head_result result, struct ws_handshake *out)
{
    out->subprotocol = -1;
    if (result == HTTP_HEAD_TOO_LARGE) {
        refuse(out, "431 Request Header Fields Too Large", "", "HTTP request head too large",
               "The request has more header bytes than are accepted here.");
    } else {
        refuse(out, "400 Bad Request", "", "malformed HTTP request", "This is not HTTP/1.1.");
    }
}
