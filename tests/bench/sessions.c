#include <stdlib.h>
#include <string.h>

#include "load.h"

#define SETTLE_NS (700 * MILLISECOND_NS)
/* What a broker gives back of an idle connection's TLS it may give back only after some seconds. */
#define IDLE_SETTLE_NS (2 * SECOND_NS)
#define IDLE_TLS_SETTLE_NS (6 * SECOND_NS)
#define PATIENCE_NS (5 * SECOND_NS)
#define UNACKNOWLEDGED_MAX 500
#define RETAINED_READERS 3
#define RETAINED_PER_BRANCH 100
#define SESSIONS_AT_ONCE 1000

/* What the scenarios of this file count; each uses the part that it needs. */
struct sessions {
    const struct load_options *options;
    struct net net;
    uint64_t received;
    uint64_t acknowledged;
    struct client **ready; /* clients to be closed after the turn */
    size_t ready_count;
};

/* One client's share of numbered messages, published at QoS 1 with a bounded number unacknowledged.
 */
struct writer_task {
    struct client *client;
    struct buffer packet;
    struct publish_layout layout;
    uint64_t next;
    uint64_t end;
    uint16_t last_id;
    uint64_t unacknowledged;
};

/* Writes message `number`'s topic over the template's; all topics of one run have the same length.
 */
typedef size_t (*topic_writer)(char *to, size_t size, uint64_t number, uint64_t count);

static void on_delivery(void *context, struct client *client, const uint8_t *stamp)
{
    (void)client;
    (void)stamp;
    ((struct sessions *)context)->received++;
}

static void on_acknowledged(void *context, struct client *client)
{
    struct writer_task *task = client->context;
    task->unacknowledged--;
    ((struct sessions *)context)->acknowledged++;
}

static void on_ready(void *context, struct client *client)
{
    struct sessions *sessions = context;
    sessions->ready[sessions->ready_count++] = client;
}

static void sessions_init(struct sessions *sessions, const struct load_options *options, bool storm)
{
    struct net_handlers handlers = {
        .on_delivery = on_delivery,
        .on_acknowledged = on_acknowledged,
        .on_ready = storm ? on_ready : NULL,
    };
    memset(sessions, 0, sizeof *sessions);
    sessions->options = options;
    net_init(&sessions->net, &options->net, &handlers, sessions);
}

static pid_t broker(const struct sessions *sessions)
{
    return (pid_t)sessions->options->pid;
}

/* ---- publishing numbered messages */

static void task_init(struct writer_task *task, struct client *client, const char *topic,
                      const struct publish_packet *packet)
{
    struct publish_packet first = *packet;
    memset(task, 0, sizeof *task);
    first.topic = topic;
    task->client = client;
    client->context = task;
    task->layout = packet_publish(&task->packet, &first);
}

static void task_fill(struct writer_task *task, topic_writer write_topic, uint64_t count)
{
    char topic[64];
    while (task->next < task->end && task->unacknowledged < UNACKNOWLEDGED_MAX &&
           task->unacknowledged < task->client->receive_maximum && !client_blocked(task->client)) {
        uint8_t *to = client_begin(task->client, task->packet.len);
        memcpy(to, task->packet.data, task->packet.len);
        size_t topic_len = write_topic(topic, sizeof topic, task->next++, count);
        memcpy(to + task->layout.topic_at, topic, topic_len);
        task->last_id = task->last_id == UINT16_MAX ? 1 : task->last_id + 1;
        to[task->layout.id_at] = (uint8_t)(task->last_id >> 8);
        to[task->layout.id_at + 1] = (uint8_t)task->last_id;
        task->unacknowledged++;
        client_end(task->client);
    }
    client_flush(task->client);
}

/* Publishes all numbers of all tasks and waits for their PUBACKs. `count` is handed to write_topic.
 */
static void publish_all(struct sessions *sessions, struct writer_task *tasks, size_t task_count,
                        topic_writer write_topic, uint64_t count)
{
    uint64_t total = sessions->acknowledged;
    for (size_t i = 0; i < task_count; i++) {
        total += tasks[i].end - tasks[i].next;
    }
    uint64_t progress = sessions->acknowledged;
    uint64_t progress_ns = clock_ns();
    while (sessions->acknowledged < total) {
        for (size_t i = 0; i < task_count; i++) {
            task_fill(&tasks[i], write_topic, count);
        }
        net_turn(&sessions->net, 100 * MILLISECOND_NS);
        if (sessions->acknowledged != progress) {
            progress = sessions->acknowledged;
            progress_ns = clock_ns();
        } else if (clock_ns() - progress_ns > PATIENCE_NS) {
            die("%llu of %llu messages were not acknowledged",
                (unsigned long long)(total - progress), (unsigned long long)total);
        }
    }
}

/* Turns until `total` messages have been received, or nothing has come for PATIENCE_NS. Returns
 * when the last came. */
static uint64_t receive_until(struct sessions *sessions, uint64_t total)
{
    uint64_t progress = sessions->received;
    uint64_t progress_ns = clock_ns();
    while (sessions->received < total && clock_ns() - progress_ns < PATIENCE_NS) {
        net_turn(&sessions->net, 50 * MILLISECOND_NS);
        if (sessions->received != progress) {
            progress = sessions->received;
            progress_ns = clock_ns();
        }
    }
    return progress_ns;
}

/* ---- retained */

static size_t retained_topic(char *to, size_t size, uint64_t number, uint64_t count)
{
    (void)count;
    return text(to, size, "bench/retained/%06llu/%02llu",
                (unsigned long long)(number / RETAINED_PER_BRANCH),
                (unsigned long long)(number % RETAINED_PER_BRANCH));
}

static void set_retained(struct sessions *sessions, struct client *publisher, uint64_t count)
{
    char topic[64];
    struct writer_task task;
    struct publish_packet packet = {
        .version = sessions->options->net.version,
        .qos = 1,
        .retain = true,
        .payload_len = sessions->options->payload_bytes,
    };
    (void)retained_topic(topic, sizeof topic, 0, count);
    task_init(&task, publisher, topic, &packet);
    task.end = count;
    publish_all(sessions, &task, 1, retained_topic, count);
    buffer_fini(&task.packet);
}

void scenario_retained(const struct load_options *options)
{
    static struct sessions sessions;
    struct client clients[1 + RETAINED_READERS];
    uint64_t count = options->count;
    sessions_init(&sessions, options, false);
    for (uint32_t i = 0; i < 1 + RETAINED_READERS; i++) {
        client_init(&clients[i], &sessions.net, i);
    }
    net_connect_all(&clients[0], 1, 1);
    uint64_t resident = process_resident_bytes(broker(&sessions));
    uint64_t cpu = process_cpu_ns(broker(&sessions));
    uint64_t start = clock_ns();
    set_retained(&sessions, &clients[0], count);
    double set_us = (double)(process_cpu_ns(broker(&sessions)) - cpu) / 1000.0 / (double)count;
    double set_per_s = (double)count * 1e9 / (double)(clock_ns() - start);
    net_run(&sessions.net, SETTLE_NS);
    double resident_each =
        ((double)process_resident_bytes(broker(&sessions)) - (double)resident) / (double)count;

    uint64_t read_ns = 0;
    cpu = process_cpu_ns(broker(&sessions));
    uint64_t own = own_cpu_ns();
    for (uint64_t i = 1; i <= RETAINED_READERS; i++) {
        client_subscribe_one(&clients[i], "bench/retained/#", 0);
        start = clock_ns();
        client_connect(&clients[i]);
        read_ns += receive_until(&sessions, i * count) - start;
    }
    double reads = (double)sessions.received;
    report_begin(options->scenario);
    report_options(options);
    report_count("retained", count);
    report_number("deliveries_per_s", reads * 1e9 / (double)read_ns);
    report_number("broker_us", (double)(process_cpu_ns(broker(&sessions)) - cpu) / 1000.0 / reads);
    report_number("generator_us", (double)(own_cpu_ns() - own) / 1000.0 / reads);
    report_number("set_us", set_us);
    report_number("set_per_s", set_per_s);
    report_number("bytes_each", resident_each);
    report_number("lost", (double)count * RETAINED_READERS - reads);
    report_count("lost_clients", sessions.net.lost_clients);
    report_end();
    for (size_t i = 0; i < 1 + RETAINED_READERS; i++) {
        client_fini(&clients[i]);
    }
}

/* ---- idle */

void scenario_idle(const struct load_options *options)
{
    static struct sessions sessions;
    struct client *clients = must_alloc(options->clients, sizeof *clients);
    char topic[32];
    sessions_init(&sessions, options, false);
    for (uint32_t i = 0; i < options->clients; i++) {
        client_init(&clients[i], &sessions.net, i);
        (void)text(topic, sizeof topic, "bench/idle/%06u", i);
        client_subscribe_one(&clients[i], topic, 0);
    }
    uint64_t resident = process_resident_bytes(broker(&sessions));
    uint64_t cpu = process_cpu_ns(broker(&sessions));
    uint64_t own = own_cpu_ns();
    uint64_t start = clock_ns();
    net_connect_all(clients, options->clients, options->concurrency);
    uint64_t connected = clock_ns();
    double each = (double)options->clients;
    double cpu_us = (double)(process_cpu_ns(broker(&sessions)) - cpu) / 1000.0 / each;
    double own_us = (double)(own_cpu_ns() - own) / 1000.0 / each;
    net_run(&sessions.net, sessions.net.tls != NULL ? IDLE_TLS_SETTLE_NS : IDLE_SETTLE_NS);
    uint64_t after = process_resident_bytes(broker(&sessions));
    /* What a crowd that does nothing costs, in CPU a second. */
    cpu = process_cpu_ns(broker(&sessions));
    uint64_t idle_start = clock_ns();
    net_run(&sessions.net, options->duration_ms * MILLISECOND_NS);
    double idle_us = (double)(process_cpu_ns(broker(&sessions)) - cpu) / 1000.0;

    report_begin(options->scenario);
    report_options(options);
    report_count("clients", options->clients);
    report_number("connects_per_s", each * 1e9 / (double)(connected - start));
    report_number("broker_us", cpu_us);
    report_number("generator_us", own_us);
    report_number("bytes_each", ((double)after - (double)resident) / each);
    report_number("idle_cpu_fraction", idle_us * 1000.0 / (double)(clock_ns() - idle_start));
    report_count("resident_bytes", after);
    report_count("lost_clients", sessions.net.lost_clients);
    report_end();
    for (size_t i = 0; i < options->clients; i++) {
        client_fini(&clients[i]);
    }
    free(clients);
}

/* ---- storm */

/* Closes every client that got its CONNACK in this turn and connects it anew. Returns how many. */
static uint64_t turn_storm(struct sessions *sessions)
{
    net_turn(&sessions->net, 100 * MILLISECOND_NS);
    size_t count = sessions->ready_count;
    sessions->ready_count = 0;
    for (size_t i = 0; i < count; i++) {
        client_disconnect(sessions->ready[i]);
        client_connect(sessions->ready[i]);
    }
    return count;
}

static uint64_t run_storm(struct sessions *sessions, uint64_t duration_ms)
{
    uint64_t done = 0;
    uint64_t end = clock_ns() + duration_ms * MILLISECOND_NS;
    while (clock_ns() < end) {
        done += turn_storm(sessions);
        if (sessions->net.lost_clients != 0) {
            die("the broker closed a connection of the storm");
        }
    }
    return done;
}

void scenario_storm(const struct load_options *options)
{
    static struct sessions sessions;
    size_t count = options->concurrency;
    struct client *clients = must_alloc(count, sizeof *clients);
    sessions_init(&sessions, options, true);
    sessions.ready = must_alloc(count, sizeof(struct client *));
    for (uint32_t i = 0; i < count; i++) {
        client_init(&clients[i], &sessions.net, i);
        client_connect(&clients[i]);
    }
    (void)run_storm(&sessions, options->warmup_ms);
    uint64_t resident = process_resident_bytes(broker(&sessions));
    uint64_t cpu = process_cpu_ns(broker(&sessions));
    uint64_t own = own_cpu_ns();
    uint64_t start = clock_ns();
    uint64_t done = run_storm(&sessions, options->duration_ms);
    double seconds = (double)(clock_ns() - start) / (double)SECOND_NS;
    double connects = (double)done;

    report_begin(options->scenario);
    report_options(options);
    report_number("seconds", seconds);
    report_number("connects_per_s", connects / seconds);
    report_number("broker_us",
                  (double)(process_cpu_ns(broker(&sessions)) - cpu) / 1000.0 / connects);
    report_number("generator_us", (double)(own_cpu_ns() - own) / 1000.0 / connects);
    report_count("resident_before_bytes", resident);
    report_count("resident_bytes", process_resident_bytes(broker(&sessions)));
    report_end();
    for (size_t i = 0; i < count; i++) {
        client_fini(&clients[i]);
    }
    free(sessions.ready);
    free(clients);
}

/* ---- offline sessions */

static size_t session_topic(char *to, size_t size, uint64_t number, uint64_t sessions)
{
    return text(to, size, "bench/offline/%06llu", (unsigned long long)(number % sessions));
}

/* Disconnects every client that got its SUBACK in this turn: its session has the subscription from
 * here on. Returns how many. */
static uint64_t leave_ready(struct sessions *sessions)
{
    net_turn(&sessions->net, 100 * MILLISECOND_NS);
    size_t count = sessions->ready_count;
    sessions->ready_count = 0;
    for (size_t i = 0; i < count; i++) {
        client_disconnect(sessions->ready[i]);
        buffer_fini(&sessions->ready[i]->setup);
    }
    return count;
}

/* Sessions with a subscription each. A broker that syncs before CONNACK and SUBACK does so for many
 * at once, so SESSIONS_AT_ONCE are under way all the time. */
static void connect_sessions(struct sessions *sessions, struct client *clients)
{
    char topic[64];
    uint64_t count = sessions->options->clients;
    uint64_t started = 0;
    uint64_t done = 0;
    uint64_t progress_ns = clock_ns();
    sessions->ready = must_alloc(SESSIONS_AT_ONCE, sizeof(struct client *));
    sessions->net.handlers.on_ready = on_ready;
    while (done < count) {
        for (; started < count && started - done < SESSIONS_AT_ONCE; started++) {
            clients[started].persistent = true;
            (void)session_topic(topic, sizeof topic, started, count);
            client_subscribe_one(&clients[started], topic, 1);
            client_connect(&clients[started]);
        }
        uint64_t left = leave_ready(sessions);
        done += left;
        progress_ns = left != 0 ? clock_ns() : progress_ns;
        if (sessions->net.lost_clients != 0 || clock_ns() - progress_ns > 4 * PATIENCE_NS) {
            die("%llu of %llu sessions were made", (unsigned long long)done,
                (unsigned long long)count);
        }
    }
    sessions->net.handlers.on_ready = NULL;
    free(sessions->ready);
}

static void queue_messages(struct sessions *sessions, struct client *publishers)
{
    const struct load_options *options = sessions->options;
    struct writer_task *tasks = must_alloc(options->publishers, sizeof *tasks);
    struct publish_packet packet = {
        .version = options->net.version,
        .qos = 1,
        .payload_len = options->payload_bytes,
    };
    uint64_t total = options->clients * options->count;
    char topic[64];
    (void)session_topic(topic, sizeof topic, 0, options->clients);
    for (uint64_t i = 0; i < options->publishers; i++) {
        task_init(&tasks[i], &publishers[i], topic, &packet);
        tasks[i].next = total * i / options->publishers;
        tasks[i].end = total * (i + 1) / options->publishers;
    }
    publish_all(sessions, tasks, options->publishers, session_topic, options->clients);
    for (size_t i = 0; i < options->publishers; i++) {
        buffer_fini(&tasks[i].packet);
    }
    free(tasks);
}

void scenario_offline(const struct load_options *options)
{
    static struct sessions sessions;
    uint64_t count = options->clients + options->publishers;
    struct client *clients = must_alloc(count, sizeof *clients);
    struct client *publishers = clients + options->clients;
    double total = (double)(options->clients * options->count);
    sessions_init(&sessions, options, false);
    for (uint32_t i = 0; i < count; i++) {
        client_init(&clients[i], &sessions.net, i);
    }
    connect_sessions(&sessions, clients);
    net_connect_all(publishers, options->publishers, options->concurrency);
    net_run(&sessions.net, 100 * MILLISECOND_NS);
    uint64_t resident = process_resident_bytes(broker(&sessions));
    uint64_t anonymous = process_anonymous_bytes(broker(&sessions));
    uint64_t cpu = process_cpu_ns(broker(&sessions));
    uint64_t start = clock_ns();
    queue_messages(&sessions, publishers);
    double queue_s = (double)(clock_ns() - start) / (double)SECOND_NS;
    double queue_us = (double)(process_cpu_ns(broker(&sessions)) - cpu) / 1000.0;
    net_run(&sessions.net, SETTLE_NS);
    double resident_each =
        ((double)process_resident_bytes(broker(&sessions)) - (double)resident) / total;
    double anonymous_each =
        ((double)process_anonymous_bytes(broker(&sessions)) - (double)anonymous) / total;

    uint64_t early = sessions.received;
    cpu = process_cpu_ns(broker(&sessions));
    start = clock_ns();
    net_connect_all(clients, options->clients, options->concurrency);
    uint64_t end = receive_until(&sessions, early + options->clients * options->count);
    double replay_s = (double)(end - start) / (double)SECOND_NS;
    double replay_us = (double)(process_cpu_ns(broker(&sessions)) - cpu) / 1000.0;
    double replayed = (double)(sessions.received - early);

    report_begin(options->scenario);
    report_options(options);
    report_count("sessions", options->clients);
    report_count("messages_each", options->count);
    report_number("queued_per_s", total / queue_s);
    report_number("broker_us", queue_us / total);
    report_number("replayed_per_s", replayed / replay_s);
    report_number("replay_us", replay_us / replayed);
    report_number("bytes_each", resident_each);
    report_number("memory_each", anonymous_each);
    report_number("messages", total);
    report_number("lost", total - replayed);
    report_count("lost_clients", sessions.net.lost_clients);
    report_end();
    for (size_t i = 0; i < count; i++) {
        client_fini(&clients[i]);
    }
    free(clients);
}

void scenario_fill(const struct load_options *options)
{
    static struct sessions sessions;
    uint64_t count = options->clients + options->publishers;
    struct client *clients = must_alloc(count, sizeof *clients);
    struct client *publishers = clients + options->clients;
    sessions_init(&sessions, options, false);
    for (uint32_t i = 0; i < count; i++) {
        client_init(&clients[i], &sessions.net, i);
    }
    uint64_t start = clock_ns();
    connect_sessions(&sessions, clients);
    uint64_t connected = clock_ns();
    net_connect_all(publishers, options->publishers, options->concurrency);
    queue_messages(&sessions, publishers);
    uint64_t queued = clock_ns();
    if (options->retained != 0) {
        set_retained(&sessions, publishers, options->retained);
    }
    uint64_t set = clock_ns();
    report_begin(options->scenario);
    report_options(options);
    report_number("sessions_per_s", (double)options->clients * 1e9 / (double)(connected - start));
    report_number("queued_per_s",
                  (double)(options->clients * options->count) * 1e9 / (double)(queued - connected));
    report_number("set_per_s", (double)options->retained * 1e9 / (double)(set - queued));
    report_count("lost_clients", sessions.net.lost_clients);
    report_end();
    for (size_t i = 0; i < count; i++) {
        client_fini(&clients[i]);
    }
    free(clients);
}
