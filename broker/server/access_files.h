/*
 * access_files: reads the password and ACL files that a configuration names.
 *
 *   Cost   At start and on reload only, on the caller's thread.
 */
#ifndef SERVER_ACCESS_FILES_H
#define SERVER_ACCESS_FILES_H

#include "acl.h"
#include "config.h"
#include "password_file.h"

enum { ACCESS_FILE_BYTES_MAX = 256 * 1024 * 1024 };

/* What the files of one listener say. Each is NULL when no such file is named. */
struct access_files {
    struct passwords *passwords;
    struct acl *acl;
};

/*
 * Reads the files of all listeners, each file once, into an array in the order of
 * config->listeners. Mistakes are reported with file and line. On STATUS_OK the caller ends *out
 * with access_files_destroy; else *out is NULL.
 *
 * Errors: STATUS_INVALID, STATUS_IO (a file cannot be read); both were reported; STATUS_NO_MEMORY.
 */
MUST_USE enum status access_files_load(const struct config *config, config_report_fn *report,
                                       void *ctx, struct access_files **out);

/* NULL is allowed. */
void access_files_destroy(struct access_files *files, size_t count);

#endif
