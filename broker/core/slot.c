#include "slot.h"

#include <string.h>

#include "mem.h"

_Static_assert(sizeof(struct slot) == 24, "a slot is paid for each queued message");
_Static_assert(sizeof(struct slot_chunk) >= WINDOW_SMALL * sizeof(struct slot),
               "a small window lives in a pooled chunk");

static struct slot_chunk *pool_take(struct slot_pool *pool)
{
    struct slot_chunk *chunk = pool->chunks;
    if (chunk == NULL) {
        return mem_alloc(sizeof *chunk);
    }
    pool->chunks = chunk->next;
    pool->chunk_count--;
    return chunk;
}

static void pool_give(struct slot_pool *pool, struct slot_chunk *chunk)
{
    if (pool->chunk_count >= SLOT_POOL_CHUNKS_MAX) {
        mem_free(chunk);
        return;
    }
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    pool->chunk_count++;
}

void slot_pool_fini(struct slot_pool *pool)
{
    while (pool->chunks != NULL) {
        struct slot_chunk *chunk = pool->chunks;
        pool->chunks = chunk->next;
        mem_free(chunk);
    }
    pool->chunk_count = 0;
}

struct slot *slot_queue_push(struct slot_queue *queue, struct slot_pool *pool)
{
    if (queue->tail == NULL || queue->tail_at == SLOTS_PER_CHUNK) {
        struct slot_chunk *chunk = pool_take(pool);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->next = NULL;
        if (queue->tail == NULL) {
            queue->head = chunk;
            queue->head_at = 0;
        } else {
            queue->tail->next = chunk;
        }
        queue->tail = chunk;
        queue->tail_at = 0;
    }
    struct slot *slot = &queue->tail->slots[queue->tail_at++];
    memset(slot, 0, sizeof *slot);
    queue->count++;
    return slot;
}

struct slot *slot_queue_first(const struct slot_queue *queue)
{
    return queue->count == 0 ? NULL : &queue->head->slots[queue->head_at];
}

struct slot *slot_queue_last(const struct slot_queue *queue)
{
    return queue->count == 0 ? NULL : &queue->tail->slots[queue->tail_at - 1];
}

void slot_queue_pop(struct slot_queue *queue, struct slot_pool *pool)
{
    ENSURE(queue->count != 0);
    queue->count--;
    queue->head_at++;
    if (queue->count == 0) {
        ENSURE(queue->head == queue->tail);
        pool_give(pool, queue->head);
        *queue = (struct slot_queue){0};
    } else if (queue->head_at == SLOTS_PER_CHUNK) {
        struct slot_chunk *chunk = queue->head;
        queue->head = chunk->next;
        queue->head_at = 0;
        pool_give(pool, chunk);
    }
}

struct slot *slot_queue_next(const struct slot_queue *queue, struct slot_cursor *cursor)
{
    if (cursor->chunk == NULL) {
        return NULL;
    }
    if (cursor->at == SLOTS_PER_CHUNK) {
        cursor->chunk = cursor->chunk->next;
        cursor->at = 0;
        if (cursor->chunk == NULL) {
            return NULL;
        }
    }
    if (cursor->chunk == queue->tail && cursor->at >= queue->tail_at) {
        return NULL;
    }
    return &cursor->chunk->slots[cursor->at++];
}

static struct slot *ring_at(const struct slot_window *window, uint32_t index)
{
    return &window->ring[(window->start + index) & (window->capacity - 1)];
}

/* Packet identifiers run from 1 to 65535 and round again [MQTT-2.2.1-3]. */
static uint16_t id_after(uint16_t id)
{
    return id == UINT16_MAX ? 1 : (uint16_t)(id + 1);
}

static void ring_free(struct slot_window *window, struct slot_pool *pool)
{
    if (window->capacity == WINDOW_SMALL) {
        pool_give(pool, (struct slot_chunk *)(void *)window->ring);
    } else {
        mem_free(window->ring);
    }
    window->ring = NULL;
    window->capacity = 0;
    window->start = 0;
}

static bool ring_grow(struct slot_window *window, struct slot_pool *pool)
{
    uint32_t capacity = window->capacity == 0 ? WINDOW_SMALL : window->capacity * 2;
    struct slot *ring = window->capacity == 0 ? (struct slot *)(void *)pool_take(pool)
                                              : mem_alloc(capacity * sizeof(struct slot));
    if (ring == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < window->count; i++) {
        ring[i] = *ring_at(window, i);
    }
    if (window->ring != NULL) {
        ring_free(window, pool);
    }
    window->ring = ring;
    window->capacity = capacity;
    window->start = 0;
    return true;
}

struct slot *slot_window_add(struct slot_window *window, struct slot_pool *pool,
                             const struct slot *slot)
{
    ENSURE(!slot_window_is_full(window));
    if (window->count == window->capacity && !ring_grow(window, pool)) {
        return NULL;
    }
    uint16_t id = window->next_id == 0 ? 1 : window->next_id;
    if (window->count == 0) {
        window->base = id;
    }
    struct slot *added = ring_at(window, window->count++);
    *added = *slot;
    added->packet_id = id;
    window->next_id = id_after(id);
    return added;
}

struct slot *slot_window_find(const struct slot_window *window, uint16_t packet_id)
{
    if (packet_id == 0 || window->count == 0) {
        return NULL;
    }
    uint32_t index = packet_id >= window->base ? (uint32_t)(packet_id - window->base)
                                               : (uint32_t)packet_id + UINT16_MAX - window->base;
    if (index >= window->count) {
        return NULL;
    }
    struct slot *slot = ring_at(window, index);
    return slot->kind == SLOT_EMPTY ? NULL : slot;
}

struct slot *slot_window_at(const struct slot_window *window, uint32_t index)
{
    ENSURE(index < window->count);
    return ring_at(window, index);
}

uint32_t slot_window_finish(struct slot_window *window, struct slot_pool *pool, struct slot *slot)
{
    uint32_t left = 0;
    slot->kind = SLOT_EMPTY;
    while (window->count != 0 && ring_at(window, 0)->kind == SLOT_EMPTY) {
        window->start = (window->start + 1) & (window->capacity - 1);
        window->count--;
        window->base = id_after(window->base);
        left++;
    }
    if (window->count == 0 && window->ring != NULL) {
        ring_free(window, pool);
    }
    return left;
}

void slot_window_fini(struct slot_window *window, struct slot_pool *pool)
{
    if (window->ring != NULL) {
        ring_free(window, pool);
    }
    window->count = 0;
}
