/*
 * tls_idle: frees the record buffers of idle TLS sessions.
 *
 * mbedTLS allocates two record buffers of about 16.7 KiB for each session and keeps them to its
 * end. Between records nothing in them is needed but the first bytes of each, so while a session is
 * idle it has none, and the next session that is used gets theirs. They are freed clean: their
 * whole pages go back to the system, which puts pages of zeros there when they are next touched.
 * Nothing goes while part of a record has arrived, or has not been read or sent.
 *
 * A session that was not used between two sweeps is idle. The loop sweeps every TLS_IDLE_SWEEP_MS,
 * a batch at a time, so that many sessions that become idle together do not hold up the others.
 *
 *   Cost       touch: one comparison, and moving a list entry once for each sweep interval. A
 *              discard is two system calls; a session that is then used allocates two buffers,
 *              of which a short record touches one page each.
 *   Threads    The loop's own.
 */
#ifndef TRANSPORT_TLS_IDLE_H
#define TRANSPORT_TLS_IDLE_H

#include <mbedtls/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

enum {
    TLS_IDLE_SWEEP_MS = 2 * 1000,
    TLS_IDLE_BATCH = 64,      /* sessions in one step of a sweep: well below a millisecond */
    TLS_IDLE_BATCH_MS = 10,   /* until the next step */
    TLS_IDLE_KEEP_BYTES = 16, /* at the start of a buffer: sequence number and record header */
    TLS_IDLE_POINTERS = 6,    /* the library's into one buffer */
};

/* What is needed of a buffer that was freed. */
struct tls_idle_kept_buffer {
    uint8_t start[TLS_IDLE_KEEP_BYTES];
    uint32_t bytes;
    uint16_t offsets[TLS_IDLE_POINTERS];
};

/* What a session without buffers is restored from. */
struct tls_idle_kept {
    struct tls_idle_kept_buffer in, out;
};

/* Embedded in a session. Zeroed memory is on no list: idle, or never used. */
struct tls_idle_entry {
    struct tls_idle_entry *next, *previous;
    uint8_t list; /* index into tls_idle.lists, counted from 1; 0: on none */
};

/* The sessions that have been used since they were last discarded, on the list of the interval of
 * their last use: the current one or the one before. */
struct tls_idle {
    struct tls_idle_entry lists[2]; /* ring heads */
    uint8_t current;                /* index of the list for what is used now, counted from 1 */
};

void tls_idle_init(struct tls_idle *idle);

void tls_idle_move(struct tls_idle *idle, struct tls_idle_entry *entry);

/* The session of `entry` is being used. */
static inline void tls_idle_touch(struct tls_idle *idle, struct tls_idle_entry *entry)
{
    if (entry->list != idle->current) {
        tls_idle_move(idle, entry);
    }
}

/* Forgets an entry, whose session ends or need not be looked at again. */
void tls_idle_remove(struct tls_idle_entry *entry);

/*
 * One step of a sweep: calls `discard` for up to TLS_IDLE_BATCH entries that were not touched for
 * at least one interval; they are then on no list. Returns the milliseconds until the next step, 0
 * when no entry is left.
 */
uint32_t tls_idle_sweep(struct tls_idle *idle, void (*discard)(struct tls_idle_entry *entry));

/* True when there is something to sweep. */
bool tls_idle_has_work(const struct tls_idle *idle);

/*
 * Frees the buffers of `ssl`, of which *kept then has what is needed. False when the session is in
 * the middle of anything or has no buffers: nothing has changed then. Without them the library may
 * only be asked about the session, or to free it.
 */
bool tls_idle_discard(mbedtls_ssl_context *ssl, struct tls_idle_kept *kept);

/* Gives `ssl` buffers again, if it has none. Errors: STATUS_NO_MEMORY; nothing has changed then. */
MUST_USE enum status tls_idle_restore(mbedtls_ssl_context *ssl, const struct tls_idle_kept *kept);

/*
 * Fills `block`, which malloc has returned, with zeros, and gives its whole pages back to the
 * system. Returns the number of bytes that went.
 */
size_t tls_idle_clear_block(void *block);

#endif
