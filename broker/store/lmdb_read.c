#include "lmdb_read.h"

#include <errno.h>

#include "mem.h"

/* One answer holds no more than this, once it holds something. */
enum { ANSWER_BYTES_MAX = 1 << 20 };

/* Puts properties and payload together from their pieces. False: one is missing or damaged. */
static bool read_pieces(const struct lmdb_file *file, MDB_txn *txn, struct bytes message_key,
                        uint8_t *body, size_t len)
{
    uint64_t arrival;
    if (!store_key_read_number(message_key, &arrival)) {
        return false;
    }
    for (uint32_t index = 0; len != 0; index++) {
        const struct store_key key = store_key_piece(arrival, index);
        MDB_val key_val = lmdb_val(lmdb_key(&key));
        MDB_val row;
        size_t wanted = len < STORE_PIECE_MAX ? len : STORE_PIECE_MAX;
        if (mdb_get(txn, file->tables[STORE_TABLE_BLOB], &key_val, &row) != 0 ||
            row.mv_size != STORE_CHECKSUM_LEN + wanted ||
            !store_row_is_sealed(STORE_TABLE_BLOB, lmdb_key(&key), lmdb_bytes(&row))) {
            return false;
        }
        memcpy(body, (const uint8_t *)row.mv_data + STORE_CHECKSUM_LEN, wanted);
        body += wanted;
        len -= wanted;
    }
    return true;
}

struct load {
    const struct lmdb_file *file;
    const struct store_loader *loader;
    MDB_txn *txn;
    struct store_recipients recipients;
    struct store_buffer body;
    uint64_t damaged;
    bool all_bodies;
};

static enum status load_session(struct load *load, struct bytes key, struct bytes row)
{
    struct store_session session;
    struct store_will will;
    if (!store_row_session_decode(key, row, &session, &will)) {
        load->damaged++;
        return STATUS_OK;
    }
    return load->loader->on_session(load->loader->ctx, &session);
}

static enum status load_subscription(struct load *load, struct bytes key, struct bytes row)
{
    struct store_subscription subscription;
    if (!store_row_subscription_decode(key, row, &subscription)) {
        load->damaged++;
        return STATUS_OK;
    }
    return load->loader->on_subscription(load->loader->ctx, &subscription);
}

static bool has_retained(const struct store_recipients *recipients)
{
    for (size_t i = 0; i < recipients->count; i++) {
        if (recipients->items[i].role == STORE_RETAINED) {
            return true;
        }
    }
    return false;
}

static enum status load_message(struct load *load, struct bytes key, struct bytes row)
{
    struct store_row_message decoded;
    uint64_t arrival;
    if (!store_row_message_decode(key, row, &decoded) || !store_key_read_number(key, &arrival)) {
        load->damaged++;
        return STATUS_OK;
    }
    if (store_recipients_decode(&load->recipients, &decoded) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    struct bytes body = BYTES_EMPTY;
    if (load->all_bodies || has_retained(&load->recipients)) {
        body = decoded.body;
        size_t len = (size_t)decoded.properties_len + decoded.payload_len;
        if (decoded.in_pieces) {
            if (store_buffer_reserve(&load->body, len) != STATUS_OK) {
                return STATUS_NO_MEMORY;
            }
            if (!read_pieces(load->file, load->txn, key, load->body.data, len)) {
                load->damaged++;
                return STATUS_OK;
            }
            body = bytes_of(load->body.data, len);
        }
    }
    const struct store_message message = {
        .arrival = arrival,
        .expires_unix_ms = decoded.expires_unix_ms,
        .publisher = decoded.publisher,
        .qos = decoded.qos,
        .retain = decoded.retain,
        .topic = decoded.topic,
        .properties_len = decoded.properties_len,
        .payload_len = decoded.payload_len,
    };
    struct bytes properties =
        bytes_of(body.data, body.len == 0 ? 0 : (size_t)decoded.properties_len);
    return load->loader->on_message(load->loader->ctx, &message, properties,
                                    bytes_from(body, decoded.properties_len),
                                    load->recipients.items, load->recipients.count);
}

typedef enum status load_row_fn(struct load *load, struct bytes key, struct bytes row);

static enum status load_table(struct load *load, enum store_table table, load_row_fn *load_row,
                              const struct lmdb_log *log)
{
    MDB_cursor *cursor = NULL;
    enum status status = STATUS_OK;
    int error = mdb_cursor_open(load->txn, load->file->tables[table], &cursor);
    while (error == 0 && status == STATUS_OK) {
        MDB_val key;
        MDB_val row;
        error = mdb_cursor_get(cursor, &key, &row, MDB_NEXT);
        if (error == 0) {
            status = load_row(load, lmdb_bytes(&key), lmdb_bytes(&row));
        }
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    if (error != 0 && error != MDB_NOTFOUND) {
        lmdb_log(log, STORE_LOG_ERROR, "cannot read store %s: %s", load->file->path,
                 mdb_strerror(error));
        return error == ENOMEM ? STATUS_NO_MEMORY : STATUS_IO;
    }
    return status;
}

enum status lmdb_load(const struct lmdb_file *file, const struct lmdb_log *log,
                      const struct store_loader *loader, bool all_bodies)
{
    struct load load = {.file = file, .loader = loader, .all_bodies = all_bodies};
    int error = mdb_txn_begin(file->env, NULL, MDB_RDONLY, &load.txn);
    if (error != 0) {
        lmdb_log(log, STORE_LOG_ERROR, "cannot read store %s: %s", file->path, mdb_strerror(error));
        return error == ENOMEM ? STATUS_NO_MEMORY : STATUS_IO;
    }
    enum status status = load_table(&load, STORE_TABLE_SESSION, load_session, log);
    if (status == STATUS_OK) {
        status = load_table(&load, STORE_TABLE_SUBSCRIPTION, load_subscription, log);
    }
    if (status == STATUS_OK) {
        status = load_table(&load, STORE_TABLE_MESSAGE, load_message, log);
    }
    if (load.damaged != 0) {
        lmdb_log(log, STORE_LOG_ERROR, "store %s: %llu rows could not be read and are left out",
                 file->path, (unsigned long long)load.damaged);
    }
    mdb_txn_abort(load.txn);
    store_recipients_fini(&load.recipients);
    store_buffer_fini(&load.body);
    return status;
}

struct lmdb_fetch *lmdb_fetch_create(uint64_t session, const uint64_t *arrivals, size_t count)
{
    ENSURE(count != 0 && count <= STORE_FETCH_MAX);
    struct lmdb_fetch *fetch = mem_zalloc(sizeof *fetch + count * sizeof(struct store_fetched));
    if (fetch != NULL) {
        fetch->session = session;
        fetch->asked = count;
        for (size_t i = 0; i < count; i++) {
            fetch->items[i].arrival = arrivals[i];
        }
    }
    return fetch;
}

void lmdb_fetch_destroy(struct lmdb_fetch *fetch)
{
    for (size_t i = 0; i < fetch->answered; i++) {
        message_release(fetch->items[i].message);
    }
    store_buffer_fini(&fetch->identifiers);
    mem_free(fetch);
}

enum outcome { OUTCOME_READ, OUTCOME_GONE, OUTCOME_DAMAGED, OUTCOME_NO_MEMORY };

/* A place in the session's queue or window; of two any one will do. */
static bool is_place_of(const struct store_recipient *recipient, uint64_t session)
{
    return (recipient->role == STORE_QUEUED || recipient->role == STORE_SECOND) &&
           recipient->session == session;
}

/* Keeps the session's own part of the row, with identifiers at `identifiers_used` of the buffer. */
static enum outcome take_recipient(struct lmdb_fetch *fetch, struct store_fetched *item,
                                   const struct store_row_message *row, size_t identifiers_used)
{
    struct reader reader = reader_of(row->recipients);
    struct bytes encoded = BYTES_EMPTY;
    do {
        if (reader_left(&reader) == 0) {
            return OUTCOME_GONE;
        }
        store_row_recipient_read(&reader, &item->recipient, &encoded);
    } while (!is_place_of(&item->recipient, fetch->session));
    if (store_buffer_reserve(&fetch->identifiers, identifiers_used + encoded.len) != STATUS_OK) {
        return OUTCOME_NO_MEMORY;
    }
    struct reader numbers = reader_of(encoded);
    for (size_t at = identifiers_used; reader_left(&numbers) != 0; at += sizeof(uint32_t)) {
        uint32_t identifier = reader_u32(&numbers);
        memcpy(fetch->identifiers.data + at, &identifier, sizeof identifier);
    }
    return OUTCOME_READ;
}

static enum outcome take_message(struct store_fetched *item, const struct lmdb_file *file,
                                 MDB_txn *txn, struct bytes key,
                                 const struct store_row_message *row)
{
    struct message *message = NULL;
    enum status status =
        message_create(row->topic, row->properties_len, bytes_of(NULL, row->payload_len), &message);
    if (status != STATUS_OK) {
        return status == STATUS_NO_MEMORY ? OUTCOME_NO_MEMORY : OUTCOME_DAMAGED;
    }
    uint8_t *body = message_properties_area(message);
    size_t len = (size_t)row->properties_len + row->payload_len;
    if (!row->in_pieces) {
        bytes_copy(body, row->body);
    } else if (!read_pieces(file, txn, key, body, len)) {
        message_release(message);
        return OUTCOME_DAMAGED;
    }
    message->sequence = item->arrival;
    message->expires_at_ms = row->expires_unix_ms;
    message->publisher_id = row->publisher;
    message->qos = row->qos;
    message->retain = row->retain;
    item->message = message;
    return OUTCOME_READ;
}

static int answer_one(struct lmdb_fetch *fetch, struct store_fetched *item,
                      const struct lmdb_file *file, MDB_txn *txn, enum outcome *outcome,
                      size_t identifiers_used)
{
    const struct store_key key = store_key_number(item->arrival);
    MDB_val key_val = lmdb_val(lmdb_key(&key));
    MDB_val stored;
    struct store_row_message row;
    int error = mdb_get(txn, file->tables[STORE_TABLE_MESSAGE], &key_val, &stored);
    if (error == MDB_NOTFOUND) {
        *outcome = OUTCOME_GONE;
        return 0;
    }
    if (error != 0) {
        return error;
    }
    if (!store_row_message_decode(lmdb_key(&key), lmdb_bytes(&stored), &row)) {
        *outcome = OUTCOME_DAMAGED;
        return 0;
    }
    *outcome = take_recipient(fetch, item, &row, identifiers_used);
    if (*outcome == OUTCOME_READ) {
        *outcome = take_message(item, file, txn, lmdb_key(&key), &row);
    }
    return 0;
}

/* Only now does the buffer of identifiers stay where it is. */
static void point_to_identifiers(struct lmdb_fetch *fetch)
{
    const uint32_t *at = (const uint32_t *)(const void *)fetch->identifiers.data;
    for (size_t i = 0; i < fetch->answered; i++) {
        struct store_recipient *recipient = &fetch->items[i].recipient;
        recipient->identifiers = recipient->identifier_count == 0 ? NULL : at;
        at = recipient->identifier_count == 0 ? at : at + recipient->identifier_count;
    }
}

int lmdb_fetch_answer(struct lmdb_fetch *fetch, const struct lmdb_file *file, MDB_txn *txn)
{
    size_t bytes = 0;
    size_t identifiers_used = 0;
    while (fetch->answered != fetch->asked && bytes < ANSWER_BYTES_MAX) {
        struct store_fetched *item = &fetch->items[fetch->answered];
        enum outcome outcome = OUTCOME_GONE;
        int error = answer_one(fetch, item, file, txn, &outcome, identifiers_used);
        if (error != 0) {
            return error;
        }
        if (outcome == OUTCOME_NO_MEMORY) {
            if (fetch->answered == 0) {
                return ENOMEM;
            }
            break; /* the caller asks for the rest */
        }
        if (outcome == OUTCOME_READ) {
            bytes += message_size(item->message);
            identifiers_used += item->recipient.identifier_count * sizeof(uint32_t);
        } else {
            item->recipient = (struct store_recipient){.identifiers = NULL};
            fetch->damaged += outcome == OUTCOME_DAMAGED;
        }
        fetch->answered++;
    }
    point_to_identifiers(fetch);
    return 0;
}
