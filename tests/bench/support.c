#include "support.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("load: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

size_t text(char *to, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(to, size, format, arguments);
    va_end(arguments);
    if (len < 0 || (size_t)len >= size) {
        die("text does not fit %zu bytes", size);
    }
    return (size_t)len;
}

void *must_alloc(size_t count, size_t size)
{
    void *memory = calloc(count == 0 ? 1 : count, size);
    if (memory == NULL) {
        die("out of memory");
    }
    return memory;
}

void *must_resize(void *old, size_t size)
{
    void *memory = realloc(old, size);
    if (memory == NULL) {
        die("out of memory");
    }
    return memory;
}

uint8_t *buffer_extend(struct buffer *buffer, size_t len)
{
    if (buffer->len + len > buffer->capacity) {
        size_t capacity = buffer->capacity == 0 ? 64 : buffer->capacity;
        while (capacity < buffer->len + len) {
            capacity *= 2;
        }
        buffer->data = must_resize(buffer->data, capacity);
        buffer->capacity = capacity;
    }
    uint8_t *at = buffer->data + buffer->len;
    buffer->len += len;
    return at;
}

void buffer_append(struct buffer *buffer, const void *data, size_t len)
{
    if (len != 0) {
        memcpy(buffer_extend(buffer, len), data, len);
    }
}

void buffer_fini(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){NULL, 0, 0};
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) {
        return 0;
    }
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

uint64_t clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t own_cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t process_cpu_ns(pid_t pid)
{
    clockid_t clock;
    if (pid == 0) {
        return 0;
    }
    if (clock_getcpuclockid(pid, &clock) != 0) {
        die("no CPU clock for process %d: it is gone or not ours to see", (int)pid);
    }
    return read_clock(clock);
}

uint64_t first_thread_cpu_ns(pid_t pid)
{
    char path[64];
    unsigned long long ns = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", (int)pid, (int)pid);
    FILE *file = pid == 0 ? NULL : fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%llu", &ns) != 1) {
            ns = 0;
        }
        (void)fclose(file);
    }
    return ns;
}

/* The value in KiB of the line of `path` that starts with `key`. */
static bool read_kib(const char *path, const char *key, uint64_t *kib)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    char line[256];
    bool found = false;
    size_t key_len = strlen(key);
    while (!found && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, key_len) == 0) {
            *kib = strtoull(line + key_len, NULL, 10);
            found = true;
        }
    }
    (void)fclose(file);
    return found;
}

/* A figure of smaps_rollup, or where there is none the one of status. */
static uint64_t process_memory(pid_t pid, const char *key, const char *key_in_status)
{
    char path[64];
    uint64_t kib = 0;
    if (pid == 0) {
        return 0;
    }
    (void)text(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    if (!read_kib(path, key, &kib)) {
        (void)text(path, sizeof path, "/proc/%d/status", (int)pid);
        if (!read_kib(path, key_in_status, &kib)) {
            die("no memory figures for process %d", (int)pid);
        }
    }
    return kib * 1024;
}

uint64_t process_resident_bytes(pid_t pid)
{
    return process_memory(pid, "Rss:", "VmRSS:");
}

uint64_t process_anonymous_bytes(pid_t pid)
{
    return process_memory(pid, "Anonymous:", "RssAnon:");
}

void histogram_reset(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

static size_t bucket_of(uint64_t value)
{
    if (value >> HISTOGRAM_SUB_BITS == 0) {
        return (size_t)value;
    }
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    size_t sub = (size_t)(value >> shift) & ((1u << HISTOGRAM_SUB_BITS) - 1);
    return ((size_t)(shift + 1) << HISTOGRAM_SUB_BITS) + sub;
}

static uint64_t bucket_value(size_t bucket)
{
    size_t group = bucket >> HISTOGRAM_SUB_BITS;
    uint64_t sub = bucket & ((1u << HISTOGRAM_SUB_BITS) - 1);
    if (group == 0) {
        return sub;
    }
    return ((1ull << HISTOGRAM_SUB_BITS) + sub) << (group - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->buckets[bucket_of(value)]++;
    histogram->count++;
    if (value > histogram->max) {
        histogram->max = value;
    }
}

uint64_t histogram_quantile(const struct histogram *histogram, double fraction)
{
    uint64_t wanted = (uint64_t)ceil((double)histogram->count * fraction);
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= wanted && seen != 0) {
            return bucket_value(i);
        }
    }
    return 0;
}

void report_begin(const char *scenario)
{
    (void)printf("{\"scenario\":\"%s\"", scenario);
}

void report_text(const char *name, const char *value)
{
    (void)printf(",\"%s\":\"%s\"", name, value);
}

void report_count(const char *name, uint64_t value)
{
    (void)printf(",\"%s\":%llu", name, (unsigned long long)value);
}

void report_number(const char *name, double value)
{
    if (isfinite(value)) {
        (void)printf(",\"%s\":%.4f", name, value);
    } else {
        (void)printf(",\"%s\":null", name);
    }
}

void report_latency(const char *prefix, const struct histogram *histogram)
{
    static const struct {
        const char *name;
        double fraction;
    } quantiles[] = {{"p50_us", 0.5}, {"p99_us", 0.99}, {"p999_us", 0.999}};
    char name[64];
    if (histogram->count == 0) {
        return;
    }
    for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++) {
        (void)text(name, sizeof name, "%s%s", prefix, quantiles[i].name);
        report_number(name, (double)histogram_quantile(histogram, quantiles[i].fraction) / 1000.0);
    }
    (void)text(name, sizeof name, "%smax_us", prefix);
    report_number(name, (double)histogram->max / 1000.0);
}

void report_end(void)
{
    (void)puts("}");
    (void)fflush(stdout);
}
