/*
 * password_file: the users of a password file, `USER:HASH` on each line, as mosquitto_passwd and
 * `dunlin passwd` write them.
 *
 *   Cost       Finding a user is one look in a hash table.
 *   Ownership  Immutable and counted: whoever needs it longer than a call holds it.
 */
#ifndef BROKER_PASSWORD_FILE_H
#define BROKER_PASSWORD_FILE_H

#include "access_lines.h"
#include "password_hash.h"
#include "shared.h"

enum { PASSWORD_USERS_MAX = 4 * 1000 * 1000 };

struct passwords; /* begins with a struct shared */

/*
 * Reads the text of a password file. All mistakes are reported, not only the first. On STATUS_OK
 * the caller owns one reference and drops it with passwords_release; else *out is NULL.
 *
 * Errors: STATUS_INVALID (mistakes were reported), STATUS_NO_MEMORY.
 */
MUST_USE enum status passwords_parse(struct bytes text, access_report_fn *report, void *ctx,
                                     struct passwords **out);

void passwords_release(struct passwords *passwords); /* NULL is allowed */

/* The hash of `user`, borrowed, or NULL. *mark is a number that changes when the entry does. */
const struct password_hash *passwords_find(const struct passwords *passwords, struct bytes user,
                                           uint64_t *mark);

/*
 * The hash of somebody else, always the same one for one name, to be checked in vain for a user who
 * is not in the file: an answer must not tell by its time whether there is such a user. NULL when
 * there are no users at all.
 */
const struct password_hash *passwords_decoy(const struct passwords *passwords, struct bytes user);

#endif
