/* What goes to a client: control packets first, then deliveries, one flush at a time. */
#include "mem.h"
#include "mqtt_ack.h"
#include "mqtt_client_state.h"
#include "mqtt_disconnect.h"
#include "mqtt_publish.h"

static void on_control_released(struct shared *shared)
{
    struct control *control = (struct control *)(void *)shared;
    struct mqtt_clients *clients = control->clients;
    if (control->capacity != CONTROL_BYTES_MIN || clients->control_pool_count == CONTROL_POOL_MAX) {
        mem_free(control);
        return;
    }
    control->next = clients->control_pool;
    clients->control_pool = control;
    clients->control_pool_count++;
}

static struct control *take_control(struct mqtt_clients *clients)
{
    struct control *control = clients->control_pool;
    if (control != NULL) {
        clients->control_pool = control->next;
        clients->control_pool_count--;
    } else {
        control = mem_alloc(sizeof *control + CONTROL_BYTES_MIN);
        if (control == NULL) {
            return NULL;
        }
        control->capacity = CONTROL_BYTES_MIN;
    }
    control->shared = (struct shared){1, on_control_released};
    control->clients = clients;
    control->next = NULL;
    control->len = 0;
    return control;
}

void control_pool_fini(struct mqtt_clients *clients)
{
    while (clients->control_pool != NULL) {
        struct control *control = clients->control_pool;
        clients->control_pool = control->next;
        mem_free(control);
    }
}

void control_release(struct mqtt_client *client)
{
    if (client->control != NULL) {
        shared_release(&client->control->shared);
        client->control = NULL;
    }
}

struct writer client_control_begin(struct mqtt_client *client, size_t len)
{
    struct writer failed = {.failed = true};
    if (client->control == NULL) {
        client->control = take_control(client->clients);
        if (client->control == NULL) {
            return failed;
        }
    }
    struct control *control = client->control;
    if (control->capacity - control->len < len) {
        size_t capacity = control->capacity * 2 + len;
        control = mem_realloc(control, sizeof *control + capacity);
        if (control == NULL) {
            return failed;
        }
        control->capacity = capacity;
        client->control = control;
    }
    return writer_of(control->data + control->len, len);
}

bool client_control_end(struct mqtt_client *client, const struct writer *writer)
{
    if (!writer_ok(writer)) {
        return false;
    }
    client->control->len += writer_len(writer);
    if (client->control->len > CONTROL_BYTES_PAUSE && !client->is_paused) {
        client->is_paused = true;
        client->clients->host.set_reading(client->link, false);
    }
    client->clients->stats.packets_sent++;
    client->clients->host.wake(client->link);
    return true;
}

bool client_takes_size(const struct mqtt_client *client, size_t len)
{
    return client->packet_bytes_max == 0 || len <= client->packet_bytes_max;
}

void client_control_send(struct mqtt_client *client, uint64_t now_ms, const struct writer *writer)
{
    if (writer_ok(writer) && !client_takes_size(client, writer_len(writer))) {
        client_fail(client, now_ms, MQTT_PACKET_TOO_LARGE,
                    "its Maximum Packet Size does not leave room for an answer"); /* 3.1.2.11.4 */
        return;
    }
    if (!client_control_end(client, writer)) {
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
    client->clients->stats.packets_sent++;
    client->clients->stats.publish_sent++;
    client->clients->stats.publish_bytes_sent += payload.len;
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

static void send_control(struct mqtt_client *client, struct output *output)
{
    struct control *control = client->control;
    if (control != NULL && output_has_room(output)) {
        output_add(output, bytes_of(control->data, control->len), &control->shared);
        control_release(client);
        if (client->is_paused) {
            client->is_paused = false;
            client->clients->host.set_reading(client->link, true);
        }
    }
}

static void send_deliveries(struct mqtt_client *client, uint64_t now_ms, struct output *output)
{
    while (client->state == CLIENT_CONNECTED) {
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
        } else {
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
    while (client->pings_due != 0 && output_fits(output, PINGRESP_BYTES)) {
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
    if (client->control != NULL || client->pings_due != 0) {
        client->clients->host.wake(client->link);
    }
}
