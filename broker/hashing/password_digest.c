#include "password_digest.h"

#include <argon2.h>
#include <mbedtls/md.h>
#include <mbedtls/pkcs5.h>

static const mbedtls_md_info_t *sha512(void)
{
    const mbedtls_md_info_t *info = mbedtls_md_info_from_type(MBEDTLS_MD_SHA512);
    ENSURE(info != NULL);
    return info;
}

static enum status pbkdf2(struct password_hash *hash, struct bytes password)
{
    mbedtls_md_context_t context;
    mbedtls_md_init(&context);
    int failed = mbedtls_md_setup(&context, sha512(), 1);
    if (failed == 0) {
        failed = mbedtls_pkcs5_pbkdf2_hmac(&context, password.data, password.len, hash->salt,
                                           hash->salt_len, hash->iterations, sizeof hash->digest,
                                           hash->digest);
    }
    mbedtls_md_free(&context);
    return failed == 0 ? STATUS_OK : STATUS_NO_MEMORY;
}

static enum status sha512_once(struct password_hash *hash, struct bytes password)
{
    mbedtls_md_context_t context;
    mbedtls_md_init(&context);
    int failed = mbedtls_md_setup(&context, sha512(), 0);
    if (failed == 0) {
        failed = mbedtls_md_starts(&context);
    }
    if (failed == 0 && password.len != 0) {
        failed = mbedtls_md_update(&context, password.data, password.len);
    }
    if (failed == 0) {
        failed = mbedtls_md_update(&context, hash->salt, hash->salt_len);
    }
    if (failed == 0) {
        failed = mbedtls_md_finish(&context, hash->digest);
    }
    mbedtls_md_free(&context);
    return failed == 0 ? STATUS_OK : STATUS_NO_MEMORY;
}

/* All lanes in this thread: the broker decides how many cores checks may have. */
static enum status argon2id(struct password_hash *hash, struct bytes password)
{
    argon2_context context = {
        .out = hash->digest,
        .outlen = hash->digest_len,
        .pwd = (uint8_t *)(uintptr_t)password.data,
        .pwdlen = (uint32_t)password.len,
        .salt = hash->salt,
        .saltlen = hash->salt_len,
        .t_cost = hash->iterations,
        .m_cost = hash->memory_kib,
        .lanes = hash->lanes,
        .threads = 1,
        .version = ARGON2_VERSION_13,
        .flags = ARGON2_DEFAULT_FLAGS,
    };
    int result = argon2id_ctx(&context);
    ENSURE(result == ARGON2_OK || result == ARGON2_MEMORY_ALLOCATION_ERROR);
    return result == ARGON2_OK ? STATUS_OK : STATUS_NO_MEMORY;
}

enum status password_digest(struct password_hash *hash, struct bytes password)
{
    static const uint8_t nothing = 0;
    struct bytes secret = password.data == NULL ? bytes_of(&nothing, 0) : password;
    switch (hash->kind) {
    case PASSWORD_PBKDF2_SHA512:
        hash->digest_len = sizeof hash->digest;
        return pbkdf2(hash, secret);
    case PASSWORD_SHA512:
        hash->digest_len = sizeof hash->digest;
        return sha512_once(hash, secret);
    case PASSWORD_ARGON2ID:
        return argon2id(hash, secret);
    }
    return STATUS_NO_MEMORY;
}

/* Looks at every byte, wherever the first difference is. */
static bool is_equal(const uint8_t *a, const uint8_t *b, size_t len)
{
    volatile uint8_t difference = 0;
    for (size_t i = 0; i < len; i++) {
        difference = (uint8_t)(difference | (a[i] ^ b[i]));
    }
    return difference == 0;
}

enum status password_verify(const struct password_hash *hash, struct bytes password, bool *is_right)
{
    struct password_hash computed = *hash;
    memset(computed.digest, 0, sizeof computed.digest);
    enum status status = password_digest(&computed, password);
    *is_right = status == STATUS_OK && is_equal(computed.digest, hash->digest, sizeof hash->digest);
    return status;
}

void password_wipe(void *secret, size_t len)
{
    volatile uint8_t *at = secret;
    for (size_t i = 0; i < len; i++) {
        at[i] = 0;
    }
}
