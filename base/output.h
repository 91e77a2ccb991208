/*
 * output: what one flush of one connection will write.
 *
 * The transport opens an output once per connection and loop turn; a client encoder fills it: small
 * packets are copied together into the loop's scratch memory, large payloads are referenced and
 * stay alive through their owner until the kernel has taken them. The transport then puts at most
 * one frame around everything and writes it with one system call. Neither side knows the other:
 * both know this structure.
 *
 *   Cost       output_take and output_put: a bounds check and a copy. No allocation.
 *   Ownership  Scratch belongs to the loop. A referenced part holds one reference to its owner,
 * which whoever consumes the output releases.
 */
#ifndef BASE_OUTPUT_H
#define BASE_OUTPUT_H

#include "bytes.h"
#include "shared.h"

enum {
    OUTPUT_PARTS_MAX = 64,
    OUTPUT_SCRATCH_BYTES = 256 * 1024,
    OUTPUT_REFERENCE_MIN = 8 * 1024, /* payloads from this size on are worth a reference */
    OUTPUT_TAKE_MAX = 96 * 1024,     /* one packet never takes more scratch */
    OUTPUT_SOFT_LIMIT = OUTPUT_SCRATCH_BYTES - OUTPUT_TAKE_MAX,
};

struct output_part {
    const uint8_t *data;
    size_t len;
    struct shared *owner; /* NULL: scratch */
};

struct output {
    uint8_t *at; /* free scratch */
    uint8_t *end;
    size_t total; /* bytes in all parts */
    unsigned part_count;
    struct output_part parts[OUTPUT_PARTS_MAX];
};

/* Empties the output and gives it `scratch` to fill. */
static inline void output_open(struct output *output, uint8_t *scratch, size_t scratch_bytes)
{
    output->at = scratch;
    output->end = scratch + scratch_bytes;
    output->total = 0;
    output->part_count = 0;
}

/* True while an encoder may add one more packet: one output_take up to OUTPUT_TAKE_MAX and two
 * references fit. */
static inline bool output_has_room(const struct output *output)
{
    return (size_t)(output->end - output->at) >= OUTPUT_TAKE_MAX &&
           output->part_count + 5 <= OUTPUT_PARTS_MAX && output->total < OUTPUT_SCRATCH_BYTES;
}

/* True when `len` bytes fit, whether or not there is room for a packet of any size. */
static inline bool output_fits(const struct output *output, size_t len)
{
    return (size_t)(output->end - output->at) >= len && output->part_count < OUTPUT_PARTS_MAX;
}

/* `len` contiguous bytes to be filled now. Requires output_has_room before the packet and len <=
 * OUTPUT_TAKE_MAX. */
static inline uint8_t *output_take(struct output *output, size_t len)
{
    ENSURE(len <= (size_t)(output->end - output->at));
    uint8_t *at = output->at;
    output->at += len;
    output->total += len;
    if (output->part_count != 0) {
        struct output_part *last = &output->parts[output->part_count - 1];
        if (last->owner == NULL && last->data + last->len == at) {
            last->len += len;
            return at;
        }
    }
    ENSURE(output->part_count < OUTPUT_PARTS_MAX);
    output->parts[output->part_count++] = (struct output_part){at, len, NULL};
    return at;
}

/* Gives back the last `len` bytes of the most recent output_take. */
static inline void output_untake(struct output *output, size_t len)
{
    struct output_part *last = &output->parts[output->part_count - 1];
    ENSURE(last->owner == NULL && last->len >= len);
    last->len -= len;
    output->at -= len;
    output->total -= len;
    if (last->len == 0) {
        output->part_count--;
    }
}

static inline void output_put(struct output *output, struct bytes bytes)
{
    if (bytes.len != 0) {
        memcpy(output_take(output, bytes.len), bytes.data, bytes.len);
    }
}

/* Adds bytes that live as long as `owner`, of which one reference is taken. */
static inline void output_reference(struct output *output, struct bytes bytes, struct shared *owner)
{
    ENSURE(output->part_count < OUTPUT_PARTS_MAX);
    output->total += bytes.len;
    output->parts[output->part_count++] =
        (struct output_part){bytes.data, bytes.len, shared_hold(owner)};
}

/* Copies small bytes and references large ones. */
static inline void output_add(struct output *output, struct bytes bytes, struct shared *owner)
{
    if (bytes.len >= OUTPUT_REFERENCE_MIN) {
        output_reference(output, bytes, owner);
    } else {
        output_put(output, bytes);
    }
}

/* Drops the references that an output that was not consumed holds. */
static inline void output_release(struct output *output)
{
    for (unsigned i = 0; i < output->part_count; i++) {
        shared_release(output->parts[i].owner);
    }
    output->part_count = 0;
    output->total = 0;
}

#endif
