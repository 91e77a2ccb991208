#include "options.h"

#include <stdio.h>
#include <string.h>

#include "config_keys.h"

static const char help_text[] =
    "Dunlin " DUNLIN_VERSION ", an MQTT broker for browsers and devices\n"
    "\n"
    "Usage: dunlin [-c FILE] [-p PORT]... [--listen [HOST:]PORT]... [--persistence DIRECTORY]\n"
    "              [-v] [-d]\n"
    "       dunlin [-c FILE] --check-config\n"
    "       dunlin passwd FILE USER\n"
    "       dunlin store check|dump|compact [FILE|DIRECTORY]\n"
    "\n"
    "  -c, --config FILE       read the configuration from FILE (mosquitto.conf's syntax)\n"
    "  -p, --port PORT         listen on PORT of this machine only (127.0.0.1 and ::1)\n"
    "      --listen [HOST:]PORT\n"
    "                          listen on PORT of HOST; an IPv6 address in brackets, * for all\n"
    "                          interfaces, port 0 for one that the system chooses\n"
    "      --persistence DIRECTORY\n"
    "                          keep sessions and messages in DIRECTORY: what is acknowledged\n"
    "                          survives (persistence and persistence_location in FILE)\n"
    "  -v, --verbose           log everything, whatever the configuration says\n"
    "  -d, --daemon            run in the background\n"
    "      --check-config      report what is wrong with the configuration and leave\n"
    "  -h, --help              show this text\n"
    "  -V, --version           show the version\n"
    "\n"
    "Each listener speaks MQTT 3.1, 3.1.1 and 5.0, directly and over WebSocket, on one port.\n"
    "With no listener in FILE and none here, Dunlin listens on port 1883 of this machine\n"
    "only. There, clients need no user name; elsewhere nobody is let in until the\n"
    "configuration says \"allow_anonymous true\", or names a password file or client\n"
    "certificates. \"dunlin passwd\" makes a password file (dunlin passwd --help).\n"
    "-p and --listen may be given up to 16 times and add to the listeners of FILE.\n"
    "\n"
    "Examples:\n"
    "  dunlin -v                     try it: mqtt://localhost:1883 and ws://localhost:1883\n"
    "  dunlin -c /etc/dunlin/dunlin.conf\n"
    "  dunlin --check-config -c dunlin.conf\n"
    "\n"
    "Exit status: 0 after a clean stop, 64 for a wrong command line, 1 for everything else.\n";

enum option_id {
    OPTION_CONFIG,
    OPTION_PORT,
    OPTION_LISTEN,
    OPTION_PERSISTENCE,
    OPTION_VERBOSE,
    OPTION_DAEMON,
    OPTION_CHECK_CONFIG,
    OPTION_HELP,
    OPTION_VERSION,
};

struct option_row {
    const char *name;
    char letter; /* '\0': none */
    bool has_argument;
    enum option_id id;
};

static const struct option_row rows[] = {
    {"config", 'c', true, OPTION_CONFIG},
    {"port", 'p', true, OPTION_PORT},
    {"listen", '\0', true, OPTION_LISTEN},
    {"persistence", '\0', true, OPTION_PERSISTENCE},
    {"verbose", 'v', false, OPTION_VERBOSE},
    {"daemon", 'd', false, OPTION_DAEMON},
    {"check-config", '\0', false, OPTION_CHECK_CONFIG},
    {"help", 'h', false, OPTION_HELP},
    {"version", 'V', false, OPTION_VERSION},
};

/*
 * The row that `word` names: "--name", "--name=value" or "-n". *value is what follows the '=', or
 * NULL. A row may be NULL.
 */
static const struct option_row *find_row(const char *word, const char **value)
{
    *value = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct option_row *row = &rows[i];
        if (word[0] == '-' && word[1] != '\0' && word[1] == row->letter && word[2] == '\0') {
            return row;
        }
        size_t len = strlen(row->name);
        if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, row->name, len) != 0) {
            continue;
        }
        if (word[2 + len] == '\0') {
            return row;
        }
        if (word[2 + len] == '=') {
            *value = word + 2 + len + 1;
            return row;
        }
    }
    return NULL;
}

static enum options_result mistake(FILE *to_err, const char *what, const char *word)
{
    struct config_shown shown;
    (void)fprintf(to_err, "dunlin: %s \"%s\"; see dunlin --help\n", what,
                  config_show(&shown, bytes_of_string(word)));
    return OPTIONS_EXIT_USAGE;
}

/* "PORT", "HOST:PORT" or "[ADDRESS]:PORT". */
static bool parse_address(const char *text, struct config_address *out)
{
    const char *colon = strrchr(text, ':');
    const char *port = colon == NULL ? text : colon + 1;
    struct bytes host = bytes_of(text, colon == NULL ? 0 : (size_t)(colon - text));
    int64_t number;
    if (!config_number(bytes_of_string(port), &number) || number < 0 || number > UINT16_MAX) {
        return false;
    }
    bool bracketed = host.len > 2 && host.data[0] == '[' && host.data[host.len - 1] == ']';
    if (bracketed) {
        host = bytes_of(host.data + 1, host.len - 2);
    } else if (host.len != 0 && memchr(host.data, ':', host.len) != NULL) {
        return false; /* "::1:1883" could be an address without a port */
    }
    if ((colon != NULL && host.len == 0) || host.len > CONFIG_HOST_MAX) {
        return false;
    }
    *out = (struct config_address){.port = (uint16_t)number};
    bytes_copy(out->host, host);
    return true;
}

static enum options_result add_address(struct options *options, const struct option_row *row,
                                       const char *value, FILE *to_err)
{
    struct config_address address;
    ENSURE(value != NULL);
    if (!parse_address(value, &address)) {
        return mistake(to_err,
                       row->id == OPTION_PORT ? "-p needs a port from 1 to 65535, not"
                                              : "--listen needs [HOST:]PORT, not",
                       value);
    }
    if (row->id == OPTION_PORT && (address.host[0] != '\0' || address.port == 0)) {
        return mistake(to_err, "-p needs a port from 1 to 65535, not", value);
    }
    if (options->address_count == OPTIONS_ADDRESSES_MAX) {
        return mistake(to_err, "more than 16 listeners on the command line:", value);
    }
    options->addresses[options->address_count++] = address;
    return OPTIONS_RUN;
}

static enum options_result apply(struct options *options, const struct option_row *row,
                                 const char *value, FILE *to_out, FILE *to_err)
{
    switch (row->id) {
    case OPTION_CONFIG:
        options->config_path = value;
        return OPTIONS_RUN;
    case OPTION_PORT:
    case OPTION_LISTEN:
        return add_address(options, row, value, to_err);
    case OPTION_PERSISTENCE:
        options->persistence = value;
        return OPTIONS_RUN;
    case OPTION_VERBOSE:
        options->verbose = true;
        return OPTIONS_RUN;
    case OPTION_DAEMON:
        options->daemonise = true;
        return OPTIONS_RUN;
    case OPTION_CHECK_CONFIG:
        options->check_config = true;
        return OPTIONS_RUN;
    case OPTION_HELP:
        (void)fputs(help_text, to_out);
        return OPTIONS_EXIT_OK;
    case OPTION_VERSION:
        (void)fputs("dunlin " DUNLIN_VERSION "\n", to_out);
        return OPTIONS_EXIT_OK;
    }
    return OPTIONS_EXIT_USAGE;
}

enum options_result options_parse(int argc, char *const argv[], struct options *out, FILE *to_out,
                                  FILE *to_err)
{
    *out = (struct options){.config_path = NULL};
    for (int i = 1; i < argc; i++) {
        const char *value;
        const char *word = argv[i];
        const struct option_row *row = find_row(word, &value);
        if (row == NULL) {
            return mistake(to_err, word[0] == '-' ? "unknown option" : "unexpected argument", word);
        }
        if (!row->has_argument && value != NULL) {
            return mistake(to_err, "this option takes no value:", word);
        }
        if (row->has_argument && value == NULL) {
            if (i + 1 == argc) {
                return mistake(to_err, "a value is missing after", word);
            }
            value = argv[++i];
        }
        enum options_result result = apply(out, row, value, to_out, to_err);
        if (result != OPTIONS_RUN) {
            return result;
        }
    }
    return OPTIONS_RUN;
}

void options_apply(const struct options *options, struct config *config)
{
    if (options->verbose) {
        config->log.types = LOG_TYPES_ALL;
    }
    if (options->persistence != NULL) {
        config->persistence = true;
        config->persistence_location = options->persistence;
    }
}
