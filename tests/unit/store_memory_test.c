/* store/memory_store, and through it what a batch makes of its changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "memory_store.h"
#include "store_model.h"

struct seen {
    uint64_t committed;
    unsigned committed_calls;
    uint64_t session;
    struct store_fetched items[STORE_FETCH_MAX];
    size_t count;
    const char *failed;
};

static void on_committed(void *ctx, uint64_t ticket)
{
    struct seen *seen = ctx;
    assert_true(ticket > seen->committed);
    seen->committed = ticket;
    seen->committed_calls++;
}

static void on_fetched(void *ctx, uint64_t session, const struct store_fetched *items, size_t count)
{
    struct seen *seen = ctx;
    seen->session = session;
    seen->count = count;
    memcpy(seen->items, items, count * sizeof *items);
}

static void on_failed(void *ctx, const char *why)
{
    struct seen *seen = ctx;
    assert_null(seen->failed);
    seen->failed = why;
}

static void begin(struct store *store, struct seen *seen)
{
    const struct store_events events = {seen, on_committed, on_fetched, on_failed};
    *seen = (struct seen){.committed = 0};
    store_set_events(store, &events);
}

static struct store *create(struct seen *seen)
{
    struct store *store = NULL;
    assert_int_equal(memory_store_create(&store), STATUS_OK);
    begin(store, seen);
    return store;
}

static void append(struct store *store, uint64_t arrival, uint64_t session)
{
    const struct model_message m = {.arrival = arrival, .topic = "a", .payload_len = 10, .qos = 1};
    struct message *message = model_message_create(&m);
    const struct store_recipient recipient = {.session = session, .qos = 1};
    store_append(store, message, STORE_TIME_NEVER, &recipient, 1);
    message_release(message);
}

static void commits_what_was_flushed_and_nothing_else(void **state)
{
    (void)state;
    struct seen seen;
    struct store *store = create(&seen);
    assert_int_equal(store_ticket(store), 1);
    assert_false(memory_store_commit(store));
    store_flush(store); /* nothing to hand on */
    assert_false(memory_store_commit(store));
    append(store, 1, 7);
    assert_int_equal(store_ticket(store), 1);
    assert_false(memory_store_commit(store)); /* not flushed */
    store_flush(store);
    assert_int_equal(store_ticket(store), 2);
    append(store, 2, 7);
    store_flush(store); /* waits for the first */
    append(store, 3, 7);
    assert_int_equal(store_ticket(store), 2);
    assert_true(memory_store_commit(store));
    assert_int_equal(seen.committed, 1);
    assert_int_equal(memory_store_count(store).messages, 1);
    assert_true(memory_store_commit(store));
    assert_int_equal(seen.committed, 2);
    assert_int_equal(memory_store_count(store).messages, 3);
    assert_false(memory_store_commit(store));
    store_destroy(store);
}

static void crash_forgets_what_is_not_committed(void **state)
{
    (void)state;
    struct seen seen;
    struct store *store = create(&seen);
    append(store, 1, 7);
    memory_store_commit_all(store);
    append(store, 2, 7);
    store_flush(store);
    append(store, 3, 7);
    store_finish(store, 1, STORE_QUEUED, 7);
    memory_store_crash(store);
    begin(store, &seen);
    assert_int_equal(store_ticket(store), 1);
    memory_store_commit_all(store);
    assert_int_equal(seen.committed_calls, 0);
    char *text = model_load_text(store);
    assert_string_equal(text, "message 1 expires ffffffffffffffff by 0 qos 1 retain 0 a 0 10 [0 7 "
                              "group 0 id 0 0 qos 1 0]\n");
    free(text);
    store_destroy(store);
}

/* A full store keeps the batch; a failed one commits nothing more. */
static void faults(void **state)
{
    (void)state;
    struct seen seen;
    struct store *store = create(&seen);
    append(store, 1, 7);
    memory_store_set_full(store, true);
    assert_true(store_is_full(store));
    memory_store_commit_all(store);
    assert_int_equal(seen.committed_calls, 0);
    memory_store_set_full(store, false);
    assert_false(store_is_full(store));
    memory_store_commit_all(store);
    assert_int_equal(seen.committed, 1);
    append(store, 2, 7);
    memory_store_fail(store, "the disk is on fire");
    memory_store_fail(store, "again");
    assert_string_equal(seen.failed, "the disk is on fire");
    memory_store_commit_all(store);
    assert_int_equal(seen.committed, 1);
    assert_int_equal(memory_store_count(store).messages, 1);
    store_destroy(store);
}

static void answers_fetches(void **state)
{
    (void)state;
    struct seen seen;
    struct store *store = create(&seen);
    struct model_message m = {.arrival = 5,
                              .topic = "a/b",
                              .properties_len = 4,
                              .payload_len = 9,
                              .qos = 2,
                              .retain = true,
                              .publisher = 3};
    struct message *message = model_message_create(&m);
    const uint32_t identifiers[] = {8, 9};
    const struct store_recipient recipients[] = {
        {.session = 7, .role = STORE_SENDER, .packet_id = 1},
        {.session = 7, .qos = 2, .identifier_count = 2, .identifiers = identifiers},
    };
    store_append(store, message, 1234, recipients, 2);
    append(store, 6, 7);
    append(store, 8, 9);
    memory_store_commit_all(store);
    assert_true(memory_store_damage(store, 6));
    assert_false(memory_store_damage(store, 99));
    const uint64_t wanted[] = {5, 6, 7, 8};
    store_fetch(store, 7, wanted, 4);
    store_fetch(store, 9, &wanted[3], 1);
    assert_int_equal(seen.count, 0);
    assert_true(memory_store_answer(store));
    assert_int_equal(seen.count, 4);
    assert_int_equal(seen.session, 7);
    const struct store_fetched *got = &seen.items[0];
    assert_true(got->arrival == 5 && got->message != message);
    assert_true(bytes_equal(message_payload(got->message), message_payload(message)));
    assert_true(bytes_equal(message_properties(got->message), message_properties(message)));
    assert_true(bytes_equal_string(message_topic(got->message), "a/b"));
    assert_true(got->message->sequence == 5 && got->message->publisher_id == 3 &&
                got->message->qos == 2 && got->message->retain &&
                got->message->expires_at_ms == 1234);
    assert_true(got->recipient.qos == 2 && got->recipient.identifier_count == 2 &&
                got->recipient.identifiers[1] == 9);
    message_release(got->message);
    assert_null(seen.items[1].message); /* damaged */
    assert_null(seen.items[2].message); /* not there */
    assert_null(seen.items[3].message); /* another session's */
    assert_true(memory_store_answer(store));
    assert_true(seen.count == 1 && seen.items[0].message != NULL);
    message_release(seen.items[0].message);
    assert_false(memory_store_answer(store));
    message_release(message);
    store_fetch(store, 7, wanted, 1); /* is forgotten */
    store_destroy(store);
}

static void change_at_random(struct model *model, struct store *store)
{
    for (uint64_t left = 1 + model_random(model, 60); left != 0; left--) {
        model_step(model, store);
        if (model_random(model, 10) == 0) {
            store_flush(store);
        }
    }
}

/* Random changes in batches of random sizes: what is loaded is what the model holds. */
static void holds_what_the_model_holds(void **state)
{
    (void)state;
    static struct model model;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct seen seen;
        struct store *store = create(&seen);
        model_init(&model, seed);
        for (unsigned round = 0; round < 100; round++) {
            change_at_random(&model, store);
            if (model_random(&model, 3) != 0) {
                memory_store_commit_all(store);
                model_assert_loads(&model, store);
            }
        }
        store_destroy(store);
    }
}

/* Every allocation fails once: the store reports it and stops, or it did not matter. */
static void survives_a_lack_of_memory(void **state)
{
    (void)state;
    static struct model model;
    for (uint64_t n = 1; n < 400; n++) {
        struct seen seen;
        struct store *store = create(&seen);
        model_init(&model, 3);
        /* The model's own messages are not to fail: they are made before. */
        struct message *messages[20];
        for (uint64_t i = 0; i < 20; i++) {
            const struct model_message m = {.arrival = i + 1, .topic = "a", .payload_len = 10};
            messages[i] = model_message_create(&m);
        }
        mem_fail_at(n);
        for (uint64_t i = 0; i < 20; i++) {
            const uint32_t identifier = 4;
            const struct store_recipient r = {
                .session = 1, .identifier_count = 1, .identifiers = &identifier};
            const struct store_session session = {.number = i + 1,
                                                  .client_id = bytes_of_string("c")};
            const struct store_subscription sub = {.session = i + 1,
                                                   .filter = bytes_of_string("f")};
            store_append(store, messages[i], STORE_TIME_NEVER, &r, 1);
            store_put_session(store, &session);
            store_put_subscription(store, &sub);
            if (i % 5 == 4) {
                memory_store_commit_all(store);
            }
        }
        mem_fail_at(0);
        if (seen.failed == NULL) {
            assert_int_equal(memory_store_count(store).messages, 20);
            assert_int_equal(memory_store_count(store).subscriptions, 20);
        } else {
            assert_true(seen.committed_calls < 4);
        }
        store_destroy(store);
        for (unsigned i = 0; i < 20; i++) {
            assert_int_equal(messages[i]->shared.references, 1);
            message_release(messages[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commits_what_was_flushed_and_nothing_else),
        cmocka_unit_test(crash_forgets_what_is_not_committed),
        cmocka_unit_test(faults),
        cmocka_unit_test(answers_fetches),
        cmocka_unit_test(holds_what_the_model_holds),
        cmocka_unit_test(survives_a_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
