#include "message.h"

#include "mem_pool.h"
#include "mqtt.h"

/* The structure is written as a whole, with its padding behind data. */
static size_t block_bytes(size_t size)
{
    return size < sizeof(struct message) ? sizeof(struct message) : size;
}

static void message_destroy(struct shared *object)
{
    const struct message *message = (const struct message *)(void *)object;
    mem_pool_free(object, block_bytes(message_size(message)));
}

static void write_head(struct message *message)
{
    size_t remaining = 2 + (size_t)message->topic_len + message->payload_len;
    if (message->properties_len != 0 || remaining > MQTT_REMAINING_LENGTH_MAX) {
        return;
    }
    message->head_len = (uint8_t)(1 + mqtt_varint_len((uint32_t)remaining) + 2);
    struct writer writer =
        writer_of(message->head + MESSAGE_HEAD_MAX - message->head_len, message->head_len);
    mqtt_header_encode(&writer, MQTT_PUBLISH, 0, (uint32_t)remaining);
    writer_u16(&writer, message->topic_len);
    ENSURE(writer_ok(&writer) && writer_room(&writer) == 0);
}

enum status message_create(struct bytes topic, size_t properties_len, struct bytes payload,
                           struct message **out)
{
    *out = NULL;
    if (topic.len > UINT16_MAX || properties_len > UINT32_MAX || payload.len > UINT32_MAX) {
        return STATUS_LIMIT;
    }
    size_t size = offsetof(struct message, data) + topic.len + properties_len + payload.len;
    struct message *message = mem_pool_alloc(block_bytes(size));
    if (message == NULL) {
        return STATUS_NO_MEMORY;
    }
    *message = (struct message){
        .shared = {.references = 1, .destroy = message_destroy},
        .expires_at_ms = MESSAGE_EXPIRES_NEVER,
        .payload_len = (uint32_t)payload.len,
        .properties_len = (uint32_t)properties_len,
        .topic_len = (uint16_t)topic.len,
    };
    write_head(message);
    bytes_copy(message->data, topic);
    if (payload.data != NULL) {
        bytes_copy(message_payload_area(message), payload);
    }
    *out = message;
    return STATUS_OK;
}
