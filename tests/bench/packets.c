#include "packets.h"

#include <string.h>

#define KEEP_ALIVE_S 600
#define SESSION_EXPIRY_S 3600

static void put_u8(struct buffer *to, uint8_t value)
{
    *buffer_extend(to, 1) = value;
}

static void put_u16(struct buffer *to, size_t value)
{
    put_u8(to, (uint8_t)(value >> 8));
    put_u8(to, (uint8_t)value);
}

static void put_string(struct buffer *to, const char *string)
{
    put_u16(to, strlen(string));
    buffer_append(to, string, strlen(string));
}

static void put_head(struct buffer *to, uint8_t first, size_t remaining)
{
    put_u8(to, first);
    do {
        uint8_t digit = (uint8_t)(remaining & 127);
        remaining >>= 7;
        put_u8(to, remaining != 0 ? (uint8_t)(digit | 128) : digit);
    } while (remaining != 0);
}

void packet_connect(struct buffer *to, const struct connect_packet *packet)
{
    struct buffer body = {NULL, 0, 0};
    put_string(&body, "MQTT");
    put_u8(&body, packet->version);
    put_u8(&body, packet->persistent ? 0 : 2);
    put_u16(&body, KEEP_ALIVE_S);
    if (packet->version == 5) {
        put_u8(&body, packet->persistent ? 5 : 0);
        if (packet->persistent) {
            put_u8(&body, 0x11);
            put_u16(&body, 0);
            put_u16(&body, SESSION_EXPIRY_S);
        }
    }
    put_string(&body, packet->client_id);
    put_head(to, PACKET_CONNECT << 4, body.len);
    buffer_append(to, body.data, body.len);
    buffer_fini(&body);
}

struct publish_layout packet_publish(struct buffer *to, const struct publish_packet *packet)
{
    size_t topic_len = strlen(packet->topic);
    size_t remaining = 2 + topic_len + (packet->qos != 0 ? 2u : 0u) +
                       (packet->version == 5 ? 1u : 0u) + packet->payload_len;
    size_t start = to->len;
    put_head(to, (uint8_t)(PACKET_PUBLISH << 4 | packet->qos << 1 | (packet->retain ? 1 : 0)),
             remaining);
    struct publish_layout layout = {.topic_at = to->len + 2 - start};
    put_string(to, packet->topic);
    if (packet->qos != 0) {
        layout.id_at = to->len - start;
        put_u16(to, 1);
    }
    if (packet->version == 5) {
        put_u8(to, 0);
    }
    layout.payload_at = to->len - start;
    memset(buffer_extend(to, packet->payload_len), 'x', packet->payload_len);
    return layout;
}

void packet_disconnect(struct buffer *to)
{
    put_head(to, PACKET_DISCONNECT << 4, 0);
}

void packet_subscribe(struct buffer *to, uint8_t version, const struct buffer *filters)
{
    put_head(to, PACKET_SUBSCRIBE << 4 | 2, filters->len + (version == 5 ? 3u : 2u));
    put_u16(to, 1);
    if (version == 5) {
        put_u8(to, 0);
    }
    buffer_append(to, filters->data, filters->len);
}

void packet_filter(struct buffer *filters, const char *filter, uint8_t qos)
{
    put_string(filters, filter);
    put_u8(filters, qos);
}
