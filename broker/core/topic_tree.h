/*
 * topic_tree: names or filters split at '/', one node per distinct prefix.
 *
 * The structure that the subscriptions (topic_trie.c) and the retained messages (retained.c) share.
 * Children are found through one hash table for the whole tree, keyed by parent and level, and
 * enumerated through sibling links. Level text is not interpreted here: '+' and '#' are levels like
 * others.
 *
 * A node lives while it has children or uses. A use is a reason of the user to keep it: a value
 * stored in it, a cursor that rests on it. Ancestors live because they have children, so a cursor
 * needs to keep no more than its current node.
 *
 *   Cost       put, find: O(levels) hash look-ups. Doubling the table moves 12 bytes per slot in
 *              sequence and touches no node.
 *   Memory     40 bytes + the user's area + 2 + level text in one allocation per node, and 16 to 32
 *              in the table.
 *   Order      A new node becomes its parent's first child: whoever walks along siblings never
 *              meets nodes that were added behind its back, and so comes to an end. The order
 *              depends on earlier calls alone.
 *   Threads    None of its own.
 */
#ifndef CORE_TOPIC_TREE_H
#define CORE_TOPIC_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "hash.h"
#include "status.h"
#include "topic.h"

struct topic_node {
    struct topic_node *parent; /* NULL for the root */
    struct topic_node *first_child;
    struct topic_node *next, *prev; /* siblings; prev is NULL for the first child */
    uint32_t hash; /* of the parent's hash and the level, so of the path; 0 for the root alone */
    uint32_t uses;
    unsigned char rest[]; /* the user's area, then uint16_t level length and level text */
};

/* Called before a node is freed, while it is still linked: the user's area goes with it. */
typedef void topic_node_forget_fn(struct topic_node *node);

struct topic_tree {
    struct hash_seed seed;
    uint32_t *hashes;          /* open addressing with linear probing; 0 = free */
    struct topic_node **nodes; /* of those hashes; one allocation with them */
    size_t slot_count;         /* a power of two */
    size_t node_count;         /* the root is not counted */
    size_t nodes_max;
    size_t user_bytes;
    topic_node_forget_fn *forget;
    struct topic_node *root;
};

/*
 * Makes an empty tree in `tree`, whose nodes carry `user_bytes` (a multiple of 8) of zeroed memory
 * for the user. `forget` may be NULL. End with topic_tree_fini.
 *
 * Errors: STATUS_NO_MEMORY; there is then nothing to end.
 */
MUST_USE enum status topic_tree_init(struct topic_tree *tree, const struct hash_seed *seed,
                                     size_t nodes_max, size_t user_bytes,
                                     topic_node_forget_fn *forget);

/* Calls `forget` for every node and frees all. */
void topic_tree_fini(struct topic_tree *tree);

/* The user's area of a node; aligned for pointers. */
static inline void *topic_node_user(const struct topic_node *node)
{
    return (void *)(uintptr_t)node->rest;
}

/* The level of a node in a tree of so many user_bytes. */
static inline struct bytes topic_node_level_behind(const struct topic_node *node, size_t user_bytes)
{
    uint16_t len;
    memcpy(&len, node->rest + user_bytes, sizeof len);
    return bytes_of(node->rest + user_bytes + sizeof len, len);
}

static inline struct bytes topic_node_level(const struct topic_tree *tree,
                                            const struct topic_node *node)
{
    return topic_node_level_behind(node, tree->user_bytes);
}

/*
 * Finds or makes the node of `topic` and adds one use to it, which the caller gives back with
 * topic_tree_release.
 *
 * Errors: STATUS_LIMIT (nodes_max or TOPIC_LEVELS_MAX reached), STATUS_NO_MEMORY. The tree is then
 * unchanged.
 */
MUST_USE enum status topic_tree_put(struct topic_tree *tree, struct bytes topic,
                                    struct topic_node **out);

/* The node of `topic`, or NULL. */
struct topic_node *topic_tree_find(const struct topic_tree *tree, struct bytes topic);

/* The child of `parent` named `level`, or NULL. A parent without children costs no hash. */
struct topic_node *topic_tree_child(const struct topic_tree *tree, const struct topic_node *parent,
                                    struct bytes level);

/* Makes a node other than the root its parent's first child. */
void topic_node_to_front(struct topic_node *node);

/* Adds one use. */
void topic_tree_hold(struct topic_node *node);

/* Drops one use; frees the node and ancestors that are then without use and child, but the root. */
void topic_tree_release(struct topic_tree *tree, struct topic_node *node);

/* The next node when everything is enumerated from the root, parents first; NULL at the end. */
struct topic_node *topic_tree_next(const struct topic_node *node);

/* Asserts every invariant. O(nodes). */
void topic_tree_check(const struct topic_tree *tree);

#endif
