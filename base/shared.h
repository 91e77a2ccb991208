/*
 * shared: the reference count in front of an object that several rooms hold at once.
 *
 * transport/ keeps payloads alive while the kernel has not taken them, without knowing that they
 * are messages: it sees only this header.
 *
 *   Threads    The count is plain: all who hold or drop references are on one thread at a time.
 * With I/O threads that is the broker's; see broker/server/link.h.
 */
#ifndef BASE_SHARED_H
#define BASE_SHARED_H

#include <stdint.h>

#include "status.h"

struct shared {
    uint32_t references;
    void (*destroy)(struct shared *object); /* called once, when the last reference goes */
};

static inline struct shared *shared_hold(struct shared *object)
{
    ENSURE(object->references != 0 && object->references != UINT32_MAX);
    object->references++;
    return object;
}

/* Drops one reference. NULL is allowed. */
static inline void shared_release(struct shared *object)
{
    if (object != NULL) {
        ENSURE(object->references != 0);
        if (--object->references == 0) {
            object->destroy(object);
        }
    }
}

#endif
