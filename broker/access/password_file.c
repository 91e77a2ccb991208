#include "password_file.h"

#include <stdio.h>

#include "hash.h"
#include "map.h"
#include "mem.h"
#include "utf8.h"

enum { USER_BYTES_MAX = 65535, TEXT_MAX = 160 };

/* The names in the file are the operator's, so nobody can make them collide. */
static const struct hash_seed seed = {UINT64_C(0x64756e6c696e), 7};

struct entry {
    struct map_node node; /* first */
    uint64_t mark;
    struct password_hash hash;
    uint32_t user_len;
    uint8_t user[];
};

struct passwords {
    struct shared shared; /* first */
    struct map map;
    struct entry **entries; /* in the order of the file */
    size_t count;
    size_t capacity;
};

static void destroy(struct shared *shared)
{
    struct passwords *passwords = (struct passwords *)(void *)shared;
    for (size_t i = 0; i < passwords->count; i++) {
        mem_free(passwords->entries[i]);
    }
    mem_free(passwords->entries);
    map_fini(&passwords->map);
    mem_free(passwords);
}

void passwords_release(struct passwords *passwords)
{
    if (passwords != NULL) {
        shared_release(&passwords->shared);
    }
}

static bool is_user(const struct map_node *node, const void *key)
{
    const struct entry *entry = (const struct entry *)(const void *)node;
    const struct bytes *user = key;
    return bytes_equal(bytes_of(entry->user, entry->user_len), *user);
}

static const struct entry *find(const struct passwords *passwords, struct bytes user)
{
    return (const struct entry *)(const void *)map_find(&passwords->map, hash_bytes(&seed, user),
                                                        is_user, &user);
}

static enum status reserve(struct passwords *passwords)
{
    if (passwords->count < passwords->capacity) {
        return STATUS_OK;
    }
    size_t capacity = passwords->capacity == 0 ? 16 : passwords->capacity * 2;
    struct entry **grown = mem_realloc(passwords->entries, capacity * sizeof(struct entry *));
    if (grown == NULL) {
        return STATUS_NO_MEMORY;
    }
    passwords->entries = grown;
    passwords->capacity = capacity;
    return STATUS_OK;
}

static enum status add(struct passwords *passwords, struct bytes user, struct bytes text,
                       const struct password_hash *hash)
{
    struct entry *entry = NULL;
    if (reserve(passwords) == STATUS_OK) {
        entry = mem_alloc(sizeof *entry + user.len);
    }
    if (entry == NULL) {
        return STATUS_NO_MEMORY;
    }
    entry->mark = hash_bytes(&seed, text) | 1;
    entry->hash = *hash;
    entry->user_len = (uint32_t)user.len;
    bytes_copy(entry->user, user);
    if (map_add(&passwords->map, hash_bytes(&seed, user), &entry->node) != STATUS_OK) {
        mem_free(entry);
        return STATUS_NO_MEMORY;
    }
    passwords->entries[passwords->count++] = entry;
    return STATUS_OK;
}

/* NULL: `user` and `hash` may be added. */
static const char *check_line(const struct passwords *passwords, struct bytes line,
                              struct bytes *user, struct password_hash *hash)
{
    const char *problem;
    const uint8_t *colon = memchr(line.data, ':', line.len);
    if (colon == NULL) {
        return "it has no colon behind the user name";
    }
    *user = bytes_of(line.data, (size_t)(colon - line.data));
    if (user->len == 0 || user->len > USER_BYTES_MAX || !utf8_is_valid_string(*user)) {
        return "its user name is empty, too long or not UTF-8";
    }
    if (!password_hash_parse(bytes_from(line, user->len + 1), hash, &problem)) {
        return problem;
    }
    if (find(passwords, *user) != NULL) {
        return "this user has an entry already";
    }
    return passwords->count < PASSWORD_USERS_MAX ? NULL : "there are too many users";
}

enum status passwords_parse(struct bytes text, access_report_fn *report, void *ctx,
                            struct passwords **out)
{
    *out = NULL;
    struct passwords *passwords = mem_zalloc(sizeof *passwords);
    if (passwords == NULL) {
        return STATUS_NO_MEMORY;
    }
    passwords->shared = (struct shared){1, destroy};
    map_init(&passwords->map);
    enum status status = STATUS_OK;
    struct access_lines lines = {text, 0};
    struct bytes line;
    while (status != STATUS_NO_MEMORY && access_lines_next(&lines, &line)) {
        struct bytes user = BYTES_EMPTY;
        struct password_hash hash;
        const char *problem = check_line(passwords, line, &user, &hash);
        if (problem == NULL) {
            enum status added = add(passwords, user, bytes_from(line, user.len + 1), &hash);
            status = added == STATUS_OK ? status : added;
        } else {
            char shown[TEXT_MAX];
            struct access_shown name;
            (void)snprintf(shown, sizeof shown, "bad entry for user \"%s\": %s",
                           access_show(&name, user), problem);
            report(ctx, lines.line, shown);
            status = STATUS_INVALID;
        }
    }
    if (status != STATUS_OK) {
        passwords_release(passwords);
        return status;
    }
    *out = passwords;
    return STATUS_OK;
}

const struct password_hash *passwords_find(const struct passwords *passwords, struct bytes user,
                                           uint64_t *mark)
{
    const struct entry *entry = find(passwords, user);
    *mark = entry == NULL ? 0 : entry->mark;
    return entry == NULL ? NULL : &entry->hash;
}

const struct password_hash *passwords_decoy(const struct passwords *passwords, struct bytes user)
{
    return passwords->count == 0
               ? NULL
               : &passwords->entries[hash_bytes(&seed, user) % passwords->count]->hash;
}
