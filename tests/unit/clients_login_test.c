/* A CONNECT whose password is checked beside the core's thread: everything that can happen before
 * the answer comes; and what a reload of the files means for clients that are in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clients_fixture.h"
#include "mem.h"
#include "mqtt_connect.h"
#include "mqtt_publish.h"
#include "mqtt_subscribe.h"

enum { LOGIN_MS = 30 * 1000, HOUR_MS = 3600 * 1000 };

#define HASH_A                                                                                     \
    "$7$101$c2FsdHNhbHRzYWx0$"                                                                     \
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="
#define HASH_B                                                                                     \
    "$7$202$c2FsdHNhbHRzYWx0$"                                                                     \
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="

struct fixture {
    struct mqtt_clients *clients;
    struct core *core;
    struct access *access;
    struct mqtt_settings *settings;
    struct mqtt_client *client;
    uint8_t *scratch;
    uint8_t sent[64 * 1024]; /* by the broker */
    size_t sent_len;
    unsigned started, cancelled; /* checks */
    uint32_t iterations;         /* of the hash asked about last */
    access_answer_fn *answer;    /* of the check that is in progress */
    void *owner;
    bool paused, closed, refused;
    enum mqtt_reason reason;
    unsigned publish_refused;
};

static const char check_token; /* only its address is used */

static struct access_check *start(void *ctx, const struct password_hash *hash,
                                  struct bytes password, access_answer_fn *answer, void *owner)
{
    struct fixture *fixture = ctx;
    void *block = mem_alloc(1); /* it may fail */
    if (block == NULL) {
        return NULL;
    }
    mem_free(block);
    assert_null(fixture->answer);
    assert_true(bytes_equal_string(password, "secret"));
    fixture->started++;
    fixture->iterations = hash->iterations;
    fixture->answer = answer;
    fixture->owner = owner;
    return (struct access_check *)(uintptr_t)&check_token;
}

static void cancel(void *ctx, struct access_check *check)
{
    struct fixture *fixture = ctx;
    assert_ptr_equal(check, &check_token);
    assert_non_null(fixture->answer);
    fixture->answer = NULL;
    fixture->cancelled++;
}

static void answer(struct fixture *fixture, enum status result)
{
    access_answer_fn *callback = fixture->answer;
    ENSURE(callback != NULL);
    fixture->answer = NULL;
    callback(fixture->owner, 0, result);
}

static void on_wake(void *link)
{
    (void)link;
}

static void on_close(void *link, enum mqtt_reason reason)
{
    struct fixture *fixture = link;
    fixture->closed = true;
    fixture->reason = reason;
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

static void on_refused(void *link, const struct client *client, struct bytes client_id,
                       enum mqtt_reason reason)
{
    struct fixture *fixture = link;
    (void)client_id;
    (void)reason;
    fixture->refused = true;
    ignore_client(link, client);
}

static void on_subscribe(void *link, const struct client *client, struct bytes filter,
                         enum mqtt_reason reason)
{
    (void)filter;
    (void)reason;
    ignore_client(link, client);
}

static void on_publish_refused(void *link, const struct client *client, struct bytes topic,
                               enum mqtt_reason reason)
{
    struct fixture *fixture = link;
    fixture->publish_refused++;
    on_subscribe(link, client, topic, reason);
}

static void on_mistake(void *ctx, unsigned line, const char *text)
{
    (void)ctx;
    fail_msg("line %u: %s", line, text);
}

static void set_files(struct fixture *fixture, const char *passwords_text, const char *acl_text)
{
    struct passwords *passwords = NULL;
    struct acl *acl = NULL;
    if (passwords_text != NULL) {
        assert_int_equal(
            passwords_parse(bytes_of_string(passwords_text), on_mistake, NULL, &passwords),
            STATUS_OK);
    }
    if (acl_text != NULL) {
        assert_int_equal(acl_parse(bytes_of_string(acl_text), on_mistake, NULL, &acl), STATUS_OK);
    }
    access_set_files(fixture->access, passwords, acl);
    passwords_release(passwords);
    acl_release(acl);
}

static void open_client(struct fixture *fixture, const char *passwords, const char *acl)
{
    struct client_host host = {.wake = on_wake,
                               .close = on_close,
                               .set_reading = set_reading,
                               .last_inbound_ms = last_inbound_ms,
                               .checker = {fixture, start, cancel},
                               .on_connected = ignore_client,
                               .on_refused = on_refused,
                               .on_gone = ignore_gone,
                               .on_subscribe = on_subscribe,
                               .on_publish_refused = on_publish_refused};
    *fixture = (struct fixture){.paused = false};
    assert_int_equal(access_create(&fixture->access), STATUS_OK);
    set_files(fixture, passwords, acl);
    struct mqtt_settings values = {.access = fixture->access,
                                   .allow_anonymous = passwords == NULL,
                                   .retain_available = true,
                                   .qos_max = 2,
                                   .topic_alias_maximum = 10,
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
    assert_int_equal(core_create(&options, &effects, 0, &fixture->core), STATUS_OK);
    mqtt_clients_set_core(fixture->clients, fixture->core);
    fixture->client =
        mqtt_client_open(fixture->clients, 0, fixture, fixture->settings, BYTES_EMPTY);
    assert_non_null(fixture->client);
    fixture->scratch = malloc(OUTPUT_SCRATCH_BYTES);
}

static void close_client(struct fixture *fixture)
{
    mqtt_client_close(fixture->client, 0, "the test is over");
    assert_null(fixture->answer);
    core_destroy(fixture->core);
    mqtt_clients_destroy(fixture->clients);
    shared_release(&fixture->settings->shared);
    access_release(fixture->access);
    free(fixture->scratch);
}

static void receive(struct fixture *fixture, struct bytes bytes)
{
    mqtt_client_receive(fixture->client, 0, bytes);
}

static struct bytes connect_packet(uint8_t *buffer, size_t size, const char *user)
{
    struct writer writer = writer_of(buffer, size);
    struct mqtt_connect connect = {.version = MQTT_VERSION_5,
                                   .clean_start = true,
                                   .client_id = bytes_of_string("id"),
                                   .has_user_name = user != NULL,
                                   .user_name = bytes_of_string(user),
                                   .has_password = user != NULL,
                                   .password = bytes_of_string("secret"),
                                   .session_expiry_s = 1000,
                                   .receive_maximum = UINT16_MAX,
                                   .request_problem_information = true};
    mqtt_connect_encode(&writer, &connect);
    assert_true(writer_ok(&writer));
    return writer_written(&writer);
}

static void send_connect(struct fixture *fixture, const char *user)
{
    uint8_t buffer[256];
    receive(fixture, connect_packet(buffer, sizeof buffer, user));
}

static void flush(struct fixture *fixture)
{
    fixture->sent_len =
        flush_client(fixture->client, fixture->scratch, fixture->sent, sizeof fixture->sent);
}

/* The reason code of the CONNACK that was sent; -1: none was. */
static int connack(struct fixture *fixture)
{
    flush(fixture);
    return fixture->sent_len >= 4 && fixture->sent[0] == 0x20 ? fixture->sent[3] : -1;
}

static void what_follows_waits_for_the_answer(void **state)
{
    (void)state;
    static const uint8_t pingreq[] = {0xC0, 0};
    struct fixture fixture;
    uint8_t buffer[256];
    /* In one piece, and cut at each place. */
    for (size_t cut = 0;; cut++) {
        open_client(&fixture, "ann:" HASH_A, NULL);
        struct bytes packet = connect_packet(buffer, sizeof buffer - sizeof pingreq, "ann");
        memcpy(buffer + packet.len, pingreq, sizeof pingreq);
        packet.len += sizeof pingreq;
        receive(&fixture, bytes_of(packet.data, cut));
        receive(&fixture, bytes_from(packet, cut));
        assert_int_equal(fixture.started, 1);
        assert_int_equal(connack(&fixture), -1);
        assert_int_equal(fixture.sent_len, 0);
        assert_false(mqtt_client_is_connected(fixture.client));
        answer(&fixture, STATUS_OK);
        assert_true(mqtt_client_is_connected(fixture.client));
        assert_true(bytes_equal_string(mqtt_client_user_name(fixture.client), "ann"));
        assert_int_equal(connack(&fixture), 0);
        assert_int_equal(fixture.sent[fixture.sent_len - 2], 0xD0);
        close_client(&fixture);
        assert_int_equal(fixture.cancelled, 0);
        if (cut == packet.len) {
            break;
        }
    }
}

static void refusals(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    answer(&fixture, STATUS_INVALID);
    assert_int_equal(connack(&fixture), MQTT_BAD_USER_NAME_OR_PASSWORD);
    assert_true(fixture.closed && fixture.refused);
    close_client(&fixture);

    /* The decoy's own password does not help. */
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "eve");
    assert_int_equal(fixture.started, 1);
    answer(&fixture, STATUS_OK);
    assert_int_equal(connack(&fixture), MQTT_BAD_USER_NAME_OR_PASSWORD);
    close_client(&fixture);

    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, NULL);
    assert_int_equal(fixture.started, 0);
    assert_int_equal(connack(&fixture), MQTT_NOT_AUTHORIZED);
    close_client(&fixture);

    /* A passing trouble closes without a word. */
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    answer(&fixture, STATUS_NO_MEMORY);
    assert_true(fixture.closed);
    assert_int_equal(connack(&fixture), -1);
    close_client(&fixture);
}

static void the_end_cancels_a_check(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    close_client(&fixture);
    assert_int_equal(fixture.cancelled, 1);

    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    mqtt_clients_shut_down(fixture.clients, 0);
    assert_true(fixture.closed);
    assert_int_equal(fixture.cancelled, 1);
    close_client(&fixture);
    assert_int_equal(fixture.cancelled, 1);

    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    mqtt_clients_advance(fixture.clients, LOGIN_MS - 100);
    assert_false(fixture.closed);
    mqtt_clients_advance(fixture.clients, LOGIN_MS + 100);
    assert_true(fixture.closed);
    assert_int_equal(fixture.reason, MQTT_SERVER_BUSY);
    assert_int_equal(fixture.cancelled, 1);
    close_client(&fixture);
}

/* A PUBLISH at QoS 0 of `size` bytes. */
static void send_publish_of(struct fixture *fixture, size_t size)
{
    static uint8_t packet[2048] = {0x30, 0, 0, 0, 1, 't', 0};
    size_t remaining = size - 3;
    packet[1] = (uint8_t)(0x80 | (remaining & 0x7F));
    packet[2] = (uint8_t)(remaining >> 7);
    receive(fixture, bytes_of(packet, size));
}

static void what_follows_is_bounded(void **state)
{
    (void)state;
    enum { SIZE = 1024, PAUSE_MIN = 10000, PAUSE_MAX = 17000, END_MIN = 800000, END_MAX = 1049600 };
    struct fixture fixture;
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    size_t sent = 0;
    for (; !fixture.paused; sent += SIZE) {
        assert_true(sent <= PAUSE_MAX);
        send_publish_of(&fixture, SIZE);
    }
    assert_true(sent > PAUSE_MIN);
    for (; !fixture.closed; sent += SIZE) {
        assert_true(sent <= END_MAX);
        send_publish_of(&fixture, SIZE);
    }
    assert_true(sent > END_MIN);
    assert_int_equal(fixture.reason, MQTT_QUOTA_EXCEEDED);
    assert_int_equal(fixture.cancelled, 1);
    close_client(&fixture);

    /* CONNACK lets reading go on, and nothing is lost. */
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    for (sent = 0; !fixture.paused; sent++) {
        send_publish_of(&fixture, SIZE);
    }
    answer(&fixture, STATUS_OK);
    assert_true(fixture.paused);
    assert_int_equal(mqtt_clients_stats(fixture.clients).publish_received, sent);
    assert_int_equal(connack(&fixture), 0);
    assert_false(fixture.paused);
    close_client(&fixture);
}

static void a_reload_meets_a_check(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    assert_int_equal(fixture.iterations, 101);
    set_files(&fixture, "ann:" HASH_B, NULL);
    mqtt_clients_on_access_changed(fixture.clients, 0);
    answer(&fixture, STATUS_OK); /* for an entry that counts no more */
    assert_int_equal(fixture.started, 2);
    assert_int_equal(fixture.iterations, 202);
    assert_int_equal(connack(&fixture), -1);
    answer(&fixture, STATUS_OK);
    assert_int_equal(connack(&fixture), 0);
    close_client(&fixture);

    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    set_files(&fixture, "bob:" HASH_A, NULL);
    answer(&fixture, STATUS_OK);
    assert_int_equal(fixture.started, 2); /* now with a decoy */
    answer(&fixture, STATUS_OK);
    assert_int_equal(connack(&fixture), MQTT_BAD_USER_NAME_OR_PASSWORD);
    close_client(&fixture);
}

static void a_removed_entry_ends_its_clients(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, "ann:" HASH_A, NULL);
    send_connect(&fixture, "ann");
    answer(&fixture, STATUS_OK);
    set_files(&fixture, "bob:" HASH_B "\nann:" HASH_A, NULL);
    mqtt_clients_on_access_changed(fixture.clients, 0);
    assert_false(fixture.closed);
    set_files(&fixture, "bob:" HASH_B, NULL);
    mqtt_clients_on_access_changed(fixture.clients, 0);
    assert_true(fixture.closed);
    assert_int_equal(fixture.reason, MQTT_NOT_AUTHORIZED);
    close_client(&fixture);
}

static void lack_of_memory(void **state)
{
    (void)state;
    bool connected = false;
    for (uint64_t n = 1; !connected; n++) {
        struct fixture fixture;
        open_client(&fixture, "ann:" HASH_A, "user ann\ntopic a\n");
        mem_fail_at(n);
        send_connect(&fixture, "ann");
        if (fixture.answer != NULL) {
            answer(&fixture, STATUS_OK);
        }
        mem_fail_at(0);
        connected = mqtt_client_is_connected(fixture.client);
        assert_true(connected || fixture.closed);
        assert_int_equal(connack(&fixture), connected ? 0 : -1);
        close_client(&fixture);
        assert_true(n < 100);
    }
}

static void publish(struct fixture *fixture, const char *topic, uint8_t qos)
{
    uint8_t packet[128];
    struct writer writer = writer_of(packet, sizeof packet);
    struct mqtt_publish_out out = {
        .qos = qos, .packet_id = qos == 0 ? 0 : 1, .topic = bytes_of_string(topic)};
    mqtt_publish_encode_head(&writer, &out, MQTT_VERSION_5);
    receive(fixture, writer_written(&writer));
}

/* One entry; returns its reason code. */
static int subscribe(struct fixture *fixture, const char *filter)
{
    uint8_t packet[128] = {0x82, 0, 0, 1, 0, 0, 0};
    size_t len = strlen(filter);
    packet[1] = (uint8_t)(len + 6);
    packet[6] = (uint8_t)len;
    bytes_copy(packet + 7, bytes_of(filter, len));
    packet[7 + len] = 1;
    receive(fixture, bytes_of(packet, len + 8));
    flush(fixture);
    assert_int_equal(fixture->sent[0], 0x90);
    return fixture->sent[fixture->sent_len - 1];
}

/* The broker's own message; true when the client gets it. */
static bool gets(struct fixture *fixture, const char *topic)
{
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string(topic), 0, BYTES_EMPTY, &message), STATUS_OK);
    message->qos = 1;
    enum mqtt_reason reason = core_publish(fixture->core, 0, NULL, message);
    assert_true(reason < MQTT_UNSPECIFIED_ERROR);
    message_release(message);
    flush(fixture);
    return fixture->sent_len != 0;
}

static void rights(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, NULL,
                "topic read r/#\ntopic deny r/no\ntopic write w\npattern readwrite own/%c/#\n");
    send_connect(&fixture, NULL);
    assert_int_equal(connack(&fixture), 0);
    publish(&fixture, "w", 1);
    flush(&fixture);
    assert_int_equal(fixture.sent[1], 3); /* 0x10, nobody subscribes */
    assert_int_equal(fixture.sent[4], MQTT_NO_MATCHING_SUBSCRIBERS);
    publish(&fixture, "r/a", 1);
    flush(&fixture);
    assert_int_equal(fixture.sent[4], MQTT_NOT_AUTHORIZED);
    publish(&fixture, "r/a", 2);
    flush(&fixture);
    assert_int_equal(fixture.sent[0], 0x50);
    assert_int_equal(fixture.sent[4], MQTT_NOT_AUTHORIZED);
    assert_int_equal(fixture.publish_refused, 1);
    assert_int_equal(subscribe(&fixture, "w"), MQTT_NOT_AUTHORIZED);
    assert_int_equal(subscribe(&fixture, "r/no"), MQTT_NOT_AUTHORIZED);
    assert_int_equal(subscribe(&fixture, "own/other/x"), MQTT_NOT_AUTHORIZED);
    assert_int_equal(subscribe(&fixture, "#"), 1);
    assert_true(gets(&fixture, "r/a"));
    assert_true(gets(&fixture, "own/id/x"));
    assert_false(gets(&fixture, "r/no"));
    assert_false(gets(&fixture, "w"));
    assert_int_equal(core_stats(fixture.core).dropped, 0);
    assert_int_equal(core_stats(fixture.core).queued_messages, 2); /* in flight */
    close_client(&fixture);
}

/* What was queued under one file is delivered under the next. */
static void rights_change_behind_the_queue(void **state)
{
    (void)state;
    struct fixture fixture;
    open_client(&fixture, NULL, NULL);
    send_connect(&fixture, NULL);
    assert_int_equal(connack(&fixture), 0);
    assert_int_equal(subscribe(&fixture, "#"), 1);
    assert_true(gets(&fixture, "secret"));
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string("secret"), 0, BYTES_EMPTY, &message),
                     STATUS_OK);
    message->qos = 1;
    assert_int_equal(core_publish(fixture.core, 0, NULL, message), MQTT_SUCCESS);
    message_release(message);
    set_files(&fixture, NULL, "topic open\n");
    mqtt_clients_on_access_changed(fixture.clients, 0);
    flush(&fixture);
    assert_int_equal(fixture.sent_len, 0);
    assert_false(gets(&fixture, "secret"));
    assert_true(gets(&fixture, "open"));
    set_files(&fixture, NULL, NULL);
    mqtt_clients_on_access_changed(fixture.clients, 0);
    assert_true(gets(&fixture, "secret"));
    core_check(fixture.core);
    close_client(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_follows_waits_for_the_answer),
        cmocka_unit_test(refusals),
        cmocka_unit_test(the_end_cancels_a_check),
        cmocka_unit_test(what_follows_is_bounded),
        cmocka_unit_test(a_reload_meets_a_check),
        cmocka_unit_test(a_removed_entry_ends_its_clients),
        cmocka_unit_test(lack_of_memory),
        cmocka_unit_test(rights),
        cmocka_unit_test(rights_change_behind_the_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
