/*
 * lmdb_read: rows become messages again, at the start and for fetches.
 *
 *   Threads    lmdb_load: the core's. Answers are made on the store's reader thread and belong to
 *              the core's thread from then on.
 */
#ifndef STORE_LMDB_READ_H
#define STORE_LMDB_READ_H

#include "lmdb_file.h"

/* store_load. Rows that cannot be read are left out and logged. `all_bodies`: of every message,
 * not just of the retained ones. */
MUST_USE enum status lmdb_load(const struct lmdb_file *file, const struct lmdb_log *log,
                               const struct store_loader *loader, bool all_bodies);

/* What one store_fetch asks for, and then its answer, in one block. */
struct lmdb_fetch {
    struct lmdb_fetch *next;
    uint64_t session;
    size_t asked, answered;
    size_t damaged; /* answers that are NULL because of a damaged row */
    struct store_buffer identifiers;
    struct store_fetched items[];
};

/* A request; end it with lmdb_fetch_destroy. NULL when there is no memory. */
MUST_USE struct lmdb_fetch *lmdb_fetch_create(uint64_t session, const uint64_t *arrivals,
                                              size_t count);

/* Frees it with the messages that it still holds (items whose message is not NULL). */
void lmdb_fetch_destroy(struct lmdb_fetch *fetch);

/*
 * Answers at least one item of the fetch and as many as are asked for, unless they are large.
 * Returns 0, ENOMEM when not even one could be answered, or LMDB's error.
 */
MUST_USE int lmdb_fetch_answer(struct lmdb_fetch *fetch, const struct lmdb_file *file,
                               MDB_txn *txn);

#endif
