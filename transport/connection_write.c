#include "connection_internal.h"
#include "mem.h"

enum { UNSENT_PARTS_MAX = OUTPUT_PARTS_MAX };

/* A write that libuv has taken over: the owners of referenced parts, and a copy of what was in
 * scratch memory. */
struct unsent {
    uv_write_t request;
    struct connection *connection;
    size_t len;
    unsigned owner_count;
    struct shared *owners[UNSENT_PARTS_MAX];
    uint8_t copy[];
};

/* Plaintext parts from `at` on, with owners or in `copy`. */
struct connection_held {
    unsigned at, count;
    size_t offset; /* in parts[at] */
    struct output_part parts[OUTPUT_PARTS_MAX];
    uint8_t copy[];
};

/* Where to go on in an array of parts; parts behind it have been released. */
struct cursor {
    struct output_part *parts;
    unsigned at, count;
    size_t offset;
};

static void release_parts(struct output_part *parts, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        shared_release(parts[i].owner);
    }
}

static void cursor_release(const struct cursor *cursor)
{
    release_parts(cursor->parts + cursor->at, cursor->count - cursor->at);
}

static struct bytes cursor_next(const struct cursor *cursor)
{
    const struct output_part *part = &cursor->parts[cursor->at];
    return bytes_of(part->data + cursor->offset, part->len - cursor->offset);
}

/* Moves on by `len` bytes and past parts that are then empty, releasing them. */
static void cursor_skip(struct cursor *cursor, size_t len)
{
    while (cursor->at < cursor->count) {
        struct output_part *part = &cursor->parts[cursor->at];
        size_t left = part->len - cursor->offset;
        if (len < left) {
            cursor->offset += len;
            return;
        }
        len -= left;
        shared_release(part->owner);
        cursor->at++;
        cursor->offset = 0;
    }
}

static size_t cursor_scratch_bytes(const struct cursor *cursor)
{
    size_t bytes = 0;
    for (unsigned i = cursor->at; i < cursor->count; i++) {
        if (cursor->parts[i].owner == NULL) {
            bytes += cursor->parts[i].len - (i == cursor->at ? cursor->offset : 0);
        }
    }
    return bytes;
}

size_t connection_unsent_bytes(const struct connection *connection)
{
    size_t bytes = uv_stream_get_write_queue_size(&connection->io.stream);
    const struct connection_held *held = connection_held(connection);
    if (held != NULL) {
        for (unsigned i = held->at; i < held->count; i++) {
            bytes += held->parts[i].len;
        }
        bytes -= held->offset;
    }
    return bytes;
}

bool connection_unsent_moves(struct connection *connection)
{
    size_t unsent = connection_unsent_bytes(connection);
    uint32_t now = unsent > UINT32_MAX ? UINT32_MAX : (uint32_t)unsent;
    if (now == 0) {
        if (connection->extra != NULL) {
            connection->extra->unsent_seen = 0;
            connection_extra_settle(connection);
        }
        return false;
    }
    struct connection_extra *extra = connection_extra_get(connection);
    if (extra == NULL) {
        return true; /* without memory for the comparison the peer gets the benefit of the doubt */
    }
    bool moves = now != extra->unsent_seen;
    extra->unsent_seen = now;
    return moves;
}

static bool has_more_to_flush(const struct connection *connection)
{
    const struct connection_extra *extra = connection->extra;
    return connection->woken || connection->ping_due ||
           (extra != NULL && (extra->held != NULL || extra->control != NULL));
}

static void on_written(uv_write_t *request, int error)
{
    struct unsent *unsent = (struct unsent *)request;
    struct connection *connection = unsent->connection;
    for (unsigned i = 0; i < unsent->owner_count; i++) {
        shared_release(unsent->owners[i]);
    }
    if (error == 0) {
        loop_count(&connection_loop(connection)->statistics.bytes_sent, unsent->len);
    }
    mem_free(unsent);
    connection->writes_in_progress--;
    if (connection->state == CONNECTION_CLOSED) {
        return;
    }
    if (error < 0) {
        connection_drop(connection, CONNECTION_RESET, uv_strerror(error));
        return;
    }
    if (connection->writes_in_progress == 0) {
        connection_update_reading(connection);
        if (has_more_to_flush(connection)) {
            loop_queue_flush(connection_loop(connection), connection);
        }
    }
}

/* Hands the rest to libuv, which writes it when the kernel takes more. Consumes the cursor. */
static int write_later(struct connection *connection, struct cursor *cursor)
{
    struct unsent *unsent = mem_alloc(sizeof *unsent + cursor_scratch_bytes(cursor));
    if (unsent == NULL) {
        cursor_release(cursor);
        return UV_ENOMEM;
    }
    uv_buf_t bufs[OUTPUT_PARTS_MAX];
    unsigned count = 0;
    uint8_t *copy = unsent->copy;
    unsent->connection = connection;
    unsent->len = 0;
    unsent->owner_count = 0;
    while (cursor->at < cursor->count) {
        struct output_part *part = &cursor->parts[cursor->at];
        struct bytes bytes = cursor_next(cursor);
        if (part->owner != NULL) {
            unsent->owners[unsent->owner_count++] = part->owner;
        } else {
            bytes_copy(copy, bytes);
            bytes.data = copy;
            copy += bytes.len;
        }
        bufs[count].base = (char *)(uintptr_t)bytes.data; /* libuv's type lacks the const */
        bufs[count++].len = bytes.len;
        unsent->len += bytes.len;
        cursor->at++;
        cursor->offset = 0;
    }
    int error = uv_write(&unsent->request, &connection->io.stream, bufs, count, on_written);
    if (error != 0) {
        for (unsigned i = 0; i < unsent->owner_count; i++) {
            shared_release(unsent->owners[i]);
        }
        mem_free(unsent);
        return error;
    }
    connection->writes_in_progress++;
    loop_count(&connection_loop(connection)->statistics.writes_incomplete, 1);
    connection_update_reading(connection);
    return 0;
}

static bool write_failed(struct connection *connection, int error)
{
    connection_drop(connection, error == UV_ENOMEM ? CONNECTION_NO_MEMORY : CONNECTION_RESET,
                    uv_strerror(error));
    return false;
}

/* One system call, behind which the kernel's refusal to take more is the exception. */
static bool write_wire(struct connection *connection, struct output_part *parts, unsigned count)
{
    struct transport_statistics *statistics = &connection_loop(connection)->statistics;
    struct cursor cursor = {parts, 0, count, 0};
    size_t total = 0;
    for (unsigned i = 0; i < count; i++) {
        total += parts[i].len;
    }
    if (connection->writes_in_progress == 0 && total != 0) {
        uv_buf_t bufs[OUTPUT_PARTS_MAX];
        for (unsigned i = 0; i < count; i++) {
            bufs[i].base = (char *)(uintptr_t)parts[i].data;
            bufs[i].len = parts[i].len;
        }
        int sent = uv_try_write(&connection->io.stream, bufs, count);
        loop_count(&statistics->writes, 1);
        if (sent < 0 && sent != UV_EAGAIN) {
            cursor_release(&cursor);
            return write_failed(connection, sent);
        }
        if (sent > 0) {
            cursor_skip(&cursor, (size_t)sent);
            total -= (size_t)sent;
            loop_count(&statistics->bytes_sent, (uint64_t)sent);
        }
    }
    if (total == 0) {
        cursor_release(&cursor); /* parts of length 0 */
        return true;
    }
    int error = write_later(connection, &cursor);
    return error == 0 ? true : write_failed(connection, error);
}

bool connection_write_cipher(struct connection *connection)
{
    struct tls_buffers *buffers = &connection_loop(connection)->tls;
    if (buffers->cipher_len == 0) {
        return true;
    }
    struct output_part part = {buffers->cipher, buffers->cipher_len, NULL};
    buffers->cipher_len = 0;
    return write_wire(connection, &part, 1);
}

/* The next bytes to encrypt: straight from a long part, or short parts put together into one
 * record. */
static struct bytes next_record(struct connection *connection, const struct cursor *cursor)
{
    struct bytes next = cursor_next(cursor);
    if (next.len >= TLS_RECORD_BYTES || cursor->at + 1 == cursor->count) {
        return next;
    }
    struct writer writer = writer_of(connection_loop(connection)->tls.gather, TLS_RECORD_BYTES);
    struct cursor ahead = *cursor;
    while (ahead.at < ahead.count && writer_room(&writer) != 0) {
        next = cursor_next(&ahead);
        if (next.len > writer_room(&writer)) {
            next.len = writer_room(&writer);
        }
        writer_bytes(&writer, next);
        ahead.at++;
        ahead.offset = 0;
    }
    return writer_written(&writer);
}

/* Encrypts until the end or until the cipher buffer is full. */
static bool encrypt(struct connection *connection, struct cursor *cursor)
{
    while (cursor->at < cursor->count) {
        struct bytes bytes = next_record(connection, cursor);
        ptrdiff_t taken = bytes.len == 0 ? 0 : tls_session_write(connection->tls, bytes);
        if (taken < 0) {
            return false;
        }
        cursor_skip(cursor, (size_t)taken);
        if ((size_t)taken < bytes.len) {
            break;
        }
    }
    return true;
}

/* Keeps the rest of the plaintext until the kernel has taken the ciphertext. Consumes the cursor.
 */
static bool hold(struct connection *connection, const struct cursor *cursor)
{
    struct connection_extra *extra = connection_extra_get(connection);
    struct connection_held *held =
        extra == NULL ? NULL : mem_alloc(sizeof *held + cursor_scratch_bytes(cursor));
    if (held == NULL) {
        cursor_release(cursor);
        return write_failed(connection, UV_ENOMEM);
    }
    uint8_t *copy = held->copy;
    held->at = held->count = 0;
    held->offset = 0;
    for (unsigned i = cursor->at; i < cursor->count; i++) {
        struct output_part part = cursor->parts[i];
        size_t skip = i == cursor->at ? cursor->offset : 0;
        part.data += skip;
        part.len -= skip;
        if (part.owner == NULL) {
            bytes_copy(copy, bytes_of(part.data, part.len));
            part.data = copy;
            copy += part.len;
        }
        held->parts[held->count++] = part;
    }
    extra->held = held;
    connection_update_reading(connection);
    return true;
}

static bool write_tls(struct connection *connection, struct output_part *parts, unsigned count)
{
    struct cursor cursor = {parts, 0, count, 0};
    ENSURE(connection_held(connection) == NULL);
    if (!encrypt(connection, &cursor)) {
        cursor_release(&cursor);
        connection_loop(connection)->tls.cipher_len = 0;
        connection_drop(connection, CONNECTION_TLS_ERROR, tls_session_error(connection->tls));
        return false;
    }
    if (cursor.at < cursor.count && !hold(connection, &cursor)) {
        connection_loop(connection)->tls.cipher_len = 0;
        return false;
    }
    if (!connection_write_cipher(connection)) {
        return false;
    }
    if (connection_held(connection) != NULL && connection->writes_in_progress == 0) {
        loop_queue_flush(connection_loop(connection), connection);
    }
    return true;
}

/* The kernel has taken all ciphertext so far. */
static void write_held(struct connection *connection)
{
    struct connection_held *held = connection->extra->held;
    struct cursor cursor = {held->parts, held->at, held->count, held->offset};
    bool ok = encrypt(connection, &cursor);
    held->at = cursor.at;
    held->offset = cursor.offset;
    if (!ok) {
        connection_loop(connection)->tls.cipher_len = 0;
        connection_drop(connection, CONNECTION_TLS_ERROR, tls_session_error(connection->tls));
        return;
    }
    if (held->at == held->count) {
        connection_release_held(connection);
    }
    if (connection_write_cipher(connection) && connection->writes_in_progress == 0) {
        connection_update_reading(connection);
        if (has_more_to_flush(connection)) {
            loop_queue_flush(connection_loop(connection), connection);
        }
    }
}

void connection_release_held(struct connection *connection)
{
    struct connection_held *held = connection_held(connection);
    if (held != NULL) {
        release_parts(held->parts + held->at, held->count - held->at);
        mem_free(held);
        connection->extra->held = NULL;
        connection_extra_settle(connection);
    }
}

bool connection_write_parts(struct connection *connection, struct output_part *parts,
                            unsigned count)
{
    return connection->tls != NULL ? write_tls(connection, parts, count)
                                   : write_wire(connection, parts, count);
}

bool connection_write_bytes(struct connection *connection, struct bytes bytes)
{
    struct output_part part = {bytes.data, bytes.len, NULL};
    return connection_write_parts(connection, &part, 1);
}

/* Reserves room for the longest header; end_message gives back what it does not need. */
static void begin_message(struct transport_loop *loop, struct output *output, bool text,
                          bool is_explicit)
{
    uint8_t *extra_end = loop->scratch + OUTPUT_SCRATCH_BYTES + LOOP_SCRATCH_EXTRA;
    if ((size_t)(extra_end - output->end) >= WS_HEADER_MAX) {
        output->end += WS_HEADER_MAX; /* so that a caller's packet still has OUTPUT_TAKE_MAX */
    }
    loop->message_slot = output_take(output, WS_HEADER_MAX);
    loop->message_part = output->part_count - 1;
    loop->message_start = output->total;
    loop->message_is_text = text;
    loop->message_is_explicit = is_explicit;
    loop->in_message = true;
}

static void end_message(struct transport_loop *loop, struct output *output)
{
    if (!loop->in_message) {
        return;
    }
    loop->in_message = false;
    size_t payload = output->total - loop->message_start;
    if (payload == 0 && !loop->message_is_explicit) {
        output_untake(output, WS_HEADER_MAX);
        return;
    }
    struct output_part *part = &output->parts[loop->message_part];
    bool is_last = loop->message_part + 1 == output->part_count;
    size_t offset = (size_t)(loop->message_slot - part->data);
    size_t gap =
        WS_HEADER_MAX -
        ws_header_write(loop->message_slot, loop->message_is_text ? WS_TEXT : WS_BINARY, payload);
    part->len -= gap;
    output->total -= gap;
    if (offset == 0) {
        part->data += gap; /* the usual case: one message, nothing moves */
        return;
    }
    memmove(loop->message_slot, loop->message_slot + gap, part->len - offset);
    if (is_last) {
        output->at -= gap;
    }
}

void connection_begin_message(struct connection *connection, struct output *output, bool text)
{
    if (connection->is_websocket) {
        end_message(connection_loop(connection), output);
        begin_message(connection_loop(connection), output, text, true);
    }
}

static void add_control_frames(struct connection *connection, struct output *output)
{
    struct connection_control *control =
        connection->extra == NULL ? NULL : connection->extra->control;
    uint8_t frame[WS_CONTROL_FRAME_MAX];
    if (control != NULL) {
        size_t len =
            ws_control_write(frame, WS_PONG, bytes_of(control->pong_payload, control->pong_len));
        output_put(output, bytes_of(frame, len));
        mem_free(control);
        connection->extra->control = NULL;
        connection_extra_settle(connection);
    }
    if (connection->ping_due) {
        connection->ping_due = false;
        size_t len = ws_control_write(frame, WS_PING, BYTES_EMPTY);
        output_put(output, bytes_of(frame, len));
    }
}

static void ask_user(struct connection *connection, struct output *output)
{
    struct transport_loop *loop = connection_loop(connection);
    connection->woken = false;
    if (connection->user == NULL) {
        return;
    }
    if (connection->is_websocket) {
        begin_message(loop, output, connection->send_text, false);
    }
    connection_handler_of(connection)->on_output(connection->user, output);
    end_message(loop, output);
}

static void add_close_frame(const struct connection *connection, struct output *output)
{
    uint8_t frame[WS_CONTROL_FRAME_MAX];
    const struct connection_closing *closing = connection_closing(connection);
    size_t len = ws_close_write(frame, closing->websocket_code, bytes_of_string(closing->reason));
    output_put(output, bytes_of(frame, len));
}

/* The user's last output and our Close are on their way: the user is no longer needed. */
static void finish_draining(struct connection *connection)
{
    struct connection_end end = {CONNECTION_CLOSED_LOCALLY, 0, NULL}; /* its text is the reason */
    if (!connection->is_websocket) {
        connection_finish(connection, &end);
        return;
    }
    connection->state = CONNECTION_CLOSING;
    connection_arm(connection, listener_of(connection)->options.close_timeout_ms);
    connection_update_reading(connection);
    connection_report_end(connection, &end);
}

static void flush_output(struct connection *connection)
{
    struct output *output = &connection_loop(connection)->output;
    bool asked = connection->woken;
    output_open(output, connection_loop(connection)->scratch, OUTPUT_SCRATCH_BYTES);
    add_control_frames(connection, output);
    if (asked) {
        ask_user(connection, output);
    }
    if (connection->aborting) {
        output_release(output);
        return; /* on the flush list again */
    }
    bool full = !output_has_room(output);
    bool finished =
        connection->state == CONNECTION_DRAINING && asked && !full && !connection->woken;
    if (finished && connection->is_websocket) {
        add_close_frame(connection, output);
    }
    if (output->part_count != 0 &&
        !connection_write_parts(connection, output->parts, output->part_count)) {
        return;
    }
    if (finished && (connection->is_websocket || connection_held(connection) == NULL)) {
        finish_draining(connection);
    } else if (full || finished) {
        connection_wake(connection); /* again in the next turn, or when the kernel has taken this */
    }
}

void connection_flush(struct connection *connection)
{
    if (connection->state == CONNECTION_CLOSED) {
        return;
    }
    if (connection->aborting) {
        connection_drop(connection, CONNECTION_CLOSED_LOCALLY, "closed by the server");
    } else if (connection->writes_in_progress != 0) {
        return; /* on_written queues it again */
    } else if (connection_held(connection) != NULL) {
        write_held(connection);
    } else if ((connection->state == CONNECTION_OPEN || connection->state == CONNECTION_DRAINING) &&
               has_more_to_flush(connection)) {
        flush_output(connection);
    }
}
