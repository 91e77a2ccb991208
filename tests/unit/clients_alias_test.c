/* clients/mqtt_alias: topic aliases in both directions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "mqtt_alias.h"

static void names_are_set_and_replaced(void **state)
{
    (void)state;
    struct alias_names *names = NULL;
    assert_int_equal(alias_names_create(3, &names), STATUS_OK);
    for (uint16_t alias = 1; alias <= 3; alias++) {
        assert_int_equal(alias_names_get(names, alias).len, 0);
    }
    char topic[] = "topic";
    assert_int_equal(alias_names_set(names, 3, bytes_of_string(topic)), STATUS_OK);
    memset(topic, 'x', sizeof topic - 1); /* it was copied */
    assert_true(bytes_equal_string(alias_names_get(names, 3), "topic"));
    assert_int_equal(alias_names_get(names, 1).len, 0);
    assert_int_equal(alias_names_set(names, 3, bytes_of_string("longer topic")), STATUS_OK);
    assert_true(bytes_equal_string(alias_names_get(names, 3), "longer topic"));
    alias_names_destroy(names);
    alias_names_destroy(NULL);
}

static void name_stays_without_memory(void **state)
{
    (void)state;
    struct alias_names *names = NULL;
    mem_fail_at(1);
    assert_int_equal(alias_names_create(3, &names), STATUS_NO_MEMORY);
    assert_null(names);
    assert_int_equal(alias_names_create(1, &names), STATUS_OK);
    assert_int_equal(alias_names_set(names, 1, bytes_of_string("one")), STATUS_OK);
    mem_fail_at(1);
    assert_int_equal(alias_names_set(names, 1, bytes_of_string("two")), STATUS_NO_MEMORY);
    mem_fail_at(1); /* the same topic again needs none */
    assert_int_equal(alias_names_set(names, 1, bytes_of_string("one")), STATUS_OK);
    mem_fail_at(0);
    assert_true(bytes_equal_string(alias_names_get(names, 1), "one"));
    alias_names_destroy(names);
}

static uint16_t choose(struct alias_choices *choices, const char *topic, bool *is_known)
{
    return alias_choices_of(choices, bytes_of_string(topic), is_known);
}

static void first_topics_get_the_aliases(void **state)
{
    (void)state;
    struct alias_choices *choices = NULL;
    bool is_known = true;
    assert_int_equal(alias_choices_create(2, &choices), STATUS_OK);
    assert_int_equal(choose(choices, "a", &is_known), 1);
    assert_false(is_known);
    assert_int_equal(choose(choices, "b", &is_known), 2);
    assert_false(is_known);
    assert_int_equal(choose(choices, "c", &is_known), 0);
    assert_false(is_known);
    assert_int_equal(choose(choices, "a", &is_known), 1);
    assert_true(is_known);
    alias_choices_undo(choices); /* "b" was not sent */
    assert_int_equal(choose(choices, "c", &is_known), 2);
    assert_false(is_known);
    assert_int_equal(choose(choices, "b", &is_known), 0);
    alias_choices_destroy(choices);
    alias_choices_destroy(NULL);
}

static void choices_have_a_limit_of_their_own(void **state)
{
    (void)state;
    struct alias_choices *choices = NULL;
    bool is_known = false;
    assert_int_equal(alias_choices_create(UINT16_MAX, &choices), STATUS_OK);
    for (int i = 1; i <= ALIAS_CHOICES_MAX + 5; i++) {
        char topic[32];
        (void)snprintf(topic, sizeof topic, "topic/%d", i);
        assert_int_equal(choose(choices, topic, &is_known), i <= ALIAS_CHOICES_MAX ? i : 0);
    }
    alias_choices_destroy(choices);
}

static void no_alias_without_memory(void **state)
{
    (void)state;
    struct alias_choices *choices = NULL;
    bool is_known = true;
    assert_int_equal(alias_choices_create(2, &choices), STATUS_OK);
    mem_fail_at(1);
    assert_int_equal(choose(choices, "a", &is_known), 0);
    assert_false(is_known);
    mem_fail_at(0);
    assert_int_equal(choose(choices, "a", &is_known), 1);
    assert_false(is_known);
    alias_choices_destroy(choices);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_set_and_replaced),
        cmocka_unit_test(name_stays_without_memory),
        cmocka_unit_test(first_topics_get_the_aliases),
        cmocka_unit_test(choices_have_a_limit_of_their_own),
        cmocka_unit_test(no_alias_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
