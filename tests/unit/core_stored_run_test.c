/* core/stored_run: compared with a plain array; its size; no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "stored_run.h"

enum { MODEL_MAX = 60000, GROUPS = 3 };

struct model {
    struct slot *slots; /* MODEL_MAX places */
    size_t first, end;
};

static uint64_t next_random(uint64_t *random)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *random >> 33;
}

/* Never looked into: a run only compares and keeps them. */
static struct share_group *group_number(uint64_t number)
{
    static char groups[GROUPS];
    return (struct share_group *)(void *)&groups[number];
}

static struct slot random_slot(uint64_t *random, uint64_t *arrival)
{
    switch (next_random(random) % 20) {
    case 0: /* it came earlier than the one before */
        *arrival -= next_random(random) % (*arrival / 2);
        break;
    case 1:
        *arrival += next_random(random) << (next_random(random) % 20);
        break;
    default:
        *arrival += 1 + next_random(random) % 300;
    }
    struct slot slot = {.arrival = *arrival, .stored_bytes = 100, .kind = SLOT_STORED};
    slot.is_stored = 1;
    uint64_t bits = next_random(random);
    slot.qos = (uint8_t)(bits % 3) & 3U;
    slot.retain = (bits >> 2) & 1;
    slot.is_second = (bits >> 3) & 1;
    slot.returned = (bits >> 4) & 1;
    if (bits >> 5 & 1) {
        slot.stored_bytes = (uint32_t)next_random(random) << (bits >> 6 & 1);
    }
    if (bits >> 7 & 1) {
        slot.is_shared = 1;
        slot.group = group_number(next_random(random) % GROUPS);
    }
    return slot;
}

static void assert_same(const struct slot *one, const struct slot *other)
{
    assert_int_equal(one->arrival, other->arrival);
    assert_int_equal(one->stored_bytes, other->stored_bytes);
    assert_int_equal(one->kind, SLOT_STORED);
    assert_int_equal(one->is_stored, 1);
    assert_int_equal(one->packet_id, 0);
    assert_int_equal(one->qos, other->qos);
    assert_int_equal(one->retain, other->retain);
    assert_int_equal(one->is_second, other->is_second);
    assert_int_equal(one->returned, other->returned);
    assert_int_equal(one->is_shared, other->is_shared);
    assert_false(one->has_list || one->in_quota || one->sent_before);
    assert_ptr_equal(one->group, other->group);
}

static void push(struct stored_run *run, struct model *model, const struct slot *slot)
{
    assert_true(stored_run_push(run, slot));
    model->slots[model->end++] = *slot;
}

static void pop(struct stored_run *run, struct model *model)
{
    struct slot slot;
    assert_int_equal(stored_run_first_arrival(run), model->slots[model->first].arrival);
    stored_run_pop(run, &slot);
    assert_same(&slot, &model->slots[model->first++]);
}

/* Some that were taken out, perhaps changed, come back in front, as a run of their own. */
static void put_before(struct stored_run *run, struct model *model, uint64_t *random)
{
    struct stored_run before = {0};
    size_t count = next_random(random) % 40;
    count = count < model->first ? count : model->first;
    uint64_t arrival = 1U << 20;
    for (size_t i = model->first - count; i < model->first; i++) {
        model->slots[i] = random_slot(random, &arrival);
        assert_true(stored_run_push(&before, &model->slots[i]));
    }
    model->first -= count;
    stored_run_prepend(run, &before);
    assert_null(before.head);
}

static void compare(const struct stored_run *run, const struct model *model)
{
    assert_int_equal(run->count, model->end - model->first);
    struct stored_cursor cursor = stored_cursor_of(run);
    struct slot slot;
    for (size_t i = model->first; i < model->end; i++) {
        assert_true(stored_run_next(&cursor, &slot));
        assert_same(&slot, &model->slots[i]);
    }
    assert_false(stored_run_next(&cursor, &slot));
}

static void keeps_order_and_content(void **state)
{
    (void)state;
    struct stored_run run = {0};
    struct model model = {.slots = calloc(MODEL_MAX, sizeof(struct slot))};
    assert_non_null(model.slots);
    uint64_t random = 3;
    uint64_t arrival = 1U << 20;
    for (unsigned step = 0; model.end < MODEL_MAX - 1; step++) {
        uint64_t what = next_random(&random) % 100;
        if (what < 2) {
            put_before(&run, &model, &random);
        } else if (run.count == 0 || what < (step / 1000 % 2 == 0 ? 65 : 40)) {
            struct slot slot = random_slot(&random, &arrival);
            push(&run, &model, &slot);
        } else {
            pop(&run, &model);
        }
        if (step % 997 == 0) {
            compare(&run, &model);
        }
    }
    compare(&run, &model);
    while (run.count != 0) {
        pop(&run, &model);
    }
    assert_null(run.head);
    free(model.slots);
}

static void takes_what_a_slot_publish_says(void **state)
{
    (void)state;
    struct message *message = NULL;
    assert_int_equal(message_create(bytes_of_string("t"), 0, bytes_of_string("x"), &message),
                     STATUS_OK);
    message->sequence = UINT64_MAX - 1;
    struct slot slot = {.message = message, .identifier = 7, .kind = SLOT_PUBLISH, .qos = 2};
    struct stored_run run = {0};
    assert_true(stored_run_push(&run, &slot));
    struct slot expected = {.arrival = UINT64_MAX - 1, .qos = 2};
    expected.stored_bytes = (uint32_t)message_size(message);
    struct slot out;
    stored_run_pop(&run, &out);
    assert_same(&out, &expected);
    message_release(message);
}

/* Messages of one size for a hundred sessions in turn: well under four bytes each, and one that
 * waits alone takes little. */
static void is_small(void **state)
{
    (void)state;
    enum { COUNT = 100000, BLOCK_BYTES = 1024 };
    struct stored_run run = {0};
    uint64_t before = mem_alloc_count();
    for (unsigned i = 0; i < COUNT; i++) {
        struct slot slot = {.arrival = 1000000 + 100 * i, .stored_bytes = 150};
        slot.kind = SLOT_STORED;
        slot.qos = 1;
        slot.is_shared = 1;
        slot.group = group_number(0);
        assert_true(stored_run_push(&run, &slot));
    }
    assert_true((mem_alloc_count() - before) * BLOCK_BYTES < 4 * (uint64_t)COUNT);
    stored_run_fini(&run);
    assert_null(run.head);
    assert_int_equal(run.count, 0);
}

static void without_memory_nothing_changes(void **state)
{
    (void)state;
    struct stored_run run = {0};
    struct model model = {.slots = calloc(MODEL_MAX, sizeof(struct slot))};
    assert_non_null(model.slots);
    uint64_t random = 5;
    uint64_t arrival = 1U << 20;
    unsigned failed = 0;
    for (unsigned i = 0; i < 3000; i++) {
        struct slot slot = random_slot(&random, &arrival);
        mem_fail_at(1);
        bool pushed = stored_run_push(&run, &slot);
        mem_fail_at(0);
        if (pushed) {
            model.slots[model.end++] = slot;
        } else {
            failed++;
            push(&run, &model, &slot);
        }
        if (i % 3 == 0) {
            pop(&run, &model);
        }
    }
    assert_true(failed > 5);
    compare(&run, &model);
    stored_run_fini(&run);
    free(model.slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_order_and_content),
        cmocka_unit_test(takes_what_a_slot_publish_says),
        cmocka_unit_test(is_small),
        cmocka_unit_test(without_memory_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
