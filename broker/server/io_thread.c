/* An I/O thread: its connections, and what goes between them and the broker. */
#include "link.h"

#include <string.h>

#include "mem.h"

enum {
    LOOK_BYTES = 256 * 1024, /* handed over before the backlog is looked at again */
    REFERENCES_MAX = 1024,   /* in the pool */
    MESSAGE_HEAD_BYTES = 16, /* see connection_begin_message */
    SLOW_LOOK_MS = 500,      /* how often peers that do not take what they get are looked at */
};

/* A reference of the broker's, for the transport to count. */
struct io_reference {
    struct shared shared; /* first */
    struct io_reference *next;
    struct io_thread *thread;
    struct shared *object;
};

/* The broker drops the reference: it counts, and nobody else does. */
static void send_back(struct io_thread *thread, struct shared *object)
{
    struct io_release *record = channel_begin_small(thread->to_broker, IO_RELEASE, sizeof *record);
    record->object = object;
    channel_end(thread->to_broker, sizeof *record, 0);
}

static void on_reference_dropped(struct shared *shared)
{
    struct io_reference *reference = (struct io_reference *)(void *)shared;
    struct io_thread *thread = reference->thread;
    send_back(thread, reference->object);
    if (thread->reference_count == REFERENCES_MAX) {
        mem_free(reference);
        return;
    }
    reference->next = thread->references;
    thread->references = reference;
    thread->reference_count++;
}

/* Takes over one reference of `object`. NULL: no memory; it is still the caller's. */
static struct io_reference *take_reference(struct io_thread *thread, struct shared *object)
{
    struct io_reference *reference = thread->references;
    if (reference != NULL) {
        thread->references = reference->next;
        thread->reference_count--;
    } else {
        reference = mem_alloc(sizeof *reference);
        if (reference == NULL) {
            return NULL;
        }
    }
    reference->shared = (struct shared){1, on_reference_dropped};
    reference->next = NULL;
    reference->thread = thread;
    reference->object = object;
    return reference;
}

/* ---- reading ---- */

static void update_reading(struct io_link *io)
{
    bool pause = io->paused_by_client || io->throttled || io->thread->behind;
    if (io->connection == NULL || pause == io->is_paused) {
        return;
    }
    io->is_paused = pause;
    if (pause) {
        connection_pause_reading(io->connection);
    } else {
        connection_resume_reading(io->connection);
    }
}

static void set_throttled(struct io_link *io, bool throttled)
{
    __atomic_store_n(&io->throttled, throttled, __ATOMIC_RELAXED);
    if (!throttled) { /* what came meanwhile is seen only now */
        __atomic_store_n(&io->last_inbound_ms, transport_loop_now_ms(io->thread->loop),
                         __ATOMIC_RELAXED);
    }
    update_reading(io);
}

static void set_behind(struct io_thread *thread, bool behind)
{
    thread->behind = behind;
    for (struct io_link *io = thread->links; io != NULL; io = io->next) {
        update_reading(io);
    }
}

void *io_link_packet_begin(struct io_link *io, size_t bytes)
{
    struct link_packet *record =
        channel_begin(io->thread->to_broker, LINK_PACKET, sizeof *record + bytes);
    if (record == NULL) {
        connection_abort(io->connection, "out of memory");
        return NULL;
    }
    record->link = io->link;
    return record->packet;
}

void io_link_packet_end(struct io_link *io, size_t bytes, size_t elsewhere_bytes)
{
    struct link_packet *record = channel_current(io->thread->to_broker);
    record->charge = sizeof *record + bytes + elsewhere_bytes;
    io->outstanding_bytes += record->charge;
    io->thread->unchecked_bytes += record->charge;
    channel_end(io->thread->to_broker, sizeof *record + bytes, elsewhere_bytes);
}

static void on_bytes(void *user, struct bytes bytes)
{
    struct io_link *io = user;
    struct io_thread *thread = io->thread;
    io->protocol->decode(io, io->decoder, bytes);
    if (io->outstanding_bytes > LINK_CREDIT_BYTES && !io->throttled) {
        set_throttled(io, true);
    }
    if (thread->unchecked_bytes > LOOK_BYTES) {
        thread->unchecked_bytes = 0;
        if (!thread->behind && channel_is_behind(thread->to_broker)) {
            set_behind(thread, true);
        }
    }
}

static void on_message_begin(void *user, bool text)
{
    struct io_link *io = user;
    io->protocol->message_begin(io, text);
}

static void on_message_end(void *user)
{
    struct io_link *io = user;
    io->protocol->message_end(io);
}

static void on_inbound(void *user, uint64_t now_ms)
{
    struct io_link *io = user;
    __atomic_store_n(&io->last_inbound_ms, now_ms, __ATOMIC_RELAXED);
}

/* ---- opening and closing ---- */

static bool has_room(const struct io_listener *listener, const struct listener *asked)
{
    return listener_sockets(asked) <= listener->connections_max;
}

/* Sockets count from accept on: whoever only connects takes a place as well. */
static bool on_accept(void *ctx, struct listener *listener)
{
    return has_room(ctx, listener);
}

/* What a connection has asked for decides; a WebSocket may leave it to its first bytes. */
static const struct link_protocol *protocol_of(const struct io_listener *listener,
                                               const struct connection_info *info)
{
    if (info->is_http) {
        return &link_http;
    }
    if (server_is_push(info)) {
        return &link_push;
    }
    if (info->is_stomp || listener->mqtt_subprotocols == 0 ||
        info->subprotocol >= listener->mqtt_subprotocols) {
        return &link_stomp;
    }
    return info->is_websocket && info->subprotocol < 0 ? &link_undecided : &link_mqtt;
}

static struct bytes copy_behind(struct bytes from, char **at)
{
    struct bytes copy = bytes_of(*at, from.len);
    bytes_copy(*at, from);
    *at += from.len;
    return copy;
}

static struct link *make_link(struct io_listener *listener, const struct connection_info *info)
{
    const struct link_protocol *protocol = protocol_of(listener, info);
    size_t len = strlen(info->peer_address);
    size_t upgrade_len = protocol == &link_push ? info->path.len + info->authorization.len : 0;
    struct link *link = mem_zalloc(sizeof *link + len + 1 + upgrade_len);
    if (link != NULL) {
        link->thread = listener->thread;
        link->protocol = protocol;
        link->settings = listener->settings;
        link->is_websocket = info->is_websocket;
        link->is_tls = info->is_tls;
        memcpy(link->address, info->peer_address, len + 1);
        if (protocol == &link_push) {
            char *at = link->address + len + 1;
            link->upgrade.target = copy_behind(info->path, &at);
            link->upgrade.authorization = copy_behind(info->authorization, &at);
        }
    }
    return link;
}

static struct io_link *make_io_link(struct io_listener *listener, struct connection *connection,
                                    struct link *link)
{
    struct io_thread *thread = listener->thread;
    struct io_link *io = mem_zalloc(sizeof *io + link->protocol->decoder_bytes);
    if (io == NULL) {
        return NULL;
    }
    io->thread = thread;
    io->connection = connection;
    io->link = link;
    io->protocol = link->protocol;
    io->settings = listener->settings;
    io->pending_last = &io->pending;
    io->last_inbound_ms = transport_loop_now_ms(thread->loop);
    link->io = io;
    return io;
}

/* False: no memory. */
static bool tell_opened(struct io_thread *thread, struct link *link, struct bytes user)
{
    struct link_opened *record =
        channel_begin(thread->to_broker, LINK_OPENED, sizeof *record + user.len);
    if (record == NULL) {
        return false;
    }
    record->link = link;
    record->user_len = user.len;
    bytes_copy(record->user, user);
    channel_end(thread->to_broker, sizeof *record + user.len, 0);
    return true;
}

static void link_in(struct io_thread *thread, struct io_link *io)
{
    io->next = thread->links;
    if (io->next != NULL) {
        io->next->previous = io;
    }
    thread->links = io;
    thread->link_count++;
}

static void *on_open(void *ctx, struct connection *connection, const struct connection_info *info)
{
    struct io_listener *listener = ctx;
    if (!has_room(listener, connection_listener(connection))) {
        return NULL; /* a reload has lowered max_connections during the handshake */
    }
    const char *user = NULL;
    if (listener->settings->certificate_is_user) {
        user = listener->use_subject ? info->certificate_subject : info->certificate_common_name;
    }
    struct link *link = make_link(listener, info);
    struct io_link *io = link == NULL ? NULL : make_io_link(listener, connection, link);
    if (io == NULL || !tell_opened(listener->thread, link, bytes_of_string(user))) {
        mem_free(io);
        mem_free(link);
        return NULL;
    }
    connection_allow_text(connection, io->protocol != &link_mqtt);
    if (io->protocol->message_begin != NULL) {
        connection_hear_messages(connection);
    }
    link_in(listener->thread, io);
    update_reading(io);
    return io;
}

static void count_slow(struct io_link *io, bool slow)
{
    if (io->is_slow != slow) {
        io->is_slow = slow;
        io->thread->slow_count += slow ? 1 : (size_t)-1;
    }
}

static void drop_pending(struct io_link *io)
{
    while (io->pending != NULL) {
        struct io_output *output = io->pending;
        io->pending = output->next;
        for (unsigned i = output->at; i < output->count; i++) {
            if (output->parts[i].owner != NULL) {
                send_back(io->thread, output->parts[i].owner);
            }
        }
        if (output->is_kept) {
            mem_free(output);
        } else {
            output->at = output->count;
        }
    }
    io->pending_last = &io->pending;
}

static void on_close(void *user, const struct connection_end *end)
{
    struct io_link *io = user;
    struct bytes text = bytes_of_string(end->text);
    text.len = text.len < LINK_TEXT_MAX ? text.len : LINK_TEXT_MAX;
    io->connection = NULL;
    count_slow(io, false);
    drop_pending(io);
    io->protocol->decoder_fini(io->decoder);
    size_t size = sizeof(struct link_ended) + text.len + 1;
    struct link_ended *record = channel_begin_small(io->thread->to_broker, LINK_ENDED, size);
    record->link = io->link;
    bytes_copy(record->text, text);
    record->text[text.len] = '\0';
    channel_end(io->thread->to_broker, size, 0);
}

static void on_refused(void *ctx, const char *peer_address, const char *reason)
{
    struct io_listener *listener = ctx;
    struct channel *channel = listener->thread->to_broker;
    struct bytes words = bytes_of_string(reason);
    size_t address_size = strlen(peer_address) + 1;
    ENSURE(address_size <= CONNECTION_ADDRESS_BYTES);
    words.len = words.len < LINK_TEXT_MAX ? words.len : LINK_TEXT_MAX;
    size_t size = sizeof(struct io_refused) + address_size + words.len + 1;
    struct io_refused *record = channel_begin_small(channel, IO_REFUSED, size);
    record->sockets = transport_loop_sockets(listener->thread->loop);
    record->reason_at = address_size;
    memcpy(record->texts, peer_address, address_size);
    bytes_copy(record->texts + address_size, words);
    record->texts[address_size + words.len] = '\0';
    channel_end(channel, size, 0);
}

/* ---- output ---- */

static void tell_taken(struct io_link *io)
{
    struct channel *channel = io->thread->to_broker;
    struct link_number *record = channel_begin_small(channel, LINK_TAKEN, sizeof *record);
    *record = (struct link_number){io->link, io->given};
    channel_end(channel, sizeof *record, 0);
    io->given = 0;
    count_slow(io, false);
}

/* Adds a reference to `to`. False: no memory. */
static bool give_reference(struct io_thread *thread, struct output *to,
                           const struct output_part *part)
{
    struct io_reference *reference = take_reference(thread, part->owner);
    if (reference == NULL) {
        return false;
    }
    output_reference(to, bytes_of(part->data, part->len), &reference->shared);
    shared_release(&reference->shared); /* the output has its own */
    return true;
}

/* True when the message whose mark stands at from->at fits as a whole: it may not be cut. */
static bool message_fits(const struct io_output *from, const struct output *to)
{
    size_t bytes = 0;
    unsigned at = from->at + 1;
    for (; at < from->count && !link_is_mark(&from->parts[at]); at++) {
        bytes += from->parts[at].owner == NULL ? from->parts[at].len : 0;
    }
    return output_has_room(to) && (size_t)(to->end - to->at) >= bytes + MESSAGE_HEAD_BYTES &&
           to->part_count + (at - from->at) + 1 <= OUTPUT_PARTS_MAX;
}

/* Gives of `from` what there is room for. */
static void give(struct io_link *io, struct io_output *from, struct output *to)
{
    while (from->at < from->count && to->part_count < OUTPUT_PARTS_MAX) {
        struct output_part *part = &from->parts[from->at];
        if (link_is_mark(part)) {
            if (!message_fits(from, to)) {
                return;
            }
            connection_begin_message(io->connection, to, part->data == &link_message_marks[1]);
        } else if (part->owner != NULL) {
            if (!give_reference(io->thread, to, part)) {
                connection_abort(io->connection, "out of memory");
                return;
            }
        } else {
            size_t room = (size_t)(to->end - to->at);
            size_t left = part->len - from->offset;
            size_t len = left < room ? left : room;
            output_put(to, bytes_of(part->data + from->offset, len));
            from->offset += len;
            if (len < left) {
                return;
            }
        }
        from->at++;
        from->offset = 0;
    }
}

static void on_output(void *user, struct output *output)
{
    struct io_link *io = user;
    if (io->given != 0) {
        tell_taken(io); /* the transport asks when the kernel has everything */
    }
    while (io->pending != NULL) {
        struct io_output *first = io->pending;
        give(io, first, output);
        if (first->at < first->count) {
            break;
        }
        io->pending = first->next;
        if (io->pending == NULL) {
            io->pending_last = &io->pending;
        }
        if (first->is_kept) {
            mem_free(first);
        }
        io->given++;
    }
    if (io->pending != NULL || (io->given != 0 && io->thread->flushing != io)) {
        connection_wake(io->connection); /* to be asked again when this has been taken */
    }
}

/* Puts what is left of `output` behind what waits, with its bytes: the record's memory goes. */
static void keep(struct io_link *io, const struct io_output *output)
{
    size_t bytes = 0;
    unsigned count = output->count - output->at;
    for (unsigned i = output->at; i < output->count; i++) {
        bytes += output->parts[i].owner == NULL ? output->parts[i].len : 0;
    }
    struct io_output *kept = mem_alloc(sizeof *kept + count * sizeof *kept->parts + bytes);
    if (kept == NULL) {
        for (unsigned i = output->at; i < output->count; i++) {
            if (output->parts[i].owner != NULL) {
                send_back(io->thread, output->parts[i].owner);
            }
        }
        connection_abort(io->connection, "out of memory");
        return;
    }
    *kept = (struct io_output){.parts = (struct output_part *)(kept + 1),
                               .count = count,
                               .offset = output->offset,
                               .is_kept = true};
    uint8_t *copy = (uint8_t *)(kept->parts + count);
    for (unsigned i = 0; i < count; i++) {
        kept->parts[i] = output->parts[output->at + i];
        if (kept->parts[i].owner == NULL && !link_is_mark(&kept->parts[i])) {
            bytes_copy(copy, bytes_of(kept->parts[i].data, kept->parts[i].len));
            kept->parts[i].data = copy;
            copy += kept->parts[i].len;
        }
    }
    *io->pending_last = kept;
    io->pending_last = &kept->next;
}

/* Everything goes to the kernel now if it takes it; this is the rule. */
static void write_now(struct io_link *io, struct io_output *output)
{
    io->pending = output;
    io->pending_last = &output->next;
    io->thread->flushing = io;
    connection_flush_now(io->connection);
    io->thread->flushing = NULL;
    if (io->connection == NULL) {
        return;
    }
    if (io->pending == output) {
        io->pending = NULL;
        io->pending_last = &io->pending;
        keep(io, output);
    }
    if (io->pending == NULL && connection_unsent_bytes(io->connection) == 0) {
        tell_taken(io);
    } else {
        count_slow(io, true);
        connection_wake(io->connection);
    }
}

static void on_output_record(struct io_thread *thread, struct link_output *record)
{
    struct io_link *io = record->io;
    struct io_output output = {
        .parts = (struct output_part *)(void *)(record->bytes + record->parts_at),
        .count = (unsigned)record->part_count,
    };
    if (io->connection == NULL) {
        for (unsigned i = 0; i < output.count; i++) {
            if (output.parts[i].owner != NULL) {
                send_back(thread, output.parts[i].owner);
            }
        }
    } else if (io->pending != NULL) {
        keep(io, &output);
    } else {
        write_now(io, &output);
    }
}

/* A peer that takes bytes while nothing is read from it is alive. */
static void look_at_slow(uv_timer_t *timer)
{
    struct io_thread *thread = timer->data;
    for (struct io_link *io = thread->links; io != NULL && thread->slow_count != 0; io = io->next) {
        if (io->is_slow) {
            __atomic_store_n(&io->last_inbound_ms, connection_last_inbound_ms(io->connection),
                             __ATOMIC_RELAXED);
        }
    }
    if (thread->slow_count == 0) {
        (void)uv_timer_stop(timer);
    }
}

/* ---- records from the broker ---- */

static void on_gone(struct io_thread *thread, struct io_link *io)
{
    ENSURE(io->connection == NULL);
    if (io->next != NULL) {
        io->next->previous = io->previous;
    }
    if (io->previous != NULL) {
        io->previous->next = io->next;
    } else {
        thread->links = io->next;
    }
    thread->link_count--;
    mem_free(io);
}

static void on_credit(struct io_link *io, uint64_t bytes)
{
    ENSURE(bytes <= io->outstanding_bytes);
    io->outstanding_bytes -= bytes;
    if (io->throttled && io->outstanding_bytes <= LINK_CREDIT_BYTES / 2) {
        set_throttled(io, false);
    }
}

static void on_call(struct io_thread *thread, const struct io_call *record)
{
    uv_sem_t *done = record->done;
    record->call(thread, record->arg);
    if (done != NULL) {
        uv_sem_post(done);
    }
}

static void receive(struct io_thread *thread, uint32_t kind, void *record)
{
    struct io_link_number *number = record;
    const struct link_close *close = record;
    switch ((enum to_io)kind) {
    case LINK_OUTPUT:
        on_output_record(thread, record);
        break;
    case LINK_CLOSE:
        if (close->io->connection != NULL) {
            connection_close(close->io->connection, close->code, close->reason);
        }
        break;
    case LINK_READING:
        number->io->paused_by_client = number->number == 0;
        update_reading(number->io);
        break;
    case LINK_CREDIT:
        on_credit(number->io, number->number);
        break;
    case LINK_GONE:
        on_gone(thread, number->io);
        break;
    case BROKER_CAUGHT_UP:
        set_behind(thread, false);
        break;
    case IO_CALL:
        on_call(thread, record);
        break;
    }
}

/* As much as one turn of reading may take: then the sockets are looked at again. */
enum { OUTPUTS_PER_TURN = 256 };

void io_thread_on_batch(void *ctx)
{
    struct io_thread *thread = ctx;
    for (int i = 0; i < OUTPUTS_PER_TURN; i++) {
        uint32_t kind;
        size_t bytes;
        void *record = channel_next(thread->to_io, &kind, &bytes);
        if (record == NULL) {
            break;
        }
        receive(thread, kind, record);
        if (i == OUTPUTS_PER_TURN - 1) {
            channel_again(thread->to_io);
        }
    }
    if (channel_must_tell(thread->to_io)) {
        (void)channel_begin_small(thread->to_broker, IO_CAUGHT_UP, 0);
        channel_end(thread->to_broker, 0, 0);
    }
    if (thread->slow_count != 0 && !uv_is_active((uv_handle_t *)&thread->slow_timer)) {
        (void)uv_timer_start(&thread->slow_timer, look_at_slow, SLOW_LOOK_MS, SLOW_LOOK_MS);
    }
}

void io_thread_turn_end(void *ctx)
{
    struct io_thread *thread = ctx;
    if (thread->stopping && !thread->stopped && thread->link_count == 0 &&
        transport_loop_statistics(thread->loop)->sockets_current == 0) {
        thread->stopped = true;
        (void)channel_begin_small(thread->to_broker, IO_STOPPED, 0);
        channel_end(thread->to_broker, 0, 0);
        uv_stop(&thread->uv);
    }
    channel_publish(thread->to_broker);
}

void io_thread_open(struct io_thread *thread)
{
    (void)uv_timer_init(&thread->uv, &thread->slow_timer);
    thread->slow_timer.data = thread;
    uv_unref((uv_handle_t *)&thread->slow_timer);
}

void io_thread_close(struct io_thread *thread)
{
    uv_close((uv_handle_t *)&thread->slow_timer, NULL);
    while (thread->references != NULL) {
        struct io_reference *reference = thread->references;
        thread->references = reference->next;
        mem_free(reference);
    }
}

struct connection_handler io_connection_handler(void)
{
    return (struct connection_handler){
        .accept = on_accept,
        .open = on_open,
        .on_inbound = on_inbound,
        .on_bytes = on_bytes,
        .on_message_begin = on_message_begin,
        .on_message_end = on_message_end,
        .on_output = on_output,
        .on_close = on_close,
        .on_refused = on_refused,
    };
}
