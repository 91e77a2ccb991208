/*
 * core_reference: what the tests of the topic structures compare with: a matcher written straight
 * from MQTT 5, 4.7, and a source of numbers that is the same in every run.
 */
#ifndef TESTS_CORE_REFERENCE_H
#define TESTS_CORE_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "hash.h"

static const struct hash_seed test_seed = {UINT64_C(0x0123456789abcdef), 42};

/* SplitMix64: the state is the seed. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline unsigned random_below(uint64_t *state, unsigned limit)
{
    return (unsigned)(random_next(state) % limit);
}

/* Level by level from the left; no cleverness. */
static inline bool reference_levels_match(const char *filter, const char *topic)
{
    for (;;) {
        if (strcmp(filter, "#") == 0) {
            return true;
        }
        size_t filter_len = strcspn(filter, "/");
        size_t topic_len = strcspn(topic, "/");
        bool plus = filter_len == 1 && filter[0] == '+';
        if (!plus && (filter_len != topic_len || memcmp(filter, topic, filter_len) != 0)) {
            return false;
        }
        filter += filter_len;
        topic += topic_len;
        if (*topic == '\0') {
            return *filter == '\0' || strcmp(filter, "/#") == 0;
        }
        if (*filter == '\0') {
            return false;
        }
        filter++;
        topic++;
    }
}

static inline bool reference_match(const char *filter, const char *topic)
{
    if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#')) {
        return false;
    }
    return reference_levels_match(filter, topic);
}

enum { RANDOM_TOPIC_BYTES = 64 };

/*
 * A short name, or a filter when `wild`, of few distinct levels, so that prefixes, matches and
 * collisions abound. Empty levels and '$' levels occur; the whole is never empty.
 */
static inline void random_topic(uint64_t *state, bool wild, char out[RANDOM_TOPIC_BYTES])
{
    static const char *const words[] = {"a", "b", "c", "dd", "", "$s", "longer-level"};
    unsigned levels = 1 + random_below(state, 4);
    size_t len = 0;
    for (unsigned i = 0; i < levels; i++) {
        const char *word = words[random_below(state, 7)];
        if (wild && random_below(state, 4) == 0) {
            word = "+";
        }
        if (wild && i + 1 == levels && random_below(state, 5) == 0) {
            word = "#";
        }
        if (i + 1 == levels && len == 0 && word[0] == '\0') {
            word = "a";
        }
        len +=
            (size_t)snprintf(out + len, RANDOM_TOPIC_BYTES - len, "%s%s", i == 0 ? "" : "/", word);
    }
}

#endif
