#include "control.h"

#include "mem.h"

static void on_released(struct shared *shared)
{
    struct control *control = (struct control *)(void *)shared;
    struct control_hub *hub = control->hub;
    if (control->capacity != CONTROL_BYTES_MIN || hub->pool_count == CONTROL_POOL_MAX) {
        mem_free(control);
        return;
    }
    control->next = hub->pool;
    hub->pool = control;
    hub->pool_count++;
}

static struct control *take(struct control_hub *hub, void *link)
{
    struct control *control = hub->pool;
    if (control != NULL) {
        hub->pool = control->next;
        hub->pool_count--;
    } else {
        control = mem_alloc(sizeof *control + CONTROL_BYTES_MIN);
        if (control == NULL) {
            return NULL;
        }
        control->capacity = CONTROL_BYTES_MIN;
    }
    control->shared = (struct shared){1, on_released};
    control->hub = hub;
    control->next = NULL;
    control->link = link;
    control->len = control->ready = 0;
    control->hold_count = 0;
    return control;
}

void control_hub_fini(struct control_hub *hub)
{
    while (hub->pool != NULL) {
        struct control *control = hub->pool;
        hub->pool = control->next;
        mem_free(control);
    }
    mem_free(hub->waiting);
}

/* It waits for the store no more. */
static void stop_waiting(struct control *control)
{
    struct control_hub *hub = control->hub;
    if (control->hold_count != 0) {
        struct control *last = hub->waiting[--hub->waiting_count];
        hub->waiting[control->waiting_at] = last;
        last->waiting_at = control->waiting_at;
        control->hold_count = 0;
    }
}

static bool start_waiting(struct control *control)
{
    struct control_hub *hub = control->hub;
    if (hub->waiting_count == hub->waiting_capacity) {
        uint32_t capacity = hub->waiting_capacity == 0 ? 64 : hub->waiting_capacity * 2;
        struct control **waiting = mem_realloc(hub->waiting, capacity * sizeof(struct control *));
        if (waiting == NULL) {
            return false;
        }
        hub->waiting = waiting;
        hub->waiting_capacity = capacity;
    }
    control->waiting_at = hub->waiting_count;
    hub->waiting[hub->waiting_count++] = control;
    return true;
}

/* The last bytes wait for `ticket`, or, when it is 0, for what is before them. */
static bool hold(struct control *control, uint64_t ticket)
{
    if (control->hold_count == 0) {
        if (!start_waiting(control)) {
            return false;
        }
        control->holds[control->hold_count++] = (struct control_hold){ticket, control->len};
        return true;
    }
    struct control_hold *last = &control->holds[control->hold_count - 1];
    if (ticket > last->ticket && control->hold_count < CONTROL_HOLDS_MAX) {
        last++;
        control->hold_count++;
        last->ticket = ticket;
    } else if (ticket > last->ticket) {
        last->ticket = ticket;
    }
    last->end = control->len;
    return true;
}

struct writer control_begin(struct control **control, struct control_hub *hub, void *link,
                            size_t len)
{
    struct writer failed = {.failed = true};
    if (*control == NULL) {
        *control = take(hub, link);
        if (*control == NULL) {
            return failed;
        }
    }
    struct control *block = *control;
    if (block->capacity - block->len < len) {
        size_t capacity = block->capacity * 2 + len;
        block = mem_realloc(block, sizeof *block + capacity);
        if (block == NULL) {
            return failed;
        }
        block->capacity = capacity;
        *control = block;
        if (block->hold_count != 0) {
            hub->waiting[block->waiting_at] = block;
        }
    }
    return writer_of(block->data + block->len, len);
}

bool control_end(struct control *control, const struct writer *writer, uint64_t ticket)
{
    control->len += writer_len(writer);
    if (ticket == 0 && control->hold_count == 0) {
        control->ready = control->len;
    } else if (!hold(control, ticket)) {
        control->len -= writer_len(writer);
        return false;
    }
    return true;
}

void control_sent(struct control *control, size_t len)
{
    ENSURE(len <= control->ready);
    control->len -= len;
    control->ready -= len;
    memmove(control->data, control->data + len, control->len);
    for (uint32_t i = 0; i < control->hold_count; i++) {
        control->holds[i].end -= len;
    }
}

void control_drop_held(struct control *control)
{
    if (control != NULL && control->hold_count != 0) {
        stop_waiting(control);
        control->len = control->ready;
    }
}

void control_release(struct control **control)
{
    if (*control != NULL) {
        stop_waiting(*control);
        shared_release(&(*control)->shared);
        *control = NULL;
    }
}

void control_on_committed(struct control_hub *hub, uint64_t ticket)
{
    hub->uncommitted[ticket & 1] = 0;
    for (uint32_t i = hub->waiting_count; i != 0; i--) {
        struct control *control = hub->waiting[i - 1];
        uint32_t done = 0;
        while (done < control->hold_count && control->holds[done].ticket <= ticket) {
            control->ready = control->holds[done++].end;
        }
        if (done == control->hold_count) {
            stop_waiting(control);
        } else {
            control->hold_count -= done;
            memmove(control->holds, control->holds + done,
                    control->hold_count * sizeof *control->holds);
        }
        hub->wake(control->link);
    }
}

bool control_count_uncommitted(struct control_hub *hub, uint64_t ticket, size_t bytes)
{
    if (ticket == 0) {
        return false;
    }
    hub->uncommitted[ticket & 1] += bytes;
    return hub->uncommitted[0] + hub->uncommitted[1] > CONTROL_UNCOMMITTED_MAX;
}
