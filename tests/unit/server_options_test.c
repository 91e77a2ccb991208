/* The command line: what each option does, and what is said about a wrong one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "options.h"

enum { ARGUMENTS_MAX = 64 };

static struct options options;
static char to_out[8192];
static char to_err[1024];

/* Parses a command line given as words between blanks. */
static enum options_result run(const char *line)
{
    static char words[4096];
    char *argv[ARGUMENTS_MAX];
    int argc = 0;
    assert_true(strlen(line) < sizeof words);
    memcpy(words, line, strlen(line) + 1);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        assert_true(argc < ARGUMENTS_MAX);
        argv[argc++] = word;
    }
    memset(to_out, 0, sizeof to_out);
    memset(to_err, 0, sizeof to_err);
    FILE *out = fmemopen(to_out, sizeof to_out - 1, "w");
    FILE *err = fmemopen(to_err, sizeof to_err - 1, "w");
    assert_true(out != NULL && err != NULL);
    enum options_result result = options_parse(argc, argv, &options, out, err);
    (void)fclose(out);
    (void)fclose(err);
    return result;
}

static void nothing_given(void **state)
{
    (void)state;
    assert_int_equal(run("dunlin"), OPTIONS_RUN);
    assert_null(options.config_path);
    assert_int_equal(options.address_count, 0);
    assert_false(options.verbose || options.daemonise || options.check_config);
    assert_string_equal(to_out, "");
    assert_string_equal(to_err, "");
}

static void every_option(void **state)
{
    (void)state;
    assert_int_equal(run("dunlin -c a.conf -p 1884 --listen 10.0.0.1:1885 --listen [::1]:1886 "
                         "--listen 0 --listen *:1887 --listen=localhost:1888 -v -d --check-config"),
                     OPTIONS_RUN);
    assert_string_equal(options.config_path, "a.conf");
    assert_true(options.verbose && options.daemonise && options.check_config);
    static const struct config_address expected[] = {
        {"", 1884}, {"10.0.0.1", 1885}, {"::1", 1886}, {"", 0}, {"*", 1887}, {"localhost", 1888}};
    assert_int_equal(options.address_count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(options.addresses[i].host, expected[i].host);
        assert_int_equal(options.addresses[i].port, expected[i].port);
    }
    assert_int_equal(run("dunlin --config=b.conf --port=1 --verbose --daemon"), OPTIONS_RUN);
    assert_string_equal(options.config_path, "b.conf");
    assert_int_equal(options.addresses[0].port, 1);
    assert_true(options.verbose && options.daemonise);
}

static void help_and_version(void **state)
{
    (void)state;
    assert_int_equal(run("dunlin --help"), OPTIONS_EXIT_OK);
    static const char *const named[] = {"-c, --config",  "-p, --port",   "--listen",
                                        "-v, --verbose", "-d, --daemon", "--check-config",
                                        "--version"};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        assert_non_null(strstr(to_out, named[i]));
    }
    assert_string_equal(to_err, "");
    assert_int_equal(run("dunlin -h"), OPTIONS_EXIT_OK);
    assert_int_equal(run("dunlin -V"), OPTIONS_EXIT_OK);
    assert_int_equal(strncmp(to_out, "dunlin ", 7), 0);
    assert_int_equal(run("dunlin --version"), OPTIONS_EXIT_OK);
}

static void mistakes(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"dunlin --colour", "unknown option \"--colour\""},
        {"dunlin -x", "unknown option \"-x\""},
        {"dunlin -", "unknown option \"-\""},
        {"dunlin a.conf", "unexpected argument \"a.conf\""},
        {"dunlin -c", "a value is missing after \"-c\""},
        {"dunlin --verbose=yes", "this option takes no value: \"--verbose=yes\""},
        {"dunlin -p 0", "-p needs a port from 1 to 65535, not \"0\""},
        {"dunlin -p 65536", "-p needs a port from 1 to 65535, not \"65536\""},
        {"dunlin -p host:1", "-p needs a port from 1 to 65535, not \"host:1\""},
        {"dunlin -p x", "-p needs a port from 1 to 65535, not \"x\""},
        {"dunlin --listen host", "--listen needs [HOST:]PORT, not \"host\""},
        {"dunlin --listen :1883", "--listen needs [HOST:]PORT, not \":1883\""},
        {"dunlin --listen ::1:1883", "--listen needs [HOST:]PORT, not \"::1:1883\""},
        {"dunlin --listen a:-1", "--listen needs [HOST:]PORT, not \"a:-1\""},
        {"dunlin --listen \x1b:1x", "--listen needs [HOST:]PORT, not \"\\u001b:1x\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[256];
        assert_int_equal(run(cases[i][0]), OPTIONS_EXIT_USAGE);
        (void)snprintf(expected, sizeof expected, "dunlin: %s; see dunlin --help\n", cases[i][1]);
        assert_string_equal(to_err, expected);
        assert_string_equal(to_out, "");
    }
}

static void too_many_or_too_long(void **state)
{
    (void)state;
    char line[1024];
    static const char sixteen[] = "dunlin -p 1 -p 1 -p 1 -p 1 -p 1 -p 1 -p 1 -p 1"
                                  " -p 1 -p 1 -p 1 -p 1 -p 1 -p 1 -p 1 -p 1";
    assert_int_equal(run(sixteen), OPTIONS_RUN);
    assert_int_equal(options.address_count, OPTIONS_ADDRESSES_MAX);
    (void)snprintf(line, sizeof line, "%s -p 2", sixteen);
    assert_int_equal(run(line), OPTIONS_EXIT_USAGE);
    assert_string_equal(to_err, "dunlin: more than 16 listeners on the command line: \"2\"; see "
                                "dunlin --help\n");
    (void)snprintf(line, sizeof line, "dunlin --listen %0255d:1", 0);
    assert_int_equal(run(line), OPTIONS_RUN);
    (void)snprintf(line, sizeof line, "dunlin --listen %0256d:1", 0);
    assert_int_equal(run(line), OPTIONS_EXIT_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given),        cmocka_unit_test(every_option),
        cmocka_unit_test(help_and_version),     cmocka_unit_test(mistakes),
        cmocka_unit_test(too_many_or_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
