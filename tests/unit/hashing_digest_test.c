/* Digests against entries that other programs made: mosquitto_passwd 2.0 and 1.6, and argon2(1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "password_digest.h"

static void expect(const char *text, const char *password, bool right)
{
    struct password_hash hash;
    const char *problem;
    bool is_right = !right;
    assert_true(password_hash_parse(bytes_of_string(text), &hash, &problem));
    assert_int_equal(password_verify(&hash, bytes_of_string(password), &is_right), STATUS_OK);
    assert_int_equal(is_right, right);
}

static void foreign_entries(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "$7$101$sGQuKI8t3i9phr+6$ZxBxHSiN0htJMnOXG1l8oSwcqC1n65RBadTMbJLu6/"
        "sPN+AJgGSOHmiIKAZMC1k2wQz6hoEisCdrXGSWLCxQ/A==",
        "$6$SDI675e3TVbfu/JB$/"
        "sgRdfwgrIrsF9bzvHbnehx7Wsv7q2TE7r8891rLpDjuRrupKxnxZ+ypCWMIsQr57pId0mW9j6PHXMuWsrBYbg==",
        "$argon2id$v=19$m=1024,t=2,p=2$c29tZXNhbHQ$zh7Wnv7JCpAGLQz9ZrfxMp4acgi/bGM/",
        "$argon2id$v=19$m=47104,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$"
        "s0elE0u89nTzfO2baeLN6KuKuK8stZe1ihxEYvpiGv9JIATSR5xvLtYKbs0eLMeJOaZH6BgzjfycOGswAJsOAQ",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        expect(texts[i], "secret", true);
        expect(texts[i], "Secret", false);
        expect(texts[i], "secre", false);
        expect(texts[i], "secret2", false);
        expect(texts[i], "", false);
    }
}

static void what_is_made_is_right(void **state)
{
    (void)state;
    static const enum password_kind kinds[] = {PASSWORD_PBKDF2_SHA512, PASSWORD_SHA512,
                                               PASSWORD_ARGON2ID};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct password_hash hash = {.kind = kinds[i],
                                     .iterations = 3,
                                     .memory_kib = 64,
                                     .lanes = 2,
                                     .salt_len = 12,
                                     .digest_len = 32};
        bool is_right = false;
        assert_int_equal(password_digest(&hash, bytes_of_string("")), STATUS_OK);
        assert_int_equal(password_verify(&hash, BYTES_EMPTY, &is_right), STATUS_OK);
        assert_true(is_right);
        hash.digest[hash.digest_len - 1] ^= 1;
        assert_int_equal(password_verify(&hash, BYTES_EMPTY, &is_right), STATUS_OK);
        assert_false(is_right);
    }
}

static void a_secret_is_wiped(void **state)
{
    (void)state;
    char secret[] = "secret";
    password_wipe(secret, sizeof secret);
    for (size_t i = 0; i < sizeof secret; i++) {
        assert_int_equal(secret[i], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_entries),
        cmocka_unit_test(what_is_made_is_right),
        cmocka_unit_test(a_secret_is_wiped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
