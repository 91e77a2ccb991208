/* CONNECT and its answer. */
#include "stomp_client_state.h"

#include "mem.h"

enum { SESSION_RANDOM_BYTES = 16, CLIENT_ID_MAX = 1024 };

/* What a CONNECT is judged by and becomes. */
struct opening {
    const struct stomp_frame *frame;
    struct bytes client_id; /* as sent; empty = none */
    struct access_grant grant;
    struct bytes passcode;
    enum stomp_version version;
};

/* Answers ERROR and closes. A passing trouble is not answered: whoever is refused may stop trying,
 * and whoever is cut off comes back. */
static void refuse(struct stomp_client *client, uint64_t now_ms, const struct opening *opening,
                   enum mqtt_reason reason, const char *text)
{
    client->clients->host.on_refused(client->link, &client->base, opening->client_id, reason);
    client->refused = true;
    if (reason != MQTT_SERVER_BUSY) {
        stomp_send_error(client, client->receipt, text);
    }
    stomp_leave(client, now_ms, reason, text);
}

/* The highest version that both know; without accept-version it is 1.0 (1.2, Protocol
 * Negotiation). */
static enum stomp_version choose_version(const struct stomp_frame *frame)
{
    static const struct {
        const char *name;
        enum stomp_version version;
    } known[] = {{"1.0", STOMP_1_0}, {"1.1", STOMP_1_1}, {"1.2", STOMP_1_2}};
    struct bytes list;
    if (!stomp_frame_header(frame, "accept-version", &list)) {
        return STOMP_1_0;
    }
    enum stomp_version best = STOMP_VERSION_NONE;
    while (list.len != 0) {
        const uint8_t *comma = memchr(list.data, ',', list.len);
        size_t len = comma == NULL ? list.len : (size_t)(comma - list.data);
        struct bytes one = bytes_of(list.data, len);
        while (one.len != 0 && one.data[0] == ' ') {
            one = bytes_from(one, 1);
        }
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if (bytes_equal_string(one, known[i].name) && known[i].version > best) {
                best = known[i].version;
            }
        }
        list = bytes_from(list, len + 1);
    }
    return best;
}

/* "cx,cy": what the client can send and what it wants, each as our side of it. */
static bool read_heart_beats(struct stomp_client *client, const struct stomp_frame *frame)
{
    struct bytes text;
    if (!stomp_frame_header(frame, "heart-beat", &text)) {
        return true;
    }
    const uint8_t *comma = text.len == 0 ? NULL : memchr(text.data, ',', text.len);
    if (comma == NULL) {
        return false;
    }
    size_t len = (size_t)(comma - text.data);
    uint64_t sends = 0;
    uint64_t wants = 0;
    if (!stomp_number_read(bytes_of(text.data, len), UINT32_MAX / 4, &sends) ||
        !stomp_number_read(bytes_from(text, len + 1), UINT32_MAX / 4, &wants)) {
        return false;
    }
    uint64_t min = STOMP_HEART_BEAT_MIN_MS;
    client->receive_interval_ms = (uint32_t)(sends == 0 ? 0 : sends < min ? min : sends);
    client->send_interval_ms = (uint32_t)(wants == 0 ? 0 : wants < min ? min : wants);
    return true;
}

static enum mqtt_reason judge(const struct stomp_client *client, struct opening *opening)
{
    const struct mqtt_settings *settings = client->settings;
    struct access_request request = {
        .access = settings->access,
        .allow_anonymous = settings->allow_anonymous,
        .certificate_is_user = settings->certificate_is_user,
        .certificate_user = bytes_of(client->user_name, client->user_name_len),
    };
    request.has_user_name = stomp_frame_header(opening->frame, "login", &request.user_name);
    request.has_password = stomp_frame_header(opening->frame, "passcode", &request.password);
    opening->passcode = request.password;
    enum mqtt_reason reason = access_connect(&request, &opening->grant);
    if (reason != MQTT_SUCCESS) {
        return reason;
    }
    if (settings->client_id_prefix != NULL && opening->client_id.len != 0 &&
        !bytes_start_with(opening->client_id, bytes_of_string(settings->client_id_prefix))) {
        return MQTT_NOT_AUTHORIZED;
    }
    return opening->client_id.len > CLIENT_ID_MAX || core_client_id_is_reserved(opening->client_id)
               ? MQTT_CLIENT_IDENTIFIER_NOT_VALID
               : MQTT_SUCCESS;
}

/* A client without a name gets one that nobody can guess; CONNECTED tells it as its session. */
static char *name_client(const struct stomp_client *client, const struct opening *opening)
{
    static const char digits[] = "0123456789abcdef";
    if (opening->client_id.len != 0) {
        return mem_copy_string(opening->client_id);
    }
    uint8_t random[SESSION_RANDOM_BYTES];
    const struct client_host *host = &client->clients->host;
    host->random(host->ctx, random, sizeof random);
    uint8_t text[CLIENT_ID_MAX];
    struct writer writer = writer_of(text, sizeof text);
    struct bytes prefix = bytes_of_string(client->settings->auto_id_prefix);
    if (prefix.len <= CLIENT_ID_MAX - 2 * sizeof random) {
        writer_bytes(&writer, prefix);
    }
    for (size_t i = 0; i < sizeof random; i++) {
        writer_u8(&writer, (uint8_t)digits[random[i] >> 4]);
        writer_u8(&writer, (uint8_t)digits[random[i] & 15]);
    }
    return mem_copy_string(writer_written(&writer));
}

/* Its names and rights. False: there is no memory. */
static bool take_names(struct stomp_client *client, const struct opening *opening)
{
    struct bytes user = opening->grant.user_name;
    struct access *access = client->settings->access;
    char *client_id = name_client(client, opening);
    char *user_name = user.data == NULL ? NULL : mem_copy_string(user);
    if (client_id == NULL || (user_name == NULL && user.data != NULL) ||
        (access_has_acl(access) && access_rights_create(access, user, bytes_of_string(client_id),
                                                        &client->rights) != STATUS_OK)) {
        mem_free(client_id);
        mem_free(user_name);
        return false;
    }
    size_t user_name_len = user.len; /* it may be what is freed now */
    mem_free(client->user_name);
    client->user_name = user_name;
    client->user_name_len = (uint16_t)user_name_len;
    client->client_id = client_id;
    client->client_id_len = (uint16_t)strlen(client_id);
    client->login_mark = opening->grant.mark;
    return true;
}

/* The client was let in. */
static void welcome(struct stomp_client *client, uint64_t now_ms, const struct opening *opening)
{
    client->version = (uint8_t)opening->version;
    if (!take_names(client, opening)) {
        refuse(client, now_ms, opening, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    stomp_send_connected(client, now_ms);
    if (client->state == STOMP_CLOSING) {
        return;
    }
    client->state = STOMP_CONNECTED;
    client->clients->connected++;
    client->clients->stats.connections++;
    stomp_arm_heart_beats(client, now_ms);
    client->clients->host.on_connected(client->link, &client->base);
}

/* MQTT_SUCCESS, or the reason why not and *text, the words for it. */
static enum mqtt_reason open_and_judge(struct stomp_client *client, struct opening *opening,
                                       const char **text)
{
    (void)stomp_frame_header(opening->frame, "client-id", &opening->client_id);
    opening->version = choose_version(opening->frame);
    if (opening->version == STOMP_VERSION_NONE) {
        *text = "supported protocol versions are 1.0 1.1 1.2";
        return MQTT_UNSUPPORTED_PROTOCOL_VERSION;
    }
    if (!read_heart_beats(client, opening->frame)) {
        *text = "heart-beat must be two numbers with a comma between";
        return MQTT_PROTOCOL_ERROR;
    }
    enum mqtt_reason reason = judge(client, opening);
    *text = mqtt_reason_name(reason);
    return reason;
}

static void on_answer(void *owner, uint64_t now_ms, enum status result);

/* False: there is no memory. */
static bool begin_check(struct stomp_client *client, uint64_t now_ms, const struct opening *opening)
{
    const struct access_checker *checker = &client->clients->host.checker;
    struct stomp_login *login = mem_alloc(sizeof *login + client->frame.len);
    if (login == NULL) {
        return false;
    }
    login->mark = opening->grant.mark;
    login->len = client->frame.len;
    bytes_copy(login->frame, client->frame);
    login->check =
        checker->start(checker->ctx, opening->grant.hash, opening->passcode, on_answer, client);
    if (login->check == NULL) {
        mem_free(login);
        return false;
    }
    client->login = login;
    client->state = STOMP_CHECKING;
    timer_arm(&client->clients->wheel, &client->timer, now_ms + STOMP_LOGIN_TIMEOUT_MS);
    return true;
}

void stomp_cancel_login(struct stomp_client *client)
{
    const struct access_checker *checker = &client->clients->host.checker;
    if (client->login != NULL) {
        checker->cancel(checker->ctx, client->login->check);
        mem_free(client->login);
        client->login = NULL;
    }
}

void stomp_on_connect(struct stomp_client *client, uint64_t now_ms, const struct stomp_frame *frame)
{
    struct opening opening = {.frame = frame};
    const char *text = NULL;
    enum mqtt_reason reason = open_and_judge(client, &opening, &text);
    if (reason == MQTT_SUCCESS && opening.grant.hash != NULL) {
        if (begin_check(client, now_ms, &opening)) {
            return;
        }
        reason = MQTT_SERVER_BUSY;
        text = "out of memory";
    }
    if (reason != MQTT_SUCCESS) {
        refuse(client, now_ms, &opening, reason, text);
        return;
    }
    welcome(client, now_ms, &opening);
}

/* The password of `frame` was checked. A reload may have changed the user's entry meanwhile: then
 * it is checked once more. */
static void on_checked(struct stomp_client *client, uint64_t now_ms,
                       const struct stomp_frame *frame, const struct stomp_login *login,
                       enum status result)
{
    struct opening opening = {.frame = frame};
    const char *text = NULL;
    enum mqtt_reason reason = open_and_judge(client, &opening, &text);
    if (reason == MQTT_SUCCESS && opening.grant.hash != NULL) {
        if (opening.grant.mark != login->mark) {
            stomp_on_connect(client, now_ms, frame);
            return;
        }
        if (result != STATUS_OK && result != STATUS_INVALID) {
            reason = MQTT_SERVER_BUSY;
            text = "its password could not be checked";
        } else if (result == STATUS_INVALID || login->mark == 0) {
            reason = MQTT_BAD_USER_NAME_OR_PASSWORD;
            text = mqtt_reason_name(reason);
        }
    }
    if (reason != MQTT_SUCCESS) {
        refuse(client, now_ms, &opening, reason, text);
        return;
    }
    welcome(client, now_ms, &opening);
}

static void on_answer(void *owner, uint64_t now_ms, enum status result)
{
    struct stomp_client *client = owner;
    struct stomp_login *login = client->login;
    struct stomp_frame frame;
    uint8_t scratch[STOMP_HEAD_BYTES_MAX];
    struct stomp_scan scan = {0};
    client->login = NULL;
    client->state = STOMP_NEW;
    client->frame = bytes_of(login->frame, login->len);
    /* It was found good before, and is again. */
    ENSURE(stomp_frame_scan(&scan, client->frame, SIZE_MAX) == STOMP_OK &&
           stomp_frame_decode(client->frame, &scan, STOMP_VERSION_NONE, scratch, &frame) ==
               STOMP_OK);
    (void)stomp_frame_header(&frame, "receipt", &client->receipt);
    on_checked(client, now_ms, &frame, login, result);
    client->receipt = BYTES_EMPTY;
    mem_free(login);
    stomp_go_on(client, now_ms);
}

void stomp_recheck(struct stomp_client *client, uint64_t now_ms)
{
    struct access *access = client->settings->access;
    struct bytes user = bytes_of(client->user_name, client->user_name_len);
    if (!client->settings->certificate_is_user &&
        !access_is_still_granted(access, user, client->login_mark)) {
        stomp_fail(client, now_ms, MQTT_NOT_AUTHORIZED,
                   "its entry in the password file was changed or removed");
        return;
    }
    if (client->rights != NULL || !access_has_acl(access)) {
        return; /* rights follow the file */
    }
    if (access_rights_create(access, user, bytes_of(client->client_id, client->client_id_len),
                             &client->rights) != STATUS_OK) {
        stomp_fail(client, now_ms, MQTT_SERVER_BUSY, "out of memory");
        return;
    }
    for (struct stomp_subscription *s = client->subscriptions; s != NULL; s = s->next) {
        if (s->session != NULL && s->reply_len == 0) {
            core_session_set_reader(s->session, (struct shared *)(void *)client->rights);
        }
    }
}
