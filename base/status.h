/*
 * status: how a function says that it could not do its work, and the few attributes all rooms
 * share.
 *
 * Three classes of failure, kept apart everywhere: what a peer did wrong is a wire reason code
 * (protocol/mqtt.h), a resource that is missing is a status, and a mistake of our own is an
 * assertion, which stays on in release builds.
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_at, first_at) __attribute__((format(printf, format_at, first_at)))

enum status {
    STATUS_OK = 0,
    STATUS_NO_MEMORY, /* the allocator refused */
    STATUS_LIMIT,     /* a configured or named limit was reached */
    STATUS_NOT_FOUND, /* what was named does not exist */
    STATUS_INVALID,   /* the input breaks a rule; the callee says which */
    STATUS_IO,        /* the system refused; errno or the log says why */
};

/* One word for `status`, for log lines. Never NULL. */
static inline const char *status_name(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return "ok";
    case STATUS_NO_MEMORY:
        return "out of memory";
    case STATUS_LIMIT:
        return "limit reached";
    case STATUS_NOT_FOUND:
        return "not found";
    case STATUS_INVALID:
        return "invalid";
    case STATUS_IO:
        return "input/output error";
    }
    return "unknown";
}

/* Stops the process when our own reasoning was wrong. Not affected by NDEBUG. */
#define ENSURE(condition) ((condition) ? (void)0 : ensure_failed(#condition, __FILE__, __LINE__))

__attribute__((noreturn)) void ensure_failed(const char *condition, const char *file, int line);

#endif
