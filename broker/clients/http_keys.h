/*
 * http_keys: idempotency keys, so that a publication that was sent again because its answer got
 * lost is not published again.
 *
 *   Limits   HTTP_KEYS_MAX keys, HTTP_KEYS_MS each; the oldest go first.
 */
#ifndef BROKER_HTTP_KEYS_H
#define BROKER_HTTP_KEYS_H

#include "bytes.h"
#include "hash.h"
#include "status.h"

enum { HTTP_KEYS_MAX = 10 * 1000, HTTP_KEYS_MS = 10 * 60 * 1000 };

struct http_keys;

/* Errors: STATUS_NO_MEMORY. */
MUST_USE enum status http_keys_create(const struct hash_seed *seed, struct http_keys **out);
void http_keys_destroy(struct http_keys *keys); /* NULL is allowed */

/* Whether `user` has published with `key`; then *matched is what was answered. */
bool http_keys_find(struct http_keys *keys, uint64_t now_ms, struct bytes user, struct bytes key,
                    uint32_t *matched);

/* Remembers a key that is not there. Without memory it is not remembered. */
void http_keys_add(struct http_keys *keys, uint64_t now_ms, struct bytes user, struct bytes key,
                   uint32_t matched);

#endif
