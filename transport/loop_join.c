/* Loops that share their clients: who takes the next one, and how it gets there. */
#include <unistd.h>

#include "connection_internal.h"
#include "listener_internal.h"
#include "loop_internal.h"
#include "mem.h"

struct arrival {
    struct arrival *next;
    struct listener_group *group; /* one reference held */
    int fd;
    bool refused_full;
};

/* What other loops' threads have put down for one loop. */
struct arrivals {
    uv_async_t async;
    unsigned followers; /* of the own thread: while there are some uv_run waits for arrivals */
    uv_mutex_t mutex;   /* for all below */
    struct arrival *first, **last;
};

void loop_assign(struct transport_loop *loop)
{
    (void)__atomic_add_fetch(&loop->sockets_assigned, 1, __ATOMIC_RELAXED);
}

void loop_unassign(struct transport_loop *loop)
{
    (void)__atomic_sub_fetch(&loop->sockets_assigned, 1, __ATOMIC_RELAXED);
}

static size_t assigned(const struct transport_loop *loop)
{
    return __atomic_load_n(&loop->sockets_assigned, __ATOMIC_RELAXED);
}

struct transport_loop *loop_emptiest(struct transport_loop *loop)
{
    struct transport_loop *best = loop;
    size_t fewest = assigned(loop);
    for (size_t i = 0; i < loop->joined_count; i++) {
        size_t sockets = assigned(loop->joined[i]);
        if (sockets < fewest) {
            fewest = sockets;
            best = loop->joined[i];
        }
    }
    return best;
}

uint64_t transport_loop_sockets(const struct transport_loop *loop)
{
    if (loop->joined == NULL) {
        return assigned(loop);
    }
    uint64_t sockets = 0;
    for (size_t i = 0; i < loop->joined_count; i++) {
        sockets += assigned(loop->joined[i]);
    }
    return sockets;
}

static void discard(struct transport_loop *loop, struct arrival *arrival)
{
    (void)close(arrival->fd);
    loop_unassign(loop);
    if (!arrival->refused_full) {
        listener_group_leave(arrival->group);
    }
}

/* Listeners are few. */
static struct listener *follower_of(const struct transport_loop *loop,
                                    const struct listener_group *group)
{
    struct listener *listener = loop->listeners;
    while (listener != NULL && (listener->group != group || listener->closing)) {
        listener = listener->next;
    }
    return listener;
}

static struct arrival *take_all(struct arrivals *arrivals)
{
    uv_mutex_lock(&arrivals->mutex);
    struct arrival *first = arrivals->first;
    arrivals->first = NULL;
    arrivals->last = &arrivals->first;
    uv_mutex_unlock(&arrivals->mutex);
    return first;
}

static void on_arrival(uv_async_t *async)
{
    struct transport_loop *loop = async->data;
    struct arrival *arrival = take_all(loop->arrivals);
    while (arrival != NULL) {
        struct arrival *next = arrival->next;
        struct listener *listener = follower_of(loop, arrival->group);
        if (listener == NULL ||
            connection_adopt(listener, arrival->fd, arrival->refused_full) != STATUS_OK) {
            discard(loop, arrival);
        }
        listener_group_release(arrival->group);
        mem_free(arrival);
        arrival = next;
    }
}

enum status loop_hand_over(struct transport_loop *to, struct listener_group *group, int fd,
                           bool refused_full)
{
    struct arrivals *arrivals = to->arrivals;
    struct arrival *arrival = mem_alloc(sizeof *arrival);
    if (arrival == NULL) {
        return STATUS_NO_MEMORY;
    }
    *arrival = (struct arrival){NULL, listener_group_hold(group), fd, refused_full};
    loop_assign(to);
    uv_mutex_lock(&arrivals->mutex);
    bool was_empty = arrivals->first == NULL;
    *arrivals->last = arrival;
    arrivals->last = &arrival->next;
    uv_mutex_unlock(&arrivals->mutex);
    if (was_empty) {
        (void)uv_async_send(&arrivals->async);
    }
    return STATUS_OK;
}

static enum status create_arrivals(struct transport_loop *loop)
{
    struct arrivals *arrivals = mem_zalloc(sizeof *arrivals);
    if (arrivals == NULL || uv_mutex_init(&arrivals->mutex) != 0) {
        mem_free(arrivals);
        return STATUS_IO;
    }
    if (uv_async_init(loop->uv, &arrivals->async, on_arrival) != 0) {
        uv_mutex_destroy(&arrivals->mutex);
        mem_free(arrivals);
        return STATUS_IO;
    }
    arrivals->async.data = loop;
    arrivals->last = &arrivals->first;
    uv_unref((uv_handle_t *)&arrivals->async);
    loop->arrivals = arrivals;
    return STATUS_OK;
}

enum status transport_loops_join(struct transport_loop *const *loops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ENSURE(loops[i]->arrivals == NULL);
        if (create_arrivals(loops[i]) != STATUS_OK) {
            return STATUS_IO;
        }
    }
    for (size_t i = 0; i < count; i++) {
        loops[i]->joined = loops;
        loops[i]->joined_count = count;
    }
    return STATUS_OK;
}

void loop_follow(struct transport_loop *loop)
{
    ENSURE(loop->arrivals != NULL);
    if (loop->arrivals->followers++ == 0) {
        uv_ref((uv_handle_t *)&loop->arrivals->async);
    }
}

void loop_unfollow(struct transport_loop *loop)
{
    if (--loop->arrivals->followers == 0) {
        uv_unref((uv_handle_t *)&loop->arrivals->async);
    }
}

void loop_close_arrivals(struct transport_loop *loop)
{
    if (loop->arrivals != NULL) {
        uv_close((uv_handle_t *)&loop->arrivals->async, NULL);
    }
}

void loop_free_arrivals(struct transport_loop *loop)
{
    if (loop->arrivals == NULL) {
        return;
    }
    struct arrival *arrival = take_all(loop->arrivals);
    while (arrival != NULL) {
        struct arrival *next = arrival->next;
        discard(loop, arrival);
        listener_group_release(arrival->group);
        mem_free(arrival);
        arrival = next;
    }
    uv_mutex_destroy(&loop->arrivals->mutex);
    mem_free(loop->arrivals);
}
