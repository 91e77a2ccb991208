/*
 * disk_shim: preloaded into a program that writes a store, keeps a record of everything that the
 * program does to the store's file, and plays a disk that fails or is slow.
 *
 *   DISK_RECORD    where the record goes
 *   DISK_FILE      the name of the file that is watched, without its directory
 *   DISK_FAULT     "eio-write", "eio-sync" or "enospc"; DISK_FAULT_AT: which call fails, from 1;
 *                  DISK_FAULT_COUNT: how many do from there on
 *   DISK_SLOW_US   how long each sync takes
 *
 * What would make a record incomplete, such as a msync, ends the program.
 */
/* Both open and open64 are defined here: the one is not to be made the other. */
#undef _FILE_OFFSET_BITS

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "disk_record.h"

enum { FILES_MAX = 64 };

typedef int open_fn(const char *path, int flags, ...);
typedef ssize_t write_fn(int fd, const void *data, size_t len);
typedef ssize_t pwrite_fn(int fd, const void *data, size_t len, off_t offset);

/* Each watched descriptor: 0 no, 1 yes, 2 yes and each write is synced. */
static int watched[FILES_MAX];
static int record = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned writes, syncs;
static bool exhausted; /* the last write found no room */

/* dlsym gives a void *, and C has no conversion from that to a function. */
static void real(void *to, const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL) {
        abort();
    }
    memcpy(to, &symbol, sizeof symbol);
}

static unsigned number(const char *name)
{
    const char *value = getenv(name);
    return value == NULL ? 0 : (unsigned)strtoul(value, NULL, 10);
}

static bool faulty(const char *fault, unsigned call)
{
    const char *wanted = getenv("DISK_FAULT");
    unsigned at = number("DISK_FAULT_AT");
    return wanted != NULL && strcmp(wanted, fault) == 0 && call >= at &&
           call - at < number("DISK_FAULT_COUNT");
}

static void put(const void *data, size_t len)
{
    write_fn *real_write;
    real(&real_write, "write");
    if (real_write(record, data, len) != (ssize_t)len) {
        abort();
    }
}

/* One entry; `data` may be NULL with len of no meaning but itself. */
static void note(enum disk_entry_kind kind, uint64_t offset, const void *data, size_t len)
{
    const struct disk_entry entry = {
        .kind = kind, .len = data == NULL ? 0 : (uint32_t)len, .offset = offset};
    (void)pthread_mutex_lock(&lock);
    if (record >= 0) {
        put(&entry, sizeof entry);
        if (data != NULL) {
            put(data, len);
        }
    }
    (void)pthread_mutex_unlock(&lock);
}

void disk_shim_mark(unsigned kind, uint64_t value);

/* For the program: its own events among those of the disk. */
void disk_shim_mark(unsigned kind, uint64_t value)
{
    note((enum disk_entry_kind)kind, value, NULL, 0);
}

static void watch(const char *path, int fd, int flags)
{
    const char *name = getenv("DISK_FILE");
    const char *slash = strrchr(path, '/');
    if (name == NULL || fd < 0 || strcmp(slash == NULL ? path : slash + 1, name) != 0 ||
        (flags & O_ACCMODE) == O_RDONLY) {
        return;
    }
    if (fd >= FILES_MAX) {
        abort();
    }
    if (record < 0) {
        open_fn *real_open;
        real(&real_open, "open");
        record = real_open(getenv("DISK_RECORD"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (record < 0) {
            abort();
        }
    }
    watched[fd] = (flags & O_DSYNC) != 0 ? 2 : 1;
}

static int open_watched(const char *symbol, const char *path, int flags, mode_t mode)
{
    open_fn *real_open;
    real(&real_open, symbol);
    int fd = real_open(path, flags, mode);
    watch(path, fd, flags);
    return fd;
}

/* A file that may be made is opened with a mode. */
static mode_t mode_of(int flags, va_list arguments)
{
    return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_watched("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_watched("open64", path, flags, mode);
}

static bool is_watched(int fd)
{
    return fd >= 0 && fd < FILES_MAX && watched[fd] != 0;
}

int close(int fd)
{
    int (*real_close)(int);
    real(&real_close, "close");
    if (is_watched(fd)) {
        watched[fd] = 0;
    }
    return real_close(fd);
}

/* Writes to a watched file, or fails as it should. */
static ssize_t write_watched(int fd, const void *data, size_t len, off_t offset)
{
    pwrite_fn *real_pwrite;
    real(&real_pwrite, "pwrite");
    unsigned call = ++writes;
    if (faulty("eio-write", call) || faulty("enospc", call)) {
        exhausted = faulty("enospc", call);
        errno = exhausted ? ENOSPC : EIO;
        return -1;
    }
    exhausted = false;
    note(DISK_WRITE, (uint64_t)offset, data, len);
    ssize_t written = real_pwrite(fd, data, len, offset);
    if (written != (ssize_t)len) {
        abort(); /* the record would be wrong */
    }
    if (watched[fd] == 2) {
        note(DISK_SYNC_LAST, 0, NULL, 0);
    }
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
    if (is_watched(fd)) {
        return write_watched(fd, data, len, offset);
    }
    pwrite_fn *real_pwrite;
    real(&real_pwrite, "pwrite");
    return real_pwrite(fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
    return pwrite(fd, data, len, offset);
}

ssize_t write(int fd, const void *data, size_t len)
{
    write_fn *real_write;
    real(&real_write, "write");
    if (!is_watched(fd)) {
        return real_write(fd, data, len);
    }
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t written = write_watched(fd, data, len, at);
    return written < 0 || lseek(fd, at + written, SEEK_SET) < 0 ? -1 : written;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t (*real_writev)(int, const struct iovec *, int);
    real(&real_writev, "writev");
    if (!is_watched(fd)) {
        return real_writev(fd, parts, count);
    }
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) {
        ssize_t written = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (written < 0) {
            return sum == 0 ? -1 : sum;
        }
        sum += written;
    }
    return sum;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (is_watched(fd)) {
        abort();
    }
    ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
    real(&real_pwritev, "pwritev");
    return real_pwritev(fd, parts, count, offset);
}

static int sync_watched(const char *symbol, int fd)
{
    int (*real_sync)(int);
    real(&real_sync, symbol);
    if (!is_watched(fd)) {
        return real_sync(fd);
    }
    if (faulty("eio-sync", ++syncs)) {
        errno = EIO;
        return -1;
    }
    if (number("DISK_SLOW_US") != 0) {
        (void)usleep(number("DISK_SLOW_US"));
    }
    /* The record is the disk: nothing waits for a real one. */
    note(DISK_SYNC, 0, NULL, 0);
    return 0;
}

int fdatasync(int fd)
{
    return sync_watched("fdatasync", fd);
}

int fsync(int fd)
{
    return sync_watched("fsync", fd);
}

int fstatvfs(int fd, struct statvfs *out)
{
    int (*real_fstatvfs)(int, struct statvfs *);
    real(&real_fstatvfs, "fstatvfs");
    int result = real_fstatvfs(fd, out);
    if (result == 0 && is_watched(fd) && exhausted) {
        out->f_bavail = 0;
    }
    return result;
}

int fstatvfs64(int fd, struct statvfs64 *out)
{
    int (*real_fstatvfs)(int, struct statvfs64 *);
    real(&real_fstatvfs, "fstatvfs64");
    int result = real_fstatvfs(fd, out);
    if (result == 0 && is_watched(fd) && exhausted) {
        out->f_bavail = 0;
    }
    return result;
}

int ftruncate(int fd, off_t len)
{
    int (*real_ftruncate)(int, off_t);
    real(&real_ftruncate, "ftruncate");
    if (is_watched(fd)) {
        abort();
    }
    return real_ftruncate(fd, len);
}

int msync(void *at, size_t len, int flags)
{
    (void)at;
    (void)len;
    (void)flags;
    abort();
}
