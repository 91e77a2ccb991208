#include "config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "config_keys.h"
#include "mem.h"

/* Memory of a config: a chain of blocks that live and die together. */
struct config_block {
    struct config_block *next;
    max_align_t data[];
};

void *config_memory(struct config_loader *loader, size_t size)
{
    struct config_block *block = mem_zalloc(sizeof *block + size);
    if (block == NULL) {
        loader->status = STATUS_NO_MEMORY;
        return NULL;
    }
    block->next = loader->config->blocks;
    loader->config->blocks = block;
    return block->data;
}

void *config_grow(struct config_loader *loader, void *array, size_t count, size_t element_size)
{
    bool full = (count & (count - 1)) == 0; /* 0, 1, 2, 4, 8: the capacities that it grows by */
    if (!full) {
        return array;
    }
    void *grown = config_memory(loader, (count == 0 ? 1 : count * 2) * element_size);
    if (grown != NULL) {
        bytes_copy(grown, bytes_of(array, count * element_size));
    }
    return grown;
}

const char *config_string(struct config_loader *loader, struct bytes text)
{
    char *copy = config_memory(loader, text.len + 1);
    if (copy != NULL) {
        bytes_copy(copy, text);
    }
    return copy;
}

void config_destroy(struct config *config)
{
    if (config == NULL) {
        return;
    }
    while (config->blocks != NULL) {
        struct config_block *next = config->blocks->next;
        mem_free(config->blocks);
        config->blocks = next;
    }
    mem_free(config);
}

/* Reports */

enum { REPORT_MAX = 512 };

static void report(struct config_loader *loader, enum config_severity severity, const char *format,
                   va_list arguments)
{
    char text[REPORT_MAX];
    if (vsnprintf(text, sizeof text, format, arguments) >= 0) {
        loader->report(loader->ctx, severity, loader->file, loader->line, text);
    }
}

void config_error(struct config_loader *loader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report(loader, CONFIG_ERROR, format, arguments);
    va_end(arguments);
    if (loader->status == STATUS_OK) {
        loader->status = STATUS_INVALID;
    }
}

void config_warning(struct config_loader *loader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report(loader, CONFIG_WARNING, format, arguments);
    va_end(arguments);
}

/* Lines */

static void unknown_key(struct config_loader *loader, struct bytes name)
{
    struct config_shown shown;
    const struct config_key *nearest = config_key_nearest(name);
    if (nearest == NULL) {
        config_error(loader, "unknown key \"%s\"", config_show(&shown, name));
    } else {
        config_error(loader, "unknown key \"%s\"; did you mean \"%s\"?", config_show(&shown, name),
                     nearest->name);
    }
}

static void parse_line(struct config_loader *loader, struct bytes line)
{
    struct bytes value = config_trim(line);
    if (value.len == 0 || value.data[0] == '#') {
        return;
    }
    if (line.len > CONFIG_LINE_BYTES_MAX) {
        config_error(loader, "the line is longer than %d bytes", CONFIG_LINE_BYTES_MAX);
        return;
    }
    if (memchr(value.data, '\0', value.len) != NULL) {
        config_error(loader, "the line contains a NUL character");
        return;
    }
    struct bytes name = config_word(&value);
    const struct config_key *key = config_key_find(name);
    if (key == NULL) {
        unknown_key(loader, name);
    } else {
        config_key_set(loader, key, value);
    }
}

static void parse_text(struct config_loader *loader, struct bytes text)
{
    static const uint8_t byte_order_mark[] = {0xEF, 0xBB, 0xBF};
    if (bytes_start_with(text, bytes_of(byte_order_mark, sizeof byte_order_mark))) {
        text = bytes_from(text, sizeof byte_order_mark);
    }
    loader->line = 0;
    while (text.len != 0 && loader->status != STATUS_NO_MEMORY) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t len = end == NULL ? text.len : (size_t)(end - text.data);
        loader->line++;
        parse_line(loader, bytes_of(text.data, len));
        text = bytes_from(text, len + 1);
    }
}

/* Files */

static void file_failed(struct config_loader *loader, const char *what)
{
    config_error(loader, "%s: %s", what, strerror(errno));
    if (loader->status != STATUS_NO_MEMORY) {
        loader->status = STATUS_IO;
    }
}

/* Reads and parses one file, whose keys start out at the default listener as in mosquitto. */
static void parse_file(struct config_loader *loader, const char *path)
{
    loader->file = path;
    loader->line = 0;
    loader->current = 0;
    uint8_t *text = mem_alloc(CONFIG_FILE_BYTES_MAX + 1);
    if (text == NULL) {
        loader->status = STATUS_NO_MEMORY;
        return;
    }
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        file_failed(loader, "cannot open the file");
        mem_free(text);
        return;
    }
    size_t len = fread(text, 1, CONFIG_FILE_BYTES_MAX + 1, file);
    if (ferror(file) != 0) {
        file_failed(loader, "cannot read the file");
    } else if (len > CONFIG_FILE_BYTES_MAX) {
        config_error(loader, "the file is larger than %d bytes", CONFIG_FILE_BYTES_MAX);
    } else {
        parse_text(loader, bytes_of(text, len));
    }
    (void)fclose(file);
    mem_free(text);
}

/* mosquitto's order: letter by letter, an upper-case one just before its lower-case one. */
static int compare_names(const void *left, const void *right)
{
    const char *a = *(const char *const *)left;
    const char *b = *(const char *const *)right;
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    int by_letter = toupper((unsigned char)*a) - toupper((unsigned char)*b);
    return by_letter != 0 ? by_letter : (unsigned char)*a - (unsigned char)*b;
}

struct names {
    const char **list;
    size_t count;
};

/* The paths of all "*.conf" in `directory`; fewer when there is no memory, which the loader notes.
 */
static struct names list_directory(struct config_loader *loader, DIR *directory,
                                   const char *directory_path)
{
    struct names names = {NULL, 0};
    static const char ending[] = ".conf";
    struct dirent *entry;
    while (loader->status != STATUS_NO_MEMORY && (entry = readdir(directory)) != NULL) {
        size_t len = strlen(entry->d_name);
        if (len <= sizeof ending - 1 ||
            strcmp(entry->d_name + len - (sizeof ending - 1), ending) != 0) {
            continue;
        }
        if (++loader->included_files > CONFIG_INCLUDED_FILES_MAX) {
            config_error(loader, "more than %d included files", CONFIG_INCLUDED_FILES_MAX);
            break;
        }
        size_t path_size = strlen(directory_path) + 1 + len + 1;
        char *path = config_memory(loader, path_size);
        void *grown = config_grow(loader, (void *)names.list, names.count, sizeof *names.list);
        if (path != NULL && grown != NULL) {
            (void)snprintf(path, path_size, "%s/%s", directory_path, entry->d_name);
            names.list = grown;
            names.list[names.count++] = path;
        }
    }
    if (names.count != 0) {
        qsort((void *)names.list, names.count, sizeof *names.list, compare_names);
    }
    return names;
}

void config_set_include_dir(struct config_loader *loader, const struct config_key *key,
                            struct bytes value)
{
    if (loader->from_memory) {
        config_error(loader, "\"%s\" is not possible here", key->name);
        return;
    }
    if (loader->included) {
        config_warning(loader, "\"%s\" in an included file has no effect", key->name);
        return;
    }
    const char *path = config_string(loader, value);
    if (path == NULL) {
        return;
    }
    DIR *directory = opendir(path);
    if (directory == NULL) {
        struct config_shown shown;
        char what[CONFIG_SHOWN_MAX + 32];
        (void)snprintf(what, sizeof what, "cannot open the directory \"%s\"",
                       config_show(&shown, value));
        file_failed(loader, what);
        return;
    }
    struct names names = list_directory(loader, directory, path);
    (void)closedir(directory);
    const char *file = loader->file;
    unsigned line = loader->line;
    size_t current = loader->current;
    loader->included = true;
    for (size_t i = 0; i < names.count && loader->status != STATUS_NO_MEMORY; i++) {
        parse_file(loader, names.list[i]);
    }
    loader->included = false;
    loader->file = file;
    loader->line = line;
    loader->current = current;
}

/* Loading */

static enum status loader_init(struct config_loader *loader, const char *file,
                               config_report_fn *report_fn, void *ctx)
{
    struct config *config = mem_zalloc(sizeof *config);
    *loader = (struct config_loader){
        .config = config,
        .access = {CONFIG_UNSET, CONFIG_UNSET, NULL, NULL, NULL},
        .report = report_fn,
        .ctx = ctx,
    };
    if (config == NULL) {
        return STATUS_NO_MEMORY;
    }
    config_set_global_defaults(config);
    loader->file = config_string(loader, bytes_of_string(file));
    if (loader->file != NULL) {
        (void)config_add_draft(loader); /* the default listener; a failure is in loader->status */
    }
    return loader->status;
}

/* Ends the load: either *out owns the config or it is gone. */
static enum status loader_end(struct config_loader *loader, struct config **out)
{
    if (loader->status == STATUS_OK) {
        *out = loader->config;
    } else {
        config_destroy(loader->config);
    }
    return loader->status;
}

enum status config_load(const char *path, const struct config_address *addresses,
                        size_t address_count, config_report_fn *report_fn, void *ctx,
                        struct config **out)
{
    struct config_loader loader;
    *out = NULL;
    enum status status = loader_init(&loader, path == NULL ? "command line" : path, report_fn, ctx);
    if (status != STATUS_OK) {
        config_destroy(loader.config);
        return status;
    }
    if (path != NULL) {
        parse_file(&loader, loader.file);
    }
    if (loader.status != STATUS_NO_MEMORY && loader.status != STATUS_IO) {
        config_finish(&loader, addresses, address_count);
    }
    return loader_end(&loader, out);
}

enum status config_parse(struct bytes text, const char *name, config_report_fn *report_fn,
                         void *ctx, struct config **out)
{
    struct config_loader loader;
    *out = NULL;
    enum status status = loader_init(&loader, name, report_fn, ctx);
    if (status != STATUS_OK) {
        config_destroy(loader.config);
        return status;
    }
    loader.from_memory = true;
    parse_text(&loader, text);
    if (loader.status != STATUS_NO_MEMORY) {
        config_finish(&loader, NULL, 0);
    }
    return loader_end(&loader, out);
}
