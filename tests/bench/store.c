/*
 * store: what the store on disk costs, without a broker: store DIRECTORY [ROWS]
 *
 * Durable messages for each second, in a steady state (each batch appends N messages and finishes N
 * earlier ones), and what opening, loading and fetching ROWS queued messages takes. The directory
 * must exist and have no store in it; what is written there stays.
 */
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "lmdb_store.h"

enum { BACKLOG = 10000, PAYLOAD = 64, RUN_MS = 2000, FILL_BATCH = 10000 };

static sem_t notified;
static uint64_t committed, fetched, loaded;
static uint64_t next_arrival = 1;

static void on_log(void *ctx, enum store_severity severity, const char *text)
{
    (void)ctx;
    (void)severity;
    (void)fprintf(stderr, "%s\n", text);
}

static void on_notify(void *ctx)
{
    (void)ctx;
    (void)sem_post(&notified);
}

static void on_committed(void *ctx, uint64_t ticket)
{
    (void)ctx;
    committed = ticket;
}

static void on_fetched(void *ctx, uint64_t session, const struct store_fetched *items, size_t count)
{
    (void)ctx;
    (void)session;
    for (size_t i = 0; i < count; i++) {
        message_release(items[i].message);
    }
    fetched += count;
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    (void)fprintf(stderr, "%s\n", why);
    exit(EXIT_FAILURE);
}

static enum status on_session(void *ctx, const struct store_session *session)
{
    (void)ctx;
    (void)session;
    return STATUS_OK;
}

static enum status on_subscription(void *ctx, const struct store_subscription *subscription)
{
    (void)ctx;
    (void)subscription;
    return STATUS_OK;
}

static enum status on_message(void *ctx, const struct store_message *message,
                              struct bytes properties, struct bytes payload,
                              const struct store_recipient *recipients, size_t count)
{
    (void)ctx;
    (void)message;
    (void)properties;
    (void)payload;
    (void)recipients;
    loaded += count;
    return STATUS_OK;
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct store *open_store(const char *directory)
{
    const struct lmdb_store_options options = {
        .directory = directory, .log = on_log, .notify = on_notify};
    const struct store_events events = {NULL, on_committed, on_fetched, on_failed};
    struct store *store = NULL;
    if (lmdb_store_open(&options, &store) != STATUS_OK) {
        exit(EXIT_FAILURE);
    }
    store_set_events(store, &events);
    committed = 0;
    return store;
}

static void append(struct store *store, uint64_t count)
{
    static char payload[PAYLOAD];
    for (uint64_t i = 0; i < count; i++) {
        struct message *message = NULL;
        if (message_create(bytes_of_string("sensors/hall/temperature"), 0,
                           bytes_of(payload, sizeof payload), &message) != STATUS_OK) {
            exit(EXIT_FAILURE);
        }
        message->sequence = next_arrival++;
        message->qos = 1;
        const struct store_recipient recipient = {.session = message->sequence % 100 + 1, .qos = 1};
        store_append(store, message, STORE_TIME_NEVER, &recipient, 1);
        message_release(message);
    }
}

static void finish(struct store *store, uint64_t first, uint64_t count)
{
    for (uint64_t arrival = first; arrival < first + count; arrival++) {
        store_finish(store, arrival, STORE_QUEUED, arrival % 100 + 1);
    }
}

/* Hands the batch on and waits while another one is still before it. */
static void pace(struct store *store, uint64_t behind)
{
    uint64_t ticket = store_ticket(store);
    store_flush(store);
    while (committed + behind < ticket) {
        while (sem_wait(&notified) != 0) {
        }
        lmdb_store_collect(store);
    }
}

static void steady(struct store *store, uint64_t batch)
{
    uint64_t count = 0;
    double start = seconds(CLOCK_MONOTONIC);
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    while (seconds(CLOCK_MONOTONIC) - start < RUN_MS / 1000.0) {
        uint64_t first = next_arrival - BACKLOG;
        append(store, batch);
        finish(store, first, batch);
        pace(store, 1);
        count += batch;
    }
    pace(store, 1);
    double elapsed = seconds(CLOCK_MONOTONIC) - start;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    (void)printf("%6" PRIu64 " appended and finished a batch: %8.1f thousand durable messages/s, "
                 "%.2f us CPU each, %.2f ms a batch\n",
                 batch, (double)count / elapsed / 1000, cpu * 1e6 / (double)count,
                 elapsed * 1000 / ((double)count / (double)batch));
}

static void report(const char *what, double since, uint64_t rows)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    (void)printf("%-28s %8.3f s for %" PRIu64 " rows; peak resident %ld MiB\n", what,
                 seconds(CLOCK_MONOTONIC) - since, rows, usage.ru_maxrss / 1024);
}

static void fetch(struct store *store, uint64_t session, const uint64_t *wanted, size_t count)
{
    uint64_t goal = fetched + count;
    if (count != 0) {
        store_fetch(store, session, wanted, count);
    }
    while (fetched < goal) {
        while (sem_wait(&notified) != 0) {
        }
        lmdb_store_collect(store);
    }
}

static void fetch_all(struct store *store, uint64_t first, uint64_t rows)
{
    uint64_t wanted[STORE_FETCH_MAX];
    for (uint64_t session = 1; session <= 100; session++) {
        size_t count = 0;
        for (uint64_t arrival = first; arrival < first + rows; arrival++) {
            if (arrival % 100 + 1 == session) {
                wanted[count++] = arrival;
            }
            if (count == STORE_FETCH_MAX) {
                fetch(store, session, wanted, count);
                count = 0;
            }
        }
        fetch(store, session, wanted, count);
    }
}

int main(int argc, char *argv[])
{
    if (argc < 2 || argc > 3 || sem_init(&notified, 0, 0) != 0) {
        (void)fprintf(stderr, "usage: store DIRECTORY [ROWS]\n");
        return 64;
    }
    uint64_t rows = argc == 3 ? strtoull(argv[2], NULL, 10) : 1000000;
    struct store *store = open_store(argv[1]);
    append(store, BACKLOG);
    pace(store, 0);
    for (uint64_t batch = 1; batch <= 1000; batch *= 10) {
        steady(store, batch);
    }
    finish(store, next_arrival - BACKLOG, BACKLOG);
    pace(store, 0);
    uint64_t first = next_arrival;
    double start = seconds(CLOCK_MONOTONIC);
    for (uint64_t done = 0; done < rows; done += FILL_BATCH) {
        append(store, FILL_BATCH);
        pace(store, 1);
    }
    report("queued", start, rows);
    store_destroy(store);
    start = seconds(CLOCK_MONOTONIC);
    store = open_store(argv[1]);
    report("verified and opened", start, rows);
    const struct store_loader loader = {NULL, on_session, on_subscription, on_message};
    start = seconds(CLOCK_MONOTONIC);
    if (store_load(store, &loader) != STATUS_OK) {
        return EXIT_FAILURE;
    }
    report("loaded", start, loaded);
    start = seconds(CLOCK_MONOTONIC);
    fetch_all(store, first, rows);
    report("fetched", start, fetched);
    store_destroy(store);
    return EXIT_SUCCESS;
}
