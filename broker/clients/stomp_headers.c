/* Headers of SEND to the properties of a message, and back to headers of MESSAGE. */
#include "stomp_client_state.h"

#include "utf8.h"

/* What says something about the frame or the broker, not about the message. */
static const char *const own_of_send[] = {
    "destination", "content-length", "content-type",   "receipt",
    "transaction", "reply-to",       "correlation-id", "expiration",
    "expires",     "retain",         "message-id",     "subscription",
    "ack",         "redelivered",    "login",          "passcode",
};

/* What a user property may not pass for in a MESSAGE. */
static const char *const own_of_message[] = {
    "destination", "content-length", "content-type", "message-id",     "subscription",
    "ack",         "redelivered",    "reply-to",     "correlation-id", "receipt-id",
    "retain",      "expiration",     "receipt",      "transaction",
};

static bool is_one_of(struct bytes name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes_equal_string(name, names[i])) {
            return true;
        }
    }
    return false;
}

/* The first header of a name counts, so that repeated ones are left out. */
static bool is_first(const struct stomp_frame *frame, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (bytes_equal(frame->headers[i].name, frame->headers[index].name)) {
            return false;
        }
    }
    return true;
}

void stomp_write_properties(struct writer *writer, const struct stomp_frame *frame,
                            struct bytes reply_topic)
{
    struct bytes value;
    if (stomp_frame_header(frame, "content-type", &value)) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_CONTENT_TYPE, value);
    }
    if (reply_topic.len != 0) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_RESPONSE_TOPIC, reply_topic);
    } else if (stomp_frame_header(frame, "reply-to", &value)) {
        mqtt_property_write_pair(writer, bytes_of_string("reply-to"), value);
    }
    if (stomp_frame_header(frame, "correlation-id", &value)) {
        mqtt_property_write_bytes(writer, MQTT_PROPERTY_CORRELATION_DATA, value);
    }
    for (size_t i = 0; i < frame->header_count; i++) {
        const struct stomp_header *header = &frame->headers[i];
        if (!is_one_of(header->name, own_of_send, sizeof own_of_send / sizeof *own_of_send) &&
            is_first(frame, i)) {
            mqtt_property_write_pair(writer, header->name, header->value);
        }
    }
}

size_t stomp_properties_room(struct bytes properties)
{
    /* Escapes double a text, a topic may grow by half as much again; names stand in the place of an
     * identifier and a length. */
    return 4 * properties.len + 64;
}

static void write_reply_to(struct writer *writer, enum stomp_version version,
                           enum stomp_style style, struct bytes topic)
{
    uint8_t text[STOMP_HEAD_BYTES_MAX];
    struct writer destination = writer_of(text, sizeof text);
    stomp_destination_write(topic, style, &destination);
    if (writer_ok(&destination)) {
        stomp_write_header(writer, version, bytes_of_string("reply-to"),
                           writer_written(&destination));
    }
}

void stomp_write_message_headers(struct writer *writer, enum stomp_version version,
                                 enum stomp_style style, struct bytes properties)
{
    struct mqtt_properties list;
    struct mqtt_property property;
    mqtt_properties_open_raw(&list, properties, MQTT_PLACE_PUBLISH);
    while (mqtt_properties_next(&list, &property)) {
        switch (property.id) {
        case MQTT_PROPERTY_CONTENT_TYPE:
            stomp_write_header(writer, version, bytes_of_string("content-type"), property.value);
            break;
        case MQTT_PROPERTY_RESPONSE_TOPIC:
            write_reply_to(writer, version, style, property.value);
            break;
        case MQTT_PROPERTY_CORRELATION_DATA: /* bytes that are no text have no header */
            if (utf8_is_valid_string(property.value)) {
                stomp_write_header(writer, version, bytes_of_string("correlation-id"),
                                   property.value);
            }
            break;
        case MQTT_PROPERTY_USER_PROPERTY:
            if (!is_one_of(property.name, own_of_message,
                           sizeof own_of_message / sizeof *own_of_message) ||
                bytes_equal_string(property.name, "reply-to")) {
                stomp_write_header(writer, version, property.name, property.value);
            }
            break;
        default:
            break;
        }
    }
}
