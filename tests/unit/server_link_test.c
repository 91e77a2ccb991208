/*
 * Links: a server with two I/O threads, whose loops all run on the test's thread, one turn after
 * the other, so that either side can be stalled for as long as a test likes.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "link.h"
#include "mem.h"
#include "mqtt_connect.h"

enum { TURNS_MAX = 200000, TURNS_BUSY = 100, CLIENTS_MAX = 300, BIG = 200 * 1024 };

struct fixture {
    struct options options;
    struct log *log;
    struct server *server;
    struct io_thread *io[2];
};

static void report(void *ctx, enum config_severity severity, const char *file, unsigned line,
                   const char *text)
{
    (void)ctx;
    (void)severity;
    (void)file;
    (void)line;
    fail_msg("%s", text);
}

static int setup(void **state)
{
    static struct fixture f;
    f = (struct fixture){.log = NULL};
    struct log_options log_options = LOG_OPTIONS_DEFAULT;
    log_options.types = 0;
    assert_int_equal(log_create(&log_options, &f.log), STATUS_OK);
    struct config_address address = {"127.0.0.1", 0};
    struct config *config;
    assert_int_equal(config_load(NULL, &address, 1, report, NULL, &config), STATUS_OK);
    config->io_threads = 2;
    config->log.connection_messages = false;
    assert_int_equal(server_create(&f.options, config, f.log, &f.server), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        f.io[i] = f.server->threads->threads[i];
        channel_set_ref(f.io[i]->to_io, true); /* as if it ran */
    }
    channel_set_ref(f.io[0]->to_broker, true);
    *state = &f;
    return 0;
}

static void turn_io(struct fixture *f)
{
    for (int i = 0; i < 2; i++) {
        (void)uv_run(&f->io[i]->uv, UV_RUN_NOWAIT);
    }
}

static void turn_broker(struct fixture *f)
{
    (void)uv_run(&f->server->uv, UV_RUN_NOWAIT);
}

static void turn(struct fixture *f)
{
    turn_io(f);
    turn_broker(f);
}

#define RUN_UNTIL(f, condition)                                                                    \
    for (int turns_ = 0; !(condition); turns_++) {                                                 \
        assert_true(turns_ < TURNS_MAX);                                                           \
        turn(f);                                                                                   \
    }

static size_t link_count(const struct fixture *f)
{
    return f->io[0]->link_count + f->io[1]->link_count;
}

/* All clients of the test have been closed by it. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    RUN_UNTIL(f, link_count(f) == 0);
    RUN_UNTIL(f, server_statistics(f->server).sockets_current == 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(f->io[i]->slow_count, 0);
    }
    server_destroy(f->server);
    log_destroy(f->log);
    return 0;
}

static int client_connect(const struct fixture *f)
{
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    (void)uv_ip4_addr("127.0.0.1", listener_port(f->server->listeners[0].listener), &address);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void client_send(int fd, struct bytes bytes)
{
    assert_int_equal(send(fd, bytes.data, bytes.len, MSG_NOSIGNAL), bytes.len);
}

/* Reads exactly `len` bytes. */
static void client_receive(struct fixture *f, int fd, uint8_t *to, size_t len)
{
    size_t have = 0;
    for (int turns = 0; have < len; turns++) {
        assert_true(turns < TURNS_MAX);
        turn(f);
        ssize_t n = recv(fd, to + have, len - have, MSG_DONTWAIT);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        if (n < 0) {
            struct pollfd ready = {.fd = fd, .events = POLLIN};
            (void)poll(&ready, 1, turns < TURNS_BUSY ? 0 : 1);
        }
        have += n > 0 ? (size_t)n : 0;
    }
}

static void send_connect(int fd, const char *client_id)
{
    uint8_t packet[128];
    struct writer writer = writer_of(packet, sizeof packet);
    struct mqtt_connect connect_packet = {.version = MQTT_VERSION_3_1_1,
                                          .clean_start = true,
                                          .client_id = bytes_of_string(client_id)};
    mqtt_connect_encode(&writer, &connect_packet);
    client_send(fd, writer_written(&writer));
}

/* A client that has its CONNACK. */
static int client_open(struct fixture *f, const char *client_id)
{
    int fd = client_connect(f);
    uint8_t answer[4];
    send_connect(fd, client_id);
    client_receive(f, fd, answer, sizeof answer);
    assert_memory_equal(answer, "\x20\x02\x00\x00", 4);
    return fd;
}

/* One that has subscribed to "t". */
static int subscriber_open(struct fixture *f, const char *client_id)
{
    int fd = client_open(f, client_id);
    uint8_t answer[5];
    client_send(fd, bytes_of("\x82\x06\x00\x01\x00\x01t\x00", 8));
    client_receive(f, fd, answer, sizeof answer);
    assert_memory_equal(answer, "\x90\x03\x00\x01\x00", 5);
    return fd;
}

/* QoS 0 to "t", whose payload counts up from `number`. Returns its length. */
static size_t make_publish(uint8_t *packet, size_t payload, uint8_t number)
{
    struct writer writer = writer_of(packet, payload + 16);
    mqtt_header_encode(&writer, MQTT_PUBLISH, 0, (uint32_t)(payload + 3));
    mqtt_string_write(&writer, bytes_of_string("t"));
    for (size_t i = 0; i < payload; i++) {
        writer_u8(&writer, (uint8_t)(number + i));
    }
    assert_true(writer_ok(&writer));
    return writer_len(&writer);
}

/* Sends all, with turns of the I/O threads and, if it is not stalled, the broker. */
static void send_all(struct fixture *f, int fd, const uint8_t *bytes, size_t len, bool stalled)
{
    size_t sent = 0;
    for (int turns = 0; sent < len; turns++) {
        assert_true(turns < TURNS_MAX);
        ssize_t n = send(fd, bytes + sent, len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        turn_io(f);
        if (!stalled) {
            turn_broker(f);
        }
    }
}

static void test_spread_and_deliver(void **state)
{
    struct fixture *f = *state;
    int subscriber = subscriber_open(f, "s");
    int publisher = client_open(f, "p");
    assert_int_equal(f->io[0]->link_count, 1);
    assert_int_equal(f->io[1]->link_count, 1);
    uint8_t packet[64];
    uint8_t got[64];
    for (uint8_t i = 0; i < 100; i++) {
        size_t len = make_publish(packet, i % 40, i);
        client_send(publisher, bytes_of(packet, len));
        client_receive(f, subscriber, got, len);
        assert_memory_equal(got, packet, len);
    }
    (void)close(subscriber);
    (void)close(publisher);
}

/* Payloads that are passed by reference: what the I/O thread has sent comes back and is freed. */
static void test_references_come_back(void **state)
{
    struct fixture *f = *state;
    int subscribers[4] = {subscriber_open(f, "a"), subscriber_open(f, "b"), subscriber_open(f, "c"),
                          subscriber_open(f, "d")};
    int publisher = client_open(f, "p");
    uint8_t *packet = malloc(BIG + 16);
    uint8_t *got = malloc(BIG + 16);
    assert_non_null(packet);
    assert_non_null(got);
    for (uint8_t i = 0; i < 10; i++) {
        size_t len = make_publish(packet, BIG, i);
        send_all(f, publisher, packet, len, false);
        for (int j = 0; j < 4; j++) {
            client_receive(f, subscribers[j], got, len);
            assert_memory_equal(got, packet, len);
        }
    }
    RUN_UNTIL(f, f->io[0]->reference_count != 0 && f->io[1]->reference_count != 0);
    assert_int_equal(core_stats(f->server->core).queued_messages, 0);
    free(packet);
    free(got);
    for (int j = 0; j < 4; j++) {
        (void)close(subscribers[j]);
    }
    (void)close(publisher);
}

/* A client goes on sending while the broker does not move: it is not read from beyond its credit,
 * and everything is there when the broker goes on. */
static void test_stalled_broker_stops_reading(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f, "p");
    const struct io_link *io = f->io[0]->links != NULL ? f->io[0]->links : f->io[1]->links;
    size_t pings = 0;
    uint8_t many[4096];
    for (size_t i = 0; i < sizeof many; i += 2) {
        many[i] = 0xc0;
        many[i + 1] = 0;
    }
    while (!io->is_paused || pings < (size_t)4 * CONNECTION_READ_BYTES) {
        ssize_t n = send(fd, many, sizeof many, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            break;
        }
        pings += (size_t)n / 2; /* the kernel may take half a packet; the rest follows below */
        if (n % 2 != 0) {
            client_send(fd, bytes_of("\x00", 1));
            pings++;
        }
        turn_io(f);
    }
    assert_true(io->is_paused);
    size_t before = io->outstanding_bytes;
    assert_true(before > LINK_CREDIT_BYTES);
    /* One read may bring CONNECTION_READ_BYTES / 2 packets at once. */
    assert_true(before <= LINK_CREDIT_BYTES + CONNECTION_READ_BYTES / 2 * 128);
    for (int i = 0; i < 100; i++) {
        (void)!send(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL);
        turn_io(f);
    }
    assert_int_equal(io->outstanding_bytes, before);
    for (size_t answers = 0; answers < 2 * pings;) {
        uint8_t got[4096];
        size_t left = 2 * pings - answers;
        turn(f);
        ssize_t n = recv(fd, got, left < sizeof got ? left : sizeof got, MSG_DONTWAIT);
        assert_true(n > 0 || errno == EAGAIN);
        answers += n > 0 ? (size_t)n : 0;
    }
    RUN_UNTIL(f, !io->is_paused);
    assert_true(io->outstanding_bytes < LINK_CREDIT_STEP);
    (void)close(fd);
}

/* Many clients, none beyond its own credit: together they stop at the thread's. */
static void test_stalled_broker_stops_all(void **state)
{
    struct fixture *f = *state;
    static int fds[CLIENTS_MAX];
    uint8_t *packet = malloc(BIG + 16);
    assert_non_null(packet);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "p%d", i);
        fds[i] = client_open(f, id);
    }
    uint64_t before = mqtt_clients_stats(f->server->mqtt_clients).publish_received;
    size_t len = make_publish(packet, BIG, 0);
    int sent = 0;
    for (; sent < CLIENTS_MAX && !(f->io[0]->behind && f->io[1]->behind); sent++) {
        send_all(f, fds[sent], packet, len, true);
        for (int i = 0; i < 10; i++) {
            turn_io(f);
        }
    }
    assert_true(sent < CLIENTS_MAX);
    assert_in_range(sent, 2 * LINK_BACKLOG_BYTES / BIG - 4, 2 * LINK_BACKLOG_BYTES / BIG + 8);
    for (const struct io_link *io = f->io[1]->links; io != NULL; io = io->next) {
        assert_true(io->is_paused);
    }
    RUN_UNTIL(f, !f->io[0]->behind && !f->io[1]->behind);
    RUN_UNTIL(f, mqtt_clients_stats(f->server->mqtt_clients).publish_received - before ==
                     (uint64_t)sent);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        (void)close(fds[i]);
    }
    free(packet);
}

/* A peer that reads nothing has LINK_OUTPUTS_MAX outputs under way, the rest waits in the core;
 * when it reads, all of it comes, in order. */
static void test_slow_peer(void **state)
{
    enum { COUNT = 2000, PAYLOAD = 4000 };
    struct fixture *f = *state;
    int subscriber = client_connect(f);
    int small = 16 * 1024;
    (void)setsockopt(subscriber, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    uint8_t answer[5];
    send_connect(subscriber, "s");
    client_receive(f, subscriber, answer, 4);
    client_send(subscriber, bytes_of("\x82\x06\x00\x01\x00\x01t\x00", 8));
    client_receive(f, subscriber, answer, 5);
    int publisher = client_open(f, "p");
    uint8_t packet[PAYLOAD + 16];
    uint8_t got[PAYLOAD + 16];
    for (int i = 0; i < COUNT; i++) {
        size_t len = make_publish(packet, PAYLOAD, (uint8_t)i);
        send_all(f, publisher, packet, len, false);
    }
    RUN_UNTIL(f, mqtt_clients_stats(f->server->mqtt_clients).publish_received == COUNT);
    assert_true(core_stats(f->server->core).queued_messages > COUNT / 4);
    assert_int_equal(f->io[0]->slow_count + f->io[1]->slow_count, 1);
    for (int i = 0; i < COUNT; i++) {
        size_t len = make_publish(packet, PAYLOAD, (uint8_t)i);
        client_receive(f, subscriber, got, len);
        assert_memory_equal(got, packet, len);
    }
    RUN_UNTIL(f, f->io[0]->slow_count + f->io[1]->slow_count == 0);
    (void)close(subscriber);
    (void)close(publisher);
}

/* What a client is told last comes before the end, and the end comes. */
static void test_last_words(void **state)
{
    struct fixture *f = *state;
    int first = client_open(f, "same");
    client_send(first, bytes_of("\xc0\x00", 2)); /* its answer and the end meet */
    int second = client_open(f, "same");
    uint8_t got[2];
    client_receive(f, first, got, 2);
    assert_memory_equal(got, "\xd0\x00", 2);
    for (int turns = 0;; turns++) {
        assert_true(turns < TURNS_MAX);
        turn(f);
        ssize_t n = recv(first, got, 1, MSG_DONTWAIT);
        if (n == 0) {
            break;
        }
        assert_true(n < 0);
    }
    (void)close(first);
    (void)close(second);
}

/* Whoever is opened while the broker stops is sent away, without a client ever having been made. */
static void test_opened_while_draining(void **state)
{
    struct fixture *f = *state;
    int fd = client_connect(f);
    send_connect(fd, "late");
    turn_io(f);
    f->server->draining = true;
    char byte;
    RUN_UNTIL(f, recv(fd, &byte, 1, MSG_DONTWAIT) == 0);
    assert_int_equal(mqtt_clients_stats(f->server->mqtt_clients).connections, 0);
    (void)close(fd);
}

/* Every allocation of a short life fails once: the client may be lost, nothing else is. */
static void test_no_memory(void **state)
{
    struct fixture *f = *state;
    uint8_t packet[64];
    size_t len = make_publish(packet, 20, 1);
    for (uint64_t n = 1; n < 60; n++) {
        int fd = client_connect(f);
        mem_fail_at(n);
        send_connect(fd, "unlucky");
        client_send(fd, bytes_of("\x82\x06\x00\x01\x00\x01t\x00", 8));
        client_send(fd, bytes_of(packet, len));
        for (int i = 0; i < 20; i++) {
            turn(f);
        }
        mem_fail_at(0);
        (void)close(fd);
        RUN_UNTIL(f, link_count(f) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_spread_and_deliver, setup, teardown),
        cmocka_unit_test_setup_teardown(test_references_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stalled_broker_stops_reading, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stalled_broker_stops_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_opened_while_draining, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
