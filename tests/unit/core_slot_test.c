/* core/slot: the queue and the window, compared with plain arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "slot.h"

static void push(struct slot_queue *queue, struct slot_pool *pool, uint32_t number)
{
    struct slot *slot = slot_queue_push(queue, pool);
    assert_non_null(slot);
    assert_int_equal(slot->kind, SLOT_EMPTY); /* zeroed, also when its chunk was used before */
    assert_int_equal(slot->identifier, 0);
    slot->kind = SLOT_PUBLISH;
    slot->identifier = number;
}

static void queue_is_first_in_first_out(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_queue queue = {0};
    assert_null(slot_queue_first(&queue));
    assert_null(slot_queue_last(&queue));
    uint32_t in = 0;
    uint32_t out = 0;
    uint64_t random = 7;
    for (unsigned step = 0; step < 50000; step++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        /* Longer and longer runs of one kind, so that the queue grows over many chunks and empties
         * again. */
        if (in == out || ((random >> 40) % 100 < (step / 1000 % 2 == 0 ? 70 : 30))) {
            push(&queue, &pool, in++);
        } else {
            assert_int_equal(slot_queue_first(&queue)->identifier, out++);
            slot_queue_pop(&queue, &pool);
        }
        assert_int_equal(queue.count, in - out);
        if (in != out) {
            assert_int_equal(slot_queue_first(&queue)->identifier, out);
            assert_int_equal(slot_queue_last(&queue)->identifier, in - 1);
        }
    }
    while (queue.count != 0) {
        slot_queue_pop(&queue, &pool);
    }
    assert_null(queue.head);
    slot_pool_fini(&pool);
}

static void cursor_sees_every_slot_once(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    for (uint32_t popped = 0; popped < 3 * SLOTS_PER_CHUNK; popped += 5) {
        for (uint32_t count = 0; count < 3 * SLOTS_PER_CHUNK; count++) {
            struct slot_queue queue = {0};
            for (uint32_t i = 0; i < popped + count; i++) {
                push(&queue, &pool, i);
            }
            for (uint32_t i = 0; i < popped; i++) {
                slot_queue_pop(&queue, &pool);
            }
            struct slot_cursor cursor = {queue.head, queue.head_at};
            uint32_t seen = 0;
            for (const struct slot *slot = slot_queue_next(&queue, &cursor); slot != NULL;
                 slot = slot_queue_next(&queue, &cursor)) {
                assert_int_equal(slot->identifier, popped + seen);
                seen++;
            }
            assert_int_equal(seen, count);
            while (queue.count != 0) {
                slot_queue_pop(&queue, &pool);
            }
        }
    }
    slot_pool_fini(&pool);
}

static void chunks_are_used_again(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_queue queue = {0};
    push(&queue, &pool, 1);
    slot_queue_pop(&queue, &pool);
    uint64_t before = mem_alloc_count();
    for (uint32_t i = 0; i < 1000; i++) {
        push(&queue, &pool, i);
        slot_queue_pop(&queue, &pool);
    }
    assert_int_equal(mem_alloc_count(), before);
    slot_pool_fini(&pool);
}

static void queue_without_memory_is_unchanged(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_queue queue = {0};
    mem_fail_at(1);
    assert_null(slot_queue_push(&queue, &pool));
    assert_int_equal(queue.count, 0);
    for (uint32_t i = 0; i < SLOTS_PER_CHUNK; i++) {
        push(&queue, &pool, i);
    }
    mem_fail_at(1);
    assert_null(slot_queue_push(&queue, &pool));
    mem_fail_at(0);
    assert_int_equal(slot_queue_last(&queue)->identifier, SLOTS_PER_CHUNK - 1);
    push(&queue, &pool, SLOTS_PER_CHUNK);
    assert_int_equal(queue.count, SLOTS_PER_CHUNK + 1);
    while (queue.count != 0) {
        slot_queue_pop(&queue, &pool);
    }
    slot_pool_fini(&pool);
}

static uint16_t add(struct slot_window *window, struct slot_pool *pool)
{
    struct slot slot = {.kind = SLOT_PUBLISH, .qos = 1};
    struct slot *added = slot_window_add(window, pool, &slot, true);
    assert_non_null(added);
    assert_ptr_equal(slot_window_find(window, added->packet_id), added);
    return added->packet_id;
}

static void finish(struct slot_window *window, struct slot_pool *pool, uint16_t packet_id)
{
    struct slot *slot = slot_window_find(window, packet_id);
    assert_non_null(slot);
    assert_int_equal(slot->packet_id, packet_id);
    slot_window_finish(window, pool, slot);
}

static void identifiers_go_round_and_are_never_0(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_window window = {0};
    uint16_t expected = 1;
    for (uint32_t i = 0; i < 3 * UINT16_MAX; i++) {
        uint16_t id = add(&window, &pool);
        assert_int_equal(id, expected);
        expected = expected == UINT16_MAX ? 1 : (uint16_t)(expected + 1);
        finish(&window, &pool, id);
        assert_null(slot_window_find(&window, id));
    }
    assert_int_equal(slot_window_count(&window), 0);
    assert_null(window.ring);
    slot_pool_fini(&pool);
}

static void finishes_in_any_order_over_the_wrap(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_window window = {.next_id = UINT16_MAX - 2};
    static const uint16_t ids[] = {65533, 65534, 65535, 1, 2};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(add(&window, &pool), ids[i]);
    }
    assert_null(slot_window_find(&window, 0));
    assert_null(slot_window_find(&window, 3));
    assert_null(slot_window_find(&window, 65532));
    finish(&window, &pool, 1);
    assert_null(slot_window_find(&window, 1));
    finish(&window, &pool, 65534);
    assert_int_equal(slot_window_count(&window), 5); /* holes stay until the oldest goes */
    finish(&window, &pool, 65533);
    assert_int_equal(slot_window_at(&window, 0)->packet_id, 65535);
    finish(&window, &pool, 65535);
    assert_int_equal(slot_window_at(&window, 0)->packet_id, 2);
    finish(&window, &pool, 2);
    assert_int_equal(slot_window_count(&window), 0);
    slot_pool_fini(&pool);
}

/* Acknowledgements that never come neither stretch the window nor stop it, and their identifiers
 * are not given again. */
static void withheld_identifiers_are_passed_over(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_window window = {.next_id = 40000};
    uint16_t withheld[] = {add(&window, &pool), 0, 0};
    for (uint32_t i = 1; i < 3 * UINT16_MAX; i++) {
        uint16_t id = add(&window, &pool);
        assert_true(id != withheld[0] && id != withheld[1] && id != withheld[2]);
        if (i == 70000 || i == 140000) {
            withheld[i / 70000] = id;
        } else {
            finish(&window, &pool, id);
        }
        assert_true(window.ring->capacity <= WINDOW_SPILL_MIN);
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(slot_window_at(&window, 0)->packet_id, withheld[i]);
        finish(&window, &pool, withheld[i]);
    }
    slot_window_fini(&window, &pool);
    slot_pool_fini(&pool);
}

/* What was sent on this connection and what was not stays so while slots around it are finished. */
static void sent_position_survives_finishing(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_window window = {0};
    for (uint32_t i = 0; i < 200; i++) {
        (void)add(&window, &pool);
    }
    assert_int_equal(window.sent, 200);
    for (uint16_t id = 11; id <= 190; id++) {
        finish(&window, &pool, id);
    }
    for (uint32_t i = 0; i < 100; i++) { /* the ring turns: 1 to 10 become stragglers */
        finish(&window, &pool, add(&window, &pool));
    }
    assert_int_equal(window.ring->straggler_count, 10);
    window.sent = 4;
    finish(&window, &pool, 7);
    assert_int_equal(window.sent, 4);
    finish(&window, &pool, 2);
    assert_int_equal(window.sent, 3);
    assert_int_equal(slot_window_at(&window, window.sent)->packet_id, 5);
    window.sent = slot_window_count(&window);
    finish(&window, &pool, 191);
    assert_int_equal(window.sent, slot_window_count(&window));
    slot_window_fini(&window, &pool);
    slot_pool_fini(&pool);
}

/* With more withheld than there is room for, the window is full until one of them is finished. */
static void too_many_withheld_fill_the_window(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_window window = {0};
    for (uint32_t i = 0; i <= WINDOW_STRAGGLERS_MAX; i++) {
        (void)add(&window, &pool);
    }
    uint32_t added = 0;
    for (; !slot_window_is_full(&window); added++) {
        finish(&window, &pool, add(&window, &pool));
        assert_true(added <= 2 * UINT16_MAX);
    }
    finish(&window, &pool, 1);
    assert_false(slot_window_is_full(&window));
    slot_window_fini(&window, &pool);
    slot_pool_fini(&pool);
}

/* The window and what it should hold: identifiers in order, and which of them are unfinished. */
struct window_model {
    struct slot_window window;
    struct slot_pool pool;
    bool open[UINT16_MAX + 1];
    uint16_t order[40000];
    uint32_t from, to;
};

static void model_add(struct window_model *model)
{
    uint16_t id = add(&model->window, &model->pool);
    assert_false(model->open[id]);
    model->open[id] = true;
    model->order[model->to++] = id;
}

static void model_finish(struct window_model *model, uint16_t id)
{
    if (!model->open[id]) {
        assert_null(slot_window_find(&model->window, id));
        return;
    }
    finish(&model->window, &model->pool, id);
    model->open[id] = false;
    while (model->from < model->to && !model->open[model->order[model->from]]) {
        model->from++;
    }
}

static void random_window_agrees_with_an_array(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 10; seed++) {
        struct window_model *model = calloc(1, sizeof *model);
        model->window.next_id = (uint16_t)(65000 + seed);
        uint64_t random = seed;
        for (unsigned step = 0; step < 30000; step++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            uint32_t number = (uint32_t)(random >> 40);
            uint32_t count = model->to - model->from;
            if (count == 0 || (count < 20 * seed && number % 2 == 0)) {
                model_add(model);
            } else {
                model_finish(model, model->order[model->from + number / 2 % count]);
            }
            assert_true(slot_window_count(&model->window) <= model->to - model->from);
            if (model->from != model->to) {
                const struct slot *oldest = slot_window_at(&model->window, 0);
                assert_int_equal(oldest->packet_id, model->order[model->from]);
            }
        }
        slot_window_fini(&model->window, &model->pool);
        slot_pool_fini(&model->pool);
        free(model);
    }
}

static void window_without_memory_is_unchanged(void **state)
{
    (void)state;
    struct slot_pool pool = {0};
    struct slot_window window = {0};
    struct slot slot = {.kind = SLOT_PUBLISH, .qos = 1};
    mem_fail_at(1);
    assert_null(slot_window_add(&window, &pool, &slot, true));
    assert_int_equal(slot_window_count(&window), 0);
    for (unsigned i = 1; i <= WINDOW_SMALL; i++) {
        assert_int_equal(add(&window, &pool), i);
    }
    mem_fail_at(1);
    assert_null(slot_window_add(&window, &pool, &slot, true));
    mem_fail_at(0);
    assert_int_equal(slot_window_count(&window), WINDOW_SMALL);
    assert_int_equal(add(&window, &pool), WINDOW_SMALL + 1);
    slot_window_fini(&window, &pool);
    slot_pool_fini(&pool);
}

/* What is put in front comes first, across the borders of chunks, and everything leaves in order.
 */
static void queue_unshift(void **state)
{
    (void)state;
    for (unsigned pushed = 0; pushed < 2 * SLOTS_PER_CHUNK; pushed += 7) {
        struct slot_pool pool = {0};
        struct slot_queue queue = {0};
        for (unsigned i = 0; i < pushed; i++) {
            slot_queue_push(&queue, &pool)->identifier = 1000 + i;
        }
        for (unsigned i = 0; i < 3 * SLOTS_PER_CHUNK; i++) {
            struct slot *slot = slot_queue_unshift(&queue, &pool);
            assert_int_equal(slot->kind, SLOT_EMPTY);
            slot->identifier = 999 - i;
        }
        assert_int_equal(queue.count, pushed + 3 * SLOTS_PER_CHUNK);
        slot_queue_push(&queue, &pool)->identifier = 1000 + pushed;
        for (unsigned expected = 1000 - 3 * SLOTS_PER_CHUNK; queue.count != 0; expected++) {
            assert_int_equal(slot_queue_first(&queue)->identifier, expected);
            slot_queue_pop(&queue, &pool);
        }
        slot_pool_fini(&pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_unshift),
        cmocka_unit_test(queue_is_first_in_first_out),
        cmocka_unit_test(cursor_sees_every_slot_once),
        cmocka_unit_test(chunks_are_used_again),
        cmocka_unit_test(queue_without_memory_is_unchanged),
        cmocka_unit_test(identifiers_go_round_and_are_never_0),
        cmocka_unit_test(finishes_in_any_order_over_the_wrap),
        cmocka_unit_test(withheld_identifiers_are_passed_over),
        cmocka_unit_test(sent_position_survives_finishing),
        cmocka_unit_test(too_many_withheld_fill_the_window),
        cmocka_unit_test(random_window_agrees_with_an_array),
        cmocka_unit_test(window_without_memory_is_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
