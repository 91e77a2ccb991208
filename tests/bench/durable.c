#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "load.h"
#include "turns.h"

/* A pair that has nothing to do with the durable messages sends one so often. */
#define PROBE_INTERVAL_NS MILLISECOND_NS
#define PATIENCE_NS (10 * SECOND_NS)
#define TOPIC_MAX 64

/* A client that publishes at QoS 1 to sessions whose clients are away. Acknowledgements come in the
 * order of the messages, so a ring of times is enough to know how long each took. */
struct durable_publisher {
    struct client *client;
    struct buffer packet;
    struct publish_layout layout;
    uint64_t *sent_ns; /* ring of `window` */
    uint64_t sent;
    uint64_t acknowledged;
    uint32_t session; /* the next message goes to this one */
    uint16_t last_id;
    bool is_due; /* its window may have room */
};

struct durable {
    const struct load_options *options;
    struct net net;
    struct client *sessions;
    struct client *publisher_clients;
    struct durable_publisher *publishers;
    struct client probe[2]; /* reader, writer */
    struct buffer probe_packet;
    size_t probe_payload_at;
    uint64_t probe_due_ns;
    uint64_t probes_sent, probes_received;
    uint64_t window;
    uint64_t paced; /* messages sent in this phase at a fixed rate */
    size_t next_publisher;
    uint64_t acknowledged;
    bool recording;
    struct histogram latency, stall;
};

static void on_delivery(void *context, struct client *client, const uint8_t *stamp)
{
    struct durable *durable = context;
    uint64_t sent_ns;
    if (client != &durable->probe[0] || stamp == NULL) {
        die("a message came to where none was sent");
    }
    memcpy(&sent_ns, stamp, sizeof sent_ns);
    durable->probes_received++;
    if (durable->recording) {
        histogram_add(&durable->stall, durable->net.now_ns - sent_ns);
    }
}

static void on_acknowledged(void *context, struct client *client)
{
    struct durable *durable = context;
    struct durable_publisher *publisher = client->context;
    uint64_t sent_ns = publisher->sent_ns[publisher->acknowledged++ % durable->window];
    durable->acknowledged++;
    publisher->is_due = true;
    if (durable->recording) {
        histogram_add(&durable->latency, durable->net.now_ns - sent_ns);
    }
}

static size_t offline_topic(char *to, uint64_t session)
{
    return text(to, TOPIC_MAX, "bench/durable/%06llu", (unsigned long long)session);
}

static void publish_one(struct durable *durable, struct durable_publisher *publisher)
{
    char topic[TOPIC_MAX];
    const struct publish_layout *layout = &publisher->layout;
    uint8_t *to = client_begin(publisher->client, publisher->packet.len);
    memcpy(to, publisher->packet.data, publisher->packet.len);
    size_t topic_len = offline_topic(topic, publisher->session);
    memcpy(to + layout->topic_at, topic, topic_len);
    publisher->session = (publisher->session + 1) % (uint32_t)durable->options->clients;
    publisher->last_id = publisher->last_id == UINT16_MAX ? 1 : publisher->last_id + 1;
    to[layout->id_at] = (uint8_t)(publisher->last_id >> 8);
    to[layout->id_at + 1] = (uint8_t)publisher->last_id;
    publisher->sent_ns[publisher->sent++ % durable->window] = clock_ns();
    client_end(publisher->client);
}

/* Publishes at most `count` messages, as many as the window has room for. */
static uint64_t fill_window(struct durable *durable, struct durable_publisher *publisher,
                            uint64_t count)
{
    uint64_t before = publisher->sent;
    uint64_t room = publisher->client->receive_maximum;
    room = room < durable->window ? room : durable->window;
    while (publisher->sent - before < count && publisher->sent - publisher->acknowledged < room &&
           !client_blocked(publisher->client)) {
        publish_one(durable, publisher);
    }
    client_flush(publisher->client);
    publisher->is_due = client_blocked(publisher->client);
    return publisher->sent - before;
}

/* At full speed whoever has room publishes. At a fixed rate all take turns with what is due. */
static void publish_due(struct durable *durable, uint64_t elapsed_ns)
{
    const struct load_options *options = durable->options;
    uint64_t due = options->rate * elapsed_ns / SECOND_NS;
    uint64_t left = due > durable->paced ? due - durable->paced : 0;
    uint64_t share = left / options->publishers + 1;
    for (size_t i = 0; i < options->publishers; i++) {
        size_t at = (durable->next_publisher + i) % options->publishers;
        struct durable_publisher *publisher = &durable->publishers[at];
        if (options->rate == 0) {
            if (publisher->is_due) {
                (void)fill_window(durable, publisher, UINT64_MAX);
            }
        } else if (durable->paced < due) {
            left = due - durable->paced;
            durable->paced += fill_window(durable, publisher, left < share ? left : share);
            durable->next_publisher = (at + 1) % options->publishers;
        }
    }
}

static void send_probe(struct durable *durable)
{
    uint64_t now = clock_ns();
    if (now < durable->probe_due_ns) {
        return;
    }
    durable->probe_due_ns = now + PROBE_INTERVAL_NS;
    memcpy(durable->probe_packet.data + durable->probe_payload_at, &now, sizeof now);
    uint8_t *to = client_begin(&durable->probe[1], durable->probe_packet.len);
    memcpy(to, durable->probe_packet.data, durable->probe_packet.len);
    client_end(&durable->probe[1]);
    client_flush(&durable->probe[1]);
    durable->probes_sent++;
}

static void run(struct durable *durable, uint64_t duration_ms)
{
    uint64_t start = clock_ns();
    uint64_t now = start;
    uint64_t end = now + duration_ms * MILLISECOND_NS;
    uint64_t progress = durable->acknowledged;
    uint64_t progress_ns = now;
    durable->paced = 0;
    while (now < end) {
        send_probe(durable);
        publish_due(durable, now - start);
        net_turn(&durable->net, PROBE_INTERVAL_NS);
        now = clock_ns();
        if (durable->acknowledged != progress) {
            progress = durable->acknowledged;
            progress_ns = now;
        } else if (now - progress_ns > PATIENCE_NS) {
            die("no acknowledgement for %llu s", (unsigned long long)(PATIENCE_NS / SECOND_NS));
        }
    }
}

/* What the warm-up has left at a fixed rate is not to count as the measured phase's. */
static void drain(struct durable *durable)
{
    uint64_t sent = 0;
    for (size_t i = 0; i < durable->options->publishers; i++) {
        sent += durable->publishers[i].sent;
    }
    uint64_t end = clock_ns() + PATIENCE_NS;
    while (durable->acknowledged < sent && clock_ns() < end) {
        net_turn(&durable->net, PROBE_INTERVAL_NS);
    }
}

static void publisher_init(struct durable *durable, size_t number)
{
    struct durable_publisher *publisher = &durable->publishers[number];
    char topic[TOPIC_MAX];
    (void)offline_topic(topic, 0);
    struct publish_packet packet = {
        .topic = topic,
        .version = durable->options->net.version,
        .qos = 1,
        .payload_len = durable->options->payload_bytes,
    };
    publisher->client = &durable->publisher_clients[number];
    publisher->client->context = publisher;
    publisher->layout = packet_publish(&publisher->packet, &packet);
    publisher->sent_ns = must_alloc(durable->window, sizeof *publisher->sent_ns);
    publisher->session =
        (uint32_t)(number * durable->options->clients / durable->options->publishers);
    publisher->is_due = true;
}

static void probe_init(struct durable *durable)
{
    struct publish_packet packet = {
        .topic = "bench/probe",
        .version = durable->options->net.version,
        .payload_len = durable->options->payload_bytes,
    };
    uint32_t number = 0;
    struct publish_layout layout = packet_publish(&durable->probe_packet, &packet);
    durable->probe_payload_at = layout.payload_at;
    memcpy(durable->probe_packet.data + layout.payload_at + sizeof(uint64_t), &number,
           sizeof number);
    for (uint32_t i = 0; i < 2; i++) {
        client_init(&durable->probe[i], &durable->net,
                    (uint32_t)(durable->options->clients + durable->options->publishers) + i);
    }
    client_subscribe_one(&durable->probe[0], "bench/probe", 0);
}

static void connect_all(struct durable *durable)
{
    const struct load_options *options = durable->options;
    char topic[TOPIC_MAX];
    for (uint32_t i = 0; i < options->clients; i++) {
        client_init(&durable->sessions[i], &durable->net, i);
        durable->sessions[i].persistent = true;
        (void)offline_topic(topic, i);
        client_subscribe_one(&durable->sessions[i], topic, 1);
    }
    net_connect_all(durable->sessions, options->clients, options->concurrency);
    for (size_t i = 0; i < options->clients; i++) {
        client_disconnect(&durable->sessions[i]);
    }
    for (uint32_t i = 0; i < options->publishers; i++) {
        client_init(&durable->publisher_clients[i], &durable->net, (uint32_t)options->clients + i);
        publisher_init(durable, i);
    }
    net_connect_all(durable->publisher_clients, options->publishers, options->concurrency);
    probe_init(durable);
    net_connect_all(durable->probe, 2, 2);
}

static volatile struct turns *map_turns(const char *path)
{
    static struct turns none;
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return &none;
    }
    void *mapped = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    return mapped == MAP_FAILED ? &none : mapped;
}

/* Nothing when the broker does not keep them. */
static void report_turns(const volatile struct turns *turns)
{
    if (turns->count != 0) {
        report_count("turns", turns->count);
        report_number("turn_max_us", (double)turns->longest_ns / 1000.0);
        report_number("turn_max_cpu_us", (double)turns->longest_cpu_ns / 1000.0);
        report_number("turn_busiest_us", (double)turns->busiest_cpu_ns / 1000.0);
    }
}

static void durable_fini(struct durable *durable)
{
    for (size_t i = 0; i < durable->options->clients; i++) {
        client_fini(&durable->sessions[i]);
    }
    for (size_t i = 0; i < durable->options->publishers; i++) {
        client_fini(&durable->publisher_clients[i]);
        buffer_fini(&durable->publishers[i].packet);
        free(durable->publishers[i].sent_ns);
    }
    client_fini(&durable->probe[0]);
    client_fini(&durable->probe[1]);
    buffer_fini(&durable->probe_packet);
    free(durable->publishers);
    free(durable->publisher_clients);
    free(durable->sessions);
}

void scenario_durable(const struct load_options *options)
{
    static struct durable durable;
    static const struct net_handlers handlers = {
        .on_delivery = on_delivery,
        .on_acknowledged = on_acknowledged,
    };
    durable.options = options;
    durable.window = options->window != 0 ? options->window : 100;
    net_init(&durable.net, &options->net, &handlers, &durable);
    durable.net.timed = true;
    durable.sessions = must_alloc(options->clients, sizeof *durable.sessions);
    durable.publisher_clients = must_alloc(options->publishers, sizeof(struct client));
    durable.publishers = must_alloc(options->publishers, sizeof *durable.publishers);
    connect_all(&durable);
    run(&durable, options->warmup_ms);
    if (options->rate != 0) {
        drain(&durable);
    }

    durable.recording = true;
    volatile struct turns *turns = map_turns(options->turns);
    *turns = (struct turns){0};
    uint64_t resident = process_resident_bytes((pid_t)options->pid);
    uint64_t anonymous = process_anonymous_bytes((pid_t)options->pid);
    uint64_t cpu = process_cpu_ns((pid_t)options->pid);
    uint64_t own = own_cpu_ns();
    uint64_t start = clock_ns();
    uint64_t acknowledged = durable.acknowledged;
    run(&durable, options->duration_ms);
    double seconds = (double)(clock_ns() - start) / (double)SECOND_NS;
    double count = (double)(durable.acknowledged - acknowledged);

    report_begin(options->scenario);
    report_options(options);
    report_count("window", durable.window);
    report_number("seconds", seconds);
    report_number("durable_per_s", count / seconds);
    report_number("broker_us",
                  (double)(process_cpu_ns((pid_t)options->pid) - cpu) / 1000.0 / count);
    report_number("generator_us", (double)(own_cpu_ns() - own) / 1000.0 / count);
    report_latency("", &durable.latency);
    report_latency("stall_", &durable.stall);
    report_turns(turns);
    report_count("messages", durable.acknowledged);
    report_number("bytes_each",
                  ((double)process_resident_bytes((pid_t)options->pid) - (double)resident) / count);
    report_number("memory_each",
                  ((double)process_anonymous_bytes((pid_t)options->pid) - (double)anonymous) /
                      count);
    report_count("lost_clients", durable.net.lost_clients);
    report_end();
    durable_fini(&durable);
}
