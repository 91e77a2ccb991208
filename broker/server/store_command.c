#include "store_command.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lmdb_tool.h"

enum { EXIT_USAGE = 64 };

int store_command(int argc, char *const argv[], FILE *to_out, FILE *to_err)
{
    static const struct {
        const char *name;
        bool (*run)(const char *path, FILE *to_out, FILE *to_err);
    } commands[] = {
        {"check", lmdb_tool_check}, {"dump", lmdb_tool_dump}, {"compact", lmdb_tool_compact}};
    for (size_t i = 0; argc >= 1 && argc <= 2 && i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[0], commands[i].name) == 0 && (argc == 1 || argv[1][0] != '-')) {
            return commands[i].run(argc == 2 ? argv[1] : ".", to_out, to_err) ? EXIT_SUCCESS
                                                                              : EXIT_FAILURE;
        }
    }
    (void)fputs("usage: dunlin store check|dump|compact [FILE|DIRECTORY]\n", to_err);
    return EXIT_USAGE;
}
