/*
 * map: an intrusive hash map from bytes to the object that embeds a map_node.
 *
 * The map owns its bucket array only. The caller hashes (base/hash.h) and compares, so one
 * implementation serves every key type without a copy of the key.
 *
 *   Cost       find, add, remove: O(1) expected. Doubling rehashes all nodes at once.
 *   Memory     4 to 8 bytes for each node, and the node itself. Chains hold up to two on average:
 *              maps serve CONNECT and SUBSCRIBE, and memory of idle clients counts for more there.
 *   Order      Never iterated by address; map_each walks buckets, so its order depends on hashes
 * and history alone.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

struct map_node {
    struct map_node *next;
    uint64_t hash;
};

struct map {
    struct map_node **buckets;
    size_t bucket_count; /* 0 or a power of two */
    size_t count;
};

/* True when `node` is the object that `key` names; only called for nodes of equal hash. */
typedef bool map_equal_fn(const struct map_node *node, const void *key);

/* Makes the map empty. No allocation until the first add. */
void map_init(struct map *map);

/* Frees the bucket array; the nodes belong to the caller, who must have let go of them. */
void map_fini(struct map *map);

/* Forgets the nodes and keeps the buckets, for a map that fills again. O(bucket_count). */
void map_clear(struct map *map);

/* The node, or NULL. */
struct map_node *map_find(const struct map *map, uint64_t hash, map_equal_fn *equal,
                          const void *key);

/* Adds `node` under `hash`; the key must not be present. Errors: STATUS_NO_MEMORY, only for the
 * first node. */
MUST_USE enum status map_add(struct map *map, uint64_t hash, struct map_node *node);

/* Removes a node that is in the map (asserted). */
void map_remove(struct map *map, struct map_node *node);

/* Calls `each` for every node; the callback may remove (and free) the node that it is given, and no
 * other. */
void map_each(struct map *map, void (*each)(void *ctx, struct map_node *node), void *ctx);

#endif
