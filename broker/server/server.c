#include "server.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#include "link.h"
#include "mem.h"
#include "server_state.h"
#include "timer_wheel.h"

/* How long clients may take to accept what is left for them when the broker stops. */
enum { DRAIN_MS = 10 * 1000 };

/* And how long one of them may take to agree to the end: it is told and forgotten. */
enum { STOP_CLOSE_MS = 1000 };

/* Open files that are not clients: the loop's own, the log, certificates that are read again. With
 * many listeners they count besides. */
enum {
    RESERVED_FILES = 32,
    RESERVED_FILES_BESIDES_LISTENERS = 16,
    RESERVED_FILES_PER_THREAD = 8, /* its loop's, and sockets that are being passed on */
};

enum { IO_THREADS_DEFAULT_MAX = 16 };

static const int handled_signals[] = {SIGTERM, SIGINT, SIGHUP};

void server_report_config(void *log, enum config_severity severity, const char *file, unsigned line,
                          const char *text)
{
    enum log_type type = severity == CONFIG_ERROR ? LOG_TYPE_ERROR : LOG_TYPE_WARNING;
    if (line == 0) {
        log_write(log, type, "%s: %s", file, text);
    } else {
        log_write(log, type, "%s:%u: %s", file, line, text);
    }
}

static size_t limit_of(uint64_t value, uint64_t unlimited)
{
    return value == unlimited || value > SIZE_MAX ? 0 : (size_t)value;
}

static struct core_options core_options_of(const struct config *config)
{
    struct core_options options = core_options_default();
    ENSURE(getrandom(&options.seed, sizeof options.seed, 0) == sizeof options.seed);
    options.queued_messages_max = limit_of(config->max_queued_messages, CONFIG_UNLIMITED);
    options.queued_bytes_max = limit_of(config->max_queued_bytes, CONFIG_UNLIMITED_BYTES);
    options.inflight_max = (uint16_t)config->max_inflight_messages;
    options.inflight_bytes_max = limit_of(config->max_inflight_bytes, CONFIG_UNLIMITED_BYTES);
    options.subscriptions_max = limit_of(config->max_subscriptions, CONFIG_UNLIMITED);
    options.topic_levels_max = config->max_topic_levels;
    options.queue_qos0 = config->queue_qos0_messages;
    options.upgrade_qos = config->upgrade_outgoing_qos;
    if (config->persistent_client_expiration_s < CORE_SESSION_NEVER_EXPIRES) {
        options.session_expiry_max_s = (uint32_t)config->persistent_client_expiration_s;
    }
    return options;
}

static struct server *server_of(const uv_handle_t *handle)
{
    return handle->data;
}

struct transport_statistics server_statistics(const struct server *server)
{
    struct transport_statistics sum = *transport_loop_statistics(server->loop);
    if (server->threads != NULL) {
        server_threads_add_statistics(server, &sum);
    }
    return sum;
}

static void publish_figures(uv_timer_t *timer)
{
    struct server *server = server_of((uv_handle_t *)timer);
    struct transport_statistics transport = server_statistics(server);
    uint64_t now_ms = transport_loop_now_ms(server->loop);
    struct sys_figures figures = {
        .core = core_stats(server->core),
        .uptime_s = (now_ms - server->started_ms) / 1000,
        .bytes_received = transport.bytes_received,
        .bytes_sent = transport.bytes_sent,
        .sockets = transport.sockets_accepted,
        .heap_bytes = mallinfo2().uordblks,
    };
    server_count_clients(server, &figures);
    sys_topics_publish(server->sys_topics, now_ms, server->config->sys_interval_s, &figures);
}

static void on_deadline(uv_timer_t *timer);

/* Arms the one timer for whatever is due first: what a turn did may have moved it. */
static void arm_deadline(struct server *server)
{
    uint64_t deadline_ms = core_next_deadline_ms(server->core);
    uint64_t clients_ms = server_clients_deadline_ms(server);
    deadline_ms = clients_ms < deadline_ms ? clients_ms : deadline_ms;
    if (!server->handles_open || deadline_ms == server->deadline_ms) {
        return;
    }
    server->deadline_ms = deadline_ms;
    if (deadline_ms == TIMER_NEVER) {
        (void)uv_timer_stop(&server->deadline_timer);
        return;
    }
    uint64_t now_ms = transport_loop_now_ms(server->loop);
    (void)uv_timer_start(&server->deadline_timer, on_deadline,
                         deadline_ms > now_ms ? deadline_ms - now_ms : 0, 0);
}

static void on_turn_end(void *ctx)
{
    struct server *server = ctx;
    if (server->threads != NULL) {
        server_threads_turn_end(server);
    }
    arm_deadline(server);
}

static void on_deadline(uv_timer_t *timer)
{
    struct server *server = server_of((uv_handle_t *)timer);
    uint64_t now_ms = transport_loop_now_ms(server->loop);
    server->deadline_ms = 0; /* it must be armed again, be the next one equal or not */
    server_advance_clients(server, now_ms);
    core_advance(server->core, now_ms);
}

static void close_handles(struct server *server)
{
    if (!server->handles_open) {
        return;
    }
    server->handles_open = false;
    uv_close((uv_handle_t *)&server->deadline_timer, NULL);
    uv_close((uv_handle_t *)&server->sys_timer, NULL);
    uv_close((uv_handle_t *)&server->drain_timer, NULL);
    for (size_t i = 0; i < sizeof handled_signals / sizeof *handled_signals; i++) {
        uv_close((uv_handle_t *)&server->signals[i], NULL);
    }
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct server *server = server_of((uv_handle_t *)timer);
    log_write(server->log, LOG_TYPE_WARNING,
              "some clients did not take what was left for them: closing them");
    uv_stop(&server->uv);
}

static void drain(struct server *server)
{
    server->draining = true;
    if (server->threads != NULL) {
        server_threads_stop_listening(server, STOP_CLOSE_MS);
    }
    for (size_t i = 0; i < server->listener_count; i++) {
        if (server->listeners[i].listener != NULL && server->threads == NULL) {
            listener_limit_close_timeout(server->listeners[i].listener, STOP_CLOSE_MS);
            listener_close(server->listeners[i].listener);
        }
        server->listeners[i].listener = NULL;
    }
    (void)uv_timer_stop(&server->sys_timer);
    server_shut_down_clients(server, transport_loop_now_ms(server->loop));
    if (server->threads != NULL) {
        server_threads_close_all(server);
    }
    transport_loop_close_all(server->loop, WEBSOCKET_GOING_AWAY, "the broker stops");
    (void)uv_timer_start(&server->drain_timer, on_drain_timeout, DRAIN_MS, 0);
}

static void start_figures(struct server *server, const struct config *config, uint64_t delay_ms)
{
    uint64_t interval_ms = UINT64_C(1000) * config->sys_interval_s;
    if (interval_ms != 0) {
        (void)uv_timer_start(&server->sys_timer, publish_figures, delay_ms, interval_ms);
    } else {
        (void)uv_timer_stop(&server->sys_timer);
    }
}

static void warn_when_changed(const struct server *server, const char *key, const char *before,
                              const char *after)
{
    if (strcmp(before == NULL ? "" : before, after == NULL ? "" : after) != 0) {
        log_write(server->log, LOG_TYPE_WARNING, "a change of %s needs a restart", key);
    }
}

/* Everything that can be refused has been tried. Takes over `config`. */
static void apply(struct server *server, struct config *config)
{
    if (log_reconfigure(server->log, &config->log) != STATUS_OK) {
        log_write(server->log, LOG_TYPE_ERROR,
                  "cannot open log file %s: %s: the log stays as it was", config->log.file_path,
                  strerror(errno));
    }
    warn_when_changed(server, "pid_file", server->config->pid_file, config->pid_file);
    warn_when_changed(server, "user", server->config->user, config->user);
    warn_when_changed(server, "persistence", server->config->persistence ? "true" : "false",
                      config->persistence ? "true" : "false");
    warn_when_changed(server, "persistence_location", server->config->persistence_location,
                      config->persistence_location);
    warn_when_changed(server, "persistence_file", server->config->persistence_file,
                      config->persistence_file);
    if (server->config->io_threads != config->io_threads) {
        log_write(server->log, LOG_TYPE_WARNING, "a change of io_threads needs a restart");
    }
    if (config->sys_interval_s != server->config->sys_interval_s) {
        start_figures(server, config, UINT64_C(1000) * config->sys_interval_s);
    }
    struct core_options options = core_options_of(config);
    core_configure(server->core, &options);
    config_destroy(server->config);
    server->config = config;
}

static void reload(struct server *server)
{
    struct config *config = NULL;
    /* First and in any case: whoever has moved the log file away waits for it to be let go. */
    if (log_reopen(server->log) != STATUS_OK) {
        log_write(server->log, LOG_TYPE_ERROR, "cannot open the log file again: %s",
                  strerror(errno));
    }
    log_write(server->log, LOG_TYPE_NOTICE, "reloading");
    enum status status =
        config_load(server->options->config_path, server->options->addresses,
                    server->options->address_count, server_report_config, server->log, &config);
    if (status == STATUS_OK) {
        status = server_reload_listeners(server, config);
    }
    if (status != STATUS_OK) {
        config_destroy(config);
        log_write(server->log, LOG_TYPE_ERROR, "the configuration was not reloaded");
        return;
    }
    options_apply(server->options, config);
    apply(server, config);
    log_write(server->log, LOG_TYPE_NOTICE, "reloaded");
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct server *server = server_of((uv_handle_t *)handle);
    if (number == SIGHUP) {
        reload(server);
        return;
    }
    log_write(server->log, LOG_TYPE_NOTICE, "%s: stopping",
              number == SIGTERM ? "SIGTERM" : "SIGINT");
    if (server->draining) {
        uv_stop(&server->uv); /* the second time it is meant at once */
    } else {
        drain(server);
    }
}

static void init_timer(struct server *server, uv_timer_t *timer)
{
    (void)uv_timer_init(&server->uv, timer);
    timer->data = server;
    uv_unref((uv_handle_t *)timer);
}

static enum status open_handles(struct server *server)
{
    init_timer(server, &server->deadline_timer);
    init_timer(server, &server->sys_timer);
    init_timer(server, &server->drain_timer);
    server->deadline_ms = TIMER_NEVER;
    for (size_t i = 0; i < sizeof handled_signals / sizeof *handled_signals; i++) {
        uv_signal_t *handle = &server->signals[i];
        (void)uv_signal_init(&server->uv, handle);
        handle->data = server;
    }
    server->handles_open = true;
    for (size_t i = 0; i < sizeof handled_signals / sizeof *handled_signals; i++) {
        uv_signal_t *handle = &server->signals[i];
        if (uv_signal_start(handle, on_signal, handled_signals[i]) != 0) {
            return STATUS_IO;
        }
        uv_unref((uv_handle_t *)handle);
    }
    return STATUS_OK;
}

/* Those that this process may run on, not those that the machine has. */
static size_t usable_cpus(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    return count < 1 ? 1 : (size_t)count;
}

/* One or two CPUs are best used by one thread: it does without what passing things on costs. */
static size_t io_threads_of(const struct config *config)
{
    if (config->io_threads != CONFIG_UNLIMITED) {
        return config->io_threads;
    }
    size_t cpus = usable_cpus();
    if (cpus <= 2) {
        return 0;
    }
    return cpus - 1 < IO_THREADS_DEFAULT_MAX ? cpus - 1 : IO_THREADS_DEFAULT_MAX;
}

static enum status create_broker(struct server *server)
{
    struct transport_loop_options loop = {
        .uv = &server->uv, .turn_end = on_turn_end, .ctx = server};
    size_t io_threads = io_threads_of(server->config);
    enum status status = server_open_store_handles(server);
    if (status == STATUS_OK) {
        status = transport_loop_create(&loop, &server->loop);
    }
    if (status == STATUS_OK && io_threads != 0) {
        status = server_threads_create(server, io_threads);
    }
    if (status == STATUS_OK) {
        status = password_checks_create(&server->uv, &server->password_checks);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct client_host host = io_threads == 0 ? server_client_host(server) : link_mqtt_host(server);
    struct http_host http_host =
        io_threads == 0 ? server_http_host(server) : link_http_host(server);
    uint64_t now_ms = transport_loop_now_ms(server->loop);
    server->started_ms = now_ms;
    struct core_options options = core_options_of(server->config);
    status = server_create_clients(server, &host, &http_host, now_ms, &options);
    if (status != STATUS_OK) {
        return status;
    }
    return sys_topics_create(server->core, &server->sys_topics);
}

/* What the system's limit of open files leaves for clients. Beyond that limit nothing can even be
 * refused: the system call that takes a client fails. */
static uint64_t sockets_max_of(const struct config *config)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return 0;
    }
    uint64_t files = limit.rlim_cur;
    uint64_t reserved = config->listener_count + RESERVED_FILES_BESIDES_LISTENERS +
                        RESERVED_FILES_PER_THREAD * io_threads_of(config);
    reserved = reserved < RESERVED_FILES ? RESERVED_FILES : reserved;
    return files >= 2 * reserved ? files - reserved : files / 2;
}

enum status server_create(const struct options *options, struct config *config, struct log *log,
                          struct server **out)
{
    *out = NULL;
    struct server *server = mem_zalloc(sizeof *server);
    if (server == NULL || uv_loop_init(&server->uv) != 0) {
        mem_free(server);
        config_destroy(config);
        return STATUS_NO_MEMORY;
    }
    server->options = options;
    server->config = config;
    server->log = log;
    server->sockets_max = sockets_max_of(config);
    enum status status = create_broker(server);
    if (status == STATUS_OK) {
        status = open_handles(server);
    }
    if (status == STATUS_OK) {
        status = server_open_listeners(server);
    }
    if (status != STATUS_OK) {
        server_destroy(server);
        return status;
    }
    *out = server;
    return STATUS_OK;
}

enum status server_run(struct server *server)
{
    if (server->threads != NULL && server_threads_start(server) != STATUS_OK) {
        return STATUS_IO;
    }
    start_figures(server, server->config, 0);
    (void)uv_run(&server->uv, UV_RUN_DEFAULT);
    log_write(server->log, LOG_TYPE_NOTICE, "stopped");
    return server->failed ? STATUS_IO : STATUS_OK;
}

void server_destroy(struct server *server)
{
    if (server == NULL) {
        return;
    }
    close_handles(server);
    server_threads_destroy(server);
    /* Clients end when their connections do, and need the core for that; the connections still hold
     * messages. */
    transport_loop_destroy(server->loop);
    sys_topics_destroy(server->sys_topics);
    core_destroy(server->core);
    server_close_store(server);
    (void)uv_run(&server->uv, UV_RUN_DEFAULT);
    (void)uv_loop_close(&server->uv);
    server_destroy_clients(server);
    password_checks_destroy(server->password_checks);
    server_release_listeners(server);
    config_destroy(server->config);
    mem_free(server);
}
