/*
 * The store's place in the process: opened before the broker serves, woken by its threads, handed
 * what a loop turn has changed at the turn's end, closed behind the core.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "lmdb_store.h"
#include "server_state.h"

static void on_log(void *ctx, enum store_severity severity, const char *text)
{
    static const enum log_type types[] = {
        [STORE_LOG_ERROR] = LOG_TYPE_ERROR,
        [STORE_LOG_WARNING] = LOG_TYPE_WARNING,
        [STORE_LOG_NOTICE] = LOG_TYPE_NOTICE,
    };
    const struct server *server = ctx;
    log_write(server->log, types[severity], "%s", text);
}

/* From the store's threads. */
static void notify(void *ctx)
{
    struct server *server = ctx;
    (void)uv_async_send(&server->store_async);
}

static void on_notified(uv_async_t *async)
{
    const struct server *server = async->data;
    lmdb_store_collect(server->store);
}

static void on_check(uv_check_t *check)
{
    const struct server *server = check->data;
    if (server->store != NULL) {
        store_flush(server->store);
    }
}

static void on_prepare(uv_prepare_t *prepare)
{
    const struct server *server = prepare->data;
    if (server->store != NULL) {
        store_flush(server->store);
    }
}

/* libuv calls the handles that were started last first: these come behind the transport's, whose
 * flush decides what is sent, and so what there is to store. */
enum status server_open_store_handles(struct server *server)
{
    if (uv_async_init(&server->uv, &server->store_async, on_notified) != 0) {
        return STATUS_NO_MEMORY;
    }
    (void)uv_check_init(&server->uv, &server->store_check);
    (void)uv_prepare_init(&server->uv, &server->store_prepare);
    server->store_async.data = server->store_check.data = server->store_prepare.data = server;
    (void)uv_check_start(&server->store_check, on_check);
    (void)uv_prepare_start(&server->store_prepare, on_prepare);
    uv_unref((uv_handle_t *)&server->store_async);
    uv_unref((uv_handle_t *)&server->store_check);
    uv_unref((uv_handle_t *)&server->store_prepare);
    server->store_handles_open = true;
    return STATUS_OK;
}

enum status server_open_store(struct server *server)
{
    const struct config *config = server->config;
    if (!config->persistence) {
        return STATUS_OK;
    }
    const char *directory =
        config->persistence_location == NULL ? "." : config->persistence_location;
    if (mkdir(directory, 0700) != 0 && errno != EEXIST) {
        log_write(server->log, LOG_TYPE_ERROR, "cannot make persistence_location %s: %s", directory,
                  strerror(errno));
        return STATUS_IO;
    }
    struct lmdb_store_options options = {
        .directory = directory,
        .file_name = config->persistence_file,
        .ctx = server,
        .log = on_log,
        .notify = notify,
    };
    enum status status = lmdb_store_open(&options, &server->store);
    if (status == STATUS_OK) {
        /* Opening takes time, and both clocks are to be read at once: what one is behind the other
         * everything that was stored would expire early. */
        uv_update_time(&server->uv);
        status = core_open_store(server->core, transport_loop_now_ms(server->loop),
                                 server_unix_ms(server), server->store);
    }
    if (status != STATUS_OK) {
        log_write(server->log, LOG_TYPE_ERROR, "cannot read what is stored in %s: %s", directory,
                  status_name(status));
        return status;
    }
    struct core_stats stats = core_stats(server->core);
    log_write(server->log, LOG_TYPE_NOTICE,
              "restored %llu sessions, %llu subscriptions, %llu retained and %llu waiting messages",
              (unsigned long long)stats.sessions, (unsigned long long)stats.subscriptions,
              (unsigned long long)stats.retained_messages,
              (unsigned long long)stats.queued_messages);
    return STATUS_OK;
}

void server_store_failed(void *ctx, const char *why)
{
    struct server *server = ctx;
    log_write(server->log, LOG_TYPE_ERROR,
              "stopping, since nothing that is acknowledged from now on would be kept: %s", why);
    server->failed = true;
    uv_stop(&server->uv);
}

void server_close_store(struct server *server)
{
    store_destroy(server->store);
    server->store = NULL;
    if (server->store_handles_open) {
        server->store_handles_open = false;
        uv_close((uv_handle_t *)&server->store_async, NULL);
        uv_close((uv_handle_t *)&server->store_check, NULL);
        uv_close((uv_handle_t *)&server->store_prepare, NULL);
    }
}
