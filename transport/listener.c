#include "listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>

#include "connection_internal.h"
#include "listener_internal.h"
#include "mem.h"

enum {
    OWN_REFERENCES = 2,           /* a listener's: the caller's and the handle's, if it has one */
    KEEPALIVE_PROBES = 4,         /* that stay unanswered before the peer counts as gone */
    KEEPALIVE_IDLE_MAX_S = 32767, /* Linux takes no more */
};

struct listener_options listener_options_default(void)
{
    return (struct listener_options){
        .backlog = LISTENER_BACKLOG,
        .speaks = LISTENER_RAW | LISTENER_WEBSOCKET,
        .http_head_bytes_max = LISTENER_HTTP_HEAD_BYTES,
        .handshake_timeout_ms = LISTENER_HANDSHAKE_MS,
        .close_timeout_ms = LISTENER_CLOSE_MS,
        .ping_interval_ms = LISTENER_PING_MS,
        .keepalive_s = LISTENER_KEEPALIVE_S,
        .nodelay = true,
    };
}

struct listener_group *listener_group_hold(struct listener_group *group)
{
    (void)__atomic_add_fetch(&group->references, 1, __ATOMIC_RELAXED);
    return group;
}

void listener_group_release(struct listener_group *group)
{
    if (__atomic_sub_fetch(&group->references, 1, __ATOMIC_ACQ_REL) == 0) {
        mem_free(group);
    }
}

void listener_group_enter(struct listener_group *group)
{
    (void)__atomic_add_fetch(&group->sockets, 1, __ATOMIC_RELAXED);
}

void listener_group_leave(struct listener_group *group)
{
    (void)__atomic_sub_fetch(&group->sockets, 1, __ATOMIC_RELAXED);
}

void listener_hold(struct listener *listener)
{
    listener->references++;
}

static void unlink_listener(struct listener *listener)
{
    if (listener->previous != NULL) {
        listener->previous->next = listener->next;
    } else {
        listener->loop->listeners = listener->next;
    }
    if (listener->next != NULL) {
        listener->next->previous = listener->previous;
    }
}

void listener_release(struct listener *listener)
{
    if (--listener->references == 0) {
        unlink_listener(listener);
        tls_config_release(listener->options.tls_config);
        listener_group_release(listener->group);
        mem_free(listener->lists);
        mem_free(listener);
    }
}

void listener_refused(struct listener *listener, const char *peer_address, const char *reason)
{
    loop_count(&listener->loop->statistics.handshakes_refused, 1);
    if (listener->options.handler.on_refused != NULL) {
        listener->options.handler.on_refused(listener->options.ctx, peer_address, reason);
    }
}

static void accept_waiting(struct listener *listener);

static void on_spare_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    listener->spare_busy = false;
    if (listener->spare_wanted && !listener->closing) {
        listener->spare_wanted = false;
        accept_waiting(listener);
    }
    listener_release(listener);
}

/* libuv accepts no further client before this one has been taken, so it is taken without memory of
 * its own. */
static void accept_and_close(struct listener *listener, const char *reason)
{
    if (listener->spare_busy) {
        listener->spare_wanted = true;
        return;
    }
    (void)uv_tcp_init(listener->loop->uv, &listener->spare);
    listener->spare.data = listener;
    listener->spare_busy = true;
    listener_hold(listener);
    (void)uv_accept(&listener->io.stream, (uv_stream_t *)&listener->spare);
    uv_close((uv_handle_t *)&listener->spare, on_spare_closed);
    listener_refused(listener, "?", reason);
}

static void accept_waiting(struct listener *listener)
{
    uint64_t sockets_max = listener->options.sockets_max;
    if (sockets_max != 0 && transport_loop_sockets(listener->loop) >= sockets_max) {
        accept_and_close(listener, "no room for more sockets");
    } else if (connection_accept(listener) != STATUS_OK) {
        accept_and_close(listener, "out of memory");
    }
}

static void on_client(uv_stream_t *server, int error)
{
    struct listener *listener = server->data;
    if (error < 0) {
        listener_refused(listener, "?", uv_strerror(error));
    } else {
        accept_waiting(listener);
    }
}

static size_t block_bytes(const char *const *strings, size_t count)
{
    size_t bytes = count * sizeof *strings;
    for (size_t i = 0; i < count; i++) {
        bytes += strlen(strings[i]) + 1;
    }
    return bytes;
}

static const char *const *copy_strings(const char *const *strings, size_t count,
                                       const char ***pointers, char **characters)
{
    const char **first = *pointers;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(strings[i]) + 1;
        memcpy(*characters, strings[i], len);
        *(*pointers)++ = *characters;
        *characters += len;
    }
    return first;
}

/* Both lists into one block: the pointers first, then the characters. */
static enum status copy_lists(struct listener *listener)
{
    struct listener_options *options = &listener->options;
    listener->lists = mem_alloc(block_bytes(options->subprotocols, options->subprotocol_count) +
                                block_bytes(options->origins, options->origin_count));
    if (listener->lists == NULL) {
        return STATUS_NO_MEMORY;
    }
    const char **pointers = listener->lists;
    char *characters = (char *)(pointers + options->subprotocol_count + options->origin_count);
    options->subprotocols =
        copy_strings(options->subprotocols, options->subprotocol_count, &pointers, &characters);
    options->origins =
        copy_strings(options->origins, options->origin_count, &pointers, &characters);
    return STATUS_OK;
}

static void set_option(uv_os_fd_t fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

/* Linux and the BSDs hand these on to accepted sockets, which saves the calls for each of them. */
static void set_inherited_options(struct listener *listener)
{
    const struct listener_options *options = &listener->options;
    uv_os_fd_t fd;
    if (listener->io.handle.type != UV_TCP || uv_fileno(&listener->io.handle, &fd) != 0) {
        return;
    }
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, options->nodelay ? 1 : 0);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, options->keepalive_s != 0 ? 1 : 0);
    if (options->keepalive_s != 0) {
        int idle_s = options->keepalive_s > KEEPALIVE_IDLE_MAX_S ? KEEPALIVE_IDLE_MAX_S
                                                                 : (int)options->keepalive_s;
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s);
        set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL,
                   (idle_s + KEEPALIVE_PROBES - 1) / KEEPALIVE_PROBES);
        set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    listener_release(listener);
}

/* Closes the handle after a failed attempt, waiting for libuv: before the listener exists nothing
 * else is in flight for it, so its own memory can be used again afterwards. */
static int try_address(struct listener *listener, const struct sockaddr *address, unsigned flags)
{
    int error = uv_tcp_bind(&listener->io.tcp, address, flags);
    if (error == 0) {
        set_inherited_options(listener);
        error = uv_listen(&listener->io.stream, listener->options.backlog, on_client);
    }
    return error;
}

static void format_address(struct listener *listener)
{
    if (listener->options.unix_path != NULL) {
        (void)snprintf(listener->address, sizeof listener->address, "%s",
                       listener->options.unix_path);
        return;
    }
    struct sockaddr_storage name = {0};
    int len = sizeof name;
    char host[INET6_ADDRSTRLEN] = "?";
    if (uv_tcp_getsockname(&listener->io.tcp, (struct sockaddr *)&name, &len) != 0) {
        return;
    }
    if (name.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&name;
        (void)uv_ip6_name(in6, host, sizeof host);
        listener->port = ntohs(in6->sin6_port);
        (void)snprintf(listener->address, sizeof listener->address, "[%s]:%u", host,
                       listener->port);
    } else {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)&name;
        (void)uv_ip4_name(in4, host, sizeof host);
        listener->port = ntohs(in4->sin_port);
        (void)snprintf(listener->address, sizeof listener->address, "%s:%u", host, listener->port);
    }
}

static int bind_everywhere(struct listener *listener)
{
    struct sockaddr_in6 any6;
    struct sockaddr_in any4;
    (void)uv_ip6_addr("::", listener->options.port, &any6);
    (void)uv_ip4_addr("0.0.0.0", listener->options.port, &any4);
    if (listener->options.family == LISTENER_IPV4) {
        return try_address(listener, (const struct sockaddr *)&any4, 0);
    }
    bool only6 = listener->options.family == LISTENER_IPV6;
    int error = try_address(listener, (const struct sockaddr *)&any6, only6 ? UV_TCP_IPV6ONLY : 0);
    if ((error == UV_EAFNOSUPPORT || error == UV_EADDRNOTAVAIL) && !only6) {
        error =
            try_address(listener, (const struct sockaddr *)&any4, 0); /* a kernel without IPv6 */
    }
    return error;
}

static int bind_host(struct listener *listener, const char **problem)
{
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
    struct addrinfo hints = {.ai_family = families[listener->options.family],
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    char port[8];
    (void)snprintf(port, sizeof port, "%u", listener->options.port);
    int error = getaddrinfo(listener->options.host, port, &hints, &found);
    if (error != 0) {
        *problem = gai_strerror(error);
        return UV_EAI_NONAME;
    }
    error = try_address(listener, found->ai_addr, 0);
    freeaddrinfo(found);
    return error;
}

static int bind_and_listen(struct listener *listener, const char **problem)
{
    int error;
    *problem = NULL;
    if (listener->options.unix_path != NULL) {
        (void)uv_pipe_init(listener->loop->uv, &listener->io.pipe, 0);
        listener->io.handle.data = listener;
        error = uv_pipe_bind(&listener->io.pipe, listener->options.unix_path);
        if (error == 0) {
            error = uv_listen(&listener->io.stream, listener->options.backlog, on_client);
        }
    } else {
        (void)uv_tcp_init(listener->loop->uv, &listener->io.tcp);
        listener->io.handle.data = listener;
        error = listener->options.host == NULL ? bind_everywhere(listener)
                                               : bind_host(listener, problem);
    }
    if (*problem == NULL && error != 0) {
        *problem = uv_strerror(error);
    }
    return error;
}

static void link_listener(struct listener *listener)
{
    listener->next = listener->loop->listeners;
    if (listener->next != NULL) {
        listener->next->previous = listener;
    }
    listener->loop->listeners = listener;
}

/* All of a listener but its socket. `group` NULL: a new one. NULL: no memory. */
static struct listener *make_listener(struct transport_loop *loop,
                                      const struct listener_options *options,
                                      struct listener_group *group)
{
    ENSURE(options->speaks != 0 && options->handler.open != NULL);
    ENSURE(options->handler.on_bytes != NULL && options->handler.on_output != NULL &&
           options->handler.on_close != NULL);
    ENSURE((options->tls == LISTENER_TLS_NONE) == (options->tls_config == NULL));
    struct listener *listener = mem_zalloc(sizeof *listener);
    if (listener == NULL) {
        return NULL;
    }
    listener->loop = loop;
    listener->options = *options;
    listener->group = group != NULL ? listener_group_hold(group) : mem_zalloc(sizeof *group);
    if (listener->group != NULL && group == NULL) {
        listener->group->references = 1;
    }
    if (listener->group == NULL || copy_lists(listener) != STATUS_OK) {
        if (listener->group != NULL) {
            listener_group_release(listener->group);
        }
        mem_free(listener);
        return NULL;
    }
    if (listener->options.tls_config != NULL) {
        (void)tls_config_hold(listener->options.tls_config);
    }
    listener->references = OWN_REFERENCES;
    link_listener(listener);
    return listener;
}

enum status listener_create(struct transport_loop *loop, const struct listener_options *options,
                            struct listener **out, char *error, size_t error_size)
{
    *out = NULL;
    struct listener *listener = make_listener(loop, options, NULL);
    if (listener == NULL) {
        (void)snprintf(error, error_size, "out of memory");
        return STATUS_NO_MEMORY;
    }
    const char *problem;
    int uv_error = bind_and_listen(listener, &problem);
    if (uv_error != 0) {
        if (options->unix_path != NULL) {
            (void)snprintf(error, error_size, "cannot listen on %s: %s", options->unix_path,
                           problem);
        } else {
            (void)snprintf(error, error_size, "cannot listen on %s port %u: %s",
                           options->host == NULL ? "any address," : options->host, options->port,
                           problem);
        }
        listener_close(listener);
        return uv_error == UV_EAI_NONAME ? STATUS_NOT_FOUND : STATUS_IO;
    }
    format_address(listener);
    listener->options.host = listener->options.unix_path = NULL; /* borrowed for this call only */
    *out = listener;
    return STATUS_OK;
}

enum status listener_follow(struct transport_loop *loop, const struct listener_options *options,
                            const struct listener *leader, struct listener **out)
{
    ENSURE(loop != leader->loop && !leader->closing);
    *out = make_listener(loop, options, leader->group);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->is_follower = true;
    loop_follow(loop);
    (*out)->references--; /* it has no handle */
    (*out)->options.host = (*out)->options.unix_path = NULL;
    (*out)->port = leader->port;
    memcpy((*out)->address, leader->address, sizeof leader->address);
    return STATUS_OK;
}

void listener_close(struct listener *listener)
{
    if (listener == NULL) {
        return;
    }
    ENSURE(!listener->closing);
    listener->closing = true;
    if (listener->is_follower) {
        loop_unfollow(listener->loop);
    } else {
        uv_close(&listener->io.handle, on_closed);
    }
    listener_release(listener);
}

enum status listener_configure(struct listener *listener, const struct listener_options *options)
{
    struct listener_options before = listener->options;
    void *lists_before = listener->lists;
    listener->options.subprotocols = options->subprotocols;
    listener->options.subprotocol_count = options->subprotocol_count;
    listener->options.origins = options->origins;
    listener->options.origin_count = options->origin_count;
    if (copy_lists(listener) != STATUS_OK) {
        listener->options = before;
        listener->lists = lists_before;
        return STATUS_NO_MEMORY;
    }
    mem_free(lists_before);
    listener->options.http_head_bytes_max = options->http_head_bytes_max;
    listener->options.message_bytes_max = options->message_bytes_max;
    listener->options.handshake_timeout_ms = options->handshake_timeout_ms;
    listener->options.close_timeout_ms = options->close_timeout_ms;
    listener->options.ping_interval_ms = options->ping_interval_ms;
    listener->options.keepalive_s = options->keepalive_s;
    listener->options.nodelay = options->nodelay;
    listener->options.sockets_max = options->sockets_max;
    set_inherited_options(listener);
    return STATUS_OK;
}

void listener_limit_close_timeout(struct listener *listener, uint32_t close_timeout_ms)
{
    if (listener->options.close_timeout_ms > close_timeout_ms) {
        listener->options.close_timeout_ms = close_timeout_ms;
    }
}

size_t listener_sockets(const struct listener *listener)
{
    /* It may be closing: a connection that was accepted before asks when it opens. */
    return __atomic_load_n(&listener->group->sockets, __ATOMIC_RELAXED);
}

uint16_t listener_port(const struct listener *listener)
{
    return listener->port;
}

const char *listener_address(const struct listener *listener)
{
    return listener->address;
}

void *listener_ctx(const struct listener *listener)
{
    return listener->options.ctx;
}

void listener_set_tls(struct listener *listener, struct tls_config *config)
{
    ENSURE(listener->options.tls != LISTENER_TLS_NONE);
    struct tls_config *old = listener->options.tls_config;
    listener->options.tls_config = tls_config_hold(config);
    tls_config_release(old);
}
