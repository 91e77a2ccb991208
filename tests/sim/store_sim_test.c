/*
 * store_sim_test: a store on a disk that loses power.
 *
 *   store_sim_test [RUNS]                   the test: that many seeds
 *   store_sim_test drive DIRECTORY SEED     the program that is watched (see disk_shim.c)
 *
 * Each run makes a store, then changes it at random in a child under the shim, and builds files as
 * they may be found after a loss of power at any moment of the record: what was synced is there; of
 * what was not, any sectors, in any order. Each is opened and must hold, as a whole, the state at
 * some flush: not before the last that was reported as committed, and not after the last at all.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk_record.h"
#include "memory_store.h"
#include "store_disk.h"
#include "store_model.h"

enum {
    FLUSHES = 60,
    IMAGES = 30, /* of each run */
    SECTOR = 512,
    IMAGE_MAX = 8 << 20,
    ENTRIES_MAX = 200000,
};

static struct model model;
static struct disk disk;

/* The changes of one flush, the same in the watched program and in the one that judges it. */
static void change(struct store *store)
{
    for (uint64_t i = 1 + model_random(&model, 25); i != 0; i--) {
        model_step(&model, store);
    }
    /* A ticket is committed only when there was a change, if only of nothing. */
    store_delete_session(store, UINT64_MAX);
}

static void begin_model(uint64_t seed)
{
    model_init(&model, seed);
    model.body_max = 3000;
}

/* ---- the watched program ---- */

static void mark(enum disk_entry_kind kind, uint64_t value)
{
    static void (*shim)(unsigned, uint64_t);
    if (shim == NULL) {
        void *symbol = dlsym(RTLD_DEFAULT, "disk_shim_mark");
        ENSURE(symbol != NULL);
        memcpy(&shim, &symbol, sizeof symbol);
    }
    shim(kind, value);
}

static void on_committed(void *ctx, uint64_t ticket)
{
    (void)ctx;
    mark(DISK_MARK_COMMIT, ticket);
    disk.committed = ticket;
}

static void on_failed(void *ctx, const char *why)
{
    (void)ctx;
    (void)why;
    mark(DISK_MARK_FAILED, 0);
    disk.failed_calls++;
}

static void note_full(void)
{
    if (store_is_full(disk.store)) {
        mark(DISK_MARK_FULL, 0);
    }
}

static int drive(const char *directory, uint64_t seed)
{
    disk_create(&disk);
    ENSURE(rmdir(disk.directory) == 0);
    disk.options.directory = directory;
    ENSURE(disk_open(&disk) == STATUS_OK);
    const struct store_events events = {NULL, on_committed, NULL, on_failed};
    store_set_events(disk.store, &events);
    begin_model(seed);
    uint64_t ticket = 0;
    for (uint64_t flush = 0; flush < FLUSHES && disk.failed_calls == 0; flush++) {
        change(disk.store);
        ticket = store_ticket(disk.store);
        mark(DISK_MARK_FLUSH, ticket);
        store_flush(disk.store);
        note_full();
        /* Sometimes it waits, so that batches are of all sizes. */
        lmdb_store_collect(disk.store);
        while ((flush * 7 + seed) % 3 == 0 && disk.committed < ticket && disk.failed_calls == 0) {
            disk_wait(&disk);
            note_full();
        }
    }
    while (disk.committed < ticket && disk.failed_calls == 0) {
        disk_wait(&disk);
        note_full();
    }
    disk_close(&disk);
    return 0;
}

/* ---- the judge ---- */

struct write {
    const uint8_t *data;
    size_t len;
    uint64_t offset;
    size_t durable_at; /* the entry that made it so; SIZE_MAX: none */
    size_t entry;
};

static uint8_t base[IMAGE_MAX], image[IMAGE_MAX];
static size_t base_len;
static struct disk_entry entries[ENTRIES_MAX];
static struct write writes[ENTRIES_MAX];
static size_t entry_count, write_count;
static uint8_t *record;
static char *states[FLUSHES + 1]; /* before the first, and after each flush */
static uint64_t flush_tickets[FLUSHES + 1];
static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 33) % limit;
}

static size_t read_whole(const char *path, uint8_t **out)
{
    FILE *file = fopen(path, "re");
    ENSURE(file != NULL && fseek(file, 0, SEEK_END) == 0);
    long len = ftell(file);
    ENSURE(len >= 0 && fseek(file, 0, SEEK_SET) == 0);
    *out = malloc((size_t)len + 1);
    ENSURE(*out != NULL && fread(*out, 1, (size_t)len, file) == (size_t)len);
    ENSURE(fclose(file) == 0);
    return (size_t)len;
}

/* Runs the watched program. `fault` is "" or a kind of fault, of call `at` and `count` calls. */
static void run_driver(const char *self, const char *shim, uint64_t seed, const char *fault,
                       unsigned at, unsigned count)
{
    char text[4][DISK_PATH_MAX + 32];
    (void)snprintf(text[0], sizeof text[0], "%s/record", disk.directory);
    (void)snprintf(text[1], sizeof text[1], "%u", at);
    (void)snprintf(text[2], sizeof text[2], "%u", count);
    (void)snprintf(text[3], sizeof text[3], "%llu", (unsigned long long)seed);
    pid_t child = fork();
    ENSURE(child >= 0);
    if (child == 0) {
        (void)setenv("LD_PRELOAD", shim, 1);
        (void)setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0", 1);
        (void)setenv("DISK_RECORD", text[0], 1);
        (void)setenv("DISK_FILE", LMDB_STORE_FILE, 1);
        (void)setenv("DISK_FAULT", fault, 1);
        (void)setenv("DISK_FAULT_AT", text[1], 1);
        (void)setenv("DISK_FAULT_COUNT", text[2], 1);
        (void)setenv("DISK_SLOW_US", seed % 4 == 1 ? "2000" : "0", 1);
        (void)execl(self, self, "drive", disk.directory, text[3], (char *)NULL);
        _exit(127);
    }
    int status = 0;
    ENSURE(waitpid(child, &status, 0) == child);
    if (status != 0) {
        (void)fprintf(stderr, "seed %llu: the watched program ended with %#x\n",
                      (unsigned long long)seed, (unsigned)status);
    }
    ENSURE(status == 0);
}

static size_t count_marks(enum disk_entry_kind kind, size_t end)
{
    size_t count = 0;
    for (size_t i = 0; i < end; i++) {
        count += entries[i].kind == kind;
    }
    return count;
}

/* Reads the record into `entries` and `writes`. */
static void read_record(void)
{
    char path[DISK_PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/record", disk.directory);
    free(record);
    size_t len = read_whole(path, &record);
    entry_count = write_count = 0;
    size_t flushes = 0;
    for (size_t at = 0; at < len;) {
        ENSURE(entry_count < ENTRIES_MAX && len - at >= sizeof *entries);
        struct disk_entry *entry = &entries[entry_count];
        memcpy(entry, record + at, sizeof *entry);
        at += sizeof *entry;
        if (entry->kind == DISK_WRITE) {
            writes[write_count++] = (struct write){.data = record + at,
                                                   .len = entry->len,
                                                   .offset = entry->offset,
                                                   .durable_at = SIZE_MAX,
                                                   .entry = entry_count};
        }
        for (size_t i = write_count; entry->kind == DISK_SYNC && i-- != 0;) {
            if (writes[i].durable_at == SIZE_MAX) {
                writes[i].durable_at = entry_count;
            }
        }
        if (entry->kind == DISK_SYNC_LAST) {
            writes[write_count - 1].durable_at = entry_count;
        }
        if (entry->kind == DISK_MARK_FLUSH) {
            flush_tickets[++flushes] = entry->offset;
        }
        at += entry->len;
        entry_count++;
    }
}

static void compute_states(uint64_t seed)
{
    struct store *ignoring = NULL;
    ENSURE(memory_store_create(&ignoring) == STATUS_OK);
    begin_model(seed);
    for (unsigned flush = 0; flush <= FLUSHES; flush++) {
        free(states[flush]);
        states[flush] = model_text(&model);
        if (flush != FLUSHES) {
            change(ignoring);
        }
    }
    store_destroy(ignoring);
}

static void apply(const struct write *write, bool torn, size_t *len)
{
    ENSURE(write->offset + write->len <= IMAGE_MAX);
    for (size_t at = 0; at < write->len; at += SECTOR) {
        size_t part = write->len - at < SECTOR ? write->len - at : SECTOR;
        if (!torn || random_below(2) == 0) {
            memcpy(image + write->offset + at, write->data + at, part);
            size_t end = write->offset + at + part;
            *len = end > *len ? end : *len;
        }
    }
}

/* The file as it may be after a loss of power when `crash` entries had happened. */
static size_t build_image(size_t crash)
{
    static struct write pending[ENTRIES_MAX];
    size_t pending_count = 0;
    size_t len = base_len;
    memset(image, 0, sizeof image);
    memcpy(image, base, base_len);
    for (size_t i = 0; i < write_count && writes[i].entry < crash; i++) {
        if (writes[i].durable_at < crash) {
            apply(&writes[i], false, &len);
        } else {
            pending[pending_count++] = writes[i];
        }
    }
    unsigned how = (unsigned)random_below(4); /* none, all, or parts of what was not synced */
    for (size_t i = pending_count; i != 0 && how != 0; i--) {
        size_t chosen = random_below(i);
        apply(&pending[chosen], how != 1, &len);
        pending[chosen] = pending[i - 1];
    }
    return len;
}

static void write_image(const char *path, size_t len)
{
    FILE *file = fopen(path, "we");
    ENSURE(file != NULL && fwrite(image, 1, len, file) == len && fclose(file) == 0);
}

static void judge(size_t crash, uint64_t seed)
{
    size_t len = build_image(crash);
    struct disk found;
    disk_create(&found);
    write_image(found.file, len);
    ENSURE(disk_open(&found) == STATUS_OK);
    char *text = model_load_text(found.store);
    uint64_t committed = 0;
    for (size_t i = 0; i < crash; i++) {
        committed = entries[i].kind == DISK_MARK_COMMIT ? entries[i].offset : committed;
    }
    size_t last = count_marks(DISK_MARK_FLUSH, crash);
    size_t first = 0;
    for (size_t flush = 1; flush <= last; flush++) {
        first = flush_tickets[flush] <= committed ? flush : first;
    }
    bool known = false;
    for (size_t flush = first; flush <= last; flush++) {
        known = known || strcmp(text, states[flush]) == 0;
    }
    if (!known || found.log[0] != '\0') {
        (void)fprintf(stderr,
                      "seed %llu, power lost after entry %zu of %zu, %zu bytes: the state is none "
                      "of those after flush %zu to %zu\n%s",
                      (unsigned long long)seed, crash, entry_count, len, first, last, found.log);
    }
    /* A loss of power is no damage. */
    ENSURE(known && found.log[0] == '\0');
    free(text);
    disk_remove(&found);
}

/* One seed: a plain run, or one of those with a fault. */
static unsigned run(const char *self, const char *shim, uint64_t seed)
{
    static const struct {
        const char *fault;
        unsigned count;
    } faults[] = {{"", 0}, {"", 0}, {"eio-write", 1}, {"eio-sync", 1}, {"", 0}, {"enospc", 3}};
    enum { KINDS = sizeof faults / sizeof *faults };
    disk_create(&disk);
    ENSURE(disk_open(&disk) == STATUS_OK);
    disk_close(&disk);
    uint8_t *start;
    base_len = read_whole(disk.file, &start);
    ENSURE(base_len <= IMAGE_MAX);
    memcpy(base, start, base_len);
    free(start);
    random_state = seed;
    const char *fault = faults[seed % KINDS].fault;
    unsigned at = 2 + (unsigned)random_below(15);
    run_driver(self, shim, seed, fault, at, faults[seed % KINDS].count);
    read_record();
    compute_states(seed);
    bool failed = count_marks(DISK_MARK_FAILED, entry_count) != 0;
    ENSURE(failed == (strncmp(fault, "eio", 3) == 0));
    ENSURE((count_marks(DISK_MARK_FULL, entry_count) != 0) == (strcmp(fault, "enospc") == 0));
    ENSURE(failed || count_marks(DISK_MARK_FLUSH, entry_count) == FLUSHES);
    for (unsigned i = 0; i < IMAGES; i++) {
        judge(i == 0 ? entry_count : 1 + random_below(entry_count), seed);
    }
    disk_remove(&disk);
    return IMAGES;
}

int main(int argc, char *argv[])
{
    if (argc == 4 && strcmp(argv[1], "drive") == 0) {
        return drive(argv[2], strtoull(argv[3], NULL, 10));
    }
    const char *shim = getenv("DISK_SHIM");
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (shim == NULL || len <= 0 || argc > 2) {
        (void)fprintf(stderr, "usage: DISK_SHIM=disk_shim.so store_sim_test [RUNS]\n");
        return 64;
    }
    self[len] = '\0';
    /* The files need no real disk; /tmp may be a slow one. */
    if (access("/dev/shm", W_OK) == 0) {
        (void)setenv("TMPDIR", "/dev/shm", 0);
    }
    uint64_t runs = argc == 2 ? strtoull(argv[1], NULL, 10) : 12;
    unsigned images = 0;
    for (uint64_t seed = 0; seed < runs; seed++) {
        images += run(self, shim, seed);
    }
    for (unsigned flush = 0; flush <= FLUSHES; flush++) {
        free(states[flush]);
    }
    free(record);
    (void)printf("%u images of %llu runs\n", images, (unsigned long long)runs);
    return 0;
}
