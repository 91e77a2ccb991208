/*
 * store_model: what a store should hold, in the plainest form, and a source of random changes that
 * go to the store and to the model alike. What a model holds can be written down as text, and so
 * can what a store loads: equal texts, equal contents.
 */
#ifndef TESTS_STORE_MODEL_H
#define TESTS_STORE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store.h"

enum {
    MODEL_MESSAGES = 512,
    MODEL_RECIPIENTS = 16,
    MODEL_SESSIONS = 12,
    MODEL_SUBSCRIPTIONS = 64,
    MODEL_IDENTIFIERS = 4,
    MODEL_TEXT = 24,
};

struct model_recipient {
    struct store_recipient value;
    uint32_t identifiers[MODEL_IDENTIFIERS];
};

struct model_message {
    uint64_t arrival, expires_unix_ms, publisher;
    uint8_t qos;
    bool retain;
    char topic[MODEL_TEXT];
    size_t properties_len, payload_len;
    struct model_recipient recipients[MODEL_RECIPIENTS];
    size_t count;
};

struct model_session {
    struct store_session value;
    char client_id[MODEL_TEXT];
    struct store_will will;
    char topic[MODEL_TEXT];
    uint8_t body[64]; /* properties, then payload */
};

struct model_subscription {
    struct store_subscription value;
    char filter[MODEL_TEXT];
};

struct model {
    struct model_message messages[MODEL_MESSAGES];
    size_t message_count;
    struct model_session sessions[MODEL_SESSIONS];
    size_t session_count;
    struct model_subscription subscriptions[MODEL_SUBSCRIPTIONS];
    size_t subscription_count;
    uint64_t next_arrival, next_session;
    uint64_t random;
    size_t body_max; /* of random messages */
};

void model_init(struct model *model, uint64_t seed);

/* A number below `limit`. */
uint64_t model_random(struct model *model, uint64_t limit);

/* One random change. */
void model_step(struct model *model, struct store *store);

/* The message that the model knows as `arrival`, with its body, as it was given to the store. */
struct message *model_message_create(const struct model_message *message);

struct model_message *model_find(struct model *model, uint64_t arrival);

/* The contents as text; free() it. Sorted, so that the order of changes does not show. */
char *model_text(struct model *model);

/* Loads `store` and returns its contents as text; free() it. Asserts the order of the load and
 * that bodies are there when they should be. */
char *model_load_text(struct store *store);

/* Asserts that the store loads what the model holds. */
void model_assert_loads(struct model *model, struct store *store);

#endif
