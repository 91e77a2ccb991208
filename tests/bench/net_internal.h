/*
 * net_internal: what the two halves of net share: net.c connects and writes, receive.c takes apart
 * what was read.
 *
 *   Place  tests/bench; included by those two files only.
 */
#ifndef BENCH_NET_INTERNAL_H
#define BENCH_NET_INTERNAL_H

#include "net.h"

#define FRAME_HEAD_MAX 14

/* receive.c: handles what one read gave, at any split of packets and frames. May close the client.
 */
void client_received(struct client *client, uint8_t *data, size_t len);

/* net.c */

/* Closes a client that did not ask for it and counts it. The first one's reason is printed. */
void client_lost(struct client *client, const char *why);
/* The WebSocket is there, or was not wanted: sends CONNECT. */
void client_send_connect(struct client *client);
/* CONNACK and all SUBACKs have come. */
void client_ready(struct client *client);
/* Writes whole packets at once, in one frame. The outbox must be empty. */
void client_send(struct client *client, const struct buffer *packets);
/* Writes the head of a client's frame so that it ends just before `payload`, and masks the payload
 * in place. Needs FRAME_HEAD_MAX bytes before it. Returns the head's length. */
size_t frame_encode(uint8_t *payload, size_t len, uint8_t opcode);

#endif
