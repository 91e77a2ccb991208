#include "timer_wheel.h"

#include <stddef.h>

#include "status.h"

static void ring_init(struct timer *head)
{
    head->next = head->prev = head;
}

static bool ring_is_empty(const struct timer *head)
{
    return head->next == head;
}

static void ring_append(struct timer *head, struct timer *timer)
{
    timer->prev = head->prev;
    timer->next = head;
    head->prev->next = timer;
    head->prev = timer;
}

static void ring_remove(struct timer *timer)
{
    timer->prev->next = timer->next;
    timer->next->prev = timer->prev;
    timer->next = timer->prev = NULL;
}

static uint64_t tick_of(uint64_t deadline_ms)
{
    return deadline_ms / TIMER_TICK_MS + (deadline_ms % TIMER_TICK_MS != 0);
}

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms)
{
    for (int level = 0; level < TIMER_LEVELS; level++) {
        wheel->occupied[level] = 0;
        for (int slot = 0; slot < TIMER_SLOTS; slot++) {
            ring_init(&wheel->slots[level][slot]);
        }
    }
    ring_init(&wheel->due);
    wheel->tick = now_ms / TIMER_TICK_MS;
}

/* The level is chosen by the highest group of bits in which the deadline differs from the current
 * tick. */
static void place(struct timer_wheel *wheel, struct timer *timer)
{
    uint64_t tick = tick_of(timer->deadline_ms);
    if (tick < wheel->tick) {
        tick = wheel->tick;
    }
    uint64_t differs = tick ^ wheel->tick;
    int level = differs == 0 ? 0 : (63 - __builtin_clzll(differs)) / TIMER_SLOT_BITS;
    if (level >= TIMER_LEVELS) {
        /* Beyond the last slot a timer waits in that one and is placed again. A deadline that is
         * near, but after the top level begins anew, has its own slot. */
        level = TIMER_LEVELS - 1;
        uint64_t horizon = ((uint64_t)TIMER_SLOTS - 1) << (level * TIMER_SLOT_BITS);
        if (tick - wheel->tick > horizon) {
            tick = wheel->tick + horizon;
        }
    }
    unsigned slot = (unsigned)(tick >> (level * TIMER_SLOT_BITS)) & (TIMER_SLOTS - 1);
    ring_append(&wheel->slots[level][slot], timer);
    wheel->occupied[level] |= UINT64_C(1) << slot;
}

void timer_arm(struct timer_wheel *wheel, struct timer *timer, uint64_t deadline_ms)
{
    timer_cancel(wheel, timer);
    if (deadline_ms != TIMER_NEVER) {
        timer->deadline_ms = deadline_ms;
        place(wheel, timer);
    }
}

void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
    (void)wheel; /* a slot that became empty loses its bit when it is next looked at */
    if (timer_is_armed(timer)) {
        ring_remove(timer);
    }
}

/* The first tick after wheel->tick - 1 at which some slot must be looked at; UINT64_MAX when there
 * is none. */
static uint64_t next_tick(const struct timer_wheel *wheel)
{
    uint64_t best = UINT64_MAX;
    for (int level = 0; level < TIMER_LEVELS; level++) {
        if (wheel->occupied[level] == 0) {
            continue;
        }
        unsigned shift = (unsigned)level * TIMER_SLOT_BITS;
        uint64_t position = wheel->tick >> shift;
        unsigned here = (unsigned)position & (TIMER_SLOTS - 1);
        uint64_t bits = wheel->occupied[level];
        uint64_t rotated = here == 0 ? bits : bits >> here | bits << (TIMER_SLOTS - here);
        uint64_t at = (position + (unsigned)__builtin_ctzll(rotated)) << shift;
        if (at < wheel->tick) { /* the slot of a higher level that the current tick is inside */
            at = wheel->tick;
        }
        if (at < best) {
            best = at;
        }
    }
    return best;
}

uint64_t timer_wheel_next_ms(const struct timer_wheel *wheel)
{
    uint64_t tick = next_tick(wheel);
    return tick == UINT64_MAX ? TIMER_NEVER : tick * TIMER_TICK_MS;
}

/* Takes the slot of each level that the current tick is in: level 0 is due, higher ones move down.
 */
static void look_at_tick(struct timer_wheel *wheel)
{
    for (int level = TIMER_LEVELS - 1; level >= 0; level--) {
        unsigned shift = (unsigned)level * TIMER_SLOT_BITS;
        unsigned slot = (unsigned)(wheel->tick >> shift) & (TIMER_SLOTS - 1);
        struct timer *head = &wheel->slots[level][slot];
        if ((wheel->occupied[level] & UINT64_C(1) << slot) == 0) {
            continue;
        }
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
        struct timer moved;
        ring_init(&moved);
        while (!ring_is_empty(head)) {
            struct timer *timer = head->next;
            ring_remove(timer);
            ring_append(&moved, timer);
        }
        while (!ring_is_empty(&moved)) {
            struct timer *timer = moved.next;
            ring_remove(timer);
            if (tick_of(timer->deadline_ms) <= wheel->tick) {
                ring_append(&wheel->due, timer);
            } else {
                place(wheel, timer);
            }
        }
    }
}

void timer_wheel_advance(struct timer_wheel *wheel, uint64_t now_ms, timer_fire_fn *fire, void *ctx)
{
    uint64_t now_tick = now_ms / TIMER_TICK_MS;
    for (;;) {
        uint64_t tick = next_tick(wheel);
        if (tick > now_tick) {
            break;
        }
        ENSURE(tick >= wheel->tick);
        wheel->tick = tick;
        look_at_tick(wheel);
        while (!ring_is_empty(&wheel->due)) {
            struct timer *timer = wheel->due.next;
            ring_remove(timer);
            fire(ctx, timer);
        }
    }
    if (now_tick > wheel->tick) {
        wheel->tick = now_tick;
    }
}
