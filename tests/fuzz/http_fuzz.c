/*
 * The HTTP API with a real core and no socket: any bytes in any pieces are answered with HTTP or
 * closed, and nothing is left behind.
 *
 * Input: a byte of settings (bits: an ACL, a password file, the passwords' answers, an MQTT
 * session that matches, the end of the broker), then pieces: a length byte each, 0 lets time pass,
 * and 255 is a publication that the next byte describes.
 */
#include <stdlib.h>

#include "http_client.h"
#include "mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEP_MS = 3000, TURNS_MAX = 2000, HEARD_MAX = 1 << 22 };

struct world {
    struct http_clients *clients;
    struct core *core;
    struct http_client *client;
    struct access *access;
    struct mqtt_settings *settings;
    uint64_t now_ms;
    bool woken, paused, closing, streams;
    uint8_t random;
    access_answer_fn *answer;
    void *owner;
    uint8_t *heard;
    size_t heard_len;
};

static struct world world;
static uint8_t *scratch;

static void wake(void *link)
{
    ENSURE(link == &world);
    world.woken = true;
}

static void close_link(void *link, enum mqtt_reason reason, const char *why)
{
    (void)reason;
    ENSURE(link == &world && !world.closing && why[0] != '\0');
    world.closing = true;
}

static void set_reading(void *link, bool reading)
{
    ENSURE(link == &world && reading == world.paused);
    world.paused = !reading;
}

static void fill_random(void *ctx, uint8_t *out, size_t len)
{
    (void)ctx;
    for (size_t i = 0; i < len; i++) {
        out[i] = world.random++;
    }
}

static struct access_check *start(void *ctx, const struct password_hash *hash,
                                  struct bytes password, access_answer_fn *answer, void *owner)
{
    (void)ctx;
    (void)password;
    ENSURE(world.answer == NULL && hash != NULL);
    world.answer = answer;
    world.owner = owner;
    return (struct access_check *)(void *)&world;
}

static void cancel(void *ctx, struct access_check *check)
{
    (void)ctx;
    ENSURE(check == (struct access_check *)(void *)&world && world.answer != NULL);
    world.answer = NULL;
}

static void on_refused(void *link, const struct http_client *client, struct bytes user_name,
                       const char *why)
{
    (void)user_name;
    ENSURE(link == &world && client == world.client && why != NULL);
}

static void on_stream(void *link, const struct http_client *client)
{
    ENSURE(link == &world && client == world.client && !world.streams);
    ENSURE(http_client_id(client).len != 0);
    world.streams = true;
}

static void on_stream_end(void *link, const struct http_client *client, const char *why)
{
    ENSURE(link == &world && client == world.client && world.streams && why != NULL);
    world.streams = false;
}

/* The other session's client is the world itself. */
static void on_output_ready(void *ctx, void *client)
{
    (void)ctx;
    if (client == world.client) {
        ((struct client *)client)->kind->output_ready(client);
    }
}

static void on_session_lost(void *ctx, void *client, enum mqtt_reason reason)
{
    (void)ctx;
    ENSURE(client == world.client);
    ((struct client *)client)->kind->session_lost(client, reason);
}

static bool may_read(void *ctx, struct shared *reader, struct bytes topic)
{
    (void)ctx;
    return access_may_read((struct access_rights *)(void *)reader, topic);
}

static void on_mistake(void *ctx, unsigned line, const char *text)
{
    (void)ctx;
    (void)line;
    (void)text;
    abort();
}

/* Users of every kind of right; "ann:x" has a hash. */
static void set_files(bool with_passwords, bool with_acl)
{
    static const char passwords_text[] =
        "ann:$7$1$c2FsdA==$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ"
        "1Njc4OTo7PD0+Pw==\n";
    static const char acl_text[] = "topic a/#\nuser ann\ntopic read a\ntopic write b\n";
    struct passwords *passwords = NULL;
    struct acl *acl = NULL;
    if (with_passwords) {
        ENSURE(passwords_parse(bytes_of_string(passwords_text), on_mistake, NULL, &passwords) ==
               STATUS_OK);
    }
    if (with_acl) {
        ENSURE(acl_parse(bytes_of_string(acl_text), on_mistake, NULL, &acl) == STATUS_OK);
    }
    access_set_files(world.access, passwords, acl);
    passwords_release(passwords);
    acl_release(acl);
}

static void open_world(uint8_t settings)
{
    struct http_host host = {.wake = wake,
                             .close = close_link,
                             .set_reading = set_reading,
                             .random = fill_random,
                             .checker = {NULL, start, cancel},
                             .on_stream = on_stream,
                             .on_stream_end = on_stream_end,
                             .on_refused = on_refused};
    struct core_effects effects = {
        .output_ready = on_output_ready, .session_lost = on_session_lost, .may_read = may_read};
    struct core_options options = core_options_default();
    uint8_t *heard = world.heard;
    world = (struct world){.heard = heard};
    ENSURE(access_create(&world.access) == STATUS_OK);
    set_files((settings & 1) != 0, (settings & 2) != 0);
    struct mqtt_settings values = {.access = world.access,
                                   .allow_anonymous = (settings & 4) != 0,
                                   .retain_available = (settings & 8) != 0,
                                   .qos_max = 2,
                                   .packet_bytes_max = 4096,
                                   .payload_bytes_max = 1024,
                                   .connect_timeout_ms = 10000,
                                   .auto_id_prefix = "",
                                   .http_cors_origin = "http://a http://b"};
    ENSURE(mqtt_settings_create(&values, &world.settings) == STATUS_OK);
    ENSURE(http_clients_create(&host, 0, &world.clients) == STATUS_OK);
    ENSURE(core_create(&options, &effects, 0, &world.core) == STATUS_OK);
    http_clients_set_core(world.clients, world.core);
    if ((settings & 16) != 0) {
        struct core_connect connect = {.client_id = bytes_of_string("s"),
                                       .session_expiry_s = 1000,
                                       .receive_maximum = 10,
                                       .client = &world};
        struct core_subscribe subscribe = {.filter = bytes_of_string("#"), .qos = 1};
        struct session *session;
        bool present;
        ENSURE(core_connect(world.core, 0, &connect, &session, &present) == STATUS_OK);
        ENSURE(core_subscribe(world.core, 0, session, &subscribe) == 1);
    }
    world.client = http_client_open(world.clients, 0, &world, world.settings, BYTES_EMPTY);
    ENSURE(world.client != NULL);
}

/* What the connection would do at the end of a turn, until nothing is left to be done. */
static void turn(uint8_t settings)
{
    for (unsigned turns = 0; world.woken || world.answer != NULL; turns++) {
        ENSURE(turns < TURNS_MAX);
        if (world.answer != NULL && (settings & 32) != 0) {
            access_answer_fn *answer = world.answer;
            world.answer = NULL;
            answer(world.owner, world.now_ms, (settings & 64) != 0 ? STATUS_OK : STATUS_INVALID);
        }
        if (!world.woken) {
            break;
        }
        struct output output;
        world.woken = false;
        output_open(&output, scratch, OUTPUT_SCRATCH_BYTES);
        http_client_send(world.client, world.now_ms, &output);
        for (unsigned i = 0; i < output.part_count; i++) {
            struct bytes part = bytes_of(output.parts[i].data, output.parts[i].len);
            ENSURE(world.heard_len + part.len <= HEARD_MAX);
            bytes_copy(world.heard + world.heard_len, part);
            world.heard_len += part.len;
        }
        output_release(&output);
    }
}

/* Whatever came, the first words are those of an answer, and its head ends. */
static void check_heard(void)
{
    struct bytes heard = bytes_of(world.heard, world.heard_len);
    if (heard.len != 0) {
        ENSURE(bytes_start_with(heard, bytes_of_string("HTTP/1.1 ")));
        ENSURE(memmem(heard.data, heard.len, "\r\n\r\n", 4) != NULL);
    }
}

/* Something for a stream. */
static void publish(uint8_t what)
{
    static const char *const topics[] = {"a", "b", "a/b", "c"};
    struct message *message = NULL;
    ENSURE(message_create(bytes_of_string(topics[what & 3]), 0, bytes_of(&what, 1), &message) ==
           STATUS_OK);
    message->qos = what >> 2 & 1;
    message->retain = (what & 8) != 0;
    enum mqtt_reason reason = core_publish(world.core, world.now_ms, NULL, message);
    ENSURE(reason < MQTT_UNSPECIFIED_ERROR);
    message_release(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    if (scratch == NULL) {
        scratch = malloc(OUTPUT_SCRATCH_BYTES);
        world.heard = malloc(HEARD_MAX);
    }
    uint8_t settings = data[0];
    open_world(settings);
    struct reader reader = reader_of(bytes_of(data + 1, size - 1));
    while (reader_left(&reader) != 0 && !world.closing) {
        uint8_t len = reader_u8(&reader);
        if (len == 255) {
            publish(reader_u8(&reader));
        } else if (len == 0) {
            world.now_ms += STEP_MS;
            http_clients_advance(world.clients, world.now_ms);
        } else if (!world.paused) {
            size_t left = reader_left(&reader);
            struct bytes piece = reader_bytes(&reader, len < left ? len : left);
            uint8_t *copy = malloc(piece.len + 1); /* so that a read past its end is seen */
            bytes_copy(copy, piece);
            http_client_receive(world.client, world.now_ms, bytes_of(copy, piece.len));
            free(copy);
        }
        turn(settings);
    }
    if ((settings & 128) != 0) {
        http_clients_shut_down(world.clients, world.now_ms);
        turn(settings);
        ENSURE(world.closing || world.answer != NULL);
    }
    check_heard();
    http_client_close(world.client, world.now_ms, "the end");
    ENSURE(world.answer == NULL && !world.streams);
    core_check(world.core);
    core_destroy(world.core);
    http_clients_destroy(world.clients);
    shared_release(&world.settings->shared);
    access_release(world.access);
    return 0;
}
