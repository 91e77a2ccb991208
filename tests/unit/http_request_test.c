/* HTTP requests cut at every place, pipelined, chunked, with every limit and many mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "http_request.h"
#include "http_response.h"
#include "mem.h"

enum { HEAD_MAX = 400, BODY_MAX = 64 };

/* Feeds `text` in two pieces and writes down what came out of it. */
static void run(const char *text, size_t cut, char *out, size_t size)
{
    struct http_reader *reader = http_reader_create(HEAD_MAX, BODY_MAX);
    struct bytes pieces[2] = {bytes_of(text, cut), bytes_from(bytes_of_string(text), cut)};
    size_t len = 0;
    assert_non_null(reader);
    out[0] = '\0';
    for (size_t i = 0; i < 2; i++) {
        enum http_read result = HTTP_READ_REQUEST;
        while (result == HTTP_READ_REQUEST && pieces[i].len != 0) {
            struct http_request request;
            result = http_reader_feed(reader, &pieces[i], &request);
            if (result == HTTP_READ_REQUEST) {
                len += (size_t)snprintf(
                    out + len, size - len, "%d %.*s?%.*s [%.*s] %s;", request.method,
                    (int)request.path.len, (const char *)request.path.data, (int)request.query.len,
                    (const char *)request.query.data, (int)request.body.len,
                    (const char *)request.body.data, request.keep_alive ? "keep" : "close");
            } else if (result == HTTP_READ_CONTINUE) {
                len += (size_t)snprintf(out + len, size - len, "100;");
            }
        }
        if (result > HTTP_READ_REQUEST) {
            (void)snprintf(out + len, size - len, "failure %d;", (int)result);
            break;
        }
    }
    http_reader_destroy(reader);
}

static void expect(const char *text, const char *expected)
{
    char out[1024];
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        run(text, cut, out, sizeof out);
        if (strcmp(out, expected) != 0) {
            fail_msg("cut at %zu of\n%s\ngives\n%s\nnot\n%s", cut, text, out, expected);
        }
    }
}

static void requests_of_all_kinds(void **state)
{
    (void)state;
    expect("GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", "0 /a?b=c [] keep;");
    expect("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "1 /? [] close;");
    expect("GET / HTTP/1.0\r\n\r\n", "0 /? [] close;");
    expect("DELETE / HTTP/1.1\r\n\r\n", "4 /? [] keep;");
    expect("POST /p HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "2 /p? [abc] keep;");
    expect("POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
           "2\r\nab\r\n1;x=y\r\nc\r\n0\r\nTrailer: t\r\n\r\n",
           "2 /p? [abc] keep;");
}

static void pipelined_requests_come_one_by_one(void **state)
{
    (void)state;
    expect("POST /1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
           "GET /2 HTTP/1.1\r\n\r\n"
           "POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"
           "GET /4 HTTP/1.1\r\n\r\n",
           "2 /1? [ab] keep;0 /2? [] keep;2 /3? [c] keep;0 /4? [] keep;");
}

static void mistakes(void **state)
{
    (void)state;
    char bad[32];
    (void)snprintf(bad, sizeof bad, "failure %d;", HTTP_READ_BAD);
    expect("GET / HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", bad);
    expect("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", bad);
    expect("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           bad);
    expect("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", bad);
    expect("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", bad);
    expect("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", bad);
    expect("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", bad);
    expect("HELLO\r\n", bad);
}

static void limits(void **state)
{
    (void)state;
    char text[1024];
    char expected[128];
    (void)snprintf(expected, sizeof expected, "failure %d;", HTTP_READ_BODY_TOO_LARGE);
    (void)snprintf(text, sizeof text, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n",
                   BODY_MAX + 1);
    expect(text, expected);
    (void)snprintf(text, sizeof text,
                   "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n%065d\r\n", 0);
    expect(text, expected);
    (void)snprintf(expected, sizeof expected, "2 /? [%064d] keep;", 0);
    (void)snprintf(text, sizeof text, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%064d",
                   BODY_MAX, 0);
    expect(text, expected);
    (void)snprintf(expected, sizeof expected, "failure %d;", HTTP_READ_HEAD_TOO_LARGE);
    (void)snprintf(text, sizeof text, "GET / HTTP/1.1\r\nX: %0400d\r\n\r\n", 0);
    expect(text, expected);
    (void)snprintf(text, sizeof text, "GET /%0400d HTTP/1.1\r\n\r\n", 0);
    expect(text, expected);
}

static void continue_is_asked_for(void **state)
{
    (void)state;
    char out[256];
    static const char head[] =
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n";
    static const char whole[] =
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\na";
    run(whole, sizeof head - 1, out, sizeof out);
    assert_string_equal(out, "100;2 /? [a] keep;");
    run(whole, sizeof whole - 1, out, sizeof out); /* it did not wait */
    assert_string_equal(out, "2 /? [a] keep;");
    run("GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 5, out, sizeof out);
    assert_string_equal(out, "0 /? [] keep;");
}

static void fields_are_kept(void **state)
{
    (void)state;
    static const char text[] =
        "GET / HTTP/1.1\r\nauthorization: Basic  eA== \t\r\nX-Long-Name-That-"
        "Is-Not-Kept-And-Has-More-Than-32: x\r\nORIGIN: http://x\r\n"
        "Last-Event-ID:7\r\nIdempotency-Key: k\r\nContent-Type: a/b\r\n\r\n";
    struct http_reader *reader = http_reader_create(HEAD_MAX, BODY_MAX);
    struct http_request request;
    struct bytes in = bytes_of_string(text);
    assert_int_equal(http_reader_feed(reader, &in, &request), HTTP_READ_REQUEST);
    assert_true(bytes_equal_string(request.authorization, "Basic  eA=="));
    assert_true(bytes_equal_string(request.origin, "http://x"));
    assert_true(bytes_equal_string(request.last_event_id, "7"));
    assert_true(bytes_equal_string(request.idempotency_key, "k"));
    assert_true(bytes_equal_string(request.content_type, "a/b"));
    http_reader_destroy(reader);
}

static void lack_of_memory(void **state)
{
    (void)state;
    static const char text[] = "POST /p HTTP/1.1\r\nContent-Length: 3\r\nOrigin: x\r\n\r\nabc";
    for (uint64_t n = 1;; n++) {
        struct http_request request;
        struct bytes in = bytes_of_string(text);
        enum http_read result = HTTP_READ_NO_MEMORY;
        mem_fail_at(n);
        struct http_reader *reader = http_reader_create(HEAD_MAX, BODY_MAX);
        if (reader != NULL) {
            result = http_reader_feed(reader, &in, &request);
        }
        mem_fail_at(0);
        http_reader_destroy(reader);
        if (result == HTTP_READ_REQUEST) {
            assert_true(n > 3);
            return;
        }
        assert_int_equal(result, HTTP_READ_NO_MEMORY);
    }
}

static void percent_and_query(void **state)
{
    (void)state;
    char buffer[32];
    struct writer writer = writer_of(buffer, sizeof buffer);
    assert_true(http_decode_percent(bytes_of_string("a%2Fb+c%e2%82%ac"), false, &writer));
    assert_true(bytes_equal_string(writer_written(&writer), "a/b+c\xe2\x82\xac"));
    writer = writer_of(buffer, sizeof buffer);
    assert_true(http_decode_percent(bytes_of_string("a+b%00"), true, &writer));
    assert_int_equal(writer_len(&writer), 4);
    static const char *const wrong[] = {"%", "%2", "%zz", "a%2g"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        writer = writer_of(buffer, sizeof buffer);
        assert_false(http_decode_percent(bytes_of_string(wrong[i]), false, &writer));
    }
    struct bytes query = bytes_of_string("&a=1&&b&c==2&");
    struct bytes name;
    struct bytes value;
    assert_true(http_query_next(&query, &name, &value));
    assert_true(bytes_equal_string(name, "a") && bytes_equal_string(value, "1"));
    assert_true(http_query_next(&query, &name, &value));
    assert_true(bytes_equal_string(name, "b") && value.len == 0);
    assert_true(http_query_next(&query, &name, &value));
    assert_true(bytes_equal_string(name, "c") && bytes_equal_string(value, "=2"));
    assert_false(http_query_next(&query, &name, &value));
}

static void heads(void **state)
{
    (void)state;
    char buffer[HTTP_RESPONSE_HEAD_MAX];
    struct writer writer = writer_of(buffer, sizeof buffer);
    struct http_response response = {.status = 200,
                                     .content_type = "application/json",
                                     .content_length = 12,
                                     .keep_alive = true,
                                     .allow_origin = bytes_of_string("https://x")};
    http_response_head(&response, &writer);
    assert_true(bytes_equal_string(
        writer_written(&writer),
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n"
        "Access-Control-Allow-Origin: https://x\r\nVary: Origin\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: keep-alive\r\n\r\n"));
    char long_text[513];
    memset(long_text, 'x', 512);
    long_text[512] = '\0';
    response = (struct http_response){.status = 401,
                                      .content_type = "text/plain",
                                      .content_length = SIZE_MAX,
                                      .allow = "GET, HEAD, POST",
                                      .asks_for_login = true,
                                      .allow_origin = bytes_of_string(long_text),
                                      .is_preflight = true};
    writer = writer_of(buffer, sizeof buffer);
    http_response_head(&response, &writer);
    assert_true(writer_ok(&writer));
    assert_false(http_field_is_clean(bytes_of_string("a\r\nb")));
    assert_true(http_field_is_clean(bytes_of_string("text/plain; charset=utf-8")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_all_kinds),
        cmocka_unit_test(pipelined_requests_come_one_by_one),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(limits),
        cmocka_unit_test(continue_is_asked_for),
        cmocka_unit_test(fields_are_kept),
        cmocka_unit_test(lack_of_memory),
        cmocka_unit_test(percent_and_query),
        cmocka_unit_test(heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
