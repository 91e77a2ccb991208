/*
 * topic_trie: finds the subscriptions that match a published topic.
 *
 * Holds filters ("a/+/c", "a/#") split at '/', one node per level (topic_tree.h). Knows no
 * sessions, sockets or clock: a subscriber is a pointer that it never follows.
 *
 *   Cost       add, find, remove: O(L) hash look-ups and O(1) in the node's list, however many
 *              subscribers share the filter. match: O(min(2^L, nodes) + matches), no allocation.
 *              L = levels, at most TOPIC_LEVELS_MAX. A topic that is matched again while no
 *              subscription has come or gone: O(matches), one look.
 *   Memory     One node per distinct filter prefix; its first subscription costs nothing more,
 *              others 16 bytes each (24 to 48 in lists of more than 32). remove prunes empty nodes.
 *   Threads    None of its own. All calls come from the thread that runs the core.
 *   Replay     The order of matches depends only on earlier calls, never on addresses.
 */
#ifndef CORE_TOPIC_TRIE_H
#define CORE_TOPIC_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "hash.h"
#include "status.h"
#include "topic.h"

struct topic_trie;

/* One subscriber's wish for one filter. Stored by value; the trie reads only `subscriber`. */
struct subscription {
    void *subscriber;    /* a session or a shared-subscription group; never NULL, never followed */
    uint32_t identifier; /* MQTT 5 Subscription Identifier; 0 = absent */
    uint8_t qos;         /* maximum QoS granted: 0, 1 or 2 */
    bool no_local;       /* MQTT 5 No Local: withhold the client's own messages */
    bool retain_as_published; /* MQTT 5 Retain As Published */
    bool is_group;            /* what `subscriber` is; for the caller alone */
};

/*
 * Called once per matching subscription. `subscription` is borrowed and dies when the call returns.
 * Must not call topic_trie_add, _remove or _destroy on the same trie (asserted).
 */
typedef void topic_trie_match_fn(void *ctx, const struct subscription *subscription);

/*
 * Makes an empty trie that will refuse to grow past `nodes_max` nodes. The seed is copied.
 * On STATUS_OK the caller owns *out and ends it with topic_trie_destroy; else *out is NULL.
 *
 * Errors: STATUS_NO_MEMORY.
 */
MUST_USE enum status topic_trie_create(const struct hash_seed *seed, size_t nodes_max,
                                       struct topic_trie **out);

/* Frees the trie and all it holds. NULL is allowed. */
void topic_trie_destroy(struct topic_trie *trie);

/*
 * Stores `subscription` under `filter`, replacing what that subscriber had there; *replaced says
 * which, because Retain Handling 1 depends on it (MQTT 5, 3.8.3.1). `filter` is copied.
 *
 * Requires: filter passed topic_filter_is_valid; any "$share/<group>/" prefix already removed.
 * Errors:   STATUS_LIMIT (nodes_max or TOPIC_LEVELS_MAX reached), STATUS_NO_MEMORY. The trie is
 *           then unchanged.
 */
MUST_USE enum status topic_trie_add(struct topic_trie *trie, struct bytes filter,
                                    const struct subscription *subscription, bool *replaced);

/* Removes one subscription; needs no memory. Errors: STATUS_NOT_FOUND; nothing has changed then. */
MUST_USE enum status topic_trie_remove(struct topic_trie *trie, struct bytes filter,
                                       const void *subscriber);

/* What `subscriber` has under `filter`, or NULL. Borrowed until the next add or remove. */
const struct subscription *topic_trie_find(const struct topic_trie *trie, struct bytes filter,
                                           const void *subscriber);

/*
 * Calls `on_match` for every subscription whose filter matches `topic`. A subscriber with
 * overlapping filters is reported once per filter; merging them is the caller's decision. Topics
 * that begin with '$' are hidden from filters that begin with a wildcard (4.7.2).
 *
 * Requires: topic passed topic_name_is_valid. Cannot fail.
 */
void topic_trie_match(struct topic_trie *trie, struct bytes topic, topic_trie_match_fn *on_match,
                      void *ctx);

/* Subscriptions stored. */
size_t topic_trie_count(const struct topic_trie *trie);

/* Nodes in use, the number that nodes_max limits. */
size_t topic_trie_node_count(const struct topic_trie *trie);

/* Asserts every invariant. O(nodes + subscriptions): for tests, fuzzers and the simulator. */
void topic_trie_check(const struct topic_trie *trie);

#endif
