/*
 * detect: what a client speaks, from the first bytes that it sends.
 *
 *   Cost       A few comparisons. No allocation.
 */
#ifndef TRANSPORT_DETECT_H
#define TRANSPORT_DETECT_H

#include "bytes.h"

enum { DETECT_BYTES_MAX = 8 }; /* more are never looked at */

enum detected {
    DETECTED_MORE, /* it is not clear yet */
    DETECTED_TLS,
    DETECTED_MQTT,
    DETECTED_STOMP, /* CONNECT or STOMP alone in a line, or a line end before it */
    DETECTED_HTTP,  /* any other word: a method, CONNECT with a target included */
    DETECTED_UNKNOWN,
};

/* Requires: first is not empty. */
enum detected detect_protocol(struct bytes first);

#endif
