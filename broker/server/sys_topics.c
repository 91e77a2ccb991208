#include "sys_topics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"

enum { TEXT_MAX = 64, TOPIC_MAX = 96 };

/* A figure that is published as it stands. */
struct gauge {
    const char *topic;
    size_t offset; /* of a uint64_t in struct sys_figures */
};

#define FIGURE(member) offsetof(struct sys_figures, member)

static const struct gauge gauges[] = {
    {"bytes/received", FIGURE(bytes_received)},
    {"bytes/sent", FIGURE(bytes_sent)},
    {"clients/connected", FIGURE(core.sessions_connected)},
    {"clients/active", FIGURE(core.sessions_connected)},
    {"clients/expired", FIGURE(core.sessions_expired)},
    {"clients/maximum", FIGURE(core.sessions_connected_max)},
    {"clients/total", FIGURE(core.sessions)},
    {"heap/current", FIGURE(heap_bytes)},
    {"messages/received", FIGURE(messages_received)},
    {"messages/sent", FIGURE(messages_sent)},
    {"messages/stored", FIGURE(core.retained_messages)},
    {"publish/bytes/received", FIGURE(publish_bytes_received)},
    {"publish/bytes/sent", FIGURE(publish_bytes_sent)},
    {"publish/messages/dropped", FIGURE(core.dropped)},
    {"publish/messages/received", FIGURE(publish_received)},
    {"publish/messages/sent", FIGURE(publish_sent)},
    {"queues/count", FIGURE(core.queues)},
    {"retained messages/count", FIGURE(core.retained_messages)},
    {"shared_subscriptions/count", FIGURE(core.shared_subscriptions)},
    {"stomp/clients/connected", FIGURE(stomp_connected)},
    {"stomp/clients/total", FIGURE(stomp_connections)},
    {"stomp/messages/received", FIGURE(stomp_received)},
    {"stomp/messages/sent", FIGURE(stomp_sent)},
    {"store/messages/bytes", FIGURE(core.queued_bytes)},
    {"store/messages/count", FIGURE(core.queued_messages)},
    {"subscriptions/count", FIGURE(core.subscriptions)},
};

/* A figure whose rate for each minute is averaged over 1, 5 and 15 minutes. */
static const struct gauge loads[] = {
    {"load/bytes/received", FIGURE(bytes_received)},
    {"load/bytes/sent", FIGURE(bytes_sent)},
    {"load/connections", FIGURE(connections)},
    {"load/messages/received", FIGURE(messages_received)},
    {"load/messages/sent", FIGURE(messages_sent)},
    {"load/publish/dropped", FIGURE(core.dropped)},
    {"load/publish/received", FIGURE(publish_received)},
    {"load/publish/sent", FIGURE(publish_sent)},
    {"load/sockets", FIGURE(sockets)},
};

static const struct {
    const char *name;
    double seconds;
} windows[] = {{"1min", 60.0}, {"5min", 300.0}, {"15min", 900.0}};

enum {
    GAUGES = sizeof gauges / sizeof *gauges,
    LOADS = sizeof loads / sizeof *loads,
    WINDOWS = sizeof windows / sizeof *windows,
};

struct sys_topics {
    struct core *core;
    bool started;
    uint64_t gauges[GAUGES];
    uint64_t disconnected;
    uint64_t totals[LOADS];
    double averages[LOADS][WINDOWS];
    uint64_t published_ms;
};

static uint64_t figure(const struct sys_figures *figures, size_t offset)
{
    uint64_t value = 0;
    memcpy(&value, (const char *)figures + offset, sizeof value);
    return value;
}

/* Without memory a figure is missing until it changes again. */
static void publish(struct sys_topics *topics, uint64_t now_ms, const char *name, const char *text)
{
    char topic[TOPIC_MAX];
    (void)snprintf(topic, sizeof topic, "$SYS/broker/%s", name);
    struct message *message = NULL;
    if (message_create(bytes_of_string(topic), 0, bytes_of_string(text), &message) != STATUS_OK) {
        return;
    }
    message->qos = 2; /* each subscriber gets it at the QoS that it asked for */
    message->retain = true;
    (void)!core_publish(topics->core, now_ms, NULL, message);
    message_release(message);
}

static void publish_number(struct sys_topics *topics, uint64_t now_ms, const char *name,
                           uint64_t value)
{
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    publish(topics, now_ms, name, text);
}

static void publish_load(struct sys_topics *topics, uint64_t now_ms, size_t load, double per_minute,
                         double seconds)
{
    for (size_t window = 0; window < WINDOWS; window++) {
        double *average = &topics->averages[load][window];
        double before = *average;
        double keep = exp(-seconds / windows[window].seconds);
        *average = per_minute + keep * (before - per_minute);
        if (topics->started && fabs(*average - before) < 0.01) {
            continue;
        }
        char name[TOPIC_MAX];
        char text[TEXT_MAX];
        (void)snprintf(name, sizeof name, "%s/%s", loads[load].topic, windows[window].name);
        (void)snprintf(text, sizeof text, "%.2f", *average);
        publish(topics, now_ms, name, text);
    }
}

/* The time that the totals have grown in. A reload may have changed the interval or have begun to
 * publish late. */
static double seconds_since(const struct sys_topics *topics, uint64_t now_ms, uint32_t interval_s,
                            const struct sys_figures *figures)
{
    if (topics->started && now_ms > topics->published_ms) {
        return (double)(now_ms - topics->published_ms) / 1000.0;
    }
    return figures->uptime_s > interval_s ? (double)figures->uptime_s : (double)interval_s;
}

enum status sys_topics_create(struct core *core, struct sys_topics **out)
{
    *out = mem_zalloc(sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->core = core;
    return STATUS_OK;
}

void sys_topics_destroy(struct sys_topics *topics)
{
    mem_free(topics);
}

void sys_topics_publish(struct sys_topics *topics, uint64_t now_ms, uint32_t interval_s,
                        const struct sys_figures *figures)
{
    char text[TEXT_MAX];
    if (!topics->started) {
        publish(topics, now_ms, "version", "dunlin version " DUNLIN_VERSION);
    }
    (void)snprintf(text, sizeof text, "%llu seconds", (unsigned long long)figures->uptime_s);
    publish(topics, now_ms, "uptime", text);
    for (size_t i = 0; i < GAUGES; i++) {
        uint64_t value = figure(figures, gauges[i].offset);
        if (!topics->started || value != topics->gauges[i]) {
            topics->gauges[i] = value;
            publish_number(topics, now_ms, gauges[i].topic, value);
        }
    }
    uint64_t disconnected = figures->core.sessions - figures->core.sessions_connected;
    if (!topics->started || disconnected != topics->disconnected) {
        topics->disconnected = disconnected;
        publish_number(topics, now_ms, "clients/disconnected", disconnected);
        publish_number(topics, now_ms, "clients/inactive", disconnected);
    }
    double seconds = seconds_since(topics, now_ms, interval_s, figures);
    for (size_t i = 0; i < LOADS; i++) {
        uint64_t total = figure(figures, loads[i].offset);
        double since = (double)(total - topics->totals[i]);
        topics->totals[i] = total;
        publish_load(topics, now_ms, i, since * 60.0 / seconds, seconds);
    }
    topics->started = true;
    topics->published_ms = now_ms;
}
