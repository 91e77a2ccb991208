#include "http_json.h"

#include <jansson.h>
#include <stdio.h>

#include "base64.h"
#include "mem.h"
#include "topic.h"

struct parsed {
    struct http_message message; /* first */
    uint8_t *payload;            /* owned; NULL when the message's is borrowed from the tree */
    uint8_t *correlation_data;   /* owned */
};

struct http_batch {
    json_t *root;
    size_t count;
    bool is_single;
    struct parsed messages[];
};

static void *alloc(size_t size)
{
    return mem_alloc(size);
}

void http_json_init(uint32_t seed)
{
    json_set_alloc_funcs(alloc, mem_free);
    json_object_seed(seed == 0 ? 1 : seed);
}

/* Collects what is wrong with a request: the first thing only. */
struct judge {
    char *problem;
    size_t index;
    bool is_single;
    enum status status;
};

static bool refuse(struct judge *judge, const char *what)
{
    judge->status = STATUS_INVALID;
    if (judge->is_single) {
        (void)snprintf(judge->problem, HTTP_PROBLEM_MAX, "%s", what);
    } else {
        (void)snprintf(judge->problem, HTTP_PROBLEM_MAX, "message %zu: %s", judge->index, what);
    }
    return false;
}

static bool lacks_memory(struct judge *judge)
{
    judge->status = STATUS_NO_MEMORY;
    return false;
}

static struct bytes text_of(const json_t *value)
{
    return bytes_of(json_string_value(value), json_string_length(value));
}

/* A text of at most 65,535 bytes, as MQTT's strings are. */
static bool take_text(struct judge *judge, const json_t *value, const char *what, struct bytes *out)
{
    if (!json_is_string(value) || json_string_length(value) > UINT16_MAX) {
        return refuse(judge, what);
    }
    *out = text_of(value);
    return true;
}

static bool take_base64(struct judge *judge, const json_t *value, const char *what, uint8_t **owned,
                        struct bytes *out)
{
    if (!json_is_string(value)) {
        return refuse(judge, what);
    }
    struct bytes text = text_of(value);
    size_t capacity = base64_decoded_max(text.len);
    mem_free(*owned);
    *owned = mem_alloc(capacity);
    if (*owned == NULL) {
        return lacks_memory(judge);
    }
    struct writer writer = writer_of(*owned, capacity);
    if (!base64_decode(text, &writer)) {
        return refuse(judge, what);
    }
    *out = writer_written(&writer);
    return true;
}

static bool take_payload(struct judge *judge, const json_t *value, struct parsed *out)
{
    out->message.payload_is_utf8 = true;
    if (json_is_string(value)) {
        out->message.payload = text_of(value);
        return true;
    }
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text == NULL) {
        return lacks_memory(judge);
    }
    out->payload = (uint8_t *)text;
    out->message.payload = bytes_of_string(text);
    if (out->message.content_type.len == 0) {
        out->message.content_type = bytes_of_string("application/json");
    }
    return true;
}

static bool check_user_property(struct judge *judge, const char *name, const json_t *value,
                                size_t *count)
{
    static const char what[] = "\"properties.user\" must be an object of texts or arrays of texts";
    size_t values = json_is_array(value) ? json_array_size(value) : 1;
    if (strlen(name) > UINT16_MAX) {
        return refuse(judge, what);
    }
    for (size_t i = 0; i < values; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(one) || json_string_length(one) > UINT16_MAX) {
            return refuse(judge, what);
        }
    }
    *count += values;
    return *count <= HTTP_USER_PROPERTIES_MAX ||
           refuse(judge, "there are more than 100 user properties");
}

static bool take_user_properties(struct judge *judge, json_t *value, struct parsed *out)
{
    const char *name;
    json_t *one;
    size_t count = 0;
    if (!json_is_object(value)) {
        return refuse(judge, "\"properties.user\" must be an object");
    }
    json_object_foreach(value, name, one)
    {
        if (!check_user_property(judge, name, one, &count)) {
            return false;
        }
    }
    out->message.user_properties = value;
    return true;
}

static bool take_property(struct judge *judge, const char *name, json_t *value, struct parsed *out)
{
    struct http_message *message = &out->message;
    if (strcmp(name, "content_type") == 0) {
        return take_text(judge, value, "\"properties.content_type\" must be a text",
                         &message->content_type);
    }
    if (strcmp(name, "response_topic") == 0) {
        static const char what[] =
            "\"properties.response_topic\" must be a topic without wildcards";
        return take_text(judge, value, what, &message->response_topic) &&
               (topic_name_is_valid(message->response_topic) || refuse(judge, what));
    }
    if (strcmp(name, "correlation_data") == 0) {
        static const char what[] = "\"properties.correlation_data\" must be base64";
        return take_base64(judge, value, what, &out->correlation_data,
                           &message->correlation_data) &&
               (message->correlation_data.len <= UINT16_MAX || refuse(judge, what));
    }
    if (strcmp(name, "user") == 0) {
        return take_user_properties(judge, value, out);
    }
    return refuse(judge, "\"properties\" has a member that is none of content_type, "
                         "response_topic, correlation_data and user");
}

static bool take_properties(struct judge *judge, json_t *value, struct parsed *out)
{
    const char *name;
    json_t *one;
    if (!json_is_object(value)) {
        return refuse(judge, "\"properties\" must be an object");
    }
    json_object_foreach(value, name, one)
    {
        if (!take_property(judge, name, one, out)) {
            return false;
        }
    }
    return true;
}

static bool take_integer(struct judge *judge, const json_t *value, json_int_t max, const char *what,
                         uint32_t *out)
{
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number > max) {
        return refuse(judge, what);
    }
    *out = (uint32_t)number;
    return true;
}

/* What needs no other member. */
static bool take_member(struct judge *judge, const char *name, json_t *value, struct parsed *out)
{
    struct http_message *message = &out->message;
    uint32_t number = 0;
    if (strcmp(name, "topic") == 0) {
        static const char what[] = "\"topic\" must be a topic without wildcards";
        return take_text(judge, value, what, &message->topic) &&
               (topic_name_is_valid(message->topic) || refuse(judge, what));
    }
    if (strcmp(name, "qos") == 0) {
        bool taken = take_integer(judge, value, 2, "\"qos\" must be 0, 1 or 2", &number);
        message->qos = (uint8_t)number;
        return taken;
    }
    if (strcmp(name, "retain") == 0) {
        message->retain = json_is_true(value);
        return json_is_boolean(value) || refuse(judge, "\"retain\" must be true or false");
    }
    if (strcmp(name, "expiry") == 0) {
        message->has_expiry = true;
        return take_integer(judge, value, UINT32_MAX, "\"expiry\" must be a number of seconds",
                            &message->expiry_s);
    }
    if (strcmp(name, "idempotency_key") == 0) {
        static const char what[] = "\"idempotency_key\" must be a text of 1 to 255 bytes";
        return take_text(judge, value, what, &message->idempotency_key) &&
               ((message->idempotency_key.len != 0 &&
                 message->idempotency_key.len <= HTTP_KEY_MAX) ||
                refuse(judge, what));
    }
    if (strcmp(name, "properties") == 0) {
        return take_properties(judge, value, out);
    }
    return strcmp(name, "payload") == 0 || strcmp(name, "payload_base64") == 0 ||
           refuse(judge, "it has a member that is not known");
}

static bool take_message(struct judge *judge, json_t *value, struct parsed *out)
{
    const char *name;
    json_t *one;
    if (!json_is_object(value)) {
        return refuse(judge, "it must be an object");
    }
    json_object_foreach(value, name, one)
    {
        if (!take_member(judge, name, one, out)) {
            return false;
        }
    }
    if (out->message.topic.len == 0) {
        return refuse(judge, "\"topic\" is missing");
    }
    const json_t *payload = json_object_get(value, "payload");
    const json_t *base64 = json_object_get(value, "payload_base64");
    if ((payload == NULL) == (base64 == NULL)) {
        return refuse(judge, "one of \"payload\" and \"payload_base64\" must be there");
    }
    return payload != NULL ? take_payload(judge, payload, out)
                           : take_base64(judge, base64, "\"payload_base64\" must be base64",
                                         &out->payload, &out->message.payload);
}

/* The array of messages, or NULL for a single one. */
static json_t *messages_of(struct judge *judge, json_t *root)
{
    json_t *messages = json_is_array(root) ? root : json_object_get(root, "messages");
    if (messages == NULL) {
        judge->is_single = true;
        return NULL;
    }
    judge->is_single = true; /* what is said of the whole names no message */
    if (!json_is_array(messages) || (messages != root && json_object_size(root) != 1)) {
        (void)refuse(judge, "\"messages\" must be an array and stand alone");
    } else if (json_array_size(messages) == 0 || json_array_size(messages) > HTTP_BATCH_MAX) {
        (void)refuse(judge, "a batch has 1 to 1000 messages");
    }
    judge->is_single = false;
    return messages;
}

static json_t *load(struct judge *judge, struct bytes text)
{
    json_error_t error;
    json_t *root = json_loadb(text.len == 0 ? "" : (const char *)text.data, text.len,
                              JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        judge->is_single = true;
        if (json_error_code(&error) == json_error_out_of_memory) {
            (void)lacks_memory(judge);
        } else {
            char what[HTTP_PROBLEM_MAX / 2];
            (void)snprintf(what, sizeof what, "the body is not JSON: line %d, column %d",
                           error.line, error.column);
            (void)refuse(judge, what);
        }
    }
    return root;
}

enum status http_batch_parse(struct bytes text, struct http_batch **out,
                             char problem[HTTP_PROBLEM_MAX])
{
    struct judge judge = {problem, 0, false, STATUS_OK};
    *out = NULL;
    json_t *root = load(&judge, text);
    if (root == NULL) {
        return judge.status;
    }
    json_t *messages = messages_of(&judge, root);
    size_t count = judge.is_single ? 1 : json_array_size(messages);
    struct http_batch *batch = NULL;
    if (judge.status == STATUS_OK) {
        batch = mem_zalloc(sizeof *batch + count * sizeof *batch->messages);
        judge.status = batch == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    }
    if (batch == NULL) {
        json_decref(root);
        return judge.status;
    }
    batch->root = root;
    batch->count = count;
    batch->is_single = judge.is_single;
    for (bool good = true; good && judge.index < count; judge.index++) {
        json_t *one = judge.is_single ? root : json_array_get(messages, judge.index);
        good = take_message(&judge, one, &batch->messages[judge.index]);
    }
    if (judge.status != STATUS_OK) {
        http_batch_destroy(batch);
        return judge.status;
    }
    *out = batch;
    return STATUS_OK;
}

void http_batch_destroy(struct http_batch *batch)
{
    if (batch == NULL) {
        return;
    }
    for (size_t i = 0; i < batch->count; i++) {
        mem_free(batch->messages[i].payload);
        mem_free(batch->messages[i].correlation_data);
    }
    json_decref(batch->root);
    mem_free(batch);
}

size_t http_batch_count(const struct http_batch *batch)
{
    return batch->count;
}

bool http_batch_is_single(const struct http_batch *batch)
{
    return batch->is_single;
}

const struct http_message *http_batch_at(const struct http_batch *batch, size_t index)
{
    ENSURE(index < batch->count);
    return &batch->messages[index].message;
}

static void write_user_properties(struct writer *writer, const void *user_properties)
{
    json_t *object = (json_t *)(uintptr_t)user_properties;
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        size_t count = json_is_array(value) ? json_array_size(value) : 1;
        for (size_t i = 0; i < count; i++) {
            const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
            mqtt_property_write_pair(writer, bytes_of_string(name), text_of(one));
        }
    }
}

static void write_properties(struct writer *writer, const struct http_message *from)
{
    if (from->payload_is_utf8) {
        mqtt_property_write_number(writer, MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR, 1);
    }
    if (from->content_type.len != 0) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_CONTENT_TYPE, from->content_type);
    }
    if (from->response_topic.len != 0) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_RESPONSE_TOPIC, from->response_topic);
    }
    if (from->correlation_data.len != 0) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_CORRELATION_DATA, from->correlation_data);
    }
    if (from->user_properties != NULL) {
        write_user_properties(writer, from->user_properties);
    }
}

enum status http_message_create(const struct http_message *from, uint64_t now_ms,
                                struct message **out)
{
    enum { PROPERTIES_MAX = UINT16_MAX };
    uint8_t *properties = mem_alloc(PROPERTIES_MAX);
    *out = NULL;
    if (properties == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct writer writer = writer_of(properties, PROPERTIES_MAX);
    write_properties(&writer, from);
    enum status status = STATUS_LIMIT;
    if (writer_ok(&writer)) {
        status = message_create(from->topic, writer_len(&writer), from->payload, out);
    }
    if (status == STATUS_OK) {
        bytes_copy(message_properties_area(*out), writer_written(&writer));
        (*out)->qos = from->qos;
        (*out)->retain = from->retain;
        if (from->has_expiry) {
            (*out)->expires_at_ms = now_ms + UINT64_C(1000) * from->expiry_s;
        }
    }
    mem_free(properties);
    return status;
}

static json_t *result_object(const struct http_result *result)
{
    json_t *object = json_object();
    int failed = json_object_set_new(
        object, "topic", json_stringn((const char *)result->topic.data, result->topic.len));
    if (result->error != NULL) {
        failed |= json_object_set_new(object, "error", json_string(result->error));
        failed |= json_object_set_new(object, "message", json_string(result->words));
    } else {
        failed |= json_object_set_new(object, "matched", json_integer(result->matched));
    }
    if (result->error == NULL && result->waited) {
        failed |= json_object_set_new(object, "acknowledged", json_integer(result->acknowledged));
    }
    if (result->is_duplicate) {
        failed |= json_object_set_new(object, "duplicate", json_true());
    }
    if (failed != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

char *http_results_text(const struct http_result *results, size_t count, bool is_single)
{
    json_t *root = NULL;
    if (is_single) {
        root = result_object(&results[0]);
    } else {
        json_t *array = json_array();
        int failed = array == NULL ? -1 : 0;
        for (size_t i = 0; failed == 0 && i < count; i++) {
            failed = json_array_append_new(array, result_object(&results[i]));
        }
        if (failed == 0) {
            root = json_pack("{s:o}", "results", array);
        } else {
            json_decref(array);
        }
    }
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

/* The payload as text when it is some, else in base64. */
static int set_payload(json_t *object, struct bytes payload)
{
    if (utf8_is_valid_string(payload)) {
        return json_object_set_new(object, "payload",
                                   json_stringn_nocheck((const char *)payload.data, payload.len));
    }
    size_t capacity = base64_encoded_len(payload.len);
    char *text = mem_alloc(capacity);
    if (text == NULL) {
        return -1;
    }
    struct writer writer = writer_of(text, capacity);
    base64_encode(payload, &writer);
    int failed = json_object_set_new(object, "payload_base64",
                                     json_stringn_nocheck(text, writer_len(&writer)));
    mem_free(text);
    return failed;
}

static int set_content_type(json_t *object, const struct message *message)
{
    struct mqtt_properties properties;
    struct mqtt_property property;
    int failed = 0;
    mqtt_properties_open_raw(&properties, message_properties(message), MQTT_PLACE_PUBLISH);
    while (mqtt_properties_next(&properties, &property)) {
        if (property.id == MQTT_PROPERTY_CONTENT_TYPE) {
            failed |= json_object_set_new(
                object, "content_type",
                json_stringn((const char *)property.value.data, property.value.len));
        }
    }
    return failed;
}

char *http_event_text(const struct message *message, bool retain)
{
    struct bytes topic = message_topic(message);
    json_t *object = json_object();
    int failed =
        json_object_set_new(object, "topic", json_stringn((const char *)topic.data, topic.len));
    failed |= set_payload(object, message_payload(message));
    failed |= set_content_type(object, message);
    failed |= json_object_set_new(object, "qos", json_integer(message->qos));
    failed |= json_object_set_new(object, "retain", json_boolean(retain));
    char *text = failed == 0 ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

char *http_error_text(const char *error, const char *words)
{
    json_t *root = json_pack("{s:s, s:s}", "error", error, "message", words);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
