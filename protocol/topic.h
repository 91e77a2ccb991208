/*
 * topic: topic names and topic filters as MQTT defines them (4.7, 4.8.2).
 *
 *   Cost   One pass over the bytes; no allocation.
 */
#ifndef PROTOCOL_TOPIC_H
#define PROTOCOL_TOPIC_H

#include <stdbool.h>

#include "bytes.h"
#include "utf8.h"

enum { TOPIC_LEVELS_MAX = 128 };

/* 4.7.1: at least one character, no wildcard, no NUL, at most 65535 bytes. UTF-8 itself was checked
 * by the decode. */
bool topic_name_is_valid(struct bytes name);

/* 4.7.1: `#` only as the whole last level, `+` only as a whole level; at least one character; not
 * "$share/...". */
bool topic_filter_is_valid(struct bytes filter);

/* Levels of a name or filter: separators + 1. */
size_t topic_level_count(struct bytes topic);

/* True when the filter has a wildcard. */
bool topic_filter_has_wildcard(struct bytes filter);

/* 4.7: does `filter` match `name`? Both valid. '$' names are hidden from a leading wildcard
 * (4.7.2). The reference for tests; routing uses the trie. */
bool topic_matches(struct bytes filter, struct bytes name);

/*
 * 4.8.2: splits "$share/<group>/<filter>". Returns true and fills both when `filter` begins with
 * "$share/"; the parts are only usable when *valid: group at least one character without "+", "#",
 * "/", filter valid and not empty.
 */
bool topic_filter_split_shared(struct bytes filter, struct bytes *group, struct bytes *rest,
                               bool *valid);

/* Iterates levels: call with *rest = topic, until it returns false. Empty levels are levels. */
struct topic_levels {
    struct bytes rest;
    bool done;
};
static inline struct topic_levels topic_levels_of(struct bytes topic)
{
    return (struct topic_levels){topic, false};
}
static inline bool topic_levels_next(struct topic_levels *levels, struct bytes *level)
{
    if (levels->done) {
        return false;
    }
    const uint8_t *slash =
        levels->rest.len == 0 ? NULL : memchr(levels->rest.data, '/', levels->rest.len);
    if (slash == NULL) {
        *level = levels->rest;
        levels->done = true;
    } else {
        *level = bytes_of(levels->rest.data, (size_t)(slash - levels->rest.data));
        levels->rest = bytes_from(levels->rest, level->len + 1);
    }
    return true;
}

#endif
