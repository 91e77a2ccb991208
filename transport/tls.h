/*
 * tls: certificates and TLS settings, made once and shared by the connections of any number of
 * listeners.
 *
 * Only the tls files know mbedTLS. TLS 1.2 is the lowest version; clients resume by
 * ticket or by session id.
 *
 *   Cost       create reads and parses files: call it at start and on reload only.
 *   Threads    Any: the connections of several loops may share a configuration.
 */
#ifndef TRANSPORT_TLS_H
#define TRANSPORT_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "status.h"

struct tls_config;

/* A certificate chain and its key, both PEM or DER files. */
struct tls_certificate {
    const char *certfile; /* the server's own certificate first */
    const char *keyfile;
};

struct tls_options {
    const struct tls_certificate *certificates; /* SNI chooses; the first is the default */
    size_t certificate_count;                   /* at least 1 */
    const char *cafile;                         /* who may sign client certificates; or NULL */
    const char *capath;                         /* a directory of such; or NULL */
    const char *crlfile;                        /* revocation list; or NULL */
    bool keep_buffers; /* idle connections keep all of their record buffers, see tls_idle.h */
    bool require_certificate; /* a client without a valid certificate is refused */
};

/*
 * Reads all files. On STATUS_OK the caller owns one reference in *out. On an error `error` gets one
 * line that names the file and the reason, and *out is NULL.
 *
 * Errors: STATUS_NO_MEMORY, STATUS_INVALID (a file is missing, unreadable or wrong, or key and
 * certificate do not match).
 */
MUST_USE enum status tls_config_create(const struct tls_options *options, struct tls_config **out,
                                       char *error, size_t error_size);

/* Takes and drops one reference; the last drop frees. */
struct tls_config *tls_config_hold(struct tls_config *config);
void tls_config_release(struct tls_config *config); /* NULL is allowed */

#endif
