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
    return client->packet_bytes_max == 0 || len <= client->packet_bytes_max;
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
    if (client->alias_maximum == 0 || publish->topic.len < ALIAS_TOPIC_MIN) {
        return false;
    }
    if (client->aliases_out == NULL &&
        alias_choices_create(client->alias_maximum, &client->aliases_out) != STATUS_OK) {
        return false;
    }
    bool is_known = false;
    publish->topic_alias = alias_choices_of(client->aliases_out, publish->topic, &is_known);
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

/* One copy of what the message has encoded already, where that is what this client gets. */
static bool send_shared(struct mqtt_client *client, const struct core_delivery *delivery,
                        struct output *output)
{
    enum { FLAG_RETAIN = 0x01 };
    struct bytes packet = message_packet(delivery->message);
    if (delivery->qos != 0 || client->version == MQTT_VERSION_5 || packet.len == 0 ||
        delivery->message->payload_len >= OUTPUT_REFERENCE_MIN ||
        !client_takes_size(client, packet.len)) {
        return false;
    }
    uint8_t *at = output_take(output, packet.len);
    memcpy(at, packet.data, packet.len);
    if (delivery->retain) {
        at[0] |= FLAG_RETAIN;
    }
    count_publish(client, delivery->message);
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
    /* What was queued before the client's rights were what they are. */
    if (client->rights != NULL && !access_may_read(client->rights, publish.topic)) {
        core_give_up(client->clients->core, client->session, delivery);
        return;
    }
    bool is_new_alias = choose_alias(client, &publish);
    size_t size = mqtt_publish_size(&publish, version);
    if (size > MQTT_REMAINING_LENGTH_MAX || !client_takes_size(client, size)) {
        if (is_new_alias) {
            alias_choices_undo(client->aliases_out);
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
        if (delivery.message == NULL) {
            send_pubrel(client, &delivery, output);
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
