#include "topic_tree.h"

#include <string.h>

#include "mem.h"

enum { SLOTS_MIN = 16 };

static struct topic_node *node_create(const struct topic_tree *tree, struct bytes level)
{
    uint16_t len = (uint16_t)level.len;
    size_t head = sizeof(struct topic_node) + tree->user_bytes;
    struct topic_node *node = mem_alloc(head + sizeof len + level.len);
    if (node != NULL) {
        memset(node, 0, head);
        memcpy(node->rest + tree->user_bytes, &len, sizeof len);
        bytes_copy(node->rest + tree->user_bytes + sizeof len, level);
    }
    return node;
}

/*
 * The parent's hash stands for the parent. Two parents of equal hash only share probe sequences: a
 * match compares the parent itself.
 */
static uint32_t hash_of(const struct topic_tree *tree, const struct topic_node *parent,
                        struct bytes level)
{
    uint32_t hash = (uint32_t)hash_bytes_salted(&tree->seed, parent->hash, level);
    return hash != 0 ? hash : 1;
}

static size_t slot_after(const struct topic_tree *tree, size_t slot)
{
    return (slot + 1) & (tree->slot_count - 1);
}

static size_t slot_home(const struct topic_tree *tree, uint32_t hash)
{
    return hash & (tree->slot_count - 1);
}

static void table_insert(struct topic_tree *tree, uint32_t hash, struct topic_node *node)
{
    size_t slot = slot_home(tree, hash);
    while (tree->hashes[slot] != 0) {
        slot = slot_after(tree, slot);
    }
    tree->hashes[slot] = hash;
    tree->nodes[slot] = node;
}

static enum status table_resize(struct topic_tree *tree, size_t slot_count)
{
    struct topic_node **nodes =
        mem_zalloc(slot_count * (sizeof(struct topic_node *) + sizeof(uint32_t)));
    if (nodes == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct topic_tree old = *tree;
    tree->nodes = nodes;
    tree->hashes = (uint32_t *)(void *)(nodes + slot_count);
    tree->slot_count = slot_count;
    for (size_t i = 0; i < old.slot_count; i++) {
        if (old.hashes[i] != 0) {
            table_insert(tree, old.hashes[i], old.nodes[i]);
        }
    }
    mem_free(old.nodes);
    return STATUS_OK;
}

/* Closes the gap with later entries of the run, so that no tombstones lengthen future probes. */
static void table_remove(struct topic_tree *tree, const struct topic_node *node)
{
    size_t gap = slot_home(tree, node->hash);
    while (tree->nodes[gap] != node || tree->hashes[gap] == 0) {
        ENSURE(tree->hashes[gap] != 0);
        gap = slot_after(tree, gap);
    }
    for (size_t slot = slot_after(tree, gap); tree->hashes[slot] != 0;
         slot = slot_after(tree, slot)) {
        size_t mask = tree->slot_count - 1;
        size_t from_home = (slot - slot_home(tree, tree->hashes[slot])) & mask;
        if (from_home >= ((slot - gap) & mask)) {
            tree->hashes[gap] = tree->hashes[slot];
            tree->nodes[gap] = tree->nodes[slot];
            gap = slot;
        }
    }
    tree->hashes[gap] = 0;
    tree->nodes[gap] = NULL;
}

enum status topic_tree_init(struct topic_tree *tree, const struct hash_seed *seed, size_t nodes_max,
                            size_t user_bytes, topic_node_forget_fn *forget)
{
    ENSURE(user_bytes % sizeof(void *) == 0);
    *tree = (struct topic_tree){
        .seed = *seed, .nodes_max = nodes_max, .user_bytes = user_bytes, .forget = forget};
    tree->root = node_create(tree, BYTES_EMPTY);
    if (tree->root == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status = table_resize(tree, SLOTS_MIN);
    if (status != STATUS_OK) {
        mem_free(tree->root);
    }
    return status;
}

void topic_tree_fini(struct topic_tree *tree)
{
    struct topic_node *node = tree->root;
    while (node != NULL) {
        if (node->first_child != NULL) {
            node = node->first_child;
            continue;
        }
        struct topic_node *parent = node->parent;
        if (tree->forget != NULL) {
            tree->forget(node);
        }
        if (parent != NULL) {
            parent->first_child = node->next;
        }
        mem_free(node);
        node = parent;
    }
    mem_free(tree->nodes);
}

static struct topic_node *child_of_hash(const struct topic_tree *tree,
                                        const struct topic_node *parent, uint32_t hash,
                                        struct bytes level)
{
    for (size_t slot = slot_home(tree, hash); tree->hashes[slot] != 0;
         slot = slot_after(tree, slot)) {
        if (tree->hashes[slot] == hash) {
            struct topic_node *node = tree->nodes[slot];
            if (node->parent == parent && bytes_equal(topic_node_level(tree, node), level)) {
                return node;
            }
        }
    }
    return NULL;
}

struct topic_node *topic_tree_child(const struct topic_tree *tree, const struct topic_node *parent,
                                    struct bytes level)
{
    if (parent->first_child == NULL) {
        return NULL;
    }
    return child_of_hash(tree, parent, hash_of(tree, parent, level), level);
}

struct topic_node *topic_tree_find(const struct topic_tree *tree, struct bytes topic)
{
    struct topic_levels levels = topic_levels_of(topic);
    struct topic_node *node = tree->root;
    struct bytes level;
    while (node != NULL && topic_levels_next(&levels, &level)) {
        node = topic_tree_child(tree, node, level);
    }
    return node;
}

static void link_first(struct topic_node *node)
{
    node->prev = NULL;
    node->next = node->parent->first_child;
    if (node->next != NULL) {
        node->next->prev = node;
    }
    node->parent->first_child = node;
}

static void unlink_sibling(struct topic_node *node)
{
    if (node->prev != NULL) {
        node->prev->next = node->next;
    } else {
        node->parent->first_child = node->next;
    }
    if (node->next != NULL) {
        node->next->prev = node->prev;
    }
}

void topic_node_to_front(struct topic_node *node)
{
    unlink_sibling(node);
    link_first(node);
}

static enum status add_child(struct topic_tree *tree, struct topic_node *parent, struct bytes level,
                             struct topic_node **out)
{
    if (tree->node_count >= tree->nodes_max || level.len > UINT16_MAX) {
        return STATUS_LIMIT;
    }
    if (tree->node_count + 1 > tree->slot_count - tree->slot_count / 4) {
        enum status status = table_resize(tree, tree->slot_count * 2);
        if (status != STATUS_OK) {
            return status;
        }
    }
    struct topic_node *node = node_create(tree, level);
    if (node == NULL) {
        return STATUS_NO_MEMORY;
    }
    node->hash = hash_of(tree, parent, level);
    node->parent = parent;
    link_first(node);
    table_insert(tree, node->hash, node);
    tree->node_count++;
    *out = node;
    return STATUS_OK;
}

static void remove_node(struct topic_tree *tree, struct topic_node *node)
{
    if (tree->forget != NULL) {
        tree->forget(node);
    }
    unlink_sibling(node);
    table_remove(tree, node);
    tree->node_count--;
    mem_free(node);
}

/* Removes `node` and its ancestors as far as nothing needs them. */
static void prune(struct topic_tree *tree, struct topic_node *node)
{
    while (node->parent != NULL && node->uses == 0 && node->first_child == NULL) {
        struct topic_node *parent = node->parent;
        remove_node(tree, node);
        node = parent;
    }
    if (tree->slot_count > SLOTS_MIN && tree->node_count < tree->slot_count / 8) {
        /* Without memory for a smaller table the larger one goes on serving. */
        enum status status = table_resize(tree, tree->slot_count / 2);
        (void)status;
    }
}

enum status topic_tree_put(struct topic_tree *tree, struct bytes topic, struct topic_node **out)
{
    struct topic_levels levels = topic_levels_of(topic);
    struct topic_node *node = tree->root;
    struct bytes level;
    enum status status = STATUS_OK;
    *out = NULL;
    for (size_t depth = 0; status == STATUS_OK && topic_levels_next(&levels, &level); depth++) {
        struct topic_node *child = NULL;
        if (depth == TOPIC_LEVELS_MAX) {
            status = STATUS_LIMIT;
            break;
        }
        child = topic_tree_child(tree, node, level);
        if (child == NULL) {
            status = add_child(tree, node, level, &child);
        }
        if (status == STATUS_OK) {
            node = child;
        }
    }
    if (status != STATUS_OK) {
        prune(tree, node); /* what this call added has no use yet */
        return status;
    }
    topic_tree_hold(node);
    *out = node;
    return STATUS_OK;
}

void topic_tree_hold(struct topic_node *node)
{
    ENSURE(node->uses != UINT32_MAX);
    node->uses++;
}

void topic_tree_release(struct topic_tree *tree, struct topic_node *node)
{
    ENSURE(node->uses != 0);
    node->uses--;
    prune(tree, node);
}

struct topic_node *topic_tree_next(const struct topic_node *node)
{
    if (node->first_child != NULL) {
        return node->first_child;
    }
    while (node->next == NULL) {
        if (node->parent == NULL) {
            return NULL;
        }
        node = node->parent;
    }
    return node->next;
}

void topic_tree_check(const struct topic_tree *tree)
{
    size_t count = 0;
    ENSURE(tree->root->parent == NULL && tree->root->next == NULL && tree->root->hash == 0);
    for (const struct topic_node *node = topic_tree_next(tree->root); node != NULL;
         node = topic_tree_next(node)) {
        struct bytes level = topic_node_level(tree, node);
        count++;
        ENSURE(node->uses != 0 || node->first_child != NULL);
        ENSURE(node->hash == hash_of(tree, node->parent, level));
        ENSURE(topic_tree_child(tree, node->parent, level) == node);
        ENSURE(node->prev != NULL ? node->prev->next == node : node->parent->first_child == node);
        ENSURE(node->next == NULL || node->next->prev == node);
        ENSURE(memchr(level.data, '/', level.len) == NULL);
    }
    ENSURE(count == tree->node_count && count <= tree->nodes_max);
    size_t used = 0;
    for (size_t i = 0; i < tree->slot_count; i++) {
        used += tree->hashes[i] != 0;
        ENSURE((tree->hashes[i] != 0) == (tree->nodes[i] != NULL));
        ENSURE(tree->hashes[i] == 0 || tree->hashes[i] == tree->nodes[i]->hash);
    }
    ENSURE(used == count);
}
