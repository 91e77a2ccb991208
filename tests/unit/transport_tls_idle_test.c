/*
 * What goes with a session's buffers must be nothing that the session needs: a client and a server
 * talk through memory, and both lose their buffers at every chance, good and bad.
 */
/* Calls that both mbedTLS 2.28 and 3 have, though 3 would rather have others. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/ssl.h>

#include "mem.h"
#include "tls_idle.h"
#include "tls_session.h"

enum { PIPE_BYTES = 64 * 1024, RECORD_BYTES = 16 * 1024 };

/* One direction between the two. */
struct pipe {
    uint8_t bytes[PIPE_BYTES];
    size_t from, to;
    size_t readable; /* the receiver gets no more than this many; for records that come in parts */
    bool full;
};

struct end {
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config config;
    struct pipe *in, *out;
    struct tls_idle_kept kept;
};

struct fixture {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    struct pipe up, down;
    struct end client, server;
};

static int send_out(void *ctx, const unsigned char *from, size_t len)
{
    struct pipe *pipe = ((struct end *)ctx)->out;
    if (pipe->full) {
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    }
    assert_true(len <= PIPE_BYTES - pipe->to);
    memcpy(pipe->bytes + pipe->to, from, len);
    pipe->to += len;
    return (int)len;
}

static int receive(void *ctx, unsigned char *to, size_t len)
{
    struct pipe *pipe = ((struct end *)ctx)->in;
    size_t have = pipe->to - pipe->from;
    have = have < pipe->readable ? have : pipe->readable;
    len = len < have ? len : have;
    if (len == 0) {
        return MBEDTLS_ERR_SSL_WANT_READ;
    }
    memcpy(to, pipe->bytes + pipe->from, len);
    pipe->from += len;
    pipe->readable -= len;
    if (pipe->from == pipe->to) {
        pipe->from = pipe->to = 0;
    }
    return (int)len;
}

static void start_end(struct fixture *f, struct end *end, int endpoint, struct pipe *in,
                      struct pipe *out)
{
    static const unsigned char secret[16] = "a shared secret";
    static const int suites[] = {MBEDTLS_TLS_PSK_WITH_AES_128_GCM_SHA256, 0};
    end->in = in;
    end->out = out;
    mbedtls_ssl_init(&end->ssl);
    mbedtls_ssl_config_init(&end->config);
    assert_int_equal(mbedtls_ssl_config_defaults(&end->config, endpoint,
                                                 MBEDTLS_SSL_TRANSPORT_STREAM,
                                                 MBEDTLS_SSL_PRESET_DEFAULT),
                     0);
    mbedtls_ssl_conf_rng(&end->config, mbedtls_ctr_drbg_random, &f->random);
    mbedtls_ssl_conf_max_version(&end->config, MBEDTLS_SSL_MAJOR_VERSION_3,
                                 MBEDTLS_SSL_MINOR_VERSION_3); /* the suites are those of TLS 1.2 */
    mbedtls_ssl_conf_ciphersuites(&end->config, suites);
    assert_int_equal(
        mbedtls_ssl_conf_psk(&end->config, secret, sizeof secret, (const unsigned char *)"name", 4),
        0);
    assert_int_equal(mbedtls_ssl_setup(&end->ssl, &end->config), 0);
    mbedtls_ssl_set_bio(&end->ssl, end, send_out, receive, NULL);
}

static int setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    mbedtls_entropy_init(&f.entropy);
    mbedtls_ctr_drbg_init(&f.random);
    assert_int_equal(mbedtls_ctr_drbg_seed(&f.random, mbedtls_entropy_func, &f.entropy, NULL, 0),
                     0);
    f.up.readable = f.down.readable = SIZE_MAX;
    start_end(&f, &f.client, MBEDTLS_SSL_IS_CLIENT, &f.down, &f.up);
    start_end(&f, &f.server, MBEDTLS_SSL_IS_SERVER, &f.up, &f.down);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mbedtls_ssl_free(&f->client.ssl);
    mbedtls_ssl_free(&f->server.ssl);
    mbedtls_ssl_config_free(&f->client.config);
    mbedtls_ssl_config_free(&f->server.config);
    mbedtls_ctr_drbg_free(&f->random);
    mbedtls_entropy_free(&f->entropy);
    return 0;
}

static bool lose(struct end *end)
{
    return tls_idle_discard(&end->ssl, &end->kept);
}

static void wake(struct end *end)
{
    assert_int_equal(tls_idle_restore(&end->ssl, &end->kept), STATUS_OK);
}

/* In the middle of a handshake nothing may go. */
static void shake_hands(struct fixture *f)
{
    int client = -1;
    int server = -1;
    for (int i = 0; i < 20 && (client != 0 || server != 0); i++) {
        client = client == 0 ? 0 : mbedtls_ssl_handshake(&f->client.ssl);
        assert_true(client == 0 || client == MBEDTLS_ERR_SSL_WANT_READ);
        if (client != 0) {
            assert_false(lose(&f->client));
        }
        server = server == 0 ? 0 : mbedtls_ssl_handshake(&f->server.ssl);
        assert_true(server == 0 || server == MBEDTLS_ERR_SSL_WANT_READ);
        if (server != 0) {
            assert_false(lose(&f->server));
        }
    }
    assert_int_equal(client, 0);
    assert_int_equal(server, 0);
}

static uint8_t pattern(size_t i, size_t seed)
{
    return (uint8_t)(i * 7 + i / 251 + seed);
}

static void say(struct end *from, size_t len)
{
    static uint8_t bytes[RECORD_BYTES];
    for (size_t i = 0; i < len; i++) {
        bytes[i] = pattern(i, len);
    }
    wake(from);
    assert_int_equal(mbedtls_ssl_write(&from->ssl, bytes, len), len);
}

static void hear_rest(struct end *to, size_t heard, size_t len)
{
    static uint8_t bytes[RECORD_BYTES];
    wake(to);
    assert_int_equal(mbedtls_ssl_read(&to->ssl, bytes, sizeof bytes), len - heard);
    for (size_t i = heard; i < len; i++) {
        assert_int_equal(bytes[i - heard], pattern(i, len));
    }
    assert_int_equal(mbedtls_ssl_read(&to->ssl, bytes, sizeof bytes), MBEDTLS_ERR_SSL_WANT_READ);
}

static void hear_nothing(struct end *to)
{
    uint8_t byte[1];
    wake(to);
    assert_int_equal(mbedtls_ssl_read(&to->ssl, byte, 1), MBEDTLS_ERR_SSL_WANT_READ);
}

static void both_buffers_go_and_the_talk_goes_on(void **state)
{
    static const size_t sizes[] = {1, 100, 4000, 5000, 12345, RECORD_BYTES};
    struct fixture *f = *state;
    shake_hands(f);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            say(&f->client, sizes[i]);
            hear_rest(&f->server, 0, sizes[i]);
            assert_true(lose(&f->server));
            assert_false(lose(&f->server));
            say(&f->server, sizes[i]);
            assert_true(lose(&f->server));
            hear_rest(&f->client, 0, sizes[i]);
            assert_true(lose(&f->client));
            assert_false(lose(&f->client));
        }
    }
}

static void nothing_goes_while_part_of_a_record_is_there(void **state)
{
    enum { LEN = 9000 };
    struct fixture *f = *state;
    shake_hands(f);
    for (size_t part = 1; part < 3 * LEN / 2; part = part * 3 / 2 + 1) {
        say(&f->client, LEN);
        size_t whole = f->up.to - f->up.from;
        part = part < whole ? part : whole - 1;
        f->up.readable = part;
        hear_nothing(&f->server);
        assert_false(lose(&f->server));
        f->up.readable = SIZE_MAX;
        hear_rest(&f->server, 0, LEN);
        if (part == whole - 1) {
            break;
        }
    }
}

static void nothing_goes_while_something_is_unread(void **state)
{
    struct fixture *f = *state;
    uint8_t some[100];
    shake_hands(f);
    say(&f->client, RECORD_BYTES);
    assert_int_equal(mbedtls_ssl_read(&f->server.ssl, some, sizeof some), sizeof some);
    assert_false(lose(&f->server));
    hear_rest(&f->server, sizeof some, RECORD_BYTES);
    assert_true(lose(&f->server));
}

static void nothing_goes_while_something_is_unsent(void **state)
{
    enum { LEN = 10000 };
    struct fixture *f = *state;
    static uint8_t bytes[LEN];
    shake_hands(f);
    hear_nothing(&f->server);
    for (size_t i = 0; i < LEN; i++) {
        bytes[i] = pattern(i, LEN);
    }
    f->down.full = true;
    assert_int_equal(mbedtls_ssl_write(&f->server.ssl, bytes, LEN), MBEDTLS_ERR_SSL_WANT_WRITE);
    assert_false(lose(&f->server));
    f->down.full = false;
    assert_int_equal(mbedtls_ssl_write(&f->server.ssl, bytes, LEN), LEN);
    assert_true(lose(&f->server));
    hear_rest(&f->client, 0, LEN);
}

/* Neither what malloc keeps beside a block nor what lies behind that changes. */
static void a_block_becomes_zeros_and_loses_whole_pages(void **state)
{
    enum { BLOCKS = 16, BYTES = 16728 }; /* a size that malloc does not round up */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *blocks[BLOCKS];
    (void)state;
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BYTES);
        assert_non_null(blocks[i]);
        memset(blocks[i], 1 + i, BYTES);
    }
    for (int i = 0; i < BLOCKS; i += 2) {
        size_t first = (size_t)(-(uintptr_t)blocks[i] & (page - 1));
        size_t gone = tls_idle_clear_block(blocks[i]);
        assert_int_equal(gone, (BYTES - first) & ~(page - 1));
        for (size_t at = 0; at < BYTES; at++) {
            assert_int_equal(blocks[i][at], 0);
        }
    }
    for (int i = 1; i < BLOCKS; i += 2) {
        for (size_t at = 0; at < BYTES; at++) {
            assert_int_equal(blocks[i][at], 1 + i);
        }
    }
    for (int i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

static void a_short_block_becomes_zeros(void **state)
{
    (void)state;
    char *block = malloc(100);
    assert_non_null(block);
    memset(block, 1, 100);
    assert_int_equal(tls_idle_clear_block(block), 0);
    for (size_t at = 0; at < 100; at++) {
        assert_int_equal(block[at], 0);
    }
    free(block);
}

static void without_memory_a_session_stays_as_it_is(void **state)
{
    struct fixture *f = *state;
    shake_hands(f);
    hear_nothing(&f->server);
    assert_true(lose(&f->server));
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n);
        assert_int_equal(tls_idle_restore(&f->server.ssl, &f->server.kept), STATUS_NO_MEMORY);
        mem_fail_at(0);
    }
    say(&f->client, 100);
    hear_rest(&f->server, 0, 100);
}

/* One that is freed without buffers, by the library itself. */
static void a_session_may_end_idle(void **state)
{
    struct fixture *f = *state;
    shake_hands(f);
    hear_nothing(&f->server);
    assert_true(lose(&f->server));
}

static unsigned discarded;

static void count_discard(struct tls_idle_entry *entry)
{
    assert_int_equal(entry->list, 0);
    discarded++;
}

static void idle_is_what_two_sweeps_find_untouched(void **state)
{
    struct tls_idle idle;
    struct tls_idle_entry quiet = {.list = 0};
    struct tls_idle_entry busy = {.list = 0};
    struct tls_idle_entry ends = {.list = 0};
    (void)state;
    discarded = 0;
    tls_idle_init(&idle);
    assert_false(tls_idle_has_work(&idle));
    tls_idle_touch(&idle, &quiet);
    tls_idle_touch(&idle, &busy);
    tls_idle_touch(&idle, &ends);
    assert_int_equal(tls_idle_sweep(&idle, count_discard), TLS_IDLE_SWEEP_MS);
    assert_int_equal(discarded, 0);
    tls_idle_touch(&idle, &busy);
    tls_idle_remove(&ends);
    assert_int_equal(tls_idle_sweep(&idle, count_discard), TLS_IDLE_SWEEP_MS);
    assert_int_equal(discarded, 1);
    assert_int_equal(quiet.list, 0);
    assert_int_equal(tls_idle_sweep(&idle, count_discard), 0);
    assert_int_equal(discarded, 2);
    assert_false(tls_idle_has_work(&idle));
}

static void a_sweep_goes_in_steps(void **state)
{
    enum { COUNT = 2 * TLS_IDLE_BATCH + 1 };
    static struct tls_idle_entry entries[COUNT];
    struct tls_idle idle;
    (void)state;
    discarded = 0;
    tls_idle_init(&idle);
    for (int i = 0; i < COUNT; i++) {
        tls_idle_touch(&idle, &entries[i]);
    }
    assert_int_equal(tls_idle_sweep(&idle, count_discard), TLS_IDLE_SWEEP_MS);
    assert_int_equal(tls_idle_sweep(&idle, count_discard), TLS_IDLE_BATCH_MS);
    assert_int_equal(discarded, TLS_IDLE_BATCH);
    assert_int_equal(tls_idle_sweep(&idle, count_discard), TLS_IDLE_BATCH_MS);
    assert_int_equal(tls_idle_sweep(&idle, count_discard), 0);
    assert_int_equal(discarded, COUNT);
}

/* Made for this test; secures nothing. */
static const char key_pem[] = "-----BEGIN PRIVATE KEY-----\n"
                              "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvvwHI4GncQ7ObqnJ\n"
                              "UgKDbNQuC2VA1naGYmiZh5BGby6hRANCAAQuV+V1iVbGaKfg202+KaenEP8Qz1M/\n"
                              "u5UIJI3B4U/r2MM/2LZuxx2xK9H4xiFBQCCg0WzuAYE+zwI44AnwpvmW\n"
                              "-----END PRIVATE KEY-----\n";
static const char certificate_pem[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBfjCCASOgAwIBAgIUCrOymYiODzwSnW65kInCT5IojIIwCgYIKoZIzj0EAwIw\n"
    "FDESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTI2MTEyMzIwMTY1MloXDTI2MTIyMzIw\n"
    "MTY1MlowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D\n"
    "AQcDQgAELlfldYlWxmin4NtNvimnpxD/EM9TP7uVCCSNweFP69jDP9i2bscdsSvR\n"
    "+MYhQUAgoNFs7gGBPs8COOAJ8Kb5lqNTMFEwHQYDVR0OBBYEFICzaJN6uZ5iVJpp\n"
    "aoAOXDzvu4g1MB8GA1UdIwQYMBaAFICzaJN6uZ5iVJppaoAOXDzvu4g1MA8GA1Ud\n"
    "EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAKS2+tGumFaxreqAsqccT2E8\n"
    "kFi8yL+hUyP8QbgmiHgJAiEA8wu2Qk+WxBs9twzvmJsdRummS4zWQDdIXw9mc/1a\n"
    "rS4=\n"
    "-----END CERTIFICATE-----\n";

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void can_be_switched_off(void **state)
{
    char directory[] = "/tmp/transport-test-XXXXXX";
    char key[64];
    char certificate[64];
    char error[256];
    size_t len;
    (void)state;
    assert_non_null(mkdtemp(directory));
    (void)snprintf(key, sizeof key, "%s/key", directory);
    (void)snprintf(certificate, sizeof certificate, "%s/crt", directory);
    write_file(key, key_pem);
    write_file(certificate, certificate_pem);
    for (int keep = 0; keep < 2; keep++) {
        struct tls_config *config;
        struct tls_session *session;
        struct tls_buffers buffers = {.cipher = NULL};
        struct tls_certificate files = {certificate, key};
        struct tls_options options = {
            .certificates = &files, .certificate_count = 1, .keep_buffers = keep == 1};
        assert_int_equal(tls_config_create(&options, &config, error, sizeof error), STATUS_OK);
        assert_int_equal(tls_session_create(config, &buffers, &session), STATUS_OK);
        assert_false(tls_buffers_have_idle_work(&buffers));
        assert_int_equal(tls_session_read(session, &len), TLS_MORE);
        assert_int_equal(tls_buffers_have_idle_work(&buffers), keep == 0);
        tls_session_destroy(session);
        assert_false(tls_buffers_have_idle_work(&buffers));
        tls_buffers_fini(&buffers);
        tls_config_release(config);
    }
    (void)unlink(key);
    (void)unlink(certificate);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(both_buffers_go_and_the_talk_goes_on),
        TEST(nothing_goes_while_part_of_a_record_is_there),
        TEST(nothing_goes_while_something_is_unread),
        TEST(nothing_goes_while_something_is_unsent),
        TEST(without_memory_a_session_stays_as_it_is),
        TEST(a_session_may_end_idle),
        cmocka_unit_test(a_block_becomes_zeros_and_loses_whole_pages),
        cmocka_unit_test(a_short_block_becomes_zeros),
        cmocka_unit_test(idle_is_what_two_sweeps_find_untouched),
        cmocka_unit_test(a_sweep_goes_in_steps),
        cmocka_unit_test(can_be_switched_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
