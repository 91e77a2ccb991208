#include "password_hash.h"

#include <stdio.h>

#include "base64.h"

enum { NUMBER_DIGITS_MAX = 9, ARGON2_MEMORY_PER_LANE_KIB = 8, ARGON2_SALT_MIN = 8 };

/* The text up to the next `end`, which is passed over; all that is left when there is none. */
static struct bytes cut(struct bytes *text, uint8_t end)
{
    struct bytes part = bytes_of(text->data, 0);
    while (part.len < text->len && text->data[part.len] != end) {
        part.len++;
    }
    *text = bytes_from(*text, part.len + 1);
    return part;
}

static bool parse_number(struct bytes text, uint32_t max, uint32_t *out)
{
    uint32_t number = 0;
    if (text.len == 0 || text.len > NUMBER_DIGITS_MAX) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        number = number * 10 + (uint32_t)(text.data[i] - '0');
    }
    *out = number;
    return number != 0 && number <= max;
}

/* "KEY=NUMBER" */
static bool parse_parameter(struct bytes text, const char *key, uint32_t max, uint32_t *out)
{
    struct bytes name = bytes_of_string(key);
    return bytes_start_with(text, name) && parse_number(bytes_from(text, name.len), max, out);
}

static bool parse_binary(struct bytes text, uint8_t *out, size_t capacity, size_t min, uint8_t *len)
{
    struct writer writer = writer_of(out, capacity);
    if (!base64_decode(text, &writer) || writer_len(&writer) < min) {
        return false;
    }
    *len = (uint8_t)writer_len(&writer);
    return true;
}

/* What all three forms end with. */
static const char *parse_salt_and_digest(struct bytes text, struct password_hash *out)
{
    bool is_sha512 = out->kind != PASSWORD_ARGON2ID;
    struct bytes salt = cut(&text, '$');
    if (!parse_binary(salt, out->salt, sizeof out->salt, is_sha512 ? 1 : ARGON2_SALT_MIN,
                      &out->salt_len)) {
        return "its salt is no base64 or has a wrong length";
    }
    if (!parse_binary(text, out->digest, sizeof out->digest,
                      is_sha512 ? PASSWORD_DIGEST_MAX : PASSWORD_DIGEST_MIN, &out->digest_len)) {
        return "its hash is no base64 or has a wrong length";
    }
    return NULL;
}

static const char *parse_argon2(struct bytes *text, struct password_hash *out)
{
    if (!bytes_equal_string(cut(text, '$'), "v=19")) {
        return "its argon2 version is not 19";
    }
    struct bytes parameters = cut(text, '$');
    if (!parse_parameter(cut(&parameters, ','), "m=", PASSWORD_MEMORY_KIB_MAX, &out->memory_kib)) {
        return "its argon2 memory (m) is not a number from 8 to 131072 (KiB)";
    }
    if (!parse_parameter(cut(&parameters, ','), "t=", PASSWORD_PASSES_MAX, &out->iterations)) {
        return "its argon2 passes (t) are not a number from 1 to 64";
    }
    if (!parse_parameter(parameters, "p=", PASSWORD_LANES_MAX, &out->lanes)) {
        return "its argon2 lanes (p) are not a number from 1 to 64";
    }
    if (out->memory_kib < ARGON2_MEMORY_PER_LANE_KIB * out->lanes) {
        return "its argon2 memory (m) is less than 8 for each lane (p)";
    }
    return NULL;
}

bool password_hash_parse(struct bytes text, struct password_hash *out, const char **problem)
{
    *out = (struct password_hash){.iterations = 1};
    *problem = NULL;
    struct bytes nothing = cut(&text, '$');
    struct bytes name = cut(&text, '$');
    if (nothing.len != 0) {
        *problem = "its password is not hashed; make the entry with \"dunlin passwd\"";
    } else if (bytes_equal_string(name, "7")) {
        out->kind = PASSWORD_PBKDF2_SHA512;
        if (!parse_number(cut(&text, '$'), PASSWORD_ITERATIONS_MAX, &out->iterations)) {
            *problem = "its iterations are not a number from 1 to 10000000";
        }
    } else if (bytes_equal_string(name, "6")) {
        out->kind = PASSWORD_SHA512;
    } else if (bytes_equal_string(name, "argon2id")) {
        out->kind = PASSWORD_ARGON2ID;
        *problem = parse_argon2(&text, out);
    } else {
        *problem = "its hash is none of $7$, $6$ and $argon2id$";
    }
    if (*problem == NULL) {
        *problem = parse_salt_and_digest(text, out);
    }
    return *problem == NULL;
}

/* argon2's own texts have no padding. */
static void write_binary(struct writer *writer, struct bytes bytes, bool padded)
{
    uint8_t text[96];
    struct writer local = writer_of(text, sizeof text);
    base64_encode(bytes, &local);
    ENSURE(writer_ok(&local));
    struct bytes written = writer_written(&local);
    while (!padded && written.len != 0 && written.data[written.len - 1] == '=') {
        written.len--;
    }
    writer_bytes(writer, written);
}

void password_hash_format(const struct password_hash *hash, struct writer *writer)
{
    char head[64];
    switch (hash->kind) {
    case PASSWORD_PBKDF2_SHA512:
        (void)snprintf(head, sizeof head, "$7$%u$", (unsigned)hash->iterations);
        break;
    case PASSWORD_SHA512:
        (void)snprintf(head, sizeof head, "$6$");
        break;
    case PASSWORD_ARGON2ID:
        (void)snprintf(head, sizeof head, "$argon2id$v=19$m=%u,t=%u,p=%u$",
                       (unsigned)hash->memory_kib, (unsigned)hash->iterations,
                       (unsigned)hash->lanes);
        break;
    }
    bool padded = hash->kind != PASSWORD_ARGON2ID;
    writer_bytes(writer, bytes_of_string(head));
    write_binary(writer, bytes_of(hash->salt, hash->salt_len), padded);
    writer_u8(writer, '$');
    write_binary(writer, bytes_of(hash->digest, hash->digest_len), padded);
}
