/*
 * store_row: how a message, a session, a subscription and the file's own description are laid out
 * as bytes; docs/storage.md has the tables.
 *
 * Each row begins with a checksum over its table, its key and the rest of it, so that a damaged or
 * misplaced row is told from a good one. Decoding believes no length: it is fed by files that may
 * have been damaged, and by a fuzzer.
 *
 *   Cost       One pass over the row; no allocation but for store_recipients, which grows and is
 *              used again.
 *   Ownership  What is decoded borrows from the row.
 *   Threads    Any.
 */
#ifndef STORE_ROW_H
#define STORE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hash.h"
#include "store.h"

/* In the order in which they are loaded; also what a checksum is salted with. */
enum store_table {
    STORE_TABLE_META,
    STORE_TABLE_SESSION,
    STORE_TABLE_SUBSCRIPTION,
    STORE_TABLE_BLOB,
    STORE_TABLE_MESSAGE,
    STORE_TABLE_COUNT,
};

enum {
    STORE_FORMAT = 1, /* docs/storage.md has the rule for raising it */
    /* Properties and payload up to this stay in the message's row, larger ones go to the blob
     * table in pieces, so that a change of recipients does not write them again. */
    STORE_INLINE_MAX = 1536,
    /* 8 bytes of checksum, and LMDB's page header of 16, fill eight pages exactly. */
    STORE_PIECE_MAX = 8 * 4096 - 16 - 8,
    STORE_KEY_MAX = 18,
    STORE_CHECKSUM_LEN = 8,
};

/* What the tables are called in the file. */
extern const char *const store_table_names[STORE_TABLE_COUNT];

/* A block that grows by doubling and is used again. */
struct store_buffer {
    uint8_t *data;
    size_t capacity;
};

/* Room for `size` bytes, keeping what is there. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status store_buffer_reserve(struct store_buffer *buffer, size_t size);
void store_buffer_fini(struct store_buffer *buffer);

/* Keys: big-endian numbers, so that rows are in order of arrival and of session number. */
struct store_key {
    uint8_t data[STORE_KEY_MAX];
    size_t len;
};

struct store_key store_key_number(uint64_t number); /* messages and sessions */
struct store_key store_key_piece(uint64_t arrival, uint32_t index);
/* `collision` tells filters of one session apart whose hashes are the same. */
struct store_key store_key_subscription(uint64_t session, uint64_t filter_hash, uint16_t collision);
bool store_key_read_number(struct bytes key, uint64_t *number);
bool store_key_read_piece(struct bytes key, uint64_t *arrival, uint32_t *index);
bool store_key_read_subscription(struct bytes key, uint64_t *session, uint64_t *filter_hash);

/* Writes the checksum of a row of `len` bytes, itself included, into its first eight bytes. */
void store_row_seal(enum store_table table, struct bytes key, uint8_t *row, size_t len);

/* True when the checksum is right. */
bool store_row_is_sealed(enum store_table table, struct bytes key, struct bytes row);

struct store_row_message {
    uint64_t expires_unix_ms;
    uint64_t publisher;
    uint32_t properties_len, payload_len;
    uint32_t recipient_count;
    uint8_t qos;
    bool retain;
    bool in_pieces; /* properties and payload are in the blob table */
    struct bytes topic;
    struct bytes body;       /* properties and payload; empty when in_pieces */
    struct bytes recipients; /* encoded */
};

/* False: damaged. Recipients have been checked too. */
MUST_USE bool store_row_message_decode(struct bytes key, struct bytes row,
                                       struct store_row_message *out);

/* How many pieces the body of `row` has in the blob table. */
uint32_t store_row_piece_count(const struct store_row_message *row);

/* The size of everything before the recipients, and of one recipient. */
size_t store_row_message_head_size(const struct store_row_message *row);
size_t store_row_recipient_size(const struct store_recipient *recipient);

/* Encodes everything before the recipients, with recipient_count. */
void store_row_message_write_head(struct writer *writer, const struct store_row_message *row);
void store_row_recipient_write(struct writer *writer, const struct store_recipient *recipient);

/* Changes a recipient where it stands, encoded. */
void store_row_recipient_change(uint8_t *encoded, uint16_t packet_id, uint8_t state);

/* One recipient; *identifiers are as encoded. Marks the reader failed when it is malformed. */
void store_row_recipient_read(struct reader *reader, struct store_recipient *out,
                              struct bytes *identifiers);

/* Decoded recipients, in one array that is used again. */
struct store_recipients {
    struct store_recipient *items;
    size_t count, capacity;
    uint32_t *identifiers;
    size_t identifier_capacity;
};

/* Decodes the recipients of a row that store_row_message_decode accepted. Errors:
 * STATUS_NO_MEMORY. */
MUST_USE enum status store_recipients_decode(struct store_recipients *recipients,
                                             const struct store_row_message *row);
void store_recipients_fini(struct store_recipients *recipients);

size_t store_row_session_size(const struct store_session *session);
void store_row_session_write(struct writer *writer, const struct store_session *session);
/* `will` is where the will is put, if there is one. False: damaged. */
MUST_USE bool store_row_session_decode(struct bytes key, struct bytes row,
                                       struct store_session *out, struct store_will *will);

size_t store_row_subscription_size(const struct store_subscription *subscription);
void store_row_subscription_write(struct writer *writer,
                                  const struct store_subscription *subscription);
MUST_USE bool store_row_subscription_decode(struct bytes key, struct bytes row,
                                            struct store_subscription *out);

/* The one row of the meta table: what the file is. */
struct store_row_meta {
    uint32_t format;
    struct hash_seed seed; /* of the hashes of filters */
};

enum { STORE_ROW_META_SIZE = STORE_CHECKSUM_LEN + 4 + 16 };
#define STORE_META_KEY "format"

void store_row_meta_write(struct writer *writer, const struct store_row_meta *meta);
MUST_USE bool store_row_meta_decode(struct bytes key, struct bytes row, struct store_row_meta *out);

#endif
