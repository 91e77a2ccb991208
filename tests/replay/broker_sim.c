#include "broker_sim.h"

#include <stdlib.h>
#include <string.h>

#define UNIX_START_MS UINT64_C(1764000000000)

enum {
    START_MS = 1000 * 1000,
    ROUNDS_MAX = 100000, /* flushes in one turn: more means that a wake never ends */
    /* Leaves room for one packet and no second one. */
    SCRATCH_FOR_ONE = OUTPUT_TAKE_MAX,
    SCRATCH_FILL = 0xEE,
};

struct sim_settings {
    struct mqtt_settings settings;
    struct sim_settings *next;
};

static void on_store_failed(void *ctx, const char *why)
{
    struct sim *sim = ctx;
    (void)why;
    sim->store_failed = true;
}

static void on_wake(void *ctx)
{
    struct sim_link *link = ctx;
    ENSURE(link->client != NULL);
    link->woken = true;
}

static void on_close(void *ctx, enum mqtt_reason reason)
{
    struct sim_link *link = ctx;
    (void)reason;
    ENSURE(link->client != NULL && !link->closing);
    ENSURE(link->gone || link->refused);
    link->closing = true;
}

/* Scripts do not send so much: see tests/unit/clients_pause_test.c. */
static void set_reading(void *ctx, bool reading)
{
    struct sim_link *link = ctx;
    ENSURE(link->client != NULL && reading == link->paused);
    link->paused = !reading;
}

static uint64_t last_inbound_ms(void *ctx)
{
    return ((struct sim_link *)ctx)->last_inbound_ms;
}

static void count_up(void *ctx, uint8_t *out, size_t len)
{
    struct sim *sim = ctx;
    for (size_t i = 0; i < len; i++) {
        out[i] = sim->random++;
    }
}

static void on_connected(void *ctx, const struct client *client)
{
    struct sim_link *link = ctx;
    ENSURE(mqtt_client_base(link->client) == client && !link->accepted && !link->refused &&
           !link->gone);
    link->accepted = true;
}

static void on_refused(void *ctx, const struct client *client, struct bytes client_id,
                       enum mqtt_reason reason)
{
    struct sim_link *link = ctx;
    (void)client_id;
    ENSURE(mqtt_client_base(link->client) == client && !link->accepted && !link->refused &&
           !link->gone);
    link->refused = true;
    link->refusal = reason;
}

static void on_gone(void *ctx, const struct client *client, const char *why)
{
    struct sim_link *link = ctx;
    ENSURE(mqtt_client_base(link->client) == client && !link->refused && !link->gone);
    ENSURE(why != NULL && strlen(why) < SIM_WHY_MAX);
    link->gone = true;
    memcpy(link->why, why, strlen(why) + 1);
}

static void on_subscribe(void *ctx, const struct client *client, struct bytes filter,
                         enum mqtt_reason granted)
{
    const struct sim_link *link = ctx;
    (void)granted;
    ENSURE(mqtt_client_base(link->client) == client && filter.data != NULL);
}

static void on_unsubscribe(void *ctx, const struct client *client, struct bytes filter)
{
    on_subscribe(ctx, client, filter, MQTT_SUCCESS);
}

/* The tests' own memory does not go through base/mem.h, whose failures are meant for the broker. */
static void *own_alloc(void *block, size_t size)
{
    void *grown = realloc(block, size);
    ENSURE(grown != NULL);
    return grown;
}

struct mqtt_settings *sim_new_settings(struct sim *sim)
{
    struct sim_settings *entry = own_alloc(NULL, sizeof *entry);
    entry->next = sim->all_settings;
    sim->all_settings = entry;
    if (sim->settings != NULL) {
        entry->settings = *sim->settings;
    } else {
        entry->settings = (struct mqtt_settings){.allow_anonymous = true,
                                                 .allow_zero_length_client_id = true,
                                                 .retain_available = true,
                                                 .qos_max = 2,
                                                 .receive_maximum = UINT16_MAX,
                                                 .keep_alive_max_s = UINT16_MAX,
                                                 .packet_bytes_max = 1024 * 1024,
                                                 .payload_bytes_max = UINT32_MAX,
                                                 .subscriptions_max = 10000,
                                                 .connect_timeout_ms = 10000,
                                                 .auto_id_prefix = "auto-"};
    }
    entry->settings.shared.references = 1; /* kept until the end, whoever lets go of it */
    sim->settings = &entry->settings;
    return sim->settings;
}

void sim_init(struct sim *sim)
{
    *sim = (struct sim){.options = core_options_default(), .now_ms = START_MS};
    sim->options.seed = (struct hash_seed){1, 2};
    (void)sim_new_settings(sim);
    sim->scratch = own_alloc(NULL, OUTPUT_SCRATCH_BYTES);
}

static void on_publish_refused(void *ctx, const struct client *client, struct bytes topic,
                               enum mqtt_reason reason)
{
    ENSURE(reason >= MQTT_UNSPECIFIED_ERROR);
    on_subscribe(ctx, client, topic, reason);
}

bool sim_start(struct sim *sim)
{
    struct client_host host = {.ctx = sim,
                               .wake = on_wake,
                               .close = on_close,
                               .set_reading = set_reading,
                               .last_inbound_ms = last_inbound_ms,
                               .random = count_up,
                               .store_failed = on_store_failed,
                               .on_connected = on_connected,
                               .on_refused = on_refused,
                               .on_gone = on_gone,
                               .on_subscribe = on_subscribe,
                               .on_unsubscribe = on_unsubscribe,
                               .on_publish_refused = on_publish_refused};
    if (mqtt_clients_create(&host, sim->now_ms, &sim->clients) != STATUS_OK) {
        return false;
    }
    struct core_effects effects = mqtt_clients_effects(sim->clients);
    if (core_create(&sim->options, &effects, sim->now_ms, &sim->core) != STATUS_OK) {
        return false;
    }
    mqtt_clients_set_core(sim->clients, sim->core);
    if (!sim->with_store) {
        return true;
    }
    if (sim->store == NULL && memory_store_create(&sim->store) != STATUS_OK) {
        return false;
    }
    /* The process's clock begins anew with each start; Unix time goes on. */
    return core_open_store(sim->core, sim->now_ms, UNIX_START_MS + sim->now_ms, sim->store) ==
           STATUS_OK;
}

static void close_links(struct sim *sim)
{
    for (struct sim_link *link = sim->links; link != NULL; link = link->next) {
        if (link->client != NULL) {
            mqtt_client_close(link->client, sim->now_ms, "the process is gone");
            link->client = NULL;
        }
        link->closing = link->woken = link->gone = link->refused = false;
    }
}

bool sim_crash(struct sim *sim)
{
    close_links(sim);
    core_destroy(sim->core);
    mqtt_clients_destroy(sim->clients);
    sim->core = NULL;
    sim->clients = NULL;
    memory_store_crash(
        sim->store); /* what these did is forgotten with all that was not committed */
    sim->store_failed = false;
    return sim_start(sim);
}

void sim_commit(struct sim *sim)
{
    store_flush(sim->store);
    (void)memory_store_commit(sim->store);
    sim_turn(sim);
}

void sim_answer(struct sim *sim)
{
    (void)memory_store_answer(sim->store);
}

void sim_configure(struct sim *sim)
{
    core_configure(sim->core, &sim->options);
}

void sim_fini(struct sim *sim)
{
    while (sim->links != NULL) {
        struct sim_link *link = sim->links;
        if (link->client != NULL) {
            mqtt_client_close(link->client, sim->now_ms, "the test is over");
        }
        sim->links = link->next;
        free(link->in);
        free(link);
    }
    core_destroy(sim->core);
    mqtt_clients_destroy(sim->clients);
    store_destroy(sim->store);
    while (sim->all_settings != NULL) {
        struct sim_settings *entry = sim->all_settings;
        sim->all_settings = entry->next;
        free(entry);
    }
    free(sim->scratch);
}

struct sim_link *sim_link(struct sim *sim, const char *name)
{
    struct sim_link **at = &sim->links;
    for (; *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->name, name) == 0) {
            return *at;
        }
    }
    struct sim_link *link = own_alloc(NULL, sizeof *link);
    *link = (struct sim_link){.sim = sim};
    ENSURE(strlen(name) < SIM_NAME_MAX);
    memcpy(link->name, name, strlen(name) + 1);
    *at = link; /* at the end: links are served in the order of their first use */
    return link;
}

bool sim_open(struct sim_link *link, const char *certificate_user)
{
    struct sim *sim = link->sim;
    ENSURE(link->client == NULL);
    link->stalled = link->woken = link->closing = link->paused = false;
    link->accepted = link->refused = link->gone = false;
    link->last_inbound_ms = sim->now_ms;
    link->in_at = link->in_len = 0;
    link->client = mqtt_client_open(sim->clients, sim->now_ms, link, sim->settings,
                                    bytes_of_string(certificate_user));
    return link->client != NULL;
}

void sim_input(struct sim_link *link, struct bytes bytes)
{
    if (link->client == NULL) {
        return;
    }
    link->last_inbound_ms = link->sim->now_ms;
    /* A block of its own, so that a read past the end is seen. */
    uint8_t *copy = own_alloc(NULL, bytes.len == 0 ? 1 : bytes.len);
    bytes_copy(copy, bytes);
    mqtt_client_receive(link->client, link->sim->now_ms, bytes_of(copy, bytes.len));
    free(copy);
}

static void receive(struct sim_link *link, const struct output *output)
{
    if (link->in_at != 0) {
        memmove(link->in, link->in + link->in_at, link->in_len - link->in_at);
        link->in_len -= link->in_at;
        link->in_at = 0;
    }
    if (link->in_capacity < link->in_len + output->total) {
        link->in_capacity = 2 * (link->in_len + output->total);
        link->in = own_alloc(link->in, link->in_capacity);
    }
    size_t total = 0;
    for (unsigned i = 0; i < output->part_count; i++) {
        const struct output_part *part = &output->parts[i];
        memcpy(link->in + link->in_len, part->data, part->len);
        link->in_len += part->len;
        total += part->len;
    }
    ENSURE(total == output->total);
}

static void flush(struct sim_link *link, size_t scratch_bytes)
{
    struct sim *sim = link->sim;
    static struct output output;
    output_open(&output, sim->scratch, scratch_bytes);
    link->woken = false;
    mqtt_client_send(link->client, sim->now_ms, &output);
    receive(link, &output);
    output_release(&output);
    size_t used = (size_t)(output.at - sim->scratch);
    memset(sim->scratch, SCRATCH_FILL, used);
}

/* What host.close asks for, once the last bytes are out. */
static void finish_close(struct sim_link *link)
{
    if (!link->stalled) {
        flush(link, OUTPUT_SCRATCH_BYTES);
    }
    mqtt_client_close(link->client, link->sim->now_ms, "closed");
    link->client = NULL;
    link->closing = link->woken = false;
}

/* Fetches are answered, and, unless the script does it, batches are committed. */
static bool serve_store(struct sim *sim)
{
    if (sim->store == NULL) {
        return false;
    }
    bool answered = !sim->fetches_held && memory_store_answer(sim->store);
    if (!sim->store_held) {
        store_flush(sim->store);
        answered |= memory_store_commit(sim->store);
    }
    return answered;
}

void sim_turn(struct sim *sim)
{
    unsigned rounds = 0;
    for (bool again = true; again;) {
        again = serve_store(sim);
        for (struct sim_link *link = sim->links; link != NULL; link = link->next) {
            if (link->closing) {
                finish_close(link);
                again = true;
            } else if (link->woken && !link->stalled) {
                flush(link, OUTPUT_SCRATCH_BYTES);
                again = true;
            }
        }
        ENSURE(++rounds < ROUNDS_MAX);
    }
    core_check(sim->core);
}

void sim_take_one(struct sim_link *link)
{
    if (link->client != NULL && link->woken) {
        flush(link, SCRATCH_FOR_ONE);
    }
    sim_turn(link->sim);
}

void sim_cut(struct sim_link *link)
{
    if (link->client != NULL) {
        mqtt_client_close(link->client, link->sim->now_ms, "the connection was lost");
        link->client = NULL;
        link->closing = link->woken = link->gone = link->refused = false;
    }
    sim_turn(link->sim);
}

void sim_advance(struct sim *sim, uint64_t to_ms)
{
    unsigned idle = 0;
    for (;;) {
        uint64_t core_ms = core_next_deadline_ms(sim->core);
        uint64_t clients_ms = mqtt_clients_next_deadline_ms(sim->clients);
        uint64_t next_ms = core_ms < clients_ms ? core_ms : clients_ms;
        if (next_ms > to_ms) {
            break;
        }
        /* A deadline in the past is served once; one that stays there would spin a real loop. */
        idle = next_ms <= sim->now_ms ? idle + 1 : 0;
        ENSURE(idle < 3);
        sim->now_ms = next_ms > sim->now_ms ? next_ms : sim->now_ms;
        core_advance(sim->core, sim->now_ms);
        mqtt_clients_advance(sim->clients, sim->now_ms);
        sim_turn(sim);
    }
    sim->now_ms = to_ms;
}

bool sim_read(struct sim_link *link, struct mqtt_header *header, struct bytes *body)
{
    if (link->in_at == link->in_len) {
        return false;
    }
    struct bytes in = bytes_of(link->in + link->in_at, link->in_len - link->in_at);
    ENSURE(mqtt_header_decode(in, header) == MQTT_HEADER_COMPLETE);
    ENSURE(header->header_len + (size_t)header->remaining <= in.len);
    *body = bytes_of(in.data + header->header_len, header->remaining);
    link->in_at += header->header_len + (size_t)header->remaining;
    return true;
}
