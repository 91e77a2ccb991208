/*
 * memory_store: a store without a disk, under the replay scripts and the simulator. It is
 * deterministic and does nothing by itself: a batch becomes durable, and a fetch is answered, when
 * the test says so.
 *
 * A test plays a crash by destroying the core, calling memory_store_crash and loading a new core
 * from what was committed. It must have let go of the core's messages before, as a process would.
 *
 *   Cost       O(1) for each row that a batch changes, O(recipients) for a message's.
 *   Ownership  The rows hold one reference to each message; fetches make new messages.
 *   Threads    The core's thread.
 */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "store.h"

/* An empty store; end it with store_destroy, which frees the rows too. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status memory_store_create(struct store **out);

/*
 * Commits the batch that is being written and hands on the next one if it was flushed meanwhile.
 * False: there was none, or the store is full or has failed. Calls events.committed.
 */
bool memory_store_commit(struct store *store);

/* Flushes and commits until no change is left, also of those that events.committed brings. */
void memory_store_commit_all(struct store *store);

/* Answers the oldest fetch. False: there was none. Calls events.fetched. */
bool memory_store_answer(struct store *store);

/* Forgets changes that are not committed and fetches that are not answered, and ends a failure:
 * the process is another one. set_events and load come next. */
void memory_store_crash(struct store *store);

/* While `full`, store_is_full is true and nothing is committed. */
void memory_store_set_full(struct store *store, bool full);

/* Reports events.failed; nothing is committed from then on. */
void memory_store_fail(struct store *store, const char *why);

/* The message can no longer be read back: fetches answer NULL for it, a load leaves it out. False:
 * it is not stored. */
bool memory_store_damage(struct store *store, uint64_t arrival);

/* How many rows are committed. */
struct memory_store_counts {
    size_t messages, recipients, sessions, subscriptions;
};

struct memory_store_counts memory_store_count(const struct store *store);

#endif
