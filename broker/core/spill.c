/*
 * Messages of durable sessions leave memory, and come back.
 *
 * A session without a client keeps its queue as places only: once a message is committed it leaves
 * memory, and its slot becomes an entry of the backlog's run, or SLOT_STORED in the window. When
 * the client is back, entries become slots again and the messages are fetched as it takes them.
 */
#include "core_state.h"

#include "mem.h"

enum { FETCH_BYTES = 256 * 1024 };

/* The slots of a session that are to be sent, in order, as far as what they stand for may be in the
 * store only: the window's from `sent` on, then those in front of its backlog. */
struct walk {
    struct session *session;
    uint32_t position;
    struct slot_cursor cursor;
};

static struct walk walk_of(struct session *session)
{
    struct walk walk = {.session = session, .position = session->window.sent};
    if (session_backlog(session) != NULL) {
        walk.cursor = slot_cursor_of(&session_backlog(session)->front);
    }
    return walk;
}

static struct slot *walk_next(struct walk *walk)
{
    if (walk->position < slot_window_count(&walk->session->window)) {
        return slot_window_at(&walk->session->window, walk->position++);
    }
    const struct session_backlog *backlog = session_backlog(walk->session);
    return backlog == NULL ? NULL : slot_queue_next(&backlog->front, &walk->cursor);
}

/* What is to be asked for. */
struct wanted {
    uint64_t arrivals[STORE_FETCH_MAX];
    size_t count;
    size_t bytes;
};

static bool wants_more(const struct wanted *wanted)
{
    return wanted->count < STORE_FETCH_MAX && wanted->bytes < FETCH_BYTES;
}

static void want(struct wanted *wanted, const struct slot *slot)
{
    wanted->arrivals[wanted->count++] = slot->arrival;
    wanted->bytes += slot->stored_bytes;
}

/* What the session's slots want. False: behind them is one that has its message. */
static bool want_slots(struct session *session, struct wanted *wanted)
{
    struct walk walk = walk_of(session);
    for (const struct slot *slot = walk_next(&walk); slot != NULL && wants_more(wanted);
         slot = walk_next(&walk)) {
        if (slot->kind == SLOT_STORED) {
            want(wanted, slot);
        } else if (slot->packet_id == 0 && slot->kind != SLOT_EMPTY) {
            return false;
        }
    }
    return true;
}

bool spill_fetch(struct core *core, struct session *session)
{
    if (session->absence->durable->is_fetching) {
        session->blocked = true;
        return true;
    }
    struct wanted wanted;
    wanted.count = 0;
    wanted.bytes = 0;
    const struct session_backlog *backlog = session_backlog(session);
    if (want_slots(session, &wanted) && backlog != NULL) {
        while (wants_more(&wanted) && backlog->run.count != 0 && session_unpack(core, session)) {
            want(&wanted, slot_queue_last(&backlog->front));
        }
    }
    if (wanted.count == 0) {
        return false;
    }
    session->blocked = true;
    session->absence->durable->is_fetching = true;
    store_fetch(core->store, session->number, wanted.arrivals, wanted.count);
    return true;
}

/* Takes the Subscription Identifiers as they were stored. Without memory they are left out. */
static void take_identifiers(struct slot *slot, const struct store_recipient *recipient)
{
    size_t count = recipient->identifier_count;
    slot->identifier = 0;
    if (count == 1) {
        slot->identifier = recipient->identifiers[0];
    } else if (count > 1 && !slot->is_shared) {
        struct identifier_list *list =
            mem_alloc(sizeof *list + count * sizeof *recipient->identifiers);
        if (list != NULL) {
            list->count = count;
            memcpy(list->identifiers, recipient->identifiers,
                   count * sizeof *recipient->identifiers);
            slot->list = list;
            slot->has_list = 1;
        }
    }
}

/* The message of a SLOT_STORED is back in memory; takes the item's reference. */
static void fill_slot(struct core *core, struct session *session, struct slot *slot,
                      const struct store_fetched *item)
{
    struct message *message = item->message;
    if (message->expires_at_ms != MESSAGE_EXPIRES_NEVER) {
        message->expires_at_ms = message->expires_at_ms > core->unix_offset_ms
                                     ? message->expires_at_ms - core->unix_offset_ms
                                     : 0;
    }
    message->is_stored = true;
    size_t size = message_size(message);
    if (slot->packet_id != 0) {
        session->window.ring->bytes += size;
    } else {
        session->queued_bytes += size - slot->stored_bytes;
        core->stats.queued_bytes += size - slot->stored_bytes;
    }
    slot->kind = SLOT_PUBLISH;
    slot->message = message;
    take_identifiers(slot, &item->recipient);
}

/* A message that the store has lost: the session goes on without it. */
static void give_up_slot(struct core *core, struct session *session, struct slot *slot)
{
    core->stats.dropped++;
    if (slot->packet_id == 0) {
        session_leave_queue(core, session, slot);
    }
    slot_release(core, session, slot);
}

static size_t find_item(const struct store_fetched *items, size_t from, size_t count,
                        uint64_t arrival)
{
    while (from < count && items[from].arrival != arrival) {
        from++;
    }
    return from;
}

/* What came and is still wanted goes to its slots, which stand in the order of `items` but for
 * those that went meanwhile. */
static void distribute(struct core *core, struct session *session,
                       const struct store_fetched *items, size_t count)
{
    bool lost = false;
    size_t next = 0;
    struct walk walk = walk_of(session);
    for (struct slot *slot = walk_next(&walk); slot != NULL && next < count;
         slot = walk_next(&walk)) {
        if (slot->kind != SLOT_STORED) {
            continue;
        }
        size_t at = find_item(items, next, count, slot->arrival);
        if (at == count) {
            continue;
        }
        for (; next < at; next++) {
            message_release(items[next].message);
        }
        next = at + 1;
        /* While the session was read back nobody knew what its client may read. */
        if (items[at].message != NULL && session_may_read(core, session, items[at].message)) {
            fill_slot(core, session, slot, &items[at]);
        } else {
            message_release(items[at].message);
            give_up_slot(core, session, slot);
            lost = true;
        }
    }
    for (; next < count; next++) {
        message_release(items[next].message);
    }
    if (lost) {
        session_compact(core, session);
        slot_window_sweep(&session->window, &core->pool);
    }
}

void spill_on_fetched(void *ctx, uint64_t number, const struct store_fetched *items, size_t count)
{
    struct core *core = ctx;
    struct session *session = durable_find(core, number);
    struct share_group *queue = session == NULL ? NULL : queue_of_anchor(session);
    if (session != NULL) {
        session->absence->durable->is_fetching = false;
    }
    if (session == NULL || (session->client == NULL && queue == NULL)) {
        for (size_t i = 0; i < count; i++) {
            message_release(items[i].message);
        }
        return;
    }
    distribute(core, session, items, count);
    if (queue != NULL) {
        session->blocked = false;
        queue_dispatch(core, queue, NULL);
    } else {
        session_go_on(core, session);
    }
}

/* May what the slot has be in the store only? */
static bool may_leave(const struct core *core, const struct session *session,
                      const struct slot *slot)
{
    if (slot->kind != SLOT_PUBLISH) {
        return slot->kind != SLOT_SCAN;
    }
    return slot->is_stored && durable_owner_of(session, slot) == session->number &&
           slot->message->ticket <= core->committed && message_size(slot->message) <= UINT32_MAX;
}

/* The message of a slot that may leave goes. */
static void leave_memory(struct slot *slot)
{
    if (slot->kind != SLOT_PUBLISH) {
        return;
    }
    struct message *message = slot->message;
    if (slot->has_list) {
        mem_free(slot->list);
        slot->has_list = 0;
    }
    slot->kind = SLOT_STORED;
    slot->arrival = message->sequence;
    slot->stored_bytes = (uint32_t)message_size(message);
    message_release(message);
}

/* True when all of the window is in the store only. */
static bool spill_window(const struct core *core, struct session *session)
{
    bool done = true;
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        struct slot *slot = slot_window_at(&session->window, i);
        if (!may_leave(core, session, slot)) {
            done = false;
        } else if (slot->kind == SLOT_PUBLISH) {
            session->window.ring->bytes -= message_size(slot->message);
            leave_memory(slot);
        }
    }
    return done;
}

/* All of the backlog's front becomes entries before its others, or nothing does. */
static bool spill_front(struct core *core, struct session *session)
{
    struct session_backlog *backlog = session_backlog(session);
    struct stored_run run = {0};
    struct slot_cursor cursor = slot_cursor_of(&backlog->front);
    for (const struct slot *slot = slot_queue_next(&backlog->front, &cursor); slot != NULL;
         slot = slot_queue_next(&backlog->front, &cursor)) {
        if (!may_leave(core, session, slot) || !stored_run_push(&run, slot)) {
            stored_run_fini(&run);
            return false;
        }
    }
    while (backlog->front.count != 0) {
        leave_memory(slot_queue_first(&backlog->front));
        slot_queue_pop(&backlog->front, &core->pool);
    }
    stored_run_prepend(&backlog->run, &run);
    backlog->front_may_leave = false;
    return true;
}

/* As many as may from the beginning of the queue become the last entries of the backlog. True when
 * that is all. */
static bool spill_queue(struct core *core, struct session *session)
{
    struct slot *slot = slot_queue_first(&session->queue);
    if (slot == NULL || !may_leave(core, session, slot)) {
        return slot == NULL;
    }
    struct session_backlog *backlog = session_make_backlog(session);
    while (backlog != NULL && slot != NULL && may_leave(core, session, slot) &&
           stored_run_push(&backlog->run, slot)) {
        leave_memory(slot);
        slot_queue_pop(&session->queue, &core->pool);
        slot = slot_queue_first(&session->queue);
    }
    session_trim_backlog(session);
    return slot == NULL;
}

/* True when all that the session has is in the store only. What a queue has fetched stays for its
 * consumers. */
static bool spill_all(struct core *core, struct session *session)
{
    bool done = spill_window(core, session);
    const struct session_backlog *backlog = session_backlog(session);
    if (backlog != NULL && backlog->front.count != 0 &&
        (backlog->front_may_leave || queue_of_anchor(session) == NULL)) {
        done &= spill_front(core, session);
    }
    return spill_queue(core, session) && done;
}

void spill_drop_qos0(struct core *core, struct session *session)
{
    if (core->store == NULL || !session->is_durable || core->options.queue_qos0) {
        return;
    }
    bool dropped = false;
    struct session_cursor cursor = session_cursor_of(session);
    for (struct slot *slot = session_next_slot(&cursor); slot != NULL;
         slot = session_next_slot(&cursor)) {
        if (slot->kind == SLOT_PUBLISH && slot->qos == 0 && !slot->is_stored) {
            session_leave_queue(core, session, slot);
            slot_release(core, session, slot);
            core->stats.dropped++;
            dropped = true;
        }
    }
    if (dropped) {
        session_compact(core, session);
    }
}

void spill_session(struct core *core, struct session *session)
{
    if (core->store == NULL || !session->is_durable || session->client != NULL) {
        return;
    }
    struct session_durable *durable = session->absence->durable;
    bool has_front = durable->backlog != NULL && durable->backlog->front.count != 0;
    if (durable->on_spill_list ||
        (session->queue.count == 0 && !has_front && slot_window_count(&session->window) == 0)) {
        return;
    }
    durable->on_spill_list = true;
    durable->next_spill = core->spill_list;
    core->spill_list = durable;
}

void spill_listed(struct core *core)
{
    struct session_durable **link = &core->spill_list;
    while (*link != NULL) {
        struct session_durable *durable = *link;
        struct session *session = durable->session;
        if (session->client != NULL || spill_all(core, session)) {
            *link = durable->next_spill;
            durable->on_spill_list = false;
        } else {
            link = &durable->next_spill;
        }
    }
}

void spill_forget(struct core *core, struct session_durable *durable)
{
    struct session_durable **link = &core->spill_list;
    while (durable->on_spill_list) {
        if (*link == durable) {
            *link = durable->next_spill;
            durable->on_spill_list = false;
        } else {
            link = &(*link)->next_spill;
        }
    }
}
