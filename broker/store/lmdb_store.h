/*
 * lmdb_store: the store on disk, one LMDB file. docs/storage.md describes the file, what is synced
 * when, and how damage is dealt with.
 *
 * A writer thread commits one batch while the next one fills, and takes that at once when it has
 * been flushed; a reader thread answers fetches. Both hand their results to lmdb_store_collect.
 *
 *   Cost       A change: store_batch's. A commit: two syncs, whatever the number of changes.
 *   Memory     Batches in progress and the pages that LMDB has dirtied; none for stored messages.
 *   Threads    Two of its own. All calls, events and log lines are on the core's thread;
 *              options.notify alone is called from the store's threads.
 */
#ifndef STORE_LMDB_H
#define STORE_LMDB_H

#include <stdint.h>

#include "store.h"

enum store_severity { STORE_LOG_ERROR, STORE_LOG_WARNING, STORE_LOG_NOTICE };

typedef void store_log_fn(void *ctx, enum store_severity severity, const char *text);

#define LMDB_STORE_FILE "dunlin.db"

struct lmdb_store_options {
    const char *directory; /* must exist */
    const char *file_name; /* NULL: LMDB_STORE_FILE */
    /* The file may grow to this size; 0: to 1 TiB, or what the address space allows. It takes no
     * more room on the disk than it needs. */
    uint64_t map_bytes;
    /* Room that is kept for finishing what was accepted: with less left, in the map or on the disk,
     * the store is full. 0: 16 MiB. */
    uint64_t reserve_bytes;
    void *ctx;
    store_log_fn *log;
    /* From any thread: lmdb_store_collect is to be called soon. Must not block. */
    void (*notify)(void *ctx);
};

/*
 * Opens the file or makes it. A damaged file is set aside and everything that can still be read is
 * copied to a new one. End with store_destroy.
 *
 * Errors: STATUS_NO_MEMORY; STATUS_IO, and the log says why: another process has it, it is not a
 * store of ours or a newer one, the system refused. The file is then untouched.
 */
MUST_USE enum status lmdb_store_open(const struct lmdb_store_options *options, struct store **out);

/* Releases what was committed and calls the events that are due. */
void lmdb_store_collect(struct store *store);

#endif
