/*
 * load: what the command line asks for, and the scenarios that do it. Each scenario connects its
 * clients, measures one steady phase, prints one JSON line and returns.
 *
 *   Place  tests/bench; load.c reads the options, flow.c and sessions.c have the scenarios.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "net.h"

struct load_options {
    struct net_options net;
    const char *scenario;
    const char *turns; /* where the broker's turns are kept (turns.h), NULL: nowhere */
    uint64_t pid;      /* the broker's, 0 when it is not on this machine */
    uint64_t qos;
    uint64_t payload_bytes;
    uint64_t publishers;
    uint64_t subscribers;
    uint64_t pairs;
    uint64_t bystanders; /* clients with a subscription that nobody publishes to */
    uint64_t window;     /* outstanding deliveries, 0 for the default */
    uint64_t rate;       /* messages a second, 0 for a closed loop */
    uint64_t messages;   /* ends the steady phase early, 0 for no such end */
    uint64_t duration_ms;
    uint64_t warmup_ms;
    uint64_t subscriptions;
    uint64_t depth; /* topic levels before the ones that the subscriptions scenario tells apart */
    uint64_t clients;
    uint64_t count;    /* retained messages, or messages for each offline session */
    uint64_t retained; /* to leave behind, besides what waits for sessions */
    uint64_t concurrency;
    bool timed; /* stamp messages in a closed loop too */
};

/* flow.c: messages that stream from publishers to subscribers. */
void scenario_fanout(const struct load_options *options);
void scenario_pairs(const struct load_options *options);
void scenario_shared(const struct load_options *options);
void scenario_subscriptions(const struct load_options *options);
/* Pairs at a fixed rate, first alone, then beside a publisher at full speed whose only subscriber
 * does not read. */
void scenario_fairness(const struct load_options *options);

/* sessions.c: what connections and stored messages cost. */
void scenario_retained(const struct load_options *options);
void scenario_idle(const struct load_options *options);
void scenario_storm(const struct load_options *options);
void scenario_offline(const struct load_options *options);
/* Leaves --clients offline sessions with --count messages each, and --retained retained messages.
 */
void scenario_fill(const struct load_options *options);

/* durable.c: QoS 1 to offline sessions at full speed, how long PUBACK takes, and how long an
 * unrelated pair waits meanwhile. */
void scenario_durable(const struct load_options *options);

/* The fields that every report begins with. */
void report_options(const struct load_options *options);

#endif
