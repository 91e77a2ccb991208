#include "stomp_client_state.h"

#include "mem.h"

enum { TAIL_BYTES_MIN = 256 };

static struct stomp_client *self_of(struct client *client)
{
    return (struct stomp_client *)client;
}

enum status stomp_clients_create(const struct client_host *host, struct control_hub *control_hub,
                                 uint64_t now_ms, struct stomp_clients **out)
{
    *out = mem_zalloc(sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->host = *host;
    (*out)->control_hub = control_hub;
    host->random(host->ctx, (uint8_t *)&(*out)->seed, sizeof(*out)->seed);
    map_init(&(*out)->by_id);
    map_init(&(*out)->by_number);
    timer_wheel_init(&(*out)->wheel, now_ms);
    return STATUS_OK;
}

void stomp_clients_set_core(struct stomp_clients *clients, struct core *core)
{
    clients->core = core;
}

void stomp_clients_destroy(struct stomp_clients *clients)
{
    if (clients != NULL) {
        ENSURE(clients->first == NULL && clients->by_id.count == 0 && clients->sessions == 0);
        map_fini(&clients->by_id);
        map_fini(&clients->by_number);
        mem_free(clients);
    }
}

struct mqtt_client_stats stomp_clients_stats(const struct stomp_clients *clients)
{
    return clients->stats;
}

uint64_t stomp_clients_connected(const struct stomp_clients *clients)
{
    return clients->connected;
}

uint64_t stomp_clients_sessions(const struct stomp_clients *clients)
{
    return clients->sessions;
}

bool stomp_client_is_meant(struct bytes first)
{
    return first.len != 0 && (first.data[0] == 'C' || first.data[0] == 'S' ||
                              first.data[0] == '\n' || first.data[0] == '\r');
}

void stomp_begin_leaving(struct stomp_client *client, enum mqtt_reason reason, const char *why)
{
    if (client->state == STOMP_CLOSING) {
        return;
    }
    struct stomp_clients *clients = client->clients;
    clients->connected -= client->state == STOMP_CONNECTED;
    client->state = STOMP_CLOSING;
    stomp_cancel_login(client);
    control_drop_held(client->control);
    timer_cancel(&clients->wheel, &client->timer);
    if (!client->refused) {
        clients->host.on_gone(client->link, &client->base, why);
    }
    clients->host.close(client->link, reason);
}

void stomp_leave(struct stomp_client *client, uint64_t now_ms, enum mqtt_reason reason,
                 const char *why)
{
    stomp_begin_leaving(client, reason, why);
    stomp_drop_transactions(client);
    stomp_drop_subscriptions(client, now_ms);
}

void stomp_take_ticket(struct stomp_client *client)
{
    uint64_t ticket = core_ticket(client->clients->core);
    client->ticket = ticket > client->ticket ? ticket : client->ticket;
}

void stomp_fail(struct stomp_client *client, uint64_t now_ms, enum mqtt_reason reason,
                const char *text)
{
    if (client->state != STOMP_CLOSING) {
        control_drop_held(client->control);
        stomp_send_error(client, client->receipt, text);
        stomp_leave(client, now_ms, reason, text);
    }
}

void stomp_clients_shut_down(struct stomp_clients *clients, uint64_t now_ms)
{
    for (struct stomp_client *client = clients->first; client != NULL; client = client->next) {
        stomp_fail(client, now_ms, MQTT_SERVER_SHUTTING_DOWN, "the broker stops");
    }
}

void stomp_clients_on_access_changed(struct stomp_clients *clients, uint64_t now_ms)
{
    for (struct stomp_client *client = clients->first; client != NULL; client = client->next) {
        if (client->state == STOMP_CONNECTED) {
            stomp_recheck(client, now_ms);
        }
    }
}

uint64_t stomp_clients_next_deadline_ms(const struct stomp_clients *clients)
{
    return timer_wheel_next_ms(&clients->wheel);
}

/* A little earlier than promised: the sender must be on time (1.2, Heart-beating). */
static uint64_t beat_at_ms(const struct stomp_client *client)
{
    return client->send_interval_ms == 0
               ? TIMER_NEVER
               : client->last_sent_ms + client->send_interval_ms - client->send_interval_ms / 8;
}

/* Twice the interval, since the receiver should allow for a margin. Any byte is life: a browser
 * that throttles a tab still answers WebSocket pings. */
static uint64_t dead_at_ms(const struct stomp_client *client)
{
    return client->receive_interval_ms == 0 ? TIMER_NEVER
                                            : client->clients->host.last_inbound_ms(client->link) +
                                                  UINT64_C(2) * client->receive_interval_ms;
}

static void arm(struct stomp_client *client)
{
    uint64_t beat_ms = beat_at_ms(client);
    uint64_t dead_ms = dead_at_ms(client);
    timer_arm(&client->clients->wheel, &client->timer, beat_ms < dead_ms ? beat_ms : dead_ms);
}

void stomp_arm_heart_beats(struct stomp_client *client, uint64_t now_ms)
{
    client->last_sent_ms = now_ms;
    arm(client);
}

struct advance {
    struct stomp_clients *clients;
    uint64_t now_ms;
};

/* The timer is not moved by what comes and goes: it fires, looks when that was, and waits for the
 * rest. */
static void fire(void *ctx, struct timer *timer)
{
    const struct advance *advance = ctx;
    struct stomp_client *client =
        (struct stomp_client *)(void *)((char *)timer - offsetof(struct stomp_client, timer));
    client->receipt = BYTES_EMPTY;
    if (client->state == STOMP_NEW) {
        stomp_fail(client, advance->now_ms, MQTT_KEEP_ALIVE_TIMEOUT, "no CONNECT in time");
        return;
    }
    if (client->state == STOMP_CHECKING) {
        stomp_leave(client, advance->now_ms, MQTT_SERVER_BUSY,
                    "its password was not checked in time");
        return;
    }
    if (advance->now_ms >= dead_at_ms(client)) {
        stomp_fail(client, advance->now_ms, MQTT_KEEP_ALIVE_TIMEOUT,
                   "nothing came for twice the heart-beat");
        return;
    }
    if (advance->now_ms >= beat_at_ms(client)) {
        client->last_sent_ms = advance->now_ms;
        client->beat_due = true;
        client->clients->host.wake(client->link);
    }
    arm(client);
}

void stomp_clients_advance(struct stomp_clients *clients, uint64_t now_ms)
{
    struct advance advance = {clients, now_ms};
    timer_wheel_advance(&clients->wheel, now_ms, fire, &advance);
}

/* Before CONNECT nobody may make us keep much. */
static size_t frame_bytes_max(const struct stomp_client *client)
{
    size_t max = client->settings->packet_bytes_max;
    size_t first = STOMP_HEAD_BYTES_MAX + 1;
    return client->state == STOMP_NEW && max > first ? first : max;
}

static void handle(struct stomp_client *client, uint64_t now_ms, struct bytes in)
{
    struct stomp_frame frame;
    uint8_t scratch[STOMP_HEAD_BYTES_MAX];
    enum stomp_result result =
        stomp_frame_decode(in, &client->scan, (enum stomp_version)client->version, scratch, &frame);
    client->clients->stats.packets_received++;
    if (result != STOMP_OK) {
        stomp_fail(client, now_ms, MQTT_MALFORMED_PACKET, stomp_result_text(result));
        return;
    }
    client->ticket = 0;
    client->frame = bytes_of(in.data, client->scan.frame_len);
    (void)stomp_frame_header(&frame, "receipt", &client->receipt);
    if (client->state == STOMP_CONNECTED) {
        stomp_on_frame(client, now_ms, &frame);
    } else if (frame.command == STOMP_CONNECT) {
        stomp_on_connect(client, now_ms, &frame);
    } else {
        stomp_fail(client, now_ms, MQTT_PROTOCOL_ERROR, "the first frame was not CONNECT");
    }
    client->receipt = BYTES_EMPTY;
}

/* Handles whole frames where they stand. Returns what is left: the beginning of one, or nothing. */
static struct bytes consume(struct stomp_client *client, uint64_t now_ms, struct bytes in)
{
    while (client->state != STOMP_CLOSING && !client->is_leaving) {
        if (client->scan.searched == 0 && client->scan.head_len == 0) {
            in = stomp_skip_line_ends(in);
        }
        if (in.len == 0 || client->state == STOMP_CHECKING) {
            return in;
        }
        enum stomp_result result = stomp_frame_scan(&client->scan, in, frame_bytes_max(client));
        if (result == STOMP_MORE) {
            return in;
        }
        if (result != STOMP_OK) {
            stomp_fail(client, now_ms,
                       result == STOMP_TOO_LARGE || result == STOMP_HEAD_TOO_LARGE
                           ? MQTT_PACKET_TOO_LARGE
                           : MQTT_MALFORMED_PACKET,
                       stomp_result_text(result));
            break;
        }
        handle(client, now_ms, in);
        in = bytes_from(in, client->scan.frame_len);
        client->scan = (struct stomp_scan){0};
    }
    return BYTES_EMPTY;
}

/* Adds to the tail, which grows by doubling, whatever length the frame announces: memory follows
 * what really came. */
static bool append(struct stomp_tail **tail, struct bytes piece)
{
    size_t len = *tail == NULL ? 0 : (*tail)->len;
    size_t needed = len + piece.len;
    if (*tail == NULL || (*tail)->capacity < needed) {
        size_t capacity = *tail == NULL ? TAIL_BYTES_MIN : 2 * (*tail)->capacity;
        capacity = capacity < needed ? needed : capacity;
        struct stomp_tail *grown = mem_realloc(*tail, sizeof *grown + capacity);
        if (grown == NULL) {
            return false;
        }
        grown->capacity = capacity;
        *tail = grown;
    }
    bytes_copy((*tail)->data + len, piece);
    (*tail)->len = needed;
    return true;
}

static void receive(struct client *base, uint64_t now_ms, struct bytes in)
{
    struct stomp_client *client = self_of(base);
    struct stomp_tail *held = client->tail;
    client->tail = NULL;
    bool has_memory = true;
    if (held != NULL) {
        has_memory = append(&held, in);
        in = bytes_of(held->data, held->len);
    }
    struct bytes rest = has_memory ? consume(client, now_ms, in) : BYTES_EMPTY;
    if (rest.len != 0 && held != NULL) {
        memmove(held->data, rest.data, rest.len);
        held->len = rest.len;
    } else if (rest.len != 0) {
        has_memory = append(&held, rest);
    }
    if (!has_memory) {
        stomp_fail(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
    }
    if (rest.len == 0 || !has_memory) {
        mem_free(held);
        held = NULL;
    }
    client->tail = held;
    if (client->state == STOMP_CHECKING && rest.len > STOMP_EARLY_PAUSE && !client->is_paused) {
        client->is_paused = true; /* CONNECTED, when it goes out, lets reading go on */
        client->clients->host.set_reading(client->link, false);
    }
}

void stomp_go_on(struct stomp_client *client, uint64_t now_ms)
{
    if (client->tail != NULL) {
        receive(&client->base, now_ms, BYTES_EMPTY);
    }
}

static void send_output(struct client *base, uint64_t now_ms, struct output *output)
{
    stomp_send_output(self_of(base), now_ms, output);
}

static void unlink_client(struct stomp_client *client)
{
    if (client->next != NULL) {
        client->next->previous = client->previous;
    }
    if (client->previous != NULL) {
        client->previous->next = client->next;
    } else {
        client->clients->first = client->next;
    }
}

static void close_client(struct client *base, uint64_t now_ms, const char *why)
{
    struct stomp_client *client = self_of(base);
    struct stomp_clients *clients = client->clients;
    if (client->state != STOMP_CLOSING) {
        clients->connected -= client->state == STOMP_CONNECTED;
        client->state = STOMP_CLOSING;
        clients->host.on_gone(client->link, base, why);
    }
    stomp_cancel_login(client);
    stomp_drop_transactions(client);
    stomp_drop_subscriptions(client, now_ms);
    timer_cancel(&clients->wheel, &client->timer);
    unlink_client(client);
    control_release(&client->control);
    mem_free(client->tail);
    mem_free(client->user_name);
    mem_free(client->client_id);
    access_rights_release(client->rights);
    shared_release(&client->settings->shared);
    mem_free(client);
}

static void *link_of(const struct client *base)
{
    return ((const struct stomp_client *)base)->link;
}

static const char *protocol_name(const struct stomp_client *client)
{
    switch ((enum stomp_version)client->version) {
    case STOMP_1_0:
        return "STOMP 1.0";
    case STOMP_1_1:
        return "STOMP 1.1";
    case STOMP_1_2:
        return "STOMP 1.2";
    case STOMP_VERSION_NONE:
        break;
    }
    return "STOMP";
}

static void describe(const struct client *base, struct client_facts *out)
{
    const struct stomp_client *client = (const struct stomp_client *)base;
    *out = (struct client_facts){
        .client_id = bytes_of(client->client_id, client->client_id_len),
        .user_name = bytes_of(client->user_name, client->user_name_len),
        .protocol = protocol_name(client),
        .opened_ms = client->opened_ms,
        .keep_alive_s = (uint16_t)(client->receive_interval_ms / 1000 < UINT16_MAX
                                       ? client->receive_interval_ms / 1000
                                       : UINT16_MAX),
        .clean_start = true,
    };
}

static const struct client_kind kind = {
    .receive = receive,
    .send = send_output,
    .close = close_client,
    .link = link_of,
    .describe = describe,
};

struct client *stomp_client_open(struct stomp_clients *clients, uint64_t now_ms, void *link,
                                 struct mqtt_settings *settings, struct bytes certificate_user)
{
    struct stomp_client *client = mem_zalloc(sizeof *client);
    if (client == NULL) {
        return NULL;
    }
    if (certificate_user.len != 0 && certificate_user.len <= UINT16_MAX) {
        client->user_name = mem_copy_string(certificate_user);
        client->user_name_len = (uint16_t)certificate_user.len;
        if (client->user_name == NULL) {
            mem_free(client);
            return NULL;
        }
    }
    client->base.kind = &kind;
    client->clients = clients;
    client->link = link;
    client->settings = settings;
    (void)shared_hold(&settings->shared);
    client->number = ++clients->number;
    client->opened_ms = now_ms;
    client->next = clients->first;
    if (client->next != NULL) {
        client->next->previous = client;
    }
    clients->first = client;
    timer_arm(&clients->wheel, &client->timer, now_ms + settings->connect_timeout_ms);
    return &client->base;
}
