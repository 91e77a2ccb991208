/*
 * acl: an ACL file in mosquitto's form, and what it lets one client read and write.
 *
 *   user NAME                                        the topics below are NAME's
 *   topic [read|write|readwrite|deny] FILTER         before the first `user`: of anonymous clients
 *   pattern [read|write|readwrite|deny] FILTER       of everybody; %c is the client id, %u the user
 *
 * Decisions are mosquitto's: first the client's own topics, among which a deny beats what allows;
 * what they leave open is decided by the patterns in the same way; what nothing allows is refused.
 * A pattern with %u is nothing for an anonymous client, and a client whose user name or id has a
 * '+' or '#' in it gets nothing from any pattern.
 *
 *   Cost       A decision looks at the client's own topics and at all patterns; no allocation.
 *   Ownership  Immutable and counted.
 */
#ifndef BROKER_ACL_H
#define BROKER_ACL_H

#include "access_lines.h"
#include "shared.h"

enum { ACL_RULES_MAX = 4 * 1000 * 1000 };

struct acl;      /* begins with a struct shared */
struct acl_user; /* the topics of one user */

enum acl_right { ACL_READ = 1, ACL_WRITE = 2 };

/* Reads the text of an ACL file, as passwords_parse does. Drop the reference with acl_release. */
MUST_USE enum status acl_parse(struct bytes text, access_report_fn *report, void *ctx,
                               struct acl **out);

void acl_release(struct acl *acl); /* NULL is allowed */

/* The topics of `user` (empty: of anonymous clients), borrowed; NULL when there are none. */
const struct acl_user *acl_user_of(const struct acl *acl, struct bytes user);

/* Who asks. */
struct acl_client {
    const struct acl_user *user; /* acl_user_of its user name */
    struct bytes user_name;      /* empty: anonymous */
    struct bytes client_id;      /* empty: it has none, and gets nothing from a pattern with %c */
};

/* May the client read, or write, `topic`? Requires a valid topic name. */
bool acl_allows(const struct acl *acl, const struct acl_client *client, enum acl_right right,
                struct bytes topic);

/*
 * Is there anything that a subscription to `filter` could bring the client? False when everything
 * that it matches is denied, or nothing of it allowed; what it may not read among the rest is to be
 * held back one by one. Requires a valid filter without "$share/".
 */
bool acl_allows_filter(const struct acl *acl, const struct acl_client *client, struct bytes filter);

#endif
