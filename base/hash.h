/*
 * hash: SipHash-1-3 of bytes under a secret seed, so that no client can choose names that collide.
 * The seed is injected: the server draws it at random, tests and the simulator fix it.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdint.h>

#include "bytes.h"

struct hash_seed {
    uint64_t k0, k1;
};

uint64_t hash_bytes(const struct hash_seed *seed, struct bytes bytes);

/* The same with `salt` mixed into the seed: the name of a child under a numbered parent, for
 * instance. */
uint64_t hash_bytes_salted(const struct hash_seed *seed, uint64_t salt, struct bytes bytes);

/*
 * A few instructions, no seed: whoever chooses the bytes can make them collide. Only for tables in
 * which a collision costs a longer way and never a longer chain.
 */
uint64_t hash_quick(struct bytes bytes);

#endif
