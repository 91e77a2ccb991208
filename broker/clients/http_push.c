/*
 * A WebSocket without a subprotocol: each message of its topics becomes one message of the
 * WebSocket, and a text message that comes publishes what it says in JSON.
 *
 * It is an HTTP client whose one request was the upgrade: it logs in as that one does, and has a
 * session as a stream of events has, which ends with the connection. What comes is taken a message
 * at a time, in order: the next one waits until the answer to the one before has gone out, and
 * until what that one has published is as durable as it must be.
 */
#include <stdio.h>

#include "http_client_state.h"

#include "mem.h"
#include "utf8.h"

enum { KEPT_BYTES = 4 * 1024 /* of the buffer, while nothing is in it */ };

static const char push_path[] = "/api/v1/ws";
static const char id_prefix[] = "http/";

struct http_push {
    struct session *session; /* HTTP_PUSHING only */
    /* What came and was not taken yet: of each message a head, then its bytes. */
    uint8_t *data;
    size_t at; /* the oldest head */
    size_t len;
    size_t capacity;
    size_t begun_at; /* the head of the message that is_inside */
    bool is_inside;  /* a message has begun and not ended */
    uint8_t texts[]; /* that the request points to */
};

/* Before the bytes of a message. */
struct head {
    uint32_t len;
    bool is_text;
};

bool http_push_serves(struct bytes target)
{
    struct bytes path = bytes_of_string(push_path);
    return bytes_start_with(target, path) &&
           (target.len == path.len || target.data[path.len] == '?');
}

struct session *http_push_session(const struct http_client *client)
{
    return client->push->session;
}

/* Beginning and end */

void http_push_refuse(struct http_client *client, unsigned status, const char *words)
{
    enum mqtt_reason reason = MQTT_NOT_AUTHORIZED;
    if (status == 503) {
        reason = MQTT_SERVER_BUSY;
    } else if (status != 401) { /* a login that was refused is in the log */
        client->clients->host.on_refused(client->link, client, http_client_user_name(client),
                                         words);
    }
    http_leave(client, reason, words);
}

static enum mqtt_reason open_session(struct http_client *client, uint64_t now_ms,
                                     const struct http_wishes *wishes)
{
    enum { PREFIX_LEN = sizeof id_prefix - 1 };
    uint8_t id[PREFIX_LEN + HTTP_SECRET_DIGITS];
    bool session_present;
    memcpy(id, id_prefix, PREFIX_LEN);
    http_make_secret(client, id + PREFIX_LEN);
    struct core_connect connect = {
        .client_id = bytes_of(id, sizeof id),
        .clean_start = true,
        .receive_maximum = UINT16_MAX,
        .reader = (struct shared *)(void *)client->rights,
        .client = &client->base,
    };
    if (core_connect(client->clients->core, now_ms, &connect, &client->push->session,
                     &session_present) != STATUS_OK) {
        client->push->session = NULL;
        return MQTT_SERVER_BUSY;
    }
    return http_subscribe_all(client, now_ms, client->push->session, wishes);
}

static void leave_session(struct http_client *client, uint64_t now_ms)
{
    struct session *session = client->push->session;
    client->push->session = NULL;
    if (session != NULL) {
        core_disconnect(client->clients->core, now_ms, session, false);
    }
}

static void begin(struct http_client *client, uint64_t now_ms, const struct http_wishes *wishes)
{
    enum mqtt_reason reason = open_session(client, now_ms, wishes);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        leave_session(client, now_ms);
        http_push_refuse(client, reason == MQTT_SERVER_BUSY ? 503 : 400, mqtt_reason_name(reason));
        return;
    }
    client->state = HTTP_PUSHING;
    client->clients->host.on_stream(client->link, client);
    client->clients->host.wake(client->link);
}

void http_push_begin(struct http_client *client, uint64_t now_ms)
{
    struct http_wishes wishes = {.buffer = mem_alloc(client->request.query.len)};
    if (wishes.buffer == NULL) {
        http_push_refuse(client, 503, "out of memory");
        return;
    }
    const char *problem = http_read_wishes(&client->request, &wishes);
    if (problem != NULL) {
        http_push_refuse(client, 400, problem);
    } else if (!http_may_subscribe_all(client, &wishes)) {
        http_push_refuse(client, 403, "this user may not read one of the topics");
    } else {
        begin(client, now_ms, &wishes);
    }
    mem_free(wishes.buffer);
}

void http_push_end(struct http_client *client, uint64_t now_ms, const char *why)
{
    if (client->state == HTTP_PUSHING) {
        client->clients->host.on_stream_end(client->link, client, why);
        leave_session(client, now_ms);
    }
}

void http_push_free(struct http_client *client)
{
    mem_free(client->push->data);
    mem_free(client->push);
    client->push = NULL;
}

/* What comes */

static size_t complete_end(const struct http_push *push)
{
    return push->is_inside ? push->begun_at : push->len;
}

static bool may_take(const struct http_client *client)
{
    return client->state == HTTP_PUSHING && client->blocks == NULL &&
           client->wait.ticket <= client->clients->committed;
}

bool http_push_waits(const struct http_client *client)
{
    return client->state == HTTP_PUSHING && complete_end(client->push) != client->push->at;
}

static void answer_error(struct http_client *client, const char *error, const char *words)
{
    char *text = http_error_text(error, words);
    if (text == NULL) {
        http_leave(client, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    http_add_text(client, bytes_of_string(text));
    mem_free(text);
}

static void publish(struct http_client *client, uint64_t now_ms, const struct http_batch *batch)
{
    size_t count = http_batch_count(batch);
    for (size_t i = 0; i < count && client->state == HTTP_PUSHING; i++) {
        struct http_publication publication = {.is_watched = false};
        char words[HTTP_PROBLEM_MAX];
        (void)http_publish_one(client, now_ms, http_batch_at(batch, i), false, &publication);
        if (publication.result.error == NULL) {
            continue;
        }
        if (http_batch_is_single(batch)) {
            answer_error(client, publication.result.error, publication.result.words);
        } else {
            (void)snprintf(words, sizeof words, "message %zu: %s", i, publication.result.words);
            answer_error(client, publication.result.error, words);
        }
    }
}

static void take_message(struct http_client *client, uint64_t now_ms, struct bytes text)
{
    struct http_batch *batch = NULL;
    char problem[HTTP_PROBLEM_MAX] = "";
    enum status status = http_batch_parse(text, &batch, problem);
    if (status == STATUS_OK) {
        publish(client, now_ms, batch);
        http_batch_destroy(batch);
    } else if (status == STATUS_INVALID) {
        answer_error(client, "bad_message", problem);
    } else {
        answer_error(client, "busy", "out of memory");
    }
}

/* Gives back what an idle connection need not have. */
static void tidy(struct http_push *push)
{
    if (push->at == push->len) {
        push->at = 0;
        push->len = 0;
        if (push->capacity > KEPT_BYTES) {
            mem_free(push->data);
            push->data = NULL;
            push->capacity = 0;
        }
    }
}

static void update_reading(struct http_client *client)
{
    const struct http_push *push = client->push;
    bool pause = !may_take(client) && push->len - push->at > HTTP_BACKLOG_PAUSE;
    if (client->state != HTTP_CLOSING && pause != client->is_paused) {
        client->is_paused = pause;
        client->clients->host.set_reading(client->link, !pause);
    }
}

static void take_messages(struct http_client *client, uint64_t now_ms)
{
    struct http_push *push = client->push;
    while (may_take(client) && complete_end(push) != push->at) {
        struct head head;
        memcpy(&head, push->data + push->at, sizeof head);
        struct bytes text = bytes_of(push->data + push->at + sizeof head, head.len);
        if (head.is_text) {
            take_message(client, now_ms, text);
        } else {
            answer_error(client, "bad_message", "what is to be published comes as a text message");
        }
        push->at += sizeof head + head.len;
    }
    tidy(push);
    update_reading(client);
}

/* What was taken makes room before there is more of it. */
static bool make_room(struct http_push *push, size_t len)
{
    if (push->at != 0 && push->len + len > push->capacity) {
        memmove(push->data, push->data + push->at, push->len - push->at);
        push->len -= push->at;
        push->begun_at -= push->is_inside ? push->at : 0;
        push->at = 0;
    }
    if (push->len + len > push->capacity) {
        size_t needed = push->len + len;
        size_t capacity = push->capacity * 2 > needed ? push->capacity * 2 : needed;
        uint8_t *grown = mem_realloc(push->data, capacity);
        if (grown == NULL) {
            return false;
        }
        push->data = grown;
        push->capacity = capacity;
    }
    return true;
}

static void append(struct http_client *client, const void *bytes, size_t len)
{
    struct http_push *push = client->push;
    if (!make_room(push, len)) {
        http_leave(client, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    bytes_copy(push->data + push->len, bytes_of(bytes, len));
    push->len += len;
}

static struct http_client *client_of(struct client *base)
{
    return (struct http_client *)(void *)base;
}

static void message_begin(struct client *base, bool text)
{
    struct http_client *client = client_of(base);
    struct http_push *push = client->push;
    struct head head;
    if (client->state == HTTP_CLOSING) {
        return;
    }
    if (push->len - push->at > HTTP_BACKLOG_MAX) {
        http_leave(client, MQTT_QUOTA_EXCEEDED, "it sent too much before it was answered");
        return;
    }
    memset(&head, 0, sizeof head);
    head.is_text = text;
    append(client, &head, sizeof head);
    push->begun_at = push->len - sizeof head;
    push->is_inside = client->state != HTTP_CLOSING;
}

static void receive(struct client *base, uint64_t now_ms, struct bytes in)
{
    struct http_client *client = client_of(base);
    struct http_push *push = client->push;
    client->clients->now_ms = now_ms;
    if (client->state == HTTP_CLOSING) {
        return;
    }
    ENSURE(push->is_inside);
    size_t len = push->len - push->begun_at - sizeof(struct head) + in.len;
    if (len > client->settings->packet_bytes_max) {
        http_leave(client, MQTT_PACKET_TOO_LARGE, "a message is larger than max_packet_size");
        return;
    }
    append(client, in.data, in.len);
    update_reading(client);
}

static void message_end(struct client *base, uint64_t now_ms)
{
    struct http_client *client = client_of(base);
    struct http_push *push = client->push;
    struct head head;
    client->clients->now_ms = now_ms;
    if (client->state == HTTP_CLOSING) {
        return;
    }
    ENSURE(push->is_inside);
    memcpy(&head, push->data + push->begun_at, sizeof head);
    head.len = (uint32_t)(push->len - push->begun_at - sizeof head);
    memcpy(push->data + push->begun_at, &head, sizeof head);
    push->is_inside = false;
    take_messages(client, now_ms);
}

/* What goes */

static void send_delivery(struct http_client *client, const struct core_delivery *delivery,
                          struct output *output)
{
    struct core *core = client->clients->core;
    struct session *session = client->push->session;
    struct message *message = delivery->message;
    if (message == NULL) {
        (void)core_pubcomp(core, session, delivery->packet_id);
        return;
    }
    if (!access_may_read(client->rights, message_topic(message))) {
        core_give_up(core, session, delivery);
        return;
    }
    struct bytes payload = message_payload(message);
    client->clients->host.begin_message(client->link, output, utf8_is_valid(payload));
    output_add(output, payload, &message->shared);
    if (delivery->qos != 0) {
        (void)core_puback(core, session, delivery->packet_id);
    }
}

static void deliver(struct http_client *client, uint64_t now_ms, struct output *output)
{
    while (client->state == HTTP_PUSHING) {
        struct core_delivery delivery;
        enum core_next next = CORE_AGAIN;
        if (output_has_room(output)) {
            next = core_next(client->clients->core, now_ms, client->push->session, &delivery);
        }
        if (next == CORE_AGAIN) {
            client->clients->host.wake(client->link);
        }
        if (next != CORE_DELIVERY) {
            return;
        }
        send_delivery(client, &delivery, output);
    }
}

static void send_output(struct client *base, uint64_t now_ms, struct output *output)
{
    struct http_client *client = client_of(base);
    client->clients->now_ms = now_ms;
    if (client->state == HTTP_READING) {
        http_login(client, now_ms);
    }
    http_send_blocks(client, output);
    if (client->blocks != NULL) {
        client->clients->host.wake(client->link);
        return;
    }
    if (client->state == HTTP_PUSHING) {
        take_messages(client, now_ms);
        deliver(client, now_ms, output);
    }
}

static void close_client(struct client *base, uint64_t now_ms, const char *why)
{
    http_client_close(client_of(base), now_ms, why);
}

static void *link_of(const struct client *base)
{
    return ((const struct http_client *)(const void *)base)->link;
}

static void describe(const struct client *base, struct client_facts *out)
{
    const struct http_client *client = (const struct http_client *)(const void *)base;
    *out = (struct client_facts){
        .client_id = http_client_id(client),
        .user_name = http_client_user_name(client),
        .protocol = http_client_protocol(client),
        .opened_ms = client->opened_ms,
        .clean_start = true,
    };
}

static void session_lost(struct client *base, enum mqtt_reason reason)
{
    struct http_client *client = client_of(base);
    client->push->session = NULL;
    http_leave(client, reason, mqtt_reason_name(reason));
}

static const struct client_kind push_kind = {
    .receive = receive,
    .message_begin = message_begin,
    .message_end = message_end,
    .send = send_output,
    .close = close_client,
    .link = link_of,
    .describe = describe,
    .output_ready = http_output_ready,
    .session_lost = session_lost,
};

struct client *http_push_open(struct http_clients *clients, uint64_t now_ms, void *link,
                              struct mqtt_settings *settings, struct bytes certificate_user,
                              const struct http_upgrade *upgrade)
{
    size_t target_len = upgrade->target.len;
    struct http_push *push = mem_zalloc(sizeof *push + target_len + upgrade->authorization.len);
    struct http_client *client =
        push == NULL ? NULL : http_client_create(clients, now_ms, link, settings, certificate_user);
    if (client == NULL) {
        mem_free(push);
        return NULL;
    }
    bytes_copy(push->texts, upgrade->target);
    bytes_copy(push->texts + target_len, upgrade->authorization);
    struct bytes query = bytes_of(push->texts, target_len);
    query = bytes_from(query, sizeof push_path - 1);
    client->push = push;
    client->base.kind = &push_kind;
    client->request = (struct http_request){
        .method = METHOD_GET,
        .query = query.len == 0 ? BYTES_EMPTY : bytes_from(query, 1),
        .authorization = bytes_of(push->texts + target_len, upgrade->authorization.len),
    };
    clients->host.wake(link); /* what it asks for is looked at when it is asked for output */
    return &client->base;
}
