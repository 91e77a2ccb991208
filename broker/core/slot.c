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

void slot_queue_compact(struct slot_queue *queue, struct slot_pool *pool)
{
    struct slot_cursor from = {queue->head, queue->head_at};
    struct slot_cursor to = from;
    uint32_t count = 0;
    for (const struct slot *slot = slot_queue_next(queue, &from); slot != NULL;
         slot = slot_queue_next(queue, &from)) {
        if (slot->kind != SLOT_EMPTY) {
            *slot_queue_next(queue, &to) = *slot;
            count++;
        }
    }
    struct slot_chunk *unused = queue->head;
    if (count == 0) {
        *queue = (struct slot_queue){0};
    } else {
        unused = to.chunk->next;
        to.chunk->next = NULL;
        queue->tail = to.chunk;
        queue->tail_at = to.at;
        queue->count = count;
    }
    while (unused != NULL) {
        struct slot_chunk *next = unused->next;
        pool_give(pool, unused);
        unused = next;
    }
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
    for (uint32_t i = 0; i < window->ring_count; i++) {
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

static void ring_drop_first(struct slot_window *window)
{
    window->start = (window->start + 1) & (window->capacity - 1);
    window->ring_count--;
    window->base = id_after(window->base);
    if (window->sent > window->straggler_count) {
        window->sent--;
    }
}

/* Finished slots leave at the front; a ring without slots gives its memory back. */
static void ring_trim(struct slot_window *window, struct slot_pool *pool)
{
    while (window->ring_count != 0 && ring_at(window, 0)->kind == SLOT_EMPTY) {
        ring_drop_first(window);
    }
    if (window->ring_count == 0 && window->ring != NULL) {
        ring_free(window, pool);
    }
}

/* Few of many slots are unfinished: it is these that keep the ring from moving on. */
static bool can_spill(const struct slot_window *window)
{
    return window->capacity >= WINDOW_SPILL_MIN && window->open <= window->capacity / 4 &&
           window->straggler_count + window->open <= WINDOW_STRAGGLERS_MAX;
}

/* Moves the unfinished slots of the ring's first half to the stragglers. */
static bool spill(struct slot_window *window)
{
    struct slot *stragglers = mem_realloc(
        window->stragglers, (window->straggler_count + window->open) * sizeof(struct slot));
    if (stragglers == NULL) {
        return false;
    }
    window->stragglers = stragglers;
    for (uint32_t half = window->ring_count / 2; half != 0; half--) {
        const struct slot *first = ring_at(window, 0);
        bool was_sent = window->sent > window->straggler_count;
        if (first->kind != SLOT_EMPTY) {
            window->stragglers[window->straggler_count++] = *first;
            window->open--;
            window->sent += was_sent; /* its position stays; dropping it below takes one off */
        }
        ring_drop_first(window);
    }
    return true;
}

static bool make_room(struct slot_window *window, struct slot_pool *pool)
{
    bool at_end = window->ring_count == window->capacity || window->ring_count == WINDOW_SPAN_MAX;
    if (!at_end || (can_spill(window) && spill(window))) {
        return true;
    }
    return window->ring_count < WINDOW_SPAN_MAX && ring_grow(window, pool);
}

bool slot_window_is_full(const struct slot_window *window)
{
    return window->ring_count >= WINDOW_SPAN_MAX && !can_spill(window);
}

static struct slot *find_straggler(const struct slot_window *window, uint16_t packet_id)
{
    for (uint32_t i = 0; i < window->straggler_count; i++) {
        if (window->stragglers[i].packet_id == packet_id) {
            return &window->stragglers[i];
        }
    }
    return NULL;
}

static struct slot *ring_append(struct slot_window *window, struct slot_pool *pool)
{
    if (!make_room(window, pool)) {
        return NULL;
    }
    uint16_t id = window->next_id == 0 ? 1 : window->next_id;
    if (window->ring_count == 0) {
        window->base = id;
    }
    struct slot *slot = ring_at(window, window->ring_count++);
    *slot = (struct slot){.packet_id = id};
    window->next_id = id_after(id);
    return slot;
}

struct slot *slot_window_add(struct slot_window *window, struct slot_pool *pool,
                             const struct slot *slot)
{
    ENSURE(!slot_window_is_full(window) && slot->kind != SLOT_EMPTY);
    struct slot *added = NULL;
    do { /* an identifier that a straggler holds is passed over: its place stays empty */
        added = ring_append(window, pool);
        if (added == NULL) {
            ring_trim(window, pool);
            return NULL;
        }
    } while (find_straggler(window, added->packet_id) != NULL);
    uint16_t id = added->packet_id;
    *added = *slot;
    added->packet_id = id;
    window->open++;
    window->sent = slot_window_count(window);
    return added;
}

struct slot *slot_window_find(const struct slot_window *window, uint16_t packet_id)
{
    if (packet_id == 0) {
        return NULL;
    }
    uint32_t index = packet_id >= window->base ? (uint32_t)(packet_id - window->base)
                                               : (uint32_t)packet_id + UINT16_MAX - window->base;
    if (index < window->ring_count) {
        struct slot *slot = ring_at(window, index);
        if (slot->kind != SLOT_EMPTY) {
            return slot;
        }
    }
    return find_straggler(window, packet_id);
}

struct slot *slot_window_at(const struct slot_window *window, uint32_t position)
{
    ENSURE(position < slot_window_count(window));
    return position < window->straggler_count ? &window->stragglers[position]
                                              : ring_at(window, position - window->straggler_count);
}

static void drop_straggler(struct slot_window *window, uint32_t index)
{
    window->straggler_count--;
    memmove(&window->stragglers[index], &window->stragglers[index + 1],
            (window->straggler_count - index) * sizeof(struct slot));
    if (window->sent > index) {
        window->sent--;
    }
    if (window->straggler_count == 0) {
        mem_free(window->stragglers);
        window->stragglers = NULL;
    }
}

void slot_window_finish(struct slot_window *window, struct slot_pool *pool, struct slot *slot)
{
    slot->kind = SLOT_EMPTY;
    if (window->straggler_count != 0 && slot >= window->stragglers &&
        slot < window->stragglers + window->straggler_count) {
        drop_straggler(window, (uint32_t)(slot - window->stragglers));
        return;
    }
    window->open--;
    ring_trim(window, pool);
}

void slot_window_sweep(struct slot_window *window, struct slot_pool *pool)
{
    for (uint32_t i = window->straggler_count; i != 0; i--) {
        if (window->stragglers[i - 1].kind == SLOT_EMPTY) {
            drop_straggler(window, i - 1);
        }
    }
    window->open = 0;
    for (uint32_t i = 0; i < window->ring_count; i++) {
        window->open += ring_at(window, i)->kind != SLOT_EMPTY;
    }
    ring_trim(window, pool);
}

void slot_window_fini(struct slot_window *window, struct slot_pool *pool)
{
    if (window->ring != NULL) {
        ring_free(window, pool);
    }
    mem_free(window->stragglers);
    *window = (struct slot_window){.next_id = window->next_id};
}
