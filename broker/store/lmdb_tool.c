#include "lmdb_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base64.h"
#include "lmdb_read.h"
#include "lmdb_repair.h"
#include "mem.h"
#include "utf8.h"

struct tool {
    char *path;
    int lock;
    FILE *to_out, *to_err;
    struct lmdb_log log;
    uint64_t bytes;
    struct lmdb_pages pages;
    struct lmdb_findings findings;
};

static void log_to_stream(void *ctx, enum store_severity severity, const char *text)
{
    (void)severity;
    (void)fprintf(((struct tool *)ctx)->to_err, "dunlin: %s\n", text);
}

static bool complain(struct tool *tool, const char *what)
{
    (void)fprintf(tool->to_err, "dunlin: %s: %s\n", tool->path, what);
    return false;
}

/* The newest snapshot of the file, examined. */
static bool examine(struct tool *tool)
{
    int fd = open(tool->path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return complain(tool, strerror(error));
    }
    tool->bytes = (uint64_t)info.st_size;
    enum status status = lmdb_pages_open(fd, &tool->pages);
    if (status == STATUS_OK) {
        status = lmdb_examine(&tool->pages, &tool->pages.snapshots[0], &tool->findings);
    }
    (void)close(fd);
    if (status == STATUS_INVALID || (status == STATUS_OK && !tool->findings.walk.is_ours)) {
        return complain(tool, "this is not a store of Dunlin, or none that can be read");
    }
    if (status == STATUS_OK && tool->findings.format > STORE_FORMAT) {
        return complain(tool, "the store is of a newer version of Dunlin");
    }
    return status == STATUS_OK || complain(tool, status_name(status));
}

/* Names the file, locks it and examines it. End it with `end` in any case. */
static bool begin(struct tool *tool, const char *path, FILE *to_out, FILE *to_err)
{
    *tool = (struct tool){.lock = -1, .to_out = to_out, .to_err = to_err};
    tool->log = (struct lmdb_log){log_to_stream, tool};
    struct stat info;
    bool is_directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    tool->path = lmdb_path(path, is_directory ? "/" LMDB_STORE_FILE : "");
    if (tool->path == NULL) {
        (void)fprintf(to_err, "dunlin: out of memory\n");
        return false;
    }
    if (stat(tool->path, &info) != 0) {
        return complain(tool, strerror(errno));
    }
    return lmdb_lock(tool->path, &tool->log, &tool->lock) == STATUS_OK && examine(tool);
}

static bool end(struct tool *tool, bool good)
{
    lmdb_unlock(tool->lock);
    mem_free(tool->path);
    if (fflush(tool->to_out) != 0 || ferror(tool->to_out)) {
        (void)fprintf(tool->to_err, "dunlin: cannot write: %s\n", strerror(errno));
        return false;
    }
    return good;
}

static bool is_sound(struct tool *tool)
{
    return (tool->findings.is_sound && !tool->pages.meta_damaged) ||
           complain(tool, "the store is damaged; see dunlin store check");
}

static bool check(struct tool *tool)
{
    const struct lmdb_findings *found = &tool->findings;
    const struct lmdb_walk *walk = &found->walk;
    (void)fprintf(
        tool->to_out,
        "file           %s\nformat         %" PRIu32 "\nbytes          %" PRIu64
        "\nsessions       %" PRIu64 "\nsubscriptions  %" PRIu64 "\nmessages       %" PRIu64
        "\nrecipients     %" PRIu64 "\npieces         %" PRIu64 "\ncommits        %" PRIu64 "\n",
        tool->path, found->format, tool->bytes, walk->rows[STORE_TABLE_SESSION],
        walk->rows[STORE_TABLE_SUBSCRIPTION], walk->rows[STORE_TABLE_MESSAGE], found->recipients,
        walk->rows[STORE_TABLE_BLOB], tool->pages.snapshots[0].transaction);
    if (tool->pages.meta_damaged) {
        (void)fprintf(tool->to_out, "damage         one of the two meta pages\n");
    }
    if (walk->damages != 0) {
        (void)fprintf(tool->to_out, "damage         %" PRIu64 " places, the first: %s\n",
                      walk->damages, walk->first_damage);
    }
    if (found->missing_pieces != 0 || found->extra_pieces != 0) {
        (void)fprintf(tool->to_out,
                      "damage         %" PRIu64 " pieces of messages missing, %" PRIu64
                      " without a message\n",
                      found->missing_pieces, found->extra_pieces);
    }
    bool sound = found->is_sound && !tool->pages.meta_damaged;
    (void)fprintf(tool->to_out, "state          %s\n",
                  sound ? "sound"
                        : "damaged: a start of the broker sets it aside and keeps what "
                          "can be read");
    return sound;
}

bool lmdb_tool_check(const char *path, FILE *to_out, FILE *to_err)
{
    struct tool tool;
    return end(&tool, begin(&tool, path, to_out, to_err) && check(&tool));
}

static void put_string(FILE *to, struct bytes text)
{
    (void)fputc('"', to);
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '"' || c == '\\') {
            (void)fprintf(to, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            (void)fprintf(to, "\\u%04x", c);
        } else {
            (void)fputc(c, to);
        }
    }
    (void)fputc('"', to);
}

/* Text as it is, anything else as "NAME_base64". */
static enum status put_content(FILE *to, const char *name, struct bytes content)
{
    if (utf8_is_valid(content)) {
        (void)fprintf(to, ",\"%s\":", name);
        put_string(to, content);
        return STATUS_OK;
    }
    size_t len = base64_encoded_len(content.len);
    uint8_t *text = mem_alloc(len);
    if (text == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct writer writer = writer_of(text, len);
    base64_encode(content, &writer);
    ENSURE(writer_ok(&writer));
    (void)fprintf(to, ",\"%s_base64\":", name);
    put_string(to, writer_written(&writer));
    mem_free(text);
    return STATUS_OK;
}

/* Properties as on the wire: bytes. */
static enum status put_body(FILE *to, struct bytes properties, struct bytes payload)
{
    if (properties.len != 0) {
        (void)fprintf(to, ",\"properties\":\"");
        for (size_t i = 0; i < properties.len; i++) {
            (void)fprintf(to, "%02x", properties.data[i]);
        }
        (void)fprintf(to, "\"");
    }
    return put_content(to, "payload", payload);
}

static void put_time(FILE *to, const char *name, uint64_t unix_ms)
{
    if (unix_ms != STORE_TIME_NEVER) {
        (void)fprintf(to, ",\"%s\":%" PRIu64, name, unix_ms);
    }
}

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

static enum status dump_session(void *ctx, const struct store_session *session)
{
    FILE *to = ctx;
    (void)fprintf(to,
                  "{\"row\":\"session\",\"number\":%" PRIu64 ",\"client_id\":", session->number);
    put_string(to, session->client_id);
    (void)fprintf(to, ",\"expiry_s\":%" PRIu32 ",\"connected\":%s", session->expiry_s,
                  truth(session->connected));
    put_time(to, "expires_unix_ms", session->expires_unix_ms);
    enum status status = STATUS_OK;
    if (session->will != NULL) {
        const struct store_will *will = session->will;
        (void)fprintf(to, ",\"will\":{\"topic\":");
        put_string(to, will->topic);
        (void)fprintf(to, ",\"qos\":%d,\"retain\":%s,\"delay_s\":%" PRIu32, will->qos,
                      truth(will->retain), will->delay_s);
        if (will->has_expiry) {
            (void)fprintf(to, ",\"expiry_s\":%" PRIu32, will->expiry_s);
        }
        put_time(to, "due_unix_ms", will->due_unix_ms);
        status = put_body(to, will->properties, will->payload);
        (void)fprintf(to, "}");
    }
    (void)fprintf(to, "}\n");
    return status;
}

static enum status dump_subscription(void *ctx, const struct store_subscription *subscription)
{
    FILE *to = ctx;
    (void)fprintf(
        to, "{\"row\":\"subscription\",\"session\":%" PRIu64 ",\"filter\":", subscription->session);
    put_string(to, subscription->filter);
    (void)fprintf(to,
                  ",\"qos\":%d,\"no_local\":%s,\"retain_as_published\":%s,\"scan_pending\":%s,"
                  "\"identifier\":%" PRIu32 ",\"group\":%" PRIu32 "}\n",
                  subscription->qos, truth(subscription->no_local),
                  truth(subscription->retain_as_published), truth(subscription->scan_pending),
                  subscription->identifier, subscription->group);
    return STATUS_OK;
}

static void dump_recipient(FILE *to, const struct store_recipient *recipient)
{
    static const char *const roles[] = {"queued", "sender", "retained"};
    (void)fprintf(to, "{\"role\":\"%s\"", roles[recipient->role]);
    if (recipient->role != STORE_RETAINED) {
        (void)fprintf(to, ",\"session\":%" PRIu64 ",\"packet_id\":%d", recipient->session,
                      recipient->packet_id);
    }
    if (recipient->role == STORE_QUEUED) {
        (void)fprintf(
            to, ",\"qos\":%d,\"retain\":%s,\"released\":%s,\"group\":%" PRIu32 ",\"identifiers\":[",
            recipient->qos, truth(recipient->retain), truth(recipient->state == STORE_RELEASED),
            recipient->group);
        for (size_t i = 0; i < recipient->identifier_count; i++) {
            (void)fprintf(to, "%s%" PRIu32, i == 0 ? "" : ",", recipient->identifiers[i]);
        }
        (void)fprintf(to, "]");
    }
    (void)fprintf(to, "}");
}

static enum status dump_message(void *ctx, const struct store_message *message,
                                struct bytes properties, struct bytes payload,
                                const struct store_recipient *recipients, size_t count)
{
    FILE *to = ctx;
    (void)fprintf(to, "{\"row\":\"message\",\"arrival\":%" PRIu64 ",\"topic\":", message->arrival);
    put_string(to, message->topic);
    (void)fprintf(to, ",\"qos\":%d,\"retain\":%s,\"publisher\":%" PRIu64, message->qos,
                  truth(message->retain), message->publisher);
    put_time(to, "expires_unix_ms", message->expires_unix_ms);
    (void)fprintf(to, ",\"recipients\":[");
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(to, "%s", i == 0 ? "" : ",");
        dump_recipient(to, &recipients[i]);
    }
    (void)fprintf(to, "]");
    enum status status = put_body(to, properties, payload);
    (void)fprintf(to, "}\n");
    return status;
}

static bool dump(struct tool *tool)
{
    const struct store_loader loader = {tool->to_out, dump_session, dump_subscription,
                                        dump_message};
    struct lmdb_file file;
    if (lmdb_file_open(tool->path, 0, &tool->log, &file) != STATUS_OK) {
        return false;
    }
    enum status status = lmdb_load(&file, &tool->log, &loader, true);
    lmdb_file_close(&file);
    return status == STATUS_OK || complain(tool, status_name(status));
}

bool lmdb_tool_dump(const char *path, FILE *to_out, FILE *to_err)
{
    struct tool tool;
    return end(&tool, begin(&tool, path, to_out, to_err) && is_sound(&tool) && dump(&tool));
}

/* LMDB's own compacting copy, synced. */
static int copy_compacted(struct tool *tool, const char *fresh)
{
    struct lmdb_file file;
    if (lmdb_file_open(tool->path, 0, &tool->log, &file) != STATUS_OK) {
        return EIO;
    }
    (void)unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : mdb_env_copyfd2(file.env, fd, MDB_CP_COMPACT);
    if (error == 0 && fsync(fd) != 0) {
        error = errno;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    lmdb_file_close(&file);
    return error;
}

/* The copy takes the place of the file when it is complete and holds the same. */
static bool compact(struct tool *tool)
{
    struct tool copy = *tool;
    copy.path = lmdb_path(tool->path, ".new");
    if (copy.path == NULL) {
        return complain(tool, "out of memory");
    }
    int error = copy_compacted(tool, copy.path);
    bool good = error == 0 ? examine(&copy) && is_sound(&copy) &&
                                 memcmp(copy.findings.walk.rows, tool->findings.walk.rows,
                                        sizeof copy.findings.walk.rows) == 0
                           : complain(&copy, mdb_strerror(error));
    if (good &&
        (rename(copy.path, tool->path) != 0 || lmdb_sync_directory(tool->path) != STATUS_OK)) {
        good = complain(tool, strerror(errno));
    }
    if (good) {
        (void)fprintf(tool->to_out, "%s: %" PRIu64 " bytes, before %" PRIu64 "\n", tool->path,
                      copy.bytes, tool->bytes);
    } else {
        (void)unlink(copy.path);
    }
    mem_free(copy.path);
    return good;
}

bool lmdb_tool_compact(const char *path, FILE *to_out, FILE *to_err)
{
    struct tool tool;
    return end(&tool, begin(&tool, path, to_out, to_err) && is_sound(&tool) && compact(&tool));
}
