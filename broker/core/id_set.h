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

/* Open addressing. A place holds an identifier and above it, in 48 bits, the arrival number of its
 * message; 0 is a free place, as no packet identifier is 0. */
struct id_table {
    uint32_t capacity; /* power of two */
    uint32_t count;
    uint64_t places[];
};

#define ID_SET_ARRIVAL_MAX ((UINT64_C(1) << 48) - 1)

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

/* Adds an identifier that is not in the set, with the arrival number of the message that it is of
 * (0 when nobody needs to know). Errors: STATUS_NO_MEMORY; the set is then unchanged. */
MUST_USE enum status id_set_add(struct id_set *set, uint16_t id, uint64_t arrival);

/* Gives an identifier of the set another arrival number. */
void id_set_assign(struct id_set *set, uint16_t id, uint64_t arrival);

/* False when it was not in the set; else *arrival is what was stored with it. */
bool id_set_remove(struct id_set *set, uint16_t id, uint64_t *arrival);

/* Takes any one out: for a set that ends. False when it is empty. */
bool id_set_pop(struct id_set *set, uint16_t *id, uint64_t *arrival);

void id_set_fini(struct id_set *set);

#endif
