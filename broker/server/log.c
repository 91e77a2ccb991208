#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"

enum {
    LINE_TAIL = 32,       /* room kept free for what ends a line: ,"truncated":true}\n */
    MESSAGE_MAX = 3072,   /* bytes of the sentence of one line as it is written */
    CUT_MARK_LEN = 3,     /* "..." */
    ESCAPE_MAX = 6,       /* the longest escape: \u001b */
    NUMBER_TEXT_MAX = 32, /* digits of a uint64_t, a point and a NUL */
    LOST_TEXT_MAX = 160,
};

/* A pipe that polls writable takes this much without blocking. */
_Static_assert(LOG_LINE_MAX <= PIPE_BUF, "a line must fit into a pipe as a whole");

/* One destination. */
struct sink {
    int file;      /* -1: none */
    uint64_t lost; /* lines since the last that fitted */
};

struct log {
    struct log_options options; /* strings owned */
    struct sink standard_error, standard_output, file;
};

/* UTF-8 */

/* Length of the well-formed sequence at the start of `text` (RFC 3629), or 0. *code is its code
 * point. */
static size_t utf8_sequence(struct bytes text, uint32_t *code)
{
    uint8_t first = text.data[0];
    size_t len = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (len == 0 || first > 0xF4 || len > text.len) {
        return 0;
    }
    static const uint8_t first_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t value = first & first_bits[len];
    for (size_t i = 1; i < len; i++) {
        if ((text.data[i] & 0xC0) != 0x80) {
            return 0;
        }
        value = value << 6 | (text.data[i] & 0x3FU);
    }
    if (value < smallest[len] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return 0;
    }
    *code = value;
    return len;
}

/* Characters that end a line, move the cursor or turn the direction of writing in some viewer. */
static bool is_unsafe(uint32_t code)
{
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x2028 && code <= 0x202E) ||
           (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF;
}

/* Writes the escape of `code` into `out` (ESCAPE_MAX bytes and a NUL) and returns its length. */
static size_t escape_code(uint32_t code, char *out)
{
    static const struct {
        char code, letter;
    } letters[] = {{'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}, {'"', '"'}, {'\\', '\\'}};
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++) {
        if (code == (uint32_t)letters[i].code) {
            out[0] = '\\';
            out[1] = letters[i].letter;
            return 2;
        }
    }
    static const char digits[] = "0123456789abcdef";
    out[0] = '\\';
    out[1] = 'u';
    for (int i = 0; i < 4; i++) {
        out[2 + i] = digits[code >> (12 - 4 * i) & 0xF];
    }
    return ESCAPE_MAX;
}

/*
 * Escapes `text` into at most `limit` bytes, "..." included when it had to be cut. `quoted` escapes
 * quotes and backslashes too. Fails the writer when even that does not fit.
 */
static void escape_limited(struct writer *writer, struct bytes text, size_t limit, bool quoted)
{
    size_t used = 0;
    size_t cut_at = 0; /* the last place where "..." would still fit */
    uint8_t *start = writer->at;
    for (size_t at = 0; at < text.len && !writer->failed;) {
        uint32_t code = 0xFFFD;
        size_t len = utf8_sequence(bytes_from(text, at), &code);
        char escape[ESCAPE_MAX];
        struct bytes piece = {text.data + at, len};
        if (len == 0 || is_unsafe(code) || (quoted && (code == '"' || code == '\\'))) {
            piece = bytes_of(escape, escape_code(code, escape));
        }
        if (used + CUT_MARK_LEN <= limit) {
            cut_at = used;
        }
        if (used + piece.len > limit) {
            writer->at = start + cut_at;
            writer_bytes(writer, bytes_of("...", CUT_MARK_LEN));
            return;
        }
        writer_bytes(writer, piece);
        used += piece.len;
        at += len == 0 ? 1 : len;
    }
}

void log_escape(struct writer *writer, struct bytes text)
{
    escape_limited(writer, text, LOG_TEXT_MAX, true);
}

/* Pieces of a line */

static void put(struct writer *writer, const char *text)
{
    writer_bytes(writer, bytes_of_string(text));
}

static void put_quoted(struct writer *writer, struct bytes text)
{
    put(writer, "\"");
    log_escape(writer, text);
    put(writer, "\"");
}

static void put_number(struct writer *writer, uint64_t number)
{
    char text[NUMBER_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    put(writer, text);
}

static void put_seconds(struct writer *writer, uint64_t milliseconds)
{
    char text[NUMBER_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%llu.%u", (unsigned long long)(milliseconds / 1000),
                   (unsigned)(milliseconds % 1000 / 100));
    put(writer, text);
}

static void put_value(struct writer *writer, const struct log_field *field)
{
    switch (field->kind) {
    case LOG_FIELD_TEXT:
        put_quoted(writer, field->text);
        break;
    case LOG_FIELD_NUMBER:
        put_number(writer, field->number);
        break;
    case LOG_FIELD_FLAG:
        put(writer, field->number != 0 ? "true" : "false");
        break;
    case LOG_FIELD_SECONDS:
        put_seconds(writer, field->number);
        break;
    }
}

static const char *type_name(enum log_type type)
{
    switch (type) {
    case LOG_TYPE_ERROR:
        return "error";
    case LOG_TYPE_WARNING:
        return "warning";
    case LOG_TYPE_NOTICE:
        return "notice";
    case LOG_TYPE_INFORMATION:
        return "information";
    case LOG_TYPE_DEBUG:
        return "debug";
    case LOG_TYPE_SUBSCRIBE:
        return "subscribe";
    case LOG_TYPE_UNSUBSCRIBE:
        return "unsubscribe";
    case LOG_TYPE_WEBSOCKETS:
        return "websockets";
    }
    return "notice";
}

/* What the operator's format makes of now; falls back to Unix seconds when it makes nothing. */
static void put_timestamp(struct writer *writer, const char *format)
{
    time_t now = time(NULL);
    struct tm local;
    char text[LOG_TIMESTAMP_MAX];
    if (localtime_r(&now, &local) == NULL ||
        strftime(text, sizeof text, format == NULL ? LOG_TIMESTAMP_DEFAULT : format, &local) == 0) {
        (void)snprintf(text, sizeof text, "%lld", (long long)now);
    }
    escape_limited(writer, bytes_of_string(text), LOG_TEXT_MAX, false);
}

/* RFC 3339 in UTC with milliseconds: programs sort by it. */
static void put_json_time(struct writer *writer)
{
    struct timespec now = {0};
    struct tm utc;
    char text[LOG_TIMESTAMP_MAX];
    char fraction[NUMBER_TEXT_MAX];
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &utc) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc) == 0) {
        return;
    }
    (void)snprintf(fraction, sizeof fraction, ".%03dZ", (int)(now.tv_nsec / 1000000));
    put(writer, text);
    put(writer, fraction);
}

/* Lines */

struct line {
    struct writer writer; /* ends LINE_TAIL before the end of `data` */
    uint8_t data[LOG_LINE_MAX];
};

static void line_begin(const struct log *log, enum log_type type, struct line *line)
{
    struct writer *writer = &line->writer;
    *writer = writer_of(line->data, sizeof line->data - LINE_TAIL);
    if (log->options.format == LOG_FORMAT_JSON) {
        put(writer, "{\"time\":\"");
        put_json_time(writer);
        put(writer, "\",\"level\":\"");
        put(writer, type_name(type));
        put(writer, "\"");
        return;
    }
    if (log->options.timestamp) {
        put_timestamp(writer, log->options.timestamp_format);
        put(writer, ": ");
    }
    if (type == LOG_TYPE_ERROR || type == LOG_TYPE_WARNING) {
        put(writer, type == LOG_TYPE_ERROR ? "Error: " : "Warning: ");
    }
}

/*
 * Writes a line unless the destination has no room for it now: a reader that is stuck must not stop
 * the broker. Regular files always have room. Returns false when some of the line is lost.
 */
static bool write_line(int file, struct bytes text)
{
    while (text.len != 0) {
        struct pollfd room = {.fd = file, .events = POLLOUT};
        int ready = poll(&room, 1, 0);
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready <= 0 || (room.revents & POLLOUT) == 0) {
            return false;
        }
        ssize_t written = write(file, text.data, text.len);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return false;
        }
        text = bytes_from(text, (size_t)written);
    }
    return true;
}

/* Ends the line, telling when something was left out. */
static struct bytes line_finish(const struct log *log, struct line *line, bool truncated)
{
    struct writer *writer = &line->writer;
    writer->end = line->data + sizeof line->data;
    writer->failed = false;
    if (log->options.format == LOG_FORMAT_JSON) {
        put(writer, truncated ? ",\"truncated\":true}\n" : "}\n");
    } else {
        put(writer, truncated ? " ...\n" : "\n");
    }
    return writer_written(writer);
}

static bool report_lost(const struct log *log, struct sink *sink)
{
    static const char *const formats[] = {
        [LOG_FORMAT_PLAIN] = "lines lost here, because the log could not be written: %llu",
        [LOG_FORMAT_JSON] = ",\"event\":\"log_lines_lost\",\"message\":\"lines lost here, because "
                            "the log could not be written\",\"lines\":%llu",
    };
    struct line line;
    char text[LOST_TEXT_MAX];
    (void)snprintf(text, sizeof text, formats[log->options.format], (unsigned long long)sink->lost);
    line_begin(log, LOG_TYPE_WARNING, &line);
    put(&line.writer, text);
    if (!write_line(sink->file, line_finish(log, &line, false))) {
        return false;
    }
    sink->lost = 0;
    return true;
}

static void send_line(const struct log *log, struct sink *sink, struct bytes text)
{
    bool room = sink->lost == 0 || report_lost(log, sink);
    if (!room || !write_line(sink->file, text)) {
        sink->lost++;
    }
}

static void line_end(struct log *log, struct line *line, bool truncated)
{
    struct bytes text = line_finish(log, line, truncated);
    if ((log->options.destinations & LOG_TO_STDERR) != 0) {
        send_line(log, &log->standard_error, text);
    }
    if ((log->options.destinations & LOG_TO_STDOUT) != 0) {
        send_line(log, &log->standard_output, text);
    }
    if (log->file.file >= 0) {
        send_line(log, &log->file, text);
    }
}

bool log_wants(const struct log *log, enum log_type type)
{
    return log->options.destinations != 0 && (log->options.types & (unsigned)type) != 0;
}

void log_write(struct log *log, enum log_type type, const char *format, ...)
{
    if (!log_wants(log, type)) {
        return;
    }
    char text[MESSAGE_MAX + ESCAPE_MAX]; /* long enough that escape_limited sees what must be cut */
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (len < 0) {
        return;
    }
    bool json = log->options.format == LOG_FORMAT_JSON;
    struct line line;
    line_begin(log, type, &line);
    put(&line.writer, json ? ",\"message\":\"" : "");
    escape_limited(&line.writer, bytes_of_string(text), MESSAGE_MAX, json);
    put(&line.writer, json ? "\"" : "");
    line_end(log, &line, false);
}

/* Appends the fields that fit whole. Returns false when one was left out. */
static bool put_fields(struct writer *writer, bool json, const struct log_field *fields,
                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct writer before = *writer;
        if (json) {
            put(writer, ",");
            put_quoted(writer, bytes_of_string(fields[i].name));
            put(writer, ":");
        } else {
            put(writer, i == 0 ? " (" : ", ");
            put(writer, fields[i].name);
            put(writer, "=");
        }
        put_value(writer, &fields[i]);
        if (writer->failed) {
            *writer = before;
            return false;
        }
    }
    put(writer, json || count == 0 ? "" : ")");
    return true;
}

static void write_event_json(struct log *log, enum log_type type, const char *event,
                             const char *message, const struct log_field *fields, size_t count)
{
    struct line line;
    line_begin(log, type, &line);
    put(&line.writer, ",\"event\":");
    put_quoted(&line.writer, bytes_of_string(event));
    put(&line.writer, ",\"message\":");
    put_quoted(&line.writer, bytes_of_string(message));
    bool complete = put_fields(&line.writer, true, fields, count);
    line_end(log, &line, !complete);
}

void log_event(struct log *log, enum log_type type, const char *event, const char *message,
               const struct log_field *fields, size_t field_count)
{
    if (!log_wants(log, type)) {
        return;
    }
    if (log->options.format == LOG_FORMAT_JSON) {
        write_event_json(log, type, event, message, fields, field_count);
        return;
    }
    struct line line;
    line_begin(log, type, &line);
    escape_limited(&line.writer, bytes_of_string(message), LOG_TEXT_MAX, false);
    bool complete = put_fields(&line.writer, false, fields, field_count);
    line_end(log, &line, !complete);
}

/* Connections */

static const char *or_unknown(const char *text)
{
    return text == NULL ? "unknown" : text;
}

enum { CLIENT_FIELDS_MAX = 8 };

struct client_fields {
    struct log_field list[CLIENT_FIELDS_MAX];
    size_t count;
};

static void add_field(struct client_fields *fields, struct log_field field)
{
    ENSURE(fields->count < CLIENT_FIELDS_MAX);
    fields->list[fields->count++] = field;
}

/* What every line about a connection carries in JSON. */
static struct client_fields client_fields(const struct log_client *client)
{
    struct client_fields fields = {.count = 0};
    if (client->client_id.data != NULL) {
        add_field(&fields, log_text("client_id", client->client_id));
    }
    if (client->user_name.data != NULL) {
        add_field(&fields, log_text("user_name", client->user_name));
    }
    add_field(&fields, log_string("address", or_unknown(client->address)));
    add_field(&fields, log_string("transport", or_unknown(client->transport)));
    if (client->protocol != NULL) {
        add_field(&fields, log_string("protocol", client->protocol));
    }
    return fields;
}

static bool wants_connection(const struct log *log)
{
    return log->options.connection_messages && log_wants(log, LOG_TYPE_NOTICE);
}

void log_client_connected(struct log *log, const struct log_client *client)
{
    if (!wants_connection(log)) {
        return;
    }
    if (log->options.format == LOG_FORMAT_JSON) {
        struct client_fields fields = client_fields(client);
        add_field(&fields, log_flag("clean_start", client->clean_start));
        add_field(&fields, log_number("keep_alive", client->keep_alive_s));
        write_event_json(log, LOG_TYPE_NOTICE, "client_connected", "client connected", fields.list,
                         fields.count);
        return;
    }
    struct line line;
    struct writer *writer = &line.writer;
    line_begin(log, LOG_TYPE_NOTICE, &line);
    put(writer, "client ");
    put_quoted(writer, client->client_id);
    put(writer, " connected from ");
    put(writer, or_unknown(client->address));
    put(writer, " over ");
    put(writer, or_unknown(client->transport));
    put(writer, " as ");
    put(writer, or_unknown(client->protocol));
    put(writer, " (");
    if (client->user_name.data != NULL) {
        put(writer, "user ");
        put_quoted(writer, client->user_name);
        put(writer, ", ");
    }
    put(writer, client->clean_start ? "clean start, " : "");
    put(writer, client->keep_alive_s == 0 ? "no keep alive" : "keep alive ");
    if (client->keep_alive_s != 0) {
        put_number(writer, client->keep_alive_s);
        put(writer, " s");
    }
    put(writer, ")");
    line_end(log, &line, writer->failed);
}

/* The part in brackets that ends a line about a connection: where it came from, unless the line has
 * said so. */
static void put_origin(struct writer *writer, const struct log_client *client, bool duration)
{
    bool named = client->client_id.data != NULL;
    put(writer, " (");
    if (named) {
        put(writer, or_unknown(client->protocol));
        put(writer, " over ");
        put(writer, or_unknown(client->transport));
        put(writer, ", ");
        put(writer, or_unknown(client->address));
    }
    if (duration) {
        put(writer, named ? ", after " : "after ");
        put_seconds(writer, client->connected_ms);
        put(writer, " s");
    }
    put(writer, ")");
}

static void put_reason(struct writer *writer, const char *reason)
{
    put(writer, ": ");
    escape_limited(writer, bytes_of_string(reason), LOG_TEXT_MAX, false);
}

static void put_connection(struct writer *writer, const struct log_client *client)
{
    put(writer, "connection from ");
    put(writer, or_unknown(client->address));
    put(writer, " over ");
    put(writer, or_unknown(client->transport));
}

void log_client_disconnected(struct log *log, const struct log_client *client, const char *reason)
{
    if (!wants_connection(log)) {
        return;
    }
    bool named = client->client_id.data != NULL;
    if (log->options.format == LOG_FORMAT_JSON) {
        struct client_fields fields = client_fields(client);
        add_field(&fields, log_string("reason", reason));
        add_field(&fields, log_seconds("connected_seconds", client->connected_ms));
        write_event_json(log, LOG_TYPE_NOTICE, named ? "client_disconnected" : "connection_closed",
                         named ? "client disconnected" : "connection closed", fields.list,
                         fields.count);
        return;
    }
    struct line line;
    line_begin(log, LOG_TYPE_NOTICE, &line);
    if (named) {
        put(&line.writer, "client ");
        put_quoted(&line.writer, client->client_id);
        put(&line.writer, " disconnected");
    } else {
        put_connection(&line.writer, client);
        put(&line.writer, " closed");
    }
    put_reason(&line.writer, reason);
    put_origin(&line.writer, client, true);
    line_end(log, &line, line.writer.failed);
}

void log_client_refused(struct log *log, const struct log_client *client, const char *reason)
{
    if (!wants_connection(log)) {
        return;
    }
    if (log->options.format == LOG_FORMAT_JSON) {
        struct client_fields fields = client_fields(client);
        add_field(&fields, log_string("reason", reason));
        write_event_json(log, LOG_TYPE_NOTICE, "client_refused", "client refused", fields.list,
                         fields.count);
        return;
    }
    struct line line;
    line_begin(log, LOG_TYPE_NOTICE, &line);
    if (client->client_id.data != NULL) {
        put(&line.writer, "client ");
        put_quoted(&line.writer, client->client_id);
    } else {
        put_connection(&line.writer, client);
    }
    put(&line.writer, " refused");
    put_reason(&line.writer, reason);
    if (client->client_id.data != NULL) {
        put_origin(&line.writer, client, false);
    }
    line_end(log, &line, line.writer.failed);
}

/* The log itself */

static void options_free(struct log_options *options)
{
    mem_free((char *)options->timestamp_format);
    mem_free((char *)options->file_path);
}

static bool copy_string(const char *from, const char **to)
{
    *to = from == NULL ? NULL : mem_copy_string(bytes_of_string(from));
    return from == NULL || *to != NULL;
}

static enum status options_copy(const struct log_options *from, struct log_options *to)
{
    *to = *from;
    to->file_path = NULL;
    to->timestamp_format = NULL;
    if (!copy_string(from->timestamp_format, &to->timestamp_format) ||
        !copy_string(from->file_path, &to->file_path)) {
        options_free(to);
        return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

/* Opens what `options` name. *file is -1 when they name no file. */
static enum status file_open(const struct log_options *options, int *file)
{
    *file = -1;
    if ((options->destinations & LOG_TO_FILE) == 0) {
        return STATUS_OK;
    }
    ENSURE(options->file_path != NULL);
    /* O_NONBLOCK matters to a named pipe only: without a reader it is an error, not a long wait. */
    *file = open(options->file_path,
                 O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    return *file < 0 ? STATUS_IO : STATUS_OK;
}

static void file_close(int file)
{
    if (file >= 0) {
        (void)close(file);
    }
}

enum status log_reconfigure(struct log *log, const struct log_options *options)
{
    struct log_options copy;
    int file;
    enum status status = options_copy(options, &copy);
    if (status != STATUS_OK) {
        return status;
    }
    status = file_open(&copy, &file);
    if (status != STATUS_OK) {
        int reason = errno;
        options_free(&copy);
        errno = reason;
        return status;
    }
    file_close(log->file.file);
    options_free(&log->options);
    log->file.file = file;
    log->options = copy;
    return STATUS_OK;
}

enum status log_create(const struct log_options *options, struct log **out)
{
    *out = NULL;
    struct log *log = mem_zalloc(sizeof *log);
    if (log == NULL) {
        return STATUS_NO_MEMORY;
    }
    log->standard_error.file = STDERR_FILENO;
    log->standard_output.file = STDOUT_FILENO;
    log->file.file = -1;
    enum status status = log_reconfigure(log, options);
    if (status != STATUS_OK) {
        int reason = errno;
        mem_free(log);
        errno = reason;
        return status;
    }
    *out = log;
    return STATUS_OK;
}

void log_destroy(struct log *log)
{
    if (log != NULL) {
        file_close(log->file.file);
        options_free(&log->options);
        mem_free(log);
    }
}

enum status log_reopen(struct log *log)
{
    int file;
    enum status status = file_open(&log->options, &file);
    if (status == STATUS_OK) {
        file_close(log->file.file);
        log->file.file = file;
    }
    return status;
}
