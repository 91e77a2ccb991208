/* The bytes that a client received -> a script's line. */
#include "packet_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mqtt_ack.h"
#include "mqtt_connect.h"
#include "mqtt_disconnect.h"
#include "mqtt_subscribe.h"

struct text {
    char *at;
    char *end;
};

PRINTF_LIKE(2, 3) static void add(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text->at, (size_t)(text->end - text->at), format, args);
    va_end(args);
    ENSURE(len >= 0 && len < text->end - text->at);
    text->at += len;
}

/* Quotes text; a long run of one character becomes "x"*count. */
static void add_quoted(struct text *text, struct bytes bytes)
{
    enum { RUN_MIN = 40 };
    bool is_run = bytes.len >= RUN_MIN && memcmp(bytes.data, bytes.data + 1, bytes.len - 1) == 0;
    size_t shown = is_run ? 1 : bytes.len;
    add(text, "\"");
    for (size_t i = 0; i < shown; i++) {
        uint8_t c = bytes.data[i];
        if (c == '"' || c == '\\') {
            add(text, "\\%c", c);
        } else if (c < ' ' || c > '~') {
            add(text, "\\x%02x", c);
        } else {
            add(text, "%c", c);
        }
    }
    add(text, "\"");
    if (is_run) {
        add(text, "*%zu", bytes.len);
    }
}

static void add_bare(struct text *text, struct bytes bytes)
{
    add(text, "%.*s", (int)bytes.len, (const char *)bytes.data);
}

static void add_reason(struct text *text, enum mqtt_reason reason)
{
    char word[64];
    reason_word(reason, word, sizeof word);
    add(text, "%s", word);
}

static void add_reason_unless_success(struct text *text, enum mqtt_reason reason)
{
    if (reason != MQTT_SUCCESS) {
        add(text, " ");
        add_reason(text, reason);
    }
}

/* A Reason String. */
static void add_why(struct text *text, struct bytes reason_string)
{
    if (reason_string.len != 0) {
        add(text, " why=");
        add_quoted(text, reason_string);
    }
}

static void describe_connack(struct text *text, struct bytes body, enum mqtt_version version)
{
    struct mqtt_connack connack;
    ENSURE(mqtt_connack_decode(body, version, &connack) == MQTT_SUCCESS);
    if (connack.session_present) {
        add(text, " session");
    }
    add_reason_unless_success(text, connack.reason);
    if (connack.has_session_expiry) {
        add(text, " expiry=%u", connack.session_expiry_s);
    }
    if (connack.receive_maximum != UINT16_MAX) {
        add(text, " receive_max=%u", connack.receive_maximum);
    }
    if (connack.maximum_qos != 2) {
        add(text, " max_qos=%u", connack.maximum_qos);
    }
    if (!connack.retain_available) {
        add(text, " no_retain");
    }
    if (connack.maximum_packet_size != 0 &&
        connack.maximum_packet_size != PACKET_TEXT_USUAL_MAXIMUM) {
        add(text, " max_packet=%u", connack.maximum_packet_size);
    }
    if (connack.assigned_client_id.len != 0) {
        add(text, " assigned=");
        add_bare(text, connack.assigned_client_id);
    }
    if (connack.topic_alias_maximum != 0) {
        add(text, " alias_max=%u", connack.topic_alias_maximum);
    }
    if (connack.has_server_keep_alive) {
        add(text, " keep_alive=%u", connack.server_keep_alive_s);
    }
    add_why(text, connack.reason_string);
}

static void add_property(struct text *text, const struct mqtt_property *property)
{
    switch (property->id) {
    case MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR:
        add(text, " %s", property->number == 1 ? "utf8" : "not_utf8");
        break;
    case MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL:
        add(text, " expiry=%u", property->number);
        break;
    case MQTT_PROPERTY_CONTENT_TYPE:
        add(text, " content_type=");
        add_bare(text, property->value);
        break;
    case MQTT_PROPERTY_RESPONSE_TOPIC:
        add(text, " response=");
        add_bare(text, property->value);
        break;
    case MQTT_PROPERTY_CORRELATION_DATA:
        add(text, " correlation=");
        add_quoted(text, property->value);
        break;
    case MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER:
        add(text, " subid=%u", property->number);
        break;
    case MQTT_PROPERTY_TOPIC_ALIAS:
        add(text, " alias=%u", property->number);
        break;
    case MQTT_PROPERTY_REASON_STRING:
        add_why(text, property->value);
        break;
    case MQTT_PROPERTY_USER_PROPERTY:
        add(text, " user=");
        add_bare(text, property->name);
        add(text, ":");
        add_bare(text, property->value);
        break;
    default:
        add(text, " property-%u", (unsigned)property->id);
        break;
    }
}

static void add_properties(struct text *text, struct reader *reader, enum mqtt_property_place place)
{
    struct mqtt_properties properties;
    struct mqtt_property property;
    mqtt_properties_open(&properties, reader, place);
    while (mqtt_properties_next(&properties, &property)) {
        add_property(text, &property);
    }
    ENSURE(mqtt_properties_reason(&properties) == MQTT_SUCCESS);
}

/* Not through mqtt_publish_decode, which refuses what only a server may send. */
static void describe_publish(struct text *text, const struct mqtt_header *header, struct bytes body,
                             enum mqtt_version version)
{
    unsigned qos = header->flags >> 1 & 3U;
    struct reader reader = reader_of(body);
    struct bytes topic = mqtt_string_read(&reader);
    uint16_t packet_id = qos == 0 ? 0 : reader_u16(&reader);
    struct text properties_text = *text;
    char properties[8192];
    properties[0] = '\0';
    if (version == MQTT_VERSION_5) {
        properties_text = (struct text){properties, properties + sizeof properties};
        add_properties(&properties_text, &reader, MQTT_PLACE_PUBLISH);
    }
    ENSURE(reader_ok(&reader));
    add(text, " ");
    add_bare(text, topic.len == 0 ? bytes_of_string("-") : topic);
    add(text, " ");
    add_quoted(text, reader_rest(&reader));
    if (qos != 0) {
        ENSURE(packet_id != 0);
        add(text, " qos=%u #%u", qos, packet_id);
    }
    if ((header->flags & 1) != 0) {
        add(text, " retain");
    }
    if ((header->flags & 8) != 0) {
        add(text, " dup");
    }
    add(text, "%s", properties);
}

static void describe_ack(struct text *text, enum mqtt_type type, struct bytes body,
                         enum mqtt_version version)
{
    struct mqtt_ack ack;
    ENSURE(mqtt_ack_decode(body, type, version, &ack) == MQTT_SUCCESS);
    add(text, " #%u", ack.packet_id);
    add_reason_unless_success(text, ack.reason);
    add_why(text, ack.reason_string);
}

static void describe_suback(struct text *text, enum mqtt_type type, struct bytes body,
                            enum mqtt_version version)
{
    struct mqtt_suback suback;
    ENSURE(mqtt_suback_decode(body, type, version, &suback) == MQTT_SUCCESS);
    add(text, " #%u", suback.packet_id);
    for (size_t i = 0; i < suback.reasons.len; i++) {
        uint8_t reason = suback.reasons.data[i];
        add(text, "%s", i == 0 ? " " : ",");
        if (type == MQTT_SUBACK && reason <= 2) {
            add(text, "%u", reason);
        } else {
            add_reason(text, (enum mqtt_reason)reason);
        }
    }
    add_why(text, suback.reason_string);
}

static void describe_disconnect(struct text *text, struct bytes body)
{
    struct reader reader = reader_of(body);
    enum mqtt_reason reason = body.len == 0 ? MQTT_SUCCESS : (enum mqtt_reason)reader_u8(&reader);
    add_reason_unless_success(text, reason);
    if (reader_left(&reader) != 0) {
        add_properties(text, &reader, MQTT_PLACE_DISCONNECT);
    }
    ENSURE(reader_ok(&reader) && reader_left(&reader) == 0);
}

void packet_text_describe(const struct mqtt_header *header, struct bytes body,
                          enum mqtt_version version, char *out, size_t out_bytes)
{
    struct text text = {out, out + out_bytes};
    add(&text, "%s", mqtt_type_name(header->type));
    switch (header->type) {
    case MQTT_CONNACK:
        describe_connack(&text, body, version);
        break;
    case MQTT_PUBLISH:
        describe_publish(&text, header, body, version);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        describe_ack(&text, header->type, body, version);
        break;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        describe_suback(&text, header->type, body, version);
        break;
    case MQTT_DISCONNECT:
        ENSURE(version == MQTT_VERSION_5);
        describe_disconnect(&text, body);
        break;
    default:
        ENSURE(header->type == MQTT_PINGRESP && body.len == 0);
        break;
    }
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* User properties keep their order: it has a meaning (3.3.2.3.7). */
static bool user_words_equal(const struct words *one, const struct words *other)
{
    size_t at = 0;
    for (size_t i = 0; i < one->count; i++) {
        if (word_value(one->at[i], "user") == NULL) {
            continue;
        }
        while (at < other->count && word_value(other->at[at], "user") == NULL) {
            at++;
        }
        if (at == other->count || strcmp(one->at[i], other->at[at]) != 0) {
            return false;
        }
        at++;
    }
    return true;
}

bool packet_text_equal(const char *one, const char *other)
{
    char *line_one = strdup(one);
    char *line_other = strdup(other);
    ENSURE(line_one != NULL && line_other != NULL);
    struct words a;
    struct words b;
    words_cut(&a, line_one);
    words_cut(&b, line_other);
    bool equal = a.count == b.count && user_words_equal(&a, &b);
    if (equal) {
        qsort(a.at, a.count, sizeof *a.at, compare_words);
        qsort(b.at, b.count, sizeof *b.at, compare_words);
        for (size_t i = 0; i < a.count; i++) {
            equal = equal && strcmp(a.at[i], b.at[i]) == 0;
        }
    }
    free(line_one);
    free(line_other);
    return equal;
}
