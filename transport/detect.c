#include "detect.h"

enum { FIRST_TLS = 0x16, FIRST_MQTT = 0x10 }; /* handshake record; CONNECT packet */

static bool is_line_end(uint8_t byte)
{
    return byte == '\n' || byte == '\r';
}

/* `command` and a line end. */
static enum detected compare(struct bytes first, const char *command)
{
    struct bytes word = bytes_of_string(command);
    size_t len = first.len < word.len ? first.len : word.len;
    if (memcmp(first.data, word.data, len) != 0) {
        return DETECTED_HTTP;
    }
    if (first.len <= word.len) {
        return DETECTED_MORE;
    }
    return is_line_end(first.data[word.len]) ? DETECTED_STOMP : DETECTED_HTTP;
}

enum detected detect_protocol(struct bytes first)
{
    uint8_t byte = first.data[0];
    if (byte == FIRST_TLS) {
        return DETECTED_TLS;
    }
    if (byte == FIRST_MQTT) {
        return DETECTED_MQTT;
    }
    if (is_line_end(byte)) {
        return DETECTED_STOMP;
    }
    if (byte < 'A' || byte > 'Z') {
        return DETECTED_UNKNOWN;
    }
    return compare(first, byte == 'C' ? "CONNECT" : "STOMP");
}
