/*
 * access: who may connect, publish and subscribe.
 *
 * Today a client is known by its certificate or not at all: a listener lets anonymous clients in,
 * or asks for a certificate whose name becomes the user name. Pure decisions; no files, no clock.
 */
#ifndef BROKER_ACCESS_H
#define BROKER_ACCESS_H

#include <stdbool.h>

#include "bytes.h"
#include "mqtt.h"

/* What is known of a client that wants to connect. */
struct access_request {
    bool allow_anonymous;          /* the listener's setting */
    bool certificate_is_user;      /* use_identity_as_username or use_subject_as_username */
    struct bytes certificate_user; /* empty: it showed no certificate, or one without a name */
    bool has_user_name;
    struct bytes user_name;
};

/*
 * Answers MQTT_SUCCESS with the user name that counts from now on (data NULL = anonymous; borrowed
 * from the request), or MQTT_BAD_USER_NAME_OR_PASSWORD or MQTT_NOT_AUTHORIZED.
 */
MUST_USE enum mqtt_reason access_connect(const struct access_request *request,
                                         struct bytes *user_name);

/* False for topics that only the broker itself writes: $SYS. */
bool access_may_publish(struct bytes topic);

#endif
