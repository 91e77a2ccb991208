/*
 * Any text is an ACL file and a password file, or is refused with reports; what was accepted can be
 * asked anything.
 *
 * Input: a byte that says which file it is, the questions' names up to a NUL each (user, client id,
 * topic), then the text.
 */
#include "access.h"
#include "topic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned errors;

static void check_report(void *ctx, unsigned line, const char *text)
{
    (void)ctx;
    ENSURE(line != 0 && text[0] != '\0');
    for (const char *at = text; *at != '\0'; at++) {
        ENSURE((unsigned char)*at >= ' ' && (unsigned char)*at < 0x7F);
    }
    errors++;
}

static struct bytes cut(struct bytes *rest)
{
    const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->data, 0, rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
    struct bytes part = bytes_of(rest->data, len);
    *rest = bytes_from(*rest, len + 1);
    return part;
}

static void fuzz_acl(struct bytes user, struct bytes client_id, struct bytes topic,
                     struct bytes text)
{
    struct acl *acl = NULL;
    enum status status = acl_parse(text, check_report, NULL, &acl);
    ENSURE((status == STATUS_OK) == (acl != NULL) && (errors == 0) == (acl != NULL));
    if (acl == NULL) {
        return;
    }
    struct acl_client client = {acl_user_of(acl, user), user, client_id};
    if (topic_name_is_valid(topic)) {
        bool may_read = acl_allows(acl, &client, ACL_READ, topic);
        (void)acl_allows(acl, &client, ACL_WRITE, topic);
        /* Whoever may read a topic may subscribe to it, and to all. */
        ENSURE(!may_read || acl_allows_filter(acl, &client, topic));
    }
    if (topic_filter_is_valid(topic)) {
        (void)acl_allows_filter(acl, &client, topic);
    }
    acl_release(acl);
}

static void fuzz_passwords(struct bytes user, struct bytes text)
{
    struct passwords *passwords = NULL;
    enum status status = passwords_parse(text, check_report, NULL, &passwords);
    ENSURE((status == STATUS_OK) == (passwords != NULL) && (errors == 0) == (passwords != NULL));
    if (passwords == NULL) {
        return;
    }
    uint64_t mark;
    const struct password_hash *hash = passwords_find(passwords, user, &mark);
    ENSURE((hash != NULL) == (mark != 0));
    ENSURE(hash == NULL || passwords_decoy(passwords, user) != NULL);
    if (hash != NULL) {
        uint8_t buffer[PASSWORD_TEXT_MAX];
        struct writer writer = writer_of(buffer, sizeof buffer);
        struct password_hash again;
        const char *problem;
        password_hash_format(hash, &writer);
        ENSURE(writer_ok(&writer));
        ENSURE(password_hash_parse(writer_written(&writer), &again, &problem));
        ENSURE(memcmp(again.digest, hash->digest, sizeof again.digest) == 0);
    }
    passwords_release(passwords);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct bytes rest = bytes_of(data + 1, size - 1);
    struct bytes user = cut(&rest);
    errors = 0;
    if (data[0] % 2 == 0) {
        fuzz_passwords(user, rest);
    } else {
        struct bytes client_id = cut(&rest);
        struct bytes topic = cut(&rest);
        fuzz_acl(user, client_id, topic, rest);
    }
    return 0;
}
