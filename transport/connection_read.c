#include <stdio.h>

#include "connection_internal.h"
#include "detect.h"
#include "mem.h"
#include "ws_handshake.h"

/* What one feed of the WebSocket decoder has found, acted on when the feed is over. */
struct ws_feed {
    struct connection *connection;
    bool closed;
    bool no_memory;
    uint16_t close_code;
    size_t reason_len;
    char reason[WS_CONTROL_MAX + 1];
};

/* A turn reads so much from all connections together, so that it ends soon. The kernel reports
 * readable connections in the same order each time; those that were left over come first in the
 * next turn, by passing over as many as stood before them. */
static bool takes_turn(struct transport_loop *loop)
{
    uint32_t reader = loop->turn_readers++;
    if (loop->turn_bytes < LOOP_READ_BYTES) {
        return reader >= loop->readers_passed;
    }
    if (loop->first_unread == 0) {
        loop->first_unread = reader;
    }
    return false;
}

/*
 * One read in a turn, so that no connection keeps the others waiting. libuv would go on until the
 * socket is empty; without a buffer it leaves off, and the kernel reports the rest in the next
 * turn.
 */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    const struct connection *connection = (const struct connection *)handle;
    struct transport_loop *loop = connection_loop(connection);
    (void)suggested;
    *buf = uv_buf_init(NULL, 0);
    if (loop->reader != connection && takes_turn(loop)) {
        *buf = uv_buf_init((char *)loop->read_buffer, CONNECTION_READ_BYTES);
    }
    loop->reader = connection;
}

static bool may_deliver(const struct connection *connection)
{
    return connection->state == CONNECTION_OPEN && connection_is_live(connection);
}

/* A user that has closed or aborted wants no more of this read. After connection_close the decoder
 * goes on, because the peer's Close is still wanted. */
static void stop_if_ended(struct connection *connection)
{
    if (!connection_is_live(connection)) {
        ws_decoder_stop(&connection->ws);
    }
}

static void on_ws_message_begin(void *ctx, bool text)
{
    struct ws_feed *feed = ctx;
    struct connection *connection = feed->connection;
    if (may_deliver(connection)) {
        connection_handler_of(connection)->on_message_begin(connection->user, text);
        stop_if_ended(connection);
    }
}

static void on_ws_data(void *ctx, struct bytes bytes)
{
    struct ws_feed *feed = ctx;
    struct connection *connection = feed->connection;
    if (may_deliver(connection)) {
        connection_handler_of(connection)->on_bytes(connection->user, bytes);
        stop_if_ended(connection);
    }
}

static void on_ws_message_end(void *ctx)
{
    struct ws_feed *feed = ctx;
    struct connection *connection = feed->connection;
    if (may_deliver(connection)) {
        connection_handler_of(connection)->on_message_end(connection->user);
        stop_if_ended(connection);
    }
}

static void on_ws_ping(void *ctx, struct bytes payload)
{
    struct ws_feed *feed = ctx;
    struct connection *connection = feed->connection;
    if (!may_deliver(connection)) {
        return;
    }
    struct connection_extra *extra = connection_extra_get(connection);
    if (extra != NULL && extra->control == NULL) {
        extra->control = mem_alloc(sizeof *extra->control);
    }
    if (extra == NULL || extra->control == NULL) {
        feed->no_memory = true;
        ws_decoder_stop(&connection->ws);
        return;
    }
    extra->control->pong_len = (uint8_t)payload.len;
    bytes_copy(extra->control->pong_payload, payload);
    if (connection->writes_in_progress == 0 && extra->held == NULL) {
        loop_queue_flush(connection_loop(connection), connection);
    }
}

static void on_ws_pong(void *ctx)
{
    (void)ctx; /* like any other byte it has proved that the peer is there */
}

static void on_ws_close(void *ctx, uint16_t code, struct bytes reason)
{
    struct ws_feed *feed = ctx;
    feed->closed = true;
    feed->close_code = code;
    feed->reason_len = reason.len;
    bytes_copy(feed->reason, reason);
    feed->reason[reason.len] = 0;
}

/* Our answer to a Close or a violation, and the end of the stream. Nothing is answered twice
 * (5.5.1). */
static void answer_close(struct connection *connection, uint16_t code, const char *reason,
                         const struct connection_end *end)
{
    if (connection->state != CONNECTION_CLOSING && connection_held(connection) == NULL) {
        uint8_t frame[WS_CONTROL_FRAME_MAX];
        size_t len = ws_close_write(frame, code, bytes_of_string(reason));
        if (!connection_write_bytes(connection, bytes_of(frame, len))) {
            return;
        }
    }
    connection_finish(connection, end);
}

static void receive_websocket(struct connection *connection, struct bytes bytes)
{
    struct ws_feed feed = {.connection = connection};
    const struct ws_sink sink = {
        .message_begin = connection->hears_messages ? on_ws_message_begin : NULL,
        .data = on_ws_data,
        .message_end = connection->hears_messages ? on_ws_message_end : NULL,
        .ping = on_ws_ping,
        .pong = on_ws_pong,
        .close = on_ws_close,
        .ctx = &feed,
        .message_bytes_max = listener_of(connection)->options.message_bytes_max,
        .allow_text = connection->allow_text,
    };
    uint8_t *input = (uint8_t *)(uintptr_t)bytes.data; /* in a buffer of the loop */
    struct ws_verdict verdict = ws_decoder_feed(
        &connection->ws, &connection_loop(connection)->ws_pool, input, bytes.len, &sink);
    char text[256];
    if (!connection_is_live(connection)) {
        return; /* the end of the turn sees to it */
    }
    if (feed.no_memory || verdict.code == WEBSOCKET_INTERNAL_ERROR) {
        connection_drop(connection, CONNECTION_NO_MEMORY, "out of memory");
    } else if (verdict.code != 0) {
        (void)snprintf(text, sizeof text, "WebSocket violation: %s (%u)", verdict.text,
                       verdict.code);
        answer_close(connection, verdict.code, verdict.text,
                     &(struct connection_end){CONNECTION_PROTOCOL_VIOLATION, verdict.code, text});
    } else if (feed.closed) {
        if (feed.close_code == WS_CLOSE_WITHOUT_CODE) {
            (void)snprintf(text, sizeof text, "WebSocket close without a code");
        } else {
            (void)snprintf(text, sizeof text,
                           feed.reason_len == 0 ? "WebSocket close %u%s" : "WebSocket close %u: %s",
                           feed.close_code, feed.reason);
        }
        answer_close(connection, feed.close_code, "",
                     &(struct connection_end){CONNECTION_CLOSE_FRAME, feed.close_code, text});
    }
}

static void receive_open(struct connection *connection, struct bytes bytes)
{
    if (bytes.len == 0) {
        return;
    }
    if (connection->is_websocket) {
        receive_websocket(connection, bytes);
    } else if (may_deliver(connection)) {
        connection_handler_of(connection)->on_bytes(connection->user, bytes);
    }
}

static bool is_served_as_http(const struct connection *connection)
{
    const struct listener_options *options = &listener_of(connection)->options;
    const struct http_head *http = connection->extra->http;
    return options->serves_http != NULL && !http_head_has_token(http, HTTP_UPGRADE, "websocket") &&
           options->serves_http(http_head_value(http, HTTP_TARGET, 0));
}

/* The user gets the head again, as bytes, and then what followed it. */
static void begin_plain_http(struct connection *connection, struct bytes rest)
{
    struct http_head *http = connection->extra->http;
    struct connection_info info = {
        .subprotocol = -1,
        .path = http_head_value(http, HTTP_TARGET, 0),
        .origin = http_head_value(http, HTTP_ORIGIN, 0),
    };
    connection->extra->http = NULL;
    connection_extra_settle(connection);
    connection->is_http = true;
    if (connection_opened(connection, &info)) {
        receive_open(connection, http_head_bytes(http));
        if (connection_is_live(connection)) {
            receive_open(connection, rest);
        }
    }
    http_head_destroy(http);
}

static void receive_http(struct connection *connection, struct bytes bytes)
{
    struct ws_handshake answer;
    struct http_head *http = connection->extra->http;
    size_t consumed;
    enum http_head_result result = http_head_feed(http, bytes, &consumed);
    if (result == HTTP_HEAD_MORE) {
        return;
    }
    if (result == HTTP_HEAD_NO_MEMORY) {
        connection_drop(connection, CONNECTION_NO_MEMORY, "out of memory");
        return;
    }
    if (result == HTTP_HEAD_DONE && is_served_as_http(connection)) {
        if (!connection->refused_full) {
            begin_plain_http(connection, bytes_from(bytes, consumed));
            return;
        }
        ws_handshake_refuse_full(&answer);
    } else if (result == HTTP_HEAD_DONE) {
        ws_handshake_decide(http, &listener_of(connection)->options, connection->refused_full,
                            &answer);
    } else {
        ws_handshake_refuse(result, &answer);
    }
    if (!connection_write_bytes(connection, bytes_of(answer.response, answer.response_len))) {
        return;
    }
    if (!answer.accepted) {
        struct connection_end end = {CONNECTION_PROTOCOL_VIOLATION, 0, answer.reason};
        connection_finish(connection, &end);
        return;
    }
    struct connection_info info = {
        .subprotocol = answer.subprotocol,
        .path = http_head_value(http, HTTP_TARGET, 0),
        .origin = http_head_value(http, HTTP_ORIGIN, 0),
        .authorization = http_head_value(http, HTTP_AUTHORIZATION, 0),
    };
    connection->is_websocket = true;
    bool opened = connection_opened(connection, &info);
    http_head_destroy(http);
    connection->extra->http = NULL;
    connection_extra_settle(connection);
    if (opened) {
        receive_open(connection, bytes_from(bytes, consumed));
    }
}

static void begin_raw(struct connection *connection, bool is_stomp, struct bytes bytes)
{
    if (connection->refused_full) {
        connection_drop(connection, CONNECTION_CLOSED_LOCALLY, "too many connections");
        return;
    }
    struct connection_info info = {.subprotocol = -1, .is_stomp = is_stomp};
    if (connection_opened(connection, &info)) {
        receive_open(connection, bytes);
    }
}

static void begin_http(struct connection *connection, struct bytes bytes)
{
    struct connection_extra *extra = connection_extra_get(connection);
    if (extra != NULL) {
        const struct listener_options *options = &listener_of(connection)->options;
        extra->http = http_head_create(options->http_head_bytes_max, options->serves_http != NULL);
    }
    if (extra == NULL || extra->http == NULL) {
        connection_drop(connection, CONNECTION_NO_MEMORY, "out of memory");
        return;
    }
    connection->state = CONNECTION_HTTP_HEAD;
    receive_http(connection, bytes);
}

static void receive_plain(struct connection *connection, struct bytes bytes);

/* Keeps the first bytes of a client that has not sent enough of them to be told from others. */
static void keep_first(struct connection *connection, struct bytes first)
{
    struct connection_extra *extra = connection_extra_get(connection);
    if (extra == NULL) {
        connection_drop(connection, CONNECTION_NO_MEMORY, "out of memory");
        return;
    }
    bytes_copy(extra->first, first);
    extra->first_len = (uint8_t)first.len;
}

static const char *refusal(const struct connection *connection, enum detected detected)
{
    switch (detected) {
    case DETECTED_MQTT:
        return "MQTT without WebSocket on a listener for something else";
    case DETECTED_STOMP:
        return "STOMP without WebSocket on a listener for something else";
    case DETECTED_TLS:
        return connection->tls == NULL ? "TLS on a listener without TLS" : "TLS inside TLS";
    default:
        return "HTTP on a listener without WebSocket";
    }
}

static void begin(struct connection *connection, enum detected detected, struct bytes bytes)
{
    unsigned speaks = listener_of(connection)->options.speaks;
    if ((detected == DETECTED_MQTT && (speaks & LISTENER_RAW) != 0) ||
        (detected == DETECTED_STOMP && (speaks & LISTENER_STOMP) != 0)) {
        begin_raw(connection, detected == DETECTED_STOMP, bytes);
    } else if (detected == DETECTED_HTTP && (speaks & LISTENER_WEBSOCKET) != 0) {
        begin_http(connection, bytes);
    } else if (detected == DETECTED_UNKNOWN) {
        char text[64];
        (void)snprintf(text, sizeof text, "unknown protocol, first byte 0x%02x", bytes.data[0]);
        connection_drop(connection, CONNECTION_PROTOCOL_VIOLATION, text);
    } else {
        connection_drop(connection, CONNECTION_PROTOCOL_VIOLATION, refusal(connection, detected));
    }
}

/* The first bytes inside TLS, or without it; those that came before are kept. */
static void detect(struct connection *connection, struct bytes bytes)
{
    uint8_t room[DETECT_BYTES_MAX];
    struct writer first = writer_of(room, sizeof room);
    struct connection_extra *extra = connection->extra;
    size_t kept = extra == NULL ? 0 : extra->first_len;
    if (kept != 0) {
        writer_bytes(&first, bytes_of(extra->first, kept));
    }
    size_t room_left = writer_room(&first);
    writer_bytes(&first, bytes_of(bytes.data, bytes.len < room_left ? bytes.len : room_left));
    enum detected detected = detect_protocol(writer_written(&first));
    if (detected == DETECTED_MORE) {
        keep_first(connection, writer_written(&first));
        return;
    }
    if (kept == 0) {
        begin(connection, detected, bytes);
        return;
    }
    extra->first_len = 0;
    connection_extra_settle(connection);
    begin(connection, detected, bytes_of(room, kept));
    if (connection_is_live(connection) && connection->state != CONNECTION_DETECT) {
        receive_plain(connection, bytes);
    }
}

static void receive_plain(struct connection *connection, struct bytes bytes)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_DETECT:
        detect(connection, bytes);
        break;
    case CONNECTION_HTTP_HEAD:
        receive_http(connection, bytes);
        break;
    case CONNECTION_OPEN:
    case CONNECTION_DRAINING:
    case CONNECTION_CLOSING:
        receive_open(connection, bytes);
        break;
    case CONNECTION_TLS_HANDSHAKE:
    case CONNECTION_LINGER:
    case CONNECTION_CLOSED:
        break;
    }
}

static void tls_failed(struct connection *connection)
{
    struct connection_end end = {CONNECTION_TLS_ERROR, 0, tls_session_error(connection->tls)};
    connection_finish(connection, &end);
}

/* The peer's FIN, or its close_notify, which says the same but wants an answer (RFC 5246, 7.2.1).
 */
static void peer_ended(struct connection *connection, bool answer)
{
    const char *text = "peer closed the connection";
    if (connection->state == CONNECTION_TLS_HANDSHAKE) {
        text = "peer closed the connection during the TLS handshake";
    } else if (connection->state == CONNECTION_HTTP_HEAD) {
        text = "peer closed the connection during the HTTP request";
    } else if (connection->is_websocket) {
        text = "peer closed the connection without a WebSocket Close";
    }
    if (answer) {
        struct connection_end end = {CONNECTION_CLOSED_BY_PEER, 0, text};
        connection_finish(connection, &end);
    } else {
        connection_drop(connection, CONNECTION_CLOSED_BY_PEER, text);
    }
}

/* False when there is nothing more to do with this input. */
static bool continue_handshake(struct connection *connection)
{
    struct transport_statistics *statistics = &connection_loop(connection)->statistics;
    enum tls_result result = tls_session_handshake(connection->tls);
    if (result == TLS_FAILED) {
        loop_count(&statistics->tls_handshakes_failed, 1);
        tls_failed(connection);
        return false;
    }
    if (!connection_write_cipher(connection)) {
        return false;
    }
    if (result == TLS_CLOSED) {
        peer_ended(connection, true);
        return false;
    }
    if (result == TLS_DONE) {
        loop_count(&statistics->tls_handshakes, 1);
        loop_count(&statistics->tls_handshakes_resumed, tls_session_is_resumed(connection->tls));
        connection->state = CONNECTION_DETECT;
        return true;
    }
    return false;
}

static void receive_tls(struct connection *connection, struct bytes bytes)
{
    tls_session_input(connection->tls, bytes);
    if (connection->state == CONNECTION_TLS_HANDSHAKE && !continue_handshake(connection)) {
        return;
    }
    enum tls_result result;
    size_t len;
    while ((result = tls_session_read(connection->tls, &len)) == TLS_DONE) {
        receive_plain(connection, bytes_of(connection_loop(connection)->tls.plain, len));
        if (!connection_is_live(connection) || connection->state == CONNECTION_LINGER) {
            tls_session_input(connection->tls, BYTES_EMPTY);
            return;
        }
    }
    if (result == TLS_FAILED) {
        tls_failed(connection);
    } else if (connection_write_cipher(connection) && result == TLS_CLOSED) {
        peer_ended(connection, true);
    }
}

/* The first byte on the wire decides about TLS. */
static void receive_first(struct connection *connection, struct bytes bytes)
{
    enum listener_tls mode = listener_of(connection)->options.tls;
    bool is_tls = detect_protocol(bytes) == DETECTED_TLS;
    if (is_tls && mode != LISTENER_TLS_NONE) {
        if (tls_session_create(listener_of(connection)->options.tls_config,
                               &connection_loop(connection)->tls, &connection->tls) != STATUS_OK) {
            connection_drop(connection, CONNECTION_NO_MEMORY, "no memory for a TLS session");
            return;
        }
        connection->state = CONNECTION_TLS_HANDSHAKE;
        receive_tls(connection, bytes);
    } else if (mode == LISTENER_TLS_REQUIRED) {
        connection_drop(connection, CONNECTION_PROTOCOL_VIOLATION,
                        "no TLS on a listener that requires it");
    } else {
        receive_plain(connection, bytes);
    }
}

static void receive(struct connection *connection, struct bytes bytes)
{
    if (connection->tls != NULL) {
        if (connection->state != CONNECTION_LINGER) {
            receive_tls(connection, bytes);
        }
    } else if (connection->state == CONNECTION_DETECT) {
        receive_first(connection, bytes);
    } else {
        receive_plain(connection, bytes);
    }
}

static bool lingers_too_long(struct connection *connection, size_t len)
{
    struct connection_extra *extra = connection->extra;
    if (extra == NULL) {
        return true;
    }
    extra->lingered += (uint32_t)len;
    return extra->lingered > CONNECTION_LINGER_BYTES;
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
    struct connection *connection = (struct connection *)stream;
    if (len == 0 || len == UV_ENOBUFS) {
        return;
    }
    if (len < 0) {
        if (connection->state == CONNECTION_DETECT && connection->tls == NULL) {
            connection->handshake_over = true; /* a health check: nobody was refused */
            connection_destroy_soon(connection);
        } else if (connection->state == CONNECTION_LINGER ||
                   connection->state == CONNECTION_CLOSING) {
            connection_destroy_soon(connection);
        } else if (len == UV_EOF) {
            peer_ended(connection, false);
        } else {
            connection_drop(connection, CONNECTION_RESET, uv_strerror((int)len));
        }
        return;
    }
    connection_loop(connection)->turn_bytes += (size_t)len;
    loop_count(&connection_loop(connection)->statistics.bytes_received, (uint64_t)len);
    connection->last_inbound_ms = uv_now(connection_loop(connection)->uv);
    if (connection->user != NULL && connection_handler_of(connection)->on_inbound != NULL) {
        connection_handler_of(connection)
            ->on_inbound(connection->user, connection->last_inbound_ms);
    }
    if (connection->state == CONNECTION_LINGER && lingers_too_long(connection, (size_t)len)) {
        connection_destroy_soon(connection);
        return;
    }
    receive(connection, bytes_of(buf->base, (size_t)len));
}

void connection_update_reading(struct connection *connection)
{
    bool wanted = connection_is_live(connection);
    if (connection->state == CONNECTION_OPEN &&
        (connection->paused || connection_unsent_bytes(connection) > CONNECTION_UNSENT_PAUSE)) {
        wanted = false;
    }
    if (wanted && !connection->reading) {
        connection->reading = uv_read_start(&connection->io.stream, on_alloc, on_read) == 0;
    } else if (!wanted && connection->reading && connection->state != CONNECTION_CLOSED) {
        (void)uv_read_stop(&connection->io.stream);
        connection->reading = false;
    }
}
