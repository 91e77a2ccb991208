#include "access_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "mem.h"

/* Passes mistakes on with the name of the file. */
struct reporter {
    const char *path;
    config_report_fn *report;
    void *ctx;
};

static void on_mistake(void *ctx, unsigned line, const char *text)
{
    const struct reporter *reporter = ctx;
    reporter->report(reporter->ctx, CONFIG_ERROR, reporter->path, line, text);
}

/* The file's bytes, to be freed with mem_free. Errors: STATUS_IO (errno), STATUS_LIMIT. */
static enum status read_all(FILE *file, uint8_t **out, size_t *len)
{
    struct stat info;
    if (fstat(fileno(file), &info) != 0) {
        return STATUS_IO;
    }
    if (!S_ISREG(info.st_mode)) {
        errno = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
        return STATUS_IO;
    }
    if (info.st_size > ACCESS_FILE_BYTES_MAX) {
        return STATUS_LIMIT;
    }
    *out = mem_alloc((size_t)info.st_size);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    *len = fread(*out, 1, (size_t)info.st_size, file);
    if (ferror(file) != 0) {
        mem_free(*out);
        return STATUS_IO;
    }
    return STATUS_OK;
}

static enum status read_file(const struct reporter *reporter, uint8_t **out, size_t *len)
{
    enum status status = STATUS_IO;
    FILE *file = fopen(reporter->path, "re");
    if (file != NULL) {
        status = read_all(file, out, len);
    }
    if (status == STATUS_IO) {
        char text[128];
        (void)snprintf(text, sizeof text, "cannot be read: %s", strerror(errno));
        on_mistake((void *)(uintptr_t)reporter, 0, text);
    } else if (status == STATUS_LIMIT) {
        on_mistake((void *)(uintptr_t)reporter, 0, "is larger than 256 MiB");
        status = STATUS_INVALID;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return status;
}

static enum status load_passwords(struct reporter *reporter, struct passwords **out)
{
    uint8_t *text = NULL;
    size_t len = 0;
    enum status status = read_file(reporter, &text, &len);
    if (status == STATUS_OK) {
        status = passwords_parse(bytes_of(text, len), on_mistake, reporter, out);
        mem_free(text);
    }
    return status;
}

static enum status load_acl(struct reporter *reporter, struct acl **out)
{
    uint8_t *text = NULL;
    size_t len = 0;
    enum status status = read_file(reporter, &text, &len);
    if (status == STATUS_OK) {
        status = acl_parse(bytes_of(text, len), on_mistake, reporter, out);
        mem_free(text);
    }
    return status;
}

static bool is_same(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/* The files of listener `index`; those that an earlier one names as well are shared with it. */
static enum status load_listener(const struct config *config, size_t index,
                                 struct reporter *reporter, struct access_files *all)
{
    const struct config_listener *listener = &config->listeners[index];
    struct access_files *files = &all[index];
    enum status of_passwords = STATUS_OK;
    enum status of_acl = STATUS_OK;
    for (size_t i = 0; i < index; i++) {
        if (is_same(config->listeners[i].password_file, listener->password_file)) {
            files->passwords = all[i].passwords;
        }
        if (is_same(config->listeners[i].acl_file, listener->acl_file)) {
            files->acl = all[i].acl;
        }
    }
    if (files->passwords != NULL) {
        (void)shared_hold((struct shared *)(void *)files->passwords);
    } else if (listener->password_file != NULL) {
        reporter->path = listener->password_file;
        of_passwords = load_passwords(reporter, &files->passwords);
    }
    if (files->acl != NULL) {
        (void)shared_hold((struct shared *)(void *)files->acl);
    } else if (listener->acl_file != NULL) {
        reporter->path = listener->acl_file;
        of_acl = load_acl(reporter, &files->acl);
    }
    return of_passwords != STATUS_OK ? of_passwords : of_acl;
}

enum status access_files_load(const struct config *config, config_report_fn *report, void *ctx,
                              struct access_files **out)
{
    struct reporter reporter = {NULL, report, ctx};
    enum status status = STATUS_OK;
    *out = mem_zalloc(config->listener_count * sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; status == STATUS_OK && i < config->listener_count; i++) {
        status = load_listener(config, i, &reporter, *out);
    }
    if (status != STATUS_OK) {
        access_files_destroy(*out, config->listener_count);
        *out = NULL;
    }
    return status;
}

void access_files_destroy(struct access_files *files, size_t count)
{
    for (size_t i = 0; files != NULL && i < count; i++) {
        passwords_release(files[i].passwords);
        acl_release(files[i].acl);
    }
    mem_free(files);
}
