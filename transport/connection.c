#include "connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "connection_internal.h"
#include "mem.h"

enum {
    FULL_HANDSHAKE_MS = 1000, /* a client that will be refused is given no more time than this */
    PINGS_UNANSWERED_MAX = 2,
};

struct connection_extra *connection_extra_get(struct connection *connection)
{
    if (connection->extra == NULL) {
        connection->extra = mem_zalloc(sizeof *connection->extra);
    }
    return connection->extra;
}

void connection_extra_settle(struct connection *connection)
{
    const struct connection_extra *extra = connection->extra;
    if (extra != NULL && extra->http == NULL && extra->closing == NULL && extra->control == NULL &&
        extra->held == NULL && extra->fin == NULL && extra->unsent_seen == 0 &&
        extra->first_len == 0) {
        mem_free(connection->extra);
        connection->extra = NULL;
    }
}

struct visit {
    struct transport_loop *loop;
    connection_visit_fn *visit;
    void *ctx;
};

/* The application has handles on the same libuv loop. Only connections, and a listener's own two,
 * have one of the transport loop's listeners for `data`. */
static bool is_connection(const struct transport_loop *loop, const uv_handle_t *handle)
{
    for (const struct listener *l = loop->listeners; l != NULL; l = l->next) {
        if (handle->data == l) {
            return handle != &l->io.handle && handle != (const uv_handle_t *)&l->spare;
        }
    }
    return false;
}

static void visit_handle(uv_handle_t *handle, void *ctx)
{
    const struct visit *visit = ctx;
    if (handle->type == UV_TCP && is_connection(visit->loop, handle)) {
        visit->visit((struct connection *)handle, visit->ctx);
    }
}

void connection_for_each(struct transport_loop *loop, connection_visit_fn *visit, void *ctx)
{
    uv_walk(loop->uv, visit_handle, &(struct visit){loop, visit, ctx});
}

static void on_closed(uv_handle_t *handle)
{
    struct connection *connection = (struct connection *)handle;
    struct transport_loop *loop = connection_loop(connection);
    ENSURE(connection->user == NULL && connection->writes_in_progress == 0);
    loop_unqueue_flush(loop, connection);
    ws_decoder_fini(&connection->ws, &loop->ws_pool);
    tls_session_destroy(connection->tls);
    connection_release_held(connection);
    if (connection->extra != NULL) {
        http_head_destroy(connection->extra->http);
        mem_free(connection->extra->closing);
        mem_free(connection->extra->fin);
        mem_free(connection->extra->control);
        mem_free(connection->extra);
    }
    if (!connection->passed_on) {
        loop_uncount(&loop->statistics.sockets_current, 1);
        loop_unassign(loop);
        if (!connection->refused_full) {
            listener_group_leave(listener_of(connection)->group);
        }
    }
    listener_release(listener_of(connection));
    mem_free(connection);
}

void connection_destroy_soon(struct connection *connection)
{
    if (connection->state != CONNECTION_CLOSED) {
        connection->state = CONNECTION_CLOSED;
        connection_loop(connection)->tls.cipher_len =
            0; /* if anything is there it was this connection's */
        timer_cancel(&connection_loop(connection)->wheel, &connection->timer);
        uv_close(&connection->io.handle, on_closed);
    }
}

/* IPv4 inside IPv6 is shown as what it is. A Unix peer has no address. */
static void remember_peer(struct connection *connection)
{
    struct sockaddr_storage name = {0};
    int len = sizeof name;
    if (uv_tcp_getpeername(&connection->io.tcp, (struct sockaddr *)&name, &len) != 0) {
        return;
    }
    if (name.ss_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)&name;
        memcpy(connection->address, &in4->sin_addr, 4);
        connection->address_bytes = 4;
        connection->port = ntohs(in4->sin_port);
    } else if (name.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&name;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
        connection->address_bytes = mapped ? 4 : 16;
        memcpy(connection->address, in6->sin6_addr.s6_addr + (mapped ? 12 : 0),
               connection->address_bytes);
        connection->port = ntohs(in6->sin6_port);
    }
}

const char *connection_peer_address(const struct connection *connection,
                                    char text[CONNECTION_ADDRESS_BYTES])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (connection->address_bytes == 0) {
        (void)snprintf(text, CONNECTION_ADDRESS_BYTES, "local");
    } else if (connection->address_bytes == 4) {
        (void)inet_ntop(AF_INET, connection->address, host, sizeof host);
        (void)snprintf(text, CONNECTION_ADDRESS_BYTES, "%s:%u", host, connection->port);
    } else {
        (void)inet_ntop(AF_INET6, connection->address, host, sizeof host);
        (void)snprintf(text, CONNECTION_ADDRESS_BYTES, "[%s]:%u", host, connection->port);
    }
    return text;
}

static void count_socket(struct transport_statistics *statistics)
{
    loop_count(&statistics->sockets_accepted, 1);
    loop_count(&statistics->sockets_current, 1);
    if (statistics->sockets_current > statistics->sockets_max) {
        loop_count(&statistics->sockets_max, 1);
    }
}

static struct connection *make_connection(struct listener *listener)
{
    struct connection *connection = mem_zalloc(sizeof *connection);
    if (connection != NULL) {
        listener_hold(listener);
        (void)uv_tcp_init(listener->loop->uv, &connection->io.tcp);
        connection->io.handle.data = listener;
    }
    return connection;
}

/* The client has a place and a loop: its first byte is awaited. */
static void begin(struct connection *connection)
{
    uint32_t timeout_ms = listener_of(connection)->options.handshake_timeout_ms;
    count_socket(&connection_loop(connection)->statistics);
    remember_peer(connection);
    connection->last_inbound_ms = uv_now(connection_loop(connection)->uv);
    if (connection->refused_full && timeout_ms > FULL_HANDSHAKE_MS) {
        timeout_ms = FULL_HANDSHAKE_MS;
    }
    connection_arm(connection, timeout_ms);
    connection_update_reading(connection);
}

/* libuv has no way to give up a socket, so that the other loop gets a second descriptor for it.
 * False: the client stays. */
static bool pass_on(struct connection *connection, struct transport_loop *to)
{
    uv_os_fd_t own;
    if (uv_fileno(&connection->io.handle, &own) != 0) {
        return false;
    }
    int fd = fcntl(own, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    if (loop_hand_over(to, listener_of(connection)->group, fd, connection->refused_full) !=
        STATUS_OK) {
        (void)close(fd);
        return false;
    }
    return true;
}

enum status connection_accept(struct listener *listener)
{
    const struct listener_options *options = &listener->options;
    struct connection *connection = make_connection(listener);
    if (connection == NULL) {
        return STATUS_NO_MEMORY;
    }
    if (uv_accept(&listener->io.stream, &connection->io.stream) != 0) {
        connection->passed_on = true; /* the client has gone already: nobody has it */
        connection_destroy_soon(connection);
        return STATUS_OK;
    }
    listener_group_enter(listener->group);
    if (options->handler.accept != NULL && !options->handler.accept(options->ctx, listener)) {
        connection->refused_full = true;
        listener_group_leave(listener->group);
    }
    struct transport_loop *to = loop_emptiest(listener->loop);
    if (to != listener->loop && pass_on(connection, to)) {
        connection->passed_on = true;
        connection_destroy_soon(connection);
        return STATUS_OK;
    }
    loop_assign(listener->loop);
    begin(connection);
    return STATUS_OK;
}

enum status connection_adopt(struct listener *listener, int fd, bool refused_full)
{
    struct connection *connection = make_connection(listener);
    if (connection == NULL) {
        listener_refused(listener, "?", "out of memory");
        return STATUS_NO_MEMORY;
    }
    if (uv_tcp_open(&connection->io.tcp, fd) != 0) {
        listener_refused(listener, "?", "the socket could not be taken over");
        connection->passed_on = true;
        connection_destroy_soon(connection);
        return STATUS_IO;
    }
    connection->refused_full = refused_full;
    begin(connection);
    return STATUS_OK;
}

void connection_arm(struct connection *connection, uint64_t from_now_ms)
{
    timer_arm(&connection_loop(connection)->wheel, &connection->timer,
              uv_now(connection_loop(connection)->uv) + from_now_ms);
}

bool connection_opened(struct connection *connection, struct connection_info *info)
{
    char address[CONNECTION_ADDRESS_BYTES];
    struct tls_session_names names;
    const struct listener_options *options = &listener_of(connection)->options;
    struct transport_statistics *statistics = &connection_loop(connection)->statistics;
    timer_cancel(&connection_loop(connection)->wheel, &connection->timer);
    connection->state = CONNECTION_OPEN;
    connection->handshake_over = true;
    info->peer_address = connection_peer_address(connection, address);
    info->listener = listener_of(connection);
    info->is_websocket = connection->is_websocket;
    info->is_http = connection->is_http;
    info->is_tls = connection->tls != NULL;
    if (connection->tls != NULL) {
        tls_session_describe(connection->tls, &names, info);
    }
    void *user = connection_handler_of(connection)->open(options->ctx, connection, info);
    if (user == NULL) {
        uint8_t frame[WS_CONTROL_FRAME_MAX];
        size_t len = ws_close_write(frame, WEBSOCKET_TRY_AGAIN_LATER, BYTES_EMPTY);
        if (!connection->is_websocket || connection_write_bytes(connection, bytes_of(frame, len))) {
            connection_linger(connection);
        }
        return false;
    }
    connection->user = user;
    loop_count(&statistics->connections_current, 1);
    loop_count(&statistics->connections_opened, 1);
    loop_count(&statistics->websockets_opened, connection->is_websocket);
    if (connection->is_websocket && options->ping_interval_ms != 0 &&
        connection->state == CONNECTION_OPEN) {
        connection_arm(connection, options->ping_interval_ms);
    }
    return connection_is_live(connection);
}

void connection_report_end(struct connection *connection, const struct connection_end *end)
{
    struct connection_end local = {CONNECTION_CLOSED_LOCALLY, 0, NULL};
    if (connection_closing(connection) != NULL) { /* our decision came first */
        local.text = connection_closing(connection)->reason;
        end = &local;
    }
    if (connection->user != NULL) {
        void *user = connection->user;
        connection->user = NULL;
        loop_uncount(&connection_loop(connection)->statistics.connections_current, 1);
        connection_handler_of(connection)->on_close(user, end);
    } else if (!connection->handshake_over) {
        char address[CONNECTION_ADDRESS_BYTES];
        connection->handshake_over = true;
        listener_refused(listener_of(connection), connection_peer_address(connection, address),
                         end->text);
    }
}

void connection_drop(struct connection *connection, enum connection_cause cause, const char *text)
{
    if (connection->state == CONNECTION_CLOSED) {
        return;
    }
    struct connection_end end = {cause, 0, text};
    connection_destroy_soon(connection);
    connection_report_end(connection, &end);
}

void connection_finish(struct connection *connection, const struct connection_end *end)
{
    connection_report_end(connection, end);
    if (connection_held(connection) != NULL) { /* in the middle of a frame: nothing can follow it */
        connection_destroy_soon(connection);
    } else {
        connection_linger(connection);
    }
}

/* False: no memory. */
static bool remember_closing(struct connection *connection, uint16_t websocket_code,
                             const char *reason)
{
    struct connection_extra *extra = connection_extra_get(connection);
    size_t len = strlen(reason);
    if (extra == NULL) {
        return false;
    }
    extra->closing = mem_alloc(sizeof *extra->closing + len + 1);
    if (extra->closing == NULL) {
        connection_extra_settle(connection);
        return false;
    }
    extra->closing->websocket_code = websocket_code;
    memcpy(extra->closing->reason, reason, len + 1);
    return true;
}

static void on_shutdown(uv_shutdown_t *request, int error)
{
    struct connection *connection = (struct connection *)request->handle;
    if (error < 0) {
        connection_destroy_soon(connection);
    }
}

void connection_linger(struct connection *connection)
{
    if (connection->tls != NULL && connection->state != CONNECTION_TLS_HANDSHAKE) {
        tls_session_close_notify(connection->tls);
    }
    if (connection->tls != NULL && !connection_write_cipher(connection)) {
        return;
    }
    struct connection_extra *extra = connection_extra_get(connection);
    if (extra != NULL) {
        extra->fin = mem_alloc(sizeof *extra->fin);
    }
    if (extra == NULL || extra->fin == NULL ||
        uv_shutdown(extra->fin, &connection->io.stream, on_shutdown) != 0) {
        connection_destroy_soon(connection);
        return;
    }
    connection->state = CONNECTION_LINGER;
    connection_arm(connection, listener_of(connection)->options.close_timeout_ms);
    connection_update_reading(connection);
}

void connection_close(struct connection *connection, uint16_t websocket_code, const char *reason)
{
    if (!connection_is_live(connection) || connection->state != CONNECTION_OPEN) {
        return;
    }
    if (!remember_closing(connection, websocket_code, reason)) {
        connection_abort(connection, reason);
        return;
    }
    connection->state = CONNECTION_DRAINING;
    connection_arm(connection, listener_of(connection)->options.close_timeout_ms);
    connection_update_reading(connection);
    connection_wake(connection);
}

void connection_abort(struct connection *connection, const char *reason)
{
    if (!connection_is_live(connection)) {
        return;
    }
    if (connection_closing(connection) == NULL) {
        (void)remember_closing(connection, 0, reason); /* without memory the flush finds words */
    }
    connection->aborting = true;
    connection_update_reading(connection);
    loop_queue_flush(connection_loop(connection), connection);
}

void connection_wake(struct connection *connection)
{
    connection->woken = true;
    if (connection->writes_in_progress == 0 && connection_held(connection) == NULL) {
        loop_queue_flush(connection_loop(connection), connection);
    }
}

void connection_flush_now(struct connection *connection)
{
    connection->woken = true;
    connection_flush(connection);
}

/* Section 5.5.2: pings keep middleboxes from cutting an idle connection, and find peers that are
 * gone. */
static void check_liveness(struct connection *connection)
{
    uint64_t interval_ms = listener_of(connection)->options.ping_interval_ms;
    uint64_t idle_ms = uv_now(connection_loop(connection)->uv) - connection->last_inbound_ms;
    if (interval_ms == 0) {
        return; /* listener_configure has switched pings off */
    }
    if (connection->paused || connection_unsent_moves(connection)) {
        connection_arm(connection, interval_ms);
        return;
    }
    if (idle_ms < interval_ms) {
        connection->pings_unanswered = 0;
        connection_arm(connection, interval_ms - idle_ms);
        return;
    }
    /* The time alone says little when listener_configure has shortened the interval. */
    if (connection->pings_unanswered >= PINGS_UNANSWERED_MAX &&
        idle_ms >= (PINGS_UNANSWERED_MAX + 1) * interval_ms) {
        loop_count(&connection_loop(connection)->statistics.peers_dead, 1);
        connection_drop(connection, CONNECTION_TIMED_OUT, "no answer to pings");
        return;
    }
    if (connection->pings_unanswered < PINGS_UNANSWERED_MAX) {
        connection->pings_unanswered++;
    }
    connection->ping_due = true;
    loop_count(&connection_loop(connection)->statistics.pings_sent, 1);
    loop_queue_flush(connection_loop(connection), connection);
    connection_arm(connection, interval_ms);
}

void connection_on_timer(struct connection *connection)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_DETECT:
        connection_drop(connection, CONNECTION_TIMED_OUT,
                        connection->tls == NULL ? "silent after connecting"
                                                : "silent after the TLS handshake");
        break;
    case CONNECTION_TLS_HANDSHAKE:
        connection_drop(connection, CONNECTION_TIMED_OUT, "TLS handshake took too long");
        break;
    case CONNECTION_HTTP_HEAD:
        connection_drop(connection, CONNECTION_TIMED_OUT, "HTTP request took too long");
        break;
    case CONNECTION_OPEN:
        check_liveness(connection);
        break;
    case CONNECTION_DRAINING:
    case CONNECTION_CLOSING:
    case CONNECTION_LINGER:
        connection_drop(connection, CONNECTION_CLOSED_LOCALLY, "closed");
        break;
    case CONNECTION_CLOSED:
        break;
    }
}

void connection_pause_reading(struct connection *connection)
{
    connection->paused = true;
    connection_update_reading(connection);
}

void connection_resume_reading(struct connection *connection)
{
    connection->paused = false;
    connection_update_reading(connection);
}

void connection_allow_text(struct connection *connection, bool allowed)
{
    connection->allow_text = allowed;
}

void connection_hear_messages(struct connection *connection)
{
    connection->hears_messages = true;
}

void connection_set_user(struct connection *connection, void *user)
{
    ENSURE(connection->user != NULL && user != NULL);
    connection->user = user;
}

void connection_send_text(struct connection *connection, bool text)
{
    connection->send_text = text;
}

uint64_t connection_last_inbound_ms(struct connection *connection)
{
    /* What a peer sends while nothing is read from it is not seen: that it takes bytes is the sign
     * of life then. */
    if (!connection->reading && connection_unsent_moves(connection)) {
        connection->last_inbound_ms = uv_now(connection_loop(connection)->uv);
    }
    return connection->last_inbound_ms;
}

bool connection_is_websocket(const struct connection *connection)
{
    return connection->is_websocket;
}

bool connection_is_tls(const struct connection *connection)
{
    return connection->tls != NULL;
}

struct listener *connection_listener(const struct connection *connection)
{
    return listener_of(connection);
}
