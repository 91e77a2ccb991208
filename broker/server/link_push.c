/*
 * A WebSocket that gets messages as they are, on two threads: what it sends goes to the broker as
 * it comes, with the borders of its messages.
 */
#include "link.h"

enum piece_kind {
    PIECE_TEXT, /* a message of text begins */
    PIECE_BINARY,
    PIECE_BYTES,
    PIECE_END,
};

/* What comes, in a record. */
struct piece {
    enum piece_kind kind;
    size_t len;
    uint8_t data[];
};

static void put_piece(struct io_link *io, enum piece_kind kind, struct bytes bytes)
{
    struct piece *piece = io_link_packet_begin(io, sizeof *piece + bytes.len);
    if (piece != NULL) {
        piece->kind = kind;
        piece->len = bytes.len;
        bytes_copy(piece->data, bytes);
        io_link_packet_end(io, sizeof *piece + bytes.len, 0);
    }
}

static void decode(struct io_link *io, void *decoder, struct bytes bytes)
{
    (void)decoder;
    put_piece(io, PIECE_BYTES, bytes);
}

static void message_begin(struct io_link *io, bool text)
{
    put_piece(io, text ? PIECE_TEXT : PIECE_BINARY, BYTES_EMPTY);
}

static void message_end(struct io_link *io)
{
    put_piece(io, PIECE_END, BYTES_EMPTY);
}

static void decoder_fini(void *decoder)
{
    (void)decoder; /* it keeps nothing */
}

static void *open_client(struct link *link, uint64_t now_ms, struct bytes user)
{
    return http_push_open(link->thread->server->http_clients, now_ms, link, link->settings, user,
                          &link->upgrade);
}

static void receive(void *client, uint64_t now_ms, const void *record)
{
    const struct piece *piece = record;
    struct client *self = client;
    if (self == NULL) {
        return;
    }
    switch (piece->kind) {
    case PIECE_TEXT:
    case PIECE_BINARY:
        self->kind->message_begin(self, piece->kind == PIECE_TEXT);
        break;
    case PIECE_BYTES:
        self->kind->receive(self, now_ms, bytes_of(piece->data, piece->len));
        break;
    case PIECE_END:
        self->kind->message_end(self, now_ms);
        break;
    }
}

const struct link_protocol link_push = {
    .decode = decode,
    .decoder_fini = decoder_fini,
    .message_begin = message_begin,
    .message_end = message_end,
    .open = open_client,
    .receive = receive,
    .send = link_client_send,
    .close = link_client_close,
};
