/*
 * link: a client and its connection when they are on two threads.
 *
 * The connection lives on an I/O thread, the client on the broker thread, and each has a half of
 * the link beside it: struct io_link and struct link. A half is touched by its own thread only,
 * with the one exception of what is said to be atomic. What one side wants the other to know is a
 * record in one of two channels for each I/O thread; everything about one link arrives in order.
 *
 *   to the broker   opened, packets as the decoder made them, output that the kernel has taken, the
 *                   end; for the thread: a refused client for the log, references to be dropped
 *   to the I/O      output, encoded; close; reading on and off; credit; the broker's half is gone
 *
 *   Which decoder and which client a connection gets is decided when it opens: struct
 * link_protocol.
 *
 *   Limits     A connection hands over LINK_CREDIT_BYTES and is not read from until the broker has
 *              worked some of it off; all connections of a thread LINK_BACKLOG_BYTES. A client has
 *              LINK_OUTPUTS_MAX outputs under way, a thread LINK_OUTPUT_BACKLOG_BYTES: what is more
 *              stays in the queues of the core.
 *   Order      OUTPUT before CLOSE, ENDED after the last packet, GONE after everything.
 *   Counts     struct shared is counted without atomics, so references are taken and dropped on the
 *              broker thread alone: the I/O thread sends back those that came with an output. A
 *              message that a decoder makes has one holder, and goes with its record.
 *
 *   io_thread.c     the I/O thread: connections and their halves
 *   link.c          the broker thread: its halves, which are the clients' links
 *   link_mqtt.c     MQTT's decoder and client
 *   link_stomp.c    STOMP's client, and who has to say first what he is
 *   link_http.c     HTTP's, whose decoder is none
 *   link_push.c     a WebSocket's that gets messages as they are
 *   server_threads.c  the threads themselves, their listeners, their end
 */
#ifndef SERVER_LINK_H
#define SERVER_LINK_H

#include "channel.h"
#include "server_state.h"

enum {
    LINK_CREDIT_BYTES = 256 * 1024,
    LINK_CREDIT_STEP = 64 * 1024, /* worked off before the I/O thread hears of it */
    LINK_BACKLOG_BYTES = 16 * 1024 * 1024,
    LINK_OUTPUTS_MAX = 2,
    LINK_OUTPUT_BYTES = OUTPUT_SCRATCH_BYTES - 4 * 1024, /* fits a flush of the transport */
    LINK_OUTPUT_BACKLOG_BYTES = 8 * 1024 * 1024,
    LINK_TEXT_MAX = 512,
    LINK_RECORDS_PER_TURN = 1024, /* then those who were woken get their output */
};

struct link;
struct io_link;
struct io_thread;

/* What runs for one kind of client. */
struct link_protocol {
    /* I/O thread. Zeroed memory is a new decoder; it is followed by nothing that it may not move.
     */
    size_t decoder_bytes;

    /* Puts each packet that `bytes` complete down with io_link_packet_begin and _end. */
    void (*decode)(struct io_link *io, void *decoder, struct bytes bytes);
    void (*decoder_fini)(void *decoder);

    /* Borders of WebSocket messages; NULL: they do not matter. */
    void (*message_begin)(struct io_link *io, bool text);
    void (*message_end)(struct io_link *io);

    /* Broker thread. open: the client, NULL when there is no memory. `user`: see mqtt_client_open.
     */
    void *(*open)(struct link *link, uint64_t now_ms, struct bytes user);

    /* A packet that decode has put down, whose resources are taken. `client` may be NULL: nobody is
     * there any more. */
    void (*receive)(void *client, uint64_t now_ms, const void *packet);
    void (*send)(void *client, uint64_t now_ms, struct output *output);
    void (*close)(void *client, uint64_t now_ms, const char *why);
};

extern const struct link_protocol link_mqtt;
extern const struct link_protocol link_stomp;
extern const struct link_protocol link_undecided; /* a WebSocket that asked for no subprotocol */

/* In the output of a client to which messages matter: a part without bytes that points to one of
 * these, in front of each message, says that it is of binary or of text. */
extern const uint8_t link_message_marks[2];

static inline bool link_is_mark(const struct output_part *part)
{
    return part->owner == NULL && part->len == 0 &&
           (part->data == &link_message_marks[0] || part->data == &link_message_marks[1]);
}
extern const struct link_protocol link_http;
extern const struct link_protocol link_push;

/* The broker's half: a client's link. Made by the I/O thread, which fills in what is constant, and
 * from then on the broker's. */
struct link {
    struct io_thread *thread;             /* constant, and so are io and settings */
    struct io_link *io;                   /* to be named in records; see link_last_inbound_ms */
    const struct link_protocol *protocol; /* what io_link has, until a first byte has decided */
    struct mqtt_settings *settings;       /* a reference is held from OPENED to ENDED */
    void *client;                         /* NULL: none could be made, or it is gone */
    struct link *next_woken;
    size_t worked_bytes; /* since the last credit */
    const char *close_text;
    uint16_t close_code;
    uint8_t outputs;               /* under way */
    bool woken;                    /* the client has something to send */
    bool is_sending;               /* an output is being made: no other record may be begun */
    bool reading_changed, reading; /* to be told when it is made */
    bool on_list;
    bool closing; /* the client is asked for its last output */
    bool close_sent;
    bool ended;                  /* freed when it leaves the list */
    bool is_websocket, is_tls;   /* constant, and so is what follows */
    struct http_upgrade upgrade; /* of link_push only */
    char address[];              /* and behind it what upgrade points to */
};

/* Output that the connection has not been given yet. */
struct io_output {
    struct io_output *next;
    struct output_part *parts; /* those with an owner hold one of its references */
    unsigned at, count;
    size_t offset; /* in parts[at] */
    bool is_kept;  /* on the heap with its bytes; else both belong to a record */
};

/* The I/O thread's half: a connection's user. */
struct io_link {
    struct io_thread *thread;
    struct connection *connection; /* NULL after on_close */
    struct link *link;             /* to be named in records */
    const struct link_protocol *protocol;
    const struct mqtt_settings *settings;
    struct io_link *next, *previous;
    struct io_output *pending, **pending_last;
    uint64_t last_inbound_ms; /* atomic: read by the broker */
    size_t outstanding_bytes; /* handed over and not worked off */
    uint8_t given;            /* outputs that the connection has and the kernel may not */
    bool is_slow;             /* the kernel has not taken what was given */
    bool paused_by_client;
    bool throttled; /* atomic: read by the broker */
    bool is_paused; /* what the connection was told */
    max_align_t decoder[];
};

/* A listener of one I/O thread: its ctx. */
struct io_listener {
    struct io_thread *thread;
    struct listener *listener;      /* NULL: could not be opened, or closed */
    struct mqtt_settings *settings; /* one reference is this thread's */
    int mqtt_subprotocols;          /* as in struct server_listener */
    bool use_subject;
    uint32_t connections_max;
};

struct io_reference;

enum { IO_APART_BYTES = 128 };

struct io_thread {
    struct server *server; /* constant; not touched by the I/O thread */
    struct channel *to_broker, *to_io;
    uv_thread_t thread;

    char apart_1[IO_APART_BYTES];
    /* The I/O thread's, and everybody's before it runs. */
    uv_loop_t uv;
    bool uv_open;
    struct transport_loop *loop;
    struct io_listener *listeners; /* as many as the configuration has, in its order */
    size_t listener_count;
    struct io_link *links;
    size_t link_count;
    size_t slow_count;
    uv_timer_t slow_timer; /* runs while there are slow ones */
    struct io_link *flushing;
    struct io_reference *references; /* pool */
    size_t reference_count;
    size_t unchecked_bytes; /* handed over since the backlog was looked at */
    bool behind;            /* nothing is read until the broker has caught up */
    bool stopping, stopped;

    char apart_2[IO_APART_BYTES];
    /* The broker's. */
    struct link *woken, **woken_last;
    bool running; /* until it has said that it has stopped */
    bool started;
};

/* All I/O threads of a server. */
struct server_threads {
    size_t count;
    struct transport_loop **loops; /* one of each thread: what the loops share */
    struct io_thread *threads[];
};

/* ---- records ---- */

enum to_broker {
    LINK_OPENED,
    LINK_PACKET,
    LINK_TAKEN,
    LINK_ENDED,
    IO_REFUSED,
    IO_RELEASE,
    IO_CAUGHT_UP, /* the I/O thread: more output may be sent */
    IO_STOPPED,
};

struct link_opened {
    struct link *link;
    size_t user_len;
    uint8_t user[];
};

struct link_packet {
    struct link *link;
    uint64_t charge;
    max_align_t packet[];
};

struct link_number { /* LINK_TAKEN */
    struct link *link;
    uint64_t number;
};

struct link_ended {
    struct link *link;
    char text[];
};

struct io_refused {
    uint64_t sockets; /* at that moment */
    size_t reason_at; /* in texts */
    char texts[];
};

struct io_release {
    struct shared *object;
};

enum to_io {
    LINK_OUTPUT,
    LINK_CLOSE,
    LINK_READING,
    LINK_CREDIT,
    LINK_GONE,
    BROKER_CAUGHT_UP, /* packets may be handed over again */
    IO_CALL,
};

struct link_output {
    struct io_link *io;
    size_t part_count;
    size_t parts_at; /* in bytes; aligned, as bytes is */
    uint8_t bytes[];
};

struct link_close {
    struct io_link *io;
    uint16_t code;
    char reason[];
};

struct io_link_number { /* LINK_READING, LINK_CREDIT, LINK_GONE */
    struct io_link *io;
    uint64_t number;
};

/* Something to be done on the I/O thread. `done` NULL: nobody waits for it. */
struct io_call {
    void (*call)(struct io_thread *thread, void *arg);
    void *arg;
    uv_sem_t *done;
};

/* ---- io_thread.c: on the I/O thread ---- */

struct connection_handler io_connection_handler(void);

/* The channel's and the loop's callbacks; ctx is the thread. */
void io_thread_on_batch(void *ctx);
void io_thread_turn_end(void *ctx);

/* Before it runs: its own handles. */
void io_thread_open(struct io_thread *thread);

/* After it ran. */
void io_thread_close(struct io_thread *thread);

/* Room for a packet of at most `bytes`; NULL: no memory, and the connection is on its way out. */
MUST_USE void *io_link_packet_begin(struct io_link *io, size_t bytes);

/* The packet has `bytes`, and so many more elsewhere. */
void io_link_packet_end(struct io_link *io, size_t bytes, size_t elsewhere_bytes);

/* ---- link.c: on the broker thread ---- */

struct client_host link_mqtt_host(struct server *server);

/* A link_protocol's send and close for any client that is a `struct client`. */
void link_client_send(void *client, uint64_t now_ms, struct output *output);
void link_client_close(void *client, uint64_t now_ms, const char *why);

/* ---- link_http.c: on the broker thread ---- */

struct http_host link_http_host(struct server *server);

/* The channel's callback; ctx is the thread. */
void link_on_batch(void *ctx);

/* Asks all clients that were woken for output, and publishes what the thread is to get. */
void link_flush_all(struct io_thread *thread);

#endif
