/* A client that asks and never takes an answer is not read from, so that answers cannot pile up;
 * and what CONNACK announced holds for a client whatever a reload brings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clients_fixture.h"
#include "mem.h"
#include "mqtt_connect.h"
#include "mqtt_publish.h"

enum { ANSWERS_MAX = 80 * 1024 };

struct fixture {
    struct mqtt_clients *clients;
    struct core *core;
    struct mqtt_settings *settings;
    struct mqtt_client *client;
    uint8_t *scratch;
    bool paused;
    bool closed;
};

static void on_wake(void *link)
{
    (void)link;
}

static void on_close(void *link, enum mqtt_reason reason)
{
    (void)reason;
    ((struct fixture *)link)->closed = true;
}

static void set_reading(void *link, bool reading)
{
    struct fixture *fixture = link;
    assert_true(fixture->paused == reading);
    fixture->paused = !reading;
}

static uint64_t last_inbound_ms(void *link)
{
    (void)link;
    return 0;
}

static void on_publish_refused(void *link, const struct client *client, struct bytes topic,
                               enum mqtt_reason reason)
{
    (void)topic;
    (void)reason;
    ignore_client(link, client);
}

static void receive(struct fixture *fixture, const struct writer *writer)
{
    assert_true(writer_ok(writer));
    mqtt_client_receive(fixture->client, 0, writer_written(writer));
}

static struct mqtt_settings *settings_with(uint16_t topic_alias_maximum)
{
    struct mqtt_settings values = {.allow_anonymous = true,
                                   .retain_available = true,
                                   .qos_max = 2,
                                   .topic_alias_maximum = topic_alias_maximum,
                                   .receive_maximum = UINT16_MAX,
                                   .keep_alive_max_s = UINT16_MAX,
                                   .packet_bytes_max = 1024 * 1024,
                                   .payload_bytes_max = UINT32_MAX,
                                   .connect_timeout_ms = 1000,
                                   .auto_id_prefix = "auto-"};
    struct mqtt_settings *settings = NULL;
    assert_int_equal(mqtt_settings_create(&values, &settings), STATUS_OK);
    return settings;
}

static void open_client(struct fixture *fixture)
{
    struct client_host host = {.wake = on_wake,
                               .close = on_close,
                               .set_reading = set_reading,
                               .last_inbound_ms = last_inbound_ms,
                               .on_connected = ignore_client,
                               .on_gone = ignore_gone,
                               .on_publish_refused = on_publish_refused};
    *fixture = (struct fixture){.settings = settings_with(10)};
    assert_int_equal(mqtt_clients_create(&host, 0, &fixture->clients), STATUS_OK);
    struct core_effects effects = mqtt_clients_effects(fixture->clients);
    struct core_options options = core_options_default();
    assert_int_equal(core_create(&options, &effects, 0, &fixture->core), STATUS_OK);
    mqtt_clients_set_core(fixture->clients, fixture->core);
    fixture->client =
        mqtt_client_open(fixture->clients, 0, fixture, fixture->settings, BYTES_EMPTY);
    assert_non_null(fixture->client);
    fixture->scratch = malloc(OUTPUT_SCRATCH_BYTES);
    uint8_t packet[128];
    struct writer writer = writer_of(packet, sizeof packet);
    struct mqtt_connect connect = {.version = MQTT_VERSION_5,
                                   .clean_start = true,
                                   .client_id = bytes_of_string("a"),
                                   .receive_maximum = UINT16_MAX,
                                   .request_problem_information = true};
    mqtt_connect_encode(&writer, &connect);
    receive(fixture, &writer);
    assert_true(mqtt_client_is_connected(fixture->client));
}

static void close_client(struct fixture *fixture)
{
    mqtt_client_close(fixture->client, 0, "the test is over");
    core_destroy(fixture->core);
    mqtt_clients_destroy(fixture->clients);
    shared_release(&fixture->settings->shared);
    free(fixture->scratch);
}

static void publish(struct fixture *fixture, uint8_t qos, uint16_t alias, const char *topic)
{
    uint8_t packet[128];
    struct writer writer = writer_of(packet, sizeof packet);
    struct mqtt_publish_out out = {.qos = qos,
                                   .packet_id = qos == 0 ? 0 : 1,
                                   .topic_alias = alias,
                                   .topic = bytes_of_string(topic)};
    mqtt_publish_encode_head(&writer, &out, MQTT_VERSION_5);
    receive(fixture, &writer);
}

static size_t flush(struct fixture *fixture)
{
    struct output output;
    output_open(&output, fixture->scratch, OUTPUT_SCRATCH_BYTES);
    mqtt_client_send(fixture->client, 0, &output);
    size_t total = output.total;
    output_release(&output);
    return total;
}

static void unread_answers_pause_reading(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture);
    for (unsigned round = 0; round < 2; round++) {
        (void)flush(&fixture);
        assert_false(fixture.paused);
        unsigned published = 0;
        for (; !fixture.paused; published++) {
            assert_true(published < ANSWERS_MAX / 4);
            publish(&fixture, 1, 0, "t");
        }
        assert_true(flush(&fixture) < ANSWERS_MAX);
        assert_false(fixture.paused);
    }
    close_client(&fixture);
}

static void settings_of_a_client_stay(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture);
    publish(&fixture, 0, 10, "t");
    shared_release(&fixture.settings->shared); /* as a reload does */
    fixture.settings = settings_with(100);
    publish(&fixture, 0, 10, "");
    assert_false(fixture.closed);
    publish(&fixture, 0, 50, "t");
    assert_true(fixture.closed); /* it was told 10 */
    close_client(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unread_answers_pause_reading),
        cmocka_unit_test(settings_of_a_client_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
