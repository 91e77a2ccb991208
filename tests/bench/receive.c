#include "net_internal.h"

#include <string.h>

#define CONTROL_PAYLOAD_MAX 125

enum frame_opcode { FRAME_CLOSE = 8, FRAME_PING = 9, FRAME_PONG = 10 };

struct packet {
    uint8_t type;
    uint8_t flags;
    uint16_t id;          /* of a PUBLISH at QoS 1 and 2, and of acknowledgements */
    size_t total;         /* bytes of the whole packet */
    const uint8_t *stamp; /* of a PUBLISH */
    const uint8_t *body;
    size_t body_len; /* of `body`, as much of it as is there */
};

static void answer(struct client *client, enum packet_type type, uint16_t id)
{
    uint8_t *to = client_begin(client, 4);
    to[0] = (uint8_t)(type << 4 | (type == PACKET_PUBREL ? 2 : 0));
    to[1] = 2;
    to[2] = (uint8_t)(id >> 8);
    to[3] = (uint8_t)id;
    client_end(client);
}

static void on_publish(struct client *client, const struct packet *packet)
{
    unsigned qos = packet->flags >> 1 & 3;
    client->net->handlers.on_delivery(client->net->context, client, packet->stamp);
    if (qos != 0) {
        answer(client, qos == 1 ? PACKET_PUBACK : PACKET_PUBREC, packet->id);
    }
}

/* A server that sets Receive Maximum closes a connection that has more unacknowledged messages
 * (MQTT 5.0 4.9). */
static void read_receive_maximum(struct client *client, const struct packet *packet)
{
    if (client->net->options.version != 5 || packet->body_len < 3) {
        return;
    }
    /* The lengths of properties before it vary; the ones that servers send first are all fixed. */
    static const uint8_t fixed_lengths[256] = {
        [0x11] = 4, [0x13] = 2, [0x21] = 2, [0x22] = 2, [0x24] = 1,
        [0x25] = 1, [0x27] = 4, [0x28] = 1, [0x29] = 1, [0x2a] = 1,
    };
    size_t at = 3;
    while (at + 2 < packet->body_len && fixed_lengths[packet->body[at]] != 0) {
        if (packet->body[at] == 0x21) {
            client->receive_maximum =
                (uint16_t)((unsigned)packet->body[at + 1] << 8 | packet->body[at + 2]);
            return;
        }
        at += 1u + fixed_lengths[packet->body[at]];
    }
}

static void on_connack(struct client *client, const struct packet *packet)
{
    if (packet->body_len < 2 || packet->body[1] != 0) {
        die("client %u was refused with code %d", client->index,
            packet->body_len < 2 ? -1 : packet->body[1]);
    }
    read_receive_maximum(client, packet);
    if (client->setup.len == 0) {
        client_ready(client);
        return;
    }
    client->state = CLIENT_SETUP;
    client_send(client, &client->setup);
}

static void on_control(struct client *client, const struct packet *packet)
{
    switch (packet->type) {
    case PACKET_CONNACK:
        on_connack(client, packet);
        break;
    case PACKET_SUBACK:
        if (packet->body_len > 2 && packet->body[packet->body_len - 1] >= 0x80) {
            die("a subscription was refused with code %d", packet->body[packet->body_len - 1]);
        }
        if (client->setup_acks != 0 && --client->setup_acks == 0) {
            client_ready(client);
        }
        break;
    case PACKET_PUBREC:
        answer(client, PACKET_PUBREL, packet->id);
        break;
    case PACKET_PUBREL:
        answer(client, PACKET_PUBCOMP, packet->id);
        break;
    case PACKET_PUBACK:
    case PACKET_PUBCOMP:
        client->net->handlers.on_acknowledged(client->net->context, client);
        break;
    case PACKET_DISCONNECT:
        client_lost(client, "the broker sent DISCONNECT");
        break;
    default:
        break;
    }
}

/* Decodes a Remaining Length or property length at `p`. Returns its length in bytes, 0 when
 * unfinished. */
static inline size_t variable_length(const uint8_t *p, size_t n, size_t *value)
{
    size_t sum = 0;
    for (size_t i = 0; i < n && i < 4; i++) {
        sum |= (size_t)(p[i] & 127) << 7 * i;
        if (p[i] < 128) {
            *value = sum;
            return i + 1;
        }
    }
    return 0;
}

/* Everything of a PUBLISH before its payload, and the payload's stamp. */
static bool parse_publish(const struct client *client, const uint8_t *p, size_t n,
                          struct packet *packet)
{
    size_t at = packet->total - packet->body_len;
    if (n < at + 2) {
        return false;
    }
    at += 2 + ((size_t)p[at] << 8 | p[at + 1]);
    if ((packet->flags & 6) != 0) {
        if (n < at + 2) {
            return false;
        }
        packet->id = (uint16_t)((unsigned)p[at] << 8 | p[at + 1]);
        at += 2;
    }
    if (client->net->options.version == 5) {
        size_t properties_len = 0;
        size_t digits = n <= at ? 0 : variable_length(p + at, n - at, &properties_len);
        if (digits == 0) {
            return false;
        }
        at += digits + properties_len;
    }
    bool stamped = at + STAMP_BYTES <= packet->total;
    size_t need = stamped ? at + STAMP_BYTES : packet->total;
    if (need > HEAD_BYTES) {
        die("the head of a message has %zu bytes", need);
    }
    packet->stamp = stamped ? p + at : NULL;
    return n >= need;
}

/* The packet that starts at `p`; false when not enough of it is there. Enough is at most
 * HEAD_BYTES. */
static bool parse(const struct client *client, const uint8_t *p, size_t n, struct packet *packet)
{
    size_t remaining = 0;
    size_t digits = n < 2 ? 0 : variable_length(p + 1, n - 1, &remaining);
    if (digits == 0) {
        return false;
    }
    packet->type = p[0] >> 4;
    packet->id = 0;
    packet->flags = p[0] & 15;
    packet->total = 1 + digits + remaining;
    packet->body_len = remaining;
    if (packet->type == PACKET_PUBLISH) {
        return parse_publish(client, p, n, packet);
    }
    size_t need = packet->total < HEAD_BYTES ? packet->total : HEAD_BYTES;
    packet->body = p + 1 + digits;
    packet->body_len = need - 1 - digits;
    if (n < need) {
        return false;
    }
    packet->id =
        packet->body_len >= 2 ? (uint16_t)((unsigned)packet->body[0] << 8 | packet->body[1]) : 0;
    return true;
}

static inline void handle(struct client *client, const struct packet *packet)
{
    if (packet->type == PACKET_PUBLISH) {
        on_publish(client, packet);
    } else {
        on_control(client, packet);
    }
}

/* Continues an unfinished head with `n` new bytes. Returns how many of them it used. */
static size_t feed_head(struct client *client, const uint8_t *p, size_t n)
{
    size_t old = client->head_len;
    size_t take = n < HEAD_BYTES - old ? n : HEAD_BYTES - old;
    memcpy(client->head + old, p, take);
    struct packet packet;
    if (!parse(client, client->head, old + take, &packet)) {
        client->head_len = (uint16_t)(old + take);
        return take;
    }
    client->head_len = 0;
    handle(client, &packet);
    size_t have = old + take < packet.total ? old + take : packet.total;
    client->skip = packet.total - have;
    return have - old;
}

static void feed(struct client *client, const uint8_t *p, size_t n)
{
    while (n != 0 && client->fd >= 0) {
        size_t used = n;
        struct packet packet;
        if (client->skip != 0) {
            used = client->skip < n ? (size_t)client->skip : n;
            client->skip -= used;
        } else if (client->head_len != 0) {
            used = feed_head(client, p, n);
        } else if (parse(client, p, n, &packet)) {
            used = packet.total < n ? packet.total : n;
            client->skip = packet.total - used;
            handle(client, &packet);
        } else {
            memcpy(client->head, p, n);
            client->head_len = (uint16_t)n;
        }
        p += used;
        n -= used;
    }
}

/* `payload` is taken to be in one piece: a broker writes a ping of a few bytes at once. */
static void control_frame(struct client *client, const uint8_t *payload, size_t len)
{
    if (client->frame_opcode == FRAME_CLOSE) {
        client_lost(client, "the broker closed the WebSocket");
    } else if (client->frame_opcode == FRAME_PING && len <= CONTROL_PAYLOAD_MAX) {
        uint8_t pong[FRAME_HEAD_MAX + CONTROL_PAYLOAD_MAX];
        if (len != 0) {
            memcpy(pong + FRAME_HEAD_MAX, payload, len);
        }
        size_t head_len = frame_encode(pong + FRAME_HEAD_MAX, len, FRAME_PONG);
        client_flush(client);
        client_write(client, pong + FRAME_HEAD_MAX - head_len, head_len + len);
    }
}

/* The head of a server's frame at `p`. Returns its length, 0 when unfinished. */
static size_t parse_frame_head(struct client *client, const uint8_t *p, size_t n)
{
    size_t head_len = 2;
    uint64_t len = n < 2 ? 0 : p[1];
    if (len >= 126) {
        head_len = len == 126 ? 4 : 10;
    }
    if (n < head_len) {
        return 0;
    }
    if (head_len > 2) {
        len = 0;
        for (size_t i = 2; i < head_len; i++) {
            len = len << 8 | p[i];
        }
    }
    client->frame_opcode = p[0] & 15;
    client->frame_left = len;
    return head_len;
}

static size_t feed_frame_head(struct client *client, const uint8_t *p, size_t n)
{
    size_t used = 0;
    if (client->frame_head_len == 0) {
        used = parse_frame_head(client, p, n);
    }
    while (used < n && (client->frame_head_len != 0 || used == 0)) {
        client->frame_head[client->frame_head_len++] = p[used++];
        if (parse_frame_head(client, client->frame_head, client->frame_head_len) != 0) {
            client->frame_head_len = 0;
            break;
        }
    }
    if (client->frame_head_len == 0 && client->frame_left == 0 && client->frame_opcode >= 8) {
        control_frame(client, NULL, 0);
    }
    return used;
}

static void feed_frames(struct client *client, const uint8_t *p, size_t n)
{
    while (n != 0 && client->fd >= 0) {
        size_t used;
        if (client->frame_left == 0) {
            used = feed_frame_head(client, p, n);
        } else {
            used = client->frame_left < n ? (size_t)client->frame_left : n;
            client->frame_left -= used;
            if (client->frame_opcode < 8) {
                feed(client, p, used);
            } else if (client->frame_left == 0) {
                control_frame(client, p, used);
            }
        }
        p += used;
        n -= used;
    }
}

/* The answer to the upgrade ends with an empty line; a broker may put frames right behind it. */
static void feed_upgrade(struct client *client, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        /* Only the first bytes and the last four matter. */
        if (client->head_len == HEAD_BYTES) {
            memmove(client->head + 16, client->head + HEAD_BYTES - 4, 4);
            client->head_len = 20;
        }
        client->head[client->head_len++] = p[i];
        if (client->head_len >= 16 &&
            memcmp(client->head + client->head_len - 4, "\r\n\r\n", 4) == 0) {
            if (memcmp(client->head, "HTTP/1.1 101", 12) != 0) {
                die("the upgrade was answered with %.12s", (const char *)client->head);
            }
            client->head_len = 0;
            client_send_connect(client);
            feed_frames(client, p + i + 1, n - i - 1);
            return;
        }
    }
}

void client_received(struct client *client, uint8_t *data, size_t len)
{
    struct net *net = client->net;
    if (net->timed) {
        net->now_ns = clock_ns();
    }
    if (client->state == CLIENT_UPGRADE) {
        feed_upgrade(client, data, len);
    } else if (net->websocket) {
        feed_frames(client, data, len);
    } else {
        feed(client, data, len);
    }
}
