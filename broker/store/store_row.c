#include "store_row.h"

#include "mem.h"

const char *const store_table_names[STORE_TABLE_COUNT] = {
    [STORE_TABLE_META] = "dunlin/meta",
    [STORE_TABLE_SESSION] = "dunlin/session",
    [STORE_TABLE_SUBSCRIPTION] = "dunlin/subscription",
    [STORE_TABLE_BLOB] = "dunlin/blob",
    [STORE_TABLE_MESSAGE] = "dunlin/message",
};

enum {
    BUFFER_MIN = 4096,
    /* Flags of a message. */
    MESSAGE_QOS = 3,
    MESSAGE_RETAIN = 4,
    MESSAGE_IN_PIECES = 8,
    /* Flags of a recipient. */
    PART_ROLE = 3,
    PART_RELEASED = 4,
    PART_QOS_SHIFT = 3,
    PART_RETAIN = 32,
    PART_GROUP = 64,
    PART_IDENTIFIERS = 128,
    /* Flags of a session and of a will. */
    SESSION_CONNECTED = 1,
    SESSION_WILL = 2,
    WILL_QOS = 3,
    WILL_RETAIN = 4,
    WILL_EXPIRY = 8,
    /* Flags of a subscription. */
    SUBSCRIPTION_QOS = 3,
    SUBSCRIPTION_NO_LOCAL = 4,
    SUBSCRIPTION_RETAIN = 8,
    SUBSCRIPTION_SCAN = 16,
};

enum status store_buffer_reserve(struct store_buffer *buffer, size_t size)
{
    if (size <= buffer->capacity) {
        return STATUS_OK;
    }
    size_t capacity = buffer->capacity < BUFFER_MIN ? BUFFER_MIN : buffer->capacity * 2;
    capacity = capacity < size ? size : capacity;
    uint8_t *data = mem_realloc(buffer->data, capacity);
    if (data == NULL) {
        return STATUS_NO_MEMORY;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return STATUS_OK;
}

void store_buffer_fini(struct store_buffer *buffer)
{
    mem_free(buffer->data);
    *buffer = (struct store_buffer){NULL, 0};
}

static void write_u64(struct writer *writer, uint64_t value)
{
    writer_u32(writer, (uint32_t)(value >> 32));
    writer_u32(writer, (uint32_t)value);
}

static uint64_t read_u64(struct reader *reader)
{
    uint64_t high = reader_u32(reader);
    return high << 32 | reader_u32(reader);
}

/* Big-endian, `len` bytes. */
static void store_number(uint8_t *at, uint64_t value, size_t len)
{
    for (size_t i = len; i-- != 0; value >>= 8) {
        at[i] = (uint8_t)value;
    }
}

struct store_key store_key_number(uint64_t number)
{
    struct store_key key = {.len = 8};
    store_number(key.data, number, 8);
    return key;
}

struct store_key store_key_piece(uint64_t arrival, uint32_t index)
{
    struct store_key key = {.len = 12};
    store_number(key.data, arrival, 8);
    store_number(key.data + 8, index, 4);
    return key;
}

struct store_key store_key_subscription(uint64_t session, uint64_t filter_hash, uint16_t collision)
{
    struct store_key key = {.len = STORE_KEY_MAX};
    store_number(key.data, session, 8);
    store_number(key.data + 8, filter_hash, 8);
    store_number(key.data + 16, collision, 2);
    return key;
}

static bool is_complete(const struct reader *reader)
{
    return reader_ok(reader) && reader_left(reader) == 0;
}

bool store_key_read_number(struct bytes key, uint64_t *number)
{
    struct reader reader = reader_of(key);
    *number = read_u64(&reader);
    return is_complete(&reader);
}

bool store_key_read_piece(struct bytes key, uint64_t *arrival, uint32_t *index)
{
    struct reader reader = reader_of(key);
    *arrival = read_u64(&reader);
    *index = reader_u32(&reader);
    return is_complete(&reader);
}

bool store_key_read_subscription(struct bytes key, uint64_t *session, uint64_t *filter_hash)
{
    struct reader reader = reader_of(key);
    *session = read_u64(&reader);
    *filter_hash = read_u64(&reader);
    (void)reader_u16(&reader);
    return is_complete(&reader);
}

/* Not a secret: the checksum finds accidents, not forgers. */
static uint64_t checksum(enum store_table table, struct bytes key, struct bytes rest)
{
    const struct hash_seed seed = {UINT64_C(0x64756e6c696e2e31), (uint64_t)table};
    return hash_bytes_salted(&seed, hash_bytes(&seed, key), rest);
}

void store_row_seal(enum store_table table, struct bytes key, uint8_t *row, size_t len)
{
    ENSURE(len >= STORE_CHECKSUM_LEN);
    struct bytes rest = bytes_from(bytes_of(row, len), STORE_CHECKSUM_LEN);
    store_number(row, checksum(table, key, rest), STORE_CHECKSUM_LEN);
}

bool store_row_is_sealed(enum store_table table, struct bytes key, struct bytes row)
{
    struct reader reader = reader_of(row);
    uint64_t stored = read_u64(&reader);
    return reader_ok(&reader) && stored == checksum(table, key, reader_rest(&reader));
}

void store_row_recipient_read(struct reader *reader, struct store_recipient *out,
                              struct bytes *identifiers)
{
    uint8_t flags = reader_u8(reader);
    *out = (struct store_recipient){
        .role = flags & PART_ROLE,
        .state = (flags & PART_RELEASED) != 0 ? STORE_RELEASED : STORE_WAITING,
        .qos = (uint8_t)(flags >> PART_QOS_SHIFT & 3),
        .retain = (flags & PART_RETAIN) != 0,
    };
    out->session = read_u64(reader);
    out->packet_id = reader_u16(reader);
    out->group = (flags & PART_GROUP) != 0 ? reader_u32(reader) : 0;
    out->identifier_count = (flags & PART_IDENTIFIERS) != 0 ? reader_u16(reader) : 0;
    *identifiers = reader_bytes(reader, out->identifier_count * sizeof(uint32_t));
    if (out->qos > 2) {
        reader_fail(reader);
    }
}

size_t store_row_recipient_size(const struct store_recipient *recipient)
{
    size_t group = recipient->group != 0 ? 4 : 0;
    size_t identifiers =
        recipient->identifier_count != 0 ? 2 + recipient->identifier_count * sizeof(uint32_t) : 0;
    return 1 + 8 + 2 + group + identifiers;
}

void store_row_recipient_write(struct writer *writer, const struct store_recipient *recipient)
{
    unsigned flags = recipient->role | (unsigned)recipient->qos << PART_QOS_SHIFT |
                     (recipient->state == STORE_RELEASED ? PART_RELEASED : 0U) |
                     (recipient->retain ? PART_RETAIN : 0U) |
                     (recipient->group != 0 ? PART_GROUP : 0U) |
                     (recipient->identifier_count != 0 ? PART_IDENTIFIERS : 0U);
    writer_u8(writer, (uint8_t)flags);
    write_u64(writer, recipient->session);
    writer_u16(writer, recipient->packet_id);
    if (recipient->group != 0) {
        writer_u32(writer, recipient->group);
    }
    if (recipient->identifier_count != 0) {
        writer_u16(writer, recipient->identifier_count);
    }
    for (size_t i = 0; i < recipient->identifier_count; i++) {
        writer_u32(writer, recipient->identifiers[i]);
    }
}

void store_row_recipient_change(uint8_t *encoded, uint16_t packet_id, uint8_t state)
{
    unsigned flags = encoded[0] & ~(unsigned)PART_RELEASED;
    encoded[0] = (uint8_t)(flags | (state == STORE_RELEASED ? PART_RELEASED : 0U));
    store_number(encoded + 1 + 8, packet_id, 2);
}

bool store_row_message_decode(struct bytes key, struct bytes row, struct store_row_message *out)
{
    *out = (struct store_row_message){.expires_unix_ms = STORE_TIME_NEVER};
    uint64_t arrival;
    if (!store_key_read_number(key, &arrival) ||
        !store_row_is_sealed(STORE_TABLE_MESSAGE, key, row)) {
        return false;
    }
    struct reader reader = reader_of(bytes_from(row, STORE_CHECKSUM_LEN));
    uint8_t flags = reader_u8(&reader);
    out->qos = flags & MESSAGE_QOS;
    out->retain = (flags & MESSAGE_RETAIN) != 0;
    out->in_pieces = (flags & MESSAGE_IN_PIECES) != 0;
    out->expires_unix_ms = read_u64(&reader);
    out->publisher = read_u64(&reader);
    out->properties_len = reader_u32(&reader);
    out->payload_len = reader_u32(&reader);
    out->recipient_count = reader_u32(&reader);
    out->topic = reader_bytes(&reader, reader_u16(&reader));
    if (!out->in_pieces) {
        out->body = reader_bytes(&reader, (size_t)out->properties_len + out->payload_len);
    }
    struct reader recipients = reader;
    out->recipients = reader_rest(&reader);
    for (uint32_t i = 0; i < out->recipient_count && reader_ok(&recipients); i++) {
        struct store_recipient recipient;
        struct bytes identifiers;
        store_row_recipient_read(&recipients, &recipient, &identifiers);
    }
    return reader_ok(&reader) && is_complete(&recipients) && out->qos <= 2 &&
           out->recipient_count != 0;
}

uint32_t store_row_piece_count(const struct store_row_message *row)
{
    uint64_t body = (uint64_t)row->properties_len + row->payload_len;
    return row->in_pieces ? (uint32_t)((body + STORE_PIECE_MAX - 1) / STORE_PIECE_MAX) : 0;
}

size_t store_row_message_head_size(const struct store_row_message *row)
{
    return STORE_CHECKSUM_LEN + 1 + 8 + 8 + 4 + 4 + 4 + 2 + row->topic.len + row->body.len;
}

void store_row_message_write_head(struct writer *writer, const struct store_row_message *row)
{
    unsigned flags =
        row->qos | (row->retain ? MESSAGE_RETAIN : 0U) | (row->in_pieces ? MESSAGE_IN_PIECES : 0U);
    write_u64(writer, 0);
    writer_u8(writer, (uint8_t)flags);
    write_u64(writer, row->expires_unix_ms);
    write_u64(writer, row->publisher);
    writer_u32(writer, row->properties_len);
    writer_u32(writer, row->payload_len);
    writer_u32(writer, row->recipient_count);
    writer_u16(writer, (uint16_t)row->topic.len);
    writer_bytes(writer, row->topic);
    writer_bytes(writer, row->body);
}

static enum status reserve_recipients(struct store_recipients *recipients, size_t count,
                                      size_t identifiers)
{
    if (count > recipients->capacity) {
        void *items = mem_realloc(recipients->items, count * 2 * sizeof *recipients->items);
        if (items == NULL) {
            return STATUS_NO_MEMORY;
        }
        recipients->items = items;
        recipients->capacity = count * 2;
    }
    if (identifiers > recipients->identifier_capacity) {
        void *grown = mem_realloc(recipients->identifiers, identifiers * 2 * sizeof(uint32_t));
        if (grown == NULL) {
            return STATUS_NO_MEMORY;
        }
        recipients->identifiers = grown;
        recipients->identifier_capacity = identifiers * 2;
    }
    return STATUS_OK;
}

enum status store_recipients_decode(struct store_recipients *recipients,
                                    const struct store_row_message *row)
{
    /* An upper bound: whatever is not an identifier makes it larger. */
    size_t identifiers_max = row->recipients.len / sizeof(uint32_t);
    if (reserve_recipients(recipients, row->recipient_count, identifiers_max) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    struct reader reader = reader_of(row->recipients);
    uint32_t *at = recipients->identifiers;
    for (uint32_t i = 0; i < row->recipient_count; i++) {
        struct store_recipient *recipient = &recipients->items[i];
        struct bytes encoded;
        store_row_recipient_read(&reader, recipient, &encoded);
        struct reader numbers = reader_of(encoded);
        recipient->identifiers = recipient->identifier_count == 0 ? NULL : at;
        for (size_t n = 0; n < recipient->identifier_count; n++) {
            *at++ = reader_u32(&numbers);
        }
    }
    ENSURE(reader_ok(&reader));
    recipients->count = row->recipient_count;
    return STATUS_OK;
}

void store_recipients_fini(struct store_recipients *recipients)
{
    mem_free(recipients->items);
    mem_free(recipients->identifiers);
    *recipients = (struct store_recipients){.items = NULL};
}

size_t store_row_session_size(const struct store_session *session)
{
    const struct store_will *will = session->will;
    size_t of_will = will == NULL ? 0
                                  : 1 + 4 + 4 + 8 + 2 + 4 + 4 + will->topic.len +
                                        will->properties.len + will->payload.len;
    return STORE_CHECKSUM_LEN + 1 + 4 + 8 + 2 + session->client_id.len + of_will;
}

static void write_will(struct writer *writer, const struct store_will *will)
{
    unsigned flags =
        will->qos | (will->retain ? WILL_RETAIN : 0U) | (will->has_expiry ? WILL_EXPIRY : 0U);
    writer_u8(writer, (uint8_t)flags);
    writer_u32(writer, will->delay_s);
    writer_u32(writer, will->expiry_s);
    write_u64(writer, will->due_unix_ms);
    writer_u16(writer, (uint16_t)will->topic.len);
    writer_u32(writer, (uint32_t)will->properties.len);
    writer_u32(writer, (uint32_t)will->payload.len);
    writer_bytes(writer, will->topic);
    writer_bytes(writer, will->properties);
    writer_bytes(writer, will->payload);
}

static void read_will(struct reader *reader, struct store_will *out)
{
    uint8_t flags = reader_u8(reader);
    *out = (struct store_will){
        .qos = flags & WILL_QOS,
        .retain = (flags & WILL_RETAIN) != 0,
        .has_expiry = (flags & WILL_EXPIRY) != 0,
    };
    out->delay_s = reader_u32(reader);
    out->expiry_s = reader_u32(reader);
    out->due_unix_ms = read_u64(reader);
    size_t topic_len = reader_u16(reader);
    size_t properties_len = reader_u32(reader);
    size_t payload_len = reader_u32(reader);
    out->topic = reader_bytes(reader, topic_len);
    out->properties = reader_bytes(reader, properties_len);
    out->payload = reader_bytes(reader, payload_len);
    if (out->qos > 2) {
        reader_fail(reader);
    }
}

void store_row_session_write(struct writer *writer, const struct store_session *session)
{
    unsigned flags =
        (session->connected ? SESSION_CONNECTED : 0U) | (session->will != NULL ? SESSION_WILL : 0U);
    write_u64(writer, 0);
    writer_u8(writer, (uint8_t)flags);
    writer_u32(writer, session->expiry_s);
    write_u64(writer, session->expires_unix_ms);
    writer_u16(writer, (uint16_t)session->client_id.len);
    writer_bytes(writer, session->client_id);
    if (session->will != NULL) {
        write_will(writer, session->will);
    }
}

bool store_row_session_decode(struct bytes key, struct bytes row, struct store_session *out,
                              struct store_will *will)
{
    *out = (struct store_session){.number = 0};
    if (!store_key_read_number(key, &out->number) ||
        !store_row_is_sealed(STORE_TABLE_SESSION, key, row)) {
        return false;
    }
    struct reader reader = reader_of(bytes_from(row, STORE_CHECKSUM_LEN));
    uint8_t flags = reader_u8(&reader);
    out->connected = (flags & SESSION_CONNECTED) != 0;
    out->expiry_s = reader_u32(&reader);
    out->expires_unix_ms = read_u64(&reader);
    out->client_id = reader_bytes(&reader, reader_u16(&reader));
    if ((flags & SESSION_WILL) != 0) {
        read_will(&reader, will);
        out->will = will;
    }
    return is_complete(&reader);
}

size_t store_row_subscription_size(const struct store_subscription *subscription)
{
    return STORE_CHECKSUM_LEN + 1 + 4 + 4 + 2 + subscription->filter.len;
}

void store_row_subscription_write(struct writer *writer,
                                  const struct store_subscription *subscription)
{
    unsigned flags = subscription->qos | (subscription->no_local ? SUBSCRIPTION_NO_LOCAL : 0U) |
                     (subscription->retain_as_published ? SUBSCRIPTION_RETAIN : 0U) |
                     (subscription->scan_pending ? SUBSCRIPTION_SCAN : 0U);
    write_u64(writer, 0);
    writer_u8(writer, (uint8_t)flags);
    writer_u32(writer, subscription->identifier);
    writer_u32(writer, subscription->group);
    writer_u16(writer, (uint16_t)subscription->filter.len);
    writer_bytes(writer, subscription->filter);
}

bool store_row_subscription_decode(struct bytes key, struct bytes row,
                                   struct store_subscription *out)
{
    *out = (struct store_subscription){.session = 0};
    uint64_t filter_hash;
    if (!store_key_read_subscription(key, &out->session, &filter_hash) ||
        !store_row_is_sealed(STORE_TABLE_SUBSCRIPTION, key, row)) {
        return false;
    }
    struct reader reader = reader_of(bytes_from(row, STORE_CHECKSUM_LEN));
    uint8_t flags = reader_u8(&reader);
    out->qos = flags & SUBSCRIPTION_QOS;
    out->no_local = (flags & SUBSCRIPTION_NO_LOCAL) != 0;
    out->retain_as_published = (flags & SUBSCRIPTION_RETAIN) != 0;
    out->scan_pending = (flags & SUBSCRIPTION_SCAN) != 0;
    out->identifier = reader_u32(&reader);
    out->group = reader_u32(&reader);
    out->filter = reader_bytes(&reader, reader_u16(&reader));
    return is_complete(&reader) && out->qos <= 2;
}

void store_row_meta_write(struct writer *writer, const struct store_row_meta *meta)
{
    write_u64(writer, 0);
    writer_u32(writer, meta->format);
    write_u64(writer, meta->seed.k0);
    write_u64(writer, meta->seed.k1);
}

/* A newer format may have more to say: only its number is believed then. */
bool store_row_meta_decode(struct bytes key, struct bytes row, struct store_row_meta *out)
{
    *out = (struct store_row_meta){.format = 0};
    if (!store_row_is_sealed(STORE_TABLE_META, key, row)) {
        return false;
    }
    struct reader reader = reader_of(bytes_from(row, STORE_CHECKSUM_LEN));
    out->format = reader_u32(&reader);
    out->seed.k0 = read_u64(&reader);
    out->seed.k1 = read_u64(&reader);
    return out->format > STORE_FORMAT || is_complete(&reader);
}
