#include "channel.h"

#include <uv.h>

#include "mem.h"

enum { APART_BYTES = 64, RECORD_ALIGN = 16 };

struct record {
    uint32_t kind;
    uint32_t padding;
    uint64_t bytes; /* of what follows */
};

_Static_assert(sizeof(struct record) == RECORD_ALIGN, "records keep the alignment");

struct chunk {
    struct chunk *next;
    size_t len;      /* of ended records */
    size_t capacity; /* of data */
    size_t weight;   /* bytes of its records, and what they stand for elsewhere */
    struct record data[];
};

struct chunk_list {
    struct chunk *first, **last;
};

struct channel {
    /* The sender's. */
    struct chunk *current;
    struct chunk *pool;
    unsigned pool_count;
    struct chunk *spare; /* NULL: in use */
    size_t chunk_bytes, behind_bytes;
    uint64_t published; /* weight, ever; atomic */

    /* What each thread writes is apart from what the other does: no line of memory wanders. */
    char apart_1[APART_BYTES];
    uv_mutex_t mutex;
    struct chunk_list waiting;  /* published */
    struct chunk_list returned; /* read */
    bool sender_waits;          /* atomic */

    char apart_2[APART_BYTES];
    /* The receiver's. */
    struct chunk *reading;
    size_t at;              /* in reading */
    struct chunk_list done; /* read, not returned yet */
    uint64_t consumed;      /* weight, ever; atomic */
    size_t tell_bytes;
    void (*on_batch)(void *ctx);
    void *ctx;
    uv_async_t async;
};

static void list_init(struct chunk_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_append(struct chunk_list *list, struct chunk *first, struct chunk **last)
{
    *list->last = first;
    list->last = last;
}

static void free_list(struct chunk *chunk)
{
    while (chunk != NULL) {
        struct chunk *next = chunk->next;
        mem_free(chunk);
        chunk = next;
    }
}

/* Capacities are multiples of RECORD_ALIGN, and so are lengths. */
static struct chunk *make_chunk(size_t capacity)
{
    struct chunk *chunk = mem_alloc(sizeof *chunk + capacity);
    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->len = chunk->weight = 0;
        chunk->capacity = capacity;
    }
    return chunk;
}

static void on_async(uv_async_t *async)
{
    const struct channel *channel = async->data;
    channel->on_batch(channel->ctx);
}

enum status channel_create(const struct channel_options *options, struct channel **out)
{
    *out = NULL;
    struct channel *channel = mem_zalloc(sizeof *channel);
    if (channel == NULL) {
        return STATUS_NO_MEMORY;
    }
    channel->spare = make_chunk(CHANNEL_SPARE_BYTES);
    if (channel->spare == NULL || uv_mutex_init(&channel->mutex) != 0) {
        mem_free(channel->spare);
        mem_free(channel);
        return STATUS_NO_MEMORY;
    }
    if (uv_async_init(options->uv, &channel->async, on_async) != 0) {
        uv_mutex_destroy(&channel->mutex);
        mem_free(channel->spare);
        mem_free(channel);
        return STATUS_IO;
    }
    uv_unref((uv_handle_t *)&channel->async);
    channel->async.data = channel;
    channel->chunk_bytes = options->chunk_bytes;
    channel->behind_bytes = options->behind_bytes;
    channel->tell_bytes = options->behind_bytes / 2;
    channel->on_batch = options->on_batch;
    channel->ctx = options->ctx;
    list_init(&channel->waiting);
    list_init(&channel->returned);
    list_init(&channel->done);
    *out = channel;
    return STATUS_OK;
}

void channel_close(struct channel *channel)
{
    if (channel != NULL) {
        uv_close((uv_handle_t *)&channel->async, NULL);
    }
}

void channel_destroy(struct channel *channel)
{
    if (channel != NULL) {
        mem_free(channel->current);
        mem_free(channel->spare);
        free_list(channel->reading);
        free_list(channel->pool);
        free_list(channel->waiting.first);
        free_list(channel->returned.first);
        free_list(channel->done.first);
        uv_mutex_destroy(&channel->mutex);
        mem_free(channel);
    }
}

void channel_set_ref(struct channel *channel, bool ref)
{
    if (ref) {
        uv_ref((uv_handle_t *)&channel->async);
    } else {
        uv_unref((uv_handle_t *)&channel->async);
    }
}

static bool is_spare(const struct chunk *chunk)
{
    return chunk != NULL && chunk->capacity == CHANNEL_SPARE_BYTES;
}

/* What has come back from the receiver. */
static void keep(struct channel *channel, struct chunk *chunk)
{
    chunk->len = chunk->weight = 0;
    if (is_spare(chunk)) {
        channel->spare = chunk;
    } else if (chunk->capacity == channel->chunk_bytes && channel->pool_count < CHANNEL_POOL_MAX) {
        chunk->next = channel->pool;
        channel->pool = chunk;
        channel->pool_count++;
    } else {
        mem_free(chunk);
    }
}

static struct chunk *take_chunk(struct channel *channel, size_t bytes)
{
    struct chunk *chunk = channel->pool;
    if (bytes > channel->chunk_bytes) {
        return make_chunk(bytes);
    }
    if (chunk == NULL) {
        return make_chunk(channel->chunk_bytes);
    }
    channel->pool = chunk->next;
    channel->pool_count--;
    return chunk;
}

static size_t rounded(size_t bytes)
{
    return (bytes + RECORD_ALIGN - 1) & ~(size_t)(RECORD_ALIGN - 1);
}

/* Room for one record in the current chunk, or in a new one. False: no memory. */
static bool make_room(struct channel *channel, size_t wanted)
{
    if (channel->current != NULL && channel->current->capacity - channel->current->len < wanted) {
        channel_publish(channel);
    }
    if (channel->current == NULL) {
        channel->current = take_chunk(channel, wanted);
    }
    return channel->current != NULL;
}

static void *begin_record(struct chunk *chunk, uint32_t kind)
{
    struct record *record = &chunk->data[chunk->len / sizeof *record];
    *record = (struct record){.kind = kind};
    return record + 1;
}

void *channel_begin(struct channel *channel, uint32_t kind, size_t bytes)
{
    if (is_spare(channel->current) || !make_room(channel, sizeof(struct record) + rounded(bytes))) {
        return NULL;
    }
    return begin_record(channel->current, kind);
}

void *channel_begin_small(struct channel *channel, uint32_t kind, size_t bytes)
{
    ENSURE(bytes <= CHANNEL_SMALL_BYTES);
    if (!make_room(channel, sizeof(struct record) + rounded(bytes))) {
        ENSURE(channel->spare != NULL);
        channel->current = channel->spare;
        channel->spare = NULL;
    }
    return begin_record(channel->current, kind);
}

void *channel_current(struct channel *channel)
{
    return &channel->current->data[channel->current->len / sizeof(struct record)] + 1;
}

void channel_end(struct channel *channel, size_t bytes, size_t elsewhere_bytes)
{
    struct chunk *chunk = channel->current;
    size_t total = sizeof(struct record) + rounded(bytes);
    ENSURE(total <= chunk->capacity - chunk->len);
    chunk->data[chunk->len / sizeof(struct record)].bytes = bytes;
    chunk->len += total;
    chunk->weight += total + elsewhere_bytes;
}

void channel_publish(struct channel *channel)
{
    struct chunk *chunk = channel->current;
    if (chunk == NULL || chunk->len == 0) {
        return;
    }
    channel->current = NULL;
    chunk->next = NULL;
    __atomic_store_n(&channel->published, channel->published + chunk->weight, __ATOMIC_SEQ_CST);
    uv_mutex_lock(&channel->mutex);
    bool was_empty = channel->waiting.first == NULL;
    list_append(&channel->waiting, chunk, &chunk->next);
    struct chunk *returned = channel->returned.first;
    list_init(&channel->returned);
    uv_mutex_unlock(&channel->mutex);
    if (was_empty) {
        (void)uv_async_send(&channel->async);
    }
    while (returned != NULL) {
        struct chunk *next = returned->next;
        keep(channel, returned);
        returned = next;
    }
}

static uint64_t backlog(const struct channel *channel)
{
    return channel->published - __atomic_load_n(&channel->consumed, __ATOMIC_SEQ_CST);
}

/* The sender says that it waits and looks again; the receiver says what it has read and looks
 * whether somebody waits: one of the two sees what the other did. */
bool channel_is_behind(struct channel *channel)
{
    if (backlog(channel) < channel->behind_bytes) {
        return false;
    }
    __atomic_store_n(&channel->sender_waits, true, __ATOMIC_SEQ_CST);
    if (backlog(channel) > channel->tell_bytes) {
        return true;
    }
    __atomic_store_n(&channel->sender_waits, false, __ATOMIC_SEQ_CST);
    return false;
}

/* Gives back what was read and takes what waits. */
static void swap(struct channel *channel)
{
    uv_mutex_lock(&channel->mutex);
    if (channel->done.first != NULL) {
        list_append(&channel->returned, channel->done.first, channel->done.last);
    }
    channel->reading = channel->waiting.first;
    list_init(&channel->waiting);
    uv_mutex_unlock(&channel->mutex);
    list_init(&channel->done);
    channel->at = 0;
}

static void finish_reading(struct channel *channel)
{
    struct chunk *chunk = channel->reading;
    channel->reading = chunk->next;
    channel->at = 0;
    __atomic_store_n(&channel->consumed, channel->consumed + chunk->weight, __ATOMIC_SEQ_CST);
    chunk->next = NULL;
    list_append(&channel->done, chunk, &chunk->next);
}

void *channel_next(struct channel *channel, uint32_t *kind, size_t *bytes)
{
    while (channel->reading != NULL && channel->at == channel->reading->len) {
        finish_reading(channel);
    }
    if (channel->reading == NULL) {
        swap(channel);
        if (channel->reading == NULL) {
            return NULL;
        }
    }
    struct record *record = &channel->reading->data[channel->at / sizeof *record];
    channel->at += sizeof *record + rounded(record->bytes);
    *kind = record->kind;
    *bytes = record->bytes;
    return record + 1;
}

void channel_again(struct channel *channel)
{
    (void)uv_async_send(&channel->async);
}

bool channel_must_tell(struct channel *channel)
{
    if (!__atomic_load_n(&channel->sender_waits, __ATOMIC_SEQ_CST)) {
        return false;
    }
    if (__atomic_load_n(&channel->published, __ATOMIC_SEQ_CST) - channel->consumed >
        channel->tell_bytes) {
        return false;
    }
    __atomic_store_n(&channel->sender_waits, false, __ATOMIC_SEQ_CST);
    return true;
}
