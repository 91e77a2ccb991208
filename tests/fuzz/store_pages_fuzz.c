/*
 * The walk over the pages of a store that may be damaged in any way. The input is a list of places
 * and of what is written there, over a small sound store: page (1 byte), offset (2), value (1); an
 * offset with its top bit set leaves out all pages from there on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lmdb_repair.h"

enum { ROWS = 100, PAGE = 4096, PATCH = 4, STORE_MAX = 1 << 20 };

static uint8_t sound[STORE_MAX];
static size_t sound_len;

static void ignore_log(void *ctx, enum store_severity severity, const char *text)
{
    (void)ctx;
    (void)severity;
    (void)text;
}

static void put(MDB_txn *txn, const struct lmdb_file *file, enum store_table table,
                const struct store_key *key, struct bytes row)
{
    static uint8_t sealed[16384];
    ENSURE(row.len + STORE_CHECKSUM_LEN <= sizeof sealed);
    bytes_copy(sealed + STORE_CHECKSUM_LEN, row);
    store_row_seal(table, lmdb_key(key), sealed, row.len + STORE_CHECKSUM_LEN);
    MDB_val key_val = lmdb_val(lmdb_key(key));
    MDB_val row_val = lmdb_val(bytes_of(sealed, row.len + STORE_CHECKSUM_LEN));
    ENSURE(mdb_put(txn, file->tables[table], &key_val, &row_val, 0) == 0);
}

/* Rows of all sizes in more than one level of pages, overflow pages, and free pages. */
static void fill(struct lmdb_file *file)
{
    static const uint8_t row[10000];
    for (unsigned commit = 0; commit < 4; commit++) {
        MDB_txn *txn = NULL;
        ENSURE(mdb_txn_begin(file->env, NULL, 0, &txn) == 0);
        for (uint64_t i = commit; i < ROWS; i += 2) {
            const struct store_key number = store_key_number(i);
            const struct store_key piece = store_key_piece(i, 0);
            uint8_t encoded[400];
            struct writer writer = writer_of(encoded, sizeof encoded);
            const struct store_session session = {.client_id = bytes_of(row, i * 3)};
            store_row_session_write(&writer, &session);
            ENSURE(writer_ok(&writer));
            put(txn, file, STORE_TABLE_SESSION, &number,
                bytes_from(writer_written(&writer), STORE_CHECKSUM_LEN));
            if (i % 20 == 10) {
                put(txn, file, STORE_TABLE_BLOB, &piece, bytes_of(row, 100 * i));
            }
        }
        ENSURE(mdb_txn_commit(txn) == 0);
    }
}

static void make_sound(void)
{
    char directory[] = "/tmp/dunlin-fuzz-XXXXXX";
    char path[64];
    char lock[64];
    ENSURE(mkdtemp(directory) != NULL);
    (void)snprintf(path, sizeof path, "%s/store", directory);
    (void)snprintf(lock, sizeof lock, "%s/store-lock", directory);
    const struct lmdb_log log = {ignore_log, NULL};
    struct lmdb_file file;
    ENSURE(lmdb_file_open(path, STORE_MAX, &log, &file) == STATUS_OK);
    fill(&file);
    lmdb_file_close(&file);
    FILE *stream = fopen(path, "re");
    ENSURE(stream != NULL);
    sound_len = fread(sound, 1, sizeof sound, stream);
    ENSURE(fclose(stream) == 0 && sound_len < sizeof sound && sound_len % PAGE == 0);
    ENSURE(unlink(path) == 0 && unlink(lock) == 0 && rmdir(directory) == 0);
}

static void examine(const uint8_t *image, size_t len, bool is_sound)
{
    int fd = memfd_create("store", MFD_CLOEXEC);
    ENSURE(fd >= 0 && write(fd, image, len) == (ssize_t)len);
    struct lmdb_pages pages;
    struct lmdb_findings findings;
    enum status status = lmdb_pages_open(fd, &pages);
    ENSURE(status == STATUS_OK || !is_sound);
    for (size_t i = 0; status == STATUS_OK && i < pages.snapshot_count; i++) {
        ENSURE(lmdb_examine(&pages, &pages.snapshots[i], &findings) == STATUS_OK);
        ENSURE(!findings.is_sound || findings.walk.damages == 0);
        /* The pieces have no messages, so the store as a whole is not; its pages are. */
        ENSURE(!is_sound || findings.walk.damages == 0);
        ENSURE(!is_sound || findings.walk.rows[STORE_TABLE_SESSION] == ROWS);
    }
    ENSURE(close(fd) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t image[STORE_MAX];
    if (sound_len == 0) {
        make_sound();
        examine(sound, sound_len, true);
    }
    memcpy(image, sound, sound_len);
    size_t len = sound_len;
    for (; size >= PATCH; data += PATCH, size -= PATCH) {
        size_t at = data[0] * (size_t)PAGE;
        size_t offset = (size_t)data[1] << 8 | data[2];
        if (at >= sound_len) {
            continue;
        }
        if ((offset & 0x8000) != 0) {
            len = at;
        } else {
            image[at + offset % PAGE] = data[3];
        }
    }
    examine(image, len, false);
    return 0;
}
