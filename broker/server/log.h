/*
 * log: one line for each thing that an operator should know, to stderr, stdout or a file, as text
 * or as JSON.
 *
 * Types are mosquitto's, so that its log_type settings mean the same here. Everything that a peer
 * chose (client id, user name, topic, reason) is escaped on the way out: one event is always
 * exactly one line, and no byte of it can steer a terminal.
 *
 * A destination never makes the broker wait: when a pipe is full or a disk is, the line is lost
 * there, and the next line that fits is preceded by a warning with their number.
 *
 *   Cost       A line is built in a buffer on the stack and written with two system calls for each
 *              destination. No allocation after log_create. A type that is switched off costs one
 *              test.
 *   Threads    One at a time.
 *   Place      broker/server only. The rooms below report through return values and effects.
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "status.h"

/* mosquitto's log_type values; a set of them is their bitwise or. */
enum log_type {
    LOG_TYPE_ERROR = 1 << 0,
    LOG_TYPE_WARNING = 1 << 1,
    LOG_TYPE_NOTICE = 1 << 2, /* connects and disconnects are notices */
    LOG_TYPE_INFORMATION = 1 << 3,
    LOG_TYPE_DEBUG = 1 << 4,
    LOG_TYPE_SUBSCRIBE = 1 << 5,
    LOG_TYPE_UNSUBSCRIBE = 1 << 6,
    LOG_TYPE_WEBSOCKETS = 1 << 7,
};

enum {
    LOG_TYPES_NONE = 0,
    LOG_TYPES_ALL = (1 << 8) - 1,
    LOG_TYPES_DEFAULT = LOG_TYPE_ERROR | LOG_TYPE_WARNING | LOG_TYPE_NOTICE | LOG_TYPE_INFORMATION,
    LOG_LINE_MAX =
        4096, /* bytes of a line with its line feed; a longer one is cut and marked "..." */
    LOG_TEXT_MAX =
        1024, /* bytes of one field as it is written; a longer one is cut and marked "..." */
    LOG_TIMESTAMP_MAX = 64, /* bytes of what a strftime format may give */
};

/* Where lines go; a set of them is their bitwise or. */
enum log_destination {
    LOG_TO_STDERR = 1 << 0,
    LOG_TO_STDOUT = 1 << 1,
    LOG_TO_FILE = 1 << 2,
};

enum log_format { LOG_FORMAT_PLAIN, LOG_FORMAT_JSON };

/* What to log, where and how. A value; the strings are borrowed by whoever is given it. */
struct log_options {
    unsigned destinations;        /* of enum log_destination; 0 logs nowhere */
    unsigned types;               /* of enum log_type */
    enum log_format format;       /* JSON lines always carry a time */
    bool timestamp;               /* plain lines begin with the time */
    bool connection_messages;     /* false: no line for a connect or disconnect */
    const char *timestamp_format; /* strftime; NULL means LOG_TIMESTAMP_DEFAULT */
    const char *file_path;        /* required by LOG_TO_FILE */
};

#define LOG_TIMESTAMP_DEFAULT "%Y-%m-%dT%H:%M:%S%z"
#define LOG_OPTIONS_DEFAULT                                                                        \
    ((struct log_options){LOG_TO_STDERR, LOG_TYPES_DEFAULT, LOG_FORMAT_PLAIN, true, true, NULL,    \
                          NULL})

struct log;

/*
 * Makes a log and opens its file for appending (mode 0640). `options` is copied, with its strings.
 * On STATUS_OK the caller owns *out and ends it with log_destroy; else *out is NULL.
 * Errors: STATUS_NO_MEMORY; STATUS_IO (the file cannot be opened; errno says why).
 */
MUST_USE enum status log_create(const struct log_options *options, struct log **out);

/* Closes the file and frees the log. NULL is allowed. */
void log_destroy(struct log *log);

/* Replaces all options. Errors as log_create; the log is then unchanged. */
MUST_USE enum status log_reconfigure(struct log *log, const struct log_options *options);

/* Closes and opens the file again, for logrotate. Errors: STATUS_IO; the old file then stays open.
 */
MUST_USE enum status log_reopen(struct log *log);

/* True when lines of `type` go anywhere: for callers whose arguments cost something to make. */
bool log_wants(const struct log *log, enum log_type type);

/*
 * One line of text. Control characters and invalid UTF-8 in the result are escaped, quotes are not:
 * text of a peer belongs in a field (log_event), where it is quoted. Does nothing when `type` is
 * switched off.
 */
void log_write(struct log *log, enum log_type type, const char *format, ...) PRINTF_LIKE(3, 4);

enum log_field_kind {
    LOG_FIELD_TEXT,
    LOG_FIELD_NUMBER,
    LOG_FIELD_FLAG,
    LOG_FIELD_SECONDS,
};

/* One named value of an event. `name` is ours (letters, digits, '_'); `text` may be a peer's and is
 * escaped. */
struct log_field {
    const char *name;
    enum log_field_kind kind;
    struct bytes text;
    uint64_t number; /* NUMBER: the value. FLAG: 0 or 1. SECONDS: milliseconds, written as 12.3 */
};

static inline struct log_field log_text(const char *name, struct bytes text)
{
    return (struct log_field){name, LOG_FIELD_TEXT, text, 0};
}

static inline struct log_field log_string(const char *name, const char *text)
{
    return log_text(name, bytes_of_string(text));
}

static inline struct log_field log_number(const char *name, uint64_t number)
{
    return (struct log_field){name, LOG_FIELD_NUMBER, BYTES_EMPTY, number};
}

static inline struct log_field log_flag(const char *name, bool flag)
{
    return (struct log_field){name, LOG_FIELD_FLAG, BYTES_EMPTY, flag ? 1 : 0};
}

static inline struct log_field log_seconds(const char *name, uint64_t milliseconds)
{
    return (struct log_field){name, LOG_FIELD_SECONDS, BYTES_EMPTY, milliseconds};
}

/*
 * One line for an event that programs may look for. `event` is a lower-case name such as
 * "listener_opened"; `message` is our own sentence, without peer text. Plain: `message (name=1,
 * other="text")`. JSON: time, level, event, message and each field as a member.
 */
void log_event(struct log *log, enum log_type type, const char *event, const char *message,
               const struct log_field *fields, size_t field_count);

/* Who a connection is. Borrowed for the call. */
struct log_client {
    struct bytes client_id; /* data NULL: no CONNECT has been accepted, so there is no name yet */
    struct bytes user_name; /* data NULL: anonymous */
    const char *address;    /* "127.0.0.1:53210" or "[::1]:53210" */
    const char *transport;  /* "TCP", "TLS", "WebSocket", "WebSocket with TLS" */
    const char *protocol;   /* "MQTT 5.0"; NULL while unknown */
    bool clean_start;       /* for the connect line */
    uint16_t keep_alive_s;  /* for the connect line; 0 = none */
    uint64_t connected_ms;  /* for the disconnect line: how long it was connected */
};

/*
 * Notices, unless connection_messages is off:
 *   client "dash-1" connected from 127.0.0.1:53210 over WebSocket as MQTT 5.0 (user "ann", clean
 * start, keep alive 60 s) client "dash-1" disconnected: keep alive timed out (MQTT 5.0 over
 * WebSocket, 127.0.0.1:53210, after 12.3 s) connection from 127.0.0.1:53210 over WebSocket closed:
 * no CONNECT within 10 s (after 10.0 s) The third is what log_client_disconnected writes when
 * client_id.data is NULL. `reason` may hold peer text.
 */
void log_client_connected(struct log *log, const struct log_client *client);
void log_client_disconnected(struct log *log, const struct log_client *client, const char *reason);

/* A CONNECT that was answered with a refusal: `client "x" refused: not authorized (MQTT 5.0 over
 * TCP, 10.0.0.1:5)`. */
void log_client_refused(struct log *log, const struct log_client *client, const char *reason);

/*
 * Writes `text` with control characters, quotes, backslashes and invalid UTF-8 escaped (\n, \", \\,
 * \u001b, \ufffd) and without a terminator; what does not fit in LOG_TEXT_MAX is cut at a character
 * and marked "...". The escapes are JSON's, so the same text serves both formats. Fails the writer
 * when it is too small.
 */
void log_escape(struct writer *writer, struct bytes text);

#endif
