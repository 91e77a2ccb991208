/* The frames of a connected client. */
#include "stomp_client_state.h"

#include <stdio.h>

#include "topic.h"

enum { TEXT_MAX = 256 };

/* The words that name a frame and its trouble. */
static void fail_frame(struct stomp_client *client, uint64_t now_ms,
                       const struct stomp_frame *frame, enum mqtt_reason reason, const char *text)
{
    char why[TEXT_MAX];
    (void)snprintf(why, sizeof why, "%.*s: %s", (int)frame->command_name.len,
                   (const char *)frame->command_name.data, text);
    stomp_fail(client, now_ms, reason, why);
}

static const char *reason_text(enum mqtt_reason reason)
{
    switch (reason) {
    case MQTT_TOPIC_NAME_INVALID:
        return "the destination has too many levels";
    case MQTT_QUOTA_EXCEEDED:
        return "the queue is full, or there is no room for one more";
    default:
        return mqtt_reason_name(reason);
    }
}

bool stomp_publish(struct stomp_client *client, uint64_t now_ms,
                   const struct stomp_publication *publication)
{
    struct core *core = client->clients->core;
    struct message *message = publication->message;
    if (publication->opens_queue) {
        struct bytes topic = message_topic(message);
        enum status status =
            core_queue_open(core, now_ms, bytes_from(topic, strlen(STOMP_QUEUE_PREFIX)));
        if (status != STATUS_OK) {
            stomp_fail(client, now_ms,
                       status == STATUS_NO_MEMORY ? MQTT_SERVER_BUSY : MQTT_QUOTA_EXCEEDED,
                       status == STATUS_INVALID ? "the queue's name is too long"
                                                : "there is no room for one more queue");
            return false;
        }
    }
    enum mqtt_reason reason = core_publish(core, now_ms, NULL, message);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        client->clients->host.on_publish_refused(client->link, &client->base,
                                                 message_topic(message), reason);
        stomp_fail(client, now_ms, reason, reason_text(reason));
        return false;
    }
    stomp_take_ticket(client);
    stomp_count_uncommitted(client, message_size(message));
    return true;
}

/* `expiration` is RabbitMQ's, in milliseconds from now; `expires` ActiveMQ's, since 1970, 0 for
 * never. */
static bool read_expiry(const struct stomp_client *client, uint64_t now_ms,
                        const struct stomp_frame *frame, uint64_t *expires_at_ms)
{
    const uint64_t max = UINT32_MAX * UINT64_C(1000);
    struct bytes text;
    uint64_t value = 0;
    *expires_at_ms = MESSAGE_EXPIRES_NEVER;
    if (stomp_frame_header(frame, "expiration", &text)) {
        if (!stomp_number_read(text, max, &value)) {
            return false;
        }
        *expires_at_ms = now_ms + value;
    } else if (stomp_frame_header(frame, "expires", &text)) {
        const struct client_host *host = &client->clients->host;
        if (!stomp_number_read(text, UINT64_MAX / 2, &value)) {
            return false;
        }
        if (value != 0 && host->unix_ms != NULL) {
            uint64_t unix_ms = host->unix_ms(host->ctx);
            uint64_t left = value > unix_ms ? value - unix_ms : 0;
            *expires_at_ms = left < max ? now_ms + left : MESSAGE_EXPIRES_NEVER;
        }
    }
    return true;
}

static bool is_true(const struct stomp_frame *frame, const char *name)
{
    struct bytes value;
    return stomp_frame_header(frame, name, &value) && bytes_equal_string(value, "true");
}

/* Where answers go: a topic, or nothing. What names no topic stays a header like any other. False:
 * the client was sent away. */
static bool read_reply_to(struct stomp_client *client, uint64_t now_ms,
                          const struct stomp_frame *frame, struct writer *topic)
{
    struct bytes text;
    struct stomp_destination destination;
    if (!stomp_frame_header(frame, "reply-to", &text) ||
        stomp_destination_parse(text, &destination) != NULL) {
        return true;
    }
    if (destination.kind == STOMP_TEMP_QUEUE) {
        return stomp_temp_queue(client, now_ms, destination.name, topic);
    }
    stomp_destination_topic(&destination, false, topic);
    if (!topic_name_is_valid(writer_written(topic))) {
        *topic = writer_of(topic->start, writer_room(topic) + writer_len(topic));
    }
    return true;
}

/* What is wrong with a SEND to that destination, in words; NULL: nothing. Writes its topic. */
static const char *judge_send(const struct stomp_client *client, const struct stomp_frame *frame,
                              struct stomp_destination *destination, struct writer *topic)
{
    struct bytes text;
    if (!stomp_frame_header(frame, "destination", &text)) {
        return "the destination is missing";
    }
    const char *wrong = stomp_destination_parse(text, destination);
    if (wrong != NULL) {
        return wrong;
    }
    if (destination->kind == STOMP_TEMP_QUEUE) {
        return "nothing can be sent to a temp-queue: answers go to the reply-to of a message";
    }
    stomp_destination_topic(destination, false, topic);
    if (!topic_name_is_valid(writer_written(topic))) {
        return "the destination has a wildcard";
    }
    if (!core_accepts_topic(client->clients->core, writer_written(topic))) {
        return "the destination has too many levels";
    }
    if (destination->kind == STOMP_EXISTING_QUEUE &&
        !core_queue_exists(client->clients->core, destination->name)) {
        return "there is no such queue";
    }
    if (frame->body.len > client->settings->payload_bytes_max) {
        return "the body is larger than message_size_limit";
    }
    return NULL;
}

static struct message *make_message(const struct stomp_client *client,
                                    const struct stomp_frame *frame, struct bytes topic,
                                    struct bytes reply_topic, uint64_t expires_at_ms)
{
    uint8_t properties[STOMP_PROPERTIES_MAX];
    struct writer writer = writer_of(properties, sizeof properties);
    stomp_write_properties(&writer, frame, reply_topic);
    ENSURE(writer_ok(&writer));
    struct bytes list = writer_written(&writer);
    struct message *message = NULL;
    if (message_create(topic, list.len, frame->body, &message) != STATUS_OK) {
        return NULL;
    }
    bytes_copy(message_properties_area(message), list);
    message->qos = client->settings->qos_max < 1 ? 0 : 1;
    message->retain = is_true(frame, "retain");
    message->expires_at_ms = expires_at_ms;
    return message;
}

/* Who was told where an answer goes may send it there. */
static bool may_send(const struct stomp_client *client, struct bytes topic)
{
    return access_may_publish(topic) &&
           (access_is_hidden(topic) || access_may_write(client->rights, topic));
}

static void on_send(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame)
{
    uint8_t topic_text[STOMP_HEAD_BYTES_MAX];
    uint8_t reply_text[STOMP_HEAD_BYTES_MAX];
    struct writer topic = writer_of(topic_text, sizeof topic_text);
    struct writer reply = writer_of(reply_text, sizeof reply_text);
    struct stomp_destination destination;
    uint64_t expires_at_ms;
    const char *wrong = judge_send(client, frame, &destination, &topic);
    if (wrong == NULL && !read_expiry(client, now_ms, frame, &expires_at_ms)) {
        wrong = "expiration and expires are numbers of milliseconds";
    }
    if (wrong == NULL && is_true(frame, "retain") && !client->settings->retain_available) {
        wrong = "retained messages are not available";
    }
    if (wrong != NULL) {
        fail_frame(client, now_ms, frame, MQTT_IMPLEMENTATION_SPECIFIC_ERROR, wrong);
        return;
    }
    if (!may_send(client, writer_written(&topic))) {
        client->clients->host.on_publish_refused(client->link, &client->base,
                                                 writer_written(&topic), MQTT_NOT_AUTHORIZED);
        fail_frame(client, now_ms, frame, MQTT_NOT_AUTHORIZED, "not authorized");
        return;
    }
    if (!read_reply_to(client, now_ms, frame, &reply)) {
        return;
    }
    client->clients->stats.publish_received++;
    client->clients->stats.publish_bytes_received += frame->body.len;
    struct stomp_publication publication = {
        .message = make_message(client, frame, writer_written(&topic), writer_written(&reply),
                                expires_at_ms),
        .opens_queue = destination.kind == STOMP_QUEUE,
    };
    if (publication.message == NULL) {
        fail_frame(client, now_ms, frame, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    struct bytes transaction;
    bool done = true;
    if (stomp_frame_header(frame, "transaction", &transaction)) {
        done = stomp_keep_publication(client, now_ms, transaction, &publication);
    } else {
        done = stomp_publish(client, now_ms, &publication);
        message_release(publication.message);
    }
    if (done) {
        stomp_send_receipt(client, now_ms, client->receipt);
    }
}

/* Takes a number up to `end` off `text`. */
static bool take_number(struct bytes *text, char end, uint64_t max, uint64_t *out)
{
    const uint8_t *at = text->len == 0 ? NULL : memchr(text->data, end, text->len);
    if (at == NULL) {
        return false;
    }
    size_t len = (size_t)(at - text->data);
    bool valid = stomp_number_read(bytes_of(text->data, len), max, out);
    *text = bytes_from(*text, len + 1);
    return valid;
}

/* "subscription-packet-arrival", as stomp_output.c writes it. */
static bool read_message_id(struct bytes text, struct stomp_settlement *out)
{
    uint64_t subscription = 0;
    uint64_t packet_id = 0;
    uint64_t arrival = 0;
    if (!take_number(&text, '-', UINT32_MAX, &subscription) ||
        !take_number(&text, '-', UINT16_MAX, &packet_id) ||
        !stomp_number_read(text, UINT64_MAX, &arrival)) {
        return false;
    }
    out->subscription = (uint32_t)subscription;
    out->packet_id = (uint16_t)packet_id;
    return true;
}

void stomp_settle(struct stomp_client *client, const struct stomp_settlement *settlement)
{
    const struct stomp_subscription *subscription =
        stomp_find_number(client, settlement->subscription);
    if (subscription != NULL && subscription->session != NULL && settlement->packet_id != 0 &&
        subscription->ack_mode != STOMP_ACK_AUTO) {
        (void)core_settle(client->clients->core, subscription->session, settlement->packet_id,
                          settlement->verdict, subscription->ack_mode == STOMP_ACK_CLIENT);
    }
}

/* In 1.2 `id` is what the MESSAGE had as `ack`; before, it is `message-id`. RabbitMQ's NACK takes
 * `requeue`. */
static void on_ack(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame)
{
    struct stomp_settlement settlement = {.verdict = CORE_ACCEPTED};
    struct bytes text;
    if (frame->command == STOMP_NACK) {
        settlement.verdict =
            stomp_frame_header(frame, "requeue", &text) && bytes_equal_string(text, "false")
                ? CORE_REJECTED
                : CORE_RETURNED;
    }
    if (!stomp_frame_header(frame, client->version == STOMP_1_2 ? "id" : "message-id", &text) ||
        !read_message_id(text, &settlement)) {
        fail_frame(client, now_ms, frame, MQTT_PROTOCOL_ERROR,
                   client->version == STOMP_1_2 ? "id must be the ack header of a MESSAGE"
                                                : "message-id must be that of a MESSAGE");
        return;
    }
    bool done = true;
    if (stomp_frame_header(frame, "transaction", &text)) {
        done = stomp_keep_settlement(client, now_ms, text, &settlement);
    } else {
        stomp_settle(client, &settlement);
    }
    if (done) {
        stomp_send_receipt(client, now_ms, client->receipt);
    }
}

static void on_disconnect(struct stomp_client *client, uint64_t now_ms)
{
    stomp_send_receipt(client, now_ms, client->receipt);
    if (client->control != NULL && client->control->hold_count != 0) {
        client->is_leaving = true; /* receipts that were asked for before still come */
    } else {
        stomp_leave(client, now_ms, MQTT_NORMAL_DISCONNECTION, STOMP_LEFT);
    }
}

void stomp_on_frame(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame)
{
    switch (frame->command) {
    case STOMP_SEND:
        on_send(client, now_ms, frame);
        break;
    case STOMP_SUBSCRIBE:
        stomp_on_subscribe(client, now_ms, frame);
        break;
    case STOMP_UNSUBSCRIBE:
        stomp_on_unsubscribe(client, now_ms, frame);
        break;
    case STOMP_ACK:
    case STOMP_NACK:
        on_ack(client, now_ms, frame);
        break;
    case STOMP_BEGIN:
        stomp_on_begin(client, now_ms, frame);
        break;
    case STOMP_COMMIT:
        stomp_on_commit(client, now_ms, frame);
        break;
    case STOMP_ABORT:
        stomp_on_abort(client, now_ms, frame);
        break;
    case STOMP_DISCONNECT:
        on_disconnect(client, now_ms);
        break;
    case STOMP_CONNECT:
        fail_frame(client, now_ms, frame, MQTT_PROTOCOL_ERROR, "the client is connected already");
        break;
    case STOMP_UNKNOWN:
        fail_frame(client, now_ms, frame, MQTT_PROTOCOL_ERROR, "there is no such command");
        break;
    }
}
