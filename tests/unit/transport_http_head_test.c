/* HTTP heads, cut at every byte, and the decision about an upgrade. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "http_head.h"
#include "mem.h"
#include "ws_handshake.h"

static const char request[] = "GET /mqtt?x=1 HTTP/1.1\r\n"
                              "Host: broker.example\r\n"
                              "X-Other: a, b, c\r\n"
                              "upgrade: h2c, WebSocket\r\n"
                              "Connection: keep-alive\r\n"
                              "Authorization: Basic  YTpi\r\n"
                              "CONNECTION:   Upgrade  \r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                              "Sec-WebSocket-Protocol: a ,, b\r\n"
                              "Sec-WebSocket-Protocol:\r\n"
                              "Sec-WebSocket-Protocol: mqtt,\r\n"
                              "Sec-WebSocket-Version: 13\r\n\r\n";

static void check_fields(const struct http_head *head)
{
    size_t cursor = 0;
    struct bytes token;
    assert_true(http_head_is_get(head));
    assert_true(http_head_is_1_1(head));
    assert_true(bytes_equal_string(http_head_value(head, HTTP_TARGET, 0), "/mqtt?x=1"));
    assert_true(bytes_equal_string(http_head_value(head, HTTP_HOST, 0), "broker.example"));
    assert_int_equal(http_head_count(head, HTTP_CONNECTION), 2);
    assert_true(bytes_equal_string(http_head_value(head, HTTP_CONNECTION, 1), "Upgrade"));
    assert_true(bytes_equal_string(http_head_value(head, HTTP_AUTHORIZATION, 0), "Basic  YTpi"));
    assert_int_equal(http_head_count(head, HTTP_ORIGIN), 0);
    assert_int_equal(http_head_value(head, HTTP_ORIGIN, 0).len, 0);
    assert_true(http_head_has_token(head, HTTP_UPGRADE, "websocket"));
    assert_true(http_head_has_token(head, HTTP_CONNECTION, "upgrade"));
    assert_false(http_head_has_token(head, HTTP_UPGRADE, "web"));
    assert_true(http_head_next_token(head, HTTP_WEBSOCKET_PROTOCOL, &cursor, &token));
    assert_true(bytes_equal_string(token, "a"));
    assert_true(http_head_next_token(head, HTTP_WEBSOCKET_PROTOCOL, &cursor, &token));
    assert_true(bytes_equal_string(token, "b"));
    assert_true(http_head_next_token(head, HTTP_WEBSOCKET_PROTOCOL, &cursor, &token));
    assert_true(bytes_equal_string(token, "mqtt"));
    assert_false(http_head_next_token(head, HTTP_WEBSOCKET_PROTOCOL, &cursor, &token));
}

static void splits(void **state)
{
    (void)state;
    char input[sizeof request + 10];
    size_t head_len = sizeof request - 1;
    (void)snprintf(input, sizeof input, "%s%s", request, "\x82\x80rest");
    size_t len = strlen(input);
    for (size_t cut = 0; cut <= head_len; cut++) {
        struct http_head *head = http_head_create(4096, true);
        size_t consumed = 0;
        assert_non_null(head);
        enum http_head_result result = http_head_feed(head, bytes_of(input, cut), &consumed);
        if (cut < head_len) {
            assert_int_equal(result, HTTP_HEAD_MORE);
            assert_int_equal(consumed, cut);
            result = http_head_feed(head, bytes_of(input + cut, len - cut), &consumed);
            consumed += cut;
        }
        assert_int_equal(result, HTTP_HEAD_DONE);
        assert_int_equal(consumed, head_len);
        check_fields(head);
        http_head_destroy(head);
    }
}

static enum http_head_result parse(const char *text, size_t bytes_max)
{
    struct http_head *head = http_head_create(bytes_max, true);
    size_t consumed;
    assert_non_null(head);
    enum http_head_result result = http_head_feed(head, bytes_of_string(text), &consumed);
    http_head_destroy(head);
    return result;
}

static void limits(void **state)
{
    (void)state;
    assert_int_equal(parse(request, sizeof request - 1), HTTP_HEAD_DONE);
    assert_int_equal(parse(request, sizeof request - 2), HTTP_HEAD_TOO_LARGE);
    assert_int_equal(parse("NONSENSE\r\n\r\n", 100), HTTP_HEAD_BAD);
    assert_int_equal(parse("GET / HTTP/1.1\r\nbad header\r\n\r\n", 100), HTTP_HEAD_BAD);
    char many[4096];
    int used = snprintf(many, sizeof many, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < HTTP_VALUES_MAX; i++) {
        used += snprintf(many + used, sizeof many - (size_t)used, "Host: a\r\n");
    }
    assert_int_equal(parse(many, sizeof many), HTTP_HEAD_TOO_LARGE);
}

/* A body that the client announces, or what it sends behind a CONNECT, is not the parser's. */
static void stops_behind_the_head(void **state)
{
    (void)state;
    static const char *const heads[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        char text[256];
        size_t consumed;
        (void)snprintf(text, sizeof text, "%s12345", heads[i]);
        struct http_head *head = http_head_create(1000, true);
        assert_non_null(head);
        assert_int_equal(http_head_feed(head, bytes_of_string(text), &consumed), HTTP_HEAD_DONE);
        assert_int_equal(consumed, strlen(heads[i]));
        assert_true(bytes_equal(http_head_bytes(head), bytes_of_string(heads[i])));
        http_head_destroy(head);
    }
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 3; n++) {
        size_t consumed;
        mem_fail_at(n);
        struct http_head *head = http_head_create(4096, true);
        if (n <= 2) { /* the parser and what it keeps */
            assert_null(head);
        } else {
            assert_int_equal(http_head_feed(head, bytes_of_string(request), &consumed),
                             HTTP_HEAD_NO_MEMORY);
        }
        mem_fail_at(0);
        http_head_destroy(head);
    }
}

static void decides(void **state)
{
    (void)state;
    static const char *const names[] = {"mqttv3.1", "mqtt"};
    struct listener_options options = listener_options_default();
    struct ws_handshake answer;
    struct http_head *head = http_head_create(4096, true);
    size_t consumed;
    options.subprotocols = names;
    options.subprotocol_count = 2;
    assert_int_equal(http_head_feed(head, bytes_of_string(request), &consumed), HTTP_HEAD_DONE);
    ws_handshake_decide(head, &options, false, &answer);
    assert_true(answer.accepted);
    assert_int_equal(answer.subprotocol, 1);
    assert_int_equal(answer.response_len, strlen(answer.response));
    assert_string_equal(answer.response,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                        "Sec-WebSocket-Protocol: mqtt\r\n\r\n");
    options.subprotocol_count = 1;
    ws_handshake_decide(head, &options, false, &answer);
    assert_false(answer.accepted);
    ws_handshake_decide(head, &options, true, &answer);
    assert_non_null(strstr(answer.response, "HTTP/1.1 503 "));
    http_head_destroy(head);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits),
        cmocka_unit_test(limits),
        cmocka_unit_test(stops_behind_the_head),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
