#include "net_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define INPUT_BYTES (256u << 10)
#define OUTBOX_BYTES (256u << 10)
#define EVENTS_MAX 1024
/* Ports of one source address before the next is used, well under the ephemeral range. */
#define CONNECTS_PER_SOURCE 10000
#define SOURCES_MAX 240
/* Without a single client getting ready. */
#define CONNECT_TIMEOUT_NS (20 * SECOND_NS)
#define DEFAULT_RECEIVE_MAXIMUM 65535

/* Any key but zero makes the broker really unmask; a random one for each frame would only cost the
 * generator. */
static const uint8_t mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

/* ---- set-up */

void net_init(struct net *net, const struct net_options *options,
              const struct net_handlers *handlers, void *context)
{
    memset(net, 0, sizeof *net);
    net->options = *options;
    net->handlers = *handlers;
    net->context = context;
    const char *transport = options->transport;
    net->websocket = transport[0] == 'w';
    bool secure = strcmp(transport, "tls") == 0 || strcmp(transport, "wss") == 0;
    if (!secure && strcmp(transport, "tcp") != 0 && strcmp(transport, "ws") != 0) {
        die("transport is %s, not tcp, ws, tls or wss", transport);
    }
    if (secure) {
        net->tls = tls_context_create(options->tls_resume);
    }
    net->server.sin_family = AF_INET;
    net->server.sin_port = htons(options->port);
    if (inet_pton(AF_INET, options->host, &net->server.sin_addr) != 1) {
        die("%s is not an IPv4 address", options->host);
    }
    net->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (net->epoll_fd < 0) {
        die("no epoll: %s", strerror(errno));
    }
    /* Runs follow each other while old connections are in TIME_WAIT: each begins at another
     * address. */
    net->connects = (uint64_t)getpid() % SOURCES_MAX * CONNECTS_PER_SOURCE;
    net->input = must_alloc(1, INPUT_BYTES);
    net->outbox.data = must_alloc(1, OUTBOX_BYTES);
    net->outbox.capacity = OUTBOX_BYTES;
}

void client_init(struct client *client, struct net *net, uint32_t index)
{
    memset(client, 0, sizeof *client);
    client->net = net;
    client->index = index;
    client->fd = -1;
}

void client_subscribe(struct client *client, const struct buffer *filters)
{
    packet_subscribe(&client->setup, client->net->options.version, filters);
    client->setup_acks++;
}

void client_subscribe_one(struct client *client, const char *filter, uint8_t qos)
{
    struct buffer filters = {NULL, 0, 0};
    packet_filter(&filters, filter, qos);
    client_subscribe(client, &filters);
    buffer_fini(&filters);
}

/* ---- sending */

/* Edge-triggered: level-triggered epoll polls every socket again after it was read, which costs a
 * tenth of the generator's time, and would need a system call to watch a full socket. */
static void watch(struct client *client, int operation)
{
    struct epoll_event event = {
        .events = EPOLLET | EPOLLOUT | (client->stalled ? 0u : (uint32_t)EPOLLIN | EPOLLRDHUP),
        .data.ptr = client,
    };
    if (epoll_ctl(client->net->epoll_fd, operation, client->fd, &event) != 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
}

static void client_close(struct client *client)
{
    if (client->fd >= 0) {
        tls_session_destroy(client->tls);
        client->tls = NULL;
        (void)close(client->fd);
        client->fd = -1;
    }
    client->state = CLIENT_CLOSED;
    buffer_fini(&client->unsent);
    client->unsent_at = 0;
}

void client_lost(struct client *client, const char *why)
{
    if (client->net->lost_clients++ == 0) {
        (void)fprintf(stderr, "load: client %u lost in state %d: %s\n", client->index,
                      client->state, why);
    }
    client_close(client);
}

/* As much as the socket takes, in bytes. */
static size_t write_some(struct client *client, const uint8_t *data, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t sent = client->tls != NULL
                           ? tls_write(client->tls, data + done, len - done)
                           : send(client->fd, data + done, len - done, MSG_NOSIGNAL);
        if (sent <= 0) {
            if (errno != EAGAIN && errno != EINTR) {
                client_lost(client, strerror(errno));
            }
            break;
        }
        done += (size_t)sent;
    }
    return done;
}

void client_write(struct client *client, const uint8_t *data, size_t len)
{
    if (client->fd < 0) {
        return;
    }
    size_t done = client_blocked(client) ? 0 : write_some(client, data, len);
    if (done < len && client->fd >= 0) {
        buffer_append(&client->unsent, data + done, len - done);
    }
}

static void write_unsent(struct client *client)
{
    struct buffer *unsent = &client->unsent;
    client->unsent_at +=
        write_some(client, unsent->data + client->unsent_at, unsent->len - client->unsent_at);
    if (client->fd < 0 || client->unsent_at < unsent->len) {
        return;
    }
    buffer_fini(unsent);
    client->unsent_at = 0;
    if (client->net->handlers.on_drained != NULL && client->state == CLIENT_READY) {
        client->net->handlers.on_drained(client->net->context, client);
    }
}

/* Writes the head of a client's binary frame so that it ends just before `payload`, and masks the
 * payload. Returns the head's length. */
size_t frame_encode(uint8_t *payload, size_t len, uint8_t opcode)
{
    size_t head_len = len <= 125 ? 6u : len <= 65535 ? 8u : 14u;
    uint8_t *head = payload - head_len;
    head[0] = (uint8_t)(0x80 | opcode);
    if (len <= 125) {
        head[1] = (uint8_t)(0x80 | len);
    } else {
        size_t digits = head_len - 6;
        head[1] = digits == 2 ? 0x80 | 126 : 0x80 | 127;
        for (size_t i = 0; i < digits; i++) {
            head[2 + i] = (uint8_t)((uint64_t)len >> 8 * (digits - 1 - i));
        }
    }
    memcpy(payload - 4, mask_key, 4);
    uint64_t key;
    memcpy(&key, mask_key, 4);
    memcpy((uint8_t *)&key + 4, mask_key, 4);
    size_t at = 0;
    for (; at + 8 <= len; at += 8) {
        uint64_t word;
        memcpy(&word, payload + at, 8);
        word ^= key;
        memcpy(payload + at, &word, 8);
    }
    for (; at < len; at++) {
        payload[at] ^= mask_key[at & 3];
    }
    return head_len;
}

static size_t frame_head_bytes(size_t len)
{
    return len <= 125 ? 6u : len <= 65535 ? 8u : 14u;
}

uint8_t *client_begin(struct client *client, size_t len)
{
    struct net *net = client->net;
    if (net->outbox.len != 0 && net->outbox.len + len + FRAME_HEAD_MAX > OUTBOX_BYTES) {
        client_flush(client);
    }
    if (net->websocket) {
        if (!net->options.frame_per_write) {
            (void)buffer_extend(&net->outbox, frame_head_bytes(len));
        } else if (net->outbox.len == 0) {
            (void)buffer_extend(&net->outbox, FRAME_HEAD_MAX);
        }
    }
    net->packet_at = net->outbox.len;
    return buffer_extend(&net->outbox, len);
}

void client_end(struct client *client)
{
    struct net *net = client->net;
    if (net->websocket && !net->options.frame_per_write) {
        (void)frame_encode(net->outbox.data + net->packet_at, net->outbox.len - net->packet_at, 2);
    }
}

void client_flush(struct client *client)
{
    struct net *net = client->net;
    if (net->outbox.len == 0) {
        return;
    }
    size_t start = 0;
    if (net->websocket && net->options.frame_per_write) {
        start = FRAME_HEAD_MAX - frame_encode(net->outbox.data + FRAME_HEAD_MAX,
                                              net->outbox.len - FRAME_HEAD_MAX, 2);
    }
    size_t len = net->outbox.len - start;
    net->outbox.len = 0;
    client_write(client, net->outbox.data + start, len);
}

void client_take_outbox(struct client *client, struct buffer *to)
{
    buffer_append(to, client->net->outbox.data, client->net->outbox.len);
    client->net->outbox.len = 0;
}

void client_send(struct client *client, const struct buffer *packets)
{
    memcpy(client_begin(client, packets->len), packets->data, packets->len);
    client_end(client);
    client_flush(client);
}

/* ---- connecting */

static void bind_source(struct client *client)
{
    struct net *net = client->net;
    uint32_t server = ntohl(net->server.sin_addr.s_addr);
    if (server >> 24 != 127) {
        return;
    }
    uint32_t number = (uint32_t)(net->connects / CONNECTS_PER_SOURCE % SOURCES_MAX);
    struct sockaddr_in source = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl((127u << 24) + 1 + number),
    };
    int on = 1;
    (void)setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(client->fd, (const struct sockaddr *)&source, sizeof source) != 0) {
        die("bind to a loopback address: %s", strerror(errno));
    }
}

void client_connect(struct client *client)
{
    struct net *net = client->net;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        die("socket %u: %s", client->index, strerror(errno));
    }
    int on = 1;
    (void)setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bind_source(client);
    net->connects++;
    if (connect(client->fd, (const struct sockaddr *)&net->server, sizeof net->server) != 0 &&
        errno != EINPROGRESS) {
        die("connect: %s", strerror(errno));
    }
    client->state = CLIENT_CONNECTING;
    client->skip = client->frame_left = 0;
    client->frame_head_len = 0;
    client->head_len = 0;
    client->receive_maximum = DEFAULT_RECEIVE_MAXIMUM;
    watch(client, EPOLL_CTL_ADD);
}

void client_send_connect(struct client *client)
{
    char id[32];
    (void)text(id, sizeof id, "bench-%06u", client->index);
    struct connect_packet packet = {
        .client_id = id,
        .version = client->net->options.version,
        .persistent = client->persistent,
    };
    struct buffer bytes = {NULL, 0, 0};
    packet_connect(&bytes, &packet);
    client->state = CLIENT_CONNACK;
    client_send(client, &bytes);
    buffer_fini(&bytes);
}

static void send_upgrade(struct client *client)
{
    const struct net *net = client->net;
    char request[512];
    size_t len = text(request, sizeof request,
                      "GET %s HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\n"
                      "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
                      net->options.path, net->options.host, net->options.port);
    client->state = CLIENT_UPGRADE;
    client_write(client, (const uint8_t *)request, len);
}

static void transport_ready(struct client *client)
{
    if (client->net->websocket) {
        send_upgrade(client);
    } else {
        client_send_connect(client);
    }
}

static void continue_handshake(struct client *client)
{
    enum tls_progress progress = tls_handshake(client->tls);
    if (progress == TLS_FAILED) {
        client_lost(client, "the TLS handshake failed");
        return;
    }
    if (progress == TLS_DONE) {
        transport_ready(client);
    }
}

static void socket_connected(struct client *client)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
        client_lost(client, strerror(error));
        return;
    }
    if (client->net->tls != NULL) {
        client->tls = tls_session_create(client->net->tls, client->fd);
        client->state = CLIENT_TLS;
        continue_handshake(client);
    } else {
        transport_ready(client);
    }
}

void client_ready(struct client *client)
{
    client->state = CLIENT_READY;
    if (client->net->handlers.on_ready != NULL) {
        client->net->handlers.on_ready(client->net->context, client);
    }
}

/* ---- events */

/* Reads until the socket is empty. A short read says so too, unless the end of the stream is behind
 * it or mbedTLS holds another record. */
static void on_readable(struct client *client, bool to_the_end)
{
    struct net *net = client->net;
    bool again = true;
    while (again && client->fd >= 0) {
        ssize_t got = client->tls != NULL ? tls_read(client->tls, net->input, INPUT_BYTES)
                                          : recv(client->fd, net->input, INPUT_BYTES, 0);
        if (got > 0) {
            client_received(client, net->input, (size_t)got);
            again = to_the_end || client->tls != NULL || got == INPUT_BYTES;
        } else {
            again = false;
            if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
                client_lost(client, got == 0 ? "closed by the broker" : strerror(errno));
            }
        }
    }
    if (client->fd >= 0) {
        client_flush(client);
    } else {
        net->outbox.len = 0;
    }
}

static void on_event(struct client *client, uint32_t events)
{
    if (client->state == CLIENT_CONNECTING) {
        socket_connected(client);
        return;
    }
    if (client->state == CLIENT_TLS) {
        continue_handshake(client);
        return;
    }
    if ((events & EPOLLOUT) != 0 && client_blocked(client)) {
        write_unsent(client);
    }
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0 && client->fd >= 0) {
        on_readable(client, (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0);
    }
}

void net_turn(struct net *net, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / SECOND_NS),
        .tv_nsec = (long)(timeout_ns % SECOND_NS),
    };
    int count = epoll_pwait2(net->epoll_fd, events, EVENTS_MAX, &timeout, NULL);
    for (int i = 0; i < count; i++) {
        on_event(events[i].data.ptr, events[i].events);
    }
}

void net_run(struct net *net, uint64_t duration_ns)
{
    uint64_t end = clock_ns() + duration_ns;
    for (uint64_t now = clock_ns(); now < end; now = clock_ns()) {
        net_turn(net, end - now);
    }
}

void net_connect_all(struct client *clients, size_t count, size_t concurrency)
{
    if (count == 0) {
        return;
    }
    struct net *net = clients[0].net;
    size_t started = 0;
    size_t ready = 0;
    uint64_t lost = net->lost_clients;
    uint64_t deadline = clock_ns() + CONNECT_TIMEOUT_NS;
    while (ready < count) {
        while (started < count && started - ready < concurrency) {
            client_connect(&clients[started++]);
        }
        net_turn(net, 100 * MILLISECOND_NS);
        /* They get ready nearly in order, so this looks at each about once. */
        while (ready < started && clients[ready].state == CLIENT_READY) {
            ready++;
            deadline = clock_ns() + CONNECT_TIMEOUT_NS;
        }
        if (net->lost_clients != lost || clock_ns() > deadline) {
            die("%zu of %zu clients connected", ready, count);
        }
    }
}

void client_disconnect(struct client *client)
{
    if (client->state == CLIENT_READY && !client_blocked(client)) {
        struct buffer packet = {NULL, 0, 0};
        packet_disconnect(&packet);
        client_send(client, &packet);
        buffer_fini(&packet);
    }
    client_close(client);
}

void client_fini(struct client *client)
{
    client_disconnect(client);
    buffer_fini(&client->setup);
}

void client_stall(struct client *client, bool stalled)
{
    client->stalled = stalled;
    watch(client, EPOLL_CTL_MOD);
}
