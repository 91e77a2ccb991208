/* core: a session that was given a reader gets only what effects.may_read allows, live, retained,
 * shared and while its client is away; and the reader lives as long as the session needs it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core.h"

struct viewer {
    struct shared shared; /* first */
    const char *prefix;   /* of topics that it may read */
    bool freed;
};

static unsigned asked;

static void on_output_ready(void *ctx, void *client)
{
    (void)ctx;
    assert_non_null(client);
}

static void on_session_lost(void *ctx, void *client, enum mqtt_reason reason)
{
    on_output_ready(ctx, client);
    assert_int_equal(reason, MQTT_SESSION_TAKEN_OVER);
}

static bool may_read(void *ctx, struct shared *shared, struct bytes topic)
{
    const struct viewer *reader = (const struct viewer *)(void *)shared;
    assert_ptr_equal(ctx, &asked);
    assert_false(reader->freed);
    asked++;
    return bytes_start_with(topic, bytes_of_string(reader->prefix));
}

static void destroy(struct shared *shared)
{
    ((struct viewer *)(void *)shared)->freed = true;
}

static struct viewer viewer_of(const char *prefix)
{
    return (struct viewer){{1, destroy}, prefix, false};
}

static struct core *open_core(void)
{
    struct core_effects effects = {.ctx = &asked,
                                   .output_ready = on_output_ready,
                                   .session_lost = on_session_lost,
                                   .may_read = may_read};
    struct core_options options = core_options_default();
    struct core *core = NULL;
    asked = 0;
    assert_int_equal(core_create(&options, &effects, 0, &core), STATUS_OK);
    return core;
}

static struct session *connect_as(struct core *core, const char *client_id, struct viewer *reader)
{
    struct core_connect connect = {.client_id = bytes_of_string(client_id),
                                   .session_expiry_s = 1000,
                                   .receive_maximum = UINT16_MAX,
                                   .reader = reader == NULL ? NULL : &reader->shared,
                                   .client = &asked};
    struct session *session = NULL;
    bool present;
    assert_int_equal(core_connect(core, 0, &connect, &session, &present), STATUS_OK);
    return session;
}

static void subscribe(struct core *core, struct session *session, const char *filter)
{
    struct core_subscribe request = {.filter = bytes_of_string(filter), .qos = 1};
    assert_int_equal(core_subscribe(core, 0, session, &request), 1);
}

static enum mqtt_reason publish(struct core *core, const char *topic, bool retain)
{
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string(topic), 0, bytes_of_string("x"), &message),
                     STATUS_OK);
    message->qos = 1;
    message->retain = retain;
    enum mqtt_reason reason = core_publish(core, 0, NULL, message);
    message_release(message);
    return reason;
}

/* Takes all that waits; returns how much it was, all of it below `prefix`. */
static unsigned take(struct core *core, struct session *session, const char *prefix)
{
    struct core_delivery delivery;
    unsigned count = 0;
    enum core_next next;
    while ((next = core_next(core, 0, session, &delivery)) != CORE_NOTHING) {
        if (next == CORE_DELIVERY) {
            assert_true(bytes_start_with(message_topic(delivery.message), bytes_of_string(prefix)));
            count++;
        }
    }
    return count;
}

static void live_and_retained(void **state)
{
    (void)state;
    struct core *core = open_core();
    struct viewer reader = viewer_of("a");
    assert_int_equal(publish(core, "a/old", true), MQTT_NO_MATCHING_SUBSCRIBERS);
    assert_int_equal(publish(core, "b/old", true), MQTT_NO_MATCHING_SUBSCRIBERS);
    struct session *session = connect_as(core, "id", &reader);
    subscribe(core, session, "#");
    assert_int_equal(publish(core, "a/new", false), MQTT_SUCCESS);
    assert_int_equal(publish(core, "b/new", false), MQTT_NO_MATCHING_SUBSCRIBERS);
    assert_int_equal(take(core, session, "a"), 2);
    assert_int_equal(core_stats(core).dropped, 0);
    core_check(core);
    core_destroy(core);
    assert_false(reader.freed);
    assert_int_equal(reader.shared.references, 1);
}

static void a_session_without_is_not_asked_about(void **state)
{
    (void)state;
    struct core *core = open_core();
    struct session *session = connect_as(core, "id", NULL);
    subscribe(core, session, "#");
    assert_int_equal(publish(core, "b", true), MQTT_SUCCESS);
    assert_int_equal(take(core, session, "b"), 1);
    assert_int_equal(asked, 0);
    core_destroy(core);
}

static void a_session_keeps_it_while_its_client_is_away(void **state)
{
    (void)state;
    struct core *core = open_core();
    struct viewer first = viewer_of("a");
    struct viewer second = viewer_of("b");
    struct session *session = connect_as(core, "id", &first);
    shared_release(&first.shared);
    subscribe(core, session, "#");
    core_disconnect(core, 0, session, false);
    assert_false(first.freed);
    assert_int_equal(publish(core, "a", false), MQTT_SUCCESS);
    assert_int_equal(publish(core, "b", false), MQTT_NO_MATCHING_SUBSCRIBERS);
    session = connect_as(core, "id", &second);
    assert_true(first.freed);
    assert_int_equal(publish(core, "b", false), MQTT_SUCCESS);
    core_session_set_reader(session, NULL);
    assert_int_equal(second.shared.references, 1);
    assert_int_equal(publish(core, "c", false), MQTT_SUCCESS);
    assert_int_equal(take(core, session, ""), 3);
    core_check(core);
    core_destroy(core);
}

static void a_shared_message_goes_to_who_may_read_it(void **state)
{
    (void)state;
    struct core *core = open_core();
    struct viewer reader_a = viewer_of("a");
    struct viewer reader_b = viewer_of("b");
    struct session *session_a = connect_as(core, "id-a", &reader_a);
    struct session *session_b = connect_as(core, "id-b", &reader_b);
    subscribe(core, session_a, "$share/g/#");
    subscribe(core, session_b, "$share/g/#");
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(publish(core, "b", false), MQTT_SUCCESS);
    }
    assert_int_equal(take(core, session_a, "a"), 0);
    assert_int_equal(take(core, session_b, "b"), 10);
    core_check(core);
    core_destroy(core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_and_retained),
        cmocka_unit_test(a_session_without_is_not_asked_about),
        cmocka_unit_test(a_session_keeps_it_while_its_client_is_away),
        cmocka_unit_test(a_shared_message_goes_to_who_may_read_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
