/*
 * support: what every part of the load generator needs and no broker code should lend it: growable
 * buffers, the clock, the measured process's CPU and memory, a latency histogram and the one line
 * of JSON that a run prints.
 *
 *   Place    tests/bench; used by all its files. Depends on the C library only.
 *   Cost     histogram_add and the clock are the only calls made for each message.
 *   Errors   The generator has nobody to report to: an impossible situation ends it through `die`.
 */
#ifndef BENCH_SUPPORT_H
#define BENCH_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SECOND_NS 1000000000ull
#define MILLISECOND_NS 1000000ull

/* Prints a line on stderr and exits with status 1. */
__attribute__((format(printf, 1, 2), noreturn)) void die(const char *format, ...);

/* snprintf that dies when the text does not fit. Returns its length. */
__attribute__((format(printf, 3, 4))) size_t text(char *to, size_t size, const char *format, ...);

void *must_alloc(size_t count, size_t size);
void *must_resize(void *old, size_t size);

struct buffer {
    uint8_t *data;
    size_t len;
    size_t capacity;
};

/* Makes room for `len` more bytes and returns where they go; the caller fills them. */
uint8_t *buffer_extend(struct buffer *buffer, size_t len);
void buffer_append(struct buffer *buffer, const void *data, size_t len);
void buffer_fini(struct buffer *buffer);

uint64_t clock_ns(void);

/* User and system time of all threads of `pid`, 0 when pid is 0. Read through the process CPU
 * clock, which has nanoseconds where /proc/PID/stat has clock ticks. */
uint64_t process_cpu_ns(pid_t pid);
uint64_t own_cpu_ns(void);

/* The same of its first thread alone, which in Dunlin is the one that routes. */
uint64_t first_thread_cpu_ns(pid_t pid);

/* Resident bytes of `pid`, 0 when pid is 0. From smaps_rollup, which counts pages, because VmRSS is
 * a sum of per-CPU counters that lags by up to some hundred KiB. */
uint64_t process_resident_bytes(pid_t pid);

/* What of it no file backs, and so only the swap could give back. */
uint64_t process_anonymous_bytes(pid_t pid);

/* Log-linear buckets: 128 for each power of two, so every value is within 0.8 % of its bucket. */
#define HISTOGRAM_SUB_BITS 7
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_reset(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value);
/* The smallest bucket value that at least `fraction` of all values do not exceed; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, double fraction);

/* One JSON object on stdout: begin, fields, end. Not nested. */
void report_begin(const char *scenario);
void report_text(const char *name, const char *value);
void report_count(const char *name, uint64_t value);
/* Not finite values (a division by zero events) become null. */
void report_number(const char *name, double value);
/* Four fields, PREFIXp50_us, p99, p999 and max. Nothing when the histogram is empty. */
void report_latency(const char *prefix, const struct histogram *histogram);
void report_end(void);

#endif
