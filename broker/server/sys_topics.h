/*
 * sys_topics: the broker's figures as retained messages under $SYS/broker, named as mosquitto names
 * them.
 *
 *   Cost       One message for each figure that changed, each interval.
 *   Threads    The core's own.
 */
#ifndef SERVER_SYS_TOPICS_H
#define SERVER_SYS_TOPICS_H

#include "core.h"
#include "status.h"

/* What is published; counts are totals since the start. */
struct sys_figures {
    struct core_stats core;
    uint64_t uptime_s;
    uint64_t bytes_received;
    uint64_t bytes_sent;
    uint64_t messages_received; /* packets and frames of any type */
    uint64_t messages_sent;
    uint64_t publish_received;
    uint64_t publish_sent;
    uint64_t publish_bytes_received;
    uint64_t publish_bytes_sent;
    uint64_t connections; /* CONNECTs accepted */
    uint64_t sockets;     /* sockets accepted */
    uint64_t heap_bytes;
    uint64_t stomp_connected;   /* of the clients those that speak STOMP */
    uint64_t stomp_connections; /* CONNECTs of these accepted */
    uint64_t stomp_received;    /* SEND frames */
    uint64_t stomp_sent;        /* MESSAGE frames */
};

struct sys_topics;

/* Errors: STATUS_NO_MEMORY. The caller ends *out with sys_topics_destroy. */
MUST_USE enum status sys_topics_create(struct core *core, struct sys_topics **out);
void sys_topics_destroy(struct sys_topics *topics);

/* Publishes what changed since the last call; `interval_s` is the time between two calls, for the
 * load averages. */
void sys_topics_publish(struct sys_topics *topics, uint64_t now_ms, uint32_t interval_s,
                        const struct sys_figures *figures);

#endif
