/*
 * net: the generator's MQTT connections over TCP or WebSocket, with or without TLS: connecting, a
 * receive path that walks packet headers and skips payloads, and an outbox that gathers all packets
 * of a client into one write.
 *
 *   Place    tests/bench, between the scenarios and the kernel; uses packets.h, tls.h and
 * support.h. Cost     One epoll_wait for up to 1,024 events, one read for each readable client and
 * one write for each client with something to send. No allocation for a message unless a socket is
 * full. Threads  One.
 *
 * Acknowledgements are answered here: PUBACK and PUBREC for what arrives, PUBREL and PUBCOMP in
 * QoS 2. A scenario sees only deliveries and the final acknowledgement of what it published.
 */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#include <netinet/in.h>

#include "packets.h"
#include "tls.h"

/* Longest head of a packet that is ever kept between two reads: everything before a payload, and
 * its stamp. */
#define HEAD_BYTES 256

enum client_state {
    CLIENT_IDLE,
    CLIENT_CONNECTING,
    CLIENT_TLS,
    CLIENT_UPGRADE,
    CLIENT_CONNACK,
    CLIENT_SETUP,
    CLIENT_READY,
    CLIENT_CLOSED,
};

struct client {
    struct net *net;
    struct tls_session *tls; /* owned; NULL without TLS */
    void *context;           /* the scenario's */
    int fd;
    uint32_t index; /* makes the client id */
    uint8_t state;  /* enum client_state */
    bool persistent;
    bool stalled; /* does not read */
    uint16_t receive_maximum;
    uint32_t setup_acks;  /* SUBACKs to wait for before READY */
    struct buffer setup;  /* SUBSCRIBE packets, sent after CONNACK */
    struct buffer unsent; /* what the socket did not take, from unsent_at on */
    size_t unsent_at;
    uint64_t skip;       /* bytes left of a packet whose head was handled */
    uint64_t frame_left; /* bytes left of a WebSocket frame */
    uint8_t frame_opcode;
    uint8_t frame_head_len;
    uint8_t frame_head[14];
    uint16_t head_len;
    uint8_t head[HEAD_BYTES]; /* unfinished head of a packet, or of the HTTP answer */
};

struct net_handlers {
    /* `stamp` has STAMP_BYTES bytes, or is NULL when the payload has fewer. */
    void (*on_delivery)(void *context, struct client *client, const uint8_t *stamp);
    void (*on_acknowledged)(void *context, struct client *client);
    /* May be NULL. Called once a client has its CONNACK and SUBACKs. */
    void (*on_ready)(void *context, struct client *client);
    /* May be NULL. Called when a full socket has taken all that was unsent. */
    void (*on_drained)(void *context, struct client *client);
};

struct net_options {
    const char *host;      /* an IPv4 address */
    const char *transport; /* tcp, ws, tls or wss */
    const char *path;      /* of the WebSocket upgrade */
    uint16_t port;
    uint8_t version;
    bool tls_resume;
    bool frame_per_write; /* one WebSocket frame around all packets of a write instead of one for
                             each */
};

struct net {
    struct net_options options;
    struct net_handlers handlers;
    void *context;
    struct tls_context *tls;
    struct sockaddr_in server;
    int epoll_fd;
    bool websocket;
    bool timed; /* keep now_ns: the time just after the latest read */
    uint64_t now_ns;
    uint64_t lost_clients; /* closed by the other side */
    uint64_t connects;     /* ever started; picks the source address */
    uint8_t *input;
    struct buffer outbox; /* packets of one client until client_flush */
    size_t packet_at;     /* start and mask of the packet begun last */
};

void net_init(struct net *net, const struct net_options *options,
              const struct net_handlers *handlers, void *context);

void client_init(struct client *client, struct net *net, uint32_t index);
/* Adds a subscription to the set-up. Several calls make several SUBSCRIBE packets. */
void client_subscribe(struct client *client, const struct buffer *filters);
void client_subscribe_one(struct client *client, const char *filter, uint8_t qos);

/* Begins to connect; continues in net_turn. */
void client_connect(struct client *client);
/* Connects all with at most `concurrency` under way, and returns once all are ready. Dies when one
 * is refused. */
void net_connect_all(struct client *clients, size_t count, size_t concurrency);
/* Sends DISCONNECT and closes. The client can connect again. */
void client_disconnect(struct client *client);
/* Disconnects and frees what the client owns. */
void client_fini(struct client *client);

/* Waits at most `timeout_ns` for events and handles one batch of them. */
void net_turn(struct net *net, uint64_t timeout_ns);
/* Turns for `duration_ns`. */
void net_run(struct net *net, uint64_t duration_ns);

/* Room for a packet of `len` bytes in the outbox, to be filled before client_end. The packets of
 * one client only gather there: client_flush comes before another client's client_begin. */
uint8_t *client_begin(struct client *client, size_t len);
void client_end(struct client *client);
void client_flush(struct client *client);
/* Moves what would be written to `to` instead, framed as it would be sent. Not with
 * frame_per_write. */
void client_take_outbox(struct client *client, struct buffer *to);
/* Writes bytes that client_take_outbox framed. */
void client_write(struct client *client, const uint8_t *data, size_t len);
/* A full socket has not taken everything yet. */
static inline bool client_blocked(const struct client *client)
{
    return client->unsent.len != 0;
}
/* Stops or starts reading from the client's socket. */
void client_stall(struct client *client, bool stalled);

#endif
