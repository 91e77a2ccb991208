/* From a session's queue to its client: what may be sent next, and what the client's
 * acknowledgements end. */
#include "core_state.h"

#include "mem.h"

enum {
    NEXT_WORK_MAX = 512, /* slots passed over, or retained topics looked at, in one core_next */
    AHEAD_MAX = 256,     /* slots that have their identifier before they can be sent */
};

/* What a delivery points to once its slot is gone lives until the next one. */
void core_end_loan(struct core *core)
{
    message_release(core->lent);
    mem_free(core->lent_list);
    core->lent = NULL;
    core->lent_list = NULL;
}

static uint16_t quota_of(const struct core *core, const struct session *session)
{
    return session->receive_maximum < core->options.inflight_max ? session->receive_maximum
                                                                 : core->options.inflight_max;
}

static bool quota_is_used_up(const struct core *core, const struct session *session)
{
    return session->quota_used >= quota_of(core, session);
}

/* Slots of the window that were not sent on this connection. */
static uint32_t count_unsent(const struct session *session)
{
    return slot_window_count(&session->window) - session->window.sent;
}

/* No new message may be sent at QoS 1 or 2 before an acknowledgement comes. */
static bool window_is_used_up(const struct core *core, const struct session *session)
{
    size_t bytes_max = core->options.inflight_bytes_max;
    return quota_is_used_up(core, session) || slot_window_is_full(&session->window) ||
           (bytes_max != 0 && slot_window_bytes(&session->window) >= bytes_max);
}

static enum core_next fill(struct core_delivery *out, const struct slot *slot, uint64_t now_ms)
{
    struct message *message = slot->message;
    *out = (struct core_delivery){.message = message,
                                  .packet_id = slot->packet_id,
                                  .qos = slot->qos,
                                  .retain = slot->retain,
                                  .dup = slot->sent_before,
                                  .redelivered = slot->sent_before || slot->returned};
    if (message->expires_at_ms != MESSAGE_EXPIRES_NEVER) {
        out->has_expiry = true;
        if (message->expires_at_ms > now_ms) { /* one in flight is completed though it expired */
            out->expiry_s = (uint32_t)((message->expires_at_ms - now_ms + 999) / 1000);
        }
    }
    if (slot->has_list) {
        out->identifier_count = slot->list->count;
        out->identifiers = slot->list->identifiers;
    } else if (slot->identifier != 0) {
        out->one_identifier = slot->identifier;
        out->identifier_count = 1;
        out->identifiers = &out->one_identifier;
    }
    return CORE_DELIVERY;
}

/* The next slot of the window that was not sent on this connection, or NULL. */
static struct slot *first_unsent(struct core *core, uint64_t now_ms, struct session *session)
{
    struct slot_window *window = &session->window;
    while (window->sent < slot_window_count(window)) {
        struct slot *slot = slot_window_at(window, window->sent);
        if (slot->kind == SLOT_PUBLISH && !slot->sent_before &&
            message_is_expired(slot->message, now_ms)) {
            core->stats.expired++; /* it was not begun [MQTT-3.3.2-5] */
            slot_release(core, session, slot);
            slot_window_finish(window, &core->pool, slot);
        } else if (slot->kind == SLOT_EMPTY) {
            window->sent++;
        } else {
            return slot;
        }
    }
    return NULL;
}

/* What was in flight when the client went away, oldest first, with its old identifiers
 * [MQTT-4.4.0-1]; and what waited for its identifier to be durable, or for an acknowledgement. */
static enum core_next next_resend(struct core *core, uint64_t now_ms, struct session *session,
                                  struct core_delivery *out)
{
    struct slot *slot = first_unsent(core, now_ms, session);
    if (slot == NULL) {
        return CORE_NOTHING;
    }
    if (slot->kind == SLOT_PUBREL) {
        session->window.sent++;
        *out = (struct core_delivery){.packet_id = slot->packet_id, .qos = 2};
        return CORE_DELIVERY;
    }
    if (!slot->in_quota && quota_is_used_up(core, session)) {
        return CORE_NOTHING;
    }
    if (durable_identifier_is_pending(core, session, slot)) {
        durable_wait(core, session);
        return CORE_NOTHING;
    }
    if (slot->kind == SLOT_STORED) {
        (void)!spill_fetch(core, session); /* cannot fail: this one has a slot */
        return CORE_NOTHING;
    }
    session->window.sent++;
    session->quota_used = (uint16_t)(session->quota_used + !slot->in_quota);
    slot->in_quota = 1;
    core->stats.delivered += !slot->sent_before;
    (void)fill(out, slot, now_ms);
    slot->sent_before = 1;
    return CORE_DELIVERY;
}

/* Nothing more can be done before an acknowledgement or a commit comes. */
static void hold(struct core *core, struct session *session)
{
    if (durable_assignment_pending(core, session)) {
        durable_wait(core, session);
    } else {
        session->blocked = true;
    }
}

/*
 * May a stored message get an identifier before it can be sent? The sooner it has one, the sooner
 * it is durable and need not be waited for. They are given in groups, so that what is sent and what
 * is being written overlap.
 */
static bool may_go_ahead(const struct core *core, const struct session *session)
{
    size_t bytes_max = core->options.inflight_bytes_max;
    uint32_t max = durable_is_assigning(core, session) ? AHEAD_MAX : AHEAD_MAX / 2;
    return count_unsent(session) < max && !slot_window_is_full(&session->window) &&
           (bytes_max == 0 || slot_window_bytes(&session->window) < bytes_max) &&
           durable_may_assign(core, session);
}

/* Moves a slot's content into the window under a new packet identifier, to be sent now or, when
 * `is_held`, later. NULL: there is no room, or no memory. */
static struct slot *put_in_window(struct core *core, struct session *session,
                                  const struct slot *slot, bool is_held)
{
    if (!is_held && window_is_used_up(core, session)) {
        session->blocked = true;
        return NULL;
    }
    struct slot *put = slot_window_add(&session->window, &core->pool, slot, !is_held);
    if (put == NULL) {
        return NULL;
    }
    put->in_quota = !is_held;
    session->quota_used = (uint16_t)(session->quota_used + !is_held);
    session->window.ring->bytes += message_size(slot->message);
    return put;
}

/* The first slot of what waits, or of what a scan has found, is gone; its references were moved or
 * released. */
static void drop_first(struct core *core, struct session *session, struct slot_queue *found)
{
    if (found == NULL) {
        session_drop_first(core, session);
    } else {
        slot_queue_pop(found, &core->pool);
    }
}

static void pop(struct core *core, struct session *session, struct slot_queue *found)
{
    if (found == NULL) {
        session_pop(core, session);
    } else {
        slot_release(core, session, slot_queue_first(found));
        slot_queue_pop(found, &core->pool);
    }
}

enum way { WAY_NOW, WAY_HELD, WAY_WAITS };

/* How the first slot that waits goes: at once, into the window until it can be sent, or not yet. */
static enum way choose_way(const struct core *core, const struct session *session,
                           const struct slot *slot)
{
    bool must_wait = count_unsent(session) != 0 || durable_must_wait(core, slot->message);
    if (!durable_keeps_identifier(core, session, slot)) {
        return must_wait ? WAY_WAITS : WAY_NOW;
    }
    if (!must_wait && !quota_is_used_up(core, session) && !durable_is_older(core, slot)) {
        return WAY_NOW;
    }
    /* What is shared is not taken before there is a place for it: another member may be quicker. */
    if (slot->is_shared && session->quota_used + count_unsent(session) >= quota_of(core, session)) {
        return WAY_WAITS;
    }
    return may_go_ahead(core, session) ? WAY_HELD : WAY_WAITS;
}

/* The first slot that waits, or that a scan has found, goes out, or, when it is stored, into the
 * window until its identifier is durable: a crash must not give it another one. */
static enum core_next next_publish(struct core *core, uint64_t now_ms, struct session *session,
                                   struct slot_queue *found, struct core_delivery *out)
{
    struct slot *slot = found == NULL ? session_first(session) : slot_queue_first(found);
    if (message_is_expired(slot->message, now_ms)) {
        core->stats.expired++;
        pop(core, session, found);
        return CORE_AGAIN;
    }
    enum way way = choose_way(core, session, slot);
    if (way == WAY_WAITS) {
        if (durable_must_wait(core, slot->message)) {
            durable_wait(core, session);
        } else {
            hold(core, session);
        }
        return CORE_AGAIN;
    }
    if (slot->qos == 0) {
        (void)fill(out, slot, now_ms);
        core->lent = message_hold(slot->message);
        acknowledge(core, slot_arrival(slot));
        if (slot->has_list) {
            core->lent_list = slot->list;
            slot->has_list = 0;
        }
        pop(core, session, found);
    } else {
        struct slot *put = put_in_window(core, session, slot, way == WAY_HELD);
        if (put == NULL) {
            return CORE_AGAIN;
        }
        if (found == NULL) {
            session_leave_queue(core, session, slot);
        }
        slot->kind = SLOT_EMPTY; /* its references moved */
        drop_first(core, session, found);
        durable_assign(core, session, put);
        if (way == WAY_HELD) {
            return CORE_AGAIN;
        }
        (void)fill(out, put, now_ms);
        put->sent_before = 1;
    }
    core->stats.delivered++;
    return CORE_DELIVERY;
}

/* A retained message goes out at QoS 1 or 2; what next_publish says of the window holds here too.
 */
static enum core_next send_retained(struct core *core, uint64_t now_ms, struct session *session,
                                    struct slot *slot, bool is_durable, struct core_delivery *out)
{
    bool is_held = is_durable || count_unsent(session) != 0 || window_is_used_up(core, session);
    struct slot *put = put_in_window(core, session, slot, is_held);
    if (put == NULL) {
        message_release(slot->message);
        core->stats.dropped++;
        return CORE_AGAIN;
    }
    core->stats.queued_messages++;
    if (is_durable) {
        durable_add(core, session, put);
    }
    if (is_held) {
        return CORE_AGAIN;
    }
    (void)fill(out, put, now_ms);
    put->sent_before = 1;
    core->stats.delivered++;
    return CORE_DELIVERY;
}

/* What a scan that gathers has found goes out when it has found all, or too much. */
static enum core_next next_gathered(struct core *core, uint64_t now_ms, struct session *session,
                                    struct retained_scan *scan, struct core_delivery *out)
{
    enum scan_step step = scan->is_gathered ? SCAN_END : scan_gather(core, session, scan);
    if (step != SCAN_END) {
        if (step == SCAN_WAITS) {
            hold(core, session);
        }
        return CORE_AGAIN;
    }
    if (scan->found.count != 0) {
        return next_publish(core, now_ms, session, &scan->found, out);
    }
    if (scan->is_too_large) {
        scan->is_gathered = false; /* the rest is read as the client takes it */
    } else {
        session_pop(core, session);
    }
    return CORE_AGAIN;
}

static enum core_next next_retained(struct core *core, uint64_t now_ms, struct session *session,
                                    struct core_delivery *out)
{
    struct retained_scan *scan = session_first(session)->scan;
    if (scan->is_gathered || scan_gathers(core, session, scan)) {
        return next_gathered(core, now_ms, session, scan, out);
    }
    bool has_room =
        !session->is_durable ? !window_is_used_up(core, session) : may_go_ahead(core, session);
    if (scan->qos != 0 && !has_room) {
        hold(core, session);
        return CORE_AGAIN;
    }
    struct slot slot;
    bool is_durable;
    enum scan_step step = scan_step(core, session, scan, &slot, &is_durable);
    if (step == SCAN_END) {
        durable_put_subscription(core, scan->subscription, false);
        session_pop(core, session);
    } else if (step == SCAN_WAITS) {
        hold(core, session);
    }
    if (step != SCAN_MESSAGE) {
        return CORE_AGAIN;
    }
    if (slot.qos != 0) {
        return send_retained(core, now_ms, session, &slot, is_durable, out);
    }
    (void)fill(out, &slot, now_ms);
    core->lent = slot.message;
    core->stats.delivered++;
    return CORE_DELIVERY;
}

enum core_next core_next(struct core *core, uint64_t now_ms, struct session *session,
                         struct core_delivery *out)
{
    core->now_ms = now_ms;
    core_end_loan(core);
    if (next_resend(core, now_ms, session, out) == CORE_DELIVERY) {
        return CORE_DELIVERY;
    }
    enum core_next next = CORE_AGAIN;
    for (unsigned work = 0; next == CORE_AGAIN && work < NEXT_WORK_MAX; work++) {
        const struct slot *slot = session_first(session);
        bool is_stored =
            slot == NULL ? session_backlog(session) != NULL : slot->kind == SLOT_STORED;
        if (slot == NULL && !is_stored && queue_refill(core, session)) {
            slot = session_first(session);
        }
        if (!session->blocked && is_stored) {
            if (count_unsent(session) != 0 && !may_go_ahead(core, session)) {
                hold(core, session);
            } else if (!spill_fetch(core, session)) {
                return CORE_AGAIN;
            }
        }
        if (slot == NULL || session->blocked) {
            if (count_unsent(session) != 0 && durable_assignment_pending(core, session)) {
                durable_wait(core, session);
            }
            session->output_pending = false;
            return CORE_NOTHING;
        }
        if (slot->kind == SLOT_SCAN) {
            next = next_retained(core, now_ms, session, out);
            work += SCAN_BUDGET;
        } else {
            next = next_publish(core, now_ms, session, NULL, out);
        }
    }
    return next;
}

void session_go_on(struct core *core, struct session *session)
{
    session->blocked = false;
    (void)queue_refill(core, session);
    if (session_waiting(session) != 0 ||
        session->window.sent < slot_window_count(&session->window)) {
        session_wake(core, session);
    }
}

/* The exchange of `slot` is over: the window moves on. */
static void finish(struct core *core, struct session *session, struct slot *slot)
{
    slot_release(core, session, slot);
    slot_window_finish(&session->window, &core->pool, slot);
    session_go_on(core, session);
}

void core_give_up(struct core *core, struct session *session, const struct core_delivery *delivery)
{
    core->stats.dropped++;
    core->stats.delivered -= !delivery->dup;
    struct slot *slot = slot_window_find(&session->window, delivery->packet_id);
    if (slot != NULL) {
        finish(core, session, slot);
    }
}

static struct slot *find_sent(const struct session *session, uint16_t packet_id, uint8_t qos,
                              enum slot_kind kind)
{
    struct slot *slot = slot_window_find(&session->window, packet_id);
    if (slot == NULL || slot->qos != qos || !slot->sent_before) {
        return NULL; /* an identifier that was given ahead is none that the client may know */
    }
    bool is_alike = kind == SLOT_PUBLISH && slot->kind == SLOT_STORED;
    return is_alike || slot->kind == kind ? slot : NULL;
}

bool core_puback(struct core *core, struct session *session, uint16_t packet_id)
{
    struct slot *slot = find_sent(session, packet_id, 1, SLOT_PUBLISH);
    if (slot == NULL) {
        return false;
    }
    acknowledge(core, slot_arrival(slot));
    finish(core, session, slot);
    return true;
}

/* Without memory to put it back a message stays in flight, as if nothing had been said. */
static void settle(struct core *core, struct session *session, struct slot *slot,
                   enum core_verdict verdict)
{
    if (verdict != CORE_RETURNED) {
        core->stats.dropped += verdict == CORE_REJECTED;
        slot_release(core, session, slot);
    } else {
        (void)!queue_put_back(core, session, slot);
    }
}

bool core_settle(struct core *core, struct session *session, uint16_t packet_id,
                 enum core_verdict verdict, bool cumulative)
{
    struct slot *last = find_sent(session, packet_id, 1, SLOT_PUBLISH);
    if (last == NULL) {
        return false;
    }
    struct share_group *group = last->is_shared ? last->group : NULL;
    if (group != NULL) {
        group->references++; /* its slots may be the last that hold it */
    }
    struct slot_window *window = &session->window;
    uint32_t position = 0;
    if (cumulative) {
        while (slot_window_at(window, position) != last) {
            position++;
        }
    }
    settle(core, session, last, verdict);
    while (position != 0) { /* backwards: what is put back comes to stand in its old order */
        struct slot *slot = slot_window_at(window, --position);
        if (slot->kind == SLOT_PUBLISH && slot->qos == 1) {
            settle(core, session, slot, verdict);
        }
    }
    slot_window_sweep(window, &core->pool);
    if (group != NULL && verdict == CORE_RETURNED && group->anchor != NULL) {
        queue_dispatch(core, group, session);
    }
    session_go_on(core, session);
    if (group != NULL) {
        share_group_release(group);
    }
    return true;
}

bool core_pubrec(struct core *core, struct session *session, uint16_t packet_id,
                 enum mqtt_reason reason, bool *refused)
{
    *refused = false;
    core->ticket = 0;
    struct slot *slot = find_sent(session, packet_id, 2, SLOT_PUBLISH);
    if (slot == NULL) {
        durable_hold_answer(core); /* a repetition is answered no earlier */
        return find_sent(session, packet_id, 2, SLOT_PUBREL) != NULL;
    }
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        *refused = true;
        finish(core, session, slot);
        return false;
    }
    /* From here on the client owns the message [MQTT-4.3.3-7]; only the identifier is kept. */
    core_end_loan(core);
    uint64_t arrival = slot_arrival(slot);
    acknowledge(core, arrival);
    if (slot->kind == SLOT_PUBLISH) {
        slot_release_message(session, slot);
    }
    slot->kind = SLOT_PUBREL;
    slot->arrival = arrival;
    slot->identifier = 0;
    if (slot->is_stored) {
        durable_update(core, session, slot);
        durable_hold_answer(core);
    }
    return true;
}

bool core_pubcomp(struct core *core, struct session *session, uint16_t packet_id)
{
    struct slot *slot = find_sent(session, packet_id, 2, SLOT_PUBREL);
    if (slot == NULL) {
        return false;
    }
    finish(core, session, slot);
    return true;
}
