/* Loops that share their clients. All run on the test's thread, one turn after the other. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include "connection.h"
#include "listener.h"
#include "loop.h"
#include "mem.h"

enum { LOOPS = 3, CLIENTS = 30, TURNS_MAX = 100000 };

/* One loop of the crew: the `user` of its connections. */
struct place {
    uv_loop_t uv;
    struct transport_loop *loop;
    struct listener *listener; /* on the first loop the one with the socket */
    struct connection *last;
    unsigned opens, closes, refusals, inbound;
    size_t sockets_max;
};

struct crew {
    struct place places[LOOPS];
    struct transport_loop *loops[LOOPS];
};

static bool on_accept(void *ctx, struct listener *listener)
{
    const struct place *place = ctx;
    return listener_sockets(listener) <= place->sockets_max;
}

static void *on_open(void *ctx, struct connection *connection, const struct connection_info *info)
{
    struct place *place = ctx;
    assert_ptr_equal(info->listener, place->listener);
    place->opens++;
    place->last = connection;
    return place;
}

static void on_inbound(void *user, uint64_t now_ms)
{
    struct place *place = user;
    assert_int_equal(now_ms, transport_loop_now_ms(place->loop));
    place->inbound++;
}

static void on_bytes(void *user, struct bytes bytes)
{
    (void)user;
    (void)bytes;
}

static void on_output(void *user, struct output *output)
{
    (void)user;
    output_put(output, bytes_of_string("!"));
}

static void on_close(void *user, const struct connection_end *end)
{
    struct place *place = user;
    assert_non_null(end->text);
    place->closes++;
}

static void on_refused(void *ctx, const char *address, const char *reason)
{
    struct place *place = ctx;
    assert_non_null(address);
    assert_non_null(reason);
    place->refusals++;
}

static struct listener_options options_for(struct place *place)
{
    struct listener_options options = listener_options_default();
    options.host = "127.0.0.1";
    options.ctx = place;
    options.handler.accept = on_accept;
    options.handler.open = on_open;
    options.handler.on_inbound = on_inbound;
    options.handler.on_bytes = on_bytes;
    options.handler.on_output = on_output;
    options.handler.on_close = on_close;
    options.handler.on_refused = on_refused;
    return options;
}

static int setup(void **state)
{
    static struct crew crew;
    crew = (struct crew){.loops = {NULL}};
    for (int i = 0; i < LOOPS; i++) {
        struct place *place = &crew.places[i];
        place->sockets_max = CLIENTS;
        assert_int_equal(uv_loop_init(&place->uv), 0);
        struct transport_loop_options options = {.uv = &place->uv};
        assert_int_equal(transport_loop_create(&options, &place->loop), STATUS_OK);
        crew.loops[i] = place->loop;
    }
    assert_int_equal(transport_loops_join(crew.loops, LOOPS), STATUS_OK);
    for (int i = 0; i < LOOPS; i++) {
        struct place *place = &crew.places[i];
        struct listener_options options = options_for(place);
        char error[256];
        enum status status =
            i == 0
                ? listener_create(place->loop, &options, &place->listener, error, sizeof error)
                : listener_follow(place->loop, &options, crew.places[0].listener, &place->listener);
        assert_int_equal(status, STATUS_OK);
    }
    *state = &crew;
    return 0;
}

static int teardown(void **state)
{
    struct crew *crew = *state;
    for (int i = 0; i < LOOPS; i++) {
        struct place *place = &crew->places[i];
        transport_loop_destroy(place->loop);
        assert_int_equal(place->opens, place->closes);
        assert_int_equal(uv_loop_close(&place->uv), 0);
    }
    return 0;
}

static void turn(struct crew *crew)
{
    for (int i = 0; i < LOOPS; i++) {
        (void)uv_run(&crew->places[i].uv, UV_RUN_NOWAIT);
    }
}

static struct transport_statistics sum(const struct crew *crew)
{
    struct transport_statistics total = {0};
    for (int i = 0; i < LOOPS; i++) {
        transport_loop_add_statistics(crew->places[i].loop, &total);
    }
    return total;
}

static unsigned opens(const struct crew *crew)
{
    return crew->places[0].opens + crew->places[1].opens + crew->places[2].opens;
}

static uint64_t sockets(const struct crew *crew, int i)
{
    return transport_loop_statistics(crew->places[i].loop)->sockets_current;
}

#define RUN_UNTIL(crew, condition)                                                                 \
    for (int turns_ = 0; !(condition); turns_++) {                                                 \
        assert_true(turns_ < TURNS_MAX);                                                           \
        turn(crew);                                                                                \
    }

static int client_connect(const struct crew *crew)
{
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    (void)uv_ip4_addr("127.0.0.1", listener_port(crew->places[2].listener), &address);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, "\x10", 1, MSG_NOSIGNAL), 1);
    return fd;
}

/* The next client, opened. */
static int client_open(struct crew *crew)
{
    unsigned before = opens(crew);
    int fd = client_connect(crew);
    RUN_UNTIL(crew, opens(crew) == before + 1);
    return fd;
}

static void test_spread_evenly(void **state)
{
    struct crew *crew = *state;
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = client_open(crew);
        assert_int_equal(sum(crew).sockets_current, i + 1);
        for (int j = 0; j < LOOPS; j++) {
            assert_in_range(sockets(crew, j), i / LOOPS, i / LOOPS + 1);
        }
    }
    assert_int_equal(listener_sockets(crew->places[1].listener), CLIENTS);
    assert_int_equal(sum(crew).sockets_accepted, CLIENTS);
    assert_int_equal(sum(crew).connections_opened, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        (void)close(fds[i]);
    }
    RUN_UNTIL(crew, sum(crew).sockets_current == 0);
    assert_int_equal(listener_sockets(crew->places[0].listener), 0);
}

/* All at once, so that the listener accepts many in one turn, before any of the others runs. */
static void test_burst_is_spread(void **state)
{
    struct crew *crew = *state;
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = client_connect(crew);
    }
    RUN_UNTIL(crew, opens(crew) == CLIENTS);
    for (int j = 0; j < LOOPS; j++) {
        assert_int_equal(crew->places[j].opens, CLIENTS / LOOPS);
    }
    for (int i = 0; i < CLIENTS; i++) {
        (void)close(fds[i]);
    }
}

static void test_gaps_are_filled(void **state)
{
    struct crew *crew = *state;
    int fds[9];
    int of_second = 0;
    for (int i = 0; i < 9; i++) {
        unsigned before = crew->places[1].opens;
        fds[i] = client_open(crew);
        if (crew->places[1].opens != before) { /* the second loop's clients leave */
            fds[of_second++] = fds[i];
        }
    }
    assert_int_equal(of_second, 3);
    for (int i = 0; i < of_second; i++) {
        (void)close(fds[i]);
    }
    RUN_UNTIL(crew, sockets(crew, 1) == 0);
    int more[3];
    for (int i = 0; i < 3; i++) {
        more[i] = client_open(crew);
    }
    assert_int_equal(sockets(crew, 1), 3);
    for (int i = 0; i < 3; i++) {
        (void)close(more[i]);
    }
    for (int i = 3; i < 9; i++) {
        (void)close(fds[i]);
    }
}

/* The places of a listener are counted over all loops: exactly as many are let in. */
static void test_full_counts_all_loops(void **state)
{
    struct crew *crew = *state;
    crew->places[0].sockets_max = 10; /* the loop that accepts decides */
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = client_connect(crew);
    }
    RUN_UNTIL(crew,
              crew->places[0].refusals + crew->places[1].refusals + crew->places[2].refusals ==
                  CLIENTS - 10);
    assert_int_equal(opens(crew), 10);
    assert_int_equal(listener_sockets(crew->places[2].listener), 10);
    for (int i = 0; i < CLIENTS; i++) {
        (void)close(fds[i]);
    }
    RUN_UNTIL(crew, sum(crew).sockets_current == 0);
    int fd = client_open(crew); /* the places are free again */
    (void)close(fd);
}

static void test_sockets_max_counts_all_loops(void **state)
{
    struct crew *crew = *state;
    struct listener_options options = options_for(&crew->places[0]);
    options.sockets_max = 6;
    assert_int_equal(listener_configure(crew->places[0].listener, &options), STATUS_OK);
    int fds[8];
    for (int i = 0; i < 8; i++) {
        fds[i] = client_connect(crew);
    }
    RUN_UNTIL(crew, crew->places[0].refusals == 2);
    RUN_UNTIL(crew, opens(crew) == 6);
    for (int i = 0; i < 8; i++) {
        (void)close(fds[i]);
    }
}

/* A loop that has stopped serving a listener closes what still comes for it. */
static void test_no_follower(void **state)
{
    struct crew *crew = *state;
    int fds[4];
    for (int i = 0; i < 3; i++) {
        fds[i] = client_open(crew);
    }
    listener_close(crew->places[1].listener);
    fds[3] = client_open(crew); /* stays on the first loop, so that the second has the fewest */
    int lost = client_connect(crew);
    char byte;
    RUN_UNTIL(crew, recv(lost, &byte, 1, MSG_DONTWAIT) == 0);
    assert_int_equal(opens(crew), 4);
    assert_int_equal(listener_sockets(crew->places[0].listener), 4);
    (void)close(lost);
    for (int i = 0; i < 4; i++) {
        (void)close(fds[i]);
    }
}

/* Without memory for the hand-over a client stays where it was accepted. */
static void test_no_memory_to_hand_over(void **state)
{
    struct crew *crew = *state;
    int first = client_open(crew);
    int second = client_connect(crew);
    mem_fail_at(2); /* the first is the connection */
    RUN_UNTIL(crew, opens(crew) == 2);
    mem_fail_at(0);
    assert_int_equal(sockets(crew, 0), 2);
    (void)close(first);
    (void)close(second);
}

/* What is on its way when the loops end is closed, and nothing leaks. */
static void test_end_with_arrivals(void **state)
{
    struct crew *crew = *state;
    int first = client_open(crew);
    int second = client_connect(crew);
    for (int turns = 0; listener_sockets(crew->places[0].listener) < 2; turns++) {
        assert_true(turns < TURNS_MAX);
        (void)uv_run(&crew->places[0].uv, UV_RUN_NOWAIT); /* the others do not run any more */
    }
    (void)close(first);
    (void)close(second);
}

static void test_flush_now_and_inbound(void **state)
{
    struct crew *crew = *state;
    int fd = client_open(crew);
    char byte = 0;
    connection_flush_now(crew->places[0].last);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 1);
    assert_int_equal(byte, '!');
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
    unsigned before = crew->places[0].inbound;
    RUN_UNTIL(crew, crew->places[0].inbound == before + 1);
    (void)close(fd);
}

static void test_abort_all(void **state)
{
    struct crew *crew = *state;
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = client_open(crew);
    }
    transport_loop_abort_all(crew->places[1].loop, "enough");
    assert_int_equal(crew->places[1].closes, 1);
    assert_int_equal(crew->places[0].closes + crew->places[2].closes, 0);
    for (int i = 0; i < 3; i++) {
        (void)close(fds[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_spread_evenly, setup, teardown),
        cmocka_unit_test_setup_teardown(test_burst_is_spread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gaps_are_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_counts_all_loops, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sockets_max_counts_all_loops, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_follower, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_to_hand_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_with_arrivals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_now_and_inbound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort_all, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
