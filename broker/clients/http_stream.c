/*
 * GET /api/v1/subscribe: Server-Sent Events. A stream is a session of the core's with subscriptions
 * at QoS 1 at most; what it gets becomes an event each.
 *
 * An event of a message at QoS 1 has an id: the stream's secret and the packet identifier. The
 * session outlives its connection by STREAM_EXPIRY_S; whoever comes back with the last id
 * (Last-Event-ID) gets what was sent to it and not seen, and what came meanwhile. For that the
 * messages sent last stay in flight: each is acknowledged only when STREAM_UNSEEN_MAX newer ones
 * were sent, or a returning peer has seen it.
 */
#include <stdio.h>

#include "http_client_state.h"

#include "mem.h"

enum {
    STREAM_EXPIRY_S = 60,
    STREAM_UNSEEN_MAX = 32,
    STREAM_RECEIVE_MAX = 2 * STREAM_UNSEEN_MAX,
    SECRET_DIGITS = HTTP_SECRET_DIGITS,
    NUMBER_DIGITS = 4,
};

static const char id_prefix[] = "http/";

struct http_stream {
    struct session *session;
    uint16_t seen; /* packet identifier of the last event that a returning peer has seen; 0: none */
    uint16_t unseen[STREAM_UNSEEN_MAX]; /* packet identifiers in flight, a ring */
    uint32_t unseen_count;
    uint32_t unseen_at; /* the oldest */
    bool is_resumed;
    uint8_t client_id[sizeof id_prefix - 1 + SECRET_DIGITS];
};

struct session *http_client_session(const struct http_client *client)
{
    if (client->push != NULL) {
        return http_push_session(client);
    }
    return client->stream == NULL ? NULL : client->stream->session;
}

/* The request */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "SECRET-NUMBER", as events have it. False: it is no id of ours. */
static bool read_event_id(struct bytes text, struct http_stream *stream)
{
    if (text.len < SECRET_DIGITS + 2 || text.len > SECRET_DIGITS + 1 + NUMBER_DIGITS ||
        text.data[SECRET_DIGITS] != '-') {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        int digit = hex_digit(text.data[i]);
        if (i != SECRET_DIGITS && digit < 0) {
            return false;
        }
        if (i > SECRET_DIGITS) {
            stream->seen = (uint16_t)(stream->seen << 4 | digit);
        }
    }
    memcpy(stream->client_id + sizeof id_prefix - 1, text.data, SECRET_DIGITS);
    return true;
}

static void make_secret(struct http_client *client, struct http_stream *stream)
{
    http_make_secret(client, stream->client_id + sizeof id_prefix - 1);
}

/* Opens the session that an event id names, or a new one. */
static enum status open_session(struct http_client *client, uint64_t now_ms,
                                struct http_stream *stream, bool wants_resume)
{
    struct core *core = client->clients->core;
    struct core_connect connect = {
        .client_id = bytes_of(stream->client_id, sizeof stream->client_id),
        .clean_start = !wants_resume,
        .session_expiry_s = STREAM_EXPIRY_S,
        .receive_maximum = STREAM_RECEIVE_MAX,
        .reader = (struct shared *)(void *)client->rights,
        .client = &client->base,
    };
    enum status status =
        core_connect(core, now_ms, &connect, &stream->session, &stream->is_resumed);
    if (status != STATUS_OK || !wants_resume || stream->is_resumed) {
        return status;
    }
    core_session_set_expiry(core, stream->session, 0); /* nobody chooses a secret */
    core_disconnect(core, now_ms, stream->session, false);
    make_secret(client, stream);
    stream->seen = 0;
    return open_session(client, now_ms, stream, false);
}

static void begin(struct http_client *client, uint64_t now_ms, const struct http_wishes *wishes)
{
    struct http_stream *stream = mem_zalloc(sizeof *stream);
    if (stream == NULL) {
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    memcpy(stream->client_id, id_prefix, sizeof id_prefix - 1);
    bool wants_resume = read_event_id(wishes->event_id, stream);
    if (!wants_resume) {
        stream->seen = 0;
        make_secret(client, stream);
    }
    if (open_session(client, now_ms, stream, wants_resume) != STATUS_OK) {
        mem_free(stream);
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    client->stream = stream;
    enum mqtt_reason reason = http_subscribe_all(client, now_ms, stream->session, wishes);
    if (reason != MQTT_SUCCESS) {
        core_session_set_expiry(client->clients->core, stream->session, 0);
        http_end_stream(client, now_ms, NULL);
        bool is_quota = reason == MQTT_QUOTA_EXCEEDED;
        http_answer_error(client, now_ms, is_quota ? 507 : 400, is_quota ? "no_room" : "bad_topic",
                          mqtt_reason_name(reason));
        return;
    }
    http_begin_stream(client, now_ms);
    if (client->state == HTTP_STREAMING) {
        client->clients->host.on_stream(client->link, client);
    }
}

void http_subscribe(struct http_client *client, uint64_t now_ms)
{
    struct http_wishes wishes = {
        .buffer = mem_alloc(client->request.query.len), .qos = 1, .may_resume = true};
    if (client->request.method != METHOD_GET) {
        http_answer_method(client, now_ms, "GET, OPTIONS");
    } else if (wishes.buffer == NULL) {
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
    } else {
        const char *problem = http_read_wishes(&client->request, &wishes);
        if (problem != NULL) {
            http_answer_error(client, now_ms, 400, "bad_parameter", problem);
        } else if (!http_may_subscribe_all(client, &wishes)) {
            http_answer_error(client, now_ms, 403, "not_allowed",
                              "this user may not read one of the topics");
        } else {
            begin(client, now_ms, &wishes);
        }
    }
    mem_free(wishes.buffer);
}

void http_end_stream(struct http_client *client, uint64_t now_ms, const char *why)
{
    struct http_stream *stream = client->stream;
    if (stream == NULL) {
        return;
    }
    if (why != NULL) {
        client->clients->host.on_stream_end(client->link, client, why);
    }
    client->stream = NULL;
    if (stream->session != NULL) {
        core_disconnect(client->clients->core, now_ms, stream->session, false);
    }
    mem_free(stream);
}

void http_stream_lost(struct http_client *client)
{
    client->stream->session = NULL;
}

/* Events */

/* Packet identifiers are given in sequence, and only few are in flight. */
static bool was_seen(const struct http_stream *stream, const struct core_delivery *delivery)
{
    return stream->seen != 0 && delivery->dup && delivery->qos == 1 &&
           (uint16_t)(stream->seen - delivery->packet_id) < STREAM_RECEIVE_MAX;
}

/* The oldest ones are taken for seen when there are too many. */
static void keep_in_flight(struct core *core, struct http_stream *stream, uint16_t packet_id)
{
    if (stream->unseen_count == STREAM_UNSEEN_MAX) {
        (void)core_puback(core, stream->session, stream->unseen[stream->unseen_at]);
        stream->unseen_at = (stream->unseen_at + 1) % STREAM_UNSEEN_MAX;
        stream->unseen_count--;
    }
    stream->unseen[(stream->unseen_at + stream->unseen_count) % STREAM_UNSEEN_MAX] = packet_id;
    stream->unseen_count++;
}

/* One event as text, to be freed; NULL: no memory. */
static char *event_text(const struct http_stream *stream, const struct core_delivery *delivery,
                        size_t *len)
{
    enum { HEAD_MAX = 96 };
    char id[HEAD_MAX] = "";
    char *json = http_event_text(delivery->message, delivery->retain);
    size_t size = json == NULL ? 0 : strlen(json) + HEAD_MAX;
    char *text = json == NULL ? NULL : mem_alloc(size);
    if (delivery->qos != 0) {
        (void)snprintf(id, sizeof id, "id: %.*s-%x\n", SECRET_DIGITS,
                       (const char *)stream->client_id + sizeof id_prefix - 1,
                       (unsigned)delivery->packet_id);
    }
    if (text != NULL) {
        *len = (size_t)snprintf(text, size, "%sdata: %s\n\n", id, json);
    }
    mem_free(json);
    return text;
}

void http_stream_deliver(struct http_client *client, uint64_t now_ms, struct output *output)
{
    struct core *core = client->clients->core;
    struct http_stream *stream = client->stream;
    while (client->stream != NULL && stream->session != NULL) {
        struct core_delivery delivery;
        enum core_next next = CORE_AGAIN;
        if (output_has_room(output)) {
            next = core_next(core, now_ms, stream->session, &delivery);
        }
        if (next == CORE_AGAIN) {
            client->clients->host.wake(client->link);
        }
        if (next != CORE_DELIVERY) {
            return;
        }
        if (delivery.message == NULL) {
            (void)core_pubcomp(core, stream->session, delivery.packet_id);
            continue;
        }
        if (was_seen(stream, &delivery)) {
            (void)core_puback(core, stream->session, delivery.packet_id);
            continue;
        }
        if (!access_may_read(client->rights, message_topic(delivery.message))) {
            core_give_up(core, stream->session, &delivery);
            continue;
        }
        size_t len = 0;
        char *text = event_text(stream, &delivery, &len);
        if (text == NULL || !http_send_block(client, output, bytes_of(text, len))) {
            mem_free(text);
            http_leave_stream(client, now_ms, "out of memory");
            return;
        }
        mem_free(text);
        if (delivery.qos != 0) {
            keep_in_flight(core, stream, delivery.packet_id);
        }
    }
}
