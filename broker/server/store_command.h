/*
 * store_command: "dunlin store check|dump|compact [FILE|DIRECTORY]", for a store that no broker has
 * open. docs/storage.md says what each does.
 */
#ifndef SERVER_STORE_COMMAND_H
#define SERVER_STORE_COMMAND_H

#include <stdio.h>

/* Runs the command whose words after "store" are `argv`. Returns the exit status: 0, 1 when there
 * is damage or something failed, 64 for a wrong command line. */
int store_command(int argc, char *const argv[], FILE *to_out, FILE *to_err);

#endif
