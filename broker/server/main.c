/* dunlin: reads the command line and the configuration, then serves. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "access_files.h"
#include "config.h"
#include "log.h"
#include "options.h"
#include "passwd.h"
#include "server.h"
#include "store_command.h"

/* Every client is a file descriptor: take as many as the system gives. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool write_pid_file(const char *path, struct log *log)
{
    FILE *file = fopen(path, "we");
    if (file == NULL || fprintf(file, "%ld\n", (long)getpid()) < 0 || fclose(file) != 0) {
        log_write(log, LOG_TYPE_ERROR, "cannot write pid_file %s: %s", path, strerror(errno));
        return false;
    }
    return true;
}

/* Listening sockets, certificates and the log are open by now. The log file is given to the user,
 * who has to open it again on SIGHUP. */
static bool become_user(const char *name, const char *log_file, struct log *log)
{
    if (geteuid() != 0 || strcmp(name, "root") == 0) {
        return true;
    }
    const struct passwd *user = getpwnam(name);
    if (user == NULL) {
        log_write(log, LOG_TYPE_ERROR, "user %s does not exist", name);
        return false;
    }
    if (log_file != NULL && chown(log_file, user->pw_uid, user->pw_gid) != 0) {
        log_write(log, LOG_TYPE_WARNING, "cannot give log file %s to user %s: %s", log_file, name,
                  strerror(errno));
    }
    if (initgroups(name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0) {
        log_write(log, LOG_TYPE_ERROR, "cannot become user %s: %s", name, strerror(errno));
        return false;
    }
    return true;
}

/* What the configuration names is part of it. */
static int check_files(const struct config *config, struct log *log)
{
    struct access_files *files = NULL;
    if (access_files_load(config, server_report_config, log, &files) != STATUS_OK) {
        return EXIT_FAILURE;
    }
    access_files_destroy(files, config->listener_count);
    log_write(log, LOG_TYPE_NOTICE, "the configuration is valid");
    return EXIT_SUCCESS;
}

static int serve(const struct options *options, struct config *config, struct log *log)
{
    /* The server takes over the configuration, and SIGHUP may replace it. */
    char *pid_file = config->pid_file == NULL ? NULL : strdup(config->pid_file);
    char *user = config->user == NULL ? NULL : strdup(config->user);
    char *log_file = config->log.file_path == NULL ? NULL : strdup(config->log.file_path);
    int result = EXIT_FAILURE;
    struct server *server = NULL;
    log_write(log, LOG_TYPE_NOTICE, "dunlin %s starting", DUNLIN_VERSION);
    if (server_create(options, config, log, &server) == STATUS_OK &&
        (pid_file == NULL || write_pid_file(pid_file, log)) &&
        (user == NULL || become_user(user, log_file, log)) &&
        server_open_store(server) == STATUS_OK) {
        result = server_run(server) == STATUS_OK ? EXIT_SUCCESS : EXIT_FAILURE;
        if (pid_file != NULL && unlink(pid_file) != 0) {
            log_write(log, LOG_TYPE_WARNING, "cannot remove pid_file %s: %s", pid_file,
                      strerror(errno));
        }
    }
    server_destroy(server);
    free(pid_file);
    free(user);
    free(log_file);
    return result;
}

int main(int argc, char *argv[])
{
    if (argc > 1 && strcmp(argv[1], "store") == 0) {
        return store_command(argc - 2, argv + 2, stdout, stderr);
    }
    struct options options;
    if (argc >= 2 && strcmp(argv[1], "passwd") == 0) {
        return passwd_run(argc - 1, argv + 1);
    }
    switch (options_parse(argc, argv, &options, stdout, stderr)) {
    case OPTIONS_EXIT_OK:
        return EXIT_SUCCESS;
    case OPTIONS_EXIT_USAGE:
        return 64;
    case OPTIONS_RUN:
        break;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    struct log *log = NULL;
    struct log_options log_options = LOG_OPTIONS_DEFAULT;
    if (log_create(&log_options, &log) != STATUS_OK) {
        return EXIT_FAILURE;
    }
    struct config *config = NULL;
    int result = EXIT_FAILURE;
    if (config_load(options.config_path, options.addresses, options.address_count,
                    server_report_config, log, &config) != STATUS_OK) {
        goto cleanup;
    }
    if (options.check_config) {
        result = check_files(config, log);
        config_destroy(config);
        goto cleanup;
    }
    options_apply(&options, config);
    if (options.daemonise && daemon(1, 0) != 0) {
        log_write(log, LOG_TYPE_ERROR, "cannot go to the background: %s", strerror(errno));
        config_destroy(config);
        goto cleanup;
    }
    if (log_reconfigure(log, &config->log) != STATUS_OK) {
        log_write(log, LOG_TYPE_ERROR, "cannot open log file %s: %s", config->log.file_path,
                  strerror(errno));
        config_destroy(config);
        goto cleanup;
    }
    result = serve(&options, config, log);
cleanup:
    log_destroy(log);
    return result;
}
