/* The log: the two important sentences, escaping, limits, JSON, types, destinations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"

static char directory[64];
static char path[96];
static char content[1 << 16];

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/dunlin-log-XXXXXX");
    if (mkdtemp(directory) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/log", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(directory);
}

/* A log into the test's file, empty again. */
static struct log *open_log(enum log_format format)
{
    struct log_options options = LOG_OPTIONS_DEFAULT;
    struct log *log;
    (void)unlink(path);
    options.destinations = LOG_TO_FILE;
    options.file_path = path;
    options.format = format;
    options.timestamp = false;
    assert_int_equal(log_create(&options, &log), STATUS_OK);
    return log;
}

static const char *read_file(const char *name)
{
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    size_t len = fread(content, 1, sizeof content - 1, file);
    (void)fclose(file);
    content[len] = '\0';
    return content;
}

/* Ends the log and gives what it wrote. */
static const char *written(struct log *log)
{
    log_destroy(log);
    return read_file(path);
}

/* The part of a JSON line after the time, whose shape is checked. */
static const char *after_time(const char *line)
{
    static const char begin[] = "{\"time\":\"";
    static const char shape[] = "0000-00-00T00:00:00.000Z\"";
    assert_int_equal(strncmp(line, begin, sizeof begin - 1), 0);
    line += sizeof begin - 1;
    for (size_t i = 0; shape[i] != '\0'; i++) {
        bool fits = shape[i] == '0' ? line[i] >= '0' && line[i] <= '9' : line[i] == shape[i];
        assert_true(fits);
    }
    return line + sizeof shape - 1;
}

static size_t count_lines(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += *text == '\n' ? 1 : 0;
    }
    return count;
}

static struct log_client client_of(const char *client_id, const char *user_name)
{
    return (struct log_client){
        .client_id = bytes_of_string(client_id),
        .user_name = bytes_of_string(user_name),
        .address = "127.0.0.1:53210",
        .transport = "WebSocket",
        .protocol = "MQTT 5.0",
        .clean_start = true,
        .keep_alive_s = 60,
        .connected_ms = 12345,
    };
}

static void connections_in_plain_text(void **state)
{
    (void)state;
    struct log *log = open_log(LOG_FORMAT_PLAIN);
    struct log_client client = client_of("dash-1", "ann");
    log_client_connected(log, &client);
    log_client_disconnected(log, &client, "keep alive timed out");
    log_client_refused(log, &client, "not authorized");
    client.user_name = BYTES_EMPTY;
    client.clean_start = false;
    client.keep_alive_s = 0;
    log_client_connected(log, &client);
    client.client_id = BYTES_EMPTY;
    client.protocol = NULL;
    client.connected_ms = 10049;
    log_client_disconnected(log, &client, "no CONNECT within 10 s");
    log_client_refused(log, &client, "malformed CONNECT");
    assert_string_equal(
        written(log),
        "client \"dash-1\" connected from 127.0.0.1:53210 over WebSocket as MQTT 5.0 (user "
        "\"ann\", clean start, keep alive 60 s)\n"
        "client \"dash-1\" disconnected: keep alive timed out (MQTT 5.0 over WebSocket, "
        "127.0.0.1:53210, after 12.3 s)\n"
        "client \"dash-1\" refused: not authorized (MQTT 5.0 over WebSocket, 127.0.0.1:53210)\n"
        "client \"dash-1\" connected from 127.0.0.1:53210 over WebSocket as MQTT 5.0 (no keep "
        "alive)\n"
        "connection from 127.0.0.1:53210 over WebSocket closed: no CONNECT within 10 s (after 10.0 "
        "s)\n"
        "connection from 127.0.0.1:53210 over WebSocket refused: malformed CONNECT\n");
}

static void connections_in_json(void **state)
{
    (void)state;
    struct log *log = open_log(LOG_FORMAT_JSON);
    struct log_client client = client_of("dash-1", "ann");
    log_client_connected(log, &client);
    assert_string_equal(
        after_time(written(log)),
        ",\"level\":\"notice\",\"event\":\"client_connected\",\"message\":\"client "
        "connected\",\"client_id\":\"dash-1\",\"user_name\":\"ann\",\"address\":\"127.0.0.1:"
        "53210\",\"transport\":\"WebSocket\",\"protocol\":\"MQTT "
        "5.0\",\"clean_start\":true,\"keep_alive\":60}\n");

    log = open_log(LOG_FORMAT_JSON);
    client.user_name = BYTES_EMPTY;
    log_client_disconnected(log, &client, "it said \"bye\"");
    assert_string_equal(
        after_time(written(log)),
        ",\"level\":\"notice\",\"event\":\"client_disconnected\",\"message\":\"client "
        "disconnected\",\"client_id\":\"dash-1\",\"address\":\"127.0.0.1:53210\",\"transport\":"
        "\"WebSocket\",\"protocol\":\"MQTT 5.0\",\"reason\":\"it said "
        "\\\"bye\\\"\",\"connected_seconds\":12.3}\n");
}

static void events(void **state)
{
    (void)state;
    const struct log_field fields[] = {
        log_string("address", "[::1]:1883"),
        log_number("clients", UINT64_MAX),
        log_flag("tls", false),
        log_seconds("took", 999),
    };
    struct log *log = open_log(LOG_FORMAT_PLAIN);
    log_event(log, LOG_TYPE_INFORMATION, "listener_opened", "listening", fields, 4);
    log_event(log, LOG_TYPE_NOTICE, "started", "Dunlin is up", NULL, 0);
    log_event(log, LOG_TYPE_ERROR, "x", "a problem", fields + 2, 1);
    assert_string_equal(written(log), "listening (address=\"[::1]:1883\", "
                                      "clients=18446744073709551615, tls=false, took=0.9)\n"
                                      "Dunlin is up\n"
                                      "Error: a problem (tls=false)\n");
    log = open_log(LOG_FORMAT_JSON);
    log_event(log, LOG_TYPE_INFORMATION, "listener_opened", "listening", fields, 4);
    assert_string_equal(
        after_time(written(log)),
        ",\"level\":\"information\",\"event\":\"listener_opened\",\"message\":\"listening\","
        "\"address\":\"[::1]:1883\",\"clients\":18446744073709551615,\"tls\":false,\"took\":0.9}"
        "\n");
}

static const char *escaped(struct bytes text)
{
    static char out[LOG_TEXT_MAX + 1];
    struct writer writer = writer_of(out, LOG_TEXT_MAX);
    log_escape(&writer, text);
    assert_true(writer_ok(&writer));
    out[writer_len(&writer)] = '\0';
    return out;
}

static void peer_text_is_escaped(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"plain", "plain"},
        {"a\"b\\c", "a\\\"b\\\\c"},
        {"a\nb\rc\td", "a\\nb\\rc\\td"},
        {"\x1b[31mred\x7f", "\\u001b[31mred\\u007f"},
        {"gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x90\xA6",
         "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x90\xA6"},
        {"\xFF", "\\ufffd"},
        {"\xC3", "\\ufffd"},
        {"\xE2\x82", "\\ufffd\\ufffd"},
        {"\xC0\xAF", "\\ufffd\\ufffd"},                       /* overlong '/' */
        {"\xE0\x80\x8A", "\\ufffd\\ufffd\\ufffd"},            /* overlong line feed */
        {"\xED\xA0\x80", "\\ufffd\\ufffd\\ufffd"},            /* surrogate */
        {"\xF4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"}, /* past U+10FFFF */
        {"\xC2\x9B", "\\u009b"},                              /* C1: CSI in one character */
        {"\xE2\x80\xA8", "\\u2028"},                          /* line separator */
        {"\xE2\x80\xAE", "\\u202e"},                          /* right-to-left override */
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_string_equal(escaped(bytes_of_string(cases[i][0])), cases[i][1]);
    }
    assert_string_equal(escaped(bytes_of("a\0b", 3)), "a\\u0000b");

    struct log *log = open_log(LOG_FORMAT_PLAIN);
    struct log_client client = client_of("x\"\nclient \"admin\" connected", "\xFF");
    log_client_connected(log, &client);
    log_client_disconnected(log, &client, "bad\ntopic");
    log_write(log, LOG_TYPE_NOTICE, "our \"quotes\" stay, their\nlines do not");
    const char *text = written(log);
    assert_int_equal(count_lines(text), 3);
    assert_non_null(strstr(text, "client \"x\\\"\\nclient \\\"admin\\\" connected\" connected"));
    assert_non_null(strstr(text, "(user \"\\ufffd\", "));
    assert_non_null(strstr(text, ": bad\\ntopic ("));
    assert_non_null(strstr(text, "our \"quotes\" stay, their\\nlines do not\n"));
}

/* A line of JSON in which every byte is legal, closed as it was opened. */
static void check_json_line(const char *line)
{
    size_t len = strlen(line);
    assert_in_range(len, 3, LOG_LINE_MAX);
    assert_true(line[0] == '{' && line[len - 2] == '}' && line[len - 1] == '\n');
    bool quoted = false;
    for (size_t i = 0; i + 1 < len; i++) {
        assert_true((unsigned char)line[i] >= 0x20);
        if (quoted && line[i] == '\\') {
            i++;
        } else if (line[i] == '"') {
            quoted = !quoted;
        }
    }
    assert_false(quoted);
}

static void long_text_is_cut(void **state)
{
    (void)state;
    static char text[70000];
    memset(text, 'x', sizeof text);
    const char *cut = escaped(bytes_of(text, sizeof text));
    assert_int_equal(strlen(cut), LOG_TEXT_MAX);
    assert_string_equal(cut + LOG_TEXT_MAX - 4, "x...");
    assert_int_equal(strlen(escaped(bytes_of(text, LOG_TEXT_MAX))), LOG_TEXT_MAX);
    assert_null(strstr(escaped(bytes_of(text, LOG_TEXT_MAX)), "..."));
    memset(text, 1, sizeof text);
    cut = escaped(bytes_of(text, sizeof text));
    assert_in_range(strlen(cut), LOG_TEXT_MAX - 6, LOG_TEXT_MAX);
    assert_string_equal(cut + strlen(cut) - 9, "\\u0001...");
    for (size_t i = 0; i + 1 < sizeof text; i += 2) { /* cut between characters, not within */
        text[i] = (char)0xC3;
        text[i + 1] = (char)0xBC;
    }
    cut = escaped(bytes_of(text, sizeof text));
    assert_string_equal(cut + strlen(cut) - 5, "\xC3\xBC...");

    /* Five fields of 1 KiB do not fit: the line says so and stays whole. */
    struct log_field fields[5];
    for (size_t i = 0; i < 5; i++) {
        fields[i] = log_text("field", bytes_of(text, sizeof text));
    }
    struct log *log = open_log(LOG_FORMAT_JSON);
    log_event(log, LOG_TYPE_NOTICE, "event", "message", fields, 5);
    const char *line = written(log);
    check_json_line(line);
    assert_non_null(strstr(line, ",\"truncated\":true}\n"));

    log = open_log(LOG_FORMAT_PLAIN);
    log_event(log, LOG_TYPE_NOTICE, "event", "message", fields, 5);
    line = written(log);
    assert_in_range(strlen(line), 3000, LOG_LINE_MAX);
    assert_string_equal(line + strlen(line) - 5, " ...\n");

    memset(text, '\n', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int format = LOG_FORMAT_PLAIN; format <= LOG_FORMAT_JSON; format++) {
        log = open_log(format == LOG_FORMAT_JSON ? LOG_FORMAT_JSON : LOG_FORMAT_PLAIN);
        log_write(log, LOG_TYPE_NOTICE, "%s", text);
        struct log_client client = client_of("", "");
        client.client_id = client.user_name = bytes_of(text, sizeof text);
        log_client_connected(log, &client);
        log_client_disconnected(log, &client, text);
        line = written(log);
        assert_int_equal(count_lines(line), 3);
        for (const char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            assert_in_range(end - line, 100, LOG_LINE_MAX - 1);
        }
    }
}

static void types_and_destinations_are_chosen(void **state)
{
    (void)state;
    struct log *log = open_log(LOG_FORMAT_PLAIN);
    struct log_client client = client_of("a", "b");
    assert_true(log_wants(log, LOG_TYPE_NOTICE));
    assert_false(log_wants(log, LOG_TYPE_DEBUG));
    log_write(log, LOG_TYPE_DEBUG, "unseen");
    log_event(log, LOG_TYPE_SUBSCRIBE, "unseen", "unseen", NULL, 0);
    log_write(log, LOG_TYPE_WARNING, "seen");
    struct log_options options = LOG_OPTIONS_DEFAULT;
    options.destinations = LOG_TO_FILE;
    options.file_path = path;
    options.timestamp = false;
    options.connection_messages = false;
    options.types = LOG_TYPES_ALL;
    assert_int_equal(log_reconfigure(log, &options), STATUS_OK);
    log_client_connected(log, &client);
    log_client_disconnected(log, &client, "x");
    log_client_refused(log, &client, "x");
    log_write(log, LOG_TYPE_DEBUG, "detail");
    options.destinations = 0;
    assert_int_equal(log_reconfigure(log, &options), STATUS_OK);
    assert_false(log_wants(log, LOG_TYPE_ERROR));
    log_write(log, LOG_TYPE_ERROR, "unseen");
    assert_string_equal(written(log), "Warning: seen\ndetail\n");
}

static void timestamps(void **state)
{
    (void)state;
    struct log_options options = LOG_OPTIONS_DEFAULT;
    options.destinations = LOG_TO_FILE;
    options.file_path = path;
    struct log *log;
    (void)unlink(path);
    assert_int_equal(log_create(&options, &log), STATUS_OK);
    log_write(log, LOG_TYPE_NOTICE, "text");
    const char *line = written(log);
    static const char shape[] = "0000-00-00T00:00:00?0000: text\n";
    assert_int_equal(strlen(line), sizeof shape - 1);
    for (size_t i = 0; shape[i] != '\0'; i++) {
        bool digit = line[i] >= '0' && line[i] <= '9';
        assert_true(shape[i] == '0'   ? digit
                    : shape[i] == '?' ? line[i] == '+' || line[i] == '-'
                                      : line[i] == shape[i]);
    }
    (void)unlink(path);
    options.timestamp_format = "at%%";
    assert_int_equal(log_create(&options, &log), STATUS_OK);
    log_write(log, LOG_TYPE_NOTICE, "text");
    assert_string_equal(written(log), "at%: text\n");
}

static void reopening_follows_logrotate(void **state)
{
    (void)state;
    char rotated[128];
    (void)snprintf(rotated, sizeof rotated, "%s.1", path);
    struct log *log = open_log(LOG_FORMAT_PLAIN);
    log_write(log, LOG_TYPE_NOTICE, "one");
    assert_int_equal(rename(path, rotated), 0);
    log_write(log, LOG_TYPE_NOTICE, "two");
    assert_int_equal(log_reopen(log), STATUS_OK);
    log_write(log, LOG_TYPE_NOTICE, "three");
    struct stat information;
    assert_int_equal(stat(path, &information), 0);
    assert_int_equal(information.st_mode & 0137,
                     0); /* nothing for others, no write for the group */
    assert_string_equal(written(log), "three\n");
    assert_string_equal(read_file(rotated), "one\ntwo\n");
    assert_int_equal(unlink(rotated), 0);
}

static void a_file_that_cannot_be_opened_is_reported(void **state)
{
    (void)state;
    struct log_options options = LOG_OPTIONS_DEFAULT;
    options.destinations = LOG_TO_FILE;
    options.file_path = "/nonexistent/dunlin.log";
    struct log *log = NULL;
    assert_int_equal(log_create(&options, &log), STATUS_IO);
    assert_int_equal(errno, ENOENT);
    assert_null(log);
    /* A reload that names a bad file leaves the old one in use. */
    log = open_log(LOG_FORMAT_PLAIN);
    assert_int_equal(log_reconfigure(log, &options), STATUS_IO);
    log_write(log, LOG_TYPE_NOTICE, "still here");
    assert_string_equal(written(log), "still here\n");
}

/* Reads what is in a pipe now behind what has been read. */
static size_t read_pipe(int end, size_t have)
{
    ssize_t len;
    while ((len = read(end, content + have, sizeof content - 1 - have)) > 0) {
        have += (size_t)len;
    }
    content[have] = '\0';
    return have;
}

/* Standard error is a pipe that nobody reads: the log goes on, and says later what is missing. */
static void a_stuck_pipe_does_not_block(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, 16384), 16384);
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    int standard_error = dup(STDERR_FILENO);
    struct log_options options = LOG_OPTIONS_DEFAULT;
    options.timestamp = false;
    struct log *log;
    assert_int_equal(log_create(&options, &log), STATUS_OK);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    (void)alarm(10); /* a log that blocks fails the test */
    unsigned lines = 0;
    char filler[512];
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    for (; lines < 100; lines++) {
        log_write(log, LOG_TYPE_NOTICE, "%s", filler);
    }
    size_t have = read_pipe(ends[0], 0);
    size_t fitted = count_lines(content);
    log_write(log, LOG_TYPE_NOTICE, "next");
    log_write(log, LOG_TYPE_NOTICE, "and the next");
    (void)read_pipe(ends[0], have);
    (void)alarm(0);
    assert_int_equal(dup2(standard_error, STDERR_FILENO), STDERR_FILENO);
    (void)close(standard_error);
    (void)close(ends[0]);
    (void)close(ends[1]);
    log_destroy(log);
    assert_true(fitted > 0 && fitted < lines);
    assert_int_equal(have, fitted * sizeof filler); /* whole lines only */
    char expected[256];
    (void)snprintf(expected, sizeof expected,
                   "Warning: lines lost here, because the log could not be written: %zu\nnext\n"
                   "and the next\n",
                   lines - fitted);
    assert_string_equal(content + have, expected);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct log_options options = LOG_OPTIONS_DEFAULT;
    options.destinations = LOG_TO_FILE;
    options.file_path = path;
    options.timestamp_format = "%H";
    for (uint64_t n = 1; n <= 3; n++) {
        struct log *log;
        mem_fail_at(n);
        assert_int_equal(log_create(&options, &log), STATUS_NO_MEMORY);
        assert_null(log);
    }
    mem_fail_at(0);
    struct log *log;
    assert_int_equal(log_create(&options, &log), STATUS_OK);
    uint64_t before = mem_alloc_count();
    log_write(log, LOG_TYPE_NOTICE, "no allocation");
    assert_true(mem_alloc_count() == before);
    log_destroy(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_in_plain_text),
        cmocka_unit_test(connections_in_json),
        cmocka_unit_test(events),
        cmocka_unit_test(peer_text_is_escaped),
        cmocka_unit_test(long_text_is_cut),
        cmocka_unit_test(types_and_destinations_are_chosen),
        cmocka_unit_test(timestamps),
        cmocka_unit_test(reopening_follows_logrotate),
        cmocka_unit_test(a_file_that_cannot_be_opened_is_reported),
        cmocka_unit_test(a_stuck_pipe_does_not_block),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
