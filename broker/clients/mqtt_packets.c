/* The packets of a connected client. */
#include <stdio.h>

#include "mem.h"
#include "mqtt_ack.h"
#include "mqtt_client_state.h"
#include "mqtt_disconnect.h"
#include "mqtt_subscribe.h"
#include "topic.h"

enum { ACK_HEAD_BYTES = 16, SUBACK_HEAD_BYTES = 24, REFUSAL_BYTES_MAX = 96 };

void client_fail_packet(struct mqtt_client *client, uint64_t now_ms, enum mqtt_type type,
                        enum mqtt_reason reason)
{
    char why[96];
    (void)snprintf(why, sizeof why, "%s in %s", mqtt_reason_name(reason), mqtt_type_name(type));
    client_fail(client, now_ms, reason, why);
}

/* The words that go with a refusal: none before MQTT 5, nor to a client that wants none
 * [MQTT-3.1.2-29]. */
static struct bytes words_for(const struct mqtt_client *client, const char *words)
{
    return client->version == MQTT_VERSION_5 && client->takes_problems ? bytes_of_string(words)
                                                                       : BYTES_EMPTY;
}

/* `words` (NULL: none) become the Reason String where the client's Maximum Packet Size leaves room
 * for it [MQTT-3.4.2-2]. */
static void send_ack(struct mqtt_client *client, uint64_t now_ms, enum mqtt_type type,
                     uint16_t packet_id, enum mqtt_reason reason, const char *words)
{
    uint64_t ticket = core_ticket(client->clients->core);
    struct mqtt_ack ack = {
        .packet_id = packet_id, .reason = reason, .reason_string = words_for(client, words)};
    if (!client_takes_size(client, ACK_HEAD_BYTES + ack.reason_string.len)) {
        ack.reason_string = BYTES_EMPTY;
    }
    struct writer writer = client_control_begin(client, ACK_HEAD_BYTES + ack.reason_string.len);
    mqtt_ack_encode(&writer, type, (enum mqtt_version)client->version, &ack);
    client_control_send(client, now_ms, &writer, ticket);
}

/* A QoS 2 message more than we have announced to take. */
static bool exceeds_receive_maximum(const struct mqtt_client *client,
                                    const struct mqtt_packet *packet)
{
    return packet->qos == 2 && client->version == MQTT_VERSION_5 &&
           core_unreleased_count(client->session) >= client->settings->receive_maximum &&
           !core_is_unreleased(client->session, packet->packet_id);
}

/* What publish_message answered, in words; NULL when it was no refusal. */
static const char *publish_words(enum mqtt_reason reason)
{
    switch (reason) {
    case MQTT_NOT_AUTHORIZED:
        return "not allowed to publish to this topic";
    case MQTT_IMPLEMENTATION_SPECIFIC_ERROR:
        return "the payload is larger than message_size_limit";
    case MQTT_PAYLOAD_FORMAT_INVALID:
        return "the payload is not the UTF-8 text that it is declared to be";
    case MQTT_TOPIC_NAME_INVALID:
        return "the topic has more levels than max_topic_levels";
    case MQTT_QUOTA_EXCEEDED:
        return "no room for this message";
    default:
        return NULL;
    }
}

/* What is answered in PUBACK or PUBREC. */
static enum mqtt_reason publish_message(struct mqtt_client *client, uint64_t now_ms,
                                        const struct mqtt_packet *packet, struct bytes topic)
{
    struct access_rights *rights = client_rights(client);
    if (!access_may_publish(topic) || (rights != NULL && !access_may_write(rights, topic))) {
        return MQTT_NOT_AUTHORIZED;
    }
    if (packet->message == NULL) {
        return (enum mqtt_reason)packet->refusal;
    }
    struct core *core = client->clients->core;
    return packet->qos == 2 ? core_publish_qos2(core, now_ms, client->session, packet->packet_id,
                                                packet->message)
                            : core_publish(core, now_ms, client->session, packet->message);
}

static void on_publish(struct mqtt_client *client, uint64_t now_ms,
                       const struct mqtt_packet *packet)
{
    if (exceeds_receive_maximum(client, packet)) {
        client_fail_packet(client, now_ms, MQTT_PUBLISH,
                           MQTT_RECEIVE_MAXIMUM_EXCEEDED); /* [MQTT-3.3.4-7] */
        message_release(packet->message);
        return;
    }
    client_count_expiry(packet, now_ms);
    struct bytes topic = packet->message != NULL ? message_topic(packet->message) : packet->body;
    client->clients->stats.publish_received++;
    client->clients->stats.publish_bytes_received += packet->payload_bytes;
    enum mqtt_reason reason = publish_message(client, now_ms, packet, topic);
    if (reason >= MQTT_UNSPECIFIED_ERROR && !client->told_refused) {
        client->told_refused = true;
        client->clients->host.on_publish_refused(client->link, &client->base, topic, reason);
    }
    message_release(packet->message);
    if (reason == MQTT_QUOTA_EXCEEDED && packet->qos != 0 && client->version != MQTT_VERSION_5) {
        /* Before MQTT 5 an acknowledgement cannot refuse, and would be a promise. */
        client_fail(client, now_ms, reason, "no room for what it publishes");
    } else if (packet->qos != 0) {
        client_count_uncommitted(client, core_ticket(client->clients->core), packet->payload_bytes);
        send_ack(client, now_ms, packet->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, packet->packet_id,
                 reason, publish_words(reason));
    } else if (reason == MQTT_PAYLOAD_FORMAT_INVALID || reason == MQTT_TOPIC_NAME_INVALID) {
        client_fail_packet(client, now_ms, MQTT_PUBLISH, reason);
    }
}

static void on_ack(struct mqtt_client *client, uint64_t now_ms, enum mqtt_type type,
                   struct bytes body)
{
    struct core *core = client->clients->core;
    struct mqtt_ack ack;
    enum mqtt_reason reason = mqtt_ack_decode(body, type, (enum mqtt_version)client->version, &ack);
    if (reason != MQTT_SUCCESS) {
        client_fail_packet(client, now_ms, type, reason);
        return;
    }
    bool refused = false;
    bool known = false;
    switch (type) {
    case MQTT_PUBACK: /* one that nothing waits for may follow a repetition: it is ignored */
        (void)core_puback(core, client->session, ack.packet_id);
        break;
    case MQTT_PUBREC:
        known = core_pubrec(core, client->session, ack.packet_id, ack.reason, &refused);
        if (!refused && ack.reason < MQTT_UNSPECIFIED_ERROR) {
            send_ack(client, now_ms, MQTT_PUBREL, ack.packet_id,
                     known ? MQTT_SUCCESS : MQTT_PACKET_IDENTIFIER_NOT_FOUND, NULL);
        }
        break;
    case MQTT_PUBREL:
        /* After a reconnection a client repeats a PUBREL whose PUBCOMP was lost: that is no mistake
         * (3.6.2.1), and clients take 0x92 for a failed publication. */
        known = core_release(core, client->session, ack.packet_id) || client->resumed;
        send_ack(client, now_ms, MQTT_PUBCOMP, ack.packet_id,
                 known ? MQTT_SUCCESS : MQTT_PACKET_IDENTIFIER_NOT_FOUND, NULL);
        break;
    default:
        (void)core_pubcomp(core, client->session, ack.packet_id);
        break;
    }
}

/* The first refused entry of a SUBSCRIBE or UNSUBSCRIBE, by its number and in words. */
static const char *entry_words(struct bytes reasons, char words[REFUSAL_BYTES_MAX])
{
    for (size_t i = 0; i < reasons.len; i++) {
        if (reasons.data[i] >= MQTT_UNSPECIFIED_ERROR) {
            const char *name = mqtt_reason_name((enum mqtt_reason)reasons.data[i]);
            (void)snprintf(words, REFUSAL_BYTES_MAX, "entry %zu: %s", i + 1, name);
            return words;
        }
    }
    return NULL;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Answers with one reason code for each entry. */
static void send_suback(struct mqtt_client *client, uint64_t now_ms, enum mqtt_type type,
                        uint16_t packet_id, struct bytes reasons, uint64_t ticket)
{
    char words[REFUSAL_BYTES_MAX];
    struct mqtt_suback suback = {
        .packet_id = packet_id,
        .reasons = reasons,
        .reason_string = words_for(client, entry_words(reasons, words)),
    };
    size_t size = SUBACK_HEAD_BYTES + reasons.len + suback.reason_string.len;
    if (!client_takes_size(client, size)) {
        suback.reason_string = BYTES_EMPTY; /* [MQTT-3.9.2-1] */
    }
    struct writer writer = client_control_begin(client, size);
    mqtt_suback_encode(&writer, type, (enum mqtt_version)client->version, &suback);
    client_control_send(client, now_ms, &writer, ticket);
}

static void on_subscribe(struct mqtt_client *client, uint64_t now_ms, struct bytes body)
{
    const struct client_host *host = &client->clients->host;
    struct mqtt_subscribe subscribe;
    enum mqtt_reason reason =
        mqtt_subscribe_decode(body, (enum mqtt_version)client->version, &subscribe);
    if (reason != MQTT_SUCCESS) {
        client_fail_packet(client, now_ms, MQTT_SUBSCRIBE, reason);
        return;
    }
    if (subscribe.count > ENTRIES_MAX) {
        client_fail(client, now_ms, MQTT_QUOTA_EXCEEDED, "too many entries in one SUBSCRIBE");
        return;
    }
    uint16_t packet_id = subscribe.packet_id;
    uint8_t *reasons = mem_alloc(subscribe.count);
    if (reasons == NULL) {
        client_fail(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    size_t count = 0;
    uint64_t ticket = 0;
    struct mqtt_subscription entry;
    while (mqtt_subscribe_next(&subscribe, &entry)) {
        struct core_subscribe request = {
            .filter = entry.filter,
            .identifier = subscribe.identifier,
            .qos = entry.qos < client->settings->qos_max ? entry.qos : client->settings->qos_max,
            /* A bridge of mosquitto must not get its own messages back, and keeps the retain flag.
             */
            .no_local = entry.no_local || client->is_bridge,
            .retain_as_published = entry.retain_as_published || client->is_bridge,
            .retain_handling = entry.retain_handling,
        };
        reason = MQTT_NOT_AUTHORIZED;
        if (access_may_subscribe(client_rights(client), entry.filter) &&
            !access_is_hidden(entry.filter)) {
            reason = core_subscribe(client->clients->core, now_ms, client->session, &request);
            ticket = later(ticket, core_ticket(client->clients->core));
        }
        host->on_subscribe(client->link, &client->base, entry.filter, reason);
        reasons[count++] = (uint8_t)reason;
    }
    send_suback(client, now_ms, MQTT_SUBACK, packet_id, bytes_of(reasons, count), ticket);
    mem_free(reasons);
}

static void on_unsubscribe(struct mqtt_client *client, uint64_t now_ms, struct bytes body)
{
    const struct client_host *host = &client->clients->host;
    struct mqtt_subscribe unsubscribe;
    enum mqtt_reason reason =
        mqtt_unsubscribe_decode(body, (enum mqtt_version)client->version, &unsubscribe);
    if (reason != MQTT_SUCCESS) {
        client_fail_packet(client, now_ms, MQTT_UNSUBSCRIBE, reason);
        return;
    }
    if (unsubscribe.count > ENTRIES_MAX) {
        client_fail(client, now_ms, MQTT_QUOTA_EXCEEDED, "too many entries in one UNSUBSCRIBE");
        return;
    }
    uint16_t packet_id = unsubscribe.packet_id;
    uint8_t *reasons = mem_alloc(unsubscribe.count);
    if (reasons == NULL) {
        client_fail(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    size_t count = 0;
    uint64_t ticket = 0;
    struct bytes filter;
    while (mqtt_unsubscribe_next(&unsubscribe, &filter)) {
        reason = core_unsubscribe(client->clients->core, client->session, filter);
        host->on_unsubscribe(client->link, &client->base, filter);
        reasons[count++] = (uint8_t)reason;
        ticket = later(ticket, core_ticket(client->clients->core));
    }
    send_suback(client, now_ms, MQTT_UNSUBACK, packet_id, bytes_of(reasons, count), ticket);
    mem_free(reasons);
}

static void on_disconnect(struct mqtt_client *client, uint64_t now_ms, struct bytes body)
{
    struct mqtt_disconnect disconnect;
    enum mqtt_reason reason =
        mqtt_disconnect_decode(body, (enum mqtt_version)client->version, &disconnect);
    if (reason == MQTT_SUCCESS && disconnect.has_session_expiry &&
        disconnect.session_expiry_s != 0 && client->expires_at_once) {
        reason = MQTT_PROTOCOL_ERROR; /* 3.14.2.2.2 */
    }
    if (reason != MQTT_SUCCESS) {
        client_fail_packet(client, now_ms, MQTT_DISCONNECT, reason);
        return;
    }
    if (disconnect.has_session_expiry) {
        core_session_set_expiry(client->clients->core, client->session,
                                disconnect.session_expiry_s);
    }
    if (disconnect.reason == MQTT_NORMAL_DISCONNECTION) {
        client_leave(client, now_ms, LEAVE_WITHOUT_WILL, MQTT_NORMAL_DISCONNECTION,
                     "the client sent DISCONNECT");
        return;
    }
    char why[96];
    (void)snprintf(why, sizeof why, "the client sent DISCONNECT: %s",
                   mqtt_reason_name(disconnect.reason));
    client_leave(client, now_ms, LEAVE_WITH_WILL, MQTT_NORMAL_DISCONNECTION, why);
}

static void on_pingreq(struct mqtt_client *client, uint64_t now_ms, struct bytes body)
{
    if (body.len != 0) {
        client_fail_packet(client, now_ms, MQTT_PINGREQ, MQTT_MALFORMED_PACKET);
        return;
    }
    client->pings_due++;
    client->clients->host.wake(client->link);
}

void client_on_packet(struct mqtt_client *client, uint64_t now_ms, const struct mqtt_packet *packet)
{
    enum mqtt_type type = (enum mqtt_type)packet->type;
    struct bytes body = packet->body;
    switch (type) {
    case MQTT_PUBLISH:
        on_publish(client, now_ms, packet);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        on_ack(client, now_ms, type, body);
        break;
    case MQTT_SUBSCRIBE:
        on_subscribe(client, now_ms, body);
        break;
    case MQTT_UNSUBSCRIBE:
        on_unsubscribe(client, now_ms, body);
        break;
    case MQTT_PINGREQ:
        on_pingreq(client, now_ms, body);
        break;
    case MQTT_DISCONNECT:
        on_disconnect(client, now_ms, body);
        break;
    default:
        /* A second CONNECT [MQTT-3.1.0-2], AUTH without a method [MQTT-4.12.0-6], a server's
         * packet, or AUTH before MQTT 5. */
        client_fail_packet(client, now_ms, type, MQTT_PROTOCOL_ERROR);
        break;
    }
}
