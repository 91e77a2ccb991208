/*
 * stomp_destination: what a STOMP destination names, and the MQTT topic that it is.
 *
 *   /topic/a.b.c              a/b/c, with * as + and # as #; /topic/a/b/c is the same topic
 *   /exchange/amq.topic/a.b   a/b
 *   /queue/n, /amq/queue/n    $queue/n, shared by its consumers; the second must exist already
 *   /temp-queue/n             a queue of the connection, for answers
 *   /reply-queue/x            $reply/x: where an answer to a temp-queue is sent
 *   anything else             an MQTT topic as it stands
 *
 * The dots of /topic/ separate levels, so that a dot, a percent sign or a star that is part of an
 * MQTT level is written %2E, %25 or %2A. Every topic has exactly one destination of each style, and
 * that destination names this topic and no other.
 *
 *   Cost       One pass. No allocation.
 *   Threads    Pure functions.
 */
#ifndef PROTOCOL_STOMP_DESTINATION_H
#define PROTOCOL_STOMP_DESTINATION_H

#include "bytes.h"
#include "status.h"

#define STOMP_QUEUE_PREFIX "$queue/"
#define STOMP_REPLY_PREFIX "$reply/"

enum stomp_destination_kind {
    STOMP_TOPIC,
    STOMP_QUEUE,
    STOMP_EXISTING_QUEUE, /* /amq/queue/n */
    STOMP_TEMP_QUEUE,
    STOMP_REPLY_QUEUE,
};

/* How a client writes topics, and is answered. */
enum stomp_style {
    STOMP_DOTS,    /* /topic/a.b */
    STOMP_SLASHES, /* /topic/a/b */
    STOMP_PLAIN,   /* a/b */
};

struct stomp_destination {
    enum stomp_destination_kind kind;
    enum stomp_style style; /* of a STOMP_TOPIC */
    struct bytes name;      /* behind the prefix; borrowed */
};

/* Tells what `text` names. NULL, or what is wrong with it, in words. */
MUST_USE const char *stomp_destination_parse(struct bytes text, struct stomp_destination *out);

/*
 * Writes the MQTT topic of a destination other than STOMP_TEMP_QUEUE, or with `as_filter` its
 * filter, in which a whole level `*` is `+`. At most STOMP_QUEUE_PREFIX and as many bytes as the
 * name has. The result must still pass topic_name_is_valid or topic_filter_is_valid.
 */
void stomp_destination_topic(const struct stomp_destination *destination, bool as_filter,
                             struct writer *writer);

/* Writes the destination of an MQTT topic in the given style. $queue/ and $reply/ have their own in
 * any style. */
void stomp_destination_write(struct bytes topic, enum stomp_style style, struct writer *writer);

/* The most that stomp_destination_write needs. */
static inline size_t stomp_destination_room(size_t topic_len)
{
    return 16 + 3 * topic_len;
}

#endif
