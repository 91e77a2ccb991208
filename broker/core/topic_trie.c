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
 */
struct list {
    union {
        struct subscription one;    /* capacity 0 */
        struct subscription *items; /* capacity > 0; owned */
    };
    uint32_t count;
    uint32_t capacity;
};

/* The user's area of a topic_node. A node has one use while its list is not empty. */
struct filter_node {
    struct topic_node *plus; /* the children that a match needs without a look-up */
    struct topic_node *hash;
    struct list list;
};

struct topic_trie {
    struct topic_tree tree;
    size_t count;
    bool matching;
};

static struct filter_node *filter_of(const struct topic_node *node)
{
    return topic_node_user(node);
}

static struct subscription *list_items(const struct list *list)
{
    return list->capacity == 0 ? (struct subscription *)(uintptr_t)&list->one : list->items;
}

static uint32_t *index_of(const struct list *list)
{
    return list->capacity > LIST_SCAN_MAX ? (uint32_t *)(void *)(list->items + list->capacity)
                                          : NULL;
}

static uint32_t index_mask(const struct list *list)
{
    return 2 * list->capacity - 1;
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

/* Moves the subscriptions to an array of `capacity`, with an index when it is long. */
static enum status list_resize(struct list *list, uint32_t capacity)
{
    size_t items_bytes = capacity * sizeof(struct subscription);
    size_t index_bytes = capacity > LIST_SCAN_MAX ? 2 * (size_t)capacity * sizeof(uint32_t) : 0;
    struct subscription *items = mem_alloc(items_bytes + index_bytes);
    if (items == NULL) {
        return STATUS_NO_MEMORY;
    }
    memcpy(items, list_items(list), list->count * sizeof *items);
    if (list->capacity != 0) {
        mem_free(list->items);
    }
    list->items = items;
    list->capacity = capacity;
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
    if (list->count == (list->capacity == 0 ? 1 : list->capacity)) {
        if (list->count >= LIST_MAX) {
            return STATUS_LIMIT;
        }
        enum status status = list_resize(list, list->count * 2);
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
    if (list->capacity == 0) {
        return;
    }
    if (list->count <= 1) {
        struct subscription *items = list->items;
        if (list->count == 1) {
            list->one = items[0];
        }
        list->capacity = 0;
        mem_free(items);
    } else if (list->count <= list->capacity / 4) {
        enum status status = list_resize(list, list->capacity / 2);
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

/* The parent stops pointing at a wildcard child that goes. */
static void forget(struct topic_node *node)
{
    struct filter_node *filter = filter_of(node);
    if (filter->list.capacity != 0) {
        mem_free(filter->list.items);
    }
    if (node->parent != NULL) {
        struct filter_node *parent = filter_of(node->parent);
        if (parent->plus == node) {
            parent->plus = NULL;
        }
        if (parent->hash == node) {
            parent->hash = NULL;
        }
    }
}

/* Points the parents on the path of `node` at their wildcard children. */
static void link_wildcards(const struct topic_tree *tree, struct topic_node *node)
{
    for (; node->parent != NULL; node = node->parent) {
        struct bytes level = topic_node_level(tree, node);
        if (bytes_equal_string(level, "+")) {
            filter_of(node->parent)->plus = node;
        } else if (bytes_equal_string(level, "#")) {
            filter_of(node->parent)->hash = node;
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
    enum status status =
        topic_tree_init(&trie->tree, seed, nodes_max, sizeof(struct filter_node), forget);
    if (status != STATUS_OK) {
        mem_free(trie);
        return status;
    }
    *out = trie;
    return STATUS_OK;
}

void topic_trie_destroy(struct topic_trie *trie)
{
    if (trie != NULL) {
        ENSURE(!trie->matching);
        topic_tree_fini(&trie->tree);
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
    struct list *list = &filter_of(node)->list;
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
    if (list->count == 1) {
        link_wildcards(&trie->tree, node); /* and the use that put added stays */
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
    struct list *list = &filter_of(node)->list;
    uint32_t position = list_find(list, subscriber);
    if (position == NOWHERE) {
        return STATUS_NOT_FOUND;
    }
    list_remove(list, position);
    trie->count--;
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
    const struct list *list = &filter_of(node)->list;
    uint32_t position = list_find(list, subscriber);
    return position == NOWHERE ? NULL : &list_items(list)[position];
}

/* One match: the topic's levels, and the branches to the right that are still to be walked. */
struct match {
    struct topic_trie *trie;
    topic_trie_match_fn *on_match;
    void *ctx;
    size_t level_count; /* of the whole topic, also beyond TOPIC_LEVELS_MAX */
    size_t branch_count;
    struct bytes levels[TOPIC_LEVELS_MAX];
    struct branch {
        const struct topic_node *node;
        size_t depth;
    } branches[TOPIC_LEVELS_MAX + 1];
};

static void report(const struct match *match, const struct topic_node *node)
{
    const struct list *list = &filter_of(node)->list;
    const struct subscription *items = list_items(list);
    for (uint32_t i = 0; i < list->count; i++) {
        match->on_match(match->ctx, &items[i]);
    }
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
        const struct filter_node *filter = filter_of(node);
        bool wild = !(hidden && depth == 0);
        if (filter->hash != NULL && wild) {
            report(match, filter->hash); /* "a/#" matches "a" too (4.7.1.2) */
        }
        if (depth == match->level_count) {
            report(match, node);
            return;
        }
        if (depth == TOPIC_LEVELS_MAX) {
            return; /* no filter is deeper */
        }
        if (filter->plus != NULL && wild) {
            match->branches[match->branch_count++] = (struct branch){filter->plus, depth + 1};
        }
        node = topic_tree_child(tree, node, match->levels[depth]);
        depth++;
    }
}

void topic_trie_match(struct topic_trie *trie, struct bytes topic, topic_trie_match_fn *on_match,
                      void *ctx)
{
    if (trie->count == 0) {
        return;
    }
    struct match match; /* large; only what is used is written */
    match.trie = trie;
    match.on_match = on_match;
    match.ctx = ctx;
    match.branch_count = 0;
    split(&match, topic);
    bool nested = trie->matching;
    trie->matching = true;
    bool hidden = topic.len != 0 && topic.data[0] == '$';
    walk(&match, trie->tree.root, 0, hidden);
    /* The deepest branch is taken first, so there is never more than one of each depth. */
    while (match.branch_count != 0) {
        struct branch branch = match.branches[--match.branch_count];
        walk(&match, branch.node, branch.depth, hidden);
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
    ENSURE(list->capacity == 0 ? list->count <= 1 : list->count <= list->capacity);
    ENSURE((list->capacity & (list->capacity - 1)) == 0 && list->capacity != 1);
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
    ENSURE(filter_of(trie->tree.root)->list.count == 0);
    for (const struct topic_node *node = trie->tree.root; node != NULL;
         node = topic_tree_next(node)) {
        const struct filter_node *filter = filter_of(node);
        check_list(&filter->list);
        count += filter->list.count;
        ENSURE(node->uses == (filter->list.count != 0));
        ENSURE(filter->plus == topic_tree_child(&trie->tree, node, bytes_of_string("+")));
        ENSURE(filter->hash == topic_tree_child(&trie->tree, node, bytes_of_string("#")));
    }
    ENSURE(count == trie->count);
}
