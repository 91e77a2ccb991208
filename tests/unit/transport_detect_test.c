#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "detect.h"

static void protocols(void **state)
{
    (void)state;
    static const struct {
        const char *first;
        enum detected detected;
    } cases[] = {
        {"\x16\x03\x01", DETECTED_TLS},
        {"\x10\x0c", DETECTED_MQTT},
        {"\n", DETECTED_STOMP},
        {"\r\nCONNECT", DETECTED_STOMP},
        {"CONNECT\n", DETECTED_STOMP},
        {"CONNECT\r\n", DETECTED_STOMP},
        {"STOMP\naccept", DETECTED_STOMP},
        {"STOMP\r", DETECTED_STOMP},
        {"C", DETECTED_MORE},
        {"CONNECT", DETECTED_MORE},
        {"S", DETECTED_MORE},
        {"STOMP", DETECTED_MORE},
        {"CONNECT example.org:443 HTTP/1.1", DETECTED_HTTP},
        {"CONNECTED\n", DETECTED_HTTP},
        {"COPY /a", DETECTED_HTTP},
        {"SEARCH /", DETECTED_HTTP},
        {"STOMPS\n", DETECTED_HTTP},
        {"GET / HTTP/1.1", DETECTED_HTTP},
        {"P", DETECTED_HTTP},
        {"get /", DETECTED_UNKNOWN},
        {"\x20\x02", DETECTED_UNKNOWN},
        {" ", DETECTED_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(detect_protocol(bytes_of_string(cases[i].first)), cases[i].detected);
    }
}

/* No decision needs more than DETECT_BYTES_MAX bytes, and none is taken back. */
static void enough(void **state)
{
    (void)state;
    static const char *const inputs[] = {"CONNECT\nhost", "STOMP\r\nhost", "CONNECT h:1 HTTP/1.1",
                                         "SUBSCRIBE / HTTP/1.1"};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        enum detected last = DETECTED_MORE;
        for (size_t len = 1; len <= DETECT_BYTES_MAX; len++) {
            enum detected detected = detect_protocol(bytes_of(inputs[i], len));
            assert_true(last == DETECTED_MORE || detected == last);
            last = detected;
        }
        assert_true(last != DETECTED_MORE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(protocols),
        cmocka_unit_test(enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
