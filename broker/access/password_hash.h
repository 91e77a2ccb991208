/*
 * password_hash: what a password file keeps of a password, as mosquitto writes it.
 *
 *   $7$ITERATIONS$SALT$DIGEST                      PBKDF2 with HMAC-SHA-512
 *   $6$SALT$DIGEST                                 SHA-512 of the password and the salt
 *   $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$DIGEST
 *
 * Salts and digests are base64. This is the form only; broker/hashing computes.
 *
 *   Ownership  A value without pointers, so that another thread can be given a copy.
 */
#ifndef BROKER_PASSWORD_HASH_H
#define BROKER_PASSWORD_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"
#include "status.h"

enum {
    PASSWORD_SALT_MAX = 64,
    PASSWORD_DIGEST_MAX = 64, /* SHA-512's are always so long */
    PASSWORD_DIGEST_MIN = 16,
    PASSWORD_ITERATIONS_MAX = 10 * 1000 * 1000,
    PASSWORD_PASSES_MAX = 64,
    PASSWORD_LANES_MAX = 64,
    PASSWORD_MEMORY_KIB_MAX = 128 * 1024, /* of one argon2id check; several run at once */
    PASSWORD_TEXT_MAX = 320,              /* the longest text of a hash */
};

enum password_kind { PASSWORD_PBKDF2_SHA512, PASSWORD_SHA512, PASSWORD_ARGON2ID };

struct password_hash {
    enum password_kind kind;
    uint32_t iterations; /* of PBKDF2; passes of argon2id */
    uint32_t memory_kib; /* argon2id */
    uint32_t lanes;      /* argon2id */
    uint8_t salt_len;
    uint8_t digest_len;
    uint8_t salt[PASSWORD_SALT_MAX];
    uint8_t digest[PASSWORD_DIGEST_MAX];
};

/* Reads a hash. On false *problem says in words what is wrong. */
MUST_USE bool password_hash_parse(struct bytes text, struct password_hash *out,
                                  const char **problem);

/* Writes the text of a hash; PASSWORD_TEXT_MAX bytes are enough. */
void password_hash_format(const struct password_hash *hash, struct writer *writer);

#endif
