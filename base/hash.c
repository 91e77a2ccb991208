#include "hash.h"

static inline uint64_t rotate(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

/* Little-endian loads; compilers make one instruction of each. */
static inline uint64_t load_4(const uint8_t *from)
{
    return (uint64_t)from[0] | (uint64_t)from[1] << 8 | (uint64_t)from[2] << 16 |
           (uint64_t)from[3] << 24;
}

static inline uint64_t load_8(const uint8_t *from)
{
    return load_4(from) | load_4(from + 4) << 32;
}

/* Fewer than 8 bytes; the rest of the word is zero. The loads may overlap: what they share is the
 * same. */
static inline uint64_t load_rest(const uint8_t *from, size_t len)
{
    if (len >= 4) {
        return load_4(from) | load_4(from + len - 4) << (8 * (len - 4));
    }
    if (len == 0) {
        return 0;
    }
    return (uint64_t)from[0] | (uint64_t)from[len / 2] << (8 * (len / 2)) |
           (uint64_t)from[len - 1] << (8 * (len - 1));
}

static uint64_t sip13(uint64_t k0, uint64_t k1, struct bytes bytes)
{
    uint64_t v[4] = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    const uint8_t *at = bytes.data;
    size_t left = bytes.len;
    for (; left >= 8; left -= 8, at += 8) {
        uint64_t word = load_8(at);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t last = load_rest(at, left) | (uint64_t)bytes.len << 56;
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t hash_bytes(const struct hash_seed *seed, struct bytes bytes)
{
    return sip13(seed->k0, seed->k1, bytes);
}

uint64_t hash_bytes_salted(const struct hash_seed *seed, uint64_t salt, struct bytes bytes)
{
    return sip13(seed->k0 ^ salt * UINT64_C(0x9e3779b97f4a7c15), seed->k1, bytes);
}

static inline uint64_t mix(uint64_t word)
{
    word *= UINT64_C(0xff51afd7ed558ccd); /* of MurmurHash3's finalizer */
    return word ^ word >> 32;
}

uint64_t hash_quick(struct bytes bytes)
{
    uint64_t hash = bytes.len;
    const uint8_t *at = bytes.data;
    size_t left = bytes.len;
    for (; left >= 8; left -= 8, at += 8) {
        hash = mix(hash ^ load_8(at));
    }
    return mix(hash ^ load_rest(at, left));
}
