/*
 * access: who may connect, publish and subscribe.
 *
 * A listener has one `struct access`: what its password and ACL files say. A reload replaces what
 * is in it, and the new files count for everybody at once. A client that wants in is judged by
 * access_connect; one that is held to an ACL has a `struct access_rights`, which is asked about
 * each topic. Pure decisions: the files are read, and passwords checked, by somebody else.
 *
 *   Cost       A client without rights is not asked about anything.
 *   Threads    All calls come from the core's thread.
 */
#ifndef BROKER_ACCESS_H
#define BROKER_ACCESS_H

#include <stdbool.h>

#include "acl.h"
#include "bytes.h"
#include "mqtt.h"
#include "password_file.h"
#include "shared.h"

struct access;        /* begins with a struct shared */
struct access_rights; /* begins with a struct shared */

/* Access without any files. The caller owns one reference. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status access_create(struct access **out);

/* Drops one reference; NULL is allowed. */
void access_release(struct access *access);

/* Other files from now on; NULL: none of that kind. References are taken. */
void access_set_files(struct access *access, struct passwords *passwords, struct acl *acl);

/* True when clients are held to an ACL. `access` may be NULL. */
bool access_has_acl(const struct access *access);

/* What is known of a client that wants to connect. */
struct access_request {
    const struct access *access;   /* the listener's; NULL: no files */
    bool allow_anonymous;          /* the listener's setting */
    bool certificate_is_user;      /* use_identity_as_username or use_subject_as_username */
    struct bytes certificate_user; /* empty: it showed no certificate, or one without a name */
    bool has_user_name;            /* an empty name is as good as none */
    struct bytes user_name;
    bool has_password;
    struct bytes password;
};

/* How a client was let in. */
struct access_grant {
    struct bytes user_name; /* that counts from now on; data NULL = anonymous; borrowed */
    /* Not NULL: only if the password is right. It is borrowed: copy it before files change. */
    const struct password_hash *hash;
    /* Of the user's entry in the password file; 0: it did not come from there, or, with `hash`, the
     * answer will be no whatever the password is. */
    uint64_t mark;
};

/* Answers MQTT_SUCCESS with a grant, MQTT_BAD_USER_NAME_OR_PASSWORD or MQTT_NOT_AUTHORIZED. */
MUST_USE enum mqtt_reason access_connect(const struct access_request *request,
                                         struct access_grant *out);

/* False when a user who came in with an entry of the password file (`mark` not 0), or with an
 * unchecked name, is not let in by the files as they are now. */
bool access_is_still_granted(const struct access *access, struct bytes user_name, uint64_t mark);

/* Checks passwords beside the core's thread; each front end is given one. */
struct access_check;
/* STATUS_OK: the password is right; STATUS_INVALID: it is wrong; else it could not be checked. */
typedef void access_answer_fn(void *owner, uint64_t now_ms, enum status result);
struct access_checker {
    void *ctx;
    /* Begins a check; `answer` is called once, never before this returns, unless the check is
     * cancelled. Both are copied. NULL: no memory. */
    struct access_check *(*start)(void *ctx, const struct password_hash *hash,
                                  struct bytes password, access_answer_fn *answer, void *owner);
    /* No answer is wanted any more. */
    void (*cancel)(void *ctx, struct access_check *check);
};

/* False for topics that only the broker itself writes: $SYS. */
bool access_may_publish(struct bytes topic);

/* True for filters under $reply, on whose topics answers come to whoever was told of one: nobody
 * may find them. "$share/..." is looked through. */
bool access_is_hidden(struct bytes filter);

/*
 * The rights of a client under the ACL of `access`, whatever files that has later; both names are
 * copied. The caller owns one reference, and drops it with access_rights_release.
 * Errors: STATUS_NO_MEMORY.
 */
MUST_USE enum status access_rights_create(struct access *access, struct bytes user_name,
                                          struct bytes client_id, struct access_rights **out);

void access_rights_release(struct access_rights *rights); /* NULL is allowed */

/* The questions. `rights` NULL: everything is allowed. A filter may begin with "$share/". */
bool access_may_read(struct access_rights *rights, struct bytes topic);
bool access_may_write(struct access_rights *rights, struct bytes topic);
bool access_may_subscribe(struct access_rights *rights, struct bytes filter);

#endif
