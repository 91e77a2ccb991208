#include "acl.h"

#include <stdio.h>

#include "hash.h"
#include "map.h"
#include "mem.h"
#include "topic.h"

enum { NAME_BYTES_MAX = 65535, FILTER_BYTES_MAX = 65535, TEXT_MAX = 160, PERCENT_WORD = 2 };

/* The names in the file are the operator's, so nobody can make them collide. */
static const struct hash_seed seed = {UINT64_C(0x64756e6c696e), 8};

struct rule {
    struct rule *next;
    uint8_t rights; /* of enum acl_right; 0: deny */
    bool names_user;
    bool names_client;
    uint16_t filter_len;
    uint8_t filter[];
};

/* Denials stand before what allows, so that the first match decides. */
struct rules {
    struct rule *first;
    struct rule **deny_end;
    struct rule **end;
};

struct acl_user {
    struct map_node node; /* first */
    struct acl_user *next;
    struct rules rules;
    uint32_t name_len;
    uint8_t name[];
};

struct acl {
    struct shared shared; /* first */
    struct map users;
    struct acl_user *first_user;
    struct rules patterns;
    size_t rule_count;
};

/* The file */

static void free_rules(struct rules *rules)
{
    while (rules->first != NULL) {
        struct rule *rule = rules->first;
        rules->first = rule->next;
        mem_free(rule);
    }
}

static void destroy(struct shared *shared)
{
    struct acl *acl = (struct acl *)(void *)shared;
    while (acl->first_user != NULL) {
        struct acl_user *user = acl->first_user;
        acl->first_user = user->next;
        free_rules(&user->rules);
        mem_free(user);
    }
    free_rules(&acl->patterns);
    map_fini(&acl->users);
    mem_free(acl);
}

void acl_release(struct acl *acl)
{
    if (acl != NULL) {
        shared_release(&acl->shared);
    }
}

static void rules_init(struct rules *rules)
{
    rules->first = NULL;
    rules->deny_end = &rules->first;
    rules->end = &rules->first;
}

static void rules_add(struct rules *rules, struct rule *rule)
{
    struct rule **place = rule->rights == 0 ? rules->deny_end : rules->end;
    rule->next = *place;
    *place = rule;
    if (rules->end == place) {
        rules->end = &rule->next;
    }
    if (rule->rights == 0) {
        rules->deny_end = &rule->next;
    }
}

static bool is_user(const struct map_node *node, const void *key)
{
    const struct acl_user *user = (const struct acl_user *)(const void *)node;
    const struct bytes *name = key;
    return bytes_equal(bytes_of(user->name, user->name_len), *name);
}

const struct acl_user *acl_user_of(const struct acl *acl, struct bytes user)
{
    return (const struct acl_user *)(const void *)map_find(&acl->users, hash_bytes(&seed, user),
                                                           is_user, &user);
}

/* The user of that name, who may have been there already. NULL: no memory. */
static struct acl_user *open_user(struct acl *acl, struct bytes name)
{
    struct acl_user *user =
        (struct acl_user *)(void *)map_find(&acl->users, hash_bytes(&seed, name), is_user, &name);
    if (user != NULL) {
        return user;
    }
    user = mem_alloc(sizeof *user + name.len);
    if (user == NULL) {
        return NULL;
    }
    user->name_len = (uint32_t)name.len;
    bytes_copy(user->name, name);
    rules_init(&user->rules);
    if (map_add(&acl->users, hash_bytes(&seed, name), &user->node) != STATUS_OK) {
        mem_free(user);
        return NULL;
    }
    user->next = acl->first_user;
    acl->first_user = user;
    return user;
}

/* Where the loader stands. */
struct loader {
    struct acl *acl;
    struct acl_user *user; /* whom a `topic` line belongs to */
    struct access_lines lines;
    access_report_fn *report;
    void *ctx;
    enum status status;
};

static void mistake(struct loader *loader, const char *what, struct bytes quoted)
{
    char text[TEXT_MAX];
    struct access_shown shown;
    (void)snprintf(text, sizeof text, what, access_show(&shown, quoted));
    loader->report(loader->ctx, loader->lines.line, text);
    if (loader->status == STATUS_OK) {
        loader->status = STATUS_INVALID;
    }
}

/* The first word; *rest is what follows it. */
static struct bytes word_of(struct bytes text, struct bytes *rest)
{
    size_t len = 0;
    while (len < text.len && !access_is_blank(text.data[len])) {
        len++;
    }
    *rest = access_trim(bytes_from(text, len));
    return bytes_of(text.data, len);
}

/* The rights that a word stands for; -1 when it is no such word. */
static int rights_of(struct bytes word)
{
    static const struct {
        const char *word;
        int rights;
    } table[] = {
        {"read", ACL_READ}, {"write", ACL_WRITE}, {"readwrite", ACL_READ | ACL_WRITE}, {"deny", 0}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (bytes_equal_string(word, table[i].word)) {
            return table[i].rights;
        }
    }
    return -1;
}

static bool has_word(struct bytes filter, char letter)
{
    for (size_t i = 0; i + 1 < filter.len; i++) {
        if (filter.data[i] == '%' && filter.data[i + 1] == (uint8_t)letter) {
            return true;
        }
    }
    return false;
}

/* "[RIGHT] FILTER": a first word that has something behind it is the right. */
static void add_rule(struct loader *loader, bool is_pattern, struct bytes text)
{
    struct bytes filter;
    int rights = ACL_READ | ACL_WRITE;
    struct bytes word = word_of(text, &filter);
    if (filter.len == 0) {
        filter = text;
    } else {
        rights = rights_of(word);
    }
    if (rights < 0) {
        mistake(loader, "\"%s\" is none of read, write, readwrite and deny", word);
        return;
    }
    if (filter.len > FILTER_BYTES_MAX || !utf8_is_valid_string(filter) ||
        !topic_filter_is_valid(filter)) {
        mistake(loader, "\"%s\" is not a topic filter", filter);
        return;
    }
    if (loader->acl->rule_count == ACL_RULES_MAX) {
        mistake(loader, "there are too many rules before \"%s\"", filter);
        return;
    }
    struct rule *rule = mem_alloc(sizeof *rule + filter.len);
    if (rule == NULL) {
        loader->status = STATUS_NO_MEMORY;
        return;
    }
    *rule = (struct rule){.rights = (uint8_t)rights,
                          .names_user = is_pattern && has_word(filter, 'u'),
                          .names_client = is_pattern && has_word(filter, 'c'),
                          .filter_len = (uint16_t)filter.len};
    bytes_copy(rule->filter, filter);
    rules_add(is_pattern ? &loader->acl->patterns : &loader->user->rules, rule);
    loader->acl->rule_count++;
}

static void change_user(struct loader *loader, struct bytes name)
{
    if (name.len > NAME_BYTES_MAX || !utf8_is_valid_string(name)) {
        mistake(loader, "\"%s\" is not a user name", name);
        return;
    }
    struct acl_user *user = open_user(loader->acl, name);
    if (user == NULL) {
        loader->status = STATUS_NO_MEMORY;
    } else {
        loader->user = user;
    }
}

static void take_line(struct loader *loader, struct bytes line)
{
    struct bytes rest;
    struct bytes word = word_of(line, &rest);
    bool is_pattern = bytes_equal_string(word, "pattern");
    bool is_user_line = bytes_equal_string(word, "user");
    if (!is_pattern && !is_user_line && !bytes_equal_string(word, "topic")) {
        mistake(loader, "\"%s\" is none of user, topic and pattern", word);
    } else if (rest.len == 0) {
        mistake(loader, "\"%s\" needs a value", word);
    } else if (is_user_line) {
        change_user(loader, rest);
    } else {
        add_rule(loader, is_pattern, rest);
    }
}

enum status acl_parse(struct bytes text, access_report_fn *report, void *ctx, struct acl **out)
{
    *out = NULL;
    struct acl *acl = mem_zalloc(sizeof *acl);
    if (acl == NULL) {
        return STATUS_NO_MEMORY;
    }
    acl->shared = (struct shared){1, destroy};
    map_init(&acl->users);
    rules_init(&acl->patterns);
    struct loader loader = {
        .acl = acl, .lines = {text, 0}, .report = report, .ctx = ctx, .status = STATUS_OK};
    change_user(&loader, BYTES_EMPTY);
    struct bytes line;
    while (loader.status != STATUS_NO_MEMORY && access_lines_next(&loader.lines, &line)) {
        take_line(&loader, line);
    }
    if (loader.status != STATUS_OK) {
        acl_release(acl);
        return loader.status;
    }
    *out = acl;
    return STATUS_OK;
}

/* Decisions */

/* Puts the client's names in place of %u and %c. Empty when the result is longer than any topic. */
static struct bytes expand(const struct rule *rule, const struct acl_client *client,
                           uint8_t buffer[FILTER_BYTES_MAX])
{
    struct bytes filter = bytes_of(rule->filter, rule->filter_len);
    if (!rule->names_user && !rule->names_client) {
        return filter;
    }
    struct writer writer = writer_of(buffer, FILTER_BYTES_MAX);
    for (size_t i = 0; i < filter.len; i++) {
        uint8_t letter = i + 1 < filter.len && filter.data[i] == '%' ? filter.data[i + 1] : 0;
        if (letter == 'u' || letter == 'c') {
            writer_bytes(&writer, letter == 'u' ? client->user_name : client->client_id);
            i += PERCENT_WORD - 1;
        } else {
            writer_u8(&writer, filter.data[i]);
        }
    }
    return writer_ok(&writer) ? writer_written(&writer) : BYTES_EMPTY;
}

/* What is asked: a topic, or with is_filter a whole filter. */
struct question {
    const struct acl_client *client;
    enum acl_right right;
    bool is_filter;
    struct bytes topic;
};

static bool is_plus(struct bytes level)
{
    return level.len == 1 && level.data[0] == '+';
}

static bool is_hash(struct bytes level)
{
    return level.len == 1 && level.data[0] == '#';
}

static bool is_wildcard(struct bytes level)
{
    return is_plus(level) || is_hash(level);
}

/* '$' topics are hidden from a leading wildcard (4.7.2). */
static bool is_hidden_from(struct bytes level, struct bytes wildcard)
{
    return is_wildcard(wildcard) && level.len != 0 && level.data[0] == '$';
}

/* Is there a topic that both filters match? */
static bool filters_meet(struct bytes a, struct bytes b)
{
    struct topic_levels levels_a = topic_levels_of(a);
    struct topic_levels levels_b = topic_levels_of(b);
    struct bytes level_a = BYTES_EMPTY;
    struct bytes level_b = BYTES_EMPTY;
    for (bool first = true;; first = false) {
        bool more_a = topic_levels_next(&levels_a, &level_a);
        bool more_b = topic_levels_next(&levels_b, &level_b);
        if (!more_a || !more_b) {
            /* "a/#" matches "a" as well (4.7.1.2). */
            return (!more_a || is_hash(level_a)) && (!more_b || is_hash(level_b));
        }
        if (first && (is_hidden_from(level_a, level_b) || is_hidden_from(level_b, level_a))) {
            return false;
        }
        if (is_hash(level_a) || is_hash(level_b)) {
            return true;
        }
        if (!is_plus(level_a) && !is_plus(level_b) && !bytes_equal(level_a, level_b)) {
            return false;
        }
    }
}

/* Does `wide` match every topic that `narrow` matches? May say no where the answer is yes only when
 * "+/#" stands against "#". */
static bool filter_covers(struct bytes wide, struct bytes narrow)
{
    struct topic_levels levels_wide = topic_levels_of(wide);
    struct topic_levels levels_narrow = topic_levels_of(narrow);
    struct bytes level_wide = BYTES_EMPTY;
    struct bytes level_narrow = BYTES_EMPTY;
    for (bool first = true;; first = false) {
        bool more_wide = topic_levels_next(&levels_wide, &level_wide);
        bool more_narrow = topic_levels_next(&levels_narrow, &level_narrow);
        if (!more_wide || !more_narrow) {
            return !more_narrow && (!more_wide || is_hash(level_wide));
        }
        if (first && is_hidden_from(level_narrow, level_wide)) {
            return false;
        }
        if (is_hash(level_wide)) {
            return true;
        }
        if (is_hash(level_narrow) ||
            (!is_plus(level_wide) &&
             (is_plus(level_narrow) || !bytes_equal(level_wide, level_narrow)))) {
            return false;
        }
    }
}

static bool applies(const struct question *question, const struct rule *rule, struct bytes filter)
{
    if (!question->is_filter) {
        return topic_matches(filter, question->topic);
    }
    return rule->rights == 0 ? filter_covers(filter, question->topic)
                             : filters_meet(filter, question->topic);
}

enum answer { OPEN, ALLOWED, DENIED };

static enum answer ask(const struct rules *rules, const struct question *question)
{
    uint8_t buffer[FILTER_BYTES_MAX];
    for (const struct rule *rule = rules->first; rule != NULL; rule = rule->next) {
        if ((rule->rights != 0 && (rule->rights & question->right) == 0) ||
            (rule->names_user && question->client->user_name.len == 0) ||
            (rule->names_client && question->client->client_id.len == 0)) {
            continue;
        }
        /* Whoever is called "$SYS" does not get there by "%u/#". */
        if (question->topic.len != 0 && question->topic.data[0] == '$' && rule->filter[0] != '$') {
            continue;
        }
        struct bytes filter = expand(rule, question->client, buffer);
        if (filter.len != 0 && applies(question, rule, filter)) {
            return rule->rights == 0 ? DENIED : ALLOWED;
        }
    }
    return OPEN;
}

static bool decide(const struct acl *acl, const struct question *question)
{
    const struct acl_client *client = question->client;
    enum answer answer = client->user == NULL ? OPEN : ask(&client->user->rules, question);
    if (answer == OPEN && acl->patterns.first != NULL &&
        !topic_filter_has_wildcard(client->user_name) &&
        !topic_filter_has_wildcard(client->client_id)) {
        answer = ask(&acl->patterns, question);
    }
    return answer == ALLOWED;
}

bool acl_allows(const struct acl *acl, const struct acl_client *client, enum acl_right right,
                struct bytes topic)
{
    return decide(acl, &(struct question){client, right, false, topic});
}

bool acl_allows_filter(const struct acl *acl, const struct acl_client *client, struct bytes filter)
{
    return decide(acl, &(struct question){client, ACL_READ, true, filter});
}
