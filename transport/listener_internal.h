/*
 * listener_internal: the inside of struct listener, for the files of this room.
 */
#ifndef TRANSPORT_LISTENER_INTERNAL_H
#define TRANSPORT_LISTENER_INTERNAL_H

#include <uv.h>

#include "listener.h"

/* A listener and those that follow it on other loops: what they count together. Not bound to a
 * thread: all members are atomic. */
struct listener_group {
    size_t references; /* listeners, and sockets on their way to another loop */
    size_t sockets;    /* accepted and not closed, without those that were refused */
};

struct listener_group *listener_group_hold(struct listener_group *group);
void listener_group_release(struct listener_group *group);

/* A socket takes a place, or leaves it. */
void listener_group_enter(struct listener_group *group);
void listener_group_leave(struct listener_group *group);

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
    bool is_follower; /* no socket of its own: `io` is unused */
    struct listener_group *group;
    size_t references;               /* its owner's, the handle's and one for each socket */
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
