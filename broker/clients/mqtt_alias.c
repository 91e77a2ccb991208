#include "mqtt_alias.h"

#include "mem.h"

struct alias_topic {
    uint16_t len;
    uint8_t text[];
};

struct alias_names {
    uint16_t maximum;
    struct alias_topic *topics[]; /* alias - 1 */
};

struct alias_choices {
    uint16_t maximum;
    uint16_t count;
    uint32_t hashes[ALIAS_CHOICES_MAX];
    struct alias_topic *topics[ALIAS_CHOICES_MAX];
};

static struct alias_topic *copy_topic(struct bytes topic)
{
    struct alias_topic *copy = mem_alloc(sizeof *copy + topic.len);
    if (copy != NULL) {
        copy->len = (uint16_t)topic.len;
        bytes_copy(copy->text, topic);
    }
    return copy;
}

enum status alias_names_create(uint16_t maximum, struct alias_names **out)
{
    *out = mem_zalloc(sizeof **out + maximum * sizeof(struct alias_topic *));
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->maximum = maximum;
    return STATUS_OK;
}

void alias_names_destroy(struct alias_names *names)
{
    if (names != NULL) {
        for (uint16_t i = 0; i < names->maximum; i++) {
            mem_free(names->topics[i]);
        }
        mem_free(names);
    }
}

enum status alias_names_set(struct alias_names *names, uint16_t alias, struct bytes topic)
{
    ENSURE(alias >= 1 && alias <= names->maximum);
    struct alias_topic **place = &names->topics[alias - 1];
    if (*place != NULL && bytes_equal(bytes_of((*place)->text, (*place)->len), topic)) {
        return STATUS_OK;
    }
    struct alias_topic *copy = copy_topic(topic);
    if (copy == NULL) {
        return STATUS_NO_MEMORY;
    }
    mem_free(*place);
    *place = copy;
    return STATUS_OK;
}

struct bytes alias_names_get(const struct alias_names *names, uint16_t alias)
{
    ENSURE(alias >= 1 && alias <= names->maximum);
    const struct alias_topic *topic = names->topics[alias - 1];
    return topic == NULL ? BYTES_EMPTY : bytes_of(topic->text, topic->len);
}

enum status alias_choices_create(uint16_t maximum, struct alias_choices **out)
{
    *out = mem_zalloc(sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->maximum = maximum < ALIAS_CHOICES_MAX ? maximum : ALIAS_CHOICES_MAX;
    return STATUS_OK;
}

void alias_choices_destroy(struct alias_choices *choices)
{
    if (choices != NULL) {
        for (uint16_t i = 0; i < choices->count; i++) {
            mem_free(choices->topics[i]);
        }
        mem_free(choices);
    }
}

/* FNV-1a: collisions only cost a comparison. */
static uint32_t hash_topic(struct bytes topic)
{
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < topic.len; i++) {
        hash = (hash ^ topic.data[i]) * 16777619U;
    }
    return hash;
}

uint16_t alias_choices_of(struct alias_choices *choices, struct bytes topic, bool *is_known)
{
    uint32_t hash = hash_topic(topic);
    for (uint16_t i = 0; i < choices->count; i++) {
        const struct alias_topic *known = choices->topics[i];
        if (choices->hashes[i] == hash && bytes_equal(bytes_of(known->text, known->len), topic)) {
            *is_known = true;
            return (uint16_t)(i + 1);
        }
    }
    *is_known = false;
    if (choices->count == choices->maximum) {
        return 0;
    }
    struct alias_topic *copy = copy_topic(topic);
    if (copy == NULL) {
        return 0;
    }
    choices->hashes[choices->count] = hash;
    choices->topics[choices->count] = copy;
    choices->count++;
    return choices->count;
}

void alias_choices_undo(struct alias_choices *choices)
{
    ENSURE(choices->count != 0);
    choices->count--;
    mem_free(choices->topics[choices->count]);
    choices->topics[choices->count] = NULL;
}
