/* Channels: on one thread step by step, and between two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <uv.h>

#include "channel.h"
#include "mem.h"

enum { CHUNK = 4096, BEHIND = 16 * 1024, MANY = 200000 };

struct fixture {
    uv_loop_t uv;
    struct channel *channel;
    unsigned batches;
};

static void on_batch(void *ctx)
{
    struct fixture *f = ctx;
    f->batches++;
}

static int setup(void **state)
{
    static struct fixture f;
    f = (struct fixture){.batches = 0};
    assert_int_equal(uv_loop_init(&f.uv), 0);
    struct channel_options options = {&f.uv, CHUNK, BEHIND, on_batch, &f};
    assert_int_equal(channel_create(&options, &f.channel), STATUS_OK);
    channel_set_ref(f.channel, true);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    channel_close(f->channel);
    (void)uv_run(&f->uv, UV_RUN_DEFAULT);
    channel_destroy(f->channel);
    return uv_loop_close(&f->uv);
}

static void turn(struct fixture *f)
{
    (void)uv_run(&f->uv, UV_RUN_NOWAIT);
}

/* A record of `bytes` that begins with `number`. */
static void put(struct fixture *f, uint32_t number, size_t bytes)
{
    uint8_t *record = channel_begin(f->channel, number % 7, bytes);
    assert_non_null(record);
    assert_int_equal((uintptr_t)record % 16, 0);
    memset(record, (int)(number & 0xff), bytes);
    memcpy(record, &number, sizeof number);
    channel_end(f->channel, bytes, 0);
}

static void take(struct fixture *f, uint32_t number, size_t bytes)
{
    uint32_t kind;
    uint32_t got;
    size_t len;
    const uint8_t *record = channel_next(f->channel, &kind, &len);
    assert_non_null(record);
    assert_int_equal(kind, number % 7);
    assert_int_equal(len, bytes);
    memcpy(&got, record, sizeof got);
    assert_int_equal(got, number);
    for (size_t i = sizeof got; i < len; i++) {
        assert_int_equal(record[i], number & 0xff);
    }
}

static void take_nothing(struct fixture *f)
{
    uint32_t kind;
    size_t len;
    assert_null(channel_next(f->channel, &kind, &len));
}

static void test_nothing_before_publish(void **state)
{
    struct fixture *f = *state;
    put(f, 1, 10);
    turn(f);
    assert_int_equal(f->batches, 0);
    take_nothing(f);
    channel_publish(f->channel);
    turn(f);
    assert_int_equal(f->batches, 1);
    take(f, 1, 10);
    take_nothing(f);
}

/* One wake-up for all that is published while the receiver has not looked. */
static void test_one_wake_up(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < 5; i++) {
        put(f, i, 100);
        channel_publish(f->channel);
    }
    channel_publish(f->channel); /* nothing new */
    turn(f);
    assert_int_equal(f->batches, 1);
    for (uint32_t i = 0; i < 5; i++) {
        take(f, i, 100);
    }
    take_nothing(f);
    turn(f);
    assert_int_equal(f->batches, 1);
    channel_again(f->channel);
    turn(f);
    assert_int_equal(f->batches, 2);
}

/* Records of all sizes, larger than a chunk too, in order, however the reading is cut. */
static void test_sizes_and_order(void **state)
{
    struct fixture *f = *state;
    uint32_t put_count = 0;
    uint32_t taken = 0;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 40; i++, put_count++) {
            put(f, put_count, 4 + put_count * 37 % 9000);
        }
        channel_publish(f->channel);
        for (int i = 0; i < (round % 2 == 0 ? 20 : 60); i++, taken++) {
            take(f, taken, 4 + taken * 37 % 9000);
        }
    }
    assert_int_equal(taken, put_count);
    take_nothing(f);
}

/* A full chunk does not wait for the end of the turn. */
static void test_full_chunk_is_published(void **state)
{
    struct fixture *f = *state;
    put(f, 1, CHUNK / 2);
    put(f, 2, CHUNK / 2);
    turn(f);
    assert_int_equal(f->batches, 1);
    take(f, 1, CHUNK / 2);
    take_nothing(f);
    channel_publish(f->channel);
    take(f, 2, CHUNK / 2);
}

static void test_forgotten_record(void **state)
{
    struct fixture *f = *state;
    assert_non_null(channel_begin(f->channel, 3, 100)); /* not ended */
    put(f, 9, 50);
    channel_publish(f->channel);
    take(f, 9, 50);
    take_nothing(f);
}

static void test_no_allocation_once_warm(void **state)
{
    struct fixture *f = *state;
    uint64_t before = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        if (i == 10) {
            before = mem_alloc_count();
        }
        put(f, i, 1000);
        put(f, i + 1, 1000);
        channel_publish(f->channel);
        take(f, i, 1000);
        take(f, i + 1, 1000);
        take_nothing(f);
    }
    assert_int_equal(mem_alloc_count(), before);
}

/* What a stalled receiver leaves unread is bounded by the sender's asking; it is told when half of
 * it has been read. */
static void test_behind(void **state)
{
    struct fixture *f = *state;
    uint32_t sent = 0;
    while (!channel_is_behind(f->channel)) {
        assert_true(sent < 2 * BEHIND / 1000);
        put(f, sent++, 100);
        channel_begin_small(f->channel, 0, 4);
        channel_end(f->channel, 4, 900); /* weighs more than it is long */
        channel_publish(f->channel);
    }
    assert_in_range(sent, BEHIND / 1100, BEHIND / 900);
    uint32_t kind;
    size_t len;
    uint32_t taken = 0;
    while (!channel_must_tell(f->channel)) {
        assert_true(taken < sent);
        take(f, taken++, 100);
        assert_non_null(channel_next(f->channel, &kind, &len));
    }
    assert_in_range(taken, sent / 3, sent / 2 + 3);
    assert_false(channel_must_tell(f->channel)); /* once */
    assert_false(channel_is_behind(f->channel));
}

/* Who waits after everything was read is not left waiting. */
static void test_behind_and_read_at_once(void **state)
{
    struct fixture *f = *state;
    put(f, 1, BEHIND);
    channel_publish(f->channel);
    take(f, 1, BEHIND);
    take_nothing(f);
    assert_false(channel_is_behind(f->channel));
    assert_false(channel_must_tell(f->channel));
}

static void test_no_memory(void **state)
{
    struct fixture *f = *state;
    mem_fail_at(1);
    assert_null(channel_begin(f->channel, 1, 10));
    mem_fail_at(1);
    uint32_t *record = channel_begin_small(f->channel, 5, sizeof *record); /* never fails */
    *record = 5;
    channel_end(f->channel, sizeof *record, 0);
    assert_null(channel_begin(f->channel, 1, 10)); /* what is put aside is not for everybody */
    channel_publish(f->channel);
    take(f, 5, sizeof *record);
    take_nothing(f);
    put(f, 6, 10); /* memory is there again */
    channel_publish(f->channel);
    take(f, 6, 10);
    take_nothing(f);
    put(f, 7, 10);
    channel_publish(f->channel); /* by now what was put aside is back */
    mem_fail_at(1);
    assert_null(channel_begin(f->channel, 1, BEHIND));
    mem_fail_at(0);
    channel_set_ref(f->channel, false);
}

/* Two threads: numbers go over, acknowledgements come back in a second channel. */
struct pair {
    uv_loop_t uv[2];
    struct channel *to[2];
    uint32_t received, acknowledged;
    bool waits;
};

static void receive_numbers(void *ctx)
{
    struct pair *pair = ctx;
    uint32_t kind;
    size_t len;
    const uint32_t *record;
    for (int i = 0; i < 500; i++) {
        record = channel_next(pair->to[1], &kind, &len);
        if (record == NULL) {
            break;
        }
        if (*record != pair->received) { /* no assertion: this is not the test's thread */
            pair->received = UINT32_MAX;
            uv_stop(&pair->uv[1]);
            return;
        }
        pair->received++;
    }
    channel_again(pair->to[1]);
    if (channel_must_tell(pair->to[1]) || pair->received == MANY) {
        uint32_t *answer = channel_begin_small(pair->to[0], 1, sizeof *answer);
        *answer = pair->received;
        channel_end(pair->to[0], sizeof *answer, 0);
        channel_publish(pair->to[0]);
    }
    if (pair->received == MANY) {
        uv_stop(&pair->uv[1]);
    }
}

static void receive_answers(void *ctx)
{
    struct pair *pair = ctx;
    uint32_t kind;
    size_t len;
    const uint32_t *record;
    while ((record = channel_next(pair->to[0], &kind, &len)) != NULL) {
        pair->acknowledged = *record;
        pair->waits = false;
    }
}

static void run_receiver(void *ctx)
{
    struct pair *pair = ctx;
    (void)uv_run(&pair->uv[1], UV_RUN_DEFAULT);
}

static void test_two_threads(void **state)
{
    (void)state;
    static struct pair pair;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(uv_loop_init(&pair.uv[i]), 0);
        struct channel_options options = {&pair.uv[i], CHUNK, BEHIND,
                                          i == 0 ? receive_answers : receive_numbers, &pair};
        assert_int_equal(channel_create(&options, &pair.to[i]), STATUS_OK);
        channel_set_ref(pair.to[i], true);
    }
    uv_thread_t thread;
    assert_int_equal(uv_thread_create(&thread, run_receiver, &pair), 0);
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t *record = channel_begin(pair.to[1], 1, sizeof *record);
        assert_non_null(record);
        *record = i;
        channel_end(pair.to[1], sizeof *record, 0);
        if (i % 17 == 0 || i == MANY - 1) {
            channel_publish(pair.to[1]);
        }
        if (i % 64 == 0 && channel_is_behind(pair.to[1])) {
            channel_publish(pair.to[1]);
            pair.waits = true;
            while (pair.waits) { /* a wake-up that is lost would hang here */
                (void)uv_run(&pair.uv[0], UV_RUN_ONCE);
            }
        }
    }
    assert_int_equal(uv_thread_join(&thread), 0);
    assert_int_equal(pair.received, MANY);
    for (int i = 0; i < 2; i++) {
        channel_close(pair.to[i]);
        (void)uv_run(&pair.uv[i], UV_RUN_DEFAULT);
        channel_destroy(pair.to[i]);
        assert_int_equal(uv_loop_close(&pair.uv[i]), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_before_publish, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_wake_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes_and_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_chunk_is_published, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgotten_record, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_allocation_once_warm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_behind_and_read_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test(test_two_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
