/* Sessions: opened, resumed, taken over, left, expired; and their wills
 * (3.1.2.4, 3.1.2.5, 3.1.2.11.2, 4.1). */
#include "core_state.h"

#include "mem.h"

static bool is_client_id(const struct map_node *node, const void *key)
{
    const struct session *session = (const struct session *)(const void *)node;
    const struct bytes *client_id = key;
    return bytes_equal(core_session_client_id(session), *client_id);
}

struct session *session_find(const struct core *core, struct bytes client_id)
{
    uint64_t hash = hash_bytes(&core->options.seed, client_id);
    return (struct session *)(void *)map_find(&core->sessions, hash, is_client_id, &client_id);
}

struct bytes core_session_client_id(const struct session *session)
{
    return bytes_of(session->client_id, session->client_id_len);
}

uint64_t core_session_number(const struct session *session)
{
    return session->number;
}

uint32_t core_session_expiry_s(const struct session *session)
{
    return session->absence == NULL ? 0 : session->absence->expiry_s;
}

static uint32_t granted_expiry_s(const struct core *core, uint32_t wish_s)
{
    uint32_t max_s = core->options.session_expiry_max_s;
    return wish_s < max_s ? wish_s : max_s;
}

void core_session_set_expiry(struct core *core, struct session *session, uint32_t expiry_s)
{
    if (core_session_expiry_s(session) != 0) {
        session->absence->expiry_s = granted_expiry_s(core, expiry_s);
    }
}

static void free_will(struct session_will *will)
{
    if (will != NULL) {
        message_release(will->will.message);
        mem_free(will);
    }
}

void core_session_set_reader(struct session *session, struct shared *reader)
{
    struct shared *before = session->reader;
    session->reader = reader == NULL ? NULL : shared_hold(reader);
    shared_release(before);
}

static void drop_will(struct session *session)
{
    if (session->absence != NULL) {
        free_will(session->absence->will);
        session->absence->will = NULL;
    }
}

static void publish_will(struct core *core, uint64_t now_ms, struct session *session)
{
    if (session->absence == NULL || session->absence->will == NULL) {
        return;
    }
    struct session_will *will = session->absence->will;
    session->absence->will = NULL;
    struct message *message = will->will.message;
    if (will->will.has_expiry) {
        message->expires_at_ms = now_ms + UINT64_C(1000) * will->will.expiry_s;
    }
    if (router_publish(core, now_ms, session, message) >= MQTT_UNSPECIFIED_ERROR) {
        core->stats.dropped++;
    }
    message_release(message);
    mem_free(will);
}

enum status session_allow_absence(struct session *session)
{
    if (session->absence == NULL) {
        session->absence = mem_zalloc(sizeof *session->absence);
        if (session->absence == NULL) {
            return STATUS_NO_MEMORY;
        }
        session->absence->session = session;
        session->absence->expires_at_ms = TIMER_NEVER;
    }
    return STATUS_OK;
}

static void forget_absence(struct core *core, struct session *session)
{
    if (session->absence != NULL) {
        timer_cancel(&core->wheel, &session->absence->timer);
        drop_will(session);
        mem_free(session->absence);
    }
}

/* Ends the session's memory. Sends nothing. */
void session_forget(struct core *core, struct session *session)
{
    if (session->client != NULL) {
        core->stats.sessions_connected--;
        session->client = NULL;
        session_update_groups(core, session);
    }
    session_drop_subscriptions(core, session);
    core_session_set_reader(session, NULL);
    session_clear_queue(core, session);
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        slot_release(core, session, slot_window_at(&session->window, i));
    }
    slot_window_fini(&session->window, &core->pool);
    uint16_t packet_id;
    uint64_t arrival;
    while (id_set_pop(&session->unreleased, &packet_id, &arrival)) {
        if (arrival != 0) {
            durable_finish_part(core, arrival, STORE_SENDER, session->number);
        }
    }
    id_set_fini(&session->unreleased);
    durable_detach(core, session);
    forget_absence(core, session);
    map_remove(&core->sessions, &session->node);
    mem_free(session);
}

/* Ends a session whose client is gone: its will is due now at the latest, shared messages go to
 * others. */
static void end_session(struct core *core, uint64_t now_ms, struct session *session)
{
    publish_will(core, now_ms, session);
    session_hand_over_shared(core, session, false);
    session_forget(core, session);
}

void session_arm_timer(struct core *core, struct session *session)
{
    struct session_absence *absence = session->absence;
    uint64_t at_ms = absence->expires_at_ms;
    if (absence->will != NULL && absence->will->due_at_ms < at_ms) {
        at_ms = absence->will->due_at_ms;
    }
    timer_arm(&core->wheel, &absence->timer, at_ms);
}

void session_on_timer(struct core *core, uint64_t now_ms, struct session_absence *absence)
{
    struct session *session = absence->session;
    if (now_ms >= absence->expires_at_ms) {
        core->stats.sessions_expired++;
        end_session(core, now_ms, session);
        return;
    }
    if (absence->will != NULL && now_ms >= absence->will->due_at_ms) {
        publish_will(core, now_ms, session);
        durable_put_session(core, session);
    }
    session_arm_timer(core, session);
}

void core_disconnect(struct core *core, uint64_t now_ms, struct session *session, bool with_will)
{
    ENSURE(session->client != NULL);
    core->now_ms = now_ms;
    session->client = NULL;
    session->output_pending = false;
    session->blocked = false;
    core->stats.sessions_connected--;
    session_update_groups(core, session);
    if (!with_will) {
        drop_will(session);
    }
    if (core_session_expiry_s(session) == 0) {
        end_session(core, now_ms, session);
        return;
    }
    struct session_absence *absence = session->absence;
    session_hand_over_shared(core, session, true);
    spill_drop_qos0(core, session);
    absence->expires_at_ms = absence->expiry_s == CORE_SESSION_NEVER_EXPIRES
                                 ? TIMER_NEVER
                                 : now_ms + UINT64_C(1000) * absence->expiry_s;
    if (absence->will != NULL) {
        if (absence->will->will.delay_s == 0) {
            publish_will(core, now_ms, session);
        } else {
            absence->will->due_at_ms = now_ms + UINT64_C(1000) * absence->will->will.delay_s;
        }
    }
    durable_put_session(core, session);
    spill_session(core, session);
    session_arm_timer(core, session);
}

void core_begin_end(struct core *core)
{
    core->is_ending = true;
}

struct session *session_create(struct core *core, struct bytes client_id, uint64_t number)
{
    struct session *session = mem_zalloc(offsetof(struct session, client_id) + client_id.len);
    if (session == NULL) {
        return NULL;
    }
    session->client_id_len = (uint16_t)client_id.len;
    bytes_copy(session->client_id, client_id);
    session->number = number != 0 ? number : core->session_number + 1;
    if (core->session_number < session->number) {
        core->session_number = session->number;
    }
    uint64_t hash = hash_bytes(&core->options.seed, client_id);
    if (map_add(&core->sessions, hash, &session->node) != STATUS_OK) {
        mem_free(session);
        return NULL;
    }
    return session;
}

/* What is in flight is sent again from the oldest on [MQTT-4.4.0-1]; nothing counts against the new
 * quota yet. */
static void resume(struct session *session)
{
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        slot_window_at(&session->window, i)->in_quota = false;
    }
    session->quota_used = 0;
    session->window.sent = 0;
}

/* The client is there: nothing is due before it leaves, and then what it has said now. */
static void end_absence(struct core *core, struct session *session, uint32_t expiry_s,
                        struct session_will *will)
{
    struct session_absence *absence = session->absence;
    if (absence != NULL) {
        drop_will(session); /* a delayed one of the connection before: its client is back in time
                               (3.1.3.2.2) */
        absence->will = will;
        timer_cancel(&core->wheel, &absence->timer);
        absence->expires_at_ms = TIMER_NEVER;
        absence->expiry_s = expiry_s;
    }
}

/* Whoever held the client id goes. Returns the session that goes on, or NULL. */
static struct session *take_over(struct core *core, uint64_t now_ms,
                                 const struct core_connect *connect)
{
    struct session *session = session_find(core, connect->client_id);
    if (session != NULL && session->client != NULL) {
        core->effects.session_lost(core->effects.ctx, session->client, MQTT_SESSION_TAKEN_OVER);
        core_disconnect(core, now_ms, session, true);
        session = session_find(core, connect->client_id);
    }
    if (session != NULL && connect->clean_start) {
        end_session(core, now_ms, session);
        session = NULL;
    }
    return session;
}

/* No memory for a connection: a session that was made for it goes again. */
static void abandon(struct core *core, struct session *session, bool is_older,
                    struct session_will *will)
{
    free_will(will);
    if (!is_older) {
        session_forget(core, session);
    }
}

enum status core_connect(struct core *core, uint64_t now_ms, const struct core_connect *connect,
                         struct session **out, bool *session_present)
{
    ENSURE(connect->client_id.len != 0 && connect->client_id.len <= UINT16_MAX);
    *out = NULL;
    core->ticket = 0;
    uint64_t changes = core->changes;
    struct session *session = take_over(core, now_ms, connect);
    *session_present = session != NULL;
    struct session_will *will = NULL;
    if (connect->will != NULL) {
        will = mem_alloc(sizeof *will);
        if (will == NULL) {
            message_release(connect->will->message);
            return STATUS_NO_MEMORY;
        }
        *will = (struct session_will){*connect->will, TIMER_NEVER};
    }
    uint32_t expiry_s = granted_expiry_s(core, connect->session_expiry_s);
    if (session == NULL && expiry_s != 0 && durable_is_full(core)) {
        free_will(will);
        return STATUS_LIMIT;
    }
    if (session == NULL) {
        session = session_create(core, connect->client_id, 0);
        if (session == NULL) {
            free_will(will);
            return STATUS_NO_MEMORY;
        }
    }
    if (((expiry_s != 0 || will != NULL) && session_allow_absence(session) != STATUS_OK) ||
        (expiry_s != 0 && durable_attach(core, session) != STATUS_OK)) {
        abandon(core, session, *session_present, will);
        return STATUS_NO_MEMORY;
    }
    end_absence(core, session, expiry_s, will);
    core_session_set_reader(session, connect->reader);
    session->receive_maximum = connect->receive_maximum;
    session->client = connect->client;
    resume(session);
    core->stats.sessions_connected++;
    if (core->stats.sessions_connected > core->stats.sessions_connected_max) {
        core->stats.sessions_connected_max = core->stats.sessions_connected;
    }
    session_update_groups(core, session);
    durable_put_session(core, session);
    if (core->changes != changes) {
        durable_hold_answer(core);
    }
    if (session_waiting(session) != 0 || slot_window_count(&session->window) != 0) {
        session_wake(core, session);
    }
    *out = session;
    return STATUS_OK;
}

enum status core_end_session(struct core *core, uint64_t now_ms, struct bytes client_id,
                             enum mqtt_reason reason)
{
    struct session *session = session_find(core, client_id);
    if (session == NULL) {
        return STATUS_NOT_FOUND;
    }
    if (session->client != NULL) {
        core->effects.session_lost(core->effects.ctx, session->client, reason);
        core_session_set_expiry(core, session, 0);
        core_disconnect(core, now_ms, session, true);
    } else {
        end_session(core, now_ms, session);
    }
    return STATUS_OK;
}
