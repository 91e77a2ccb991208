/*
 * config_keys: the one table of all configuration keys, and what the loader and the table share.
 *
 * Private to config*.c and its tests. A new key is a row here, a member in config.h and a section
 * in docs/configuration.md; a test sees that none is missing.
 */
#ifndef SERVER_CONFIG_KEYS_H
#define SERVER_CONFIG_KEYS_H

#include "config.h"

enum config_type {
    CONFIG_TYPE_BOOL,     /* bool: true or false */
    CONFIG_TYPE_U32,      /* uint32_t within min and max */
    CONFIG_TYPE_U64,      /* uint64_t within min and max */
    CONFIG_TYPE_TEXT,     /* const char *: the rest of the line, once */
    CONFIG_TYPE_CHOICE,   /* an enum: one word of `choices` */
    CONFIG_TYPE_DURATION, /* uint64_t seconds: a number and one of h d w m y */
    CONFIG_TYPE_CUSTOM,   /* `set` does it */
    CONFIG_TYPE_ANY,      /* not looked at */
};

/* Which structure the offset is of. */
enum config_scope {
    CONFIG_SCOPE_GLOBAL,   /* struct config */
    CONFIG_SCOPE_LISTENER, /* struct config_listener: the one opened last */
    CONFIG_SCOPE_ACCESS,   /* struct config_access: global, or of the listener with
                              per_listener_settings */
    CONFIG_SCOPE_BRIDGE,   /* belongs to a `connection`; nothing is stored */
};

enum config_support {
    CONFIG_SERVED,
    CONFIG_NO_EFFECT, /* checked and accepted: Dunlin behaves well either way */
    CONFIG_NOT_YET,   /* known and not served: a warning */
    CONFIG_REFUSED, /* known and not served, and ignoring it would weaken what it protects: an error
                     */
};

struct config_choice {
    const char *name; /* NULL ends a list */
    int value;
};

struct config_loader;
struct config_key;

/* Takes `value` in for `key`; reports what is wrong with it. */
typedef void config_set_fn(struct config_loader *loader, const struct config_key *key,
                           struct bytes value);

struct config_key {
    const char *name; /* a name that ends in '*' stands for all that begin like it */
    enum config_type type;
    enum config_scope scope;
    enum config_support support;
    size_t offset;
    int64_t min, max; /* of the number */
    int64_t initial;  /* the default of a number, a choice or a bool; -1 is unlimited */
    int64_t
        zero; /* what is stored for 0 when not 0; 0 is then allowed below min; -1 is unlimited */
    const struct config_choice *choices;
    config_set_fn *set;
    const char *remark; /* for NOT_YET and REFUSED: what follows from that; may be NULL */
};

extern const struct config_key config_keys[];
extern const size_t config_key_count;

/* The key of that name, or NULL. */
const struct config_key *config_key_find(struct bytes name);

/* The key whose name is nearest to the misspelt `name`, or NULL when none is near
 * (Damerau-Levenshtein). */
const struct config_key *config_key_nearest(struct bytes name);

/* Settings that are global or of one listener, depending on per_listener_settings. */
enum { CONFIG_UNSET = -1 };
struct config_access {
    int allow_anonymous;            /* CONFIG_UNSET, 0 or 1 */
    int allow_zero_length_clientid; /* CONFIG_UNSET, 0 or 1 */
    const char *auto_id_prefix;     /* NULL: unset */
    const char *password_file;      /* NULL: unset */
    const char *acl_file;           /* NULL: unset */
};

/* A listener while the files are read. The first draft is the default listener of `port` and
 * `bind_address`. */
struct config_draft {
    struct config_listener listener;
    struct config_access access;
    size_t keyfile_count; /* the n-th keyfile belongs to the n-th certfile; listener counts
                             certfiles */
};

struct config_loader {
    struct config *config;
    struct config_draft *drafts; /* config_memory */
    size_t draft_count;
    size_t current; /* the draft that listener keys apply to */

    struct config_access access; /* the global one */
    bool per_listener_settings;
    bool default_listener; /* `port` or `bind_address` was given */

    /* The first listener key that was given before any listener, for a warning when it has no
     * effect. */
    const struct config_key *early_key;
    const char *early_file;
    unsigned early_line;

    bool log_dest_seen;
    bool log_type_seen;

    /* Where we are */
    const char *file; /* owned by the config */
    unsigned line;
    bool included;    /* within include_dir */
    bool from_memory; /* config_parse: no file but the text */
    size_t included_files;

    config_report_fn *report;
    void *ctx;
    enum status status; /* the first failure */
};

/* Report about the line being read. An error makes the load fail in the end. */
void config_error(struct config_loader *loader, const char *format, ...) PRINTF_LIKE(2, 3);
void config_warning(struct config_loader *loader, const char *format, ...) PRINTF_LIKE(2, 3);

/* Zeroed memory that lives as long as the config; NULL when there is none (noted in the loader). */
void *config_memory(struct config_loader *loader, size_t size);

/*
 * Room for one more element in an array of `count`, grown in powers of two: `array` itself or its
 * larger copy. NULL when there is no memory (noted in the loader); the array is then unchanged.
 */
void *config_grow(struct config_loader *loader, void *array, size_t count, size_t element_size);

/* A copy that lives as long as the config; NULL as above. */
const char *config_string(struct config_loader *loader, struct bytes text);

/* `text` made printable and short, for a report: borrowed until the second next call with the same
 * buffer. */
enum { CONFIG_SHOWN_MAX = 96 };
struct config_shown {
    char text[CONFIG_SHOWN_MAX];
};
const char *config_show(struct config_shown *shown, struct bytes text);

/* config_value.c: stores `value` as `key` says. */
void config_key_set(struct config_loader *loader, const struct config_key *key, struct bytes value);

/* config_value.c: a decimal number with an optional sign and nothing after it. */
bool config_number(struct bytes text, int64_t *out);

/* Cuts the next word off *rest; empty at the end. */
struct bytes config_word(struct bytes *rest);
struct bytes config_trim(struct bytes text);

/* config_value.c: setters of the table */
config_set_fn config_set_listener, config_set_port, config_set_bind_address, config_set_certfile,
    config_set_keyfile, config_set_origin, config_set_log_dest, config_set_log_type,
    config_set_timestamp_format, config_set_tls_version, config_set_per_listener,
    config_set_response_information;

/* config.c: setter of include_dir, which reads files */
config_set_fn config_set_include_dir;

/* config_finish.c: turns drafts into listeners, resolves defaults and checks what belongs together.
 */
void config_finish(struct config_loader *loader, const struct config_address *addresses,
                   size_t address_count);

/* config_finish.c: gives every global setting its default. */
void config_set_global_defaults(struct config *config);

/* A fresh draft with all defaults becomes the current one; false when there is no room for it
 * (reported). */
bool config_add_draft(struct config_loader *loader);

#endif
