/*
 * Retained messages for a new subscription (3.3.1.3).
 *
 * A SLOT_SCAN in the session's queue reads them as the client takes them, so they need no room. One
 * at QoS 2 for a session that outlives the process cannot do so: when a crash interrupts it, nobody
 * would know what has come already, and beginning anew would bring it twice. So it notes all that
 * it finds as the session's, in the store too, and only then are they sent, like what came through
 * the queue. A crash before that has sent nothing; after it the store has them as queued. There is
 * a limit to what one may note: beyond it the rest is read like all others, and a crash brings what
 * the scan has sent once more.
 */
#include <stdlib.h>

#include "core_state.h"
#include "mem.h"

static bool open_scan(struct core *core, const struct session_subscription *subscription,
                      const struct retained_scan *like)
{
    struct session *session = subscription->session;
    struct retained_scan *scan = mem_alloc(sizeof *scan);
    if (scan == NULL) {
        return false;
    }
    *scan = *like;
    scan->subscription = subscription;
    scan->sequence = core->sequence;
    struct bytes filter = bytes_of(subscription->filter, subscription->filter_len);
    if (retained_cursor_open(core->retained, filter, &scan->cursor) != STATUS_OK) {
        mem_free(scan);
        return false;
    }
    struct slot *slot = slot_queue_push(&session->queue, &core->pool);
    if (slot == NULL) {
        retained_cursor_close(scan->cursor);
        mem_free(scan);
        return false;
    }
    if (scan->known != NULL) {
        (void)shared_hold(&scan->known->shared);
    }
    slot->kind = SLOT_SCAN;
    slot->scan = scan;
    session->scans++;
    session_wake(core, session);
    return true;
}

bool scan_open(struct core *core, const struct session_subscription *subscription,
               const struct core_subscribe *subscribe, uint8_t qos)
{
    struct retained_scan scan = {
        .identifier = subscribe->identifier, .qos = qos, .no_local = subscribe->no_local};
    return open_scan(core, subscription, &scan);
}

void scan_cancel(struct core *core, const struct session_subscription *subscription)
{
    struct session *session = subscription->session;
    if (session->scans == 0) {
        return;
    }
    struct session_cursor cursor = session_cursor_of(session);
    for (struct slot *slot = session_next_slot(&cursor); slot != NULL;
         slot = session_next_slot(&cursor)) {
        if (slot->kind == SLOT_SCAN && slot->scan->subscription == subscription) {
            slot_release(core, session, slot);
        }
    }
    session_compact(core, session);
}

static int compare_arrivals(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void destroy_known(struct shared *object)
{
    mem_free(object);
}

/* Lists what the session had before the restart, for all its scans: of two that both find a message
 * and are both interrupted only one brings it then. NULL: no memory. */
static struct scan_known *list_known(const struct session *session)
{
    const struct session_backlog *backlog = session_backlog(session);
    size_t max = slot_window_count(&session->window) + (backlog == NULL ? 0 : backlog->run.count);
    struct scan_known *known = mem_alloc(sizeof *known + max * sizeof known->arrivals[0]);
    if (known == NULL) {
        return NULL;
    }
    *known = (struct scan_known){.shared = {1, destroy_known}};
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        const struct slot *slot = slot_window_at(&session->window, i);
        if (slot->kind != SLOT_EMPTY) {
            known->arrivals[known->count++] = slot_arrival(slot);
        }
    }
    if (backlog != NULL) {
        struct stored_cursor cursor = stored_cursor_of(&backlog->run);
        for (struct slot slot; stored_run_next(&cursor, &slot);) {
            known->arrivals[known->count++] = slot.arrival;
        }
    }
    qsort(known->arrivals, known->count, sizeof known->arrivals[0], compare_arrivals);
    return known;
}

bool scan_again(struct core *core, const struct session_subscription *subscription,
                struct scan_known **known)
{
    struct session *session = subscription->session;
    const struct subscription *entry = topic_trie_find(
        core->trie, bytes_of(subscription->filter, subscription->filter_len), session);
    if (entry == NULL || retained_count(core->retained) == 0) {
        durable_put_subscription(core, subscription, false);
        return true;
    }
    struct retained_scan scan = {
        .identifier = entry->identifier, .qos = entry->qos, .no_local = entry->no_local};
    if (scan.qos == 2) {
        if (*known == NULL && (*known = list_known(session)) == NULL) {
            return false;
        }
        scan.known = *known;
    }
    return open_scan(core, subscription, &scan);
}

void scan_close(struct core *core, struct session *session, struct retained_scan *scan)
{
    session->scans--;
    while (scan->found.count != 0) {
        slot_release(core, session, slot_queue_first(&scan->found));
        slot_queue_pop(&scan->found, &core->pool);
    }
    message_release(scan->aside);
    retained_cursor_close(scan->cursor);
    if (scan->known != NULL) {
        shared_release(&scan->known->shared);
    }
    mem_free(scan);
}

bool scan_gathers(const struct core *core, const struct session *session,
                  const struct retained_scan *scan)
{
    return scan->qos == 2 && !scan->is_too_large && core->store != NULL && session->is_durable;
}

static bool is_known(const struct retained_scan *scan, const struct message *message)
{
    const struct scan_known *known = scan->known;
    return known != NULL && known->count != 0 &&
           bsearch(&message->sequence, known->arrivals, known->count, sizeof known->arrivals[0],
                   compare_arrivals) != NULL;
}

enum { PLACE_FIRST = 1, PLACE_SECOND = 2 };

/* Under which names the session has this very message in flight in the store. */
static unsigned places_in_window(const struct session *session, const struct message *message)
{
    unsigned places = 0;
    for (uint32_t i = 0; i < slot_window_count(&session->window); i++) {
        const struct slot *slot = slot_window_at(&session->window, i);
        if (slot->kind != SLOT_EMPTY && slot->is_stored &&
            slot_arrival(slot) == message->sequence) {
            places |= slot->is_second ? PLACE_SECOND : PLACE_FIRST;
        }
    }
    return places;
}

/* What was put aside, if it is still retained: then the store has it. NULL: nothing. */
static struct message *take_aside(const struct core *core, struct retained_scan *scan)
{
    struct message *message = scan->aside;
    scan->aside = NULL;
    if (message != NULL &&
        retained_get(core->retained, message_topic(message), core->now_ms) != message) {
        message_release(message);
        return NULL;
    }
    return message;
}

/* The next message, with one reference, that the session is to have. */
static enum scan_step next_message(const struct core *core, const struct session *session,
                                   struct retained_scan *scan, struct message **out)
{
    *out = take_aside(core, scan);
    if (*out != NULL) {
        return SCAN_MESSAGE;
    }
    struct message *message = NULL;
    enum retained_step step =
        retained_cursor_next(scan->cursor, SCAN_BUDGET, core->now_ms, &message);
    if (step != RETAINED_MESSAGE) {
        return step == RETAINED_END ? SCAN_END : SCAN_AGAIN;
    }
    if (message->sequence > scan->sequence ||
        (scan->no_local && message->publisher_id == session->number) ||
        !session_may_read(core, session, message)) {
        return SCAN_AGAIN;
    }
    *out = message_hold(message);
    return SCAN_MESSAGE;
}

enum scan_step scan_step(const struct core *core, const struct session *session,
                         struct retained_scan *scan, struct slot *out, bool *is_durable)
{
    struct message *message = NULL;
    enum scan_step step = next_message(core, session, scan, &message);
    if (step != SCAN_MESSAGE) {
        return step;
    }
    *out = (struct slot){.message = message,
                         .identifier = scan->identifier,
                         .kind = SLOT_PUBLISH,
                         .qos = delivery_qos(core, message->qos, scan->qos) & 3U,
                         .retain = 1};
    *is_durable = session->is_durable && message->is_stored && out->qos != 0;
    if (*is_durable) {
        unsigned places = places_in_window(session, message);
        if (places == (PLACE_FIRST | PLACE_SECOND)) {
            scan->aside = message;
            return SCAN_WAITS;
        }
        out->is_second = (places & PLACE_FIRST) != 0;
    }
    return SCAN_MESSAGE;
}

/* Notes what the scan has found as the session's; takes the slot's reference. */
static void note_found(struct core *core, struct session *session, struct retained_scan *scan,
                       const struct slot *found, bool is_durable)
{
    if (is_known(scan, found->message)) {
        message_release(found->message);
        return;
    }
    struct slot *place = slot_queue_push(&scan->found, &core->pool);
    if (place == NULL) {
        core->stats.dropped++;
        message_release(found->message);
        return;
    }
    *place = *found;
    core->stats.queued_messages++;
    if (is_durable) {
        durable_add(core, session, place);
    }
}

enum scan_step scan_gather(struct core *core, struct session *session, struct retained_scan *scan)
{
    enum scan_step step = SCAN_AGAIN;
    for (unsigned i = 0; i < GATHER_MAX && step != SCAN_END && step != SCAN_WAITS; i++) {
        struct slot slot;
        bool is_durable;
        step = scan_step(core, session, scan, &slot, &is_durable);
        if (step == SCAN_MESSAGE) {
            note_found(core, session, scan, &slot, is_durable);
        }
    }
    if (step == SCAN_END) {
        durable_put_subscription(core, scan->subscription, false);
        scan->is_gathered = true;
    } else if (scan->found.count >= GATHERED_MAX) {
        scan->is_gathered = scan->is_too_large = true;
    }
    return scan->is_gathered ? SCAN_END : step;
}
