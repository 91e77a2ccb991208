/*
 * http_json: the JSON that comes and goes over HTTP. Only http_json.c knows the JSON library.
 *
 * A message is an object:
 *   topic            text, required
 *   payload          text, which is sent as it stands, or any other value, which is sent as JSON
 *   payload_base64   bytes, instead of payload
 *   qos              0, 1 or 2; default 0
 *   retain           true or false; default false
 *   expiry           seconds
 *   idempotency_key  text of 1 to 255 bytes
 *   properties       content_type, response_topic (text), correlation_data (base64),
 *                    user (an object of texts, or of arrays of texts)
 * and a batch is an array of such objects, or an object with that array as `messages`. A member
 * that is not listed is a mistake: a misspelt one must not be passed over.
 */
#ifndef BROKER_HTTP_JSON_H
#define BROKER_HTTP_JSON_H

#include "bytes.h"
#include "message.h"
#include "mqtt.h"

enum {
    HTTP_BATCH_MAX = 1000,  /* messages in one request */
    HTTP_KEY_MAX = 255,     /* bytes of an idempotency key */
    HTTP_PROBLEM_MAX = 160, /* bytes of a problem's text */
    HTTP_USER_PROPERTIES_MAX = 100,
};

/* What a message is made of; borrowed. */
struct http_message {
    struct bytes topic; /* a valid topic name */
    struct bytes payload;
    struct bytes content_type;     /* empty: none */
    struct bytes response_topic;   /* empty: none */
    struct bytes correlation_data; /* empty: none */
    struct bytes idempotency_key;  /* empty: none */
    const void *user_properties;   /* of http_json.c */
    uint32_t expiry_s;
    bool has_expiry;
    bool payload_is_utf8;
    bool retain;
    uint8_t qos;
};

struct http_batch;

/* Once, before everything else: where memory comes from, and a seed for hash tables. */
void http_json_init(uint32_t seed);

/*
 * Reads a request. On STATUS_OK the caller ends *out with http_batch_destroy.
 * Errors: STATUS_INVALID (`problem` says what is wrong, and in which message), STATUS_NO_MEMORY.
 */
MUST_USE enum status http_batch_parse(struct bytes text, struct http_batch **out,
                                      char problem[HTTP_PROBLEM_MAX]);
void http_batch_destroy(struct http_batch *batch); /* NULL is allowed */

size_t http_batch_count(const struct http_batch *batch);
bool http_batch_is_single(const struct http_batch *batch); /* one message, and no array around it */

/* Borrowed from the batch. */
const struct http_message *http_batch_at(const struct http_batch *batch, size_t index);

/* A message of it. Errors: STATUS_NO_MEMORY, STATUS_LIMIT (properties of more than 65,535 bytes).
 */
MUST_USE enum status http_message_create(const struct http_message *from, uint64_t now_ms,
                                         struct message **out);

/* What became of one message. */
struct http_result {
    struct bytes topic;
    const char *error; /* NULL: it was published; else a word for programs */
    const char *words; /* for people; with error */
    uint32_t matched;
    uint32_t acknowledged;
    bool waited;       /* acknowledged counts */
    bool is_duplicate; /* of a message with the same idempotency key, whose result this is */
};

/* The answer to a request as text, to be freed with mem_free; NULL: no memory. */
MUST_USE char *http_results_text(const struct http_result *results, size_t count, bool is_single);

/* The data of an event: topic, payload or payload_base64, content_type, qos, retain; to be freed
 * with mem_free. NULL: no memory. */
MUST_USE char *http_event_text(const struct message *message, bool retain);

/* {"error": ..., "message": ...}, to be freed with mem_free; NULL: no memory. */
MUST_USE char *http_error_text(const char *error, const char *words);

#endif
