/*
 * After a start: the core takes over what the store has.
 *
 * While the store is read the core has none, so that nothing is told to it twice; what has to
 * change because of the restart is gathered and done in the end. Messages stay in the store, and
 * queues get their places (SLOT_STORED), but retained messages come into memory.
 */
#include <stdlib.h>

#include "core_state.h"
#include "mem.h"

/* A slot that had a packet identifier. */
struct inflight {
    struct session *session;
    struct slot slot; /* with its packet_id */
};

/* A part in a message whose session is no more. */
struct orphan {
    uint64_t arrival;
    uint64_t session;
    enum store_role role;
};

/* A subscription whose retained messages have not all been sent. */
struct scan {
    struct session *session;
    const struct session_subscription *subscription;
};

/* An array that grows. */
struct list {
    void *items;
    size_t count, capacity;
};

struct recovery {
    struct core *core;
    uint64_t now_ms;
    struct list inflight;
    struct list orphans;
    struct list scans;
    struct list connected;       /* struct session *: their clients went with the process */
    struct share_group **groups; /* by number */
    size_t group_count;
};

/* Room for one more item, or NULL. */
static void *list_add(struct list *list, size_t item_size)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        void *items = mem_realloc(list->items, capacity * item_size);
        if (items == NULL) {
            return NULL;
        }
        list->items = items;
        list->capacity = capacity;
    }
    return (char *)list->items + item_size * list->count++;
}

/* A time of the store on the core's clock; what has passed is 0. */
static uint64_t from_unix(const struct core *core, uint64_t unix_ms)
{
    if (unix_ms == STORE_TIME_NEVER) {
        return TIMER_NEVER;
    }
    return unix_ms > core->unix_offset_ms ? unix_ms - core->unix_offset_ms : 0;
}

static enum status make_message(struct bytes topic, struct bytes properties, struct bytes payload,
                                struct message **out)
{
    enum status status = message_create(topic, properties.len, payload, out);
    if (status == STATUS_OK) {
        bytes_copy(message_properties_area(*out), properties);
    }
    return status;
}

static enum status load_will(const struct recovery *recovery, struct session *session,
                             const struct store_session *stored)
{
    const struct store_will *from = stored->will;
    struct session_will *will = mem_zalloc(sizeof *will);
    if (will == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status =
        make_message(from->topic, from->properties, from->payload, &will->will.message);
    if (status != STATUS_OK) {
        mem_free(will);
        return status;
    }
    will->will.message->qos = from->qos;
    will->will.message->retain = from->retain;
    will->will.delay_s = from->delay_s;
    will->will.has_expiry = from->has_expiry;
    will->will.expiry_s = from->expiry_s;
    will->due_at_ms = stored->connected ? recovery->now_ms + UINT64_C(1000) * from->delay_s
                                        : from_unix(recovery->core, from->due_unix_ms);
    session->absence->will = will;
    return STATUS_OK;
}

static enum status on_session(void *ctx, const struct store_session *stored)
{
    struct recovery *recovery = ctx;
    struct core *core = recovery->core;
    if (stored->client_id.len == 0 || stored->client_id.len > UINT16_MAX) {
        return STATUS_INVALID;
    }
    struct session *session = session_create(core, stored->client_id, stored->number);
    if (session == NULL || session_allow_absence(session) != STATUS_OK ||
        durable_make(core, session) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    struct session_absence *absence = session->absence;
    absence->expiry_s = stored->expiry_s;
    absence->expires_at_ms = from_unix(core, stored->expires_unix_ms);
    if (stored->connected) {
        absence->expires_at_ms = stored->expiry_s == CORE_SESSION_NEVER_EXPIRES
                                     ? TIMER_NEVER
                                     : recovery->now_ms + UINT64_C(1000) * stored->expiry_s;
        struct session **place = list_add(&recovery->connected, sizeof(struct session *));
        if (place == NULL) {
            return STATUS_NO_MEMORY;
        }
        *place = session;
    }
    return stored->will == NULL ? STATUS_OK : load_will(recovery, session, stored);
}

static enum status on_subscription(void *ctx, const struct store_subscription *stored)
{
    struct recovery *recovery = ctx;
    struct core *core = recovery->core;
    struct session *session = durable_find(core, stored->session);
    if (session == NULL) {
        return STATUS_OK;
    }
    struct core_subscribe subscribe = {
        .filter = stored->filter,
        .identifier = stored->identifier,
        .qos = stored->qos,
        .no_local = stored->no_local,
        .retain_as_published = stored->retain_as_published,
        .retain_handling = 2,
    };
    enum mqtt_reason reason = core_subscribe(core, recovery->now_ms, session, &subscribe);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        return reason == MQTT_UNSPECIFIED_ERROR ? STATUS_NO_MEMORY : STATUS_INVALID;
    }
    const struct session_subscription *subscription = session->subscriptions; /* the newest */
    if (subscription->member != NULL && stored->group != 0) {
        subscription->member->group->number = stored->group;
        if (core->group_number < stored->group) {
            core->group_number = stored->group;
        }
    }
    if (stored->scan_pending) {
        struct scan *scan = list_add(&recovery->scans, sizeof *scan);
        if (scan == NULL) {
            return STATUS_NO_MEMORY;
        }
        *scan = (struct scan){session, subscription};
    }
    return STATUS_OK;
}

static void list_group(void *ctx, struct map_node *node)
{
    struct recovery *recovery = ctx;
    recovery->groups[recovery->group_count++] = (struct share_group *)(void *)node;
}

static int compare_groups(const void *a, const void *b)
{
    const struct share_group *left = *(struct share_group *const *)a;
    const struct share_group *right = *(struct share_group *const *)b;
    return (left->number > right->number) - (left->number < right->number);
}

/* Subscriptions have all come before the first message. */
static enum status index_groups(struct recovery *recovery)
{
    struct core *core = recovery->core;
    if (recovery->groups != NULL || core->groups.count == 0) {
        return STATUS_OK;
    }
    recovery->groups = mem_alloc(core->groups.count * sizeof(struct share_group *));
    if (recovery->groups == NULL) {
        return STATUS_NO_MEMORY;
    }
    map_each(&core->groups, list_group, recovery);
    qsort(recovery->groups, recovery->group_count, sizeof(struct share_group *), compare_groups);
    return STATUS_OK;
}

/* The group that the slot came through, or NULL when it has no members any more. */
static struct share_group *find_group(const struct recovery *recovery,
                                      const struct session *session, uint32_t number)
{
    struct share_group *queue = queue_of_anchor(session);
    if (queue != NULL || number == 0) {
        return queue;
    }
    struct share_group wanted = {.number = number};
    const struct share_group *key = &wanted;
    struct share_group **found = recovery->group_count == 0
                                     ? NULL
                                     : bsearch(&key, recovery->groups, recovery->group_count,
                                               sizeof(struct share_group *), compare_groups);
    return found == NULL ? NULL : *found;
}

static size_t memory_of(const struct store_message *message)
{
    return offsetof(struct message, data) + message->topic.len + message->properties_len +
           message->payload_len;
}

static struct slot slot_of(const struct recovery *recovery, const struct session *session,
                           const struct store_message *message,
                           const struct store_recipient *recipient)
{
    struct share_group *group = find_group(recovery, session, recipient->group);
    struct slot slot = {
        .arrival = message->arrival,
        .stored_bytes = (uint32_t)memory_of(message),
        .packet_id = recipient->packet_id,
        .kind = SLOT_STORED,
        .is_stored = 1,
        .is_second = recipient->role == STORE_SECOND,
        .qos = recipient->qos & 3U,
        .retain = recipient->retain,
        .sent_before = recipient->packet_id != 0,
    };
    if (recipient->state == STORE_RELEASED) {
        slot.kind = SLOT_PUBREL;
        slot.identifier = 0;
    }
    if (group != NULL) {
        slot.is_shared = 1;
        slot.group = group;
    }
    return slot;
}

static void count_slot(struct core *core, struct session *session, const struct slot *slot)
{
    core->stats.queued_messages++;
    if (slot->is_shared) {
        slot->group->references++;
        session->shared_slots++;
    }
}

static enum status load_queued(struct recovery *recovery, struct session *session,
                               const struct store_message *message,
                               const struct store_recipient *recipient)
{
    struct core *core = recovery->core;
    struct slot slot = slot_of(recovery, session, message, recipient);
    if (slot.packet_id != 0) {
        struct inflight *inflight = list_add(&recovery->inflight, sizeof *inflight);
        if (inflight == NULL) {
            return STATUS_NO_MEMORY;
        }
        *inflight = (struct inflight){session, slot};
        return STATUS_OK;
    }
    struct session_backlog *backlog = session_make_backlog(session);
    if (backlog == NULL || !stored_run_push(&backlog->run, &slot)) {
        return STATUS_NO_MEMORY;
    }
    session->queued_bytes += slot.stored_bytes;
    core->stats.queued_bytes += slot.stored_bytes;
    count_slot(core, session, &slot);
    return STATUS_OK;
}

static enum status load_orphan(struct recovery *recovery, uint64_t arrival,
                               const struct store_recipient *recipient)
{
    struct orphan *orphan = list_add(&recovery->orphans, sizeof *orphan);
    if (orphan == NULL) {
        return STATUS_NO_MEMORY;
    }
    *orphan = (struct orphan){arrival, recipient->session, (enum store_role)recipient->role};
    return STATUS_OK;
}

static enum status load_retained(struct recovery *recovery, const struct store_message *stored,
                                 struct bytes properties, struct bytes payload,
                                 const struct store_recipient *recipient)
{
    struct core *core = recovery->core;
    struct message *message = NULL;
    enum status status = make_message(stored->topic, properties, payload, &message);
    if (status != STATUS_OK) {
        return status;
    }
    message->sequence = stored->arrival;
    message->publisher_id = stored->publisher;
    message->expires_at_ms = from_unix(core, stored->expires_unix_ms);
    message->qos = stored->qos;
    message->retain = true;
    message->is_stored = true;
    status = retained_set(core->retained, message);
    message_release(message);
    return status == STATUS_LIMIT ? load_orphan(recovery, stored->arrival, recipient) : status;
}

static enum status load_recipient(struct recovery *recovery, const struct store_message *message,
                                  struct bytes properties, struct bytes payload,
                                  const struct store_recipient *recipient)
{
    if (recipient->role == STORE_RETAINED) {
        return load_retained(recovery, message, properties, payload, recipient);
    }
    struct session *session = durable_find(recovery->core, recipient->session);
    if (session == NULL) {
        return load_orphan(recovery, message->arrival, recipient);
    }
    if (recipient->role == STORE_QUEUED || recipient->role == STORE_SECOND) {
        return load_queued(recovery, session, message, recipient);
    }
    return id_set_has(&session->unreleased, recipient->packet_id)
               ? load_orphan(recovery, message->arrival, recipient)
               : id_set_add(&session->unreleased, recipient->packet_id, message->arrival);
}

static enum status on_message(void *ctx, const struct store_message *message,
                              struct bytes properties, struct bytes payload,
                              const struct store_recipient *recipients, size_t count)
{
    struct recovery *recovery = ctx;
    struct core *core = recovery->core;
    enum status status = index_groups(recovery);
    if (core->sequence < message->arrival) {
        core->sequence = message->arrival;
    }
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = load_recipient(recovery, message, properties, payload, &recipients[i]);
    }
    return status;
}

static int compare_inflight(const void *a, const void *b)
{
    const struct inflight *left = a;
    const struct inflight *right = b;
    uint64_t left_key = left->session->number;
    uint64_t right_key = right->session->number;
    if (left_key == right_key) {
        left_key = left->slot.packet_id;
        right_key = right->slot.packet_id;
    }
    return (left_key > right_key) - (left_key < right_key);
}

/* Identifiers run round: the first one is that behind the largest gap. */
static size_t find_start(const struct inflight *inflight, size_t count)
{
    size_t start = 0;
    unsigned largest = (unsigned)inflight[0].slot.packet_id + UINT16_MAX -
                       (unsigned)inflight[count - 1].slot.packet_id;
    for (size_t i = 1; i < count; i++) {
        unsigned gap =
            (unsigned)inflight[i].slot.packet_id - (unsigned)inflight[i - 1].slot.packet_id;
        if (gap > largest) {
            largest = gap;
            start = i;
        }
    }
    return start;
}

/* The window of one session, whose slots are sorted by identifier. */
static enum status restore_window(struct core *core, const struct inflight *inflight, size_t count)
{
    struct session *session = inflight[0].session;
    size_t start = find_start(inflight, count);
    for (size_t i = 0; i < count; i++) {
        const struct slot *slot = &inflight[(start + i) % count].slot;
        if (slot_window_find(&session->window, slot->packet_id) != NULL) {
            continue; /* two with one identifier: a file that was put right by hand, perhaps */
        }
        if (slot_window_restore(&session->window, &core->pool, slot, slot->packet_id) == NULL) {
            return STATUS_NO_MEMORY;
        }
        count_slot(core, session, slot);
    }
    session->window.sent = 0;
    return STATUS_OK;
}

static enum status restore_windows(struct recovery *recovery)
{
    struct inflight *all = recovery->inflight.items;
    size_t count = recovery->inflight.count;
    if (count == 0) {
        return STATUS_OK;
    }
    qsort(all, count, sizeof *all, compare_inflight);
    enum status status = STATUS_OK;
    for (size_t from = 0, to = 0; from < count && status == STATUS_OK; from = to) {
        while (to < count && all[to].session == all[from].session) {
            to++;
        }
        status = restore_window(recovery->core, all + from, to - from);
    }
    return status;
}

/* The scans of one session, of which *from is the first, stand together. */
static bool repeat_scans_of(struct core *core, const struct scan *scans, size_t count, size_t *from)
{
    const struct session *session = scans[*from].session;
    struct scan_known *known = NULL;
    bool done = true;
    for (; done && *from < count && scans[*from].session == session; ++*from) {
        done = scan_again(core, scans[*from].subscription, &known);
    }
    if (known != NULL) {
        shared_release(&known->shared);
    }
    return done;
}

static enum status repeat_scans(const struct recovery *recovery)
{
    size_t from = 0;
    while (from < recovery->scans.count) {
        if (!repeat_scans_of(recovery->core, recovery->scans.items, recovery->scans.count, &from)) {
            return STATUS_NO_MEMORY;
        }
    }
    return STATUS_OK;
}

/* What the restart itself changes, now that the store is open for changes. */
static enum status settle(struct recovery *recovery)
{
    struct core *core = recovery->core;
    const struct orphan *orphans = recovery->orphans.items;
    for (size_t i = 0; i < recovery->orphans.count; i++) {
        durable_finish_part(core, orphans[i].arrival, orphans[i].role, orphans[i].session);
    }
    struct session **connected = recovery->connected.items;
    for (size_t i = 0; i < recovery->connected.count; i++) {
        durable_put_session(core, connected[i]);
    }
    return repeat_scans(recovery);
}

static void arm_timer(void *ctx, struct map_node *node)
{
    session_arm_timer(ctx, (struct session *)(void *)node);
}

static void recovery_fini(struct recovery *recovery)
{
    mem_free(recovery->inflight.items);
    mem_free(recovery->orphans.items);
    mem_free(recovery->scans.items);
    mem_free(recovery->connected.items);
    mem_free(recovery->groups);
}

enum status core_open_store(struct core *core, uint64_t now_ms, uint64_t unix_ms,
                            struct store *store)
{
    ENSURE(core->store == NULL && core->sessions.count == 0);
    core->now_ms = now_ms;
    core->unix_offset_ms = unix_ms - now_ms;
    struct store_events events = {core, durable_on_committed, spill_on_fetched, durable_on_failed};
    store_set_events(store, &events);
    struct recovery recovery = {.core = core, .now_ms = now_ms};
    struct store_loader loader = {&recovery, on_session, on_subscription, on_message};
    /* What was accepted under other limits is not refused now. */
    struct core_options options = core->options;
    core->options.subscriptions_max = 0;
    core->options.queues_max = 0;
    core->options.topic_levels_max = TOPIC_LEVELS_MAX;
    core->options.qos_max = 2;
    enum status status = store_load(store, &loader);
    core->options = options;
    if (status == STATUS_OK) {
        status = restore_windows(&recovery);
    }
    core->store = store;
    if (status == STATUS_OK) {
        status = settle(&recovery);
    }
    if (status == STATUS_OK) {
        map_each(&core->sessions, arm_timer, core);
    }
    recovery_fini(&recovery);
    return status;
}
