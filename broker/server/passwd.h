/*
 * passwd: `dunlin passwd`, which makes, changes and removes entries of a password file. mosquitto
 * reads them, and `dunlin passwd` reads what mosquitto_passwd writes.
 */
#ifndef SERVER_PASSWD_H
#define SERVER_PASSWD_H

#include "bytes.h"
#include "status.h"

enum { PASSWD_ITERATIONS = 10 * 1000 };

/* Runs the command; argv[0] is "passwd". Returns the exit status of the process. */
int passwd_run(int argc, char *const argv[]);

/*
 * The text of a password file with `line` (NULL: nothing) in the place of the entry of `user`, or
 * at the end when there is none. All other bytes stay as they are. *found says whether there was an
 * entry. The caller frees *out with mem_free. Errors: STATUS_NO_MEMORY.
 */
MUST_USE enum status passwd_edit(struct bytes text, struct bytes user, const char *line,
                                 uint8_t **out, size_t *len, bool *found);

#endif
