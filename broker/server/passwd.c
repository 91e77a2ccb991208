#include "passwd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "access_lines.h"
#include "mem.h"
#include "password_digest.h"
#include "utf8.h"

enum {
    EXIT_USAGE = 64, /* EX_USAGE */
    SALT_BYTES = 12, /* as mosquitto_passwd's */
    PASSWORD_BYTES_MAX = 65535,
    FILE_BYTES_MAX = 256 * 1024 * 1024,
};

static const char help_text[] =
    "Usage: dunlin passwd [-b PASSWORD] [--iterations N] FILE USER\n"
    "       dunlin passwd -D FILE USER\n"
    "\n"
    "Gives USER a password in the password file FILE, which is made when it is not there, or\n"
    "with -D removes USER. The password is asked for, or, when there is no terminal, read as\n"
    "one line from standard input. The file is what the configuration key password_file\n"
    "names; mosquitto reads it as well. A broker that runs takes it over at SIGHUP.\n"
    "\n"
    "  -b PASSWORD      take the password from the command line, where others may see it\n"
    "  -D               remove USER\n"
    "  --iterations N   of PBKDF2-SHA512, 1 to 10000000 (default: 10000); more is slower for\n"
    "                   whoever guesses, and for each login\n"
    "  -h, --help       show this text\n"
    "\n"
    "Exit status: 0 when it is done, 64 for a wrong command line, 1 for everything else.\n";

struct command {
    const char *file;
    const char *user;
    const char *password; /* NULL: ask for it */
    uint32_t iterations;
    bool remove;
};

static int mistake(const char *what, const char *word)
{
    (void)fprintf(stderr, "dunlin passwd: %s%s%s; see dunlin passwd --help\n", what,
                  word == NULL ? "" : ": ", word == NULL ? "" : word);
    return EXIT_USAGE;
}

static int failure(const char *path, const char *what)
{
    (void)fprintf(stderr, "dunlin passwd: %s: %s\n", path, what);
    return EXIT_FAILURE;
}

static bool parse_iterations(const char *text, uint32_t *out)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    *out = (uint32_t)number;
    return errno == 0 && *end == '\0' && end != text && number >= 1 &&
           number <= PASSWORD_ITERATIONS_MAX;
}

/* Returns -1 to go on, or an exit status. */
static int parse(int argc, char *const argv[], struct command *out)
{
    *out = (struct command){.iterations = PASSWD_ITERATIONS};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        bool takes_value = strcmp(word, "-b") == 0 || strcmp(word, "--iterations") == 0;
        if (takes_value && i + 1 == argc) {
            return mistake("a value is missing after", word);
        }
        if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            (void)fputs(help_text, stdout);
            return EXIT_SUCCESS;
        }
        if (strcmp(word, "-D") == 0) {
            out->remove = true;
        } else if (strcmp(word, "-b") == 0) {
            out->password = argv[++i];
        } else if (takes_value) {
            if (!parse_iterations(argv[++i], &out->iterations)) {
                return mistake("--iterations needs a number from 1 to 10000000, not", argv[i]);
            }
        } else if (word[0] == '-' && word[1] != '\0') {
            return mistake("unknown option", word);
        } else if (out->file == NULL) {
            out->file = word;
        } else if (out->user == NULL) {
            out->user = word;
        } else {
            return mistake("unexpected argument", word);
        }
    }
    return out->user == NULL ? mistake("FILE and USER are needed", NULL) : -1;
}

/* A name that can stand in the file. */
static bool user_is_valid(const char *user)
{
    struct bytes name = bytes_of_string(user);
    struct bytes trimmed = access_trim(name);
    return name.len != 0 && name.len <= UINT16_MAX && trimmed.len == name.len && user[0] != '#' &&
           strpbrk(user, ":\r\n") == NULL && utf8_is_valid_string(name);
}

static size_t line_len(struct bytes text)
{
    const uint8_t *end = text.len == 0 ? NULL : memchr(text.data, '\n', text.len);
    return end == NULL ? text.len : (size_t)(end - text.data) + 1;
}

static bool is_entry_of(struct bytes line, struct bytes user)
{
    line = access_trim(line);
    return line.len > user.len && line.data[user.len] == ':' && bytes_start_with(line, user);
}

enum status passwd_edit(struct bytes text, struct bytes user, const char *line, uint8_t **out,
                        size_t *len, bool *found)
{
    struct bytes entry = bytes_of_string(line);
    size_t capacity = text.len + entry.len + 2;
    *out = mem_alloc(capacity);
    *found = false;
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct writer writer = writer_of(*out, capacity);
    while (text.len != 0) {
        struct bytes next = bytes_of(text.data, line_len(text));
        text = bytes_from(text, next.len);
        if (!is_entry_of(next, user)) {
            writer_bytes(&writer, next);
        } else if (!*found) {
            writer_bytes(&writer, entry);
            if (entry.len != 0) {
                writer_u8(&writer, '\n');
            }
            *found = true;
        }
    }
    if (!*found && entry.len != 0) {
        struct bytes before = writer_written(&writer);
        if (before.len != 0 && before.data[before.len - 1] != '\n') {
            writer_u8(&writer, '\n');
        }
        writer_bytes(&writer, entry);
        writer_u8(&writer, '\n');
    }
    ENSURE(writer_ok(&writer));
    *len = writer_len(&writer);
    return STATUS_OK;
}

/* One line from standard input, without its end. False: none came, or it is too long. */
static bool read_line(char *out, size_t size)
{
    if (fgets(out, (int)size, stdin) == NULL) {
        return false;
    }
    size_t len = strcspn(out, "\n");
    bool whole = out[len] == '\n' || feof(stdin) != 0;
    out[len] = '\0';
    return whole;
}

static bool ask(const char *prompt, char *out, size_t size)
{
    struct termios shown;
    if (tcgetattr(STDIN_FILENO, &shown) != 0) {
        return read_line(out, size);
    }
    struct termios hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    (void)fputs(prompt, stderr);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
    bool read = read_line(out, size);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    (void)fputs("\n", stderr);
    return read;
}

/* False: it said why. */
static bool ask_for_password(char *out, size_t size)
{
    static char again[PASSWORD_BYTES_MAX + 2];
    if (!ask("Password: ", out, size) || out[0] == '\0') {
        (void)mistake("no password was given", NULL);
        return false;
    }
    if (isatty(STDIN_FILENO) != 0) {
        bool same = ask("Again: ", again, sizeof again) && strcmp(out, again) == 0;
        password_wipe(again, sizeof again);
        if (!same) {
            (void)mistake("the passwords are not the same", NULL);
            return false;
        }
    }
    return true;
}

/* The entry without its line end; to be freed. NULL: no memory. */
static char *make_line(const struct command *command, struct bytes password)
{
    struct password_hash hash = {
        .kind = PASSWORD_PBKDF2_SHA512, .iterations = command->iterations, .salt_len = SALT_BYTES};
    struct bytes user = bytes_of_string(command->user);
    size_t capacity = user.len + 1 + PASSWORD_TEXT_MAX;
    char *line = mem_zalloc(capacity + 1);
    if (line == NULL || getrandom(hash.salt, SALT_BYTES, 0) != SALT_BYTES ||
        password_digest(&hash, password) != STATUS_OK) {
        mem_free(line);
        return NULL;
    }
    struct writer writer = writer_of(line, capacity);
    writer_bytes(&writer, user);
    writer_u8(&writer, ':');
    password_hash_format(&hash, &writer);
    ENSURE(writer_ok(&writer));
    return line;
}

/* The file's bytes and mode; nothing when there is no such file. False: errno says why. */
static bool read_file(const char *path, uint8_t **out, size_t *len, struct stat *info)
{
    *out = NULL;
    *len = 0;
    *info = (struct stat){.st_mode = S_IRUSR | S_IWUSR};
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return errno == ENOENT;
    }
    bool read = fstat(fileno(file), info) == 0;
    if (read && (!S_ISREG(info->st_mode) || info->st_size > FILE_BYTES_MAX)) {
        errno = EINVAL;
        read = false;
    }
    if (read) {
        *out = mem_alloc((size_t)info->st_size);
        *len = *out == NULL ? 0 : fread(*out, 1, (size_t)info->st_size, file);
        read = *out != NULL && ferror(file) == 0;
    }
    (void)fclose(file);
    return read;
}

/* Writes a new file beside the old one and puts it in its place, so that nobody ever reads half of
 * it. Mode and owner stay. False: errno says why. */
static bool replace_file(const char *path, struct bytes text, const struct stat *info)
{
    size_t size = strlen(path) + sizeof ".XXXXXX";
    char *temporary = mem_alloc(size);
    if (temporary == NULL) {
        errno = ENOMEM;
        return false;
    }
    (void)snprintf(temporary, size, "%s.XXXXXX", path);
    int fd = mkstemp(temporary);
    if (fd < 0) {
        mem_free(temporary);
        return false;
    }
    bool done = fchmod(fd, info->st_mode & 07777) == 0;
    if (done && info->st_nlink != 0 && geteuid() == 0) {
        done = fchown(fd, info->st_uid, info->st_gid) == 0;
    }
    while (done && text.len != 0) {
        ssize_t written = write(fd, text.data, text.len);
        done = written > 0;
        text = bytes_from(text, done ? (size_t)written : 0);
    }
    done = done && fsync(fd) == 0;
    done = close(fd) == 0 && done;
    done = done && rename(temporary, path) == 0;
    if (!done) {
        int error = errno;
        (void)unlink(temporary);
        errno = error;
    }
    mem_free(temporary);
    return done;
}

static int change_file(const struct command *command, const char *line)
{
    uint8_t *before;
    uint8_t *after = NULL;
    size_t before_len;
    size_t after_len;
    struct stat info;
    bool found = false;
    if (!read_file(command->file, &before, &before_len, &info)) {
        mem_free(before);
        return failure(command->file, strerror(errno));
    }
    int result = EXIT_SUCCESS;
    if (passwd_edit(bytes_of(before, before_len), bytes_of_string(command->user), line, &after,
                    &after_len, &found) != STATUS_OK) {
        result = failure(command->file, "out of memory");
    } else if (command->remove && !found) {
        result = failure(command->file, "there is no such user");
    } else if (!replace_file(command->file, bytes_of(after, after_len), &info)) {
        result = failure(command->file, strerror(errno));
    }
    mem_free(before);
    mem_free(after);
    return result;
}

int passwd_run(int argc, char *const argv[])
{
    static char typed[PASSWORD_BYTES_MAX + 2];
    struct command command;
    int result = parse(argc, argv, &command);
    if (result >= 0) {
        return result;
    }
    if (!user_is_valid(command.user)) {
        return mistake("a user name has no colon and no line end, does not begin with # and has no "
                       "blanks at its ends",
                       NULL);
    }
    if (command.remove) {
        return change_file(&command, NULL);
    }
    if (command.password == NULL && !ask_for_password(typed, sizeof typed)) {
        return EXIT_FAILURE;
    }
    struct bytes password = bytes_of_string(command.password == NULL ? typed : command.password);
    if (password.len == 0 || password.len > PASSWORD_BYTES_MAX) {
        return mistake("a password has 1 to 65535 bytes", NULL);
    }
    char *line = make_line(&command, password);
    password_wipe(typed, sizeof typed);
    if (line == NULL) {
        return failure(command.file, "out of memory");
    }
    result = change_file(&command, line);
    mem_free(line);
    return result;
}
