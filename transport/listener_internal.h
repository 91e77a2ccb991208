/*
 * listener_internal: the inside of struct listener, for the files of this room.
 */
#ifndef TRANSPORT_LISTENER_INTERNAL_H
#define TRANSPORT_LISTENER_INTERNAL_H

#include <uv.h>

#include "listener.h"

struct listener {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;
    uv_tcp_t spare; /* takes a client for whom there is no memory, so that it can be closed */
    bool spare_busy, spare_wanted;
    bool closing; /* listener_close was called */
    struct transport_loop *loop;
    struct listener *next, *previous;
    size_t references;               /* its owner's, the handle's and one for each socket */
    size_t sockets_refused;          /* by the user, and not closed yet */
    struct listener_options options; /* with its own copies */
    void *lists;                     /* the block that holds the copies */
    uint16_t port;
    char address[300];
};

void listener_hold(struct listener *listener);
void listener_release(struct listener *listener);

/* Calls on_refused and counts. */
void listener_refused(struct listener *listener, const char *peer_address, const char *reason);

#endif
