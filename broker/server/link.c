/* The broker thread's side of its links. */
#include "link.h"

#include <string.h>

#include "mem.h"

/* Looked at now and then while output is made: is the I/O thread behind? */
enum { FLUSHES_PER_LOOK = 32 };

static void tell_number(struct link *link, uint32_t kind, uint64_t number)
{
    struct channel *channel = link->thread->to_io;
    struct io_link_number *record = channel_begin_small(channel, kind, sizeof *record);
    *record = (struct io_link_number){link->io, number};
    channel_end(channel, sizeof *record, 0);
}

static void tell_close(struct link *link, uint16_t code, const char *text)
{
    struct channel *channel = link->thread->to_io;
    struct bytes reason = bytes_of_string(text);
    reason.len = reason.len < LINK_TEXT_MAX ? reason.len : LINK_TEXT_MAX;
    size_t size = sizeof(struct link_close) + reason.len + 1;
    struct link_close *record = channel_begin_small(channel, LINK_CLOSE, size);
    record->io = link->io;
    record->code = code;
    bytes_copy(record->reason, reason);
    record->reason[reason.len] = '\0';
    channel_end(channel, size, 0);
    link->close_sent = true;
}

const uint8_t link_message_marks[2] = {0, 1};

static void begin_message(void *client_link, struct output *output, bool text)
{
    if (((const struct link *)client_link)->is_websocket) {
        ENSURE(output->part_count < OUTPUT_PARTS_MAX);
        output->parts[output->part_count++] =
            (struct output_part){&link_message_marks[text], 0, NULL};
    }
}

static void put_on_list(struct link *link)
{
    if (!link->on_list) {
        link->on_list = true;
        link->next_woken = NULL;
        *link->thread->woken_last = link;
        link->thread->woken_last = &link->next_woken;
    }
}

static void wake(void *client_link)
{
    struct link *link = client_link;
    link->woken = true;
    if (link->outputs < LINK_OUTPUTS_MAX && !link->close_sent) {
        put_on_list(link);
    }
}

/* The parts go behind the bytes that they point to. */
static void end_output(struct link *link, struct link_output *record, const struct output *output)
{
    size_t align = sizeof(size_t) - 1;
    size_t parts_size = output->part_count * sizeof *output->parts;
    record->io = link->io;
    record->part_count = output->part_count;
    record->parts_at = ((size_t)(output->at - record->bytes) + align) & ~align;
    memcpy(record->bytes + record->parts_at, output->parts, parts_size);
    channel_end(link->thread->to_io, sizeof *record + record->parts_at + parts_size, 0);
    link->outputs++;
}

/* One output. False: there was nothing to send, or no memory. */
static bool send_output(struct link *link, uint64_t now_ms)
{
    struct channel *channel = link->thread->to_io;
    struct output output;
    size_t room =
        sizeof(struct link_output) + LINK_OUTPUT_BYTES + sizeof output.parts + sizeof(size_t);
    struct link_output *record = channel_begin(channel, LINK_OUTPUT, room);
    link->woken = false;
    if (record == NULL) {
        tell_close(link, WEBSOCKET_TRY_AGAIN_LATER, "out of memory");
        return false;
    }
    output_open(&output, record->bytes, LINK_OUTPUT_BYTES);
    link->is_sending = true;
    link->protocol->send(link->client, now_ms, &output);
    link->is_sending = false;
    bool is_empty = output.part_count == 0;
    if (!is_empty) {
        end_output(link, record, &output);
    }
    if (link->reading_changed) {
        link->reading_changed = false;
        tell_number(link, LINK_READING, link->reading);
    }
    return !is_empty;
}

/* A client that is closing says all that it has left, whatever is under way: the I/O thread keeps
 * it, and counts the time until the peer has taken it. */
static void flush(struct link *link, uint64_t now_ms)
{
    if (link->client == NULL || link->close_sent) {
        return;
    }
    if (!link->closing) {
        if (link->outputs < LINK_OUTPUTS_MAX) {
            (void)send_output(link, now_ms);
        }
    } else {
        while (link->outputs < UINT8_MAX && send_output(link, now_ms) && link->woken) {
        }
        if (!link->close_sent) {
            tell_close(link, link->close_code, link->close_text);
        }
    }
}

void link_flush_all(struct io_thread *thread)
{
    uint64_t now_ms = transport_loop_now_ms(thread->server->loop);
    struct link *link = thread->woken;
    bool behind = link != NULL && channel_is_behind(thread->to_io);
    unsigned flushes = 0;
    thread->woken = NULL;
    thread->woken_last = &thread->woken;
    while (link != NULL) {
        struct link *next = link->next_woken;
        link->on_list = false;
        if (link->ended) {
            mem_free(link);
        } else if (behind && !link->closing) {
            put_on_list(link); /* IO_CAUGHT_UP will come */
        } else {
            flush(link, now_ms);
            if (++flushes % FLUSHES_PER_LOOK == 0) {
                behind = channel_is_behind(thread->to_io);
            }
        }
        link = next;
    }
    if (thread->woken != NULL && !behind) {
        channel_again(thread->to_broker); /* some have more than one output takes */
    }
    channel_publish(thread->to_io);
}

static void on_opened(struct server *server, const struct link_opened *record, uint64_t now_ms)
{
    struct link *link = record->link;
    (void)shared_hold(&link->settings->shared);
    if (server->draining) {
        tell_close(link, WEBSOCKET_GOING_AWAY, "the broker stops");
        return;
    }
    link->client = link->protocol->open(link, now_ms, bytes_of(record->user, record->user_len));
    if (link->client == NULL) {
        tell_close(link, WEBSOCKET_TRY_AGAIN_LATER, "out of memory");
    }
}

static void on_packet(const struct link_packet *record, uint64_t now_ms)
{
    struct link *link = record->link;
    link->protocol->receive(link->client, now_ms, record->packet);
    link->worked_bytes += record->charge;
    if (link->worked_bytes >= LINK_CREDIT_STEP) {
        tell_number(link, LINK_CREDIT, link->worked_bytes);
        link->worked_bytes = 0;
    }
}

static void on_taken(const struct link_number *record)
{
    struct link *link = record->link;
    ENSURE(record->number <= link->outputs);
    link->outputs = (uint8_t)(link->outputs - record->number);
    if (link->woken && !link->close_sent) {
        put_on_list(link);
    }
}

static void on_ended(const struct link_ended *record, uint64_t now_ms)
{
    struct link *link = record->link;
    if (link->client != NULL) {
        link->protocol->close(link->client, now_ms, record->text);
        link->client = NULL;
    }
    shared_release(&link->settings->shared);
    tell_number(link, LINK_GONE, 0);
    link->ended = true;
    if (!link->on_list) {
        mem_free(link);
    }
}

/* The thread's loop is not used any more; the server's may end when all have stopped. */
static void on_stopped(struct io_thread *thread)
{
    thread->running = false;
    channel_set_ref(thread->to_broker, false);
}

static void receive(struct io_thread *thread, uint32_t kind, const void *record, uint64_t now_ms)
{
    const struct io_refused *refused = record;
    const struct io_release *release = record;
    switch ((enum to_broker)kind) {
    case LINK_OPENED:
        on_opened(thread->server, record, now_ms);
        break;
    case LINK_PACKET:
        on_packet(record, now_ms);
        break;
    case LINK_TAKEN:
        on_taken(record);
        break;
    case LINK_ENDED:
        on_ended(record, now_ms);
        break;
    case IO_REFUSED:
        server_on_refused_connection(thread->server, refused->sockets, refused->texts,
                                     refused->texts + refused->reason_at);
        break;
    case IO_RELEASE:
        shared_release(release->object);
        break;
    case IO_CAUGHT_UP:
        break; /* the flush at the end of the turn goes on */
    case IO_STOPPED:
        on_stopped(thread);
        break;
    }
}

void link_on_batch(void *ctx)
{
    struct io_thread *thread = ctx;
    uint64_t now_ms = transport_loop_now_ms(thread->server->loop);
    for (int i = 0; i < LINK_RECORDS_PER_TURN; i++) {
        uint32_t kind;
        size_t bytes;
        const void *record = channel_next(thread->to_broker, &kind, &bytes);
        if (record == NULL) {
            break;
        }
        receive(thread, kind, record, now_ms);
        if (i == LINK_RECORDS_PER_TURN - 1) {
            channel_again(thread->to_broker);
        }
    }
    if (channel_must_tell(thread->to_broker)) {
        (void)channel_begin_small(thread->to_io, BROKER_CAUGHT_UP, 0);
        channel_end(thread->to_io, 0, 0);
    }
}

static void close_link(void *client_link, enum mqtt_reason reason)
{
    struct link *link = client_link;
    link->closing = true;
    link->close_code = server_websocket_code(reason);
    link->close_text = server_close_text(reason);
    put_on_list(link);
}

static void set_reading(void *client_link, bool reading)
{
    struct link *link = client_link;
    if (link->is_sending) {
        link->reading_changed = true;
        link->reading = reading;
    } else {
        tell_number(link, LINK_READING, reading);
    }
}

/* What a client sends while the I/O thread may not read is not seen: it is taken to be alive. */
static uint64_t last_inbound_ms(void *client_link)
{
    const struct link *link = client_link;
    if (__atomic_load_n(&link->io->throttled, __ATOMIC_RELAXED)) {
        return transport_loop_now_ms(link->thread->server->loop);
    }
    return __atomic_load_n(&link->io->last_inbound_ms, __ATOMIC_RELAXED);
}

static struct server *server_of(const void *client_link)
{
    return ((const struct link *)client_link)->thread->server;
}

static struct server_peer peer_of(const struct link *link)
{
    return (struct server_peer){link->thread->server, link->address, link->is_websocket,
                                link->is_tls};
}

static void on_connected(void *link, const struct client *client)
{
    struct server_peer peer = peer_of(link);
    server_on_connected(&peer, client);
}

static void on_refused(void *link, const struct client *client, struct bytes client_id,
                       enum mqtt_reason reason)
{
    struct server_peer peer = peer_of(link);
    server_on_refused(&peer, client, client_id, reason);
}

static void on_gone(void *link, const struct client *client, const char *why)
{
    struct server_peer peer = peer_of(link);
    server_on_gone(&peer, client, why);
}

static void on_subscribe(void *link, const struct client *client, struct bytes filter,
                         enum mqtt_reason granted)
{
    server_on_subscribe(server_of(link), client, filter, granted);
}

static void on_unsubscribe(void *link, const struct client *client, struct bytes filter)
{
    server_on_unsubscribe(server_of(link), client, filter);
}

static void on_publish_refused(void *link, const struct client *client, struct bytes topic,
                               enum mqtt_reason reason)
{
    server_on_publish_refused(server_of(link), client, topic, reason);
}

void link_client_send(void *client, uint64_t now_ms, struct output *output)
{
    struct client *self = client;
    self->kind->send(self, now_ms, output);
}

void link_client_close(void *client, uint64_t now_ms, const char *why)
{
    struct client *self = client;
    self->kind->close(self, now_ms, why);
}

struct client_host link_mqtt_host(struct server *server)
{
    return (struct client_host){
        .ctx = server,
        .wake = wake,
        .close = close_link,
        .set_reading = set_reading,
        .begin_message = begin_message,
        .last_inbound_ms = last_inbound_ms,
        .random = server_random,
        .unix_ms = server_unix_ms,
        .checker = password_checks_checker(server->password_checks),
        .committed = server_on_committed,
        .store_failed = server_store_failed,
        .on_connected = on_connected,
        .on_refused = on_refused,
        .on_gone = on_gone,
        .on_subscribe = on_subscribe,
        .on_unsubscribe = on_unsubscribe,
        .on_publish_refused = on_publish_refused,
    };
}
