#include "protocol_support.h"

#include "topic.h"

static struct bytes text(const char *string)
{
    return bytes_of_string(string);
}

static void names(void **state)
{
    (void)state;
    static const char *const good[] = {"a",         "/",   "//",     "a/b",    "/finance",
                                       "finance/",  "a b", "$SYS/x", "$share", "\xE4\xBD\xA0/x",
                                       "$share/g/t"};
    static const char *const bad[] = {
        "", "+", "#", "a/+", "a/#", "a+", "abcdefgh/ijklmnop#", "0123456+", "01234567+"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(topic_name_is_valid(text(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(topic_name_is_valid(text(bad[i])));
    }
    /* A forbidden character at each position of a word and of the bytes behind it. */
    for (size_t at = 0; at < 20; at++) {
        uint8_t name[20];
        memset(name, '"', sizeof name); /* '"' and '$' are the neighbours of '#' */
        name[at] = '$';
        assert_true(topic_name_is_valid(bytes_of(name, sizeof name)));
        for (const char *wrong = "+#"; *wrong != '\0'; wrong++) {
            name[at] = (uint8_t)*wrong;
            assert_false(topic_name_is_valid(bytes_of(name, sizeof name)));
        }
        name[at] = 0;
        assert_false(topic_name_is_valid(bytes_of(name, sizeof name)));
    }
}

static void filters(void **state)
{
    (void)state;
    static const char *const good[] = {
        "a",    "/",  "#",   "+",      "a/#",    "a/+",   "+/a",       "+/+/#",
        "/+",   "+/", "//#", "$SYS/#", "$share", "a/+/b", "$sharex/g", "sport/tennis/#",
        "a b/+"};
    static const char *const bad[] = {"",
                                      "a#",
                                      "#a",
                                      "a/#/b",
                                      "#/",
                                      "+a",
                                      "a+",
                                      "a/b+",
                                      "a/+b/c",
                                      "##",
                                      "++",
                                      "sport/tennis#",
                                      "sport/tennis/#/ranking",
                                      "sport+",
                                      "$share/g/t",
                                      "$share/"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!topic_filter_is_valid(text(good[i]))) {
            fail_msg("%s", good[i]);
        }
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (topic_filter_is_valid(text(bad[i]))) {
            fail_msg("%s", bad[i]);
        }
    }
    assert_false(topic_filter_is_valid(bytes_of("a\0b", 3)));
}

static void length_limit(void **state)
{
    (void)state;
    uint8_t *long_topic = malloc(65536);
    memset(long_topic, 'a', 65536);
    assert_true(topic_name_is_valid(bytes_of(long_topic, 65535)));
    assert_true(topic_filter_is_valid(bytes_of(long_topic, 65535)));
    assert_false(topic_name_is_valid(bytes_of(long_topic, 65536)));
    assert_false(topic_filter_is_valid(bytes_of(long_topic, 65536)));
    free(long_topic);
}

static void levels(void **state)
{
    (void)state;
    assert_int_equal(topic_level_count(text("a")), 1);
    assert_int_equal(topic_level_count(text("/")), 2);
    assert_int_equal(topic_level_count(text("a/b/c")), 3);
    assert_int_equal(topic_level_count(text("a//")), 3);
    assert_true(topic_filter_has_wildcard(text("a/+")));
    assert_true(topic_filter_has_wildcard(text("#")));
    assert_false(topic_filter_has_wildcard(text("a/b")));
    assert_false(topic_filter_has_wildcard(BYTES_EMPTY));

    static const char *const wanted[] = {"", "a", "", "bc", ""};
    struct topic_levels iterator = topic_levels_of(text("/a//bc/"));
    struct bytes level = BYTES_EMPTY;
    for (size_t i = 0; i < 5; i++) {
        assert_true(topic_levels_next(&iterator, &level));
        assert_bytes(level, wanted[i]);
    }
    assert_false(topic_levels_next(&iterator, &level));
}

static void matching(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *name;
        bool matches;
    } cases[] = {
        {"sport/tennis/player1/#", "sport/tennis/player1", true}, /* 4.7.1.2 */
        {"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
        {"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
        {"sport/tennis/player1/#", "sport/tennis/player10", false},
        {"sport/#", "sport", true},
        {"#", "a", true},
        {"#", "/", true},
        {"#", "a/b/c", true},
        {"sport/tennis/+", "sport/tennis/player1", true}, /* 4.7.1.3 */
        {"sport/tennis/+", "sport/tennis/player2", true},
        {"sport/tennis/+", "sport/tennis/player1/ranking", false},
        {"sport/+", "sport", false},
        {"sport/+", "sport/", true},
        {"+", "finance", true},
        {"+", "/finance", false},
        {"/+", "/finance", true},
        {"+/+", "/finance", true},
        {"+/tennis/#", "sport/tennis", true},
        {"+/tennis/#", "sport/tennis/a/b", true},
        {"+/monitor/Clients", "$SYS/monitor/Clients", false}, /* 4.7.2 */
        {"#", "$SYS", false},
        {"+", "$SYS", false},
        {"$SYS/#", "$SYS", true},
        {"$SYS/#", "$SYS/a", true},
        {"$SYS/monitor/+", "$SYS/monitor/Clients", true},
        {"a/+", "a/$b", true}, /* '$' counts at the beginning only */
        {"a", "A", false},     /* 4.7.3: case, and no normalisation of slashes */
        {"a", "/a", false},
        {"a/", "a", false},
        {"a", "a/", false},
        {"a/b", "a/b", true},
        {"a/b", "a/bc", false},
        {"a/bc", "a/b", false},
        {"a//b", "a//b", true},
        {"a/+/b", "a//b", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (topic_matches(text(cases[i].filter), text(cases[i].name)) != cases[i].matches) {
            fail_msg("%s, %s", cases[i].filter, cases[i].name);
        }
    }
}

static void shared_filters(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *group, *rest;
        bool valid;
    } cases[] = {
        {"$share/g/a", "g", "a", true},
        {"$share/g/a/+/#", "g", "a/+/#", true},
        {"$share/g//", "g", "/", true},
        {"$share/g/$SYS/x", "g", "$SYS/x", true},
        {"$share//a", "", "a", false},
        {"$share/g", "g", "", false},
        {"$share/g/", "g", "", false},
        {"$share/", "", "", false},
        {"$share/g+/a", "g+", "a", false},
        {"$share/#/a", "#", "a", false},
        {"$share/g/a#", "g", "a#", false},
        {"$share/g/a/#/b", "g", "a/#/b", false},
        {"$share/g/$share/h/a", "g", "$share/h/a", false},
    };
    struct bytes group;
    struct bytes rest;
    bool valid;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(topic_filter_split_shared(text(cases[i].filter), &group, &rest, &valid));
        assert_bytes(group, cases[i].group);
        assert_bytes(rest, cases[i].rest);
        assert_int_equal(valid, cases[i].valid);
    }
    static const char *const plain[] = {"a",          "$share",      "$shared/g/a",
                                        "$SHARE/g/a", "/$share/g/a", ""};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        assert_false(topic_filter_split_shared(text(plain[i]), &group, &rest, &valid));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),  cmocka_unit_test(filters),  cmocka_unit_test(length_limit),
        cmocka_unit_test(levels), cmocka_unit_test(matching), cmocka_unit_test(shared_filters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
