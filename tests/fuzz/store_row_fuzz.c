/* Rows of a store, as a damaged file may have them: first the checksum of the input as it is, then
 * the decoders behind it with a checksum that is right. What decodes is encoded to the same. */
#include <stdlib.h>

#include "mem.h"
#include "store_row.h"

enum { INPUT_MAX = 1 << 16 };

static void fuzz_message(struct bytes key, struct bytes row)
{
    static struct store_recipients recipients;
    struct store_row_message decoded;
    if (!store_row_message_decode(key, row, &decoded)) {
        return;
    }
    ENSURE(store_recipients_decode(&recipients, &decoded) == STATUS_OK);
    ENSURE(recipients.count == decoded.recipient_count);
    size_t size = store_row_message_head_size(&decoded);
    for (size_t i = 0; i < recipients.count; i++) {
        size += store_row_recipient_size(&recipients.items[i]);
    }
    ENSURE(size <= row.len); /* a group or a count of zero is not written again */
    uint8_t *again = malloc(size);
    ENSURE(again != NULL);
    struct writer writer = writer_of(again, size);
    store_row_message_write_head(&writer, &decoded);
    for (size_t i = 0; i < recipients.count; i++) {
        store_row_recipient_write(&writer, &recipients.items[i]);
    }
    ENSURE(writer_ok(&writer) && writer_room(&writer) == 0);
    store_row_seal(STORE_TABLE_MESSAGE, key, again, size);
    struct store_row_message second;
    ENSURE(store_row_message_decode(key, bytes_of(again, size), &second));
    ENSURE(second.recipient_count == decoded.recipient_count &&
           bytes_equal(second.topic, decoded.topic) && bytes_equal(second.body, decoded.body) &&
           store_row_piece_count(&second) == store_row_piece_count(&decoded));
    free(again);
}

static void fuzz_session(struct bytes key, struct bytes row)
{
    struct store_session session;
    struct store_will will;
    if (store_row_session_decode(key, row, &session, &will)) {
        ENSURE(store_row_session_size(&session) == row.len);
        uint8_t *again = malloc(row.len);
        ENSURE(again != NULL);
        struct writer writer = writer_of(again, row.len);
        store_row_session_write(&writer, &session);
        ENSURE(writer_ok(&writer) && writer_room(&writer) == 0);
        free(again);
    }
}

static void fuzz_subscription(struct bytes key, struct bytes row)
{
    struct store_subscription subscription;
    if (store_row_subscription_decode(key, row, &subscription)) {
        ENSURE(store_row_subscription_size(&subscription) == row.len);
    }
}

static void fuzz_row(unsigned table, struct bytes row)
{
    struct store_row_meta meta;
    const struct store_key number = store_key_number(5);
    const struct store_key subscription = store_key_subscription(5, 6, 7);
    switch (table) {
    case STORE_TABLE_META:
        (void)!store_row_meta_decode(bytes_of_string(STORE_META_KEY), row, &meta);
        break;
    case STORE_TABLE_SESSION:
        fuzz_session(bytes_of(number.data, number.len), row);
        break;
    case STORE_TABLE_SUBSCRIPTION:
        fuzz_subscription(bytes_of(subscription.data, subscription.len), row);
        break;
    default:
        fuzz_message(bytes_of(number.data, number.len), row);
        break;
    }
}

static struct bytes key_of(unsigned table, struct store_key *key)
{
    if (table == STORE_TABLE_META) {
        return bytes_of_string(STORE_META_KEY);
    }
    *key =
        table == STORE_TABLE_SUBSCRIPTION ? store_key_subscription(5, 6, 7) : store_key_number(5);
    return bytes_of(key->data, key->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > INPUT_MAX) {
        return 0;
    }
    static const enum store_table tables[] = {STORE_TABLE_META, STORE_TABLE_SESSION,
                                              STORE_TABLE_SUBSCRIPTION, STORE_TABLE_MESSAGE};
    enum store_table table = tables[data[0] % 4];
    /* In a block of its own, so that a read past its end is seen. */
    uint8_t *row = malloc(size + STORE_CHECKSUM_LEN);
    ENSURE(row != NULL);
    bytes_copy(row, bytes_of(data + 1, size - 1));
    fuzz_row(table, bytes_of(row, size - 1));
    free(row);
    size_t len = size - 1 + STORE_CHECKSUM_LEN;
    row = malloc(len);
    ENSURE(row != NULL);
    bytes_copy(row + STORE_CHECKSUM_LEN, bytes_of(data + 1, size - 1));
    struct store_key key;
    store_row_seal(table, key_of(table, &key), row, len);
    fuzz_row(table, bytes_of(row, len));
    free(row);
    return 0;
}
