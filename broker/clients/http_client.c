/* One connection: requests in, answers out, and the time for both. */
#include "http_client_state.h"

#include "mem.h"

enum status http_clients_create(const struct http_host *host, uint64_t now_ms,
                                struct http_clients **out)
{
    struct http_clients *clients = mem_zalloc(sizeof *clients);
    *out = clients;
    if (clients == NULL) {
        return STATUS_NO_MEMORY;
    }
    uint32_t json_seed;
    clients->host = *host;
    timer_wheel_init(&clients->wheel, now_ms);
    host->random(host->ctx, (uint8_t *)&clients->seed, sizeof clients->seed);
    host->random(host->ctx, (uint8_t *)&json_seed, sizeof json_seed);
    http_json_init(json_seed);
    if (http_keys_create(&clients->seed, &clients->keys) != STATUS_OK) {
        mem_free(clients);
        *out = NULL;
        return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

void http_clients_set_core(struct http_clients *clients, struct core *core)
{
    clients->core = core;
}

void http_clients_destroy(struct http_clients *clients)
{
    if (clients != NULL) {
        ENSURE(clients->first == NULL);
        http_keys_destroy(clients->keys);
        mem_free(clients);
    }
}

uint64_t http_clients_next_deadline_ms(const struct http_clients *clients)
{
    return timer_wheel_next_ms(&clients->wheel);
}

static void arm(struct http_client *client, uint64_t at_ms)
{
    timer_arm(&client->clients->wheel, &client->timer, at_ms);
}

static void session_lost(struct client *base, enum mqtt_reason reason);

/* A connection has an HTTP client without its kind; a stream's session has it with. */
static const struct client_kind stream_kind = {
    .output_ready = http_output_ready,
    .session_lost = session_lost,
};

struct http_client *http_client_create(struct http_clients *clients, uint64_t now_ms, void *link,
                                       struct mqtt_settings *settings,
                                       struct bytes certificate_user)
{
    struct http_client *client = mem_zalloc(sizeof *client);
    char *user = certificate_user.len == 0 ? NULL : mem_copy_string(certificate_user);
    if (client == NULL || (certificate_user.len != 0 && user == NULL)) {
        mem_free(client);
        mem_free(user);
        return NULL;
    }
    client->base.kind = &stream_kind;
    client->clients = clients;
    client->link = link;
    client->settings = settings;
    (void)shared_hold(&settings->shared);
    client->certificate_user = user;
    client->opened_ms = now_ms;
    client->next = clients->first;
    if (client->next != NULL) {
        client->next->previous = client;
    }
    clients->first = client;
    return client;
}

struct http_client *http_client_open(struct http_clients *clients, uint64_t now_ms, void *link,
                                     struct mqtt_settings *settings, struct bytes certificate_user)
{
    struct http_reader *reader = http_reader_create(HTTP_HEAD_MAX, settings->packet_bytes_max);
    struct http_client *client =
        reader == NULL ? NULL
                       : http_client_create(clients, now_ms, link, settings, certificate_user);
    if (client == NULL) {
        http_reader_destroy(reader);
        return NULL;
    }
    client->reader = reader;
    arm(client, now_ms + settings->connect_timeout_ms);
    return client;
}

static void drop_blocks(struct http_client *client)
{
    while (client->blocks != NULL) {
        struct http_block *block = client->blocks;
        client->blocks = block->next;
        shared_release(&block->shared);
    }
    message_release(client->body);
    client->body = NULL;
}

static void drop_backlog(struct http_client *client)
{
    mem_free(client->backlog);
    client->backlog = NULL;
    client->backlog_len = 0;
    client->backlog_capacity = 0;
}

/* What was begun for a request that will not be answered. */
static void abandon(struct http_client *client, uint64_t now_ms, const char *why)
{
    http_end_stream(client, now_ms, why);
    if (client->push != NULL) {
        http_push_end(client, now_ms, why);
    }
    http_cancel_check(client);
    http_end_wait(client);
    timer_cancel(&client->clients->wheel, &client->timer);
}

void http_leave(struct http_client *client, enum mqtt_reason reason, const char *why)
{
    if (client->state != HTTP_CLOSING) {
        abandon(client, client->clients->now_ms, why);
        client->state = HTTP_CLOSING;
        client->clients->host.close(client->link, reason, why);
    }
}

void http_client_close(struct http_client *client, uint64_t now_ms, const char *why)
{
    struct http_clients *clients = client->clients;
    abandon(client, now_ms, why);
    if (client->next != NULL) {
        client->next->previous = client->previous;
    }
    if (client->previous != NULL) {
        client->previous->next = client->next;
    } else {
        clients->first = client->next;
    }
    drop_blocks(client);
    drop_backlog(client);
    if (client->push != NULL) {
        http_push_free(client);
    }
    http_reader_destroy(client->reader);
    access_rights_release(client->rights);
    shared_release(&client->settings->shared);
    mem_free(client->user_name);
    mem_free(client->certificate_user);
    mem_free(client);
}

/* Answers */

static void on_block_released(struct shared *shared)
{
    mem_free(shared);
}

/* Room at the end of what is to be sent. NULL: no memory. */
static struct http_block *add_block(struct http_client *client, size_t capacity)
{
    struct http_block *block = mem_alloc(sizeof *block + capacity);
    if (block != NULL) {
        block->shared = (struct shared){1, on_block_released};
        block->next = NULL;
        block->len = 0;
        struct http_block **end = &client->blocks;
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = block;
    }
    return block;
}

void http_add_text(struct http_client *client, struct bytes text)
{
    struct http_block *block = add_block(client, text.len);
    if (block == NULL) {
        http_leave(client, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    bytes_copy(block->data, text);
    block->len = text.len;
    client->clients->host.wake(client->link);
}

/* "*", or the page's origin when it is among the words of http_cors_origin; else nothing. */
static struct bytes allowed_origin(const struct http_client *client)
{
    struct bytes origin = client->request.origin;
    struct bytes rest = bytes_of_string(client->settings->http_cors_origin);
    while (origin.len != 0 && rest.len != 0) {
        struct bytes word = bytes_of(rest.data, 0);
        while (word.len < rest.len && rest.data[word.len] != ' ') {
            word.len++;
        }
        rest = bytes_from(rest, word.len + 1);
        if (bytes_equal_string(word, "*")) {
            return word;
        }
        if (bytes_equal(word, origin)) {
            return word;
        }
    }
    return BYTES_EMPTY;
}

/* A page may send a plain POST to anybody without being asked whether it may: so whoever names a
 * foreign origin that is not listed publishes nothing. */
static bool origin_is_welcome(const struct http_client *client)
{
    const struct http_request *request = &client->request;
    struct bytes origin = request->origin;
    for (size_t i = 0; i + 2 < origin.len; i++) {
        if (memcmp(origin.data + i, "://", 3) == 0) {
            origin = bytes_from(origin, i + 3);
            break;
        }
    }
    return request->origin.len == 0 || allowed_origin(client).len != 0 ||
           bytes_equal(origin, request->host);
}

/* The head, and behind it `body`; the payload of `message` follows by reference. */
static void put_answer(struct http_client *client, uint64_t now_ms, struct http_response *response,
                       struct bytes body, struct message *message)
{
    response->keep_alive = client->keep_alive;
    response->allow_origin = allowed_origin(client);
    response->content_length = body.len;
    if (message != NULL) {
        response->content_length = message_payload(message).len;
    }
    struct http_block *block = add_block(client, HTTP_RESPONSE_HEAD_MAX + body.len);
    if (block == NULL) {
        http_leave(client, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    struct writer writer = writer_of(block->data, HTTP_RESPONSE_HEAD_MAX + body.len);
    http_response_head(response, &writer);
    if (client->has_body) {
        writer_bytes(&writer, body);
        client->body = message == NULL ? NULL : message_hold(message);
    }
    ENSURE(writer_ok(&writer));
    block->len = writer_len(&writer);
    client->state = HTTP_ANSWERED;
    arm(client, now_ms + HTTP_IDLE_MS);
    client->clients->host.wake(client->link);
}

void http_answer(struct http_client *client, uint64_t now_ms, struct http_response *response,
                 struct message *message)
{
    put_answer(client, now_ms, response, BYTES_EMPTY, message);
}

void http_answer_json(struct http_client *client, uint64_t now_ms, unsigned status, char *take_text)
{
    struct http_response response = {
        .status = status, .content_type = "application/json", .asks_for_login = status == 401};
    if (take_text == NULL) {
        http_leave(client, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    put_answer(client, now_ms, &response, bytes_of_string(take_text), NULL);
    mem_free(take_text);
}

void http_answer_error(struct http_client *client, uint64_t now_ms, unsigned status,
                       const char *error, const char *words)
{
    if (client->push != NULL) {
        http_push_refuse(client, status, words);
        return;
    }
    http_answer_json(client, now_ms, status, http_error_text(error, words));
}

void http_answer_method(struct http_client *client, uint64_t now_ms, const char *allow)
{
    struct http_response response = {.status = 204, .allow = allow, .is_preflight = true};
    if (client->request.method == METHOD_OPTIONS) {
        put_answer(client, now_ms, &response, BYTES_EMPTY, NULL);
        return;
    }
    static const char text[] = "{\"error\":\"method_not_allowed\",\"message\":\"the Allow field "
                               "says which methods are\"}";
    response =
        (struct http_response){.status = 405, .allow = allow, .content_type = "application/json"};
    put_answer(client, now_ms, &response, bytes_of_string(text), NULL);
}

/* Requests */

static void begin_request(struct http_client *client, uint64_t now_ms)
{
    client->keep_alive = client->request.keep_alive && !client->clients->stopping;
    client->has_body = client->request.method != METHOD_HEAD;
    timer_cancel(&client->clients->wheel, &client->timer);
    if (client->request.method == METHOD_POST && !origin_is_welcome(client)) {
        http_answer_error(client, now_ms, 403, "origin_not_allowed",
                          "http_cors_origin does not list the origin of this page");
    } else if (!http_route_open(client, now_ms)) {
        http_login(client, now_ms);
    }
}

/* What cannot be read as a request is answered all the same, and the connection closed. */
static void refuse_input(struct http_client *client, uint64_t now_ms, enum http_read result)
{
    client->request = (struct http_request){.method = METHOD_GET};
    client->keep_alive = false;
    client->has_body = true;
    switch (result) {
    case HTTP_READ_HEAD_TOO_LARGE:
        http_answer_error(client, now_ms, 431, "head_too_large",
                          "the head of the request has more than 16384 bytes");
        break;
    case HTTP_READ_BODY_TOO_LARGE:
        http_answer_error(client, now_ms, 413, "body_too_large",
                          "the body of the request is larger than max_packet_size");
        break;
    case HTTP_READ_NO_MEMORY:
        http_leave(client, MQTT_SERVER_BUSY, "out of memory");
        break;
    default:
        http_answer_error(client, now_ms, 400, "bad_request", "this is not an HTTP/1.1 request");
        break;
    }
}

/* Reads requests while none is being worked on. Returns what was not taken. */
static struct bytes read_requests(struct http_client *client, uint64_t now_ms, struct bytes in)
{
    while (in.len != 0 && client->state == HTTP_READING) {
        bool was_inside = http_reader_is_inside(client->reader);
        enum http_read result = http_reader_feed(client->reader, &in, &client->request);
        if (result == HTTP_READ_REQUEST) {
            begin_request(client, now_ms);
        } else if (result == HTTP_READ_CONTINUE) {
            http_add_text(client, http_response_continue());
        } else if (result != HTTP_READ_MORE) {
            refuse_input(client, now_ms, result);
        }
        if (!was_inside && http_reader_is_inside(client->reader)) {
            arm(client, now_ms + client->settings->connect_timeout_ms); /* for all of it */
        }
    }
    return in;
}

/* Keeps what came behind a request. */
static void keep(struct http_client *client, struct bytes in)
{
    size_t len = client->backlog_len + in.len;
    if (len > HTTP_BACKLOG_MAX) {
        http_leave(client, MQTT_QUOTA_EXCEEDED, "it sent too much before it was answered");
        return;
    }
    if (len > client->backlog_capacity) {
        size_t capacity = client->backlog_capacity * 2 > len ? client->backlog_capacity * 2 : len;
        uint8_t *grown = mem_realloc(client->backlog, capacity);
        if (grown == NULL) {
            http_leave(client, MQTT_SERVER_BUSY, "out of memory");
            return;
        }
        client->backlog = grown;
        client->backlog_capacity = capacity;
    }
    bytes_copy(client->backlog + client->backlog_len, in);
    client->backlog_len = len;
    if (len > HTTP_BACKLOG_PAUSE && !client->is_paused) {
        client->is_paused = true;
        client->clients->host.set_reading(client->link, false);
    }
}

void http_client_receive(struct http_client *client, uint64_t now_ms, struct bytes in)
{
    client->clients->now_ms = now_ms;
    if (client->state == HTTP_STREAMING) {
        return; /* it was told that nothing follows */
    }
    if (client->backlog_len == 0) {
        in = read_requests(client, now_ms, in);
    }
    if (in.len != 0 && client->state != HTTP_CLOSING) {
        keep(client, in);
    }
}

/* The answer has gone out: on to what came behind its request. */
static void go_on(struct http_client *client, uint64_t now_ms)
{
    uint8_t *backlog = client->backlog;
    struct bytes rest = bytes_of(backlog, client->backlog_len);
    client->state = HTTP_READING;
    client->backlog = NULL;
    client->backlog_len = 0;
    client->backlog_capacity = 0;
    arm(client, now_ms + HTTP_IDLE_MS);
    rest = read_requests(client, now_ms, rest);
    if (rest.len != 0 && client->state != HTTP_CLOSING) {
        keep(client, rest);
    }
    mem_free(backlog);
    if (client->is_paused && client->backlog_len <= HTTP_BACKLOG_PAUSE) {
        client->is_paused = false;
        client->clients->host.set_reading(client->link, true);
    }
}

void http_send_blocks(struct http_client *client, struct output *output)
{
    while (client->blocks != NULL && output_has_room(output)) {
        struct http_block *block = client->blocks;
        client->blocks = block->next;
        if (client->push != NULL) {
            client->clients->host.begin_message(client->link, output, true);
        }
        output_add(output, bytes_of(block->data, block->len), &block->shared);
        shared_release(&block->shared);
    }
}

void http_client_send(struct http_client *client, uint64_t now_ms, struct output *output)
{
    client->clients->now_ms = now_ms;
    if (client->state == HTTP_WAITING) {
        http_settle_wait(client, now_ms, false);
    }
    http_send_blocks(client, output);
    if (client->blocks == NULL && client->body != NULL && output_has_room(output)) {
        output_add(output, message_payload(client->body), &client->body->shared);
        message_release(client->body);
        client->body = NULL;
    }
    if (client->blocks != NULL || client->body != NULL) {
        client->clients->host.wake(client->link);
    } else if (client->state == HTTP_STREAMING) {
        http_stream_deliver(client, now_ms, output);
    } else if (client->state == HTTP_ANSWERED && client->keep_alive) {
        go_on(client, now_ms);
    } else if (client->state == HTTP_ANSWERED) {
        http_leave(client, MQTT_NORMAL_DISCONNECTION, "answered");
    }
}

/* Time */

struct advance {
    struct http_clients *clients;
    uint64_t now_ms;
};

/* A comment, unless it could not go out anyway. */
static void beat(struct http_client *client, uint64_t now_ms)
{
    if (client->blocks == NULL) {
        http_add_text(client, bytes_of_string(":\n\n"));
    }
    if (client->state == HTTP_CLOSING) {
        return;
    }
    arm(client, now_ms + HTTP_BEAT_MS);
}

static void fire(void *ctx, struct timer *timer)
{
    const struct advance *advance = ctx;
    struct http_client *client =
        (struct http_client *)(void *)((char *)timer - offsetof(struct http_client, timer));
    switch ((enum http_state)client->state) {
    case HTTP_READING:
        if (http_reader_is_inside(client->reader)) {
            client->request = (struct http_request){.method = METHOD_GET};
            client->keep_alive = false;
            client->has_body = true;
            http_answer_error(client, advance->now_ms, 408, "timeout",
                              "the request did not come in time");
        } else {
            http_leave(client, MQTT_NORMAL_DISCONNECTION, "idle");
        }
        break;
    case HTTP_CHECKING:
        http_cancel_check(client);
        http_answer_error(client, advance->now_ms, 503, "busy",
                          "the password could not be checked in time");
        break;
    case HTTP_WAITING:
        http_settle_wait(client, advance->now_ms, true);
        break;
    case HTTP_ANSWERED:
        http_leave(client, MQTT_KEEP_ALIVE_TIMEOUT, "it does not take its answer");
        break;
    case HTTP_STREAMING:
        beat(client, advance->now_ms);
        break;
    case HTTP_PUSHING: /* pings are the transport's */
    case HTTP_CLOSING:
        break;
    }
}

void http_clients_advance(struct http_clients *clients, uint64_t now_ms)
{
    struct advance advance = {clients, now_ms};
    clients->now_ms = now_ms;
    timer_wheel_advance(&clients->wheel, now_ms, fire, &advance);
}

void http_clients_shut_down(struct http_clients *clients, uint64_t now_ms)
{
    clients->stopping = true;
    clients->now_ms = now_ms;
    for (struct http_client *client = clients->first; client != NULL; client = client->next) {
        client->keep_alive = false;
        if (client->state == HTTP_WAITING) {
            http_settle_wait(client, now_ms, true);
        }
        if (client->state != HTTP_ANSWERED) { /* or what it published is not durable yet */
            http_leave(client, MQTT_SERVER_SHUTTING_DOWN, "the broker stops");
        }
    }
}

void http_clients_on_committed(struct http_clients *clients, uint64_t ticket)
{
    clients->committed = ticket;
    for (struct http_client *client = clients->first; client != NULL; client = client->next) {
        if ((client->state == HTTP_WAITING && client->wait.ticket != 0) ||
            (client->push != NULL && http_push_waits(client))) {
            clients->host.wake(client->link);
        }
    }
}

/* Streams */

void http_begin_stream(struct http_client *client, uint64_t now_ms)
{
    static const char first[] = "retry: 1000\n\n";
    struct http_response response = {
        .status = 200, .content_type = "text/event-stream", .until_close = true};
    client->keep_alive = false;
    put_answer(client, now_ms, &response, bytes_of_string(first), NULL);
    if (client->state == HTTP_ANSWERED) {
        client->state = HTTP_STREAMING;
        drop_backlog(client);
        arm(client, now_ms + HTTP_BEAT_MS);
    }
}

bool http_send_block(struct http_client *client, struct output *output, struct bytes bytes)
{
    struct http_block *block = add_block(client, bytes.len);
    if (block == NULL) {
        return false;
    }
    client->blocks = NULL; /* it was the only one */
    bytes_copy(block->data, bytes);
    output_add(output, bytes_of(block->data, bytes.len), &block->shared);
    shared_release(&block->shared);
    return true;
}

void http_leave_stream(struct http_client *client, uint64_t now_ms, const char *why)
{
    client->clients->now_ms = now_ms;
    http_leave(client, MQTT_SERVER_BUSY, why);
}

void http_output_ready(struct client *base)
{
    const struct http_client *client = (const struct http_client *)(const void *)base;
    client->clients->host.wake(client->link);
}

static void session_lost(struct client *base, enum mqtt_reason reason)
{
    struct http_client *client = (struct http_client *)(void *)base;
    http_stream_lost(client);
    http_leave(client, reason, "another connection goes on with its stream");
}

void http_clients_on_access_changed(struct http_clients *clients, uint64_t now_ms)
{
    clients->now_ms = now_ms;
    for (struct http_client *client = clients->first; client != NULL; client = client->next) {
        struct session *session = http_client_session(client);
        struct access *access = client->settings->access;
        struct bytes user = http_client_user_name(client);
        if (session == NULL) {
            continue;
        }
        if (!client->settings->certificate_is_user &&
            !access_is_still_granted(access, user, client->user_mark)) {
            http_leave(client, MQTT_NOT_AUTHORIZED,
                       "its entry in the password file was changed or removed");
        } else if (client->rights == NULL && access_has_acl(access)) {
            if (access_rights_create(access, user, BYTES_EMPTY, &client->rights) != STATUS_OK) {
                http_leave(client, MQTT_SERVER_BUSY, "out of memory");
            } else {
                core_session_set_reader(session, (struct shared *)(void *)client->rights);
            }
        }
    }
}

struct bytes http_client_id(const struct http_client *client)
{
    const struct session *session = http_client_session(client);
    return session == NULL ? BYTES_EMPTY : core_session_client_id(session);
}

uint64_t http_client_opened_ms(const struct http_client *client)
{
    return client->opened_ms;
}

const char *http_client_protocol(const struct http_client *client)
{
    return client->push != NULL ? "WebSocket push" : "HTTP event stream";
}

void *http_client_link(const struct http_client *client)
{
    return client->link;
}

struct bytes http_client_user_name(const struct http_client *client)
{
    return bytes_of(client->user_name, client->user_name_len);
}
