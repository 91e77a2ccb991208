/* store/lmdb_store: what is committed is there after a reopening; fetches; locks; foreign files;
 * lack of room and of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mem.h"
#include "store_disk.h"
#include "store_model.h"

static struct disk disk;
static struct model model;

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

static void append_sized(uint64_t arrival, uint64_t session, size_t payload_len)
{
    const struct model_message m = {
        .arrival = arrival, .topic = "a/b", .payload_len = payload_len, .qos = 1};
    struct message *message = model_message_create(&m);
    const uint32_t identifier = (uint32_t)arrival + 100;
    const struct store_recipient recipient = {
        .session = session, .qos = 1, .identifier_count = 1, .identifiers = &identifier};
    store_append(disk.store, message, STORE_TIME_NEVER, &recipient, 1);
    message_release(message);
}

static void a_new_file_is_empty_private_and_locked(void **state)
{
    (void)state;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    char *text = model_load_text(disk.store);
    assert_string_equal(text, "");
    free(text);
    assert_false(store_is_full(disk.store));
    struct stat info;
    assert_int_equal(stat(disk.file, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    struct store *second = NULL;
    assert_int_equal(lmdb_store_open(&disk.options, &second), STATUS_IO);
    char expected[64];
    (void)snprintf(expected, sizeof expected, "is in use by process %ld", (long)getpid());
    assert_true(disk_has_logged(&disk, expected));
    disk_close(&disk);
    assert_int_equal(disk_open(&disk), STATUS_OK);
}

static void change_at_random(void)
{
    for (uint64_t left = 1 + model_random(&model, 60); left != 0; left--) {
        model_step(&model, disk.store);
        if (model_random(&model, 10) == 0) {
            store_flush(disk.store);
            lmdb_store_collect(disk.store);
        }
    }
}

/* Random changes in batches of random sizes, reopened now and then. */
static void holds_what_the_model_holds(void **state)
{
    (void)state;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    for (uint64_t seed = 0; seed < 4; seed++) {
        if (seed != 0) {
            disk_remove(&disk);
            disk_create(&disk);
            assert_int_equal(disk_open(&disk), STATUS_OK);
        }
        model_init(&model, seed);
        model.body_max = seed % 2 == 0 ? 3000 : 100000;
        for (unsigned round = 0; round < 40; round++) {
            change_at_random();
            uint64_t how = model_random(&model, 3);
            if (how == 0) {
                disk_commit(&disk);
                model_assert_loads(&model, disk.store);
            } else if (how == 1) {
                disk_close(&disk); /* which commits */
                assert_int_equal(disk_open(&disk), STATUS_OK);
                model_assert_loads(&model, disk.store);
            }
        }
    }
    assert_string_equal(disk.log, "");
    assert_int_equal(disk.failed_calls, 0);
}

enum { LOAD = 30000, LOAD_OF_A_TURN = 1000, BATCH_MAX = 8192 + LOAD_OF_A_TURN };

/* While nobody collects, the writer waits, and no batch grows without bound. A call collects one.
 */
static void large_loads_are_cut(void **state)
{
    (void)state;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    uint64_t counts[LOAD / LOAD_OF_A_TURN + 2] = {0}; /* by ticket */
    const uint64_t first = store_ticket(disk.store);
    for (uint64_t arrival = 1; arrival <= LOAD; arrival++) {
        append_sized(arrival, 1, 20);
        counts[store_ticket(disk.store) - first]++;
        if (arrival % LOAD_OF_A_TURN == 0) {
            store_flush(disk.store);
        }
    }
    append_sized(LOAD + 1, 1, 20); /* else the last ticket may be that of a batch without changes */
    const uint64_t last = store_ticket(disk.store);
    for (uint64_t ticket = first; ticket <= last; ticket++) {
        assert_true(counts[ticket - first] <= BATCH_MAX);
    }
    store_flush(disk.store);
    while (disk.committed < last) {
        const uint64_t committed = disk.committed;
        disk_wait(&disk);
        assert_true(disk.committed <= committed + 1);
    }
}

static void fetches_what_is_stored(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 10, 1536, 1537, 32744, 32745, 300000};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    uint64_t wanted[COUNT + 2];
    assert_int_equal(disk_open(&disk), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        append_sized(i + 1, 7, sizes[i]);
        wanted[i] = i + 1;
    }
    append_sized(COUNT + 1, 8, 10);
    wanted[COUNT] = COUNT + 1;     /* another session's */
    wanted[COUNT + 1] = COUNT + 2; /* not there */
    disk_commit(&disk);
    disk_fetch(&disk, 7, wanted, COUNT + 2);
    assert_int_equal(disk.fetched_count, COUNT + 2);
    assert_int_equal(disk.fetched_session, 7);
    for (size_t i = 0; i < COUNT; i++) {
        const struct model_message m = {
            .arrival = i + 1, .topic = "a/b", .payload_len = sizes[i], .qos = 1};
        struct message *expected = model_message_create(&m);
        struct message *got = disk.fetched[i].message;
        assert_non_null(got);
        assert_true(disk.fetched[i].arrival == i + 1 && got->sequence == i + 1 && got->qos == 1);
        assert_true(got->expires_at_ms == STORE_TIME_NEVER);
        assert_true(bytes_equal(message_payload(got), message_payload(expected)));
        assert_true(bytes_equal_string(message_topic(got), "a/b"));
        assert_int_equal(disk.fetched[i].recipient.qos, 1);
        assert_int_equal(disk.fetched_identifiers[i], i + 101);
        message_release(got);
        message_release(expected);
    }
    assert_null(disk.fetched[COUNT].message);
    assert_null(disk.fetched[COUNT + 1].message);
    /* Large ones come a few at a time. */
    for (uint64_t i = 0; i < 8; i++) {
        append_sized(100 + i, 7, 400000);
        wanted[i] = 100 + i;
    }
    disk_commit(&disk);
    disk_fetch(&disk, 7, wanted, 8);
    assert_int_equal(disk.fetched_count, 3);
    for (size_t i = 0; i < 3; i++) {
        message_release(disk.fetched[i].message);
    }
    /* A fetch that nobody waits for is forgotten with the store. */
    store_fetch(disk.store, 7, wanted, 8);
    assert_string_equal(disk.log, "");
}

/* With little room left the store says so, finishes what it has, and recovers when there is room.
 */
static void is_full_in_time_and_recovers(void **state)
{
    (void)state;
    disk.options.map_bytes = 4 << 20;
    disk.options.reserve_bytes = 1 << 20;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    uint64_t arrival = 0;
    while (!store_is_full(disk.store)) {
        append_sized(++arrival, 7, 20000);
        disk_commit(&disk);
        assert_int_equal(disk.failed_calls, 0);
        assert_true(arrival < 200);
    }
    assert_true(arrival > 80);
    /* There is room in the reserve to note that messages are finished ... */
    for (uint64_t i = 1; i <= arrival / 2; i++) {
        store_finish(disk.store, i, STORE_QUEUED, 7);
        disk_commit(&disk);
    }
    /* ... and their room is used again. */
    for (uint64_t i = 0; store_is_full(disk.store); i++) {
        assert_true(i < 10);
        disk_commit(&disk);
    }
    lmdb_store_collect(disk.store);
    assert_true(disk_has_logged(&disk, "is full"));
    assert_true(disk_has_logged(&disk, "has room again"));
    append_sized(++arrival, 7, 20000);
    disk_commit(&disk);
    assert_int_equal(disk.failed_calls, 0);
}

/* More than the whole map: kept, tried again, and in vain when the store is closed. */
static void keeps_what_does_not_fit(void **state)
{
    (void)state;
    disk.options.map_bytes = 1 << 20;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    append_sized(1, 7, 100);
    disk_commit(&disk);
    append_sized(2, 7, 2 << 20);
    store_flush(disk.store);
    disk_wait(&disk);
    while (!disk_has_logged(&disk, "is full")) {
        disk_wait(&disk);
    }
    assert_true(store_is_full(disk.store));
    assert_int_equal(disk.committed, 1);
    assert_int_equal(disk.failed_calls, 0);
    disk_close(&disk);
    assert_true(disk_has_logged(&disk, "cannot write the last changes"));
    /* With a larger map what was committed is there. */
    disk.options.map_bytes = 16 << 20;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    char *text = model_load_text(disk.store);
    assert_non_null(strstr(text, "message 1 "));
    assert_null(strstr(text, "message 2 "));
    free(text);
}

/* Up to the first failure. */
static void commit_each_and_fetch(struct message *const *messages, size_t count)
{
    for (size_t i = 0; i < count && disk.failed_calls == 0; i++) {
        const struct store_recipient r = {.session = 1};
        store_append(disk.store, messages[i], STORE_TIME_NEVER, &r, 1);
        disk_commit(&disk);
    }
    if (disk.failed_calls == 0) {
        const uint64_t wanted[] = {1, 2};
        disk_fetch(&disk, 1, wanted, 2);
        for (size_t i = 0; disk.failed_calls == 0 && i < disk.fetched_count; i++) {
            assert_non_null(disk.fetched[i].message);
            message_release(disk.fetched[i].message);
        }
    }
}

/* Every allocation fails once; what is said to be committed is there. */
static void survives_a_lack_of_memory(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (uint64_t n = 1; n < 60; n++) {
        struct message *messages[10];
        for (uint64_t i = 0; i < 10; i++) {
            const struct model_message m = {
                .arrival = i + 1, .topic = "a", .payload_len = i % 2 == 0 ? 10 : 5000};
            messages[i] = model_message_create(&m);
        }
        disk.failed_calls = 0;
        mem_fail_at(n);
        enum status status = disk_open(&disk);
        if (status == STATUS_OK) {
            commit_each_and_fetch(messages, 10);
        } else {
            assert_int_equal(status, STATUS_NO_MEMORY);
        }
        failures += status != STATUS_OK || disk.failed_calls != 0;
        mem_fail_at(0);
        uint64_t committed = status == STATUS_OK ? disk.committed : 0;
        disk_close(&disk);
        assert_int_equal(disk_open(&disk), STATUS_OK);
        char *text = model_load_text(disk.store);
        for (uint64_t i = 1; i <= committed; i++) {
            char line[32];
            (void)snprintf(line, sizeof line, "message %u ", (unsigned)i);
            assert_non_null(strstr(text, line));
        }
        free(text);
        disk_remove(&disk);
        disk_create(&disk);
        for (unsigned i = 0; i < 10; i++) {
            assert_int_equal(messages[i]->shared.references, 1);
            message_release(messages[i]);
        }
    }
    assert_true(failures > 5);
}

/* The threads' own allocations: a fetch is tried again, a batch that cannot be written ends it. */
static void threads_survive_a_lack_of_memory(void **state)
{
    (void)state;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    const uint64_t wanted[] = {1};
    append_sized(1, 7, 10);
    disk_commit(&disk);
    for (unsigned i = 0; i < 2; i++) {
        __atomic_store_n(&disk.fail_in_thread, i == 0, __ATOMIC_RELAXED);
        disk_fetch(&disk, 7, wanted, 1);
        assert_non_null(disk.fetched[0].message);
        message_release(disk.fetched[0].message);
    }
    assert_int_equal(disk.failed_calls, 0);
    __atomic_store_n(&disk.fail_in_thread, true, __ATOMIC_RELAXED);
    append_sized(2, 7, 10);
    disk_commit(&disk);
    append_sized(3, 7, 30000); /* needs a larger block to be encoded in */
    disk_commit(&disk);
    assert_int_equal(disk.failed_calls, 1);
    assert_string_equal(disk.failed, "cannot write the store: Cannot allocate memory");
    /* Nothing more is committed, and what was is there. */
    uint64_t committed = disk.committed;
    append_sized(4, 7, 10);
    store_flush(disk.store);
    lmdb_store_collect(disk.store);
    disk_close(&disk);
    assert_int_equal(disk.committed, committed);
    assert_int_equal(disk_open(&disk), STATUS_OK);
    char *text = model_load_text(disk.store);
    assert_true(strstr(text, "message 2 ") != NULL && strstr(text, "message 3 ") == NULL &&
                strstr(text, "message 4 ") == NULL);
    free(text);
}

/* What of the file is in this process's memory. */
static size_t mapped_kib(void)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    assert_non_null(maps);
    char line[1024];
    bool is_ours = false;
    size_t kib = 0;
    size_t found = 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        if (strchr(line, '-') != NULL && strchr(line, '-') < strchr(line, ' ')) {
            is_ours = strstr(line, disk.file) != NULL && strstr(line, "-lock") == NULL;
            found += is_ours;
        } else if (is_ours && sscanf(line, "Rss: %zu kB", &kib) == 1) {
            break;
        }
    }
    (void)fclose(maps);
    assert_int_equal(found, 1);
    return kib;
}

/* However much was written, loaded and fetched, little of it stays in memory. */
static void keeps_no_pages_mapped(void **state)
{
    (void)state;
    enum { COUNT = 70000, EACH = 1000, LEAST_KIB = 65536, MOST_KIB = 20480 };
    disk.options.map_bytes = 256 << 20;
    assert_int_equal(disk_open(&disk), STATUS_OK);
    free(model_load_text(disk.store));
    for (uint64_t arrival = 1; arrival <= COUNT; arrival++) {
        append_sized(arrival, 7, EACH);
        if (arrival % 500 == 0) {
            disk_commit(&disk);
        }
    }
    assert_true(mapped_kib() < MOST_KIB);
    disk_close(&disk);
    struct stat info;
    assert_int_equal(stat(disk.file, &info), 0);
    assert_true(info.st_size / 1024 > LEAST_KIB);
    assert_int_equal(disk_open(&disk), STATUS_OK);
    free(model_load_text(disk.store));
    assert_true(mapped_kib() < MOST_KIB / 8);
    for (uint64_t arrival = 1; arrival + STORE_FETCH_MAX <= COUNT; arrival += STORE_FETCH_MAX) {
        uint64_t arrivals[STORE_FETCH_MAX];
        for (size_t i = 0; i < STORE_FETCH_MAX; i++) {
            arrivals[i] = arrival + i;
        }
        disk_fetch(&disk, 7, arrivals, STORE_FETCH_MAX);
        assert_int_equal(disk.fetched_count, STORE_FETCH_MAX);
        for (size_t i = 0; i < STORE_FETCH_MAX; i++) {
            message_release(disk.fetched[i].message);
        }
    }
    assert_true(mapped_kib() < MOST_KIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_file_is_empty_private_and_locked, make, clean),
        cmocka_unit_test_setup_teardown(holds_what_the_model_holds, make, clean),
        cmocka_unit_test_setup_teardown(large_loads_are_cut, make, clean),
        cmocka_unit_test_setup_teardown(fetches_what_is_stored, make, clean),
        cmocka_unit_test_setup_teardown(keeps_no_pages_mapped, make, clean),
        cmocka_unit_test_setup_teardown(is_full_in_time_and_recovers, make, clean),
        cmocka_unit_test_setup_teardown(keeps_what_does_not_fit, make, clean),
        cmocka_unit_test_setup_teardown(survives_a_lack_of_memory, make, clean),
        cmocka_unit_test_setup_teardown(threads_survive_a_lack_of_memory, make, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
