/* From a published message to the queues of the sessions that want it. */
#include "core_state.h"

#include "mem.h"

void session_wake(struct core *core, struct session *session)
{
    if (session->client != NULL && !session->output_pending && !session->blocked) {
        session->output_pending = true;
        core->effects.output_ready(core->effects.ctx, session->client);
    }
}

void slot_release_message(struct session *session, struct slot *slot)
{
    if (slot->packet_id != 0) {
        session->inflight_bytes -= message_size(slot->message);
    }
    message_release(slot->message);
    slot->message = NULL;
}

void slot_release(struct core *core, struct session *session, struct slot *slot)
{
    switch ((enum slot_kind)slot->kind) {
    case SLOT_EMPTY:
        return;
    case SLOT_SCAN:
        session->scans--;
        retained_cursor_close(slot->scan->cursor);
        mem_free(slot->scan);
        slot->kind = SLOT_EMPTY;
        return;
    case SLOT_PUBLISH:
        slot_release_message(session, slot);
        break;
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

static bool is_over_limit(const struct core *core, const struct session *session,
                          const struct message *message)
{
    const struct core_options *options = &core->options;
    return (options->queued_messages_max != 0 &&
            session->queue.count >= options->queued_messages_max) ||
           (options->queued_bytes_max != 0 && session->queue.count != 0 &&
            session->queued_bytes + message_size(message) > options->queued_bytes_max);
}

bool session_is_full(struct core *core, struct session *session, const struct message *message)
{
    while (is_over_limit(core, session, message)) {
        const struct slot *first = slot_queue_first(&session->queue);
        if (first->kind != SLOT_PUBLISH || !message_is_expired(first->message, core->now_ms)) {
            return true;
        }
        core->stats.expired++;
        session_pop(core, session);
    }
    return false;
}

void session_enqueue(struct core *core, struct session *session, struct message *message,
                     const struct subscription *subscription, struct share_group *group)
{
    uint8_t qos = delivery_qos(core, message->qos, subscription->qos);
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
    if (session->client == NULL && qos == 0 && !core->options.queue_qos0) {
        return;
    }
    struct slot *slot = NULL;
    if (!session_is_full(core, session, message)) {
        slot = slot_queue_push(&session->queue, &core->pool);
    }
    if (slot == NULL) {
        core->stats.dropped++;
        return;
    }
    slot->kind = SLOT_PUBLISH;
    slot->message = message_hold(message);
    slot->qos = qos & 3U;
    slot->retain = retain;
    slot->identifier = subscription->identifier;
    if (group != NULL) {
        slot->is_shared = 1;
        slot->group = group;
        group->references++;
        session->shared_slots++;
    }
    session->queued_bytes += message_size(message);
    core->stats.queued_bytes += message_size(message);
    core->stats.queued_messages++;
    session_wake(core, session);
}

struct route {
    struct core *core;
    struct message *message;
    const struct session *from;
    struct share_group *groups; /* matched; served after the ordinary subscriptions */
    bool matched;
};

static void on_match(void *ctx, const struct subscription *subscription)
{
    struct route *route = ctx;
    if (subscription->is_group) {
        struct share_group *group = subscription->subscriber;
        group->next_matched = route->groups;
        route->groups = group;
        route->matched = true;
        return;
    }
    struct session *session = subscription->subscriber;
    if (subscription->no_local && session == route->from) {
        return; /* [MQTT-3.8.3-3] */
    }
    route->matched = true;
    session_enqueue(route->core, session, route->message, subscription, NULL);
}

bool core_accepts_topic(const struct core *core, struct bytes topic)
{
    return topic_level_count(topic) <= core->options.topic_levels_max;
}

enum mqtt_reason core_publish(struct core *core, uint64_t now_ms, struct session *from,
                              struct message *message)
{
    core->now_ms = now_ms;
    if (!core_accepts_topic(core, message_topic(message))) {
        return MQTT_TOPIC_NAME_INVALID;
    }
    message->sequence = ++core->sequence;
    message->publisher_id = from == NULL ? 0 : from->number;
    if (message->retain && retained_set(core->retained, message) != STATUS_OK) {
        return MQTT_QUOTA_EXCEEDED;
    }
    core->stats.published++;
    struct route route = {.core = core, .message = message, .from = from};
    topic_trie_match(core->trie, message_topic(message), on_match, &route);
    while (route.groups != NULL) {
        struct share_group *group = route.groups;
        route.groups = group->next_matched;
        if (!share_group_deliver(core, group, message, NULL, false)) {
            core->stats.dropped++;
        }
    }
    return route.matched ? MQTT_SUCCESS : MQTT_NO_MATCHING_SUBSCRIBERS;
}

enum mqtt_reason core_publish_qos2(struct core *core, uint64_t now_ms, struct session *from,
                                   uint16_t packet_id, struct message *message)
{
    if (id_set_has(&from->unreleased, packet_id)) {
        return MQTT_SUCCESS;
    }
    if (id_set_add(&from->unreleased, packet_id) != STATUS_OK) {
        return MQTT_QUOTA_EXCEEDED;
    }
    enum mqtt_reason reason = core_publish(core, now_ms, from, message);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        /* A PUBREC that refuses ends the exchange: the identifier is free (4.3.3). */
        (void)id_set_remove(&from->unreleased, packet_id);
    }
    return reason;
}

bool core_release(struct session *session, uint16_t packet_id)
{
    return id_set_remove(&session->unreleased, packet_id);
}

size_t core_unreleased_count(const struct session *session)
{
    return session->unreleased.count;
}

bool core_is_unreleased(const struct session *session, uint16_t packet_id)
{
    return id_set_has(&session->unreleased, packet_id);
}
