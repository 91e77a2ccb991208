#include "http_keys.h"

#include "map.h"
#include "mem.h"

struct entry {
    struct map_node node; /* first */
    struct entry *next;   /* younger */
    uint64_t until_ms;
    uint32_t matched;
    uint32_t user_len;
    uint32_t len;
    uint8_t names[]; /* the user's, the key */
};

struct http_keys {
    struct hash_seed seed;
    struct map map;
    struct entry *oldest, *youngest;
};

struct name {
    struct bytes user;
    struct bytes key;
};

enum status http_keys_create(const struct hash_seed *seed, struct http_keys **out)
{
    *out = mem_zalloc(sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->seed = *seed;
    map_init(&(*out)->map);
    return STATUS_OK;
}

static void forget_oldest(struct http_keys *keys)
{
    struct entry *entry = keys->oldest;
    keys->oldest = entry->next;
    if (keys->oldest == NULL) {
        keys->youngest = NULL;
    }
    map_remove(&keys->map, &entry->node);
    mem_free(entry);
}

void http_keys_destroy(struct http_keys *keys)
{
    if (keys != NULL) {
        while (keys->oldest != NULL) {
            forget_oldest(keys);
        }
        map_fini(&keys->map);
        mem_free(keys);
    }
}

static bool is_entry(const struct map_node *node, const void *key)
{
    const struct entry *entry = (const struct entry *)(const void *)node;
    const struct name *name = key;
    return bytes_equal(bytes_of(entry->names, entry->user_len), name->user) &&
           bytes_equal(bytes_of(entry->names + entry->user_len, entry->len - entry->user_len),
                       name->key);
}

static uint64_t hash_of(const struct http_keys *keys, const struct name *name)
{
    return hash_bytes_salted(&keys->seed, hash_bytes(&keys->seed, name->user), name->key);
}

bool http_keys_find(struct http_keys *keys, uint64_t now_ms, struct bytes user, struct bytes key,
                    uint32_t *matched)
{
    while (keys->oldest != NULL && now_ms >= keys->oldest->until_ms) {
        forget_oldest(keys);
    }
    struct name name = {user, key};
    const struct entry *entry = (const struct entry *)(const void *)map_find(
        &keys->map, hash_of(keys, &name), is_entry, &name);
    *matched = entry == NULL ? 0 : entry->matched;
    return entry != NULL;
}

void http_keys_add(struct http_keys *keys, uint64_t now_ms, struct bytes user, struct bytes key,
                   uint32_t matched)
{
    struct name name = {user, key};
    struct entry *entry = mem_alloc(sizeof *entry + user.len + key.len);
    if (keys->map.count == HTTP_KEYS_MAX) {
        forget_oldest(keys);
    }
    if (entry == NULL) {
        return;
    }
    *entry = (struct entry){.until_ms = now_ms + HTTP_KEYS_MS,
                            .matched = matched,
                            .user_len = (uint32_t)user.len,
                            .len = (uint32_t)(user.len + key.len)};
    bytes_copy(entry->names, user);
    bytes_copy(entry->names + user.len, key);
    if (map_add(&keys->map, hash_of(keys, &name), &entry->node) != STATUS_OK) {
        mem_free(entry);
        return;
    }
    *(keys->oldest == NULL ? &keys->oldest : &keys->youngest->next) = entry;
    keys->youngest = entry;
}
