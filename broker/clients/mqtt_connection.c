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
    struct bytes user_name;
    struct core_will will;
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
    client->clients->host.on_refused(client->link, client, opening->connect.client_id, reason);
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
        const struct mqtt_host *host = &client->clients->host;
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
        .allow_anonymous = client->settings->allow_anonymous,
        .certificate_is_user = client->settings->certificate_is_user,
        .certificate_user = mqtt_client_user_name(client),
        .has_user_name = connect->has_user_name,
        .user_name = connect->user_name,
    };
    enum mqtt_reason reason = access_connect(&request, &opening->user_name);
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
    char *copy = NULL;
    if (opening->user_name.data != NULL) {
        copy = mem_copy_string(opening->user_name);
        if (copy == NULL) {
            return MQTT_SERVER_BUSY;
        }
    }
    size_t len = opening->user_name.len;
    mem_free(client->user_name);
    client->user_name = copy;
    client->user_name_len = (uint16_t)len;
    return MQTT_SUCCESS;
}

static enum mqtt_reason open_session(struct mqtt_client *client, uint64_t now_ms,
                                     struct opening *opening, bool *session_present)
{
    const struct mqtt_connect *connect = &opening->connect;
    enum mqtt_reason reason = keep_user_name(client, opening);
    if (reason == MQTT_SUCCESS && connect->has_will) {
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
        .will = connect->has_will ? &opening->will : NULL,
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

void client_on_connect(struct mqtt_client *client, uint64_t now_ms, struct bytes body)
{
    struct opening opening;
    memset(&opening, 0, offsetof(struct opening, assigned_id));
    struct mqtt_connect *connect = &opening.connect;
    enum mqtt_reason reason = mqtt_connect_decode(body, connect);
    client->version = (unsigned)connect->version & 7U;
    if (reason == MQTT_SUCCESS) {
        client->packet_bytes_max = connect->maximum_packet_size; /* a refusal keeps to it too */
        reason = judge(client, &opening);
    }
    bool session_present = false;
    if (reason == MQTT_SUCCESS) {
        client->clean_start = connect->clean_start;
        client->is_bridge = connect->is_bridge;
        client->expires_at_once = connect->session_expiry_s == 0;
        client->alias_maximum = connect->topic_alias_maximum;
        client->takes_problems = connect->request_problem_information;
        reason = open_session(client, now_ms, &opening, &session_present);
    }
    if (reason != MQTT_SUCCESS) {
        refuse(client, now_ms, &opening, reason);
        return;
    }
    welcome(client, now_ms, &opening, session_present);
    if (client->state == CLIENT_CONNECTED) {
        client->clients->host.on_connected(client->link, client);
    }
}
