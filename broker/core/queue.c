/*
 * Queues: shared subscriptions that keep what nobody can take yet.
 *
 * The anchor, a session without a client, gets every message and gives it on to members that are
 * connected and have room. So all that waits stands in one place, in the order of arrival, and what
 * a member did not acknowledge finds its place there again. While something waits, no member has
 * room: who gets room takes (queue_refill), and nobody is looked for in vain (is_starved).
 */
#include "core_state.h"

enum {
    QUEUE_BACKLOG = 16, /* messages given to one member ahead of what it can send */
};

static const char group_name[] = "queue";
static const char topic_prefix[] = "$queue/";
static const char filter_prefix[] = "$share/queue/$queue/";

struct bytes queue_name(struct bytes filter)
{
    return bytes_from(filter, sizeof topic_prefix - 1);
}

bool queue_is_named(struct bytes name, struct bytes filter)
{
    return bytes_equal_string(name, group_name) &&
           bytes_start_with(filter, bytes_of_string(topic_prefix)) && queue_name(filter).len != 0 &&
           !topic_filter_has_wildcard(filter);
}

struct share_group *queue_of_anchor(const struct session *session)
{
    const struct share_member *member = session->queue_members;
    return member != NULL && member->group->anchor == member ? member->group : NULL;
}

bool queue_is_anchor(const struct share_group *group, const struct session *session)
{
    struct bytes filter =
        bytes_of(group->key + group->filter_at, (size_t)group->key_len - group->filter_at);
    return group->is_queue && bytes_equal(core_session_client_id(session), filter);
}

bool core_client_id_is_reserved(struct bytes client_id)
{
    return bytes_start_with(client_id, bytes_of_string(topic_prefix)) ||
           bytes_start_with(client_id, bytes_of_string("$stomp/"));
}

/* The client id of a queue's session, which is its topic as well, and behind it in `text` its
 * filter. */
struct queue_text {
    struct bytes topic;
    struct bytes filter;
    uint8_t text[sizeof filter_prefix + CORE_QUEUE_NAME_MAX];
};

static void name_queue(struct queue_text *out, struct bytes name)
{
    struct writer writer = writer_of(out->text, sizeof out->text);
    writer_bytes(&writer, bytes_of_string(filter_prefix));
    writer_bytes(&writer, name);
    ENSURE(writer_ok(&writer));
    out->filter = writer_written(&writer);
    out->topic = bytes_from(out->filter, sizeof filter_prefix - sizeof topic_prefix);
}

bool core_queue_exists(const struct core *core, struct bytes name)
{
    struct queue_text text;
    if (name.len == 0 || name.len > CORE_QUEUE_NAME_MAX) {
        return false;
    }
    name_queue(&text, name);
    return session_find(core, text.topic) != NULL;
}

enum status core_queue_open(struct core *core, uint64_t now_ms, struct bytes name)
{
    struct queue_text text;
    if (name.len == 0 || name.len > CORE_QUEUE_NAME_MAX || !topic_name_is_valid(name)) {
        return STATUS_INVALID;
    }
    name_queue(&text, name);
    if (session_find(core, text.topic) != NULL) {
        return STATUS_OK;
    }
    if (core->options.queues_max != 0 && core->stats.queues >= core->options.queues_max) {
        return STATUS_LIMIT;
    }
    struct session *anchor = session_create(core, text.topic, 0);
    if (anchor == NULL) {
        return STATUS_NO_MEMORY;
    }
    if (session_allow_absence(anchor) != STATUS_OK || durable_attach(core, anchor) != STATUS_OK) {
        session_forget(core, anchor);
        return STATUS_NO_MEMORY;
    }
    anchor->absence->expiry_s = CORE_SESSION_NEVER_EXPIRES;
    durable_put_session(core, anchor);
    struct core_subscribe subscribe = {.filter = text.filter, .qos = 1};
    enum mqtt_reason reason = core_subscribe(core, now_ms, anchor, &subscribe);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        session_forget(core, anchor);
        return reason == MQTT_UNSPECIFIED_ERROR      ? STATUS_NO_MEMORY
               : reason == MQTT_TOPIC_FILTER_INVALID ? STATUS_INVALID
                                                     : STATUS_LIMIT;
    }
    return STATUS_OK;
}

/* May the member's session be given one more message? */
static bool has_room(const struct core *core, const struct share_member *member)
{
    const struct session *session = member->session;
    uint32_t waiting = session_waiting(session);
    if (session->client == NULL || session->blocked || waiting >= QUEUE_BACKLOG) {
        return false;
    }
    uint32_t max = session->receive_maximum < core->options.inflight_max
                       ? session->receive_maximum
                       : core->options.inflight_max;
    return member->qos == 0 || waiting + session->quota_used < max;
}

/* Moves the first message that waits to `member`. False: nothing waits, or there is no memory. */
static bool hand_out(struct core *core, struct share_member *member)
{
    struct session *anchor = member->group->anchor->session;
    struct slot *first = session_first(anchor);
    while (first != NULL && first->kind == SLOT_PUBLISH &&
           message_is_expired(first->message, core->now_ms)) {
        core->stats.expired++;
        session_pop(core, anchor);
        first = session_first(anchor);
    }
    if (first == NULL ? session_backlog(anchor) != NULL : first->kind == SLOT_STORED) {
        (void)!spill_fetch(core, anchor); /* without memory the next call asks again */
        return false;
    }
    struct session *session = member->session;
    struct slot *slot = first == NULL ? NULL : slot_queue_push(&session->queue, &core->pool);
    if (slot == NULL) {
        return false;
    }
    *slot = *first;
    slot->qos = member->qos != 0;
    slot->identifier = member->identifier;
    slot->retain = member->retain_as_published && slot->message->retain;
    session_leave_queue(core, anchor, first);
    first->kind = SLOT_EMPTY;
    session_drop_first(core, anchor);
    anchor->shared_slots--;
    session->shared_slots++;
    session->queued_bytes += message_size(slot->message);
    core->stats.queued_bytes += message_size(slot->message);
    session_wake(core, session);
    return true;
}

/* Round robin over the connected members that have room. */
static struct share_member *choose(const struct core *core, struct share_group *group,
                                   const struct session *except)
{
    struct share_member *last = NULL;
    uint32_t start = group->turn++;
    for (uint32_t i = 0; i < group->online_count; i++) {
        struct share_member *member = group->members[(start + i) % group->online_count];
        if (!has_room(core, member)) {
            continue;
        }
        if (member->session != except) {
            return member;
        }
        last = member;
    }
    return last;
}

void queue_dispatch(struct core *core, struct share_group *group, const struct session *except)
{
    const struct session *anchor = group->anchor->session;
    while (session_waiting(anchor) != 0 && !group->is_starved) {
        struct share_member *member = choose(core, group, except);
        if (member == NULL) {
            group->is_starved = true;
        } else if (!hand_out(core, member)) {
            return;
        }
    }
}

bool queue_accept(struct core *core, struct share_group *group, struct message *message)
{
    struct session *anchor = group->anchor->session;
    if (session_is_full(core, anchor, message)) {
        return false;
    }
    uint32_t before = session_waiting(anchor);
    struct subscription entry = {.subscriber = anchor, .qos = 1};
    session_enqueue(core, anchor, message, &entry, group);
    bool accepted = session_waiting(anchor) != before;
    queue_dispatch(core, group, NULL);
    return accepted;
}

bool queue_refill(struct core *core, struct session *session)
{
    bool took = false;
    for (struct share_member *m = session->queue_members; m != NULL; m = m->next_queue) {
        if (m->group->anchor == NULL) {
            continue;
        }
        while (has_room(core, m) && hand_out(core, m)) {
            took = true;
        }
        if (has_room(core, m)) {
            m->group->is_starved = false;
        }
    }
    return took;
}

/* A slot that came to the front of a queue sinks to its place by order of arrival. */
static void sink(struct slot_queue *queue)
{
    struct slot_cursor cursor = slot_cursor_of(queue);
    struct slot *slot = slot_queue_next(queue, &cursor);
    for (struct slot *next = slot_queue_next(queue, &cursor);
         next != NULL && slot_arrival(next) < slot_arrival(slot);
         next = slot_queue_next(queue, &cursor)) {
        struct slot moved = *slot;
        *slot = *next;
        *next = moved;
        slot = next;
    }
}

/* Where a slot that comes back to the queue of `anchor` belongs, by its order of arrival: NULL when
 * there is no memory. What was in the store only and arrived before it gets a slot as well: no more
 * than what was handed out with it. */
static struct slot_queue *find_place(struct core *core, struct session *anchor, uint64_t arrival)
{
    struct session_backlog *backlog = session_backlog(anchor);
    const struct slot *first = slot_queue_first(&anchor->queue);
    if (backlog == NULL || (first != NULL && slot_arrival(first) < arrival)) {
        return &anchor->queue;
    }
    while (backlog->run.count != 0 && stored_run_first_arrival(&backlog->run) < arrival) {
        if (!session_unpack(core, anchor)) {
            return NULL;
        }
    }
    backlog->front_may_leave = true;
    return &backlog->front;
}

bool queue_put_back(struct core *core, struct session *session, struct slot *slot)
{
    bool is_from_queue = slot->is_shared && slot->group->anchor != NULL;
    struct session *to = is_from_queue ? slot->group->anchor->session : session;
    struct slot_queue *place = is_from_queue ? find_place(core, to, slot_arrival(slot)) : NULL;
    struct slot *back = !is_from_queue  ? session_unshift(core, to)
                        : place != NULL ? slot_queue_unshift(place, &core->pool)
                                        : NULL;
    if (back == NULL) {
        return false;
    }
    size_t size = message_size(slot->message);
    *back = *slot;
    back->returned = slot->returned || slot->sent_before;
    back->sent_before = 0;
    back->in_quota = 0;
    back->packet_id = 0;
    if (is_from_queue) {
        back->qos = 1;
        session->shared_slots--;
        to->shared_slots++;
    }
    if (slot->packet_id != 0) {
        session->window.ring->bytes -= size;
    } else {
        session_leave_queue(core, session, slot);
    }
    if (slot->in_quota) {
        session->quota_used--;
    }
    slot->kind = SLOT_EMPTY;
    to->queued_bytes += size;
    core->stats.queued_bytes += size;
    if (is_from_queue) {
        sink(place);
    }
    spill_session(core, to);
    return true;
}

/* Puts back a slot that came from a queue, and remembers the queue in `groups`, holding it. */
static void take_slot_back(struct core *core, struct session *session, struct slot *slot,
                           struct share_group **groups)
{
    if (slot->kind != SLOT_PUBLISH || !slot->is_shared || slot->group->anchor == NULL ||
        slot->group->anchor->session == session) {
        return;
    }
    struct share_group *group = slot->group;
    if (queue_put_back(core, session, slot) && !group->is_listed) {
        group->is_listed = true;
        group->references++;
        group->next_matched = *groups;
        *groups = group;
    }
}

void queue_take_back(struct core *core, struct session *session)
{
    if (session->shared_slots == 0) {
        return;
    }
    struct share_group *groups = NULL;
    struct session_cursor cursor = session_cursor_of(session);
    for (struct slot *slot = session_next_slot(&cursor); slot != NULL;
         slot = session_next_slot(&cursor)) {
        take_slot_back(core, session, slot, &groups);
    }
    for (uint32_t i = slot_window_count(&session->window); i != 0; i--) {
        take_slot_back(core, session, slot_window_at(&session->window, i - 1), &groups);
    }
    if (groups == NULL) {
        return;
    }
    session_compact(core, session);
    slot_window_sweep(&session->window, &core->pool);
    while (groups != NULL) {
        struct share_group *group = groups;
        groups = group->next_matched;
        group->is_listed = false;
        if (group->anchor != NULL) {
            queue_dispatch(core, group, session);
        }
        share_group_release(group);
    }
}
