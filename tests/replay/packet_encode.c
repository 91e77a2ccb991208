/* A script's line -> the bytes that a client sends. */
#include "packet_text.h"

#include <stdlib.h>
#include <string.h>

#include "mqtt_ack.h"
#include "mqtt_connect.h"
#include "mqtt_disconnect.h"
#include "mqtt_publish.h"
#include "mqtt_subscribe.h"

enum { ENTRIES_MAX = 64, PROPERTIES_BYTES = 64 * 1024 };

/* "name=number" into *out. */
static bool number_of(const char *word, const char *name, uint64_t max, uint64_t *out)
{
    const char *value = word_value(word, name);
    return value != NULL && word_number(value, max, out);
}

static bool text_of(const char *word, const char *name, struct bytes *out)
{
    const char *value = word_value(word, name);
    return value != NULL && word_text(value, out);
}

/* "#7" */
static bool packet_id_of(const char *word, uint16_t *out)
{
    uint64_t number = 0;
    if (*word != '#' || !word_number(word + 1, UINT16_MAX, &number)) {
        return false;
    }
    *out = (uint16_t)number;
    return true;
}

/* Properties that PUBLISH and wills share. */
static bool message_property(const char *word, struct writer *list)
{
    struct bytes text;
    if (strcmp(word, "utf8") == 0) {
        mqtt_property_write_number(list, MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR, 1);
    } else if (text_of(word, "content_type", &text)) {
        mqtt_property_write_bytes(list, MQTT_PROPERTY_CONTENT_TYPE, text);
    } else if (text_of(word, "response", &text)) {
        mqtt_property_write_bytes(list, MQTT_PROPERTY_RESPONSE_TOPIC, text);
    } else if (text_of(word, "correlation", &text)) {
        mqtt_property_write_bytes(list, MQTT_PROPERTY_CORRELATION_DATA, text);
    } else if (text_of(word, "user", &text)) {
        const uint8_t *colon = memchr(text.data, ':', text.len);
        if (colon == NULL) {
            return false;
        }
        size_t name_len = (size_t)(colon - text.data);
        mqtt_property_write_pair(list, bytes_of(text.data, name_len),
                                 bytes_from(text, name_len + 1));
    } else {
        return false;
    }
    return true;
}

static bool will_word(const char *word, struct mqtt_will *will, struct writer *list)
{
    uint64_t number = 0;
    if (number_of(word, "will_qos", 2, &number)) {
        will->qos = (uint8_t)number;
    } else if (strcmp(word, "will_retain") == 0) {
        will->retain = true;
    } else if (number_of(word, "will_delay", UINT32_MAX, &number)) {
        will->delay_s = (uint32_t)number;
    } else if (number_of(word, "will_expiry", UINT32_MAX, &number)) {
        will->has_expiry = true;
        will->expiry_s = (uint32_t)number;
    } else {
        return strncmp(word, "will_", 5) == 0 && message_property(word + 5, list);
    }
    return true;
}

/* will=TOPIC:PAYLOAD */
static bool will_start(const char *word, struct mqtt_connect *connect)
{
    struct bytes text;
    if (!text_of(word, "will", &text)) {
        return false;
    }
    const uint8_t *colon = memchr(text.data, ':', text.len);
    if (colon == NULL) {
        return false;
    }
    size_t topic_len = (size_t)(colon - text.data);
    connect->has_will = true;
    connect->will.topic = bytes_of(text.data, topic_len);
    connect->will.payload = bytes_from(text, topic_len + 1);
    return true;
}

static bool connect_flag(const char *word, struct mqtt_connect *connect)
{
    if (strcmp(word, "v5") == 0) {
        connect->version = MQTT_VERSION_5;
    } else if (strcmp(word, "v3.1.1") == 0) {
        connect->version = MQTT_VERSION_3_1_1;
    } else if (strcmp(word, "v3.1") == 0) {
        connect->version = MQTT_VERSION_3_1;
    } else if (strcmp(word, "clean") == 0) {
        connect->clean_start = true;
    } else if (strcmp(word, "bridge") == 0) {
        connect->is_bridge = true;
    } else {
        return false;
    }
    return true;
}

static bool connect_word(const char *word, struct mqtt_connect *connect)
{
    uint64_t number = 0;
    struct bytes text;
    if (text_of(word, "id", &text)) {
        connect->client_id = text;
    } else if (number_of(word, "keep_alive", UINT16_MAX, &number)) {
        connect->keep_alive_s = (uint16_t)number;
    } else if (number_of(word, "expiry", UINT32_MAX, &number)) {
        connect->session_expiry_s = (uint32_t)number;
    } else if (number_of(word, "receive_max", UINT16_MAX, &number)) {
        connect->receive_maximum = (uint16_t)number;
    } else if (number_of(word, "max_packet", UINT32_MAX, &number)) {
        connect->maximum_packet_size = (uint32_t)number;
    } else if (number_of(word, "alias_max", UINT16_MAX, &number)) {
        connect->topic_alias_maximum = (uint16_t)number;
    } else if (text_of(word, "user", &text)) {
        connect->has_user_name = true;
        connect->user_name = text;
    } else if (text_of(word, "password", &text)) {
        connect->has_password = true;
        connect->password = text;
    } else if (text_of(word, "method", &text)) {
        connect->has_authentication_method = true;
        connect->authentication_method = text;
    } else {
        return connect_flag(word, connect) || will_start(word, connect);
    }
    return true;
}

static const char *encode_connect(const struct words *words, const char *client_id,
                                  enum mqtt_version *version, struct writer *writer)
{
    struct mqtt_connect connect = {.version = MQTT_VERSION_5,
                                   .client_id = bytes_of_string(client_id),
                                   .receive_maximum = UINT16_MAX,
                                   .request_problem_information = true};
    static uint8_t will_properties[PROPERTIES_BYTES];
    struct writer list = writer_of(will_properties, sizeof will_properties);
    for (size_t i = 1; i < words->count; i++) {
        if (!connect_word(words->at[i], &connect) &&
            !will_word(words->at[i], &connect.will, &list)) {
            return "an unknown word for CONNECT";
        }
    }
    connect.will.properties = writer_written(&list);
    *version = connect.version;
    mqtt_connect_encode(writer, &connect);
    return NULL;
}

struct publish_line {
    struct mqtt_publish_out out;
    struct writer list; /* forwardable properties */
    struct bytes topic, payload;
    size_t texts; /* topic, then payload */
};

static bool publish_word(const char *word, struct publish_line *line)
{
    struct mqtt_publish_out *out = &line->out;
    uint64_t number = 0;
    if (packet_id_of(word, &out->packet_id)) {
        return true;
    }
    if (strcmp(word, "retain") == 0) {
        out->retain = true;
    } else if (strcmp(word, "dup") == 0) {
        out->dup = true;
    } else if (number_of(word, "qos", 2, &number)) {
        out->qos = (uint8_t)number;
    } else if (number_of(word, "alias", UINT16_MAX, &number)) {
        out->topic_alias = (uint16_t)number;
    } else if (number_of(word, "expiry", UINT32_MAX, &number)) {
        out->has_expiry = true;
        out->expiry_s = (uint32_t)number;
    } else if (message_property(word, &line->list)) {
        return true;
    } else if (line->texts < 2) {
        return word_text(word, line->texts++ == 0 ? &line->topic : &line->payload);
    } else {
        return false;
    }
    return true;
}

static const char *encode_publish(const struct words *words, enum mqtt_version version,
                                  struct writer *writer)
{
    static uint8_t properties[PROPERTIES_BYTES];
    struct publish_line line = {.list = writer_of(properties, sizeof properties)};
    for (size_t i = 1; i < words->count; i++) {
        if (!publish_word(words->at[i], &line)) {
            return "an unknown word for PUBLISH";
        }
    }
    if (line.texts != 2) {
        return "PUBLISH needs a topic and a payload";
    }
    if (!bytes_equal_string(line.topic, "-")) { /* nothing but the alias */
        line.out.topic = line.topic;
    }
    line.out.payload_len = line.payload.len;
    if (version == MQTT_VERSION_5) {
        line.out.properties_len = writer_len(&line.list);
    }
    mqtt_publish_encode_head(writer, &line.out, version);
    if (version == MQTT_VERSION_5) {
        writer_bytes(writer, writer_written(&line.list));
    }
    writer_bytes(writer, line.payload);
    return NULL;
}

static const char *encode_ack(const struct words *words, enum mqtt_type type,
                              enum mqtt_version version, struct writer *writer)
{
    struct mqtt_ack ack = {.reason = MQTT_SUCCESS};
    for (size_t i = 1; i < words->count; i++) {
        if (!packet_id_of(words->at[i], &ack.packet_id) &&
            !word_reason(words->at[i], &ack.reason)) {
            return "an acknowledgement has a packet identifier and a reason";
        }
    }
    mqtt_ack_encode(writer, type, version, &ack);
    return NULL;
}

/* A filter, or an option of the filter before it. */
static bool subscription_word(const char *word, struct mqtt_subscription *entries, size_t *count)
{
    struct mqtt_subscription *last = *count == 0 ? NULL : &entries[*count - 1];
    uint64_t number = 0;
    if (last != NULL && number_of(word, "qos", 2, &number)) {
        last->qos = (uint8_t)number;
    } else if (last != NULL && number_of(word, "handling", 2, &number)) {
        last->retain_handling = (uint8_t)number;
    } else if (last != NULL && strcmp(word, "no_local") == 0) {
        last->no_local = true;
    } else if (last != NULL && strcmp(word, "as_published") == 0) {
        last->retain_as_published = true;
    } else if (*count < ENTRIES_MAX) {
        entries[*count] = (struct mqtt_subscription){0};
        return word_text(word, &entries[(*count)++].filter);
    } else {
        return false;
    }
    return true;
}

static const char *encode_subscribe(const struct words *words, enum mqtt_version version,
                                    struct writer *writer)
{
    struct mqtt_subscription entries[ENTRIES_MAX];
    size_t count = 0;
    uint16_t packet_id = 0;
    uint64_t identifier = 0;
    for (size_t i = 1; i < words->count; i++) {
        const char *word = words->at[i];
        if (!packet_id_of(word, &packet_id) && !number_of(word, "subid", UINT32_MAX, &identifier) &&
            !subscription_word(word, entries, &count)) {
            return "too many filters";
        }
    }
    mqtt_subscribe_encode(writer, version, packet_id, (uint32_t)identifier, entries, count);
    return NULL;
}

static const char *encode_unsubscribe(const struct words *words, enum mqtt_version version,
                                      struct writer *writer)
{
    struct bytes filters[ENTRIES_MAX];
    size_t count = 0;
    uint16_t packet_id = 0;
    for (size_t i = 1; i < words->count; i++) {
        if (packet_id_of(words->at[i], &packet_id)) {
            continue;
        }
        if (count == ENTRIES_MAX || !word_text(words->at[i], &filters[count++])) {
            return "too many filters";
        }
    }
    mqtt_unsubscribe_encode(writer, version, packet_id, filters, count);
    return NULL;
}

static const char *encode_disconnect(const struct words *words, enum mqtt_version version,
                                     struct writer *writer)
{
    struct mqtt_disconnect disconnect = {.reason = MQTT_NORMAL_DISCONNECTION};
    uint64_t number = 0;
    for (size_t i = 1; i < words->count; i++) {
        if (number_of(words->at[i], "expiry", UINT32_MAX, &number)) {
            disconnect.has_session_expiry = true;
            disconnect.session_expiry_s = (uint32_t)number;
        } else if (!word_reason(words->at[i], &disconnect.reason)) {
            return "an unknown word for DISCONNECT";
        }
    }
    mqtt_disconnect_encode(writer, version, &disconnect);
    return NULL;
}

static const char *encode_auth(const struct words *words, struct writer *writer)
{
    struct mqtt_auth auth = {.reason = MQTT_SUCCESS};
    for (size_t i = 1; i < words->count; i++) {
        if (text_of(words->at[i], "method", &auth.method)) {
            auth.has_method = true;
        } else if (!word_reason(words->at[i], &auth.reason)) {
            return "an unknown word for AUTH";
        }
    }
    mqtt_auth_encode(writer, &auth);
    return NULL;
}

static const char *encode_hex(const struct words *words, struct writer *writer)
{
    for (size_t i = 1; i < words->count; i++) {
        char *end = NULL;
        unsigned long byte = strtoul(words->at[i], &end, 16);
        if (*end != '\0' || byte > UINT8_MAX || strlen(words->at[i]) != 2) {
            return "hex takes bytes of two digits";
        }
        writer_u8(writer, (uint8_t)byte);
    }
    return NULL;
}

static bool is_type(const char *word, enum mqtt_type type)
{
    return strcmp(word, mqtt_type_name(type)) == 0;
}

const char *packet_text_encode(const struct words *words, const char *client_id,
                               enum mqtt_version *version, struct writer *writer)
{
    if (words->count == 0) {
        return "a packet is missing";
    }
    const char *type = words->at[0];
    if (strcmp(type, "hex") == 0) {
        return encode_hex(words, writer);
    }
    if (is_type(type, MQTT_CONNECT)) {
        return encode_connect(words, client_id, version, writer);
    }
    if (is_type(type, MQTT_PUBLISH)) {
        return encode_publish(words, *version, writer);
    }
    for (enum mqtt_type ack = MQTT_PUBACK; ack <= MQTT_PUBCOMP; ack++) {
        if (is_type(type, ack)) {
            return encode_ack(words, ack, *version, writer);
        }
    }
    if (is_type(type, MQTT_SUBSCRIBE)) {
        return encode_subscribe(words, *version, writer);
    }
    if (is_type(type, MQTT_UNSUBSCRIBE)) {
        return encode_unsubscribe(words, *version, writer);
    }
    if (is_type(type, MQTT_DISCONNECT)) {
        return encode_disconnect(words, *version, writer);
    }
    if (is_type(type, MQTT_AUTH)) {
        return encode_auth(words, writer);
    }
    if (is_type(type, MQTT_PINGREQ)) {
        mqtt_empty_encode(writer, MQTT_PINGREQ);
        return NULL;
    }
    return "an unknown packet type";
}
