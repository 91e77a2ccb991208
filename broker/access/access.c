#include "access.h"

#include "mem.h"
#include "topic.h"

struct access {
    struct shared shared; /* first */
    struct passwords *passwords;
    struct acl *acl;
    uint64_t generation; /* of acl */
};

struct access_rights {
    struct shared shared; /* first */
    struct access *access;
    uint64_t generation; /* for which user is right */
    const struct acl_user *user;
    uint32_t user_name_len;
    uint32_t client_id_len;
    uint8_t names[]; /* the user's, the client id */
};

static void destroy_access(struct shared *shared)
{
    struct access *access = (struct access *)(void *)shared;
    passwords_release(access->passwords);
    acl_release(access->acl);
    mem_free(access);
}

enum status access_create(struct access **out)
{
    *out = mem_zalloc(sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->shared = (struct shared){1, destroy_access};
    return STATUS_OK;
}

void access_release(struct access *access)
{
    if (access != NULL) {
        shared_release(&access->shared);
    }
}

void access_set_files(struct access *access, struct passwords *passwords, struct acl *acl)
{
    struct passwords *passwords_before = access->passwords;
    struct acl *acl_before = access->acl;
    if (passwords != NULL) {
        (void)shared_hold((struct shared *)(void *)passwords);
    }
    if (acl != NULL) {
        (void)shared_hold((struct shared *)(void *)acl);
    }
    access->passwords = passwords;
    access->acl = acl;
    access->generation++;
    passwords_release(passwords_before);
    acl_release(acl_before);
}

bool access_has_acl(const struct access *access)
{
    return access != NULL && access->acl != NULL;
}

/* mosquitto's rules: who gives a name must prove it, and who gives none is anonymous. */
static enum mqtt_reason ask_for_password(const struct access_request *request,
                                         struct access_grant *out)
{
    const struct passwords *passwords = request->access->passwords;
    out->user_name = request->user_name;
    if (request->has_password) {
        out->hash = passwords_find(passwords, request->user_name, &out->mark);
        if (out->hash == NULL) {
            out->hash = passwords_decoy(passwords, request->user_name);
        }
    }
    return out->hash != NULL ? MQTT_SUCCESS : MQTT_BAD_USER_NAME_OR_PASSWORD;
}

enum mqtt_reason access_connect(const struct access_request *request, struct access_grant *out)
{
    *out = (struct access_grant){.user_name = BYTES_EMPTY};
    if (request->certificate_is_user) {
        if (request->certificate_user.len == 0) {
            return MQTT_BAD_USER_NAME_OR_PASSWORD;
        }
        out->user_name = request->certificate_user;
        return MQTT_SUCCESS;
    }
    bool is_named = request->has_user_name && request->user_name.len != 0;
    if (is_named && request->access != NULL && request->access->passwords != NULL) {
        return ask_for_password(request, out);
    }
    if (!request->allow_anonymous) {
        return MQTT_NOT_AUTHORIZED;
    }
    if (is_named) {
        out->user_name = request->user_name;
    }
    return MQTT_SUCCESS;
}

bool access_is_still_granted(const struct access *access, struct bytes user_name, uint64_t mark)
{
    if (access == NULL || access->passwords == NULL) {
        return mark == 0; /* there is nothing left that vouches for the user */
    }
    uint64_t mark_now;
    return user_name.len == 0 ||
           (passwords_find(access->passwords, user_name, &mark_now) != NULL && mark_now == mark);
}

bool access_may_publish(struct bytes topic)
{
    struct bytes sys = bytes_of_string("$SYS");
    return !bytes_start_with(topic, sys) || (topic.len > sys.len && topic.data[sys.len] != '/');
}

bool access_is_hidden(struct bytes filter)
{
    struct bytes group;
    struct bytes rest = filter;
    bool valid = false;
    if (!topic_filter_split_shared(filter, &group, &rest, &valid)) {
        rest = filter;
    }
    return bytes_start_with(rest, bytes_of_string("$reply/"));
}

static void destroy_rights(struct shared *shared)
{
    struct access_rights *rights = (struct access_rights *)(void *)shared;
    access_release(rights->access);
    mem_free(rights);
}

enum status access_rights_create(struct access *access, struct bytes user_name,
                                 struct bytes client_id, struct access_rights **out)
{
    struct access_rights *rights = mem_alloc(sizeof *rights + user_name.len + client_id.len);
    *out = rights;
    if (rights == NULL) {
        return STATUS_NO_MEMORY;
    }
    *rights = (struct access_rights){.shared = {1, destroy_rights},
                                     .access = access,
                                     .generation = access->generation - 1,
                                     .user_name_len = (uint32_t)user_name.len,
                                     .client_id_len = (uint32_t)client_id.len};
    (void)shared_hold(&access->shared);
    bytes_copy(rights->names, user_name);
    bytes_copy(rights->names + user_name.len, client_id);
    return STATUS_OK;
}

void access_rights_release(struct access_rights *rights)
{
    if (rights != NULL) {
        shared_release(&rights->shared);
    }
}

/* Who asks, under the files as they are now. */
static struct acl_client client_of(struct access_rights *rights)
{
    struct bytes user_name = bytes_of(rights->names, rights->user_name_len);
    if (rights->generation != rights->access->generation) {
        rights->generation = rights->access->generation;
        rights->user = acl_user_of(rights->access->acl, user_name);
    }
    return (struct acl_client){
        rights->user, user_name,
        bytes_of(rights->names + rights->user_name_len, rights->client_id_len)};
}

static bool may(struct access_rights *rights, enum acl_right right, struct bytes topic)
{
    if (rights == NULL || rights->access->acl == NULL) {
        return true;
    }
    struct acl_client client = client_of(rights);
    return acl_allows(rights->access->acl, &client, right, topic);
}

bool access_may_read(struct access_rights *rights, struct bytes topic)
{
    return may(rights, ACL_READ, topic);
}

bool access_may_write(struct access_rights *rights, struct bytes topic)
{
    return may(rights, ACL_WRITE, topic);
}

bool access_may_subscribe(struct access_rights *rights, struct bytes filter)
{
    if (rights == NULL || rights->access->acl == NULL) {
        return true;
    }
    struct bytes group;
    struct bytes rest;
    bool valid = false;
    if (topic_filter_split_shared(filter, &group, &rest, &valid)) {
        filter = rest;
    }
    struct acl_client client = client_of(rights);
    return filter.len == 0 || acl_allows_filter(rights->access->acl, &client, filter);
}
