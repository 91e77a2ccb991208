#include <stdlib.h>
#include <string.h>

#include "load.h"

#define WINDOW_DEFAULT 2000
#define WINDOW_FANOUTS 16
#define PREPARED_BYTES (64u << 10)
#define PREPARED_MAX 512
#define STALL_NS (500 * MILLISECOND_NS)
#define DRAIN_NS (1000 * MILLISECOND_NS)
#define FILTERS_PER_SUBSCRIBE 100
#define FLOOD_UNACKED_MAX 1000
#define FLOOD_PER_TURN 64

/* A client that publishes. A closed loop counts deliveries in flight for each of them; the payload
 * says whose it is. */
struct publisher {
    struct client *client;
    struct buffer packet; /* one encoded PUBLISH to copy and patch */
    struct publish_layout layout;
    struct buffer prepared; /* `prepared_count` framed packets, when nothing has to be patched */
    size_t prepared_count;
    int64_t in_flight;
    uint32_t unacknowledged;
    uint32_t topic; /* next in flow.topics */
    uint16_t last_id;
    bool queued;
};

/* Topics of equal length that all publishers walk through, and how many deliveries each causes. */
struct topics {
    char *names;
    uint32_t *fanouts;
    size_t name_len;
    uint32_t count;
    uint32_t stride;
};

struct flow {
    const struct load_options *options;
    struct net net;
    struct client *clients;
    size_t client_count;
    struct publisher *publishers;
    size_t publisher_count;
    uint32_t *refill; /* publishers whose window may have room */
    size_t refill_count;
    struct topics topics; /* names NULL: every publisher keeps to one topic */
    uint32_t fanout;
    int64_t window; /* for each publisher */
    uint64_t sent;
    uint64_t expected;
    uint64_t received;
    uint64_t stalls;
    bool stamped;
    bool recording;
    struct histogram latency;
    uint64_t interval_ns; /* of the fixed rate, 0 in a closed loop */
    uint64_t due_ns;
    size_t due_publisher;
    struct publisher *flood; /* NULL but in the second half of the fairness scenario */
    uint64_t flooded;
};

struct snapshot {
    uint64_t at_ns;
    uint64_t sent;
    uint64_t received;
    uint64_t broker_cpu_ns;
    uint64_t first_thread_ns;
    uint64_t own_cpu_ns;
};

/* ---- receiving */

static void queue_refill(struct flow *flow, struct publisher *publisher)
{
    if (!publisher->queued && publisher != flow->flood) {
        publisher->queued = true;
        flow->refill[flow->refill_count++] = (uint32_t)(publisher - flow->publishers);
    }
}

static void on_delivery(void *context, struct client *client, const uint8_t *stamp)
{
    struct flow *flow = context;
    uint32_t number;
    (void)client;
    if (stamp == NULL) {
        die("a message came back without its stamp");
    }
    memcpy(&number, stamp + 8, sizeof number);
    if (number >= flow->publisher_count) {
        return;
    }
    flow->received++;
    struct publisher *publisher = &flow->publishers[number];
    publisher->in_flight--;
    queue_refill(flow, publisher);
    if (flow->recording) {
        uint64_t sent_ns;
        memcpy(&sent_ns, stamp, sizeof sent_ns);
        histogram_add(&flow->latency, flow->net.now_ns - sent_ns);
    }
}

static void on_acknowledged(void *context, struct client *client)
{
    struct publisher *publisher = client->context;
    publisher->unacknowledged--;
    queue_refill(context, publisher);
}

static void on_drained(void *context, struct client *client)
{
    if (client->context != NULL) {
        queue_refill(context, client->context);
    }
}

/* ---- publishing */

static void publisher_prepare(struct flow *flow, struct publisher *publisher)
{
    struct client *client = publisher->client;
    if (flow->options->qos != 0 || flow->stamped || flow->topics.names != NULL ||
        flow->options->net.frame_per_write) {
        return;
    }
    size_t wanted = PREPARED_BYTES / publisher->packet.len;
    wanted = wanted == 0 ? 1 : wanted > PREPARED_MAX ? PREPARED_MAX : wanted;
    if (flow->window / flow->fanout < (int64_t)wanted) {
        wanted = (size_t)(flow->window / flow->fanout);
    }
    for (size_t i = 0; i < wanted; i++) {
        memcpy(client_begin(client, publisher->packet.len), publisher->packet.data,
               publisher->packet.len);
        client_end(client);
        client_take_outbox(client, &publisher->prepared);
    }
    publisher->prepared_count = wanted;
}

static void publisher_init(struct flow *flow, size_t number, struct client *client,
                           const char *topic)
{
    struct publisher *publisher = &flow->publishers[number];
    const struct load_options *options = flow->options;
    struct publish_packet packet = {
        .topic = topic,
        .version = options->net.version,
        .qos = (uint8_t)options->qos,
        .payload_len = options->payload_bytes,
    };
    publisher->client = client;
    client->context = publisher;
    publisher->layout = packet_publish(&publisher->packet, &packet);
    uint32_t stamp = (uint32_t)number;
    memcpy(publisher->packet.data + publisher->layout.payload_at + 8, &stamp, sizeof stamp);
    publisher_prepare(flow, publisher);
}

/* Encodes one message into the client's outbox. */
static void publish_one(struct flow *flow, struct publisher *publisher, uint64_t stamp_ns)
{
    const struct buffer *packet = &publisher->packet;
    const struct publish_layout *layout = &publisher->layout;
    uint32_t fanout = flow->fanout;
    uint8_t *to = client_begin(publisher->client, packet->len);
    memcpy(to, packet->data, packet->len);
    memcpy(to + layout->payload_at, &stamp_ns, sizeof stamp_ns);
    if (layout->id_at != 0) {
        publisher->last_id = publisher->last_id == UINT16_MAX ? 1 : publisher->last_id + 1;
        to[layout->id_at] = (uint8_t)(publisher->last_id >> 8);
        to[layout->id_at + 1] = (uint8_t)publisher->last_id;
        publisher->unacknowledged++;
    }
    if (flow->topics.names != NULL && publisher != flow->flood) {
        const struct topics *topics = &flow->topics;
        memcpy(to + layout->topic_at, topics->names + publisher->topic * topics->name_len,
               topics->name_len);
        fanout = topics->fanouts[publisher->topic];
        publisher->topic = (publisher->topic + topics->stride) % topics->count;
    }
    client_end(publisher->client);
    if (publisher != flow->flood) {
        flow->sent++;
        flow->expected += fanout;
        publisher->in_flight += fanout;
    }
}

static bool may_publish(const struct publisher *publisher)
{
    return publisher->client->state == CLIENT_READY && !client_blocked(publisher->client) &&
           publisher->unacknowledged < publisher->client->receive_maximum;
}

static void publish_prepared(struct flow *flow, struct publisher *publisher)
{
    int64_t room = (flow->window - publisher->in_flight) / flow->fanout;
    while (room > 0 && may_publish(publisher)) {
        size_t count =
            (size_t)room < publisher->prepared_count ? (size_t)room : publisher->prepared_count;
        client_write(publisher->client, publisher->prepared.data,
                     count * (publisher->prepared.len / publisher->prepared_count));
        flow->sent += count;
        flow->expected += count * flow->fanout;
        publisher->in_flight += (int64_t)count * flow->fanout;
        room -= (int64_t)count;
    }
}

/* Brings the publisher's window up to its size. */
static void publisher_fill(struct flow *flow, struct publisher *publisher)
{
    if (publisher->prepared_count != 0) {
        publish_prepared(flow, publisher);
        return;
    }
    while (may_publish(publisher)) {
        int64_t next = flow->fanout;
        if (flow->topics.names != NULL) {
            next = flow->topics.fanouts[publisher->topic];
        }
        if (publisher->in_flight > 0 && publisher->in_flight + next > flow->window) {
            break;
        }
        publish_one(flow, publisher, flow->stamped ? clock_ns() : 0);
    }
    client_flush(publisher->client);
}

/* Sends what the fixed rate says is due, each stamped with when it was due: a late send counts as
 * latency. */
static void publish_due(struct flow *flow)
{
    uint64_t now = clock_ns();
    while (flow->due_ns <= now) {
        struct publisher *publisher = &flow->publishers[flow->due_publisher];
        if (publisher->unacknowledged >= publisher->client->receive_maximum) {
            break;
        }
        publish_one(flow, publisher, flow->due_ns);
        client_flush(publisher->client);
        flow->due_ns += flow->interval_ns;
        flow->due_publisher = (flow->due_publisher + 1) % flow->publisher_count;
    }
}

static void publish_flood(struct flow *flow)
{
    struct publisher *flood = flow->flood;
    for (int i = 0; i < FLOOD_PER_TURN && may_publish(flood); i++) {
        if (flood->unacknowledged >= FLOOD_UNACKED_MAX) {
            break;
        }
        publish_one(flow, flood, 0);
        flow->flooded++;
    }
    client_flush(flood->client);
}

static void refill(struct flow *flow)
{
    size_t count = flow->refill_count;
    flow->refill_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct publisher *publisher = &flow->publishers[flow->refill[i]];
        publisher->queued = false;
        if (flow->interval_ns == 0) {
            publisher_fill(flow, publisher);
        }
    }
}

/* ---- phases */

/* A broker that drops messages would stop a closed loop: after half a second without any delivery
 * the windows are opened anew. What was lost stays counted, because expected and received are not
 * touched. */
static void reopen_windows(struct flow *flow)
{
    flow->stalls++;
    for (size_t i = 0; i < flow->publisher_count; i++) {
        flow->publishers[i].in_flight = 0;
        queue_refill(flow, &flow->publishers[i]);
    }
}

static uint64_t turn_timeout_ns(const struct flow *flow, uint64_t now)
{
    if (flow->flood != NULL && flow->options->qos == 0 && may_publish(flow->flood)) {
        return 0;
    }
    if (flow->interval_ns == 0) {
        return 100 * MILLISECOND_NS;
    }
    return flow->due_ns > now ? flow->due_ns - now : 0;
}

static void run(struct flow *flow, uint64_t duration_ms, uint64_t messages)
{
    uint64_t now = clock_ns();
    uint64_t end = now + duration_ms * MILLISECOND_NS;
    uint64_t last_sent = messages == 0 ? UINT64_MAX : flow->sent + messages;
    uint64_t progress_ns = now;
    uint64_t progress = flow->received;
    if (flow->interval_ns != 0) {
        flow->due_ns = now;
    }
    while (now < end && flow->sent < last_sent) {
        if (flow->flood != NULL) {
            publish_flood(flow);
        }
        if (flow->interval_ns != 0) {
            publish_due(flow);
        }
        refill(flow);
        net_turn(&flow->net, turn_timeout_ns(flow, clock_ns()));
        now = clock_ns();
        if (flow->received != progress) {
            progress = flow->received;
            progress_ns = now;
        } else if (now - progress_ns > STALL_NS && flow->interval_ns == 0) {
            reopen_windows(flow);
            progress_ns = now;
        }
    }
}

/* Waits for what is under way, as long as something keeps coming. */
static void drain(struct flow *flow)
{
    uint64_t progress = flow->received;
    uint64_t progress_ns = clock_ns();
    while (flow->received < flow->expected && clock_ns() - progress_ns < DRAIN_NS) {
        net_turn(&flow->net, 50 * MILLISECOND_NS);
        if (flow->received != progress) {
            progress = flow->received;
            progress_ns = clock_ns();
        }
    }
}

static struct snapshot snapshot(const struct flow *flow)
{
    return (struct snapshot){
        .at_ns = clock_ns(),
        .sent = flow->sent,
        .received = flow->received,
        .broker_cpu_ns = process_cpu_ns((pid_t)flow->options->pid),
        .first_thread_ns = first_thread_cpu_ns((pid_t)flow->options->pid),
        .own_cpu_ns = own_cpu_ns(),
    };
}

static void report_phase(const struct flow *flow, const struct snapshot *from,
                         const struct snapshot *to)
{
    double seconds = (double)(to->at_ns - from->at_ns) / (double)SECOND_NS;
    double deliveries = (double)(to->received - from->received);
    double broker_us = (double)(to->broker_cpu_ns - from->broker_cpu_ns) / 1000.0;
    report_number("seconds", seconds);
    report_count("sent", to->sent - from->sent);
    report_count("deliveries", to->received - from->received);
    report_number("deliveries_per_s", deliveries / seconds);
    report_number("broker_cpu_fraction", broker_us / 1e6 / seconds);
    report_number("broker_us", flow->options->pid != 0 ? broker_us / deliveries : 0.0);
    report_number("first_thread_us",
                  (double)(to->first_thread_ns - from->first_thread_ns) / 1000.0 / deliveries);
    report_number("generator_us",
                  (double)(to->own_cpu_ns - from->own_cpu_ns) / 1000.0 / deliveries);
    report_latency("", &flow->latency);
}

static void report_totals(const struct flow *flow)
{
    report_number("lost", (double)flow->expected - (double)flow->received);
    report_count("stalls", flow->stalls);
    report_count("lost_clients", flow->net.lost_clients);
    report_count("resident_bytes", process_resident_bytes((pid_t)flow->options->pid));
}

/* ---- scenarios */

static void flow_init(struct flow *flow, const struct load_options *options, size_t publishers,
                      size_t subscribers)
{
    static const struct net_handlers handlers = {
        .on_delivery = on_delivery,
        .on_acknowledged = on_acknowledged,
        .on_drained = on_drained,
    };
    memset(flow, 0, sizeof *flow);
    flow->options = options;
    net_init(&flow->net, &options->net, &handlers, flow);
    flow->client_count = publishers + subscribers + options->bystanders;
    flow->clients = must_alloc(flow->client_count, sizeof *flow->clients);
    for (size_t i = 0; i < flow->client_count; i++) {
        client_init(&flow->clients[i], &flow->net, (uint32_t)i);
    }
    for (size_t i = subscribers; i < subscribers + options->bystanders; i++) {
        char topic[32];
        (void)text(topic, sizeof topic, "bench/idle/%06zu", i);
        client_subscribe_one(&flow->clients[i], topic, 0);
    }
    flow->publishers = must_alloc(publishers + 1, sizeof *flow->publishers);
    flow->publisher_count = publishers;
    flow->refill = must_alloc(publishers + 1, sizeof *flow->refill);
    flow->fanout = 1;
    flow->stamped = options->rate != 0 || options->timed;
    flow->net.timed = flow->stamped;
    if (options->rate != 0) {
        flow->interval_ns = SECOND_NS / options->rate;
    }
}

/* Divides the outstanding deliveries between the publishers, at least one message for each. */
static void set_window(struct flow *flow, uint32_t fanout)
{
    uint64_t window = flow->options->window;
    if (window == 0) {
        window = (uint64_t)fanout * WINDOW_FANOUTS;
        window = window < WINDOW_DEFAULT ? WINDOW_DEFAULT : window;
    }
    flow->fanout = fanout;
    flow->window = (int64_t)(window / flow->publisher_count);
    if (flow->window < fanout) {
        flow->window = fanout;
    }
}

/* Subscribers come first in `clients`, then bystanders, then publishers. */
static struct client *publisher_client(struct flow *flow, size_t number)
{
    return &flow->clients[flow->client_count - flow->publisher_count + number];
}

static void measure(struct flow *flow)
{
    const struct load_options *options = flow->options;
    net_connect_all(flow->clients, flow->client_count, options->concurrency);
    for (size_t i = 0; i < flow->publisher_count; i++) {
        queue_refill(flow, &flow->publishers[i]);
    }
    run(flow, options->warmup_ms, 0);
    flow->recording = flow->stamped;
    struct snapshot before = snapshot(flow);
    run(flow, options->duration_ms, options->messages);
    struct snapshot after = snapshot(flow);
    flow->recording = false;
    drain(flow);
    report_begin(options->scenario);
    report_options(options);
    report_count("window", (uint64_t)flow->window * flow->publisher_count);
    report_phase(flow, &before, &after);
    report_totals(flow);
    report_end();
}

static void flow_fini(struct flow *flow)
{
    for (size_t i = 0; i < flow->client_count; i++) {
        client_fini(&flow->clients[i]);
    }
    for (size_t i = 0; i < flow->publisher_count + 1; i++) {
        buffer_fini(&flow->publishers[i].packet);
        buffer_fini(&flow->publishers[i].prepared);
    }
    free(flow->topics.names);
    free(flow->topics.fanouts);
    free(flow->refill);
    free(flow->publishers);
    free(flow->clients);
}

static void one_topic(const struct load_options *options, const char *filter, uint32_t fanout)
{
    static struct flow flow;
    flow_init(&flow, options, options->publishers, options->subscribers);
    set_window(&flow, fanout);
    for (size_t i = 0; i < options->subscribers; i++) {
        client_subscribe_one(&flow.clients[i], filter, (uint8_t)options->qos);
    }
    for (size_t i = 0; i < options->publishers; i++) {
        publisher_init(&flow, i, publisher_client(&flow, i), "bench/one");
    }
    measure(&flow);
    flow_fini(&flow);
}

void scenario_fanout(const struct load_options *options)
{
    one_topic(options, "bench/one", (uint32_t)options->subscribers);
}

void scenario_shared(const struct load_options *options)
{
    one_topic(options, "$share/bench/bench/one", 1);
}

static void pairs_init(struct flow *flow)
{
    char topic[32];
    for (size_t i = 0; i < flow->publisher_count; i++) {
        (void)text(topic, sizeof topic, "bench/pair/%05zu", i);
        client_subscribe_one(&flow->clients[i], topic, (uint8_t)flow->options->qos);
        publisher_init(flow, i, publisher_client(flow, i), topic);
    }
}

void scenario_pairs(const struct load_options *options)
{
    static struct flow flow;
    flow_init(&flow, options, options->pairs, options->pairs);
    set_window(&flow, 1);
    pairs_init(&flow);
    measure(&flow);
    flow_fini(&flow);
}

/* ---- many subscriptions
 *
 * Of N subscriptions 89 % are exact, 10 % are `group/+/v` with one for each of N/10 groups, and 1 %
 * are `group/#` for the first groups. With 0.4238 N topics spread evenly over the groups a message
 * matches 2.1 + 1 + 0.1 of them. All that match one topic belong to different clients, so that each
 * match is one delivery on every broker, whatever it does about overlapping subscriptions.
 */

struct subscription_plan {
    struct flow *flow;
    struct buffer *filters; /* of each client, not yet in a SUBSCRIBE */
    size_t *counts;
    size_t clients;
    uint8_t qos;
};

static void plan_add(struct subscription_plan *plan, size_t client, const char *filter)
{
    client %= plan->clients;
    packet_filter(&plan->filters[client], filter, plan->qos);
    if (++plan->counts[client] == FILTERS_PER_SUBSCRIBE) {
        client_subscribe(&plan->flow->clients[client], &plan->filters[client]);
        plan->filters[client].len = 0;
        plan->counts[client] = 0;
    }
}

static uint32_t coprime_stride(uint32_t count)
{
    for (uint32_t stride = 7919;; stride++) {
        uint32_t a = count;
        uint32_t b = stride % count;
        while (b != 0) {
            uint32_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1) {
            return stride;
        }
    }
}

static void topics_init(struct topics *topics, const char *prefix, uint64_t subscriptions)
{
    uint32_t groups = (uint32_t)(subscriptions / 10);
    uint64_t exact = subscriptions - groups - subscriptions / 100;
    char name[512];
    topics->count = (uint32_t)(subscriptions * 4238 / 10000);
    topics->stride = coprime_stride(topics->count);
    topics->fanouts = must_alloc(topics->count, sizeof *topics->fanouts);
    topics->name_len = text(name, sizeof name, "%s%06u/%02u/v", prefix, 0u, 0u);
    topics->names = must_alloc(topics->count, topics->name_len);
    for (uint32_t i = 0; i < topics->count; i++) {
        uint32_t group = i % groups;
        (void)text(name, sizeof name, "%s%06u/%02u/v", prefix, group, i / groups);
        memcpy(topics->names + i * topics->name_len, name, topics->name_len);
        topics->fanouts[i] = (uint32_t)(exact / topics->count) +
                             (i < exact % topics->count ? 1u : 0u) + 1u +
                             (group < subscriptions / 100 ? 1u : 0u);
    }
}

static void plan_subscriptions(struct subscription_plan *plan, const char *prefix, uint64_t total)
{
    uint32_t groups = (uint32_t)(total / 10);
    uint64_t exact = total - groups - total / 100;
    const struct topics *topics = &plan->flow->topics;
    char filter[512];
    for (uint64_t i = 0; i < exact; i++) {
        uint32_t topic = (uint32_t)(i % topics->count);
        (void)text(filter, sizeof filter, "%s%06u/%02u/v", prefix, topic % groups, topic / groups);
        plan_add(plan, topic % groups + i / topics->count, filter);
    }
    for (uint32_t group = 0; group < groups; group++) {
        (void)text(filter, sizeof filter, "%s%06u/+/v", prefix, group);
        plan_add(plan, group + 3u, filter);
        if (group < total / 100) {
            (void)text(filter, sizeof filter, "%s%06u/#", prefix, group);
            plan_add(plan, group + 4u, filter);
        }
    }
    for (size_t i = 0; i < plan->clients; i++) {
        if (plan->counts[i] != 0) {
            client_subscribe(&plan->flow->clients[i], &plan->filters[i]);
        }
        buffer_fini(&plan->filters[i]);
    }
}

void scenario_subscriptions(const struct load_options *options)
{
    static struct flow flow;
    char prefix[256] = "s/";
    if (options->subscriptions < 100 || options->subscriptions > 5000000 ||
        options->subscribers < 5 || options->depth > 100) {
        die("subscriptions needs 100 to 5,000,000 of them, 5 or more subscribers, depth <= 100");
    }
    for (size_t i = 0; i < options->depth; i++) {
        memcpy(prefix + 2 * i, "d/", 3);
    }
    flow_init(&flow, options, options->publishers, options->subscribers);
    topics_init(&flow.topics, prefix, options->subscriptions);
    set_window(&flow, 3);
    struct subscription_plan plan = {
        .flow = &flow,
        .filters = must_alloc(options->subscribers, sizeof(struct buffer)),
        .counts = must_alloc(options->subscribers, sizeof(size_t)),
        .clients = options->subscribers,
        .qos = (uint8_t)options->qos,
    };
    plan_subscriptions(&plan, prefix, options->subscriptions);
    char topic[512];
    (void)text(topic, sizeof topic, "%.*s", (int)flow.topics.name_len, flow.topics.names);
    for (size_t i = 0; i < options->publishers; i++) {
        publisher_init(&flow, i, publisher_client(&flow, i), topic);
        flow.publishers[i].topic =
            (uint32_t)(i * flow.topics.count / options->publishers) % flow.topics.count;
    }
    measure(&flow);
    free(plan.filters);
    free(plan.counts);
    flow_fini(&flow);
}

/* ---- fairness */

static struct snapshot measured_run(struct flow *flow, struct snapshot *before)
{
    run(flow, flow->options->warmup_ms, 0);
    histogram_reset(&flow->latency);
    flow->recording = true;
    *before = snapshot(flow);
    run(flow, flow->options->duration_ms, 0);
    flow->recording = false;
    return snapshot(flow);
}

void scenario_fairness(const struct load_options *options)
{
    static struct flow flow;
    static struct histogram quiet;
    struct client extra[2];
    struct snapshot before;
    if (options->rate == 0) {
        die("fairness needs a rate");
    }
    flow_init(&flow, options, options->pairs, options->pairs);
    set_window(&flow, 1);
    pairs_init(&flow);
    for (uint32_t i = 0; i < 2; i++) {
        client_init(&extra[i], &flow.net, (uint32_t)flow.client_count + i);
    }
    client_subscribe_one(&extra[0], "bench/flood", (uint8_t)options->qos);
    net_connect_all(flow.clients, flow.client_count, options->concurrency);
    net_connect_all(extra, 2, 2);
    (void)measured_run(&flow, &before);
    quiet = flow.latency;
    uint64_t resident = process_resident_bytes((pid_t)options->pid);

    client_stall(&extra[0], true);
    publisher_init(&flow, options->pairs, &extra[1], "bench/flood");
    flow.flood = &flow.publishers[options->pairs];
    flow.flood->prepared_count = 0;
    uint64_t flooded = flow.flooded;
    struct snapshot after = measured_run(&flow, &before);
    flooded = flow.flooded - flooded;
    flow.flood = NULL;
    drain(&flow);

    report_begin(options->scenario);
    report_options(options);
    report_phase(&flow, &before, &after);
    report_latency("quiet_", &quiet);
    report_number("p99_ratio", (double)histogram_quantile(&flow.latency, 0.99) /
                                   (double)histogram_quantile(&quiet, 0.99));
    report_count("flood_messages", flooded);
    report_count("resident_before_bytes", resident);
    report_totals(&flow);
    report_end();
    client_fini(&extra[0]);
    client_fini(&extra[1]);
    flow_fini(&flow);
}
