/*
 * http_client_state: the structures behind http_client.h, for its own files. http_client.c reads
 * requests, keeps time and sends answers, http_login.c finds out who sends them, http_routes.c does
 * what they ask for; http_stream.c streams events, http_push.c is a WebSocket's side of the same.
 */
#ifndef BROKER_HTTP_CLIENT_STATE_H
#define BROKER_HTTP_CLIENT_STATE_H

#include "http_client.h"
#include "http_json.h"
#include "http_keys.h"
#include "http_request.h"
#include "http_response.h"
#include "timer_wheel.h"

enum {
    HTTP_HEAD_MAX = 16 * 1024,
    HTTP_IDLE_MS = 60 * 1000,       /* between two requests, and for an answer to be taken */
    HTTP_LOGIN_MS = 30 * 1000,      /* for a password to be checked */
    HTTP_WAIT_MS = 5 * 1000,        /* ?wait=acked without a timeout */
    HTTP_BEAT_MS = 20 * 1000,       /* a comment, so that proxies keep a silent stream */
    HTTP_WAIT_MAX_MS = 60 * 1000,   /* and with one */
    HTTP_BACKLOG_PAUSE = 16 * 1024, /* what comes behind a request; beyond, nothing more is read */
    HTTP_BACKLOG_MAX = 512 * 1024,  /* what had been read by then */
    HTTP_FILTERS_MAX = 32,          /* of one stream */
    HTTP_SECRET_BYTES = 16,
    HTTP_SECRET_DIGITS = 2 * HTTP_SECRET_BYTES,
};

/* A part of an answer: a head and perhaps a body. */
struct http_block {
    struct shared shared; /* first */
    struct http_block *next;
    size_t len;
    uint8_t data[];
};

enum http_state {
    HTTP_READING,   /* a request is awaited, or read */
    HTTP_CHECKING,  /* the password is being checked */
    HTTP_WAITING,   /* messages were published, and it is waited for their receivers */
    HTTP_ANSWERED,  /* the answer is to be sent */
    HTTP_STREAMING, /* events follow until the connection ends */
    HTTP_PUSHING,   /* a WebSocket that gets messages, and may publish */
    HTTP_CLOSING,   /* host.close was called */
};

/* A publication that is being waited for. */
struct http_publication {
    struct core_watch watch; /* first; begun when is_watched */
    struct http_client *client;
    struct http_result result;
    bool is_watched;
};

/* What a request has published. */
struct http_wait {
    struct http_batch *batch; /* that the topics are borrowed from; NULL: they stand behind */
    bool is_single;
    bool is_late;    /* receivers are not waited for any more */
    unsigned status; /* of the answer */
    size_t count;
    uint64_t ticket; /* that must be committed, since the answer is a promise; 0: none */
    struct http_publication *publications; /* owned, with a topic behind them */
};

struct http_clients {
    struct http_host host;
    struct core *core;
    struct timer_wheel wheel;
    struct http_client *first; /* all open clients */
    struct http_keys *keys;
    struct hash_seed seed;
    uint64_t now_ms;    /* of the latest call */
    uint64_t committed; /* the latest ticket */
    uint64_t ticketed;  /* the latest one that a publication was given */
    bool stopping;
};

struct http_client {
    struct client base; /* first; of its kind only the core's side is there, unless push is */
    struct http_clients *clients;
    struct http_client *next, *previous;
    void *link;
    struct mqtt_settings *settings; /* one reference held */
    struct http_reader *reader;     /* NULL with push */
    struct http_request request;    /* borrowed from reader, while one is being worked on */
    struct http_block *blocks;      /* to be sent, oldest first */
    struct message *body;           /* whose payload follows the blocks; one reference, or NULL */
    uint8_t *backlog;               /* what came behind the request */
    size_t backlog_len;
    size_t backlog_capacity;
    struct access_check *check;   /* HTTP_CHECKING only */
    struct access_rights *rights; /* of who sent the request; NULL: it may do everything */
    struct http_wait wait;        /* HTTP_WAITING only */
    struct http_stream *stream;   /* HTTP_STREAMING only */
    struct http_push *push;       /* NULL: it is no WebSocket */
    char *user_name;              /* of who sent the request; NULL: anonymous */
    char *certificate_user;       /* NULL: none */
    uint64_t check_mark;          /* of the entry that the check began with */
    uint64_t login_seal; /* of the Authorization field that was found right last; 0: none */
    uint64_t login_mark; /* of the entry that it was compared with */
    uint64_t user_mark;  /* of the entry that let the user in; 0: none did */
    struct timer timer;
    uint64_t opened_ms;
    uint32_t user_name_len;
    uint8_t state; /* enum http_state */
    bool keep_alive;
    bool is_paused; /* not read from */
    bool has_body;  /* of the answer; false for HEAD */
};

/* http_client.c */

/* Answers with a JSON text, which is taken over (NULL: no memory), and `status`. */
void http_answer_json(struct http_client *client, uint64_t now_ms, unsigned status,
                      char *take_text);

/* Answers with {"error": ..., "message": ...}. */
void http_answer_error(struct http_client *client, uint64_t now_ms, unsigned status,
                       const char *error, const char *words);

/* Answers 405, or an OPTIONS request with what is allowed. */
void http_answer_method(struct http_client *client, uint64_t now_ms, const char *allow);

/* Answers with a head (whose origin and keep-alive are filled in here) and the payload of
 * `message`, of which a reference is taken; NULL: no body. */
void http_answer(struct http_client *client, uint64_t now_ms, struct http_response *response,
                 struct message *message);

/* Answers with the head of a stream. */
void http_begin_stream(struct http_client *client, uint64_t now_ms);

/* Ends what was begun, and the connection; `why`, which is not copied, in words. */
void http_leave(struct http_client *client, enum mqtt_reason reason, const char *why);

/* A client without a request, and without a reader. NULL: no memory. */
MUST_USE struct http_client *http_client_create(struct http_clients *clients, uint64_t now_ms,
                                                void *link, struct mqtt_settings *settings,
                                                struct bytes certificate_user);

/* Adds a copy of `text` to what is to be sent; the client leaves when there is no memory. */
void http_add_text(struct http_client *client, struct bytes text);

/* Sends what was added while there is room. */
void http_send_blocks(struct http_client *client, struct output *output);

/* The core has something for a session of this kind of client. */
void http_output_ready(struct client *base);

/* Ends the stream and the connection. */
void http_leave_stream(struct http_client *client, uint64_t now_ms, const char *why);

/* Adds a copy of `bytes` to what is being sent. False: no memory. */
MUST_USE bool http_send_block(struct http_client *client, struct output *output,
                              struct bytes bytes);

/* http_stream.c */

/* Does what GET /api/v1/subscribe asks for. */
void http_subscribe(struct http_client *client, uint64_t now_ms);

/* Adds events until `output` has no more room. */
void http_stream_deliver(struct http_client *client, uint64_t now_ms, struct output *output);

/* Leaves the session to itself and frees the stream, if there is one; `why` for the log, or NULL.
 */
void http_end_stream(struct http_client *client, uint64_t now_ms, const char *why);

/* The core has taken the session. */
void http_stream_lost(struct http_client *client);

/* NULL: there is none. */
struct session *http_client_session(const struct http_client *client);

/* http_wishes.c */

/* What is wanted; the filters are decoded into `buffer`, which has as many bytes as the query. */
struct http_wishes {
    uint8_t *buffer;
    struct bytes filters[HTTP_FILTERS_MAX];
    size_t count;
    struct bytes event_id;
    uint8_t qos;     /* of who does not say it */
    bool may_resume; /* the query may have an event id */
};

/* What is wrong with the query, or NULL. */
const char *http_read_wishes(const struct http_request *request, struct http_wishes *out);

bool http_may_subscribe_all(const struct http_client *client, const struct http_wishes *wishes);

enum mqtt_reason http_subscribe_all(struct http_client *client, uint64_t now_ms,
                                    struct session *session, const struct http_wishes *wishes);

/* Digits that nobody can guess. */
void http_make_secret(struct http_client *client, uint8_t out[HTTP_SECRET_DIGITS]);

/* http_push.c; all of them are for clients with push */

/* The peer is who it says: its session begins. */
void http_push_begin(struct http_client *client, uint64_t now_ms);

/* Closes the connection for what HTTP would answer with `status`; `words` is not copied. */
void http_push_refuse(struct http_client *client, unsigned status, const char *words);

/* The session ends, if there is one; `why` for the log. */
void http_push_end(struct http_client *client, uint64_t now_ms, const char *why);
void http_push_free(struct http_client *client);
struct session *http_push_session(const struct http_client *client);

/* A ticket was committed: something that came may go on. */
bool http_push_waits(const struct http_client *client);

/* http_login.c */

/* Finds out who sends the request, and goes on with http_route, or answers 401. */
void http_login(struct http_client *client, uint64_t now_ms);

/* No answer is wanted any more. */
void http_cancel_check(struct http_client *client);

/* http_routes.c */

/* Does what the request of a client that is let in asks for. */
void http_route(struct http_client *client, uint64_t now_ms);

/* The same for paths that need no login. True: it was answered. */
MUST_USE bool http_route_open(struct http_client *client, uint64_t now_ms);

/* Publishes one message, unless its key says that this was done before; with `wait` it is watched.
 * client->wait.ticket becomes the one that must be committed. Returns the HTTP status. */
unsigned http_publish_one(struct http_client *client, uint64_t now_ms,
                          const struct http_message *from, bool wait, struct http_publication *out);

/* Answers what HTTP_WAITING waits for if it has come, or, with `late`, if it has not. */
void http_settle_wait(struct http_client *client, uint64_t now_ms, bool late);

/* Frees what a wait holds. */
void http_end_wait(struct http_client *client);

#endif
