/* ACL files: what mosquitto 2 decides, mistakes with their lines, and random files against a slow
 * reference that substitutes and compares strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "access.h"
#include "mem.h"
#include "topic.h"

struct reports {
    unsigned count;
    unsigned line;
    char text[256];
};

static void on_mistake(void *ctx, unsigned line, const char *text)
{
    struct reports *reports = ctx;
    reports->count++;
    reports->line = line;
    (void)snprintf(reports->text, sizeof reports->text, "%s", text);
}

static struct acl *parse(const char *text)
{
    struct reports reports = {0};
    struct acl *acl = NULL;
    enum status status = acl_parse(bytes_of_string(text), on_mistake, &reports, &acl);
    if (status != STATUS_OK) {
        fail_msg("%s\n%s", text, reports.text);
    }
    return acl;
}

/* Lengthens the string in `out`, an array of `size` bytes. */
static void append(char *out, size_t size, const char *text)
{
    size_t used = strlen(out);
    size_t len = strlen(text);
    assert_true(used + len < size);
    memcpy(out + used, text, len + 1);
}

/* "r", "w", "rw" or "" */
static void expect(const struct acl *acl, const char *user, const char *client_id,
                   const char *topic, const char *rights)
{
    struct bytes name = bytes_of_string(user);
    struct acl_client client = {acl_user_of(acl, name), name, bytes_of_string(client_id)};
    struct bytes asked = bytes_of_string(topic);
    char got[3] = "";
    if (acl_allows(acl, &client, ACL_READ, asked)) {
        append(got, sizeof got, "r");
    }
    if (acl_allows(acl, &client, ACL_WRITE, asked)) {
        append(got, sizeof got, "w");
    }
    if (strcmp(got, rights) != 0) {
        fail_msg("%s at %s: \"%s\" instead of \"%s\"", user, topic, got, rights);
    }
}

static void as_mosquitto_decides(void **state)
{
    (void)state;
    struct acl *acl = parse("# comment\n"
                            "topic read anon/r\n"
                            "  topic write anon/w \r\n"
                            "topic anon/rw\n"
                            "user ann\n"
                            "topic read a/#\n"
                            "topic deny a/secret\n"
                            "topic write w/+\n"
                            "topic readwrite rw/one two\n"
                            "pattern read p/%u/#\n"
                            "pattern deny p/%u/deny\n"
                            "pattern write c/%c\n"
                            "topic a/secret\n"
                            "topic p/ann/deny\n"
                            "topic read\n"
                            "user bob\n"
                            "topic #\n"
                            "user ann\n"
                            "topic late\n"
                            "pattern x-%c-%u/y\n");
    expect(acl, "", "id", "anon/r", "r");
    expect(acl, "", "id", "anon/w", "w");
    expect(acl, "", "id", "anon/rw", "rw");
    expect(acl, "", "id", "c/id", "w");
    expect(acl, "", "id", "p//x", ""); /* %u is nothing for the anonymous */
    expect(acl, "ann", "id", "anon/rw", "");
    expect(acl, "ann", "id", "a/b", "r");
    expect(acl, "ann", "id", "a", "r");
    expect(acl, "ann", "id", "a/secret", ""); /* deny beats allow, whichever comes first */
    expect(acl, "ann", "id", "w/x", "w");
    expect(acl, "ann", "id", "w/x/y", "");
    expect(acl, "ann", "id", "rw/one two", "rw");
    expect(acl, "ann", "id", "p/ann/x", "r");
    expect(acl, "ann", "id", "p/ann/deny", "rw"); /* her own topics come first */
    expect(acl, "ann", "id", "p/bob/x", "");
    expect(acl, "ann", "id", "read", "rw"); /* a single word is a topic */
    expect(acl, "ann", "id", "late", "rw");
    expect(acl, "ann", "id", "x-id-ann/y", "rw");
    expect(acl, "ann", "other", "x-id-ann/y", "");
    expect(acl, "bob", "id", "anything/at/all", "rw");
    expect(acl, "bob", "id", "$SYS/broker", "");
    expect(acl, "carl", "id", "p/carl/x", "r");
    expect(acl, "carl", "id", "p/carl/deny", "");
    expect(acl, "carl", "id", "late", "");
    acl_release(acl);
}

static void names_cannot_widen_a_pattern(void **state)
{
    (void)state;
    struct acl *acl = parse("pattern u/%u/x\npattern %u/#\npattern c/%c\n");
    expect(acl, "+", "id", "u/ann/x", "");
    expect(acl, "#", "id", "u/ann/x", "");
    expect(acl, "ann", "+", "c/id", "");
    expect(acl, "ann", "+", "u/ann/x", ""); /* not even without %c, as with mosquitto */
    expect(acl, "$SYS", "id", "$SYS/broker/version", "");
    expect(acl, "%c", "id", "u/%c/x", "rw"); /* what was put in is not looked at again */
    expect(acl, "%c", "id", "u/id/x", "");
    char name[40001];
    memset(name, 'n', 40000);
    name[40000] = '\0';
    expect(acl, name, "id", "u/n/x", ""); /* longer than a topic */
    acl_release(acl);
}

static void an_empty_file_allows_nothing(void **state)
{
    (void)state;
    struct acl *acl = parse("");
    expect(acl, "ann", "id", "a", "");
    expect(acl, "", "id", "a", "");
    acl_release(acl);
}

static void mistakes_have_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *says;
    } wrong[] = {
        {"foo bar", "\"foo\" is none of user, topic and pattern"},
        {"topic", "needs a value"},
        {"user", "needs a value"},
        {"pattern", "needs a value"},
        {"topic may a/b", "\"may\" is none of read"},
        {"topic read a/#/b", "not a topic filter"},
        {"topic x # comment", "\"x\" is none of read"},
        {"pattern read a%u+/x", "not a topic filter"},
        {"topic read $share/g/x", "not a topic filter"},
        {"topic read \xff", "not a topic filter"},
        {"user \xff", "not a user name"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[256];
        struct reports reports = {0};
        struct acl *acl = NULL;
        (void)snprintf(text, sizeof text, "\n# x\ntopic a\n%s\ntopic b", wrong[i].line);
        assert_int_equal(acl_parse(bytes_of_string(text), on_mistake, &reports, &acl),
                         STATUS_INVALID);
        assert_null(acl);
        assert_int_equal(reports.count, 1);
        assert_int_equal(reports.line, 4);
        if (strstr(reports.text, wrong[i].says) == NULL) {
            fail_msg("%s: %s", wrong[i].line, reports.text);
        }
    }
}

static void lack_of_memory(void **state)
{
    (void)state;
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status == STATUS_NO_MEMORY; n++) {
        struct reports reports = {0};
        struct acl *acl = NULL;
        mem_fail_at(n);
        status = acl_parse(bytes_of_string("topic a\nuser b\ntopic deny c\npattern d"), on_mistake,
                           &reports, &acl);
        mem_fail_at(0);
        assert_true((status == STATUS_OK) == (acl != NULL));
        acl_release(acl);
        assert_true(n < 100);
    }
    assert_int_equal(status, STATUS_OK);
}

/* A small random file beside a list of what is in it. */
enum { RULES = 6, TOPIC_MAX = 64, FILTER_MAX = 4 * TOPIC_MAX, ROUNDS = 3000 };

struct reference_rule {
    bool is_pattern;
    unsigned user; /* index into users */
    unsigned rights;
    char filter[TOPIC_MAX];
};

static const char *const users[] = {"", "ann", "a/b", "+"};
static const char *const client_ids[] = {"id", "x/y"};
static const char *const words[] = {"deny", "read", "write", "readwrite"};
static const char *const topic_levels[] = {"a", "b", "ann", "id", "$s", ""};
static const char *const filter_levels[] = {"a", "b", "+", "#", "$s", "%u", "%c", ""};
static uint64_t random_state;

static unsigned pick(unsigned count)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return (unsigned)(random_state >> 33) % count;
}

static void random_filter(char out[TOPIC_MAX], bool with_names)
{
    do {
        out[0] = '\0';
        for (unsigned i = 0, levels = 1 + pick(3); i < levels; i++) {
            const char *level;
            do {
                level = filter_levels[pick(8)];
            } while (!with_names && level[0] == '%');
            append(out, TOPIC_MAX, i == 0 ? "" : "/");
            append(out, TOPIC_MAX, level);
        }
    } while (!topic_filter_is_valid(bytes_of_string(out)));
}

static void substitute(const char *filter, const char *user, const char *client_id,
                       char out[FILTER_MAX])
{
    out[0] = '\0';
    for (const char *at = filter; *at != '\0'; at++) {
        if (at[0] == '%') {
            append(out, FILTER_MAX, at[1] == 'u' ? user : client_id);
            at++;
        } else {
            append(out, FILTER_MAX, (const char[]){*at, '\0'});
        }
    }
}

static bool rule_matches(const struct reference_rule *rule, const char *user, const char *client_id,
                         const char *topic)
{
    char filter[FILTER_MAX];
    if ((!rule->is_pattern && strcmp(users[rule->user], user) != 0) ||
        (rule->is_pattern && user[0] == '\0' && strstr(rule->filter, "%u") != NULL) ||
        (topic[0] == '$' && rule->filter[0] != '$')) {
        return false;
    }
    substitute(rule->filter, user, client_id, filter);
    return topic_matches(bytes_of_string(filter), bytes_of_string(topic));
}

/* Goes through the topics or the patterns: those that give `right`, or with 0 those that deny. */
static bool some_rule_matches(const struct reference_rule *rules, bool patterns, unsigned right,
                              const char *user, const char *client_id, const char *topic)
{
    for (unsigned i = 0; i < RULES; i++) {
        const struct reference_rule *rule = &rules[i];
        bool is_meant = right == 0 ? rule->rights == 0 : (rule->rights & right) != 0;
        if (is_meant && rule->is_pattern == patterns &&
            rule_matches(rule, user, client_id, topic)) {
            return true;
        }
    }
    return false;
}

/* mosquitto's procedure, spelled out. */
static bool reference(const struct reference_rule *rules, const char *user, const char *client_id,
                      unsigned right, const char *topic, bool with_denials)
{
    for (unsigned patterns = 0; patterns < 2; patterns++) {
        if (patterns == 1 && (strpbrk(user, "+#") != NULL || strpbrk(client_id, "+#") != NULL)) {
            return false;
        }
        if (with_denials && some_rule_matches(rules, patterns == 1, 0, user, client_id, topic)) {
            return false;
        }
        if (some_rule_matches(rules, patterns == 1, right, user, client_id, topic)) {
            return true;
        }
    }
    return false;
}

static struct acl *random_file(struct reference_rule *rules)
{
    char text[RULES * 2 * TOPIC_MAX] = "";
    for (unsigned i = 0; i < RULES; i++) {
        struct reference_rule *rule = &rules[i];
        rule->is_pattern = pick(2) == 0;
        rule->user = i == 0 ? 0 : pick(3) == 0 ? 1 + pick(3) : rules[i - 1].user;
        rule->rights = pick(4);
        random_filter(rule->filter, rule->is_pattern);
        if (i != 0 && rule->user != rules[i - 1].user) {
            append(text, sizeof text, "user ");
            append(text, sizeof text, users[rule->user]);
            append(text, sizeof text, "\n");
        }
        append(text, sizeof text, rule->is_pattern ? "pattern " : "topic ");
        append(text, sizeof text, words[rule->rights]);
        append(text, sizeof text, " ");
        append(text, sizeof text, rule->filter);
        append(text, sizeof text, "\n");
    }
    return parse(text);
}

/* Goes through all topics of up to three levels, the empty one, which no client can name, included:
 * filters may meet there. False at the end. */
static bool next_topic(unsigned *n, char out[TOPIC_MAX])
{
    enum { WORDS = 6 };
    unsigned rest = (*n)++;
    out[0] = '\0';
    for (unsigned levels = 1, count = WORDS; levels <= 3; levels++, count *= WORDS) {
        if (rest < count) {
            for (unsigned i = 0; i < levels; i++, rest /= WORDS) {
                append(out, TOPIC_MAX, i == 0 ? "" : "/");
                append(out, TOPIC_MAX, topic_levels[rest % WORDS]);
            }
            return true;
        }
        rest -= count;
    }
    return false;
}

static void compare(const struct acl *acl, const struct reference_rule *rules, const char *user,
                    const char *client_id)
{
    struct bytes name = bytes_of_string(user);
    struct acl_client client = {acl_user_of(acl, name), name, bytes_of_string(client_id)};
    char filter[TOPIC_MAX];
    char topic[TOPIC_MAX];
    bool readable = false; /* some topic that filter matches */
    bool granted = false;  /* the same, were nothing denied */
    random_filter(filter, false);
    for (unsigned n = 0; next_topic(&n, topic);) {
        struct bytes asked = bytes_of_string(topic);
        bool may_read = reference(rules, user, client_id, ACL_READ, topic, true);
        assert_int_equal(acl_allows(acl, &client, ACL_READ, asked), may_read);
        assert_int_equal(acl_allows(acl, &client, ACL_WRITE, asked),
                         reference(rules, user, client_id, ACL_WRITE, topic, true));
        if (topic_matches(bytes_of_string(filter), asked)) {
            readable |= may_read;
            granted |= reference(rules, user, client_id, ACL_READ, topic, false);
        }
    }
    bool may_subscribe = acl_allows_filter(acl, &client, bytes_of_string(filter));
    /* Long filters with long names match topics only that are longer than those tried. */
    bool all_were_tried = strchr(user, '/') == NULL && strchr(client_id, '/') == NULL;
    if ((readable && !may_subscribe) || (may_subscribe && !granted && all_were_tried)) {
        fail_msg("%s as \"%s\": %d, readable %d, granted %d", filter, user, may_subscribe, readable,
                 granted);
    }
}

static void random_files(void **state)
{
    (void)state;
    random_state = 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct reference_rule rules[RULES];
        struct acl *acl = random_file(rules);
        compare(acl, rules, users[pick(4)], client_ids[pick(2)]);
        acl_release(acl);
    }
}

static void rights_follow_the_file(void **state)
{
    (void)state;
    struct access *access = NULL;
    struct access_rights *rights = NULL;
    struct acl *one = parse("user ann\ntopic read a\n");
    struct acl *two = parse("user ann\ntopic write b\npattern read own/%c/#\n");
    struct bytes a = bytes_of_string("a");
    struct bytes b = bytes_of_string("b");
    assert_int_equal(access_create(&access), STATUS_OK);
    assert_false(access_has_acl(access));
    access_set_files(access, NULL, one);
    assert_true(access_has_acl(access));
    assert_int_equal(
        access_rights_create(access, bytes_of_string("ann"), bytes_of_string("id"), &rights),
        STATUS_OK);
    assert_true(access_may_read(rights, a) && !access_may_write(rights, a));
    assert_true(access_may_subscribe(rights, bytes_of_string("#")));
    assert_true(access_may_subscribe(rights, bytes_of_string("$share/g/+")));
    assert_false(access_may_subscribe(rights, bytes_of_string("$share/g/b")));
    access_set_files(access, NULL, two);
    assert_true(!access_may_read(rights, a) && access_may_write(rights, b));
    assert_true(access_may_subscribe(rights, bytes_of_string("own/id/x")));
    assert_false(access_may_subscribe(rights, bytes_of_string("own/other/#")));
    access_set_files(access, NULL, NULL);
    assert_true(access_may_read(rights, a) && access_may_subscribe(rights, bytes_of_string("x")));
    access_release(access);
    access_rights_release(rights);
    acl_release(one);
    acl_release(two);
    assert_true(access_may_read(NULL, a) && access_may_write(NULL, a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_mosquitto_decides),
        cmocka_unit_test(names_cannot_widen_a_pattern),
        cmocka_unit_test(an_empty_file_allows_nothing),
        cmocka_unit_test(mistakes_have_lines),
        cmocka_unit_test(lack_of_memory),
        cmocka_unit_test(random_files),
        cmocka_unit_test(rights_follow_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
