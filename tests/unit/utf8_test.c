#include "protocol_support.h"

#include "topic.h"

struct text {
    const char *what;
    const char *bytes;
    bool valid;
};

static const struct text texts[] = {
    {"nothing", "", true},
    {"ASCII", "'The quick brown fox'", true},
    {"DEL and control characters", "01 1F 7F", true},
    {"U+0080, the first of two", "C280", true},
    {"U+07FF, the last of two", "DFBF", true},
    {"U+0800, the first of three", "E0A080", true},
    {"U+D7FF, before the surrogates", "ED9FBF", true},
    {"U+E000, after the surrogates", "EE8080", true},
    {"U+FEFF is kept", "EFBBBF 'x'", true},
    {"U+FFFF, a noncharacter", "EFBFBF", true},
    {"U+10000, the first of four", "F0908080", true},
    {"U+3FFFF", "F0BFBFBF", true},
    {"U+40000", "F1808080", true},
    {"U+10FFFF, the last", "F48FBFBF", true},
    {"long text, then a character", "'0123456789abcdef' E4BDA0E5A5BD '0123456789'", true},

    {"continuation alone", "80", false},
    {"the last continuation alone", "BF", false},
    {"overlong of two: U+0000", "C080", false},
    {"overlong of two: U+007F", "C1BF", false},
    {"overlong of three: U+0000", "E08080", false},
    {"overlong of three: U+07FF", "E09FBF", false},
    {"overlong of four: U+0000", "F0808080", false},
    {"overlong of four: U+FFFF", "F08FBFBF", false},
    {"five bytes", "F888808080", false},
    {"six bytes", "FC8480808080", false},
    {"U+D800, the first surrogate", "EDA080", false},
    {"U+DBFF", "EDAFBF", false},
    {"U+DC00", "EDB080", false},
    {"U+DFFF, the last surrogate", "EDBFBF", false},
    {"a surrogate pair (CESU-8)", "EDA081EDB080", false},
    {"U+110000", "F4908080", false},
    {"F5", "F5808080", false},
    {"FE", "FE", false},
    {"FF", "FF", false},
    {"two cut", "C2", false},
    {"three cut", "E4BD", false},
    {"four cut", "F09F98", false},
    {"two without continuation", "C241", false},
    {"three, then a lead", "E4BDC3", false},
    {"three, then ASCII", "E4BD41", false},
    {"four, then ASCII", "F09F9841", false},
    {"four, second wrong", "F0419880", false},
    {"wrong after a long text", "'0123456789abcdef' FF '0123456789abcdef'", false},
    {"wrong at the end of a long text", "'0123456789abcdef' C3", false},
};

static void utf8_knows_each_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct packet packet = packet_of(texts[i].bytes);
        struct bytes bytes = exact_copy(bytes_of_packet(&packet));
        if (utf8_is_valid(bytes) != texts[i].valid ||
            utf8_is_valid_string(bytes) != texts[i].valid) {
            fail_msg("%s", texts[i].what);
        }
        exact_free(bytes);
    }
}

static void only_payloads_may_hold_nul(void **state)
{
    (void)state;
    /* At every position of a word and of the bytes behind it. */
    for (size_t at = 0; at < 20; at++) {
        uint8_t text[20];
        memset(text, 'a', sizeof text);
        text[at] = 0;
        assert_true(utf8_is_valid(bytes_of(text, sizeof text)));
        assert_false(utf8_is_valid_string(bytes_of(text, sizeof text)));
        text[at] = 1;
        assert_true(utf8_is_valid_string(bytes_of(text, sizeof text)));
        text[at] = 0x80;
        assert_false(utf8_is_valid_string(bytes_of(text, sizeof text)));
        assert_false(utf8_is_valid(bytes_of(text, sizeof text)));
    }
}

static bool feed_in_two(struct bytes bytes, size_t at)
{
    struct utf8_state feed = {0};
    return utf8_feed(&feed, bytes_of(bytes.data, at)) && utf8_feed(&feed, BYTES_EMPTY) &&
           utf8_feed(&feed, bytes_of(bytes.data + at, bytes.len - at)) &&
           utf8_state_is_complete(&feed);
}

static void split_everywhere(const struct text *text)
{
    struct packet packet = packet_of(text->bytes);
    for (size_t at = 0; at <= packet.len; at++) {
        if (feed_in_two(bytes_of_packet(&packet), at) != text->valid) {
            fail_msg("%s, split at %zu", text->what, at);
        }
    }
}

static void feeding_splits_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        split_everywhere(&texts[i]);
    }
}

static void feeding_refuses_at_once_and_for_good(void **state)
{
    (void)state;
    struct utf8_state feed = {0};
    assert_true(utf8_feed(&feed, bytes_of("\xED", 1)));
    assert_false(utf8_state_is_complete(&feed));
    assert_false(utf8_feed(&feed, bytes_of("\xA0", 1)));
    assert_false(utf8_feed(&feed, bytes_of_string("abc")));
    assert_false(utf8_feed(&feed, BYTES_EMPTY));
    assert_false(utf8_state_is_complete(&feed));
}

/* RFC 3629, section 3, written once more without any of the shortcuts. */
static bool is_character(const uint8_t *at, size_t len)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint32_t value = at[0];
    size_t more = value < 0x80 ? 0 : value >> 5 == 6 ? 1 : value >> 4 == 14 ? 2 : 3;
    if (more == 3 && value >> 3 != 30) {
        return false;
    }
    value &= more == 0 ? 0x7FU : 0x3FU >> more;
    for (size_t i = 1; i <= more; i++) {
        if (i >= len || at[i] >> 6 != 2) {
            return false;
        }
        value = value << 6 | (at[i] & 0x3F);
    }
    return len == more + 1 && value >= least[more] && value <= 0x10FFFF &&
           !(value >= 0xD800 && value <= 0xDFFF);
}

static void agrees_with_the_rfc_on_all_sequences(void **state)
{
    (void)state;
    static const uint8_t edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90,
                                    0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
    for (unsigned lead = 0x80; lead <= 0xFF; lead++) {
        for (unsigned second = 0; second <= 0xFF; second++) {
            for (size_t i = 0; i < sizeof edges; i++) {
                uint8_t text[4] = {(uint8_t)lead, (uint8_t)second, edges[i], 0x80};
                size_t len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
                bool wanted = is_character(text, len);
                assert_int_equal(utf8_is_valid(bytes_of(text, len)), wanted);
                assert_int_equal(feed_in_two(bytes_of(text, len), 1), wanted);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_knows_each_text),
        cmocka_unit_test(only_payloads_may_hold_nul),
        cmocka_unit_test(feeding_splits_anywhere),
        cmocka_unit_test(feeding_refuses_at_once_and_for_good),
        cmocka_unit_test(agrees_with_the_rfc_on_all_sequences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
