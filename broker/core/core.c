#include "core_state.h"

#include "mem.h"

enum { SWEEP_INTERVAL_MS = 1000, SWEEP_BUDGET = 2000 };

struct core_options core_options_default(void)
{
    return (struct core_options){
        .seed = {0, 0},
        .queued_messages_max = 10000,
        .queued_bytes_max = (size_t)32 << 20,
        .inflight_max = 100,
        .subscriptions_max = 10000,
        .queues_max = 100000,
        .topic_nodes_max = (size_t)16 << 20,
        .topic_levels_max = TOPIC_LEVELS_MAX,
        .session_expiry_max_s = CORE_SESSION_NEVER_EXPIRES,
        .qos_max = 2,
    };
}

/* A message is no longer the retained one of its topic. */
static void forget_retained(void *ctx, const struct message *message)
{
    struct core *core = ctx;
    if (message->is_stored) {
        durable_finish_part(core, message->sequence, STORE_RETAINED, 0);
        durable_hold_answer(core);
    }
}

enum status core_create(const struct core_options *options, const struct core_effects *effects,
                        uint64_t now_ms, struct core **out)
{
    *out = NULL;
    struct core *core = mem_zalloc(sizeof *core);
    if (core == NULL) {
        return STATUS_NO_MEMORY;
    }
    core->effects = *effects;
    core->options.seed = options->seed;
    core_configure(core, options);
    map_init(&core->sessions);
    map_init(&core->subscriptions);
    map_init(&core->groups);
    map_init(&core->durables);
    timer_wheel_init(&core->wheel, now_ms);
    core->sweep_at_ms = now_ms + SWEEP_INTERVAL_MS;
    enum status status = topic_trie_create(&options->seed, options->topic_nodes_max, &core->trie);
    if (status == STATUS_OK) {
        status = retained_create(&options->seed, options->topic_nodes_max, forget_retained, core,
                                 &core->retained);
    }
    if (status != STATUS_OK) {
        core_destroy(core);
        return status;
    }
    *out = core;
    return STATUS_OK;
}

void core_configure(struct core *core, const struct core_options *options)
{
    struct hash_seed seed = core->options.seed;
    core->options = *options;
    core->options.seed = seed;
    if (core->options.inflight_max == 0) {
        core->options.inflight_max = UINT16_MAX;
    }
}

static void destroy_session(void *ctx, struct map_node *node)
{
    struct core *core = ctx;
    struct session *session = (struct session *)(void *)node;
    session_forget(core, session);
}

void core_destroy(struct core *core)
{
    if (core == NULL) {
        return;
    }
    core_end_loan(core);
    core->store = NULL; /* what ends with the process goes on in the store */
    map_each(&core->sessions, destroy_session, core);
    map_fini(&core->sessions);
    ENSURE(core->groups.count == 0 && core->subscriptions.count == 0);
    map_fini(&core->groups);
    map_fini(&core->subscriptions);
    topic_trie_destroy(core->trie);
    retained_destroy(core->retained);
    durable_fini(core);
    slot_pool_fini(&core->pool);
    mem_free(core);
}

struct core_stats core_stats(const struct core *core)
{
    struct core_stats stats = core->stats;
    stats.sessions = core->sessions.count;
    stats.retained_messages = retained_count(core->retained);
    stats.retained_bytes = retained_bytes(core->retained);
    return stats;
}

uint64_t core_next_deadline_ms(const struct core *core)
{
    uint64_t next_ms = timer_wheel_next_ms(&core->wheel);
    if (retained_count(core->retained) != 0 && core->sweep_at_ms < next_ms) {
        next_ms = core->sweep_at_ms;
    }
    return next_ms;
}

struct advance {
    struct core *core;
    uint64_t now_ms;
};

static void fire(void *ctx, struct timer *timer)
{
    const struct advance *advance = ctx;
    struct session_absence *absence =
        (struct session_absence *)(void *)((char *)timer - offsetof(struct session_absence, timer));
    session_on_timer(advance->core, advance->now_ms, absence);
}

void core_advance(struct core *core, uint64_t now_ms)
{
    struct advance advance = {core, now_ms};
    timer_wheel_advance(&core->wheel, now_ms, fire, &advance);
    if (now_ms >= core->sweep_at_ms) {
        (void)retained_sweep(core->retained, SWEEP_BUDGET, now_ms);
        core->sweep_at_ms = now_ms + SWEEP_INTERVAL_MS;
    }
}

struct message *core_retained(struct core *core, uint64_t now_ms, struct bytes topic)
{
    return retained_get(core->retained, topic, now_ms);
}

/* Adds up what the counters should say. */
struct totals {
    const struct core *core;
    uint64_t connected, slots, bytes, subscriptions, shared, queues;
};

static void check_slot(struct totals *totals, const struct slot *slot, uint32_t *shared_slots)
{
    if (slot->kind == SLOT_EMPTY || slot->kind == SLOT_SCAN) {
        return;
    }
    totals->slots++;
    if (slot->is_shared) {
        (*shared_slots)++;
    }
}

/* All that waits, in order: the front, the entries of the run, the queue. */
struct waiting {
    const struct session *session;
    const struct slot_queue *queue; /* that `slots` walks */
    struct slot_cursor slots;
    struct stored_cursor entries;
    struct slot entry;
};

static struct waiting waiting_of(const struct session *session)
{
    const struct session_backlog *backlog = session_backlog(session);
    struct waiting waiting = {.session = session, .queue = &session->queue};
    if (backlog != NULL) {
        ENSURE(backlog->front.count != 0 || backlog->run.count != 0);
        waiting.queue = &backlog->front;
        waiting.entries = stored_cursor_of(&backlog->run);
    }
    waiting.slots = slot_cursor_of(waiting.queue);
    return waiting;
}

static const struct slot *waiting_next(struct waiting *waiting)
{
    const struct slot *slot = slot_queue_next(waiting->queue, &waiting->slots);
    if (slot != NULL) {
        return slot;
    }
    if (stored_run_next(&waiting->entries, &waiting->entry)) {
        return &waiting->entry;
    }
    if (waiting->queue == &waiting->session->queue) {
        return NULL;
    }
    waiting->queue = &waiting->session->queue;
    waiting->slots = slot_cursor_of(waiting->queue);
    return slot_queue_next(waiting->queue, &waiting->slots);
}

/* A queue keeps the order of arrival, whatever has come back to it. */
static void check_queue(const struct session *session)
{
    ENSURE(session->client == NULL && slot_window_count(&session->window) == 0);
    uint64_t sequence = 0;
    struct waiting waiting = waiting_of(session);
    for (const struct slot *slot = waiting_next(&waiting); slot != NULL;
         slot = waiting_next(&waiting)) {
        ENSURE((slot->kind == SLOT_PUBLISH || slot->kind == SLOT_STORED) && slot->is_shared &&
               slot->qos == 1);
        ENSURE(slot_arrival(slot) > sequence);
        sequence = slot_arrival(slot);
    }
}

static void check_session(void *ctx, struct map_node *node)
{
    struct totals *totals = ctx;
    const struct session *session = (const struct session *)(void *)node;
    uint32_t subscriptions = 0;
    uint32_t shared = 0;
    uint32_t queue_members = 0;
    for (const struct session_subscription *s = session->subscriptions; s != NULL; s = s->next) {
        subscriptions++;
        if (s->member != NULL) {
            const struct share_member *member = s->member;
            shared++;
            ENSURE(member->session == session && member->group->members[member->index] == member);
            ENSURE((member->index < member->group->online_count) == (session->client != NULL));
            queue_members += member->group->is_queue;
            if (member->group->anchor == member) {
                totals->queues++;
                check_queue(session);
            }
        }
    }
    for (const struct share_member *m = session->queue_members; m != NULL; m = m->next_queue) {
        ENSURE(m->session == session && m->group->is_queue && queue_members != 0);
        queue_members--;
    }
    ENSURE(queue_members == 0);
    ENSURE(subscriptions == session->subscription_count && (shared == 0 || session->has_shared));
    ENSURE(!session->is_durable || session->absence->durable->session == session);
    uint32_t shared_slots = 0;
    size_t bytes = 0;
    uint32_t scans = 0;
    uint32_t waits = 0;
    struct waiting waiting = waiting_of(session);
    for (const struct slot *slot = waiting_next(&waiting); slot != NULL;
         slot = waiting_next(&waiting)) {
        ENSURE(slot->kind != SLOT_EMPTY);
        waits++;
        if (slot->kind == SLOT_SCAN) {
            scans++;
            totals->slots += slot->scan->found.count;
        }
        check_slot(totals, slot, &shared_slots);
        bytes += slot->kind == SLOT_SCAN ? 0 : slot_bytes(slot);
    }
    ENSURE(scans == session->scans && waits == session_waiting(session));
    uint32_t in_quota = 0;
    size_t in_window = 0;
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        const struct slot *slot = slot_window_at(&session->window, i);
        check_slot(totals, slot, &shared_slots);
        in_quota += slot->kind != SLOT_EMPTY && slot->in_quota;
        in_window += slot->kind == SLOT_PUBLISH ? message_size(slot->message) : 0;
    }
    ENSURE(bytes == session->queued_bytes && shared_slots == session->shared_slots);
    ENSURE(in_quota == session->quota_used && in_window == slot_window_bytes(&session->window));
    ENSURE(session->window.sent <= slot_window_count(&session->window));
    totals->bytes += bytes;
    totals->connected += session->client != NULL;
    totals->subscriptions += subscriptions;
    totals->shared += shared;
}

void core_check(const struct core *core)
{
    topic_trie_check(core->trie);
    retained_check(core->retained);
    struct totals totals = {.core = core};
    struct map sessions = core->sessions;
    map_each(&sessions, check_session, &totals);
    ENSURE(totals.connected == core->stats.sessions_connected);
    ENSURE(totals.slots == core->stats.queued_messages);
    ENSURE(totals.bytes == core->stats.queued_bytes);
    ENSURE(totals.subscriptions == core->stats.subscriptions);
    ENSURE(totals.shared == core->stats.shared_subscriptions);
    ENSURE(totals.queues == core->stats.queues);
}
