/* The configuration reader and the world: files, include_dir, the command line's listeners, memory,
 * the manual. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "config_keys.h"
#include "mem.h"
#include "server_config_reports.h"

static struct reports reports;

static char directory[64];

static void write_file(const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void make_directory(const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static int make_files(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/dunlin-config-XXXXXX");
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int remove_files(void **state)
{
    (void)state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command); /* NOLINT(cert-env33-c) */
}

static enum status load(const char *name, const struct config_address *addresses, size_t count,
                        struct config **out)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    reports = (struct reports){.with_file = true};
    return config_load(path, addresses, count, collect, &reports, out);
}

static void include_dir_reads_in_mosquittos_order(void **state)
{
    (void)state;
    char text[256];
    make_directory("conf.d");
    /* Each file has a warning, so the order shows. */
    write_file("conf.d/b.conf", "memory_limit 1\n");
    write_file("conf.d/B.conf", "\nmemory_limit 1\nnonsense\n");
    write_file("conf.d/00.conf", "memory_limit 1\ninclude_dir /tmp\n");
    write_file("conf.d/a.conf", "memory_limit 1\nlistener 1886\nmax_connections 6\n");
    write_file("conf.d/a.conf.bak", "nonsense\n");
    (void)snprintf(text, sizeof text,
                   "allow_anonymous true\nlistener 1884\ninclude_dir %s/conf.d\nmax_connections 4\n"
                   "max_qos 9\n",
                   directory);
    write_file("main.conf", text);
    struct config *config;
    assert_int_equal(load("main.conf", NULL, 0, &config), STATUS_INVALID);
    assert_string_equal(
        reports.text,
        "00.conf W1: \"memory_limit\" is known but not served yet and has no effect\n"
        "00.conf W2: \"include_dir\" in an included file has no effect\n"
        "a.conf W1: \"memory_limit\" is known but not served yet and has no effect\n"
        "B.conf W2: \"memory_limit\" is known but not served yet and has no effect\n"
        "B.conf E3: unknown key \"nonsense\"\n"
        "b.conf W1: \"memory_limit\" is known but not served yet and has no effect\n"
        "main.conf E5: bad value \"9\" for \"max_qos\": expected a number from 0 to 2\n");

    write_file("conf.d/B.conf", "max_qos 0\n"); /* of no listener: each file begins outside any */
    (void)snprintf(text, sizeof text,
                   "allow_anonymous true\nlistener 1884\ninclude_dir %s/conf.d\nmax_connections "
                   "4\n",
                   directory);
    write_file("main.conf", text);
    assert_int_equal(load("main.conf", NULL, 0, &config), STATUS_OK);
    assert_int_equal(config->listener_count, 2);
    assert_non_null(strstr(reports.text, "B.conf W1: \"max_qos\" stands before the first "));
    assert_int_equal(config->listeners[0].max_qos, 2);
    assert_int_equal(config->listeners[1].max_qos, 2);
    assert_int_equal(config->listeners[0].max_connections, 4);
    assert_int_equal(config->listeners[1].max_connections, 6);
    assert_int_equal(config->listeners[1].port, 1886);
    config_destroy(config);
}

static void missing_files_are_reported(void **state)
{
    (void)state;
    struct config *config;
    assert_int_equal(load("absent.conf", NULL, 0, &config), STATUS_IO);
    assert_null(config);
    assert_string_equal(reports.text,
                        "absent.conf E0: cannot open the file: No such file or directory\n");
    assert_int_equal(load(".", NULL, 0, &config), STATUS_IO);
    assert_string_equal(reports.text, ". E0: cannot read the file: Is a directory\n");
    write_file("main2.conf", "\ninclude_dir /nonexistent/dir\n");
    assert_int_equal(load("main2.conf", NULL, 0, &config), STATUS_IO);
    assert_string_equal(reports.text, "main2.conf E2: cannot open the directory "
                                      "\"/nonexistent/dir\": No such file or directory\n");
}

static void oversized_files_are_refused(void **state)
{
    (void)state;
    struct config *config;
    char *text = malloc(CONFIG_FILE_BYTES_MAX + 2);
    assert_non_null(text);
    memset(text, '\n', CONFIG_FILE_BYTES_MAX + 1);
    text[CONFIG_FILE_BYTES_MAX + 1] = '\0';
    write_file("big.conf", text);
    assert_int_equal(load("big.conf", NULL, 0, &config), STATUS_INVALID);
    assert_string_equal(reports.text, "big.conf E0: the file is larger than 1048576 bytes\n");
    free(text);
}

static void command_line_listeners_are_added(void **state)
{
    (void)state;
    static const struct config_address addresses[] = {
        {"", 1990}, {"", 0}, {"127.0.0.1", 1991}, {"*", 1992}};
    struct config *config;
    write_file("cl.conf", "listener 1884\nallow_anonymous true\n");
    assert_int_equal(load("cl.conf", addresses, 4, &config), STATUS_OK);
    assert_string_equal(reports.text, "");
    assert_int_equal(config->listener_count, 6);
    assert_int_equal(config->listeners[0].port, 1884);
    assert_string_equal(config->listeners[1].host, "127.0.0.1");
    assert_int_equal(config->listeners[1].port, 1990);
    assert_string_equal(config->listeners[2].host, "::1");
    assert_true(config->listeners[2].optional);
    assert_int_equal(config->listeners[3].port, 0);
    assert_string_equal(config->listeners[3].host, "127.0.0.1");
    assert_int_equal(config->listeners[4].port, 1991);
    assert_true(config->listeners[4].local_only);
    assert_null(config->listeners[5].host);
    assert_false(config->listeners[5].local_only);
    config_destroy(config);

    /* Without a file: loopback is open, the rest is not, and the default listener is not there. */
    reports = (struct reports){.with_file = true};
    assert_int_equal(config_load(NULL, addresses + 2, 2, collect, &reports, &config), STATUS_OK);
    assert_string_equal(
        reports.text, "command line W0: nobody can log in on listener *:1992: set "
                      "\"password_file\", or \"allow_anonymous true\" to let clients in without a "
                      "password\n");
    assert_int_equal(config->listener_count, 2);
    assert_true(config->listeners[0].allow_anonymous);
    assert_false(config->listeners[1].allow_anonymous);
    config_destroy(config);
}

/* Wherever memory runs out, the load says so and keeps nothing (the sanitizers see leaks). */
static void every_allocation_may_fail(void **state)
{
    (void)state;
    write_file("mem.conf", "listener 1884\nallow_anonymous true\n"
                           "certfile a\nkeyfile b\ncertfile c\nkeyfile d\ncafile e\n"
                           "websockets_origin f\nwebsockets_origin g\nlistener 9 h\n"
                           "log_dest file i\nlog_timestamp_format %H\n"
                           "clientid_prefixes j\n");
    static const struct config_address addresses[] = {{"", 1990}};
    bool succeeded = false;
    for (uint64_t n = 1; !succeeded; n++) {
        struct config *config = NULL;
        mem_fail_at(n);
        enum status status = load("mem.conf", addresses, 1, &config);
        mem_fail_at(0);
        succeeded = status == STATUS_OK;
        assert_true(succeeded || status == STATUS_NO_MEMORY);
        assert_true((config != NULL) == succeeded);
        config_destroy(config);
        assert_true(n < 1000);
    }
}

static char manual[1 << 18];

static void read_manual(void)
{
    const char *path = getenv("DUNLIN_CONFIGURATION_MD");
    if (path == NULL) {
        fail_msg("DUNLIN_CONFIGURATION_MD must name docs/configuration.md");
        return;
    }
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t len = fread(manual, 1, sizeof manual - 1, file);
    (void)fclose(file);
    assert_true(len < sizeof manual - 1);
    manual[len] = '\0';
}

/* The row of a number states its default. */
static void check_default(const struct config_key *key, const char *row)
{
    char initial[32];
    (void)snprintf(initial, sizeof initial, "| %lld |", (long long)key->initial);
    const char *end = strchr(row + 1, '\n');
    const char *stated = strstr(row, initial);
    if (stated == NULL || end == NULL || stated > end) {
        fail_msg("%s: the manual does not state the default %lld", key->name,
                 (long long)key->initial);
    }
}

/* The manual has a row for every key of the table. */
static void the_manual_names_every_key(void **state)
{
    (void)state;
    read_manual();
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        char row[128];
        (void)snprintf(row, sizeof row, "\n| `%s`", key->name);
        const char *found = strstr(manual, row);
        if (found == NULL) {
            fail_msg("%s has no row in the manual", key->name);
            return;
        }
        bool number = key->type == CONFIG_TYPE_U32 || key->type == CONFIG_TYPE_U64;
        if (number && key->initial != -1) {
            check_default(key, found);
        }
    }
}

/* What the manual shows as a file is one. An example is an indented block that opens a listener. */
static void the_manuals_examples_load(void **state)
{
    (void)state;
    read_manual();
    unsigned loaded = 0;
    static char example[1 << 14];
    size_t len = 0;
    char *rest = manual;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        bool indented = strncmp(line, "    ", 4) == 0;
        if (indented || (line[0] == '\0' && len != 0)) {
            int added =
                snprintf(example + len, sizeof example - len, "%s\n", indented ? line + 4 : "");
            assert_true(added > 0 && (size_t)added < sizeof example - len);
            len += (size_t)added;
            continue;
        }
        if (len != 0 && strstr(example, "\nlistener ") != NULL) {
            struct config *config;
            reports = (struct reports){.len = 0};
            enum status status = config_parse(bytes_of(example, len), "configuration.md", collect,
                                              &reports, &config);
            assert_string_equal(reports.text, "");
            assert_int_equal(status, STATUS_OK);
            config_destroy(config);
            loaded++;
        }
        len = 0;
    }
    assert_int_equal(loaded, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(include_dir_reads_in_mosquittos_order),
        cmocka_unit_test(missing_files_are_reported),
        cmocka_unit_test(oversized_files_are_refused),
        cmocka_unit_test(command_line_listeners_are_added),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(the_manual_names_every_key),
        cmocka_unit_test(the_manuals_examples_load),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
