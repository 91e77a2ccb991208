/* core: a scan of retained messages at QoS 2 that a crash interrupts at any point brings each
 * message exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core.h"
#include "memory_store.h"

enum { MESSAGES = 300, TOO_MANY = 70000, CALLS_MAX = 10000 };

struct fixture {
    struct core *core;
    struct store *store;
    struct session *session;
    bool ready;
    unsigned count; /* of retained messages */
    uint8_t seen[TOO_MANY];
    unsigned total;
};

static void on_output_ready(void *ctx, void *client)
{
    (void)client;
    struct fixture *fixture = ctx;
    fixture->ready = true;
}

static void on_session_lost(void *ctx, void *client, enum mqtt_reason reason)
{
    (void)ctx, (void)client, (void)reason;
}

static void on_committed(void *ctx, uint64_t ticket)
{
    (void)ctx, (void)ticket;
}

static void on_store_failed(void *ctx, const char *why)
{
    (void)ctx;
    fail_msg("%s", why);
}

static void open_core(struct fixture *fixture)
{
    struct core_options options = core_options_default();
    options.inflight_max = 7;
    struct core_effects effects = {
        .ctx = fixture,
        .output_ready = on_output_ready,
        .session_lost = on_session_lost,
        .committed = on_committed,
        .store_failed = on_store_failed,
    };
    assert_int_equal(core_create(&options, &effects, 0, &fixture->core), STATUS_OK);
    assert_int_equal(core_open_store(fixture->core, 0, 1000, fixture->store), STATUS_OK);
}

static bool connect_session(struct fixture *fixture)
{
    struct core_connect connect = {.client_id = bytes_of_string("s"),
                                   .session_expiry_s = CORE_SESSION_NEVER_EXPIRES,
                                   .receive_maximum = UINT16_MAX,
                                   .client = fixture};
    bool session_present = false;
    assert_int_equal(core_connect(fixture->core, 0, &connect, &fixture->session, &session_present),
                     STATUS_OK);
    memory_store_commit_all(fixture->store);
    return session_present;
}

static void publish_retained(struct fixture *fixture)
{
    for (unsigned i = 0; i < fixture->count; i++) {
        char topic[16];
        int length = snprintf(topic, sizeof topic, "r/%u", i);
        struct message *message = NULL;
        assert_int_equal(message_create(bytes_of(topic, (size_t)length), 0,
                                        bytes_of_string("payload"), &message),
                         STATUS_OK);
        message->qos = 2;
        message->retain = true;
        assert_true(core_publish(fixture->core, 0, NULL, message) < MQTT_UNSPECIFIED_ERROR);
        message_release(message);
    }
    memory_store_commit_all(fixture->store);
}

static void subscribe(struct fixture *fixture)
{
    struct core_subscribe request = {.filter = bytes_of_string("r/+"), .qos = 2};
    assert_int_equal(core_subscribe(fixture->core, 0, fixture->session, &request), 2);
    memory_store_commit_all(fixture->store);
}

/* The client's part: PUBREC, and PUBCOMP for the PUBREL that follows. */
static void answer(struct fixture *fixture, const struct core_delivery *delivery)
{
    uint16_t packet_id = delivery->packet_id;
    if (delivery->message != NULL) {
        unsigned number = TOO_MANY;
        struct bytes topic = message_topic(delivery->message);
        assert_int_equal(sscanf((const char *)topic.data, "r/%u", &number), 1);
        assert_true(number < fixture->count && delivery->qos == 2 && delivery->retain);
        fixture->seen[number]++;
        fixture->total++;
        bool refused = false;
        assert_true(
            core_pubrec(fixture->core, fixture->session, packet_id, MQTT_SUCCESS, &refused));
        memory_store_commit_all(fixture->store);
    }
    assert_true(core_pubcomp(fixture->core, fixture->session, packet_id));
}

/* Lets the client take what it may, in up to `calls` calls of core_next. True: it has all. */
static bool run(struct fixture *fixture, unsigned calls)
{
    for (unsigned i = 0; i < calls; i++) {
        fixture->ready = false;
        struct core_delivery delivery;
        enum core_next next = core_next(fixture->core, 0, fixture->session, &delivery);
        if (next == CORE_DELIVERY) {
            answer(fixture, &delivery);
        }
        memory_store_commit_all(fixture->store);
        if (memory_store_answer(fixture->store)) {
            memory_store_commit_all(fixture->store);
        }
        if (fixture->count == MESSAGES) { /* it walks all that there is */
            core_check(fixture->core);
        }
        if (next == CORE_NOTHING && !fixture->ready) {
            return true;
        }
    }
    return false;
}

static void crash(struct fixture *fixture)
{
    core_destroy(fixture->core);
    memory_store_crash(fixture->store);
    open_core(fixture);
    assert_true(connect_session(fixture));
}

static struct fixture fixture;

/* A session that has just subscribed to `count` retained messages. */
static void open_fixture(unsigned count)
{
    fixture = (struct fixture){.count = count};
    assert_int_equal(memory_store_create(&fixture.store), STATUS_OK);
    open_core(&fixture);
    assert_false(connect_session(&fixture));
    publish_retained(&fixture);
    subscribe(&fixture);
}

/* Each has come once, and nothing is left but the retained messages. */
static void close_fixture(void)
{
    for (unsigned i = 0; i < fixture.count; i++) {
        assert_int_equal(fixture.seen[i], 1);
    }
    assert_int_equal(memory_store_count(fixture.store).recipients, fixture.count);
    core_check(fixture.core);
    core_destroy(fixture.core);
    store_destroy(fixture.store);
}

/* Returns whether the scan was over before the crash. */
static bool crash_after(unsigned calls)
{
    open_fixture(MESSAGES);
    bool was_over = run(&fixture, calls);
    crash(&fixture);
    assert_true(run(&fixture, CALLS_MAX));
    close_fixture();
    return was_over;
}

/* What is beyond the limit of a scan follows. */
static void all_of_a_large_scan_comes(void **state)
{
    (void)state;
    open_fixture(TOO_MANY);
    assert_true(run(&fixture, 10 * TOO_MANY));
    close_fixture();
}

static void a_crash_at_any_point_repeats_nothing(void **state)
{
    (void)state;
    unsigned calls = 0;
    while (!crash_after(calls)) {
        calls += calls < 60 ? 1 : 97; /* the scan gathers in the first ones */
    }
    assert_true(calls > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_at_any_point_repeats_nothing),
        cmocka_unit_test(all_of_a_large_scan_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
