/*
 * words: a line of a replay script, cut at spaces; a word may contain "quoted text" with spaces.
 * packet_text.c reads and writes packets in this form.
 */
#ifndef REPLAY_WORDS_H
#define REPLAY_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "mqtt.h"

enum { WORDS_MAX = 256, LINE_MAX_BYTES = 256 * 1024 };

struct words {
    size_t count;
    char *at[WORDS_MAX];
};

/* Cuts `line`, which is changed and must live as long as the words. */
void words_cut(struct words *words, char *line);

/* "name=value": the value, else NULL. */
const char *word_value(const char *word, const char *name);

/* A whole decimal number up to `max`. */
bool word_number(const char *word, uint64_t max, uint64_t *out);

/* The bytes that a word stands for: bare text, "text" with \" \\ and \xHH, or "text"*count. The
 * result lives until words_forget. */
bool word_text(const char *word, struct bytes *out);

/* Frees what word_text made. */
void words_forget(void);

/* The name of a reason code as scripts write it, "session-taken-over", and back. */
void reason_word(enum mqtt_reason reason, char *out, size_t out_bytes);
bool word_reason(const char *word, enum mqtt_reason *out);

#endif
