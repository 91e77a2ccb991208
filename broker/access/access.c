#include "access.h"

enum mqtt_reason access_connect(const struct access_request *request, struct bytes *user_name)
{
    *user_name = BYTES_EMPTY;
    if (request->certificate_is_user) {
        if (request->certificate_user.len == 0) {
            return MQTT_BAD_USER_NAME_OR_PASSWORD;
        }
        *user_name = request->certificate_user;
        return MQTT_SUCCESS;
    }
    if (!request->allow_anonymous) {
        return MQTT_NOT_AUTHORIZED;
    }
    if (request->has_user_name) {
        *user_name = request->user_name;
    }
    return MQTT_SUCCESS;
}

bool access_may_publish(struct bytes topic)
{
    struct bytes sys = bytes_of_string("$SYS");
    return !bytes_start_with(topic, sys) || (topic.len > sys.len && topic.data[sys.len] != '/');
}
