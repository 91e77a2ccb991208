/*
 * lmdb_tool: what an operator does to a store while no broker has it: look it over, write its
 * contents down, make it small. The command line for it is in broker/server.
 *
 * Each function takes the lock, writes results to `to_out` and what is wrong to `to_err`, and
 * returns true when all is well. `path` is the file, or the directory of a LMDB_STORE_FILE.
 *
 *   Threads    One; none of a running broker's.
 */
#ifndef STORE_LMDB_TOOL_H
#define STORE_LMDB_TOOL_H

#include <stdbool.h>
#include <stdio.h>

/* Counts rows and damage. False when there is damage, too. Changes nothing. */
bool lmdb_tool_check(const char *path, FILE *to_out, FILE *to_err);

/* Writes each session, subscription and message as a line of JSON. Refuses a damaged store. */
bool lmdb_tool_dump(const char *path, FILE *to_out, FILE *to_err);

/* Puts a copy without free pages in the place of the file. Refuses a damaged store. */
bool lmdb_tool_compact(const char *path, FILE *to_out, FILE *to_err);

#endif
