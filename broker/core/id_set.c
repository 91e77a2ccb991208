#include "id_set.h"

#include <stddef.h>

#include "mem.h"

enum { CAPACITY_MIN = 16, CAPACITY_KEPT = 64 };

/* Clients count upwards: left as they are, their identifiers would form one long run, which every
 * removal walks to its end. Multiplied they lie apart. */
static uint32_t home_of(const struct id_set *set, uint16_t id)
{
    return id * 40503U & (set->capacity - 1);
}

/* The place of `id`, or the free place where it would go. Requires a free place to exist. */
static uint32_t place_of(const struct id_set *set, uint16_t id)
{
    uint32_t at = home_of(set, id);
    while (set->places[at] != 0 && set->places[at] != id) {
        at = (at + 1) & (set->capacity - 1);
    }
    return at;
}

bool id_set_has(const struct id_set *set, uint16_t id)
{
    return set->count != 0 && set->places[place_of(set, id)] == id;
}

static enum status grow(struct id_set *set)
{
    struct id_set bigger = {.capacity = set->capacity == 0 ? CAPACITY_MIN : set->capacity * 2,
                            .count = set->count};
    bigger.places = mem_zalloc(bigger.capacity * sizeof *bigger.places);
    if (bigger.places == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < set->capacity; i++) {
        if (set->places[i] != 0) {
            bigger.places[place_of(&bigger, set->places[i])] = set->places[i];
        }
    }
    mem_free(set->places);
    *set = bigger;
    return STATUS_OK;
}

enum status id_set_add(struct id_set *set, uint16_t id)
{
    ENSURE(id != 0);
    if ((set->count + 1) * 4 > set->capacity * 3) {
        enum status status = grow(set);
        if (status != STATUS_OK) {
            return status;
        }
    }
    uint32_t at = place_of(set, id);
    ENSURE(set->places[at] == 0);
    set->places[at] = id;
    set->count++;
    return STATUS_OK;
}

bool id_set_remove(struct id_set *set, uint16_t id)
{
    if (!id_set_has(set, id)) {
        return false;
    }
    uint32_t mask = set->capacity - 1;
    uint32_t hole = place_of(set, id);
    /* Whatever follows in the same run moves back into the hole, unless that would put it before
     * its home. */
    for (uint32_t at = (hole + 1) & mask; set->places[at] != 0; at = (at + 1) & mask) {
        uint32_t home = home_of(set, set->places[at]);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            set->places[hole] = set->places[at];
            hole = at;
        }
    }
    set->places[hole] = 0;
    set->count--;
    if (set->count == 0 && set->capacity > CAPACITY_KEPT) {
        id_set_fini(set);
    }
    return true;
}

void id_set_fini(struct id_set *set)
{
    mem_free(set->places);
    *set = (struct id_set){NULL, 0, 0};
}
