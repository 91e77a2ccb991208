/* From a published message to the sessions that want it. */
#include "core_state.h"

struct route {
    struct core *core;
    struct message *message;
    const struct session *from;
    struct share_group *groups; /* matched; served after the ordinary subscriptions */
    bool matched;
    bool refused; /* by a queue that is full */
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
    if (!session_may_read(route->core, session, route->message)) {
        return;
    }
    route->matched = true;
    session_enqueue(route->core, session, route->message, subscription, NULL);
}

bool core_accepts_topic(const struct core *core, struct bytes topic)
{
    uint32_t max = core->options.topic_levels_max;
    return topic.len < max || topic_level_count(topic) <= max; /* a short one need not be counted */
}

/* Brings the message to all who want it. With `packet_id` it is a QoS 2 exchange of `from`. */
static enum mqtt_reason publish(struct core *core, uint64_t now_ms, struct session *from,
                                uint16_t packet_id, struct message *message)
{
    core->now_ms = now_ms;
    if (!core_accepts_topic(core, message_topic(message))) {
        return MQTT_TOPIC_NAME_INVALID;
    }
    if (durable_refuses(core, message)) {
        return MQTT_QUOTA_EXCEEDED;
    }
    message->sequence = ++core->sequence;
    message->publisher_id = from == NULL ? 0 : from->number;
    if (message->retain && retained_set(core->retained, message) != STATUS_OK) {
        return MQTT_QUOTA_EXCEEDED;
    }
    core->stats.published++;
    core->matched = 0;
    struct route route = {.core = core, .message = message, .from = from};
    topic_trie_match(core->trie, message_topic(message), on_match, &route);
    while (route.groups != NULL) {
        struct share_group *group = route.groups;
        route.groups = group->next_matched;
        if (!share_group_deliver(core, group, message, NULL, false)) {
            core->stats.dropped++;
            route.refused |= group->is_queue;
        }
    }
    if (!durable_append(core, from, packet_id, message) || route.refused) {
        return MQTT_QUOTA_EXCEEDED;
    }
    return route.matched ? MQTT_SUCCESS : MQTT_NO_MATCHING_SUBSCRIBERS;
}

enum mqtt_reason router_publish(struct core *core, uint64_t now_ms, struct session *from,
                                struct message *message)
{
    return publish(core, now_ms, from, 0, message);
}

enum mqtt_reason core_publish(struct core *core, uint64_t now_ms, struct session *from,
                              struct message *message)
{
    core->ticket = 0;
    return publish(core, now_ms, from, 0, message);
}

enum mqtt_reason core_publish_qos2(struct core *core, uint64_t now_ms, struct session *from,
                                   uint16_t packet_id, struct message *message)
{
    core->ticket = 0;
    if (id_set_has(&from->unreleased, packet_id)) {
        durable_hold_answer(core); /* the first one may be on its way to the store */
        return MQTT_SUCCESS;
    }
    if (id_set_add(&from->unreleased, packet_id, 0) != STATUS_OK) {
        return MQTT_QUOTA_EXCEEDED;
    }
    enum mqtt_reason reason = publish(core, now_ms, from, packet_id, message);
    if (reason >= MQTT_UNSPECIFIED_ERROR) {
        /* A PUBREC that refuses ends the exchange: the identifier is free (4.3.3). */
        uint64_t arrival;
        (void)id_set_remove(&from->unreleased, packet_id, &arrival);
        if (message->is_stored && from->is_durable) {
            durable_finish_part(core, message->sequence, STORE_SENDER, from->number);
        }
    } else if (message->is_stored && from->is_durable) {
        id_set_assign(&from->unreleased, packet_id, message->sequence);
    }
    return reason;
}

bool core_release(struct core *core, struct session *session, uint16_t packet_id)
{
    core->ticket = 0;
    uint64_t arrival = 0;
    if (!id_set_remove(&session->unreleased, packet_id, &arrival)) {
        durable_hold_answer(core); /* a repetition is answered no earlier */
        return false;
    }
    if (arrival != 0) {
        durable_finish_part(core, arrival, STORE_SENDER, session->number);
        durable_hold_answer(core);
    }
    return true;
}

size_t core_unreleased_count(const struct session *session)
{
    return id_set_count(&session->unreleased);
}

bool core_is_unreleased(const struct session *session, uint16_t packet_id)
{
    return id_set_has(&session->unreleased, packet_id);
}
