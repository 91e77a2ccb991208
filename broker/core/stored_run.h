/*
 * stored_run: the part of a session's queue that is in the store only, in order, as short as it
 * can be written.
 *
 * An entry says what a SLOT_STORED of a queue says. It is coded as the difference to the one
 * before: most take two or three bytes, none more than 24. Entries are read from the front and
 * added at the end, or, a run of them, in front. They stand in blocks that grow with the run, so
 * that a short run takes little. An empty run owns no memory.
 *
 *   Cost       push, pop: O(1); joining two runs: O(blocks).
 *   Memory     2 to 24 bytes for each entry, and up to 1 KiB that is not used yet.
 *   Threads    None of its own; belongs to the core's thread.
 */
#ifndef BROKER_STORED_RUN_H
#define BROKER_STORED_RUN_H

#include "slot.h"

/* What an entry is coded against. */
struct stored_base {
    uint64_t arrival;
    struct share_group *group; /* of the shared entry before; not held */
    uint32_t bytes;
};

/* FIFO. Zeroed memory is an empty run. */
struct stored_run {
    struct stored_block *head;
    struct stored_block *tail;
    struct stored_base last; /* of the tail */
    uint32_t count;
};

/*
 * Appends what `slot`, a SLOT_STORED or a stored SLOT_PUBLISH without a packet identifier, says:
 * its arrival and slot_bytes, qos, retain, is_second, returned, group. The reference to the group
 * goes to the run. False: there is no memory, nothing has changed. Requires: slot_bytes fits 32
 * bits.
 */
MUST_USE bool stored_run_push(struct stored_run *run, const struct slot *slot);

/* Takes the first entry out as a SLOT_STORED, with its reference. Requires: not empty. */
void stored_run_pop(struct stored_run *run, struct slot *slot);

/* The arrival of the first entry. Requires: not empty. */
uint64_t stored_run_first_arrival(const struct stored_run *run);

/* Frees all memory; references must have been released, or are others'. */
void stored_run_fini(struct stored_run *run);

/* Puts all entries of `before` in front of those of `run`; `before` is empty then. */
void stored_run_prepend(struct stored_run *run, struct stored_run *before);

/* Steps over all entries in order: start with stored_cursor_of; false at the end. No references are
 * taken. */
struct stored_cursor {
    const struct stored_block *block;
    struct stored_base base;
    uint16_t at;
};
struct stored_cursor stored_cursor_of(const struct stored_run *run);
MUST_USE bool stored_run_next(struct stored_cursor *cursor, struct slot *slot);

#endif
