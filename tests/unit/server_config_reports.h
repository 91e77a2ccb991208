/* What the tests of the configuration share: the reports of one load as text. */
#ifndef TESTS_SERVER_CONFIG_REPORTS_H
#define TESTS_SERVER_CONFIG_REPORTS_H

#include <stdio.h>
#include <string.h>

#include "config.h"

/* All reports of one load as text: "E12: unknown key ...\n". */
struct reports {
    char text[65536];
    size_t len;
    bool with_file;
};

static inline void collect(void *ctx, enum config_severity severity, const char *file,
                           unsigned line, const char *text)
{
    struct reports *reports = ctx;
    const char *name = strrchr(file, '/') == NULL ? file : strrchr(file, '/') + 1;
    size_t room = sizeof reports->text - reports->len;
    int len = snprintf(reports->text + reports->len, room, "%s%s%c%u: %s\n",
                       reports->with_file ? name : "", reports->with_file ? " " : "",
                       severity == CONFIG_ERROR ? 'E' : 'W', line, text);
    assert_true(len > 0 && (size_t)len < room);
    reports->len += (size_t)len;
}

#endif
