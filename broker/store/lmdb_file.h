/*
 * lmdb_file: the file of an lmdb_store, opened: the environment, its tables, and the lock that
 * keeps others off.
 *
 *   Threads    Opened and closed on one thread; LMDB's rules hold for what is done with it.
 */
#ifndef STORE_LMDB_FILE_H
#define STORE_LMDB_FILE_H

#include <lmdb.h>
#include <stdarg.h>

#include "lmdb_store.h"
#include "store_row.h"

enum { LMDB_TEXT_MAX = 512 };

/* Where log lines go. */
struct lmdb_log {
    store_log_fn *write;
    void *ctx;
};

void lmdb_log(const struct lmdb_log *log, enum store_severity severity, const char *format, ...)
    PRINTF_LIKE(3, 4);

struct lmdb_file {
    char *path;
    int lock; /* descriptor of the lock file; -1: none */
    MDB_env *env;
    MDB_dbi tables[STORE_TABLE_COUNT];
    struct store_row_meta meta;
    uint64_t map_bytes;
    void *map; /* the address of the file's first page; NULL: not known */
};

/* `path` followed by `suffix`, to be freed with mem_free; NULL when there is no memory. */
MUST_USE char *lmdb_path(const char *path, const char *suffix);

/* Takes the lock beside `path` for this process. Errors: STATUS_IO, logged; STATUS_NO_MEMORY. */
MUST_USE enum status lmdb_lock(const char *path, const struct lmdb_log *log, int *lock);

/* Lets go of it. -1 is allowed. */
void lmdb_unlock(int lock);

/* Makes the entries of the directory that holds `path` durable. */
MUST_USE enum status lmdb_sync_directory(const char *path);

/*
 * Opens `path`, which must be a sound store or not exist, without taking the lock. `meta` is
 * written when the file is new. On failure *out needs no lmdb_file_close.
 *
 * Errors: STATUS_IO, logged; STATUS_NO_MEMORY.
 */
MUST_USE enum status lmdb_file_open(const char *path, uint64_t map_bytes,
                                    const struct lmdb_log *log, struct lmdb_file *out);

/* Closes everything, the lock at last. */
void lmdb_file_close(struct lmdb_file *file);

/*
 * Pages of the file that were looked at stay mapped, in the process's memory. This gives them back:
 * they are the system's cache then, and come again when they are looked at. Any thread, while
 * others read and write.
 */
void lmdb_file_unmap_pages(const struct lmdb_file *file);

/* The same each time when a thread has read or written so many rows that it is worth a system call.
 * `counted` is the thread's own, 0 at first. */
void lmdb_file_count_rows(const struct lmdb_file *file, uint64_t rows, uint64_t *counted);

static inline MDB_val lmdb_val(struct bytes bytes)
{
    return (MDB_val){.mv_size = bytes.len, .mv_data = (void *)(uintptr_t)bytes.data};
}

static inline struct bytes lmdb_bytes(const MDB_val *val)
{
    return bytes_of(val->mv_data, val->mv_size);
}

static inline struct bytes lmdb_key(const struct store_key *key)
{
    return bytes_of(key->data, key->len);
}

#endif
