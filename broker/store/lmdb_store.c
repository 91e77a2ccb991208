#include "lmdb_store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "lmdb_file.h"
#include "lmdb_read.h"
#include "lmdb_repair.h"
#include "lmdb_write.h"
#include "mem.h"
#include "mem_pool.h"
#include "store_batch.h"

enum {
    /* One fills, one is written, two wait to be collected, the others to be written. */
    BATCHES = 8,
    COLLECTED_MAX = 2,
    /* A batch of so many changes is filled no further while there are others: what the core does
     * when it is durable takes about a millisecond. */
    BATCH_CHANGES = 8192,
    RETRY_MS = 1000,
    /* How long the reader waits for memory before it tries again. */
    MEMORY_RETRY_MS = 50,
    RESERVE_DEFAULT = 16 << 20,
};

struct queue {
    struct lmdb_fetch *first, *last;
};

struct lmdb_store {
    struct store base;
    struct lmdb_store_options options; /* borrowed strings are not used after the opening */
    struct lmdb_log log;
    struct lmdb_file file;
    uint64_t reserve_bytes;

    /* The core's thread alone. */
    struct store_events events;
    struct store_batch batches[BATCHES];
    struct store_batch *filling;
    uint64_t last_ticket;
    bool published;   /* `filling` is the last of `ready` too, unless the writer has taken it */
    bool failed_told; /* events.failed was called */
    bool full_told;   /* as the log has it */

    /* Shared, under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t writer_wakes, reader_wakes;
    struct store_batch *ready[BATCHES]; /* flushed, in order */
    size_t ready_count;
    struct store_batch *done[BATCHES]; /* durable, to be collected, in order */
    size_t done_count;
    bool is_free[BATCHES];
    struct queue asked, answered;
    bool full; /* also read without the lock */
    char full_why[LMDB_TEXT_MAX];
    bool failed;
    char failed_why[LMDB_TEXT_MAX];
    bool stopping;

    pthread_t writer_thread, reader_thread;
    struct lmdb_writer writer;
    uint64_t rows_written, rows_read; /* the writer's and the reader's, see lmdb_file_count_rows */
};

static struct lmdb_store *of(struct store *store)
{
    return (struct lmdb_store *)store;
}

static void wake_core(struct lmdb_store *store)
{
    store->options.notify(store->options.ctx);
}

/* Commits nothing from now on. The first reason counts. */
static void fail(struct lmdb_store *store, const char *what, const char *why)
{
    (void)pthread_mutex_lock(&store->lock);
    if (!store->failed) {
        store->failed = true;
        (void)snprintf(store->failed_why, sizeof store->failed_why, "%s: %s", what, why);
    }
    (void)pthread_cond_signal(&store->writer_wakes);
    (void)pthread_cond_signal(&store->reader_wakes);
    (void)pthread_mutex_unlock(&store->lock);
    wake_core(store);
}

static void set_full(struct lmdb_store *store, bool full, const char *why)
{
    (void)pthread_mutex_lock(&store->lock);
    bool changed = store->full != full;
    __atomic_store_n(&store->full, full, __ATOMIC_RELAXED);
    (void)snprintf(store->full_why, sizeof store->full_why, "%s", why);
    (void)pthread_mutex_unlock(&store->lock);
    if (changed) {
        wake_core(store);
    }
}

/* The store is full while less than the reserve is left, and until there is a quarter more. */
static void look_for_room(struct lmdb_store *store)
{
    bool full = __atomic_load_n(&store->full, __ATOMIC_RELAXED);
    uint64_t wanted = full ? store->reserve_bytes + store->reserve_bytes / 4 : store->reserve_bytes;
    set_full(store, lmdb_room(&store->file, wanted) < wanted, "little room is left");
}

static struct timespec in_ms(long ms)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += ms / 1000;
    at.tv_nsec += ms % 1000 * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

/* Waits for `ms` or until the store stops; false: it stops, or has failed. With the lock. */
static bool pause_for(struct lmdb_store *store, pthread_cond_t *wakes, long ms)
{
    struct timespec at = in_ms(ms);
    while (!store->stopping && !store->failed &&
           pthread_cond_timedwait(wakes, &store->lock, &at) != ETIMEDOUT) {
    }
    return !store->stopping && !store->failed;
}

/* True: the batch is durable. False: it never will be, and the store has failed or gives up. */
static bool write_until_done(struct lmdb_store *store, struct store_batch *batch)
{
    for (;;) {
        int error = lmdb_write_batch(&store->writer, batch);
        if (error == 0) {
            lmdb_file_count_rows(&store->file, batch->change_count, &store->rows_written);
            look_for_room(store);
            return true;
        }
        if (!lmdb_is_no_room(&store->file, error)) {
            fail(store, "cannot write the store", mdb_strerror(error));
            return false;
        }
        set_full(store, true, mdb_strerror(error));
        (void)pthread_mutex_lock(&store->lock);
        bool again = pause_for(store, &store->writer_wakes, RETRY_MS);
        (void)pthread_mutex_unlock(&store->lock);
        if (!again) {
            /* A last try at the end: there may be room now. */
            error = lmdb_write_batch(&store->writer, batch);
            if (error != 0) {
                fail(store, "cannot write the last changes", mdb_strerror(error));
            }
            return error == 0;
        }
    }
}

static struct store_batch *take_first(struct store_batch **batches, size_t *count)
{
    struct store_batch *first = batches[0];
    --*count;
    memmove(batches, batches + 1, *count * sizeof(struct store_batch *));
    return first;
}

/* The next batch to write, or NULL when the thread is to end. With the lock, which it lets go while
 * it looks for room. */
static struct store_batch *next_batch(struct lmdb_store *store)
{
    for (;;) {
        if (store->failed) {
            return NULL;
        }
        if (store->ready_count != 0 && (store->done_count < COLLECTED_MAX || store->stopping)) {
            return take_first(store->ready, &store->ready_count);
        }
        if (store->stopping) {
            return NULL;
        }
        if (!store->full) {
            (void)pthread_cond_wait(&store->writer_wakes, &store->lock);
            continue;
        }
        struct timespec at = in_ms(RETRY_MS);
        if (pthread_cond_timedwait(&store->writer_wakes, &store->lock, &at) == ETIMEDOUT) {
            (void)pthread_mutex_unlock(&store->lock);
            look_for_room(store);
            (void)pthread_mutex_lock(&store->lock);
        }
    }
}

static void *write_batches(void *argument)
{
    struct lmdb_store *store = argument;
    (void)pthread_mutex_lock(&store->lock);
    struct store_batch *batch;
    while ((batch = next_batch(store)) != NULL) {
        (void)pthread_mutex_unlock(&store->lock);
        bool durable = write_until_done(store, batch);
        (void)pthread_mutex_lock(&store->lock);
        if (durable) {
            store->done[store->done_count++] = batch;
            wake_core(store);
        }
    }
    (void)pthread_mutex_unlock(&store->lock);
    return NULL;
}

static void push(struct queue *queue, struct lmdb_fetch *fetch)
{
    fetch->next = NULL;
    if (queue->last == NULL) {
        queue->first = fetch;
    } else {
        queue->last->next = fetch;
    }
    queue->last = fetch;
}

static struct lmdb_fetch *pop(struct queue *queue)
{
    struct lmdb_fetch *fetch = queue->first;
    if (fetch != NULL) {
        queue->first = fetch->next;
        queue->last = queue->first == NULL ? NULL : queue->last;
    }
    return fetch;
}

/* Each fetch reads in a transaction of its own, so that it keeps no pages from being used again. */
static int answer(struct lmdb_store *store, struct lmdb_fetch *fetch, MDB_txn **txn)
{
    int error =
        *txn == NULL ? mdb_txn_begin(store->file.env, NULL, MDB_RDONLY, txn) : mdb_txn_renew(*txn);
    if (error != 0) {
        return error;
    }
    error = lmdb_fetch_answer(fetch, &store->file, *txn);
    mdb_txn_reset(*txn);
    lmdb_file_count_rows(&store->file, fetch->asked, &store->rows_read);
    return error;
}

static void *read_messages(void *argument)
{
    struct lmdb_store *store = argument;
    MDB_txn *txn = NULL;
    (void)pthread_mutex_lock(&store->lock);
    while (!store->stopping && !store->failed) {
        struct lmdb_fetch *fetch = store->asked.first;
        if (fetch == NULL) {
            (void)pthread_cond_wait(&store->reader_wakes, &store->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&store->lock);
        int error = answer(store, fetch, &txn);
        if (error != 0 && error != ENOMEM) {
            fail(store, "cannot read the store", mdb_strerror(error));
        }
        (void)pthread_mutex_lock(&store->lock);
        if (error == 0) {
            push(&store->answered, pop(&store->asked));
            wake_core(store);
        } else if (error == ENOMEM) {
            (void)pause_for(store, &store->reader_wakes, MEMORY_RETRY_MS);
        }
    }
    (void)pthread_mutex_unlock(&store->lock);
    if (txn != NULL) {
        mdb_txn_abort(txn);
    }
    mem_pool_drain();
    return NULL;
}

/* A batch that nobody uses, or BATCHES. With the lock. */
static size_t find_free(const struct lmdb_store *store)
{
    size_t free = 0;
    while (free != BATCHES && !store->is_free[free]) {
        free++;
    }
    return free;
}

/* The batch that a change goes to. One that was flushed and not yet taken is filled further, unless
 * it is large. */
static struct store_batch *changing(struct lmdb_store *store)
{
    if (!store->published) {
        return store->filling;
    }
    (void)pthread_mutex_lock(&store->lock);
    store->published = false;
    size_t free = find_free(store);
    bool is_taken =
        store->ready_count == 0 || store->ready[store->ready_count - 1] != store->filling;
    if (!is_taken && (store->filling->change_count < BATCH_CHANGES || free == BATCHES)) {
        store->ready_count--;
        (void)pthread_mutex_unlock(&store->lock);
        return store->filling;
    }
    ENSURE(free != BATCHES); /* when this one was taken, no others waited to be written */
    store->is_free[free] = false;
    (void)pthread_mutex_unlock(&store->lock);
    store->filling = &store->batches[free];
    store_batch_reset(store->filling, ++store->last_ticket);
    return store->filling;
}

static void set_events(struct store *base, const struct store_events *events)
{
    of(base)->events = *events;
}

static enum status load(struct store *base, const struct store_loader *loader)
{
    const struct lmdb_file *file = &of(base)->file;
    enum status status = lmdb_load(file, &of(base)->log, loader, false);
    lmdb_file_unmap_pages(file);
    return status;
}

static void append(struct store *base, struct message *message, uint64_t expires_unix_ms,
                   const struct store_recipient *recipients, size_t count)
{
    store_batch_append(changing(of(base)), message, expires_unix_ms, recipients, count);
}

static void add(struct store *base, uint64_t arrival, const struct store_recipient *recipient)
{
    store_batch_add(changing(of(base)), arrival, recipient);
}

static void update(struct store *base, uint64_t arrival, enum store_role role, uint64_t session,
                   uint16_t packet_id, enum store_state state)
{
    store_batch_update(changing(of(base)), arrival, role, session, packet_id, state);
}

static void finish(struct store *base, uint64_t arrival, enum store_role role, uint64_t session)
{
    store_batch_finish(changing(of(base)), arrival, role, session);
}

static void put_session(struct store *base, const struct store_session *session)
{
    store_batch_put_session(changing(of(base)), session);
}

static void delete_session(struct store *base, uint64_t number)
{
    store_batch_delete_session(changing(of(base)), number);
}

static void put_subscription(struct store *base, const struct store_subscription *subscription)
{
    store_batch_put_subscription(changing(of(base)), subscription);
}

static void delete_subscription(struct store *base, uint64_t session, struct bytes filter)
{
    store_batch_delete_subscription(changing(of(base)), session, filter);
}

static void fetch(struct store *base, uint64_t session, const uint64_t *arrivals, size_t count)
{
    struct lmdb_store *store = of(base);
    struct lmdb_fetch *wanted = lmdb_fetch_create(session, arrivals, count);
    if (wanted == NULL) {
        fail(store, "cannot read messages back", "no memory");
        return;
    }
    (void)pthread_mutex_lock(&store->lock);
    push(&store->asked, wanted);
    (void)pthread_cond_signal(&store->reader_wakes);
    (void)pthread_mutex_unlock(&store->lock);
}

/* What was flushed may be taken between this and the next change: it is taken back first, so that
 * the answer is true of both what was done and what comes next. */
static uint64_t ticket(const struct store *base)
{
    return changing((struct lmdb_store *)(uintptr_t)base)->ticket;
}

static bool is_full(const struct store *base)
{
    return __atomic_load_n(&((const struct lmdb_store *)base)->full, __ATOMIC_RELAXED);
}

static void flush(struct store *base)
{
    struct lmdb_store *store = of(base);
    if (store->published || store->filling->change_count == 0) {
        return;
    }
    if (store->filling->failed) {
        fail(store, "cannot keep changes", "no memory");
        return;
    }
    (void)pthread_mutex_lock(&store->lock);
    store->ready[store->ready_count++] = store->filling;
    store->published = true;
    (void)pthread_cond_signal(&store->writer_wakes);
    (void)pthread_mutex_unlock(&store->lock);
}

static void destroy(struct store *base)
{
    struct lmdb_store *store = of(base);
    flush(base);
    (void)pthread_mutex_lock(&store->lock);
    store->stopping = true;
    (void)pthread_cond_signal(&store->writer_wakes);
    (void)pthread_cond_signal(&store->reader_wakes);
    (void)pthread_mutex_unlock(&store->lock);
    (void)pthread_join(store->writer_thread, NULL);
    (void)pthread_join(store->reader_thread, NULL);
    if (store->failed && !store->failed_told) {
        lmdb_log(&store->log, STORE_LOG_ERROR, "store %s: %s", store->file.path, store->failed_why);
    }
    struct lmdb_fetch *left;
    while ((left = pop(&store->asked)) != NULL || (left = pop(&store->answered)) != NULL) {
        lmdb_fetch_destroy(left);
    }
    for (size_t i = 0; i < BATCHES; i++) {
        store_batch_fini(&store->batches[i]);
    }
    lmdb_writer_fini(&store->writer);
    lmdb_file_close(&store->file);
    (void)pthread_cond_destroy(&store->writer_wakes);
    (void)pthread_cond_destroy(&store->reader_wakes);
    (void)pthread_mutex_destroy(&store->lock);
    mem_free(store);
}

static const struct store_ops ops = {
    .set_events = set_events,
    .load = load,
    .append = append,
    .add = add,
    .update = update,
    .finish = finish,
    .put_session = put_session,
    .delete_session = delete_session,
    .put_subscription = put_subscription,
    .delete_subscription = delete_subscription,
    .fetch = fetch,
    .ticket = ticket,
    .is_full = is_full,
    .flush = flush,
    .destroy = destroy,
};

/* Both threads, with all signals blocked: those are the core's. */
static bool start_threads(struct lmdb_store *store)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    bool writer = pthread_create(&store->writer_thread, NULL, write_batches, store) == 0;
    bool reader = writer && pthread_create(&store->reader_thread, NULL, read_messages, store) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (writer && !reader) {
        (void)pthread_mutex_lock(&store->lock);
        store->stopping = true;
        (void)pthread_cond_signal(&store->writer_wakes);
        (void)pthread_mutex_unlock(&store->lock);
        (void)pthread_join(store->writer_thread, NULL);
    }
    return reader;
}

/* The path of the file, locked and sound, and then opened. */
static enum status open_file(struct lmdb_store *store, const struct lmdb_store_options *options)
{
    const char *name = options->file_name == NULL ? LMDB_STORE_FILE : options->file_name;
    char *prefix = lmdb_path(options->directory, "/");
    char *path = prefix == NULL ? NULL : lmdb_path(prefix, name);
    int lock = -1;
    enum status status = path == NULL ? STATUS_NO_MEMORY : lmdb_lock(path, &store->log, &lock);
    if (status == STATUS_OK) {
        status = lmdb_repair(path, options->map_bytes, &store->log);
    }
    if (status == STATUS_OK) {
        status = lmdb_file_open(path, options->map_bytes, &store->log, &store->file);
    }
    if (status == STATUS_OK) {
        store->file.lock = lock;
    } else {
        lmdb_unlock(lock);
    }
    mem_free(prefix);
    mem_free(path);
    return status;
}

static void init(struct lmdb_store *store, const struct lmdb_store_options *options)
{
    store->base.ops = &ops;
    store->options = *options;
    store->log = (struct lmdb_log){options->log, options->ctx};
    store->file.lock = -1;
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&store->lock, NULL);
    (void)pthread_cond_init(&store->writer_wakes, &monotonic);
    (void)pthread_cond_init(&store->reader_wakes, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
}

enum status lmdb_store_open(const struct lmdb_store_options *options, struct store **out)
{
    *out = NULL;
    struct lmdb_store *store = mem_zalloc(sizeof *store);
    if (store == NULL) {
        return STATUS_NO_MEMORY;
    }
    init(store, options);
    enum status status = open_file(store, options);
    if (status == STATUS_OK) {
        uint64_t reserve = options->reserve_bytes == 0 ? RESERVE_DEFAULT : options->reserve_bytes;
        store->reserve_bytes =
            reserve > store->file.map_bytes / 4 ? store->file.map_bytes / 4 : reserve;
        store->writer.file = &store->file;
        for (size_t i = 0; i < BATCHES; i++) {
            store_batch_init(&store->batches[i], &store->file.meta.seed, 0);
            store->is_free[i] = true;
        }
        store->is_free[0] = false;
        store->filling = &store->batches[0];
        store_batch_reset(store->filling, ++store->last_ticket);
        look_for_room(store);
        if (!start_threads(store)) {
            lmdb_log(&store->log, STORE_LOG_ERROR, "cannot start a thread for the store");
            status = STATUS_IO;
        }
    }
    if (status != STATUS_OK) {
        lmdb_file_close(&store->file);
        (void)pthread_cond_destroy(&store->writer_wakes);
        (void)pthread_cond_destroy(&store->reader_wakes);
        (void)pthread_mutex_destroy(&store->lock);
        mem_free(store);
        return status;
    }
    *out = &store->base;
    return STATUS_OK;
}

/* One line when the store becomes full and one when it no longer is. */
static void tell_full(struct lmdb_store *store, bool full, const char *why)
{
    if (full == store->full_told) {
        return;
    }
    store->full_told = full;
    if (full) {
        lmdb_log(&store->log, STORE_LOG_WARNING,
                 "store %s is full (%s): nothing new is accepted until there is room",
                 store->file.path, why);
    } else {
        lmdb_log(&store->log, STORE_LOG_NOTICE, "store %s has room again", store->file.path);
    }
}

static void deliver(struct lmdb_store *store, struct lmdb_fetch *fetch)
{
    if (fetch->damaged != 0) {
        lmdb_log(&store->log, STORE_LOG_ERROR,
                 "store %s: %zu messages of session %llu cannot be read any more", store->file.path,
                 fetch->damaged, (unsigned long long)fetch->session);
    }
    store->events.fetched(store->events.ctx, fetch->session, fetch->items, fetch->answered);
    fetch->answered = 0; /* the messages are the callee's */
    lmdb_fetch_destroy(fetch);
}

static void commit_done(struct lmdb_store *store, struct store_batch *done)
{
    uint64_t committed = done->ticket;
    store_batch_reset(done, 0);
    (void)pthread_mutex_lock(&store->lock);
    store->is_free[done - store->batches] = true;
    (void)pthread_mutex_unlock(&store->lock);
    store->events.committed(store->events.ctx, committed);
}

void lmdb_store_collect(struct store *base)
{
    struct lmdb_store *store = of(base);
    char why[LMDB_TEXT_MAX];
    (void)pthread_mutex_lock(&store->lock);
    struct store_batch *done =
        store->done_count == 0 ? NULL : take_first(store->done, &store->done_count);
    bool has_more = store->done_count != 0;
    struct queue answered = store->answered;
    store->answered = (struct queue){NULL, NULL};
    bool full = store->full;
    bool failed = store->failed;
    memcpy(why, failed ? store->failed_why : store->full_why, sizeof why);
    if (done != NULL) {
        (void)pthread_cond_signal(&store->writer_wakes);
    }
    (void)pthread_mutex_unlock(&store->lock);

    if (done != NULL) {
        commit_done(store, done);
    }
    if (has_more) {
        wake_core(store); /* in a turn of its own */
    }
    struct lmdb_fetch *fetch;
    while ((fetch = pop(&answered)) != NULL) {
        deliver(store, fetch);
    }
    if (!failed) {
        tell_full(store, full, why);
    } else if (!store->failed_told) {
        store->failed_told = true;
        store->events.failed(store->events.ctx, why);
    }
}
