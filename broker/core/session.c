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
    return session->expiry_s;
}

void core_session_set_expiry(struct core *core, struct session *session, uint32_t expiry_s)
{
    session->expiry_s = expiry_s < core->options.session_expiry_max_s
                            ? expiry_s
                            : core->options.session_expiry_max_s;
}

static void drop_will(struct session *session)
{
    if (session->will != NULL) {
        message_release(session->will->will.message);
        mem_free(session->will);
        session->will = NULL;
    }
}

static void publish_will(struct core *core, uint64_t now_ms, struct session *session)
{
    struct session_will *will = session->will;
    if (will == NULL) {
        return;
    }
    session->will = NULL;
    struct message *message = will->will.message;
    if (will->will.has_expiry) {
        message->expires_at_ms = now_ms + UINT64_C(1000) * will->will.expiry_s;
    }
    if (core_publish(core, now_ms, session, message) >= MQTT_UNSPECIFIED_ERROR) {
        core->stats.dropped++;
    }
    message_release(message);
    mem_free(will);
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
    timer_cancel(&core->wheel, &session->timer);
    drop_will(session);
    session_clear_queue(core, session);
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        slot_release(core, session, slot_window_at(&session->window, i));
    }
    slot_window_fini(&session->window, &core->pool);
    id_set_fini(&session->unreleased);
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

static void arm_session_timer(struct core *core, struct session *session)
{
    uint64_t at_ms = session->expires_at_ms;
    if (session->will != NULL && session->will->due_at_ms < at_ms) {
        at_ms = session->will->due_at_ms;
    }
    timer_arm(&core->wheel, &session->timer, at_ms);
}

void session_on_timer(struct core *core, uint64_t now_ms, struct session *session)
{
    if (now_ms >= session->expires_at_ms) {
        core->stats.sessions_expired++;
        end_session(core, now_ms, session);
        return;
    }
    if (session->will != NULL && now_ms >= session->will->due_at_ms) {
        publish_will(core, now_ms, session);
    }
    arm_session_timer(core, session);
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
    if (session->expiry_s == 0) {
        end_session(core, now_ms, session);
        return;
    }
    session_hand_over_shared(core, session, true);
    session->expires_at_ms = session->expiry_s == CORE_SESSION_NEVER_EXPIRES
                                 ? TIMER_NEVER
                                 : now_ms + UINT64_C(1000) * session->expiry_s;
    if (session->will != NULL) {
        if (session->will->will.delay_s == 0) {
            publish_will(core, now_ms, session);
        } else {
            session->will->due_at_ms = now_ms + UINT64_C(1000) * session->will->will.delay_s;
        }
    }
    arm_session_timer(core, session);
}

struct session *session_create(struct core *core, struct bytes client_id)
{
    struct session *session = mem_zalloc(offsetof(struct session, client_id) + client_id.len);
    if (session == NULL) {
        return NULL;
    }
    session->client_id_len = (uint16_t)client_id.len;
    bytes_copy(session->client_id, client_id);
    session->number = ++core->session_number;
    session->expires_at_ms = TIMER_NEVER;
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

enum status core_connect(struct core *core, uint64_t now_ms, const struct core_connect *connect,
                         struct session **out, bool *session_present)
{
    ENSURE(connect->client_id.len != 0 && connect->client_id.len <= UINT16_MAX);
    *out = NULL;
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
    if (session == NULL) {
        session = session_create(core, connect->client_id);
        if (session == NULL) {
            if (will != NULL) {
                message_release(will->will.message);
                mem_free(will);
            }
            return STATUS_NO_MEMORY;
        }
    }
    drop_will(session); /* a delayed one of the connection before: its client is back in time
                           (3.1.3.2.2) */
    session->will = will;
    timer_cancel(&core->wheel, &session->timer);
    session->expires_at_ms = TIMER_NEVER;
    core_session_set_expiry(core, session, connect->session_expiry_s);
    session->receive_maximum = connect->receive_maximum;
    session->client = connect->client;
    resume(session);
    core->stats.sessions_connected++;
    if (core->stats.sessions_connected > core->stats.sessions_connected_max) {
        core->stats.sessions_connected_max = core->stats.sessions_connected;
    }
    session_update_groups(core, session);
    if (session->queue.count != 0 || slot_window_count(&session->window) != 0) {
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
        session->expiry_s = 0;
        core_disconnect(core, now_ms, session, true);
    } else {
        end_session(core, now_ms, session);
    }
    return STATUS_OK;
}
