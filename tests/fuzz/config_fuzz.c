/* Any text is a configuration or is refused with a report; a loaded one keeps the promises of
 * config.h. */
#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned errors;

static void check_report(void *ctx, enum config_severity severity, const char *file, unsigned line,
                         const char *text)
{
    (void)ctx;
    (void)line;
    ENSURE(file != NULL && text[0] != '\0');
    for (const char *at = text; *at != '\0'; at++) {
        ENSURE((unsigned char)*at >= ' ' && *at != 0x7F);
    }
    errors += severity == CONFIG_ERROR ? 1 : 0;
}

static void check_listener(const struct config_listener *listener)
{
    char name[512];
    ENSURE(listener->host == NULL || listener->unix_path == NULL);
    ENSURE(listener->unix_path == NULL || listener->port == 0);
    ENSURE(listener->port != 0 || listener->unix_path != NULL || listener->host != NULL);
    ENSURE(listener->auto_id_prefix != NULL);
    ENSURE(listener->max_qos <= 2 && listener->max_topic_alias <= UINT16_MAX);
    ENSURE(!listener->require_certificate ||
           (listener->cafile != NULL && listener->certificate_count != 0));
    for (size_t i = 0; i < listener->certificate_count; i++) {
        ENSURE(listener->certificates[i].certfile != NULL);
        ENSURE(listener->certificates[i].keyfile != NULL);
    }
    for (size_t i = 0; i < listener->websockets_origin_count; i++) {
        ENSURE(listener->websockets_origins[i] != NULL);
    }
    config_listener_name(listener, name, sizeof name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config;
    errors = 0;
    enum status status =
        config_parse(bytes_of(data, size), "fuzz.conf", check_report, NULL, &config);
    ENSURE((status == STATUS_OK) == (errors == 0));
    ENSURE((status == STATUS_OK) == (config != NULL));
    if (config != NULL) {
        ENSURE(config->listener_count != 0);
        ENSURE(config->max_inflight_messages >= 1 && config->max_inflight_messages <= UINT16_MAX);
        ENSURE(config->max_packet_size >= 20 && config->message_size_limit != 0);
        ENSURE(config->max_queued_messages != 0 && config->max_queued_bytes != 0);
        ENSURE((config->log.destinations & LOG_TO_FILE) == 0 || config->log.file_path != NULL);
        for (size_t i = 0; i < config->listener_count; i++) {
            check_listener(&config->listeners[i]);
        }
    }
    config_destroy(config);
    return 0;
}
