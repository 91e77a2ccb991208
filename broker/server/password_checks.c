#include "password_checks.h"

#include <uv.h>

#include "mem.h"
#include "password_digest.h"

enum { RUNNING_MAX = 3 }; /* libuv's pool has four threads, and others need one, too */

struct access_check {
    uv_work_t work;
    struct password_checks *checks;
    struct access_check *next, *previous; /* while it waits */
    access_answer_fn *answer;             /* NULL: cancelled */
    void *owner;
    struct password_hash hash;
    enum status result;
    bool is_running;
    size_t password_len;
    uint8_t password[];
};

struct password_checks {
    uv_loop_t *uv;
    struct access_check *first, *last; /* waiting */
    unsigned running;
    unsigned running_max;
};

static void run(uv_work_t *work)
{
    struct access_check *check = work->data;
    bool is_right = false;
    check->result =
        password_verify(&check->hash, bytes_of(check->password, check->password_len), &is_right);
    if (check->result == STATUS_OK && !is_right) {
        check->result = STATUS_INVALID;
    }
    password_wipe(check->password, check->password_len);
}

static void free_check(struct access_check *check)
{
    password_wipe(check->password, check->password_len);
    mem_free(check);
}

static void unlink_check(struct access_check *check)
{
    struct password_checks *checks = check->checks;
    *(check->previous == NULL ? &checks->first : &check->previous->next) = check->next;
    *(check->next == NULL ? &checks->last : &check->next->previous) = check->previous;
}

static void start_next(struct password_checks *checks);

static void on_done(uv_work_t *work, int status)
{
    struct access_check *check = work->data;
    struct password_checks *checks = check->checks;
    ENSURE(status == 0);
    checks->running--;
    if (check->answer != NULL) {
        check->answer(check->owner, uv_now(checks->uv), check->result);
    }
    free_check(check);
    start_next(checks);
}

static void start_next(struct password_checks *checks)
{
    while (checks->running < checks->running_max && checks->first != NULL) {
        struct access_check *check = checks->first;
        unlink_check(check);
        check->is_running = true;
        checks->running++;
        ENSURE(uv_queue_work(checks->uv, &check->work, run, on_done) == 0);
    }
}

static struct access_check *start(void *ctx, const struct password_hash *hash,
                                  struct bytes password, access_answer_fn *answer, void *owner)
{
    struct password_checks *checks = ctx;
    struct access_check *check = mem_alloc(sizeof *check + password.len);
    if (check == NULL) {
        return NULL;
    }
    *check = (struct access_check){.work = {.data = check},
                                   .checks = checks,
                                   .previous = checks->last,
                                   .answer = answer,
                                   .owner = owner,
                                   .hash = *hash,
                                   .password_len = password.len};
    bytes_copy(check->password, password);
    *(checks->last == NULL ? &checks->first : &checks->last->next) = check;
    checks->last = check;
    start_next(checks);
    return check;
}

static void cancel(void *ctx, struct access_check *check)
{
    (void)ctx;
    if (check->is_running) {
        check->answer = NULL;
        return;
    }
    unlink_check(check);
    free_check(check);
}

struct access_checker password_checks_checker(struct password_checks *checks)
{
    return (struct access_checker){checks, start, cancel};
}

enum status password_checks_create(struct uv_loop_s *uv, struct password_checks **out)
{
    *out = mem_zalloc(sizeof **out);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    unsigned cores = uv_available_parallelism();
    (*out)->uv = uv;
    (*out)->running_max = cores > RUNNING_MAX ? RUNNING_MAX : cores > 1 ? cores - 1 : 1;
    return STATUS_OK;
}

void password_checks_destroy(struct password_checks *checks)
{
    if (checks != NULL) {
        ENSURE(checks->first == NULL && checks->running == 0);
        mem_free(checks);
    }
}
