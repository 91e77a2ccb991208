/*
 * tls: the generator's mbedTLS client. TLS 1.2, no certificate check, because the certificate of a
 * measured broker is made for the run and what is measured is the broker.
 *
 *   Place      tests/bench, below net.c. The only file that knows mbedTLS.
 *   Ownership  A session borrows its socket and its context; the caller closes and destroys them.
 */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tls_context;
struct tls_session;

enum tls_progress { TLS_DONE, TLS_WANT_READ, TLS_WANT_WRITE, TLS_FAILED };

/* With `resume`, the first finished handshake's session is offered by all later ones. */
struct tls_context *tls_context_create(bool resume);

struct tls_session *tls_session_create(struct tls_context *context, int fd);
/* Sends close_notify when the socket takes it. */
void tls_session_destroy(struct tls_session *session);

enum tls_progress tls_handshake(struct tls_session *session);

/* Like read and write on a non-blocking socket: -1 with errno EAGAIN when they would block; read
 * gives 0 at the end. After a write that would have blocked, the next write must begin with the
 * same bytes. */
ssize_t tls_read(struct tls_session *session, uint8_t *to, size_t len);
ssize_t tls_write(struct tls_session *session, const uint8_t *from, size_t len);

#endif
