/* clients_fixture: what tests of MQTT clients share: a host that does nothing, and the bytes that a
 * client sends. */
#ifndef TESTS_CLIENTS_FIXTURE_H
#define TESTS_CLIENTS_FIXTURE_H

#include <string.h>

#include "mqtt_client.h"

static inline void ignore_client(void *link, const struct client *client)
{
    (void)link;
    (void)client;
}

static inline void ignore_gone(void *link, const struct client *client, const char *why)
{
    (void)why;
    ignore_client(link, client);
}

/* Sends what the client has to `to`, which has `size` bytes; returns how many they are. `scratch`
 * is of OUTPUT_SCRATCH_BYTES. */
static inline size_t flush_client(struct mqtt_client *client, uint8_t *scratch, uint8_t *to,
                                  size_t size)
{
    struct output output;
    size_t len = 0;
    output_open(&output, scratch, OUTPUT_SCRATCH_BYTES);
    mqtt_client_send(client, 0, &output);
    for (unsigned i = 0; i < output.part_count; i++) {
        assert_true(len + output.parts[i].len <= size);
        memcpy(to + len, output.parts[i].data, output.parts[i].len);
        len += output.parts[i].len;
    }
    output_release(&output);
    return len;
}

#endif
