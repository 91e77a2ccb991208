/* base64: RFC 4648's own examples, every short value there and back, and texts that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base64.h"

static void expect(const char *plain, const char *text)
{
    uint8_t buffer[64];
    struct writer writer = writer_of(buffer, sizeof buffer);
    base64_encode(bytes_of_string(plain), &writer);
    assert_true(bytes_equal_string(writer_written(&writer), text));
    assert_int_equal(base64_encoded_len(strlen(plain)), strlen(text));
    writer = writer_of(buffer, sizeof buffer);
    assert_true(base64_decode(bytes_of_string(text), &writer));
    assert_true(bytes_equal_string(writer_written(&writer), plain));
    assert_true(strlen(plain) <= base64_decoded_max(strlen(text)));
}

static void rfc_examples(void **state)
{
    (void)state;
    expect("", "");
    expect("f", "Zg==");
    expect("fo", "Zm8=");
    expect("foo", "Zm9v");
    expect("foob", "Zm9vYg==");
    expect("fooba", "Zm9vYmE=");
    expect("foobar", "Zm9vYmFy");
}

static void all_pairs_come_back(void **state)
{
    (void)state;
    for (unsigned value = 0; value <= UINT16_MAX; value++) {
        uint8_t plain[2] = {(uint8_t)(value >> 8), (uint8_t)value};
        uint8_t text[8];
        uint8_t back[8];
        struct writer writer = writer_of(text, sizeof text);
        base64_encode(bytes_of(plain, 2), &writer);
        struct bytes written = writer_written(&writer);
        for (unsigned padding = 0; padding < 2; padding++) {
            struct writer decoded = writer_of(back, sizeof back);
            assert_true(base64_decode(bytes_of(written.data, written.len - padding), &decoded));
            assert_true(bytes_equal(writer_written(&decoded), bytes_of(plain, 2)));
        }
    }
}

static void other_texts_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"A",      "Zg=",  "Zh==", "Zm9=",     "Zm 9v",
                                        "Zm9v\n", "Z===", "====", "Zg==Zg==", "Zm9-",
                                        "Zm9_",   "=Zg=", "Zm9v="};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint8_t buffer[16];
        struct writer writer = writer_of(buffer, sizeof buffer);
        assert_false(base64_decode(bytes_of_string(wrong[i]), &writer));
    }
    uint8_t small[2];
    struct writer writer = writer_of(small, sizeof small);
    assert_false(base64_decode(bytes_of_string("Zm9v"), &writer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_examples),
        cmocka_unit_test(all_pairs_come_back),
        cmocka_unit_test(other_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
