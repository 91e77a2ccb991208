/*
 * mqtt_disconnect: DISCONNECT (3.14), AUTH (3.15) and the two PING packets (3.12, 3.13).
 */
#ifndef PROTOCOL_MQTT_DISCONNECT_H
#define PROTOCOL_MQTT_DISCONNECT_H

#include "mqtt.h"

struct mqtt_disconnect {
    enum mqtt_reason reason;
    bool has_session_expiry;
    uint32_t session_expiry_s;
    struct bytes reason_string;
    struct bytes server_reference;
};

/* Before MQTT 5 the body must be empty. Reasons that only a server may send are
 * MQTT_PROTOCOL_ERROR. */
MUST_USE enum mqtt_reason mqtt_disconnect_decode(struct bytes body, enum mqtt_version version,
                                                 struct mqtt_disconnect *out);
void mqtt_disconnect_encode(struct writer *writer, enum mqtt_version version,
                            const struct mqtt_disconnect *disconnect);

struct mqtt_auth {
    enum mqtt_reason reason; /* MQTT_SUCCESS, MQTT_CONTINUE_AUTHENTICATION or MQTT_REAUTHENTICATE */
    bool has_method;
    struct bytes method;
    struct bytes data;
    struct bytes reason_string;
};

/*
 * A success may go without properties (3.15.2.1 even lets the whole body go); any other AUTH that
 * names no method is MQTT_PROTOCOL_ERROR, and so is any other reason code.
 */
MUST_USE enum mqtt_reason mqtt_auth_decode(struct bytes body, struct mqtt_auth *out);
void mqtt_auth_encode(struct writer *writer, const struct mqtt_auth *auth);

/* A packet without a body: PINGREQ, PINGRESP, and DISCONNECT before MQTT 5. */
void mqtt_empty_encode(struct writer *writer, enum mqtt_type type);

#endif
