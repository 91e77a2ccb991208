/*
 * config: what the operator asked for, read from files in mosquitto.conf's syntax.
 *
 * Every key stands in one table (config_keys.c) with its type, range, scope and the place where its
 * value goes; docs/configuration.md describes each. A key that Dunlin knows and does not serve yet
 * is a warning, or an error where ignoring it would let somebody in or show somebody something; an
 * unknown key or a bad value is an error. All problems of a file are reported, not only the first.
 *
 *   Cost       At start and on reload only.
 *   Ownership  The config owns all its strings and arrays and never changes after it was loaded.
 *   Threads    None. A loaded config may be read by all.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "log.h"
#include "status.h"

enum {
    CONFIG_LISTENERS_MAX = 256,
    CONFIG_CERTIFICATES_MAX = 64,    /* certfile/keyfile pairs of one listener */
    CONFIG_ORIGINS_MAX = 256,        /* websockets_origin lines of one listener */
    CONFIG_FILE_BYTES_MAX = 1 << 20, /* one configuration file */
    CONFIG_LINE_BYTES_MAX = 4096,
    CONFIG_INCLUDED_FILES_MAX = 1024,
    CONFIG_HOST_MAX = 255,
};

/* No limit, where a setting says so. */
#define CONFIG_UNLIMITED UINT32_MAX
#define CONFIG_UNLIMITED_BYTES UINT64_MAX

/* What a listener speaks: a set. TLS is spoken when the listener has certificates. */
enum config_protocol {
    CONFIG_PROTOCOL_DEFAULT,    /* everything; with certificates TLS only */
    CONFIG_PROTOCOL_ANY,        /* the same, and with certificates both with and without TLS */
    CONFIG_PROTOCOL_MQTT,       /* MQTT only */
    CONFIG_PROTOCOL_STOMP,      /* STOMP, also over WebSocket */
    CONFIG_PROTOCOL_WEBSOCKETS, /* WebSocket only: MQTT and STOMP */
};

enum config_family { CONFIG_FAMILY_ANY, CONFIG_FAMILY_IPV4, CONFIG_FAMILY_IPV6 };

/* One server certificate; the first of a listener is used when SNI names none. */
struct config_certificate {
    const char *certfile;
    const char *keyfile;
};

struct config_listener {
    /* Where it was written, for messages: NULL and 0 when it comes from the command line or is
     * implied. */
    const char *file;
    unsigned line;

    const char *host;      /* address or name; NULL = all interfaces */
    const char *unix_path; /* not NULL: a Unix socket; host is NULL and port 0 */
    uint16_t port;         /* 0 from the command line: the system chooses */
    bool optional;         /* may be missing: the [::1] half of a loopback pair */
    bool local_only;       /* opened by us on loopback: no file asked for it */
    enum config_family family;
    enum config_protocol protocol;

    /* Access. Resolved: allow_anonymous already has its default. */
    bool allow_anonymous;
    bool allow_zero_length_clientid;
    const char *auto_id_prefix; /* never NULL */
    const char *password_file;  /* NULL: nobody has a password */
    const char *acl_file;       /* NULL: everybody may publish and subscribe to everything */

    /* TLS. certificate_count 0: none. */
    struct config_certificate *certificates;
    size_t certificate_count;
    const char *cafile;  /* NULL or a path; never NULL when require_certificate */
    const char *crlfile; /* NULL or a path */
    bool require_certificate;
    bool use_identity_as_username;
    bool use_subject_as_username;

    /* WebSocket. No origin: every one is welcome. */
    const char **websockets_origins;
    size_t websockets_origin_count;

    /* HTTP */
    const char *http_cors_origin; /* origins with blanks between them, or "*"; NULL: none */

    /* Limits */
    uint32_t max_connections; /* CONFIG_UNLIMITED */
    uint32_t max_qos;         /* 0 to 2 */
    uint32_t max_topic_alias; /* aliases that a client may set up; 0 = none */
};

/* Global settings. Comments name the default where the name does not tell what a value means. */
struct config {
    struct config_listener *listeners; /* at least one */
    size_t listener_count;

    /* Queues and windows of each client */
    uint32_t max_queued_messages;   /* 10000; CONFIG_UNLIMITED for 0 */
    uint64_t max_queued_bytes;      /* 32 MiB; CONFIG_UNLIMITED_BYTES for 0 */
    uint32_t max_inflight_messages; /* 100; 1 to 65535: outgoing QoS 1 and 2 window */
    uint64_t max_inflight_bytes;    /* CONFIG_UNLIMITED_BYTES */
    uint32_t receive_maximum;       /* 65535; the window that we announce to MQTT 5 clients */
    bool queue_qos0_messages;       /* false */
    bool upgrade_outgoing_qos;      /* false */

    /* Limits of what a client may send or ask for */
    uint32_t max_packet_size;    /* 16 MiB; a whole packet with its header */
    uint32_t message_size_limit; /* payload bytes; 268435455, which a packet cannot exceed */
    uint32_t max_keepalive_s;    /* 65535 */
    uint32_t max_subscriptions;  /* 10000 of each client; CONFIG_UNLIMITED for 0 */
    uint32_t max_topic_levels;   /* 128 */
    bool retain_available;       /* true */
    uint64_t persistent_client_expiration_s; /* UINT64_MAX: never */
    const char *clientid_prefixes;           /* NULL: every client id is welcome */
    const char *response_information;        /* NULL: none is given */

    /* Time limits of a connection that has not said what it wants */
    uint32_t connect_timeout_s;   /* 10: from accepted or upgraded to a complete CONNECT */
    uint32_t handshake_timeout_s; /* 10: TLS handshake and HTTP upgrade together */

    /* WebSocket */
    uint32_t websocket_ping_interval_s; /* 25; 0 = no pings */
    uint32_t websockets_headers_size;   /* 8192: bytes of an upgrade request */

    /* What outlives the process */
    bool persistence;                 /* false */
    const char *persistence_location; /* NULL: the working directory */
    const char *persistence_file;     /* NULL: dunlin.db */

    /* The process */
    uint32_t io_threads;     /* CONFIG_UNLIMITED: by the CPUs; 0 = one thread does everything */
    uint32_t sys_interval_s; /* 10; 0 = no $SYS topics */
    bool set_tcp_nodelay;    /* true */
    const char *pid_file;    /* NULL */
    const char *user;        /* NULL: stay who we are */
    struct log_options log;  /* strings owned by the config */

    struct config_block *blocks; /* private: all memory of the config, freed together */
};

enum config_severity { CONFIG_WARNING, CONFIG_ERROR };

/* Told each problem in the order of the files. `file` is never NULL; `line` 0: the file as a whole.
 */
typedef void config_report_fn(void *ctx, enum config_severity severity, const char *file,
                              unsigned line, const char *text);

/* A listener asked for on the command line. */
struct config_address {
    char host[CONFIG_HOST_MAX + 1]; /* "": 127.0.0.1, and ::1 where there is one; "*": everywhere */
    uint16_t port;                  /* 0: the system chooses */
};

/*
 * Reads the file at `path` (NULL: no file, all defaults) and adds the `address_count` listeners of
 * the command line. With neither, the listeners are 127.0.0.1:1883 and [::1]:1883 with anonymous
 * clients allowed, as mosquitto 2 does. On STATUS_OK the caller owns *out and ends it with
 * config_destroy; else *out is NULL.
 *
 * Errors: STATUS_INVALID (problems of severity CONFIG_ERROR were reported), STATUS_IO (a file
 * cannot be read; reported too), STATUS_NO_MEMORY.
 */
MUST_USE enum status config_load(const char *path, const struct config_address *addresses,
                                 size_t address_count, config_report_fn *report, void *ctx,
                                 struct config **out);

/* The same for a text in memory that is called `name` in reports; include_dir in it is an error.
 * For tests. */
MUST_USE enum status config_parse(struct bytes text, const char *name, config_report_fn *report,
                                  void *ctx, struct config **out);

/* NULL is allowed. */
void config_destroy(struct config *config);

/* True for localhost, 127.0.0.0/8 and ::1: addresses that nobody reaches from outside. */
bool config_host_is_loopback(const char *host);

/* "127.0.0.1:1883", "[::1]:1883", "*:1883" or "unix:/run/x.sock" into `out`, always terminated. For
 * log lines. */
void config_listener_name(const struct config_listener *listener, char *out, size_t out_size);

#endif
