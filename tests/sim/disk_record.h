/* disk_record: what disk_shim.c writes down, and store_sim_test.c reads. */
#ifndef TESTS_DISK_RECORD_H
#define TESTS_DISK_RECORD_H

#include <stdint.h>

enum disk_entry_kind {
    DISK_WRITE = 1,   /* followed by `len` bytes */
    DISK_SYNC,        /* all writes before are durable */
    DISK_SYNC_LAST,   /* the last write is */
    DISK_MARK_FLUSH,  /* the program flushed; `offset`: the ticket of what it flushed */
    DISK_MARK_COMMIT, /* it was told that ticket `offset` is committed */
    DISK_MARK_FAILED, /* it was told that the store has failed */
    DISK_MARK_FULL,   /* it saw that the store is full */
};

struct disk_entry {
    uint32_t kind;
    uint32_t len;
    uint64_t offset;
};

#endif
