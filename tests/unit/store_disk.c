#include "store_disk.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"

static void on_log(void *ctx, enum store_severity severity, const char *text)
{
    struct disk *disk = ctx;
    size_t used = strlen(disk->log);
    (void)snprintf(disk->log + used, sizeof disk->log - used, "%d %s\n", (int)severity, text);
}

static void on_notify(void *ctx)
{
    struct disk *disk = ctx;
    if (__atomic_exchange_n(&disk->fail_in_thread, false, __ATOMIC_RELAXED)) {
        mem_fail_at(1);
    }
    (void)sem_post(&disk->notified);
}

static void on_committed(void *ctx, uint64_t ticket)
{
    struct disk *disk = ctx;
    ENSURE(ticket == disk->committed + 1);
    disk->committed = ticket;
    disk->committed_calls++;
}

static void on_fetched(void *ctx, uint64_t session, const struct store_fetched *items, size_t count)
{
    struct disk *disk = ctx;
    ENSURE(count != 0 && count <= STORE_FETCH_MAX);
    disk->fetched_session = session;
    memcpy(disk->fetched, items, count * sizeof *items);
    for (size_t i = 0; i < count; i++) {
        const struct store_recipient *r = &items[i].recipient;
        disk->fetched_identifiers[i] = r->identifier_count == 0 ? 0 : r->identifiers[0];
    }
    disk->fetched_count = count;
    disk->fetched_calls++;
}

static void on_failed(void *ctx, const char *why)
{
    struct disk *disk = ctx;
    (void)snprintf(disk->failed, sizeof disk->failed, "%s", why);
    disk->failed_calls++;
}

void disk_create(struct disk *disk)
{
    memset(disk, 0, sizeof *disk);
    const char *base = getenv("TMPDIR");
    (void)snprintf(disk->directory, sizeof disk->directory, "%s/dunlin-store-XXXXXX",
                   base == NULL ? "/tmp" : base);
    ENSURE(mkdtemp(disk->directory) != NULL);
    (void)snprintf(disk->file, sizeof disk->file, "%s/%s", disk->directory, LMDB_STORE_FILE);
    ENSURE(sem_init(&disk->notified, 0, 0) == 0);
    disk->options = (struct lmdb_store_options){.directory = disk->directory,
                                                .map_bytes = 64 << 20,
                                                .ctx = disk,
                                                .log = on_log,
                                                .notify = on_notify};
}

void disk_remove(struct disk *disk)
{
    disk_close(disk);
    DIR *directory = opendir(disk->directory);
    ENSURE(directory != NULL);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        (void)unlinkat(dirfd(directory), entry->d_name, 0);
    }
    (void)closedir(directory);
    ENSURE(rmdir(disk->directory) == 0);
    (void)sem_destroy(&disk->notified);
}

enum status disk_open(struct disk *disk)
{
    enum status status = lmdb_store_open(&disk->options, &disk->store);
    const struct store_events events = {disk, on_committed, on_fetched, on_failed};
    ENSURE((disk->store != NULL) == (status == STATUS_OK));
    disk->committed = 0;
    if (status == STATUS_OK) {
        store_set_events(disk->store, &events);
    }
    return status;
}

void disk_close(struct disk *disk)
{
    store_destroy(disk->store);
    disk->store = NULL;
    while (sem_trywait(&disk->notified) == 0) {
    }
}

void disk_wait(struct disk *disk)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    int result;
    while ((result = sem_timedwait(&disk->notified, &until)) != 0 && errno == EINTR) {
    }
    ENSURE(result == 0);
    lmdb_store_collect(disk->store);
}

void disk_commit(struct disk *disk)
{
    uint64_t ticket = store_ticket(disk->store);
    store_put_session(disk->store, &(struct store_session){.number = UINT64_MAX});
    store_delete_session(disk->store, UINT64_MAX);
    store_flush(disk->store);
    while (disk->committed < ticket && disk->failed_calls == 0) {
        disk_wait(disk);
    }
}

void disk_fetch(struct disk *disk, uint64_t session, const uint64_t *arrivals, size_t count)
{
    unsigned calls = disk->fetched_calls;
    store_fetch(disk->store, session, arrivals, count);
    while (disk->fetched_calls == calls && disk->failed_calls == 0) {
        disk_wait(disk);
    }
}

bool disk_has_logged(const struct disk *disk, const char *text)
{
    return strstr(disk->log, text) != NULL;
}
