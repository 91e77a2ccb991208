/* mbedTLS's versions differ: 3.x has more arguments than 2.28 and hides members of structures. Only
 * this file and tls_idle.c know. */
#include "tls.h"

#include <errno.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cache.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/version.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
#include <psa/crypto.h>
#endif

#include "mem.h"
#include "tls_idle.h"
#include "tls_names.h"
#include "tls_session.h"

enum { TICKET_LIFETIME_S = 24 * 60 * 60, CACHE_SESSIONS_MAX = 1024 };

struct server_certificate {
    mbedtls_x509_crt chain;
    mbedtls_pk_context key;
};

/* In a handshake of this thread: for callbacks that are not told the session. */
static _Thread_local struct tls_session *handshaking;

struct tls_config {
    size_t references; /* atomic */
    mbedtls_ssl_config ssl;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_x509_crt authorities;
    mbedtls_x509_crl revoked;
    bool has_revoked;
    mbedtls_ssl_cache_context cache;
    mbedtls_ssl_ticket_context tickets;
    bool keep_buffers; /* see tls_options */
    size_t certificate_count;
    struct server_certificate certificates[];
};

struct tls_session {
    mbedtls_ssl_context ssl;
    struct tls_config *config;
    struct tls_buffers *buffers;
    struct bytes input;
    int ended; /* an error, or the peer's end, that a read met after it had decrypted something */
    bool resumed;
    bool broken;       /* no more output, not even an alert */
    char *server_name; /* SNI; NULL when absent */
    char *error;       /* NULL without one */
    struct tls_idle_entry idle;
    struct tls_idle_kept kept; /* while the library's buffers are freed */
};

/* Sessions of several threads use one configuration: the random numbers, the tickets, the cache and
 * RSA keys have locks of the library's own. */
#if !defined(MBEDTLS_THREADING_C)
#error "mbedTLS was built without MBEDTLS_THREADING_C"
#endif

#if MBEDTLS_VERSION_NUMBER >= 0x03000000
/* What the list below begins with, only for processors without instructions for AES. */
enum { CHACHA_SUITES = 3 };
#endif

/*
 * The server's order decides. AEAD with forward secrecy first; the CBC suites behind it are what
 * older devices have. GCM of 2.28 takes AES instructions, but block by block, and shorter than
 * ChaCha20 only for records of less than about 60 bytes: 0.2 against 0.3 microseconds for 16 bytes,
 * but 7.6 against 4.7 for the 2,000 of a busy client. So there ChaCha20 is first on all processors.
 */
static const int cipher_suites[] = {
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
    MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
    MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384,
    MBEDTLS_TLS_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_RSA_WITH_AES_128_CBC_SHA256,
    0,
};

/* The server's order decides. Ours is by what a handshake costs, cheapest first: the library's own
 * begins with P-521, which takes three times as long as X25519. It is also the list of curves that
 * a client certificate may use, so it leaves out the weak ones only. */
#if MBEDTLS_VERSION_NUMBER >= 0x03010000
static const uint16_t groups[] = {
    MBEDTLS_SSL_IANA_TLS_GROUP_X25519,    MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_BP256R1,   MBEDTLS_SSL_IANA_TLS_GROUP_BP384R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_BP512R1,   MBEDTLS_SSL_IANA_TLS_GROUP_NONE,
};
#else
static const mbedtls_ecp_group_id groups[] = {
    MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_SECP384R1,
    MBEDTLS_ECP_DP_SECP521R1,  MBEDTLS_ECP_DP_SECP256K1, MBEDTLS_ECP_DP_BP256R1,
    MBEDTLS_ECP_DP_BP384R1,    MBEDTLS_ECP_DP_BP512R1,   MBEDTLS_ECP_DP_NONE,
};
#endif

static const char *const alpn_protocols[] = {"mqtt", "http/1.1", NULL};

#if MBEDTLS_VERSION_NUMBER >= 0x03000000
static const int *suites_by_cost(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("aes") != 0 ? cipher_suites + CHACHA_SUITES : cipher_suites;
#else
    return cipher_suites; /* the library's assembly is for x86 */
#endif
}
#else
static const int *suites_by_cost(void)
{
    return cipher_suites;
}
#endif

static void prefer_what_is_cheap(mbedtls_ssl_config *ssl)
{
    mbedtls_ssl_conf_ciphersuites(ssl, suites_by_cost());
#if MBEDTLS_VERSION_NUMBER >= 0x03010000
    mbedtls_ssl_conf_groups(ssl, groups);
#else
    mbedtls_ssl_conf_curves(ssl, groups);
#endif
}

static void refuse_before_tls_1_2(mbedtls_ssl_config *ssl)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03020000
    mbedtls_ssl_conf_min_tls_version(ssl, MBEDTLS_SSL_VERSION_TLS1_2);
#else
    mbedtls_ssl_conf_min_version(ssl, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#endif
}

#if MBEDTLS_VERSION_NUMBER >= 0x03000000

static int parse_key(struct tls_config *config, mbedtls_pk_context *key, const char *path)
{
    return mbedtls_pk_parse_keyfile(key, path, NULL, mbedtls_ctr_drbg_random, &config->random);
}

static int check_pair(struct tls_config *config, const struct server_certificate *certificate)
{
    return mbedtls_pk_check_pair(&certificate->chain.pk, &certificate->key, mbedtls_ctr_drbg_random,
                                 &config->random);
}

static int get_cached(void *ctx, unsigned char const *id, size_t id_len,
                      mbedtls_ssl_session *session)
{
    struct tls_config *config = ctx;
    int error = mbedtls_ssl_cache_get(&config->cache, id, id_len, session);
    if (error == 0 && handshaking != NULL) {
        handshaking->resumed = true;
    }
    return error;
}

static int set_cached(void *ctx, unsigned char const *id, size_t id_len,
                      const mbedtls_ssl_session *session)
{
    struct tls_config *config = ctx;
    return mbedtls_ssl_cache_set(&config->cache, id, id_len, session);
}

static int start_library(void)
{
    return psa_crypto_init() == PSA_SUCCESS ? 0 : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

bool tls_name_is_merged(const mbedtls_x509_name *name)
{
    return name->MBEDTLS_PRIVATE(next_merged) != 0;
}

#else

static int parse_key(struct tls_config *config, mbedtls_pk_context *key, const char *path)
{
    (void)config;
    return mbedtls_pk_parse_keyfile(key, path, NULL);
}

static int check_pair(struct tls_config *config, const struct server_certificate *certificate)
{
    (void)config;
    return mbedtls_pk_check_pair(&certificate->chain.pk, &certificate->key);
}

static int get_cached(void *ctx, mbedtls_ssl_session *session)
{
    struct tls_config *config = ctx;
    int error = mbedtls_ssl_cache_get(&config->cache, session);
    if (error == 0 && handshaking != NULL) {
        handshaking->resumed = true;
    }
    return error;
}

static int set_cached(void *ctx, const mbedtls_ssl_session *session)
{
    struct tls_config *config = ctx;
    return mbedtls_ssl_cache_set(&config->cache, session);
}

static int start_library(void)
{
    return 0;
}

bool tls_name_is_merged(const mbedtls_x509_name *name)
{
    return name->next_merged != 0;
}

#endif

/* The library's words without the name of its module: "SSL - Bad input" says "Bad input". */
static const char *error_text(int error, char *text, size_t size)
{
    mbedtls_strerror(error, text, size);
    const char *dash = strstr(text, " - ");
    return dash != NULL ? dash + 3 : text;
}

static int issue_ticket(void *ctx, const mbedtls_ssl_session *session, unsigned char *start,
                        const unsigned char *end, size_t *len, uint32_t *lifetime_s)
{
    struct tls_config *config = ctx;
    return mbedtls_ssl_ticket_write(&config->tickets, session, start, end, len, lifetime_s);
}

static int accept_ticket(void *ctx, mbedtls_ssl_session *session, unsigned char *ticket, size_t len)
{
    struct tls_config *config = ctx;
    int error = mbedtls_ssl_ticket_parse(&config->tickets, session, ticket, len);
    if (error == 0 && handshaking != NULL) {
        handshaking->resumed = true;
    }
    return error;
}

/* Remembers the name and chooses the certificate. A name that none has gets the first one. */
static int choose_certificate(void *ctx, mbedtls_ssl_context *ssl, const unsigned char *name,
                              size_t len)
{
    struct tls_config *config = ctx;
    struct bytes host = bytes_of(name, len);
    if (handshaking != NULL && handshaking->server_name == NULL && len < TLS_NAME_BYTES &&
        len != 0 && memchr(name, 0, len) == NULL) {
        handshaking->server_name = mem_copy_string(host);
    }
    for (size_t i = 0; i < config->certificate_count; i++) {
        struct server_certificate *certificate = &config->certificates[i];
        if (tls_certificate_names(&certificate->chain, host)) {
            return mbedtls_ssl_set_hs_own_cert(ssl, &certificate->chain, &certificate->key);
        }
    }
    return 0;
}

static enum status fail(char *error, size_t error_size, const char *file, const char *reason)
{
    (void)snprintf(error, error_size, "%s: %s", file, reason);
    return STATUS_INVALID;
}

/* The library's word for a file that it cannot open does not say why. */
static enum status check_readable(const char *file, char *error, size_t error_size)
{
    FILE *stream = fopen(file, "rb");
    if (stream == NULL) {
        return fail(error, error_size, file, strerror(errno));
    }
    (void)fclose(stream);
    return STATUS_OK;
}

static enum status load_certificate(struct tls_config *config,
                                    struct server_certificate *certificate,
                                    const struct tls_certificate *files, char *error,
                                    size_t error_size)
{
    char text[128];
    if (check_readable(files->certfile, error, error_size) != STATUS_OK ||
        check_readable(files->keyfile, error, error_size) != STATUS_OK) {
        return STATUS_INVALID;
    }
    int result = mbedtls_x509_crt_parse_file(&certificate->chain, files->certfile);
    if (result != 0) {
        return fail(error, error_size, files->certfile,
                    result > 0 ? "not all certificates in it could be read"
                               : error_text(result, text, sizeof text));
    }
    result = parse_key(config, &certificate->key, files->keyfile);
    if (result != 0) {
        return fail(error, error_size, files->keyfile, error_text(result, text, sizeof text));
    }
    if (check_pair(config, certificate) != 0) {
        char reason[512];
        (void)snprintf(reason, sizeof reason, "the key does not belong to the certificate in %s",
                       files->certfile);
        return fail(error, error_size, files->keyfile, reason);
    }
    return STATUS_OK;
}

static enum status load_authorities(struct tls_config *config, const struct tls_options *options,
                                    char *error, size_t error_size)
{
    char text[128];
    int result = 0;
    if (options->cafile != NULL) {
        if (check_readable(options->cafile, error, error_size) != STATUS_OK) {
            return STATUS_INVALID;
        }
        result = mbedtls_x509_crt_parse_file(&config->authorities, options->cafile);
        if (result != 0) {
            return fail(error, error_size, options->cafile,
                        result > 0 ? "not all certificates in it could be read"
                                   : error_text(result, text, sizeof text));
        }
    }
    if (options->capath != NULL) { /* such a directory may hold other files as well */
        result = mbedtls_x509_crt_parse_path(&config->authorities, options->capath);
        if (result < 0) {
            return fail(error, error_size, options->capath, error_text(result, text, sizeof text));
        }
    }
    if (options->crlfile != NULL) {
        if (check_readable(options->crlfile, error, error_size) != STATUS_OK) {
            return STATUS_INVALID;
        }
        result = mbedtls_x509_crl_parse_file(&config->revoked, options->crlfile);
        if (result != 0) {
            return fail(error, error_size, options->crlfile, error_text(result, text, sizeof text));
        }
        config->has_revoked = true;
    }
    return STATUS_OK;
}

static enum status load_files(struct tls_config *config, const struct tls_options *options,
                              char *error, size_t error_size)
{
    for (size_t i = 0; i < options->certificate_count; i++) {
        enum status status = load_certificate(config, &config->certificates[i],
                                              &options->certificates[i], error, error_size);
        if (status != STATUS_OK) {
            return status;
        }
    }
    enum status status = load_authorities(config, options, error, error_size);
    if (status == STATUS_OK && options->require_certificate && config->authorities.raw.p == NULL) {
        (void)snprintf(error, error_size,
                       "client certificates are required, but no authority for them is given");
        return STATUS_INVALID;
    }
    return status;
}

/* Everything that the library wants to be told. Returns its error. */
static int configure(struct tls_config *config, const struct tls_options *options)
{
    mbedtls_ssl_config *ssl = &config->ssl;
    int error = mbedtls_ssl_config_defaults(
        ssl, MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (error != 0) {
        return error;
    }
    mbedtls_ssl_conf_rng(ssl, mbedtls_ctr_drbg_random, &config->random);
    refuse_before_tls_1_2(ssl);
    prefer_what_is_cheap(ssl);
#if defined(MBEDTLS_SSL_RENEGOTIATION)
    mbedtls_ssl_conf_renegotiation(ssl, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
    mbedtls_ssl_conf_authmode(ssl, options->require_certificate ? MBEDTLS_SSL_VERIFY_REQUIRED
                                                                : MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_ca_chain(ssl, &config->authorities,
                              config->has_revoked ? &config->revoked : NULL);
    mbedtls_ssl_conf_sni(ssl, choose_certificate, config);
    mbedtls_ssl_cache_set_max_entries(&config->cache, CACHE_SESSIONS_MAX);
    mbedtls_ssl_conf_session_cache(ssl, config, get_cached, set_cached);
    mbedtls_ssl_conf_session_tickets_cb(ssl, issue_ticket, accept_ticket, config);
    error = mbedtls_ssl_conf_own_cert(ssl, &config->certificates[0].chain,
                                      &config->certificates[0].key);
    if (error == 0) {
        /* The library wants an array of char pointers without const and only reads it. */
        error = mbedtls_ssl_conf_alpn_protocols(ssl, (const char **)(uintptr_t)alpn_protocols);
    }
    if (error == 0) {
        error = mbedtls_ssl_ticket_setup(&config->tickets, mbedtls_ctr_drbg_random, &config->random,
                                         MBEDTLS_CIPHER_AES_256_GCM, TICKET_LIFETIME_S);
    }
    return error;
}

static struct tls_config *config_alloc(size_t certificate_count)
{
    struct tls_config *config =
        mem_zalloc(sizeof *config + certificate_count * sizeof config->certificates[0]);
    if (config == NULL) {
        return NULL;
    }
    config->references = 1;
    config->certificate_count = certificate_count;
    mbedtls_ssl_config_init(&config->ssl);
    mbedtls_entropy_init(&config->entropy);
    mbedtls_ctr_drbg_init(&config->random);
    mbedtls_x509_crt_init(&config->authorities);
    mbedtls_x509_crl_init(&config->revoked);
    mbedtls_ssl_cache_init(&config->cache);
    mbedtls_ssl_ticket_init(&config->tickets);
    for (size_t i = 0; i < certificate_count; i++) {
        mbedtls_x509_crt_init(&config->certificates[i].chain);
        mbedtls_pk_init(&config->certificates[i].key);
    }
    return config;
}

enum status tls_config_create(const struct tls_options *options, struct tls_config **out,
                              char *error, size_t error_size)
{
    char text[128];
    ENSURE(options->certificate_count != 0);
    *out = NULL;
    struct tls_config *config = config_alloc(options->certificate_count);
    if (config == NULL) {
        (void)snprintf(error, error_size, "out of memory");
        return STATUS_NO_MEMORY;
    }
    config->keep_buffers = options->keep_buffers;
    enum status status = STATUS_OK;
    int result = start_library();
    if (result == 0) {
        result =
            mbedtls_ctr_drbg_seed(&config->random, mbedtls_entropy_func, &config->entropy, NULL, 0);
    }
    if (result == 0) {
        status = load_files(config, options, error, error_size);
    }
    if (result == 0 && status == STATUS_OK) {
        result = configure(config, options);
    }
    if (result != 0) {
        (void)snprintf(error, error_size, "TLS: %s", error_text(result, text, sizeof text));
        status = STATUS_INVALID;
    }
    if (status != STATUS_OK) {
        tls_config_release(config);
        return status;
    }
    *out = config;
    return STATUS_OK;
}

struct tls_config *tls_config_hold(struct tls_config *config)
{
    (void)__atomic_add_fetch(&config->references, 1, __ATOMIC_RELAXED);
    return config;
}

void tls_config_release(struct tls_config *config)
{
    if (config == NULL || __atomic_sub_fetch(&config->references, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    mbedtls_ssl_config_free(&config->ssl);
    for (size_t i = 0; i < config->certificate_count; i++) {
        mbedtls_x509_crt_free(&config->certificates[i].chain);
        mbedtls_pk_free(&config->certificates[i].key);
    }
    mbedtls_ssl_ticket_free(&config->tickets);
    mbedtls_ssl_cache_free(&config->cache);
    mbedtls_x509_crl_free(&config->revoked);
    mbedtls_x509_crt_free(&config->authorities);
    mbedtls_ctr_drbg_free(&config->random);
    mbedtls_entropy_free(&config->entropy);
    mem_free(config);
}

static int receive(void *ctx, unsigned char *to, size_t len)
{
    struct tls_session *session = ctx;
    if (session->input.len == 0) {
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    if (len > session->input.len) {
        len = session->input.len;
    }
    memcpy(to, session->input.data, len);
    session->input = bytes_from(session->input, len);
    return (int)len;
}

static int send_out(void *ctx, const unsigned char *from, size_t len)
{
    struct tls_session *session = ctx;
    struct tls_buffers *buffers = session->buffers;
    size_t room = TLS_CIPHER_BYTES - buffers->cipher_len;
    if (room == 0) {
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    }
    if (len > room) {
        len = room;
    }
    memcpy(buffers->cipher + buffers->cipher_len, from, len);
    buffers->cipher_len += len;
    return (int)len;
}

static enum status buffers_init(struct tls_buffers *buffers)
{
    if (buffers->cipher != NULL) {
        return STATUS_OK;
    }
    buffers->cipher = mem_alloc(TLS_CIPHER_BYTES);
    buffers->plain = mem_alloc(TLS_PLAIN_BYTES);
    buffers->gather = mem_alloc(TLS_RECORD_BYTES);
    tls_idle_init(&buffers->idle);
    if (buffers->cipher == NULL || buffers->plain == NULL || buffers->gather == NULL) {
        tls_buffers_fini(buffers);
        return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

void tls_buffers_fini(struct tls_buffers *buffers)
{
    mem_free(buffers->cipher);
    mem_free(buffers->plain);
    mem_free(buffers->gather);
    *buffers = (struct tls_buffers){.cipher = NULL};
}

enum status tls_session_create(struct tls_config *config, struct tls_buffers *buffers,
                               struct tls_session **out)
{
    *out = NULL;
    if (buffers_init(buffers) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    struct tls_session *session = mem_zalloc(sizeof *session);
    if (session == NULL) {
        return STATUS_NO_MEMORY;
    }
    mbedtls_ssl_init(&session->ssl);
    if (mbedtls_ssl_setup(&session->ssl, &config->ssl) != 0) {
        mbedtls_ssl_free(&session->ssl);
        mem_free(session);
        return STATUS_NO_MEMORY;
    }
    session->config = tls_config_hold(config);
    session->buffers = buffers;
    mbedtls_ssl_set_bio(&session->ssl, session, send_out, receive, NULL);
    *out = session;
    return STATUS_OK;
}

void tls_session_destroy(struct tls_session *session)
{
    if (session != NULL) {
        tls_idle_remove(&session->idle);
        mbedtls_ssl_free(&session->ssl);
        tls_config_release(session->config);
        mem_free(session->error);
        mem_free(session->server_name);
        mem_free(session);
    }
}

void tls_session_input(struct tls_session *session, struct bytes bytes)
{
    session->input = bytes;
}

static void remember_error(struct tls_session *session, int error)
{
    char text[160];
    char line[TLS_ERROR_BYTES];
    if (error == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
        uint32_t flags = mbedtls_ssl_get_verify_result(&session->ssl);
        int n = mbedtls_x509_crt_verify_info(text, sizeof text, "", flags);
        text[n > 0 ? strcspn(text, "\n") : 0] = 0;
        (void)snprintf(line, sizeof line, "TLS: client certificate: %s", text);
    } else {
        (void)snprintf(line, sizeof line, "TLS: %s", error_text(error, text, sizeof text));
    }
    mem_free(session->error);
    session->error = mem_copy_string(bytes_of_string(line));
}

static enum tls_result result_of(struct tls_session *session, int error)
{
    switch (error) {
    case MBEDTLS_ERR_SSL_WANT_READ:
        return TLS_MORE;
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
    case MBEDTLS_ERR_SSL_CONN_EOF:
        return TLS_CLOSED;
    default:
        session->broken = true;
        remember_error(session, error);
        return TLS_FAILED;
    }
}

enum tls_result tls_session_handshake(struct tls_session *session)
{
    handshaking = session;
    int error = mbedtls_ssl_handshake(&session->ssl);
    handshaking = NULL;
    return error == 0 ? TLS_DONE : result_of(session, error);
}

/* Only from here on: before the end of the handshake the buffers are not looked at. False: no
 * memory for them. */
static bool wake(struct tls_session *session)
{
    if (!session->config->keep_buffers) {
        tls_idle_touch(&session->buffers->idle, &session->idle);
    }
    return tls_idle_restore(&session->ssl, &session->kept) == STATUS_OK;
}

static void discard(struct tls_idle_entry *entry)
{
    struct tls_session *session =
        (struct tls_session *)((char *)entry - offsetof(struct tls_session, idle));
    (void)tls_idle_discard(&session->ssl, &session->kept);
}

bool tls_buffers_have_idle_work(const struct tls_buffers *buffers)
{
    return buffers->cipher != NULL && tls_idle_has_work(&buffers->idle);
}

uint32_t tls_buffers_sweep(struct tls_buffers *buffers)
{
    return tls_idle_sweep(&buffers->idle, discard);
}

enum tls_result tls_session_read(struct tls_session *session, size_t *len)
{
    *len = 0;
    if (!wake(session)) {
        return result_of(session, MBEDTLS_ERR_SSL_ALLOC_FAILED);
    }
    while (session->ended == 0 && *len < TLS_PLAIN_BYTES) {
        int n =
            mbedtls_ssl_read(&session->ssl, session->buffers->plain + *len, TLS_PLAIN_BYTES - *len);
        if (n == MBEDTLS_ERR_SSL_WANT_READ) {
            break;
        }
        if (n <= 0) {
            session->ended = n == 0 ? MBEDTLS_ERR_SSL_CONN_EOF : n;
        } else {
            *len += (size_t)n;
        }
    }
    if (*len != 0) {
        return TLS_DONE;
    }
    return session->ended == 0 ? TLS_MORE : result_of(session, session->ended);
}

static ptrdiff_t write_failed(struct tls_session *session, int error)
{
    session->broken = true;
    remember_error(session, error);
    return -1;
}

ptrdiff_t tls_session_write(struct tls_session *session, struct bytes bytes)
{
    size_t taken = 0;
    if (!wake(session)) {
        return write_failed(session, MBEDTLS_ERR_SSL_ALLOC_FAILED);
    }
    while (taken < bytes.len && TLS_CIPHER_BYTES - session->buffers->cipher_len >=
                                    TLS_RECORD_BYTES + TLS_RECORD_OVERHEAD) {
        int n = mbedtls_ssl_write(&session->ssl, bytes.data + taken, bytes.len - taken);
        if (n <= 0) {
            return write_failed(session, n);
        }
        taken += (size_t)n;
    }
    return (ptrdiff_t)taken;
}

void tls_session_close_notify(struct tls_session *session)
{
    if (!session->broken && tls_idle_restore(&session->ssl, &session->kept) == STATUS_OK) {
        (void)mbedtls_ssl_close_notify(&session->ssl); /* a courtesy: the connection ends anyway */
    }
    session->broken = true;
}

const char *tls_session_error(const struct tls_session *session)
{
    return session->error != NULL ? session->error : "TLS failed";
}

bool tls_session_is_resumed(const struct tls_session *session)
{
    return session->resumed;
}

void tls_session_describe(const struct tls_session *session, struct tls_session_names *names,
                          struct connection_info *info)
{
    info->tls_version = mbedtls_ssl_get_version(&session->ssl);
    info->tls_cipher = mbedtls_ssl_get_ciphersuite(&session->ssl);
    if (session->server_name != NULL) {
        (void)snprintf(names->server_name, sizeof names->server_name, "%s", session->server_name);
        info->server_name = names->server_name;
    }
    const mbedtls_x509_crt *peer = mbedtls_ssl_get_peer_cert(&session->ssl);
    if (peer == NULL || mbedtls_ssl_get_verify_result(&session->ssl) != 0) {
        return;
    }
    if (tls_common_name_write(&peer->subject, names->common_name, sizeof names->common_name)) {
        info->certificate_common_name = names->common_name;
    }
    if (tls_subject_write(&peer->subject, names->subject, sizeof names->subject)) {
        info->certificate_subject = names->subject;
    }
}
