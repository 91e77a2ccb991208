#include "loop.h"

#include <signal.h>

#include "connection_internal.h"
#include "loop_internal.h"
#include "mem.h"

void loop_queue_flush(struct transport_loop *loop, struct connection *connection)
{
    if (!connection->on_flush_list) {
        connection->on_flush_list = true;
        connection->next_flush = NULL;
        *loop->flush_last = connection;
        loop->flush_last = &connection->next_flush;
    }
}

void loop_unqueue_flush(struct transport_loop *loop, struct connection *connection)
{
    if (!connection->on_flush_list) {
        return;
    }
    struct connection **at = &loop->flush_first;
    while (*at != connection) {
        ENSURE(*at != NULL);
        at = &(*at)->next_flush;
    }
    *at = connection->next_flush;
    if (*at == NULL) {
        loop->flush_last = at;
    }
    connection->on_flush_list = false;
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* that it is active keeps the loop from blocking */
}

/* What is queued while the list is worked off waits for the next turn. No connection is freed in
 * here: that is left to uv_close's callback, so `last` stays valid. */
static void end_turn(struct transport_loop *loop)
{
    if (loop->turn_end != NULL) {
        loop->turn_end(loop->ctx);
    }
    struct connection *last = NULL;
    if (loop->flush_first != NULL) {
        last = (struct connection *)((char *)loop->flush_last -
                                     offsetof(struct connection, next_flush));
    }
    for (bool more = last != NULL; more;) {
        struct connection *connection = loop->flush_first;
        ENSURE(connection != NULL);
        more = connection != last;
        loop->flush_first = connection->next_flush;
        if (loop->flush_first == NULL) {
            loop->flush_last = &loop->flush_first;
        }
        connection->on_flush_list = false;
        connection_flush(connection);
    }
    if (loop->flushed != NULL) {
        loop->flushed(loop->ctx);
    }
    if (loop->flush_first != NULL) {
        (void)uv_idle_start(&loop->idle, on_idle);
    } else {
        (void)uv_idle_stop(&loop->idle);
    }
}

static void on_check(uv_check_t *check)
{
    end_turn(check->data);
}

static void arm_tls_sweep(struct transport_loop *loop, uint32_t from_now_ms)
{
    timer_arm(&loop->wheel, &loop->tls_sweep, uv_now(loop->uv) + from_now_ms);
}

/* All timers of the wheel but one are connections'. */
static void fire(void *ctx, struct timer *timer)
{
    struct transport_loop *loop = ctx;
    if (timer == &loop->tls_sweep) {
        uint32_t again_ms = tls_buffers_sweep(&loop->tls);
        if (again_ms != 0) {
            arm_tls_sweep(loop, again_ms);
        }
        return;
    }
    connection_on_timer((struct connection *)((char *)timer - offsetof(struct connection, timer)));
}

static void on_timer(uv_timer_t *timer)
{
    struct transport_loop *loop = timer->data;
    loop->timer_ms = TIMER_NEVER;
    timer_wheel_advance(&loop->wheel, uv_now(loop->uv), fire, loop);
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct transport_loop *loop = prepare->data;
    loop->reader = NULL;
    loop->readers_passed = loop->first_unread;
    loop->first_unread = loop->turn_readers = 0;
    loop->turn_bytes = 0;
    end_turn(loop); /* what timers and the server's own handles have queued */
    if (!timer_is_armed(&loop->tls_sweep) && tls_buffers_have_idle_work(&loop->tls)) {
        arm_tls_sweep(loop, TLS_IDLE_SWEEP_MS);
    }
    uint64_t next_ms = timer_wheel_next_ms(&loop->wheel);
    if (next_ms <
        loop->timer_ms) { /* a timer that fires too early is cheaper than moving it each turn */
        uint64_t now_ms = uv_now(loop->uv);
        loop->timer_ms = next_ms;
        (void)uv_timer_start(&loop->timer, on_timer, next_ms > now_ms ? next_ms - now_ms : 0, 0);
    }
}

/* None of these can fail in libuv; their results exist for symmetry with other handles. */
static void start_handles(struct transport_loop *loop)
{
    (void)uv_timer_init(loop->uv, &loop->timer);
    (void)uv_prepare_init(loop->uv, &loop->prepare);
    (void)uv_check_init(loop->uv, &loop->check);
    (void)uv_idle_init(loop->uv, &loop->idle);
    loop->timer.data = loop->prepare.data = loop->check.data = loop->idle.data = loop;
    (void)uv_prepare_start(&loop->prepare, on_prepare);
    (void)uv_check_start(&loop->check, on_check);
    uv_unref((uv_handle_t *)&loop->timer);
    uv_unref((uv_handle_t *)&loop->prepare);
    uv_unref((uv_handle_t *)&loop->check);
    uv_unref((uv_handle_t *)&loop->idle);
}

/* libuv writes with write(2), and a peer that went away must be an error of its connection, not of
 * the process. */
static void ignore_sigpipe(void)
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
        action.sa_handler = SIG_IGN;
        (void)sigaction(SIGPIPE, &action, NULL);
    }
}

enum status transport_loop_create(const struct transport_loop_options *options,
                                  struct transport_loop **out)
{
    *out = NULL;
    struct transport_loop *loop = mem_zalloc(sizeof *loop);
    if (loop == NULL) {
        return STATUS_NO_MEMORY;
    }
    loop->read_buffer = mem_alloc(CONNECTION_READ_BYTES);
    loop->scratch = mem_alloc(OUTPUT_SCRATCH_BYTES + LOOP_SCRATCH_EXTRA);
    if (loop->read_buffer == NULL || loop->scratch == NULL) {
        mem_free(loop->read_buffer);
        mem_free(loop->scratch);
        mem_free(loop);
        return STATUS_NO_MEMORY;
    }
    loop->uv = options->uv;
    loop->turn_end = options->turn_end;
    loop->flushed = options->flushed;
    loop->ctx = options->ctx;
    loop->flush_last = &loop->flush_first;
    loop->timer_ms = TIMER_NEVER;
    timer_wheel_init(&loop->wheel, uv_now(loop->uv));
    ignore_sigpipe();
    start_handles(loop);
    *out = loop;
    return STATUS_OK;
}

static void drop_one(struct connection *connection, void *ctx)
{
    connection_drop(connection, CONNECTION_CLOSED_LOCALLY, ctx);
}

void transport_loop_abort_all(struct transport_loop *loop, const char *reason)
{
    connection_for_each(loop, drop_one, (void *)(uintptr_t)reason); /* which only reads it */
}

void transport_loop_destroy(struct transport_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    loop->turn_end = NULL;
    loop->flushed = NULL;
    transport_loop_abort_all(loop, "the server stops");
    for (struct listener *l = loop->listeners, *next; l != NULL; l = next) {
        next = l->next; /* a follower without connections goes at once, the others in uv_run */
        if (!l->closing) {
            listener_close(l);
        }
    }
    loop_close_arrivals(loop);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    (void)uv_run(loop->uv, UV_RUN_DEFAULT);
    loop_free_arrivals(loop);
    ENSURE(loop->statistics.sockets_current == 0 && loop->listeners == NULL);
    ws_pool_fini(&loop->ws_pool);
    tls_buffers_fini(&loop->tls);
    mem_free(loop->read_buffer);
    mem_free(loop->scratch);
    mem_free(loop);
}

struct close_all {
    uint16_t websocket_code;
    const char *reason;
};

static void close_one(struct connection *connection, void *ctx)
{
    const struct close_all *all = ctx;
    if (connection->user != NULL) {
        connection_close(connection, all->websocket_code, all->reason);
    } else if (!connection->handshake_over) {
        connection_abort(connection, all->reason);
    }
}

void transport_loop_close_all(struct transport_loop *loop, uint16_t websocket_code,
                              const char *reason)
{
    struct close_all all = {websocket_code, reason};
    connection_for_each(loop, close_one, &all);
}

uint64_t transport_loop_now_ms(const struct transport_loop *loop)
{
    return uv_now(loop->uv);
}

const struct transport_statistics *transport_loop_statistics(const struct transport_loop *loop)
{
    return &loop->statistics;
}

void transport_loop_add_statistics(const struct transport_loop *loop,
                                   struct transport_statistics *sum)
{
    enum { COUNTERS = sizeof *sum / sizeof(uint64_t) };
    const uint64_t *from = (const uint64_t *)&loop->statistics; /* all its members are counters */
    uint64_t *to = (uint64_t *)sum;
    for (size_t i = 0; i < COUNTERS; i++) {
        to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
}

struct uv_loop_s *transport_loop_uv(const struct transport_loop *loop)
{
    return loop->uv;
}
