#include <ctype.h>
#include <stdio.h>
#include <time.h>

#include "config_keys.h"
#include "utf8.h"

enum {
    UNIX_PATH_MAX = 107, /* sun_path without its NUL */
    SECONDS_PER_HOUR = 3600,
    HOURS_PER_DAY = 24,
    HOURS_PER_WEEK = 7 * HOURS_PER_DAY,
    HOURS_PER_MONTH = 30 * HOURS_PER_DAY, /* as mosquitto counts */
    HOURS_PER_YEAR = 365 * HOURS_PER_DAY,
};

/* Words and numbers */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

struct bytes config_trim(struct bytes text)
{
    while (text.len != 0 && is_blank(text.data[0])) {
        text = bytes_from(text, 1);
    }
    while (text.len != 0 && is_blank(text.data[text.len - 1])) {
        text.len--;
    }
    return text;
}

struct bytes config_word(struct bytes *rest)
{
    struct bytes text = config_trim(*rest);
    size_t len = 0;
    while (len < text.len && !is_blank(text.data[len])) {
        len++;
    }
    *rest = config_trim(bytes_from(text, len));
    return bytes_of(text.data, len);
}

/* Reads the digits at the start of *text; false when there are none or the number passes INT64_MAX.
 */
static bool take_digits(struct bytes *text, int64_t *out)
{
    int64_t number = 0;
    size_t len = 0;
    for (; len < text->len && isdigit(text->data[len]) != 0; len++) {
        int digit = text->data[len] - '0';
        if (number > (INT64_MAX - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *text = bytes_from(*text, len);
    *out = number;
    return len != 0;
}

bool config_number(struct bytes text, int64_t *out)
{
    bool negative = text.len != 0 && text.data[0] == '-';
    struct bytes digits = bytes_from(text, negative ? 1 : 0);
    int64_t number;
    if (!take_digits(&digits, &number) || digits.len != 0) {
        return false;
    }
    *out = negative ? -number : number;
    return true;
}

const char *config_show(struct config_shown *shown, struct bytes text)
{
    enum { KEPT_MAX = 48 }; /* bytes of a value that are worth repeating */
    uint8_t escaped[LOG_TEXT_MAX];
    struct writer writer = writer_of(escaped, sizeof escaped);
    struct bytes kept = {text.data, text.len > KEPT_MAX ? KEPT_MAX : text.len};
    log_escape(&writer, kept);
    struct bytes all = writer_written(&writer);
    bool cut = text.len > KEPT_MAX || all.len >= sizeof shown->text - 4;
    size_t len = all.len < sizeof shown->text - 4 ? all.len : sizeof shown->text - 4;
    (void)snprintf(shown->text, sizeof shown->text, "%.*s%s", (int)len, (const char *)all.data,
                   cut ? "..." : "");
    return shown->text;
}

/* Says what was expected instead of `value`. */
static void bad_value(struct config_loader *loader, const struct config_key *key,
                      struct bytes value, const char *expected)
{
    struct config_shown shown;
    struct bytes rest = value;
    (void)config_word(&rest);
    bool comment = rest.len != 0 && rest.data[0] == '#';
    config_error(loader, "bad value \"%s\" for \"%s\": expected %s%s", config_show(&shown, value),
                 key->name, expected,
                 comment ? "; a comment needs a line of its own that begins with '#'" : "");
}

/* Where the values go */

static struct config_draft *current_draft(struct config_loader *loader)
{
    return &loader->drafts[loader->current];
}

static void *target(struct config_loader *loader, const struct config_key *key)
{
    switch (key->scope) {
    case CONFIG_SCOPE_GLOBAL:
        return (char *)loader->config + key->offset;
    case CONFIG_SCOPE_LISTENER:
        return (char *)&current_draft(loader)->listener + key->offset;
    case CONFIG_SCOPE_ACCESS:
        return (char *)&current_draft(loader)->access + key->offset;
    case CONFIG_SCOPE_BRIDGE:
        break;
    }
    return NULL;
}

static bool parse_bool(struct config_loader *loader, const struct config_key *key,
                       struct bytes value, bool *out)
{
    *out = bytes_equal_string(value, "true");
    if (*out || bytes_equal_string(value, "false")) {
        return true;
    }
    bad_value(loader, key, value, "true or false");
    return false;
}

static void set_bool(struct config_loader *loader, const struct config_key *key, struct bytes value)
{
    bool flag;
    if (!parse_bool(loader, key, value, &flag) || key->support == CONFIG_NO_EFFECT) {
        return;
    }
    if (key->scope == CONFIG_SCOPE_ACCESS) {
        *(int *)target(loader, key) = flag ? 1 : 0;
        *(int *)((char *)&loader->access + key->offset) = flag ? 1 : 0;
    } else {
        *(bool *)target(loader, key) = flag;
    }
}

static void set_number(struct config_loader *loader, const struct config_key *key,
                       struct bytes value)
{
    int64_t number;
    bool zero_allowed = key->zero != 0;
    bool parsed = config_number(value, &number);
    if (!parsed || ((number < key->min || number > key->max) && !(zero_allowed && number == 0))) {
        char expected[96];
        (void)snprintf(expected, sizeof expected, "%sa number from %lld to %lld",
                       zero_allowed && key->min > 0 ? "0 or " : "", (long long)key->min,
                       (long long)key->max);
        bad_value(loader, key, value, expected);
        return;
    }
    if (number == 0) {
        number = key->zero;
    }
    if (key->type == CONFIG_TYPE_U32) {
        *(uint32_t *)target(loader, key) = (uint32_t)number;
    } else {
        *(uint64_t *)target(loader, key) = (uint64_t)number;
    }
}

static void set_duration(struct config_loader *loader, const struct config_key *key,
                         struct bytes value)
{
    static const struct {
        char letter;
        int64_t hours;
    } units[] = {{'h', 1},
                 {'d', HOURS_PER_DAY},
                 {'w', HOURS_PER_WEEK},
                 {'m', HOURS_PER_MONTH},
                 {'y', HOURS_PER_YEAR}};
    struct bytes unit = value;
    int64_t number;
    if (take_digits(&unit, &number) && number >= 1 && unit.len == 1) {
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            int64_t seconds = units[i].hours * SECONDS_PER_HOUR;
            if (unit.data[0] == (uint8_t)units[i].letter && number <= INT64_MAX / seconds) {
                *(uint64_t *)target(loader, key) = (uint64_t)(number * seconds);
                return;
            }
        }
    }
    bad_value(
        loader, key, value,
        "a number of at least 1 and one of h, d, w, m, y (hours, days, weeks, months, years)");
}

static void set_text(struct config_loader *loader, const struct config_key *key, struct bytes value)
{
    const char **text = target(loader, key);
    if (*text != NULL) {
        config_error(loader, "\"%s\" is given a second time", key->name);
        return;
    }
    *text = config_string(loader, value);
    if (key->scope == CONFIG_SCOPE_ACCESS) {
        *(const char **)((char *)&loader->access + key->offset) = *text;
    }
}

static void set_choice(struct config_loader *loader, const struct config_key *key,
                       struct bytes value)
{
    char expected[96] = "";
    size_t len = 0;
    for (const struct config_choice *choice = key->choices; choice->name != NULL; choice++) {
        if (bytes_equal_string(value, choice->name)) {
            *(unsigned *)target(loader, key) = (unsigned)choice->value;
            return;
        }
        len += (size_t)snprintf(expected + len, sizeof expected - len, "%s%s",
                                len == 0 ? "" : " or ", choice->name);
        ENSURE(len < sizeof expected);
    }
    bad_value(loader, key, value, expected);
}

/* Remembers a listener key that stands before every listener: it may turn out to have no effect. */
static void note_early(struct config_loader *loader, const struct config_key *key)
{
    bool of_listener = key->scope == CONFIG_SCOPE_LISTENER ||
                       (key->scope == CONFIG_SCOPE_ACCESS && loader->per_listener_settings);
    if (of_listener && loader->current == 0 && loader->early_key == NULL) {
        loader->early_key = key;
        loader->early_file = loader->file;
        loader->early_line = loader->line;
    }
}

static bool is_served(struct config_loader *loader, const struct config_key *key)
{
    if (key->support == CONFIG_REFUSED) {
        config_error(loader, "\"%s\" is not served yet; refusing to start without it: %s",
                     key->name, key->remark);
        return false;
    }
    if (key->support == CONFIG_NOT_YET) {
        const char *remark =
            key->scope == CONFIG_SCOPE_BRIDGE ? "there are no bridges" : key->remark;
        config_warning(loader, "\"%s\" is known but not served yet and has no effect%s%s",
                       key->name, remark == NULL ? "" : ": ", remark == NULL ? "" : remark);
        return false;
    }
    return true;
}

void config_key_set(struct config_loader *loader, const struct config_key *key, struct bytes value)
{
    if (!is_served(loader, key)) {
        return;
    }
    if (value.len == 0) {
        config_error(loader, "\"%s\" needs a value", key->name);
        return;
    }
    note_early(loader, key);
    switch (key->type) {
    case CONFIG_TYPE_BOOL:
        set_bool(loader, key, value);
        break;
    case CONFIG_TYPE_U32:
    case CONFIG_TYPE_U64:
        set_number(loader, key, value);
        break;
    case CONFIG_TYPE_TEXT:
        set_text(loader, key, value);
        break;
    case CONFIG_TYPE_CHOICE:
        set_choice(loader, key, value);
        break;
    case CONFIG_TYPE_DURATION:
        set_duration(loader, key, value);
        break;
    case CONFIG_TYPE_CUSTOM:
        key->set(loader, key, value);
        break;
    case CONFIG_TYPE_ANY:
        break;
    }
}

/* Setters of the table */

void config_set_per_listener(struct config_loader *loader, const struct config_key *key,
                             struct bytes value)
{
    (void)parse_bool(loader, key, value, &loader->per_listener_settings);
}

/* It goes to clients as an MQTT string. */
void config_set_response_information(struct config_loader *loader, const struct config_key *key,
                                     struct bytes value)
{
    if (!utf8_is_valid_string(value)) {
        config_error(loader, "\"%s\" must be UTF-8", key->name);
    } else {
        loader->config->response_information = config_string(loader, value);
    }
}

static bool parse_port(struct bytes text, int64_t min, uint16_t *out)
{
    int64_t number;
    if (!config_number(text, &number) || number < min || number > UINT16_MAX) {
        return false;
    }
    *out = (uint16_t)number;
    return true;
}

static bool is_host(struct bytes host)
{
    if (host.len == 0 || host.len > CONFIG_HOST_MAX) {
        return false;
    }
    for (size_t i = 0; i < host.len; i++) {
        if (host.data[i] <= ' ' || host.data[i] == 0x7F) {
            return false;
        }
    }
    return true;
}

static void place(struct config_loader *loader, struct config_listener *listener)
{
    listener->file = loader->file;
    listener->line = loader->line;
}

/* The second word of a listener line: an address, a name, or the path of a Unix socket. */
static void set_listener_place(struct config_loader *loader, struct config_listener *listener,
                               struct bytes where)
{
    struct config_shown shown;
    bool is_path = where.len != 0 && memchr(where.data, '/', where.len) != NULL;
    if (is_path && listener->port != 0) {
        config_error(loader, "a listener on a Unix socket needs port 0: listener 0 %s",
                     config_show(&shown, where));
    } else if (is_path && where.len > UNIX_PATH_MAX) {
        config_error(loader, "the path of the Unix socket is longer than %d bytes", UNIX_PATH_MAX);
    } else if (is_path) {
        listener->unix_path = config_string(loader, where);
    } else if (where.len == 0 && listener->port == 0) {
        config_error(loader, "a listener on port 0 needs the path of a Unix socket or an address");
    } else if (where.len != 0 && !is_host(where)) {
        config_error(loader, "bad address \"%s\" for \"listener\"", config_show(&shown, where));
    } else if (where.len != 0) {
        listener->host = config_string(loader, where);
    }
}

void config_set_listener(struct config_loader *loader, const struct config_key *key,
                         struct bytes value)
{
    if (!config_add_draft(loader)) {
        return;
    }
    struct config_listener *listener = &current_draft(loader)->listener;
    place(loader, listener);
    struct bytes where = value;
    struct bytes port = config_word(&where);
    if (!parse_port(port, 0, &listener->port)) {
        bad_value(loader, key, value, "a port from 0 to 65535 and perhaps an address");
        return;
    }
    set_listener_place(loader, listener, where);
}

void config_set_port(struct config_loader *loader, const struct config_key *key, struct bytes value)
{
    struct config_listener *listener = &loader->drafts[0].listener;
    if (!parse_port(value, 1, &listener->port)) {
        bad_value(loader, key, value, "a port from 1 to 65535");
    }
    loader->default_listener = true;
    place(loader, listener);
}

void config_set_bind_address(struct config_loader *loader, const struct config_key *key,
                             struct bytes value)
{
    struct config_listener *listener = &loader->drafts[0].listener;
    if (listener->host != NULL) {
        config_error(loader, "\"%s\" is given a second time", key->name);
    } else if (!is_host(value)) {
        bad_value(loader, key, value, "an address or a host name");
    } else {
        listener->host = config_string(loader, value);
    }
    if (!loader->default_listener) {
        place(loader, listener);
    }
    loader->default_listener = true;
}

/* Makes room for the certificate number `index` of the current listener; NULL when there is none
 * (reported). */
static struct config_certificate *certificate_at(struct config_loader *loader,
                                                 const struct config_key *key, size_t index)
{
    struct config_draft *draft = current_draft(loader);
    if (index >= CONFIG_CERTIFICATES_MAX) {
        config_error(loader, "more than %d \"%s\" in one listener", CONFIG_CERTIFICATES_MAX,
                     key->name);
        return NULL;
    }
    struct config_listener *listener = &draft->listener;
    size_t used = listener->certificate_count > draft->keyfile_count ? listener->certificate_count
                                                                     : draft->keyfile_count;
    if (index == used) {
        void *grown =
            config_grow(loader, listener->certificates, used, sizeof *listener->certificates);
        if (grown == NULL) {
            return NULL;
        }
        listener->certificates = grown;
        listener->certificates[index] = (struct config_certificate){NULL, NULL};
    }
    return &listener->certificates[index];
}

void config_set_certfile(struct config_loader *loader, const struct config_key *key,
                         struct bytes value)
{
    size_t *count = &current_draft(loader)->listener.certificate_count;
    struct config_certificate *certificate = certificate_at(loader, key, *count);
    if (certificate != NULL) {
        certificate->certfile = config_string(loader, value);
        (*count)++;
    }
}

void config_set_keyfile(struct config_loader *loader, const struct config_key *key,
                        struct bytes value)
{
    size_t *count = &current_draft(loader)->keyfile_count;
    struct config_certificate *certificate = certificate_at(loader, key, *count);
    if (certificate != NULL) {
        certificate->keyfile = config_string(loader, value);
        (*count)++;
    }
}

void config_set_origin(struct config_loader *loader, const struct config_key *key,
                       struct bytes value)
{
    struct config_listener *listener = &current_draft(loader)->listener;
    size_t count = listener->websockets_origin_count;
    if (count >= CONFIG_ORIGINS_MAX) {
        config_error(loader, "more than %d \"%s\" in one listener", CONFIG_ORIGINS_MAX, key->name);
        return;
    }
    void *grown = config_grow(loader, (void *)listener->websockets_origins, count,
                              sizeof *listener->websockets_origins);
    const char *origin = config_string(loader, value);
    if (grown != NULL && origin != NULL) {
        listener->websockets_origins = grown;
        listener->websockets_origins[count] = origin;
        listener->websockets_origin_count++;
    }
}

void config_set_tls_version(struct config_loader *loader, const struct config_key *key,
                            struct bytes value)
{
    if (bytes_equal_string(value, "tlsv1.2")) {
        return; /* the lowest and, with mbedTLS 2.28, the only version spoken */
    }
    if (bytes_equal_string(value, "tlsv1.3")) {
        config_error(loader,
                     "\"tls_version tlsv1.3\" is not served yet; refusing to start without it: "
                     "clients would be let in with TLS 1.2");
    } else if (bytes_equal_string(value, "tlsv1.1") || bytes_equal_string(value, "tlsv1")) {
        config_warning(loader, "TLS below 1.2 is not served; the lowest version is tlsv1.2");
    } else {
        bad_value(loader, key, value, "tlsv1.2 or tlsv1.3");
    }
}

void config_set_log_dest(struct config_loader *loader, const struct config_key *key,
                         struct bytes value)
{
    struct log_options *log = &loader->config->log;
    struct bytes path = value;
    struct bytes word = config_word(&path);
    bool is_file = bytes_equal_string(word, "file");
    if (is_file ? path.len == 0 : path.len != 0) {
        bad_value(loader, key, value,
                  is_file ? "the path of a file after \"file\"" : "one destination on each line");
        return;
    }
    if (bytes_equal_string(word, "syslog") || bytes_equal_string(word, "topic") ||
        bytes_equal_string(word, "dlt")) {
        struct config_shown shown;
        config_warning(loader, "\"log_dest %s\" is known but not served yet and has no effect",
                       config_show(&shown, word));
        return;
    }
    unsigned destination = is_file                              ? LOG_TO_FILE
                           : bytes_equal_string(word, "stderr") ? LOG_TO_STDERR
                           : bytes_equal_string(word, "stdout") ? LOG_TO_STDOUT
                                                                : 0;
    bool none = bytes_equal_string(word, "none");
    if (destination == 0 && !none) {
        bad_value(loader, key, value, "stderr, stdout, file and a path, or none");
        return;
    }
    if (is_file && log->file_path != NULL) {
        config_error(loader, "only one \"log_dest file\" is possible");
        return;
    }
    log->destinations =
        loader->log_dest_seen && !none ? log->destinations | destination : destination;
    loader->log_dest_seen = true;
    if (is_file) {
        log->file_path = config_string(loader, path);
    }
}

void config_set_log_type(struct config_loader *loader, const struct config_key *key,
                         struct bytes value)
{
    static const struct config_choice types[] = {
        {"error", LOG_TYPE_ERROR},
        {"warning", LOG_TYPE_WARNING},
        {"notice", LOG_TYPE_NOTICE},
        {"information", LOG_TYPE_INFORMATION},
        {"debug", LOG_TYPE_DEBUG},
        {"subscribe", LOG_TYPE_SUBSCRIBE},
        {"unsubscribe", LOG_TYPE_UNSUBSCRIBE},
        {"websockets", LOG_TYPE_WEBSOCKETS},
        {"all", LOG_TYPES_ALL},
        {"none", LOG_TYPES_NONE},
        {NULL, 0},
    };
    struct log_options *log = &loader->config->log;
    for (const struct config_choice *type = types; type->name != NULL; type++) {
        if (bytes_equal_string(value, type->name)) {
            bool fresh = !loader->log_type_seen || type->value == LOG_TYPES_NONE;
            log->types = (fresh ? 0 : log->types) | (unsigned)type->value;
            loader->log_type_seen = true;
            return;
        }
    }
    bad_value(loader, key, value,
              "error, warning, notice, information, debug, subscribe, unsubscribe, websockets, "
              "all or none");
}

/* A format is good when it gives something, not too long, that does not break the line. */
static bool is_timestamp_format(const char *format)
{
    char text[LOG_TIMESTAMP_MAX];
    time_t now = 0;
    struct tm utc;
    if (gmtime_r(&now, &utc) == NULL || strftime(text, sizeof text, format, &utc) == 0) {
        return false;
    }
    for (const char *at = text; *at != '\0'; at++) {
        if (iscntrl((unsigned char)*at) != 0) {
            return false;
        }
    }
    return true;
}

void config_set_timestamp_format(struct config_loader *loader, const struct config_key *key,
                                 struct bytes value)
{
    const char **format = target(loader, key);
    const char *copy = config_string(loader, value);
    if (copy == NULL) {
        return;
    }
    if (!is_timestamp_format(copy)) {
        bad_value(loader, key, value, "a strftime format that gives at most 63 characters");
        return;
    }
    *format = copy;
}
