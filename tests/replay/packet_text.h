/*
 * packet_text: one MQTT packet as one line of words, both ways; README.md has the language.
 */
#ifndef REPLAY_PACKET_TEXT_H
#define REPLAY_PACKET_TEXT_H

#include "words.h"

/*
 * Encodes the packet that a client sends, words[0] being its type. *version is the client's, which
 * a CONNECT sets. `client_id` is what a CONNECT without id= says. NULL, or what is wrong.
 */
const char *packet_text_encode(const struct words *words, const char *client_id,
                               enum mqtt_version *version, struct writer *writer);

/* Describes a packet that a client received. */
void packet_text_describe(const struct mqtt_header *header, struct bytes body,
                          enum mqtt_version version, char *out, size_t out_bytes);

/* True when both lines have the same words, in any order but for the first. */
bool packet_text_equal(const char *one, const char *other);

/* CONNACK does not show this Maximum Packet Size, which the simulated broker always announces. */
enum { PACKET_TEXT_USUAL_MAXIMUM = 1024 * 1024 };

#endif
