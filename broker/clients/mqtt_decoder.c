#include "mqtt_decoder.h"

#include "mem.h"
#include "mqtt_client.h"
#include "mqtt_connect.h"
#include "mqtt_publish.h"
#include "utf8.h"

enum {
    TAIL_BYTES_MIN = 64,
    CONNECT_BYTES_MAX = 512 * 1024, /* the first packet of somebody whom we don't know yet */
};

/* The beginning of a packet whose rest has not come yet, or one that is being looked at. */
struct tail {
    size_t len;
    size_t capacity;
    bool complete; /* its packet was returned: it goes with the next call */
    uint8_t data[];
};

/* The input of one call. */
struct feed {
    struct mqtt_decoder *decoder;
    const struct mqtt_settings *settings;
    struct mqtt_header header; /* of the packet at hand */
};

enum found { FOUND_NOTHING, FOUND_PACKET, FOUND_VIOLATION };

static void drop_tail(struct mqtt_decoder *decoder)
{
    mem_free(decoder->tail);
    decoder->tail = NULL;
}

void mqtt_decoder_stop(struct mqtt_decoder *decoder)
{
    decoder->stopped = true;
    drop_tail(decoder);
}

void mqtt_decoder_fini(struct mqtt_decoder *decoder)
{
    drop_tail(decoder);
    alias_names_destroy(decoder->aliases_in);
}

static enum found violation(struct mqtt_packet *out, enum mqtt_reason reason, const char *why)
{
    out->violation = (uint8_t)reason;
    out->why = why;
    return FOUND_VIOLATION;
}

static size_t packet_bytes_max(const struct feed *feed)
{
    size_t max = feed->settings->packet_bytes_max;
    return feed->decoder->version == 0 && max > CONNECT_BYTES_MAX ? CONNECT_BYTES_MAX : max;
}

/* Judges a header before its body is waited for. FOUND_NOTHING: it is incomplete. Before CONNECT
 * the version is not known; 3.1.1 has the rules that all versions share. */
static enum found read_header(struct feed *feed, struct bytes in, struct mqtt_packet *out)
{
    const struct mqtt_decoder *decoder = feed->decoder;
    struct mqtt_header *header = &feed->header;
    bool is_first = decoder->version == 0;
    switch (mqtt_header_decode_as(
        in, is_first ? MQTT_VERSION_3_1_1 : (enum mqtt_version)decoder->version, header)) {
    case MQTT_HEADER_INCOMPLETE:
        return FOUND_NOTHING;
    case MQTT_HEADER_MALFORMED:
        return violation(out, MQTT_MALFORMED_PACKET, "malformed fixed header");
    case MQTT_HEADER_COMPLETE:
        break;
    }
    if (is_first && header->type != MQTT_CONNECT) {
        return violation(out, MQTT_PROTOCOL_ERROR, "the first packet was not CONNECT");
    }
    if (header->header_len + (size_t)header->remaining > packet_bytes_max(feed)) {
        return violation(out, MQTT_PACKET_TOO_LARGE, "packet larger than max_packet_size");
    }
    return FOUND_PACKET;
}

static size_t packet_len(const struct mqtt_header *header)
{
    return header->header_len + (size_t)header->remaining;
}

/* Grows by doubling, whatever length the packet announces: memory follows what really came. */
static bool tail_reserve(struct mqtt_decoder *decoder, size_t capacity)
{
    struct tail *tail = decoder->tail;
    if (tail != NULL && tail->capacity >= capacity) {
        return true;
    }
    if (tail != NULL && capacity < 2 * tail->capacity) {
        capacity = 2 * tail->capacity;
    }
    struct tail *grown = mem_realloc(tail, sizeof *grown + capacity);
    if (grown == NULL) {
        return false;
    }
    if (tail == NULL) {
        grown->len = 0;
        grown->complete = false;
    }
    grown->capacity = capacity;
    decoder->tail = grown;
    return true;
}

static bool tail_append(struct mqtt_decoder *decoder, struct bytes piece)
{
    size_t before = decoder->tail == NULL ? 0 : decoder->tail->len;
    size_t capacity = before + piece.len;
    if (!tail_reserve(decoder, capacity > TAIL_BYTES_MIN ? capacity : TAIL_BYTES_MIN)) {
        return false;
    }
    bytes_copy(decoder->tail->data + before, piece);
    decoder->tail->len = before + piece.len;
    return true;
}

/* Completes the packet in the tail from *in. */
static enum found find_in_tail(struct feed *feed, struct bytes *in, struct mqtt_packet *out)
{
    for (;;) {
        const struct tail *tail = feed->decoder->tail;
        enum found found = read_header(feed, bytes_of(tail->data, tail->len), out);
        if (found == FOUND_VIOLATION) {
            return found;
        }
        size_t needs = found == FOUND_NOTHING ? 1 : packet_len(&feed->header) - tail->len;
        if (needs == 0) {
            out->body = bytes_of(tail->data + feed->header.header_len, feed->header.remaining);
            feed->decoder->tail->complete = true;
            return FOUND_PACKET;
        }
        if (in->len == 0) {
            return FOUND_NOTHING;
        }
        struct bytes piece = bytes_of(in->data, needs < in->len ? needs : in->len);
        if (!tail_append(feed->decoder, piece)) {
            return violation(out, MQTT_SERVER_BUSY, "out of memory");
        }
        *in = bytes_from(*in, piece.len);
    }
}

/* A packet that stands whole in *in; the beginning of one is put aside. */
static enum found find_in_place(struct feed *feed, struct bytes *in, struct mqtt_packet *out)
{
    if (in->len == 0) {
        return FOUND_NOTHING;
    }
    enum found found = read_header(feed, *in, out);
    if (found == FOUND_VIOLATION) {
        return found;
    }
    if (found == FOUND_NOTHING || packet_len(&feed->header) > in->len) {
        struct bytes rest = *in;
        *in = BYTES_EMPTY;
        return tail_append(feed->decoder, rest) ? FOUND_NOTHING
                                                : violation(out, MQTT_SERVER_BUSY, "out of memory");
    }
    out->body = bytes_of(in->data + feed->header.header_len, feed->header.remaining);
    *in = bytes_from(*in, packet_len(&feed->header));
    return FOUND_PACKET;
}

/* Replaces an alias by its topic, or remembers the topic that it stands for (3.3.2.3.4). */
static enum mqtt_reason resolve_alias(const struct feed *feed, struct mqtt_publish *publish)
{
    struct mqtt_decoder *decoder = feed->decoder;
    uint16_t alias = publish->topic_alias;
    uint16_t maximum = feed->settings->topic_alias_maximum;
    if (alias == 0) {
        return MQTT_SUCCESS;
    }
    if (alias > maximum) {
        return MQTT_TOPIC_ALIAS_INVALID; /* [MQTT-3.3.2-9] */
    }
    if (decoder->aliases_in == NULL &&
        alias_names_create(maximum, &decoder->aliases_in) != STATUS_OK) {
        return MQTT_SERVER_BUSY;
    }
    if (publish->topic.len != 0) {
        return alias_names_set(decoder->aliases_in, alias, publish->topic) == STATUS_OK
                   ? MQTT_SUCCESS
                   : MQTT_SERVER_BUSY;
    }
    publish->topic = alias_names_get(decoder->aliases_in, alias);
    return publish->topic.len != 0 ? MQTT_SUCCESS : MQTT_PROTOCOL_ERROR;
}

/* What ends the connection, whatever the QoS. */
static enum mqtt_reason check_publish(const struct feed *feed, struct mqtt_publish *publish)
{
    if (publish->qos > feed->settings->qos_max) {
        return MQTT_QOS_NOT_SUPPORTED; /* [MQTT-3.2.2-11] */
    }
    if (publish->retain && !feed->settings->retain_available) {
        return MQTT_RETAIN_NOT_SUPPORTED; /* [MQTT-3.2.2-14] */
    }
    return resolve_alias(feed, publish);
}

static struct message *make_message(const struct mqtt_publish *publish)
{
    struct message *message = NULL;
    if (message_create(publish->topic, publish->forward_len, publish->payload, &message) !=
        STATUS_OK) {
        return NULL;
    }
    struct writer writer = writer_of(message_properties_area(message), publish->forward_len);
    if (publish->forward_len == publish->properties.len) {
        writer_bytes(&writer, publish->properties);
    } else {
        mqtt_publish_forward(publish->properties, &writer);
    }
    ENSURE(writer_ok(&writer) && writer_len(&writer) == publish->forward_len);
    message->qos = publish->qos;
    message->retain = publish->retain;
    if (publish->has_expiry) {
        message->expires_at_ms = UINT64_C(1000) * publish->expiry_s;
    }
    return message;
}

/* What the payload alone decides about a PUBLISH. */
static enum mqtt_reason judge_payload(const struct feed *feed, const struct mqtt_publish *publish)
{
    if (publish->payload.len > feed->settings->payload_bytes_max) {
        return MQTT_IMPLEMENTATION_SPECIFIC_ERROR;
    }
    if (publish->payload_is_utf8 && !utf8_is_valid(publish->payload)) {
        return MQTT_PAYLOAD_FORMAT_INVALID;
    }
    return MQTT_SUCCESS;
}

static enum found take_publish(const struct feed *feed, struct mqtt_packet *out)
{
    struct mqtt_publish publish;
    enum mqtt_reason reason = mqtt_publish_decode(
        out->body, feed->header.flags, (enum mqtt_version)feed->decoder->version, &publish);
    if (reason == MQTT_SUCCESS) {
        reason = check_publish(feed, &publish);
    }
    if (reason != MQTT_SUCCESS) {
        return violation(out, reason, NULL);
    }
    out->qos = publish.qos;
    out->packet_id = publish.packet_id;
    out->payload_bytes = (uint32_t)publish.payload.len;
    out->body = publish.topic;
    out->refusal = (uint8_t)judge_payload(feed, &publish);
    if (out->refusal == MQTT_SUCCESS) {
        out->message = make_message(&publish);
        if (out->message == NULL) {
            out->refusal = MQTT_QUOTA_EXCEEDED;
        }
    }
    return FOUND_PACKET;
}

bool mqtt_decoder_next(struct mqtt_decoder *decoder, const struct mqtt_settings *settings,
                       struct bytes *in, struct mqtt_packet *out)
{
    struct feed feed = {.decoder = decoder, .settings = settings};
    if (decoder->stopped) {
        return false;
    }
    if (decoder->tail != NULL && decoder->tail->complete) {
        drop_tail(decoder);
    }
    *out = (struct mqtt_packet){.why = NULL};
    enum found found =
        decoder->tail != NULL ? find_in_tail(&feed, in, out) : find_in_place(&feed, in, out);
    if (found == FOUND_NOTHING) {
        return false;
    }
    out->type = (uint8_t)feed.header.type;
    if (found == FOUND_PACKET) {
        if (decoder->version == 0) {
            decoder->version = (uint8_t)mqtt_connect_version(out->body);
        } else if (feed.header.type == MQTT_PUBLISH) {
            found = take_publish(&feed, out);
        }
    }
    decoder->stopped = found == FOUND_VIOLATION;
    return true;
}
