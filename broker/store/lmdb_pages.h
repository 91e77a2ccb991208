/*
 * lmdb_pages: reads the pages of an LMDB 0.9 file without LMDB, believing nothing.
 *
 * LMDB trusts its file: a damaged page can make it read or write anywhere. So each file is walked
 * with this before LMDB sees it: every page that can be reached is checked, and so are the list of
 * free pages and the order of keys. A walk goes on after damage and so yields every row that is
 * still there, for a new file.
 *
 *   Cost       One pass over the pages in use, a bit of memory for each page of the file.
 *   Threads    Any; no state but the walk's own.
 */
#ifndef STORE_LMDB_PAGES_H
#define STORE_LMDB_PAGES_H

#include "store_row.h"

enum { LMDB_DAMAGE_MAX = 160 };

/* A tree of pages: a table, LMDB's list of tables or its list of free pages. */
struct lmdb_tree {
    uint16_t flags, depth;
    uint64_t entries, root;
};

/* What a commit left. An LMDB file holds the last two. */
struct lmdb_snapshot {
    uint64_t transaction;
    uint64_t last_page;
    struct lmdb_tree free_pages, tables;
};

struct lmdb_pages {
    int fd; /* borrowed */
    size_t page_size;
    uint64_t page_count;               /* of the file */
    struct lmdb_snapshot snapshots[2]; /* the newest first */
    size_t snapshot_count;
    bool meta_damaged; /* one of the two meta pages */
};

/* One row of a table of ours. False: it is damaged. */
typedef bool lmdb_row_fn(void *ctx, enum store_table table, struct bytes key, struct bytes row);

struct lmdb_walk {
    bool is_ours;                        /* a table of ours was found */
    uint64_t foreign_tables;             /* others */
    uint64_t entries[STORE_TABLE_COUNT]; /* as the file says */
    uint64_t rows[STORE_TABLE_COUNT];    /* that are good */
    uint64_t damages;                    /* places that are wrong */
    char first_damage[LMDB_DAMAGE_MAX];  /* the first of them */
};

/*
 * Reads the two meta pages. `fd` must stay open. Errors: STATUS_INVALID: not an LMDB file that this
 * machine can use; STATUS_IO: errno says why; STATUS_NO_MEMORY.
 */
MUST_USE enum status lmdb_pages_open(int fd, struct lmdb_pages *out);

/*
 * Walks one snapshot, table by table in the order of enum store_table, and calls `on_row` for each
 * row. What is wrong is counted in *out and does not end the walk. Errors: STATUS_NO_MEMORY.
 */
MUST_USE enum status lmdb_pages_walk(const struct lmdb_pages *pages,
                                     const struct lmdb_snapshot *snapshot, lmdb_row_fn *on_row,
                                     void *ctx, struct lmdb_walk *out);

#endif
