#include "message.h"

#include "mem.h"

static void message_destroy(struct shared *object)
{
    mem_free(object);
}

enum status message_create(struct bytes topic, size_t properties_len, struct bytes payload,
                           struct message **out)
{
    *out = NULL;
    if (topic.len > UINT16_MAX || properties_len > UINT32_MAX || payload.len > UINT32_MAX) {
        return STATUS_LIMIT;
    }
    struct message *message = mem_alloc(sizeof *message + topic.len + properties_len + payload.len);
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
    bytes_copy(message->data, topic);
    if (payload.data != NULL) {
        bytes_copy(message_payload_area(message), payload);
    }
    *out = message;
    return STATUS_OK;
}
