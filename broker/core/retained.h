/*
 * retained: the last retained message of each topic (3.3.1.3), and cursors that walk those that
 * match a filter.
 *
 * Holds one reference to each message, in a topic_tree. A new subscription opens a cursor and takes
 * messages from it as fast as its connection drains, so thousands of retained messages never sit in
 * a queue. The store may change between two steps of a cursor.
 *
 *   Cost       set, get: O(L) hash look-ups. A cursor step: O(budget * L) at worst, O(budget)
 *              usually; a filter without wildcards is one look-up.
 *   Memory     80 to 110 bytes for each topic plus its message; nodes of topics without a message
 *              are pruned.
 *   Threads    None of its own. All calls come from the thread that runs the core.
 *   Replay     The order of a cursor depends only on earlier calls, never on addresses.
 */
#ifndef CORE_RETAINED_H
#define CORE_RETAINED_H

#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "hash.h"
#include "message.h"
#include "status.h"

struct retained;
struct retained_cursor;

/* Told of each message that is not retained any more: replaced, removed or expired. */
typedef void retained_forget_fn(void *ctx, const struct message *message);

/*
 * Makes an empty store that will refuse to grow past `nodes_max` topic levels. The seed is copied.
 * `on_forget` may be NULL; it must not call back, and is not called by retained_destroy. On
 * STATUS_OK the caller owns *out and ends it with retained_destroy; else *out is NULL.
 *
 * Errors: STATUS_NO_MEMORY.
 */
MUST_USE enum status retained_create(const struct hash_seed *seed, size_t nodes_max,
                                     retained_forget_fn *on_forget, void *ctx,
                                     struct retained **out);

/* Releases all messages. Requires that every cursor is closed (asserted). NULL is allowed. */
void retained_destroy(struct retained *retained);

/*
 * Makes `message` the retained message of its topic and releases the one before. With an empty
 * payload it removes what is there instead [MQTT-3.3.1-6], [MQTT-3.3.1-7]; that cannot fail. The
 * store takes its own reference.
 *
 * Errors: STATUS_LIMIT (nodes_max or TOPIC_LEVELS_MAX reached), STATUS_NO_MEMORY. The store is then
 * unchanged.
 */
MUST_USE enum status retained_set(struct retained *retained, struct message *message);

/* The retained message of `topic`, or NULL if none or expired. Borrowed until the store changes. */
struct message *retained_get(const struct retained *retained, struct bytes topic, uint64_t now_ms);

/* Messages stored, and the sum of their message_size. Expired ones count until met or swept. */
size_t retained_count(const struct retained *retained);
size_t retained_bytes(const struct retained *retained);

/*
 * Looks at the next `budget` nodes, in turn from call to call, and removes the messages that
 * expired. Costs nothing while no stored message has an expiry. Returns how many it removed.
 */
size_t retained_sweep(struct retained *retained, size_t budget, uint64_t now_ms);

/*
 * Opens a cursor over the messages whose topic matches `filter`, which is copied. '$' topics are
 * hidden from a leading wildcard (4.7.2). The caller ends it with retained_cursor_close, also after
 * RETAINED_END.
 *
 * Requires: filter passed topic_filter_is_valid; any "$share/<group>/" prefix already removed.
 * Errors:   STATUS_NO_MEMORY; STATUS_LIMIT (TOPIC_LEVELS_MAX). *out is then NULL.
 */
MUST_USE enum status retained_cursor_open(struct retained *retained, struct bytes filter,
                                          struct retained_cursor **out);

enum retained_step {
    RETAINED_MESSAGE, /* *message is the next one */
    RETAINED_AGAIN,   /* the budget is used up; call again */
    RETAINED_END,     /* nothing more; stays so */
};

/*
 * Moves to the next matching message, looking at no more than `budget` nodes (at least 1).
 *
 * A topic whose message stayed in the store since the cursor was opened is visited exactly once. A
 * topic whose message was set or replaced meanwhile is visited at most once, with the message that
 * is there then: message->sequence tells the caller whether it is newer than the subscription, and
 * so already delivered live. Expired messages are removed from the store and not visited. *message
 * is borrowed until the store changes; NULL unless RETAINED_MESSAGE.
 */
enum retained_step retained_cursor_next(struct retained_cursor *cursor, size_t budget,
                                        uint64_t now_ms, struct message **message);

/* NULL is allowed. */
void retained_cursor_close(struct retained_cursor *cursor);

/* Asserts every invariant of the structure. O(nodes): for tests, fuzzers and the simulator. */
void retained_check(const struct retained *retained);

#endif
