/*
 * mqtt_codec: what the packet files share among themselves and show nobody else.
 */
#ifndef PROTOCOL_MQTT_CODEC_H
#define PROTOCOL_MQTT_CODEC_H

#include "mqtt.h"

/*
 * Encoding a part whose length stands in front of it: mqtt_length_open leaves one byte for the
 * length and returns where the part begins; mqtt_length_close, after the part was written, fills
 * the length in and moves the part up when it needs more bytes. Parts may be nested. Fails the
 * writer on lengths that a Variable Byte Integer cannot hold.
 */
size_t mqtt_length_open(struct writer *writer);
void mqtt_length_close(struct writer *writer, size_t start);

/* Begins a whole packet: its first byte, then mqtt_length_open. End with mqtt_length_close. */
size_t mqtt_packet_open(struct writer *writer, enum mqtt_type type, uint8_t flags);

/* The same, but leaves the property out when `value` is empty. */
void mqtt_property_write_bytes_if_any(struct writer *writer, enum mqtt_property_id id,
                                      struct bytes value);

/*
 * Walks a list that was validated before: takes the next property off `list` and returns it whole,
 * identifier included. False at the end.
 */
bool mqtt_property_skip(struct reader *list, enum mqtt_property_id *id, struct bytes *whole);

static inline bool mqtt_properties_has(const struct mqtt_properties *properties,
                                       enum mqtt_property_id id)
{
    return (properties->seen >> id & 1) != 0;
}

/* True when `reason` is one of the bytes of `set`. */
static inline bool mqtt_reason_is_in(enum mqtt_reason reason, struct bytes set)
{
    return memchr(set.data, (int)reason, set.len) != NULL;
}

#endif
