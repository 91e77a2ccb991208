#include "config_keys.h"

#include <ctype.h>

/* Rows of one key. G is a global setting, L one of a listener; the member has the key's name or is
 * given. */
#define AT_G(member) .scope = CONFIG_SCOPE_GLOBAL, .offset = offsetof(struct config, member)
#define AT_L(member)                                                                               \
    .scope = CONFIG_SCOPE_LISTENER, .offset = offsetof(struct config_listener, member)
#define AT_A(member) .scope = CONFIG_SCOPE_ACCESS, .offset = offsetof(struct config_access, member)

#define BOOL .type = CONFIG_TYPE_BOOL
#define TEXT .type = CONFIG_TYPE_TEXT
#define U32(from, to) .type = CONFIG_TYPE_U32, .min = (from), .max = (to)
#define U64(from) .type = CONFIG_TYPE_U64, .min = (from), .max = INT64_MAX
#define CHOICE(list) .type = CONFIG_TYPE_CHOICE, .choices = (list)
#define CUSTOM(setter) .type = CONFIG_TYPE_CUSTOM, .set = (setter)
#define UNLIMITED (-1)

/* Keys of which nothing is stored. */
#define NOT_YET(key, why)                                                                          \
    {                                                                                              \
        .name = (key), .type = CONFIG_TYPE_ANY, .support = CONFIG_NOT_YET, .remark = (why)         \
    }
#define REFUSED(key, why)                                                                          \
    {                                                                                              \
        .name = (key), .type = CONFIG_TYPE_ANY, .support = CONFIG_REFUSED, .remark = (why)         \
    }
#define BRIDGE(key)                                                                                \
    {                                                                                              \
        .name = (key), .type = CONFIG_TYPE_ANY, .scope = CONFIG_SCOPE_BRIDGE,                      \
        .support = CONFIG_NOT_YET                                                                  \
    }
#define NO_EFFECT(key)                                                                             \
    {                                                                                              \
        .name = (key), .type = CONFIG_TYPE_BOOL, .support = CONFIG_NO_EFFECT                       \
    }

static const struct config_choice protocols[] = {
    {"any", CONFIG_PROTOCOL_ANY},
    {"mqtt", CONFIG_PROTOCOL_MQTT},
    {"stomp", CONFIG_PROTOCOL_STOMP},
    {"websockets", CONFIG_PROTOCOL_WEBSOCKETS},
    {NULL, 0},
};

static const struct config_choice families[] = {
    {"ipv4", CONFIG_FAMILY_IPV4},
    {"ipv6", CONFIG_FAMILY_IPV6},
    {NULL, 0},
};

static const struct config_choice log_formats[] = {
    {"plain", LOG_FORMAT_PLAIN},
    {"json", LOG_FORMAT_JSON},
    {NULL, 0},
};

/* clang-format off */
const struct config_key config_keys[] = {
    /* Listeners */
    {"listener", CUSTOM(config_set_listener)},
    {"port", CUSTOM(config_set_port)},
    {"bind_address", CUSTOM(config_set_bind_address)},
    {"protocol", CHOICE(protocols), AT_L(protocol), .initial = CONFIG_PROTOCOL_DEFAULT},
    {"socket_domain", CHOICE(families), AT_L(family), .initial = CONFIG_FAMILY_ANY},
    {"max_connections", U32(-1, INT32_MAX), AT_L(max_connections), .initial = UNLIMITED},
    {"max_qos", U32(0, 2), AT_L(max_qos), .initial = 2},
    {"max_topic_alias", U32(0, 65535), AT_L(max_topic_alias), .initial = 10},
    {"websockets_origin", CUSTOM(config_set_origin), .scope = CONFIG_SCOPE_LISTENER},
    {"http_cors_origin", TEXT, AT_L(http_cors_origin)},

    /* Who may connect */
    {"per_listener_settings", CUSTOM(config_set_per_listener)},
    {"allow_anonymous", BOOL, AT_A(allow_anonymous)},
    {"allow_zero_length_clientid", BOOL, AT_A(allow_zero_length_clientid), .initial = true},
    {"auto_id_prefix", TEXT, AT_A(auto_id_prefix)},
    {"password_file", TEXT, AT_A(password_file)},
    {"acl_file", TEXT, AT_A(acl_file)},
    {"clientid_prefixes", TEXT, AT_G(clientid_prefixes)},
    {"response_information", CUSTOM(config_set_response_information)},

    /* TLS */
    {"certfile", CUSTOM(config_set_certfile), .scope = CONFIG_SCOPE_LISTENER},
    {"keyfile", CUSTOM(config_set_keyfile), .scope = CONFIG_SCOPE_LISTENER},
    {"cafile", TEXT, AT_L(cafile)},
    {"crlfile", TEXT, AT_L(crlfile)},
    {"require_certificate", BOOL, AT_L(require_certificate)},
    {"use_identity_as_username", BOOL, AT_L(use_identity_as_username)},
    {"use_subject_as_username", BOOL, AT_L(use_subject_as_username)},
    {"tls_version", CUSTOM(config_set_tls_version), .scope = CONFIG_SCOPE_LISTENER},

    /* Queues and windows */
    {"max_queued_messages", U32(0, INT32_MAX), AT_G(max_queued_messages), .initial = 10000, .zero = UNLIMITED},
    {"max_queued_bytes", U64(0), AT_G(max_queued_bytes), .initial = 33554432, .zero = UNLIMITED},
    {"max_inflight_messages", U32(0, 65535), AT_G(max_inflight_messages), .initial = 100, .zero = 65535},
    {"max_inflight_bytes", U64(0), AT_G(max_inflight_bytes), .initial = UNLIMITED, .zero = UNLIMITED},
    {"receive_maximum", U32(1, 65535), AT_G(receive_maximum), .initial = 65535},
    {"queue_qos0_messages", BOOL, AT_G(queue_qos0_messages)},
    {"upgrade_outgoing_qos", BOOL, AT_G(upgrade_outgoing_qos)},

    /* Limits of what a client may send or ask for */
    {"max_packet_size", U32(20, 268435455), AT_G(max_packet_size), .initial = 16777216},
    {"message_size_limit", U32(0, 268435455), AT_G(message_size_limit), .initial = 268435455, .zero = 268435455},
    {"max_keepalive", U32(10, 65535), AT_G(max_keepalive_s), .initial = 65535, .zero = 65535},
    {"max_subscriptions", U32(0, INT32_MAX), AT_G(max_subscriptions), .initial = 10000, .zero = UNLIMITED},
    {"max_topic_levels", U32(1, 1024), AT_G(max_topic_levels), .initial = 128},
    {"retain_available", BOOL, AT_G(retain_available), .initial = true},
    {"persistent_client_expiration", .type = CONFIG_TYPE_DURATION, AT_G(persistent_client_expiration_s), .initial = UNLIMITED},

    /* Time limits, WebSocket */
    {"connect_timeout", U32(1, 3600), AT_G(connect_timeout_s), .initial = 10},
    {"handshake_timeout", U32(1, 3600), AT_G(handshake_timeout_s), .initial = 10},
    {"websocket_ping_interval", U32(0, 65535), AT_G(websocket_ping_interval_s), .initial = 25},
    {"websockets_headers_size", U32(256, 65536), AT_G(websockets_headers_size), .initial = 8192, .zero = 8192},

    /* Log */
    {"log_dest", CUSTOM(config_set_log_dest)},
    {"log_type", CUSTOM(config_set_log_type)},
    {"log_timestamp", BOOL, AT_G(log.timestamp), .initial = true},
    {"log_timestamp_format", CUSTOM(config_set_timestamp_format), AT_G(log.timestamp_format)},
    {"log_format", CHOICE(log_formats), AT_G(log.format), .initial = LOG_FORMAT_PLAIN},
    {"connection_messages", BOOL, AT_G(log.connection_messages), .initial = true},

    /* The process */
    {"include_dir", CUSTOM(config_set_include_dir)},
    {"sys_interval", U32(0, 65535), AT_G(sys_interval_s), .initial = 10},
    {"pid_file", TEXT, AT_G(pid_file)},
    {"user", TEXT, AT_G(user)},
    {"io_threads", U32(0, 64), AT_G(io_threads), .initial = UNLIMITED},
    {"set_tcp_nodelay", BOOL, AT_G(set_tcp_nodelay), .initial = true},
    {"persistence", BOOL, AT_G(persistence)},
    {"persistence_location", TEXT, AT_G(persistence_location)},
    {"persistence_file", TEXT, AT_G(persistence_file)},

    /* Accepted without effect */
    NO_EFFECT("allow_duplicate_messages"),
    {"autosave_interval", .type = CONFIG_TYPE_ANY, .support = CONFIG_NO_EFFECT},
    NO_EFFECT("autosave_on_changes"),
    NO_EFFECT("check_retain_source"),

    /* Known, not served, and dangerous to ignore */
    REFUSED("mount_point", "the clients of this listener would see the topics of all others"),
    REFUSED("psk_file", "the listener would not be encrypted"),
    REFUSED("psk_hint", "the listener would not be encrypted"),
    REFUSED("plugin", "what it decides about access would not be decided"),
    REFUSED("global_plugin", "what it decides about access would not be decided"),
    REFUSED("plugin_load", "what it decides about access would not be decided"),
    REFUSED("auth_plugin", "what it decides about access would not be decided"),
    REFUSED("bind_interface", "the listener would be open on every interface"),
    REFUSED("use_username_as_clientid", "clients could take over each other's sessions"),
    REFUSED("accept_protocol_versions", "clients that it keeps out would be let in"),

    /* Known, not served yet */
    NOT_YET("http_dir", "no files are served"),
    NOT_YET("enable_proxy_protocol", "a proxy that sends a PROXY header will not get through"),
    NOT_YET("enable_proxy_protocol_v2_require_tls", NULL),
    NOT_YET("plugin_use", NULL),
    NOT_YET("plugin_opt_*", NULL),
    NOT_YET("auth_opt_*", NULL),
    NOT_YET("auth_plugin_deny_special_chars", NULL),
    NOT_YET("capath", "use cafile, which may hold many certificates"),
    NOT_YET("ciphers", "the TLS library's own choice applies"),
    NOT_YET("ciphers_tls1.3", "the TLS library's own choice applies"),
    NOT_YET("dhparamfile", "elliptic curves are used for the key exchange"),
    NOT_YET("tls_engine", "use a key in a file"),
    NOT_YET("tls_engine_kpass_sha1", "use a key in a file"),
    NOT_YET("tls_keyform", "keys are PEM files"),
    NOT_YET("disable_client_cert_date_checks", "dates are checked"),
    NOT_YET("memory_limit", NULL),
    NOT_YET("global_max_clients", NULL),
    NOT_YET("global_max_connections", "use max_connections of each listener"),
    NOT_YET("retain_expiry_interval", NULL),
    NOT_YET("log_facility", "syslog is not served yet"),
    NOT_YET("websockets_log_level", "use log_type websockets"),
    NOT_YET("packet_buffer_size", "buffers grow as they are needed"),
    NOT_YET("enable_control_api", NULL),

    /* Bridges */
    BRIDGE("connection"),
    BRIDGE("address"),
    BRIDGE("addresses"),
    BRIDGE("topic"),
    BRIDGE("bridge_alpn"),
    BRIDGE("bridge_attempt_unsubscribe"),
    BRIDGE("bridge_bind_address"),
    BRIDGE("bridge_cafile"),
    BRIDGE("bridge_capath"),
    BRIDGE("bridge_certfile"),
    BRIDGE("bridge_ciphers"),
    BRIDGE("bridge_ciphers_tls1.3"),
    BRIDGE("bridge_identity"),
    BRIDGE("bridge_insecure"),
    BRIDGE("bridge_keyfile"),
    BRIDGE("bridge_max_packet_size"),
    BRIDGE("bridge_max_topic_alias"),
    BRIDGE("bridge_outgoing_retain"),
    BRIDGE("bridge_protocol_version"),
    BRIDGE("bridge_psk"),
    BRIDGE("bridge_receive_maximum"),
    BRIDGE("bridge_reload_type"),
    BRIDGE("bridge_require_ocsp"),
    BRIDGE("bridge_session_expiry_interval"),
    BRIDGE("bridge_tcp_keepalive"),
    BRIDGE("bridge_tcp_user_timeout"),
    BRIDGE("bridge_tls_use_os_certs"),
    BRIDGE("bridge_tls_version"),
    BRIDGE("cleansession"),
    BRIDGE("clientid"),
    BRIDGE("idle_timeout"),
    BRIDGE("keepalive_interval"),
    BRIDGE("local_cleansession"),
    BRIDGE("local_clientid"),
    BRIDGE("local_password"),
    BRIDGE("local_username"),
    BRIDGE("notification_topic"),
    BRIDGE("notifications"),
    BRIDGE("notifications_local_only"),
    BRIDGE("password"),
    BRIDGE("protocol_version"),
    BRIDGE("remote_clientid"),
    BRIDGE("remote_password"),
    BRIDGE("remote_username"),
    BRIDGE("restart_timeout"),
    BRIDGE("round_robin"),
    BRIDGE("start_type"),
    BRIDGE("threshold"),
    BRIDGE("try_private"),
    BRIDGE("username"),
};
/* clang-format on */

const size_t config_key_count = sizeof config_keys / sizeof *config_keys;

const struct config_key *config_key_find(struct bytes name)
{
    for (size_t i = 0; i < config_key_count; i++) {
        struct bytes known = bytes_of_string(config_keys[i].name);
        bool prefix = known.data[known.len - 1] == '*';
        if (prefix ? bytes_start_with(name, bytes_of(known.data, known.len - 1))
                   : bytes_equal(name, known)) {
            return &config_keys[i];
        }
    }
    return NULL;
}

enum { NAME_LEN_MAX = 48, DISTANCE_MAX = 3 };

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static int lower(uint8_t character)
{
    return tolower(character);
}

/*
 * Edits (insert, delete, replace, swap neighbours) that make `b` of `a`: the optimal string
 * alignment distance, by rows of which only the last three are kept.
 */
static unsigned distance(struct bytes a, struct bytes b)
{
    unsigned rows[3][NAME_LEN_MAX + 1];
    unsigned *before = rows[0];
    unsigned *last = rows[1];
    unsigned *row = rows[2];
    for (unsigned j = 0; j <= b.len; j++) {
        last[j] = j;
        before[j] = 0;
    }
    for (unsigned i = 1; i <= a.len; i++) {
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            int from = lower(a.data[i - 1]);
            unsigned cost = from == b.data[j - 1] ? 0 : 1;
            row[j] = smaller(smaller(last[j] + 1, row[j - 1] + 1), last[j - 1] + cost);
            bool swapped =
                i > 1 && j > 1 && from == b.data[j - 2] && lower(a.data[i - 2]) == b.data[j - 1];
            row[j] = smaller(row[j], swapped ? before[j - 2] + 1 : row[j]);
        }
        unsigned *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[b.len];
}

const struct config_key *config_key_nearest(struct bytes name)
{
    if (name.len > NAME_LEN_MAX) {
        return NULL;
    }
    /* A short name is near to everything; it must agree in most of its letters. */
    unsigned limit = name.len / 3 < DISTANCE_MAX ? (unsigned)(name.len / 3) : DISTANCE_MAX;
    const struct config_key *nearest = NULL;
    for (size_t i = 0; i < config_key_count; i++) {
        struct bytes known = bytes_of_string(config_keys[i].name);
        if (known.len > NAME_LEN_MAX) {
            continue;
        }
        unsigned edits = distance(name, known);
        if (edits <= limit && (nearest == NULL || edits < limit)) {
            nearest = &config_keys[i];
            limit = edits;
        }
    }
    return nearest;
}
