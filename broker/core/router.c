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
            route.refused |= group->is_queue;
        }
    }
    if (route.refused) {
        return MQTT_QUOTA_EXCEEDED;
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
    return id_set_count(&session->unreleased);
}

bool core_is_unreleased(const struct session *session, uint16_t packet_id)
{
    return id_set_has(&session->unreleased, packet_id);
}
