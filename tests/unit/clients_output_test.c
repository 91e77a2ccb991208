/* The PUBLISH that a client gets: its own encoding for every version, QoS and length, whether the
 * message has most of it encoded already or not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clients_fixture.h"
#include "mqtt_connect.h"
#include "mqtt_publish.h"
#include "mqtt_subscribe.h"

struct fixture {
    struct mqtt_clients *clients;
    struct core *core;
    struct access *access;
    struct mqtt_settings *settings;
    struct mqtt_client *client;
    enum mqtt_version version;
    uint8_t *scratch;
    uint8_t sent[64 * 1024]; /* by the broker */
    size_t sent_len;
};

static void on_link(void *link)
{
    (void)link;
}

static void on_close(void *link, enum mqtt_reason reason)
{
    (void)link;
    fail_msg("closed with %d", reason);
}

static void set_reading(void *link, bool reading)
{
    (void)link;
    (void)reading;
}

static void on_subscribe(void *link, const struct client *client, struct bytes filter,
                         enum mqtt_reason reason)
{
    (void)filter;
    assert_true(reason <= 2);
    ignore_client(link, client);
}

static void on_mistake(void *ctx, unsigned line, const char *text)
{
    (void)ctx;
    fail_msg("line %u: %s", line, text);
}

static void set_acl(struct fixture *fixture, const char *text)
{
    struct acl *acl = NULL;
    assert_int_equal(acl_parse(bytes_of_string(text), on_mistake, NULL, &acl), STATUS_OK);
    access_set_files(fixture->access, NULL, acl);
    acl_release(acl);
    mqtt_clients_on_access_changed(fixture->clients, 0);
}

static void receive(struct fixture *fixture, const struct writer *writer)
{
    assert_true(writer_ok(writer));
    mqtt_client_receive(fixture->client, 0, writer_written(writer));
}

static void flush(struct fixture *fixture)
{
    fixture->sent_len =
        flush_client(fixture->client, fixture->scratch, fixture->sent, sizeof fixture->sent);
}

/* A client that has subscribed to everything at QoS 2, with `identifier` unless it is 0. */
static void open_client(struct fixture *fixture, enum mqtt_version version, uint32_t identifier,
                        uint32_t packet_bytes_max)
{
    struct client_host host = {.wake = on_link,
                               .close = on_close,
                               .set_reading = set_reading,
                               .on_connected = ignore_client,
                               .on_gone = ignore_gone,
                               .on_subscribe = on_subscribe};
    fixture->version = version;
    assert_int_equal(access_create(&fixture->access), STATUS_OK);
    struct mqtt_settings values = {.access = fixture->access,
                                   .allow_anonymous = true,
                                   .retain_available = true,
                                   .qos_max = 2,
                                   .receive_maximum = UINT16_MAX,
                                   .keep_alive_max_s = UINT16_MAX,
                                   .packet_bytes_max = 1024 * 1024,
                                   .payload_bytes_max = UINT32_MAX,
                                   .connect_timeout_ms = 1000,
                                   .auto_id_prefix = "auto-"};
    assert_int_equal(mqtt_settings_create(&values, &fixture->settings), STATUS_OK);
    assert_int_equal(mqtt_clients_create(&host, 0, &fixture->clients), STATUS_OK);
    struct core_effects effects = mqtt_clients_effects(fixture->clients);
    struct core_options options = core_options_default();
    options.inflight_max = UINT16_MAX;
    assert_int_equal(core_create(&options, &effects, 0, &fixture->core), STATUS_OK);
    mqtt_clients_set_core(fixture->clients, fixture->core);
    fixture->client =
        mqtt_client_open(fixture->clients, 0, fixture, fixture->settings, BYTES_EMPTY);
    assert_non_null(fixture->client);
    fixture->scratch = malloc(OUTPUT_SCRATCH_BYTES);
    uint8_t packet[128];
    struct writer writer = writer_of(packet, sizeof packet);
    struct mqtt_connect connect = {.version = version,
                                   .clean_start = true,
                                   .client_id = bytes_of_string("a"),
                                   .maximum_packet_size = packet_bytes_max,
                                   .receive_maximum = UINT16_MAX,
                                   .request_problem_information = true};
    mqtt_connect_encode(&writer, &connect);
    receive(fixture, &writer);
    writer = writer_of(packet, sizeof packet);
    struct mqtt_subscription entry = {
        .filter = bytes_of_string("#"), .qos = 2, .retain_as_published = true};
    mqtt_subscribe_encode(&writer, version, 1, identifier, &entry, 1);
    receive(fixture, &writer);
    flush(fixture);
}

static void close_client(struct fixture *fixture)
{
    mqtt_client_close(fixture->client, 0, "the test is over");
    core_destroy(fixture->core);
    mqtt_clients_destroy(fixture->clients);
    shared_release(&fixture->settings->shared);
    access_release(fixture->access);
    free(fixture->scratch);
}

static void publish(struct fixture *fixture, uint8_t qos, const char *topic, size_t payload_len)
{
    static uint8_t payload[32 * 1024];
    struct message *message = NULL;
    for (size_t i = 0; i < payload_len; i++) {
        payload[i] = (uint8_t)(i * 7 + 1);
    }
    assert_int_equal(
        message_create(bytes_of_string(topic), 0, bytes_of(payload, payload_len), &message),
        STATUS_OK);
    message->qos = qos;
    message->retain = payload_len % 2 != 0;
    assert_true(core_publish(fixture->core, 0, NULL, message) < MQTT_UNSPECIFIED_ERROR);
    message_release(message);
}

/* What was sent is this PUBLISH and nothing else. */
static void expect(const struct fixture *fixture, uint8_t qos, const char *topic,
                   size_t payload_len, uint32_t identifier)
{
    struct mqtt_header header;
    struct mqtt_publish got;
    struct bytes sent = bytes_of(fixture->sent, fixture->sent_len);
    assert_int_equal(mqtt_header_decode_as(sent, fixture->version, &header), MQTT_HEADER_COMPLETE);
    assert_int_equal(header.type, MQTT_PUBLISH);
    assert_int_equal(header.header_len + header.remaining, sent.len);
    assert_int_equal(mqtt_publish_decode(bytes_from(sent, header.header_len), header.flags,
                                         fixture->version, &got),
                     identifier == 0 ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR); /* only servers may */
    assert_int_equal(got.qos, qos);
    assert_int_equal(got.dup, false);
    assert_int_equal(got.retain, fixture->version == MQTT_VERSION_5 && payload_len % 2 != 0);
    assert_true(bytes_equal_string(got.topic, topic));
    assert_int_equal(got.packet_id != 0, qos != 0);
    if (identifier != 0) {
        return;
    }
    assert_int_equal(got.payload.len, payload_len);
    for (size_t i = 0; i < payload_len; i++) {
        assert_int_equal(got.payload.data[i], (uint8_t)(i * 7 + 1));
    }
    assert_int_equal(got.properties.len, 0);
}

/* Around the lengths from which on the length itself takes another byte (2.1.4), and those that are
 * referenced. */
static void every_version_qos_and_length(void **state)
{
    static const size_t lengths[] = {0, 115, 16370, OUTPUT_REFERENCE_MIN - 8};
    static const enum mqtt_version versions[] = {MQTT_VERSION_3_1, MQTT_VERSION_3_1_1,
                                                 MQTT_VERSION_5};
    (void)state;
    for (size_t v = 0; v < 3; v++) {
        struct fixture fixture;
        open_client(&fixture, versions[v], 0, 0);
        for (uint8_t qos = 0; qos <= 2; qos++) {
            for (size_t i = 0; i < sizeof lengths / sizeof lengths[0] * 16; i++) {
                size_t len = lengths[i / 16] + i % 16;
                publish(&fixture, qos, "topic", len);
                flush(&fixture);
                expect(&fixture, qos, "topic", len, 0);
            }
        }
        close_client(&fixture);
    }
}

static void subscription_identifiers(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, MQTT_VERSION_5, 7, 0);
    for (uint8_t qos = 0; qos <= 2; qos++) {
        publish(&fixture, qos, "t", 1);
        flush(&fixture);
        expect(&fixture, qos, "t", 1, 7);
    }
    close_client(&fixture);
}

/* What would be longer than the client takes is left out, to the byte [MQTT-3.1.2-25]. */
static void maximum_packet_size(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, MQTT_VERSION_5, 0, 50);
    for (uint8_t qos = 0; qos <= 2; qos++) {
        size_t fits = 50 - (2 + 2 + 1 + (qos != 0 ? 2 : 0) + 1);
        publish(&fixture, qos, "t", fits);
        flush(&fixture);
        assert_int_equal(fixture.sent_len, 50);
        expect(&fixture, qos, "t", fits, 0);
        publish(&fixture, qos, "t", fits + 1);
        flush(&fixture);
        assert_int_equal(fixture.sent_len, 0);
    }
    close_client(&fixture);
}

/* What was queued under one file is delivered under the next. */
static void rights_at_the_time(void **state)
{
    static const enum mqtt_version versions[] = {MQTT_VERSION_3_1_1, MQTT_VERSION_5};
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        for (uint8_t qos = 0; qos <= 2; qos++) {
            struct fixture fixture;
            open_client(&fixture, versions[v], 0, 0);
            publish(&fixture, qos, "secret", 10);
            publish(&fixture, qos, "open", 10);
            set_acl(&fixture, "topic open\n");
            flush(&fixture);
            expect(&fixture, qos, "open", 10, 0);
            core_check(fixture.core);
            close_client(&fixture);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version_qos_and_length),
        cmocka_unit_test(subscription_identifiers),
        cmocka_unit_test(maximum_packet_size),
        cmocka_unit_test(rights_at_the_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
