/* Who sends a request: HTTP Basic, the client's certificate, or nobody in particular. */
#include "http_client_state.h"

#include "base64.h"
#include "mem.h"
#include "utf8.h"

/* What an Authorization field says; the buffer holds both texts. */
struct credentials {
    uint8_t *buffer;
    bool has_user_name;
    struct bytes user_name;
    struct bytes password;
};

static bool is_basic(struct bytes field)
{
    static const char scheme[] = "basic ";
    if (field.len < sizeof scheme - 1) {
        return false;
    }
    for (size_t i = 0; i < sizeof scheme - 2; i++) {
        if ((field.data[i] | 0x20) != scheme[i]) {
            return false;
        }
    }
    return field.data[sizeof scheme - 2] == ' ';
}

/* RFC 7617. Errors: STATUS_INVALID, STATUS_NO_MEMORY; `out` holds nothing then. */
static enum status read_credentials(struct bytes field, struct credentials *out)
{
    enum { SCHEME_LEN = 6 };
    *out = (struct credentials){.buffer = NULL};
    if (field.len == 0) {
        return STATUS_OK;
    }
    if (!is_basic(field)) {
        return STATUS_INVALID;
    }
    struct bytes text = bytes_from(field, SCHEME_LEN);
    while (text.len != 0 && text.data[0] == ' ') {
        text = bytes_from(text, 1);
    }
    size_t capacity = base64_decoded_max(text.len);
    out->buffer = mem_alloc(capacity);
    if (out->buffer == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct writer writer = writer_of(out->buffer, capacity);
    bool decoded = base64_decode(text, &writer);
    struct bytes pair = writer_written(&writer);
    const uint8_t *colon = pair.len == 0 ? NULL : memchr(pair.data, ':', pair.len);
    if (!decoded || colon == NULL || !utf8_is_valid_string(pair)) {
        mem_free(out->buffer);
        out->buffer = NULL;
        return STATUS_INVALID;
    }
    out->has_user_name = true;
    out->user_name = bytes_of(pair.data, (size_t)(colon - pair.data));
    out->password = bytes_from(pair, out->user_name.len + 1);
    return STATUS_OK;
}

/* A number that stands for an Authorization field; never 0. */
static uint64_t seal_of(const struct http_client *client)
{
    return hash_bytes(&client->clients->seed, client->request.authorization) | 1;
}

static void refuse(struct http_client *client, uint64_t now_ms, struct bytes user_name,
                   const char *words)
{
    client->clients->host.on_refused(client->link, client, user_name, words);
    client->login_seal = 0;
    http_answer_error(client, now_ms, 401, "not_logged_in", words);
}

/* The client is let in as `user_name`. */
static void let_in(struct http_client *client, uint64_t now_ms, struct bytes user_name,
                   uint64_t mark)
{
    struct access *access = client->settings->access;
    char *copy = NULL;
    if (user_name.len != 0) {
        copy = mem_copy_string(user_name);
    }
    mem_free(client->user_name);
    client->user_name = copy;
    client->user_name_len = copy == NULL ? 0 : (uint32_t)user_name.len;
    client->user_mark = mark;
    access_rights_release(client->rights);
    client->rights = NULL;
    bool lacks_memory = user_name.len != 0 && copy == NULL;
    if (!lacks_memory && access_has_acl(access)) {
        lacks_memory =
            access_rights_create(access, user_name, BYTES_EMPTY, &client->rights) != STATUS_OK;
    }
    if (lacks_memory) {
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    if (client->push != NULL) {
        http_push_begin(client, now_ms);
    } else {
        http_route(client, now_ms);
    }
}

static void on_answer(void *owner, uint64_t now_ms, enum status result)
{
    struct http_client *client = owner;
    client->check = NULL;
    timer_cancel(&client->clients->wheel, &client->timer);
    if (result == STATUS_OK && client->check_mark != 0) {
        client->login_seal = seal_of(client);
        client->login_mark = client->check_mark;
        http_login(client, now_ms);
    } else if (result == STATUS_OK || result == STATUS_INVALID) {
        struct credentials credentials;
        enum status read = read_credentials(client->request.authorization, &credentials);
        refuse(client, now_ms, read == STATUS_OK ? credentials.user_name : BYTES_EMPTY,
               "bad user name or password");
        mem_free(credentials.buffer);
    } else {
        http_answer_error(client, now_ms, 503, "busy", "the password could not be checked");
    }
}

static void begin_check(struct http_client *client, uint64_t now_ms,
                        const struct access_grant *grant, struct bytes password)
{
    const struct access_checker *checker = &client->clients->host.checker;
    client->check = checker->start(checker->ctx, grant->hash, password, on_answer, client);
    if (client->check == NULL) {
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    client->check_mark = grant->mark;
    client->state = HTTP_CHECKING;
    timer_arm(&client->clients->wheel, &client->timer, now_ms + HTTP_LOGIN_MS);
}

void http_cancel_check(struct http_client *client)
{
    const struct access_checker *checker = &client->clients->host.checker;
    if (client->check != NULL) {
        checker->cancel(checker->ctx, client->check);
        client->check = NULL;
    }
}

/* What was right for the request before is right for this one, unless the entry has changed. */
static bool was_right(const struct http_client *client, const struct access_grant *grant)
{
    return client->login_seal != 0 && client->login_seal == seal_of(client) &&
           grant->mark == client->login_mark;
}

void http_login(struct http_client *client, uint64_t now_ms)
{
    const struct mqtt_settings *settings = client->settings;
    struct credentials credentials;
    struct access_grant grant;
    enum status status = read_credentials(client->request.authorization, &credentials);
    if (status == STATUS_NO_MEMORY) {
        http_answer_error(client, now_ms, 503, "busy", "out of memory");
        return;
    }
    if (status == STATUS_INVALID) {
        refuse(client, now_ms, BYTES_EMPTY, "the Authorization field is not that of HTTP Basic");
        return;
    }
    struct access_request request = {
        .access = settings->access,
        .allow_anonymous = settings->allow_anonymous,
        .certificate_is_user = settings->certificate_is_user,
        .certificate_user = bytes_of_string(client->certificate_user),
        .has_user_name = credentials.has_user_name,
        .user_name = credentials.user_name,
        .has_password = credentials.has_user_name,
        .password = credentials.password,
    };
    if (access_connect(&request, &grant) != MQTT_SUCCESS) {
        refuse(client, now_ms, credentials.user_name,
               credentials.has_user_name ? "bad user name or password" : "a login is needed");
    } else if (grant.hash != NULL && !was_right(client, &grant)) {
        begin_check(client, now_ms, &grant, credentials.password);
    } else {
        let_in(client, now_ms, grant.user_name, grant.mark);
    }
    mem_free(credentials.buffer);
}
