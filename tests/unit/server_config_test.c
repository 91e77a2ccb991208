/* The configuration reader: defaults, every kind of value, scopes, every error with its line and
 * text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "config.h"
#include "config_keys.h"
#include "server_config_reports.h"

static struct reports reports;

static enum status parse(const char *text, struct config **out)
{
    reports = (struct reports){.len = 0};
    return config_parse(bytes_of_string(text), "dunlin.conf", collect, &reports, out);
}

/* Parses a text that must be good and silent. */
static struct config *good(const char *text)
{
    struct config *config;
    enum status status = parse(text, &config);
    assert_string_equal(reports.text, "");
    assert_int_equal(status, STATUS_OK);
    assert_non_null(config);
    return config;
}

/* Parses a text that must give exactly these reports. */
static void check_reports(const char *text, enum status expected, const char *expected_reports)
{
    struct config *config;
    enum status status = parse(text, &config);
    assert_string_equal(reports.text, expected_reports);
    assert_int_equal(status, expected);
    assert_true((config != NULL) == (expected == STATUS_OK));
    config_destroy(config);
}

static void check_error(const char *text, const char *expected_reports)
{
    check_reports(text, STATUS_INVALID, expected_reports);
}

/* Opens one anonymous listener, so that a text under test is otherwise silent. */
#define OPEN "listener 1884\nallow_anonymous true\n"

static void defaults_are_as_documented(void **state)
{
    (void)state;
    struct config *config = good("");
    assert_int_equal(config->max_queued_messages, 10000);
    assert_int_equal(config->max_queued_bytes, 33554432);
    assert_int_equal(config->max_inflight_messages, 100);
    assert_true(config->max_inflight_bytes == CONFIG_UNLIMITED_BYTES);
    assert_int_equal(config->receive_maximum, 65535);
    assert_int_equal(config->max_packet_size, 16777216);
    assert_int_equal(config->message_size_limit, 268435455);
    assert_int_equal(config->max_keepalive_s, 65535);
    assert_int_equal(config->max_subscriptions, 10000);
    assert_int_equal(config->max_topic_levels, 128);
    assert_true(config->retain_available);
    assert_true(config->persistent_client_expiration_s == UINT64_MAX);
    assert_null(config->clientid_prefixes);
    assert_null(config->response_information);
    assert_false(config->persistence);
    assert_null(config->persistence_location);
    assert_int_equal(config->connect_timeout_s, 10);
    assert_int_equal(config->handshake_timeout_s, 10);
    assert_int_equal(config->websocket_ping_interval_s, 25);
    assert_int_equal(config->websockets_headers_size, 8192);
    assert_int_equal(config->sys_interval_s, 10);
    assert_true(config->set_tcp_nodelay);
    assert_false(config->queue_qos0_messages);
    assert_false(config->upgrade_outgoing_qos);
    assert_null(config->pid_file);
    assert_null(config->user);
    assert_int_equal(config->log.destinations, LOG_TO_STDERR);
    assert_int_equal(config->log.types, LOG_TYPES_DEFAULT);
    assert_int_equal(config->log.format, LOG_FORMAT_PLAIN);
    assert_true(config->log.timestamp);
    assert_true(config->log.connection_messages);
    config_destroy(config);
}

static void no_listener_means_loopback_with_anonymous(void **state)
{
    (void)state;
    struct config *config = good("max_queued_messages 5\n");
    assert_int_equal(config->listener_count, 2);
    assert_string_equal(config->listeners[0].host, "127.0.0.1");
    assert_string_equal(config->listeners[1].host, "::1");
    assert_false(config->listeners[0].optional);
    assert_true(config->listeners[1].optional);
    for (size_t i = 0; i < 2; i++) {
        const struct config_listener *listener = &config->listeners[i];
        assert_int_equal(listener->port, 1883);
        assert_true(listener->local_only);
        assert_true(listener->allow_anonymous);
        assert_true(listener->allow_zero_length_clientid);
        assert_string_equal(listener->auto_id_prefix, "auto-");
        assert_int_equal(listener->protocol, CONFIG_PROTOCOL_DEFAULT);
        assert_int_equal(listener->max_qos, 2);
        assert_int_equal(listener->max_topic_alias, 10);
        assert_true(listener->max_connections == CONFIG_UNLIMITED);
        assert_int_equal(listener->certificate_count, 0);
    }
    config_destroy(config);

    check_reports("allow_anonymous false\n", STATUS_OK,
                  "W0: nobody can log in on listener 127.0.0.1:1883: set \"password_file\", or "
                  "\"allow_anonymous true\" "
                  "to let clients in without a password\n"
                  "W0: nobody can log in on listener [::1]:1883: set \"password_file\", or "
                  "\"allow_anonymous true\" "
                  "to let clients in without a password\n");
}

/* Settings without a listener apply to the loopback pair and open nothing else. */
static void listener_keys_without_listener_stay_on_loopback(void **state)
{
    (void)state;
    struct config *config = good("max_connections 7\nprotocol mqtt\n");
    assert_int_equal(config->listener_count, 2);
    assert_string_equal(config->listeners[0].host, "127.0.0.1");
    assert_int_equal(config->listeners[0].max_connections, 7);
    assert_int_equal(config->listeners[1].protocol, CONFIG_PROTOCOL_MQTT);
    config_destroy(config);
}

static void explicit_listener_lets_nobody_in(void **state)
{
    (void)state;
    struct config *config;
    assert_int_equal(parse("\nlistener 1884\n", &config), STATUS_OK);
    assert_string_equal(reports.text, "W2: nobody can log in on listener *:1884: set "
                                      "\"password_file\", or \"allow_anonymous true\" to "
                                      "let clients in without a password\n");
    assert_int_equal(config->listener_count, 1);
    assert_false(config->listeners[0].allow_anonymous);
    assert_false(config->listeners[0].local_only);
    assert_int_equal(config->listeners[0].line, 2);
    assert_string_equal(config->listeners[0].file, "dunlin.conf");
    config_destroy(config);

    /* On loopback too, once a listener is written down. */
    assert_int_equal(parse("listener 1884 127.0.0.1\n", &config), STATUS_OK);
    assert_false(config->listeners[0].allow_anonymous);
    config_destroy(config);
}

static void listener_keys_apply_to_the_last_listener(void **state)
{
    (void)state;
    struct config *config = good("allow_anonymous true\n"
                                 "listener 1884 127.0.0.1\n"
                                 "max_connections 10\n"
                                 "protocol mqtt\n"
                                 "max_qos 1\n"
                                 "listener 0 /run/dunlin/mqtt socket\n"
                                 "max_topic_alias 0\n"
                                 "max_connections -1\n"
                                 "listener 8080 ::1\n"
                                 "protocol websockets\n"
                                 "socket_domain ipv6\n"
                                 "websockets_origin https://a.example\n"
                                 "websockets_origin https://b.example\n"
                                 "listener 0 127.0.0.1\n");
    assert_int_equal(config->listener_count, 4);
    const struct config_listener *l = config->listeners;
    assert_string_equal(l[0].host, "127.0.0.1");
    assert_int_equal(l[0].port, 1884);
    assert_int_equal(l[0].max_connections, 10);
    assert_int_equal(l[0].protocol, CONFIG_PROTOCOL_MQTT);
    assert_int_equal(l[0].max_qos, 1);
    assert_int_equal(l[0].websockets_origin_count, 0);
    assert_null(l[1].host);
    assert_string_equal(l[1].unix_path, "/run/dunlin/mqtt socket");
    assert_int_equal(l[1].port, 0);
    assert_int_equal(l[1].max_qos, 2);
    assert_int_equal(l[1].max_topic_alias, 0);
    assert_true(l[1].max_connections == CONFIG_UNLIMITED);
    assert_int_equal(l[2].protocol, CONFIG_PROTOCOL_WEBSOCKETS);
    assert_int_equal(l[2].family, CONFIG_FAMILY_IPV6);
    assert_int_equal(l[2].websockets_origin_count, 2);
    assert_string_equal(l[2].websockets_origins[0], "https://a.example");
    assert_string_equal(l[2].websockets_origins[1], "https://b.example");
    assert_int_equal(l[3].port, 0);
    assert_string_equal(l[3].host, "127.0.0.1");
    config_destroy(config);
}

static void default_listener_of_port_and_bind_address(void **state)
{
    (void)state;
    struct config *config = good("bind_address 10.1.2.3\nport 1885\nallow_anonymous true\n");
    assert_int_equal(config->listener_count, 1);
    assert_string_equal(config->listeners[0].host, "10.1.2.3");
    assert_int_equal(config->listeners[0].port, 1885);
    assert_true(config->listeners[0].allow_anonymous);
    config_destroy(config);

    config = good("max_connections 3\nallow_anonymous true\nport 1885\nlistener 1886\n");
    assert_int_equal(config->listener_count, 2);
    assert_int_equal(config->listeners[0].port, 1885);
    assert_null(config->listeners[0].host);
    assert_int_equal(config->listeners[0].max_connections, 3);
    assert_int_equal(config->listeners[1].port, 1886);
    assert_true(config->listeners[1].max_connections == CONFIG_UNLIMITED);
    config_destroy(config);
}

static void early_listener_key_is_a_warning(void **state)
{
    (void)state;
    check_reports("\nmax_connections 3\n" OPEN, STATUS_OK,
                  "W2: \"max_connections\" stands before the first \"listener\" and has no effect; "
                  "it belongs below the listener that it is for\n");
}

static void access_settings_follow_per_listener_settings(void **state)
{
    (void)state;
    struct config *config = good("listener 1884\n"
                                 "listener 1885\n"
                                 "allow_anonymous true\n"
                                 "auto_id_prefix x-\n"
                                 "allow_zero_length_clientid false\n"
                                 "password_file /etc/pass words\n"
                                 "acl_file acl\n");
    for (size_t i = 0; i < 2; i++) {
        assert_true(config->listeners[i].allow_anonymous);
        assert_false(config->listeners[i].allow_zero_length_clientid);
        assert_string_equal(config->listeners[i].auto_id_prefix, "x-");
        assert_string_equal(config->listeners[i].password_file, "/etc/pass words");
        assert_string_equal(config->listeners[i].acl_file, "acl");
    }
    config_destroy(config);

    assert_int_equal(parse("per_listener_settings true\n"
                           "listener 1884\n"
                           "listener 1885\n"
                           "allow_anonymous true\n"
                           "auto_id_prefix x-\n"
                           "listener 1886\n"
                           "password_file pw\n"
                           "acl_file acl\n",
                           &config),
                     STATUS_OK);
    assert_string_equal(reports.text, "W2: nobody can log in on listener *:1884: set "
                                      "\"password_file\", or \"allow_anonymous true\" to "
                                      "let clients in without a password\n");
    assert_false(config->listeners[0].allow_anonymous);
    assert_true(config->listeners[1].allow_anonymous);
    assert_string_equal(config->listeners[0].auto_id_prefix, "auto-");
    assert_string_equal(config->listeners[1].auto_id_prefix, "x-");
    assert_null(config->listeners[1].password_file);
    assert_null(config->listeners[1].acl_file);
    assert_string_equal(config->listeners[2].password_file, "pw");
    assert_string_equal(config->listeners[2].acl_file, "acl");
    config_destroy(config);
}

static void values_of_every_kind(void **state)
{
    (void)state;
    struct config *config = good("\xEF\xBB\xBF# a comment after a byte order mark\n"
                                 "  \t\r\n"
                                 "   # an indented comment\r\n"
                                 "max_queued_messages\t0\r\n"
                                 "max_queued_bytes 0\n"
                                 "max_inflight_messages 0\n"
                                 "max_inflight_bytes 9000000000\n"
                                 "  max_packet_size   20  \n"
                                 "message_size_limit 0\n"
                                 "max_keepalive 0\n"
                                 "max_subscriptions 0\n"
                                 "websockets_headers_size 0\n"
                                 "persistent_client_expiration 14d\n"
                                 "retain_available false\n"
                                 "queue_qos0_messages true\n"
                                 "clientid_prefixes two words # and this\n"
                                 "response_information reply/%c\n"
                                 "persistence true\n"
                                 "persistence_location /var/lib/dunlin\n"
                                 "persistence_file d.db\n"
                                 "pid_file /run/dunlin.pid\n"
                                 "user dunlin\n"
                                 "check_retain_source false\n"
                                 "allow_duplicate_messages true\n"
                                 "websocket_ping_interval 0\n"
                                 "receive_maximum 65535");
    assert_true(config->max_queued_messages == CONFIG_UNLIMITED);
    assert_true(config->max_queued_bytes == CONFIG_UNLIMITED_BYTES);
    assert_int_equal(config->max_inflight_messages, 65535);
    assert_int_equal(config->max_inflight_bytes, 9000000000);
    assert_int_equal(config->max_packet_size, 20);
    assert_int_equal(config->message_size_limit, 268435455);
    assert_int_equal(config->max_keepalive_s, 65535);
    assert_true(config->max_subscriptions == CONFIG_UNLIMITED);
    assert_int_equal(config->websockets_headers_size, 8192);
    assert_int_equal(config->persistent_client_expiration_s, 14 * 86400);
    assert_false(config->retain_available);
    assert_true(config->queue_qos0_messages);
    assert_string_equal(config->clientid_prefixes, "two words # and this");
    assert_string_equal(config->response_information, "reply/%c");
    assert_true(config->persistence);
    assert_string_equal(config->persistence_location, "/var/lib/dunlin");
    assert_string_equal(config->persistence_file, "d.db");
    assert_string_equal(config->pid_file, "/run/dunlin.pid");
    assert_string_equal(config->user, "dunlin");
    assert_int_equal(config->websocket_ping_interval_s, 0);
    assert_int_equal(config->receive_maximum, 65535);
    config_destroy(config);
}

static void durations_have_mosquittos_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t seconds;
    } cases[] = {
        {"persistent_client_expiration 1h", 3600},     {"persistent_client_expiration 2d", 172800},
        {"persistent_client_expiration 1w", 604800},   {"persistent_client_expiration 2m", 5184000},
        {"persistent_client_expiration 1y", 31536000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config *config = good(cases[i].text);
        assert_int_equal(config->persistent_client_expiration_s, cases[i].seconds);
        config_destroy(config);
    }
    static const char *const bad[] = {
        "14", "d", "0d", "-1d", "1s", "1dd", "99999999999999999h", "999999999999999999999d"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[128];
        char expected[256];
        (void)snprintf(text, sizeof text, "persistent_client_expiration %s\n", bad[i]);
        (void)snprintf(expected, sizeof expected,
                       "E1: bad value \"%s\" for \"persistent_client_expiration\": expected a "
                       "number of at least 1 and one of h, d, w, m, y (hours, days, weeks, months, "
                       "years)\n",
                       bad[i]);
        check_error(text, expected);
    }
}

static void log_settings(void **state)
{
    (void)state;
    struct config *config = good("log_dest stdout\n"
                                 "log_dest file /var/log/dunlin/a b.log\n"
                                 "log_type error\n"
                                 "log_type subscribe\n"
                                 "log_timestamp false\n"
                                 "log_timestamp_format %H:%M:%S\n"
                                 "log_format json\n"
                                 "connection_messages false\n");
    assert_int_equal(config->log.destinations, LOG_TO_STDOUT | LOG_TO_FILE);
    assert_string_equal(config->log.file_path, "/var/log/dunlin/a b.log");
    assert_int_equal(config->log.types, LOG_TYPE_ERROR | LOG_TYPE_SUBSCRIBE);
    assert_false(config->log.timestamp);
    assert_string_equal(config->log.timestamp_format, "%H:%M:%S");
    assert_int_equal(config->log.format, LOG_FORMAT_JSON);
    assert_false(config->log.connection_messages);
    config_destroy(config);

    config = good("log_dest none\nlog_type all\n");
    assert_int_equal(config->log.destinations, 0);
    assert_int_equal(config->log.types, LOG_TYPES_ALL);
    config_destroy(config);

    config = good("log_type none\n");
    assert_int_equal(config->log.types, LOG_TYPES_NONE);
    config_destroy(config);

    check_reports("log_dest syslog\n", STATUS_OK,
                  "W1: \"log_dest syslog\" is known but not served yet and has no effect\n");
    check_error(
        "log_dest\nlog_dest file\nlog_dest stderr stdout\nlog_dest paper\n"
        "log_dest file a\nlog_dest file b\nlog_type loud\nlog_format xml\n"
        "log_timestamp_format %n\n",
        "E1: \"log_dest\" needs a value\n"
        "E2: bad value \"file\" for \"log_dest\": expected the path of a file after "
        "\"file\"\n"
        "E3: bad value \"stderr stdout\" for \"log_dest\": expected one destination on "
        "each line\n"
        "E4: bad value \"paper\" for \"log_dest\": expected stderr, stdout, file and a "
        "path, or none\n"
        "E6: only one \"log_dest file\" is possible\n"
        "E7: bad value \"loud\" for \"log_type\": expected error, warning, notice, "
        "information, debug, subscribe, unsubscribe, websockets, all or none\n"
        "E8: bad value \"xml\" for \"log_format\": expected plain or json\n"
        "E9: bad value \"%n\" for \"log_timestamp_format\": expected a strftime format that "
        "gives at most 63 characters\n");
}

static void all_errors_are_reported_with_line_and_hint(void **state)
{
    (void)state;
    check_error("# first\n"
                "max_conections 3\n"
                "alow_anonymous true\n"
                "LISTENER 1883\n"
                "colour blue\n"
                "max_qos 3\n"
                "max_keepalive 5\n"
                "retain_available yes\n"
                "max_packet_size 100k\n"
                "max_queued_messages\n"
                "max_queued_bytes 99999999999999999999\n"
                "max_queued_messages 10 # ten\n"
                "protocol smtp\n"
                "max_connections -2\n"
                "pid_file a\n"
                "pid_file b\n"
                "check_retain_source maybe\n",
                "E2: unknown key \"max_conections\"; did you mean \"max_connections\"?\n"
                "E3: unknown key \"alow_anonymous\"; did you mean \"allow_anonymous\"?\n"
                "E4: unknown key \"LISTENER\"; did you mean \"listener\"?\n"
                "E5: unknown key \"colour\"\n"
                "E6: bad value \"3\" for \"max_qos\": expected a number from 0 to 2\n"
                "E7: bad value \"5\" for \"max_keepalive\": expected 0 or a number from 10 to "
                "65535\n"
                "E8: bad value \"yes\" for \"retain_available\": expected true or false\n"
                "E9: bad value \"100k\" for \"max_packet_size\": expected a number from 20 to "
                "268435455\n"
                "E10: \"max_queued_messages\" needs a value\n"
                "E11: bad value \"99999999999999999999\" for \"max_queued_bytes\": expected a "
                "number from 0 to 9223372036854775807\n"
                "E12: bad value \"10 # ten\" for \"max_queued_messages\": expected a number from 0 "
                "to 2147483647; a comment needs a line of its own that begins with '#'\n"
                "E13: bad value \"smtp\" for \"protocol\": expected any or mqtt or stomp or "
                "websockets\n"
                "E14: bad value \"-2\" for \"max_connections\": expected a number from -1 to "
                "2147483647\n"
                "E16: \"pid_file\" is given a second time\n"
                "E17: bad value \"maybe\" for \"check_retain_source\": expected true or false\n");
}

static void bad_listeners_are_reported(void **state)
{
    (void)state;
    char long_path[256];
    memset(long_path, 'x', sizeof long_path);
    (void)snprintf(long_path, sizeof long_path, "allow_anonymous true\nlistener 0 /%0200d\n", 0);
    check_error(long_path, "E2: the path of the Unix socket is longer than 107 bytes\n");
    check_error("allow_anonymous true\n"
                "listener\n"
                "listener 65536\n"
                "listener mqtt\n"
                "listener 1883 /run/x\n"
                "listener 0\n"
                "listener 1883 two words\n"
                "port 0\n"
                "bind_address two words\n"
                "bind_address a\n"
                "bind_address b\n",
                "E2: \"listener\" needs a value\n"
                "E3: bad value \"65536\" for \"listener\": expected a port from 0 to 65535 and "
                "perhaps an address\n"
                "E4: bad value \"mqtt\" for \"listener\": expected a port from 0 to 65535 and "
                "perhaps an address\n"
                "E5: a listener on a Unix socket needs port 0: listener 0 /run/x\n"
                "E6: a listener on port 0 needs the path of a Unix socket or an address\n"
                "E7: bad address \"two words\" for \"listener\"\n"
                "E8: bad value \"0\" for \"port\": expected a port from 1 to 65535\n"
                "E9: bad value \"two words\" for \"bind_address\": expected an address or a host "
                "name\n"
                "E11: \"bind_address\" is given a second time\n");
}

static void hostile_text_is_shown_escaped(void **state)
{
    (void)state;
    check_error("a\x1b[2Jb\"\xff\n", "E1: unknown key \"a\\u001b[2Jb\\\"\\ufffd\"\n");
    struct config *config;
    reports = (struct reports){.len = 0};
    static const char nul[] = "user a\0b\n";
    assert_int_equal(config_parse(bytes_of(nul, sizeof nul - 1), "x", collect, &reports, &config),
                     STATUS_INVALID);
    assert_string_equal(reports.text, "E1: the line contains a NUL character\n");

    static char text[CONFIG_LINE_BYTES_MAX + 64];
    memset(text, 'u', sizeof text - 1);
    check_error(text, "E1: the line is longer than 4096 bytes\n");
    text[100] = '\0';
    check_error(text, "E1: unknown key \"uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu...\"\n");
}

static void tls_pairs_and_their_rules(void **state)
{
    (void)state;
    struct config *config = good(OPEN "certfile a.pem\nkeyfile a.key\ncertfile b.pem\n"
                                      "certfile c.pem\nkeyfile b.key\nkeyfile c.key\n"
                                      "cafile ca.pem\ncrlfile crl.pem\nrequire_certificate true\n"
                                      "use_identity_as_username true\ntls_version tlsv1.2\n");
    const struct config_listener *listener = &config->listeners[0];
    assert_int_equal(listener->certificate_count, 3);
    assert_string_equal(listener->certificates[0].certfile, "a.pem");
    assert_string_equal(listener->certificates[0].keyfile, "a.key");
    assert_string_equal(listener->certificates[1].certfile, "b.pem");
    assert_string_equal(listener->certificates[1].keyfile, "b.key");
    assert_string_equal(listener->certificates[2].certfile, "c.pem");
    assert_string_equal(listener->certificates[2].keyfile, "c.key");
    assert_string_equal(listener->cafile, "ca.pem");
    assert_string_equal(listener->crlfile, "crl.pem");
    assert_true(listener->require_certificate);
    assert_true(listener->use_identity_as_username);
    config_destroy(config);

    /* A certificate is a way in: no warning without anonymous clients. */
    config_destroy(good("listener 8883\ncertfile a\nkeyfile b\ncafile c\nrequire_certificate true\n"
                        "use_subject_as_username true\n"));

    check_error(
        OPEN "certfile a\n",
        "E1: this listener has 1 \"certfile\" and 0 \"keyfile\"; each certificate needs its "
        "key\n");
    check_error(
        OPEN "keyfile a\n",
        "E1: this listener has 0 \"certfile\" and 1 \"keyfile\"; each certificate needs its "
        "key\n");
    check_error(OPEN "require_certificate true\n",
                "E1: this listener has \"require_certificate\" but no \"certfile\" and "
                "\"keyfile\"; it would not be encrypted\n");
    check_error(OPEN "cafile x\n", "E1: this listener has \"cafile\" but no \"certfile\" and "
                                   "\"keyfile\"; it would not be encrypted\n");
    check_error(OPEN "certfile a\nkeyfile b\nrequire_certificate true\n",
                "E1: this listener has \"require_certificate\" but no \"cafile\" to check "
                "certificates with\n");
    check_error(OPEN "certfile a\nkeyfile b\ncrlfile c\n",
                "E1: this listener has \"crlfile\" but no \"cafile\" to check certificates with\n");
    check_error(OPEN "certfile a\nkeyfile b\ncafile c\nuse_identity_as_username true\n",
                "E1: \"use_identity_as_username\" needs \"require_certificate true\"\n");
    check_error(OPEN "tls_version tlsv1.3\n",
                "E3: \"tls_version tlsv1.3\" is not served yet; refusing to start without it: "
                "clients would be let in with TLS 1.2\n");
    check_error(OPEN "tls_version ssl3\n", "E3: bad value \"ssl3\" for \"tls_version\": expected "
                                           "tlsv1.2 or tlsv1.3\n");
    check_reports(OPEN "tls_version tlsv1.1\n", STATUS_OK,
                  "W3: TLS below 1.2 is not served; the lowest version is tlsv1.2\n");
}

static void known_keys_warn_or_refuse(void **state)
{
    (void)state;
    check_reports(OPEN "persistence false\n", STATUS_OK, "");
    check_reports(OPEN "persistence maybe\n", STATUS_INVALID,
                  "E3: bad value \"maybe\" for \"persistence\": expected true or false\n");
    check_reports(
        OPEN "memory_limit 1\nconnection cloud\naddress a:1883\ntopic # both 2\n"
             "remote_password secret\nauth_opt_host x\nautosave_interval 5\nhttp_dir x\n",
        STATUS_OK,
        "W3: \"memory_limit\" is known but not served yet and has no effect\n"
        "W4: \"connection\" is known but not served yet and has no effect: there are no "
        "bridges\n"
        "W5: \"address\" is known but not served yet and has no effect: there are no "
        "bridges\n"
        "W6: \"topic\" is known but not served yet and has no effect: there are no "
        "bridges\n"
        "W7: \"remote_password\" is known but not served yet and has no effect: there are "
        "no bridges\n"
        "W8: \"auth_opt_*\" is known but not served yet and has no effect\n"
        "W10: \"http_dir\" is known but not served yet and has no effect: no files are "
        "served\n");
    static const char *const refused[] = {"mount_point", "plugin",   "psk_file",
                                          "auth_plugin", "psk_hint", "global_plugin"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char text[128];
        char expected[128];
        struct config *config;
        (void)snprintf(text, sizeof text, OPEN "%s x\n", refused[i]);
        (void)snprintf(expected, sizeof expected,
                       "E3: \"%s\" is not served yet; refusing to start without it: ", refused[i]);
        assert_int_equal(parse(text, &config), STATUS_INVALID);
        assert_null(config);
        assert_int_equal(strncmp(reports.text, expected, strlen(expected)), 0);
    }
}

/* Every key that the product promises to know. */
static void promised_keys_are_known(void **state)
{
    (void)state;
    static const char keys[] =
        "listener protocol allow_anonymous password_file acl_file certfile keyfile cafile "
        "require_certificate use_identity_as_username use_subject_as_username crlfile persistence "
        "persistence_location max_queued_messages max_queued_bytes max_inflight_messages "
        "max_packet_size message_size_limit max_connections max_keepalive "
        "persistent_client_expiration retain_available max_qos max_topic_alias mount_point "
        "http_dir websockets_origin websockets_headers_size enable_proxy_protocol log_dest "
        "log_type log_timestamp_format connection_messages include_dir sys_interval pid_file user "
        "per_listener_settings clientid_prefixes queue_qos0_messages upgrade_outgoing_qos "
        "bind_address port connection address topic auth_opt_x plugin_opt_y";
    struct bytes rest = bytes_of_string(keys);
    for (struct bytes name; (name = config_word(&rest)).len != 0;) {
        if (config_key_find(name) == NULL) {
            fail_msg("%.*s is not in the table", (int)name.len, (const char *)name.data);
        }
    }
}

static void the_table_is_consistent(void **state)
{
    (void)state;
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        assert_ptr_equal(config_key_find(bytes_of_string(key->name)), key);
        assert_true(key->type != CONFIG_TYPE_CUSTOM || key->set != NULL);
        assert_true(key->type != CONFIG_TYPE_CHOICE || key->choices != NULL);
        assert_true(key->support != CONFIG_REFUSED || key->remark != NULL);
        if (key->type == CONFIG_TYPE_U32 || key->type == CONFIG_TYPE_U64) {
            assert_true(key->min < key->max);
            assert_true(key->initial == -1 ||
                        (key->initial >= key->min && key->initial <= key->max));
        }
    }
}

static void nearest_key(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"lisetner", "listener"}, /* swapped neighbours */
        {"certifile", "certfile"},
        {"prot", "port"},
        {"max_queue_mesages", "max_queued_messages"},
        {"foo", NULL},
        {"", NULL},
        {"wholly_different_thing", NULL},
        {"a_name_that_is_longer_than_every_key_that_there_is_by_far", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct config_key *key = config_key_nearest(bytes_of_string(cases[i][0]));
        if (cases[i][1] == NULL) {
            assert_null(key);
        } else {
            assert_non_null(key);
            assert_string_equal(key->name, cases[i][1]);
        }
    }
}

static void loopback_names(void **state)
{
    (void)state;
    assert_true(config_host_is_loopback("localhost"));
    assert_true(config_host_is_loopback("127.0.0.1"));
    assert_true(config_host_is_loopback("127.3.2.1"));
    assert_true(config_host_is_loopback("::1"));
    assert_false(config_host_is_loopback("127.evil.example"));
    assert_false(config_host_is_loopback("0.0.0.0"));
    assert_false(config_host_is_loopback("::"));
    assert_false(config_host_is_loopback("*"));
}

static void listener_names(void **state)
{
    (void)state;
    char name[64];
    config_listener_name(&(struct config_listener){.port = 1}, name, sizeof name);
    assert_string_equal(name, "*:1");
    config_listener_name(&(struct config_listener){.host = "::1", .port = 2}, name, sizeof name);
    assert_string_equal(name, "[::1]:2");
    config_listener_name(&(struct config_listener){.host = "h", .port = 3}, name, sizeof name);
    assert_string_equal(name, "h:3");
    config_listener_name(&(struct config_listener){.unix_path = "/a"}, name, sizeof name);
    assert_string_equal(name, "unix:/a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_as_documented),
        cmocka_unit_test(no_listener_means_loopback_with_anonymous),
        cmocka_unit_test(listener_keys_without_listener_stay_on_loopback),
        cmocka_unit_test(explicit_listener_lets_nobody_in),
        cmocka_unit_test(listener_keys_apply_to_the_last_listener),
        cmocka_unit_test(default_listener_of_port_and_bind_address),
        cmocka_unit_test(early_listener_key_is_a_warning),
        cmocka_unit_test(access_settings_follow_per_listener_settings),
        cmocka_unit_test(values_of_every_kind),
        cmocka_unit_test(durations_have_mosquittos_units),
        cmocka_unit_test(log_settings),
        cmocka_unit_test(all_errors_are_reported_with_line_and_hint),
        cmocka_unit_test(bad_listeners_are_reported),
        cmocka_unit_test(hostile_text_is_shown_escaped),
        cmocka_unit_test(tls_pairs_and_their_rules),
        cmocka_unit_test(known_keys_warn_or_refuse),
        cmocka_unit_test(promised_keys_are_known),
        cmocka_unit_test(the_table_is_consistent),
        cmocka_unit_test(nearest_key),
        cmocka_unit_test(loopback_names),
        cmocka_unit_test(listener_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
