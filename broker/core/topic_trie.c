#include "topic_trie.h"

#include <string.h>

#include "mem.h"
#include "topic_tree.h"

enum {
    LIST_SCAN_MAX = 32, /* lists of a larger capacity carry an index */
    LIST_MAX = 1 << 30,
};

static const uint32_t NOWHERE = UINT32_MAX;

/*
 * The subscriptions of one filter, in an order that earlier calls decide. One is kept in place. An
 * array has a capacity that is a power of two; above LIST_SCAN_MAX it is followed, in the same
 * allocation, by an index of 2 * capacity slots with linear probing: position + 1 of the subscriber
 * that hashes there, 0 = free.
 *
 * This is the user's area of a topic_node, which has one use while its list is not empty. Of the
 * node's children "#" comes first, then "+", so that a match finds them without a look-up.
 */
struct list {
    union {
        struct subscription one;    /* capacity 0 */
        struct subscription *items; /* capacity > 0; owned */
    };
    uint32_t count;
    uint8_t capacity_bits; /* capacity 2 to the power of it; 0: none */
    bool has_hash;         /* the node's children, not the list */
    bool has_plus;
};

enum { ROUTES = 4096, ROUTE_LISTS_MAX = 4, ROUTE_TOPIC_MAX = 76 };

/*
 * What a topic matched last, valid while the trie stays as it is: publishers repeat themselves.
 * Each topic has one place, which it shares with others. It takes the place with its second message
 * in a row, so that a stream of ever different topics costs a comparison and no more.
 */
struct route {
    uint64_t version; /* of the trie when it was filled; 0: it is not */
    uint64_t hash;    /* of the topic that came last */
    const struct list *lists[ROUTE_LISTS_MAX];
    uint16_t topic_len;
    uint16_t list_count;
    uint8_t topic[ROUTE_TOPIC_MAX];
};

struct topic_trie {
    struct topic_tree tree;
    size_t count;
    uint64_t version; /* counts what changes matches */
    struct route *routes;
    bool matching;
};

static struct list *list_of(const struct topic_node *node)
{
    return topic_node_user(node);
}

static uint32_t capacity_of(const struct list *list)
{
    return list->capacity_bits == 0 ? 0 : UINT32_C(1) << list->capacity_bits;
}

static struct subscription *list_items(const struct list *list)
{
    return list->capacity_bits == 0 ? (struct subscription *)(uintptr_t)&list->one : list->items;
}

static uint32_t *index_of(const struct list *list)
{
    uint32_t capacity = capacity_of(list);
    return capacity > LIST_SCAN_MAX ? (uint32_t *)(void *)(list->items + capacity) : NULL;
}

static uint32_t index_mask(const struct list *list)
{
    return 2 * capacity_of(list) - 1;
}

/* Addresses decide only where in the index a subscriber is found, never an order. */
static uint32_t index_home(const struct list *list, const void *subscriber)
{
    uint64_t mixed = (uint64_t)(uintptr_t)subscriber * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mixed >> 32) & index_mask(list);
}

/* The index slot of `subscriber`, or the free slot where it belongs. */
static uint32_t index_find(const struct list *list, const void *subscriber)
{
    const uint32_t *index = index_of(list);
    uint32_t slot = index_home(list, subscriber);
    while (index[slot] != 0 && list->items[index[slot] - 1].subscriber != subscriber) {
        slot = (slot + 1) & index_mask(list);
    }
    return slot;
}

static void index_remove(struct list *list, uint32_t gap)
{
    uint32_t *index = index_of(list);
    uint32_t mask = index_mask(list);
    for (uint32_t slot = (gap + 1) & mask; index[slot] != 0; slot = (slot + 1) & mask) {
        uint32_t home = index_home(list, list->items[index[slot] - 1].subscriber);
        if (((slot - home) & mask) >= ((slot - gap) & mask)) {
            index[gap] = index[slot];
            gap = slot;
        }
    }
    index[gap] = 0;
}

static uint32_t list_find(const struct list *list, const void *subscriber)
{
    const uint32_t *index = index_of(list);
    if (index != NULL) {
        uint32_t entry = index[index_find(list, subscriber)];
        return entry == 0 ? NOWHERE : entry - 1;
    }
    const struct subscription *items = list_items(list);
    for (uint32_t i = 0; i < list->count; i++) {
        if (items[i].subscriber == subscriber) {
            return i;
        }
    }
    return NOWHERE;
}

/* Moves the subscriptions to an array of 2 to the power of `bits`, with an index when it is long.
 */
static enum status list_resize(struct list *list, uint8_t bits)
{
    size_t capacity = (size_t)1 << bits;
    size_t items_bytes = capacity * sizeof(struct subscription);
    size_t index_bytes = capacity > LIST_SCAN_MAX ? 2 * capacity * sizeof(uint32_t) : 0;
    struct subscription *items = mem_alloc(items_bytes + index_bytes);
    if (items == NULL) {
        return STATUS_NO_MEMORY;
    }
    memcpy(items, list_items(list), list->count * sizeof *items);
    if (list->capacity_bits != 0) {
        mem_free(list->items);
    }
    list->items = items;
    list->capacity_bits = bits;
    uint32_t *index = index_of(list);
    if (index != NULL) {
        memset(index, 0, index_bytes);
        for (uint32_t i = 0; i < list->count; i++) {
            index[index_find(list, items[i].subscriber)] = i + 1;
        }
    }
    return STATUS_OK;
}

static enum status list_add(struct list *list, const struct subscription *subscription)
{
    if (list->count == UINT32_C(1) << list->capacity_bits) {
        if (list->count >= LIST_MAX) {
            return STATUS_LIMIT;
        }
        enum status status = list_resize(list, (uint8_t)(list->capacity_bits + 1));
        if (status != STATUS_OK) {
            return status;
        }
    }
    uint32_t *index = index_of(list);
    if (index != NULL) {
        index[index_find(list, subscription->subscriber)] = list->count + 1;
    }
    list_items(list)[list->count++] = *subscription;
    return STATUS_OK;
}

/* Gives memory back when the array is far too long. Failing to do so harms nothing. */
static void list_shrink(struct list *list)
{
    if (list->capacity_bits == 0) {
        return;
    }
    if (list->count <= 1) {
        struct subscription *items = list->items;
        if (list->count == 1) {
            list->one = items[0];
        }
        list->capacity_bits = 0;
        mem_free(items);
    } else if (list->count <= capacity_of(list) / 4) {
        enum status status = list_resize(list, (uint8_t)(list->capacity_bits - 1));
        (void)status;
    }
}

static void list_remove(struct list *list, uint32_t position)
{
    struct subscription *items = list_items(list);
    uint32_t last = list->count - 1;
    uint32_t *index = index_of(list);
    if (index != NULL) {
        index_remove(list, index_find(list, items[position].subscriber));
        if (position != last) {
            index[index_find(list, items[last].subscriber)] = position + 1;
        }
    }
    items[position] = items[last];
    list->count--;
    list_shrink(list);
}

static bool node_is(const struct topic_node *node, const char *level)
{
    return bytes_equal_string(topic_node_level_behind(node, sizeof(struct list)), level);
}

static const struct topic_node *hash_child(const struct topic_node *node)
{
    return list_of(node)->has_hash ? node->first_child : NULL;
}

static const struct topic_node *plus_child(const struct topic_node *node)
{
    const struct list *list = list_of(node);
    if (!list->has_plus) {
        return NULL;
    }
    return list->has_hash ? node->first_child->next : node->first_child;
}

/* The parent learns that a wildcard child goes. */
static void forget(struct topic_node *node)
{
    const struct list *list = list_of(node);
    if (list->capacity_bits != 0) {
        mem_free(list->items);
    }
    if (node->parent != NULL) {
        struct list *parent = list_of(node->parent);
        parent->has_hash = parent->has_hash && !node_is(node, "#");
        parent->has_plus = parent->has_plus && !node_is(node, "+");
    }
}

/* Puts the wildcard children on the path of `node` in front of what has been added. */
static void order_wildcards(const struct topic_tree *tree, struct topic_node *node)
{
    for (; node->parent != NULL; node = node->parent) {
        struct list *parent = list_of(node->parent);
        parent->has_hash = parent->has_hash || node_is(node, "#");
        parent->has_plus = parent->has_plus || node_is(node, "+");
        if (parent->has_plus) {
            topic_node_to_front(topic_tree_child(tree, node->parent, bytes_of_string("+")));
        }
        if (parent->has_hash) {
            topic_node_to_front(topic_tree_child(tree, node->parent, bytes_of_string("#")));
        }
    }
}

enum status topic_trie_create(const struct hash_seed *seed, size_t nodes_max,
                              struct topic_trie **out)
{
    *out = NULL;
    struct topic_trie *trie = mem_zalloc(sizeof *trie);
    if (trie == NULL) {
        return STATUS_NO_MEMORY;
    }
    trie->routes =
        mem_zalloc(ROUTES * sizeof *trie->routes); /* pages that are not used cost nothing */
    if (trie->routes == NULL ||
        topic_tree_init(&trie->tree, seed, nodes_max, sizeof(struct list), forget) != STATUS_OK) {
        mem_free(trie->routes);
        mem_free(trie);
        return STATUS_NO_MEMORY;
    }
    trie->version = 1;
    *out = trie;
    return STATUS_OK;
}

void topic_trie_destroy(struct topic_trie *trie)
{
    if (trie != NULL) {
        ENSURE(!trie->matching);
        topic_tree_fini(&trie->tree);
        mem_free(trie->routes);
        mem_free(trie);
    }
}

enum status topic_trie_add(struct topic_trie *trie, struct bytes filter,
                           const struct subscription *subscription, bool *replaced)
{
    ENSURE(!trie->matching && subscription->subscriber != NULL);
    *replaced = false;
    struct topic_node *node = NULL;
    enum status status = topic_tree_put(&trie->tree, filter, &node);
    if (status != STATUS_OK) {
        return status;
    }
    struct list *list = list_of(node);
    uint32_t position = list_find(list, subscription->subscriber);
    if (position != NOWHERE) {
        list_items(list)[position] = *subscription;
        *replaced = true;
        topic_tree_release(&trie->tree, node);
        return STATUS_OK;
    }
    status = list_add(list, subscription);
    if (status != STATUS_OK) {
        topic_tree_release(&trie->tree, node);
        return status;
    }
    trie->count++;
    trie->version++;
    if (list->count == 1) {
        order_wildcards(&trie->tree, node); /* and the use that put added stays */
    } else {
        topic_tree_release(&trie->tree, node);
    }
    return STATUS_OK;
}

enum status topic_trie_remove(struct topic_trie *trie, struct bytes filter, const void *subscriber)
{
    ENSURE(!trie->matching);
    struct topic_node *node = topic_tree_find(&trie->tree, filter);
    if (node == NULL) {
        return STATUS_NOT_FOUND;
    }
    struct list *list = list_of(node);
    uint32_t position = list_find(list, subscriber);
    if (position == NOWHERE) {
        return STATUS_NOT_FOUND;
    }
    list_remove(list, position);
    trie->count--;
    trie->version++;
    if (list->count == 0) {
        topic_tree_release(&trie->tree, node);
    }
    return STATUS_OK;
}

const struct subscription *topic_trie_find(const struct topic_trie *trie, struct bytes filter,
                                           const void *subscriber)
{
    const struct topic_node *node = topic_tree_find(&trie->tree, filter);
    if (node == NULL) {
        return NULL;
    }
    const struct list *list = list_of(node);
    uint32_t position = list_find(list, subscriber);
    return position == NOWHERE ? NULL : &list_items(list)[position];
}

/* One match: the topic's levels, and the branches to the right that are still to be walked. */
struct match {
    struct topic_trie *trie;
    topic_trie_match_fn *on_match;
    void *ctx;
    struct route *route; /* to be filled; NULL when what was found is not to be remembered */
    size_t level_count;  /* of the whole topic, also beyond TOPIC_LEVELS_MAX */
    size_t branch_count;
    struct bytes levels[TOPIC_LEVELS_MAX];
    struct branch {
        const struct topic_node *node;
        size_t depth;
    } branches[TOPIC_LEVELS_MAX + 1];
};

static void report_list(const struct list *list, topic_trie_match_fn *on_match, void *ctx)
{
    const struct subscription *items = list_items(list);
    for (uint32_t i = 0; i < list->count; i++) {
        on_match(ctx, &items[i]);
    }
}

static void report(struct match *match, const struct topic_node *node)
{
    const struct list *list = list_of(node);
    struct route *route = match->route;
    if (list->count == 0) {
        return;
    }
    if (route != NULL && route->list_count < ROUTE_LISTS_MAX) {
        route->lists[route->list_count++] = list;
    } else {
        match->route = NULL;
    }
    report_list(list, match->on_match, match->ctx);
}

static void split(struct match *match, struct bytes topic)
{
    struct topic_levels levels = topic_levels_of(topic);
    struct bytes level;
    match->level_count = 0;
    while (topic_levels_next(&levels, &level)) {
        if (match->level_count < TOPIC_LEVELS_MAX) {
            match->levels[match->level_count] = level;
        }
        match->level_count++;
    }
}

/* Follows the literal children from one node and leaves a branch wherever there is a '+'. */
static void walk(struct match *match, const struct topic_node *node, size_t depth, bool hidden)
{
    const struct topic_tree *tree = &match->trie->tree;
    while (node != NULL) {
        const struct topic_node *hash = hash_child(node);
        const struct topic_node *plus = plus_child(node);
        bool wild = !(hidden && depth == 0);
        if (hash != NULL && wild) {
            report(match, hash); /* "a/#" matches "a" too (4.7.1.2) */
        }
        if (depth == match->level_count) {
            report(match, node);
            return;
        }
        if (depth == TOPIC_LEVELS_MAX) {
            return; /* no filter is deeper */
        }
        if (plus != NULL && wild) {
            match->branches[match->branch_count++] = (struct branch){plus, depth + 1};
        }
        node = topic_tree_child(tree, node, match->levels[depth]);
        depth++;
    }
}

/* Walks the tree, and fills `route` with what it finds unless it is NULL. */
static void search(struct topic_trie *trie, struct bytes topic, struct route *route,
                   topic_trie_match_fn *on_match, void *ctx)
{
    struct match match; /* large; only what is used is written */
    match.trie = trie;
    match.on_match = on_match;
    match.ctx = ctx;
    match.route = route;
    match.branch_count = 0;
    split(&match, topic);
    bool hidden = topic.len != 0 && topic.data[0] == '$';
    walk(&match, trie->tree.root, 0, hidden);
    /* The deepest branch is taken first, so there is never more than one of each depth. */
    while (match.branch_count != 0) {
        struct branch branch = match.branches[--match.branch_count];
        walk(&match, branch.node, branch.depth, hidden);
    }
    if (match.route != NULL) {
        match.route->version = trie->version;
    }
}

/* True when `route` holds what `topic` matches now. */
static bool route_is(const struct topic_trie *trie, const struct route *route, uint64_t hash,
                     struct bytes topic)
{
    return route->version == trie->version && route->hash == hash &&
           bytes_equal(bytes_of(route->topic, route->topic_len), topic);
}

/* Where to remember `topic`, or NULL: it is too long, or this is the first time. */
static struct route *route_take(struct route *route, uint64_t hash, struct bytes topic)
{
    route->version = 0;
    if (topic.len > ROUTE_TOPIC_MAX || route->hash != hash) {
        route->hash = hash;
        return NULL;
    }
    bytes_copy(route->topic, topic);
    route->topic_len = (uint16_t)topic.len;
    route->list_count = 0;
    return route;
}

void topic_trie_match(struct topic_trie *trie, struct bytes topic, topic_trie_match_fn *on_match,
                      void *ctx)
{
    if (trie->count == 0) {
        return;
    }
    uint64_t hash = hash_quick(topic);
    struct route *route = &trie->routes[hash % ROUTES];
    bool nested = trie->matching;
    trie->matching = true;
    if (route_is(trie, route, hash, topic)) {
        for (size_t i = 0; i < route->list_count; i++) {
            report_list(route->lists[i], on_match, ctx);
        }
    } else {
        search(trie, topic, nested ? NULL : route_take(route, hash, topic), on_match, ctx);
    }
    trie->matching = nested;
}

size_t topic_trie_count(const struct topic_trie *trie)
{
    return trie->count;
}

size_t topic_trie_node_count(const struct topic_trie *trie)
{
    return trie->tree.node_count;
}

static void check_list(const struct list *list)
{
    const struct subscription *items = list_items(list);
    ENSURE(list->count <= UINT32_C(1) << list->capacity_bits);
    for (uint32_t i = 0; i < list->count; i++) {
        ENSURE(items[i].subscriber != NULL);
        ENSURE(list_find(list, items[i].subscriber) == i);
    }
    const uint32_t *index = index_of(list);
    if (index != NULL) {
        uint32_t used = 0;
        for (uint32_t slot = 0; slot <= index_mask(list); slot++) {
            used += index[slot] != 0;
        }
        ENSURE(used == list->count);
    }
}

void topic_trie_check(const struct topic_trie *trie)
{
    size_t count = 0;
    topic_tree_check(&trie->tree);
    ENSURE(list_of(trie->tree.root)->count == 0);
    for (const struct topic_node *node = trie->tree.root; node != NULL;
         node = topic_tree_next(node)) {
        const struct list *list = list_of(node);
        check_list(list);
        count += list->count;
        ENSURE(node->uses == (list->count != 0));
        ENSURE(plus_child(node) == topic_tree_child(&trie->tree, node, bytes_of_string("+")));
        ENSURE(hash_child(node) == topic_tree_child(&trie->tree, node, bytes_of_string("#")));
    }
    ENSURE(count == trie->count);
}
