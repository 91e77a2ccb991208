/* What can be asked for: health, publishing, and the retained message of a topic. */
#include <stdio.h>

#include "http_client_state.h"

#include "mem.h"
#include "topic.h"

static const char api_prefix[] = "/api/v1/";
static const char topics_prefix[] = "/api/v1/topics/";

enum { TOPIC_BYTES_MAX = 65535, WORDS_MAX = 192 };

bool http_client_serves(struct bytes target)
{
    static const char *const paths[] = {"/healthz", "/readyz"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct bytes path = bytes_of_string(paths[i]);
        if (bytes_start_with(target, path) &&
            (target.len == path.len || target.data[path.len] == '?')) {
            return true;
        }
    }
    return bytes_start_with(target, bytes_of_string(api_prefix));
}

/* Open paths */

static void answer_text(struct http_client *client, uint64_t now_ms, unsigned status,
                        const char *text)
{
    http_answer_json(client, now_ms, status, mem_copy_string(bytes_of_string(text)));
}

bool http_route_open(struct http_client *client, uint64_t now_ms)
{
    const struct http_request *request = &client->request;
    bool is_health = bytes_equal_string(request->path, "/healthz");
    if (is_health || bytes_equal_string(request->path, "/readyz")) {
        if (request->method != METHOD_GET && request->method != METHOD_HEAD) {
            http_answer_method(client, now_ms, "GET, HEAD, OPTIONS");
        } else if (is_health || !client->clients->stopping) {
            answer_text(client, now_ms, 200, "{\"status\":\"ok\"}");
        } else {
            answer_text(client, now_ms, 503, "{\"status\":\"stopping\"}");
        }
        return true;
    }
    if (!http_client_serves(request->path)) {
        http_answer_error(client, now_ms, 404, "not_found", "there is nothing at this path");
        return true;
    }
    if (request->method == METHOD_OPTIONS) {
        /* A browser asks without a login whether it may send one. */
        http_answer_method(client, now_ms, "GET, HEAD, POST, OPTIONS");
        return true;
    }
    return false;
}

/* Parameters of the query */

struct parameters {
    uint32_t qos;
    uint32_t expiry_s;
    uint32_t timeout_ms;
    bool retain;
    bool has_expiry;
    bool wait;
};

static bool parse_number(struct bytes text, uint32_t max, uint32_t *out)
{
    uint64_t number = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || number > max) {
            return false;
        }
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = (uint32_t)number;
    return text.len != 0 && number <= max;
}

static bool parse_flag(struct bytes text, bool *out)
{
    *out = bytes_equal_string(text, "true") || bytes_equal_string(text, "1");
    return *out || bytes_equal_string(text, "false") || bytes_equal_string(text, "0");
}

/* What is wrong with a parameter, or NULL. */
static const char *take_parameter(struct parameters *out, bool of_message, struct bytes name,
                                  struct bytes value)
{
    uint32_t seconds = 0;
    if (bytes_equal_string(name, "wait")) {
        out->wait = true;
        return bytes_equal_string(value, "acked") ? NULL : "\"wait\" must be acked";
    }
    if (bytes_equal_string(name, "timeout")) {
        bool good = parse_number(value, HTTP_WAIT_MAX_MS / 1000, &seconds);
        out->timeout_ms = seconds * 1000;
        return good ? NULL : "\"timeout\" must be a number of seconds from 0 to 60";
    }
    if (of_message && bytes_equal_string(name, "qos")) {
        return parse_number(value, 2, &out->qos) ? NULL : "\"qos\" must be 0, 1 or 2";
    }
    if (of_message && bytes_equal_string(name, "retain")) {
        return parse_flag(value, &out->retain) ? NULL : "\"retain\" must be true or false";
    }
    if (of_message && bytes_equal_string(name, "expiry")) {
        out->has_expiry = true;
        return parse_number(value, UINT32_MAX, &out->expiry_s)
                   ? NULL
                   : "\"expiry\" must be a number of seconds";
    }
    return "the query has a parameter that is not known";
}

/* False: it was answered. */
static bool read_parameters(struct http_client *client, uint64_t now_ms, bool of_message,
                            struct parameters *out)
{
    struct bytes query = client->request.query;
    struct bytes name;
    struct bytes value;
    *out = (struct parameters){.timeout_ms = HTTP_WAIT_MS};
    while (http_query_next(&query, &name, &value)) {
        const char *problem = take_parameter(out, of_message, name, value);
        if (problem != NULL) {
            http_answer_error(client, now_ms, 400, "bad_parameter", problem);
            return false;
        }
    }
    return true;
}

/* Publishing */

struct refusal {
    enum mqtt_reason reason;
    unsigned status;
    const char *error;
    const char *words;
};

static const struct refusal *refusal_of(enum mqtt_reason reason)
{
    static const struct refusal table[] = {
        {MQTT_NOT_AUTHORIZED, 403, "not_allowed", "this user may not publish to this topic"},
        {MQTT_QOS_NOT_SUPPORTED, 400, "qos_not_supported", "max_qos is lower"},
        {MQTT_RETAIN_NOT_SUPPORTED, 400, "retain_not_available", "retain_available is false"},
        {MQTT_PACKET_TOO_LARGE, 413, "payload_too_large",
         "the payload is larger than message_size_limit"},
        {MQTT_TOPIC_NAME_INVALID, 400, "bad_topic", "the topic has more levels than are accepted"},
        {MQTT_MALFORMED_PACKET, 400, "properties_too_large",
         "the properties have more than 65535 bytes"},
        {MQTT_SERVER_BUSY, 503, "busy", "out of memory"},
        {MQTT_QUOTA_EXCEEDED, 507, "no_room", "there is no room for it"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].reason == reason) {
            return &table[i];
        }
    }
    return &table[sizeof table / sizeof *table - 1];
}

static enum mqtt_reason judge(const struct http_client *client, const struct http_message *message)
{
    const struct mqtt_settings *settings = client->settings;
    if (!access_may_publish(message->topic) || !access_may_write(client->rights, message->topic)) {
        return MQTT_NOT_AUTHORIZED;
    }
    if (message->qos > settings->qos_max) {
        return MQTT_QOS_NOT_SUPPORTED;
    }
    if (message->retain && !settings->retain_available) {
        return MQTT_RETAIN_NOT_SUPPORTED;
    }
    return message->payload.len > settings->payload_bytes_max ? MQTT_PACKET_TOO_LARGE
                                                              : MQTT_SUCCESS;
}

static void on_watched(struct core_watch *watch)
{
    const struct http_publication *publication = (struct http_publication *)(void *)watch;
    if (watch->acknowledged == watch->matched) {
        publication->client->clients->host.wake(publication->client->link);
    }
}

static void wait_for_ticket(struct http_client *client, uint64_t ticket)
{
    struct http_clients *clients = client->clients;
    clients->ticketed = ticket > clients->ticketed ? ticket : clients->ticketed;
    client->wait.ticket = ticket > client->wait.ticket ? ticket : client->wait.ticket;
}

static enum mqtt_reason publish_new(struct http_client *client, uint64_t now_ms,
                                    const struct http_message *from, bool wait,
                                    struct http_publication *out)
{
    struct core *core = client->clients->core;
    struct message *message = NULL;
    enum status status = http_message_create(from, now_ms, &message);
    if (status != STATUS_OK) {
        return status == STATUS_LIMIT ? MQTT_MALFORMED_PACKET : MQTT_SERVER_BUSY;
    }
    enum mqtt_reason reason = core_publish(core, now_ms, NULL, message);
    if (reason < MQTT_UNSPECIFIED_ERROR) {
        out->result.matched = core_matched(core);
        wait_for_ticket(client, core_ticket(core));
        if (wait) {
            core_watch_begin(core, &out->watch, message, on_watched);
            out->is_watched = true;
        }
    }
    message_release(message);
    return reason;
}

unsigned http_publish_one(struct http_client *client, uint64_t now_ms,
                          const struct http_message *from, bool wait, struct http_publication *out)
{
    struct http_keys *keys = client->clients->keys;
    struct bytes user = http_client_user_name(client);
    out->client = client;
    out->result = (struct http_result){.topic = from->topic};
    enum mqtt_reason reason = judge(client, from);
    if (reason == MQTT_SUCCESS && from->idempotency_key.len != 0 &&
        http_keys_find(keys, now_ms, user, from->idempotency_key, &out->result.matched)) {
        out->result.is_duplicate = true;
        wait_for_ticket(client, client->clients->ticketed); /* the first may not be durable yet */
        return 200;
    }
    if (reason == MQTT_SUCCESS) {
        reason = publish_new(client, now_ms, from, wait, out);
    }
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        const struct refusal *refusal = refusal_of(reason);
        out->result.error = refusal->error;
        out->result.words = refusal->words;
        return refusal->status;
    }
    if (from->idempotency_key.len != 0) {
        http_keys_add(keys, now_ms, user, from->idempotency_key, out->result.matched);
    }
    return 200;
}

void http_end_wait(struct http_client *client)
{
    struct http_wait *wait = &client->wait;
    for (size_t i = 0; i < wait->count; i++) {
        if (wait->publications[i].is_watched) {
            core_watch_end(client->clients->core, &wait->publications[i].watch);
        }
    }
    mem_free(wait->publications);
    http_batch_destroy(wait->batch);
    *wait = (struct http_wait){.batch = NULL};
}

/* Answers with the results; a single one that was refused has the status of its refusal. */
static void answer_results(struct http_client *client, uint64_t now_ms, unsigned status)
{
    struct http_wait *wait = &client->wait;
    struct http_result *results = mem_alloc(wait->count * sizeof *results);
    char *text = NULL;
    for (size_t i = 0; results != NULL && i < wait->count; i++) {
        struct http_publication *publication = &wait->publications[i];
        results[i] = publication->result;
        results[i].waited = publication->is_watched;
        results[i].acknowledged = publication->watch.acknowledged;
    }
    if (results != NULL) {
        text = http_results_text(results, wait->count, wait->is_single);
    }
    mem_free(results);
    http_end_wait(client);
    http_answer_json(client, now_ms, status, text);
}

/* What was published is not durable yet. A time-out does not change that. */
static bool is_uncommitted(const struct http_client *client)
{
    return client->wait.ticket > client->clients->committed;
}

void http_settle_wait(struct http_client *client, uint64_t now_ms, bool late)
{
    struct http_wait *wait = &client->wait;
    wait->is_late |= late;
    if (is_uncommitted(client)) {
        return;
    }
    for (size_t i = 0; !wait->is_late && i < wait->count; i++) {
        const struct core_watch *watch = &wait->publications[i].watch;
        if (wait->publications[i].is_watched && watch->acknowledged < watch->matched) {
            return;
        }
    }
    timer_cancel(&client->clients->wheel, &client->timer);
    answer_results(client, now_ms, wait->status);
}

/* Publishes what client->wait has room for, then answers at once or waits. */
static void publish_all(struct http_client *client, uint64_t now_ms,
                        const struct http_message *single, const struct parameters *parameters)
{
    struct http_wait *wait = &client->wait;
    unsigned status = 200;
    bool is_waited_for = false;
    for (size_t i = 0; i < wait->count; i++) {
        const struct http_message *from = single != NULL ? single : http_batch_at(wait->batch, i);
        unsigned of_this =
            http_publish_one(client, now_ms, from, parameters->wait, &wait->publications[i]);
        status = wait->is_single ? of_this : 200;
        is_waited_for |= wait->publications[i].is_watched;
    }
    if (!is_waited_for && !is_uncommitted(client)) {
        answer_results(client, now_ms, status);
        return;
    }
    client->state = HTTP_WAITING;
    wait->status = status;
    timer_arm(&client->clients->wheel, &client->timer, now_ms + parameters->timeout_ms);
    client->clients->host.wake(client->link); /* nobody may have matched */
}

static bool make_publications(struct http_client *client, size_t count, struct bytes topic)
{
    struct http_wait *wait = &client->wait;
    wait->publications = mem_zalloc(count * sizeof *wait->publications + topic.len);
    if (wait->publications == NULL) {
        return false;
    }
    wait->count = count;
    bytes_copy(wait->publications + count, topic);
    return true;
}

static void post_publish(struct http_client *client, uint64_t now_ms)
{
    struct parameters parameters;
    char problem[HTTP_PROBLEM_MAX] = "";
    if (client->request.method != METHOD_POST) {
        http_answer_method(client, now_ms, "POST, OPTIONS");
        return;
    }
    if (!read_parameters(client, now_ms, false, &parameters)) {
        return;
    }
    struct http_batch *batch = NULL;
    enum status status = http_batch_parse(client->request.body, &batch, problem);
    if (status == STATUS_INVALID) {
        http_answer_error(client, now_ms, 400, "bad_message", problem);
        return;
    }
    if (status != STATUS_OK || !make_publications(client, http_batch_count(batch), BYTES_EMPTY)) {
        http_batch_destroy(batch);
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    client->wait.batch = batch;
    client->wait.is_single = http_batch_is_single(batch);
    publish_all(client, now_ms, NULL, &parameters);
}

static void post_topic(struct http_client *client, uint64_t now_ms, struct bytes topic)
{
    struct parameters parameters;
    const struct http_request *request = &client->request;
    if (!read_parameters(client, now_ms, true, &parameters)) {
        return;
    }
    if (!http_field_is_clean(request->content_type) ||
        !http_field_is_clean(request->idempotency_key) ||
        request->idempotency_key.len > HTTP_KEY_MAX) {
        http_answer_error(client, now_ms, 400, "bad_field",
                          "Content-Type and Idempotency-Key are ASCII, the latter has at most 255 "
                          "characters");
        return;
    }
    if (!make_publications(client, 1, topic)) {
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    struct http_message message = {
        .topic = bytes_of(client->wait.publications + 1, topic.len),
        .payload = request->body,
        .content_type = request->content_type,
        .idempotency_key = request->idempotency_key,
        .expiry_s = parameters.expiry_s,
        .has_expiry = parameters.has_expiry,
        .retain = parameters.retain,
        .qos = (uint8_t)parameters.qos,
    };
    client->wait.is_single = true;
    publish_all(client, now_ms, &message, &parameters);
}

/* Topics */

/* The content type that a message came with, or one that fits its payload format. */
static void describe_payload(const struct message *message, struct http_response *response)
{
    struct mqtt_properties properties;
    struct mqtt_property property;
    response->content_type = "application/octet-stream";
    mqtt_properties_open_raw(&properties, message_properties(message), MQTT_PLACE_PUBLISH);
    while (mqtt_properties_next(&properties, &property)) {
        enum { TYPE_BYTES_MAX = 256 };
        if (property.id == MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR && property.number == 1) {
            response->content_type = "text/plain; charset=utf-8";
        }
        if (property.id == MQTT_PROPERTY_CONTENT_TYPE && property.value.len <= TYPE_BYTES_MAX &&
            http_field_is_clean(property.value)) {
            response->content_type_bytes = property.value;
        }
    }
}

static void get_topic(struct http_client *client, uint64_t now_ms, struct bytes topic)
{
    struct http_response response = {.status = 200};
    if (!access_may_read(client->rights, topic)) {
        http_answer_error(client, now_ms, 403, "not_allowed", "this user may not read this topic");
        return;
    }
    struct message *message = core_retained(client->clients->core, now_ms, topic);
    if (message == NULL) {
        http_answer_error(client, now_ms, 404, "nothing_retained",
                          "there is no retained message of this topic");
        return;
    }
    describe_payload(message, &response);
    http_answer(client, now_ms, &response, message);
}

static void serve_topic(struct http_client *client, uint64_t now_ms)
{
    struct bytes encoded = bytes_from(client->request.path, sizeof topics_prefix - 1);
    if (client->request.method == METHOD_OTHER) {
        http_answer_method(client, now_ms, "GET, HEAD, POST, OPTIONS");
        return;
    }
    uint8_t *decoded = mem_alloc(encoded.len);
    if (decoded == NULL) {
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    struct writer writer = writer_of(decoded, encoded.len);
    struct bytes topic = BYTES_EMPTY;
    if (http_decode_percent(encoded, false, &writer)) {
        topic = writer_written(&writer);
    }
    if (!topic_name_is_valid(topic) || !utf8_is_valid_string(topic)) {
        http_answer_error(client, now_ms, 400, "bad_topic",
                          "the path does not name a topic without wildcards");
    } else if (client->request.method == METHOD_POST) {
        post_topic(client, now_ms, topic);
    } else {
        get_topic(client, now_ms, topic);
    }
    mem_free(decoded);
}

void http_route(struct http_client *client, uint64_t now_ms)
{
    struct bytes path = client->request.path;
    if (bytes_equal_string(path, "/api/v1/publish")) {
        post_publish(client, now_ms);
    } else if (bytes_equal_string(path, "/api/v1/subscribe")) {
        http_subscribe(client, now_ms);
    } else if (bytes_start_with(path, bytes_of_string(topics_prefix))) {
        serve_topic(client, now_ms);
    } else if (http_push_serves(path)) {
        http_answer_error(client, now_ms, 400, "no_websocket",
                          "this path is for WebSockets without a subprotocol");
    } else {
        http_answer_error(client, now_ms, 404, "not_found", "there is nothing at this path");
    }
}
