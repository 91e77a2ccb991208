/* Calls that both mbedTLS 2.28 and 3 have, though 3 would rather have others. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#include "tls.h"

#include <errno.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/ssl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support.h"

struct tls_context {
    mbedtls_ssl_config config;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_ssl_session saved;
    bool resume;
    bool have_saved;
};

struct tls_session {
    mbedtls_ssl_context ssl;
    struct tls_context *context;
    int fd;
    /* Length of the write that would have blocked: mbedTLS wants to be called with it again. */
    size_t unfinished_len;
};

/* What browsers on this hardware offer, in their order. mbedTLS by itself offers P-521 and ChaCha20
 * first, which no browser does and which would measure arithmetic that brokers do not do in the
 * field. */
static const mbedtls_ecp_group_id curves[] = {
    MBEDTLS_ECP_DP_CURVE25519,
    MBEDTLS_ECP_DP_SECP256R1,
    MBEDTLS_ECP_DP_SECP384R1,
    MBEDTLS_ECP_DP_NONE,
};

static const int ciphersuites[] = {
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    0,
};

struct tls_context *tls_context_create(bool resume)
{
    struct tls_context *context = must_alloc(1, sizeof *context);
    context->resume = resume;
    mbedtls_ssl_config_init(&context->config);
    mbedtls_entropy_init(&context->entropy);
    mbedtls_ctr_drbg_init(&context->random);
    mbedtls_ssl_session_init(&context->saved);
    if (mbedtls_ctr_drbg_seed(&context->random, mbedtls_entropy_func, &context->entropy, NULL, 0) !=
            0 ||
        mbedtls_ssl_config_defaults(&context->config, MBEDTLS_SSL_IS_CLIENT,
                                    MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
        die("mbedTLS does not start");
    }
    mbedtls_ssl_conf_authmode(&context->config, MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_curves(&context->config, curves);
    mbedtls_ssl_conf_ciphersuites(&context->config, ciphersuites);
    mbedtls_ssl_conf_rng(&context->config, mbedtls_ctr_drbg_random, &context->random);
    return context;
}

static int send_to_socket(void *session, const unsigned char *data, size_t len)
{
    ssize_t sent = send(((struct tls_session *)session)->fd, data, len, MSG_NOSIGNAL);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_WRITE
                                                 : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
    }
    return (int)sent;
}

static int receive_from_socket(void *session, unsigned char *to, size_t len)
{
    ssize_t got = read(((struct tls_session *)session)->fd, to, len);
    if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_READ
                                                 : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
    }
    return (int)got;
}

struct tls_session *tls_session_create(struct tls_context *context, int fd)
{
    struct tls_session *session = must_alloc(1, sizeof *session);
    session->context = context;
    session->fd = fd;
    mbedtls_ssl_init(&session->ssl);
    if (mbedtls_ssl_setup(&session->ssl, &context->config) != 0) {
        die("no memory for a TLS session");
    }
    if (context->have_saved) {
        (void)mbedtls_ssl_set_session(&session->ssl, &context->saved);
    }
    mbedtls_ssl_set_bio(&session->ssl, session, send_to_socket, receive_from_socket, NULL);
    return session;
}

void tls_session_destroy(struct tls_session *session)
{
    if (session != NULL) {
        (void)mbedtls_ssl_close_notify(&session->ssl);
        mbedtls_ssl_free(&session->ssl);
        free(session);
    }
}

enum tls_progress tls_handshake(struct tls_session *session)
{
    int result = mbedtls_ssl_handshake(&session->ssl);
    if (result == MBEDTLS_ERR_SSL_WANT_READ) {
        return TLS_WANT_READ;
    }
    if (result == MBEDTLS_ERR_SSL_WANT_WRITE) {
        return TLS_WANT_WRITE;
    }
    if (result != 0) {
        return TLS_FAILED;
    }
    struct tls_context *context = session->context;
    if (context->resume && !context->have_saved) {
        context->have_saved = mbedtls_ssl_get_session(&session->ssl, &context->saved) == 0;
    }
    return TLS_DONE;
}

ssize_t tls_read(struct tls_session *session, uint8_t *to, size_t len)
{
    int got = mbedtls_ssl_read(&session->ssl, to, len);
    if (got >= 0) {
        return got;
    }
    if (got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
        return 0;
    }
    errno = got == MBEDTLS_ERR_SSL_WANT_READ || got == MBEDTLS_ERR_SSL_WANT_WRITE ? EAGAIN : EPROTO;
    return -1;
}

ssize_t tls_write(struct tls_session *session, const uint8_t *from, size_t len)
{
    if (session->unfinished_len != 0) {
        len = session->unfinished_len;
    }
    int sent = mbedtls_ssl_write(&session->ssl, from, len);
    if (sent >= 0) {
        session->unfinished_len = 0;
        return sent;
    }
    if (sent == MBEDTLS_ERR_SSL_WANT_READ || sent == MBEDTLS_ERR_SSL_WANT_WRITE) {
        session->unfinished_len = len;
        errno = EAGAIN;
    } else {
        errno = EPROTO;
    }
    return -1;
}
