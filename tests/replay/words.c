#include "words.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEAT_MAX = 1024 * 1024 };

void words_cut(struct words *words, char *line)
{
    words->count = 0;
    char *at = line;
    for (;;) {
        while (*at == ' ' || *at == '\t' || *at == '\n') {
            *at++ = '\0';
        }
        if (*at == '\0') {
            return;
        }
        ENSURE(words->count < WORDS_MAX);
        words->at[words->count++] = at;
        bool quoted = false;
        for (; *at != '\0' && (quoted || (*at != ' ' && *at != '\t' && *at != '\n')); at++) {
            if (*at == '\\' && at[1] != '\0') {
                at++;
            } else if (*at == '"') {
                quoted = !quoted;
            }
        }
    }
}

const char *word_value(const char *word, const char *name)
{
    size_t len = strlen(name);
    return strncmp(word, name, len) == 0 && word[len] == '=' ? word + len + 1 : NULL;
}

bool word_number(const char *word, uint64_t max, uint64_t *out)
{
    char *end = NULL;
    if (!isdigit((unsigned char)*word)) {
        return false;
    }
    *out = strtoull(word, &end, 10);
    return *end == '\0' && *out <= max;
}

/* What word_text gave out. */
static void *given[WORDS_MAX * 2];
static size_t given_count;

static uint8_t *give(size_t size)
{
    ENSURE(given_count < sizeof given / sizeof *given);
    void *block = malloc(size == 0 ? 1 : size);
    ENSURE(block != NULL);
    given[given_count++] = block;
    return block;
}

void words_forget(void)
{
    while (given_count != 0) {
        free(given[--given_count]);
    }
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c == '\0' ? NULL : strchr(digits, tolower((unsigned char)c));
    return at == NULL ? -1 : (int)(at - digits);
}

/* One character, escaped or not. Returns how many the script has for it, 0 on a bad escape. */
static size_t read_character(const char *at, uint8_t *out)
{
    *out = (uint8_t)*at;
    if (*at != '\\') {
        return 1;
    }
    if (at[1] == 'x' && hex_digit(at[2]) >= 0 && hex_digit(at[3]) >= 0) {
        *out = (uint8_t)(hex_digit(at[2]) * 16 + hex_digit(at[3]));
        return 4;
    }
    *out = (uint8_t)at[1];
    return at[1] == '\\' || at[1] == '"' ? 2 : 0;
}

bool word_text(const char *word, struct bytes *out)
{
    if (*word != '"') {
        *out = bytes_of_string(word);
        return true;
    }
    size_t len = 0;
    uint8_t *text = give(strlen(word));
    const char *at = word + 1;
    while (*at != '"') {
        size_t step = *at == '\0' ? 0 : read_character(at, &text[len]);
        if (step == 0) {
            return false;
        }
        at += step;
        len++;
    }
    *out = bytes_of(text, len);
    at++;
    if (*at == '*') {
        uint64_t count = 0;
        if (!word_number(at + 1, REPEAT_MAX, &count)) {
            return false;
        }
        uint8_t *repeated = give(len * count);
        for (size_t i = 0; i < count; i++) {
            memcpy(repeated + i * len, text, len);
        }
        *out = bytes_of(repeated, len * count);
        return true;
    }
    return *at == '\0';
}

static char word_character(char c)
{
    return isalnum((unsigned char)c) ? (char)tolower((unsigned char)c) : '-';
}

void reason_word(enum mqtt_reason reason, char *out, size_t out_bytes)
{
    (void)snprintf(out, out_bytes, "%s", mqtt_reason_name(reason));
    for (char *at = out; *at != '\0'; at++) {
        *at = word_character(*at);
    }
}

bool word_reason(const char *word, enum mqtt_reason *out)
{
    for (unsigned code = 0; code < 256; code++) {
        char name[64];
        reason_word((enum mqtt_reason)code, name, sizeof name);
        if (strcmp(name, word) == 0) {
            *out = (enum mqtt_reason)code;
            return true;
        }
    }
    return false;
}
