/*
 * server: the process around the core: listeners, clients, timers, signals, $SYS. The only room
 * that knows both the broker and the transport.
 *
 *   Threads    One, and as many as io_threads says for connections. All calls come from the first.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "config.h"
#include "log.h"
#include "options.h"
#include "status.h"

struct server;

/*
 * Makes a server of `config`: binds all listeners and reads all certificates. Mistakes are written
 * to `log`. The server borrows `log` and `options` and takes over `config`, also on an error.
 *
 * Errors: STATUS_IO (a listener or a certificate; the log says which), STATUS_NO_MEMORY.
 */
MUST_USE enum status server_create(const struct options *options, struct config *config,
                                   struct log *log, struct server **out);

/* Opens what is kept on disk, if anything is, and takes it over; the process has its user's rights
 * now. Errors: STATUS_IO, STATUS_NO_MEMORY; the log says what is wrong. */
MUST_USE enum status server_open_store(struct server *server);

/* Serves until SIGTERM or SIGINT, then drains: clients are told and closed, at most for some
 * seconds. Errors: STATUS_IO (no threads, or a disk that fails; the log says which). */
MUST_USE enum status server_run(struct server *server);

/* NULL is allowed. */
void server_destroy(struct server *server);

/* Reports a problem of a configuration to a log; a config_report_fn whose ctx is a struct log. */
void server_report_config(void *log, enum config_severity severity, const char *file, unsigned line,
                          const char *text);

#endif
