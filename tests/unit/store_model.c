#include "store_model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

void model_init(struct model *model, uint64_t seed)
{
    memset(model, 0, sizeof *model);
    model->random = seed * 2 + 1;
    model->next_arrival = 1;
    model->next_session = 1;
    model->body_max = 200;
}

uint64_t model_random(struct model *model, uint64_t limit)
{
    model->random = model->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (model->random >> 33) % limit;
}

static uint8_t body_byte(uint64_t arrival, size_t at)
{
    return (uint8_t)(arrival * 31 + at * 7);
}

struct message *model_message_create(const struct model_message *message)
{
    struct message *made = NULL;
    ENSURE(message_create(bytes_of_string(message->topic), message->properties_len,
                          bytes_of(NULL, message->payload_len), &made) == STATUS_OK);
    uint8_t *body = message_properties_area(made);
    for (size_t i = 0; i < message->properties_len + message->payload_len; i++) {
        body[i] = body_byte(message->arrival, i);
    }
    made->sequence = message->arrival;
    made->publisher_id = message->publisher;
    made->qos = message->qos;
    made->retain = message->retain;
    return made;
}

struct model_message *model_find(struct model *model, uint64_t arrival)
{
    for (size_t i = 0; i < model->message_count; i++) {
        if (model->messages[i].arrival == arrival) {
            return &model->messages[i];
        }
    }
    return NULL;
}

static struct model_recipient *find_recipient(struct model_message *message, unsigned role,
                                              uint64_t session)
{
    for (size_t i = 0; i < message->count; i++) {
        struct model_recipient *r = &message->recipients[i];
        if (r->value.role == role && r->value.session == session) {
            return r;
        }
    }
    return NULL;
}

static void set_recipient(struct model_recipient *to, const struct store_recipient *from)
{
    to->value = *from;
    for (size_t i = 0; i < from->identifier_count; i++) {
        to->identifiers[i] = from->identifiers[i];
    }
    to->value.identifiers = from->identifier_count == 0 ? NULL : to->identifiers;
}

static void finish(struct model *model, struct store *store, struct model_message *message,
                   size_t at)
{
    const struct store_recipient gone = message->recipients[at].value;
    store_finish(store, message->arrival, (enum store_role)gone.role, gone.session);
    size_t last = --message->count;
    message->recipients[at] = message->recipients[last];
    if (message->recipients[at].value.identifiers != NULL) {
        message->recipients[at].value.identifiers = message->recipients[at].identifiers;
    }
    if (message->count == 0) {
        /* Order is by arrival, so the rest moves up. Inner pointers move with it. */
        size_t index = (size_t)(message - model->messages);
        model->message_count--;
        for (size_t i = index; i < model->message_count; i++) {
            model->messages[i] = model->messages[i + 1];
            for (size_t r = 0; r < model->messages[i].count; r++) {
                struct model_recipient *moved = &model->messages[i].recipients[r];
                moved->value.identifiers =
                    moved->value.identifier_count == 0 ? NULL : moved->identifiers;
            }
        }
    }
}

static uint64_t random_session(struct model *model)
{
    return model->sessions[model_random(model, model->session_count)].value.number;
}

static struct model_recipient random_recipient(struct model *model, unsigned role)
{
    struct model_recipient r = {.value = {.role = (uint8_t)role}};
    r.value.session = role == STORE_RETAINED ? 0 : random_session(model);
    r.value.qos = (uint8_t)model_random(model, 3);
    r.value.retain = model_random(model, 2) != 0;
    r.value.packet_id = (uint16_t)(role == STORE_SENDER ? 1 + model_random(model, 65535) : 0);
    if (role == STORE_QUEUED) {
        r.value.group = model_random(model, 4) == 0 ? 1 + (uint32_t)model_random(model, 5) : 0;
        r.value.identifier_count =
            (uint16_t)(model_random(model, 3) == 0 ? 1 + model_random(model, MODEL_IDENTIFIERS)
                                                   : 0);
    }
    for (size_t i = 0; i < r.value.identifier_count; i++) {
        r.identifiers[i] = 1 + (uint32_t)model_random(model, 268435455);
    }
    return r;
}

/* Adds it to the model's message unless such a one is there. */
static bool add_recipient(struct model_message *message, const struct model_recipient *recipient)
{
    if (message->count == MODEL_RECIPIENTS ||
        find_recipient(message, recipient->value.role, recipient->value.session) != NULL) {
        return false;
    }
    struct model_recipient *place = &message->recipients[message->count++];
    struct store_recipient value = recipient->value;
    value.identifiers = recipient->identifiers;
    set_recipient(place, &value);
    return true;
}

static void finish_retained(struct model *model, struct store *store, const char *topic)
{
    for (size_t i = 0; i < model->message_count; i++) {
        struct model_message *m = &model->messages[i];
        struct model_recipient *retained = find_recipient(m, STORE_RETAINED, 0);
        if (retained != NULL && strcmp(m->topic, topic) == 0) {
            finish(model, store, m, (size_t)(retained - m->recipients));
            return;
        }
    }
}

static void step_append(struct model *model, struct store *store)
{
    if (model->message_count == MODEL_MESSAGES || model->session_count == 0) {
        return;
    }
    char topic[MODEL_TEXT];
    (void)snprintf(topic, sizeof topic, "t/%u", (unsigned)model_random(model, 6));
    bool retained = model_random(model, 4) == 0;
    if (retained) {
        finish_retained(model, store, topic);
    }
    struct model_message *m = &model->messages[model->message_count++];
    memset(m, 0, sizeof *m);
    m->arrival = model->next_arrival;
    model->next_arrival += 1 + model_random(model, 3);
    m->expires_unix_ms =
        model_random(model, 2) == 0 ? STORE_TIME_NEVER : 1 + model_random(model, 1000000);
    m->publisher = model_random(model, 2) == 0 ? 0 : random_session(model);
    m->qos = (uint8_t)model_random(model, 3);
    m->retain = retained;
    memcpy(m->topic, topic, sizeof topic);
    m->properties_len = model_random(model, 3) == 0 ? model_random(model, 40) : 0;
    m->payload_len = model_random(model, model_random(model, 8) == 0 ? model->body_max + 1 : 100);
    if (retained) {
        struct model_recipient r = random_recipient(model, STORE_RETAINED);
        (void)add_recipient(m, &r);
    }
    size_t wanted = 1 + model_random(model, 4);
    for (size_t i = 0; i < wanted; i++) {
        struct model_recipient r =
            random_recipient(model, model_random(model, 5) == 0 ? STORE_SENDER : STORE_QUEUED);
        (void)add_recipient(m, &r);
    }
    struct store_recipient given[MODEL_RECIPIENTS];
    for (size_t i = 0; i < m->count; i++) {
        given[i] = m->recipients[i].value;
    }
    struct message *message = model_message_create(m);
    store_append(store, message, m->expires_unix_ms, given, m->count);
    message_release(message);
}

static void step_add(struct model *model, struct store *store, struct model_message *m)
{
    if (model->session_count == 0) {
        return;
    }
    struct model_recipient r = random_recipient(model, STORE_QUEUED);
    if (add_recipient(m, &r)) {
        store_add(store, m->arrival, &m->recipients[m->count - 1].value);
    }
}

static void step_update(struct model *model, struct store *store, struct model_message *m)
{
    struct store_recipient *r = &m->recipients[model_random(model, m->count)].value;
    if (r->role == STORE_QUEUED) {
        r->packet_id = (uint16_t)(1 + model_random(model, 65535));
        r->state = (uint8_t)model_random(model, 2);
        store_update(store, m->arrival, (enum store_role)r->role, r->session, r->packet_id,
                     (enum store_state)r->state);
    }
}

static void step_session(struct model *model, struct store *store)
{
    struct model_session *s;
    if (model->session_count < MODEL_SESSIONS && model_random(model, 3) == 0) {
        s = &model->sessions[model->session_count++];
        memset(s, 0, sizeof *s);
        s->value.number = model->next_session++;
        (void)snprintf(s->client_id, sizeof s->client_id, "client-%u", (unsigned)s->value.number);
        s->value.client_id = bytes_of_string(s->client_id);
    } else if (model->session_count != 0) {
        s = &model->sessions[model_random(model, model->session_count)];
    } else {
        return;
    }
    s->value.expiry_s = (uint32_t)model_random(model, 1000);
    s->value.connected = model_random(model, 2) != 0;
    s->value.expires_unix_ms = s->value.connected ? STORE_TIME_NEVER : model_random(model, 100000);
    s->value.will = NULL;
    if (model_random(model, 2) == 0) {
        size_t properties = model_random(model, 20);
        (void)snprintf(s->topic, sizeof s->topic, "will/%u", (unsigned)model_random(model, 9));
        for (size_t i = 0; i < sizeof s->body; i++) {
            s->body[i] = (uint8_t)model_random(model, 256);
        }
        s->will = (struct store_will){
            .topic = bytes_of_string(s->topic),
            .properties = bytes_of(s->body, properties),
            .payload = bytes_of(s->body + properties, model_random(model, 40)),
            .qos = (uint8_t)model_random(model, 3),
            .retain = model_random(model, 2) != 0,
            .delay_s = (uint32_t)model_random(model, 100),
            .has_expiry = model_random(model, 2) != 0,
            .expiry_s = (uint32_t)model_random(model, 100),
            .due_unix_ms =
                model_random(model, 2) != 0 ? STORE_TIME_NEVER : model_random(model, 9999),
        };
        s->value.will = &s->will;
    }
    store_put_session(store, &s->value);
}

static void point_session(struct model_session *s)
{
    s->value.client_id = bytes_of_string(s->client_id);
    if (s->value.will != NULL) {
        size_t properties = s->will.properties.len;
        s->value.will = &s->will;
        s->will.topic = bytes_of_string(s->topic);
        s->will.properties = bytes_of(s->body, properties);
        s->will.payload = bytes_of(s->body + properties, s->will.payload.len);
    }
}

static void drop_subscription(struct model *model, size_t at)
{
    model->subscriptions[at] = model->subscriptions[--model->subscription_count];
    struct model_subscription *moved = &model->subscriptions[at];
    moved->value.filter = bytes_of_string(moved->filter);
}

static void step_delete_session(struct model *model, struct store *store)
{
    if (model->session_count == 0) {
        return;
    }
    size_t at = model_random(model, model->session_count);
    uint64_t number = model->sessions[at].value.number;
    for (size_t i = model->message_count; i-- != 0;) {
        for (size_t r = model->messages[i].count; r-- != 0;) {
            if (model->messages[i].recipients[r].value.role != STORE_RETAINED &&
                model->messages[i].recipients[r].value.session == number) {
                finish(model, store, &model->messages[i], r);
            }
        }
    }
    for (size_t i = model->subscription_count; i-- != 0;) {
        if (model->subscriptions[i].value.session == number) {
            drop_subscription(model, i);
        }
    }
    store_delete_session(store, number);
    model->sessions[at] = model->sessions[--model->session_count];
    point_session(&model->sessions[at]);
}

static void step_subscription(struct model *model, struct store *store)
{
    if (model->session_count == 0) {
        return;
    }
    struct model_subscription made = {.value = {.session = random_session(model)}};
    (void)snprintf(made.filter, sizeof made.filter, "f/%u/#", (unsigned)model_random(model, 8));
    size_t at = 0;
    while (at != model->subscription_count &&
           (model->subscriptions[at].value.session != made.value.session ||
            strcmp(model->subscriptions[at].filter, made.filter) != 0)) {
        at++;
    }
    if (at != model->subscription_count && model_random(model, 2) == 0) {
        store_delete_subscription(store, made.value.session, bytes_of_string(made.filter));
        drop_subscription(model, at);
        return;
    }
    if (at == MODEL_SUBSCRIPTIONS) {
        return;
    }
    model->subscription_count += at == model->subscription_count;
    made.value.identifier = (uint32_t)model_random(model, 1000);
    made.value.group = (uint32_t)model_random(model, 3);
    made.value.qos = (uint8_t)model_random(model, 3);
    made.value.no_local = model_random(model, 2) != 0;
    made.value.retain_as_published = model_random(model, 2) != 0;
    made.value.scan_pending = model_random(model, 2) != 0;
    model->subscriptions[at] = made;
    model->subscriptions[at].value.filter = bytes_of_string(model->subscriptions[at].filter);
    store_put_subscription(store, &model->subscriptions[at].value);
}

void model_step(struct model *model, struct store *store)
{
    uint64_t kind = model_random(model, 100);
    struct model_message *m = model->message_count == 0
                                  ? NULL
                                  : &model->messages[model_random(model, model->message_count)];
    if (kind < 35) {
        step_append(model, store);
    } else if (kind < 40 || (m == NULL && kind >= 47)) {
        step_session(model, store);
    } else if (kind < 41) {
        step_delete_session(model, store);
    } else if (kind < 47) {
        step_subscription(model, store);
    } else if (kind < 55) {
        step_add(model, store, m);
    } else if (kind < 65) {
        step_update(model, store, m);
    } else {
        finish(model, store, m, model_random(model, m->count));
    }
}

struct text {
    char *data;
    size_t len, size;
};

static void put(struct text *text, const char *format, ...) PRINTF_LIKE(2, 3);

static void put(struct text *text, const char *format, ...)
{
    va_list arguments;
    if (text->size - text->len < 4096) {
        text->size = text->size * 2 + 8192;
        text->data = realloc(text->data, text->size);
        ENSURE(text->data != NULL);
    }
    va_start(arguments, format);
    int len = vsnprintf(text->data + text->len, text->size - text->len, format, arguments);
    va_end(arguments);
    ENSURE(len >= 0 && (size_t)len < text->size - text->len);
    text->len += (size_t)len;
}

static void put_bytes(struct text *text, struct bytes bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        put(text, "%02x", bytes.data[i]);
    }
    put(text, " ");
}

static void put_session(struct text *text, const struct store_session *s)
{
    put(text, "session %" PRIu64 " %.*s expiry %u at %" PRIx64 " connected %d", s->number,
        (int)s->client_id.len, (const char *)s->client_id.data, s->expiry_s, s->expires_unix_ms,
        s->connected);
    if (s->will != NULL) {
        const struct store_will *w = s->will;
        put(text, " will %d %d %u %d %u %" PRIx64 " ", w->qos, w->retain, w->delay_s, w->has_expiry,
            w->expiry_s, w->due_unix_ms);
        put_bytes(text, w->topic);
        put_bytes(text, w->properties);
        put_bytes(text, w->payload);
    }
    put(text, "\n");
}

static void put_subscription(struct text *text, const struct store_subscription *s)
{
    put(text, "subscription %" PRIu64 " %.*s id %u group %u qos %d %d %d %d\n", s->session,
        (int)s->filter.len, (const char *)s->filter.data, s->identifier, s->group, s->qos,
        s->no_local, s->retain_as_published, s->scan_pending);
}

static int compare_recipients(const void *a, const void *b)
{
    const struct store_recipient *x = a;
    const struct store_recipient *y = b;
    if (x->role != y->role) {
        return x->role < y->role ? -1 : 1;
    }
    return x->session < y->session ? -1 : x->session > y->session;
}

static void put_message(struct text *text, const struct store_message *m,
                        const struct store_recipient *recipients, size_t count)
{
    struct store_recipient sorted[MODEL_RECIPIENTS];
    ENSURE(count != 0 && count <= MODEL_RECIPIENTS);
    memcpy(sorted, recipients, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_recipients);
    put(text,
        "message %" PRIu64 " expires %" PRIx64 " by %" PRIu64 " qos %d retain %d %.*s %zu %zu",
        m->arrival, m->expires_unix_ms, m->publisher, m->qos, m->retain, (int)m->topic.len,
        (const char *)m->topic.data, m->properties_len, m->payload_len);
    for (size_t i = 0; i < count; i++) {
        const struct store_recipient *r = &sorted[i];
        put(text, " [%d %" PRIu64 " group %u id %u %d qos %d %d", r->role, r->session, r->group,
            r->packet_id, r->state, r->qos, r->retain);
        for (size_t n = 0; n < r->identifier_count; n++) {
            put(text, " %u", r->identifiers[n]);
        }
        put(text, "]");
    }
    put(text, "\n");
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines in alphabetical order. */
static char *sort_lines(struct text *text)
{
    put(text, "%s", "");
    size_t count = 0;
    for (size_t i = 0; i < text->len; i++) {
        count += text->data[i] == '\n';
    }
    char **lines = calloc(count + 1, sizeof *lines);
    char *sorted = malloc(text->len + 1);
    ENSURE(lines != NULL && sorted != NULL);
    char *at = text->data;
    for (size_t i = 0; i < count; i++) {
        lines[i] = at;
        at = strchr(at, '\n');
        *at++ = '\0';
    }
    qsort(lines, count, sizeof *lines, compare_lines);
    char *to = sorted;
    *to = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(lines[i]);
        memcpy(to, lines[i], len);
        to[len] = '\n';
        to += len + 1;
        *to = '\0';
    }
    free(lines);
    free(text->data);
    return sorted;
}

char *model_text(struct model *model)
{
    struct text text = {NULL, 0, 0};
    for (size_t i = 0; i < model->session_count; i++) {
        put_session(&text, &model->sessions[i].value);
    }
    for (size_t i = 0; i < model->subscription_count; i++) {
        put_subscription(&text, &model->subscriptions[i].value);
    }
    for (size_t i = 0; i < model->message_count; i++) {
        const struct model_message *m = &model->messages[i];
        const struct store_message shown = {.arrival = m->arrival,
                                            .expires_unix_ms = m->expires_unix_ms,
                                            .publisher = m->publisher,
                                            .qos = m->qos,
                                            .retain = m->retain,
                                            .topic = bytes_of_string(m->topic),
                                            .properties_len = m->properties_len,
                                            .payload_len = m->payload_len};
        struct store_recipient recipients[MODEL_RECIPIENTS];
        for (size_t r = 0; r < m->count; r++) {
            recipients[r] = m->recipients[r].value;
        }
        put_message(&text, &shown, recipients, m->count);
    }
    return sort_lines(&text);
}

struct loading {
    struct text text;
    unsigned phase;
    uint64_t last_arrival;
};

static enum status on_session(void *ctx, const struct store_session *session)
{
    struct loading *loading = ctx;
    ENSURE(loading->phase == 0);
    put_session(&loading->text, session);
    return STATUS_OK;
}

static enum status on_subscription(void *ctx, const struct store_subscription *subscription)
{
    struct loading *loading = ctx;
    ENSURE(loading->phase <= 1);
    loading->phase = 1;
    put_subscription(&loading->text, subscription);
    return STATUS_OK;
}

static enum status on_message(void *ctx, const struct store_message *message,
                              struct bytes properties, struct bytes payload,
                              const struct store_recipient *recipients, size_t count)
{
    struct loading *loading = ctx;
    loading->phase = 2;
    ENSURE(message->arrival > loading->last_arrival);
    loading->last_arrival = message->arrival;
    bool retained = false;
    for (size_t i = 0; i < count; i++) {
        retained = retained || recipients[i].role == STORE_RETAINED;
    }
    ENSURE(properties.len == (retained ? message->properties_len : 0));
    ENSURE(payload.len == (retained ? message->payload_len : 0));
    for (size_t i = 0; i < properties.len; i++) {
        ENSURE(properties.data[i] == body_byte(message->arrival, i));
    }
    for (size_t i = 0; i < payload.len; i++) {
        ENSURE(payload.data[i] == body_byte(message->arrival, properties.len + i));
    }
    put_message(&loading->text, message, recipients, count);
    return STATUS_OK;
}

char *model_load_text(struct store *store)
{
    struct loading loading = {.phase = 0};
    const struct store_loader loader = {&loading, on_session, on_subscription, on_message};
    ENSURE(store_load(store, &loader) == STATUS_OK);
    return sort_lines(&loading.text);
}

void model_assert_loads(struct model *model, struct store *store)
{
    char *expected = model_text(model);
    char *found = model_load_text(store);
    if (strcmp(expected, found) != 0) {
        (void)fprintf(stderr, "expected:\n%sfound:\n%s", expected, found);
    }
    ENSURE(strcmp(expected, found) == 0);
    free(expected);
    free(found);
}
