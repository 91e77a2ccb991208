/*
 * What goes to a client: answers first, then deliveries, one flush at a time. Each frame is a
 * WebSocket message of its own, since there are clients that expect it, and a text message when it
 * is text.
 */
#include "stomp_client_state.h"

#include "utf8.h"

enum {
    ANSWER_HEAD_BYTES = 256,  /* an answer without its texts */
    MESSAGE_HEAD_BYTES = 512, /* the headers that every MESSAGE has, without their texts */
    CONNECTED_BYTES = 512,
    MESSAGE_ROOM_MAX = OUTPUT_TAKE_MAX - OUTPUT_REFERENCE_MIN, /* for the head of a MESSAGE */
};

static struct writer begin(struct stomp_client *client, size_t len)
{
    return control_begin(&client->control, client->clients->control_hub, client->link, len);
}

static void set_paused(struct stomp_client *client, bool paused)
{
    if (client->is_paused != paused) {
        client->is_paused = paused;
        client->clients->host.set_reading(client->link, !paused);
    }
}

/* False when there was no memory: nothing is queued then. */
static bool end(struct stomp_client *client, const struct writer *writer, uint64_t ticket)
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

/* Who asks for no receipts has nothing that waits with his messages: then an empty answer does. */
void stomp_count_uncommitted(struct stomp_client *client, size_t bytes)
{
    if (!control_count_uncommitted(client->clients->control_hub, client->ticket, bytes)) {
        return;
    }
    struct writer nothing = begin(client, 0);
    if (writer_ok(&nothing) && control_end(client->control, &nothing, client->ticket)) {
        set_paused(client, true);
    }
}

void stomp_send_receipt(struct stomp_client *client, uint64_t now_ms, struct bytes receipt)
{
    if (receipt.data == NULL || client->state == STOMP_CLOSING) {
        return;
    }
    struct writer writer = begin(client, ANSWER_HEAD_BYTES + stomp_header_room(0, receipt.len));
    stomp_write_command(&writer, "RECEIPT");
    stomp_write_header(&writer, (enum stomp_version)client->version, bytes_of_string("receipt-id"),
                       receipt);
    stomp_write_head_end(&writer);
    stomp_write_end(&writer);
    if (!end(client, &writer, client->ticket)) {
        stomp_leave(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
    }
}

/* Nothing is escaped here (1.2, Value Encoding). */
void stomp_send_connected(struct stomp_client *client, uint64_t now_ms)
{
    static const struct {
        enum stomp_version version;
        const char *name;
    } versions[] = {{STOMP_1_0, "1.0"}, {STOMP_1_1, "1.1"}, {STOMP_1_2, "1.2"}};
    const char *version = NULL;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        version = versions[i].version == client->version ? versions[i].name : version;
    }
    struct writer writer =
        begin(client, CONNECTED_BYTES + stomp_header_room(0, client->client_id_len));
    stomp_write_command(&writer, "CONNECTED");
    stomp_write_header(&writer, STOMP_VERSION_NONE, bytes_of_string("version"),
                       bytes_of_string(version));
    stomp_write_header(&writer, STOMP_VERSION_NONE, bytes_of_string("server"),
                       bytes_of_string("Dunlin"));
    stomp_write_header(&writer, STOMP_VERSION_NONE, bytes_of_string("session"),
                       bytes_of(client->client_id, client->client_id_len));
    writer_bytes(&writer, bytes_of_string("heart-beat:"));
    stomp_write_digits(&writer, client->send_interval_ms);
    writer_u8(&writer, ',');
    stomp_write_digits(&writer, client->receive_interval_ms);
    writer_u8(&writer, '\n');
    stomp_write_head_end(&writer);
    stomp_write_end(&writer);
    if (!end(client, &writer, 0)) {
        stomp_leave(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
    }
}

void stomp_send_error(struct stomp_client *client, struct bytes receipt, const char *text)
{
    enum stomp_version version = (enum stomp_version)client->version;
    struct bytes body = bytes_of_string(text);
    struct writer writer =
        begin(client, ANSWER_HEAD_BYTES + stomp_header_room(receipt.len, body.len) + body.len);
    stomp_write_command(&writer, "ERROR");
    if (receipt.data != NULL) {
        stomp_write_header(&writer, version, bytes_of_string("receipt-id"), receipt);
    }
    if (version == STOMP_VERSION_NONE) { /* perhaps it is because of the version */
        stomp_write_header(&writer, version, bytes_of_string("version"),
                           bytes_of_string("1.0,1.1,1.2"));
    }
    stomp_write_header(&writer, version, bytes_of_string("message"), body);
    stomp_write_header(&writer, version, bytes_of_string("content-type"),
                       bytes_of_string("text/plain"));
    stomp_write_number(&writer, "content-length", body.len);
    stomp_write_head_end(&writer);
    writer_bytes(&writer, body);
    stomp_write_end(&writer);
    (void)end(client, &writer, 0);
}

static void begin_message(struct stomp_client *client, struct output *output, bool text)
{
    const struct client_host *host = &client->clients->host;
    if (host->begin_message != NULL) {
        host->begin_message(client->link, output, text);
    }
}

/* Answers have no NUL but at their ends. */
static void send_control(struct stomp_client *client, struct output *output)
{
    struct control *control = client->control;
    if (control == NULL) {
        return;
    }
    size_t at = 0;
    while (at < control->ready && output_has_room(output)) {
        const uint8_t *nul = memchr(control->data + at, 0, control->ready - at);
        size_t len = (size_t)(nul - (control->data + at)) + 1;
        begin_message(client, output, true);
        output_put(output, bytes_of(control->data + at, len));
        at += len;
    }
    control_sent(control, at);
    if (control->len == 0 && control->hold_count == 0) {
        control_release(&client->control);
        set_paused(client, false);
    }
}

/* "subscription-packet-arrival": enough to find the delivery again, and never the same twice. */
static void write_message_id(struct writer *writer, const char *name,
                             const struct stomp_subscription *subscription,
                             const struct core_delivery *delivery)
{
    writer_bytes(writer, bytes_of_string(name));
    writer_u8(writer, ':');
    stomp_write_digits(writer, subscription->number);
    writer_u8(writer, '-');
    stomp_write_digits(writer, delivery->packet_id);
    writer_u8(writer, '-');
    stomp_write_digits(writer, delivery->message->sequence);
    writer_u8(writer, '\n');
}

static void write_destination(struct writer *writer, const struct stomp_subscription *subscription,
                              struct bytes topic)
{
    uint8_t text[MESSAGE_ROOM_MAX / 2];
    struct writer destination = writer_of(text, sizeof text);
    stomp_destination_write(topic, (enum stomp_style)subscription->style, &destination);
    stomp_write_header(writer, (enum stomp_version)subscription->client->version,
                       bytes_of_string("destination"), writer_written(&destination));
}

static void write_head(struct writer *writer, const struct stomp_subscription *subscription,
                       const struct core_delivery *delivery)
{
    enum stomp_version version = (enum stomp_version)subscription->client->version;
    const struct message *message = delivery->message;
    stomp_write_command(writer, "MESSAGE");
    if (subscription->has_id) {
        stomp_write_header(writer, version, bytes_of_string("subscription"),
                           bytes_of(subscription->id, subscription->id_len));
    }
    write_destination(writer, subscription, message_topic(message));
    write_message_id(writer, "message-id", subscription, delivery);
    if (version == STOMP_1_2 && subscription->ack_mode != STOMP_ACK_AUTO) {
        write_message_id(writer, "ack", subscription, delivery);
    }
    if (delivery->redelivered) {
        stomp_write_header(writer, version, bytes_of_string("redelivered"),
                           bytes_of_string("true"));
    }
    if (delivery->retain) {
        stomp_write_header(writer, version, bytes_of_string("retain"), bytes_of_string("true"));
    }
    if (delivery->has_expiry) {
        stomp_write_number(writer, "expiration", UINT64_C(1000) * delivery->expiry_s);
    }
    stomp_write_message_headers(writer, version, (enum stomp_style)subscription->style,
                                message_properties(message));
    stomp_write_number(writer, "content-length", message->payload_len);
    stomp_write_head_end(writer);
}

/* False: its head is larger than any client would take. */
static bool send_message(const struct stomp_subscription *subscription,
                         const struct core_delivery *delivery, struct output *output)
{
    struct stomp_client *client = subscription->client;
    struct message *message = delivery->message;
    struct bytes payload = message_payload(message);
    size_t room = MESSAGE_HEAD_BYTES + stomp_header_room(0, subscription->id_len) +
                  2 * stomp_destination_room(message->topic_len) +
                  stomp_properties_room(message_properties(message));
    if (room > MESSAGE_ROOM_MAX) {
        return false;
    }
    begin_message(client, output, utf8_is_valid(payload));
    struct writer writer = writer_of(output_take(output, room), room);
    write_head(&writer, subscription, delivery);
    ENSURE(writer_ok(&writer));
    output_untake(output, writer_room(&writer));
    output_add(output, payload, &message->shared);
    uint8_t nul = 0;
    output_put(output, bytes_of(&nul, 1));
    client->clients->stats.packets_sent++;
    client->clients->stats.publish_sent++;
    client->clients->stats.publish_bytes_sent += payload.len;
    return true;
}

/* True when the subscription has nothing more to send. */
static bool send_deliveries_of(struct stomp_subscription *subscription, uint64_t now_ms,
                               struct output *output)
{
    struct core *core = subscription->client->clients->core;
    while (output_has_room(output)) {
        struct core_delivery delivery;
        enum core_next next = core_next(core, now_ms, subscription->session, &delivery);
        if (next != CORE_DELIVERY) {
            return next == CORE_NOTHING;
        }
        if (!send_message(subscription, &delivery, output)) {
            core_give_up(core, subscription->session, &delivery);
        } else if (delivery.packet_id != 0 && subscription->ack_mode == STOMP_ACK_AUTO) {
            /* A durable subscription whose client does not acknowledge. */
            (void)core_puback(core, subscription->session, delivery.packet_id);
        }
    }
    return false;
}

/* One subscription after the other; what does not fit goes behind the others. */
static void send_deliveries(struct stomp_client *client, uint64_t now_ms, struct output *output)
{
    while (client->state == STOMP_CONNECTED && client->ready_first != NULL) {
        struct stomp_subscription *subscription = client->ready_first;
        client->ready_first = subscription->next_ready;
        if (client->ready_first == NULL) {
            client->ready_last = NULL;
        }
        subscription->is_ready = false;
        if (!send_deliveries_of(subscription, now_ms, output)) {
            subscription->base.kind->output_ready(&subscription->base);
            return;
        }
    }
}

void stomp_send_output(struct stomp_client *client, uint64_t now_ms, struct output *output)
{
    size_t before = output->total;
    send_control(client, output);
    if (client->is_leaving && client->control == NULL) {
        stomp_leave(client, now_ms, MQTT_NORMAL_DISCONNECTION, STOMP_LEFT);
    }
    send_deliveries(client, now_ms, output);
    if (output->total == before && client->beat_due && client->state == STOMP_CONNECTED) {
        begin_message(client, output, true);
        output_put(output, bytes_of("\n", 1));
    }
    if (output->total != before) {
        client->beat_due = false;
        client->last_sent_ms = now_ms;
    }
    if (client->control != NULL && client->control->ready != 0) {
        client->clients->host.wake(client->link);
    }
}
