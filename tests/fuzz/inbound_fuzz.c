/*
 * The whole inbound path in one process: detection, HTTP head, upgrade, frames, MQTT and STOMP,
 * core, over Unix sockets, a real loop and the server's own handlers. Only the clock, the random
 * numbers and the seed are ours, so that a run depends on its input alone.
 *
 * Input: four bytes of settings (see struct settings), then what up to two hostile peers send, in
 * segments. MARK and an operation byte stand between segments: its low three bits say what happens
 * (enum operation), the others how much. Beside the peers a well-behaved subscriber may be
 * connected, whom nothing they do may disturb. What the broker sends is checked: HTTP, frames,
 * packets.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "inbound_packets.h"
#include "mem.h"
#include "mqtt_ack.h"
#include "mqtt_publish.h"
#include "mqtt_subscribe.h"
#include "server_state.h"
#include "stomp_frame.h"

enum {
    PEERS = 2,
    LISTENERS = 2,
    HEADER = 4,
    MARK_LEN = 2,
    CHUNKS_MAX = 128,    /* small ones of one input; then all goes at once */
    TURNS_MAX = 20000,   /* beyond, the loop does not come to rest */
    HEARD_MAX = 1 << 20, /* of one peer and not parsed yet */
    SEND_BUFFER_MIN = 4608,
    BIG_PAYLOAD = 9000, /* long enough to be sent by reference */
};

/* Between segments of an input. */
static const uint8_t mark[MARK_LEN] = {0xFE, 0xED};

/* The clock jumps to the next multiple before each input, so that timers fall into the same slots
 * of their wheels whatever ran before. */
static const uint64_t input_ms = UINT64_C(1) << 20;
/* libuv counts nanoseconds in 64 bits. */
static const uint64_t restart_ms = UINT64_C(1) << 43;

enum operation {
    SWITCH,     /* the other peer goes on */
    RECONNECT,  /* close, and open again with what follows */
    HALF_CLOSE, /* FIN */
    WAIT,       /* 1 << amount milliseconds */
    READ,       /* a peer that reads little empties its socket */
    ANSWER,     /* the subscriber publishes */
    BROADCAST,  /* the broker publishes a long message */
    SETTLE,     /* only what has been sent has its effect */
};

enum kind { PLAIN, WRAPPED, FRAMES };

/* The first bytes of an input. */
struct settings {
    enum kind kind;
    bool subscriber;  /* is connected */
    bool strict;      /* which listener */
    bool connect;     /* a valid CONNECT goes first */
    bool connect_old; /* of 3.1.1 */
    bool lazy;        /* peers read when told to, and the broker's send buffers are small */
    bool fragments;   /* three frames make a message */
    bool pings;       /* in front of each frame */
    bool text;
    size_t chunk_bytes; /* of one write; 0: all */
    size_t frame_bytes; /* at most; 0: all */
};

enum stage { HEARS_NOTHING, HEARS_HTTP, HEARS_FRAMES, HEARS_MQTT, HEARS_NO_MORE };

/* What a peer has heard and not understood yet. */
struct heard {
    enum stage stage;
    bool frames_over; /* a Close frame came */
    bool stomp;       /* frames, not packets */
    size_t packets;
    size_t raw_len, mqtt_len;
    uint8_t raw[HEARD_MAX], mqtt[HEARD_MAX];
};

struct peer {
    int fd; /* -1: not connected */
    bool ended;
    bool is_subscriber;
    enum kind kind;
    uint32_t pongs;
    unsigned frame_in_message;
    struct heard heard;
};

static struct server server;
static struct settings settings;
static struct peer peers[PEERS + 1]; /* the last one is the subscriber */
static struct peer *const subscriber = &peers[PEERS];
static uint64_t virtual_ms = 1 << 20;
static uint64_t random_state;
static unsigned chunks;
static struct sockaddr_un addresses[LISTENERS];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libuv's clock stands still until an input moves it. It asks for the monotonic clock only; the
 * fuzzer, which must know how long it has run, for the other. */
__attribute__((no_sanitize("address", "undefined"))) int clock_gettime(clockid_t clock,
                                                                       struct timespec *time)
{
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE) {
        return (int)syscall(SYS_clock_gettime, clock, time);
    }
    time->tv_sec = (time_t)(virtual_ms / 1000);
    time->tv_nsec = (long)(virtual_ms % 1000) * 1000000;
    return 0;
}

static uint32_t next_random(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return (uint32_t)(random_state >> 33);
}

static void fill_random(void *ctx, uint8_t *out, size_t len)
{
    (void)ctx;
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)next_random();
    }
}

static void report(void *ctx, enum config_severity severity, const char *file, unsigned line,
                   const char *text)
{
    (void)ctx;
    (void)severity;
    (void)fprintf(stderr, "%s:%u: %s\n", file, line, text);
}

/* Limits are so small that an input can reach them. */
static struct config *load_config(void)
{
    static char text[2048];
    struct config *config = NULL;
    int len = snprintf(text, sizeof text,
                       "per_listener_settings true\n"
                       "listener 0 %s\nallow_anonymous true\n"
                       "listener 0 %s\nallow_anonymous true\nmax_qos 1\nmax_topic_alias 0\n"
                       "max_connections 1\nallow_zero_length_clientid false\n"
                       "websockets_origin https://example.org\n"
                       "max_packet_size 20000\nmessage_size_limit 12000\nmax_queued_messages 40\n"
                       "max_inflight_messages 5\nmax_subscriptions 10\nmax_topic_levels 10\n"
                       "persistent_client_expiration 1d\n"
                       "websockets_headers_size 2048\nlog_type all\nlog_dest file /dev/null\n",
                       addresses[0].sun_path, addresses[1].sun_path);
    ENSURE(config_parse(bytes_of(text, (size_t)len), "fuzz.conf", report, NULL, &config) ==
           STATUS_OK);
    return config;
}

static void remove_sockets(void)
{
    for (int i = 0; i < LISTENERS; i++) {
        (void)unlink(addresses[i].sun_path);
    }
}

static void start(void)
{
    if (server.config == NULL) {
        for (int i = 0; i < LISTENERS; i++) {
            addresses[i].sun_family = AF_UNIX;
            (void)snprintf(addresses[i].sun_path, sizeof addresses[i].sun_path,
                           "/tmp/inbound-fuzz-%ld-%d", (long)getpid(), i);
        }
        (void)atexit(remove_sockets);
        server.config = load_config();
        ENSURE(log_create(&server.config->log, &server.log) == STATUS_OK);
    }
    remove_sockets();
    ENSURE(uv_loop_init(&server.uv) == 0);
    struct transport_loop_options options = {.uv = &server.uv};
    ENSURE(transport_loop_create(&options, &server.loop) == STATUS_OK);
    ENSURE(server_open_listeners(&server) == STATUS_OK);
}

static void stop(void)
{
    transport_loop_destroy(server.loop);
    ENSURE(uv_loop_close(&server.uv) == 0);
    mem_free(server.listeners);
}

static uint64_t now_ms(void)
{
    return transport_loop_now_ms(server.loop);
}

static void open_broker(void)
{
    const struct config *config = server.config;
    struct client_host host = server_client_host(&server);
    host.random = fill_random;
    host.unix_ms = NULL; /* it would not stand still */
    struct http_host http_host = server_http_host(&server);
    http_host.random = fill_random;
    struct core_options options = core_options_default();
    options.seed = (struct hash_seed){1, 2};
    options.queued_messages_max = config->max_queued_messages;
    options.queued_bytes_max = 100000;
    options.inflight_max = (uint16_t)config->max_inflight_messages;
    options.subscriptions_max = config->max_subscriptions;
    options.topic_nodes_max = 100;
    options.topic_levels_max = config->max_topic_levels;
    options.session_expiry_max_s = (uint32_t)config->persistent_client_expiration_s;
    options.queue_qos0 = settings.strict;
    ENSURE(server_create_clients(&server, &host, &http_host, now_ms(), &options) == STATUS_OK);
}

/* Everything that the input did ends with its broker. */
static void close_broker(void)
{
    core_check(server.core);
    ENSURE(core_stats(server.core).sessions_connected == 0);
    core_destroy(server.core);
    server_destroy_clients(&server);
}

/* What the broker says. */

static void answer(struct peer *peer, struct bytes bytes)
{
    ENSURE(send(peer->fd, bytes.data, bytes.len, MSG_NOSIGNAL) == (ssize_t)bytes.len);
}

static void acknowledge(struct peer *peer, enum mqtt_type type, uint16_t packet_id)
{
    uint8_t room[16];
    struct writer writer = writer_of(room, sizeof room);
    struct mqtt_ack ack = {.packet_id = packet_id, .reason = MQTT_SUCCESS};
    mqtt_ack_encode(&writer, type, MQTT_VERSION_5, &ack);
    ENSURE(writer_ok(&writer));
    answer(peer, writer_written(&writer));
}

/* The subscriber speaks MQTT 5 and answers as it should. */
static void hear_as_subscriber(struct peer *peer, const struct mqtt_header *header,
                               struct bytes body)
{
    struct mqtt_publish publish;
    struct mqtt_ack ack;
    switch (header->type) {
    case MQTT_PUBLISH:
        ENSURE(mqtt_publish_decode(body, header->flags, MQTT_VERSION_5, &publish) == MQTT_SUCCESS);
        if (publish.qos != 0) {
            acknowledge(peer, publish.qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, publish.packet_id);
        }
        break;
    case MQTT_PUBREL:
        ENSURE(mqtt_ack_decode(body, MQTT_PUBREL, MQTT_VERSION_5, &ack) == MQTT_SUCCESS);
        acknowledge(peer, MQTT_PUBCOMP, ack.packet_id);
        break;
    case MQTT_PUBREC:
        ENSURE(mqtt_ack_decode(body, MQTT_PUBREC, MQTT_VERSION_5, &ack) == MQTT_SUCCESS);
        if (ack.reason < 0x80) {
            acknowledge(peer, MQTT_PUBREL, ack.packet_id);
        }
        break;
    case MQTT_PINGRESP:
        peer->pongs++;
        break;
    default:
        break;
    }
}

/* `left` is the end of what `buffer` holds, or empty. */
static void keep(uint8_t *buffer, struct bytes left)
{
    if (left.len != 0) {
        memmove(buffer, left.data, left.len);
    }
}

static void hear_stomp(struct heard *heard)
{
    struct bytes left = stomp_skip_line_ends(bytes_of(heard->mqtt, heard->mqtt_len));
    while (left.len != 0) {
        struct stomp_scan scan = {0};
        enum stomp_result result = stomp_frame_scan(&scan, left, SIZE_MAX);
        if (result == STOMP_MORE) {
            break;
        }
        if (result == STOMP_HEAD_TOO_LARGE) { /* a client's limit, not the broker's */
            left = BYTES_EMPTY;
            break;
        }
        ENSURE(result == STOMP_OK && may_be_from_server(left));
        heard->packets++;
        left = stomp_skip_line_ends(bytes_from(left, scan.frame_len));
    }
    keep(heard->mqtt, left);
    heard->mqtt_len = left.len;
}

static void hear_mqtt(struct peer *peer)
{
    struct heard *heard = &peer->heard;
    if (heard->packets == 0 && heard->mqtt_len != 0 && heard->mqtt[0] != MQTT_CONNACK << 4) {
        heard->stomp = true;
    }
    if (heard->stomp) {
        ENSURE(!peer->is_subscriber);
        hear_stomp(heard);
        return;
    }
    struct bytes left = bytes_of(heard->mqtt, heard->mqtt_len);
    struct mqtt_header header;
    while (mqtt_header_decode(left, &header) != MQTT_HEADER_INCOMPLETE) {
        ENSURE(mqtt_header_decode(left, &header) == MQTT_HEADER_COMPLETE);
        ENSURE(may_come_from_server(header.type));
        ENSURE((header.type == MQTT_CONNACK) == (heard->packets == 0)); /* [MQTT-3.2.0-1] */
        if (left.len - header.header_len < header.remaining) {
            break;
        }
        heard->packets++;
        struct bytes body = bytes_of(left.data + header.header_len, header.remaining);
        if (peer->is_subscriber) {
            hear_as_subscriber(peer, &header, body);
        }
        left = bytes_from(left, header.header_len + header.remaining);
    }
    keep(heard->mqtt, left);
    heard->mqtt_len = left.len;
}

static void hear_payload(struct heard *heard, struct bytes bytes)
{
    ENSURE(bytes.len <= HEARD_MAX - heard->mqtt_len);
    bytes_copy(heard->mqtt + heard->mqtt_len, bytes);
    heard->mqtt_len += bytes.len;
}

/* RFC 6455, 5.2: from a server, one frame for each message, unmasked, its length in the shortest
 * form. False: it is not complete. */
static bool hear_frame(struct heard *heard, struct bytes *left)
{
    struct reader reader = reader_of(*left);
    uint8_t first = reader_u8(&reader);
    uint8_t second = reader_u8(&reader);
    uint64_t len = second;
    if (second == 126) {
        len = reader_u16(&reader);
    } else if (second == 127) {
        ENSURE(reader_u32(&reader) == 0);
        len = reader_u32(&reader);
    }
    if (!reader_ok(&reader)) {
        return false;
    }
    bool control = (first & 8) != 0;
    ENSURE(first == 0x81 || first == 0x82 || first == 0x88 || first == 0x89 || first == 0x8A);
    ENSURE(second <= 127 && (!control || second <= 125));
    ENSURE((second != 126 || len > 125) && (second != 127 || len > 65535));
    ENSURE(!heard->frames_over);
    if (reader_left(&reader) < len) {
        return false;
    }
    struct bytes payload = reader_bytes(&reader, (size_t)len);
    if (first == 0x88) {
        ENSURE(len != 1);
        heard->frames_over = true;
    } else if (!control) {
        hear_payload(heard, payload);
    }
    *left = reader_rest(&reader);
    return true;
}

static struct bytes hear_http(struct heard *heard, struct bytes raw)
{
    const uint8_t *end = memmem(raw.data, raw.len, "\r\n\r\n", 4);
    if (end == NULL) {
        return raw;
    }
    ENSURE(raw.len > 12 && memcmp(raw.data, "HTTP/1.1 ", 9) == 0);
    bool upgraded = memcmp(raw.data + 9, "101", 3) == 0;
    heard->stage = upgraded ? HEARS_FRAMES : HEARS_NO_MORE;
    ENSURE(upgraded || raw.data[9] == '4' || raw.data[9] == '5');
    return bytes_from(raw, (size_t)(end - raw.data) + 4);
}

static void understand(struct peer *peer)
{
    struct heard *heard = &peer->heard;
    struct bytes left = bytes_of(heard->raw, heard->raw_len);
    if (heard->stage == HEARS_NOTHING && left.len != 0) {
        heard->stage = left.data[0] == 'H' ? HEARS_HTTP : HEARS_MQTT;
        ENSURE(heard->stage == HEARS_HTTP || peer->kind == PLAIN);
    }
    if (heard->stage == HEARS_HTTP) {
        left = hear_http(heard, left);
    }
    if (heard->stage == HEARS_FRAMES) {
        while (hear_frame(heard, &left)) {
        }
    } else if (heard->stage == HEARS_MQTT) {
        hear_payload(heard, left);
        left.len = 0;
    } else if (heard->stage == HEARS_NO_MORE) {
        left.len = 0; /* the body of a refusal */
    }
    keep(heard->raw, left);
    heard->raw_len = left.len;
    hear_mqtt(peer);
}

static void hear(struct peer *peer)
{
    struct heard *heard = &peer->heard;
    while (peer->fd >= 0 && !peer->ended) {
        ssize_t len =
            recv(peer->fd, heard->raw + heard->raw_len, HEARD_MAX - heard->raw_len, MSG_DONTWAIT);
        if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        peer->ended = len <= 0;
        if (len > 0) {
            heard->raw_len += (size_t)len;
            understand(peer);
        }
    }
}

/* The loop. */

static void turn(void)
{
    (void)uv_run(&server.uv, UV_RUN_NOWAIT);
}

/* True when something came. */
static bool hear_all(bool lazy_too)
{
    struct pollfd ready[PEERS + 1];
    for (int i = 0; i <= PEERS; i++) {
        bool listens = lazy_too || !settings.lazy || peers[i].is_subscriber;
        ready[i] = (struct pollfd){listens && !peers[i].ended ? peers[i].fd : -1, POLLIN, 0};
    }
    if (poll(ready, PEERS + 1, 0) <= 0) {
        return false;
    }
    for (int i = 0; i <= PEERS; i++) {
        if (ready[i].revents != 0) {
            hear(&peers[i]);
        }
    }
    return true;
}

/* Until two turns have changed nothing. */
static void settle(bool lazy_too)
{
    int quiet = 0;
    for (int turns = 0; quiet < 2; turns++) {
        struct transport_statistics before = *transport_loop_statistics(server.loop);
        turn();
        bool any = hear_all(lazy_too);
        bool same = memcmp(&before, transport_loop_statistics(server.loop), sizeof before) == 0;
        quiet = any || !same || uv_backend_timeout(&server.uv) == 0 ? 0 : quiet + 1;
        ENSURE(turns < TURNS_MAX);
    }
}

static void wait_for(uint64_t ms)
{
    virtual_ms += ms;
    uv_update_time(&server.uv);
    server_advance_clients(&server, now_ms());
    core_advance(server.core, now_ms());
    settle(false);
}

/* Peers. */

static void send_bytes(struct peer *peer, struct bytes bytes)
{
    for (int tries = 0; bytes.len != 0 && tries < 100; tries++) {
        ssize_t sent = send(peer->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) {
            return; /* the broker has closed */
        }
        bytes = bytes_from(bytes, sent < 0 ? 0 : (size_t)sent);
        if (bytes.len != 0) {
            settle(tries > 10);
        }
    }
}

/* In pieces, each of which is a read of the broker's. */
static void send_in_chunks(struct peer *peer, struct bytes bytes)
{
    while (bytes.len != 0) {
        size_t len = bytes.len;
        if (settings.chunk_bytes != 0 && settings.chunk_bytes < len && chunks < CHUNKS_MAX) {
            len = settings.chunk_bytes;
            chunks++;
        }
        send_bytes(peer, bytes_of(bytes.data, len));
        bytes = bytes_from(bytes, len);
        if (bytes.len != 0) {
            turn();
            (void)hear_all(false);
        }
    }
}

static void write_frame(struct writer *writer, uint8_t first, struct bytes payload)
{
    uint8_t key[4];
    fill_random(NULL, key, sizeof key);
    writer_u8(writer, first);
    if (payload.len < 126) {
        writer_u8(writer, (uint8_t)(0x80 | payload.len));
    } else {
        writer_u8(writer, 0x80 | 126);
        writer_u16(writer, (uint16_t)payload.len);
    }
    writer_bytes(writer, bytes_of(key, sizeof key));
    uint8_t *masked = writer_take(writer, payload.len);
    for (size_t i = 0; masked != NULL && i < payload.len; i++) {
        masked[i] = payload.data[i] ^ key[i % sizeof key];
    }
}

static void send_wrapped(struct peer *peer, struct bytes bytes)
{
    static uint8_t room[1 << 20];
    struct writer writer = writer_of(room, sizeof room);
    while (bytes.len != 0) {
        size_t len = bytes.len < UINT16_MAX ? bytes.len : UINT16_MAX;
        if (settings.frame_bytes != 0) {
            size_t wanted = next_random() % (settings.frame_bytes + 1);
            len = wanted < len ? wanted : len;
        }
        if (settings.pings && writer_room(&writer) > 200) {
            write_frame(&writer, 0x89, bytes_of("ping!", next_random() % 6));
        }
        bool first = !settings.fragments || peer->frame_in_message == 0;
        bool last = !settings.fragments || peer->frame_in_message == 2;
        peer->frame_in_message = last ? 0 : peer->frame_in_message + 1;
        uint8_t opcode = settings.text ? 1 : 2;
        write_frame(&writer, (uint8_t)((last ? 0x80 : 0) | (first ? opcode : 0)),
                    bytes_of(bytes.data, len));
        if (!writer_ok(&writer)) {
            return; /* too long an input for frames this small */
        }
        bytes = bytes_from(bytes, len);
    }
    send_in_chunks(peer, writer_written(&writer));
}

static void connect_socket(struct peer *peer, int listener)
{
    peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ENSURE(peer->fd >= 0);
    ENSURE(connect(peer->fd, (const struct sockaddr *)&addresses[listener],
                   sizeof addresses[listener]) == 0);
}

/* Accepted connections are TCP handles to the transport, also on a Unix socket. */
static void shrink_if_connection(uv_handle_t *handle, void *ctx)
{
    const int *bytes = ctx;
    uv_os_fd_t fd;
    if (handle->type == UV_TCP && !uv_is_closing(handle) && uv_fileno(handle, &fd) == 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, bytes, sizeof *bytes);
    }
}

static void shrink_send_buffers(void)
{
    int bytes = SEND_BUFFER_MIN;
    uint64_t accepted = transport_loop_statistics(server.loop)->sockets_accepted;
    for (int i = 0; i < 4 && transport_loop_statistics(server.loop)->sockets_accepted == accepted;
         i++) {
        turn();
    }
    uv_walk(&server.uv, shrink_if_connection, &bytes);
}

static void open_peer(struct peer *peer)
{
    static const char upgrade[] = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nOrigin: https://example.org\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                  "Sec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    connect_socket(peer, settings.strict ? 1 : 0);
    if (settings.lazy) {
        shrink_send_buffers();
    }
    if (peer->kind != PLAIN) {
        send_bytes(peer, bytes_of_string(upgrade));
    }
    if (settings.connect) {
        uint8_t room[64];
        struct bytes packet = connect_packet(
            room, sizeof room, settings.connect_old ? MQTT_VERSION_3_1_1 : MQTT_VERSION_5,
            peer == &peers[0] ? "a" : "b", false);
        if (peer->kind == PLAIN) {
            send_bytes(peer, packet);
        } else {
            uint8_t frame[80];
            struct writer writer = writer_of(frame, sizeof frame);
            write_frame(&writer, 0x82, packet);
            send_bytes(peer, writer_written(&writer));
        }
    }
}

static void close_peer(struct peer *peer)
{
    if (peer->fd >= 0) {
        (void)close(peer->fd);
    }
    peer->fd = -1;
    peer->ended = false;
    peer->frame_in_message = 0;
    peer->pongs = 0;
    struct heard *heard = &peer->heard;
    heard->stage = HEARS_NOTHING;
    heard->frames_over = false;
    heard->stomp = false;
    heard->packets = heard->raw_len = heard->mqtt_len = 0;
}

static void send_segment(struct peer *peer, struct bytes segment)
{
    if (segment.len == 0) {
        return;
    }
    if (peer->fd < 0) {
        open_peer(peer);
    }
    if (peer->kind == WRAPPED) {
        send_wrapped(peer, segment);
    } else {
        send_in_chunks(peer, segment);
    }
}

/* The subscriber. */

static void open_subscriber(void)
{
    static const char *const filters[] = {"#", "a/+", "$share/g/a/#"};
    struct mqtt_subscription entries[3] = {{.qos = 2}, {.qos = 1, .retain_as_published = true}};
    for (int i = 0; i < 3; i++) {
        entries[i].filter = bytes_of_string(filters[i]);
    }
    uint8_t room[128];
    subscriber->is_subscriber = true;
    connect_socket(subscriber, 0);
    answer(subscriber, connect_packet(room, sizeof room, MQTT_VERSION_5, "a subscriber", true));
    struct writer writer = writer_of(room, sizeof room);
    /* Without an identifier, so that what comes back decodes as a client's PUBLISH would. */
    mqtt_subscribe_encode(&writer, MQTT_VERSION_5, 1, 0, entries, 3);
    ENSURE(writer_ok(&writer));
    answer(subscriber, writer_written(&writer));
}

static void publish_as_subscriber(unsigned amount)
{
    uint8_t room[64];
    struct writer writer = writer_of(room, sizeof room);
    struct mqtt_publish_out publish = {
        .qos = (uint8_t)(amount % 3),
        .retain = (amount & 4) != 0,
        .packet_id = amount % 3 == 0 ? 0 : (uint16_t)(amount + 1),
        .topic = bytes_of_string((amount & 8) != 0 ? "a/b" : "a"),
        .payload_len = 1,
    };
    mqtt_publish_encode_head(&writer, &publish, MQTT_VERSION_5);
    writer_u8(&writer, 'x');
    ENSURE(writer_ok(&writer));
    answer(subscriber, writer_written(&writer));
}

/* It is still served, whatever the others did. */
static void check_subscriber(void)
{
    static const uint8_t pingreq[] = {0xC0, 0};
    uint32_t pongs = subscriber->pongs;
    answer(subscriber, bytes_of(pingreq, sizeof pingreq));
    settle(true);
    ENSURE(!subscriber->ended && subscriber->pongs == pongs + 1);
}

static void broadcast(unsigned amount)
{
    static const uint8_t payload[BIG_PAYLOAD];
    struct message *message;
    if (message_create(bytes_of_string((amount & 4) != 0 ? "a/b" : "a"), 0,
                       bytes_of(payload, sizeof payload), &message) == STATUS_OK) {
        message->qos = (uint8_t)(amount % 3);
        message->retain = (amount & 8) != 0;
        (void)core_publish(server.core, now_ms(), NULL, message);
        message_release(message);
    }
}

static struct peer *operate(struct peer *peer, uint8_t byte)
{
    unsigned amount = byte >> 3;
    switch ((enum operation)(byte & 7)) {
    case SWITCH:
        return peer == &peers[0] ? &peers[1] : &peers[0];
    case RECONNECT:
        settle(false);
        close_peer(peer);
        break;
    case HALF_CLOSE:
        if (peer->fd >= 0) {
            (void)shutdown(peer->fd, SHUT_WR);
        }
        break;
    case WAIT:
        settle(false);
        wait_for(UINT64_C(1) << amount);
        break;
    case READ:
        settle(true);
        break;
    case ANSWER:
        if (settings.subscriber) {
            publish_as_subscriber(amount);
        }
        break;
    case BROADCAST:
        broadcast(amount);
        break;
    case SETTLE:
        settle(false);
        break;
    }
    return peer;
}

static void run_script(struct bytes script)
{
    struct peer *peer = &peers[0];
    while (script.len != 0) {
        const uint8_t *next = memmem(script.data, script.len, mark, sizeof mark);
        size_t len = next == NULL ? script.len : (size_t)(next - script.data);
        send_segment(peer, bytes_of(script.data, len));
        script = bytes_from(script, len);
        if (script.len > sizeof mark) {
            peer = operate(peer, script.data[sizeof mark]);
        }
        size_t skip = sizeof mark + 1;
        script = bytes_from(script, skip < script.len ? skip : script.len);
    }
    settle(false);
}

static struct settings settings_from(const uint8_t *header)
{
    static const size_t chunk_bytes[] = {0, 1, 2, 5, 13, 64, 500, 3000};
    static const size_t frame_bytes[] = {0, 1, 3, 10, 50, 130, 1000, 5000};
    static const enum kind kinds[] = {PLAIN, WRAPPED, FRAMES, WRAPPED};
    return (struct settings){
        .kind = kinds[header[0] & 3],
        .subscriber = (header[0] & 4) != 0,
        .strict = (header[0] & 8) != 0,
        .connect = (header[0] & 16) != 0,
        .connect_old = (header[0] & 32) != 0,
        .lazy = (header[0] & 64) != 0,
        .chunk_bytes = chunk_bytes[header[1] & 7],
        .frame_bytes = frame_bytes[header[2] & 7],
        .fragments = (header[2] & 8) != 0,
        .pings = (header[2] & 16) != 0,
        .text = (header[2] & 224) == 224,
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER) {
        return 0;
    }
    virtual_ms = (virtual_ms / input_ms + 1) * input_ms;
    if (server.config != NULL && virtual_ms > restart_ms) {
        stop();
        server.loop = NULL;
        virtual_ms = input_ms;
    }
    if (server.loop == NULL) {
        start();
    }
    uv_update_time(&server.uv);
    settings = settings_from(data);
    random_state = data[3];
    chunks = 0;
    for (int i = 0; i <= PEERS; i++) {
        peers[i].fd = -1;
        peers[i].kind = i == PEERS ? PLAIN : settings.kind;
        close_peer(&peers[i]);
    }
    open_broker();
    if (settings.subscriber) {
        open_subscriber();
        settle(false);
    }
    run_script(bytes_of(data + HEADER, size - HEADER));
    core_check(server.core);
    if (settings.subscriber) {
        check_subscriber();
    }
    settle(true);
    for (int i = 0; i <= PEERS; i++) {
        close_peer(&peers[i]);
    }
    settle(true);
    ENSURE(transport_loop_statistics(server.loop)->sockets_current == 0);
    close_broker();
    return 0;
}
