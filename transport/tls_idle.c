#include "tls_idle.h"

#include <malloc.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/version.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem.h"
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

size_t tls_idle_clear_block(void *block)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    /* What malloc keeps about a block is outside the bytes that it calls usable. */
    uintptr_t from = (uintptr_t)block;
    uintptr_t to = from + malloc_usable_size(block);
    ENSURE((page & (page - 1)) == 0);
    size_t before = (size_t)(-from & (page - 1));
    size_t behind = (size_t)(to & (page - 1));
    size_t bytes = to - from;
    if (before + behind >= bytes) {
        mbedtls_platform_zeroize(block, bytes);
        return 0;
    }
    unsigned char *pages = (unsigned char *)block + before;
    size_t inside = bytes - before - behind;
    mbedtls_platform_zeroize(block, before);
    mbedtls_platform_zeroize(pages + inside, behind);
    if (madvise(pages, inside, MADV_DONTNEED) != 0) {
        mbedtls_platform_zeroize(pages, inside);
        return 0;
    }
    return inside;
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

/* A buffer's own pointer and those into it. */
struct pointers {
    unsigned char **buffer;
    unsigned char **inner[TLS_IDLE_POINTERS];
};

#if defined(MBEDTLS_SSL_DTLS_CONNECTION_ID)
#define CONNECTION_ID(ssl, name) &(ssl)->MEMBER(name)
#else
#define CONNECTION_ID(ssl, name) NULL
#endif

static struct pointers pointers_in(mbedtls_ssl_context *ssl)
{
    return (struct pointers){&ssl->MEMBER(in_buf),
                             {&ssl->MEMBER(in_ctr), &ssl->MEMBER(in_hdr), &ssl->MEMBER(in_len),
                              &ssl->MEMBER(in_iv), &ssl->MEMBER(in_msg),
                              CONNECTION_ID(ssl, in_cid)}};
}

static struct pointers pointers_out(mbedtls_ssl_context *ssl)
{
    return (struct pointers){&ssl->MEMBER(out_buf),
                             {&ssl->MEMBER(out_ctr), &ssl->MEMBER(out_hdr), &ssl->MEMBER(out_len),
                              &ssl->MEMBER(out_iv), &ssl->MEMBER(out_msg),
                              CONNECTION_ID(ssl, out_cid)}};
}

static void free_buffer(const struct pointers *pointers, struct tls_idle_kept_buffer *kept)
{
    unsigned char *buffer = *pointers->buffer;
    memcpy(kept->start, buffer, TLS_IDLE_KEEP_BYTES);
    kept->bytes = (uint32_t)malloc_usable_size(buffer);
    for (int i = 0; i < TLS_IDLE_POINTERS && pointers->inner[i] != NULL; i++) {
        kept->offsets[i] = (uint16_t)(*pointers->inner[i] - buffer);
        *pointers->inner[i] = NULL;
    }
    *pointers->buffer = NULL;
    (void)tls_idle_clear_block(buffer);
    mem_free(buffer);
}

static void put_buffer(const struct pointers *pointers, const struct tls_idle_kept_buffer *kept,
                       unsigned char *buffer)
{
    memcpy(buffer, kept->start, TLS_IDLE_KEEP_BYTES);
    for (int i = 0; i < TLS_IDLE_POINTERS && pointers->inner[i] != NULL; i++) {
        *pointers->inner[i] = buffer + kept->offsets[i];
    }
    *pointers->buffer = buffer;
}

bool tls_idle_discard(mbedtls_ssl_context *ssl, struct tls_idle_kept *kept)
{
    if (ssl->MEMBER(in_buf) == NULL || ssl->MEMBER(out_buf) == NULL || !is_between_records(ssl)) {
        return false;
    }
    struct pointers in = pointers_in(ssl);
    struct pointers out = pointers_out(ssl);
    free_buffer(&in, &kept->in);
    free_buffer(&out, &kept->out);
    return true;
}

enum status tls_idle_restore(mbedtls_ssl_context *ssl, const struct tls_idle_kept *kept)
{
    if (ssl->MEMBER(in_buf) != NULL) {
        return STATUS_OK;
    }
    unsigned char *in_buffer = mem_alloc(kept->in.bytes);
    unsigned char *out_buffer = mem_alloc(kept->out.bytes);
    if (in_buffer == NULL || out_buffer == NULL) {
        mem_free(in_buffer);
        mem_free(out_buffer);
        return STATUS_NO_MEMORY;
    }
    struct pointers in = pointers_in(ssl);
    struct pointers out = pointers_out(ssl);
    put_buffer(&in, &kept->in, in_buffer);
    put_buffer(&out, &kept->out, out_buffer);
    return STATUS_OK;
}
