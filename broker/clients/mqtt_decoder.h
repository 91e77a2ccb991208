/*
 * mqtt_decoder: the inbound half of one MQTT connection that needs nobody else: bytes in, packets
 * out, with what a PUBLISH says already made into a message.
 *
 * Packets are parsed where they stand; only the beginning of one whose rest has not come is copied.
 * What a packet means for a session is mqtt_client's business. The two may live on different
 * threads: a decoder touches nothing but its own memory and the settings, which are immutable.
 *
 *   Memory     24 bytes while no packet is unfinished and the client has set up no topic alias.
 *   Cost       A message is one allocation; other packets need none.
 *   Threads    One at a time, any.
 */
#ifndef BROKER_MQTT_DECODER_H
#define BROKER_MQTT_DECODER_H

#include "message.h"
#include "mqtt.h"
#include "mqtt_alias.h"

struct mqtt_settings;
struct tail;

/* Zeroed memory is a new decoder. */
struct mqtt_decoder {
    struct tail *tail;              /* NULL unless a packet is unfinished */
    struct alias_names *aliases_in; /* NULL until the client sets up one */
    uint8_t version;                /* enum mqtt_version; 0 before CONNECT */
    bool stopped;                   /* after a violation nothing more is decoded */
};

/*
 * One packet, or the violation that ends the connection. PUBLISH: `message`, or, when it is
 * refused, no message and its topic in `body`. Others: `body`, undecoded.
 *
 * A decoder has no clock: its thread's may be ahead of the one by which the time left is counted.
 * Until expiry_counts the message's expires_at_ms is the time that it has, not when it ends.
 */
struct mqtt_packet {
    uint8_t type;      /* enum mqtt_type */
    uint8_t violation; /* enum mqtt_reason; MQTT_SUCCESS: none */
    uint8_t refusal;   /* enum mqtt_reason: why a PUBLISH is not to be delivered */
    uint8_t qos;       /* of a PUBLISH */
    bool expiry_counts;
    uint16_t packet_id;      /* of a PUBLISH at QoS 1 and 2 */
    uint32_t payload_bytes;  /* of a PUBLISH */
    struct message *message; /* the receiver's */
    struct bytes body;       /* borrowed until the next call for the decoder */
    const char *why; /* of a violation, static: what was wrong where no packet was complete */
};

/*
 * Takes the next packet out of *in. False: all of *in is used up, and what it began is kept.
 *
 * Call it until it returns false, or mqtt_decoder_stop. After a violation it returns false.
 */
MUST_USE bool mqtt_decoder_next(struct mqtt_decoder *decoder, const struct mqtt_settings *settings,
                                struct bytes *in, struct mqtt_packet *out);

/* Nothing more is decoded; an unfinished packet is forgotten. */
void mqtt_decoder_stop(struct mqtt_decoder *decoder);

/* Frees what the decoder holds. */
void mqtt_decoder_fini(struct mqtt_decoder *decoder);

#endif
