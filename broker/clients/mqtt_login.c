/* A CONNECT whose password is checked beside the core's thread, and what a change of the files
 * means for clients that are in. */
#include "mem.h"
#include "mqtt_client_state.h"

static void drop_earlies(struct earlies *earlies)
{
    while (earlies->first != NULL) {
        struct early *early = earlies->first;
        earlies->first = early->next;
        message_release(early->packet.message);
        mem_free(early);
    }
}

/* Handles what the client sent behind its CONNECT. */
static void take_earlies(struct mqtt_client *client, uint64_t now_ms, struct earlies *earlies)
{
    while (earlies->first != NULL) {
        struct early *early = earlies->first;
        earlies->first = early->next;
        mqtt_client_packet(client, now_ms, &early->packet);
        mem_free(early);
    }
}

static void on_answer(void *owner, uint64_t now_ms, enum status result)
{
    struct mqtt_client *client = owner;
    struct login *login = client->extra->login;
    client->extra->login = NULL;
    client->state = CLIENT_NEW;
    client_on_checked(client, now_ms, login, result);
    if (client->state == CLIENT_CHECKING) { /* once more */
        struct earlies *earlies = &client->extra->login->earlies;
        *earlies = login->earlies;
        if (login->earlies.first == NULL) {
            earlies->end = &earlies->first;
        }
    } else {
        take_earlies(client, now_ms, &login->earlies);
    }
    mem_free(login);
}

bool client_begin_check(struct mqtt_client *client, uint64_t now_ms, struct bytes body,
                        const struct access_grant *grant, struct bytes password)
{
    const struct access_checker *checker = &client->clients->host.checker;
    struct client_extra *extra = client_extra_get(client);
    struct login *login = extra == NULL ? NULL : mem_alloc(sizeof *login + body.len);
    if (login == NULL) {
        return false;
    }
    login->earlies = (struct earlies){.end = &login->earlies.first};
    login->mark = grant->mark;
    login->len = body.len;
    bytes_copy(login->body, body);
    login->check = checker->start(checker->ctx, grant->hash, password, on_answer, client);
    if (login->check == NULL) {
        mem_free(login);
        return false;
    }
    extra->login = login;
    client->state = CLIENT_CHECKING;
    timer_arm(&client->clients->wheel, &client->timer, now_ms + LOGIN_TIMEOUT_MS);
    return true;
}

void client_cancel_check(struct mqtt_client *client)
{
    const struct access_checker *checker = &client->clients->host.checker;
    struct login *login = client->extra == NULL ? NULL : client->extra->login;
    if (login != NULL) {
        checker->cancel(checker->ctx, login->check);
        drop_earlies(&login->earlies);
        mem_free(login);
        client->extra->login = NULL;
    }
}

/* It is read on for a while, because a peer that gives up is only seen then. CONNACK, when it goes
 * out, lets reading go on. */
void client_keep_early(struct mqtt_client *client, uint64_t now_ms,
                       const struct mqtt_packet *packet)
{
    struct earlies *earlies = &client->extra->login->earlies;
    struct early *early = NULL;
    if (earlies->bytes <= LOGIN_EARLY_MAX) {
        early = mem_alloc(sizeof *early + packet->body.len);
    }
    if (early == NULL) {
        bool is_much = earlies->bytes > LOGIN_EARLY_MAX;
        message_release(packet->message);
        client_fail(client, now_ms, is_much ? MQTT_QUOTA_EXCEEDED : MQTT_SERVER_BUSY,
                    is_much ? "it sent too much before CONNACK" : "out of memory");
        return;
    }
    early->next = NULL;
    early->packet = *packet;
    client_count_expiry(packet, now_ms);
    early->packet.expiry_counts = true;
    early->packet.body = bytes_of(early->body, packet->body.len);
    bytes_copy(early->body, packet->body);
    *earlies->end = early;
    earlies->end = &early->next;
    earlies->bytes += sizeof *early + packet->body.len + packet->payload_bytes;
    if (earlies->bytes > LOGIN_EARLY_PAUSE && !client->is_paused) {
        client->is_paused = true;
        client->clients->host.set_reading(client->link, false);
    }
}

bool client_take_rights(struct mqtt_client *client, struct bytes client_id)
{
    struct access *access = client->settings->access;
    if (!access_has_acl(access)) {
        return true;
    }
    struct client_extra *extra = client_extra_get(client);
    return extra != NULL && access_rights_create(access, mqtt_client_user_name(client), client_id,
                                                 &extra->rights) == STATUS_OK;
}

static void recheck(struct mqtt_client *client, uint64_t now_ms)
{
    const struct mqtt_settings *settings = client->settings;
    if (!settings->certificate_is_user &&
        !access_is_still_granted(settings->access, mqtt_client_user_name(client),
                                 client->extra == NULL ? 0 : client->extra->login_mark)) {
        client_fail(client, now_ms, MQTT_NOT_AUTHORIZED,
                    "its entry in the password file was changed or removed");
        return;
    }
    if (client_rights(client) != NULL) {
        return; /* they follow the file */
    }
    if (!client_take_rights(client, core_session_client_id(client->session))) {
        client_fail(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    core_session_set_reader(client->session, (struct shared *)(void *)client_rights(client));
}

void mqtt_clients_on_access_changed(struct mqtt_clients *clients, uint64_t now_ms)
{
    for (struct mqtt_client *client = clients->first; client != NULL; client = client->next) {
        if (client->state == CLIENT_CONNECTED) {
            recheck(client, now_ms);
        }
    }
}
