#include "id_set.h"

#include <stddef.h>

#include "mem.h"

enum { CAPACITY_MIN = 16, CAPACITY_KEPT = 64 };

/* Clients count upwards: left as they are, their identifiers would form one long run, which every
 * removal walks to its end. Multiplied they lie apart. */
static uint32_t home_of(const struct id_table *table, uint16_t id)
{
    return id * 40503U & (table->capacity - 1);
}

static uint16_t id_at(const struct id_table *table, uint32_t at)
{
    return (uint16_t)table->places[at];
}

static uint64_t place(uint16_t id, uint64_t arrival)
{
    ENSURE(arrival <= ID_SET_ARRIVAL_MAX);
    return arrival << 16 | id;
}

/* The place of `id`, or the free place where it would go. Requires a free place to exist. */
static uint32_t place_of(const struct id_table *table, uint16_t id)
{
    uint32_t at = home_of(table, id);
    while (table->places[at] != 0 && id_at(table, at) != id) {
        at = (at + 1) & (table->capacity - 1);
    }
    return at;
}

bool id_set_has(const struct id_set *set, uint16_t id)
{
    return id_set_count(set) != 0 && set->table->places[place_of(set->table, id)] != 0;
}

static enum status grow(struct id_set *set)
{
    struct id_table *old = set->table;
    uint32_t capacity = old == NULL ? CAPACITY_MIN : old->capacity * 2;
    struct id_table *bigger = mem_zalloc(sizeof *bigger + capacity * sizeof *bigger->places);
    if (bigger == NULL) {
        return STATUS_NO_MEMORY;
    }
    bigger->capacity = capacity;
    bigger->count = id_set_count(set);
    for (uint32_t i = 0; old != NULL && i < old->capacity; i++) {
        if (old->places[i] != 0) {
            bigger->places[place_of(bigger, id_at(old, i))] = old->places[i];
        }
    }
    mem_free(old);
    set->table = bigger;
    return STATUS_OK;
}

enum status id_set_add(struct id_set *set, uint16_t id, uint64_t arrival)
{
    ENSURE(id != 0);
    if (set->table == NULL || (set->table->count + 1) * 4 > set->table->capacity * 3) {
        enum status status = grow(set);
        if (status != STATUS_OK) {
            return status;
        }
    }
    struct id_table *table = set->table;
    uint32_t at = place_of(table, id);
    ENSURE(table->places[at] == 0);
    table->places[at] = place(id, arrival);
    table->count++;
    return STATUS_OK;
}

void id_set_assign(struct id_set *set, uint16_t id, uint64_t arrival)
{
    ENSURE(id_set_has(set, id));
    set->table->places[place_of(set->table, id)] = place(id, arrival);
}

bool id_set_remove(struct id_set *set, uint16_t id, uint64_t *arrival)
{
    if (!id_set_has(set, id)) {
        return false;
    }
    struct id_table *table = set->table;
    uint32_t mask = table->capacity - 1;
    uint32_t hole = place_of(table, id);
    *arrival = table->places[hole] >> 16;
    /* Whatever follows in the same run moves back into the hole, unless that would put it before
     * its home. */
    for (uint32_t at = (hole + 1) & mask; table->places[at] != 0; at = (at + 1) & mask) {
        uint32_t home = home_of(table, id_at(table, at));
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->places[hole] = table->places[at];
            hole = at;
        }
    }
    table->places[hole] = 0;
    table->count--;
    if (table->count == 0 && table->capacity > CAPACITY_KEPT) {
        id_set_fini(set);
    }
    return true;
}

bool id_set_pop(struct id_set *set, uint16_t *id, uint64_t *arrival)
{
    if (id_set_count(set) == 0) {
        return false;
    }
    uint32_t at = 0;
    while (set->table->places[at] == 0) {
        at++;
    }
    *id = id_at(set->table, at);
    return id_set_remove(set, *id, arrival);
}

void id_set_fini(struct id_set *set)
{
    mem_free(set->table);
    set->table = NULL;
}
