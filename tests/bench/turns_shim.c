/*
 * turns_shim: preloaded into a broker, it measures the turns of the loop on the first thread by
 * what lies between the return of one epoll wait and the call of the next, and keeps the longest in
 * the file that BENCH_TURNS names. A program that waits otherwise has no turns.
 *
 *   Cost  Two clocks at each end of a turn, one of them a system call.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "turns.h"

typedef int wait_fn(int epoll, struct epoll_event *events, int max, int timeout);
typedef int pwait_fn(int epoll, struct epoll_event *events, int max, int timeout,
                     const sigset_t *mask);

static struct turns *turns; /* NULL: nobody asks */
static wait_fn *real_wait;
static pwait_fn *real_pwait;
static uint64_t began_ns, began_cpu_ns; /* of the turn under way; 0: none */
static __thread bool is_first_thread;

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((constructor)) static void prepare(void)
{
    *(void **)&real_wait = dlsym(RTLD_NEXT, "epoll_wait");
    *(void **)&real_pwait = dlsym(RTLD_NEXT, "epoll_pwait");
    const char *path = getenv(TURNS_VARIABLE);
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof *turns, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        turns = mapped == MAP_FAILED ? NULL : mapped;
        (void)close(fd);
    }
    is_first_thread = true;
}

static bool is_measured(void)
{
    return is_first_thread && turns != NULL;
}

static void end_turn(void)
{
    if (began_ns == 0) {
        return;
    }
    uint64_t cpu_ns = read_clock(CLOCK_THREAD_CPUTIME_ID) - began_cpu_ns;
    uint64_t ns = read_clock(CLOCK_MONOTONIC) - began_ns;
    turns->count++;
    if (ns > turns->longest_ns) {
        turns->longest_ns = ns;
        turns->longest_cpu_ns = cpu_ns;
    }
    if (cpu_ns > turns->busiest_cpu_ns) {
        turns->busiest_cpu_ns = cpu_ns;
    }
}

static void begin_turn(void)
{
    began_ns = read_clock(CLOCK_MONOTONIC);
    began_cpu_ns = read_clock(CLOCK_THREAD_CPUTIME_ID);
}

__attribute__((visibility("default"))) int epoll_wait(int epoll, struct epoll_event *events,
                                                      int max, int timeout)
{
    bool measured = is_measured();
    if (measured) {
        end_turn();
    }
    int count = real_wait(epoll, events, max, timeout);
    if (measured) {
        begin_turn();
    }
    return count;
}

__attribute__((visibility("default"))) int epoll_pwait(int epoll, struct epoll_event *events,
                                                       int max, int timeout, const sigset_t *mask)
{
    bool measured = is_measured();
    if (measured) {
        end_turn();
    }
    int count = real_pwait(epoll, events, max, timeout, mask);
    if (measured) {
        begin_turn();
    }
    return count;
}
