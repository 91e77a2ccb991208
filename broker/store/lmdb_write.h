/*
 * lmdb_write: one batch becomes one transaction.
 *
 *   Threads    The store's writer thread.
 */
#ifndef STORE_LMDB_WRITE_H
#define STORE_LMDB_WRITE_H

#include "lmdb_file.h"
#include "store_batch.h"

struct lmdb_writer {
    struct lmdb_file *file;
    struct store_buffer row;
    MDB_txn *txn; /* during a call */
    MDB_cursor *messages, *blobs;
    uint64_t commits;
};

/*
 * Writes and syncs the batch; when this returns 0 it is durable. Anything else is LMDB's or the
 * system's error, and nothing was written.
 */
MUST_USE int lmdb_write_batch(struct lmdb_writer *writer, struct store_batch *batch);

/* True for the errors that pass when there is room again. */
bool lmdb_is_no_room(const struct lmdb_file *file, int error);

/* Bytes that may still be written: what is left of the map or the disk, whichever is less, and
 * pages of the file that are free. Counts no further than to `enough`. */
uint64_t lmdb_room(const struct lmdb_file *file, uint64_t enough);

void lmdb_writer_fini(struct lmdb_writer *writer);

#endif
