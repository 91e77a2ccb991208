/* store/lmdb_tool: check, dump and compact, on sound and damaged stores and on those in use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lmdb_tool.h"
#include "store_disk.h"
#include "store_model.h"

typedef bool tool_fn(const char *path, FILE *to_out, FILE *to_err);

static struct disk disk;
static char *out, *err;

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
    free(out);
    free(err);
    out = err = NULL;
    return 0;
}

/* What it wrote is in `out` and `err` until the next call. */
static bool run(tool_fn *tool, const char *path)
{
    size_t out_len;
    size_t err_len;
    free(out);
    free(err);
    FILE *to_out = open_memstream(&out, &out_len);
    FILE *to_err = open_memstream(&err, &err_len);
    assert_true(to_out != NULL && to_err != NULL);
    bool result = tool(path, to_out, to_err);
    assert_int_equal(fclose(to_out), 0);
    assert_int_equal(fclose(to_err), 0);
    return result;
}

/* 200 messages of which 190 are finished; one large and binary. */
static void fill(void)
{
    assert_int_equal(disk_open(&disk), STATUS_OK);
    const struct store_will will = {.topic = bytes_of_string("gone/\"quoted\""),
                                    .payload = bytes_of_string("bye\n"),
                                    .due_unix_ms = STORE_TIME_NEVER};
    const struct store_session session = {.number = 7,
                                          .client_id = bytes_of_string("sensor-7"),
                                          .expires_unix_ms = STORE_TIME_NEVER,
                                          .connected = true,
                                          .will = &will};
    const struct store_subscription subscription = {.session = 7, .filter = bytes_of_string("a/#")};
    store_put_session(disk.store, &session);
    store_put_subscription(disk.store, &subscription);
    for (uint64_t i = 1; i <= 200; i++) {
        const struct model_message m = {
            .arrival = i, .topic = "a/b", .payload_len = i == 200 ? 40000 : 1000};
        struct message *message = model_message_create(&m);
        store_append(disk.store, message, 5, &(struct store_recipient){.session = 7}, 1);
        message_release(message);
    }
    disk_commit(&disk);
    for (uint64_t i = 1; i <= 190; i++) {
        store_finish(disk.store, i, STORE_QUEUED, 7);
    }
    disk_commit(&disk);
}

static void refuse_a_store_in_use(void **state)
{
    (void)state;
    fill();
    tool_fn *const tools[] = {lmdb_tool_check, lmdb_tool_dump, lmdb_tool_compact};
    for (size_t i = 0; i < 3; i++) {
        assert_false(run(tools[i], disk.directory));
        assert_non_null(strstr(err, "is in use by process"));
        assert_string_equal(out, "");
    }
}

static void refuse_what_is_none(void **state)
{
    (void)state;
    assert_false(run(lmdb_tool_check, disk.directory));
    assert_non_null(strstr(err, "No such file"));
    FILE *file = fopen(disk.file, "we");
    assert_true(file != NULL && fputs("a diary", file) >= 0 && fclose(file) == 0);
    assert_false(run(lmdb_tool_dump, disk.file));
    assert_non_null(strstr(err, "not a store of Dunlin"));
}

static void check_counts(void **state)
{
    (void)state;
    fill();
    disk_close(&disk);
    assert_true(run(lmdb_tool_check, disk.directory));
    assert_string_equal(err, "");
    assert_non_null(strstr(out, "sessions       1\nsubscriptions  1\nmessages       10\n"
                                "recipients     10\npieces         2\n"));
    assert_non_null(strstr(out, "state          sound\n"));
    /* A byte of a message. */
    FILE *file = fopen(disk.file, "r+e");
    assert_non_null(file);
    static char content[1 << 20];
    size_t len = fread(content, 1, sizeof content, file);
    size_t at = len - 1;
    while (memcmp(content + at, "sensor-7", 8) != 0) {
        at--;
    }
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_true(fputc('S', file) == 'S' && fclose(file) == 0);
    assert_false(run(lmdb_tool_check, disk.file));
    assert_non_null(strstr(out, "sessions       0\n"));
    assert_non_null(strstr(out, "damage         1 places, the first: page "));
    assert_non_null(strstr(out, "state          damaged"));
    assert_false(run(lmdb_tool_dump, disk.file));
    assert_non_null(strstr(err, "the store is damaged"));
    assert_false(run(lmdb_tool_compact, disk.file));
    assert_non_null(strstr(err, "the store is damaged"));
}

static void dump_writes_json(void **state)
{
    (void)state;
    fill();
    disk_close(&disk);
    assert_true(run(lmdb_tool_dump, disk.directory));
    assert_string_equal(err, "");
    assert_non_null(
        strstr(out, "{\"row\":\"session\",\"number\":7,\"client_id\":\"sensor-7\",\"expiry_s\":0,"
                    "\"connected\":true,\"will\":{\"topic\":\"gone/\\\"quoted\\\"\",\"qos\":0,"
                    "\"retain\":false,\"delay_s\":0,\"payload\":\"bye\\u000a\"}}\n"
                    "{\"row\":\"subscription\",\"session\":7,\"filter\":\"a/#\",\"qos\":0,"));
    assert_non_null(strstr(out, "{\"row\":\"message\",\"arrival\":200,\"topic\":\"a/b\",\"qos\":0,"
                                "\"retain\":false,\"publisher\":0,\"expires_unix_ms\":5,"
                                "\"recipients\":[{\"role\":\"queued\",\"session\":7,"
                                "\"packet_id\":0,\"qos\":0,\"retain\":false,\"released\":false,"
                                "\"group\":0,\"identifiers\":[]}],\"payload_base64\":\""));
    size_t lines = 0;
    for (const char *at = out; *at != '\0'; at++) {
        lines += *at == '\n';
    }
    assert_int_equal(lines, 12);
    assert_true(strlen(out) > 40000 * 4 / 3);
}

static void compact_keeps_the_contents(void **state)
{
    (void)state;
    fill();
    char *before = model_load_text(disk.store);
    disk_close(&disk);
    struct stat large;
    struct stat small;
    assert_int_equal(stat(disk.file, &large), 0);
    assert_true(run(lmdb_tool_compact, disk.directory));
    assert_string_equal(err, "");
    assert_int_equal(stat(disk.file, &small), 0);
    assert_true(small.st_size < large.st_size / 2);
    assert_int_equal(small.st_mode & 0777, 0600);
    assert_true(run(lmdb_tool_check, disk.directory));
    assert_int_equal(disk_open(&disk), STATUS_OK);
    char *after = model_load_text(disk.store);
    assert_string_equal(before, after);
    free(before);
    free(after);
    /* It can be written, and read again. */
    store_finish(disk.store, 195, STORE_QUEUED, 7);
    disk_commit(&disk);
    disk_close(&disk);
    assert_true(run(lmdb_tool_check, disk.directory));
    assert_non_null(strstr(out, "messages       9\n"));
    assert_string_equal(disk.log, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refuse_a_store_in_use, make, clean),
        cmocka_unit_test_setup_teardown(refuse_what_is_none, make, clean),
        cmocka_unit_test_setup_teardown(check_counts, make, clean),
        cmocka_unit_test_setup_teardown(dump_writes_json, make, clean),
        cmocka_unit_test_setup_teardown(compact_keeps_the_contents, make, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
