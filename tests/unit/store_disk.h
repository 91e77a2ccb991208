/*
 * store_disk: an lmdb_store in a directory of its own, for tests: opened, waited for, closed, and
 * opened again.
 */
#ifndef TESTS_STORE_DISK_H
#define TESTS_STORE_DISK_H

#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "lmdb_store.h"

enum { DISK_LOG_MAX = 16384, DISK_PATH_MAX = 256 };

struct disk {
    char directory[DISK_PATH_MAX];
    char file[DISK_PATH_MAX + 32]; /* the store's file */
    struct lmdb_store_options options;
    struct store *store;
    sem_t notified;
    /* Set: the next notification makes the next allocation of the thread that it is from fail. */
    bool fail_in_thread;
    uint64_t committed; /* the last ticket */
    unsigned committed_calls;
    uint64_t fetched_session;
    struct store_fetched fetched[STORE_FETCH_MAX];
    uint32_t fetched_identifiers[STORE_FETCH_MAX]; /* the first of each */
    size_t fetched_count;
    unsigned fetched_calls;
    char failed[512]; /* why; empty: it has not */
    unsigned failed_calls;
    char log[DISK_LOG_MAX]; /* a line each */
};

/* Makes the directory and fills in options; changes to them are made before disk_open. */
void disk_create(struct disk *disk);

/* Closes the store if it is open and removes the directory with all that is in it. */
void disk_remove(struct disk *disk);

enum status disk_open(struct disk *disk);
void disk_close(struct disk *disk);

/* Waits for a notification, at most ten seconds, and collects. */
void disk_wait(struct disk *disk);

/* Flushes and waits until all that was changed so far is committed, or the store has failed. */
void disk_commit(struct disk *disk);

/* Fetches and waits for the answer. */
void disk_fetch(struct disk *disk, uint64_t session, const uint64_t *arrivals, size_t count);

/* True when a line of the log has `text` in it. */
bool disk_has_logged(const struct disk *disk, const char *text);

#endif
