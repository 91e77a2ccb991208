/*
 * options: the command line.
 *
 * -c, -p, -v and -d mean what mosquitto means by them. A pure function of argv that writes only to
 * the two streams it is given, so that tests can call it.
 */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "config.h"

enum { OPTIONS_ADDRESSES_MAX = 16 };

struct options {
    const char *config_path; /* -c; NULL: no file. Borrowed from argv. */
    struct config_address addresses[OPTIONS_ADDRESSES_MAX]; /* -p and --listen, in their order */
    size_t address_count;
    const char *persistence; /* --persistence: the directory; NULL: as the file says. Borrowed. */
    bool verbose;            /* -v: log all types, whatever the file says */
    bool daemonise;          /* -d */
    bool check_config;       /* --check-config: report on the files and leave */
};

enum options_result {
    OPTIONS_RUN,        /* go on with *out */
    OPTIONS_EXIT_OK,    /* --help or --version was printed: leave with EXIT_SUCCESS */
    OPTIONS_EXIT_USAGE, /* the mistake was printed: leave with 64 (EX_USAGE) */
};

/* Fills *out from the command line. Messages and --help go to `to_out`, mistakes to `to_err`. */
enum options_result options_parse(int argc, char *const argv[], struct options *out, FILE *to_out,
                                  FILE *to_err);

/* What the command line says goes before what is in the files. */
void options_apply(const struct options *options, struct config *config);

#endif
