/*
 * tls_session: TLS on one connection, as a machine without sockets: ciphertext in, plaintext out,
 * and the reverse.
 *
 * Input is pulled from the bytes given with tls_session_input, all of which is always consumed.
 * Output is appended to the buffers that all sessions of a loop share; the connection writes it
 * before the next session gets its turn.
 */
#ifndef TRANSPORT_TLS_SESSION_H
#define TRANSPORT_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "connection.h"
#include "status.h"
#include "tls.h"
#include "tls_idle.h"

enum {
    TLS_RECORD_BYTES = 16 * 1024,
    TLS_RECORD_OVERHEAD = 256, /* more than any cipher of ours adds */
    TLS_CIPHER_BYTES = 320 * 1024,
    TLS_PLAIN_BYTES = 64 * 1024,
    TLS_ERROR_BYTES = 256,
    TLS_NAME_BYTES = 256, /* server name and common name */
    TLS_SUBJECT_BYTES = 1024,
};

/* Shared by the sessions of a loop; allocated with the first of them. */
struct tls_buffers {
    uint8_t *cipher; /* output, TLS_CIPHER_BYTES */
    size_t cipher_len;
    uint8_t *plain;       /* decrypted input, TLS_PLAIN_BYTES */
    uint8_t *gather;      /* parts of output that become one record, TLS_RECORD_BYTES */
    struct tls_idle idle; /* the sessions whose own buffers are whole */
};

enum tls_result {
    TLS_DONE,   /* handshake: complete. read: *len bytes. */
    TLS_MORE,   /* needs more input */
    TLS_CLOSED, /* the peer has sent close_notify */
    TLS_FAILED, /* tls_session_error says why; an alert may be in the buffers */
};

struct tls_session;

/* Errors: STATUS_NO_MEMORY, STATUS_INVALID (the library refused). The session holds the
 * configuration. */
MUST_USE enum status tls_session_create(struct tls_config *config, struct tls_buffers *buffers,
                                        struct tls_session **out);

/* NULL is allowed. */
void tls_session_destroy(struct tls_session *session);

/* True when tls_buffers_sweep has something to do, now or later. */
bool tls_buffers_have_idle_work(const struct tls_buffers *buffers);

/* See tls_idle_sweep. */
uint32_t tls_buffers_sweep(struct tls_buffers *buffers);

void tls_buffers_fini(struct tls_buffers *buffers);

/* Gives the session `bytes`, borrowed until a later call has returned TLS_MORE. */
void tls_session_input(struct tls_session *session, struct bytes bytes);

MUST_USE enum tls_result tls_session_handshake(struct tls_session *session);

/* Decrypts into buffers->plain what is there, up to its size. TLS_DONE: *len > 0. */
MUST_USE enum tls_result tls_session_read(struct tls_session *session, size_t *len);

/* Encrypts `bytes` into buffers->cipher, in full records where it can, as long as there is room.
 * Returns the number of bytes that were taken, or -1 when the session is broken. Requires: the
 * handshake is complete. */
MUST_USE ptrdiff_t tls_session_write(struct tls_session *session, struct bytes bytes);

/* Appends the close_notify alert to the buffers. */
void tls_session_close_notify(struct tls_session *session);

/* One line about the last failure. */
const char *tls_session_error(const struct tls_session *session);

/* True when the handshake was an abbreviated one. */
bool tls_session_is_resumed(const struct tls_session *session);

/* Texts about a session whose handshake is complete. */
struct tls_session_names {
    char server_name[TLS_NAME_BYTES];
    char common_name[TLS_NAME_BYTES];
    char subject[TLS_SUBJECT_BYTES];
};

/* Fills the TLS members of `info`, which point into *names or to constants. */
void tls_session_describe(const struct tls_session *session, struct tls_session_names *names,
                          struct connection_info *info);

#endif
