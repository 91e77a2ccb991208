/*
 * transport_fixture: a server on a loop of its own and raw client sockets, for the tests of
 * connections.
 */
#ifndef TESTS_TRANSPORT_FIXTURE_H
#define TESTS_TRANSPORT_FIXTURE_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include "connection.h"
#include "listener.h"
#include "loop.h"
#include "mem.h"

enum { TURNS_MAX = 100000, BIG_BYTES = 8 * 1024 * 1024 };

struct fixture;

/* What the server does in a callback. */
typedef void action_fn(struct fixture *f);

struct fixture {
    uv_loop_t uv;
    struct transport_loop *loop;
    struct listener *listener;
    struct connection *connection;
    action_fn *in_open, *in_bytes, *in_output;
    bool refuse_open;
    unsigned opens, closes, refusals, outputs, turn_ends;
    uint64_t bytes;
    char received[256];
    size_t received_len;
    char end_text[128];
    enum connection_cause end_cause;
    char refusal[128];
    struct bytes to_send; /* by the next on_output, in one piece */
    struct shared *to_reference;
    size_t references_left; /* pieces of to_reference still to be sent, one each turn */
};

static inline void *on_open(void *ctx, struct connection *connection,
                            const struct connection_info *info)
{
    struct fixture *f = ctx;
    assert_ptr_equal(info->listener, f->listener);
    f->opens++;
    f->connection = connection;
    if (f->in_open != NULL) {
        f->in_open(f);
    }
    return f->refuse_open ? NULL : f;
}

static inline void on_bytes(void *user, struct bytes bytes)
{
    struct fixture *f = user;
    assert_int_equal(f->closes, f->opens - 1);
    f->bytes += bytes.len;
    size_t room = sizeof f->received - 1 - f->received_len;
    size_t len = bytes.len < room ? bytes.len : room;
    memcpy(f->received + f->received_len, bytes.data, len);
    f->received_len += len;
    f->received[f->received_len] = 0;
    if (f->in_bytes != NULL) {
        f->in_bytes(f);
    }
}

static inline void on_output(void *user, struct output *output)
{
    struct fixture *f = user;
    assert_true(output_has_room(output));
    f->outputs++;
    output_put(output, f->to_send);
    f->to_send = BYTES_EMPTY;
    if (f->in_output != NULL) {
        f->in_output(f);
    }
    while (f->references_left != 0 && output_has_room(output)) {
        f->references_left--;
        output_reference(output, bytes_of(f->to_reference + 1, BIG_BYTES), f->to_reference);
    }
}

static inline void on_close(void *user, const struct connection_end *end)
{
    struct fixture *f = user;
    f->closes++;
    f->connection = NULL;
    f->end_cause = end->cause;
    (void)snprintf(f->end_text, sizeof f->end_text, "%s", end->text);
}

static inline void on_refused(void *ctx, const char *peer_address, const char *reason)
{
    struct fixture *f = ctx;
    assert_non_null(peer_address);
    f->refusals++;
    (void)snprintf(f->refusal, sizeof f->refusal, "%s", reason);
}

static inline void on_turn_end(void *ctx)
{
    struct fixture *f = ctx;
    f->turn_ends++;
}

static inline void listen_on_loopback(struct fixture *f)
{
    char error[256] = "";
    struct listener_options options = listener_options_default();
    options.host = "127.0.0.1";
    options.ctx = f;
    options.handler.open = on_open;
    options.handler.on_bytes = on_bytes;
    options.handler.on_output = on_output;
    options.handler.on_close = on_close;
    options.handler.on_refused = on_refused;
    assert_int_equal(listener_create(f->loop, &options, &f->listener, error, sizeof error),
                     STATUS_OK);
}

static inline int setup(void **state)
{
    static struct fixture f;
    f = (struct fixture){.opens = 0};
    assert_int_equal(uv_loop_init(&f.uv), 0);
    struct transport_loop_options options = {.uv = &f.uv, .turn_end = on_turn_end, .ctx = &f};
    assert_int_equal(transport_loop_create(&options, &f.loop), STATUS_OK);
    listen_on_loopback(&f);
    *state = &f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    transport_loop_destroy(f->loop);
    assert_int_equal(f->opens - f->closes, f->refuse_open ? f->opens : 0);
    return uv_loop_close(&f->uv);
}

static inline int client_connect(const struct fixture *f)
{
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    (void)uv_ip4_addr("127.0.0.1", listener_port(f->listener), &address);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static inline void client_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static inline void turn(struct fixture *f)
{
    (void)uv_run(&f->uv, UV_RUN_NOWAIT);
}

#define RUN_UNTIL(f, condition)                                                                    \
    for (int turns_ = 0; !(condition); turns_++) {                                                 \
        assert_true(turns_ < TURNS_MAX);                                                           \
        turn(f);                                                                                   \
    }

/* What the server sends until `len` bytes or the end have come; returns the number of bytes. */
static inline size_t client_receive(struct fixture *f, int fd, char *to, size_t len)
{
    size_t have = 0;
    for (int turns = 0; have < len && turns < TURNS_MAX; turns++) {
        turn(f);
        ssize_t n = recv(fd, to + have, len - have, MSG_DONTWAIT);
        if (n == 0) {
            break;
        }
        have += n > 0 ? (size_t)n : 0;
    }
    return have;
}

static inline bool client_sees_end(struct fixture *f, int fd)
{
    for (int turns = 0; turns < TURNS_MAX; turns++) {
        char byte;
        turn(f);
        ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
        if (n >= 0) {
            return n == 0;
        }
    }
    return false;
}

static inline int client_open(struct fixture *f)
{
    int fd = client_connect(f);
    client_send(fd, "\x10hello");
    RUN_UNTIL(f, f->opens == 1);
    return fd;
}

#endif
