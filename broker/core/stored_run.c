#include "stored_run.h"

#include <string.h>

#include "mem.h"

/*
 * An entry: one byte of flags, the arrival less the one before as a number of 7-bit groups, lowest
 * first (one that came earlier wraps round and takes ten bytes), then, as the flags say, the size
 * in bytes, coded alike, and the pointer to the group.
 */
enum {
    ENTRY_QOS = 0x03,
    ENTRY_RETAIN = 0x04,
    ENTRY_SECOND = 0x08,
    ENTRY_RETURNED = 0x10,
    ENTRY_SHARED = 0x20,
    ENTRY_HAS_BYTES = 0x40, /* they differ from those of the entry before */
    ENTRY_HAS_GROUP = 0x80, /* it differs from that of the shared entry before */
};

enum {
    GROUP_BYTES = sizeof(uintptr_t), /* a pointer */
    ENTRY_MAX = 1 + 10 + 5 + GROUP_BYTES,
    /* What malloc gives without a remainder: a multiple of 16, less 8. */
    BLOCK_FIRST = 72,
    BLOCK_MAX = 1016,
};

struct stored_block {
    struct stored_block *next;
    struct stored_base base; /* what the entry at `at` is coded against */
    uint16_t capacity;
    uint16_t used;
    uint16_t at; /* entries before are taken out */
    uint8_t data[];
};

_Static_assert(BLOCK_FIRST - offsetof(struct stored_block, data) >= ENTRY_MAX,
               "every entry fits an empty block");

static uint8_t *put_number(uint8_t *to, uint64_t number)
{
    while (number > 0x7f) {
        *to++ = (uint8_t)(number | 0x80);
        number >>= 7;
    }
    *to++ = (uint8_t)number;
    return to;
}

static const uint8_t *get_number(const uint8_t *from, uint64_t *number)
{
    unsigned shift = 0;
    *number = 0;
    do {
        *number |= (uint64_t)(*from & 0x7f) << shift;
        shift += 7;
    } while ((*from++ & 0x80) != 0);
    return from;
}

static struct share_group *group_of(const struct slot *slot)
{
    return slot->is_shared ? slot->group : NULL;
}

/* Writes the entry at `to`, which has room for ENTRY_MAX, and moves `base` on; returns its length.
 */
static uint16_t encode(uint8_t *to, struct stored_base *base, const struct slot *slot)
{
    uint64_t arrival = slot_arrival(slot);
    uint32_t bytes = (uint32_t)slot_bytes(slot);
    struct share_group *group = group_of(slot);
    unsigned flags = slot->qos;
    flags |= slot->retain ? ENTRY_RETAIN : 0U;
    flags |= slot->is_second ? ENTRY_SECOND : 0U;
    flags |= slot->returned ? ENTRY_RETURNED : 0U;
    flags |= slot->is_shared ? ENTRY_SHARED : 0U;
    uint8_t *at = put_number(to + 1, arrival - base->arrival);
    if (bytes != base->bytes) {
        flags |= ENTRY_HAS_BYTES;
        at = put_number(at, bytes);
    }
    if (group != NULL && group != base->group) {
        flags |= ENTRY_HAS_GROUP;
        memcpy(at, &group, GROUP_BYTES);
        at += GROUP_BYTES;
        base->group = group;
    }
    *to = (uint8_t)flags;
    base->arrival = arrival;
    base->bytes = bytes;
    return (uint16_t)(at - to);
}

/* Reads the entry at `from` and moves `base` on; returns its length. */
static uint16_t decode(const uint8_t *from, struct stored_base *base, struct slot *slot)
{
    unsigned flags = *from;
    uint64_t number;
    const uint8_t *at = get_number(from + 1, &number);
    base->arrival += number;
    if ((flags & ENTRY_HAS_BYTES) != 0) {
        at = get_number(at, &number);
        base->bytes = (uint32_t)number;
    }
    if ((flags & ENTRY_HAS_GROUP) != 0) {
        memcpy(&base->group, at, GROUP_BYTES);
        at += GROUP_BYTES;
    }
    *slot = (struct slot){
        .arrival = base->arrival,
        .stored_bytes = base->bytes,
        .kind = SLOT_STORED,
        .is_stored = 1,
        .is_second = (flags & ENTRY_SECOND) != 0,
        .qos = flags & ENTRY_QOS,
        .retain = (flags & ENTRY_RETAIN) != 0,
        .is_shared = (flags & ENTRY_SHARED) != 0,
        .returned = (flags & ENTRY_RETURNED) != 0,
    };
    if (slot->is_shared) {
        slot->group = base->group;
    }
    return (uint16_t)(at - from);
}

/* A block at the end whose first entry will be that of `slot`. */
static bool add_block(struct stored_run *run, const struct slot *slot)
{
    size_t size = BLOCK_FIRST;
    if (run->tail != NULL) { /* twice as large as the last one */
        size = 2 * (offsetof(struct stored_block, data) + run->tail->capacity) + 8;
        size = size < BLOCK_MAX ? size : BLOCK_MAX;
    }
    struct stored_block *block = mem_alloc(size);
    if (block == NULL) {
        return false;
    }
    *block = (struct stored_block){
        .base = {slot_arrival(slot), group_of(slot), (uint32_t)slot_bytes(slot)},
        .capacity = (uint16_t)(size - offsetof(struct stored_block, data)),
    };
    run->last = block->base;
    if (run->tail == NULL) {
        run->head = block;
    } else {
        run->tail->next = block;
    }
    run->tail = block;
    return true;
}

bool stored_run_push(struct stored_run *run, const struct slot *slot)
{
    if (run->tail == NULL || run->tail->capacity - run->tail->used < ENTRY_MAX) {
        if (!add_block(run, slot)) {
            return false;
        }
    }
    struct stored_block *tail = run->tail;
    tail->used = (uint16_t)(tail->used + encode(tail->data + tail->used, &run->last, slot));
    run->count++;
    return true;
}

void stored_run_pop(struct stored_run *run, struct slot *slot)
{
    ENSURE(run->count != 0);
    struct stored_block *head = run->head;
    head->at = (uint16_t)(head->at + decode(head->data + head->at, &head->base, slot));
    run->count--;
    if (head->at == head->used) {
        run->head = head->next;
        mem_free(head);
        if (run->head == NULL) {
            ENSURE(run->count == 0);
            *run = (struct stored_run){0};
        }
    }
}

uint64_t stored_run_first_arrival(const struct stored_run *run)
{
    struct stored_cursor cursor = stored_cursor_of(run);
    struct slot slot;
    bool is_there = stored_run_next(&cursor, &slot);
    ENSURE(is_there);
    return slot.arrival;
}

void stored_run_fini(struct stored_run *run)
{
    while (run->head != NULL) {
        struct stored_block *block = run->head;
        run->head = block->next;
        mem_free(block);
    }
    *run = (struct stored_run){0};
}

void stored_run_prepend(struct stored_run *run, struct stored_run *before)
{
    if (run->count == 0) {
        *run = *before;
    } else if (before->count != 0) {
        before->tail->next = run->head;
        run->head = before->head;
        run->count += before->count;
    }
    *before = (struct stored_run){0};
}

struct stored_cursor stored_cursor_of(const struct stored_run *run)
{
    struct stored_cursor cursor = {.block = run->head};
    if (run->head != NULL) {
        cursor.base = run->head->base;
        cursor.at = run->head->at;
    }
    return cursor;
}

bool stored_run_next(struct stored_cursor *cursor, struct slot *slot)
{
    const struct stored_block *block = cursor->block;
    if (block == NULL) {
        return false;
    }
    cursor->at = (uint16_t)(cursor->at + decode(block->data + cursor->at, &cursor->base, slot));
    if (cursor->at == block->used) {
        cursor->block = block->next;
        if (block->next != NULL) {
            cursor->base = block->next->base;
            cursor->at = block->next->at;
        }
    }
    return true;
}
