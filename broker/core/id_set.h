/*
 * id_set: the packet identifiers of QoS 2 messages that came in and were not released yet (4.3.3,
 * method B).
 *
 *   Cost       add, has, remove: O(1). No memory while empty.
 */
#ifndef BROKER_ID_SET_H
#define BROKER_ID_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* Open addressing; 0 is a free place, as no packet identifier is 0. */
struct id_table {
    uint32_t capacity; /* power of two */
    uint32_t count;
    uint16_t places[];
};

/* Most sessions never have one, so that an empty set is one pointer. Zeroed memory is an empty set.
 */
struct id_set {
    struct id_table *table; /* NULL until the first identifier */
};

static inline uint32_t id_set_count(const struct id_set *set)
{
    return set->table == NULL ? 0 : set->table->count;
}

bool id_set_has(const struct id_set *set, uint16_t id);

/* Adds an identifier that is not in the set. Errors: STATUS_NO_MEMORY; the set is then unchanged.
 */
MUST_USE enum status id_set_add(struct id_set *set, uint16_t id);

/* False when it was not in the set. */
bool id_set_remove(struct id_set *set, uint16_t id);

void id_set_fini(struct id_set *set);

#endif
