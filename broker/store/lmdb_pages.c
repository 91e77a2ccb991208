#include "lmdb_pages.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem.h"

/*
 * The layout, as LMDB 0.9 has it. WORD is the machine's: a file moves only between machines of the
 * same kind.
 *
 *   page        number (word), pad (2), flags (2), then lower (2) and upper (2), or, on the first
 *               of a run of overflow pages, their count (4); then an array of offsets (2 each)
 *               from HEADER to lower, and nodes from upper to the end
 *   node        size of the data, or bits 0 to 31 of a page number (4); flags, or bits 32 to 47
 *               (2); size of the key (2); key; data
 *   tree        pad (4), flags (2), depth (2), branch, leaf and overflow pages, entries, root
 *   meta page   header, magic (4), version (4), address, map size, the trees of free pages and of
 *               tables, last page, transaction
 */
enum {
    WORD = sizeof(size_t),
    HEADER = WORD + 8,
    NODE = 8,
    TREE_ENTRIES = 8 + 3 * WORD,
    TREE_ROOT = TREE_ENTRIES + WORD,
    TREE = TREE_ROOT + WORD,
    META_TREES = 8 + 2 * WORD,
    META_LAST_PAGE = META_TREES + 2 * TREE,
    META_TRANSACTION = META_LAST_PAGE + WORD,
    META = META_TRANSACTION + WORD,
    PAGE_SIZE_MIN = 512,
    PAGE_SIZE_MAX = 65536,
    DEPTH_MAX = 32,
    KEY_MAX = 511,
    META_VERSION = 1,

    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_OVERFLOW = 4,
    PAGE_META = 8,
    PAGE_KINDS = 0x6f, /* with the kinds for duplicates, which a store does not use */

    NODE_BIG = 1,
    NODE_TREE = 2,

    TREE_INTEGER_KEYS = 8,
    TREE_FIXED_MAP = 1, /* in the flags of the first tree */
};

#define META_MAGIC UINT32_C(0xbeefc0de)
#define NO_PAGE ((uint64_t)SIZE_MAX)
/* More pages than the file has may be accounted for: the last were never written. */
#define UNWRITTEN_PAGES_MAX ((uint64_t)1 << 22)

static uint16_t u16_at(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint32_t u32_at(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t word_at(const uint8_t *at)
{
    size_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static struct lmdb_tree tree_at(const uint8_t *at)
{
    return (struct lmdb_tree){.flags = u16_at(at + 4),
                              .depth = u16_at(at + 6),
                              .entries = word_at(at + TREE_ENTRIES),
                              .root = word_at(at + TREE_ROOT)};
}

/* Errors: STATUS_IO, with errno 0 when the file ends before. */
static enum status read_at(int fd, void *to, size_t len, uint64_t offset)
{
    uint8_t *at = to;
    while (len != 0) {
        ssize_t got = pread(fd, at, len, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            errno = got == 0 ? 0 : errno;
            return STATUS_IO;
        }
        at += got;
        offset += (uint64_t)got;
        len -= (size_t)got;
    }
    return STATUS_OK;
}

static bool is_page_size(uint64_t size)
{
    return size >= PAGE_SIZE_MIN && size <= PAGE_SIZE_MAX && (size & (size - 1)) == 0;
}

static bool tree_is_plausible(const struct lmdb_tree *tree, uint64_t last_page)
{
    return tree->root == NO_PAGE ? tree->depth == 0
                                 : tree->root > 1 && tree->root <= last_page && tree->depth != 0 &&
                                       tree->depth <= DEPTH_MAX;
}

enum meta {
    META_BAD,
    META_STALE, /* LMDB takes it for a meta page, but what it describes cannot be */
    META_GOOD,
};

/* Meta page `number`; *page_size and *out as it says. */
static enum meta read_meta(int fd, uint64_t number, uint64_t offset, uint64_t *page_size,
                           struct lmdb_snapshot *out)
{
    uint8_t page[HEADER + META];
    if (read_at(fd, page, sizeof page, offset) != STATUS_OK) {
        return META_BAD;
    }
    const uint8_t *meta = page + HEADER;
    const uint8_t *trees = meta + META_TREES;
    uint64_t map_bytes = word_at(meta + 8 + WORD);
    *page_size = u32_at(trees);
    *out = (struct lmdb_snapshot){
        .free_pages = tree_at(trees),
        .tables = tree_at(trees + TREE),
        .last_page = word_at(meta + META_LAST_PAGE),
        .transaction = word_at(meta + META_TRANSACTION),
    };
    /* Commits take turns: those with an even number are in page 0. */
    bool is_meta = word_at(page) == number && (u16_at(page + WORD + 2) & PAGE_KINDS) == PAGE_META &&
                   u32_at(meta) == META_MAGIC && u32_at(meta + 4) == META_VERSION &&
                   is_page_size(*page_size) &&
                   (out->transaction % 2 == number || out->transaction == 0);
    bool is_good = is_meta && out->last_page < (uint64_t)1 << 47 && out->last_page >= 1 &&
                   out->last_page < map_bytes / *page_size &&
                   (out->free_pages.flags & TREE_FIXED_MAP) == 0 &&
                   (out->free_pages.flags & TREE_INTEGER_KEYS) != 0 && out->tables.flags == 0 &&
                   tree_is_plausible(&out->free_pages, out->last_page) &&
                   tree_is_plausible(&out->tables, out->last_page);
    return is_good ? META_GOOD : is_meta ? META_STALE : META_BAD;
}

enum status lmdb_pages_open(int fd, struct lmdb_pages *out)
{
    *out = (struct lmdb_pages){.fd = fd};
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return STATUS_IO;
    }
    struct lmdb_snapshot found[2] = {{.transaction = 0}, {.transaction = 0}};
    enum meta metas[2] = {META_BAD, META_BAD};
    uint64_t size = 0;
    metas[0] = read_meta(fd, 0, 0, &size, &found[0]);
    /* The second page begins where the first one ends, if that can be known. */
    for (uint64_t guess = PAGE_SIZE_MIN; guess <= PAGE_SIZE_MAX && metas[1] == META_BAD;
         guess *= 2) {
        uint64_t other = 0;
        if (metas[0] == META_BAD || guess == size) {
            metas[1] = read_meta(fd, 1, guess, &other, &found[1]);
            metas[1] = other == guess ? metas[1] : META_BAD;
            size = metas[1] != META_BAD ? guess : size;
        }
    }
    if (metas[0] != META_GOOD && metas[1] != META_GOOD) {
        return STATUS_INVALID;
    }
    out->page_size = (size_t)size;
    out->page_count = (uint64_t)info.st_size / size;
    unsigned newest = metas[0] != META_GOOD ||
                      (metas[1] == META_GOOD && found[1].transaction > found[0].transaction);
    out->snapshots[out->snapshot_count++] = found[newest];
    if (metas[!newest] == META_GOOD) {
        out->snapshots[out->snapshot_count++] = found[!newest];
    }
    /* After a failed write of a meta page LMDB leaves there the number of an older commit with the
     * trees of the failed one. It will not look at it again. */
    out->meta_damaged =
        metas[!newest] == META_BAD ||
        (metas[!newest] == META_STALE && found[!newest].transaction >= found[newest].transaction);
    return STATUS_OK;
}

enum kind { KIND_FREE_PAGES, KIND_TABLES, KIND_ROWS };

struct walk {
    const struct lmdb_pages *pages;
    const struct lmdb_snapshot *snapshot;
    struct lmdb_walk *result;
    lmdb_row_fn *on_row;
    void *ctx;
    uint8_t *used;   /* a bit for each page of the file */
    uint8_t *levels; /* a page for each level of a tree */
    struct store_buffer overflow;
    bool no_memory;

    enum kind kind; /* of the tree being walked */
    enum store_table table;
    uint16_t depth;
    uint64_t entries;
    uint8_t last_key[KEY_MAX];
    size_t last_key_len; /* 0: none yet */
    struct lmdb_tree tables[STORE_TABLE_COUNT];
    bool has_table[STORE_TABLE_COUNT];
};

static void damage(struct walk *walk, uint64_t page, const char *what)
{
    if (walk->result->damages++ == 0) {
        (void)snprintf(walk->result->first_damage, sizeof walk->result->first_damage,
                       "page %llu: %s", (unsigned long long)page, what);
    }
}

/* Marks a page as used. False: it cannot be, or is so already. */
static bool claim(struct walk *walk, uint64_t page)
{
    if (page < 2 || page > walk->snapshot->last_page || page >= walk->pages->page_count) {
        damage(walk, page, "no such page");
        return false;
    }
    uint8_t bit = (uint8_t)(1U << page % 8);
    if ((walk->used[page / 8] & bit) != 0) {
        damage(walk, page, "used twice");
        return false;
    }
    walk->used[page / 8] |= bit;
    return true;
}

static bool read_page(struct walk *walk, uint64_t page, uint8_t *to, size_t len)
{
    if (read_at(walk->pages->fd, to, len, page * walk->pages->page_size) != STATUS_OK) {
        damage(walk, page, errno == 0 ? "beyond the end of the file" : strerror(errno));
        return false;
    }
    if (word_at(to) != page) {
        damage(walk, page, "wrong page number");
        return false;
    }
    return true;
}

/* LMDB's order of keys: bytes, and what is shorter first; numbers in the list of free pages. */
static int compare_keys(const struct walk *walk, struct bytes a, struct bytes b)
{
    if (walk->kind == KIND_FREE_PAGES) {
        uint64_t x = word_at(a.data);
        uint64_t y = word_at(b.data);
        return x < y ? -1 : x > y;
    }
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order != 0 ? order : a.len < b.len ? -1 : a.len > b.len;
}

struct node {
    uint64_t child; /* of a branch */
    uint16_t flags; /* of a leaf, like data_len */
    uint32_t data_len;
    struct bytes key;
    const uint8_t *data;
    size_t size; /* in the page */
};

/* Node `index` of a page whose header is good; false: it reaches out of the page, or its key
 * cannot be one. */
static bool node_at(const struct walk *walk, const uint8_t *page, size_t index, bool is_branch,
                    struct node *out)
{
    size_t page_size = walk->pages->page_size;
    size_t upper = u16_at(page + WORD + 6);
    size_t offset = u16_at(page + HEADER + 2 * index);
    if (offset < upper || offset % 2 != 0 || offset + NODE > page_size) {
        return false;
    }
    const uint8_t *at = page + offset;
    size_t key_len = u16_at(at + 6);
    size_t room = page_size - offset - NODE;
    *out = (struct node){.flags = u16_at(at + 4), .data_len = u32_at(at)};
    size_t in_page = is_branch                      ? 0
                     : (out->flags & NODE_BIG) != 0 ? (size_t)WORD
                                                    : (size_t)out->data_len;
    if (key_len > KEY_MAX || key_len > room || in_page > room - key_len) {
        return false;
    }
    out->size = (NODE + key_len + in_page + 1) & ~(size_t)1;
    out->key = bytes_of(at + NODE, key_len);
    out->data = at + NODE + key_len;
    out->child = u32_at(at);
#if SIZE_MAX > UINT32_MAX
    out->child |= (uint64_t)out->flags << 32;
#endif
    /* The first key of a branch is empty: it stands for everything before the second. */
    size_t wanted = walk->kind == KIND_FREE_PAGES ? (size_t)WORD : key_len;
    return (is_branch && index == 0) || (key_len != 0 && key_len == wanted);
}

/* The data of a leaf's node, in one piece. False: damaged. */
static bool node_data(struct walk *walk, const struct node *node, struct bytes *out)
{
    if ((node->flags & NODE_BIG) == 0) {
        *out = bytes_of(node->data, node->data_len);
        return true;
    }
    uint64_t first = word_at(node->data);
    size_t page_size = walk->pages->page_size;
    size_t count = (HEADER + (size_t)node->data_len + page_size - 1) / page_size;
    if (count > walk->pages->page_count || first >= walk->pages->page_count - (count - 1)) {
        damage(walk, first, "overflow pages beyond the end of the file");
        return false;
    }
    if (store_buffer_reserve(&walk->overflow, count * page_size) != STATUS_OK) {
        walk->no_memory = true;
        return false;
    }
    uint8_t *run = walk->overflow.data;
    if (!read_page(walk, first, run, count * page_size)) {
        return false;
    }
    uint64_t run_count = u32_at(run + WORD + 4);
    if ((u16_at(run + WORD + 2) & PAGE_KINDS) != PAGE_OVERFLOW || run_count < count) {
        damage(walk, first, "not a run of overflow pages");
        return false;
    }
    bool claimed = true;
    for (uint64_t i = 0; i < run_count && claimed; i++) {
        claimed = claim(walk, first + i);
    }
    *out = bytes_of(run + HEADER, node->data_len);
    return claimed;
}

/* One transaction's list of free pages: their count, then the numbers, the largest first. */
static void take_free_pages(struct walk *walk, uint64_t page, struct bytes list)
{
    uint64_t count = list.len < WORD ? NO_PAGE : word_at(list.data);
    if (list.len % WORD != 0 || count != list.len / WORD - 1) {
        damage(walk, page, "malformed list of free pages");
        return;
    }
    uint64_t before = NO_PAGE;
    for (size_t i = 1; i <= count; i++) {
        uint64_t number = word_at(list.data + i * WORD);
        if (number >= before || number < 2 || number > walk->snapshot->last_page) {
            damage(walk, page, "malformed list of free pages");
            return;
        }
        before = number;
        if (number < walk->pages->page_count && !claim(walk, number)) {
            return;
        }
    }
}

static void take_table(struct walk *walk, uint64_t page, struct bytes name, struct bytes data)
{
    if (data.len != TREE) {
        damage(walk, page, "malformed table");
        return;
    }
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        if (bytes_equal_string(name, store_table_names[table])) {
            struct lmdb_tree tree = tree_at(data.data);
            walk->result->is_ours = true;
            if (tree.flags != 0 || !tree_is_plausible(&tree, walk->snapshot->last_page)) {
                damage(walk, page, "malformed table");
                return;
            }
            walk->tables[table] = tree;
            walk->has_table[table] = true;
            return;
        }
    }
    walk->result->foreign_tables++;
}

static void take_leaf_node(struct walk *walk, uint64_t page, const struct node *node)
{
    struct bytes data;
    unsigned allowed = walk->kind == KIND_TABLES ? NODE_TREE : NODE_BIG;
    if ((node->flags & ~allowed) != 0 || (walk->kind == KIND_TABLES && node->flags == 0)) {
        damage(walk, page, "wrong kind of row");
        return;
    }
    if (!node_data(walk, node, &data)) {
        return;
    }
    if (walk->kind == KIND_FREE_PAGES) {
        take_free_pages(walk, page, data);
    } else if (walk->kind == KIND_TABLES) {
        take_table(walk, page, node->key, data);
    } else if (walk->on_row(walk->ctx, walk->table, node->key, data)) {
        walk->result->rows[walk->table]++;
    } else {
        damage(walk, page, "damaged row");
    }
}

/* Keys have to rise over the whole tree, and to stay within what the branches say. */
static void check_key(struct walk *walk, uint64_t page, struct bytes key, struct bytes low,
                      struct bytes high)
{
    struct bytes last = bytes_of(walk->last_key, walk->last_key_len);
    if ((last.len != 0 && compare_keys(walk, last, key) >= 0) ||
        (low.len != 0 && compare_keys(walk, key, low) < 0) ||
        (high.len != 0 && compare_keys(walk, key, high) >= 0)) {
        damage(walk, page, "keys out of order");
    }
    memcpy(walk->last_key, key.data, key.len);
    walk->last_key_len = key.len;
}

/* False: the page has no usable header. */
static bool check_header(struct walk *walk, uint64_t number, const uint8_t *page, unsigned level)
{
    bool is_leaf = level + 1 == walk->depth;
    size_t lower = u16_at(page + WORD + 4);
    size_t upper = u16_at(page + WORD + 6);
    if ((u16_at(page + WORD + 2) & PAGE_KINDS) != (is_leaf ? PAGE_LEAF : PAGE_BRANCH)) {
        damage(walk, number, "wrong kind of page");
        return false;
    }
    if (lower < HEADER + (is_leaf ? 2U : 4U) || lower % 2 != 0 || lower > upper ||
        upper > walk->pages->page_size) {
        damage(walk, number, "malformed page");
        return false;
    }
    return true;
}

/* `low` and `high`: the keys between which all of the page must be; empty: no such limit. */
static void walk_page(struct walk *walk, uint64_t number, unsigned level, struct bytes low,
                      struct bytes high)
{
    uint8_t *page = walk->levels + level * walk->pages->page_size;
    if (!claim(walk, number) || !read_page(walk, number, page, walk->pages->page_size) ||
        !check_header(walk, number, page, level)) {
        return;
    }
    bool is_leaf = level + 1 == walk->depth;
    size_t count = (u16_at(page + WORD + 4) - (size_t)HEADER) / 2;
    size_t end = u16_at(page + WORD + 6);
    for (size_t i = 0; i < count && !walk->no_memory; i++) {
        struct node node;
        if (!node_at(walk, page, i, !is_leaf, &node)) {
            damage(walk, number, "malformed node");
            continue;
        }
        end += node.size;
        if (is_leaf) {
            walk->entries++;
            check_key(walk, number, node.key, low, high);
            take_leaf_node(walk, number, &node);
            continue;
        }
        struct node next;
        struct bytes from = i == 0 ? low : node.key;
        struct bytes to =
            i + 1 < count && node_at(walk, page, i + 1, true, &next) ? next.key : high;
        walk_page(walk, node.child, level + 1, from, to);
    }
    /* LMDB leaves no gaps, and moves nodes as if there were none. */
    if (end != walk->pages->page_size) {
        damage(walk, number, "nodes overlap");
    }
}

static void walk_tree(struct walk *walk, enum kind kind, enum store_table table,
                      const struct lmdb_tree *tree)
{
    walk->kind = kind;
    walk->table = table;
    walk->depth = tree->depth;
    walk->entries = 0;
    walk->last_key_len = 0;
    if (tree->root != NO_PAGE) {
        walk_page(walk, tree->root, 0, BYTES_EMPTY, BYTES_EMPTY);
    }
    if (walk->entries != tree->entries) {
        damage(walk, tree->root, "wrong number of entries");
    }
}

enum status lmdb_pages_walk(const struct lmdb_pages *pages, const struct lmdb_snapshot *snapshot,
                            lmdb_row_fn *on_row, void *ctx, struct lmdb_walk *out)
{
    *out = (struct lmdb_walk){.is_ours = false};
    struct walk walk = {
        .pages = pages,
        .snapshot = snapshot,
        .result = out,
        .on_row = on_row,
        .ctx = ctx,
        .used = mem_zalloc((size_t)(pages->page_count / 8 + 1)),
        .levels = mem_alloc(DEPTH_MAX * pages->page_size),
    };
    walk.no_memory = walk.used == NULL || walk.levels == NULL;
    if (!walk.no_memory) {
        if (snapshot->last_page >= pages->page_count + UNWRITTEN_PAGES_MAX) {
            damage(&walk, snapshot->last_page, "the last page is far beyond the end of the file");
        }
        walk_tree(&walk, KIND_TABLES, STORE_TABLE_META, &snapshot->tables);
        for (int table = 0; table < STORE_TABLE_COUNT; table++) {
            if (walk.has_table[table]) {
                out->entries[table] = walk.tables[table].entries;
                walk_tree(&walk, KIND_ROWS, (enum store_table)table, &walk.tables[table]);
            } else {
                damage(&walk, snapshot->tables.root, "a table is missing");
            }
        }
        walk_tree(&walk, KIND_FREE_PAGES, STORE_TABLE_META, &snapshot->free_pages);
    }
    mem_free(walk.used);
    mem_free(walk.levels);
    store_buffer_fini(&walk.overflow);
    return walk.no_memory ? STATUS_NO_MEMORY : STATUS_OK;
}
