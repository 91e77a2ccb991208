/*
 * replay: runs one script of clients, packets and time against the real core and the real MQTT
 * clients. README.md describes the language.
 *
 *   replay SCRIPT              whole packets, then byte by byte, then cut in two at every point
 *   replay --no-memory SCRIPT  once for each allocation, which fails: nothing may crash or leak
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker_sim.h"
#include "mem.h"
#include "packet_text.h"

enum { PEERS_MAX = 64, PACKET_BYTES_MAX = 2 * 1024 * 1024, PREFIX_MAX = 64, SPLITS_MAX = 400 };

/* How the bytes of one packet reach the broker. */
enum pieces { PIECES_WHOLE, PIECES_OF_ONE, PIECES_TWO };

struct peer {
    struct sim_link *link;
    enum mqtt_version version;
    uint8_t *held; /* packets of "+>" lines, sent with the next "->" */
    size_t held_len;
};

struct run {
    struct sim sim;
    bool started;
    bool start_failed;
    bool tolerant; /* memory fails: what the script expects does not count */
    enum pieces pieces;
    size_t split_at;
    size_t longest; /* packet sent, in bytes */
    struct peer peers[PEERS_MAX];
    size_t peer_count;
    char id_prefix[PREFIX_MAX];
    uint8_t *packet; /* of PACKET_BYTES_MAX */
    const char *path;
    unsigned line;
    const char *error; /* NULL: all well so far */
};

static char error_text[LINE_MAX_BYTES];

PRINTF_LIKE(2, 3) static void fail(struct run *run, const char *format, ...)
{
    if (run->error == NULL && !run->tolerant) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(error_text, sizeof error_text, format, args);
        va_end(args);
        run->error = error_text;
    }
}

static struct peer *peer_of(struct run *run, const char *name)
{
    struct sim_link *link = sim_link(&run->sim, name);
    for (size_t i = 0; i < run->peer_count; i++) {
        if (run->peers[i].link == link) {
            return &run->peers[i];
        }
    }
    ENSURE(run->peer_count < PEERS_MAX);
    struct peer *peer = &run->peers[run->peer_count++];
    *peer = (struct peer){.link = link, .version = MQTT_VERSION_5};
    return peer;
}

/* A setting that a script may change, by its place in the structure. */
struct setting {
    const char *name;
    size_t offset;
    size_t bytes;
};

#define SETTING(structure, member)                                                                 \
    {                                                                                              \
#member, offsetof(struct structure, member), sizeof(((struct structure *)NULL)->member)    \
    }

static const struct setting core_settings[] = {
    SETTING(core_options, queued_messages_max),
    SETTING(core_options, queued_bytes_max),
    SETTING(core_options, inflight_max),
    SETTING(core_options, subscriptions_max),
    SETTING(core_options, queues_max),
    SETTING(core_options, topic_nodes_max),
    SETTING(core_options, topic_levels_max),
    SETTING(core_options, session_expiry_max_s),
    SETTING(core_options, qos_max),
    SETTING(core_options, queue_qos0),
    SETTING(core_options, upgrade_qos),
    {NULL, 0, 0},
};

static const struct setting listener_settings[] = {
    SETTING(mqtt_settings, allow_anonymous),
    SETTING(mqtt_settings, certificate_is_user),
    SETTING(mqtt_settings, allow_zero_length_client_id),
    SETTING(mqtt_settings, retain_available),
    SETTING(mqtt_settings, qos_max),
    SETTING(mqtt_settings, topic_alias_maximum),
    SETTING(mqtt_settings, receive_maximum),
    SETTING(mqtt_settings, keep_alive_max_s),
    SETTING(mqtt_settings, packet_bytes_max),
    SETTING(mqtt_settings, payload_bytes_max),
    SETTING(mqtt_settings, connect_timeout_ms),
    {NULL, 0, 0},
};

static const struct setting core_figures[] = {
    SETTING(core_stats, sessions),
    SETTING(core_stats, sessions_connected),
    SETTING(core_stats, sessions_expired),
    SETTING(core_stats, subscriptions),
    SETTING(core_stats, shared_subscriptions),
    SETTING(core_stats, queues),
    SETTING(core_stats, retained_messages),
    SETTING(core_stats, queued_messages),
    SETTING(core_stats, queued_bytes),
    SETTING(core_stats, published),
    SETTING(core_stats, delivered),
    SETTING(core_stats, dropped),
    SETTING(core_stats, expired),
    {NULL, 0, 0},
};

static const struct setting client_figures[] = {
    SETTING(mqtt_client_stats, connections),
    SETTING(mqtt_client_stats, packets_received),
    SETTING(mqtt_client_stats, packets_sent),
    SETTING(mqtt_client_stats, publish_received),
    SETTING(mqtt_client_stats, publish_sent),
    SETTING(mqtt_client_stats, publish_bytes_sent),
    SETTING(mqtt_client_stats, publish_bytes_received),
    {NULL, 0, 0},
};

static void setting_write(const struct setting *setting, void *structure, uint64_t value)
{
    uint8_t *at = (uint8_t *)structure + setting->offset;
    switch (setting->bytes) {
    case 1:
        *at = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)(void *)at = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)(void *)at = (uint32_t)value;
        break;
    default:
        *(uint64_t *)(void *)at = value;
        break;
    }
}

/* The setting that "name=number" means, or NULL. */
static const struct setting *setting_of(const struct setting *settings, const char *word,
                                        uint64_t *value)
{
    for (const struct setting *setting = settings; setting->name != NULL; setting++) {
        const char *text = word_value(word, setting->name);
        if (text != NULL && word_number(text, UINT64_MAX, value)) {
            return setting;
        }
    }
    return NULL;
}

static void on_broker(struct run *run, const struct words *words)
{
    for (size_t i = 1; i < words->count; i++) {
        uint64_t value = 0;
        const struct setting *setting = setting_of(core_settings, words->at[i], &value);
        if (setting == NULL) {
            fail(run, "unknown setting %s", words->at[i]);
            return;
        }
        setting_write(setting, &run->sim.options, value);
    }
    if (run->started) {
        sim_configure(&run->sim);
    }
}

static void on_listener(struct run *run, const struct words *words)
{
    struct mqtt_settings *settings = sim_new_settings(&run->sim);
    for (size_t i = 1; i < words->count; i++) {
        uint64_t value = 0;
        const char *prefix = word_value(words->at[i], "client_id_prefix");
        const struct setting *setting = setting_of(listener_settings, words->at[i], &value);
        if (prefix != NULL && strlen(prefix) < PREFIX_MAX) {
            memcpy(run->id_prefix, prefix, strlen(prefix) + 1);
            settings->client_id_prefix = run->id_prefix;
        } else if (setting != NULL) {
            setting_write(setting, settings, value);
        } else {
            fail(run, "unknown setting %s", words->at[i]);
        }
    }
}

static uint64_t figure(const struct setting *setting, const void *structure)
{
    uint64_t value = 0;
    memcpy(&value, (const uint8_t *)structure + setting->offset, sizeof value);
    return value;
}

static void on_stats(struct run *run, const struct words *words)
{
    struct core_stats core = core_stats(run->sim.core);
    struct mqtt_client_stats clients = mqtt_clients_stats(run->sim.clients);
    for (size_t i = 1; i < words->count; i++) {
        uint64_t expected = 0;
        uint64_t value = 0;
        const struct setting *of_core = setting_of(core_figures, words->at[i], &expected);
        const struct setting *of_clients = setting_of(client_figures, words->at[i], &expected);
        if (of_core != NULL) {
            value = figure(of_core, &core);
        } else if (of_clients != NULL) {
            value = figure(of_clients, &clients);
        } else {
            fail(run, "unknown figure %s", words->at[i]);
            return;
        }
        if (value != expected) {
            fail(run, "expected %s, got %llu", words->at[i], (unsigned long long)value);
        }
    }
}

static bool read_text(struct peer *peer, char *out, size_t out_bytes)
{
    struct mqtt_header header;
    struct bytes body;
    if (!sim_read(peer->link, &header, &body)) {
        return false;
    }
    packet_text_describe(&header, body, peer->version, out, out_bytes);
    return true;
}

static char got[LINE_MAX_BYTES];

static void expect_nothing(struct run *run, struct peer *peer)
{
    while (read_text(peer, got, sizeof got)) {
        fail(run, "%s also received: %s", peer->link->name, got);
    }
}

static void expect_packet(struct run *run, struct peer *peer, const char *expected)
{
    if (!read_text(peer, got, sizeof got)) {
        fail(run, "%s received nothing, expected: %s", peer->link->name, expected);
    } else if (!packet_text_equal(got, expected)) {
        fail(run, "%s received: %s\n   expected: %s", peer->link->name, got, expected);
    }
}

static void expect_not_gone(struct run *run, struct peer *peer)
{
    struct sim_link *link = peer->link;
    if (link->gone || link->refused) {
        fail(run, "%s is gone: %s", link->name,
             link->gone ? link->why : mqtt_reason_name(link->refusal));
    }
    link->gone = link->refused = false;
}

static void open_link(struct run *run, struct peer *peer, const char *certificate_user)
{
    if (peer->link->client != NULL) {
        fail(run, "%s is connected", peer->link->name);
        return;
    }
    expect_nothing(run, peer);
    expect_not_gone(run, peer);
    peer->held_len = 0;
    if (!sim_open(peer->link, certificate_user)) {
        fail(run, "no memory");
    }
}

static void input(struct run *run, struct peer *peer, struct bytes packet)
{
    if (packet.len > run->longest) {
        run->longest = packet.len;
    }
    switch (run->pieces) {
    case PIECES_OF_ONE:
        for (size_t i = 0; i < packet.len; i++) {
            sim_input(peer->link, bytes_of(packet.data + i, 1));
        }
        break;
    case PIECES_TWO:
        if (run->split_at < packet.len) {
            sim_input(peer->link, bytes_of(packet.data, run->split_at));
            sim_input(peer->link, bytes_from(packet, run->split_at));
            break;
        }
        /* fall through */
    case PIECES_WHOLE:
        sim_input(peer->link, packet);
        break;
    }
}

static struct words words_from(const struct words *words, size_t from)
{
    struct words rest = {.count = words->count - from};
    memcpy(rest.at, words->at + from, rest.count * sizeof *rest.at);
    return rest;
}

static void on_send(struct run *run, struct peer *peer, const struct words *words, bool hold)
{
    struct words packet = words_from(words, 2);
    if (peer->link->client == NULL && packet.count != 0 && strcmp(packet.at[0], "CONNECT") == 0) {
        open_link(run, peer, NULL);
    }
    if (peer->link->client == NULL) {
        fail(run, "%s is not connected", peer->link->name);
        return;
    }
    size_t held = peer->held_len;
    struct writer writer = writer_of(run->packet, PACKET_BYTES_MAX);
    writer_bytes(&writer, bytes_of(peer->held, held));
    const char *error = packet_text_encode(&packet, peer->link->name, &peer->version, &writer);
    if (error != NULL || !writer_ok(&writer)) {
        fail(run, "%s", error != NULL ? error : "the packet is too large");
        return;
    }
    struct bytes all = writer_written(&writer);
    if (hold) {
        peer->held = realloc(peer->held, all.len);
        ENSURE(peer->held != NULL);
        bytes_copy(peer->held, all);
        peer->held_len = all.len;
        return;
    }
    peer->held_len = 0;
    input(run, peer, all);
}

static void on_gone(struct run *run, struct peer *peer, const char *word)
{
    struct bytes why = BYTES_EMPTY;
    if (word == NULL || !word_text(word, &why)) {
        fail(run, "gone needs a text");
    } else if (!peer->link->gone || peer->link->client != NULL) {
        fail(run, "%s is still there", peer->link->name);
    } else if (!bytes_equal_string(why, peer->link->why)) {
        fail(run, "%s is gone: %s", peer->link->name, peer->link->why);
    }
    peer->link->gone = false;
}

static void on_refused(struct run *run, struct peer *peer, const char *word)
{
    char reason[64];
    reason_word(peer->link->refusal, reason, sizeof reason);
    if (word == NULL || !peer->link->refused || peer->link->client != NULL) {
        fail(run, "%s was not refused", peer->link->name);
    } else if (strcmp(word, reason) != 0) {
        fail(run, "%s was refused: %s", peer->link->name, reason);
    }
    peer->link->refused = false;
}

/* The broker puts a client off: NAME kicked REASON */
static void on_kicked(struct run *run, struct peer *peer, const char *word)
{
    enum mqtt_reason reason = MQTT_SUCCESS;
    if (word == NULL || !word_reason(word, &reason)) {
        fail(run, "kicked needs a reason");
    } else if (peer->link->client != NULL) {
        mqtt_client_disconnect(peer->link->client, run->sim.now_ms, reason, "kicked");
    }
}

static void on_takes(struct run *run, struct peer *peer, const char *word)
{
    uint64_t count = 0;
    if (word == NULL || !word_number(word, 10000, &count) || !peer->link->stalled) {
        fail(run, "takes needs a number and a stalled client");
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        sim_take_one(peer->link);
    }
}

static void on_peer(struct run *run, const struct words *words, const char *line)
{
    struct peer *peer = peer_of(run, words->at[0]);
    const char *verb = words->count > 1 ? words->at[1] : "";
    const char *word = words->count > 2 ? words->at[2] : NULL;
    if (strcmp(verb, "->") == 0 || strcmp(verb, "+>") == 0) {
        on_send(run, peer, words, *verb == '+');
    } else if (strcmp(verb, "<-") == 0) {
        expect_packet(run, peer, strstr(line, "<-") + 3);
    } else if (strcmp(verb, "nothing") == 0) {
        expect_nothing(run, peer);
        expect_not_gone(run, peer);
    } else if (strcmp(verb, "open") == 0) {
        open_link(run, peer, word == NULL ? NULL : word_value(word, "certificate"));
    } else if (strcmp(verb, "cut") == 0) {
        expect_nothing(run, peer);
        expect_not_gone(run, peer);
        sim_cut(peer->link);
    } else if (strcmp(verb, "stall") == 0 || strcmp(verb, "unstall") == 0) {
        peer->link->stalled = *verb == 's';
    } else if (strcmp(verb, "takes") == 0) {
        on_takes(run, peer, word);
    } else if (strcmp(verb, "alive") == 0) {
        peer->link->last_inbound_ms = run->sim.now_ms;
    } else if (strcmp(verb, "gone") == 0) {
        on_gone(run, peer, word);
    } else if (strcmp(verb, "refused") == 0) {
        on_refused(run, peer, word);
    } else if (strcmp(verb, "kicked") == 0) {
        on_kicked(run, peer, word);
    } else {
        fail(run, "unknown words: %s %s", words->at[0], verb);
    }
}

/* "500ms" or "5s" */
static bool duration_of(const char *word, uint64_t *out_ms)
{
    char *end = NULL;
    *out_ms = strtoull(word, &end, 10);
    if (strcmp(end, "s") == 0) {
        *out_ms *= 1000;
        return true;
    }
    return end != word && strcmp(end, "ms") == 0;
}

/* The broker's own message: publish TOPIC PAYLOAD [retain] [qos=N] [refused] */
static void on_publish(struct run *run, const struct words *words)
{
    struct bytes topic = BYTES_EMPTY;
    struct bytes payload = BYTES_EMPTY;
    if (words->count < 3 || !word_text(words->at[1], &topic) ||
        !word_text(words->at[2], &payload)) {
        fail(run, "publish needs a topic and a payload");
        return;
    }
    struct message *message = NULL;
    if (message_create(topic, 0, payload, &message) != STATUS_OK) {
        fail(run, "no memory");
        return;
    }
    bool refused = false;
    for (size_t i = 3; i < words->count; i++) {
        refused |= strcmp(words->at[i], "refused") == 0;
        message->retain |= strcmp(words->at[i], "retain") == 0;
        if (word_value(words->at[i], "qos") != NULL) {
            message->qos = (uint8_t)atoi(word_value(words->at[i], "qos"));
        }
    }
    enum mqtt_reason reason = core_publish(run->sim.core, run->sim.now_ms, NULL, message);
    if ((reason >= MQTT_UNSPECIFIED_ERROR) != refused) {
        fail(run, refused ? "publish was accepted" : "publish was refused");
    }
    message_release(message);
}

static void on_end_session(struct run *run, const struct words *words)
{
    enum mqtt_reason reason = MQTT_SUCCESS;
    if (words->count != 3 || !word_reason(words->at[2], &reason)) {
        fail(run, "end-session needs a client id and a reason");
    } else if (core_end_session(run->sim.core, run->sim.now_ms, bytes_of_string(words->at[1]),
                                reason) != STATUS_OK) {
        fail(run, "no such session: %s", words->at[1]);
    }
}

static void run_line(struct run *run, const char *line);

/* for 1..9: LINE, in which {n} is the number; for 9..1: LINE counts down */
static void on_for(struct run *run, const char *line)
{
    unsigned from = 0;
    unsigned to = 0;
    int at = 0;
    if (sscanf(line, " for %u..%u:%n", &from, &to, &at) != 2 || at == 0) {
        fail(run, "for needs a range: for 1..9: LINE");
        return;
    }
    unsigned count = (from < to ? to - from : from - to) + 1;
    for (unsigned i = 0; i < count && run->error == NULL; i++) {
        unsigned n = from < to ? from + i : from - i;
        char body[1024];
        size_t len = 0;
        for (const char *c = line + at; *c != '\0';) {
            ENSURE(len + 16 < sizeof body);
            if (strncmp(c, "{n}", 3) == 0) {
                len += (size_t)snprintf(body + len, sizeof body - len, "%u", n);
                c += 3;
            } else {
                body[len++] = *c++;
            }
        }
        body[len] = '\0';
        run_line(run, body);
    }
}

/* store, store held: before the broker runs; then commit, commit all, crash, store full, store ok
 */
static bool run_store(struct run *run, const struct words *words)
{
    const char *first = words->at[0];
    const char *second = words->count > 1 ? words->at[1] : "";
    struct sim *sim = &run->sim;
    if (sim->with_store && sim->store == NULL) {
        return true; /* there was no memory for it */
    }
    if (strcmp(first, "store") == 0) {
        if (strcmp(second, "full") == 0 || strcmp(second, "ok") == 0) {
            memory_store_set_full(sim->store, strcmp(second, "full") == 0);
        } else if (strcmp(second, "fail") == 0) {
            memory_store_fail(sim->store, "the disk is broken");
        } else {
            sim->with_store = true;
            sim->store_held = strcmp(second, "held") == 0;
        }
    } else if (strcmp(first, "commit") == 0) {
        sim_commit(sim);
        while (strcmp(second, "all") == 0 && memory_store_commit(sim->store)) {
            sim_turn(sim);
        }
    } else if (strcmp(first, "crash") == 0) {
        run->started = sim_crash(sim);
        run->start_failed = !run->started;
        for (size_t i = 0; i < run->peer_count; i++) {
            run->peers[i].held_len = 0;
        }
    } else {
        return false;
    }
    return true;
}

/* False when the line is for a broker that does not run yet. */
static bool run_setting(struct run *run, const struct words *words)
{
    if (strcmp(words->at[0], "broker") == 0) {
        on_broker(run, words);
    } else if (strcmp(words->at[0], "listener") == 0) {
        on_listener(run, words);
    } else if (!run->started && strcmp(words->at[0], "store") == 0) {
        (void)run_store(run, words);
    } else {
        return false;
    }
    return true;
}

static bool run_time(struct run *run, const char *word)
{
    uint64_t ms = 0;
    if (*word != '+') {
        return false;
    }
    if (!duration_of(word + 1, &ms)) {
        fail(run, "a time is +500ms or +5s");
    } else {
        sim_advance(&run->sim, run->sim.now_ms + ms);
    }
    return true;
}

static void run_words(struct run *run, const struct words *words, const char *line)
{
    const char *first = words->at[0];
    if (strcmp(first, "stats") == 0) {
        on_stats(run, words);
    } else if (strcmp(first, "shutdown") == 0) {
        mqtt_clients_shut_down(run->sim.clients, run->sim.now_ms);
    } else if (strcmp(first, "publish") == 0) {
        on_publish(run, words);
    } else if (strcmp(first, "end-session") == 0) {
        on_end_session(run, words);
    } else if (!run_time(run, first) && !run_store(run, words)) {
        on_peer(run, words, line);
    }
}

static void run_line(struct run *run, const char *line)
{
    while (*line == ' ') {
        line++;
    }
    if (strncmp(line, "for ", 4) == 0) {
        on_for(run, line);
        return;
    }
    char *copy = strdup(line);
    ENSURE(copy != NULL);
    struct words words;
    words_cut(&words, copy);
    if (words.count != 0 && *line != '#' && !run_setting(run, &words)) {
        if (!run->started && !run->start_failed) {
            run->started = sim_start(&run->sim);
            run->start_failed = !run->started;
        }
        if (run->started) {
            run_words(run, &words, line);
        }
        if (run->started) {
            sim_turn(&run->sim);
        }
    }
    words_forget();
    free(copy);
}

/* Who runs now, for the message when an assertion stops us. */
static const struct run *running;

static void on_abort(int signal_number)
{
    (void)signal_number;
    char line[16];
    size_t at = sizeof line;
    line[--at] = '\n';
    for (unsigned rest = running->line; rest != 0; rest /= 10) {
        line[--at] = (char)('0' + rest % 10);
    }
    static const char where[] = "stopped in line ";
    (void)!write(STDERR_FILENO, where, sizeof where - 1);
    (void)!write(STDERR_FILENO, line + at, sizeof line - at);
}

static void run_lines(struct run *run, const char *text)
{
    while (*text != '\0' && run->error == NULL) {
        size_t len = strcspn(text, "\n");
        char *line = strndup(text, len);
        ENSURE(line != NULL);
        run->line++;
        run_line(run, line);
        free(line);
        text += len + (text[len] == '\n');
        /* Broken memory leaves packets behind that no line takes. */
        for (size_t i = 0; run->tolerant && i < run->peer_count; i++) {
            expect_nothing(run, &run->peers[i]);
        }
    }
    for (size_t i = 0; i < run->peer_count; i++) {
        expect_nothing(run, &run->peers[i]);
        expect_not_gone(run, &run->peers[i]);
    }
}

/* Plays the whole script once. False when it failed and said why. */
static bool play(struct run *run, const char *text)
{
    running = run;
    sim_init(&run->sim);
    run->packet = malloc(PACKET_BYTES_MAX);
    ENSURE(run->packet != NULL);
    run_lines(run, text);
    sim_fini(&run->sim);
    free(run->packet);
    for (size_t i = 0; i < run->peer_count; i++) {
        free(run->peers[i].held);
    }
    if (run->error != NULL) {
        static const char *const how[] = {"", " (bytes one by one)", " (packets cut in two)"};
        (void)fprintf(stderr, "%s:%u: %s%s\n", run->path, run->line, run->error, how[run->pieces]);
    }
    return run->error == NULL;
}

static bool play_in_pieces(const char *path, const char *text)
{
    struct run whole = {.path = path};
    struct run bytes = {.path = path, .pieces = PIECES_OF_ONE};
    if (!play(&whole, text) || !play(&bytes, text)) {
        return false;
    }
    size_t splits = whole.longest < SPLITS_MAX ? whole.longest : SPLITS_MAX;
    for (size_t at = 1; at < splits; at++) {
        struct run split = {.path = path, .pieces = PIECES_TWO, .split_at = at};
        if (!play(&split, text)) {
            return false;
        }
    }
    return true;
}

static bool play_without_memory(const char *path, const char *text)
{
    uint64_t before = mem_alloc_count();
    struct run whole = {.path = path};
    if (!play(&whole, text)) {
        return false;
    }
    uint64_t count = mem_alloc_count() - before;
    for (uint64_t n = 1; n <= count; n++) {
        struct run run = {.path = path, .tolerant = true, .split_at = n};
        mem_fail_at(n);
        (void)play(&run, text);
        mem_fail_at(0);
    }
    return true;
}

static char *read_script(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return NULL;
    }
    char *text = malloc(LINE_MAX_BYTES + 1);
    ENSURE(text != NULL);
    size_t len = fread(text, 1, LINE_MAX_BYTES, file);
    text[len] = '\0';
    (void)fclose(file);
    return text;
}

int main(int argc, char **argv)
{
    bool no_memory = argc == 3 && strcmp(argv[1], "--no-memory") == 0;
    if (argc != 2 && !no_memory) {
        (void)fprintf(stderr, "usage: replay [--no-memory] SCRIPT\n");
        return 2;
    }
    const char *path = argv[argc - 1];
    char *text = read_script(path);
    if (text == NULL) {
        perror(path);
        return 2;
    }
    (void)signal(SIGABRT, on_abort);
    bool ok = no_memory ? play_without_memory(path, text) : play_in_pieces(path, text);
    free(text);
    return ok ? 0 : 1;
}
