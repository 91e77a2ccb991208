#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core_reference.h"
#include "timer_wheel.h"

enum { TIMERS = 200 };

/* The wheel beside the plainest possible one: a deadline for each timer. */
struct world {
    struct timer_wheel wheel;
    struct timer timers[TIMERS];
    uint64_t deadlines[TIMERS]; /* TIMER_NEVER = unarmed */
    uint64_t now_ms;
    uint64_t random;
    unsigned fired;
    bool meddle; /* the callback arms and cancels */
};

static uint64_t tick_of(uint64_t deadline_ms)
{
    return deadline_ms / TIMER_TICK_MS + (deadline_ms % TIMER_TICK_MS != 0);
}

static void world_init(struct world *world, uint64_t now_ms, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->now_ms = now_ms;
    world->random = seed;
    timer_wheel_init(&world->wheel, now_ms);
    for (size_t i = 0; i < TIMERS; i++) {
        world->deadlines[i] = TIMER_NEVER;
    }
}

static void world_arm(struct world *world, size_t i, uint64_t deadline_ms)
{
    timer_arm(&world->wheel, &world->timers[i], deadline_ms);
    world->deadlines[i] = deadline_ms;
    assert_int_equal(timer_is_armed(&world->timers[i]), deadline_ms != TIMER_NEVER);
}

static void world_cancel(struct world *world, size_t i)
{
    timer_cancel(&world->wheel, &world->timers[i]);
    world->deadlines[i] = TIMER_NEVER;
    assert_false(timer_is_armed(&world->timers[i]));
}

/* From the next millisecond to centuries, with as many of each magnitude. */
static uint64_t random_delay(struct world *world)
{
    return random_next(&world->random) >> (20 + random_below(&world->random, 44));
}

static void on_fire(void *ctx, struct timer *timer)
{
    struct world *world = ctx;
    size_t i = (size_t)(timer - world->timers);
    assert_false(timer_is_armed(timer));
    assert_true(world->deadlines[i] <= world->now_ms);
    assert_true(timer->deadline_ms == world->deadlines[i]);
    world->deadlines[i] = TIMER_NEVER;
    world->fired++;
    if (world->meddle && random_below(&world->random, 2) == 0) {
        size_t other = random_below(&world->random, TIMERS);
        switch (random_below(&world->random, 4)) {
        case 0:
            world_arm(world, i, world->now_ms + 1 + random_delay(world));
            break;
        case 1:
            world_arm(world, other, world->now_ms + 1 + random_delay(world));
            break;
        case 2: /* already past: belongs to this advance */
            world_arm(world, i, world->now_ms - random_below(&world->random, 100));
            break;
        default:
            world_cancel(world, other);
            break;
        }
    }
}

/* Advances and sees that what is left is not due, and that next_ms would wake in time. */
static void world_advance(struct world *world, uint64_t now_ms)
{
    world->now_ms = now_ms;
    timer_wheel_advance(&world->wheel, now_ms, on_fire, world);
    uint64_t next_ms = timer_wheel_next_ms(&world->wheel);
    for (size_t i = 0; i < TIMERS; i++) {
        assert_int_equal(timer_is_armed(&world->timers[i]), world->deadlines[i] != TIMER_NEVER);
        if (world->deadlines[i] != TIMER_NEVER) {
            assert_true(tick_of(world->deadlines[i]) > now_ms / TIMER_TICK_MS);
            assert_true(next_ms <= tick_of(world->deadlines[i]) * TIMER_TICK_MS);
        }
    }
    assert_true(next_ms > now_ms);
}

static void run_at_random(uint64_t start_ms, uint64_t seed, bool meddle)
{
    static struct world world;
    world_init(&world, start_ms, seed);
    world.meddle = meddle;
    for (unsigned step = 0; step < 3000; step++) {
        size_t i = random_below(&world.random, TIMERS);
        switch (random_below(&world.random, 8)) {
        case 0:
            world_cancel(&world, i);
            break;
        case 1: /* as the loop does: sleep until the wheel wants to be called */
            if (timer_wheel_next_ms(&world.wheel) < start_ms + (UINT64_C(1) << 44)) {
                world_advance(&world, timer_wheel_next_ms(&world.wheel));
            }
            break;
        case 2: /* late by anything */
            world_advance(&world, world.now_ms + (random_delay(&world) >> 4));
            break;
        case 3:
            world_arm(&world, i, world.now_ms - random_below(&world.random, 50)); /* already past */
            world_advance(&world, world.now_ms + TIMER_TICK_MS);
            break;
        default:
            world_arm(&world, i, world.now_ms + random_delay(&world));
            break;
        }
    }
    assert_true(world.fired > 300);
}

static void random_use_agrees_with_a_list_of_deadlines(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        run_at_random(1000 + seed, seed, false);
        run_at_random(UINT64_C(1764000000000), seed, false);
        run_at_random(UINT64_C(1764000000000), seed, true);
    }
}

/* Deadlines just past each boundary at which every lower level begins anew. */
static void boundaries_between_levels_cost_no_delay(void **state)
{
    (void)state;
    static struct world world;
    for (unsigned bits = 0; bits <= 40; bits++) {
        uint64_t boundary = (UINT64_C(3) << bits) * TIMER_TICK_MS;
        for (uint64_t before = 1; before <= 3; before++) {
            world_init(&world, boundary - TIMER_TICK_MS * before, 1);
            for (size_t i = 0; i < 8; i++) {
                world_arm(&world, i, boundary - TIMER_TICK_MS + i * TIMER_TICK_MS);
            }
            for (uint64_t now_ms = world.now_ms; now_ms <= boundary + UINT64_C(8) * TIMER_TICK_MS;
                 now_ms += TIMER_TICK_MS) {
                world_advance(&world, now_ms);
            }
            assert_int_equal(world.fired, 8);
        }
    }
}

static void never_earlier_and_at_most_a_tick_later(void **state)
{
    (void)state;
    static struct world world;
    for (uint64_t deadline = 1001; deadline < 1001 + 2 * TIMER_TICK_MS; deadline++) {
        world_init(&world, 1000, 1);
        world_arm(&world, 0, deadline);
        world_advance(&world, deadline - 1);
        assert_int_equal(world.fired, 0);
        world_advance(&world, deadline + TIMER_TICK_MS - 1);
        assert_int_equal(world.fired, 1);
    }
}

static void sleeping_from_next_to_next_wakes_seldom(void **state)
{
    (void)state;
    static struct world world;
    world_init(&world, 5, 1);
    for (size_t i = 0; i < TIMERS; i++) {
        world_arm(&world, i, 5 + i * 90001);
    }
    unsigned wakes = 0;
    while (world.fired < TIMERS) {
        world_advance(&world, timer_wheel_next_ms(&world.wheel));
        wakes++;
    }
    assert_true(wakes < TIMERS * TIMER_LEVELS);
    assert_true(timer_wheel_next_ms(&world.wheel) == TIMER_NEVER);
}

static void never_is_not_armed(void **state)
{
    (void)state;
    static struct world world;
    world_init(&world, 0, 1);
    assert_true(timer_wheel_next_ms(&world.wheel) == TIMER_NEVER);
    world_cancel(&world, 0);
    world_arm(&world, 0, TIMER_NEVER);
    world_arm(&world, 0, 100);
    world_arm(&world, 0, TIMER_NEVER);
    world_advance(&world, 1000);
    assert_int_equal(world.fired, 0);
    world_arm(&world, 0, TIMER_NEVER - 7); /* as good as never, but armed */
    world_advance(&world, UINT64_C(1) << 50);
    assert_int_equal(world.fired, 0);
    assert_true(timer_is_armed(&world.timers[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_use_agrees_with_a_list_of_deadlines),
        cmocka_unit_test(boundaries_between_levels_cost_no_delay),
        cmocka_unit_test(never_earlier_and_at_most_a_tick_later),
        cmocka_unit_test(sleeping_from_next_to_next_wakes_seldom),
        cmocka_unit_test(never_is_not_armed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
