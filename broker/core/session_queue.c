/* A session's queue: what goes in, what goes out, and what a slot holds. */
#include "core_state.h"

#include "mem.h"

void session_wake(struct core *core, struct session *session)
{
    if (session->client != NULL && !session->output_pending && !session->blocked) {
        session->output_pending = true;
        core->effects.output_ready(core->effects.ctx, session->client);
    }
}

void share_group_release(struct share_group *group)
{
    ENSURE(group->references != 0);
    if (--group->references == 0) {
        mem_free(group->members);
        mem_free(group);
    }
}

void slot_release_message(struct session *session, struct slot *slot)
{
    if (slot->packet_id != 0) {
        session->window.ring->bytes -= message_size(slot->message);
    }
    message_release(slot->message);
    slot->message = NULL;
}

void slot_release(struct core *core, struct session *session, struct slot *slot)
{
    if (slot->is_stored) {
        durable_finish(core, session, slot);
    }
    switch ((enum slot_kind)slot->kind) {
    case SLOT_EMPTY:
        return;
    case SLOT_SCAN:
        scan_close(core, session, slot->scan);
        slot->kind = SLOT_EMPTY;
        return;
    case SLOT_PUBLISH:
        slot_release_message(session, slot);
        break;
    case SLOT_STORED:
    case SLOT_PUBREL:
        break;
    }
    if (slot->is_shared) {
        share_group_release(slot->group);
        session->shared_slots--;
    } else if (slot->has_list) {
        mem_free(slot->list);
    }
    if (slot->in_quota) {
        session->quota_used--;
    }
    core->stats.queued_messages--;
    slot->kind = SLOT_EMPTY;
    slot->is_stored = 0;
}

void session_leave_queue(struct core *core, struct session *session, const struct slot *slot)
{
    size_t size = 0;
    if (slot->kind == SLOT_PUBLISH) {
        size = message_size(slot->message);
    } else if (slot->kind == SLOT_STORED) {
        size = slot->stored_bytes;
    }
    session->queued_bytes -= size;
    core->stats.queued_bytes -= size;
}

struct session_backlog *session_make_backlog(struct session *session)
{
    struct session_durable *durable = session->absence->durable;
    if (durable->backlog == NULL) {
        durable->backlog = mem_zalloc(sizeof *durable->backlog);
    }
    return durable->backlog;
}

void session_trim_backlog(struct session *session)
{
    const struct session_backlog *backlog = session_backlog(session);
    if (backlog != NULL && backlog->front.count == 0 && backlog->run.count == 0) {
        mem_free(session->absence->durable->backlog);
        session->absence->durable->backlog = NULL;
    }
}

struct slot *session_unshift(struct core *core, struct session *session)
{
    struct session_backlog *backlog = session_backlog(session);
    return slot_queue_unshift(backlog == NULL ? &session->queue : &backlog->front, &core->pool);
}

bool session_unpack(struct core *core, struct session *session)
{
    struct session_backlog *backlog = session_backlog(session);
    struct slot *slot = slot_queue_push(&backlog->front, &core->pool);
    if (slot == NULL) {
        return false;
    }
    stored_run_pop(&backlog->run, slot);
    return true;
}

struct session_cursor session_cursor_of(const struct session *session)
{
    const struct session_backlog *backlog = session_backlog(session);
    struct session_cursor cursor = {
        .queues = {backlog == NULL ? NULL : &backlog->front, &session->queue}};
    cursor.number = backlog == NULL;
    cursor.at = slot_cursor_of(cursor.queues[cursor.number]);
    return cursor;
}

struct slot *session_next_slot(struct session_cursor *cursor)
{
    struct slot *slot = slot_queue_next(cursor->queues[cursor->number], &cursor->at);
    if (slot == NULL && cursor->number == 0) {
        cursor->number = 1;
        cursor->at = slot_cursor_of(cursor->queues[1]);
        slot = slot_queue_next(cursor->queues[1], &cursor->at);
    }
    return slot;
}

void session_compact(struct core *core, struct session *session)
{
    struct session_backlog *backlog = session_backlog(session);
    slot_queue_compact(&session->queue, &core->pool);
    if (backlog != NULL) {
        slot_queue_compact(&backlog->front, &core->pool);
        session_trim_backlog(session);
    }
}

void session_drop_first(struct core *core, struct session *session)
{
    struct session_backlog *backlog = session_backlog(session);
    if (backlog == NULL) {
        slot_queue_pop(&session->queue, &core->pool);
    } else {
        slot_queue_pop(&backlog->front, &core->pool);
        session_trim_backlog(session);
    }
}

void session_pop(struct core *core, struct session *session)
{
    struct session_backlog *backlog = session_backlog(session);
    struct slot_queue *queue = backlog == NULL ? &session->queue : &backlog->front;
    struct slot *slot = slot_queue_first(queue);
    session_leave_queue(core, session, slot);
    slot_release(core, session, slot);
    slot_queue_pop(queue, &core->pool);
    if (queue != &session->queue) {
        session_trim_backlog(session);
    }
}

void session_clear_queue(struct core *core, struct session *session)
{
    struct session_backlog *backlog = session_backlog(session);
    while (backlog != NULL && backlog->run.count != 0) {
        struct slot slot;
        stored_run_pop(&backlog->run, &slot);
        session_leave_queue(core, session, &slot);
        slot_release(core, session, &slot);
    }
    session_trim_backlog(session);
    while (session_first(session) != NULL) {
        session_pop(core, session);
    }
}

/* One copy carries the identifiers of all subscriptions that match (3.3.4). Without memory the new
 * one is left out. */
static void add_identifier(struct slot *slot, uint32_t identifier)
{
    if (identifier == 0) {
        return;
    }
    if (!slot->has_list && slot->identifier == 0) {
        slot->identifier = identifier;
        return;
    }
    size_t count = slot->has_list ? slot->list->count : 1;
    if (count >= CORE_IDENTIFIERS_MAX) {
        return;
    }
    struct identifier_list *list = mem_realloc(slot->has_list ? slot->list : NULL,
                                               sizeof *list + (count + 1) * sizeof(uint32_t));
    if (list == NULL) {
        return;
    }
    if (!slot->has_list) {
        list->identifiers[0] = slot->identifier;
    }
    list->identifiers[count] = identifier;
    list->count = count + 1;
    slot->list = list;
    slot->has_list = 1;
}

static inline bool is_over_limit(const struct core *core, const struct session *session,
                                 const struct message *message)
{
    const struct core_options *options = &core->options;
    return (options->queued_messages_max != 0 &&
            session_waiting(session) >= options->queued_messages_max) ||
           (options->queued_bytes_max != 0 && session_waiting(session) != 0 &&
            session->queued_bytes + message_size(message) > options->queued_bytes_max);
}

/* Over its limit: expired messages in front make room, or nothing does. */
static bool stays_full(struct core *core, struct session *session, const struct message *message)
{
    while (is_over_limit(core, session, message)) {
        const struct slot *first = session_first(session);
        if (first == NULL || first->kind != SLOT_PUBLISH ||
            !message_is_expired(first->message, core->now_ms)) {
            return true;
        }
        core->stats.expired++;
        session_pop(core, session);
    }
    return false;
}

bool session_is_full(struct core *core, struct session *session, const struct message *message)
{
    return is_over_limit(core, session, message) && stays_full(core, session, message);
}

void session_enqueue(struct core *core, struct session *session, struct message *message,
                     const struct subscription *subscription, struct share_group *group)
{
    bool is_queue = group != NULL && group->anchor != NULL; /* it keeps what is sent at QoS 0 too */
    uint8_t qos = is_queue ? 1 : delivery_qos(core, message->qos, subscription->qos);
    bool retain = subscription->retain_as_published && message->retain;
    /* A session whose subscriptions overlap gets one copy, at the highest QoS [MQTT-3.3.4-2]. */
    struct slot *last = slot_queue_last(&session->queue);
    if (group == NULL && last != NULL && last->kind == SLOT_PUBLISH && last->message == message &&
        !last->is_shared) {
        last->qos = (qos > last->qos ? qos : last->qos) & 3U;
        last->retain |= retain;
        add_identifier(last, subscription->identifier);
        return;
    }
    if ((session->client == NULL && qos == 0 && !core->options.queue_qos0) ||
        (core->is_ending && !session->is_durable)) {
        return;
    }
    const struct message *last_message =
        last != NULL && last->kind == SLOT_PUBLISH ? last->message : NULL;
    bool last_is_second = last != NULL && last->is_second;
    struct slot *slot = NULL;
    if (!is_over_limit(core, session, message) || !stays_full(core, session, message)) {
        slot = slot_queue_push(&session->queue, &core->pool);
    }
    if (slot == NULL) {
        core->stats.dropped++;
        return;
    }
    *slot = (struct slot){.message = message_hold(message),
                          .identifier = subscription->identifier,
                          .kind = SLOT_PUBLISH,
                          .qos = qos & 3U,
                          .retain = retain};
    if (group != NULL) {
        slot->is_shared = 1;
        slot->group = group;
        group->references++;
        session->shared_slots++;
    }
    core->matched++;
    session->queued_bytes += message_size(message);
    core->stats.queued_bytes += message_size(message);
    core->stats.queued_messages++;
    if (session->is_durable) {
        slot->is_second = group != NULL && !is_queue;
        /* What several groups give to one session is stored once. */
        bool is_known = last_message == message && last_is_second && slot->is_second;
        if (!is_known && !durable_note(core, session, is_queue ? NULL : slot)) {
            core->part_failed = true;
        }
        slot->is_stored = is_queue && core->store != NULL;
        spill_session(core, session);
    }
    session_wake(core, session);
}
