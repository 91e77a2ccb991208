/*
 * turns: how long the turns of a broker's event loop take, kept by turns_shim.c inside the broker
 * and read by the generator through a file that both map.
 *
 *   Place  tests/bench; the shim writes, durable.c begins a phase and reads. Depends on nothing.
 */
#ifndef BENCH_TURNS_H
#define BENCH_TURNS_H

#include <stdint.h>

/* Names the file, which has the size of the struct and is all zero, to the shim. */
#define TURNS_VARIABLE "BENCH_TURNS"

/* Of the turns since all was set to zero: a turn is what lies between two waits of the first
 * thread. Its CPU time is less than its time by what it waited for a CPU, a lock or a page. */
struct turns {
    uint64_t count;
    uint64_t longest_ns;
    uint64_t longest_cpu_ns; /* the CPU time of the longest */
    uint64_t busiest_cpu_ns; /* the most CPU time of any */
};

#endif
