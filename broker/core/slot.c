#include "slot.h"

#include <string.h>

#include "mem.h"

_Static_assert(sizeof(struct slot) == 24, "a slot is paid for each queued message");
_Static_assert(sizeof(struct slot_chunk) >=
                   sizeof(struct window_ring) + WINDOW_SMALL * sizeof(struct slot),
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

struct slot *slot_queue_unshift(struct slot_queue *queue, struct slot_pool *pool)
{
    if (queue->count == 0) {
        return slot_queue_push(queue, pool);
    }
    if (queue->head_at == 0) {
        struct slot_chunk *chunk = pool_take(pool);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->next = queue->head;
        queue->head = chunk;
        queue->head_at = SLOTS_PER_CHUNK;
    }
    struct slot *slot = &queue->head->slots[--queue->head_at];
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

void slot_queue_drop_chunk(struct slot_queue *queue, struct slot_pool *pool)
{
    struct slot_chunk *chunk = queue->head;
    if (queue->count == 0) {
        ENSURE(chunk == queue->tail);
        *queue = (struct slot_queue){0};
    } else {
        queue->head = chunk->next;
        queue->head_at = 0;
    }
    pool_give(pool, chunk);
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

static struct slot *ring_at(struct window_ring *ring, uint32_t index)
{
    return &ring->slots[(ring->start + index) & (ring->capacity - 1)];
}

/* Packet identifiers run from 1 to 65535 and round again [MQTT-2.2.1-3]. */
static uint16_t id_after(uint16_t id)
{
    return id == UINT16_MAX ? 1 : (uint16_t)(id + 1);
}

static void ring_free(struct window_ring *ring, struct slot_pool *pool)
{
    if (ring->capacity == WINDOW_SMALL) {
        pool_give(pool, (struct slot_chunk *)(void *)ring);
    } else {
        mem_free(ring);
    }
}

static struct window_ring *ring_create(uint32_t capacity, struct slot_pool *pool)
{
    struct window_ring *ring = capacity == WINDOW_SMALL
                                   ? (struct window_ring *)(void *)pool_take(pool)
                                   : mem_alloc(sizeof *ring + capacity * sizeof(struct slot));
    if (ring != NULL) {
        *ring = (struct window_ring){.capacity = capacity};
    }
    return ring;
}

static bool grow(struct slot_window *window, struct slot_pool *pool)
{
    struct window_ring *old = window->ring;
    uint32_t capacity = old == NULL ? WINDOW_SMALL : old->capacity * 2;
    struct window_ring *ring = ring_create(capacity, pool);
    if (ring == NULL) {
        return false;
    }
    if (old != NULL) {
        ring->stragglers = old->stragglers;
        ring->straggler_count = old->straggler_count;
        ring->count = old->count;
        ring->open = old->open;
        ring->base = old->base;
        ring->bytes = old->bytes;
        for (uint32_t i = 0; i < old->count; i++) {
            ring->slots[i] = *ring_at(old, i);
        }
        ring_free(old, pool);
    }
    window->ring = ring;
    return true;
}

static void drop_first(struct slot_window *window)
{
    struct window_ring *ring = window->ring;
    ring->start = (ring->start + 1) & (ring->capacity - 1);
    ring->count--;
    ring->base = id_after(ring->base);
    if (window->sent > ring->straggler_count) {
        window->sent--;
    }
}

/* Finished slots leave at the front; a window without slots gives its memory back. */
static void trim(struct slot_window *window, struct slot_pool *pool)
{
    struct window_ring *ring = window->ring;
    while (ring->count != 0 && ring_at(ring, 0)->kind == SLOT_EMPTY) {
        drop_first(window);
    }
    if (ring->count == 0 && ring->straggler_count == 0) {
        ring_free(ring, pool);
        window->ring = NULL;
    }
}

/* Few of many slots are unfinished: it is these that keep the ring from moving on. */
static bool can_spill(const struct window_ring *ring)
{
    return ring->capacity >= WINDOW_SPILL_MIN && ring->open <= ring->capacity / 4 &&
           ring->straggler_count + ring->open <= WINDOW_STRAGGLERS_MAX;
}

/* Moves the unfinished slots of the ring's first half to the stragglers. */
static bool spill(struct slot_window *window)
{
    struct window_ring *ring = window->ring;
    struct slot *stragglers =
        mem_realloc(ring->stragglers, (ring->straggler_count + ring->open) * sizeof(struct slot));
    if (stragglers == NULL) {
        return false;
    }
    ring->stragglers = stragglers;
    for (uint32_t half = ring->count / 2; half != 0; half--) {
        const struct slot *first = ring_at(ring, 0);
        bool was_sent = window->sent > ring->straggler_count;
        if (first->kind != SLOT_EMPTY) {
            ring->stragglers[ring->straggler_count++] = *first;
            ring->open--;
            window->sent += was_sent; /* its position stays; dropping it below takes one off */
        }
        drop_first(window);
    }
    return true;
}

static bool make_room(struct slot_window *window, struct slot_pool *pool)
{
    const struct window_ring *ring = window->ring;
    if (ring == NULL) {
        return grow(window, pool);
    }
    bool at_end = ring->count == ring->capacity || ring->count == WINDOW_SPAN_MAX;
    if (!at_end || (can_spill(ring) && spill(window))) {
        return true;
    }
    return ring->count < WINDOW_SPAN_MAX && grow(window, pool);
}

bool slot_window_is_full(const struct slot_window *window)
{
    const struct window_ring *ring = window->ring;
    return ring != NULL && ring->count >= WINDOW_SPAN_MAX && !can_spill(ring);
}

static struct slot *find_straggler(struct window_ring *ring, uint16_t packet_id)
{
    for (uint32_t i = 0; i < ring->straggler_count; i++) {
        if (ring->stragglers[i].packet_id == packet_id) {
            return &ring->stragglers[i];
        }
    }
    return NULL;
}

static struct slot *append(struct slot_window *window, struct slot_pool *pool)
{
    if (!make_room(window, pool)) {
        return NULL;
    }
    struct window_ring *ring = window->ring;
    uint16_t id = window->next_id == 0 ? 1 : window->next_id;
    if (ring->count == 0) {
        ring->base = id;
    }
    struct slot *slot = ring_at(ring, ring->count++);
    *slot = (struct slot){.packet_id = id};
    window->next_id = id_after(id);
    return slot;
}

struct slot *slot_window_add(struct slot_window *window, struct slot_pool *pool,
                             const struct slot *slot, bool is_sent)
{
    ENSURE(!slot_window_is_full(window) && slot->kind != SLOT_EMPTY);
    struct slot *added = NULL;
    do { /* an identifier that a straggler holds is passed over: its place stays empty */
        added = append(window, pool);
        if (added == NULL) {
            if (window->ring != NULL) {
                trim(window, pool);
            }
            return NULL;
        }
    } while (find_straggler(window->ring, added->packet_id) != NULL);
    uint16_t id = added->packet_id;
    *added = *slot;
    added->packet_id = id;
    window->ring->open++;
    if (is_sent) {
        window->sent = slot_window_count(window);
    }
    return added;
}

struct slot *slot_window_restore(struct slot_window *window, struct slot_pool *pool,
                                 const struct slot *slot, uint16_t packet_id)
{
    ENSURE(slot->kind != SLOT_EMPTY && packet_id != 0);
    if (window->ring == NULL) {
        window->next_id = packet_id;
    }
    struct slot *added = NULL;
    do { /* the places of identifiers that were acknowledged stay empty */
        added = append(window, pool);
        if (added == NULL) {
            return NULL;
        }
    } while (added->packet_id != packet_id);
    *added = *slot;
    added->packet_id = packet_id;
    window->ring->open++;
    return added;
}

struct slot *slot_window_find(const struct slot_window *window, uint16_t packet_id)
{
    struct window_ring *ring = window->ring;
    if (packet_id == 0 || ring == NULL) {
        return NULL;
    }
    uint32_t index = packet_id >= ring->base ? (uint32_t)(packet_id - ring->base)
                                             : (uint32_t)packet_id + UINT16_MAX - ring->base;
    if (index < ring->count) {
        struct slot *slot = ring_at(ring, index);
        if (slot->kind != SLOT_EMPTY) {
            return slot;
        }
    }
    return find_straggler(ring, packet_id);
}

struct slot *slot_window_at(const struct slot_window *window, uint32_t position)
{
    ENSURE(position < slot_window_count(window));
    struct window_ring *ring = window->ring;
    return position < ring->straggler_count ? &ring->stragglers[position]
                                            : ring_at(ring, position - ring->straggler_count);
}

static void drop_straggler(struct slot_window *window, uint32_t index)
{
    struct window_ring *ring = window->ring;
    ring->straggler_count--;
    memmove(&ring->stragglers[index], &ring->stragglers[index + 1],
            (ring->straggler_count - index) * sizeof(struct slot));
    if (window->sent > index) {
        window->sent--;
    }
    if (ring->straggler_count == 0) {
        mem_free(ring->stragglers);
        ring->stragglers = NULL;
    }
}

void slot_window_finish(struct slot_window *window, struct slot_pool *pool, struct slot *slot)
{
    struct window_ring *ring = window->ring;
    slot->kind = SLOT_EMPTY;
    if (ring->straggler_count != 0 && slot >= ring->stragglers &&
        slot < ring->stragglers + ring->straggler_count) {
        drop_straggler(window, (uint32_t)(slot - ring->stragglers));
    } else {
        ring->open--;
    }
    trim(window, pool);
}

void slot_window_sweep(struct slot_window *window, struct slot_pool *pool)
{
    struct window_ring *ring = window->ring;
    if (ring == NULL) {
        return;
    }
    for (uint32_t i = ring->straggler_count; i != 0; i--) {
        if (ring->stragglers[i - 1].kind == SLOT_EMPTY) {
            drop_straggler(window, i - 1);
        }
    }
    ring->open = 0;
    for (uint32_t i = 0; i < ring->count; i++) {
        ring->open += ring_at(ring, i)->kind != SLOT_EMPTY;
    }
    trim(window, pool);
}

void slot_window_fini(struct slot_window *window, struct slot_pool *pool)
{
    if (window->ring != NULL) {
        mem_free(window->ring->stragglers);
        ring_free(window->ring, pool);
    }
    *window = (struct slot_window){.next_id = window->next_id};
}
