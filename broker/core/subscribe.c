/* Subscriptions of a session, and the groups of shared ones (3.8, 3.10, 4.8.2). */
#include "core_state.h"

#include "mem.h"

enum {
    SHARE_CHOICES = 8,        /* members looked at for one message */
    SHARE_BACKLOG_SMALL = 16, /* with fewer messages waiting a member is as good as idle */
};

static struct bytes subscription_filter(const struct session_subscription *subscription)
{
    return bytes_of(subscription->filter, subscription->filter_len);
}

static struct bytes group_key(const struct share_group *group)
{
    return bytes_of(group->key, group->key_len);
}

static struct bytes group_filter(const struct share_group *group)
{
    return bytes_from(group_key(group), group->filter_at);
}

static bool is_group_key(const struct map_node *node, const void *key)
{
    const struct bytes *wanted = key;
    return bytes_equal(group_key((const struct share_group *)(const void *)node), *wanted);
}

static void place_member(struct share_group *group, uint32_t index, struct share_member *member)
{
    group->members[index] = member;
    member->index = index;
}

static void swap_members(struct share_group *group, uint32_t a, uint32_t b)
{
    struct share_member *member = group->members[a];
    place_member(group, a, group->members[b]);
    place_member(group, b, member);
}

void session_update_groups(struct core *core, struct session *session)
{
    if (!session->has_shared) {
        return;
    }
    for (const struct session_subscription *s = session->subscriptions; s != NULL; s = s->next) {
        if (s->member == NULL) {
            continue;
        }
        struct share_group *group = s->member->group;
        bool was_online = s->member->index < group->online_count;
        if (session->client != NULL && !was_online) {
            swap_members(group, s->member->index, group->online_count++);
            if (group->anchor != NULL) {
                group->is_starved = false;
                queue_dispatch(core, group, NULL);
            }
        } else if (session->client == NULL && was_online) {
            swap_members(group, s->member->index, --group->online_count);
        }
    }
}

/* The group of "<group>/<filter>", made and put into the trie when it is new. */
static enum status open_group(struct core *core, struct bytes key, size_t group_name_len,
                              struct share_group **out)
{
    uint64_t hash = hash_bytes(&core->options.seed, key);
    struct share_group *group =
        (struct share_group *)(void *)map_find(&core->groups, hash, is_group_key, &key);
    if (group != NULL) {
        *out = group;
        return STATUS_OK;
    }
    group = mem_zalloc(sizeof *group + key.len);
    if (group == NULL) {
        return STATUS_NO_MEMORY;
    }
    group->references = 1;
    group->number = ++core->group_number;
    group->key_len = (uint16_t)key.len;
    group->filter_at = (uint16_t)(group_name_len + 1);
    bytes_copy(group->key, key);
    group->is_queue = queue_is_named(bytes_of(group->key, group_name_len), group_filter(group));
    enum status status = map_add(&core->groups, hash, &group->node);
    if (status != STATUS_OK) {
        mem_free(group);
        return status;
    }
    struct subscription entry = {.subscriber = group, .qos = 2, .is_group = true};
    bool replaced = false;
    status = topic_trie_add(core->trie, group_filter(group), &entry, &replaced);
    if (status != STATUS_OK) {
        map_remove(&core->groups, &group->node);
        mem_free(group);
        return status;
    }
    *out = group;
    return STATUS_OK;
}

static void close_group_if_empty(struct core *core, struct share_group *group)
{
    if (group->member_count == 0) {
        ENSURE(topic_trie_remove(core->trie, group_filter(group), group) == STATUS_OK);
        map_remove(&core->groups, &group->node);
        share_group_release(group);
    }
}

/* A queue knows its anchor, and a session its queues. */
static void join_queue(struct core *core, struct share_group *group, struct share_member *member)
{
    member->next_queue = member->session->queue_members;
    member->session->queue_members = member;
    group->is_starved = false;
    if (queue_is_anchor(group, member->session)) {
        group->anchor = member;
        group->owner = member->session->number;
        core->stats.queues++;
    }
}

static void leave_queue(struct core *core, struct share_group *group, struct share_member *member)
{
    struct share_member **link = &member->session->queue_members;
    while (*link != member) {
        link = &(*link)->next_queue;
    }
    *link = member->next_queue;
    if (group->anchor == member) {
        group->anchor = NULL;
        core->stats.queues--;
    }
}

static enum status join_group(struct core *core, struct share_group *group,
                              struct session_subscription *subscription)
{
    if (group->member_count == group->capacity) {
        uint32_t capacity = group->capacity == 0 ? 4 : group->capacity * 2;
        struct share_member **members =
            mem_realloc(group->members, capacity * sizeof(struct share_member *));
        if (members == NULL) {
            return STATUS_NO_MEMORY;
        }
        group->members = members;
        group->capacity = capacity;
    }
    struct share_member *member = mem_zalloc(sizeof *member);
    if (member == NULL) {
        return STATUS_NO_MEMORY;
    }
    member->session = subscription->session;
    member->group = group;
    subscription->member = member;
    place_member(group, group->member_count++, member);
    if (member->session->client != NULL) {
        swap_members(group, member->index, group->online_count++);
    }
    if (group->is_queue) {
        join_queue(core, group, member);
    }
    return STATUS_OK;
}

static void leave_group(struct core *core, struct share_member *member)
{
    struct share_group *group = member->group;
    if (member->index < group->online_count) {
        swap_members(group, member->index, --group->online_count);
    }
    swap_members(group, member->index, --group->member_count);
    if (group->is_queue) {
        leave_queue(core, group, member);
    }
    mem_free(member);
    close_group_if_empty(core, group);
}

/* Members of a group that are alike in being connected or not. */
struct member_range {
    uint32_t first;
    uint32_t count;
};

/* The member that should get `message`: round robin, but one with a backlog lets others go first.
 * The few that are looked at first are enough unless all of them are full. NULL: nobody has room.
 */
static struct share_member *choose_member(struct core *core, struct share_group *group,
                                          struct member_range range, const struct message *message,
                                          const struct session *except)
{
    if (range.count == 0) {
        return NULL;
    }
    struct share_member *best = NULL;
    uint32_t start = group->turn++;
    for (uint32_t i = 0; i < range.count && (i < SHARE_CHOICES || best == NULL); i++) {
        struct share_member *member = group->members[range.first + (start + i) % range.count];
        struct session *session = member->session;
        if (session == except || session_is_full(core, session, message) ||
            !session_may_read(core, session, message)) {
            continue;
        }
        if (session_waiting(session) < SHARE_BACKLOG_SMALL) {
            return member;
        }
        if (best == NULL || session_waiting(session) < session_waiting(best->session)) {
            best = member;
        }
    }
    return best;
}

bool share_group_deliver(struct core *core, struct share_group *group, struct message *message,
                         const struct session *except, bool online_only)
{
    if (group->anchor != NULL) {
        return queue_accept(core, group, message);
    }
    struct member_range online = {0, group->online_count};
    struct member_range offline = {group->online_count, group->member_count - group->online_count};
    struct share_member *member = choose_member(core, group, online, message, except);
    if (member == NULL && !online_only) {
        member = choose_member(core, group, offline, message, except);
    }
    if (member == NULL) {
        return false;
    }
    struct subscription entry = {.subscriber = member->session,
                                 .identifier = member->identifier,
                                 .qos = member->qos,
                                 .retain_as_published = member->retain_as_published};
    session_enqueue(core, member->session, message, &entry, group);
    return true;
}

static bool try_hand_over(struct core *core, struct session *session, const struct slot *slot,
                          bool online_only)
{
    if (slot->kind != SLOT_PUBLISH || !slot->is_shared || slot->group->anchor != NULL ||
        !share_group_deliver(core, slot->group, slot->message, session, online_only)) {
        return false;
    }
    /* The store has a message for as long as somebody in it has: the other one is added before the
     * session's own part is finished. */
    durable_add_parts(core, slot->is_stored);
    return true;
}

void session_hand_over_shared(struct core *core, struct session *session, bool online_only)
{
    queue_take_back(core, session);
    if (session->shared_slots == 0) {
        return;
    }
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        struct slot *slot = slot_window_at(&session->window, i);
        /* A QoS 2 delivery that began must be completed with the same client [MQTT-4.8.2-4]. */
        if (slot->qos == 1 && try_hand_over(core, session, slot, online_only)) {
            slot_release(core, session, slot);
        }
    }
    slot_window_sweep(&session->window, &core->pool);
    struct session_cursor cursor = session_cursor_of(session);
    for (struct slot *slot = session_next_slot(&cursor); slot != NULL;
         slot = session_next_slot(&cursor)) {
        if (try_hand_over(core, session, slot, online_only)) {
            session_leave_queue(core, session, slot);
            slot_release(core, session, slot);
        }
    }
    session_compact(core, session);
}

struct subscription_key {
    const struct session *session;
    struct bytes filter;
};

static bool is_subscription(const struct map_node *node, const void *key)
{
    const struct session_subscription *subscription =
        (const struct session_subscription *)(const void *)node;
    const struct subscription_key *wanted = key;
    return subscription->session == wanted->session &&
           bytes_equal(subscription_filter(subscription), wanted->filter);
}

static uint64_t subscription_hash(const struct core *core, const struct session *session,
                                  struct bytes filter)
{
    return hash_bytes_salted(&core->options.seed, session->number, filter);
}

static struct session_subscription *
find_subscription(const struct core *core, const struct session *session, struct bytes filter)
{
    struct subscription_key key = {session, filter};
    return (struct session_subscription *)(void *)map_find(
        &core->subscriptions, subscription_hash(core, session, filter), is_subscription, &key);
}

/* A subscription that the session knows of and the trie does not yet. */
static struct session_subscription *create_subscription(struct core *core, struct session *session,
                                                        struct bytes filter)
{
    struct session_subscription *subscription =
        mem_zalloc(offsetof(struct session_subscription, filter) + filter.len);
    if (subscription == NULL) {
        return NULL;
    }
    subscription->session = session;
    subscription->filter_len = (uint16_t)filter.len;
    bytes_copy(subscription->filter, filter);
    if (map_add(&core->subscriptions, subscription_hash(core, session, filter),
                &subscription->node) != STATUS_OK) {
        mem_free(subscription);
        return NULL;
    }
    subscription->next = session->subscriptions;
    if (subscription->next != NULL) {
        subscription->next->previous = subscription;
    }
    session->subscriptions = subscription;
    session->subscription_count++;
    core->stats.subscriptions++;
    return subscription;
}

static void destroy_subscription(struct core *core, struct session_subscription *subscription)
{
    struct session *session = subscription->session;
    if (subscription->next != NULL) {
        subscription->next->previous = subscription->previous;
    }
    if (subscription->previous != NULL) {
        subscription->previous->next = subscription->next;
    } else {
        session->subscriptions = subscription->next;
    }
    session->subscription_count--;
    core->stats.subscriptions--;
    map_remove(&core->subscriptions, &subscription->node);
    mem_free(subscription);
}

static enum mqtt_reason reason_of(enum status status)
{
    if (status == STATUS_INVALID) {
        return MQTT_TOPIC_FILTER_INVALID;
    }
    return status == STATUS_LIMIT ? MQTT_QUOTA_EXCEEDED : MQTT_UNSPECIFIED_ERROR;
}

/* Takes a stored subscription out of the trie or its group. */
static void forget_subscription(struct core *core, struct session_subscription *subscription)
{
    scan_cancel(core, subscription);
    durable_delete_subscription(core, subscription);
    if (subscription->member != NULL) {
        leave_group(core, subscription->member);
        core->stats.shared_subscriptions--;
    } else {
        ENSURE(topic_trie_remove(core->trie, subscription_filter(subscription),
                                 subscription->session) == STATUS_OK);
    }
    destroy_subscription(core, subscription);
}

static enum status store_shared(struct core *core, struct session_subscription *subscription,
                                struct bytes key, size_t group_name_len)
{
    if (subscription->member != NULL) {
        return STATUS_OK;
    }
    struct share_group *group = NULL;
    enum status status = open_group(core, key, group_name_len, &group);
    if (status != STATUS_OK) {
        return status;
    }
    status = join_group(core, group, subscription);
    if (status != STATUS_OK) {
        close_group_if_empty(core, group);
        return status;
    }
    subscription->session->has_shared = true;
    core->stats.shared_subscriptions++;
    return STATUS_OK;
}

static enum status store_own(struct core *core, struct session *session,
                             const struct core_subscribe *subscribe, uint8_t qos)
{
    struct subscription entry = {.subscriber = session,
                                 .identifier = subscribe->identifier,
                                 .qos = qos,
                                 .no_local = subscribe->no_local,
                                 .retain_as_published = subscribe->retain_as_published};
    bool replaced = false;
    return topic_trie_add(core->trie, subscribe->filter, &entry, &replaced);
}

/* A filter taken apart (4.8.2). */
struct parsed_filter {
    bool is_shared;
    struct bytes group_name;
    struct bytes filter;
};

static bool parse_filter(const struct core *core, struct bytes sent, struct parsed_filter *out)
{
    bool valid = false;
    *out = (struct parsed_filter){.filter = sent};
    out->is_shared = topic_filter_split_shared(sent, &out->group_name, &out->filter, &valid);
    return (out->is_shared ? valid : topic_filter_is_valid(sent)) &&
           topic_level_count(out->filter) <= core->options.topic_levels_max;
}

static enum status store(struct core *core, struct session_subscription *subscription,
                         const struct parsed_filter *parsed, const struct core_subscribe *subscribe,
                         uint8_t qos)
{
    if (!parsed->is_shared) {
        return store_own(core, subscription->session, subscribe, qos);
    }
    struct bytes key =
        bytes_of(parsed->group_name.data, parsed->group_name.len + 1 + parsed->filter.len);
    return store_shared(core, subscription, key, parsed->group_name.len);
}

/* True when retained messages are to be sent (3.8.3.1), and there are any. */
static bool wants_retained(const struct core *core, const struct parsed_filter *parsed,
                           const struct core_subscribe *subscribe, bool is_new)
{
    return !parsed->is_shared && retained_count(core->retained) != 0 &&
           (subscribe->retain_handling == 0 || (subscribe->retain_handling == 1 && is_new));
}

/* The limits that a subscription can meet, before anything is changed. */
static bool is_within_limits(const struct core *core, const struct session *session, bool is_new,
                             bool with_retained)
{
    const struct core_options *options = &core->options;
    return (!is_new || options->subscriptions_max == 0 ||
            session->subscription_count < options->subscriptions_max) &&
           (!with_retained || options->queued_messages_max == 0 ||
            session_waiting(session) < options->queued_messages_max);
}

enum mqtt_reason core_subscribe(struct core *core, uint64_t now_ms, struct session *session,
                                const struct core_subscribe *subscribe)
{
    core->now_ms = now_ms;
    core->ticket = 0;
    struct parsed_filter parsed;
    if (!parse_filter(core, subscribe->filter, &parsed)) {
        return MQTT_TOPIC_FILTER_INVALID;
    }
    if (durable_is_full(core) && session->is_durable) {
        return MQTT_QUOTA_EXCEEDED;
    }
    uint8_t qos = subscribe->qos < core->options.qos_max ? subscribe->qos : core->options.qos_max;
    struct session_subscription *entry = find_subscription(core, session, subscribe->filter);
    bool is_new = entry == NULL;
    if (parsed.is_shared && queue_is_named(parsed.group_name, parsed.filter)) {
        enum status opened = core_queue_open(core, now_ms, queue_name(parsed.filter));
        if (opened != STATUS_OK) {
            return reason_of(opened);
        }
    }
    bool with_retained = wants_retained(core, &parsed, subscribe, is_new);
    if (!is_within_limits(core, session, is_new, with_retained)) {
        return MQTT_QUOTA_EXCEEDED;
    }
    if (is_new) {
        entry = create_subscription(core, session, subscribe->filter);
        if (entry == NULL) {
            return MQTT_UNSPECIFIED_ERROR;
        }
    }
    enum status status = store(core, entry, &parsed, subscribe, qos);
    if (status != STATUS_OK) {
        if (is_new) {
            destroy_subscription(core, entry);
        }
        return reason_of(status);
    }
    if (entry->member != NULL) {
        entry->member->identifier = subscribe->identifier;
        entry->member->qos = qos;
        entry->member->retain_as_published = subscribe->retain_as_published;
        if (entry->member->group->anchor != NULL) {
            queue_dispatch(core, entry->member->group, NULL);
        }
    }
    if (with_retained) {
        if (!is_new) { /* a SUBSCRIBE of thousands must not walk the scans of those before each */
            scan_cancel(core, entry);
        }
        if (!scan_open(core, entry, subscribe, qos)) {
            if (is_new) {
                forget_subscription(core, entry);
            }
            return MQTT_UNSPECIFIED_ERROR;
        }
    }
    durable_put_subscription(core, entry, with_retained);
    if (session->is_durable) {
        durable_hold_answer(core);
    }
    return (enum mqtt_reason)qos;
}

bool core_is_subscribed(const struct core *core, const struct session *session, struct bytes filter)
{
    return find_subscription(core, session, filter) != NULL;
}

enum mqtt_reason core_unsubscribe(struct core *core, struct session *session, struct bytes filter)
{
    core->ticket = 0;
    struct parsed_filter parsed;
    if (!parse_filter(core, filter, &parsed)) {
        return MQTT_TOPIC_FILTER_INVALID;
    }
    struct session_subscription *subscription = find_subscription(core, session, filter);
    if (subscription == NULL) {
        return MQTT_NO_SUBSCRIPTION_EXISTED;
    }
    forget_subscription(core, subscription);
    if (session->is_durable) {
        durable_hold_answer(core);
    }
    return MQTT_SUCCESS;
}

void session_drop_subscriptions(struct core *core, struct session *session)
{
    while (session->subscriptions != NULL) {
        forget_subscription(core, session->subscriptions);
    }
}
