/*
 * timer_wheel: all deadlines of one owner in one structure, without a handle or an allocation for
 * each.
 *
 * Six levels of 64 slots over ticks of TIMER_TICK_MS. A timer fires in the first
 * timer_wheel_advance whose now_ms is at or past its deadline, never earlier, at most one tick
 * later than that. Whoever re-arms a timer often should not: let it fire, look at the last
 * activity, arm it for the rest.
 *
 *   Cost       arm, cancel: O(1). advance: O(fired + slots passed). next_deadline: O(levels).
 *   Order      Timers of one tick fire in a fixed order that depends on earlier calls alone.
 */
#ifndef BASE_TIMER_WHEEL_H
#define BASE_TIMER_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

enum { TIMER_TICK_MS = 8, TIMER_LEVELS = 6, TIMER_SLOT_BITS = 6, TIMER_SLOTS = 64 };

#define TIMER_NEVER UINT64_MAX

/* Embedded in the object that it wakes. Zeroed memory is an unarmed timer. Must not move while
 * armed. */
struct timer {
    struct timer *next, *prev; /* ring of the slot; NULL when unarmed */
    uint64_t deadline_ms;
};

struct timer_wheel {
    struct timer slots[TIMER_LEVELS][TIMER_SLOTS]; /* ring heads */
    uint64_t occupied[TIMER_LEVELS];               /* bit n: slot n may be non-empty */
    uint64_t tick;                                 /* every earlier tick has fired */
    struct timer due;                              /* ring being fired */
};

typedef void timer_fire_fn(void *ctx, struct timer *timer);

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms);

/* Arms or re-arms `timer` for the first tick at or after deadline_ms. TIMER_NEVER just cancels. */
void timer_arm(struct timer_wheel *wheel, struct timer *timer, uint64_t deadline_ms);

/* Allowed for an unarmed timer. */
void timer_cancel(struct timer_wheel *wheel, struct timer *timer);

static inline bool timer_is_armed(const struct timer *timer)
{
    return timer->next != 0;
}

/* A time at which timer_wheel_advance must be called: no later than the earliest deadline's tick.
 */
uint64_t timer_wheel_next_ms(const struct timer_wheel *wheel);

/* Fires all that is due. The callback may arm and cancel any timer, its own too. */
void timer_wheel_advance(struct timer_wheel *wheel, uint64_t now_ms, timer_fire_fn *fire,
                         void *ctx);

#endif
