/* Who watches over a message until its receivers have it. */
#include "core_state.h"

uint32_t core_matched(const struct core *core)
{
    return core->matched;
}

void core_watch_begin(struct core *core, struct core_watch *watch, const struct message *message,
                      void (*changed)(struct core_watch *watch))
{
    *watch = (struct core_watch){.next = core->watches,
                                 .sequence = message->sequence,
                                 .matched = core->matched,
                                 .changed = changed};
    core->watches = watch;
}

void core_watch_end(struct core *core, struct core_watch *watch)
{
    struct core_watch **place = &core->watches;
    while (*place != watch) {
        ENSURE(*place != NULL);
        place = &(*place)->next;
    }
    *place = watch->next;
}

/* By its number, since a message may leave the memory and come back. */
void watches_count(struct core *core, uint64_t sequence)
{
    for (struct core_watch *watch = core->watches; watch != NULL; watch = watch->next) {
        if (watch->sequence == sequence) {
            watch->acknowledged++;
            watch->changed(watch);
            return;
        }
    }
}
