/*
 * Connections over real sockets, with client and server in one thread: the rules that connection.h
 * promises its users, and what happens when memory runs out.
 */
#include "transport_fixture.h"

static void delivers_and_sends(void **state)
{
    struct fixture *f = *state;
    char got[8] = "";
    int fd = client_open(f);
    assert_string_equal(f->received, "\x10hello");
    f->to_send = bytes_of_string("world");
    connection_wake(f->connection);
    connection_wake(f->connection);
    assert_int_equal(client_receive(f, fd, got, 5), 5);
    assert_string_equal(got, "world");
    assert_int_equal(f->outputs, 1);
    assert_true(f->turn_ends > 0);
    close(fd);
    RUN_UNTIL(f, f->closes == 1);
    assert_int_equal(f->end_cause, CONNECTION_CLOSED_BY_PEER);
    assert_string_equal(f->end_text, "peer closed the connection");
}

static void wake_it(struct fixture *f)
{
    if (f->outputs < 5) {
        connection_wake(f->connection);
    }
}

static void woken_from_on_output_is_asked_next_turn(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f);
    f->in_output = wake_it;
    connection_wake(f->connection);
    turn(f);
    assert_in_range(f->outputs, 1,
                    3); /* once before the poll and once behind it, not all at once */
    RUN_UNTIL(f, f->outputs == 5);
    close(fd);
}

static void close_it(struct fixture *f)
{
    f->to_send = bytes_of_string("last words");
    connection_close(f->connection, 1000, "enough");
    connection_close(f->connection, 1000, "more than enough");
}

static void close_sends_what_is_left(void **state)
{
    struct fixture *f = *state;
    char got[16] = "";
    f->in_bytes = close_it;
    int fd = client_open(f);
    assert_int_equal(client_receive(f, fd, got, 10), 10);
    assert_string_equal(got, "last words");
    assert_true(client_sees_end(f, fd));
    assert_int_equal(f->closes, 1);
    assert_int_equal(f->end_cause, CONNECTION_CLOSED_LOCALLY);
    assert_string_equal(f->end_text, "enough");
    client_send(fd, "still talking"); /* thrown away */
    close(fd);
    RUN_UNTIL(f, transport_loop_statistics(f->loop)->sockets_current == 0);
    assert_string_equal(f->received, "\x10hello");
}

static void abort_it(struct fixture *f)
{
    connection_abort(f->connection, "away with it");
    assert_int_equal(f->closes, 0); /* never from inside a function of the user's */
}

static void abort_in_on_bytes(void **state)
{
    struct fixture *f = *state;
    f->in_bytes = abort_it;
    int fd = client_open(f);
    assert_true(client_sees_end(f, fd));
    assert_int_equal(f->closes, 1);
    assert_string_equal(f->end_text, "away with it");
    assert_int_equal(f->outputs, 0);
    close(fd);
}

static void abort_in_on_output(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f);
    f->in_output = abort_it;
    connection_wake(f->connection);
    assert_true(client_sees_end(f, fd));
    assert_string_equal(f->end_text, "away with it");
    close(fd);
}

static void abort_in_open(void **state)
{
    struct fixture *f = *state;
    f->in_open = abort_it;
    int fd = client_open(f);
    assert_true(client_sees_end(f, fd));
    assert_int_equal(f->closes, 1);
    assert_int_equal(f->bytes, 0);
    close(fd);
}

static void close_in_open(void **state)
{
    struct fixture *f = *state;
    char got[16] = "";
    f->in_open = close_it;
    int fd = client_open(f);
    assert_int_equal(client_receive(f, fd, got, 10), 10);
    assert_true(client_sees_end(f, fd));
    assert_int_equal(f->closes, 1);
    assert_int_equal(f->bytes, 0);
    close(fd);
}

static void open_may_refuse(void **state)
{
    struct fixture *f = *state;
    f->refuse_open = true;
    int fd = client_open(f);
    assert_true(client_sees_end(f, fd));
    assert_int_equal(f->closes + f->refusals, 0);
    close(fd);
}

static void pause_stops_reading(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f);
    connection_pause_reading(f->connection);
    client_send(fd, "later");
    for (int i = 0; i < 20; i++) {
        turn(f);
    }
    assert_string_equal(f->received, "\x10hello");
    connection_resume_reading(f->connection);
    RUN_UNTIL(f, f->bytes == 11);
    assert_string_equal(f->received, "\x10hellolater");
    close(fd);
}

static void destroy_block(struct shared *shared)
{
    mem_free(shared);
}

/* Large parts go out by reference, wait for a slow reader, and let go of their owner in the end,
 * sent or not. */
static void large_output_waits_for_the_reader(void **state)
{
    struct fixture *f = *state;
    static char sink[1 << 16];
    int fd = client_open(f);
    f->to_reference = mem_zalloc(sizeof(struct shared) + BIG_BYTES);
    assert_non_null(f->to_reference);
    *f->to_reference = (struct shared){1, destroy_block};
    f->references_left = 2;
    connection_wake(f->connection);
    RUN_UNTIL(f, connection_unsent_bytes(f->connection) != 0);
    client_send(fd, "unread"); /* a peer that does not read is not read from */
    connection_wake(f->connection);
    for (int i = 0; i < 20; i++) {
        turn(f);
    }
    assert_int_equal(f->bytes, 6);
    assert_int_equal(f->outputs, 1);
    /* Nothing is read from it now, so that it takes bytes is its sign of life. */
    uint64_t seen_ms = connection_last_inbound_ms(f->connection);
    RUN_UNTIL(f, transport_loop_now_ms(f->loop) > seen_ms + 2);
    assert_int_equal(connection_last_inbound_ms(f->connection), seen_ms);
    size_t got = client_receive(f, fd, sink, sizeof sink);
    RUN_UNTIL(f, connection_last_inbound_ms(f->connection) > seen_ms ||
                     (got += client_receive(f, fd, sink, sizeof sink)) == (size_t)2 * BIG_BYTES);
    assert_true(connection_last_inbound_ms(f->connection) > seen_ms);
    while (got < (size_t)2 * BIG_BYTES) {
        size_t n = client_receive(f, fd, sink, sizeof sink);
        assert_int_not_equal(n, 0);
        got += n;
    }
    RUN_UNTIL(f, f->outputs == 3); /* a flush that was full is followed by another */
    assert_int_equal(f->references_left, 0);
    assert_int_equal(f->bytes, 12);
    close(fd);
    RUN_UNTIL(f, f->closes == 1);
    RUN_UNTIL(f, f->to_reference->references == 1);
    shared_release(f->to_reference);
}

/* Whoever goes on sending after the end is cut off long before the deadline. */
static void lingering_is_not_for_ever(void **state)
{
    struct fixture *f = *state;
    static const char chunk[1 << 16];
    int fd = client_open(f);
    connection_close(f->connection, WEBSOCKET_NORMAL, "go");
    RUN_UNTIL(f, f->closes == 1);
    uint64_t end_ms = uv_now(&f->uv) + LISTENER_CLOSE_MS;
    for (;;) {
        if (send(fd, chunk, sizeof chunk, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN) {
            break;
        }
        turn(f);
        assert_true(uv_now(&f->uv) < end_ms);
    }
    close(fd);
    RUN_UNTIL(f, transport_loop_statistics(f->loop)->sockets_current == 0);
}

/* What the kernel takes at once and what it takes later: all of it, and nothing twice. */
static void counts_what_was_sent(void **state)
{
    struct fixture *f = *state;
    static char sink[1 << 16];
    const struct transport_statistics *statistics = transport_loop_statistics(f->loop);
    int fd = client_open(f);
    f->to_send = bytes_of_string("at once");
    connection_wake(f->connection);
    assert_int_equal(client_receive(f, fd, sink, 7), 7);
    assert_int_equal(statistics->bytes_sent, 7);
    f->to_reference = mem_zalloc(sizeof(struct shared) + BIG_BYTES);
    assert_non_null(f->to_reference);
    *f->to_reference = (struct shared){1, destroy_block};
    f->references_left = 1;
    connection_wake(f->connection);
    RUN_UNTIL(f, connection_unsent_bytes(f->connection) != 0);
    assert_true(statistics->bytes_sent < BIG_BYTES);
    size_t got = 7;
    for (size_t n = 1; got < BIG_BYTES + 7 && n != 0; got += n) {
        n = client_receive(f, fd, sink, sizeof sink);
    }
    RUN_UNTIL(f, connection_unsent_bytes(f->connection) == 0);
    assert_int_equal(got, BIG_BYTES + 7);
    assert_int_equal(statistics->bytes_sent, got);
    close(fd);
    RUN_UNTIL(f, f->closes == 1 && f->to_reference->references == 1);
    shared_release(f->to_reference);
}

static void destroy_ends_everything(void **state)
{
    struct fixture *f = *state;
    int open = client_open(f);
    int silent = client_connect(f);
    RUN_UNTIL(f, transport_loop_statistics(f->loop)->sockets_current == 2);
    transport_loop_destroy(f->loop);
    assert_int_equal(f->closes, 1);
    assert_int_equal(f->refusals, 1);
    assert_string_equal(f->end_text, "the server stops");
    struct transport_loop_options options = {.uv = &f->uv};
    assert_int_equal(transport_loop_create(&options, &f->loop), STATUS_OK); /* for teardown */
    close(open);
    close(silent);
}

static void close_all(void **state)
{
    struct fixture *f = *state;
    int open = client_open(f);
    int silent = client_connect(f);
    RUN_UNTIL(f, transport_loop_statistics(f->loop)->sockets_current == 2);
    transport_loop_close_all(f->loop, 1001, "good night");
    assert_true(client_sees_end(f, open));
    assert_true(client_sees_end(f, silent));
    assert_string_equal(f->end_text, "good night");
    assert_string_equal(f->refusal, "good night");
    close(open);
    close(silent);
}

/* The kernel must first have seen that the server reads fast before it holds this much for it, so
 * the client sends for a while. */
static void one_reader_does_not_starve_the_others(void **state)
{
    struct fixture *f = *state;
    static char big[1 << 20];
    int fd = client_open(f);
    uint64_t sent = f->bytes;
    uint64_t most = 0;
    while (sent < (uint64_t)64 << 20) {
        for (ssize_t n = 0; n >= 0;) {
            n = send(fd, big, sizeof big, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += n > 0 ? (uint64_t)n : 0;
        }
        uint64_t before = f->bytes;
        turn(f);
        uint64_t share = f->bytes - before;
        most = share > most ? share : most;
    }
    RUN_UNTIL(f, f->bytes == sent);
    assert_int_equal(most, CONNECTION_READ_BYTES);
    close(fd);
}

enum { CROWD = 16 };

struct crowd {
    uint64_t bytes[CROWD]; /* each is the user of a connection */
    size_t count;
};

static void *open_one_of_crowd(void *ctx, struct connection *connection,
                               const struct connection_info *info)
{
    struct crowd *crowd = ctx;
    (void)connection;
    (void)info;
    return &crowd->bytes[crowd->count++];
}

static void count_bytes(void *user, struct bytes bytes)
{
    *(uint64_t *)user += bytes.len;
}

static void ignore_close(void *user, const struct connection_end *end)
{
    (void)user;
    (void)end;
}

static void put_nothing(void *user, struct output *output)
{
    (void)user;
    (void)output;
}

static uint64_t sum_of(const struct crowd *crowd)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < CROWD; i++) {
        sum += crowd->bytes[i];
    }
    return sum;
}

static void connect_crowd(struct fixture *f, struct crowd *crowd, int *fds)
{
    char error[256] = "";
    struct listener_options options = listener_options_default();
    options.host = "127.0.0.1";
    options.ctx = crowd;
    options.handler.open = open_one_of_crowd;
    options.handler.on_bytes = count_bytes;
    options.handler.on_output = put_nothing;
    options.handler.on_close = ignore_close;
    listener_close(f->listener);
    assert_int_equal(listener_create(f->loop, &options, &f->listener, error, sizeof error),
                     STATUS_OK);
    for (size_t i = 0; i < CROWD; i++) {
        fds[i] = client_connect(f);
        client_send(fds[i], "\x10hello");
    }
    RUN_UNTIL(f, crowd->count == CROWD);
}

/* All of them always have more than a turn takes. */
static void a_turn_is_short_and_nobody_is_left_out(void **state)
{
    struct fixture *f = *state;
    static char big[1 << 16];
    static struct crowd crowd; /* its connections end behind the test */
    crowd = (struct crowd){.count = 0};
    int fds[CROWD];
    connect_crowd(f, &crowd, fds);
    for (int turns = 0; turns < 400; turns++) {
        for (size_t i = 0; i < CROWD; i++) {
            while (send(fds[i], big, sizeof big, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
            }
        }
        uint64_t before = sum_of(&crowd);
        turn(f);
        assert_true(sum_of(&crowd) - before < LOOP_READ_BYTES + CONNECTION_READ_BYTES);
    }
    uint64_t fair = sum_of(&crowd) / CROWD;
    assert_true(fair > (uint64_t)8 * CONNECTION_READ_BYTES);
    for (size_t i = 0; i < CROWD; i++) {
        assert_in_range(crowd.bytes[i], fair / 2, fair * 2);
        close(fds[i]);
    }
}

static void idle_connection_is_small(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f);
    uint64_t allocations = mem_alloc_count();
    for (int i = 0; i < 100; i++) { /* nor does a message cost an allocation */
        char got[4];
        client_send(fd, "ping");
        RUN_UNTIL(f, f->bytes == 6 + 4 * (uint64_t)(i + 1));
        f->to_send = bytes_of_string("pong");
        connection_wake(f->connection);
        assert_int_equal(client_receive(f, fd, got, 4), 4);
    }
    assert_int_equal(mem_alloc_count(), allocations);
    assert_int_equal(transport_loop_statistics(f->loop)->writes, 100);
    close(fd);
}

/* One whole WebSocket conversation, whose every allocation fails in turn: the connection may end,
 * nothing else. */
static void converse(struct fixture *f)
{
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        "\x82\x82zzzz\x1b\x18" /* "ab" */
        "\x89\x80zzzz"         /* ping */
        "\x82\x82zz";          /* an unfinished frame */
    char got[512];
    int fd = client_connect(f);
    unsigned opens = f->opens;
    (void)send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    for (int i = 0; i < 30; i++) {
        turn(f);
        if (f->opens != opens && f->connection != NULL && i == 15) {
            f->to_send = bytes_of_string("output");
            connection_close(f->connection, 1001, "done");
        }
        (void)recv(fd, got, sizeof got, MSG_DONTWAIT);
    }
    close(fd);
    RUN_UNTIL(f, transport_loop_statistics(f->loop)->sockets_current == 0);
    f->connection = NULL;
    f->to_send = BYTES_EMPTY;
}

static void every_allocation_may_fail(void **state)
{
    struct fixture *f = *state;
    uint64_t before = mem_alloc_count();
    converse(f);
    uint64_t count = mem_alloc_count() - before;
    assert_true(count > 4);
    assert_int_equal(f->opens, 1);
    for (uint64_t n = 1; n <= count; n++) {
        mem_fail_at(n);
        converse(f);
        mem_fail_at(0);
        f->opens = f->closes = f->refusals = 0;
        converse(f);
        assert_int_equal(f->opens, 1);
        assert_int_equal(f->closes, 1);
        assert_int_equal(f->refusals, 0);
    }
}

static void listener_says_why_not(void **state)
{
    struct fixture *f = *state;
    char error[256] = "";
    struct listener *second;
    struct listener_options options = listener_options_default();
    options.host = "127.0.0.1";
    options.port = listener_port(f->listener);
    options.handler = (struct connection_handler){
        .open = on_open, .on_bytes = on_bytes, .on_output = on_output, .on_close = on_close};
    assert_int_equal(listener_create(f->loop, &options, &second, error, sizeof error), STATUS_IO);
    assert_null(second);
    assert_non_null(strstr(error, "cannot listen on 127.0.0.1 port "));
    assert_non_null(strstr(error, "address already in use"));
    options.host = "no such host.invalid";
    assert_int_equal(listener_create(f->loop, &options, &second, error, sizeof error),
                     STATUS_NOT_FOUND);
}

static void unix_socket(void **state)
{
    struct fixture *f = *state;
    char error[256] = "";
    char directory[] = "/tmp/transport-test-XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_non_null(mkdtemp(directory));
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory);
    listener_close(f->listener);
    struct listener_options options = listener_options_default();
    options.unix_path = address.sun_path;
    options.ctx = f;
    options.handler = (struct connection_handler){
        .open = on_open, .on_bytes = on_bytes, .on_output = on_output, .on_close = on_close};
    assert_int_equal(listener_create(f->loop, &options, &f->listener, error, sizeof error),
                     STATUS_OK);
    assert_string_equal(listener_address(f->listener), address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    client_send(fd, "\x10unix");
    RUN_UNTIL(f, f->bytes == 5);
    char text[CONNECTION_ADDRESS_BYTES];
    assert_string_equal(connection_peer_address(f->connection, text), "local");
    close(fd);
    RUN_UNTIL(f, f->closes == 1);
    listener_close(f->listener);
    turn(f);
    (void)unlink(address.sun_path);
    assert_int_equal(rmdir(directory), 0);
}

static void ipv6(void **state)
{
    struct fixture *f = *state;
    char error[256] = "";
    struct sockaddr_in6 address;
    struct listener *first = f->listener;
    struct listener_options options = listener_options_default();
    options.host = "::1";
    options.ctx = f;
    options.handler = (struct connection_handler){
        .open = on_open, .on_bytes = on_bytes, .on_output = on_output, .on_close = on_close};
    if (listener_create(f->loop, &options, &f->listener, error, sizeof error) != STATUS_OK) {
        f->listener = first;
        skip(); /* a machine without IPv6 */
    }
    (void)uv_ip6_addr("::1", listener_port(f->listener), &address);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    client_send(fd, "\x10six");
    RUN_UNTIL(f, f->bytes == 4);
    char text[CONNECTION_ADDRESS_BYTES];
    assert_memory_equal(connection_peer_address(f->connection, text), "[::1]:", 6);
    close(fd);
}

static void closed_listener_keeps_its_connections(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f);
    listener_close(f->listener);
    turn(f);
    client_send(fd, "on");
    RUN_UNTIL(f, f->bytes == 8);
    close(fd);
    RUN_UNTIL(f, f->closes == 1);
}

static struct listener_options options_like(struct fixture *f)
{
    struct listener_options options = listener_options_default();
    options.ctx = f;
    return options;
}

/* Sends an upgrade request as from a page of `origin`; gives the first line of the answer. */
static void upgrade_from(struct fixture *f, const char *origin, char answer[13])
{
    char request[512];
    int fd = client_connect(f);
    (void)snprintf(request, sizeof request,
                   "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                   "Origin: %s\r\n\r\n",
                   origin);
    client_send(fd, request);
    memset(answer, 0, 13);
    (void)client_receive(f, fd, answer, 12);
    close(fd);
}

static void configure_counts_for_new_connections(void **state)
{
    struct fixture *f = *state;
    char answer[13];
    const char *origins[] = {"https://a.example"};
    upgrade_from(f, "https://b.example", answer);
    assert_string_equal(answer, "HTTP/1.1 101");
    struct listener_options options = options_like(f);
    options.origins = origins;
    options.origin_count = 1;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    origins[0] = "https://c.example"; /* the listener has its own copy */
    upgrade_from(f, "https://b.example", answer);
    assert_string_equal(answer, "HTTP/1.1 403");
    upgrade_from(f, "https://a.example", answer);
    assert_string_equal(answer, "HTTP/1.1 101");
    mem_fail_at(1);
    assert_int_equal(listener_configure(f->listener, &options), STATUS_NO_MEMORY);
    mem_fail_at(0);
    upgrade_from(f, "https://c.example", answer);
    assert_string_equal(answer, "HTTP/1.1 403");
    options.http_head_bytes_max = 100;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    upgrade_from(f, "https://c.example", answer);
    assert_string_equal(answer, "HTTP/1.1 431");
    options.http_head_bytes_max = LISTENER_HTTP_HEAD_BYTES;
    options.handshake_timeout_ms = 1;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    int fd = client_connect(f);
    assert_true(client_sees_end(f, fd));
    assert_string_equal(f->refusal, "silent after connecting");
    close(fd);
}

/* Waits until nothing but the clock is left to do. */
static void run_for(struct fixture *f, uint64_t ms)
{
    uint64_t end = uv_hrtime() + ms * 1000000;
    while (uv_hrtime() < end) {
        turn(f);
    }
}

static void run_until_pings(struct fixture *f, uint64_t count)
{
    const struct transport_statistics *statistics = transport_loop_statistics(f->loop);
    uint64_t end = uv_hrtime() + UINT64_C(10) * 1000000000;
    while (statistics->pings_sent < count && uv_hrtime() < end) {
        turn(f);
    }
    assert_int_equal(statistics->pings_sent, count);
}

static void ping_interval_may_change_under_a_connection(void **state)
{
    struct fixture *f = *state;
    const struct transport_statistics *statistics = transport_loop_statistics(f->loop);
    struct listener_options options = options_like(f);
    char answer[256];
    options.ping_interval_ms = 100;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    int fd = client_connect(f);
    client_send(fd, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
                    "dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    RUN_UNTIL(f, f->opens == 1);
    options.ping_interval_ms = 20;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    /* Silent for five new intervals by now, but nobody has asked it yet. */
    run_until_pings(f, 1);
    assert_int_equal(f->closes, 0);
    client_send(fd, "\x8a\x80\x01\x02\x03\x04"); /* a pong */
    run_until_pings(f, 2);
    options.ping_interval_ms = 0;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    run_for(f, 100);
    assert_int_equal(statistics->pings_sent, 2);
    assert_int_equal(f->closes, 0);
    assert_true(recv(fd, answer, sizeof answer, MSG_DONTWAIT) > 0);
    close(fd);
    RUN_UNTIL(f, f->closes == 1);
}

static bool accept_two(void *ctx, struct listener *listener)
{
    (void)ctx;
    return listener_sockets(listener) <= 2;
}

/* Also sockets that have not said anything. */
static void sockets_count_from_accept_on(void **state)
{
    struct fixture *f = *state;
    const struct transport_statistics *statistics = transport_loop_statistics(f->loop);
    char error[256];
    struct listener_options options = options_like(f);
    listener_close(f->listener);
    options.host = "127.0.0.1";
    options.handler.accept = accept_two;
    options.handler.open = on_open;
    options.handler.on_bytes = on_bytes;
    options.handler.on_output = on_output;
    options.handler.on_close = on_close;
    options.handler.on_refused = on_refused;
    assert_int_equal(listener_create(f->loop, &options, &f->listener, error, sizeof error),
                     STATUS_OK);
    assert_int_equal(listener_sockets(f->listener), 0);
    int silent[] = {client_connect(f), client_connect(f)};
    RUN_UNTIL(f, listener_sockets(f->listener) == 2);
    int third = client_connect(f);
    client_send(third, "\x10");
    assert_true(client_sees_end(f, third));
    assert_string_equal(f->refusal, "too many connections");
    assert_int_equal(listener_sockets(f->listener), 2);
    close(third);
    close(silent[0]);
    RUN_UNTIL(f, listener_sockets(f->listener) == 1);
    int fourth = client_open(f);
    /* And all of the loop's: beyond that a client is closed at once, without a byte from it. */
    RUN_UNTIL(f, statistics->sockets_current == 2);
    options.sockets_max = 2;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    for (unsigned i = 0; i < 3; i++) {
        int fifth = client_connect(f);
        assert_true(client_sees_end(f, fifth));
        close(fifth);
        assert_int_equal(f->refusals, i + 2);
    }
    assert_string_equal(f->refusal, "no room for more sockets");
    close(fourth);
    close(silent[1]);
    RUN_UNTIL(f, f->closes == 1);
}

static int option_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

/* The listening socket's own options are what accepted ones begin with. */
static void socket_options_follow_the_settings(void **state)
{
    struct fixture *f = *state;
    int fd = -1;
    for (int i = 3; i < 64 && fd < 0; i++) { /* the only listening socket here */
        int listens = 0;
        socklen_t len = sizeof listens;
        if (getsockopt(i, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens != 0) {
            fd = i;
        }
    }
    assert_true(fd >= 0);
    assert_int_not_equal(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 0);
    assert_int_not_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_KEEPIDLE), LISTENER_KEEPALIVE_S);
    struct listener_options options = options_like(f);
    options.nodelay = false;
    options.keepalive_s = 0;
    assert_int_equal(listener_configure(f->listener, &options), STATUS_OK);
    assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 0);
    assert_int_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(delivers_and_sends),
        TEST(woken_from_on_output_is_asked_next_turn),
        TEST(close_sends_what_is_left),
        TEST(abort_in_on_bytes),
        TEST(abort_in_on_output),
        TEST(abort_in_open),
        TEST(close_in_open),
        TEST(open_may_refuse),
        TEST(pause_stops_reading),
        TEST(large_output_waits_for_the_reader),
        TEST(lingering_is_not_for_ever),
        TEST(counts_what_was_sent),
        TEST(destroy_ends_everything),
        TEST(close_all),
        TEST(one_reader_does_not_starve_the_others),
        TEST(a_turn_is_short_and_nobody_is_left_out),
        TEST(idle_connection_is_small),
        TEST(every_allocation_may_fail),
        TEST(listener_says_why_not),
        TEST(unix_socket),
        TEST(ipv6),
        TEST(closed_listener_keeps_its_connections),
        TEST(configure_counts_for_new_connections),
        TEST(ping_interval_may_change_under_a_connection),
        TEST(sockets_count_from_accept_on),
        TEST(socket_options_follow_the_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
