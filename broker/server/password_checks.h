/*
 * password_checks: checks passwords on libuv's thread pool, so that the loop goes on meanwhile.
 *
 * Only as many run at once as leave the loop a core; the others wait in the order in which they
 * came. A connection has at most one, so that the limit of connections is theirs, too. A check that
 * is cancelled while it runs goes on, and nobody is told.
 *
 *   Threads    All calls come from the loop's thread. A check that runs has copies of its own.
 */
#ifndef SERVER_PASSWORD_CHECKS_H
#define SERVER_PASSWORD_CHECKS_H

#include "access.h"

struct uv_loop_s;
struct password_checks;

/* Errors: STATUS_NO_MEMORY. The caller ends *out with password_checks_destroy. */
MUST_USE enum status password_checks_create(struct uv_loop_s *uv, struct password_checks **out);

/* Requires that all checks were answered or cancelled and that the loop has run until none was
 * left. NULL is allowed. */
void password_checks_destroy(struct password_checks *checks);

/* What a front end asks. */
struct access_checker password_checks_checker(struct password_checks *checks);

#endif
