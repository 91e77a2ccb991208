#include "memory_store.h"

#include "map.h"
#include "mem.h"
#include "store_batch.h"

struct link {
    struct link *previous, *next;
};

struct message_row {
    struct map_node node;
    struct link link; /* by arrival */
    uint64_t arrival;
    uint64_t expires_unix_ms;
    struct message *message;
    struct store_recipient *recipients;
    size_t count, capacity;
    bool damaged;
};

struct subscription_row {
    struct link link; /* of its session */
    struct store_subscription subscription;
    uint8_t filter[];
};

struct session_row {
    struct map_node node;
    struct link link; /* in the order of creation */
    struct link subscriptions;
    struct store_session session;
    struct store_will will;
    uint8_t *block; /* what session and will point to */
};

struct fetch {
    struct fetch *next;
    uint64_t session;
    size_t count;
    uint64_t arrivals[];
};

struct memory_store {
    struct store base;
    struct store_events events;
    struct store_batch batches[2];
    struct store_batch *filling;
    struct store_batch *writing; /* NULL: none */
    bool flushed;                /* the filling batch, while another was being written */
    bool full, failed;
    const char *failed_why; /* to be reported */
    struct map messages, sessions;
    struct link message_list, session_list;
    struct fetch *first_fetch, *last_fetch;
};

#define ROW_OF(link_at, type) ((type *)(void *)((uint8_t *)(link_at)-offsetof(type, link)))

static const struct hash_seed seed = {1, 2};

static struct memory_store *of(struct store *store)
{
    return (struct memory_store *)store;
}

static void link_init(struct link *list)
{
    list->previous = list->next = list;
}

static void link_before(struct link *at, struct link *link)
{
    link->next = at;
    link->previous = at->previous;
    at->previous->next = link;
    at->previous = link;
}

static void unlink_row(struct link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
}

static bool message_equal(const struct map_node *node, const void *key)
{
    return ((const struct message_row *)node)->arrival == *(const uint64_t *)key;
}

static bool session_equal(const struct map_node *node, const void *key)
{
    return ((const struct session_row *)node)->session.number == *(const uint64_t *)key;
}

static struct message_row *find_message(const struct memory_store *store, uint64_t arrival)
{
    return (struct message_row *)map_find(&store->messages, arrival, message_equal, &arrival);
}

static struct session_row *find_session(const struct memory_store *store, uint64_t number)
{
    return (struct session_row *)map_find(&store->sessions, number, session_equal, &number);
}

static struct store_recipient *find_recipient(const struct message_row *row, uint8_t role,
                                              uint64_t session)
{
    for (size_t i = 0; i < row->count; i++) {
        if (row->recipients[i].role == role && row->recipients[i].session == session) {
            return &row->recipients[i];
        }
    }
    return NULL;
}

static void free_recipients(struct message_row *row)
{
    for (size_t i = 0; i < row->count; i++) {
        mem_free((void *)(uintptr_t)row->recipients[i].identifiers);
    }
    mem_free(row->recipients);
}

static void delete_message(struct memory_store *store, struct message_row *row)
{
    map_remove(&store->messages, &row->node);
    unlink_row(&row->link);
    free_recipients(row);
    message_release(row->message);
    mem_free(row);
}

static void delete_subscription(struct subscription_row *row)
{
    unlink_row(&row->link);
    mem_free(row);
}

static void delete_subscriptions(struct session_row *row)
{
    while (row->subscriptions.next != &row->subscriptions) {
        delete_subscription(ROW_OF(row->subscriptions.next, struct subscription_row));
    }
}

static void delete_session(struct memory_store *store, struct session_row *row)
{
    delete_subscriptions(row);
    map_remove(&store->sessions, &row->node);
    unlink_row(&row->link);
    mem_free(row->block);
    mem_free(row);
}

/* Sets `to` from `from` with a copy of the identifiers; on failure it is unchanged. */
static enum status copy_recipient(struct store_recipient *to, const struct store_recipient *from)
{
    uint32_t *identifiers = NULL;
    if (from->identifier_count != 0) {
        size_t size = from->identifier_count * sizeof *identifiers;
        identifiers = mem_alloc(size);
        if (identifiers == NULL) {
            return STATUS_NO_MEMORY;
        }
        memcpy(identifiers, from->identifiers, size);
    }
    mem_free((void *)(uintptr_t)to->identifiers);
    *to = *from;
    to->identifiers = identifiers;
    return STATUS_OK;
}

static enum status put_recipient(struct message_row *row, const struct store_recipient *recipient)
{
    struct store_recipient *place = find_recipient(row, recipient->role, recipient->session);
    if (place != NULL) {
        return copy_recipient(place, recipient);
    }
    if (row->count == row->capacity) {
        size_t capacity = row->capacity == 0 ? 2 : row->capacity * 2;
        void *grown = mem_realloc(row->recipients, capacity * sizeof *row->recipients);
        if (grown == NULL) {
            return STATUS_NO_MEMORY;
        }
        row->recipients = grown;
        row->capacity = capacity;
    }
    row->recipients[row->count] = (struct store_recipient){.identifiers = NULL};
    enum status status = copy_recipient(&row->recipients[row->count], recipient);
    row->count += status == STATUS_OK;
    return status;
}

static enum status add_message(struct memory_store *store, const struct store_batch_message *entry,
                               struct message_row **out)
{
    struct message_row *row = mem_zalloc(sizeof *row);
    if (row == NULL || map_add(&store->messages, entry->arrival, &row->node) != STATUS_OK) {
        mem_free(row);
        return STATUS_NO_MEMORY;
    }
    row->arrival = entry->arrival;
    row->expires_unix_ms = entry->expires_unix_ms;
    row->message = message_hold(entry->message);
    link_before(&store->message_list, &row->link);
    *out = row;
    return STATUS_OK;
}

static enum status apply_part(struct message_row *row, const struct store_batch_part *part)
{
    struct store_recipient *found =
        find_recipient(row, part->recipient.role, part->recipient.session);
    if (part->change == STORE_CHANGE_PUT) {
        return put_recipient(row, &part->recipient);
    }
    if (found == NULL) {
        return STATUS_OK;
    }
    if (part->change == STORE_CHANGE_UPDATE) {
        found->packet_id = part->recipient.packet_id;
        found->state = part->recipient.state;
    } else if (part->change == STORE_CHANGE_DELETE) {
        mem_free((void *)(uintptr_t)found->identifiers);
        memmove(found, found + 1,
                (size_t)(row->recipients + row->count - (found + 1)) * sizeof *found);
        row->count--;
    }
    return STATUS_OK;
}

static enum status apply_message(struct memory_store *store,
                                 const struct store_batch_message *entry)
{
    enum status status = STATUS_OK;
    struct message_row *row = find_message(store, entry->arrival);
    if (entry->appended) {
        if (entry->message == NULL) {
            return STATUS_OK;
        }
        ENSURE(row == NULL);
        status = add_message(store, entry, &row);
    }
    if (row == NULL) {
        return status;
    }
    for (const struct store_batch_part *part = entry->first_part;
         part != NULL && status == STATUS_OK; part = part->next) {
        status = apply_part(row, part);
    }
    if (status == STATUS_OK && row->count == 0) {
        delete_message(store, row);
    }
    return status;
}

static struct bytes place(struct writer *writer, struct bytes bytes)
{
    const uint8_t *at = writer->at;
    writer_bytes(writer, bytes);
    return bytes_of(at, bytes.len);
}

static enum status put_session(struct memory_store *store, const struct store_session *session)
{
    static const struct store_will none;
    const struct store_will *will = session->will == NULL ? &none : session->will;
    size_t size =
        session->client_id.len + will->topic.len + will->properties.len + will->payload.len;
    struct session_row *row = find_session(store, session->number);
    uint8_t *block = mem_alloc(size);
    if (block == NULL) {
        return STATUS_NO_MEMORY;
    }
    if (row == NULL) {
        row = mem_zalloc(sizeof *row);
        if (row == NULL || map_add(&store->sessions, session->number, &row->node) != STATUS_OK) {
            mem_free(row);
            mem_free(block);
            return STATUS_NO_MEMORY;
        }
        link_init(&row->subscriptions);
        link_before(&store->session_list, &row->link);
    }
    struct writer writer = writer_of(block, size);
    struct bytes client_id = place(&writer, session->client_id);
    mem_free(row->block);
    row->block = block;
    row->session = *session;
    row->session.client_id = client_id;
    row->will = *will;
    row->will.topic = place(&writer, will->topic);
    row->will.properties = place(&writer, will->properties);
    row->will.payload = place(&writer, will->payload);
    row->session.will = session->will == NULL ? NULL : &row->will;
    return STATUS_OK;
}

static enum status put_subscription(struct session_row *session,
                                    const struct store_subscription *subscription)
{
    struct subscription_row *row = mem_alloc(sizeof *row + subscription->filter.len);
    if (row == NULL) {
        return STATUS_NO_MEMORY;
    }
    row->subscription = *subscription;
    bytes_copy(row->filter, subscription->filter);
    row->subscription.filter = bytes_of(row->filter, subscription->filter.len);
    link_before(&session->subscriptions, &row->link);
    return STATUS_OK;
}

static enum status apply_subscription(struct session_row *session,
                                      const struct store_batch_subscription *entry)
{
    if (entry->change == STORE_CHANGE_NONE) {
        return STATUS_OK;
    }
    for (struct link *at = session->subscriptions.next; at != &session->subscriptions;
         at = at->next) {
        struct subscription_row *row = ROW_OF(at, struct subscription_row);
        if (bytes_equal(row->subscription.filter, entry->subscription.filter)) {
            delete_subscription(row);
            break;
        }
    }
    return entry->change == STORE_CHANGE_PUT ? put_subscription(session, &entry->subscription)
                                             : STATUS_OK;
}

static enum status apply_session(struct memory_store *store,
                                 const struct store_batch_session *entry)
{
    enum status status = STATUS_OK;
    struct session_row *row = find_session(store, entry->session.number);
    if (entry->is_deleted && row != NULL) {
        delete_session(store, row);
    }
    if (entry->is_put) {
        status = put_session(store, &entry->session);
    }
    row = find_session(store, entry->session.number);
    for (const struct store_batch_subscription *s = entry->first_subscription;
         row != NULL && s != NULL && status == STATUS_OK; s = s->next) {
        status = apply_subscription(row, s);
    }
    return status;
}

static enum status apply(struct memory_store *store, const struct store_batch *batch)
{
    enum status status = batch->failed ? STATUS_NO_MEMORY : STATUS_OK;
    for (const struct store_batch_session *s = batch->first_session;
         s != NULL && status == STATUS_OK; s = s->next) {
        status = apply_session(store, s);
    }
    for (const struct store_batch_message *m = batch->first_message;
         m != NULL && status == STATUS_OK; m = m->next) {
        status = apply_message(store, m);
    }
    return status;
}

static void set_events(struct store *base, const struct store_events *events)
{
    of(base)->events = *events;
}

/* The body is shown only where a retained message needs it, as store.h says. */
static enum status load_message(const struct message_row *row, const struct store_loader *loader)
{
    const struct message *message = row->message;
    const struct store_message shown = {
        .arrival = row->arrival,
        .expires_unix_ms = row->expires_unix_ms,
        .publisher = message->publisher_id,
        .qos = message->qos,
        .retain = message->retain,
        .topic = message_topic(message),
        .properties_len = message->properties_len,
        .payload_len = message->payload_len,
    };
    bool retained = find_recipient(row, STORE_RETAINED, 0) != NULL;
    return loader->on_message(
        loader->ctx, &shown, retained ? message_properties(message) : BYTES_EMPTY,
        retained ? message_payload(message) : BYTES_EMPTY, row->recipients, row->count);
}

static enum status load_subscriptions(struct memory_store *store, const struct store_loader *loader)
{
    enum status status = STATUS_OK;
    for (struct link *at = store->session_list.next; at != &store->session_list; at = at->next) {
        struct session_row *session = ROW_OF(at, struct session_row);
        for (struct link *sub = session->subscriptions.next;
             sub != &session->subscriptions && status == STATUS_OK; sub = sub->next) {
            status = loader->on_subscription(loader->ctx,
                                             &ROW_OF(sub, struct subscription_row)->subscription);
        }
    }
    return status;
}

static enum status load(struct store *base, const struct store_loader *loader)
{
    struct memory_store *store = of(base);
    enum status status = STATUS_OK;
    for (struct link *at = store->session_list.next;
         at != &store->session_list && status == STATUS_OK; at = at->next) {
        status = loader->on_session(loader->ctx, &ROW_OF(at, struct session_row)->session);
    }
    if (status == STATUS_OK) {
        status = load_subscriptions(store, loader);
    }
    for (struct link *at = store->message_list.next;
         at != &store->message_list && status == STATUS_OK; at = at->next) {
        const struct message_row *row = ROW_OF(at, struct message_row);
        status = row->damaged ? STATUS_OK : load_message(row, loader);
    }
    return status;
}

static void append(struct store *base, struct message *message, uint64_t expires_unix_ms,
                   const struct store_recipient *recipients, size_t count)
{
    store_batch_append(of(base)->filling, message, expires_unix_ms, recipients, count);
}

static void add(struct store *base, uint64_t arrival, const struct store_recipient *recipient)
{
    store_batch_add(of(base)->filling, arrival, recipient);
}

static void update(struct store *base, uint64_t arrival, enum store_role role, uint64_t session,
                   uint16_t packet_id, enum store_state state)
{
    store_batch_update(of(base)->filling, arrival, role, session, packet_id, state);
}

static void finish(struct store *base, uint64_t arrival, enum store_role role, uint64_t session)
{
    store_batch_finish(of(base)->filling, arrival, role, session);
}

static void change_session(struct store *base, const struct store_session *session)
{
    store_batch_put_session(of(base)->filling, session);
}

static void remove_session(struct store *base, uint64_t number)
{
    store_batch_delete_session(of(base)->filling, number);
}

static void change_subscription(struct store *base, const struct store_subscription *subscription)
{
    store_batch_put_subscription(of(base)->filling, subscription);
}

static void remove_subscription(struct store *base, uint64_t session, struct bytes filter)
{
    store_batch_delete_subscription(of(base)->filling, session, filter);
}

static void fetch(struct store *base, uint64_t session, const uint64_t *arrivals, size_t count)
{
    struct memory_store *store = of(base);
    ENSURE(count != 0 && count <= STORE_FETCH_MAX);
    struct fetch *wanted = mem_alloc(sizeof *wanted + count * sizeof *arrivals);
    if (wanted == NULL) {
        store->failed_why = "no memory to read messages back";
        return;
    }
    *wanted = (struct fetch){.session = session, .count = count};
    memcpy(wanted->arrivals, arrivals, count * sizeof *arrivals);
    if (store->last_fetch == NULL) {
        store->first_fetch = wanted;
    } else {
        store->last_fetch->next = wanted;
    }
    store->last_fetch = wanted;
}

static uint64_t ticket(const struct store *base)
{
    return ((const struct memory_store *)base)->filling->ticket;
}

static bool is_full(const struct store *base)
{
    return ((const struct memory_store *)base)->full;
}

/* The filling batch is handed on; the other one, empty, takes its place. */
static void hand_on(struct memory_store *store)
{
    store->writing = store->filling;
    store->filling = &store->batches[store->filling == &store->batches[0]];
    store_batch_reset(store->filling, store->writing->ticket + 1);
    store->flushed = false;
}

static void flush(struct store *base)
{
    struct memory_store *store = of(base);
    if (store->filling->change_count == 0) {
        return;
    }
    store->flushed = true;
    if (store->writing == NULL) {
        hand_on(store);
    }
}

static void forget(struct memory_store *store)
{
    store_batch_fini(&store->batches[0]);
    store_batch_fini(&store->batches[1]);
    while (store->first_fetch != NULL) {
        struct fetch *next = store->first_fetch->next;
        mem_free(store->first_fetch);
        store->first_fetch = next;
    }
    store->last_fetch = NULL;
}

static void destroy(struct store *base)
{
    struct memory_store *store = of(base);
    forget(store);
    while (store->message_list.next != &store->message_list) {
        delete_message(store, ROW_OF(store->message_list.next, struct message_row));
    }
    while (store->session_list.next != &store->session_list) {
        delete_session(store, ROW_OF(store->session_list.next, struct session_row));
    }
    map_fini(&store->messages);
    map_fini(&store->sessions);
    mem_free(store);
}

static const struct store_ops ops = {
    .set_events = set_events,
    .load = load,
    .append = append,
    .add = add,
    .update = update,
    .finish = finish,
    .put_session = change_session,
    .delete_session = remove_session,
    .put_subscription = change_subscription,
    .delete_subscription = remove_subscription,
    .fetch = fetch,
    .ticket = ticket,
    .is_full = is_full,
    .flush = flush,
    .destroy = destroy,
};

enum status memory_store_create(struct store **out)
{
    *out = NULL;
    struct memory_store *store = mem_zalloc(sizeof *store);
    if (store == NULL) {
        return STATUS_NO_MEMORY;
    }
    store->base.ops = &ops;
    map_init(&store->messages);
    map_init(&store->sessions);
    link_init(&store->message_list);
    link_init(&store->session_list);
    memory_store_crash(&store->base);
    *out = &store->base;
    return STATUS_OK;
}

void memory_store_crash(struct store *base)
{
    struct memory_store *store = of(base);
    forget(store);
    store_batch_init(&store->batches[0], &seed, 1);
    store_batch_init(&store->batches[1], &seed, 1);
    store->filling = &store->batches[0];
    store->writing = NULL;
    store->flushed = store->full = store->failed = false;
    store->failed_why = NULL;
    store->events = (struct store_events){.ctx = NULL};
}

void memory_store_fail(struct store *base, const char *why)
{
    struct memory_store *store = of(base);
    if (!store->failed) {
        store->failed = true;
        store->events.failed(store->events.ctx, why);
    }
}

bool memory_store_commit(struct store *base)
{
    struct memory_store *store = of(base);
    if (store->failed_why != NULL) {
        memory_store_fail(base, store->failed_why);
    }
    struct store_batch *batch = store->writing;
    if (batch == NULL || store->full || store->failed) {
        return false;
    }
    if (apply(store, batch) != STATUS_OK) {
        memory_store_fail(base, "no memory for a batch of changes");
        return false;
    }
    uint64_t committed = batch->ticket;
    store->writing = NULL;
    store_batch_reset(batch, committed);
    if (store->flushed) {
        hand_on(store);
    }
    store->events.committed(store->events.ctx, committed);
    return true;
}

void memory_store_commit_all(struct store *base)
{
    do {
        flush(base);
    } while (memory_store_commit(base));
}

static struct store_fetched answer_one(const struct memory_store *store, uint64_t session,
                                       uint64_t arrival)
{
    struct store_fetched item = {.arrival = arrival};
    const struct message_row *row = find_message(store, arrival);
    const struct store_recipient *recipient =
        row == NULL || row->damaged ? NULL : find_recipient(row, STORE_QUEUED, session);
    if (recipient == NULL && row != NULL && !row->damaged) {
        recipient = find_recipient(row, STORE_SECOND, session);
    }
    if (recipient == NULL) {
        return item;
    }
    const struct message *stored = row->message;
    if (message_create(message_topic(stored), stored->properties_len, message_payload(stored),
                       &item.message) == STATUS_OK) {
        bytes_copy(message_properties_area(item.message), message_properties(stored));
        item.message->sequence = arrival;
        item.message->expires_at_ms = row->expires_unix_ms;
        item.message->publisher_id = stored->publisher_id;
        item.message->qos = stored->qos;
        item.message->retain = stored->retain;
        item.recipient = *recipient;
    }
    return item;
}

bool memory_store_answer(struct store *base)
{
    struct memory_store *store = of(base);
    struct fetch *wanted = store->first_fetch;
    if (wanted == NULL) {
        return false;
    }
    store->first_fetch = wanted->next;
    if (store->first_fetch == NULL) {
        store->last_fetch = NULL;
    }
    struct store_fetched items[STORE_FETCH_MAX];
    for (size_t i = 0; i < wanted->count; i++) {
        items[i] = answer_one(store, wanted->session, wanted->arrivals[i]);
    }
    store->events.fetched(store->events.ctx, wanted->session, items, wanted->count);
    mem_free(wanted);
    return true;
}

void memory_store_set_full(struct store *base, bool full)
{
    of(base)->full = full;
}

bool memory_store_damage(struct store *base, uint64_t arrival)
{
    struct message_row *row = find_message(of(base), arrival);
    if (row != NULL) {
        row->damaged = true;
    }
    return row != NULL;
}

struct memory_store_counts memory_store_count(const struct store *base)
{
    const struct memory_store *store = (const struct memory_store *)base;
    struct memory_store_counts counts = {.messages = store->messages.count,
                                         .sessions = store->sessions.count};
    for (struct link *at = store->message_list.next; at != &store->message_list; at = at->next) {
        counts.recipients += ROW_OF(at, struct message_row)->count;
    }
    for (struct link *at = store->session_list.next; at != &store->session_list; at = at->next) {
        struct session_row *session = ROW_OF(at, struct session_row);
        for (struct link *sub = session->subscriptions.next; sub != &session->subscriptions;
             sub = sub->next) {
            counts.subscriptions++;
        }
    }
    return counts;
}
