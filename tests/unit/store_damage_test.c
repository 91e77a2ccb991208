/* store/lmdb_repair: files that are damaged, foreign or of a newer version. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <lmdb.h>

#include "lmdb_file.h"
#include "store_disk.h"
#include "store_model.h"

enum { PAGE = 4096, FILE_MAX = 8 << 20 };

static struct disk disk;
static struct model model;
static uint8_t image[FILE_MAX], before[FILE_MAX], damaged[FILE_MAX];
static size_t image_len, before_len;

static int make(void **state)
{
    (void)state;
    disk_create(&disk);
    return 0;
}

static int clean(void **state)
{
    (void)state;
    disk_remove(&disk);
    return 0;
}

static void write_file(const void *data, size_t len)
{
    FILE *file = fopen(disk.file, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static size_t read_file(void *data)
{
    FILE *file = fopen(disk.file, "re");
    assert_non_null(file);
    size_t len = fread(data, 1, FILE_MAX, file);
    assert_true(len < FILE_MAX);
    assert_int_equal(fclose(file), 0);
    return len;
}

/* Opens what is in `data`, which must be refused and left alone. */
static void assert_refused(const void *data, size_t len, const char *logged)
{
    write_file(data, len);
    disk.log[0] = '\0';
    assert_int_equal(disk_open(&disk), STATUS_IO);
    assert_true(disk_has_logged(&disk, logged));
    assert_int_equal(read_file(image), len);
    assert_memory_equal(image, data, len);
}

static void foreign_files_are_left_alone(void **state)
{
    (void)state;
    static const uint8_t mosquitto[] = "\x00\xB5\x00mosquitto db\x00\x00\x00\x00\x00\x00\x00\x06";
    static uint8_t text[20000];
    memset(text, 'x', sizeof text);
    assert_refused(mosquitto, sizeof mosquitto, "is not a store of Dunlin");
    assert_refused(text, sizeof text, "is not a store of Dunlin");
    assert_refused("\0", 1, "is not a store of Dunlin");
    assert_int_equal(unlink(disk.file), 0);
    /* Somebody else's LMDB file. */
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi table = 0;
    MDB_val val = {3, (void *)(uintptr_t) "abc"};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 2), 0);
    assert_int_equal(mdb_env_open(env, disk.file, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "theirs", MDB_CREATE, &table), 0);
    assert_int_equal(mdb_put(txn, table, &val, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    before_len = read_file(before);
    assert_refused(before, before_len, "is not a store of Dunlin");
}

static void a_newer_format_is_refused(void **state)
{
    (void)state;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    disk_close(&disk);
    const struct lmdb_log log = {disk.options.log, &disk};
    struct lmdb_file file;
    assert_int_equal(lmdb_file_open(disk.file, 1 << 20, &log, &file), STATUS_OK);
    uint8_t row[STORE_ROW_META_SIZE];
    struct bytes key = bytes_of_string(STORE_META_KEY);
    struct store_row_meta meta = {.format = STORE_FORMAT + 1};
    struct writer writer = writer_of(row, sizeof row);
    store_row_meta_write(&writer, &meta);
    store_row_seal(STORE_TABLE_META, key, row, sizeof row);
    MDB_txn *txn = NULL;
    MDB_val key_val = lmdb_val(key);
    MDB_val row_val = lmdb_val(bytes_of(row, sizeof row));
    assert_int_equal(mdb_txn_begin(file.env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, file.tables[STORE_TABLE_META], &key_val, &row_val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    lmdb_file_close(&file);
    before_len = read_file(before);
    assert_refused(before, before_len,
                   "has format 2, and this version of Dunlin knows formats up "
                   "to 1");
}

/* A store with a few hundred rows, closed; its last commit adds one message. `before` and `image`
 * are the file before and after that. Their texts are for free(). */
static void build(uint64_t seed, char **text_before, char **text_after)
{
    assert_int_equal(disk_open(&disk), STATUS_OK);
    model_init(&model, seed);
    model.body_max = 5000;
    while (model.message_count < 300) {
        model_step(&model, disk.store);
        if (model_random(&model, 50) == 0) {
            disk_commit(&disk);
        }
    }
    disk_commit(&disk);
    *text_before = model_load_text(disk.store);
    before_len = read_file(before);
    for (size_t count = model.message_count; model.message_count <= count;) {
        model_step(&model, disk.store);
    }
    disk_commit(&disk);
    *text_after = model_load_text(disk.store);
    assert_string_not_equal(*text_before, *text_after);
    disk_close(&disk);
    assert_string_equal(disk.log, "");
    image_len = read_file(image);
}

static size_t count_lines(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

static bool has_line(const char *text, const char *line, size_t len)
{
    for (const char *at = text; *at != '\0'; at = strchr(at, '\n') + 1) {
        if (strncmp(at, line, len) == 0) {
            return true;
        }
    }
    return false;
}

/* Every line of `text` is one of `a` or `b`. */
static void assert_lines_of(const char *text, const char *a, const char *b)
{
    for (const char *at = text; *at != '\0'; at = strchr(at, '\n') + 1) {
        size_t len = (size_t)(strchr(at, '\n') + 1 - at);
        assert_true(has_line(a, at, len) || has_line(b, at, len));
    }
}

static uint64_t transaction_of(const uint8_t *page)
{
    uint64_t transaction;
    memcpy(&transaction, page + 16 + 128, sizeof transaction);
    return transaction;
}

/* Opens `len` bytes of `data` as the store. Returns the contents; free() them. The store is left
 * open, has been shown to work, and is sound the next time. */
static char *open_damaged(const uint8_t *data, size_t len)
{
    disk_close(&disk);
    write_file(data, len);
    disk.log[0] = '\0';
    disk.failed_calls = 0;
    if (disk_open(&disk) != STATUS_OK) {
        return NULL;
    }
    char *text = model_load_text(disk.store);
    disk_commit(&disk);
    assert_int_equal(disk.failed_calls, 0);
    disk_close(&disk);
    static char log[DISK_LOG_MAX];
    memcpy(log, disk.log, sizeof log);
    disk.log[0] = '\0';
    assert_int_equal(disk_open(&disk), STATUS_OK);
    char *again = model_load_text(disk.store);
    assert_string_equal(text, again);
    assert_string_equal(disk.log, "");
    free(again);
    memcpy(disk.log, log, sizeof log);
    return text;
}

static void a_torn_last_commit_gives_the_state_before(void **state)
{
    (void)state;
    char *text_before;
    char *text_after;
    build(1, &text_before, &text_after);
    size_t newest = transaction_of(image) > transaction_of(image + PAGE) ? 0 : PAGE;
    /* Its meta page. */
    memcpy(damaged, image, image_len);
    memset(damaged + newest, 0xa5, PAGE);
    char *text = open_damaged(damaged, image_len);
    assert_string_equal(text, text_before);
    assert_true(disk_has_logged(&disk, "may lack the last commit"));
    assert_true(disk_has_logged(&disk, "the damaged file is kept as"));
    free(text);
    /* The other meta page: nothing is lost. */
    memcpy(damaged, image, image_len);
    memset(damaged + (newest ^ PAGE), 0xa5, PAGE);
    text = open_damaged(damaged, image_len);
    assert_string_equal(text, text_after);
    free(text);
    /* Each page that the commit wrote. */
    unsigned written = 0;
    for (size_t at = (size_t)2 * PAGE; at < image_len; at += PAGE) {
        if (at < before_len && memcmp(before + at, image + at, PAGE) == 0) {
            continue;
        }
        memcpy(damaged, image, image_len);
        memset(damaged + at + PAGE / 4, 0, 3 * PAGE / 4);
        text = open_damaged(damaged, image_len);
        assert_non_null(text);
        if (disk_has_logged(&disk, "the state before it is used")) {
            assert_string_equal(text, text_before);
            written++;
        }
        free(text);
    }
    assert_true(written >= 3);
    free(text_before);
    free(text_after);
}

/* One bit of a row of each kind: that row alone is lost. */
static void a_damaged_row_is_the_only_one_lost(void **state)
{
    (void)state;
    static const char *const rows[] = {"row-session", "row/filter", "row/topic", "rowbodyrowbody"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        disk_remove(&disk);
        disk_create(&disk);
        assert_int_equal(disk_open(&disk), STATUS_OK);
        for (uint64_t n = 1; n <= 50; n++) {
            char name[32];
            (void)snprintf(name, sizeof name, n == 20 ? "row-session" : "c%u", (unsigned)n);
            store_put_session(disk.store, &(struct store_session){
                                              .number = n, .client_id = bytes_of_string(name)});
            (void)snprintf(name, sizeof name, n == 20 ? "row/filter" : "f%u", (unsigned)n);
            store_put_subscription(disk.store, &(struct store_subscription){
                                                   .session = n, .filter = bytes_of_string(name)});
            static char body[5001];
            (void)snprintf(body, sizeof body, "%5000s", n == 20 ? "rowbodyrowbody" : "other");
            (void)snprintf(name, sizeof name, n == 20 ? "row/topic" : "t%u", (unsigned)n);
            struct message *message = NULL;
            assert_int_equal(
                message_create(bytes_of_string(name), 0, bytes_of_string(body), &message),
                STATUS_OK);
            message->sequence = n;
            store_append(disk.store, message, 0, &(struct store_recipient){.session = n}, 1);
            message_release(message);
        }
        disk_commit(&disk);
        char *whole = model_load_text(disk.store);
        disk_close(&disk);
        image_len = read_file(image);
        unsigned flipped = 0;
        for (size_t at = 0; at + strlen(rows[i]) <= image_len; at++) {
            if (memcmp(image + at, rows[i], strlen(rows[i])) == 0) {
                image[at] ^= 1;
                flipped++;
            }
        }
        assert_int_equal(flipped, 1);
        char *text = open_damaged(image, image_len);
        assert_non_null(text);
        assert_int_equal(count_lines(text), count_lines(whole) - 1);
        assert_lines_of(text, whole, whole);
        assert_true(disk_has_logged(&disk, "is damaged (page"));
        assert_true(disk_has_logged(&disk, i == 0   ? "49 sessions kept, 1 lost"
                                           : i == 1 ? "49 subscriptions kept, 1 lost"
                                                    : "49 messages kept, 1 lost"));
        free(text);
        free(whole);
    }
}

/* Garbage in random places: never a crash, never a row that was not there. */
static void garbage_never_crashes(void **state)
{
    (void)state;
    char *text_before;
    char *text_after;
    build(2, &text_before, &text_after);
    size_t lines = count_lines(text_after);
    size_t kept = 0;
    size_t possible = 0;
    const char *rounds = getenv("STORE_ROUNDS");
    uint64_t count = rounds == NULL ? 150 : strtoull(rounds, NULL, 10);
    for (uint64_t seed = 0; seed < count; seed++) {
        model_init(&model, seed);
        memcpy(damaged, image, image_len);
        uint64_t places = 1 + model_random(&model, 3);
        for (uint64_t i = 0; i < places; i++) {
            size_t page = model_random(&model, image_len / PAGE) * PAGE;
            uint64_t how = model_random(&model, 4);
            size_t from = how == 0 ? 0 : model_random(&model, how == 1 ? 32 : PAGE);
            size_t len = how == 0 ? PAGE : 1 + model_random(&model, how == 1 ? 4 : 64);
            for (size_t at = from; at < from + len && at < PAGE; at++) {
                damaged[page + at] = (uint8_t)model_random(&model, 256);
            }
        }
        size_t len = model_random(&model, 10) == 0 ? model_random(&model, image_len) : image_len;
        char *text = open_damaged(damaged, len);
        if (text == NULL) {
            /* Only when nothing tells it from somebody else's file. */
            assert_true(disk_has_logged(&disk, "is not a store of Dunlin"));
            continue;
        }
        assert_lines_of(text, text_after, text_before);
        kept += count_lines(text);
        possible += lines;
        free(text);
        /* The damaged ones would fill the directory. */
        disk_remove(&disk);
        disk_create(&disk);
    }
    /* Most of the rows survive a few damaged pages. */
    assert_true(kept > possible * 7 / 10);
    free(text_before);
    free(text_after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(foreign_files_are_left_alone, make, clean),
        cmocka_unit_test_setup_teardown(a_newer_format_is_refused, make, clean),
        cmocka_unit_test_setup_teardown(a_torn_last_commit_gives_the_state_before, make, clean),
        cmocka_unit_test_setup_teardown(a_damaged_row_is_the_only_one_lost, make, clean),
        cmocka_unit_test_setup_teardown(garbage_never_crashes, make, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
