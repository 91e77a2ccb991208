#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hash.h"

/*
 * SipHash-1-3 of 0, 1, 2, ... under the key 0, 1, ..., 15. Computed by an independent program that
 * reproduces the SipHash paper's own vector for SipHash-2-4.
 */
static void agrees_with_siphash_1_3(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        uint64_t hash;
    } vectors[] = {
        {0, UINT64_C(0xabac0158050fc4dc)},  {1, UINT64_C(0xc9f49bf37d57ca93)},
        {7, UINT64_C(0xd3927d989bb11140)},  {8, UINT64_C(0x369095118d299a8e)},
        {9, UINT64_C(0x25a48eb36c063de4)},  {15, UINT64_C(0xd320d86d2a519956)},
        {16, UINT64_C(0xcc4fdd1a7d908b66)}, {63, UINT64_C(0x9d199062b7bbb3a8)},
    };
    const struct hash_seed seed = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    uint8_t input[64];
    for (size_t i = 0; i < sizeof input; i++) {
        input[i] = (uint8_t)i;
    }
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        assert_true(hash_bytes(&seed, bytes_of(input, vectors[i].len)) == vectors[i].hash);
    }
    assert_true(hash_bytes(&seed, BYTES_EMPTY) == vectors[0].hash);
}

static void seed_and_salt_change_everything(void **state)
{
    (void)state;
    const struct hash_seed seeds[] = {{1, 2}, {1, 3}, {4, 2}};
    uint64_t hashes[3 * 100];
    size_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        for (uint64_t salt = 0; salt < 100; salt++) {
            hashes[count++] = hash_bytes_salted(&seeds[i], salt, bytes_of_string("level"));
        }
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_true(hashes[i] != hashes[j]);
        }
    }
    assert_true(hash_bytes_salted(&seeds[0], 7, bytes_of_string("level")) == hashes[7]);
    assert_true(hash_bytes_salted(&seeds[0], 0, bytes_of_string("level")) ==
                hash_bytes(&seeds[0], bytes_of_string("level")));
}

/* Neither an end of a few bytes nor their number goes under. */
static void the_quick_hash_sees_every_byte(void **state)
{
    (void)state;
    uint8_t input[40] = {0};
    uint64_t seen[40];
    for (size_t len = 0; len < sizeof input; len++) {
        seen[len] = hash_quick(bytes_of(input, len));
        for (size_t i = 0; i < len; i++) {
            assert_true(seen[i] != seen[len]);
            input[i] = 1;
            assert_true(hash_quick(bytes_of(input, len)) != seen[len]);
            input[i] = 0;
        }
    }
    assert_true(hash_quick(BYTES_EMPTY) == seen[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_siphash_1_3),
        cmocka_unit_test(seed_and_salt_change_everything),
        cmocka_unit_test(the_quick_hash_sees_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
