#include "stomp_destination.h"

#define TOPIC_PREFIX "/topic/"
#define EXCHANGE_PREFIX "/exchange/"
#define AMQ_TOPIC_PREFIX "/exchange/amq.topic/"
#define QUEUE_PREFIX "/queue/"
#define EXISTING_QUEUE_PREFIX "/amq/queue/"
#define TEMP_QUEUE_PREFIX "/temp-queue/"
#define REPLY_QUEUE_PREFIX "/reply-queue/"

static const struct {
    const char *prefix;
    enum stomp_destination_kind kind;
} prefixes[] = {
    {TOPIC_PREFIX, STOMP_TOPIC},           {AMQ_TOPIC_PREFIX, STOMP_TOPIC},
    {QUEUE_PREFIX, STOMP_QUEUE},           {EXISTING_QUEUE_PREFIX, STOMP_EXISTING_QUEUE},
    {TEMP_QUEUE_PREFIX, STOMP_TEMP_QUEUE}, {REPLY_QUEUE_PREFIX, STOMP_REPLY_QUEUE},
};

/* The index of the prefix that `text` begins with; -1: none. */
static int find_prefix(struct bytes text)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (bytes_start_with(text, bytes_of_string(prefixes[i].prefix))) {
            return (int)i;
        }
    }
    return -1;
}

static bool has(struct bytes text, char character)
{
    return text.len != 0 && memchr(text.data, character, text.len) != NULL;
}

const char *stomp_destination_parse(struct bytes text, struct stomp_destination *out)
{
    int prefix = find_prefix(text);
    if (prefix < 0) {
        if (bytes_start_with(text, bytes_of_string(EXCHANGE_PREFIX))) {
            return "of all exchanges only amq.topic is here, with a topic: "
                   "/exchange/amq.topic/a.b";
        }
        *out = (struct stomp_destination){STOMP_TOPIC, STOMP_PLAIN, text};
        return text.len == 0 ? "the destination is empty" : NULL;
    }
    struct bytes name = bytes_from(text, strlen(prefixes[prefix].prefix));
    if (name.len == 0) {
        return "the destination has no name behind its prefix";
    }
    *out = (struct stomp_destination){prefixes[prefix].kind, STOMP_DOTS, name};
    if (out->kind != STOMP_TOPIC) {
        return has(name, '+') || has(name, '#') ? "a queue's name has no + and no #" : NULL;
    }
    if (has(name, '/')) {
        out->style = STOMP_SLASHES;
    }
    return NULL;
}

static int hex_digit(uint8_t character)
{
    if (character >= '0' && character <= '9') {
        return character - '0';
    }
    if (character >= 'A' && character <= 'F') {
        return character - 'A' + 10;
    }
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* What a percent sign at `at` stands for; 0: itself. */
static uint8_t escaped_at(struct bytes text, size_t at)
{
    if (text.data[at] != '%' || text.len - at < 3) {
        return 0;
    }
    int high = hex_digit(text.data[at + 1]);
    int low = hex_digit(text.data[at + 2]);
    int value = high < 0 || low < 0 ? -1 : high * 16 + low;
    return value == '.' || value == '%' || value == '*' ? (uint8_t)value : 0;
}

static bool separates(struct bytes text, size_t at)
{
    return text.data[at] == '.' || text.data[at] == '/';
}

/* True when the star at `at` is a whole level. */
static bool is_whole_level(struct bytes text, size_t at)
{
    return (at == 0 || separates(text, at - 1)) && (at + 1 == text.len || separates(text, at + 1));
}

static void write_levels(struct bytes name, bool as_filter, struct writer *writer)
{
    for (size_t at = 0; at < name.len; at++) {
        uint8_t escaped = escaped_at(name, at);
        if (escaped != 0) {
            writer_u8(writer, escaped);
            at += 2;
        } else if (separates(name, at)) {
            writer_u8(writer, '/');
        } else if (as_filter && name.data[at] == '*' && is_whole_level(name, at)) {
            writer_u8(writer, '+');
        } else {
            writer_u8(writer, name.data[at]);
        }
    }
}

void stomp_destination_topic(const struct stomp_destination *destination, bool as_filter,
                             struct writer *writer)
{
    switch (destination->kind) {
    case STOMP_TOPIC:
        if (destination->style == STOMP_PLAIN) {
            writer_bytes(writer, destination->name);
        } else {
            write_levels(destination->name, as_filter, writer);
        }
        break;
    case STOMP_QUEUE:
    case STOMP_EXISTING_QUEUE:
        writer_bytes(writer, bytes_of_string(STOMP_QUEUE_PREFIX));
        writer_bytes(writer, destination->name);
        break;
    case STOMP_REPLY_QUEUE:
        writer_bytes(writer, bytes_of_string(STOMP_REPLY_PREFIX));
        writer_bytes(writer, destination->name);
        break;
    case STOMP_TEMP_QUEUE:
        ENSURE(false); /* it has no topic before the connection gives it one */
    }
}

static void write_escaped(struct writer *writer, const char *escape)
{
    writer_bytes(writer, bytes_of_string(escape));
}

void stomp_destination_write(struct bytes topic, enum stomp_style style, struct writer *writer)
{
    struct bytes queue = bytes_of_string(STOMP_QUEUE_PREFIX);
    struct bytes reply = bytes_of_string(STOMP_REPLY_PREFIX);
    if (bytes_start_with(topic, queue) && topic.len > queue.len) {
        writer_bytes(writer, bytes_of_string(QUEUE_PREFIX));
        writer_bytes(writer, bytes_from(topic, queue.len));
        return;
    }
    if (bytes_start_with(topic, reply) && topic.len > reply.len) {
        writer_bytes(writer, bytes_of_string(REPLY_QUEUE_PREFIX));
        writer_bytes(writer, bytes_from(topic, reply.len));
        return;
    }
    if (style == STOMP_PLAIN && find_prefix(topic) < 0 &&
        !bytes_start_with(topic, bytes_of_string(EXCHANGE_PREFIX))) {
        writer_bytes(writer, topic);
        return;
    }
    writer_bytes(writer, bytes_of_string(TOPIC_PREFIX));
    for (size_t at = 0; at < topic.len; at++) {
        switch (topic.data[at]) {
        case '/':
            writer_u8(writer, style == STOMP_SLASHES ? '/' : '.');
            break;
        case '.':
            write_escaped(writer, "%2E");
            break;
        case '%':
            write_escaped(writer, "%25");
            break;
        case '*':
            write_escaped(writer, "%2A");
            break;
        default:
            writer_u8(writer, topic.data[at]);
            break;
        }
    }
}
