/* The I/O threads of a server: made with it, started when it serves, ended before it. */
#include "link.h"

#include <signal.h>

#include "mem.h"
#include "mem_pool.h"

enum { TO_BROKER_CHUNK = 64 * 1024, TO_IO_CHUNK = 512 * 1024 };

static void tell_call(struct io_thread *thread, void (*call)(struct io_thread *thread, void *arg),
                      void *arg, uv_sem_t *done)
{
    struct io_call *record = channel_begin_small(thread->to_io, IO_CALL, sizeof *record);
    *record = (struct io_call){call, arg, done};
    channel_end(thread->to_io, sizeof *record, 0);
    channel_publish(thread->to_io);
}

/* ---- making and unmaking ---- */

static void destroy_thread(struct io_thread *thread)
{
    if (thread == NULL) {
        return;
    }
    for (size_t i = 0; i < thread->listener_count; i++) {
        if (thread->listeners[i].settings != NULL) {
            shared_release(&thread->listeners[i].settings->shared);
        }
    }
    mem_free(thread->listeners);
    channel_close(thread->to_io);
    channel_close(thread->to_broker);
    if (thread->uv_open) {
        io_thread_close(thread);
        transport_loop_destroy(thread->loop);
        (void)uv_run(&thread->uv, UV_RUN_DEFAULT);
        (void)uv_loop_close(&thread->uv);
    }
    (void)uv_run(&thread->server->uv, UV_RUN_NOWAIT); /* its end of to_broker */
    channel_destroy(thread->to_io);
    channel_destroy(thread->to_broker);
    mem_free(thread);
}

static enum status open_thread(struct io_thread *thread)
{
    struct server *server = thread->server;
    if (uv_loop_init(&thread->uv) != 0) {
        return STATUS_NO_MEMORY;
    }
    thread->uv_open = true;
    io_thread_open(thread);
    struct transport_loop_options loop = {.uv = &thread->uv,
                                          .turn_end = io_thread_turn_end,
                                          .flushed = io_thread_turn_end,
                                          .ctx = thread};
    struct channel_options to_io = {&thread->uv, TO_IO_CHUNK, LINK_OUTPUT_BACKLOG_BYTES,
                                    io_thread_on_batch, thread};
    struct channel_options to_broker = {&server->uv, TO_BROKER_CHUNK, LINK_BACKLOG_BYTES,
                                        link_on_batch, thread};
    enum status status = transport_loop_create(&loop, &thread->loop);
    if (status == STATUS_OK) {
        status = channel_create(&to_io, &thread->to_io);
    }
    if (status == STATUS_OK) {
        status = channel_create(&to_broker, &thread->to_broker);
    }
    return status;
}

static enum status make_thread(struct server *server, struct io_thread **out)
{
    struct io_thread *thread = mem_zalloc(sizeof *thread);
    *out = thread;
    if (thread == NULL) {
        return STATUS_NO_MEMORY;
    }
    thread->server = server;
    thread->woken_last = &thread->woken;
    thread->listeners = mem_zalloc(server->config->listener_count * sizeof *thread->listeners);
    if (thread->listeners == NULL) {
        return STATUS_NO_MEMORY;
    }
    thread->listener_count = server->config->listener_count;
    for (size_t i = 0; i < thread->listener_count; i++) {
        thread->listeners[i].thread = thread;
    }
    return open_thread(thread);
}

enum status server_threads_create(struct server *server, size_t count)
{
    struct server_threads *threads =
        mem_zalloc(sizeof *threads + count * sizeof(struct io_thread *));
    if (threads == NULL) {
        return STATUS_NO_MEMORY;
    }
    server->threads = threads;
    threads->loops = mem_zalloc(count * sizeof(struct transport_loop *));
    if (threads->loops == NULL) {
        return STATUS_NO_MEMORY;
    }
    threads->count = count;
    for (size_t i = 0; i < count; i++) {
        enum status status = make_thread(server, &threads->threads[i]);
        if (status != STATUS_OK) {
            return status;
        }
        threads->loops[i] = threads->threads[i]->loop;
    }
    return transport_loops_join(threads->loops, count);
}

/* ---- listeners ---- */

static void take_over(struct io_listener *to, const struct server_listener *from)
{
    (void)shared_hold(&from->settings->shared);
    to->settings = from->settings;
    to->use_subject = from->use_subject;
    to->mqtt_subprotocols = from->mqtt_subprotocols;
    to->connections_max = from->connections_max;
}

/* The listeners go round the threads; each has its followers on the others. */
enum status server_threads_listen(struct server *server, size_t index,
                                  struct listener_options *options, char *error, size_t error_size)
{
    struct server_threads *threads = server->threads;
    struct server_listener *wanted = &server->listeners[index];
    struct io_thread *first = threads->threads[index % threads->count];
    options->handler = io_connection_handler();
    options->http_handler = io_connection_handler();
    options->ctx = &first->listeners[index];
    enum status status =
        listener_create(first->loop, options, &wanted->listener, error, error_size);
    if (status != STATUS_OK) {
        return status;
    }
    first->listeners[index].listener = wanted->listener;
    take_over(&first->listeners[index], wanted);
    for (size_t i = 0; status == STATUS_OK && i < threads->count; i++) {
        struct io_thread *thread = threads->threads[i];
        if (thread != first) {
            options->ctx = &thread->listeners[index];
            status = listener_follow(thread->loop, options, wanted->listener,
                                     &thread->listeners[index].listener);
            take_over(&thread->listeners[index], wanted);
        }
    }
    return status;
}

struct reconfigure {
    size_t index;
    const struct listener_options *options;
    const struct server_listener *wanted;
    enum status status;
};

static void reconfigure_listener(struct io_thread *thread, void *arg)
{
    struct reconfigure *change = arg;
    struct io_listener *listener = &thread->listeners[change->index];
    if (listener->listener == NULL) {
        return;
    }
    /* Clients that were opened under these settings are on their way to the broker before them. */
    struct io_release *old = channel_begin_small(thread->to_broker, IO_RELEASE, sizeof *old);
    old->object = &listener->settings->shared;
    channel_end(thread->to_broker, sizeof *old, 0);
    listener->settings = change->wanted->settings; /* the broker has taken our reference */
    listener->use_subject = change->wanted->use_subject;
    listener->connections_max = change->wanted->connections_max;
    if (change->options->tls_config != NULL) {
        listener_set_tls(listener->listener, change->options->tls_config);
    }
    enum status status = listener_configure(listener->listener, change->options);
    change->status = change->status == STATUS_OK ? status : change->status;
}

/* The threads apply it one after the other while the broker waits: a reload is rare, and what it
 * reads is freed afterwards. An I/O thread never waits for the broker. */
enum status server_threads_configure(struct server *server, size_t index,
                                     const struct listener_options *options)
{
    struct server_threads *threads = server->threads;
    struct reconfigure change = {index, options, &server->listeners[index], STATUS_OK};
    uv_sem_t done;
    ENSURE(uv_sem_init(&done, 0) == 0);
    for (size_t i = 0; i < threads->count; i++) {
        (void)shared_hold(&server->listeners[index].settings->shared);
        tell_call(threads->threads[i], reconfigure_listener, &change, &done);
        uv_sem_wait(&done);
    }
    uv_sem_destroy(&done);
    return change.status;
}

/* ---- running ---- */

static void run(void *arg)
{
    struct io_thread *thread = arg;
    (void)uv_run(&thread->uv, UV_RUN_DEFAULT);
    mem_pool_drain();
}

/* Signals are the first thread's. */
static int start_thread(struct io_thread *thread)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = uv_thread_create(&thread->thread, run, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum status server_threads_start(struct server *server)
{
    struct server_threads *threads = server->threads;
    for (size_t i = 0; i < threads->count; i++) {
        struct io_thread *thread = threads->threads[i];
        channel_set_ref(thread->to_io, true);
        channel_set_ref(thread->to_broker, true);
        int error = start_thread(thread);
        if (error != 0) {
            channel_set_ref(thread->to_broker, false);
            log_write(server->log, LOG_TYPE_ERROR, "cannot start an I/O thread: %s",
                      uv_strerror(error));
            return STATUS_IO;
        }
        thread->started = thread->running = true;
    }
    return STATUS_OK;
}

void server_threads_turn_end(struct server *server)
{
    for (size_t i = 0; i < server->threads->count; i++) {
        link_flush_all(server->threads->threads[i]);
    }
}

void server_threads_add_statistics(const struct server *server, struct transport_statistics *sum)
{
    for (size_t i = 0; i < server->threads->count; i++) {
        transport_loop_add_statistics(server->threads->loops[i], sum);
    }
}

/* ---- the end ---- */

struct stop {
    uint32_t close_timeout_ms;
};

static void stop_listening(struct io_thread *thread, void *arg)
{
    const struct stop *stop = arg;
    for (size_t i = 0; i < thread->listener_count; i++) {
        struct listener *listener = thread->listeners[i].listener;
        if (listener != NULL) {
            listener_limit_close_timeout(listener, stop->close_timeout_ms);
            listener_close(listener);
            thread->listeners[i].listener = NULL;
        }
    }
}

/* Those that the broker knows have been told already; the others are on their way to it. */
static void close_rest(struct io_thread *thread, void *arg)
{
    (void)arg;
    transport_loop_close_all(thread->loop, WEBSOCKET_GOING_AWAY, "the broker stops");
    thread->stopping = true;
}

static void abort_rest(struct io_thread *thread, void *arg)
{
    stop_listening(thread, arg);
    transport_loop_abort_all(thread->loop, "the broker stops");
    thread->stopping = true;
}

static const struct stop at_once = {0};

void server_threads_stop_listening(struct server *server, uint32_t close_timeout_ms)
{
    struct stop stop = {close_timeout_ms};
    uv_sem_t done;
    ENSURE(uv_sem_init(&done, 0) == 0);
    for (size_t i = 0; i < server->threads->count; i++) {
        tell_call(server->threads->threads[i], stop_listening, &stop, &done);
        uv_sem_wait(&done);
    }
    uv_sem_destroy(&done);
}

void server_threads_close_all(struct server *server)
{
    for (size_t i = 0; i < server->threads->count; i++) {
        link_flush_all(server->threads->threads[i]); /* what clients say at the end goes first */
        tell_call(server->threads->threads[i], close_rest, NULL, NULL);
    }
}

static bool any_runs(const struct server_threads *threads)
{
    for (size_t i = 0; i < threads->count; i++) {
        if (threads->threads[i] != NULL && threads->threads[i]->running) {
            return true;
        }
    }
    return false;
}

void server_threads_destroy(struct server *server)
{
    struct server_threads *threads = server->threads;
    if (threads == NULL) {
        return;
    }
    for (size_t i = 0; i < threads->count; i++) {
        if (threads->threads[i] != NULL && threads->threads[i]->running) {
            /* stop_listening only reads its argument */
            tell_call(threads->threads[i], abort_rest, (void *)(uintptr_t)&at_once, NULL);
        }
    }
    while (any_runs(threads)) {
        (void)uv_run(&server->uv, UV_RUN_ONCE);
    }
    for (size_t i = 0; i < threads->count; i++) {
        struct io_thread *thread = threads->threads[i];
        if (thread != NULL && thread->started) {
            (void)uv_thread_join(&thread->thread);
        }
    }
    server->threads = NULL; /* no turn of the server's loop looks at them any more */
    for (size_t i = 0; i < threads->count; i++) {
        destroy_thread(threads->threads[i]);
    }
    mem_free(threads->loops);
    mem_free(threads);
}
