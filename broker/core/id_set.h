/*
 * id_set: the packet identifiers of QoS 2 messages that came in and were not released yet (4.3.3,
 * method B).
 *
 *   Cost       add, has, remove: O(1). No memory while empty.
 */
#ifndef BROKER_ID_SET_H
#define BROKER_ID_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

/* Open addressing; 0 is a free place, as no packet identifier is 0. Zeroed memory is an empty set.
 */
struct id_set {
    uint16_t *places;
    uint32_t capacity; /* power of two, or 0 */
    uint32_t count;
};

bool id_set_has(const struct id_set *set, uint16_t id);

/* Adds an identifier that is not in the set. Errors: STATUS_NO_MEMORY; the set is then unchanged.
 */
MUST_USE enum status id_set_add(struct id_set *set, uint16_t id);

/* False when it was not in the set. */
bool id_set_remove(struct id_set *set, uint16_t id);

void id_set_fini(struct id_set *set);

#endif
