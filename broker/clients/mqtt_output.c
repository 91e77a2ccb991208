/* What goes to a client: control packets first, then deliveries, one flush at a time. */
#include "mem.h"
#include "mqtt_ack.h"
#include "mqtt_client_state.h"
#include "mqtt_disconnect.h"
#include "mqtt_publish.h"

static void set_paused(struct mqtt_client *client, bool paused)
{
    if (client->is_paused != paused) {
        client->is_paused = paused;
        client->clients->host.set_reading(client->link, !paused);
    }
}

void client_count_uncommitted(struct mqtt_client *client, uint64_t ticket, size_t bytes)
{
    if (control_count_uncommitted(&client->clients->control_hub, ticket, bytes)) {
        set_paused(client, true); /* until its answers are gone */
    }
}

struct writer client_control_begin(struct mqtt_client *client, size_t len)
{
    return control_begin(&client->control, &client->clients->control_hub, client->link, len);
}

bool client_control_end(struct mqtt_client *client, const struct writer *writer, uint64_t ticket)
{
    if (!writer_ok(writer) || !control_end(client->control, writer, ticket)) {
        return false;
    }
    if (client->control->len > CONTROL_BYTES_PAUSE) {
        set_paused(client, true);
    }
    client->clients->stats.packets_sent++;
    client->clients->host.wake(client->link);
    return true;
}

bool client_takes_size(const struct mqtt_client *client, size_t len)
{
    const struct client_extra *extra = client->extra;
    return extra == NULL || extra->packet_bytes_max == 0 || len <= extra->packet_bytes_max;
}

void client_control_send(struct mqtt_client *client, uint64_t now_ms, const struct writer *writer,
                         uint64_t ticket)
{
    if (writer_ok(writer) && !client_takes_size(client, writer_len(writer))) {
        client_fail(client, now_ms, MQTT_PACKET_TOO_LARGE,
                    "its Maximum Packet Size does not leave room for an answer"); /* 3.1.2.11.4 */
        return;
    }
    if (!client_control_end(client, writer, ticket)) {
        client_leave(client, now_ms, LEAVE_WITH_WILL, MQTT_SERVER_BUSY, "out of memory");
    }
}

/* A topic worth an alias is longer than the three bytes of the property. */
enum { ALIAS_TOPIC_MIN = 4 };

/* Chooses an alias for the topic, when the client takes aliases. True when one was newly set up. */
static bool choose_alias(struct mqtt_client *client, struct mqtt_publish_out *publish)
{
    struct client_extra *extra = client->extra;
    if (extra == NULL || extra->alias_maximum == 0 || publish->topic.len < ALIAS_TOPIC_MIN) {
        return false;
    }
    if (extra->aliases_out == NULL &&
        alias_choices_create(extra->alias_maximum, &extra->aliases_out) != STATUS_OK) {
        return false;
    }
    bool is_known = false;
    publish->topic_alias = alias_choices_of(extra->aliases_out, publish->topic, &is_known);
    if (is_known) {
        publish->topic = BYTES_EMPTY;
    }
    return publish->topic_alias != 0 && !is_known;
}

static void count_publish(struct mqtt_client *client, const struct message *message)
{
    client->clients->stats.packets_sent++;
    client->clients->stats.publish_sent++;
    client->clients->stats.publish_bytes_sent += message->payload_len;
}

/* Writes the packet that the message has encoded already with `between` bytes more in front of the
 * payload: a packet identifier unless it is 0, and, for MQTT 5, the length of no properties. */
static void put_with_room(uint8_t *at, const struct message *message, size_t between,
                          uint16_t packet_id)
{
    struct bytes packet = message_packet(message);
    size_t front = packet.len - message->payload_len;
    size_t remaining = packet.len - message->head_len + 2 + between;
    struct writer length = writer_of(at + 1, message->head_len - 3U);
    memcpy(at, packet.data, front);
    mqtt_varint_write(&length, (uint32_t)remaining);
    uint8_t *behind = at + front + between;
    behind[-1] = 0;
    if (packet_id != 0) {
        at[front] = (uint8_t)(packet_id >> 8);
        at[front + 1] = (uint8_t)packet_id;
    }
    bytes_copy(behind, message_payload(message));
}

/* True when that length takes as many bytes as the one that it replaces. */
static bool has_same_head(const struct message *message, size_t between)
{
    size_t remaining = 2 + (size_t)message->topic_len + message->payload_len;
    return remaining + between <= MQTT_REMAINING_LENGTH_MAX &&
           mqtt_varint_len((uint32_t)remaining) == mqtt_varint_len((uint32_t)(remaining + between));
}

/* One copy of what the message has encoded already, where that is what this client gets but for
 * flags and a packet identifier. */
static bool send_shared(struct mqtt_client *client, const struct core_delivery *delivery,
                        struct output *output)
{
    enum { FLAG_RETAIN = 0x01, FLAG_DUP = 0x08 };
    const struct message *message = delivery->message;
    struct bytes packet = message_packet(message);
    bool is_5 = client->version == MQTT_VERSION_5;
    bool takes_aliases = client->extra != NULL && client->extra->alias_maximum != 0;
    size_t between = (delivery->qos != 0 ? 2U : 0U) + is_5;
    if (packet.len == 0 || message->payload_len >= OUTPUT_REFERENCE_MIN ||
        (is_5 && (takes_aliases || delivery->has_expiry || delivery->identifier_count != 0)) ||
        (between != 0 && !has_same_head(message, between)) ||
        !client_takes_size(client, packet.len + between)) {
        return false;
    }
    uint8_t *at = output_take(output, packet.len + between);
    if (between == 0) {
        memcpy(at, packet.data, packet.len);
    } else {
        put_with_room(at, message, between, delivery->packet_id);
    }
    at[0] |= (uint8_t)(delivery->qos << 1 | (delivery->retain ? FLAG_RETAIN : 0) |
                       (delivery->dup ? FLAG_DUP : 0));
    count_publish(client, message);
    return true;
}

static void send_publish(struct mqtt_client *client, const struct core_delivery *delivery,
                         struct output *output)
{
    struct message *message = delivery->message;
    enum mqtt_version version = (enum mqtt_version)client->version;
    struct bytes payload = message_payload(message);
    struct mqtt_publish_out publish = {
        .qos = delivery->qos,
        .retain = delivery->retain,
        .dup = delivery->dup,
        .has_expiry = delivery->has_expiry,
        .packet_id = delivery->packet_id,
        .expiry_s = delivery->expiry_s,
        .subscription_ids = delivery->identifiers,
        .subscription_id_count = delivery->identifier_count,
        .topic = message_topic(message),
        .properties_len = message->properties_len,
        .payload_len = payload.len,
    };
    bool is_new_alias = choose_alias(client, &publish);
    size_t size = mqtt_publish_size(&publish, version);
    if (size > MQTT_REMAINING_LENGTH_MAX || !client_takes_size(client, size)) {
        if (is_new_alias) {
            alias_choices_undo(client->extra->aliases_out);
        }
        core_give_up(client->clients->core, client->session, delivery);
        return;
    }
    size_t head = mqtt_publish_head_size(&publish, version);
    struct writer writer = writer_of(output_take(output, head), head);
    mqtt_publish_encode_head(&writer, &publish, version);
    ENSURE(writer_ok(&writer) && writer_len(&writer) == head);
    if (version == MQTT_VERSION_5) {
        output_add(output, message_properties(message), &message->shared);
    }
    output_add(output, payload, &message->shared);
    count_publish(client, message);
}

static void send_pubrel(struct mqtt_client *client, const struct core_delivery *delivery,
                        struct output *output)
{
    enum { PUBREL_BYTES = 4 };
    struct mqtt_ack ack = {.packet_id = delivery->packet_id, .reason = MQTT_SUCCESS};
    struct writer writer = writer_of(output_take(output, PUBREL_BYTES), PUBREL_BYTES);
    mqtt_ack_encode(&writer, MQTT_PUBREL, (enum mqtt_version)client->version, &ack);
    ENSURE(writer_ok(&writer) && writer_len(&writer) == PUBREL_BYTES);
    client->clients->stats.packets_sent++;
}

/* Some of the answers may go; those behind them wait for the store. */
static void send_ready(struct control *control, struct output *output)
{
    size_t len = control->ready < OUTPUT_TAKE_MAX ? control->ready : OUTPUT_TAKE_MAX;
    output_put(output, bytes_of(control->data, len));
    control_sent(control, len);
}

static void send_control(struct mqtt_client *client, struct output *output)
{
    struct control *control = client->control;
    if (control == NULL || control->ready == 0 || !output_has_room(output)) {
        return;
    }
    client->greeted = true; /* CONNACK is the first of them */
    if (control->ready < control->len) {
        send_ready(control, output);
        return;
    }
    output_add(output, bytes_of(control->data, control->len), &control->shared);
    control_release(&client->control);
    set_paused(client, false);
}

static void send_deliveries(struct mqtt_client *client, uint64_t now_ms, struct output *output)
{
    while (client->state == CLIENT_CONNECTED && client->greeted) {
        struct core_delivery delivery;
        enum core_next next = CORE_AGAIN;
        if (output_has_room(output)) {
            next = core_next(client->clients->core, now_ms, client->session, &delivery);
        }
        if (next == CORE_AGAIN) {
            client->clients->host.wake(client->link);
        }
        if (next != CORE_DELIVERY) {
            return;
        }
        struct access_rights *rights = client_rights(client);
        if (delivery.message == NULL) {
            send_pubrel(client, &delivery, output);
        } else if (rights != NULL && !access_may_read(rights, message_topic(delivery.message))) {
            /* It was queued before the client's rights were what they are. */
            core_give_up(client->clients->core, client->session, &delivery);
        } else if (!send_shared(client, &delivery, output)) {
            send_publish(client, &delivery, output);
        }
    }
}

static void send_pings(struct mqtt_client *client, struct output *output)
{
    enum { PINGRESP_BYTES = 2 };
    if (client->state == CLIENT_CLOSING) {
        client->pings_due = 0; /* DISCONNECT was the last packet [MQTT-3.14.4-1] */
    }
    while (client->pings_due != 0 && client->greeted && output_fits(output, PINGRESP_BYTES)) {
        struct writer writer = writer_of(output_take(output, PINGRESP_BYTES), PINGRESP_BYTES);
        mqtt_empty_encode(&writer, MQTT_PINGRESP);
        client->pings_due--;
        client->clients->stats.packets_sent++;
    }
}

/*
 * PINGRESP comes last: a client that has it knows that what was ready before its PINGREQ came
 * before. It does not wait for deliveries that do not fit.
 */
void mqtt_client_send(struct mqtt_client *client, uint64_t now_ms, struct output *output)
{
    send_control(client, output);
    send_deliveries(client, now_ms, output);
    send_pings(client, output);
    bool has_control = client->control != NULL && client->control->ready != 0;
    if (has_control || (client->pings_due != 0 && client->greeted)) {
        client->clients->host.wake(client->link);
    }
}
