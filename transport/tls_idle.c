#include "tls_idle.h"

#include <malloc.h>
#include <mbedtls/version.h>
#include <sys/mman.h>
#include <unistd.h>

#include "status.h"

#if MBEDTLS_VERSION_NUMBER < 0x03000000
#define MEMBER(name) name
#else
#define MEMBER(name) MBEDTLS_PRIVATE(name)
#endif

void tls_idle_init(struct tls_idle *idle)
{
    for (int i = 0; i < 2; i++) {
        idle->lists[i].next = idle->lists[i].previous = &idle->lists[i];
    }
    idle->current = 1;
}

void tls_idle_remove(struct tls_idle_entry *entry)
{
    if (entry->list != 0) {
        entry->next->previous = entry->previous;
        entry->previous->next = entry->next;
        entry->next = entry->previous = NULL;
        entry->list = 0;
    }
}

void tls_idle_move(struct tls_idle *idle, struct tls_idle_entry *entry)
{
    struct tls_idle_entry *head = &idle->lists[idle->current - 1];
    tls_idle_remove(entry);
    entry->list = idle->current;
    entry->next = head;
    entry->previous = head->previous;
    head->previous->next = entry;
    head->previous = entry;
}

static bool is_empty(const struct tls_idle_entry *head)
{
    return head->next == head;
}

bool tls_idle_has_work(const struct tls_idle *idle)
{
    return !is_empty(&idle->lists[0]) || !is_empty(&idle->lists[1]);
}

uint32_t tls_idle_sweep(struct tls_idle *idle, void (*discard)(struct tls_idle_entry *entry))
{
    const uint8_t other = (uint8_t)(3 - idle->current);
    struct tls_idle_entry *head = &idle->lists[other - 1];
    for (int i = 0; i < TLS_IDLE_BATCH && !is_empty(head); i++) {
        struct tls_idle_entry *entry = head->next;
        tls_idle_remove(entry);
        discard(entry);
    }
    if (!is_empty(head)) {
        return TLS_IDLE_BATCH_MS;
    }
    idle->current = other; /* what was current has one interval to be touched again */
    return tls_idle_has_work(idle) ? TLS_IDLE_SWEEP_MS : 0;
}

size_t tls_idle_discard_block(void *block, size_t keep)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    /* What malloc keeps about a block is outside the bytes that it calls usable. */
    uintptr_t from = (uintptr_t)block + keep;
    uintptr_t to = (uintptr_t)block + malloc_usable_size(block);
    ENSURE((page & (page - 1)) == 0);
    from = (from + page - 1) & ~(uintptr_t)(page - 1);
    to &= ~(uintptr_t)(page - 1);
    if (from >= to) {
        return 0;
    }
    char *start = (char *)block + (from - (uintptr_t)block);
    return madvise(start, to - from, MADV_DONTNEED) == 0 ? to - from : 0;
}

/* Nothing of a record is in the buffers, and no handshake is going on: none has partly arrived,
 * none waits to be read or to be sent. */
static bool is_between_records(const mbedtls_ssl_context *ssl)
{
    return ssl->MEMBER(state) == MBEDTLS_SSL_HANDSHAKE_OVER && ssl->MEMBER(in_left) == 0 &&
           ssl->MEMBER(in_offt) == NULL && ssl->MEMBER(in_hslen) == 0 &&
           ssl->MEMBER(keep_current_message) == 0 && ssl->MEMBER(out_left) == 0 &&
           mbedtls_ssl_check_pending(ssl) == 0;
}

size_t tls_idle_discard(mbedtls_ssl_context *ssl)
{
    unsigned char *in = ssl->MEMBER(in_buf);
    unsigned char *out = ssl->MEMBER(out_buf);
    if (in == NULL || out == NULL || !is_between_records(ssl)) {
        return 0;
    }
    return tls_idle_discard_block(in, TLS_IDLE_KEEP_BYTES) +
           tls_idle_discard_block(out, TLS_IDLE_KEEP_BYTES);
}
