/*
 * What of the core outlives the process.
 *
 * A change that has to be durable is told to the store when it is made in memory. The answer that
 * promises it is held back by the client until the store has committed (core_ticket). Three things
 * are held back by the core itself, because a crash would otherwise make a message at QoS 2 come
 * twice, and one at QoS 1 come again as if it were new: the delivery of a message that was
 * published at QoS 2 before it is durable itself, that under a packet identifier that is not
 * durable yet, and PUBREL (by the client). At QoS 1 a message goes out at once when it and its
 * identifier are in one batch, as they are for a client that keeps up: after a crash there are both
 * or neither.
 */
#include "core_state.h"

#include "mem.h"

enum { WAITING_MIN = 64, PARTS_MIN = 64 };

uint64_t core_ticket(const struct core *core)
{
    return core->ticket > core->committed ? core->ticket : 0;
}

void durable_hold_answer(struct core *core)
{
    core->ticket = core->changed;
}

/* The store for one more change, which will be in the batch that is being filled. */
static struct store *changing(struct core *core)
{
    core->changes++;
    core->changed = store_ticket(core->store);
    return core->store;
}

bool durable_is_full(const struct core *core)
{
    return core->store != NULL && store_is_full(core->store);
}

/* $SYS is made anew by every process. */
static bool is_own_topic(const struct message *message)
{
    return bytes_start_with(message_topic(message), bytes_of_string("$SYS/"));
}

bool durable_refuses(const struct core *core, const struct message *message)
{
    return durable_is_full(core) && (message->qos != 0 || message->retain) &&
           !is_own_topic(message);
}

/* Times in the store outlive our clock. TIMER_NEVER and STORE_TIME_NEVER are the same. */
static uint64_t unix_ms(const struct core *core, uint64_t ms)
{
    return ms == TIMER_NEVER ? STORE_TIME_NEVER : ms + core->unix_offset_ms;
}

static bool is_number(const struct map_node *node, const void *key)
{
    const uint64_t *number = key;
    return ((const struct session_durable *)(const void *)node)->session->number == *number;
}

static uint64_t number_hash(const struct core *core, uint64_t number)
{
    return hash_bytes(&core->options.seed, bytes_of(&number, sizeof number));
}

struct session *durable_find(const struct core *core, uint64_t number)
{
    struct session_durable *durable = (struct session_durable *)(void *)map_find(
        &core->durables, number_hash(core, number), is_number, &number);
    return durable == NULL ? NULL : durable->session;
}

enum status durable_attach(struct core *core, struct session *session)
{
    return core->store == NULL || session->is_durable ? STATUS_OK : durable_make(core, session);
}

enum status durable_make(struct core *core, struct session *session)
{
    struct session_durable *durable = mem_zalloc(sizeof *durable);
    if (durable == NULL) {
        return STATUS_NO_MEMORY;
    }
    durable->session = session;
    if (map_add(&core->durables, number_hash(core, session->number), &durable->node) != STATUS_OK) {
        mem_free(durable);
        return STATUS_NO_MEMORY;
    }
    session->absence->durable = durable;
    session->is_durable = true;
    return STATUS_OK;
}

static void stop_waiting(struct core *core, struct session *session)
{
    for (size_t i = 0; session->is_waiting; i++) {
        ENSURE(i < core->waiting_count);
        if (core->waiting[i] == session) {
            core->waiting[i] = core->waiting[--core->waiting_count];
            session->is_waiting = false;
        }
    }
}

void durable_detach(struct core *core, struct session *session)
{
    stop_waiting(core, session);
    if (session->is_durable) {
        struct session_durable *durable = session->absence->durable;
        if (core->store != NULL) {
            store_delete_session(changing(core), session->number);
        }
        spill_forget(core, durable);
        ENSURE(durable->backlog == NULL); /* the queue is empty */
        map_remove(&core->durables, &durable->node);
        mem_free(durable);
        session->absence->durable = NULL;
        session->is_durable = false;
    }
}

void durable_put_session(struct core *core, const struct session *session)
{
    if (core->store == NULL || !session->is_durable) {
        return;
    }
    const struct session_absence *absence = session->absence;
    struct store_will will;
    struct store_session stored = {
        .number = session->number,
        .client_id = core_session_client_id(session),
        .expiry_s = absence->expiry_s,
        .expires_unix_ms = unix_ms(core, absence->expires_at_ms),
        .connected = session->client != NULL,
    };
    if (absence->will != NULL) {
        const struct core_will *own = &absence->will->will;
        will = (struct store_will){
            .topic = message_topic(own->message),
            .properties = message_properties(own->message),
            .payload = message_payload(own->message),
            .qos = own->message->qos,
            .retain = own->message->retain,
            .delay_s = own->delay_s,
            .has_expiry = own->has_expiry,
            .expiry_s = own->expiry_s,
            .due_unix_ms = unix_ms(core, absence->will->due_at_ms),
        };
        stored.will = &will;
    }
    store_put_session(changing(core), &stored);
}

void durable_put_subscription(struct core *core, const struct session_subscription *subscription,
                              bool scan_pending)
{
    const struct session *session = subscription->session;
    if (core->store == NULL || !session->is_durable) {
        return;
    }
    struct store_subscription stored = {
        .session = session->number,
        .filter = bytes_of(subscription->filter, subscription->filter_len),
        .scan_pending = scan_pending,
    };
    const struct share_member *member = subscription->member;
    if (member != NULL) {
        stored.group = member->group->number;
        stored.identifier = member->identifier;
        stored.qos = member->qos;
        stored.retain_as_published = member->retain_as_published;
    } else {
        const struct subscription *entry = topic_trie_find(core->trie, stored.filter, session);
        ENSURE(entry != NULL);
        stored.identifier = entry->identifier;
        stored.qos = entry->qos;
        stored.no_local = entry->no_local;
        stored.retain_as_published = entry->retain_as_published;
    }
    store_put_subscription(changing(core), &stored);
}

void durable_delete_subscription(struct core *core, const struct session_subscription *subscription)
{
    if (core->store != NULL && subscription->session->is_durable) {
        store_delete_subscription(changing(core), subscription->session->number,
                                  bytes_of(subscription->filter, subscription->filter_len));
    }
}

/* Room for one more part, and for two more recipients than parts. */
static bool reserve_part(struct core *core)
{
    if (core->part_count < core->part_capacity) {
        return true;
    }
    size_t capacity = core->part_capacity == 0 ? PARTS_MIN : core->part_capacity * 2;
    struct durable_part *parts = mem_realloc(core->parts, capacity * sizeof *parts);
    if (parts == NULL) {
        return false;
    }
    core->parts = parts;
    struct store_recipient *recipients =
        mem_realloc(core->recipients, (capacity + 2) * sizeof *recipients);
    if (recipients == NULL) {
        return false;
    }
    core->recipients = recipients;
    core->part_capacity = capacity;
    return true;
}

bool durable_note(struct core *core, struct session *session, struct slot *slot)
{
    if (core->store == NULL || !session->is_durable) {
        return true;
    }
    if (!reserve_part(core)) {
        return false;
    }
    core->parts[core->part_count++] = (struct durable_part){session, slot};
    return true;
}

static enum store_role role_of(const struct slot *slot)
{
    return slot->is_second ? STORE_SECOND : STORE_QUEUED;
}

static struct store_recipient recipient_of(const struct session *session, const struct slot *slot)
{
    return (struct store_recipient){
        .session = session->number,
        .group = slot->is_shared ? slot->group->number : 0,
        .packet_id = slot->packet_id,
        .role = (uint8_t)role_of(slot),
        .qos = slot->qos,
        .retain = slot->retain,
        .identifier_count = (uint16_t)(slot->has_list ? slot->list->count : slot->identifier != 0),
        .identifiers = slot->has_list ? slot->list->identifiers : &slot->identifier,
    };
}

/* The recipients among the noted ones. At QoS 0 only what waits for a client that is away is kept.
 */
static size_t gather_parts(struct core *core)
{
    size_t count = 0;
    for (size_t i = 0; i < core->part_count; i++) {
        const struct session *session = core->parts[i].session;
        struct slot *slot = core->parts[i].slot;
        if (slot == NULL) {
            core->recipients[count++] = (struct store_recipient){
                .session = session->number, .role = STORE_QUEUED, .qos = 1};
        } else if (slot->qos != 0 || session->client == NULL) {
            slot->is_stored = 1;
            core->recipients[count++] = recipient_of(session, slot);
        }
    }
    return count;
}

bool durable_append(struct core *core, const struct session *from, uint16_t packet_id,
                    struct message *message)
{
    if (core->store == NULL) {
        return true;
    }
    bool failed = core->part_failed || !reserve_part(core);
    core->part_failed = false;
    if (failed) {
        core->part_count = 0;
        return false;
    }
    size_t count = gather_parts(core);
    core->part_count = 0;
    if (message->retain && message->payload_len != 0 && !is_own_topic(message)) {
        core->recipients[count++] =
            (struct store_recipient){.role = STORE_RETAINED, .qos = message->qos, .retain = true};
    }
    if (packet_id != 0 && from->is_durable) {
        core->recipients[count++] = (struct store_recipient){.session = from->number,
                                                             .packet_id = packet_id,
                                                             .role = STORE_SENDER,
                                                             .qos = message->qos};
    }
    if (count != 0) {
        store_append(changing(core), message, unix_ms(core, message->expires_at_ms),
                     core->recipients, count);
        message->is_stored = true;
        message->ticket = core->changed;
        durable_hold_answer(core);
    }
    return true;
}

void durable_add_parts(struct core *core, bool is_stored)
{
    for (size_t i = 0; i < core->part_count && is_stored; i++) {
        if (core->parts[i].slot != NULL && core->parts[i].slot->qos != 0) {
            durable_add(core, core->parts[i].session, core->parts[i].slot);
        }
    }
    core->part_count = 0;
    core->part_failed = false;
}

uint64_t durable_owner_of(const struct session *session, const struct slot *slot)
{
    return slot->is_shared && slot->group->is_queue ? slot->group->owner : session->number;
}

void durable_finish_part(struct core *core, uint64_t arrival, enum store_role role,
                         uint64_t session_number)
{
    if (core->store != NULL) {
        store_finish(changing(core), arrival, role, session_number);
    }
}

void durable_finish(struct core *core, const struct session *session, const struct slot *slot)
{
    if (core->store != NULL && slot->is_stored) {
        store_finish(changing(core), slot_arrival(slot), role_of(slot),
                     durable_owner_of(session, slot));
    }
}

bool durable_keeps_identifier(const struct core *core, const struct session *session,
                              const struct slot *slot)
{
    return core->store != NULL && slot->is_stored && slot->qos != 0 &&
           durable_owner_of(session, slot) == session->number;
}

bool durable_is_older(const struct core *core, const struct slot *slot)
{
    return slot->qos == 2 || slot->message->ticket != store_ticket(core->store);
}

/* The slot's identifier becomes durable with the change made last. */
static void enter_epoch(const struct core *core, struct session *session, struct slot *slot)
{
    struct session_durable *durable = session->absence->durable;
    if (durable->assigned_at <= core->committed) {
        durable->epoch = !durable->epoch;
    }
    slot->epoch = durable->epoch;
    durable->assigned_at = core->changed;
}

void durable_update(struct core *core, const struct session *session, const struct slot *slot)
{
    if (durable_keeps_identifier(core, session, slot)) {
        store_update(changing(core), slot_arrival(slot), role_of(slot), session->number,
                     slot->packet_id, slot->kind == SLOT_PUBREL ? STORE_RELEASED : STORE_WAITING);
    }
}

void durable_assign(struct core *core, struct session *session, struct slot *slot)
{
    if (durable_keeps_identifier(core, session, slot)) {
        durable_update(core, session, slot);
        enter_epoch(core, session, slot);
    }
}

void durable_add(struct core *core, struct session *session, struct slot *slot)
{
    if (core->store == NULL) {
        return;
    }
    struct store_recipient recipient = recipient_of(session, slot);
    store_add(changing(core), slot_arrival(slot), &recipient);
    slot->is_stored = 1;
    if (slot->packet_id != 0) {
        enter_epoch(core, session, slot);
    }
}

bool durable_must_wait(const struct core *core, const struct message *message)
{
    return message->qos == 2 && message->ticket > core->committed;
}

bool durable_assignment_pending(const struct core *core, const struct session *session)
{
    return core->store != NULL && session->is_durable &&
           session->absence->durable->assigned_at > core->committed;
}

bool durable_identifier_is_pending(const struct core *core, const struct session *session,
                                   const struct slot *slot)
{
    return durable_assignment_pending(core, session) &&
           slot->epoch == session->absence->durable->epoch;
}

bool durable_is_assigning(const struct core *core, const struct session *session)
{
    return durable_assignment_pending(core, session) &&
           session->absence->durable->assigned_at == store_ticket(core->store);
}

bool durable_may_assign(const struct core *core, const struct session *session)
{
    return !durable_assignment_pending(core, session) || durable_is_assigning(core, session);
}

void durable_wait(struct core *core, struct session *session)
{
    session->blocked = true;
    if (session->is_waiting) {
        return;
    }
    if (core->waiting_count == core->waiting_capacity) {
        size_t capacity = core->waiting_capacity == 0 ? WAITING_MIN : core->waiting_capacity * 2;
        struct session **waiting = mem_realloc(core->waiting, capacity * sizeof(struct session *));
        if (waiting == NULL) {
            session->blocked = false; /* it asks again, in vain, until the commit has come */
            return;
        }
        core->waiting = waiting;
        core->waiting_capacity = capacity;
    }
    core->waiting[core->waiting_count++] = session;
    session->is_waiting = true;
}

void durable_on_committed(void *ctx, uint64_t ticket)
{
    struct core *core = ctx;
    core->committed = ticket;
    size_t count = core->waiting_count;
    for (size_t i = 0; i < count; i++) { /* who has to wait again comes behind these */
        struct session *session = core->waiting[i];
        session->is_waiting = false;
        session_go_on(core, session);
    }
    core->waiting_count -= count;
    if (count != 0) { /* without, there may be no array yet */
        memmove(core->waiting, core->waiting + count,
                core->waiting_count * sizeof(struct session *));
    }
    spill_listed(core);
    core->effects.committed(core->effects.ctx, ticket);
}

void durable_on_failed(void *ctx, const char *why)
{
    const struct core *core = ctx;
    core->effects.store_failed(core->effects.ctx, why);
}

void durable_fini(struct core *core)
{
    mem_free(core->parts);
    mem_free(core->recipients);
    mem_free(core->waiting);
    map_fini(&core->durables);
}
