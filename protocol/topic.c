#include "topic.h"

#include "swar.h"

enum { TOPIC_BYTES_MAX = 65535 }; /* 4.7.3 */

static inline bool has_length_of_topic(struct bytes topic)
{
    return topic.len != 0 && topic.len <= TOPIC_BYTES_MAX;
}

/* 4.8.2 */
static inline bool is_shared(struct bytes filter)
{
    return bytes_start_with(filter, bytes_of("$share/", 7));
}

static inline bool is_wildcard(uint8_t byte)
{
    return byte == '+' || byte == '#';
}

/* Not 0 exactly when one of eight bytes must not be in a topic name. '+' and '#' differ in one bit,
 * so with that bit set they are found in one go. */
static inline uint64_t forbidden_bytes(uint64_t word)
{
    enum { DIFFERENCE = '+' ^ '#' };
    _Static_assert((DIFFERENCE & (DIFFERENCE - 1)) == 0 && ('+' & DIFFERENCE) != 0, "one bit");
    return swar_zero_bytes(word) | swar_equal_bytes(word | SWAR_ONES * DIFFERENCE, '+');
}

/* Runs for every PUBLISH, hence the words. */
bool topic_name_is_valid(struct bytes name)
{
    if (!has_length_of_topic(name)) {
        return false;
    }
    const uint8_t *at = name.data;
    const uint8_t *end = at + name.len;
    for (; end - at >= SWAR_BYTES; at += SWAR_BYTES) {
        if (forbidden_bytes(swar_load(at)) != 0) {
            return false;
        }
    }
    if (name.len >= SWAR_BYTES) { /* the rest, with bytes that were seen already */
        return forbidden_bytes(swar_load(end - SWAR_BYTES)) == 0;
    }
    for (; at < end; at++) {
        if (*at == 0 || is_wildcard(*at)) {
            return false;
        }
    }
    return true;
}

/* A level is a wildcard alone or has none; "#" is the last one (4.7.1). */
static bool level_is_valid(struct bytes level, bool last)
{
    if (level.len == 1 && level.data[0] == '+') {
        return true;
    }
    if (level.len == 1 && level.data[0] == '#') {
        return last;
    }
    for (size_t i = 0; i < level.len; i++) {
        if (level.data[i] == 0 || is_wildcard(level.data[i])) {
            return false;
        }
    }
    return true;
}

bool topic_filter_is_valid(struct bytes filter)
{
    if (!has_length_of_topic(filter) || is_shared(filter)) {
        return false;
    }
    struct topic_levels levels = topic_levels_of(filter);
    struct bytes level;
    while (topic_levels_next(&levels, &level)) {
        if (!level_is_valid(level, levels.done)) {
            return false;
        }
    }
    return true;
}

size_t topic_level_count(struct bytes topic)
{
    size_t count = 1;
    for (size_t i = 0; i < topic.len; i++) {
        count += topic.data[i] == '/';
    }
    return count;
}

bool topic_filter_has_wildcard(struct bytes filter)
{
    for (size_t i = 0; i < filter.len; i++) {
        if (is_wildcard(filter.data[i])) {
            return true;
        }
    }
    return false;
}

bool topic_matches(struct bytes filter, struct bytes name)
{
    if (name.len != 0 && name.data[0] == '$' && filter.len != 0 && is_wildcard(filter.data[0])) {
        return false;
    }
    struct topic_levels wanted = topic_levels_of(filter);
    struct topic_levels given = topic_levels_of(name);
    struct bytes want;
    struct bytes give;
    while (topic_levels_next(&wanted, &want)) {
        if (bytes_equal_string(want, "#")) {
            /* "a/#" matches "a" as well (4.7.1.2), so the name need not have a level here. */
            return true;
        }
        if (!topic_levels_next(&given, &give)) {
            return false;
        }
        if (!bytes_equal_string(want, "+") && !bytes_equal(want, give)) {
            return false;
        }
    }
    return given.done;
}

bool topic_filter_split_shared(struct bytes filter, struct bytes *group, struct bytes *rest,
                               bool *valid)
{
    if (!is_shared(filter)) {
        return false;
    }
    struct topic_levels levels = topic_levels_of(filter);
    struct bytes share;
    (void)topic_levels_next(&levels, &share);
    (void)topic_levels_next(&levels, group);
    *rest = levels.done ? BYTES_EMPTY : levels.rest;
    *valid = filter.len <= TOPIC_BYTES_MAX && group->len != 0 &&
             !topic_filter_has_wildcard(*group) && memchr(group->data, 0, group->len) == NULL &&
             topic_filter_is_valid(*rest);
    return true;
}
