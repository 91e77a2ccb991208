/*
 * mqtt_fuzz: one packet through the MQTT decoders, and through the encoder and back where it
 * decoded well.
 *
 * Input: one byte that chooses the version, then a packet with its fixed header. The body is copied
 * to an allocation of exactly its size, so that the sanitizer sees the first byte read too far.
 */
#include <stdint.h>
#include <stdlib.h>

#include "mqtt_ack.h"
#include "mqtt_connect.h"
#include "mqtt_disconnect.h"
#include "mqtt_publish.h"
#include "mqtt_subscribe.h"
#include "topic.h"

enum {
    INPUT_MAX = 1 << 16,
    ROOM = 2 * INPUT_MAX,
    ENTRIES_MAX = 1024,
};

static uint8_t room[ROOM];

static void ensure_same(struct bytes a, struct bytes b)
{
    ENSURE(bytes_equal(a, b));
}

/* The body of what was just written, after checking that the fixed header tells the truth about it.
 */
static struct bytes body_of(const struct writer *writer, enum mqtt_type type, uint8_t flags)
{
    ENSURE(writer_ok(writer));
    struct bytes written = writer_written(writer);
    struct mqtt_header header;
    ENSURE(mqtt_header_decode_as(written, MQTT_VERSION_5, &header) == MQTT_HEADER_COMPLETE);
    ENSURE(header.type == type && header.flags == flags);
    ENSURE(header.header_len + header.remaining == written.len);
    return bytes_from(written, header.header_len);
}

/* What is passed on of two lists must be the same; their order apart from that may differ. */
static void ensure_same_forward(struct bytes a, struct bytes b)
{
    static uint8_t forward[2][ROOM];
    struct writer first = writer_of(forward[0], ROOM);
    struct writer second = writer_of(forward[1], ROOM);
    mqtt_publish_forward(a, &first);
    mqtt_publish_forward(b, &second);
    ENSURE(writer_ok(&first) && writer_ok(&second));
    ENSURE(writer_len(&first) == mqtt_publish_forward_len(a));
    ensure_same(writer_written(&first), writer_written(&second));
}

static void ensure_same_will(const struct mqtt_will *a, const struct mqtt_will *b)
{
    ensure_same(a->topic, b->topic);
    ensure_same(a->payload, b->payload);
    ENSURE(a->delay_s == b->delay_s && a->has_expiry == b->has_expiry &&
           a->expiry_s == b->expiry_s && a->qos == b->qos && a->retain == b->retain);
    ensure_same_forward(a->properties, b->properties);
}

static void fuzz_connect(struct bytes body)
{
    struct mqtt_connect a;
    struct mqtt_connect b;
    enum mqtt_reason reason = mqtt_connect_decode(body, &a);
    ENSURE(a.version == MQTT_VERSION_3_1 || a.version == MQTT_VERSION_3_1_1 ||
           a.version == MQTT_VERSION_5);
    if (reason != MQTT_SUCCESS) {
        return;
    }
    struct writer writer = writer_of(room, ROOM);
    mqtt_connect_encode(&writer, &a);
    ENSURE(mqtt_connect_decode(body_of(&writer, MQTT_CONNECT, 0), &b) == MQTT_SUCCESS);
    ENSURE(a.version == b.version && a.is_bridge == b.is_bridge && a.clean_start == b.clean_start &&
           a.keep_alive_s == b.keep_alive_s && a.has_user_name == b.has_user_name &&
           a.has_password == b.has_password && a.has_will == b.has_will);
    ENSURE(a.session_expiry_s == b.session_expiry_s && a.receive_maximum == b.receive_maximum &&
           a.maximum_packet_size == b.maximum_packet_size &&
           a.topic_alias_maximum == b.topic_alias_maximum &&
           a.request_response_information == b.request_response_information &&
           a.request_problem_information == b.request_problem_information &&
           a.has_authentication_method == b.has_authentication_method);
    ensure_same(a.client_id, b.client_id);
    ensure_same(a.user_name, b.user_name);
    ensure_same(a.password, b.password);
    ensure_same(a.authentication_method, b.authentication_method);
    ensure_same(a.authentication_data, b.authentication_data);
    if (a.has_will) {
        ensure_same_will(&a.will, &b.will);
    }
}

static void fuzz_connack(struct bytes body, enum mqtt_version version)
{
    struct mqtt_connack a;
    struct mqtt_connack b;
    if (mqtt_connack_decode(body, version, &a) != MQTT_SUCCESS) {
        return;
    }
    struct writer writer = writer_of(room, ROOM);
    mqtt_connack_encode(&writer, version, &a);
    ENSURE(mqtt_connack_decode(body_of(&writer, MQTT_CONNACK, 0), version, &b) == MQTT_SUCCESS);
    ENSURE(a.session_present == b.session_present && a.reason == b.reason &&
           a.has_session_expiry == b.has_session_expiry &&
           a.session_expiry_s == b.session_expiry_s && a.receive_maximum == b.receive_maximum &&
           a.maximum_qos == b.maximum_qos && a.retain_available == b.retain_available &&
           a.maximum_packet_size == b.maximum_packet_size &&
           a.topic_alias_maximum == b.topic_alias_maximum &&
           a.has_server_keep_alive == b.has_server_keep_alive &&
           a.server_keep_alive_s == b.server_keep_alive_s);
    ENSURE(a.wildcard_subscription_available == b.wildcard_subscription_available &&
           a.subscription_identifier_available == b.subscription_identifier_available &&
           a.shared_subscription_available == b.shared_subscription_available);
    ensure_same(a.assigned_client_id, b.assigned_client_id);
    ensure_same(a.reason_string, b.reason_string);
    ensure_same(a.response_information, b.response_information);
    ensure_same(a.server_reference, b.server_reference);
}

/* Text in two pieces is text, wherever it is cut. */
static void fuzz_text(struct bytes text)
{
    struct utf8_state feed = {0};
    size_t cut = text.len / 2;
    bool valid = utf8_feed(&feed, bytes_of(text.data, cut)) &&
                 utf8_feed(&feed, bytes_from(text, cut)) && utf8_state_is_complete(&feed);
    ENSURE(valid == utf8_is_valid(text));
}

static void fuzz_publish(struct bytes body, uint8_t flags, enum mqtt_version version)
{
    struct mqtt_publish a;
    struct mqtt_publish b;
    if (mqtt_publish_decode(body, flags, version, &a) != MQTT_SUCCESS) {
        return;
    }
    ENSURE(a.forward_len == mqtt_publish_forward_len(a.properties));
    fuzz_text(a.payload);
    const struct mqtt_publish_out out = {
        .qos = a.qos,
        .retain = a.retain,
        .dup = a.dup,
        .has_expiry = a.has_expiry,
        .packet_id = a.packet_id,
        .topic_alias = a.topic_alias,
        .expiry_s = a.expiry_s,
        .topic = a.topic,
        .properties_len = a.forward_len,
        .payload_len = a.payload.len,
    };
    struct writer writer = writer_of(room, ROOM);
    mqtt_publish_encode_head(&writer, &out, version);
    ENSURE(writer_len(&writer) == mqtt_publish_head_size(&out, version));
    if (version == MQTT_VERSION_5) {
        mqtt_publish_forward(a.properties, &writer);
    }
    writer_bytes(&writer, a.payload);
    ENSURE(writer_len(&writer) == mqtt_publish_size(&out, version));
    struct bytes again = body_of(&writer, MQTT_PUBLISH, flags);
    ENSURE(mqtt_publish_decode(again, flags, version, &b) == MQTT_SUCCESS);
    ENSURE(a.packet_id == b.packet_id && a.topic_alias == b.topic_alias &&
           a.has_expiry == b.has_expiry && a.expiry_s == b.expiry_s &&
           a.payload_is_utf8 == b.payload_is_utf8 && a.forward_len == b.forward_len);
    ensure_same(a.topic, b.topic);
    ensure_same(a.payload, b.payload);
    ensure_same_forward(a.properties, b.properties);
}

static void fuzz_ack(struct bytes body, enum mqtt_type type, enum mqtt_version version)
{
    struct mqtt_ack a;
    struct mqtt_ack b;
    if (mqtt_ack_decode(body, type, version, &a) != MQTT_SUCCESS) {
        return;
    }
    struct writer writer = writer_of(room, ROOM);
    mqtt_ack_encode(&writer, type, version, &a);
    struct bytes again = body_of(&writer, type, type == MQTT_PUBREL ? 2 : 0);
    ENSURE(mqtt_ack_decode(again, type, version, &b) == MQTT_SUCCESS);
    ENSURE(a.packet_id == b.packet_id && a.reason == b.reason);
    ensure_same(a.reason_string, b.reason_string);
}

/* The checks that the core makes on each filter. */
static void fuzz_filter(struct bytes filter)
{
    struct bytes group;
    struct bytes rest;
    bool valid = false;
    bool shared = topic_filter_split_shared(filter, &group, &rest, &valid);
    ENSURE(!shared || !topic_filter_is_valid(filter));
    if (topic_filter_is_valid(filter) && !topic_filter_has_wildcard(filter)) {
        ENSURE(topic_name_is_valid(filter) && topic_matches(filter, filter));
    }
}

static void fuzz_subscribe(struct bytes body, enum mqtt_version version)
{
    static struct mqtt_subscription entries[ENTRIES_MAX];
    struct mqtt_subscribe a;
    struct mqtt_subscribe b;
    if (mqtt_subscribe_decode(body, version, &a) != MQTT_SUCCESS || a.count > ENTRIES_MAX) {
        return;
    }
    size_t count = 0;
    while (mqtt_subscribe_next(&a, &entries[count % ENTRIES_MAX])) {
        fuzz_filter(entries[count].filter);
        count++;
    }
    ENSURE(count == a.count && count != 0);
    struct writer writer = writer_of(room, ROOM);
    mqtt_subscribe_encode(&writer, version, a.packet_id, a.identifier, entries, count);
    struct bytes again = body_of(&writer, MQTT_SUBSCRIBE, 2);
    ENSURE(mqtt_subscribe_decode(again, version, &b) == MQTT_SUCCESS);
    ENSURE(b.packet_id == a.packet_id && b.identifier == a.identifier && b.count == count);
    struct mqtt_subscription entry;
    for (size_t i = 0; mqtt_subscribe_next(&b, &entry); i++) {
        ensure_same(entry.filter, entries[i].filter);
        ENSURE(entry.qos == entries[i].qos && entry.no_local == entries[i].no_local &&
               entry.retain_as_published == entries[i].retain_as_published &&
               entry.retain_handling == entries[i].retain_handling);
    }
}

static void fuzz_unsubscribe(struct bytes body, enum mqtt_version version)
{
    static struct bytes filters[ENTRIES_MAX];
    struct mqtt_subscribe a;
    struct mqtt_subscribe b;
    if (mqtt_unsubscribe_decode(body, version, &a) != MQTT_SUCCESS || a.count > ENTRIES_MAX) {
        return;
    }
    size_t count = 0;
    while (mqtt_unsubscribe_next(&a, &filters[count % ENTRIES_MAX])) {
        fuzz_filter(filters[count]);
        count++;
    }
    ENSURE(count == a.count && count != 0);
    struct writer writer = writer_of(room, ROOM);
    mqtt_unsubscribe_encode(&writer, version, a.packet_id, filters, count);
    struct bytes again = body_of(&writer, MQTT_UNSUBSCRIBE, 2);
    ENSURE(mqtt_unsubscribe_decode(again, version, &b) == MQTT_SUCCESS);
    ENSURE(b.packet_id == a.packet_id && b.count == count);
    struct bytes filter;
    for (size_t i = 0; mqtt_unsubscribe_next(&b, &filter); i++) {
        ensure_same(filter, filters[i]);
    }
}

static void fuzz_suback(struct bytes body, enum mqtt_type type, enum mqtt_version version)
{
    struct mqtt_suback a;
    struct mqtt_suback b;
    if (mqtt_suback_decode(body, type, version, &a) != MQTT_SUCCESS) {
        return;
    }
    struct writer writer = writer_of(room, ROOM);
    mqtt_suback_encode(&writer, type, version, &a);
    ENSURE(mqtt_suback_decode(body_of(&writer, type, 0), type, version, &b) == MQTT_SUCCESS);
    ENSURE(a.packet_id == b.packet_id);
    ensure_same(a.reasons, b.reasons);
    ensure_same(a.reason_string, b.reason_string);
}

static void fuzz_disconnect(struct bytes body, enum mqtt_version version)
{
    struct mqtt_disconnect a;
    struct mqtt_disconnect b;
    if (mqtt_disconnect_decode(body, version, &a) != MQTT_SUCCESS) {
        return;
    }
    struct writer writer = writer_of(room, ROOM);
    mqtt_disconnect_encode(&writer, version, &a);
    ENSURE(mqtt_disconnect_decode(body_of(&writer, MQTT_DISCONNECT, 0), version, &b) ==
           MQTT_SUCCESS);
    ENSURE(a.reason == b.reason && a.has_session_expiry == b.has_session_expiry &&
           a.session_expiry_s == b.session_expiry_s);
    ensure_same(a.reason_string, b.reason_string);
    ensure_same(a.server_reference, b.server_reference);
}

static void fuzz_auth(struct bytes body)
{
    struct mqtt_auth a;
    struct mqtt_auth b;
    if (mqtt_auth_decode(body, &a) != MQTT_SUCCESS) {
        return;
    }
    struct writer writer = writer_of(room, ROOM);
    mqtt_auth_encode(&writer, &a);
    ENSURE(mqtt_auth_decode(body_of(&writer, MQTT_AUTH, 0), &b) == MQTT_SUCCESS);
    ENSURE(a.reason == b.reason && a.has_method == b.has_method);
    ensure_same(a.method, b.method);
    ensure_same(a.data, b.data);
    ensure_same(a.reason_string, b.reason_string);
}

static void fuzz_body(struct bytes body, const struct mqtt_header *header,
                      enum mqtt_version version)
{
    switch (header->type) {
    case MQTT_CONNECT:
        fuzz_connect(body);
        break;
    case MQTT_CONNACK:
        fuzz_connack(body, version);
        break;
    case MQTT_PUBLISH:
        fuzz_publish(body, header->flags, version);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        fuzz_ack(body, header->type, version);
        break;
    case MQTT_SUBSCRIBE:
        fuzz_subscribe(body, version);
        break;
    case MQTT_UNSUBSCRIBE:
        fuzz_unsubscribe(body, version);
        break;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        fuzz_suback(body, header->type, version);
        break;
    case MQTT_DISCONNECT:
        fuzz_disconnect(body, version);
        break;
    case MQTT_AUTH:
        fuzz_auth(body);
        break;
    case MQTT_PINGREQ:
    case MQTT_PINGRESP:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > INPUT_MAX) {
        return 0;
    }
    enum mqtt_version version = (enum mqtt_version)(MQTT_VERSION_3_1 + data[0] % 3);
    struct bytes packet = bytes_of(data + 1, size - 1);
    struct mqtt_header header;
    if (mqtt_header_decode_as(packet, version, &header) != MQTT_HEADER_COMPLETE) {
        return 0;
    }
    /* A length that is wrong is put right: the framing's part of the work is not fuzzed here. */
    struct bytes rest = bytes_from(packet, header.header_len);
    uint8_t *block = malloc(rest.len + 1);
    ENSURE(block != NULL);
    bytes_copy(block + 1, rest);
    fuzz_body(bytes_of(block + 1, rest.len), &header, version);
    free(block);
    return 0;
}
