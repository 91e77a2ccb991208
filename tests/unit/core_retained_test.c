#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core_reference.h"
#include "mem.h"
#include "retained.h"
#include "topic.h"

static struct bytes text(const char *string)
{
    return bytes_of_string(string);
}

static struct retained *create(size_t nodes_max)
{
    struct retained *retained = NULL;
    assert_int_equal(retained_create(&test_seed, nodes_max, NULL, NULL, &retained), STATUS_OK);
    return retained;
}

static struct message *make(const char *topic, const char *payload, uint64_t sequence)
{
    struct message *message = NULL;
    assert_int_equal(message_create(text(topic), 0, text(payload), &message), STATUS_OK);
    message->sequence = sequence;
    return message;
}

static void set(struct retained *retained, const char *topic, uint64_t sequence)
{
    struct message *message = make(topic, "payload", sequence);
    assert_int_equal(retained_set(retained, message), STATUS_OK);
    message_release(message);
}

static void set_expiring(struct retained *retained, const char *topic, uint64_t expires_at_ms)
{
    struct message *message = make(topic, "payload", 0);
    message->expires_at_ms = expires_at_ms;
    assert_int_equal(retained_set(retained, message), STATUS_OK);
    message_release(message);
}

static void clear(struct retained *retained, const char *topic)
{
    struct message *message = make(topic, "", 0);
    assert_int_equal(retained_set(retained, message), STATUS_OK);
    message_release(message);
}

static struct retained_cursor *open_cursor(struct retained *retained, const char *filter)
{
    struct retained_cursor *cursor = NULL;
    assert_int_equal(retained_cursor_open(retained, text(filter), &cursor), STATUS_OK);
    return cursor;
}

/* How many messages a cursor of `filter` visits. */
static size_t walk(struct retained *retained, const char *filter, uint64_t now_ms)
{
    struct retained_cursor *cursor = open_cursor(retained, filter);
    struct message *message = NULL;
    size_t count = 0;
    for (;;) {
        enum retained_step step = retained_cursor_next(cursor, 1, now_ms, &message);
        assert_int_equal(message != NULL, step == RETAINED_MESSAGE);
        if (step == RETAINED_END) {
            break;
        }
        count += step == RETAINED_MESSAGE;
    }
    assert_int_equal(retained_cursor_next(cursor, 1, now_ms, &message), RETAINED_END);
    retained_cursor_close(cursor);
    return count;
}

static void keeps_the_last_message_of_a_topic(void **state)
{
    (void)state;
    struct retained *retained = create(100);
    set(retained, "a/b", 1);
    set(retained, "a/b", 2);
    set(retained, "a", 3);
    assert_int_equal(retained_count(retained), 2);
    assert_int_equal(retained_get(retained, text("a/b"), 0)->sequence, 2);
    assert_int_equal(retained_get(retained, text("a"), 0)->sequence, 3);
    assert_null(retained_get(retained, text("a/b/c"), 0));
    assert_null(retained_get(retained, text("b"), 0));
    assert_int_equal(retained_bytes(retained),
                     message_size(retained_get(retained, text("a/b"), 0)) +
                         message_size(retained_get(retained, text("a"), 0)));
    retained_check(retained);
    retained_destroy(retained);
    retained_destroy(NULL);
}

static void an_empty_payload_clears(void **state)
{
    (void)state;
    struct retained *retained = create(2);
    set(retained, "a/b", 1);
    clear(retained, "a");
    clear(retained, "no/such/topic");
    assert_int_equal(retained_count(retained), 1);
    clear(retained, "a/b");
    assert_int_equal(retained_count(retained), 0);
    assert_int_equal(retained_bytes(retained), 0);
    assert_null(retained_get(retained, text("a/b"), 0));
    set(retained, "c/d", 1); /* the nodes are free again */
    retained_check(retained);
    retained_destroy(retained);
}

static void holds_one_reference_to_each_message(void **state)
{
    (void)state;
    struct retained *retained = create(100);
    struct message *first = make("t", "1", 1);
    struct message *second = make("t", "2", 2);
    assert_int_equal(retained_set(retained, first), STATUS_OK);
    assert_int_equal(first->shared.references, 2);
    assert_int_equal(retained_set(retained, first), STATUS_OK);
    assert_int_equal(first->shared.references, 2);
    assert_int_equal(retained_set(retained, second), STATUS_OK);
    assert_int_equal(first->shared.references, 1);
    assert_int_equal(second->shared.references, 2);
    retained_destroy(retained);
    assert_int_equal(second->shared.references, 1);
    message_release(first);
    message_release(second);
}

static void filters_choose_what_a_cursor_visits(void **state)
{
    (void)state;
    struct retained *retained = create(100);
    static const char *const topics[] = {"a",   "a/b",  "a/b/c", "a/d", "/a",
                                         "a//", "$S/b", "$S",    "x/b"};
    static const struct {
        const char *filter;
        size_t matches;
    } cases[] = {
        {"#", 7},       {"a", 1},        {"a/#", 5},   {"+", 1},       {"+/b", 2},
        {"a/+", 2},     {"+/+", 4},      {"a/+/c", 1}, {"a/+/+", 2},   {"$S/#", 2},
        {"$S/+", 1},    {"+/b/#", 3},    {"a/b/#", 2}, {"none", 0},    {"none/#", 0},
        {"a/b/c/d", 0}, {"+/none/#", 0}, {"$S", 1},    {"a/b/c/#", 1},
    };
    for (size_t i = 0; i < 9; i++) {
        set(retained, topics[i], i);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t expected = 0;
        for (size_t j = 0; j < 9; j++) {
            expected += reference_match(cases[i].filter, topics[j]);
        }
        assert_int_equal(expected, cases[i].matches);
        assert_int_equal(walk(retained, cases[i].filter, 0), expected);
    }
    retained_check(retained);
    retained_destroy(retained);
}

static void a_filter_without_wildcards_takes_one_step(void **state)
{
    (void)state;
    struct retained *retained = create(1000);
    struct message *message = NULL;
    set(retained, "a/b/c/d/e/f", 1);
    for (unsigned i = 0; i < 100; i++) {
        char topic[32];
        (void)snprintf(topic, sizeof topic, "a/b/c/d/e/%u", i);
        set(retained, topic, i);
    }
    struct retained_cursor *cursor = open_cursor(retained, "a/b/c/d/e/f");
    assert_int_equal(retained_cursor_next(cursor, 1, 0, &message), RETAINED_MESSAGE);
    assert_int_equal(retained_cursor_next(cursor, 1, 0, &message), RETAINED_END);
    retained_cursor_close(cursor);
    retained_destroy(retained);
}

static void a_step_keeps_to_its_budget(void **state)
{
    (void)state;
    struct retained *retained = create(SIZE_MAX);
    for (unsigned i = 0; i < 1000; i++) {
        char topic[32];
        (void)snprintf(topic, sizeof topic, "%u/x", i);
        set(retained, topic, i);
    }
    set(retained, "first/wanted", 1);
    struct retained_cursor *cursor = open_cursor(retained, "+/nowhere");
    struct message *message = NULL;
    unsigned calls = 1;
    while (retained_cursor_next(cursor, 10, 0, &message) == RETAINED_AGAIN) {
        calls++;
    }
    assert_in_range(calls, 100, 102); /* 1,001 nodes of the first level, ten for each call */
    retained_cursor_close(cursor);
    retained_destroy(retained);
}

static void expired_messages_are_neither_got_nor_visited(void **state)
{
    (void)state;
    struct retained *retained = create(100);
    set_expiring(retained, "a/1", 1000);
    set_expiring(retained, "a/2", 2000);
    set(retained, "a/3", 3);
    assert_non_null(retained_get(retained, text("a/1"), 999));
    assert_null(retained_get(retained, text("a/1"), 1000));
    assert_int_equal(walk(retained, "a/+", 999), 3);
    assert_int_equal(retained_count(retained), 3);
    assert_int_equal(walk(retained, "a/+", 1000), 2);
    assert_int_equal(retained_count(retained), 2);
    assert_int_equal(walk(retained, "a/2", 2000), 0);
    assert_int_equal(retained_count(retained), 1);
    retained_check(retained);
    retained_destroy(retained);
}

static void a_sweep_removes_what_expired(void **state)
{
    (void)state;
    struct retained *retained = create(SIZE_MAX);
    assert_int_equal(retained_sweep(retained, 10, 0), 0);
    for (unsigned i = 0; i < 300; i++) {
        char topic[32];
        (void)snprintf(topic, sizeof topic, "%s/%u/x", i % 2 == 0 ? "a" : "$b", i);
        if (i % 3 == 0) {
            set_expiring(retained, topic, 1000);
        } else {
            set(retained, topic, i);
        }
    }
    size_t removed = 0;
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(retained_sweep(retained, 10, 999), 0);
    }
    for (unsigned i = 0; i < 100; i++) {
        size_t now = retained_sweep(retained, 10, 1000);
        assert_true(now <= 10);
        removed += now;
        retained_check(retained);
        if (i == 30) { /* the place where the sweep rests may go */
            clear(retained, "a/4/x");
            clear(retained, "$b/5/x");
        }
    }
    assert_int_equal(removed, 100);
    assert_int_equal(retained_count(retained), 198);
    retained_check(retained);
    retained_destroy(retained);
}

static void a_cursor_survives_the_loss_of_its_place(void **state)
{
    (void)state;
    struct retained *retained = create(100);
    struct message *message = NULL;
    set(retained, "z", 1); /* newer children come first: visited last */
    set(retained, "a/b/c/d", 2);
    struct retained_cursor *cursor = open_cursor(retained, "#");
    enum retained_step step = RETAINED_AGAIN;
    while (step == RETAINED_AGAIN) {
        step = retained_cursor_next(cursor, 1, 0, &message);
    }
    assert_int_equal(message->sequence, 2);
    clear(retained, "a/b/c/d");
    retained_check(retained);
    set(retained, "a/b/c/d", 3); /* again, where the cursor has been */
    set(retained, "a/b/e", 4);   /* behind the cursor */
    assert_int_equal(retained_cursor_next(cursor, 1, 0, &message), RETAINED_MESSAGE);
    assert_int_equal(message->sequence, 1);
    assert_int_equal(retained_cursor_next(cursor, 1, 0, &message), RETAINED_END);
    retained_cursor_close(cursor);
    clear(retained, "a/b/c/d");
    clear(retained, "a/b/e");
    clear(retained, "z");
    retained_check(retained);
    assert_int_equal(retained_count(retained), 0);
    retained_destroy(retained);
}

/*
 * The model: topics by number, the sequence of what is retained there, and for one cursor what must
 * or may not be visited.
 */
enum { TOPICS = 400, CURSORS = 5 };
struct model {
    char topics[TOPICS][RANDOM_TOPIC_BYTES];
    uint64_t sequences[TOPICS]; /* 0 = nothing retained */
    uint64_t expires_at_ms[TOPICS];
    uint64_t sequence;
    uint64_t now_ms;
};
struct watch {
    struct retained_cursor *cursor;
    char filter[RANDOM_TOPIC_BYTES];
    bool stayed[TOPICS]; /* something was retained there, without a gap, since the cursor was opened
                          */
    bool seen[TOPICS];
};

static void model_init(struct model *model, uint64_t *random)
{
    memset(model, 0, sizeof *model);
    for (size_t i = 0; i < TOPICS; i++) {
        bool distinct = false;
        while (!distinct) {
            random_topic(random, false, model->topics[i]);
            distinct = true;
            for (size_t j = 0; j < i; j++) {
                distinct = distinct && strcmp(model->topics[i], model->topics[j]) != 0;
            }
        }
    }
}

static void model_watch(const struct model *model, struct watch *watch, struct retained *retained,
                        uint64_t *random)
{
    random_topic(random, true, watch->filter);
    if (random_below(random, 3) == 0) {
        (void)snprintf(watch->filter, sizeof watch->filter, "%s",
                       random_below(random, 2) == 0 ? "#" : "+/#");
    }
    watch->cursor = open_cursor(retained, watch->filter);
    for (size_t i = 0; i < TOPICS; i++) {
        watch->stayed[i] = model->sequences[i] != 0;
        watch->seen[i] = false;
    }
}

static void model_forget(struct model *model, struct watch *watches, size_t topic)
{
    model->sequences[topic] = 0;
    for (size_t i = 0; i < CURSORS; i++) {
        watches[i].stayed[topic] = false;
    }
}

static void model_expire(struct model *model, struct watch *watches)
{
    for (size_t i = 0; i < TOPICS; i++) {
        if (model->sequences[i] != 0 && model->expires_at_ms[i] <= model->now_ms) {
            model_forget(model, watches, i);
        }
    }
}

static void model_mutate(struct model *model, struct watch *watches, struct retained *retained,
                         uint64_t *random)
{
    size_t topic = random_below(random, TOPICS);
    if (random_below(random, 100) < 45) {
        clear(retained, model->topics[topic]);
        model_forget(model, watches, topic);
        return;
    }
    struct message *message = make(model->topics[topic], "x", ++model->sequence);
    if (random_below(random, 10) == 0) {
        message->expires_at_ms = model->now_ms + 1 + random_below(random, 100);
    }
    model->sequences[topic] = message->sequence;
    model->expires_at_ms[topic] = message->expires_at_ms;
    assert_int_equal(retained_set(retained, message), STATUS_OK);
    message_release(message);
}

static void model_visit(const struct model *model, struct watch *watch,
                        const struct message *message)
{
    size_t i = 0;
    while (i < TOPICS && !bytes_equal_string(message_topic(message), model->topics[i])) {
        i++;
    }
    assert_true(i < TOPICS);
    assert_true(reference_match(watch->filter, model->topics[i]));
    assert_int_equal(message->sequence, model->sequences[i]);
    assert_false(watch->seen[i]);
    watch->seen[i] = true;
}

static void model_step_cursor(const struct model *model, struct watch *watch,
                              struct retained *retained, uint64_t *random)
{
    struct message *message = NULL;
    size_t budget = random_below(random, 4);
    switch (retained_cursor_next(watch->cursor, budget, model->now_ms, &message)) {
    case RETAINED_MESSAGE:
        model_visit(model, watch, message);
        break;
    case RETAINED_AGAIN:
        break;
    case RETAINED_END:
        for (size_t i = 0; i < TOPICS; i++) {
            if (watch->stayed[i] && reference_match(watch->filter, model->topics[i])) {
                assert_true(watch->seen[i]);
            }
        }
        retained_cursor_close(watch->cursor);
        model_watch(model, watch, retained, random);
        break;
    }
}

static void cursors_agree_with_the_model_while_the_store_changes(void **state)
{
    (void)state;
    static struct model model;
    static struct watch watches[CURSORS];
    for (uint64_t seed = 1; seed <= 5; seed++) {
        uint64_t random = seed;
        struct retained *retained = create(SIZE_MAX);
        model_init(&model, &random);
        for (size_t i = 0; i < CURSORS; i++) {
            model_watch(&model, &watches[i], retained, &random);
        }
        for (unsigned step = 0; step < 20000; step++) {
            unsigned choice = random_below(&random, 100);
            if (choice < 50) {
                model_step_cursor(&model, &watches[choice % CURSORS], retained, &random);
            } else if (choice < 55) {
                model.now_ms += random_below(&random, 20);
                model_expire(&model, watches);
            } else if (choice < 58) {
                (void)retained_sweep(retained, random_below(&random, 5), model.now_ms);
            } else if (choice < 60) {
                retained_cursor_close(watches[choice % CURSORS].cursor);
                model_watch(&model, &watches[choice % CURSORS], retained, &random);
            } else {
                model_mutate(&model, watches, retained, &random);
            }
            if (step % 500 == 0) {
                retained_check(retained);
            }
        }
        for (size_t i = 0; i < CURSORS; i++) {
            retained_cursor_close(watches[i].cursor);
        }
        for (size_t i = 0; i < TOPICS; i++) {
            const struct message *message =
                retained_get(retained, text(model.topics[i]), model.now_ms);
            assert_int_equal(message == NULL ? 0 : message->sequence, model.sequences[i]);
            clear(retained, model.topics[i]);
        }
        retained_check(retained);
        assert_int_equal(retained_count(retained), 0);
        retained_destroy(retained);
    }
}

static void failures_leave_the_store_unchanged(void **state)
{
    (void)state;
    struct retained *retained = NULL;
    struct retained_cursor *cursor = NULL;
    for (uint64_t n = 1; n <= 3; n++) {
        mem_fail_at(n);
        assert_int_equal(retained_create(&test_seed, 10, NULL, NULL, &retained), STATUS_NO_MEMORY);
        assert_null(retained);
    }
    mem_fail_at(0);
    retained = create(4);
    set(retained, "a/b", 1);
    struct message *message = make("a/c/d", "x", 2);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n);
        assert_int_equal(retained_set(retained, message), STATUS_NO_MEMORY);
        retained_check(retained);
        assert_int_equal(message->shared.references, 1);
        assert_int_equal(retained_count(retained), 1);
    }
    mem_fail_at(1);
    assert_int_equal(retained_cursor_open(retained, text("#"), &cursor), STATUS_NO_MEMORY);
    assert_null(cursor);
    mem_fail_at(0);
    char deep[TOPIC_LEVELS_MAX];
    memset(deep, '/', sizeof deep);
    assert_int_equal(retained_cursor_open(retained, bytes_of(deep, sizeof deep), &cursor),
                     STATUS_LIMIT);
    assert_null(cursor);
    message_release(message);
    message = make("x/y/z", "x", 3);
    assert_int_equal(retained_set(retained, message), STATUS_LIMIT);
    assert_int_equal(message->shared.references, 1);
    message_release(message);
    retained_check(retained);
    assert_int_equal(walk(retained, "#", 0), 1);
    retained_destroy(retained);
}

static void a_filter_of_the_greatest_depth_is_walked(void **state)
{
    (void)state;
    struct retained *retained = create(1000);
    char topic[2 * TOPIC_LEVELS_MAX];
    char filter[2 * TOPIC_LEVELS_MAX];
    for (size_t i = 0; i < TOPIC_LEVELS_MAX; i++) {
        memcpy(topic + 2 * i, "a/", 2);
        memcpy(filter + 2 * i, "+/", 2);
    }
    topic[sizeof topic - 1] = '\0';
    filter[sizeof filter - 1] = '\0';
    set(retained, topic, 1);
    assert_int_equal(walk(retained, filter, 0), 1);
    assert_int_equal(walk(retained, topic, 0), 1);
    filter[sizeof filter - 2] = '#';
    assert_int_equal(walk(retained, filter, 0), 1);
    retained_destroy(retained);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_the_last_message_of_a_topic),
        cmocka_unit_test(an_empty_payload_clears),
        cmocka_unit_test(holds_one_reference_to_each_message),
        cmocka_unit_test(filters_choose_what_a_cursor_visits),
        cmocka_unit_test(a_filter_without_wildcards_takes_one_step),
        cmocka_unit_test(a_step_keeps_to_its_budget),
        cmocka_unit_test(expired_messages_are_neither_got_nor_visited),
        cmocka_unit_test(a_sweep_removes_what_expired),
        cmocka_unit_test(a_cursor_survives_the_loss_of_its_place),
        cmocka_unit_test(cursors_agree_with_the_model_while_the_store_changes),
        cmocka_unit_test(failures_leave_the_store_unchanged),
        cmocka_unit_test(a_filter_of_the_greatest_depth_is_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
