/* SUBSCRIBE and UNSUBSCRIBE, temp-queues, and the sessions behind them. */
#include "stomp_client_state.h"

#include <stdio.h>

#include "mem.h"
#include "topic.h"

#define SESSION_PREFIX "$stomp/"
#define QUEUE_FILTER_PREFIX "$share/queue/"
#define TEMP_QUEUE_PREFIX "/temp-queue/"

enum {
    TEXT_MAX = 512,
    REPLY_RANDOM_BYTES = 16,
    /* User name, two names of the client's and a filter, each no longer than a frame's head, and
     * their lengths. */
    SESSION_ID_MAX = 4 * STOMP_HEAD_BYTES_MAX - 1024,
};

/* What a SUBSCRIBE asks for. */
struct wish {
    struct bytes id;
    bool has_id;
    struct bytes destination_text;
    struct stomp_destination destination;
    enum stomp_ack_mode ack_mode;
    uint16_t prefetch;
    bool is_durable;
    struct bytes durable_name; /* ActiveMQ's; empty: RabbitMQ's way, or not durable */
    struct bytes filter;
    struct bytes reply_topic; /* of a temp-queue */
};

static bool has(const struct stomp_frame *frame, const char *name, const char *value)
{
    struct bytes found;
    return stomp_frame_header(frame, name, &found) && bytes_equal_string(found, value);
}

/* ActiveMQ's name of a durable subscription, under either of its names. */
static bool durable_name(const struct stomp_frame *frame, struct bytes *name)
{
    return stomp_frame_header(frame, "activemq.subscriptionName", name) ||
           stomp_frame_header(frame, "durable-subscription-name", name);
}

/* RabbitMQ's: durable and not deleted with its consumer. */
static bool is_durable_rabbit(const struct stomp_frame *frame)
{
    return (has(frame, "durable", "true") || has(frame, "persistent", "true")) &&
           has(frame, "auto-delete", "false");
}

/* Keys. */

struct id_key {
    const struct stomp_client *client;
    bool has_id;
    struct bytes id;
};

static struct stomp_subscription *of_id_node(const struct map_node *node)
{
    return (struct stomp_subscription *)(void *)((char *)(uintptr_t)node -
                                                 offsetof(struct stomp_subscription, id_node));
}

static struct stomp_subscription *of_number_node(const struct map_node *node)
{
    return (struct stomp_subscription *)(void *)((char *)(uintptr_t)node -
                                                 offsetof(struct stomp_subscription, number_node));
}

static bool is_id(const struct map_node *node, const void *key)
{
    const struct stomp_subscription *subscription = of_id_node(node);
    const struct id_key *wanted = key;
    return subscription->client == wanted->client && subscription->has_id == wanted->has_id &&
           bytes_equal(bytes_of(subscription->id, subscription->id_len), wanted->id);
}

struct number_key {
    const struct stomp_client *client;
    uint32_t number;
};

static bool is_number(const struct map_node *node, const void *key)
{
    const struct stomp_subscription *subscription = of_number_node(node);
    const struct number_key *wanted = key;
    return subscription->client == wanted->client && subscription->number == wanted->number;
}

static uint64_t hash_of(const struct stomp_client *client, struct bytes key)
{
    return hash_bytes_salted(&client->clients->seed, client->number, key);
}

static struct stomp_subscription *find_id(const struct stomp_client *client, bool has_id,
                                          struct bytes id)
{
    struct id_key key = {client, has_id, id};
    const struct map_node *node =
        map_find(&client->clients->by_id, hash_of(client, id), is_id, &key);
    return node == NULL ? NULL : of_id_node(node);
}

struct stomp_subscription *stomp_find_number(const struct stomp_client *client, uint32_t number)
{
    struct number_key key = {client, number};
    const struct map_node *node =
        map_find(&client->clients->by_number, hash_of(client, bytes_of(&number, sizeof number)),
                 is_number, &key);
    return node == NULL ? NULL : of_number_node(node);
}

/* The core's side of a subscription. */

static void output_ready(struct client *base)
{
    struct stomp_subscription *subscription = (struct stomp_subscription *)base;
    struct stomp_client *client = subscription->client;
    if (!subscription->is_ready) {
        subscription->is_ready = true;
        subscription->next_ready = NULL;
        if (client->ready_first == NULL) {
            client->ready_first = subscription;
        } else {
            client->ready_last->next_ready = subscription;
        }
        client->ready_last = subscription;
    }
    client->clients->host.wake(client->link);
}

/* Only a durable subscription can be lost: another connection has taken it over, as one with the
 * same client id would in MQTT. */
static void session_lost(struct client *base, enum mqtt_reason reason)
{
    struct stomp_subscription *subscription = (struct stomp_subscription *)base;
    const char *why = reason == MQTT_SESSION_TAKEN_OVER
                          ? "another connection uses its durable subscription"
                          : "its subscription was ended by an administrator";
    subscription->session = NULL;
    if (subscription->client->state != STOMP_CLOSING) {
        stomp_send_error(subscription->client, BYTES_EMPTY, why);
        stomp_begin_leaving(subscription->client, reason, why);
    }
}

static const struct client_kind kind = {
    .output_ready = output_ready,
    .session_lost = session_lost,
};

/* A text whose end is known, so that no two lists of parts look alike. */
static void write_part(struct writer *writer, struct bytes part)
{
    char number[32];
    int len = snprintf(number, sizeof number, "%zu:", part.len);
    writer_bytes(writer, bytes_of(number, (size_t)len));
    writer_bytes(writer, part);
    writer_u8(writer, '/');
}

/* The client id of a subscription's session. Durable ones belong to a user: nobody else can name
 * them. */
static struct bytes session_id(const struct stomp_client *client, const struct wish *wish,
                               uint32_t number, uint8_t *room)
{
    struct writer writer = writer_of(room, SESSION_ID_MAX);
    struct bytes user = bytes_of(client->user_name, client->user_name_len);
    if (!wish->is_durable) {
        int len = snprintf((char *)room, SESSION_ID_MAX, SESSION_PREFIX "%llu/%lu",
                           (unsigned long long)client->number, (unsigned long)number);
        return bytes_of(room, (size_t)len);
    }
    if (wish->durable_name.len != 0) {
        writer_bytes(&writer, bytes_of_string(SESSION_PREFIX "named/"));
        write_part(&writer, user);
        write_part(&writer, bytes_of(client->client_id, client->client_id_len));
        write_part(&writer, wish->durable_name);
    } else {
        writer_bytes(&writer, bytes_of_string(SESSION_PREFIX "durable/"));
        write_part(&writer, user);
        write_part(&writer, wish->id);
        write_part(&writer, wish->filter);
    }
    return writer_ok(&writer) ? writer_written(&writer) : BYTES_EMPTY;
}

/* Lists. */

static void link_subscription(struct stomp_subscription *subscription)
{
    struct stomp_client *client = subscription->client;
    subscription->next = client->subscriptions;
    if (subscription->next != NULL) {
        subscription->next->previous = subscription;
    }
    client->subscriptions = subscription;
    client->subscription_count++;
    client->clients->sessions++;
}

static void leave_ready_list(struct stomp_subscription *subscription)
{
    struct stomp_client *client = subscription->client;
    if (!subscription->is_ready) {
        return;
    }
    struct stomp_subscription *before = NULL;
    for (struct stomp_subscription *at = client->ready_first; at != subscription;
         at = at->next_ready) {
        before = at;
    }
    if (before == NULL) {
        client->ready_first = subscription->next_ready;
    } else {
        before->next_ready = subscription->next_ready;
    }
    if (client->ready_last == subscription) {
        client->ready_last = before;
    }
    subscription->is_ready = false;
}

/* Ends a subscription; a durable one stays as a session unless `for_good`. */
static void end_subscription(struct stomp_subscription *subscription, uint64_t now_ms,
                             bool for_good)
{
    struct stomp_client *client = subscription->client;
    struct stomp_clients *clients = client->clients;
    leave_ready_list(subscription);
    if (subscription->session != NULL) {
        if (for_good) {
            core_session_set_expiry(clients->core, subscription->session, 0);
        }
        core_disconnect(clients->core, now_ms, subscription->session, false);
    }
    if (subscription->next != NULL) {
        subscription->next->previous = subscription->previous;
    }
    if (subscription->previous != NULL) {
        subscription->previous->next = subscription->next;
    } else {
        client->subscriptions = subscription->next;
    }
    client->subscription_count--;
    clients->sessions--;
    map_remove(&clients->by_id, &subscription->id_node);
    map_remove(&clients->by_number, &subscription->number_node);
    mem_free(subscription);
}

void stomp_drop_subscriptions(struct stomp_client *client, uint64_t now_ms)
{
    while (client->ready_first != NULL) {
        client->ready_first->is_ready = false;
        client->ready_first = client->ready_first->next_ready;
    }
    client->ready_last = NULL;
    while (client->subscriptions != NULL) {
        end_subscription(client->subscriptions, now_ms, false);
    }
}

/* A subscription that its client knows of and the core does not yet. NULL: no memory. */
static struct stomp_subscription *create(struct stomp_client *client, const struct wish *wish)
{
    struct stomp_clients *clients = client->clients;
    struct stomp_subscription *subscription =
        mem_zalloc(sizeof *subscription + wish->id.len + wish->reply_topic.len);
    if (subscription == NULL) {
        return NULL;
    }
    subscription->base.kind = &kind;
    subscription->client = client;
    subscription->number = ++client->subscription_number;
    subscription->id_len = (uint16_t)wish->id.len;
    subscription->reply_len = (uint8_t)wish->reply_topic.len;
    bytes_copy(subscription->id, wish->id);
    bytes_copy(subscription->id + wish->id.len, wish->reply_topic);
    subscription->has_id = wish->has_id;
    subscription->ack_mode = (uint8_t)wish->ack_mode;
    subscription->style = (uint8_t)wish->destination.style;
    subscription->is_durable = wish->is_durable;
    bool keeps = wish->is_durable || wish->ack_mode != STOMP_ACK_AUTO;
    subscription->qos = keeps && client->settings->qos_max != 0;
    if (map_add(&clients->by_id, hash_of(client, wish->id), &subscription->id_node) != STATUS_OK) {
        mem_free(subscription);
        return NULL;
    }
    struct bytes number = bytes_of(&subscription->number, sizeof subscription->number);
    if (map_add(&clients->by_number, hash_of(client, number), &subscription->number_node) !=
        STATUS_OK) {
        map_remove(&clients->by_id, &subscription->id_node);
        mem_free(subscription);
        return NULL;
    }
    link_subscription(subscription);
    return subscription;
}

/* Opens the session, or the one that was left. One that was left with another filter is not the
 * one that is meant: it begins anew. */
static enum status open_session(struct stomp_subscription *subscription, uint64_t now_ms,
                                const struct wish *wish, struct bytes id)
{
    struct core *core = subscription->client->clients->core;
    struct core_connect connect = {
        .client_id = id,
        .session_expiry_s = wish->is_durable ? CORE_SESSION_NEVER_EXPIRES : 0,
        .receive_maximum = wish->prefetch,
        /* A temp-queue is nobody else's business. */
        .reader = wish->reply_topic.len == 0 ? (struct shared *)(void *)subscription->client->rights
                                             : NULL,
        .client = subscription,
    };
    bool was_there = false;
    enum status status = core_connect(core, now_ms, &connect, &subscription->session, &was_there);
    if (status == STATUS_OK && was_there &&
        !core_is_subscribed(core, subscription->session, wish->filter)) {
        core_disconnect(core, now_ms, subscription->session, false);
        connect.clean_start = true;
        status = core_connect(core, now_ms, &connect, &subscription->session, &was_there);
    }
    return status;
}

/* Makes the subscription that was wished for. MQTT_SUCCESS, or the reason why there is none. */
static enum mqtt_reason subscribe(struct stomp_client *client, uint64_t now_ms,
                                  const struct wish *wish)
{
    uint8_t room[SESSION_ID_MAX];
    struct stomp_subscription *subscription = create(client, wish);
    if (subscription == NULL) {
        return MQTT_SERVER_BUSY;
    }
    struct bytes id = session_id(client, wish, subscription->number, room);
    if (id.len == 0) {
        end_subscription(subscription, now_ms, true);
        return MQTT_QUOTA_EXCEEDED;
    }
    if (open_session(subscription, now_ms, wish, id) != STATUS_OK) {
        end_subscription(subscription, now_ms, true);
        return MQTT_SERVER_BUSY;
    }
    struct core_subscribe request = {
        .filter = wish->filter,
        .qos = subscription->qos,
        .retain_handling = wish->is_durable, /* retained messages only the first time */
    };
    enum mqtt_reason reason =
        core_subscribe(client->clients->core, now_ms, subscription->session, &request);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        end_subscription(subscription, now_ms, true);
        return reason;
    }
    stomp_take_ticket(client);
    return MQTT_SUCCESS;
}

/* SUBSCRIBE. */

/* client-individual came with 1.1; clients that speak 1.0 use it all the same. */
static const char *read_ack_mode(const struct stomp_frame *frame, struct wish *wish)
{
    struct bytes text;
    if (!stomp_frame_header(frame, "ack", &text) || bytes_equal_string(text, "auto")) {
        wish->ack_mode = STOMP_ACK_AUTO;
    } else if (bytes_equal_string(text, "client")) {
        wish->ack_mode = STOMP_ACK_CLIENT;
    } else if (bytes_equal_string(text, "client-individual")) {
        wish->ack_mode = STOMP_ACK_INDIVIDUAL;
    } else {
        return "ack must be auto, client or client-individual";
    }
    uint64_t prefetch = 0;
    if (stomp_frame_header(frame, "prefetch-count", &text) &&
        !stomp_number_read(text, UINT16_MAX, &prefetch)) {
        return "prefetch-count must be a number up to 65535";
    }
    wish->prefetch = prefetch == 0 ? UINT16_MAX : (uint16_t)prefetch;
    return NULL;
}

static const char *read_id(const struct stomp_client *client, const struct stomp_frame *frame,
                           struct wish *wish)
{
    wish->has_id = stomp_frame_header(frame, "id", &wish->id);
    if (!wish->has_id && client->version != STOMP_1_0) {
        return "the id is missing";
    }
    if (!wish->has_id) {
        wish->id = wish->destination_text;
    }
    return find_id(client, wish->has_id, wish->id) != NULL
               ? "there is a subscription of that id already"
               : NULL;
}

static const char *read_durability(const struct stomp_frame *frame, struct wish *wish)
{
    if (wish->destination.kind != STOMP_TOPIC) {
        return NULL; /* a queue keeps its messages in any case */
    }
    if (durable_name(frame, &wish->durable_name) && wish->durable_name.len == 0) {
        return "the name of the durable subscription is empty";
    }
    wish->is_durable = wish->durable_name.len != 0 || is_durable_rabbit(frame);
    return wish->is_durable && wish->durable_name.len == 0 && !wish->has_id
               ? "a durable subscription needs an id"
               : NULL;
}

/* Writes the filter into `writer`. */
static const char *read_filter(const struct stomp_client *client, struct writer *writer,
                               struct wish *wish)
{
    const struct stomp_destination *destination = &wish->destination;
    switch (destination->kind) {
    case STOMP_TEMP_QUEUE:
    case STOMP_REPLY_QUEUE:
        return "answers come without a SUBSCRIBE: send with reply-to:/temp-queue/name";
    case STOMP_EXISTING_QUEUE:
        if (!core_queue_exists(client->clients->core, destination->name)) {
            return "there is no such queue";
        }
        writer_bytes(writer, bytes_of_string(QUEUE_FILTER_PREFIX));
        break;
    case STOMP_QUEUE:
        writer_bytes(writer, bytes_of_string(QUEUE_FILTER_PREFIX));
        break;
    case STOMP_TOPIC:
        break;
    }
    stomp_destination_topic(destination, true, writer);
    wish->filter = writer_written(writer);
    return NULL;
}

static const char *read_wish(const struct stomp_client *client, const struct stomp_frame *frame,
                             struct writer *filter, struct wish *wish)
{
    struct bytes text;
    if (!stomp_frame_header(frame, "destination", &wish->destination_text)) {
        return "the destination is missing";
    }
    if (stomp_frame_header(frame, "selector", &text)) {
        return "selector is not supported: use topics and wildcards";
    }
    if (client->subscription_count >= client->settings->subscriptions_max) {
        return "too many subscriptions";
    }
    const char *wrong = stomp_destination_parse(wish->destination_text, &wish->destination);
    if (wrong == NULL) {
        wrong = read_id(client, frame, wish);
    }
    if (wrong == NULL) {
        wrong = read_ack_mode(frame, wish);
    }
    if (wrong == NULL) {
        wrong = read_durability(frame, wish);
    }
    return wrong == NULL ? read_filter(client, filter, wish) : wrong;
}

static const char *reason_text(enum mqtt_reason reason)
{
    switch (reason) {
    case MQTT_TOPIC_FILTER_INVALID:
        return "the destination is not valid: # may only be its last level";
    case MQTT_QUOTA_EXCEEDED:
        return "there is no room for one more subscription or queue";
    case MQTT_NOT_AUTHORIZED:
        return "not authorized";
    default:
        return "out of memory";
    }
}

static void fail_subscribe(struct stomp_client *client, uint64_t now_ms, enum mqtt_reason reason,
                           const char *text)
{
    char why[TEXT_MAX];
    (void)snprintf(why, sizeof why, "SUBSCRIBE: %s", text);
    stomp_fail(client, now_ms, reason, why);
}

/* Checks what the core does not. */
static enum mqtt_reason judge_filter(const struct stomp_client *client, struct bytes filter)
{
    return access_is_hidden(filter) || !access_may_subscribe(client->rights, filter)
               ? MQTT_NOT_AUTHORIZED
               : MQTT_SUCCESS;
}

void stomp_on_subscribe(struct stomp_client *client, uint64_t now_ms,
                        const struct stomp_frame *frame)
{
    uint8_t text[STOMP_HEAD_BYTES_MAX + 64];
    struct writer filter = writer_of(text, sizeof text);
    struct wish wish = {.has_id = false};
    const char *wrong = read_wish(client, frame, &filter, &wish);
    if (wrong != NULL) {
        fail_subscribe(client, now_ms, MQTT_IMPLEMENTATION_SPECIFIC_ERROR, wrong);
        return;
    }
    enum mqtt_reason reason = judge_filter(client, wish.filter);
    if (reason == MQTT_SUCCESS) {
        reason = subscribe(client, now_ms, &wish);
    }
    client->clients->host.on_subscribe(client->link, &client->base, wish.filter, reason);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        fail_subscribe(client, now_ms, reason, reason_text(reason));
    } else if (client->state == STOMP_CONNECTED) {
        stomp_send_receipt(client, now_ms, client->receipt);
    } else {
        /* It took over a subscription of its own, which ended the client. */
        stomp_drop_subscriptions(client, now_ms);
    }
}

/* UNSUBSCRIBE. */

/* ActiveMQ deletes a durable subscription by its name, whether somebody has it or not. */
static void end_by_name(struct stomp_client *client, uint64_t now_ms, struct bytes name)
{
    uint8_t room[SESSION_ID_MAX];
    struct wish wish = {.is_durable = true, .durable_name = name};
    struct bytes id = session_id(client, &wish, 0, room);
    if (id.len != 0 && name.len != 0) {
        (void)!core_end_session(client->clients->core, now_ms, id, MQTT_ADMINISTRATIVE_ACTION);
    }
}

void stomp_on_unsubscribe(struct stomp_client *client, uint64_t now_ms,
                          const struct stomp_frame *frame)
{
    struct bytes id;
    struct bytes name = BYTES_EMPTY;
    bool has_id = stomp_frame_header(frame, "id", &id);
    bool is_named = durable_name(frame, &name);
    if (!has_id && !stomp_frame_header(frame, "destination", &id) && !is_named) {
        stomp_fail(client, now_ms, MQTT_PROTOCOL_ERROR, "UNSUBSCRIBE: the id is missing");
        return;
    }
    struct stomp_subscription *subscription = find_id(client, has_id, id);
    if (subscription != NULL) {
        client->clients->host.on_unsubscribe(client->link, &client->base, id);
        bool for_good = !subscription->is_durable || is_named || has(frame, "durable", "true") ||
                        has(frame, "persistent", "true");
        end_subscription(subscription, now_ms, for_good);
    } else if (is_named) {
        end_by_name(client, now_ms, name);
    }
    if (client->state == STOMP_CONNECTED) {
        stomp_send_receipt(client, now_ms, client->receipt);
    }
}

/* Temp-queues. */

static struct bytes make_reply_topic(const struct stomp_client *client, uint8_t room[64])
{
    static const char digits[] = "0123456789abcdef";
    const struct client_host *host = &client->clients->host;
    uint8_t random[REPLY_RANDOM_BYTES];
    host->random(host->ctx, random, sizeof random);
    struct writer writer = writer_of(room, 64);
    writer_bytes(&writer, bytes_of_string(STOMP_REPLY_PREFIX));
    for (size_t i = 0; i < sizeof random; i++) {
        writer_u8(&writer, (uint8_t)digits[random[i] >> 4]);
        writer_u8(&writer, (uint8_t)digits[random[i] & 15]);
    }
    return writer_written(&writer);
}

bool stomp_temp_queue(struct stomp_client *client, uint64_t now_ms, struct bytes name,
                      struct writer *topic)
{
    uint8_t id_room[STOMP_HEAD_BYTES_MAX];
    uint8_t topic_room[64];
    struct writer id = writer_of(id_room, sizeof id_room);
    writer_bytes(&id, bytes_of_string(TEMP_QUEUE_PREFIX));
    writer_bytes(&id, name);
    const struct stomp_subscription *known = find_id(client, true, writer_written(&id));
    if (known != NULL && known->reply_len != 0) {
        writer_bytes(topic, bytes_of(known->id + known->id_len, known->reply_len));
        return true;
    }
    struct wish wish = {
        .id = writer_written(&id),
        .has_id = true,
        .prefetch = UINT16_MAX,
        .reply_topic = make_reply_topic(client, topic_room),
    };
    wish.filter = wish.reply_topic;
    const char *wrong = known != NULL ? "there is a subscription of that temp-queue's id" : NULL;
    if (client->subscription_count >= client->settings->subscriptions_max) {
        wrong = "too many subscriptions";
    }
    enum mqtt_reason reason = MQTT_QUOTA_EXCEEDED;
    if (wrong == NULL) {
        reason = subscribe(client, now_ms, &wish);
        wrong = reason_text(reason);
    }
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        fail_subscribe(client, now_ms, reason, wrong);
        return false;
    }
    writer_bytes(topic, wish.reply_topic);
    return true;
}
