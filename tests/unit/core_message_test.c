#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem.h"
#include "message.h"
#include "mqtt_publish.h"

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
    assert_int_equal(message_size(message), offsetof(struct message, data) + 3 + 4 + 7);
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

/* Whatever its lengths, the message is what the encoder makes of it for a client of MQTT 3.1.1. */
static void is_a_packet(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,   1,     121,   122,   123,     124,
                                   125, 16377, 16378, 16379, 2097147, 2097148};
    static uint8_t payload[2097148];
    static uint8_t expected[sizeof payload + 16];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct message *message = NULL;
        memset(payload, (int)i, sizeof payload);
        struct mqtt_publish_out publish = {.topic = bytes_of_string("a/b"),
                                           .payload_len = sizes[i]};
        struct writer writer = writer_of(expected, sizeof expected);
        mqtt_publish_encode_head(&writer, &publish, MQTT_VERSION_3_1_1);
        writer_bytes(&writer, bytes_of(payload, sizes[i]));
        assert_int_equal(message_create(publish.topic, 0, bytes_of(payload, sizes[i]), &message),
                         STATUS_OK);
        struct bytes packet = message_packet(message);
        assert_int_equal(packet.len, writer_len(&writer));
        assert_memory_equal(packet.data, expected, packet.len);
        message_release(message);
    }
}

static void is_no_packet_with_properties_or_too_long(void **state)
{
    (void)state;
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string("t"), 2, BYTES_EMPTY, &message), STATUS_OK);
    assert_int_equal(message_packet(message).len, 0);
    message_release(message);
    size_t fits = MQTT_REMAINING_LENGTH_MAX - 3;
    assert_int_equal(message_create(bytes_of_string("t"), 0, bytes_of(NULL, fits), &message),
                     STATUS_OK);
    assert_int_equal(message_packet(message).len, 1 + 4 + MQTT_REMAINING_LENGTH_MAX);
    message_release(message);
    assert_int_equal(message_create(bytes_of_string("t"), 0, bytes_of(NULL, fits + 1), &message),
                     STATUS_OK);
    assert_int_equal(message_packet(message).len, 0);
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
    assert_true(offsetof(struct message, data) <= 72);
}

/* The structure is longer than its members: no topic is so short that it does not fit. */
static void smallest(void **state)
{
    (void)state;
    for (size_t payload_len = 0; payload_len < 4; payload_len++) {
        struct message *message = NULL;
        assert_int_equal(
            message_create(bytes_of("a", 1), 0, bytes_of("bcd", payload_len), &message), STATUS_OK);
        assert_true(bytes_equal(message_topic(message), bytes_of("a", 1)));
        assert_true(bytes_equal(message_payload(message), bytes_of("bcd", payload_len)));
        message_release(message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest),
        cmocka_unit_test(lays_out_topic_properties_and_payload),
        cmocka_unit_test(leaves_a_payload_in_pieces_to_the_caller),
        cmocka_unit_test(is_a_packet),
        cmocka_unit_test(is_no_packet_with_properties_or_too_long),
        cmocka_unit_test(lives_until_the_last_reference_goes),
        cmocka_unit_test(expires_at_its_time_and_not_before),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(stays_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
