#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem.h"
#include "message.h"

static void lays_out_topic_properties_and_payload(void **state)
{
    (void)state;
    struct message *message = NULL;
    assert_int_equal(
        message_create(bytes_of_string("a/b"), 4, bytes_of_string("payload"), &message), STATUS_OK);
    memcpy(message_properties_area(message), "\x01\x01\x02\x03", 4);
    assert_true(bytes_equal_string(message_topic(message), "a/b"));
    assert_true(bytes_equal(message_properties(message), bytes_of("\x01\x01\x02\x03", 4)));
    assert_true(bytes_equal_string(message_payload(message), "payload"));
    assert_int_equal(message_size(message), sizeof *message + 3 + 4 + 7);
    assert_true(message->expires_at_ms == MESSAGE_EXPIRES_NEVER);
    assert_true(message->sequence == 0 && message->publisher_id == 0 && message->qos == 0);
    assert_false(message->retain);
    message_release(message);
}

static void leaves_a_payload_in_pieces_to_the_caller(void **state)
{
    (void)state;
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string("t"), 0, bytes_of(NULL, 6), &message),
                     STATUS_OK);
    memcpy(message_payload_area(message), "abc", 3);
    memcpy(message_payload_area(message) + 3, "def", 3);
    assert_true(bytes_equal_string(message_payload(message), "abcdef"));
    assert_true(bytes_equal_string(message_topic(message), "t"));
    message_release(message);
}

static unsigned destroyed;

static void count_destroyed(struct shared *object)
{
    destroyed++;
    mem_free(object);
}

static void lives_until_the_last_reference_goes(void **state)
{
    (void)state;
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string("t"), 0, BYTES_EMPTY, &message), STATUS_OK);
    message->shared.destroy = count_destroyed;
    assert_ptr_equal(message_hold(message), message);
    shared_hold(&message->shared);
    message_release(message);
    shared_release(&message->shared);
    assert_int_equal(destroyed, 0);
    message_release(message);
    assert_int_equal(destroyed, 1);
    message_release(NULL);
}

static void expires_at_its_time_and_not_before(void **state)
{
    (void)state;
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string("t"), 0, BYTES_EMPTY, &message), STATUS_OK);
    assert_false(message_is_expired(message, UINT64_MAX - 1));
    message->expires_at_ms = 1000;
    assert_false(message_is_expired(message, 999));
    assert_true(message_is_expired(message, 1000));
    message_release(message);
}

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct message *message = (struct message *)&destroyed;
    assert_int_equal(message_create(bytes_of(NULL, UINT16_MAX + 1), 0, BYTES_EMPTY, &message),
                     STATUS_LIMIT);
    assert_null(message);
    assert_int_equal(message_create(BYTES_EMPTY, (size_t)UINT32_MAX + 1, BYTES_EMPTY, &message),
                     STATUS_LIMIT);
    assert_int_equal(
        message_create(BYTES_EMPTY, 0, bytes_of(NULL, (size_t)UINT32_MAX + 1), &message),
        STATUS_LIMIT);
    mem_fail_at(1);
    assert_int_equal(message_create(BYTES_EMPTY, 0, BYTES_EMPTY, &message), STATUS_NO_MEMORY);
    assert_null(message);
}

static void stays_small(void **state)
{
    (void)state;
    assert_true(sizeof(struct message) <= 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lays_out_topic_properties_and_payload),
        cmocka_unit_test(leaves_a_payload_in_pieces_to_the_caller),
        cmocka_unit_test(lives_until_the_last_reference_goes),
        cmocka_unit_test(expires_at_its_time_and_not_before),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(stays_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
