/* BEGIN, COMMIT and ABORT: what is done in a transaction waits for its end. */
#include "stomp_client_state.h"

#include "mem.h"

struct action {
    struct action *next;
    struct stomp_publication publication; /* a SEND, unless its message is NULL */
    struct stomp_settlement settlement;   /* then an ACK or NACK */
};

struct stomp_transaction {
    struct stomp_transaction *next;
    struct action *first, *last;
    size_t name_len;
    uint8_t name[];
};

static struct stomp_transaction **find(struct stomp_client *client, struct bytes name)
{
    struct stomp_transaction **at = &client->transactions;
    while (*at != NULL && !bytes_equal(bytes_of((*at)->name, (*at)->name_len), name)) {
        at = &(*at)->next;
    }
    return at;
}

/* Takes the first action off and frees it; what it held goes to `out`. */
static bool take_action(struct stomp_client *client, struct stomp_transaction *transaction,
                        struct action *out)
{
    struct action *action = transaction->first;
    if (action == NULL) {
        return false;
    }
    *out = *action;
    transaction->first = action->next;
    client->action_count--;
    if (action->publication.message != NULL) {
        client->action_bytes -= message_size(action->publication.message);
    }
    mem_free(action);
    return true;
}

static void drop(struct stomp_client *client, struct stomp_transaction *transaction)
{
    struct action action;
    while (take_action(client, transaction, &action)) {
        message_release(action.publication.message);
    }
    mem_free(transaction);
}

void stomp_drop_transactions(struct stomp_client *client)
{
    while (client->transactions != NULL) {
        struct stomp_transaction *transaction = client->transactions;
        client->transactions = transaction->next;
        drop(client, transaction);
    }
}

/* The name that the frame gives. False: it has none, and the client was sent away. */
static bool read_name(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame,
                      struct bytes *name)
{
    if (stomp_frame_header(frame, "transaction", name) && name->len != 0) {
        return true;
    }
    stomp_fail(client, now_ms, MQTT_PROTOCOL_ERROR, "the transaction header is missing");
    return false;
}

void stomp_on_begin(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame)
{
    struct bytes name;
    if (!read_name(client, now_ms, frame, &name)) {
        return;
    }
    if (*find(client, name) != NULL) {
        stomp_fail(client, now_ms, MQTT_PROTOCOL_ERROR, "the transaction has begun already");
        return;
    }
    unsigned count = 0;
    for (const struct stomp_transaction *t = client->transactions; t != NULL; t = t->next) {
        count++;
    }
    if (count == STOMP_TRANSACTIONS_MAX) {
        stomp_fail(client, now_ms, MQTT_QUOTA_EXCEEDED, "too many transactions at a time");
        return;
    }
    struct stomp_transaction *transaction = mem_alloc(sizeof *transaction + name.len);
    if (transaction == NULL) {
        stomp_fail(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    *transaction = (struct stomp_transaction){.next = client->transactions, .name_len = name.len};
    bytes_copy(transaction->name, name);
    client->transactions = transaction;
    stomp_send_receipt(client, now_ms, client->receipt);
}

/* Takes the transaction of that name off the client. NULL: there is none, and the client was sent
 * away. */
static struct stomp_transaction *take(struct stomp_client *client, uint64_t now_ms,
                                      const struct stomp_frame *frame)
{
    struct bytes name;
    if (!read_name(client, now_ms, frame, &name)) {
        return NULL;
    }
    struct stomp_transaction **at = find(client, name);
    struct stomp_transaction *transaction = *at;
    if (transaction == NULL) {
        stomp_fail(client, now_ms, MQTT_PROTOCOL_ERROR, "there is no such transaction");
        return NULL;
    }
    *at = transaction->next;
    return transaction;
}

void stomp_on_commit(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame)
{
    struct stomp_transaction *transaction = take(client, now_ms, frame);
    if (transaction == NULL) {
        return;
    }
    struct action action;
    bool going = true;
    while (going && take_action(client, transaction, &action)) {
        if (action.publication.message == NULL) {
            stomp_settle(client, &action.settlement);
        } else {
            going = stomp_publish(client, now_ms, &action.publication);
            message_release(action.publication.message);
        }
    }
    drop(client, transaction);
    if (going) {
        stomp_send_receipt(client, now_ms, client->receipt);
    }
}

void stomp_on_abort(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame)
{
    struct stomp_transaction *transaction = take(client, now_ms, frame);
    if (transaction != NULL) {
        drop(client, transaction);
        stomp_send_receipt(client, now_ms, client->receipt);
    }
}

/* What keeps an action from being kept, in words; NULL: it was. */
static const char *keep(struct stomp_client *client, struct bytes name, const struct action *values)
{
    struct stomp_transaction *transaction = *find(client, name);
    const struct message *message = values->publication.message;
    size_t size = message == NULL ? 0 : message_size(message);
    if (transaction == NULL) {
        return "there is no such transaction";
    }
    if (client->action_count == STOMP_ACTIONS_MAX ||
        client->action_bytes + size > STOMP_ACTION_BYTES_MAX) {
        return "the transaction is too large";
    }
    struct action *action = mem_alloc(sizeof *action);
    if (action == NULL) {
        return "out of memory";
    }
    *action = *values;
    if (transaction->first == NULL) {
        transaction->first = action;
    } else {
        transaction->last->next = action;
    }
    transaction->last = action;
    client->action_count++;
    client->action_bytes += size;
    return NULL;
}

bool stomp_keep_publication(struct stomp_client *client, uint64_t now_ms, struct bytes name,
                            const struct stomp_publication *publication)
{
    struct action action = {.publication = *publication};
    const char *wrong = keep(client, name, &action);
    if (wrong != NULL) {
        message_release(publication->message);
        stomp_fail(client, now_ms, MQTT_QUOTA_EXCEEDED, wrong);
    }
    return wrong == NULL;
}

bool stomp_keep_settlement(struct stomp_client *client, uint64_t now_ms, struct bytes name,
                           const struct stomp_settlement *settlement)
{
    struct action action = {.settlement = *settlement};
    const char *wrong = keep(client, name, &action);
    if (wrong != NULL) {
        stomp_fail(client, now_ms, MQTT_QUOTA_EXCEEDED, wrong);
    }
    return wrong == NULL;
}
