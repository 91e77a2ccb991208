/* core: what scripts of packets cannot see: when effects are called, borrowed deliveries, the ends
 * of the identifier space, and a lack of memory at each step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core.h"
#include "mem.h"

struct fixture {
    struct core *core;
    unsigned ready; /* calls of output_ready */
    unsigned lost;
};

static void on_output_ready(void *ctx, void *client)
{
    struct fixture *fixture = ctx;
    assert_non_null(client);
    fixture->ready++;
}

static void on_session_lost(void *ctx, void *client, enum mqtt_reason reason)
{
    struct fixture *fixture = ctx;
    assert_non_null(client);
    assert_int_equal(reason, MQTT_SESSION_TAKEN_OVER);
    fixture->lost++;
}

static void open_core(struct fixture *fixture, const struct core_options *options)
{
    struct core_effects effects = {
        .ctx = fixture, .output_ready = on_output_ready, .session_lost = on_session_lost};
    *fixture = (struct fixture){0};
    assert_int_equal(core_create(options, &effects, 0, &fixture->core), STATUS_OK);
}

static struct session *connect_as(struct fixture *fixture, const char *client_id)
{
    struct core_connect connect = {.client_id = bytes_of_string(client_id),
                                   .session_expiry_s = CORE_SESSION_NEVER_EXPIRES,
                                   .receive_maximum = UINT16_MAX,
                                   .client = fixture};
    struct session *session = NULL;
    bool session_present = false;
    assert_int_equal(core_connect(fixture->core, 0, &connect, &session, &session_present),
                     STATUS_OK);
    return session;
}

static void subscribe(struct fixture *fixture, struct session *session, const char *filter,
                      uint8_t qos)
{
    struct core_subscribe request = {.filter = bytes_of_string(filter), .qos = qos};
    assert_int_equal(core_subscribe(fixture->core, 0, session, &request), qos);
}

static enum mqtt_reason publish(struct fixture *fixture, const char *topic, uint8_t qos,
                                bool retain)
{
    struct message *message = NULL;
    assert_int_equal(
        message_create(bytes_of_string(topic), 0, bytes_of_string("payload"), &message), STATUS_OK);
    message->qos = qos;
    message->retain = retain;
    enum mqtt_reason reason = core_publish(fixture->core, 0, NULL, message);
    message_release(message);
    return reason;
}

static void close_core(struct fixture *fixture)
{
    core_check(fixture->core);
    core_destroy(fixture->core);
}

static void ready_is_said_once(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    options.inflight_max = 1;
    struct fixture fixture;
    open_core(&fixture, &options);
    struct session *session = connect_as(&fixture, "a");
    subscribe(&fixture, session, "t", 1);
    assert_int_equal(fixture.ready, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(publish(&fixture, "t", 1, false), MQTT_SUCCESS);
    }
    assert_int_equal(fixture.ready, 1);
    struct core_delivery delivery;
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_DELIVERY);
    assert_int_equal(delivery.packet_id, 1);
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_NOTHING);
    /* Blocked by the window: more messages are no reason to wake the client, an answer is. */
    assert_int_equal(publish(&fixture, "t", 1, false), MQTT_SUCCESS);
    assert_int_equal(fixture.ready, 1);
    assert_true(core_puback(fixture.core, session, 1));
    assert_false(core_puback(fixture.core, session, 1));
    assert_int_equal(fixture.ready, 2);
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_DELIVERY);
    close_core(&fixture);
}

/* A QoS 0 message is out of the queue when it is handed out, and must live until the next call. */
static void delivery_lives_until_the_next_one(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    struct fixture fixture;
    open_core(&fixture, &options);
    struct session *session = connect_as(&fixture, "a");
    subscribe(&fixture, session, "t", 0);
    assert_int_equal(publish(&fixture, "t", 0, false), MQTT_SUCCESS);
    struct core_delivery delivery;
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_DELIVERY);
    assert_true(bytes_equal_string(message_payload(delivery.message), "payload"));
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_NOTHING);
    close_core(&fixture);
}

static void take_and_acknowledge(struct fixture *fixture, struct session *session, unsigned count)
{
    struct core_delivery delivery;
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(publish(fixture, "t", 1, false), MQTT_SUCCESS);
        assert_int_equal(core_next(fixture->core, 0, session, &delivery), CORE_DELIVERY);
        assert_true(core_puback(fixture->core, session, delivery.packet_id));
    }
}

/* The oldest message stays unacknowledged while the identifiers go round: its own is passed over.
 */
static void identifier_in_use_is_passed_over(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    options.inflight_max = 0;
    struct fixture fixture;
    open_core(&fixture, &options);
    struct session *session = connect_as(&fixture, "a");
    subscribe(&fixture, session, "t", 1);
    struct core_delivery delivery;
    assert_int_equal(publish(&fixture, "t", 1, false), MQTT_SUCCESS);
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_DELIVERY);
    assert_int_equal(delivery.packet_id, 1);
    take_and_acknowledge(&fixture, session, UINT16_MAX - 1);
    (void)publish(&fixture, "kept", 1, true);
    subscribe(&fixture, session, "kept", 1);
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_DELIVERY);
    assert_true(bytes_equal_string(message_topic(delivery.message), "kept"));
    assert_int_equal(delivery.packet_id, 2);
    assert_true(core_puback(fixture.core, session, 1));
    assert_true(core_puback(fixture.core, session, 2));
    close_core(&fixture);
}

/* Every identifier is in use: retained and live messages wait, and none of them is lost. */
static void waits_when_no_identifier_is_free(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    options.inflight_max = 0;
    struct fixture fixture;
    open_core(&fixture, &options);
    struct session *session = connect_as(&fixture, "a");
    subscribe(&fixture, session, "t", 1);
    struct core_delivery delivery;
    for (unsigned i = 1; i <= UINT16_MAX; i++) {
        assert_int_equal(publish(&fixture, "t", 1, false), MQTT_SUCCESS);
        assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_DELIVERY);
        assert_int_equal(delivery.packet_id, i);
    }
    (void)publish(&fixture, "kept", 1, true);
    subscribe(&fixture, session, "kept", 1);
    assert_int_equal(publish(&fixture, "t", 1, false), MQTT_SUCCESS);
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_NOTHING);
    for (uint16_t id = 1; id <= 2; id++) {
        assert_true(core_puback(fixture.core, session, id));
        assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_DELIVERY);
        assert_true(bytes_equal_string(message_topic(delivery.message), id == 1 ? "kept" : "t"));
        assert_int_equal(delivery.packet_id, id);
    }
    assert_int_equal(core_stats(fixture.core).dropped, 0);
    close_core(&fixture);
}

/* Takes and acknowledges all that waits for each session. */
static void drain(struct fixture *fixture, struct session *const sessions[], unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct core_delivery delivery;
        while (core_next(fixture->core, 0, sessions[i], &delivery) == CORE_DELIVERY) {
            if (delivery.qos == 1) {
                assert_true(core_puback(fixture->core, sessions[i], delivery.packet_id));
            }
        }
    }
}

/* Once pools are warm, a message costs the one allocation that holds it, however many get it. */
static void deliveries_allocate_nothing(void **state)
{
    (void)state;
    enum { SESSIONS = 50, TURNS = 20, MESSAGES = 30 };
    struct core_options options = core_options_default();
    struct fixture fixture;
    open_core(&fixture, &options);
    struct session *sessions[SESSIONS];
    for (unsigned i = 0; i < SESSIONS; i++) {
        char client_id[16];
        (void)snprintf(client_id, sizeof client_id, "s%u", i);
        sessions[i] = connect_as(&fixture, client_id);
        subscribe(&fixture, sessions[i], "t/+", 1);
    }
    uint64_t before = 0;
    for (unsigned turn = 0; turn <= TURNS; turn++) {
        if (turn == 1) { /* the first one warmed the pools */
            before = mem_alloc_count();
        }
        for (unsigned i = 0; i < MESSAGES; i++) {
            assert_int_equal(publish(&fixture, "t/x", i % 2, false), MQTT_SUCCESS);
        }
        drain(&fixture, sessions, SESSIONS);
    }
    assert_int_equal(mem_alloc_count() - before, TURNS * MESSAGES);
    assert_int_equal(core_stats(fixture.core).delivered, (TURNS + 1) * MESSAGES * SESSIONS);
    close_core(&fixture);
}

static void sessions_have_numbers_of_their_own(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    struct fixture fixture;
    open_core(&fixture, &options);
    const struct session *a = connect_as(&fixture, "a");
    const struct session *b = connect_as(&fixture, "b");
    assert_int_not_equal(core_session_number(a), 0);
    assert_int_not_equal(core_session_number(a), core_session_number(b));
    uint64_t number = core_session_number(a);
    const struct session *again = connect_as(&fixture, "a");
    assert_int_equal(fixture.lost, 1);
    assert_int_equal(core_session_number(again), number);
    assert_true(bytes_equal_string(core_session_client_id(again), "a"));
    close_core(&fixture);
}

/* A retained scan over many topics that do not match gives the loop its turn. */
static void long_scan_is_cut_into_turns(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    struct fixture fixture;
    open_core(&fixture, &options);
    char topic[] = "x/aaa/other";
    for (unsigned i = 0; i < 26U * 26 * 26; i++) {
        topic[2] = (char)('a' + i / 676);
        topic[3] = (char)('a' + i / 26 % 26);
        topic[4] = (char)('a' + i % 26);
        (void)publish(&fixture, topic, 0, true);
    }
    struct session *session = connect_as(&fixture, "a");
    subscribe(&fixture, session, "x/+/none", 0);
    struct core_delivery delivery;
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_AGAIN);
    unsigned turns = 1;
    while (core_next(fixture.core, 0, session, &delivery) == CORE_AGAIN) {
        turns++;
    }
    assert_in_range(turns, 10, 1000);
    close_core(&fixture);
}

static void connect_without_memory_leaves_nothing(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    struct fixture fixture;
    open_core(&fixture, &options);
    for (uint64_t n = 1;; n++) {
        struct core_will will = {0};
        assert_int_equal(
            message_create(bytes_of_string("w"), 0, bytes_of_string("w"), &will.message),
            STATUS_OK);
        struct core_connect connect = {.client_id = bytes_of_string("a"),
                                       .receive_maximum = 1,
                                       .will = &will,
                                       .client = &fixture};
        struct session *session = NULL;
        bool session_present = true;
        mem_fail_at(n);
        enum status status = core_connect(fixture.core, 0, &connect, &session, &session_present);
        mem_fail_at(0);
        core_check(fixture.core);
        if (status == STATUS_OK) {
            assert_in_range(n, 3, 10); /* will, session, map */
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_null(session);
        assert_int_equal(core_stats(fixture.core).sessions, 0);
    }
    close_core(&fixture);
}

static void subscribe_without_memory_leaves_nothing(void **state)
{
    (void)state;
    static const char *const filters[] = {"a/+/b", "$share/group/a/+/b"};
    for (size_t i = 0; i < 2; i++) {
        struct core_options options = core_options_default();
        struct fixture fixture;
        open_core(&fixture, &options);
        (void)publish(&fixture, "a/x/b", 0, true);
        struct session *session = connect_as(&fixture, "a");
        struct core_subscribe request = {.filter = bytes_of_string(filters[i]), .qos = 1};
        enum mqtt_reason reason = MQTT_UNSPECIFIED_ERROR;
        for (uint64_t n = 1; reason != MQTT_GRANTED_QOS_1; n++) {
            assert_in_range(n, 1, 50);
            mem_fail_at(n);
            reason = core_subscribe(fixture.core, 0, session, &request);
            mem_fail_at(0);
            core_check(fixture.core);
            if (reason != MQTT_GRANTED_QOS_1) {
                assert_int_equal(reason, MQTT_UNSPECIFIED_ERROR);
                assert_int_equal(core_stats(fixture.core).subscriptions, 0);
                assert_int_equal(publish(&fixture, "a/y/b", 0, false),
                                 MQTT_NO_MATCHING_SUBSCRIBERS);
            }
        }
        close_core(&fixture);
    }
}

/* Else the wills of all who are closed would be queued for all who are to be closed. */
static void an_end_queues_nothing_for_who_ends(void **state)
{
    (void)state;
    struct core_options options = core_options_default();
    struct fixture fixture;
    open_core(&fixture, &options);
    struct session *session = connect_as(&fixture, "a");
    subscribe(&fixture, session, "t", 1);
    core_begin_end(fixture.core);
    (void)publish(&fixture, "t", 1, true);
    assert_int_equal(fixture.ready, 0);
    struct core_delivery delivery;
    assert_int_equal(core_next(fixture.core, 0, session, &delivery), CORE_NOTHING);
    assert_non_null(core_retained(fixture.core, 0, bytes_of_string("t")));
    close_core(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ready_is_said_once),
        cmocka_unit_test(an_end_queues_nothing_for_who_ends),
        cmocka_unit_test(delivery_lives_until_the_next_one),
        cmocka_unit_test(identifier_in_use_is_passed_over),
        cmocka_unit_test(waits_when_no_identifier_is_free),
        cmocka_unit_test(deliveries_allocate_nothing),
        cmocka_unit_test(sessions_have_numbers_of_their_own),
        cmocka_unit_test(long_scan_is_cut_into_turns),
        cmocka_unit_test(connect_without_memory_leaves_nothing),
        cmocka_unit_test(subscribe_without_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
