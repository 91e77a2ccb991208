/*
 * password_digest: computes and compares the digests of password_hash.h, through mbedTLS and
 * libargon2. The only room that knows them for this purpose.
 *
 *   Cost       As much as the hash asks for: microseconds to seconds of one core, and for argon2id
 *              up to PASSWORD_MEMORY_KIB_MAX of memory. Never call it from the core's thread.
 *   Threads    Pure functions: any thread.
 */
#ifndef BROKER_PASSWORD_DIGEST_H
#define BROKER_PASSWORD_DIGEST_H

#include "password_hash.h"

/* Fills in hash->digest (and its length for SHA-512) as the rest of `hash` and the password say.
 * Errors: STATUS_NO_MEMORY. */
MUST_USE enum status password_digest(struct password_hash *hash, struct bytes password);

/* Whether `password` is the one that `hash` was made of; takes the same time for every wrong one.
 * Errors: STATUS_NO_MEMORY. */
MUST_USE enum status password_verify(const struct password_hash *hash, struct bytes password,
                                     bool *is_right);

/* Overwrites a secret so that the compiler cannot leave it out. */
void password_wipe(void *secret, size_t len);

#endif
