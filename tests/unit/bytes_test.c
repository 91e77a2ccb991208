#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"

static void comparing_allows_nothing(void **state)
{
    (void)state;
    struct bytes abc = bytes_of_string("abc");
    assert_true(bytes_equal(BYTES_EMPTY, bytes_of("", 0)));
    assert_true(bytes_equal(bytes_of_string(NULL), BYTES_EMPTY));
    assert_false(bytes_equal(abc, BYTES_EMPTY));
    assert_false(bytes_equal(abc, bytes_of_string("abd")));
    assert_false(bytes_equal(abc, bytes_of_string("ab")));
    assert_true(bytes_equal_string(abc, "abc"));
    assert_true(bytes_start_with(abc, BYTES_EMPTY));
    assert_true(bytes_start_with(abc, bytes_of_string("ab")));
    assert_true(bytes_start_with(abc, abc));
    assert_false(bytes_start_with(abc, bytes_of_string("b")));
    assert_false(bytes_start_with(abc, bytes_of_string("abcd")));
}

static void a_part_never_leaves_the_whole(void **state)
{
    (void)state;
    struct bytes abc = bytes_of_string("abc");
    assert_true(bytes_equal_string(bytes_from(abc, 0), "abc"));
    assert_true(bytes_equal_string(bytes_from(abc, 2), "c"));
    assert_int_equal(bytes_from(abc, 3).len, 0);
    assert_int_equal(bytes_from(abc, 4).len, 0);
    assert_int_equal(bytes_from(abc, SIZE_MAX).len, 0);
    char to[4] = "...";
    bytes_copy(NULL, BYTES_EMPTY);
    bytes_copy(to, bytes_of_string("xy"));
    assert_string_equal(to, "xy.");
}

static void a_reader_reads_in_network_order(void **state)
{
    (void)state;
    static const uint8_t input[] = {0xff, 0x80, 0x01, 0x89, 0xab, 0xcd, 0xef, 'h', 'i', '!'};
    struct reader reader = reader_of(bytes_of(input, sizeof input));
    assert_int_equal(reader_u8(&reader), 0xff);
    assert_int_equal(reader_u16(&reader), 0x8001);
    assert_int_equal(reader_u32(&reader), 0x89abcdef);
    assert_int_equal(reader_left(&reader), 3);
    assert_true(bytes_equal_string(reader_bytes(&reader, 2), "hi"));
    assert_true(bytes_equal_string(reader_rest(&reader), "!"));
    assert_int_equal(reader_rest(&reader).len, 0);
    assert_true(reader_ok(&reader));
}

/* Each way to read past the end, from each place where it is past the end. */
static void reading_past_the_end_fails_for_good(void **state)
{
    (void)state;
    static const uint8_t input[] = {1, 2, 3};
    for (size_t len = 0; len <= sizeof input; len++) {
        for (int way = 0; way < 4; way++) {
            struct reader reader = reader_of(bytes_of(input, len));
            size_t wanted = 0;
            switch (way) {
            case 0:
                wanted = 1;
                assert_int_equal(reader_u8(&reader), len >= 1 ? 1 : 0);
                break;
            case 1:
                wanted = 2;
                assert_int_equal(reader_u16(&reader), len >= 2 ? 0x0102 : 0);
                break;
            case 2:
                wanted = 4;
                (void)reader_u32(&reader);
                break;
            default:
                wanted = SIZE_MAX;
                assert_int_equal(reader_bytes(&reader, SIZE_MAX).len, 0);
                break;
            }
            assert_int_equal(reader_ok(&reader), len >= wanted);
            if (len < wanted) {
                assert_int_equal(reader_left(&reader), 0);
                assert_int_equal(reader_u8(&reader), 0);
                assert_false(reader_ok(&reader));
            }
        }
    }
    struct reader nothing = reader_of(BYTES_EMPTY);
    assert_int_equal(reader_bytes(&nothing, 0).len, 0);
    assert_true(reader_ok(&nothing));
    reader_fail(&nothing);
    assert_false(reader_ok(&nothing));
}

static void a_writer_writes_what_a_reader_reads(void **state)
{
    (void)state;
    uint8_t area[10];
    struct writer writer = writer_of(area, sizeof area);
    writer_u8(&writer, 0xff);
    writer_u16(&writer, 0x8001);
    writer_u32(&writer, 0x89abcdef);
    writer_bytes(&writer, bytes_of_string("hi"));
    writer_bytes(&writer, BYTES_EMPTY);
    assert_true(writer_ok(&writer));
    assert_int_equal(writer_len(&writer), 9);
    assert_int_equal(writer_room(&writer), 1);
    static const uint8_t wanted[] = {0xff, 0x80, 0x01, 0x89, 0xab, 0xcd, 0xef, 'h', 'i'};
    assert_true(bytes_equal(writer_written(&writer), bytes_of(wanted, sizeof wanted)));
}

static void writing_past_the_end_writes_nothing_more(void **state)
{
    (void)state;
    uint8_t area[4] = {9, 9, 9, 9};
    struct writer writer = writer_of(area, 3);
    writer_u16(&writer, 0x0102);
    writer_u16(&writer, 0x0304);
    assert_false(writer_ok(&writer));
    writer_u8(&writer, 5); /* would fit, but what came before is missing */
    assert_null(writer_take(&writer, 0));
    assert_int_equal(writer_len(&writer), 2);
    assert_memory_equal(area, ((const uint8_t[]){1, 2, 9, 9}), 4);
    writer = writer_of(area, 3);
    assert_null(writer_take(&writer, SIZE_MAX));
    assert_false(writer_ok(&writer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparing_allows_nothing),
        cmocka_unit_test(a_part_never_leaves_the_whole),
        cmocka_unit_test(a_reader_reads_in_network_order),
        cmocka_unit_test(reading_past_the_end_fails_for_good),
        cmocka_unit_test(a_writer_writes_what_a_reader_reads),
        cmocka_unit_test(writing_past_the_end_writes_nothing_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
