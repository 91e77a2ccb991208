#include "protocol_support.h"

#include <stdio.h>

#include "stomp_destination.h"
#include "topic.h"

/* The topic or filter of a destination, as a string. */
static const char *topic_of(const char *text, bool as_filter, char out[256])
{
    struct stomp_destination destination;
    assert_null(stomp_destination_parse(bytes_of_string(text), &destination));
    struct writer writer = writer_of(out, 255);
    stomp_destination_topic(&destination, as_filter, &writer);
    assert_true(writer_ok(&writer));
    assert_true(writer_len(&writer) <= strlen(STOMP_QUEUE_PREFIX) + destination.name.len);
    out[writer_len(&writer)] = '\0';
    return out;
}

static const char *destination_of(const char *topic, enum stomp_style style, char out[1024])
{
    struct writer writer = writer_of(out, 1023);
    stomp_destination_write(bytes_of_string(topic), style, &writer);
    assert_true(writer_ok(&writer));
    assert_true(writer_len(&writer) <= stomp_destination_room(strlen(topic)));
    out[writer_len(&writer)] = '\0';
    return out;
}

static void destinations(void **state)
{
    (void)state;
    static const struct {
        const char *destination;
        const char *topic;
        const char *filter;
    } cases[] = {
        {"/topic/a.b.c", "a/b/c", "a/b/c"},
        {"/topic/a/b/c", "a/b/c", "a/b/c"},
        {"/topic/a.*.#", "a/*/#", "a/+/#"},
        {"/topic/*", "*", "+"},
        {"/topic/a*.b", "a*/b", "a*/b"},
        {"/topic/a.+.c", "a/+/c", "a/+/c"},
        {"/topic/v1%2E0.x%25.%2A", "v1.0/x%/*", "v1.0/x%/*"},
        {"/topic/100%.%zz.%2", "100%/%zz/%2", "100%/%zz/%2"},
        {"/topic/.a", "/a", "/a"},
        {"/exchange/amq.topic/a.*", "a/*", "a/+"},
        {"/queue/jobs.new", "$queue/jobs.new", "$queue/jobs.new"},
        {"/queue/a/b", "$queue/a/b", "$queue/a/b"},
        {"/amq/queue/jobs", "$queue/jobs", "$queue/jobs"},
        {"/reply-queue/x7", "$reply/x7", "$reply/x7"},
        {"a/b", "a/b", "a/b"},
        {"a/+/#", "a/+/#", "a/+/#"},
        {"/a.b/*", "/a.b/*", "/a.b/*"},
        {"/topics/a.b", "/topics/a.b", "/topics/a.b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[256];
        assert_string_equal(topic_of(cases[i].destination, false, out), cases[i].topic);
        assert_string_equal(topic_of(cases[i].destination, true, out), cases[i].filter);
    }
    static const char *const bad[] = {"",
                                      "/topic/",
                                      "/queue/",
                                      "/amq/queue/",
                                      "/temp-queue/",
                                      "/exchange/",
                                      "/exchange/direct",
                                      "/exchange/x/y",
                                      "/queue/a.#",
                                      "/queue/+",
                                      "/exchange/amq.topic",
                                      "/exchange/amq.topic/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct stomp_destination destination;
        assert_non_null(stomp_destination_parse(bytes_of_string(bad[i]), &destination));
    }
    struct stomp_destination destination;
    assert_null(stomp_destination_parse(bytes_of_string("/temp-queue/r"), &destination));
    assert_int_equal(destination.kind, STOMP_TEMP_QUEUE);
    assert_true(bytes_equal_string(destination.name, "r"));
}

static void topics(void **state)
{
    (void)state;
    static const struct {
        const char *topic;
        enum stomp_style style;
        const char *destination;
    } cases[] = {
        {"a/b", STOMP_DOTS, "/topic/a.b"},
        {"a/b", STOMP_SLASHES, "/topic/a/b"},
        {"a/b", STOMP_PLAIN, "a/b"},
        {"v1.0/50%/*", STOMP_DOTS, "/topic/v1%2E0.50%25.%2A"},
        {"/topic/x", STOMP_PLAIN, "/topic/.topic.x"},
        {"/exchange/x", STOMP_PLAIN, "/topic/.exchange.x"},
        {"$queue/a/b.c", STOMP_DOTS, "/queue/a/b.c"},
        {"$queue/", STOMP_DOTS, "/topic/$queue."},
        {"$reply/x", STOMP_PLAIN, "/reply-queue/x"},
        {"$SYS/broker/uptime", STOMP_DOTS, "/topic/$SYS.broker.uptime"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[1024];
        assert_string_equal(destination_of(cases[i].topic, cases[i].style, out),
                            cases[i].destination);
    }
}

/* Whatever the topic, its destination leads back to it. */
static void round_trips(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a",
                                         "b",
                                         "/",
                                         ".",
                                         "%",
                                         "*",
                                         "2E",
                                         "25",
                                         "topic",
                                         "queue",
                                         "$queue/",
                                         "$reply/",
                                         "/topic/",
                                         "/queue/",
                                         "/amq/queue/",
                                         "/exchange/",
                                         "/exchange/amq.topic/",
                                         "/temp-queue/",
                                         "/reply-queue/",
                                         "\xE4\xBD\xA0"};
    uint32_t seed = 7;
    for (unsigned round = 0; round < 100000; round++) {
        char topic[160] = "";
        seed = seed * 1664525 + 1013904223;
        for (unsigned left = 1 + (seed >> 16) % 6; left != 0; left--) {
            seed = seed * 1664525 + 1013904223;
            const char *piece = pieces[(seed >> 16) % (sizeof pieces / sizeof pieces[0])];
            memcpy(topic + strlen(topic), piece, strlen(piece) + 1);
        }
        for (unsigned style = STOMP_DOTS; style <= STOMP_PLAIN; style++) {
            char destination[1024];
            char back[256];
            destination_of(topic, (enum stomp_style)style, destination);
            assert_string_equal(topic_of(destination, false, back), topic);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destinations),
        cmocka_unit_test(topics),
        cmocka_unit_test(round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
