/* What a stream or a WebSocket wants to get: the filters in its query. */
#include "http_client_state.h"

#include "topic.h"

void http_make_secret(struct http_client *client, uint8_t out[HTTP_SECRET_DIGITS])
{
    static const char digits[] = "0123456789abcdef";
    const struct http_host *host = &client->clients->host;
    uint8_t random[HTTP_SECRET_BYTES];
    host->random(host->ctx, random, sizeof random);
    for (size_t i = 0; i < HTTP_SECRET_BYTES; i++) {
        *out++ = (uint8_t)digits[random[i] >> 4];
        *out++ = (uint8_t)digits[random[i] & 15];
    }
}

static const char *take_filter(struct http_wishes *wishes, struct bytes value,
                               struct writer *writer)
{
    uint8_t *start = writer->at;
    if (wishes->count == HTTP_FILTERS_MAX) {
        return "there are more than 32 topics";
    }
    if (!http_decode_percent(value, true, writer)) {
        return "\"topic\" has a bad escape";
    }
    struct bytes filter = bytes_of(start, (size_t)(writer->at - start));
    if (!topic_filter_is_valid(filter) || !utf8_is_valid_string(filter)) {
        return "\"topic\" is not a topic filter";
    }
    wishes->filters[wishes->count++] = filter;
    return NULL;
}

const char *http_read_wishes(const struct http_request *request, struct http_wishes *out)
{
    struct bytes query = request->query;
    struct bytes name;
    struct bytes value;
    struct writer writer = writer_of(out->buffer, query.len);
    out->event_id = request->last_event_id;
    while (http_query_next(&query, &name, &value)) {
        const char *problem = NULL;
        if (bytes_equal_string(name, "topic")) {
            problem = take_filter(out, value, &writer);
        } else if (out->may_resume && bytes_equal_string(name, "last_event_id")) {
            out->event_id = request->last_event_id.len != 0 ? request->last_event_id : value;
        } else if (bytes_equal_string(name, "qos") && value.len == 1 &&
                   (value.data[0] == '0' || value.data[0] == '1')) {
            out->qos = (uint8_t)(value.data[0] - '0');
        } else {
            problem = "the query has a parameter that is not known, or \"qos\" is not 0 or 1";
        }
        if (problem != NULL) {
            return problem;
        }
    }
    return out->count == 0 ? "\"topic\" is missing" : NULL;
}

enum mqtt_reason http_subscribe_all(struct http_client *client, uint64_t now_ms,
                                    struct session *session, const struct http_wishes *wishes)
{
    for (size_t i = 0; i < wishes->count; i++) {
        struct core_subscribe request = {
            .filter = wishes->filters[i],
            .qos = wishes->qos,
            .retain_handling = 1, /* with a resumed one its retained messages have come */
        };
        enum mqtt_reason reason = core_subscribe(client->clients->core, now_ms, session, &request);
        if (reason >= MQTT_UNSPECIFIED_ERROR) {
            return reason;
        }
    }
    return MQTT_SUCCESS;
}

bool http_may_subscribe_all(const struct http_client *client, const struct http_wishes *wishes)
{
    for (size_t i = 0; i < wishes->count; i++) {
        if (!access_may_subscribe(client->rights, wishes->filters[i])) {
            return false;
        }
    }
    return true;
}
