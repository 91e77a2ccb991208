/*
 * lmdb_repair: sees to it that the file is sound before LMDB opens it.
 *
 * A new file appears under its name only when it is complete. A damaged one is set aside, and what
 * can still be read of it is put into a new one: every row that is good, or the state of the commit
 * before, when that is sound and no fewer rows.
 *
 *   Threads    One, before the store opens the file.
 */
#ifndef STORE_LMDB_REPAIR_H
#define STORE_LMDB_REPAIR_H

#include <stdio.h>

#include "lmdb_file.h"
#include "lmdb_pages.h"

/* What a look at one snapshot of a file found. */
struct lmdb_findings {
    struct lmdb_walk walk;
    uint32_t format; /* 0: not found */
    uint64_t recipients;
    uint64_t missing_pieces; /* of large messages */
    uint64_t extra_pieces;   /* that no message needs */
    bool is_sound;
};

/* Looks at `snapshot`. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status lmdb_examine(const struct lmdb_pages *pages,
                                  const struct lmdb_snapshot *snapshot, struct lmdb_findings *out);

/*
 * Leaves at `path` a sound store of this version: the one that was there, a new one, or what could
 * be read of a damaged one. The caller holds the lock.
 *
 * Errors: STATUS_IO, logged: not a store of ours, a newer one, the system refused; the file is
 * then as it was. STATUS_NO_MEMORY.
 */
MUST_USE enum status lmdb_repair(const char *path, uint64_t map_bytes, const struct lmdb_log *log);

#endif
