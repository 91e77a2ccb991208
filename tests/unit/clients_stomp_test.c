/* STOMP clients without sockets: whole conversations, cut at every point, and with every allocation
 * failing once; heart-beats on a clock of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "stomp_client.h"
#include "stomp_frame.h"

enum { HEARD_MAX = 256 * 1024, TURNS_MAX = 1000, ALLOCATIONS_MAX = 2000 };

struct fixture {
    struct mqtt_clients *mqtt;
    struct stomp_clients *clients;
    struct core *core;
    struct mqtt_settings *settings;
    struct client *client;
    uint8_t *scratch;
    uint64_t now_ms;
    uint64_t last_inbound_ms;
    uint8_t random;
    bool woken, closed, refused, paused, connected;
    unsigned messages; /* begun */
    unsigned gone;
    char why[256];
    size_t heard_len;
    char heard[HEARD_MAX];
};

static void on_wake(void *link)
{
    ((struct fixture *)link)->woken = true;
}

static void on_close(void *link, enum mqtt_reason reason)
{
    struct fixture *fixture = link;
    (void)reason;
    ENSURE(!fixture->closed);
    fixture->closed = true;
}

static void set_reading(void *link, bool reading)
{
    struct fixture *fixture = link;
    ENSURE(fixture->paused == reading);
    fixture->paused = !reading;
}

static void begin_message(void *link, struct output *output, bool text)
{
    (void)output;
    (void)text;
    ((struct fixture *)link)->messages++;
}

static uint64_t last_inbound_ms(void *link)
{
    return ((struct fixture *)link)->last_inbound_ms;
}

static void count_up(void *ctx, uint8_t *out, size_t len)
{
    struct fixture *fixture = ctx;
    for (size_t i = 0; i < len; i++) {
        out[i] = fixture->random++;
    }
}

static uint64_t unix_ms(void *ctx)
{
    return ((struct fixture *)ctx)->now_ms + 1000000;
}

static void on_connected(void *link, const struct client *client)
{
    struct fixture *fixture = link;
    ENSURE(fixture->client == client && !fixture->connected);
    fixture->connected = true;
}

static void on_refused(void *link, const struct client *client, struct bytes client_id,
                       enum mqtt_reason reason)
{
    struct fixture *fixture = link;
    (void)client;
    (void)client_id;
    ENSURE(reason >= MQTT_UNSPECIFIED_ERROR && !fixture->refused);
    fixture->refused = true;
}

static void on_gone(void *link, const struct client *client, const char *why)
{
    struct fixture *fixture = link;
    (void)client;
    fixture->gone++;
    (void)snprintf(fixture->why, sizeof fixture->why, "%s", why);
}

static void on_subscribe(void *link, const struct client *client, struct bytes filter,
                         enum mqtt_reason granted)
{
    (void)link;
    (void)client;
    (void)filter;
    (void)granted;
}

static void on_unsubscribe(void *link, const struct client *client, struct bytes filter)
{
    on_subscribe(link, client, filter, MQTT_SUCCESS);
}

/* False: there was no memory. */
static bool open_fixture(struct fixture *fixture)
{
    memset(fixture, 0, offsetof(struct fixture, heard));
    fixture->now_ms = fixture->last_inbound_ms = 1000;
    fixture->scratch = malloc(OUTPUT_SCRATCH_BYTES);
    struct client_host host = {.ctx = fixture,
                               .wake = on_wake,
                               .close = on_close,
                               .set_reading = set_reading,
                               .begin_message = begin_message,
                               .last_inbound_ms = last_inbound_ms,
                               .random = count_up,
                               .unix_ms = unix_ms,
                               .on_connected = on_connected,
                               .on_refused = on_refused,
                               .on_gone = on_gone,
                               .on_subscribe = on_subscribe,
                               .on_unsubscribe = on_unsubscribe,
                               .on_publish_refused = on_subscribe};
    struct mqtt_settings values = {.allow_anonymous = true,
                                   .retain_available = true,
                                   .qos_max = 2,
                                   .packet_bytes_max = 1024 * 1024,
                                   .payload_bytes_max = UINT32_MAX,
                                   .subscriptions_max = 100,
                                   .connect_timeout_ms = 1000,
                                   .auto_id_prefix = "auto-"};
    if (mqtt_settings_create(&values, &fixture->settings) != STATUS_OK ||
        mqtt_clients_create(&host, fixture->now_ms, &fixture->mqtt) != STATUS_OK ||
        stomp_clients_create(&host, mqtt_clients_control(fixture->mqtt), fixture->now_ms,
                             &fixture->clients) != STATUS_OK) {
        return false;
    }
    struct core_effects effects = mqtt_clients_effects(fixture->mqtt);
    struct core_options options = core_options_default();
    if (core_create(&options, &effects, fixture->now_ms, &fixture->core) != STATUS_OK) {
        return false;
    }
    mqtt_clients_set_core(fixture->mqtt, fixture->core);
    stomp_clients_set_core(fixture->clients, fixture->core);
    fixture->client = stomp_client_open(fixture->clients, fixture->now_ms, fixture,
                                        fixture->settings, BYTES_EMPTY);
    return fixture->client != NULL;
}

static void close_fixture(struct fixture *fixture)
{
    if (fixture->client != NULL) {
        fixture->client->kind->close(fixture->client, fixture->now_ms, "the test is over");
        ENSURE(fixture->gone == !fixture->refused);
    }
    if (fixture->core != NULL) {
        core_check(fixture->core);
        ENSURE(core_stats(fixture->core).sessions_connected == 0);
        ENSURE(stomp_clients_connected(fixture->clients) == 0);
    }
    core_destroy(fixture->core);
    stomp_clients_destroy(fixture->clients);
    mqtt_clients_destroy(fixture->mqtt);
    if (fixture->settings != NULL) {
        shared_release(&fixture->settings->shared);
    }
    free(fixture->scratch);
}

/* Takes output until there is none. */
static void turn(struct fixture *fixture)
{
    for (unsigned turns = 0; fixture->woken; turns++) {
        ENSURE(turns < TURNS_MAX);
        fixture->woken = false;
        struct output output;
        output_open(&output, fixture->scratch, OUTPUT_SCRATCH_BYTES);
        fixture->client->kind->send(fixture->client, fixture->now_ms, &output);
        for (unsigned i = 0; i < output.part_count; i++) {
            ENSURE(fixture->heard_len + output.parts[i].len < HEARD_MAX);
            memcpy(fixture->heard + fixture->heard_len, output.parts[i].data, output.parts[i].len);
            fixture->heard_len += output.parts[i].len;
        }
        output_release(&output);
    }
}

static void receive(struct fixture *fixture, struct bytes bytes)
{
    uint8_t *copy = malloc(bytes.len + 1); /* a read past the end is seen */
    memcpy(copy + 1, bytes.data, bytes.len);
    fixture->client->kind->receive(fixture->client, fixture->now_ms, bytes_of(copy + 1, bytes.len));
    free(copy);
    turn(fixture);
}

#define FRAMES(text) bytes_of(text, sizeof(text) - 1)

static const char conversation[] =
    "\n\r\nCONNECT\naccept-version:1.1,1.2\nheart-beat:0,0\nlogin:me\n\n\0"
    "SUBSCRIBE\nid:t\ndestination:/topic/a.*\n\n\0"
    "SUBSCRIBE\nid:u\ndestination:/topic/a.b\nack:client\nreceipt:su\n\n\0\n"
    "SEND\ndestination:/topic/a.b\nx\\cy:1\\n2\ncontent-type:text/plain\nretain:true\n\none\0"
    "SEND\ndestination:/queue/q\nexpires:2000000\ncontent-length:3\n\nt\0o\0"
    "SEND\ndestination:/queue/q\nreply-to:/temp-queue/r\ncorrelation-id:7\n\nthree\0"
    "SUBSCRIBE\nid:q\ndestination:/queue/q\nack:client-individual\nprefetch-count:1\n\n\0"
    "NACK\nid:4-1-2\n\n\0"
    "ACK\nid:4-2-2\n\n\0"
    "BEGIN\ntransaction:x\n\n\0"
    "ACK\ntransaction:x\nid:2-1-1\n\n\0"
    "SEND\ntransaction:x\ndestination:/topic/a.c\n\nfour\0"
    "BEGIN\ntransaction:y\n\n\0SEND\ntransaction:y\ndestination:/topic/a.c\n\nnever\0"
    "ABORT\ntransaction:y\n\n\0"
    "COMMIT\ntransaction:x\nreceipt:cx\n\n\0"
    "SUBSCRIBE\nid:d\ndurable:true\nauto-delete:false\ndestination:/topic/d\n\n\0"
    "SEND\ndestination:/topic/d\n\nfive\0"
    "UNSUBSCRIBE\nid:t\n\n\0"
    "SEND\ndestination:/topic/a.d\n\nnobody\0"
    "DISCONNECT\nreceipt:bye\n\n";

/* What is heard of it, one frame after the other; `in` cut into pieces of `step` bytes. */
static void converse(struct fixture *fixture, size_t step)
{
    for (size_t at = 0; at < sizeof conversation; at += step) {
        size_t len = sizeof conversation - at < step ? sizeof conversation - at : step;
        receive(fixture, bytes_of(conversation + at, len));
    }
}

static void ensure_heard(const struct fixture *fixture, const char *text)
{
    if (memmem(fixture->heard, fixture->heard_len, text, strlen(text)) == NULL) {
        fail_msg("not heard: %s", text);
    }
}

static struct fixture fixture;

/* Those that hang on nothing having been sent later than the frame before it. */
static void ensure_all_heard(void)
{
    ensure_heard(&fixture, "MESSAGE\nsubscription:t\ndestination:/topic/a.b\nmessage-id:1-0-1\n"
                           "content-type:text/plain\nx\\cy:1\\n2\ncontent-length:3\n\none");
    ensure_heard(&fixture, "message-id:2-1-1\nack:2-1-1\n");
    ensure_heard(&fixture, "message-id:4-1-2\nack:4-1-2\nexpiration:");
    ensure_heard(&fixture, "message-id:4-2-2\nack:4-2-2\nredelivered:true\n");
    ensure_heard(&fixture, "correlation-id:7\n");
    ensure_heard(&fixture, "content-length:4\n\nfour");
    ensure_heard(&fixture, "content-length:4\n\nfive");
}

static void every_cut(void **state)
{
    (void)state;
    for (size_t step = 1; step <= sizeof conversation; step += step < 40 ? 1 : 97) {
        assert_true(open_fixture(&fixture));
        converse(&fixture, step);
        assert_true(fixture.closed);
        assert_string_equal(fixture.why, "the client sent DISCONNECT");
        ensure_heard(&fixture, "CONNECTED\nversion:1.2\n");
        ensure_heard(&fixture, "RECEIPT\nreceipt-id:su\n\n");
        ensure_heard(&fixture, "RECEIPT\nreceipt-id:cx\n\n");
        ensure_heard(&fixture, "RECEIPT\nreceipt-id:bye\n\n");
        if (step <= 20) { /* shorter than any frame whose answer the next one needs */
            ensure_all_heard();
        }
        assert_null(memmem(fixture.heard, fixture.heard_len, "never", 5));
        assert_null(memmem(fixture.heard, fixture.heard_len, "nobody", 6));
        close_fixture(&fixture);
    }
}

/* Nothing crashes or leaks, whichever allocation fails, and the invariants hold. */
static void every_allocation(void **state)
{
    (void)state;
    uint64_t failures = 0;
    for (uint64_t n = 1; n < ALLOCATIONS_MAX; n++) {
        uint64_t before = mem_alloc_count();
        mem_fail_at(n);
        if (open_fixture(&fixture)) {
            converse(&fixture, 100);
        }
        mem_fail_at(0);
        bool failed = mem_alloc_count() - before >= n;
        failures += failed;
        close_fixture(&fixture);
        if (!failed) {
            break;
        }
    }
    assert_true(failures > 50);
}

static void advance(uint64_t to_ms)
{
    while (fixture.now_ms < to_ms) {
        uint64_t next_ms = stomp_clients_next_deadline_ms(fixture.clients);
        fixture.now_ms = next_ms < to_ms ? next_ms : to_ms;
        stomp_clients_advance(fixture.clients, fixture.now_ms);
        turn(&fixture);
    }
}

static void heart_beats(void **state)
{
    (void)state;
    assert_true(open_fixture(&fixture));
    receive(&fixture, FRAMES("CONNECT\naccept-version:1.2\nheart-beat:2000,4000\n\n\0"));
    ensure_heard(&fixture, "heart-beat:4000,2000\n");
    uint64_t start_ms = fixture.now_ms;
    fixture.heard_len = 0;
    fixture.messages = 0;
    for (uint64_t i = 1; i <= 20; i++) { /* the client keeps to what it promised */
        advance(start_ms + i * 1900);
        fixture.last_inbound_ms = fixture.now_ms;
        receive(&fixture, FRAMES("\n"));
    }
    assert_false(fixture.closed);
    assert_in_range(fixture.heard_len, 38000 / 4000, 38000 / 3000);
    assert_int_equal(fixture.messages, fixture.heard_len);
    assert_int_equal(strspn(fixture.heard, "\n") >= fixture.heard_len, 1);
    advance(fixture.now_ms + 3900);
    assert_false(fixture.closed);
    advance(fixture.now_ms + 200);
    assert_true(fixture.closed);
    ensure_heard(&fixture, "ERROR\nmessage:nothing came for twice the heart-beat\n");
    close_fixture(&fixture);
}

static void no_connect_in_time(void **state)
{
    (void)state;
    assert_true(open_fixture(&fixture));
    receive(&fixture, FRAMES("CONNECT\n"));
    advance(fixture.now_ms + 900);
    assert_false(fixture.closed);
    advance(fixture.now_ms + 200);
    assert_true(fixture.closed);
    assert_string_equal(fixture.why, "no CONNECT in time");
    close_fixture(&fixture);
}

/* Who asks for receipts and takes none is not read from. */
static void unread_answers(void **state)
{
    (void)state;
    static const char ask[] = "BEGIN\ntransaction:t\nreceipt:12345678901234567890\n\n\0"
                              "ABORT\ntransaction:t\nreceipt:12345678901234567890\n\n";
    assert_true(open_fixture(&fixture));
    receive(&fixture, FRAMES("CONNECT\naccept-version:1.2\n\n\0"));
    fixture.heard_len = 0;
    size_t asked = 0;
    for (; !fixture.paused && asked < 4000; asked++) {
        fixture.client->kind->receive(fixture.client, fixture.now_ms, bytes_of(ask, sizeof ask));
    }
    assert_true(fixture.paused && asked < 1500);
    turn(&fixture);
    assert_false(fixture.paused);
    assert_int_equal(fixture.heard_len,
                     2 * asked * sizeof "RECEIPT\nreceipt-id:12345678901234567890\n\n");
    close_fixture(&fixture);
}

static void transactions_are_limited(void **state)
{
    (void)state;
    assert_true(open_fixture(&fixture));
    receive(&fixture, FRAMES("CONNECT\naccept-version:1.2\n\n\0"));
    for (int i = 0; i <= STOMP_TRANSACTIONS_MAX && !fixture.closed; i++) {
        char text[64];
        int len = snprintf(text, sizeof text, "BEGIN\ntransaction:%d\n\n", i);
        receive(&fixture, bytes_of(text, (size_t)len + 1));
        assert_int_equal(fixture.closed, i == STOMP_TRANSACTIONS_MAX);
    }
    ensure_heard(&fixture, "too many transactions");
    close_fixture(&fixture);

    assert_true(open_fixture(&fixture));
    receive(&fixture, FRAMES("CONNECT\naccept-version:1.2\n\n\0BEGIN\ntransaction:t\n\n\0"));
    unsigned count = 0;
    while (!fixture.closed) {
        receive(&fixture, FRAMES("ACK\nid:1-1-1\ntransaction:t\n\n\0"));
        count++;
    }
    assert_int_equal(count, STOMP_ACTIONS_MAX + 1);
    ensure_heard(&fixture, "the transaction is too large");
    close_fixture(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut),      cmocka_unit_test(every_allocation),
        cmocka_unit_test(heart_beats),    cmocka_unit_test(no_connect_in_time),
        cmocka_unit_test(unread_answers), cmocka_unit_test(transactions_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
