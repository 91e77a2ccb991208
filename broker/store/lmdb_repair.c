#include "lmdb_repair.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"

enum {
    ROWS_EACH_COMMIT = 20000,
    ASIDE_TRIES = 100,
};

struct examination {
    struct lmdb_findings *findings;
    uint64_t pieces_needed;
};

/* Decodes a row: the same as what the store will ask of it. */
static bool row_is_good(void *ctx, enum store_table table, struct bytes key, struct bytes row)
{
    struct examination *examination = ctx;
    struct store_row_meta meta;
    struct store_session session;
    struct store_will will;
    struct store_subscription subscription;
    struct store_row_message message;
    uint64_t arrival;
    uint32_t index;
    switch (table) {
    case STORE_TABLE_META:
        if (!store_row_meta_decode(key, row, &meta)) {
            return false;
        }
        examination->findings->format = meta.format;
        return true;
    case STORE_TABLE_SESSION:
        return store_row_session_decode(key, row, &session, &will);
    case STORE_TABLE_SUBSCRIPTION:
        return store_row_subscription_decode(key, row, &subscription);
    case STORE_TABLE_BLOB:
        return store_key_read_piece(key, &arrival, &index) && row.len > STORE_CHECKSUM_LEN &&
               store_row_is_sealed(table, key, row);
    case STORE_TABLE_MESSAGE:
        if (!store_row_message_decode(key, row, &message)) {
            return false;
        }
        examination->findings->recipients += message.recipient_count;
        examination->pieces_needed += store_row_piece_count(&message);
        return true;
    case STORE_TABLE_COUNT:
        break;
    }
    return false;
}

enum status lmdb_examine(const struct lmdb_pages *pages, const struct lmdb_snapshot *snapshot,
                         struct lmdb_findings *out)
{
    *out = (struct lmdb_findings){.format = 0};
    struct examination examination = {.findings = out};
    enum status status = lmdb_pages_walk(pages, snapshot, row_is_good, &examination, &out->walk);
    uint64_t pieces = out->walk.rows[STORE_TABLE_BLOB];
    uint64_t needed = examination.pieces_needed;
    out->missing_pieces = needed > pieces ? needed - pieces : 0;
    out->extra_pieces = pieces > needed ? pieces - needed : 0;
    out->is_sound = status == STATUS_OK && out->walk.is_ours && out->walk.damages == 0 &&
                    out->walk.foreign_tables == 0 && out->format == STORE_FORMAT &&
                    pieces == needed;
    return status;
}

/* A copy of the good rows into a new file. */
struct copying {
    struct lmdb_file *to;
    MDB_txn *txn;
    struct store_buffer row;
    unsigned uncommitted;
    int error; /* the first */
};

static int put(struct copying *copying, enum store_table table, struct bytes key, struct bytes row)
{
    MDB_val key_val = lmdb_val(key);
    MDB_val row_val = lmdb_val(row);
    return mdb_put(copying->txn, copying->to->tables[table], &key_val, &row_val, 0);
}

/* The new file hashes filters with a seed of its own, which gives the row another key. */
static int put_subscription(struct copying *copying, struct bytes old_key, struct bytes row)
{
    struct store_subscription subscription;
    if (!store_row_subscription_decode(old_key, row, &subscription)) {
        return 0;
    }
    if (store_buffer_reserve(&copying->row, row.len) != STATUS_OK) {
        return ENOMEM;
    }
    uint64_t hash = hash_bytes(&copying->to->meta.seed, subscription.filter);
    memcpy(copying->row.data, row.data, row.len);
    for (uint16_t collision = 0;; collision++) {
        const struct store_key key = store_key_subscription(subscription.session, hash, collision);
        store_row_seal(STORE_TABLE_SUBSCRIPTION, lmdb_key(&key), copying->row.data, row.len);
        MDB_val key_val = lmdb_val(lmdb_key(&key));
        MDB_val row_val = lmdb_val(bytes_of(copying->row.data, row.len));
        int error = mdb_put(copying->txn, copying->to->tables[STORE_TABLE_SUBSCRIPTION], &key_val,
                            &row_val, MDB_NOOVERWRITE);
        if (error != MDB_KEYEXIST || collision == UINT16_MAX) {
            return error;
        }
    }
}

/* True when all pieces of the message are in the new file. They were copied before. */
static bool pieces_are_there(struct copying *copying, struct bytes key,
                             const struct store_row_message *message)
{
    uint64_t arrival;
    uint64_t left = (uint64_t)message->properties_len + message->payload_len;
    if (!store_key_read_number(key, &arrival)) {
        return false;
    }
    for (uint32_t index = 0; index < store_row_piece_count(message); index++) {
        const struct store_key piece = store_key_piece(arrival, index);
        MDB_val key_val = lmdb_val(lmdb_key(&piece));
        MDB_val row;
        uint64_t len = left < STORE_PIECE_MAX ? left : STORE_PIECE_MAX;
        if (mdb_get(copying->txn, copying->to->tables[STORE_TABLE_BLOB], &key_val, &row) != 0 ||
            row.mv_size != STORE_CHECKSUM_LEN + len) {
            return false;
        }
        left -= len;
    }
    return true;
}

static int renew(struct copying *copying)
{
    int error = copying->txn == NULL ? 0 : mdb_txn_commit(copying->txn);
    copying->txn = NULL;
    copying->uncommitted = 0;
    return error != 0 ? error : mdb_txn_begin(copying->to->env, NULL, 0, &copying->txn);
}

static bool copy_row(void *ctx, enum store_table table, struct bytes key, struct bytes row)
{
    struct copying *copying = ctx;
    struct lmdb_findings ignored = {.format = 0};
    struct examination examination = {.findings = &ignored};
    struct store_row_message message;
    if (copying->error != 0 || !row_is_good(&examination, table, key, row)) {
        return false;
    }
    if (++copying->uncommitted == ROWS_EACH_COMMIT) {
        copying->error = renew(copying);
    }
    if (copying->error != 0) {
        return false;
    }
    if (table == STORE_TABLE_META) {
        return true; /* the new file has its own */
    }
    if (table == STORE_TABLE_MESSAGE && !(store_row_message_decode(key, row, &message) &&
                                          pieces_are_there(copying, key, &message))) {
        return false;
    }
    copying->error = table == STORE_TABLE_SUBSCRIPTION ? put_subscription(copying, key, row)
                                                       : put(copying, table, key, row);
    return copying->error == 0;
}

/* Pieces whose message is lost go too. */
static int delete_extra_pieces(struct copying *copying)
{
    MDB_cursor *cursor = NULL;
    int error = mdb_cursor_open(copying->txn, copying->to->tables[STORE_TABLE_BLOB], &cursor);
    while (error == 0) {
        MDB_val key;
        MDB_val row;
        error = mdb_cursor_get(cursor, &key, &row, MDB_NEXT);
        uint64_t arrival;
        uint32_t index;
        if (error != 0 || !store_key_read_piece(lmdb_bytes(&key), &arrival, &index)) {
            break;
        }
        const struct store_key wanted = store_key_number(arrival);
        MDB_val wanted_val = lmdb_val(lmdb_key(&wanted));
        struct store_row_message message;
        int found =
            mdb_get(copying->txn, copying->to->tables[STORE_TABLE_MESSAGE], &wanted_val, &row);
        if (found != 0 ||
            !store_row_message_decode(lmdb_key(&wanted), lmdb_bytes(&row), &message) ||
            index >= store_row_piece_count(&message)) {
            error = mdb_cursor_del(cursor, 0);
        }
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    return error == MDB_NOTFOUND ? 0 : error;
}

/* Fills the new file `to`; *walk says what was copied. */
static int copy_rows(const struct lmdb_pages *pages, const struct lmdb_snapshot *snapshot,
                     struct lmdb_file *to, struct lmdb_walk *walk)
{
    struct copying copying = {.to = to};
    /* Nobody sees the file before it is synced as a whole. */
    copying.error = mdb_env_set_flags(to->env, MDB_NOSYNC, 1);
    if (copying.error == 0) {
        copying.error = renew(&copying);
    }
    if (copying.error == 0 &&
        lmdb_pages_walk(pages, snapshot, copy_row, &copying, walk) != STATUS_OK) {
        copying.error = ENOMEM;
    }
    if (copying.error == 0) {
        copying.error = delete_extra_pieces(&copying);
    }
    if (copying.error != 0 && copying.txn != NULL) {
        mdb_txn_abort(copying.txn);
    } else if (copying.error == 0) {
        copying.error = mdb_txn_commit(copying.txn);
    }
    store_buffer_fini(&copying.row);
    return copying.error != 0 ? copying.error : mdb_env_sync(to->env, 1);
}

/* A name for the damaged file that is not taken: path.damaged-YYYYMMDD-HHMMSS, in UTC. */
static char *name_aside(const char *path)
{
    char suffix[64];
    time_t now = time(NULL);
    struct tm tm;
    (void)gmtime_r(&now, &tm);
    size_t len = strftime(suffix, sizeof suffix, ".damaged-%Y%m%d-%H%M%S", &tm);
    for (unsigned i = 0; i < ASIDE_TRIES; i++) {
        if (i != 0) {
            (void)snprintf(suffix + len, sizeof suffix - len, "-%u", i);
        }
        char *name = lmdb_path(path, suffix);
        if (name == NULL || access(name, F_OK) != 0) {
            return name;
        }
        mem_free(name);
    }
    return NULL;
}

static void remove_file(const char *path, const char *suffix)
{
    char *name = lmdb_path(path, suffix);
    if (name != NULL) {
        (void)unlink(name);
        mem_free(name);
    }
}

/* Puts the complete file `fresh` at `path`; at no moment is there none, or one in part. */
static enum status replace(const char *path, const char *fresh, const char *aside,
                           const struct lmdb_log *log)
{
    remove_file(fresh, "-lock");
    enum status status = STATUS_OK;
    if (aside != NULL && link(path, aside) != 0) {
        /* No hard links here: the two change names at once. */
        if (renameat2(AT_FDCWD, path, AT_FDCWD, fresh, RENAME_EXCHANGE) != 0 ||
            rename(fresh, aside) != 0) {
            status = STATUS_IO;
        }
    } else if (rename(fresh, path) != 0) {
        status = STATUS_IO;
    }
    if (status == STATUS_OK) {
        status = lmdb_sync_directory(path);
    }
    if (status == STATUS_IO) {
        lmdb_log(log, STORE_LOG_ERROR, "cannot put a new file in place of store %s: %s", path,
                 strerror(errno));
    }
    return status;
}

static void log_kept(const char *path, const char *aside, const struct lmdb_walk *kept,
                     const struct lmdb_log *log)
{
    static const struct {
        enum store_table table;
        const char *name;
    } shown[] = {{STORE_TABLE_SESSION, "sessions"},
                 {STORE_TABLE_SUBSCRIPTION, "subscriptions"},
                 {STORE_TABLE_MESSAGE, "messages"}};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        uint64_t rows = kept->rows[shown[i].table];
        uint64_t entries = kept->entries[shown[i].table];
        lmdb_log(log, STORE_LOG_WARNING, "store %s: %llu %s kept, %llu lost", path,
                 (unsigned long long)rows, shown[i].name,
                 (unsigned long long)(entries > rows ? entries - rows : 0));
    }
    lmdb_log(log, STORE_LOG_WARNING, "store %s: the damaged file is kept as %s", path, aside);
}

/* A new file with what `snapshot` holds (NULL: nothing), and, for a damaged one, its name aside. */
static enum status make_file(const char *path, uint64_t map_bytes, const struct lmdb_pages *pages,
                             const struct lmdb_snapshot *snapshot, const struct lmdb_log *log)
{
    char *fresh = lmdb_path(path, ".new");
    char *aside = snapshot == NULL ? NULL : name_aside(path);
    struct lmdb_file file = {.lock = -1};
    struct lmdb_walk kept = {.is_ours = false};
    enum status status = STATUS_NO_MEMORY;
    if (fresh == NULL || (snapshot != NULL && aside == NULL)) {
        goto cleanup;
    }
    remove_file(path, ".new");
    remove_file(path, ".new-lock");
    status = lmdb_file_open(fresh, map_bytes, log, &file);
    if (status == STATUS_OK && snapshot != NULL) {
        int error = copy_rows(pages, snapshot, &file, &kept);
        if (error != 0) {
            lmdb_log(log, STORE_LOG_ERROR, "cannot write %s: %s", fresh, mdb_strerror(error));
            status = error == ENOMEM ? STATUS_NO_MEMORY : STATUS_IO;
        }
    }
    lmdb_file_close(&file);
    if (status == STATUS_OK) {
        status = replace(path, fresh, aside, log);
    } else {
        remove_file(path, ".new");
        remove_file(path, ".new-lock");
    }
    if (status == STATUS_OK && snapshot != NULL) {
        log_kept(path, aside, &kept, log);
    }
cleanup:
    mem_free(fresh);
    mem_free(aside);
    return status;
}

static uint64_t rows_of(const struct lmdb_findings *findings)
{
    return findings->walk.rows[STORE_TABLE_SESSION] +
           findings->walk.rows[STORE_TABLE_SUBSCRIPTION] + findings->walk.rows[STORE_TABLE_MESSAGE];
}

/* What there is to say about a file whose newest snapshot is not sound. */
static enum status repair_damaged(const char *path, uint64_t map_bytes,
                                  const struct lmdb_pages *pages,
                                  const struct lmdb_findings *newest, const struct lmdb_log *log)
{
    struct lmdb_findings older = {.format = 0};
    if (pages->snapshot_count == 2) {
        enum status status = lmdb_examine(pages, &pages->snapshots[1], &older);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (!newest->walk.is_ours && !older.walk.is_ours) {
        lmdb_log(log, STORE_LOG_ERROR,
                 "%s is not a store of Dunlin, or none that can be read; it is left as it is",
                 path);
        return STATUS_IO;
    }
    if (newest->format > STORE_FORMAT || older.format > STORE_FORMAT) {
        lmdb_log(log, STORE_LOG_ERROR,
                 "store %s has format %u, and this version of Dunlin knows formats up to %d", path,
                 newest->format > older.format ? newest->format : older.format, STORE_FORMAT);
        return STATUS_IO;
    }
    lmdb_log(log, STORE_LOG_ERROR, "store %s is damaged (%s)", path,
             newest->walk.damages != 0 ? newest->walk.first_damage
                                       : "parts of messages are missing");
    /* The state before the last commit is whole, so it is taken unless more is left of the newest:
     * one bad row of a large commit is not to cost the others. */
    bool use_older =
        older.is_sound ? rows_of(&older) >= rows_of(newest) : rows_of(&older) > rows_of(newest);
    if (use_older) {
        lmdb_log(log, STORE_LOG_WARNING,
                 "store %s: the last commit cannot be read, the state before it is used", path);
    }
    return make_file(path, map_bytes, pages, &pages->snapshots[use_older], log);
}

static enum status repair_open(int fd, const char *path, uint64_t map_bytes,
                               const struct lmdb_log *log)
{
    struct lmdb_pages pages;
    struct lmdb_findings newest;
    enum status status = lmdb_pages_open(fd, &pages);
    if (status == STATUS_INVALID) {
        lmdb_log(log, STORE_LOG_ERROR, "%s is not a store of Dunlin; it is left as it is", path);
        return STATUS_IO;
    }
    if (status == STATUS_OK) {
        status = lmdb_examine(&pages, &pages.snapshots[0], &newest);
    } else if (status == STATUS_IO) {
        lmdb_log(log, STORE_LOG_ERROR, "cannot read store %s: %s", path, strerror(errno));
    }
    if (status != STATUS_OK || (newest.is_sound && !pages.meta_damaged)) {
        return status;
    }
    if (newest.is_sound) {
        /* LMDB wants both meta pages, and which of them was the newer one nobody knows. */
        lmdb_log(log, STORE_LOG_ERROR,
                 "store %s is damaged (a meta page): it may lack the last "
                 "commit",
                 path);
        return make_file(path, map_bytes, &pages, &pages.snapshots[0], log);
    }
    return repair_damaged(path, map_bytes, &pages, &newest, log);
}

enum status lmdb_repair(const char *path, uint64_t map_bytes, const struct lmdb_log *log)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT) {
        lmdb_log(log, STORE_LOG_ERROR, "cannot open store %s: %s", path, strerror(errno));
        return STATUS_IO;
    }
    struct stat info = {.st_size = 0};
    enum status status = STATUS_OK;
    if (fd >= 0 && fstat(fd, &info) == 0 && !S_ISREG(info.st_mode)) {
        lmdb_log(log, STORE_LOG_ERROR, "%s is not a file", path);
        status = STATUS_IO;
    } else if (info.st_size == 0) {
        status = make_file(path, map_bytes, NULL, NULL, log);
    } else {
        status = repair_open(fd, path, map_bytes, log);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}
