#include "map.h"

#include <string.h>

#include "mem.h"

enum { BUCKETS_MIN = 16, LOAD_MAX = 2 };

void map_init(struct map *map)
{
    *map = (struct map){NULL, 0, 0};
}

void map_fini(struct map *map)
{
    mem_free(map->buckets);
    map_init(map);
}

void map_clear(struct map *map)
{
    if (map->buckets != NULL) {
        memset(map->buckets, 0, map->bucket_count * sizeof(struct map_node *));
    }
    map->count = 0;
}

static struct map_node **bucket_of(const struct map *map, uint64_t hash)
{
    return &map->buckets[hash & (map->bucket_count - 1)];
}

struct map_node *map_find(const struct map *map, uint64_t hash, map_equal_fn *equal,
                          const void *key)
{
    if (map->bucket_count == 0) {
        return NULL;
    }
    for (struct map_node *node = *bucket_of(map, hash); node != NULL; node = node->next) {
        if (node->hash == hash && equal(node, key)) {
            return node;
        }
    }
    return NULL;
}

/* A map that cannot grow goes on working with longer chains. */
static void grow(struct map *map)
{
    struct map old = *map;
    size_t wanted = old.bucket_count == 0 ? BUCKETS_MIN : old.bucket_count * 2;
    struct map_node **buckets = mem_zalloc(wanted * sizeof(struct map_node *));
    if (buckets == NULL) {
        return;
    }
    map->buckets = buckets;
    map->bucket_count = wanted;
    for (size_t i = 0; i < old.bucket_count; i++) {
        struct map_node *next = NULL;
        for (struct map_node *node = old.buckets[i]; node != NULL; node = next) {
            next = node->next;
            struct map_node **bucket = bucket_of(map, node->hash);
            node->next = *bucket;
            *bucket = node;
        }
    }
    mem_free(old.buckets);
}

enum status map_add(struct map *map, uint64_t hash, struct map_node *node)
{
    if (map->count >= LOAD_MAX * map->bucket_count) {
        grow(map);
        if (map->bucket_count == 0) {
            return STATUS_NO_MEMORY;
        }
    }
    struct map_node **bucket = bucket_of(map, hash);
    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    map->count++;
    return STATUS_OK;
}

void map_remove(struct map *map, struct map_node *node)
{
    ENSURE(map->bucket_count != 0);
    struct map_node **link = bucket_of(map, node->hash);
    while (*link != node) {
        ENSURE(*link != NULL);
        link = &(*link)->next;
    }
    *link = node->next;
    node->next = NULL;
    map->count--;
}

void map_each(struct map *map, void (*each)(void *ctx, struct map_node *node), void *ctx)
{
    for (size_t i = 0; i < map->bucket_count; i++) {
        struct map_node *next = NULL;
        for (struct map_node *node = map->buckets[i]; node != NULL; node = next) {
            next = node->next;
            each(ctx, node);
        }
    }
}
