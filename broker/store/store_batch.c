#include "store_batch.h"

#include "mem.h"

enum {
    CHUNK_MIN = 4096,
    CHUNK_MAX = 1 << 20,
    /* Chunks beyond this are given back when a batch is done: one large batch is not for ever. */
    KEPT_BYTES_MAX = 1 << 20,
    KEPT_BUCKETS = 1024,
    SPARSE = 16, /* buckets for each entry that are too many to clear each time */
};

struct store_batch_chunk {
    struct store_batch_chunk *next;
    size_t size, used;
    uint8_t data[];
};

static size_t align(size_t size)
{
    return (size + 15) & ~(size_t)15;
}

/* A chunk with `size` bytes free becomes the current one: a spare one, or a new one of twice the
 * size of the last. */
static bool add_chunk(struct store_batch *batch, size_t size)
{
    struct store_batch_chunk **link = &batch->spare;
    while (*link != NULL && (*link)->size < size) {
        link = &(*link)->next;
    }
    struct store_batch_chunk *chunk = *link;
    if (chunk != NULL) {
        *link = chunk->next;
    } else {
        size_t wanted = batch->chunks == NULL ? CHUNK_MIN : batch->chunks->size * 2;
        wanted = wanted > CHUNK_MAX ? CHUNK_MAX : wanted;
        wanted = wanted < size ? size : wanted;
        chunk = mem_alloc(sizeof *chunk + wanted);
        if (chunk == NULL) {
            return false;
        }
        chunk->size = wanted;
    }
    chunk->used = 0;
    chunk->next = batch->chunks;
    batch->chunks = chunk;
    return true;
}

/* Zeroed; NULL marks the batch failed. */
static void *take(struct store_batch *batch, size_t size)
{
    size = align(size);
    struct store_batch_chunk *chunk = batch->chunks;
    if (chunk == NULL || chunk->size - chunk->used < size) {
        if (!add_chunk(batch, size)) {
            batch->failed = true;
            return NULL;
        }
        chunk = batch->chunks;
    }
    void *block = chunk->data + chunk->used;
    chunk->used += size;
    memset(block, 0, size);
    return block;
}

/* A copy in the arena; what could not be copied is empty, and the batch failed. */
static struct bytes copy(struct store_batch *batch, struct bytes bytes)
{
    uint8_t *block = bytes.len == 0 ? NULL : take(batch, bytes.len);
    if (block == NULL) {
        return BYTES_EMPTY;
    }
    bytes_copy(block, bytes);
    return bytes_of(block, bytes.len);
}

static uint64_t mix(uint64_t value)
{
    value ^= value >> 33;
    value *= UINT64_C(0xff51afd7ed558ccd);
    value ^= value >> 33;
    value *= UINT64_C(0xc4ceb9fe1a85ec53);
    return value ^ value >> 33;
}

static void add_node(struct store_batch *batch, struct map *map, uint64_t hash,
                     struct map_node *node)
{
    if (map_add(map, hash, node) != STATUS_OK) {
        batch->failed = true;
    }
}

void store_batch_init(struct store_batch *batch, const struct hash_seed *seed, uint64_t ticket)
{
    *batch = (struct store_batch){.seed = *seed, .ticket = ticket};
    map_init(&batch->messages);
    map_init(&batch->parts);
    map_init(&batch->sessions);
    map_init(&batch->subscriptions);
}

static void release_messages(struct store_batch *batch)
{
    for (struct store_batch_message *m = batch->first_message; m != NULL; m = m->next) {
        message_release(m->message);
        m->message = NULL;
    }
    batch->first_message = batch->last_message = NULL;
    batch->first_session = batch->last_session = NULL;
}

static void free_chunks(struct store_batch_chunk *chunk)
{
    while (chunk != NULL) {
        struct store_batch_chunk *next = chunk->next;
        mem_free(chunk);
        chunk = next;
    }
}

void store_batch_fini(struct store_batch *batch)
{
    release_messages(batch);
    free_chunks(batch->chunks);
    free_chunks(batch->spare);
    batch->chunks = batch->spare = NULL;
    map_fini(&batch->messages);
    map_fini(&batch->parts);
    map_fini(&batch->sessions);
    map_fini(&batch->subscriptions);
}

static void clear_map(struct map *map)
{
    if (map->bucket_count > KEPT_BUCKETS && map->bucket_count > map->count * SPARSE) {
        map_fini(map);
    } else {
        map_clear(map);
    }
}

void store_batch_reset(struct store_batch *batch, uint64_t ticket)
{
    release_messages(batch);
    clear_map(&batch->messages);
    clear_map(&batch->parts);
    clear_map(&batch->sessions);
    clear_map(&batch->subscriptions);
    size_t kept = 0;
    for (struct store_batch_chunk *chunk = batch->spare; chunk != NULL; chunk = chunk->next) {
        kept += chunk->size;
    }
    while (batch->chunks != NULL) {
        struct store_batch_chunk *chunk = batch->chunks;
        batch->chunks = chunk->next;
        if (kept + chunk->size > KEPT_BYTES_MAX) {
            mem_free(chunk);
        } else {
            kept += chunk->size;
            chunk->next = batch->spare;
            batch->spare = chunk;
        }
    }
    batch->change_count = 0;
    batch->ticket = ticket;
    batch->failed = false;
}

static bool message_equal(const struct map_node *node, const void *key)
{
    return ((const struct store_batch_message *)node)->arrival == *(const uint64_t *)key;
}

static struct store_batch_message *message_of(struct store_batch *batch, uint64_t arrival)
{
    uint64_t hash = mix(arrival);
    struct map_node *node = map_find(&batch->messages, hash, message_equal, &arrival);
    if (node != NULL) {
        return (struct store_batch_message *)node;
    }
    struct store_batch_message *entry = take(batch, sizeof *entry);
    if (entry == NULL) {
        return NULL;
    }
    entry->arrival = arrival;
    add_node(batch, &batch->messages, hash, &entry->node);
    if (batch->last_message == NULL) {
        batch->first_message = entry;
    } else {
        batch->last_message->next = entry;
    }
    batch->last_message = entry;
    return entry;
}

struct part_key {
    uint64_t arrival, session;
    enum store_role role;
};

static bool part_equal(const struct map_node *node, const void *key)
{
    const struct store_batch_part *part = (const struct store_batch_part *)node;
    const struct part_key *wanted = key;
    return part->recipient.session == wanted->session && part->recipient.role == wanted->role &&
           part->message->arrival == wanted->arrival;
}

static uint64_t part_hash(uint64_t arrival, enum store_role role, uint64_t session)
{
    return mix(mix(arrival) + session * 4 + (uint64_t)role);
}

struct store_batch_part *store_batch_find_part(const struct store_batch *batch, uint64_t arrival,
                                               enum store_role role, uint64_t session)
{
    const struct part_key key = {arrival, session, role};
    return (struct store_batch_part *)map_find(&batch->parts, part_hash(arrival, role, session),
                                               part_equal, &key);
}

/* The part, made with STORE_CHANGE_NONE when there was none. */
static struct store_batch_part *part_of(struct store_batch *batch, uint64_t arrival,
                                        enum store_role role, uint64_t session)
{
    struct store_batch_part *part = store_batch_find_part(batch, arrival, role, session);
    if (part != NULL) {
        return part;
    }
    struct store_batch_message *entry = message_of(batch, arrival);
    part = entry == NULL ? NULL : take(batch, sizeof *part);
    if (part == NULL) {
        return NULL;
    }
    part->message = entry;
    part->recipient.session = session;
    part->recipient.role = (uint8_t)role;
    add_node(batch, &batch->parts, part_hash(arrival, role, session), &part->node);
    if (entry->last_part == NULL) {
        entry->first_part = part;
    } else {
        entry->last_part->next = part;
    }
    entry->last_part = part;
    return part;
}

/* Every change begins with this: false when it can do nothing any more. */
static bool begin(struct store_batch *batch)
{
    batch->change_count++;
    return !batch->failed;
}

static void put_part(struct store_batch *batch, uint64_t arrival,
                     const struct store_recipient *recipient)
{
    struct store_batch_part *part =
        part_of(batch, arrival, (enum store_role)recipient->role, recipient->session);
    if (part == NULL) {
        return;
    }
    if (part->change != STORE_CHANGE_PUT) {
        part->change = STORE_CHANGE_PUT;
        part->message->put_count++;
    }
    part->recipient = *recipient;
    struct bytes identifiers =
        copy(batch, bytes_of(recipient->identifiers,
                             recipient->identifier_count * sizeof *recipient->identifiers));
    part->recipient.identifiers = (const uint32_t *)(const void *)identifiers.data;
}

void store_batch_append(struct store_batch *batch, struct message *message,
                        uint64_t expires_unix_ms, const struct store_recipient *recipients,
                        size_t count)
{
    ENSURE(count != 0);
    if (!begin(batch)) {
        return;
    }
    struct store_batch_message *entry = message_of(batch, message->sequence);
    if (entry == NULL) {
        return;
    }
    ENSURE(!entry->appended);
    entry->appended = true;
    entry->message = message_hold(message);
    entry->expires_unix_ms = expires_unix_ms;
    for (size_t i = 0; i < count; i++) {
        put_part(batch, message->sequence, &recipients[i]);
    }
}

void store_batch_add(struct store_batch *batch, uint64_t arrival,
                     const struct store_recipient *recipient)
{
    if (begin(batch)) {
        put_part(batch, arrival, recipient);
    }
}

void store_batch_update(struct store_batch *batch, uint64_t arrival, enum store_role role,
                        uint64_t session, uint16_t packet_id, enum store_state state)
{
    struct store_batch_part *part = begin(batch) ? part_of(batch, arrival, role, session) : NULL;
    /* What is finished, or was never there, is not to come back by this. */
    if (part == NULL || part->change == STORE_CHANGE_DELETE ||
        (part->change == STORE_CHANGE_NONE && part->message->appended)) {
        return;
    }
    if (part->change == STORE_CHANGE_NONE) {
        part->change = STORE_CHANGE_UPDATE;
    }
    part->recipient.packet_id = packet_id;
    part->recipient.state = (uint8_t)state;
}

void store_batch_finish(struct store_batch *batch, uint64_t arrival, enum store_role role,
                        uint64_t session)
{
    struct store_batch_part *part = begin(batch) ? part_of(batch, arrival, role, session) : NULL;
    if (part == NULL) {
        return;
    }
    struct store_batch_message *entry = part->message;
    if (part->change == STORE_CHANGE_PUT) {
        entry->put_count--;
    }
    part->change = entry->appended ? STORE_CHANGE_NONE : STORE_CHANGE_DELETE;
    if (entry->appended && entry->put_count == 0) {
        message_release(entry->message);
        entry->message = NULL;
    }
}

static bool session_equal(const struct map_node *node, const void *key)
{
    return ((const struct store_batch_session *)node)->session.number == *(const uint64_t *)key;
}

static struct store_batch_session *session_of(struct store_batch *batch, uint64_t number)
{
    uint64_t hash = mix(number);
    struct map_node *node = map_find(&batch->sessions, hash, session_equal, &number);
    if (node != NULL) {
        return (struct store_batch_session *)node;
    }
    struct store_batch_session *entry = take(batch, sizeof *entry);
    if (entry == NULL) {
        return NULL;
    }
    entry->session.number = number;
    add_node(batch, &batch->sessions, hash, &entry->node);
    if (batch->last_session == NULL) {
        batch->first_session = entry;
    } else {
        batch->last_session->next = entry;
    }
    batch->last_session = entry;
    return entry;
}

void store_batch_put_session(struct store_batch *batch, const struct store_session *session)
{
    struct store_batch_session *entry = begin(batch) ? session_of(batch, session->number) : NULL;
    if (entry == NULL) {
        return;
    }
    struct bytes kept = entry->session.client_id;
    entry->is_put = true;
    entry->session = *session;
    entry->session.client_id =
        bytes_equal(kept, session->client_id) ? kept : copy(batch, session->client_id);
    if (session->will != NULL) {
        const struct store_will old = entry->will;
        entry->will = *session->will;
        entry->will.topic =
            bytes_equal(old.topic, entry->will.topic) ? old.topic : copy(batch, entry->will.topic);
        entry->will.properties = bytes_equal(old.properties, entry->will.properties)
                                     ? old.properties
                                     : copy(batch, entry->will.properties);
        entry->will.payload = bytes_equal(old.payload, entry->will.payload)
                                  ? old.payload
                                  : copy(batch, entry->will.payload);
        entry->session.will = &entry->will;
    }
}

void store_batch_delete_session(struct store_batch *batch, uint64_t number)
{
    struct store_batch_session *entry = begin(batch) ? session_of(batch, number) : NULL;
    if (entry == NULL) {
        return;
    }
    entry->is_deleted = true;
    entry->is_put = false;
    for (struct store_batch_subscription *s = entry->first_subscription; s != NULL; s = s->next) {
        s->change = STORE_CHANGE_NONE;
    }
}

struct subscription_key {
    uint64_t session;
    struct bytes filter;
};

static bool subscription_equal(const struct map_node *node, const void *key)
{
    const struct store_batch_subscription *entry = (const struct store_batch_subscription *)node;
    const struct subscription_key *wanted = key;
    return entry->subscription.session == wanted->session &&
           bytes_equal(entry->subscription.filter, wanted->filter);
}

static struct store_batch_subscription *subscription_of(struct store_batch *batch, uint64_t session,
                                                        struct bytes filter)
{
    const struct subscription_key key = {session, filter};
    uint64_t filter_hash = hash_bytes(&batch->seed, filter);
    uint64_t hash = mix(session) ^ filter_hash;
    struct map_node *node = map_find(&batch->subscriptions, hash, subscription_equal, &key);
    if (node != NULL) {
        return (struct store_batch_subscription *)node;
    }
    struct store_batch_session *owner = session_of(batch, session);
    struct store_batch_subscription *entry = owner == NULL ? NULL : take(batch, sizeof *entry);
    if (entry == NULL) {
        return NULL;
    }
    entry->subscription.session = session;
    entry->subscription.filter = copy(batch, filter);
    entry->filter_hash = filter_hash;
    entry->owner = owner;
    add_node(batch, &batch->subscriptions, hash, &entry->node);
    entry->next = owner->first_subscription;
    owner->first_subscription = entry;
    return entry;
}

void store_batch_put_subscription(struct store_batch *batch,
                                  const struct store_subscription *subscription)
{
    struct store_batch_subscription *entry =
        begin(batch) ? subscription_of(batch, subscription->session, subscription->filter) : NULL;
    if (entry == NULL) {
        return;
    }
    struct bytes filter = entry->subscription.filter;
    entry->subscription = *subscription;
    entry->subscription.filter = filter;
    entry->change = STORE_CHANGE_PUT;
}

void store_batch_delete_subscription(struct store_batch *batch, uint64_t session,
                                     struct bytes filter)
{
    struct store_batch_subscription *entry =
        begin(batch) ? subscription_of(batch, session, filter) : NULL;
    if (entry != NULL) {
        entry->change = entry->owner->is_deleted ? STORE_CHANGE_NONE : STORE_CHANGE_DELETE;
    }
}

bool store_batch_leaves_nothing(const struct store_batch *batch)
{
    if (batch->first_session != NULL) {
        return false;
    }
    for (const struct store_batch_message *m = batch->first_message; m != NULL; m = m->next) {
        if (!m->appended || m->message != NULL) {
            return false;
        }
    }
    return true;
}
