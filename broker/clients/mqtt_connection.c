/* CONNECT and its answer (3.1, 3.2). */
#include <string.h>

#include "mem.h"
#include "mqtt_client_state.h"
#include "mqtt_connect.h"
#include "mqtt_publish.h"

enum {
    AUTO_ID_RANDOM_BYTES = 16,
    AUTO_ID_MAX = 256,
    CONNACK_HEAD_BYTES = 80, /* all but its strings */
    RESPONSE_INFORMATION_MAX = 1024,
};

/* What a CONNECT is judged by and becomes, step by step. */
struct opening {
    struct mqtt_connect connect;
    struct access_grant grant;
    struct core_will will;
    bool has_will; /* one that it may publish */
    bool id_was_assigned;
    size_t assigned_len;
    uint8_t assigned_id[AUTO_ID_MAX];
};

/* The Reason String goes where it would not fit [MQTT-3.2.2-19]. */
static void send_connack(struct mqtt_client *client, uint64_t now_ms, enum mqtt_version version,
                         struct mqtt_connack *connack, uint64_t ticket)
{
    size_t capacity = CONNACK_HEAD_BYTES + connack->assigned_client_id.len +
                      connack->reason_string.len + connack->response_information.len;
    struct writer writer = client_control_begin(client, capacity);
    struct writer start = writer;
    mqtt_connack_encode(&writer, version, connack);
    if (writer_ok(&writer) && !client_takes_size(client, writer_len(&writer))) {
        connack->reason_string = BYTES_EMPTY;
        writer = start;
        mqtt_connack_encode(&writer, version, connack);
    }
    client_control_send(client, now_ms, &writer, ticket);
}

/* Before MQTT 5 only some reasons have a return code (3.1.1, 3.2.2.3); the rest just closes. */
static bool is_answered(enum mqtt_version version, enum mqtt_reason reason)
{
    switch (reason) {
    case MQTT_SERVER_BUSY:
    case MQTT_SERVER_UNAVAILABLE:
        return false;
    case MQTT_UNSUPPORTED_PROTOCOL_VERSION:
    case MQTT_CLIENT_IDENTIFIER_NOT_VALID:
    case MQTT_BAD_USER_NAME_OR_PASSWORD:
    case MQTT_NOT_AUTHORIZED:
        return true;
    default:
        return version == MQTT_VERSION_5;
    }
}

/* Answers CONNACK with the reason and closes. A passing trouble is not answered: clients take a
 * refusal as final and try again after a mere close. */
static void refuse(struct mqtt_client *client, uint64_t now_ms, const struct opening *opening,
                   enum mqtt_reason reason)
{
    client->clients->host.on_refused(client->link, &client->base, opening->connect.client_id,
                                     reason);
    client->refused = true;
    if (is_answered(opening->connect.version, reason)) {
        struct mqtt_connack connack = mqtt_connack_of(reason);
        if (reason != MQTT_UNSUPPORTED_PROTOCOL_VERSION) { /* who knows what a later one reads */
            connack.reason_string = bytes_of_string(mqtt_reason_name(reason));
        }
        send_connack(client, now_ms, opening->connect.version, &connack, 0);
    }
    client_leave(client, now_ms, LEAVE_WITHOUT_WILL, reason, mqtt_reason_name(reason));
}

static void append_hex(struct opening *opening, const uint8_t *random, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        opening->assigned_id[opening->assigned_len++] = (uint8_t)digits[random[i] >> 4];
        opening->assigned_id[opening->assigned_len++] = (uint8_t)digits[random[i] & 15];
    }
}

/* 3.1.3.1: a client without an identifier gets one that nobody can guess. */
static enum mqtt_reason settle_client_id(const struct mqtt_client *client, struct opening *opening)
{
    const struct mqtt_settings *settings = client->settings;
    struct mqtt_connect *connect = &opening->connect;
    if (connect->client_id.len == 0) {
        if (!settings->allow_zero_length_client_id) {
            return MQTT_CLIENT_IDENTIFIER_NOT_VALID;
        }
        const struct client_host *host = &client->clients->host;
        struct bytes prefix = bytes_of_string(settings->auto_id_prefix);
        size_t room = AUTO_ID_MAX - 2 * (size_t)AUTO_ID_RANDOM_BYTES;
        prefix.len = prefix.len < room ? prefix.len : room;
        bytes_copy(opening->assigned_id, prefix);
        opening->assigned_len = prefix.len;
        uint8_t random[AUTO_ID_RANDOM_BYTES];
        host->random(host->ctx, random, sizeof random);
        append_hex(opening, random, sizeof random);
        opening->id_was_assigned = true;
        connect->client_id = bytes_of(opening->assigned_id, opening->assigned_len);
    }
    if (core_client_id_is_reserved(connect->client_id)) {
        return MQTT_CLIENT_IDENTIFIER_NOT_VALID;
    }
    if (settings->client_id_prefix != NULL &&
        !bytes_start_with(connect->client_id, bytes_of_string(settings->client_id_prefix))) {
        return MQTT_NOT_AUTHORIZED;
    }
    return MQTT_SUCCESS;
}

static enum mqtt_reason check_will(const struct mqtt_client *client,
                                   const struct mqtt_connect *connect)
{
    if (!connect->has_will) {
        return MQTT_SUCCESS;
    }
    if (connect->will.qos > client->settings->qos_max) {
        return MQTT_QOS_NOT_SUPPORTED; /* [MQTT-3.2.2-12] */
    }
    if (connect->will.retain && !client->settings->retain_available) {
        return MQTT_RETAIN_NOT_SUPPORTED; /* [MQTT-3.2.2-13] */
    }
    if (connect->will.payload.len > client->settings->payload_bytes_max) {
        return MQTT_PACKET_TOO_LARGE;
    }
    if (!core_accepts_topic(client->clients->core, connect->will.topic)) {
        return MQTT_TOPIC_NAME_INVALID;
    }
    return access_may_publish(connect->will.topic) ? MQTT_SUCCESS : MQTT_NOT_AUTHORIZED;
}

static enum mqtt_reason judge(const struct mqtt_client *client, struct opening *opening)
{
    const struct mqtt_connect *connect = &opening->connect;
    if (connect->has_authentication_method) {
        return MQTT_BAD_AUTHENTICATION_METHOD; /* none is served [MQTT-4.12.0-1] */
    }
    struct access_request request = {
        .access = client->settings->access,
        .allow_anonymous = client->settings->allow_anonymous,
        .certificate_is_user = client->settings->certificate_is_user,
        .certificate_user = mqtt_client_user_name(client),
        .has_user_name = connect->has_user_name,
        .user_name = connect->user_name,
        .has_password = connect->has_password,
        .password = connect->password,
    };
    enum mqtt_reason reason = access_connect(&request, &opening->grant);
    if (reason == MQTT_SUCCESS) {
        reason = settle_client_id(client, opening);
    }
    return reason == MQTT_SUCCESS ? check_will(client, connect) : reason;
}

static enum mqtt_reason make_will(struct opening *opening)
{
    const struct mqtt_will *will = &opening->connect.will;
    struct message *message = NULL;
    size_t properties_len = mqtt_publish_forward_len(will->properties);
    if (message_create(will->topic, properties_len, will->payload, &message) != STATUS_OK) {
        return MQTT_SERVER_BUSY;
    }
    struct writer writer = writer_of(message_properties_area(message), properties_len);
    mqtt_publish_forward(will->properties, &writer);
    ENSURE(writer_ok(&writer) && writer_len(&writer) == properties_len);
    message->qos = will->qos;
    message->retain = will->retain;
    opening->will = (struct core_will){message, will->delay_s, will->expiry_s, will->has_expiry};
    return MQTT_SUCCESS;
}

/* The client's own name of the user, or the one that its certificate gave it before. */
static enum mqtt_reason keep_user_name(struct mqtt_client *client, const struct opening *opening)
{
    if (!client_set_user_name(client, opening->grant.user_name)) {
        return MQTT_SERVER_BUSY;
    }
    if (client->extra != NULL) {
        client->extra->login_mark = opening->grant.mark;
    }
    return MQTT_SUCCESS;
}

static enum mqtt_reason open_session(struct mqtt_client *client, uint64_t now_ms,
                                     struct opening *opening, bool *session_present)
{
    const struct mqtt_connect *connect = &opening->connect;
    enum mqtt_reason reason = keep_user_name(client, opening);
    if (reason == MQTT_SUCCESS && !client_take_rights(client, connect->client_id)) {
        reason = MQTT_SERVER_BUSY;
    }
    /* As with mosquitto, a will that the client may not publish does not keep it out. */
    opening->has_will =
        connect->has_will && access_may_write(client_rights(client), connect->will.topic);
    if (reason == MQTT_SUCCESS && opening->has_will) {
        reason = make_will(opening);
    }
    if (reason != MQTT_SUCCESS) {
        return reason;
    }
    struct core_connect request = {
        .client_id = connect->client_id,
        .clean_start = connect->clean_start,
        .session_expiry_s = connect->session_expiry_s,
        .receive_maximum = connect->receive_maximum,
        .will = opening->has_will ? &opening->will : NULL,
        .reader = (struct shared *)(void *)client_rights(client),
        .client = client,
    };
    enum status status =
        core_connect(client->clients->core, now_ms, &request, &client->session, session_present);
    if (status == STATUS_LIMIT) {
        return MQTT_QUOTA_EXCEEDED;
    }
    return status == STATUS_OK ? MQTT_SUCCESS : MQTT_SERVER_BUSY;
}

/* 3.1.2.10 and 3.2.2.3.14: an MQTT 5 client can be told a shorter keep alive. */
static bool settle_keep_alive(struct mqtt_client *client, const struct mqtt_connect *connect)
{
    uint16_t max_s = client->settings->keep_alive_max_s;
    client->keep_alive_s = connect->keep_alive_s;
    if (connect->version == MQTT_VERSION_5 && max_s != UINT16_MAX &&
        (connect->keep_alive_s == 0 || connect->keep_alive_s > max_s)) {
        client->keep_alive_s = max_s;
        return true;
    }
    return false;
}

/*
 * Response Information (3.2.2.3.15): the listener's text, in which %c stands for the client
 * identifier and %u for the user name. Empty when the client did not ask for it, when there is
 * none, or when it becomes longer than `room`.
 */
static struct bytes response_information(const struct mqtt_client *client,
                                         const struct mqtt_connect *connect, struct writer room)
{
    const char *text = client->settings->response_information;
    if (text == NULL || !connect->request_response_information) {
        return BYTES_EMPTY;
    }
    for (; *text != '\0'; text++) {
        if (text[0] == '%' && text[1] == 'c') {
            writer_bytes(&room, connect->client_id);
            text++;
        } else if (text[0] == '%' && text[1] == 'u') {
            writer_bytes(&room, mqtt_client_user_name(client));
            text++;
        } else {
            writer_u8(&room, (uint8_t)*text);
        }
    }
    return writer_ok(&room) ? writer_written(&room) : BYTES_EMPTY;
}

static void welcome(struct mqtt_client *client, uint64_t now_ms, const struct opening *opening,
                    bool session_present)
{
    const struct mqtt_settings *settings = client->settings;
    const struct mqtt_connect *connect = &opening->connect;
    struct mqtt_connack connack = mqtt_connack_of(MQTT_SUCCESS);
    connack.session_present = session_present;
    client->resumed = session_present;
    connack.session_expiry_s = core_session_expiry_s(client->session);
    connack.has_session_expiry = connack.session_expiry_s != connect->session_expiry_s;
    connack.receive_maximum = settings->receive_maximum;
    connack.maximum_qos = settings->qos_max;
    connack.retain_available = settings->retain_available;
    connack.maximum_packet_size = settings->packet_bytes_max;
    connack.topic_alias_maximum = settings->topic_alias_maximum;
    connack.has_server_keep_alive = settle_keep_alive(client, connect);
    connack.server_keep_alive_s = client->keep_alive_s;
    if (opening->id_was_assigned) {
        connack.assigned_client_id = connect->client_id;
    }
    uint8_t room[RESPONSE_INFORMATION_MAX];
    connack.response_information =
        response_information(client, connect, writer_of(room, sizeof room));
    send_connack(client, now_ms, connect->version, &connack, core_ticket(client->clients->core));
    if (client->state == CLIENT_CLOSING) {
        return; /* it was not sent, so neither may a DISCONNECT be [MQTT-3.14.0-1] */
    }
    client->state = CLIENT_CONNECTED;
    client->clients->stats.connections++;
    timer_arm(&client->clients->wheel, &client->timer,
              client->keep_alive_s == 0 ? TIMER_NEVER
                                        : now_ms + UINT64_C(1500) * client->keep_alive_s);
}

/* Everything but the password has been found good. */
static void let_in(struct mqtt_client *client, uint64_t now_ms, struct opening *opening)
{
    const struct mqtt_connect *connect = &opening->connect;
    const struct client_host *host = &client->clients->host;
    bool session_present = false;
    client->clean_start = connect->clean_start;
    client->is_bridge = connect->is_bridge;
    client->expires_at_once = connect->session_expiry_s == 0;
    client->takes_problems = connect->request_problem_information;
    enum mqtt_reason reason = open_session(client, now_ms, opening, &session_present);
    if (reason != MQTT_SUCCESS) {
        refuse(client, now_ms, opening, reason);
        return;
    }
    welcome(client, now_ms, opening, session_present);
    if (client->state != CLIENT_CONNECTED) {
        return;
    }
    host->on_connected(client->link, &client->base);
    if (connect->has_will && !opening->has_will) {
        client->told_refused = true;
        host->on_publish_refused(client->link, &client->base, connect->will.topic,
                                 MQTT_NOT_AUTHORIZED);
    }
}

/* False: no memory. */
static bool keep_limits(struct mqtt_client *client, const struct mqtt_connect *connect)
{
    if (connect->maximum_packet_size != 0 || connect->topic_alias_maximum != 0) {
        struct client_extra *extra = client_extra_get(client);
        if (extra == NULL) {
            return false;
        }
        extra->packet_bytes_max = connect->maximum_packet_size;
        extra->alias_maximum = connect->topic_alias_maximum;
    }
    return true;
}

static enum mqtt_reason open_and_judge(struct mqtt_client *client, struct bytes body,
                                       struct opening *opening)
{
    memset(opening, 0, offsetof(struct opening, assigned_id));
    enum mqtt_reason reason = mqtt_connect_decode(body, &opening->connect);
    client->version = (unsigned)opening->connect.version & 7U;
    if (reason == MQTT_SUCCESS) {
        /* A refusal keeps to it too. */
        reason = keep_limits(client, &opening->connect) ? judge(client, opening) : MQTT_SERVER_BUSY;
    }
    return reason;
}

void client_on_connect(struct mqtt_client *client, uint64_t now_ms, struct bytes body)
{
    struct opening opening;
    enum mqtt_reason reason = open_and_judge(client, body, &opening);
    if (reason == MQTT_SUCCESS && opening.grant.hash != NULL) {
        if (client_begin_check(client, now_ms, body, &opening.grant, opening.connect.password)) {
            return;
        }
        reason = MQTT_SERVER_BUSY;
    }
    if (reason != MQTT_SUCCESS) {
        refuse(client, now_ms, &opening, reason);
        return;
    }
    let_in(client, now_ms, &opening);
}

void client_on_checked(struct mqtt_client *client, uint64_t now_ms, const struct login *login,
                       enum status result)
{
    struct opening opening;
    struct bytes body = bytes_of(login->body, login->len);
    enum mqtt_reason reason = open_and_judge(client, body, &opening);
    if (reason == MQTT_SUCCESS && opening.grant.hash != NULL && opening.grant.mark != login->mark) {
        client_on_connect(client, now_ms, body); /* a reload has changed the user's entry */
        return;
    }
    if (reason == MQTT_SUCCESS && opening.grant.hash != NULL) {
        if (result != STATUS_OK && result != STATUS_INVALID) {
            reason = MQTT_SERVER_BUSY;
        } else if (result == STATUS_INVALID || login->mark == 0) {
            reason = MQTT_BAD_USER_NAME_OR_PASSWORD;
        }
    }
    if (reason != MQTT_SUCCESS) {
        refuse(client, now_ms, &opening, reason);
        return;
    }
    let_in(client, now_ms, &opening);
}
