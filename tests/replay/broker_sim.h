/*
 * broker_sim: a real core and real MQTT clients on simulated connections and a virtual clock.
 *
 * Plays the part of transport/ and broker/server: what is delivered to a link goes to its client,
 * and at the end of a turn every link that was woken and is not stalled is flushed. Nothing here
 * depends on addresses, the clock or chance, so the same calls give the same bytes.
 *
 *   Checks     Every turn asserts what the interface of mqtt_client.h promises (one on_gone for
 *              each client that was not refused, no wake of a closed link) and calls core_check.
 */
#ifndef REPLAY_BROKER_SIM_H
#define REPLAY_BROKER_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core.h"
#include "memory_store.h"
#include "mqtt_client.h"

enum { SIM_NAME_MAX = 32, SIM_WHY_MAX = 128 };

struct sim;

/* One named connection, which may be opened and lost again and again. */
struct sim_link {
    struct sim *sim;
    struct sim_link *next;
    struct mqtt_client *client; /* NULL: not connected */
    char name[SIM_NAME_MAX];
    bool stalled; /* its peer takes no bytes: it is not flushed */
    bool woken;
    bool paused;   /* host.set_reading: nothing is read from it */
    bool closing;  /* host.close was called */
    bool accepted; /* on_connected was called */
    bool refused;
    bool gone; /* on_gone was called; `why` is its text */
    enum mqtt_reason refusal;
    char why[SIM_WHY_MAX];
    uint64_t last_inbound_ms;
    /* What the peer received and nobody has read yet: from in_at to in_len. */
    uint8_t *in;
    size_t in_at, in_len, in_capacity;
};

struct sim {
    struct core *core;
    struct mqtt_clients *clients;
    struct core_options options; /* for sim_start and sim_configure */
    struct mqtt_settings *settings;
    struct sim_settings *all_settings; /* clients borrow theirs, so all are kept */
    struct sim_link *links;
    uint8_t *scratch;
    uint64_t now_ms;
    uint8_t random;      /* the next "random" byte */
    bool with_store;     /* set before sim_start */
    bool store_held;     /* batches are committed by sim_commit only */
    bool fetches_held;   /* fetches are answered by sim_answer only */
    bool store_failed;   /* host.store_failed was called */
    struct store *store; /* NULL without */
};

/* Defaults: no limits but the core's, anonymous clients, nothing to announce in CONNACK. */
void sim_init(struct sim *sim);

/* Makes core and clients. False when there was no memory. */
bool sim_start(struct sim *sim);

/* The process dies and starts again: all connections are lost, and what was not committed. False
 * when there was no memory. */
bool sim_crash(struct sim *sim);

/* Commits one batch. */
void sim_commit(struct sim *sim);

/* Answers one fetch. */
void sim_answer(struct sim *sim);

/* Takes sim->options over. */
void sim_configure(struct sim *sim);

/* New settings for clients opened from now on, a copy of those before, to be changed. */
struct mqtt_settings *sim_new_settings(struct sim *sim);

/* Loses all connections and frees everything. */
void sim_fini(struct sim *sim);

/* The link of that name, made when there is none. */
struct sim_link *sim_link(struct sim *sim, const char *name);

/* Opens a connection on a link that has none. False when there was no memory. */
bool sim_open(struct sim_link *link, const char *certificate_user);

/* Bytes from the peer. Ignored when the connection is gone. */
void sim_input(struct sim_link *link, struct bytes bytes);

/* The end of a loop turn: flushes, closes what has to be closed, checks. */
void sim_turn(struct sim *sim);

/* A stalled link takes one packet (or all control packets that wait) all the same. */
void sim_take_one(struct sim_link *link);

/* The connection is lost. What the peer received and did not read stays to be read. */
void sim_cut(struct sim_link *link);

/* Lets time pass, with a turn at each deadline on the way. */
void sim_advance(struct sim *sim, uint64_t to_ms);

/* The next whole packet that the peer received, borrowed until the next call that lets the link
 * receive something. False when there is none. */
bool sim_read(struct sim_link *link, struct mqtt_header *header, struct bytes *body);

#endif
