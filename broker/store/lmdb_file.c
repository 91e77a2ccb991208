#include "lmdb_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "mem.h"

#define MAP_BYTES_DEFAULT                                                                          \
    ((uint64_t)SIZE_MAX >> 1 < (UINT64_C(1) << 40) ? UINT64_C(1) << 30 : UINT64_C(1) << 40)
#define MAP_BYTES_LEAST (UINT64_C(1) << 28)

/* Rows that a thread reads or writes between two times that it gives mapped pages back: few enough
 * that new messages, of which each page is looked at once, leave little behind, and so many that
 * looking at old ones all over the file again costs next to nothing. */
enum { ROWS_MAPPED_MAX = 65536 };

void lmdb_log(const struct lmdb_log *log, enum store_severity severity, const char *format, ...)
{
    char text[LMDB_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log->write(log->ctx, severity, text);
}

char *lmdb_path(const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char *joined = mem_alloc(size);
    if (joined != NULL) {
        (void)snprintf(joined, size, "%s%s", path, suffix);
    }
    return joined;
}

static void log_holder(const char *path, const char *lock_path, int lock,
                       const struct lmdb_log *log)
{
    char holder[32] = {0};
    ssize_t len = pread(lock, holder, sizeof holder - 1, 0);
    long pid = len <= 0 ? 0 : strtol(holder, NULL, 10);
    if (pid > 0) {
        lmdb_log(log, STORE_LOG_ERROR, "store %s is in use by process %ld (%s)", path, pid,
                 lock_path);
    } else {
        lmdb_log(log, STORE_LOG_ERROR, "store %s is in use by another process (%s)", path,
                 lock_path);
    }
}

enum status lmdb_lock(const char *path, const struct lmdb_log *log, int *lock)
{
    *lock = -1;
    char *lock_path = lmdb_path(path, ".lock");
    if (lock_path == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status = STATUS_IO;
    int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        lmdb_log(log, STORE_LOG_ERROR, "cannot open %s: %s", lock_path, strerror(errno));
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            log_holder(path, lock_path, fd, log);
        } else {
            lmdb_log(log, STORE_LOG_ERROR, "cannot lock %s: %s", lock_path, strerror(errno));
        }
    } else {
        /* Only a hint for whoever finds it locked. */
        char holder[32];
        int len = snprintf(holder, sizeof holder, "%ld\n", (long)getpid());
        if (ftruncate(fd, 0) == 0) {
            (void)!pwrite(fd, holder, (size_t)len, 0);
        }
        *lock = fd;
        fd = -1;
        status = STATUS_OK;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    mem_free(lock_path);
    return status;
}

void lmdb_unlock(int lock)
{
    if (lock >= 0) {
        (void)close(lock);
    }
}

enum status lmdb_sync_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash == NULL ? mem_copy_string(bytes_of_string("."))
                                    : mem_copy_string(bytes_of(path, (size_t)(slash + 1 - path)));
    if (directory == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status = STATUS_IO;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        /* Some file systems cannot sync a directory and have no need to. */
        status = fsync(fd) == 0 || errno == EINVAL ? STATUS_OK : STATUS_IO;
        (void)close(fd);
    }
    mem_free(directory);
    return status;
}

/* Opens the environment with the largest map that the address space allows. */
static int open_env(struct lmdb_file *file, uint64_t map_bytes)
{
    uint64_t wanted = map_bytes == 0 ? MAP_BYTES_DEFAULT : map_bytes;
    for (;;) {
        int error = mdb_env_create(&file->env);
        if (error != 0) {
            file->env = NULL;
            return error;
        }
        error = mdb_env_set_mapsize(file->env, (size_t)wanted);
        if (error == 0) {
            error = mdb_env_set_maxdbs(file->env, STORE_TABLE_COUNT);
        }
        if (error == 0) {
            error = mdb_env_open(file->env, file->path, MDB_NOSUBDIR | MDB_NOTLS, 0600);
        }
        if (error == 0) {
            return 0;
        }
        mdb_env_close(file->env);
        file->env = NULL;
        if (error != ENOMEM || map_bytes != 0 || wanted <= MAP_BYTES_LEAST) {
            return error;
        }
        wanted /= 2;
    }
}

static int write_meta(struct lmdb_file *file, MDB_txn *txn)
{
    uint8_t row[STORE_ROW_META_SIZE];
    struct bytes key = bytes_of_string(STORE_META_KEY);
    file->meta.format = STORE_FORMAT;
    if (getrandom(&file->meta.seed, sizeof file->meta.seed, 0) != sizeof file->meta.seed) {
        return EIO;
    }
    struct writer writer = writer_of(row, sizeof row);
    store_row_meta_write(&writer, &file->meta);
    ENSURE(writer_ok(&writer));
    store_row_seal(STORE_TABLE_META, key, row, writer_len(&writer));
    MDB_val key_val = lmdb_val(key);
    MDB_val row_val = lmdb_val(writer_written(&writer));
    return mdb_put(txn, file->tables[STORE_TABLE_META], &key_val, &row_val, 0);
}

/* Makes the tables that are missing, and the meta row. */
static int open_tables(struct lmdb_file *file)
{
    MDB_txn *txn = NULL;
    int error = mdb_txn_begin(file->env, NULL, 0, &txn);
    if (error != 0) {
        return error;
    }
    for (int table = 0; table < STORE_TABLE_COUNT && error == 0; table++) {
        error = mdb_dbi_open(txn, store_table_names[table], MDB_CREATE, &file->tables[table]);
    }
    MDB_val key = lmdb_val(bytes_of_string(STORE_META_KEY));
    MDB_val row;
    if (error == 0) {
        error = mdb_get(txn, file->tables[STORE_TABLE_META], &key, &row);
        if (error == MDB_NOTFOUND) {
            error = write_meta(file, txn);
        } else if (error == 0 &&
                   !store_row_meta_decode(lmdb_bytes(&key), lmdb_bytes(&row), &file->meta)) {
            error = MDB_CORRUPTED;
        } else if (error == 0 && file->meta.format != STORE_FORMAT) {
            error = MDB_VERSION_MISMATCH;
        }
    }
    if (error != 0) {
        mdb_txn_abort(txn);
        return error;
    }
    return mdb_txn_commit(txn);
}

/* LMDB does not say where its map is. A row does: it is in the map, and each page of the file
 * begins with its number. */
static void *find_map(const struct lmdb_file *file)
{
    MDB_txn *txn = NULL;
    if (mdb_txn_begin(file->env, NULL, MDB_RDONLY, &txn) != 0) {
        return NULL;
    }
    MDB_envinfo info;
    MDB_stat stat;
    (void)mdb_env_info(file->env, &info);
    (void)mdb_env_stat(file->env, &stat);
    MDB_val key = lmdb_val(bytes_of_string(STORE_META_KEY));
    MDB_val row;
    uintptr_t map = 0;
    if (mdb_get(txn, file->tables[STORE_TABLE_META], &key, &row) == 0) {
        uintptr_t page = (uintptr_t)row.mv_data & ~((uintptr_t)stat.ms_psize - 1);
        size_t number;
        memcpy(&number, (const void *)page, sizeof number);
        if (number <= info.me_last_pgno) {
            map = page - number * stat.ms_psize;
        }
    }
    mdb_txn_abort(txn);
    return (void *)map;
}

void lmdb_file_unmap_pages(const struct lmdb_file *file)
{
    MDB_envinfo info;
    MDB_stat stat;
    (void)mdb_env_info(file->env, &info);
    (void)mdb_env_stat(file->env, &stat);
    if (file->map != NULL) {
        (void)madvise(file->map, (info.me_last_pgno + 1) * stat.ms_psize, MADV_DONTNEED);
    }
}

void lmdb_file_count_rows(const struct lmdb_file *file, uint64_t rows, uint64_t *counted)
{
    *counted += rows;
    if (*counted >= ROWS_MAPPED_MAX) {
        *counted = 0;
        lmdb_file_unmap_pages(file);
    }
}

enum status lmdb_file_open(const char *path, uint64_t map_bytes, const struct lmdb_log *log,
                           struct lmdb_file *out)
{
    *out = (struct lmdb_file){.lock = -1};
    out->path = mem_copy_string(bytes_of_string(path));
    if (out->path == NULL) {
        return STATUS_NO_MEMORY;
    }
    int error = open_env(out, map_bytes);
    if (error == 0) {
        error = open_tables(out);
    }
    enum status status = STATUS_OK;
    if (error != 0) {
        lmdb_log(log, STORE_LOG_ERROR, "cannot open store %s: %s", path, mdb_strerror(error));
        status = error == ENOMEM ? STATUS_NO_MEMORY : STATUS_IO;
    } else {
        MDB_envinfo info;
        (void)mdb_env_info(out->env, &info);
        out->map_bytes = info.me_mapsize;
        out->map = find_map(out);
        status = lmdb_sync_directory(path);
        if (status == STATUS_IO) {
            lmdb_log(log, STORE_LOG_ERROR, "cannot sync the directory of %s: %s", path,
                     strerror(errno));
        }
    }
    if (status != STATUS_OK) {
        lmdb_file_close(out);
    }
    return status;
}

void lmdb_file_close(struct lmdb_file *file)
{
    if (file->env != NULL) {
        mdb_env_close(file->env);
    }
    lmdb_unlock(file->lock);
    mem_free(file->path);
    *file = (struct lmdb_file){.lock = -1};
}
