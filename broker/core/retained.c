#include "retained.h"

#include <string.h>

#include "mem.h"
#include "topic_tree.h"

/* A node's user area is a `struct message *`; while that is not NULL the node has one use for it.
 */
struct retained {
    struct topic_tree tree;
    retained_forget_fn *on_forget; /* may be NULL */
    void *ctx;
    size_t count;
    size_t bytes;
    size_t expiring;             /* messages that can expire */
    size_t cursors;              /* open */
    struct topic_node *sweep_at; /* last node swept, held; NULL before a round */
};

/*
 * The node visited last, one use of which is held, and its depth; the filter. A filter of n levels
 * that ends in '#' has n - 1 fixed levels, of which level d names or, being '+', enumerates the
 * children of a node at depth d.
 */
struct retained_cursor {
    struct retained *retained;
    struct topic_node *node; /* NULL once the end was reached */
    size_t depth;
    size_t fixed_count;
    bool deep;             /* the filter ends in '#' */
    struct bytes levels[]; /* fixed ones; their text follows in the same allocation */
};

static struct message **slot_of(const struct topic_node *node)
{
    return topic_node_user(node);
}

static void forget(struct topic_node *node)
{
    message_release(*slot_of(node));
}

enum status retained_create(const struct hash_seed *seed, size_t nodes_max,
                            retained_forget_fn *on_forget, void *ctx, struct retained **out)
{
    *out = NULL;
    struct retained *retained = mem_zalloc(sizeof *retained);
    if (retained == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status =
        topic_tree_init(&retained->tree, seed, nodes_max, sizeof(struct message *), forget);
    if (status != STATUS_OK) {
        mem_free(retained);
        return status;
    }
    retained->on_forget = on_forget;
    retained->ctx = ctx;
    *out = retained;
    return STATUS_OK;
}

void retained_destroy(struct retained *retained)
{
    if (retained != NULL) {
        ENSURE(retained->cursors == 0);
        topic_tree_fini(&retained->tree);
        mem_free(retained);
    }
}

static void count_in(struct retained *retained, const struct message *message)
{
    retained->count++;
    retained->bytes += message_size(message);
    retained->expiring += message->expires_at_ms != MESSAGE_EXPIRES_NEVER;
}

static void count_out(struct retained *retained, const struct message *message)
{
    retained->count--;
    retained->bytes -= message_size(message);
    retained->expiring -= message->expires_at_ms != MESSAGE_EXPIRES_NEVER;
}

static void let_go(const struct retained *retained, struct message *message)
{
    if (retained->on_forget != NULL) {
        retained->on_forget(retained->ctx, message);
    }
    message_release(message);
}

/* Empties the slot of a node that has a message; the node may go with it. */
static void drop(struct retained *retained, struct topic_node *node)
{
    struct message *message = *slot_of(node);
    *slot_of(node) = NULL;
    count_out(retained, message);
    let_go(retained, message);
    topic_tree_release(&retained->tree, node);
}

enum status retained_set(struct retained *retained, struct message *message)
{
    struct topic_node *node = NULL;
    if (message->payload_len == 0) {
        node = topic_tree_find(&retained->tree, message_topic(message));
        if (node != NULL && *slot_of(node) != NULL) {
            drop(retained, node);
        }
        return STATUS_OK;
    }
    enum status status = topic_tree_put(&retained->tree, message_topic(message), &node);
    if (status != STATUS_OK) {
        return status;
    }
    struct message *old = *slot_of(node);
    *slot_of(node) = message_hold(message);
    count_in(retained, message);
    if (old != NULL) {
        count_out(retained, old);
        let_go(retained, old);
        topic_tree_release(&retained->tree, node); /* the use of the one before serves on */
    }
    return STATUS_OK;
}

struct message *retained_get(const struct retained *retained, struct bytes topic, uint64_t now_ms)
{
    const struct topic_node *node = topic_tree_find(&retained->tree, topic);
    struct message *message = node == NULL ? NULL : *slot_of(node);
    return message == NULL || message_is_expired(message, now_ms) ? NULL : message;
}

size_t retained_count(const struct retained *retained)
{
    return retained->count;
}

size_t retained_bytes(const struct retained *retained)
{
    return retained->bytes;
}

/* Moves a held position: the new node is held before the old one, which may then go, is let go. */
static void move_to(struct retained *retained, struct topic_node **at, struct topic_node *node)
{
    struct topic_node *old = *at;
    if (node != NULL) {
        topic_tree_hold(node);
    }
    *at = node;
    if (old != NULL) {
        topic_tree_release(&retained->tree, old);
    }
}

size_t retained_sweep(struct retained *retained, size_t budget, uint64_t now_ms)
{
    size_t removed = 0;
    if (retained->expiring == 0) {
        move_to(retained, &retained->sweep_at, NULL);
        return 0;
    }
    for (; budget != 0; budget--) {
        const struct topic_node *from =
            retained->sweep_at != NULL ? retained->sweep_at : retained->tree.root;
        move_to(retained, &retained->sweep_at, topic_tree_next(from));
        struct topic_node *node = retained->sweep_at;
        if (node == NULL) {
            break; /* a round is complete; the next call begins another */
        }
        if (*slot_of(node) != NULL && message_is_expired(*slot_of(node), now_ms)) {
            drop(retained, node);
            removed++;
        }
    }
    return removed;
}

static void copy_levels(struct retained_cursor *cursor, struct bytes filter, size_t level_count)
{
    uint8_t *text = (uint8_t *)(cursor->levels + level_count);
    bytes_copy(text, filter);
    struct topic_levels levels = topic_levels_of(bytes_of(text, filter.len));
    for (size_t i = 0; i < level_count; i++) {
        (void)topic_levels_next(&levels, &cursor->levels[i]);
    }
    cursor->deep = bytes_equal_string(cursor->levels[level_count - 1], "#");
    cursor->fixed_count = level_count - (cursor->deep ? 1 : 0);
}

enum status retained_cursor_open(struct retained *retained, struct bytes filter,
                                 struct retained_cursor **out)
{
    *out = NULL;
    size_t level_count = 0;
    struct topic_levels levels = topic_levels_of(filter);
    struct bytes level;
    while (topic_levels_next(&levels, &level)) {
        level_count++;
    }
    if (level_count > TOPIC_LEVELS_MAX) {
        return STATUS_LIMIT;
    }
    struct retained_cursor *cursor =
        mem_alloc(sizeof *cursor + level_count * sizeof(struct bytes) + filter.len);
    if (cursor == NULL) {
        return STATUS_NO_MEMORY;
    }
    *cursor = (struct retained_cursor){.retained = retained, .node = retained->tree.root};
    topic_tree_hold(cursor->node);
    copy_levels(cursor, filter, level_count);
    retained->cursors++;
    *out = cursor;
    return STATUS_OK;
}

void retained_cursor_close(struct retained_cursor *cursor)
{
    if (cursor != NULL) {
        move_to(cursor->retained, &cursor->node, NULL);
        cursor->retained->cursors--;
        mem_free(cursor);
    }
}

/* Do nodes of depth + 1 come by enumeration? Otherwise by name, or not at all. */
static bool enumerates(const struct retained_cursor *cursor, size_t depth)
{
    return depth < cursor->fixed_count ? bytes_equal_string(cursor->levels[depth], "+")
                                       : cursor->deep;
}

/* '$' topics under a leading wildcard: neither they nor what is below them (4.7.2). */
static bool is_hidden(const struct retained_cursor *cursor, const struct topic_node *node,
                      size_t depth)
{
    struct bytes level = topic_node_level(&cursor->retained->tree, node);
    return depth == 1 && enumerates(cursor, 0) && level.len != 0 && level.data[0] == '$';
}

/*
 * The node to visit after the current one: down by name as far as the filter says, else one down or
 * along by enumeration, so that one step stays within the depth of the tree. *depth follows.
 */
static struct topic_node *next_node(const struct retained_cursor *cursor, size_t *depth)
{
    const struct topic_node *node = cursor->node;
    *depth = cursor->depth;
    while (!is_hidden(cursor, node, *depth)) {
        if (enumerates(cursor, *depth)) {
            if (node->first_child == NULL) {
                break;
            }
            ++*depth;
            return node->first_child;
        }
        if (*depth >= cursor->fixed_count) {
            break;
        }
        struct topic_node *child =
            topic_tree_child(&cursor->retained->tree, node, cursor->levels[*depth]);
        if (child == NULL) {
            break;
        }
        node = child;
        ++*depth;
        if (*depth == cursor->fixed_count) {
            return child;
        }
    }
    for (; *depth != 0; --*depth, node = node->parent) {
        if (enumerates(cursor, *depth - 1) && node->next != NULL) {
            return node->next;
        }
    }
    return NULL;
}

/* Is the current node one whose message matches? "a/#" matches "a" too (4.7.1.2). */
static bool is_match(const struct retained_cursor *cursor)
{
    return (cursor->depth == cursor->fixed_count ||
            (cursor->deep && cursor->depth > cursor->fixed_count)) &&
           !is_hidden(cursor, cursor->node, cursor->depth) && *slot_of(cursor->node) != NULL;
}

enum retained_step retained_cursor_next(struct retained_cursor *cursor, size_t budget,
                                        uint64_t now_ms, struct message **message)
{
    *message = NULL;
    do {
        if (cursor->node == NULL) {
            return RETAINED_END;
        }
        size_t depth = 0;
        struct topic_node *next = next_node(cursor, &depth);
        move_to(cursor->retained, &cursor->node, next);
        cursor->depth = depth;
        if (next == NULL) {
            return RETAINED_END;
        }
        if (is_match(cursor)) {
            if (!message_is_expired(*slot_of(next), now_ms)) {
                *message = *slot_of(next);
                return RETAINED_MESSAGE;
            }
            drop(cursor->retained, next);
        }
    } while (budget-- > 1);
    return RETAINED_AGAIN;
}

void retained_check(const struct retained *retained)
{
    size_t count = 0;
    size_t bytes = 0;
    size_t expiring = 0;
    topic_tree_check(&retained->tree);
    ENSURE(*slot_of(retained->tree.root) == NULL);
    for (const struct topic_node *node = topic_tree_next(retained->tree.root); node != NULL;
         node = topic_tree_next(node)) {
        const struct message *message = *slot_of(node);
        if (message != NULL) {
            ENSURE(message->payload_len != 0);
            count++;
            bytes += message_size(message);
            expiring += message->expires_at_ms != MESSAGE_EXPIRES_NEVER;
        }
    }
    ENSURE(count == retained->count && bytes == retained->bytes && expiring == retained->expiring);
}
