/* core: how many places a message got, and the watch over who has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core.h"

static unsigned changes;

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

static void on_changed(struct core_watch *watch)
{
    assert_true(watch->acknowledged <= watch->matched);
    changes++;
}

static struct session *subscriber(struct core *core, const char *client_id, const char *filter,
                                  uint8_t qos)
{
    struct core_connect connect = {.client_id = bytes_of_string(client_id),
                                   .session_expiry_s = 1000,
                                   .receive_maximum = UINT16_MAX,
                                   .client = &changes};
    struct session *session = NULL;
    bool present;
    assert_int_equal(core_connect(core, 0, &connect, &session, &present), STATUS_OK);
    struct core_subscribe request = {.filter = bytes_of_string(filter), .qos = qos};
    assert_int_equal(core_subscribe(core, 0, session, &request), qos);
    return session;
}

static void publish(struct core *core, const char *topic, struct core_watch *watch)
{
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string(topic), 0, BYTES_EMPTY, &message), STATUS_OK);
    message->qos = 2;
    enum mqtt_reason reason = core_publish(core, 0, NULL, message);
    assert_true(reason < MQTT_UNSPECIFIED_ERROR);
    if (watch != NULL) {
        core_watch_begin(core, watch, message, on_changed);
    }
    message_release(message);
}

static uint16_t take(struct core *core, struct session *session)
{
    struct core_delivery delivery;
    assert_int_equal(core_next(core, 0, session, &delivery), CORE_DELIVERY);
    return delivery.packet_id;
}

static void places_and_acknowledgements(void **state)
{
    (void)state;
    struct core_effects effects = {.output_ready = on_output_ready,
                                   .session_lost = on_session_lost};
    struct core_options options = core_options_default();
    struct core *core = NULL;
    assert_int_equal(core_create(&options, &effects, 0, &core), STATUS_OK);
    struct session *zero = subscriber(core, "zero", "t", 0);
    struct session *one = subscriber(core, "one", "t", 1);
    struct session *two = subscriber(core, "two", "#", 2);
    struct session *shared = subscriber(core, "shared", "$share/g/t", 1);
    struct core_subscribe again = {.filter = bytes_of_string("+"), .qos = 1};
    assert_int_equal(core_subscribe(core, 0, two, &again), 1); /* overlaps: one copy */
    publish(core, "other", NULL);
    assert_int_equal(core_matched(core), 1);
    struct core_watch first;
    struct core_watch second;
    publish(core, "t", &first);
    publish(core, "t", &second);
    assert_int_equal(core_matched(core), 4);
    assert_int_equal(first.matched, 4);
    assert_int_equal(take(core, zero), 0);
    assert_int_equal(first.acknowledged, 1);
    uint16_t id = take(core, one);
    assert_int_equal(first.acknowledged, 1);
    assert_true(core_puback(core, one, id));
    assert_false(core_puback(core, one, id));
    assert_int_equal(first.acknowledged, 2);
    (void)take(core, two); /* the other topic */
    id = take(core, two);
    bool refused;
    assert_true(core_pubrec(core, two, id, MQTT_SUCCESS, &refused));
    assert_true(core_pubrec(core, two, id, MQTT_SUCCESS, &refused));
    assert_true(core_pubcomp(core, two, id));
    assert_true(core_puback(core, shared, take(core, shared)));
    assert_int_equal(first.acknowledged, 4);
    assert_int_equal(second.acknowledged, 0);
    core_watch_end(core, &first);
    assert_true(core_puback(core, one, take(core, one)));
    assert_int_equal(second.acknowledged, 1);
    assert_int_equal(changes, 5);
    core_watch_end(core, &second);
    core_destroy(core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(places_and_acknowledgements)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
