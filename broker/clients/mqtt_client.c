#include "mqtt_client_state.h"

#include "mem.h"
#include "mqtt_disconnect.h"

enum { DISCONNECT_HEAD_BYTES = 16 };

enum status mqtt_clients_create(const struct client_host *host, uint64_t now_ms,
                                struct mqtt_clients **out)
{
    *out = mem_zalloc(sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->host = *host;
    (*out)->control_hub.wake = host->wake;
    timer_wheel_init(&(*out)->wheel, now_ms);
    return STATUS_OK;
}

void mqtt_clients_set_core(struct mqtt_clients *clients, struct core *core)
{
    clients->core = core;
}

void mqtt_clients_destroy(struct mqtt_clients *clients)
{
    if (clients != NULL) {
        ENSURE(clients->first == NULL);
        control_hub_fini(&clients->control_hub);
        mem_free(clients);
    }
}

static void settings_destroy(struct shared *shared)
{
    struct mqtt_settings *settings = (struct mqtt_settings *)(void *)shared;
    access_release(settings->access);
    mem_free(settings);
}

/* Moves the string that *text points to, if any, to *room and the room behind it. */
static void move_string(const char **text, char **room)
{
    if (*text != NULL) {
        size_t size = strlen(*text) + 1;
        memcpy(*room, *text, size);
        *text = *room;
        *room += size;
    }
}

enum status mqtt_settings_create(const struct mqtt_settings *values, struct mqtt_settings **out)
{
    size_t strings_size = bytes_of_string(values->auto_id_prefix).len +
                          bytes_of_string(values->client_id_prefix).len +
                          bytes_of_string(values->response_information).len +
                          bytes_of_string(values->http_cors_origin).len + 4;
    *out = mem_alloc(sizeof **out + strings_size);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    **out = *values;
    (*out)->shared = (struct shared){1, settings_destroy};
    if (values->access != NULL) {
        (void)shared_hold((struct shared *)(void *)values->access);
    }
    char *room = (char *)(*out + 1);
    move_string(&(*out)->auto_id_prefix, &room);
    move_string(&(*out)->client_id_prefix, &room);
    move_string(&(*out)->response_information, &room);
    move_string(&(*out)->http_cors_origin, &room);
    return STATUS_OK;
}

/* Before MQTT 5 a server has no DISCONNECT: closing says it all. The Reason String goes where the
 * client's Maximum Packet Size leaves no room for it [MQTT-3.14.2-3]. */
static void send_disconnect(struct mqtt_client *client, enum mqtt_reason reason, const char *why)
{
    control_drop_held(client->control);
    bool is_greeted = client->greeted || client->control != NULL; /* [MQTT-3.14.0-1] */
    if (client->state == CLIENT_CONNECTED && client->version == MQTT_VERSION_5 && is_greeted) {
        struct mqtt_disconnect disconnect = {.reason = reason,
                                             .reason_string = bytes_of_string(why)};
        size_t capacity = DISCONNECT_HEAD_BYTES + disconnect.reason_string.len;
        struct writer writer = client_control_begin(client, capacity);
        struct writer start = writer;
        mqtt_disconnect_encode(&writer, MQTT_VERSION_5, &disconnect);
        if (writer_ok(&writer) && !client_takes_size(client, writer_len(&writer))) {
            disconnect.reason_string = BYTES_EMPTY;
            writer = start;
            mqtt_disconnect_encode(&writer, MQTT_VERSION_5, &disconnect);
        }
        (void)client_control_end(client, &writer, 0);
    }
}

static void on_output_ready(void *ctx, void *client)
{
    (void)ctx;
    ((struct client *)client)->kind->output_ready(client);
}

static void session_output_ready(struct client *client)
{
    const struct mqtt_client *self = (const struct mqtt_client *)client;
    self->clients->host.wake(self->link);
}

static void on_session_lost(void *ctx, void *client, enum mqtt_reason reason)
{
    (void)ctx;
    ((struct client *)client)->kind->session_lost(client, reason);
}

static void session_lost(struct client *client, enum mqtt_reason reason)
{
    struct mqtt_client *loser = (struct mqtt_client *)client;
    const char *why = reason == MQTT_SESSION_TAKEN_OVER
                          ? "another connection uses its client id"
                          : "its session was ended by an administrator";
    send_disconnect(loser, reason, why);
    client_leave(loser, 0, LEAVE_SESSION_LOST, reason, why);
}

static void on_committed(void *ctx, uint64_t ticket)
{
    struct mqtt_clients *clients = ctx;
    control_on_committed(&clients->control_hub, ticket);
    if (clients->host.committed != NULL) {
        clients->host.committed(clients->host.ctx, ticket);
    }
}

static void on_store_failed(void *ctx, const char *why)
{
    const struct mqtt_clients *clients = ctx;
    clients->host.store_failed(clients->host.ctx, why);
}

static bool may_read(void *ctx, struct shared *reader, struct bytes topic)
{
    (void)ctx;
    return access_may_read((struct access_rights *)(void *)reader, topic);
}

struct core_effects mqtt_clients_effects(struct mqtt_clients *clients)
{
    return (struct core_effects){.ctx = clients,
                                 .output_ready = on_output_ready,
                                 .session_lost = on_session_lost,
                                 .committed = on_committed,
                                 .store_failed = on_store_failed,
                                 .may_read = may_read};
}

struct control_hub *mqtt_clients_control(struct mqtt_clients *clients)
{
    return &clients->control_hub;
}

struct mqtt_client_stats mqtt_clients_stats(const struct mqtt_clients *clients)
{
    return clients->stats;
}

struct client_extra *client_extra_get(struct mqtt_client *client)
{
    if (client->extra == NULL) {
        client->extra = mem_zalloc(sizeof *client->extra);
    }
    return client->extra;
}

bool client_set_user_name(struct mqtt_client *client, struct bytes user_name)
{
    struct client_extra *before = client->extra;
    if (before == NULL && user_name.data == NULL) {
        return true;
    }
    struct client_extra *extra = mem_zalloc(sizeof *extra + user_name.len);
    if (extra == NULL) {
        return false;
    }
    if (before != NULL) {
        *extra = *before;
    }
    ENSURE(user_name.data != NULL || user_name.len == 0);
    client->has_user_name = user_name.data != NULL;
    extra->user_name_len = (uint16_t)user_name.len;
    bytes_copy(extra->user_name, user_name); /* it may be the one from before */
    mem_free(before);
    client->extra = extra;
    return true;
}

struct mqtt_client *mqtt_client_open(struct mqtt_clients *clients, uint64_t now_ms, void *link,
                                     struct mqtt_settings *settings, struct bytes certificate_user)
{
    struct mqtt_client *client = mem_zalloc(sizeof *client);
    if (client == NULL) {
        return NULL;
    }
    if (certificate_user.len != 0 && certificate_user.len <= UINT16_MAX &&
        !client_set_user_name(client, certificate_user)) {
        mem_free(client);
        return NULL;
    }
    client->base.kind = mqtt_client_kind();
    client->clients = clients;
    client->link = link;
    client->settings = settings;
    (void)shared_hold(&settings->shared);
    client->opened_ms = now_ms;
    client->next = clients->first;
    if (client->next != NULL) {
        client->next->previous = client;
    }
    clients->first = client;
    timer_arm(&clients->wheel, &client->timer, now_ms + settings->connect_timeout_ms);
    return client;
}

void client_leave(struct mqtt_client *client, uint64_t now_ms, enum leave leave,
                  enum mqtt_reason reason, const char *why)
{
    if (client->state == CLIENT_CLOSING) {
        return;
    }
    struct mqtt_clients *clients = client->clients;
    client->state = CLIENT_CLOSING;
    control_drop_held(client->control);
    timer_cancel(&clients->wheel, &client->timer);
    client_cancel_check(client);
    if (!client->refused) {
        clients->host.on_gone(client->link, &client->base, why);
    }
    clients->host.close(client->link, reason);
    struct session *session = client->session;
    client->session = NULL;
    if (session != NULL && leave != LEAVE_SESSION_LOST) {
        core_disconnect(clients->core, now_ms, session, leave == LEAVE_WITH_WILL);
    }
}

void client_fail(struct mqtt_client *client, uint64_t now_ms, enum mqtt_reason reason,
                 const char *why)
{
    send_disconnect(client, reason, why);
    client_leave(client, now_ms, LEAVE_WITH_WILL, reason, why);
}

void mqtt_client_disconnect(struct mqtt_client *client, uint64_t now_ms, enum mqtt_reason reason,
                            const char *why)
{
    client_fail(client, now_ms, reason, why);
}

void mqtt_clients_shut_down(struct mqtt_clients *clients, uint64_t now_ms)
{
    core_begin_end(
        clients->core); /* a will for each of those that are still to be closed is work in vain */
    for (struct mqtt_client *client = clients->first; client != NULL; client = client->next) {
        static const char why[] = "the broker stops";
        send_disconnect(client, MQTT_SERVER_SHUTTING_DOWN, why);
        client_leave(client, now_ms, LEAVE_WITH_WILL, MQTT_SERVER_SHUTTING_DOWN, why);
    }
}

static void destroy(struct mqtt_client *client)
{
    struct mqtt_clients *clients = client->clients;
    timer_cancel(&clients->wheel, &client->timer);
    client_cancel_check(client);
    if (client->next != NULL) {
        client->next->previous = client->previous;
    }
    if (client->previous != NULL) {
        client->previous->next = client->next;
    } else {
        clients->first = client->next;
    }
    control_release(&client->control);
    mqtt_decoder_fini(&client->decoder);
    if (client->extra != NULL) {
        alias_choices_destroy(client->extra->aliases_out);
        access_rights_release(client->extra->rights);
        mem_free(client->extra);
    }
    shared_release(&client->settings->shared);
    mem_free(client);
}

void mqtt_client_close(struct mqtt_client *client, uint64_t now_ms, const char *why)
{
    struct mqtt_clients *clients = client->clients;
    if (client->state != CLIENT_CLOSING) {
        client->state = CLIENT_CLOSING;
        clients->host.on_gone(client->link, &client->base, why);
        if (client->session != NULL) {
            core_disconnect(clients->core, now_ms, client->session, true);
        }
    }
    destroy(client);
}

void mqtt_client_discard(struct mqtt_client *client)
{
    ENSURE(client->state == CLIENT_NEW && client->control == NULL);
    destroy(client);
}

uint64_t mqtt_clients_next_deadline_ms(const struct mqtt_clients *clients)
{
    return timer_wheel_next_ms(&clients->wheel);
}

struct advance {
    struct mqtt_clients *clients;
    uint64_t now_ms;
};

/* The timer is not moved when bytes come in: it fires, looks when the last ones came, and waits for
 * the rest. */
static void fire(void *ctx, struct timer *timer)
{
    const struct advance *advance = ctx;
    struct mqtt_clients *clients = advance->clients;
    struct mqtt_client *client =
        (struct mqtt_client *)(void *)((char *)timer - offsetof(struct mqtt_client, timer));
    if (client->state == CLIENT_NEW) {
        client_fail(client, advance->now_ms, MQTT_KEEP_ALIVE_TIMEOUT, "no CONNECT in time");
        return;
    }
    if (client->state == CLIENT_CHECKING) {
        client_fail(client, advance->now_ms, MQTT_SERVER_BUSY,
                    "its password could not be checked in time");
        return;
    }
    /* One and a half keep alive periods [MQTT-3.1.2-22]. Any byte is life: a browser that throttles
     * a tab still answers WebSocket pings. */
    uint64_t deadline_ms =
        clients->host.last_inbound_ms(client->link) + UINT64_C(1500) * client->keep_alive_s;
    if (advance->now_ms >= deadline_ms) {
        client_fail(client, advance->now_ms, MQTT_KEEP_ALIVE_TIMEOUT, "keep alive timed out");
    } else {
        timer_arm(&clients->wheel, &client->timer, deadline_ms);
    }
}

void mqtt_clients_advance(struct mqtt_clients *clients, uint64_t now_ms)
{
    struct advance advance = {clients, now_ms};
    timer_wheel_advance(&clients->wheel, now_ms, fire, &advance);
}

static void on_violation(struct mqtt_client *client, uint64_t now_ms,
                         const struct mqtt_packet *packet)
{
    enum mqtt_reason reason = (enum mqtt_reason)packet->violation;
    if (packet->why != NULL) {
        client_fail(client, now_ms, reason, packet->why);
    } else {
        client->clients->stats.packets_received++;
        client_fail_packet(client, now_ms, (enum mqtt_type)packet->type, reason);
    }
}

void mqtt_client_packet(struct mqtt_client *client, uint64_t now_ms,
                        const struct mqtt_packet *packet)
{
    if (client->state == CLIENT_CLOSING) {
        message_release(packet->message);
    } else if (packet->violation != MQTT_SUCCESS) {
        on_violation(client, now_ms, packet);
    } else if (client->state == CLIENT_CHECKING) {
        client_keep_early(client, now_ms, packet);
    } else {
        client->clients->stats.packets_received++;
        if (client->state == CLIENT_NEW) {
            client_on_connect(client, now_ms, packet->body);
        } else {
            client_on_packet(client, now_ms, packet);
        }
    }
}

void mqtt_client_receive(struct mqtt_client *client, uint64_t now_ms, struct bytes in)
{
    struct mqtt_packet packet;
    while (client->state != CLIENT_CLOSING &&
           mqtt_decoder_next(&client->decoder, client->settings, &in, &packet)) {
        mqtt_client_packet(client, now_ms, &packet);
    }
    if (client->state == CLIENT_CLOSING) {
        mqtt_decoder_stop(&client->decoder);
    }
}

void *mqtt_client_link(const struct mqtt_client *client)
{
    return client->link;
}

struct bytes mqtt_client_id(const struct mqtt_client *client)
{
    return client->session == NULL ? BYTES_EMPTY : core_session_client_id(client->session);
}

struct bytes mqtt_client_user_name(const struct mqtt_client *client)
{
    return client->has_user_name ? bytes_of(client->extra->user_name, client->extra->user_name_len)
                                 : BYTES_EMPTY;
}

enum mqtt_version mqtt_client_version(const struct mqtt_client *client)
{
    return (enum mqtt_version)client->version;
}

bool mqtt_client_is_connected(const struct mqtt_client *client)
{
    return client->state == CLIENT_CONNECTED;
}

bool mqtt_client_clean_start(const struct mqtt_client *client)
{
    return client->clean_start;
}

uint16_t mqtt_client_keep_alive_s(const struct mqtt_client *client)
{
    return client->keep_alive_s;
}

uint64_t mqtt_client_opened_ms(const struct mqtt_client *client)
{
    return client->opened_ms;
}

static const char *protocol_name(const struct mqtt_client *client)
{
    switch ((enum mqtt_version)client->version) {
    case MQTT_VERSION_3_1:
        return "MQTT 3.1";
    case MQTT_VERSION_3_1_1:
        return "MQTT 3.1.1";
    case MQTT_VERSION_5:
        return "MQTT 5.0";
    }
    return NULL;
}

static void kind_receive(struct client *client, uint64_t now_ms, struct bytes in)
{
    mqtt_client_receive((struct mqtt_client *)client, now_ms, in);
}

static void kind_send(struct client *client, uint64_t now_ms, struct output *output)
{
    mqtt_client_send((struct mqtt_client *)client, now_ms, output);
}

static void kind_close(struct client *client, uint64_t now_ms, const char *why)
{
    mqtt_client_close((struct mqtt_client *)client, now_ms, why);
}

static void *kind_link(const struct client *client)
{
    return ((const struct mqtt_client *)client)->link;
}

static void kind_describe(const struct client *client, struct client_facts *out)
{
    const struct mqtt_client *self = (const struct mqtt_client *)client;
    *out = (struct client_facts){
        .client_id = mqtt_client_id(self),
        .user_name = mqtt_client_user_name(self),
        .protocol = protocol_name(self),
        .opened_ms = self->opened_ms,
        .keep_alive_s = self->keep_alive_s,
        .clean_start = self->clean_start,
    };
}

const struct client_kind *mqtt_client_kind(void)
{
    static const struct client_kind kind = {
        .receive = kind_receive,
        .send = kind_send,
        .close = kind_close,
        .link = kind_link,
        .describe = kind_describe,
        .output_ready = session_output_ready,
        .session_lost = session_lost,
    };
    return &kind;
}
