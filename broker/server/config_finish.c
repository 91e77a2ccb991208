#include <stdio.h>
#include <stdlib.h>

#include "config_keys.h"

enum { DEFAULT_PORT = 1883 };

/* Drafts */

/* Stores the defaults of all keys of one scope into the structure at `base`. */
static void set_defaults(void *base, enum config_scope scope)
{
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        void *at = (char *)base + key->offset;
        if (key->scope != scope || key->support != CONFIG_SERVED) {
            continue;
        }
        switch (key->type) {
        case CONFIG_TYPE_BOOL:
            *(bool *)at = key->initial != 0;
            break;
        case CONFIG_TYPE_U32:
            *(uint32_t *)at = (uint32_t)key->initial;
            break;
        case CONFIG_TYPE_U64:
        case CONFIG_TYPE_DURATION:
            *(uint64_t *)at = (uint64_t)key->initial;
            break;
        case CONFIG_TYPE_CHOICE:
            *(unsigned *)at = (unsigned)key->initial;
            break;
        case CONFIG_TYPE_TEXT:
        case CONFIG_TYPE_CUSTOM:
        case CONFIG_TYPE_ANY:
            break;
        }
    }
}

void config_set_global_defaults(struct config *config)
{
    config->log = LOG_OPTIONS_DEFAULT;
    set_defaults(config, CONFIG_SCOPE_GLOBAL);
}

bool config_add_draft(struct config_loader *loader)
{
    if (loader->draft_count > CONFIG_LISTENERS_MAX) {
        config_error(loader, "more than %d listeners", CONFIG_LISTENERS_MAX);
        return false;
    }
    void *grown = config_grow(loader, loader->drafts, loader->draft_count, sizeof *loader->drafts);
    if (grown == NULL) {
        return false;
    }
    loader->drafts = grown;
    struct config_draft *draft = &loader->drafts[loader->draft_count];
    *draft = (struct config_draft){
        .listener = {.port = DEFAULT_PORT},
        .access = {CONFIG_UNSET, CONFIG_UNSET, NULL, NULL, NULL},
    };
    set_defaults(&draft->listener, CONFIG_SCOPE_LISTENER);
    loader->current = loader->draft_count++;
    return true;
}

/* What belongs together */

static void check_certificates(struct config_loader *loader, const struct config_draft *draft)
{
    const struct config_listener *listener = &draft->listener;
    if (listener->certificate_count != draft->keyfile_count) {
        config_error(loader,
                     "this listener has %zu \"certfile\" and %zu \"keyfile\"; each certificate "
                     "needs its key",
                     listener->certificate_count, draft->keyfile_count);
    }
    const char *needs_tls = listener->require_certificate        ? "require_certificate"
                            : listener->use_identity_as_username ? "use_identity_as_username"
                            : listener->use_subject_as_username  ? "use_subject_as_username"
                            : listener->cafile != NULL           ? "cafile"
                            : listener->crlfile != NULL          ? "crlfile"
                                                                 : NULL;
    if (needs_tls != NULL && listener->certificate_count == 0 && draft->keyfile_count == 0) {
        config_error(loader,
                     "this listener has \"%s\" but no \"certfile\" and \"keyfile\"; it would not "
                     "be encrypted",
                     needs_tls);
        return;
    }
    if ((listener->require_certificate || listener->crlfile != NULL) && listener->cafile == NULL) {
        config_error(loader,
                     "this listener has \"%s\" but no \"cafile\" to check certificates with",
                     listener->require_certificate ? "require_certificate" : "crlfile");
    }
    if ((listener->use_identity_as_username || listener->use_subject_as_username) &&
        !listener->require_certificate) {
        config_error(loader, "\"%s\" needs \"require_certificate true\"",
                     listener->use_identity_as_username ? "use_identity_as_username"
                                                        : "use_subject_as_username");
    }
}

static void warn_when_closed(struct config_loader *loader, const struct config_listener *listener)
{
    if (!listener->allow_anonymous && listener->password_file == NULL &&
        !listener->use_identity_as_username && !listener->use_subject_as_username) {
        char name[CONFIG_HOST_MAX + 16];
        config_listener_name(listener, name, sizeof name);
        config_warning(loader,
                       "nobody can log in on listener %s: set \"password_file\", or "
                       "\"allow_anonymous true\" to let clients in without a password",
                       name);
    }
}

/* Listeners */

/* Moves one draft into the final array, with what it inherits. */
static void add_listener(struct config_loader *loader, const struct config_draft *draft)
{
    struct config *config = loader->config;
    const struct config_access *access =
        loader->per_listener_settings ? &draft->access : &loader->access;
    ENSURE(loader->drafts != NULL);
    struct config_listener *listener = &config->listeners[config->listener_count++];
    *listener = draft->listener;
    listener->allow_anonymous = access->allow_anonymous == CONFIG_UNSET
                                    ? listener->local_only
                                    : access->allow_anonymous != 0;
    listener->allow_zero_length_clientid = access->allow_zero_length_clientid != 0;
    listener->auto_id_prefix = access->auto_id_prefix == NULL ? "auto-" : access->auto_id_prefix;
    listener->password_file = access->password_file;
    listener->acl_file = access->acl_file;
    loader->file = listener->file == NULL ? loader->file : listener->file;
    loader->line = listener->line;
    check_certificates(loader, draft);
    warn_when_closed(loader, listener);
}

/* A listener that no file asked for; it takes over what stands before the first listener of the
 * file. */
static void add_address(struct config_loader *loader, const char *host, uint16_t port,
                        bool optional)
{
    struct config_draft draft = loader->drafts[0];
    const char *copy = config_string(loader, bytes_of_string(host));
    if (copy == NULL) {
        return;
    }
    draft.listener.file = NULL;
    draft.listener.line = 0;
    draft.listener.host = strcmp(host, "*") == 0 ? NULL : copy;
    draft.listener.port = port;
    draft.listener.optional = optional;
    draft.listener.local_only = config_host_is_loopback(host);
    add_listener(loader, &draft);
}

/* Loopback in both families; the IPv6 half may be missing. A port that the system chooses is only
 * one. */
static void add_loopback(struct config_loader *loader, uint16_t port)
{
    add_address(loader, "127.0.0.1", port, false);
    if (port != 0) {
        add_address(loader, "::1", port, true);
    }
}

static void warn_early(struct config_loader *loader)
{
    if (loader->early_key != NULL) {
        loader->file = loader->early_file;
        loader->line = loader->early_line;
        config_warning(loader,
                       "\"%s\" stands before the first \"listener\" and has no effect; it "
                       "belongs below the listener that it is for",
                       loader->early_key->name);
    }
}

void config_finish(struct config_loader *loader, const struct config_address *addresses,
                   size_t address_count)
{
    struct config *config = loader->config;
    bool of_files = loader->default_listener || loader->draft_count > 1;
    size_t most = loader->draft_count + 2 * (address_count + 1);
    config->listeners = config_memory(loader, most * sizeof *config->listeners);
    if (config->listeners == NULL) {
        return;
    }
    if (of_files && !loader->default_listener && address_count == 0) {
        warn_early(loader);
    }
    for (size_t i = loader->default_listener ? 0 : 1; i < loader->draft_count; i++) {
        add_listener(loader, &loader->drafts[i]);
    }
    for (size_t i = 0; i < address_count; i++) {
        loader->file = "command line";
        if (addresses[i].host[0] == '\0') {
            add_loopback(loader, addresses[i].port);
        } else {
            add_address(loader, addresses[i].host, addresses[i].port, false);
        }
    }
    if (!of_files && address_count == 0) {
        add_loopback(loader, DEFAULT_PORT);
    }
}

/* Names */

bool config_host_is_loopback(const char *host)
{
    struct bytes name = bytes_of_string(host);
    if (bytes_equal_string(name, "localhost") || bytes_equal_string(name, "::1")) {
        return true;
    }
    /* "127.evil.example" is a name, so only digits and points may follow. */
    return bytes_start_with(name, bytes_of_string("127.")) &&
           strspn(host, "0123456789.") == name.len;
}

void config_listener_name(const struct config_listener *listener, char *out, size_t out_size)
{
    const char *host = listener->host == NULL ? "*" : listener->host;
    if (listener->unix_path != NULL) {
        (void)snprintf(out, out_size, "unix:%s", listener->unix_path);
    } else if (strchr(host, ':') != NULL) {
        (void)snprintf(out, out_size, "[%s]:%u", host, (unsigned)listener->port);
    } else {
        (void)snprintf(out, out_size, "%s:%u", host, (unsigned)listener->port);
    }
}
