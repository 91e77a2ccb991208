/* Password files: every form of an entry, every mistake with its line, decoys, and who is asked for
 * a password. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "access.h"
#include "mem.h"

#define SALT "c2FsdHNhbHRzYWx0"
#define DIGEST                                                                                     \
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="
#define PBKDF2 "$7$101$" SALT "$" DIGEST
#define ARGON2 "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$AAECAwQFBgcICQoLDA0ODw"

struct reports {
    unsigned count;
    unsigned lines[16];
    char text[256];
};

static void on_mistake(void *ctx, unsigned line, const char *text)
{
    struct reports *reports = ctx;
    reports->lines[reports->count++] = line;
    (void)snprintf(reports->text, sizeof reports->text, "%s", text);
}

static struct passwords *parse(const char *text)
{
    struct reports reports = {0};
    struct passwords *passwords = NULL;
    assert_int_equal(passwords_parse(bytes_of_string(text), on_mistake, &reports, &passwords),
                     STATUS_OK);
    assert_int_equal(reports.count, 0);
    return passwords;
}

static void all_forms(void **state)
{
    (void)state;
    struct passwords *passwords =
        parse("# users\n\n  ann:" PBKDF2 "\r\nbob smith:$6$" SALT "$" DIGEST "\nc\xc3\xa9:" ARGON2);
    uint64_t mark = 0;
    const struct password_hash *hash = passwords_find(passwords, bytes_of_string("ann"), &mark);
    assert_int_equal(hash->kind, PASSWORD_PBKDF2_SHA512);
    assert_int_equal(hash->iterations, 101);
    assert_memory_equal(hash->salt, "saltsaltsalt", 12);
    assert_int_equal(hash->digest[63], 63);
    assert_true(mark != 0);
    hash = passwords_find(passwords, bytes_of_string("bob smith"), &mark);
    assert_int_equal(hash->kind, PASSWORD_SHA512);
    hash = passwords_find(passwords, bytes_of_string("c\xc3\xa9"), &mark);
    assert_int_equal(hash->kind, PASSWORD_ARGON2ID);
    assert_int_equal(hash->memory_kib, 65536);
    assert_int_equal(hash->iterations, 3);
    assert_int_equal(hash->lanes, 4);
    assert_int_equal(hash->digest_len, 16);
    assert_null(passwords_find(passwords, bytes_of_string("bob"), &mark));
    assert_int_equal(mark, 0);
    passwords_release(passwords);
}

static void a_hash_is_written_as_it_was_read(void **state)
{
    (void)state;
    static const char *const texts[] = {PBKDF2, "$6$" SALT "$" DIGEST, ARGON2};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct password_hash hash;
        const char *problem;
        char buffer[PASSWORD_TEXT_MAX];
        struct writer writer = writer_of(buffer, sizeof buffer);
        assert_true(password_hash_parse(bytes_of_string(texts[i]), &hash, &problem));
        password_hash_format(&hash, &writer);
        assert_true(bytes_equal_string(writer_written(&writer), texts[i]));
    }
}

static void mistakes_have_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *says;
    } wrong[] = {
        {"ann", "no colon"},
        {":" PBKDF2, "user name"},
        {"a\xff:" PBKDF2, "UTF-8"},
        {"ann:", "none of"},
        {"ann:secret", "not hashed"},
        {"ann:$5$x$y", "none of $7$"},
        {"ann:$7$0$" SALT "$" DIGEST, "iterations"},
        {"ann:$7$10000001$" SALT "$" DIGEST, "iterations"},
        {"ann:$7$-1$" SALT "$" DIGEST, "iterations"},
        {"ann:$7$101$$" DIGEST, "salt"},
        {"ann:$7$101$s?$" DIGEST, "salt"},
        {"ann:$7$101$" SALT "$AAEC", "hash is no base64"},
        {"ann:$7$101$" SALT, "hash is no base64"},
        {"ann:" PBKDF2 " x", "hash is no base64"},
        {"ann:$argon2id$v=16$m=65536,t=3,p=4$c2FsdHNhbHQ$AAECAwQFBgcICQoLDA0ODw", "version"},
        {"ann:$argon2id$v=19$m=131073,t=3,p=4$c2FsdHNhbHQ$AAECAwQFBgcICQoLDA0ODw", "memory"},
        {"ann:$argon2id$v=19$m=65536,t=65,p=4$c2FsdHNhbHQ$AAECAwQFBgcICQoLDA0ODw", "passes"},
        {"ann:$argon2id$v=19$m=65536,t=3,p=0$c2FsdHNhbHQ$AAECAwQFBgcICQoLDA0ODw", "lanes"},
        {"ann:$argon2id$v=19$m=31,t=3,p=4$c2FsdHNhbHQ$AAECAwQFBgcICQoLDA0ODw", "8 for each lane"},
        {"ann:$argon2id$v=19$m=65536,t=3,p=4$c2Fs$AAECAwQFBgcICQoLDA0ODw", "salt"},
        {"dup:" PBKDF2, "already"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[512];
        struct reports reports = {0};
        struct passwords *passwords = NULL;
        (void)snprintf(text, sizeof text, "dup:" PBKDF2 "\n# x\n%s\n", wrong[i].line);
        assert_int_equal(passwords_parse(bytes_of_string(text), on_mistake, &reports, &passwords),
                         STATUS_INVALID);
        assert_null(passwords);
        assert_int_equal(reports.count, 1);
        assert_int_equal(reports.lines[0], 3);
        if (strstr(reports.text, wrong[i].says) == NULL) {
            fail_msg("%s: %s", wrong[i].line, reports.text);
        }
    }
}

static void all_mistakes_are_reported(void **state)
{
    (void)state;
    struct reports reports = {0};
    struct passwords *passwords = NULL;
    assert_int_equal(
        passwords_parse(bytes_of_string("a\nb:" PBKDF2 "\nc\n"), on_mistake, &reports, &passwords),
        STATUS_INVALID);
    assert_int_equal(reports.count, 2);
    assert_int_equal(reports.lines[0], 1);
    assert_int_equal(reports.lines[1], 3);
}

static void lack_of_memory(void **state)
{
    (void)state;
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status == STATUS_NO_MEMORY; n++) {
        struct reports reports = {0};
        struct passwords *passwords = NULL;
        mem_fail_at(n);
        status = passwords_parse(bytes_of_string("a:" PBKDF2 "\nb:" PBKDF2), on_mistake, &reports,
                                 &passwords);
        mem_fail_at(0);
        assert_true((status == STATUS_OK) == (passwords != NULL));
        passwords_release(passwords);
        assert_true(n < 100);
    }
    assert_int_equal(status, STATUS_OK);
}

static enum mqtt_reason connect_as(const struct access *access, bool allow_anonymous,
                                   const char *user, const char *password,
                                   struct access_grant *grant)
{
    struct access_request request = {.access = access,
                                     .allow_anonymous = allow_anonymous,
                                     .has_user_name = user != NULL,
                                     .user_name = bytes_of_string(user),
                                     .has_password = password != NULL,
                                     .password = bytes_of_string(password)};
    return access_connect(&request, grant);
}

static void who_is_asked_for_a_password(void **state)
{
    (void)state;
    struct access *access = NULL;
    struct access_grant grant;
    struct passwords *passwords = parse("ann:" PBKDF2 "\n");
    struct passwords *nobody = parse("# nobody\n");
    assert_int_equal(access_create(&access), STATUS_OK);
    /* Without a file a name is taken at its word, where anonymous clients are welcome. */
    assert_int_equal(connect_as(access, true, "ann", "x", &grant), MQTT_SUCCESS);
    assert_null(grant.hash);
    assert_int_equal(connect_as(access, false, "ann", "x", &grant), MQTT_NOT_AUTHORIZED);
    access_set_files(access, passwords, NULL);
    for (unsigned anonymous = 0; anonymous < 2; anonymous++) {
        assert_int_equal(connect_as(access, anonymous, "ann", "x", &grant), MQTT_SUCCESS);
        assert_non_null(grant.hash);
        assert_true(grant.mark != 0);
        assert_int_equal(connect_as(access, anonymous, "eve", "x", &grant), MQTT_SUCCESS);
        assert_non_null(grant.hash); /* a decoy, so that it takes as long */
        assert_int_equal(grant.mark, 0);
        assert_int_equal(connect_as(access, anonymous, "ann", NULL, &grant),
                         MQTT_BAD_USER_NAME_OR_PASSWORD);
        enum mqtt_reason nameless = anonymous ? MQTT_SUCCESS : MQTT_NOT_AUTHORIZED;
        assert_int_equal(connect_as(access, anonymous, NULL, NULL, &grant), nameless);
        assert_int_equal(connect_as(access, anonymous, "", "x", &grant), nameless);
        assert_null(grant.hash);
        assert_null(grant.user_name.data);
    }
    access_set_files(access, nobody, NULL);
    assert_int_equal(connect_as(access, true, "ann", "x", &grant), MQTT_BAD_USER_NAME_OR_PASSWORD);
    access_release(access);
    passwords_release(passwords);
    passwords_release(nobody);
}

static void a_changed_entry_is_no_grant(void **state)
{
    (void)state;
    struct access *access = NULL;
    struct access_grant grant;
    struct passwords *before = parse("ann:" PBKDF2 "\nbob:" PBKDF2 "\n");
    struct passwords *after = parse("bob:" PBKDF2 "\nann:" ARGON2 "\n");
    struct bytes ann = bytes_of_string("ann");
    assert_int_equal(access_create(&access), STATUS_OK);
    assert_true(access_is_still_granted(access, ann, 0));
    access_set_files(access, before, NULL);
    assert_false(access_is_still_granted(access, ann, 0));
    assert_true(access_is_still_granted(access, BYTES_EMPTY, 0));
    assert_int_equal(connect_as(access, false, "ann", "x", &grant), MQTT_SUCCESS);
    assert_true(access_is_still_granted(access, ann, grant.mark));
    access_set_files(access, after, NULL);
    assert_false(access_is_still_granted(access, ann, grant.mark));
    assert_int_equal(connect_as(access, false, "bob", "x", &grant), MQTT_SUCCESS);
    assert_true(access_is_still_granted(access, bytes_of_string("bob"), grant.mark));
    access_set_files(access, NULL, NULL);
    assert_false(access_is_still_granted(access, bytes_of_string("bob"), grant.mark));
    access_release(access);
    passwords_release(before);
    passwords_release(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms),
        cmocka_unit_test(a_hash_is_written_as_it_was_read),
        cmocka_unit_test(mistakes_have_lines),
        cmocka_unit_test(all_mistakes_are_reported),
        cmocka_unit_test(lack_of_memory),
        cmocka_unit_test(who_is_asked_for_a_password),
        cmocka_unit_test(a_changed_entry_is_no_grant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
