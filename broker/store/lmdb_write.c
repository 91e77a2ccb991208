#include "lmdb_write.h"

#include <errno.h>
#include <sys/statvfs.h>

#include "mem.h"

enum { READER_CHECK_EVERY = 256 };

/* A disk with less is full. */
#define EXHAUSTED_BYTES ((uint64_t)1 << 16)

/* What the disk has left; UINT64_MAX when it does not say. */
static uint64_t disk_room(const struct lmdb_file *file)
{
    struct statvfs disk;
    mdb_filehandle_t fd;
    if (mdb_env_get_fd(file->env, &fd) != 0 || fstatvfs(fd, &disk) != 0) {
        return UINT64_MAX;
    }
    return (uint64_t)disk.f_bavail * disk.f_frsize;
}

bool lmdb_is_no_room(const struct lmdb_file *file, int error)
{
    /* LMDB says EIO when a write was cut short, as it is on a disk that becomes full. */
    return error == MDB_MAP_FULL || error == ENOSPC || error == EDQUOT ||
           (error == EIO && disk_room(file) < EXHAUSTED_BYTES);
}

/* Rows come in ascending order as a rule, and then they need no search; where one does not, it is
 * put into its place. */
static int put_last(MDB_cursor *cursor, MDB_val *key, MDB_val *row)
{
    MDB_val key_copy = *key;
    MDB_val row_copy = *row;
    int error = mdb_cursor_put(cursor, key, row, MDB_APPEND);
    return error == MDB_KEYEXIST ? mdb_cursor_put(cursor, &key_copy, &row_copy, 0) : error;
}

/* Seals what `encoded` has written to the writer's row and puts it. */
static int put_sealed(struct lmdb_writer *writer, MDB_cursor *cursor, enum store_table table,
                      const struct store_key *key, const struct writer *encoded)
{
    ENSURE(writer_ok(encoded));
    size_t len = writer_len(encoded);
    store_row_seal(table, lmdb_key(key), writer->row.data, len);
    MDB_val key_val = lmdb_val(lmdb_key(key));
    MDB_val row_val = lmdb_val(bytes_of(writer->row.data, len));
    if (cursor != NULL) {
        return put_last(cursor, &key_val, &row_val);
    }
    return mdb_put(writer->txn, writer->file->tables[table], &key_val, &row_val, 0);
}

static bool reserve(struct lmdb_writer *writer, size_t size, struct writer *out)
{
    if (store_buffer_reserve(&writer->row, size) != STATUS_OK) {
        return false;
    }
    *out = writer_of(writer->row.data, size);
    return true;
}

static int put_pieces(struct lmdb_writer *writer, uint64_t arrival, struct bytes body)
{
    for (uint32_t index = 0; body.len != 0; index++) {
        size_t len = body.len < STORE_PIECE_MAX ? body.len : STORE_PIECE_MAX;
        struct writer encoded;
        if (!reserve(writer, STORE_CHECKSUM_LEN + len, &encoded)) {
            return ENOMEM;
        }
        (void)writer_take(&encoded, STORE_CHECKSUM_LEN);
        writer_bytes(&encoded, bytes_of(body.data, len));
        const struct store_key key = store_key_piece(arrival, index);
        int error = put_sealed(writer, writer->blobs, STORE_TABLE_BLOB, &key, &encoded);
        if (error != 0) {
            return error;
        }
        body = bytes_from(body, len);
    }
    return 0;
}

static int append_message(struct lmdb_writer *writer, const struct store_batch_message *entry)
{
    const struct message *message = entry->message;
    struct bytes body = bytes_of(message->data + message->topic_len,
                                 (size_t)message->properties_len + message->payload_len);
    struct store_row_message row = {
        .expires_unix_ms = entry->expires_unix_ms,
        .publisher = message->publisher_id,
        .properties_len = message->properties_len,
        .payload_len = message->payload_len,
        .qos = message->qos,
        .retain = message->retain,
        .in_pieces = body.len > STORE_INLINE_MAX,
        .topic = message_topic(message),
    };
    if (row.in_pieces) {
        int error = put_pieces(writer, entry->arrival, body);
        if (error != 0) {
            return error;
        }
    } else {
        row.body = body;
    }
    size_t size = store_row_message_head_size(&row);
    for (const struct store_batch_part *p = entry->first_part; p != NULL; p = p->next) {
        if (p->change == STORE_CHANGE_PUT) {
            size += store_row_recipient_size(&p->recipient);
            row.recipient_count++;
        }
    }
    struct writer encoded;
    if (!reserve(writer, size, &encoded)) {
        return ENOMEM;
    }
    store_row_message_write_head(&encoded, &row);
    for (const struct store_batch_part *p = entry->first_part; p != NULL; p = p->next) {
        if (p->change == STORE_CHANGE_PUT) {
            store_row_recipient_write(&encoded, &p->recipient);
        }
    }
    const struct store_key key = store_key_number(entry->arrival);
    return put_sealed(writer, writer->messages, STORE_TABLE_MESSAGE, &key, &encoded);
}

/* One recipient that is stored, as the batch leaves it; false: finished. */
static bool change_recipient(const struct store_batch *batch, uint64_t arrival,
                             const struct store_recipient *stored, struct bytes as_stored,
                             struct writer *encoded)
{
    struct store_batch_part *part =
        store_batch_find_part(batch, arrival, (enum store_role)stored->role, stored->session);
    if (part == NULL || part->change == STORE_CHANGE_NONE) {
        writer_bytes(encoded, as_stored);
        return true;
    }
    part->applied = true;
    if (part->change == STORE_CHANGE_DELETE) {
        return false;
    }
    if (part->change == STORE_CHANGE_PUT) {
        store_row_recipient_write(encoded, &part->recipient);
        return true;
    }
    uint8_t *at = encoded->at;
    writer_bytes(encoded, as_stored);
    if (writer_ok(encoded)) {
        store_row_recipient_change(at, part->recipient.packet_id, part->recipient.state);
    }
    return true;
}

/* The recipients of `row` as the batch leaves them; returns their number. */
static uint32_t change_recipients(const struct store_batch *batch,
                                  const struct store_batch_message *entry,
                                  const struct store_row_message *row, struct writer *encoded)
{
    uint32_t count = 0;
    for (struct store_batch_part *p = entry->first_part; p != NULL; p = p->next) {
        p->applied = false;
    }
    struct reader reader = reader_of(row->recipients);
    while (reader_left(&reader) != 0) {
        const uint8_t *start = reader.at;
        struct store_recipient stored;
        struct bytes identifiers;
        store_row_recipient_read(&reader, &stored, &identifiers);
        struct bytes as_stored = bytes_of(start, (size_t)(reader.at - start));
        count += change_recipient(batch, entry->arrival, &stored, as_stored, encoded);
    }
    for (const struct store_batch_part *p = entry->first_part; p != NULL; p = p->next) {
        if (p->change == STORE_CHANGE_PUT && !p->applied) {
            store_row_recipient_write(encoded, &p->recipient);
            count++;
        }
    }
    return count;
}

static int delete_message(struct lmdb_writer *writer, uint64_t arrival, uint32_t pieces)
{
    int error = mdb_cursor_del(writer->messages, 0);
    for (uint32_t index = 0; index < pieces && error == 0; index++) {
        const struct store_key key = store_key_piece(arrival, index);
        MDB_val key_val = lmdb_val(lmdb_key(&key));
        error = mdb_del(writer->txn, writer->file->tables[STORE_TABLE_BLOB], &key_val, NULL);
        error = error == MDB_NOTFOUND ? 0 : error;
    }
    return error;
}

static int change_message(struct lmdb_writer *writer, const struct store_batch *batch,
                          const struct store_batch_message *entry)
{
    const struct store_key key = store_key_number(entry->arrival);
    MDB_val key_val = lmdb_val(lmdb_key(&key));
    MDB_val stored;
    int error = mdb_cursor_get(writer->messages, &key_val, &stored, MDB_SET_KEY);
    if (error == MDB_NOTFOUND) {
        return 0; /* it was lost with a damaged page, and the log said so */
    }
    struct store_row_message row;
    if (error != 0) {
        return error;
    }
    if (!store_row_message_decode(lmdb_key(&key), lmdb_bytes(&stored), &row)) {
        return MDB_CORRUPTED;
    }
    size_t size = stored.mv_size;
    for (const struct store_batch_part *p = entry->first_part; p != NULL; p = p->next) {
        size += p->change == STORE_CHANGE_PUT ? store_row_recipient_size(&p->recipient) : 0;
    }
    struct writer encoded;
    if (!reserve(writer, size, &encoded)) {
        return ENOMEM;
    }
    uint8_t *recipients = writer_take(&encoded, store_row_message_head_size(&row));
    ENSURE(recipients != NULL);
    row.recipient_count = change_recipients(batch, entry, &row, &encoded);
    if (row.recipient_count == 0) {
        return delete_message(writer, entry->arrival, store_row_piece_count(&row));
    }
    struct writer head = writer_of(recipients, store_row_message_head_size(&row));
    store_row_message_write_head(&head, &row);
    ENSURE(writer_ok(&encoded) && writer_ok(&head));
    size_t len = writer_len(&encoded);
    store_row_seal(STORE_TABLE_MESSAGE, lmdb_key(&key), writer->row.data, len);
    key_val = lmdb_val(lmdb_key(&key));
    MDB_val row_val = lmdb_val(bytes_of(writer->row.data, len));
    return mdb_cursor_put(writer->messages, &key_val, &row_val, 0);
}

/* Messages of earlier batches first: what is appended comes after them in the table. */
static int write_messages(struct lmdb_writer *writer, const struct store_batch *batch)
{
    int error = 0;
    for (const struct store_batch_message *m = batch->first_message; m != NULL && error == 0;
         m = m->next) {
        if (!m->appended) {
            error = change_message(writer, batch, m);
        }
    }
    for (const struct store_batch_message *m = batch->first_message; m != NULL && error == 0;
         m = m->next) {
        if (m->message != NULL) {
            error = append_message(writer, m);
        }
    }
    return error;
}

/* Where the filter is in the table: its own row, or the first free place for it. */
static int find_subscription(const struct store_batch_subscription *entry, MDB_cursor *cursor,
                             struct store_key *key, bool *found)
{
    uint64_t session = entry->subscription.session;
    *found = false;
    for (uint16_t collision = 0; collision != UINT16_MAX; collision++) {
        *key = store_key_subscription(session, entry->filter_hash, collision);
        MDB_val key_val = lmdb_val(lmdb_key(key));
        MDB_val row;
        int error = mdb_cursor_get(cursor, &key_val, &row, MDB_SET_KEY);
        if (error != 0) {
            return error == MDB_NOTFOUND ? 0 : error;
        }
        struct store_subscription stored;
        if (!store_row_subscription_decode(lmdb_key(key), lmdb_bytes(&row), &stored)) {
            return MDB_CORRUPTED;
        }
        if (bytes_equal(stored.filter, entry->subscription.filter)) {
            *found = true;
            return 0;
        }
    }
    /* 65,535 filters of one session with the same hash: the seed is known to nobody. */
    return MDB_KEYEXIST;
}

/* The last row of the same hash moves into the hole at `hole`, so that the search above may end at
 * the first place that is free. The cursor is at the row to be deleted. */
static int delete_subscription(struct lmdb_writer *writer, MDB_cursor *cursor,
                               const struct store_batch_subscription *entry,
                               const struct store_key *hole)
{
    int error = mdb_cursor_del(cursor, 0);
    MDB_dbi table = writer->file->tables[STORE_TABLE_SUBSCRIPTION];
    struct store_key last = *hole;
    uint16_t collision = (uint16_t)(hole->data[hole->len - 2] << 8 | hole->data[hole->len - 1]);
    MDB_val row;
    while (error == 0) {
        const struct store_key next = store_key_subscription(
            entry->subscription.session, entry->filter_hash, (uint16_t)++collision);
        MDB_val key_val = lmdb_val(lmdb_key(&next));
        error = mdb_get(writer->txn, table, &key_val, &row);
        last = error == 0 ? next : last;
    }
    if (error != MDB_NOTFOUND || bytes_equal(lmdb_key(&last), lmdb_key(hole))) {
        return error == MDB_NOTFOUND ? 0 : error;
    }
    MDB_val key_val = lmdb_val(lmdb_key(&last));
    error = mdb_get(writer->txn, table, &key_val, &row);
    struct writer encoded;
    if (error != 0 || !reserve(writer, row.mv_size, &encoded)) {
        return error != 0 ? error : ENOMEM;
    }
    writer_bytes(&encoded, lmdb_bytes(&row));
    error = mdb_del(writer->txn, table, &key_val, NULL);
    return error != 0 ? error : put_sealed(writer, NULL, STORE_TABLE_SUBSCRIPTION, hole, &encoded);
}

static int write_subscription(struct lmdb_writer *writer, MDB_cursor *cursor,
                              const struct store_batch_subscription *entry)
{
    struct store_key key;
    bool found;
    int error = find_subscription(entry, cursor, &key, &found);
    if (error != 0) {
        return error;
    }
    if (entry->change == STORE_CHANGE_DELETE) {
        return found ? delete_subscription(writer, cursor, entry, &key) : 0;
    }
    struct writer encoded;
    if (!reserve(writer, store_row_subscription_size(&entry->subscription), &encoded)) {
        return ENOMEM;
    }
    store_row_subscription_write(&encoded, &entry->subscription);
    return put_sealed(writer, NULL, STORE_TABLE_SUBSCRIPTION, &key, &encoded);
}

static int delete_session(struct lmdb_writer *writer, MDB_cursor *cursor, uint64_t number)
{
    const struct store_key key = store_key_number(number);
    MDB_val key_val = lmdb_val(lmdb_key(&key));
    int error = mdb_del(writer->txn, writer->file->tables[STORE_TABLE_SESSION], &key_val, NULL);
    if (error != 0 && error != MDB_NOTFOUND) {
        return error;
    }
    MDB_val row;
    error = mdb_cursor_get(cursor, &key_val, &row, MDB_SET_RANGE);
    while (error == 0 && bytes_start_with(lmdb_bytes(&key_val), lmdb_key(&key))) {
        error = mdb_cursor_del(cursor, 0);
        if (error == 0) {
            key_val = lmdb_val(lmdb_key(&key));
            error = mdb_cursor_get(cursor, &key_val, &row, MDB_SET_RANGE);
        }
    }
    return error == MDB_NOTFOUND ? 0 : error;
}

static int write_session(struct lmdb_writer *writer, MDB_cursor *subscriptions,
                         const struct store_batch_session *entry)
{
    int error = 0;
    if (entry->is_deleted) {
        error = delete_session(writer, subscriptions, entry->session.number);
    }
    if (error == 0 && entry->is_put) {
        const struct store_key key = store_key_number(entry->session.number);
        struct writer encoded;
        if (!reserve(writer, store_row_session_size(&entry->session), &encoded)) {
            return ENOMEM;
        }
        store_row_session_write(&encoded, &entry->session);
        error = put_sealed(writer, NULL, STORE_TABLE_SESSION, &key, &encoded);
    }
    for (const struct store_batch_subscription *s = entry->first_subscription;
         s != NULL && error == 0; s = s->next) {
        if (s->change != STORE_CHANGE_NONE) {
            error = write_subscription(writer, subscriptions, s);
        }
    }
    return error;
}

static int write_sessions(struct lmdb_writer *writer, const struct store_batch *batch)
{
    MDB_cursor *subscriptions = NULL;
    if (batch->first_session == NULL) {
        return 0;
    }
    int error = mdb_cursor_open(writer->txn, writer->file->tables[STORE_TABLE_SUBSCRIPTION],
                                &subscriptions);
    for (const struct store_batch_session *s = batch->first_session; s != NULL && error == 0;
         s = s->next) {
        error = write_session(writer, subscriptions, s);
    }
    if (subscriptions != NULL) {
        mdb_cursor_close(subscriptions);
    }
    return error;
}

int lmdb_write_batch(struct lmdb_writer *writer, struct store_batch *batch)
{
    if (store_batch_leaves_nothing(batch)) {
        return 0;
    }
    const struct lmdb_file *file = writer->file;
    if (++writer->commits % READER_CHECK_EVERY == 0) {
        /* An mdb_copy that was killed would keep every page since from being used again. */
        int dead;
        (void)mdb_reader_check(file->env, &dead);
    }
    int error = mdb_txn_begin(file->env, NULL, 0, &writer->txn);
    if (error != 0) {
        return error;
    }
    writer->messages = writer->blobs = NULL;
    error = mdb_cursor_open(writer->txn, file->tables[STORE_TABLE_MESSAGE], &writer->messages);
    if (error == 0) {
        error = mdb_cursor_open(writer->txn, file->tables[STORE_TABLE_BLOB], &writer->blobs);
    }
    if (error == 0) {
        error = write_sessions(writer, batch);
    }
    if (error == 0) {
        error = write_messages(writer, batch);
    }
    /* Cursors of a write transaction have to be closed before it ends. */
    if (writer->messages != NULL) {
        mdb_cursor_close(writer->messages);
    }
    if (writer->blobs != NULL) {
        mdb_cursor_close(writer->blobs);
    }
    if (error != 0) {
        mdb_txn_abort(writer->txn);
        return error;
    }
    return mdb_txn_commit(writer->txn);
}

/* Pages in LMDB's own list of free pages, as far as they are needed to make `enough` bytes. */
static uint64_t free_bytes(const struct lmdb_file *file, uint64_t page_size, uint64_t enough)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    uint64_t bytes = 0;
    if (mdb_txn_begin(file->env, NULL, MDB_RDONLY, &txn) != 0) {
        return 0;
    }
    if (mdb_cursor_open(txn, 0, &cursor) == 0) {
        MDB_val key;
        MDB_val list;
        while (bytes < enough && mdb_cursor_get(cursor, &key, &list, MDB_NEXT) == 0) {
            size_t count;
            memcpy(&count, list.mv_data, sizeof count);
            bytes += count * page_size;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return bytes;
}

uint64_t lmdb_room(const struct lmdb_file *file, uint64_t enough)
{
    MDB_envinfo info;
    MDB_stat stat;
    (void)mdb_env_info(file->env, &info);
    (void)mdb_env_stat(file->env, &stat);
    uint64_t used = (uint64_t)(info.me_last_pgno + 1) * stat.ms_psize;
    uint64_t room = file->map_bytes > used ? file->map_bytes - used : 0;
    uint64_t left = disk_room(file);
    room = left < room ? left : room;
    return room >= enough ? room : room + free_bytes(file, stat.ms_psize, enough - room);
}

void lmdb_writer_fini(struct lmdb_writer *writer)
{
    store_buffer_fini(&writer->row);
}
