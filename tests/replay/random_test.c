/*
 * random_test: correct clients do random things to the broker, and what they receive is compared
 * with what a simple model says.
 *
 *   random_test [SEED [COUNT]]    COUNT runs from SEED on; without arguments the fixed ones
 *
 * Each client publishes numbered messages and keeps a session for ever, so a reader that subscribed
 * to a topic must get every message of QoS 1 and 2 from then on: those of QoS 2 exactly once, those
 * of QoS 1 at least once, and each publisher's messages in order, repetitions apart. Connections
 * are lost at any moment, links stall, and time passes. One topic is a queue, whose messages must
 * come to somebody.
 *
 * In every other run there is a store, which commits and answers when chance wills, and the broker
 * crashes now and then.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker_sim.h"
#include "mqtt_ack.h"
#include "mqtt_connect.h"
#include "mqtt_disconnect.h"
#include "mqtt_publish.h"
#include "mqtt_subscribe.h"

enum {
    CLIENTS = 5,
    TOPICS = 4,
    QUEUE = 3, /* the topic that is a queue */
    STEPS = 1500,
    BURST = 40,
    LONG_ABSENCE = 300, /* steps */
    SENT_MAX = 4 * STEPS,
    PENDING_MAX = 64,
    PAYLOAD_LARGE = 40000, /* of every fourth message: few of them are fetched at once */
    PACKET_BYTES = PAYLOAD_LARGE + 512,
    FIXED_SEEDS = 60,
};

struct random {
    uint64_t state;
};

/* xorshift64* */
static uint32_t random_below(struct random *random, uint32_t bound)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return (uint32_t)((random->state * UINT64_C(2685821657736338717)) >> 33) % bound;
}

/* One numbered message: its number says publisher, topic and QoS. */
struct sent {
    uint8_t from;
    uint8_t topic;
    uint8_t qos;
    bool repeated;          /* the publisher sent it again */
    bool is_due_to_one;     /* it went to the queue */
    bool may_be_lost;       /* there was a crash before the broker had answered */
    uint8_t due[CLIENTS];   /* QoS at which the client must get it; 0 = need not */
    uint8_t count[CLIENTS]; /* how often it came, without repetitions at QoS 2 */
};

/* What a client sent at QoS 1 or 2 and still has to complete, in order. */
struct outgoing {
    uint32_t number;
    uint16_t packet_id;
    bool released; /* PUBREC came: PUBREL is what is to be repeated */
};

/* What a client received and has not answered yet. */
struct answer {
    enum mqtt_type type;
    uint16_t packet_id;
};

struct actor {
    struct sim_link *link;
    bool is_online;         /* CONNACK came */
    uint32_t away_until;    /* the step before which it does not connect */
    int8_t granted[TOPICS]; /* the QoS of its subscription; -1 = none */
    uint16_t next_id;
    uint16_t receive_maximum;
    uint32_t in_flight; /* unacknowledged PUBLISHes on this connection */
    struct outgoing outgoing[PENDING_MAX];
    size_t outgoing_count;
    struct answer answers[PENDING_MAX];
    size_t answer_count;
    bool counted[UINT16_MAX + 1];        /* identifiers in in_flight: a repeated PUBREL is not */
    bool half_received[UINT16_MAX + 1];  /* QoS 2 identifiers between PUBLISH and PUBREL */
    uint32_t newest[CLIENTS][TOPICS][3]; /* number + 1 of the last first delivery, by QoS */
};

struct world {
    struct sim sim;
    struct random random;
    struct actor actors[CLIENTS];
    struct sent sent[SENT_MAX];
    uint32_t sent_count;
    bool has_queue;   /* somebody subscribed to it */
    bool must_commit; /* subscriptions have changed: the model does not know that a crash may undo
                         it */
    uint64_t seed;
    uint32_t step;
};

static void write_packet(struct world *world, struct actor *actor, const struct writer *writer)
{
    ENSURE(writer_ok(writer));
    struct bytes packet = writer_written(writer);
    size_t cut = random_below(&world->random, (uint32_t)packet.len + 1);
    sim_input(actor->link, bytes_of(packet.data, cut));
    sim_input(actor->link, bytes_from(packet, cut));
}

static void send_ack(struct world *world, struct actor *actor, enum mqtt_type type,
                     uint16_t packet_id)
{
    uint8_t packet[PACKET_BYTES];
    struct writer writer = writer_of(packet, sizeof packet);
    struct mqtt_ack ack = {.packet_id = packet_id};
    mqtt_ack_encode(&writer, type, MQTT_VERSION_5, &ack);
    write_packet(world, actor, &writer);
}

static int write_topic(char *text, size_t size, uint32_t topic)
{
    return topic == QUEUE ? snprintf(text, size, "$queue/q") : snprintf(text, size, "t/%u", topic);
}

static int write_filter(char *text, size_t size, uint32_t topic)
{
    return topic == QUEUE ? snprintf(text, size, "$share/queue/$queue/q")
                          : write_topic(text, size, topic);
}

static void send_publish(struct world *world, struct actor *actor, const struct outgoing *outgoing,
                         bool dup)
{
    const struct sent *sent = &world->sent[outgoing->number];
    uint8_t packet[PACKET_BYTES];
    struct writer writer = writer_of(packet, sizeof packet);
    char payload[16 + PAYLOAD_LARGE];
    char topic[16];
    int width = outgoing->number % 4 == 0 ? PAYLOAD_LARGE : 0;
    int payload_len = snprintf(payload, sizeof payload, "%-*u", width, outgoing->number);
    int topic_len = write_topic(topic, sizeof topic, sent->topic);
    struct mqtt_publish_out publish = {.qos = sent->qos,
                                       .dup = dup,
                                       .packet_id = outgoing->packet_id,
                                       .topic = bytes_of(topic, (size_t)topic_len),
                                       .payload_len = (size_t)payload_len};
    mqtt_publish_encode_head(&writer, &publish, MQTT_VERSION_5);
    writer_bytes(&writer, bytes_of(payload, (size_t)payload_len));
    write_packet(world, actor, &writer);
}

/* The broker may take a message only now, for those who are subscribed now. */
static void take_again(const struct world *world, struct sent *sent)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        int8_t granted = world->actors[i].granted[sent->topic];
        uint8_t due = granted > 0 ? (uint8_t)granted : 0;
        sent->due[i] = due < sent->due[i] ? due : sent->due[i];
    }
}

/* What was not completed is sent again, in order [MQTT-4.4.0-1]. */
static void resume(struct world *world, struct actor *actor)
{
    for (size_t i = 0; i < actor->outgoing_count; i++) {
        const struct outgoing *outgoing = &actor->outgoing[i];
        if (outgoing->released) {
            send_ack(world, actor, MQTT_PUBREL, outgoing->packet_id);
        } else {
            struct sent *sent = &world->sent[outgoing->number];
            sent->repeated = true;
            if (sent->may_be_lost) {
                take_again(world, sent);
            }
            send_publish(world, actor, outgoing, true);
        }
    }
}

static void connect_actor(struct world *world, struct actor *actor)
{
    if (actor->link->client != NULL) {
        return;
    }
    actor->is_online = false;
    actor->answer_count = 0;
    actor->in_flight = 0;
    memset(actor->counted, 0, sizeof actor->counted);
    ENSURE(sim_open(actor->link, NULL));
    actor->receive_maximum = (uint16_t)(1 + random_below(&world->random, 20));
    uint8_t packet[PACKET_BYTES];
    struct writer writer = writer_of(packet, sizeof packet);
    struct mqtt_connect connect = {.version = MQTT_VERSION_5,
                                   .client_id = bytes_of_string(actor->link->name),
                                   .session_expiry_s = UINT32_MAX,
                                   .receive_maximum = actor->receive_maximum,
                                   .request_problem_information = true};
    mqtt_connect_encode(&writer, &connect);
    write_packet(world, actor, &writer);
}

static void subscribe(struct world *world, struct actor *actor, uint32_t topic)
{
    uint8_t qos = topic == QUEUE ? 1 : (uint8_t)random_below(&world->random, 3);
    char filter[32];
    int len = write_filter(filter, sizeof filter, topic);
    struct mqtt_subscription entry = {
        .filter = bytes_of(filter, (size_t)len), .qos = qos, .retain_handling = 2};
    uint8_t packet[PACKET_BYTES];
    struct writer writer = writer_of(packet, sizeof packet);
    mqtt_subscribe_encode(&writer, MQTT_VERSION_5, 9999, 0, &entry, 1);
    write_packet(world, actor, &writer);
    actor->granted[topic] = (int8_t)qos;
    world->has_queue |= topic == QUEUE;
    world->must_commit = true;
}

static void unsubscribe(struct world *world, struct actor *actor, uint32_t topic)
{
    char filter[32];
    int len = write_filter(filter, sizeof filter, topic);
    struct bytes entry = bytes_of(filter, (size_t)len);
    uint8_t packet[PACKET_BYTES];
    struct writer writer = writer_of(packet, sizeof packet);
    mqtt_unsubscribe_encode(&writer, MQTT_VERSION_5, 9998, &entry, 1);
    write_packet(world, actor, &writer);
    actor->granted[topic] = -1;
    world->must_commit = true;
}

/* The broker takes a message the moment that it comes in: from here on it is due to all readers. */
static void publish(struct world *world, struct actor *actor)
{
    if (actor->outgoing_count == PENDING_MAX || world->sent_count == SENT_MAX) {
        return;
    }
    uint32_t number = world->sent_count++;
    struct sent *sent = &world->sent[number];
    sent->from = (uint8_t)(actor - world->actors);
    sent->topic = (uint8_t)random_below(&world->random, TOPICS);
    sent->qos = (uint8_t)random_below(&world->random, 3);
    sent->is_due_to_one = sent->topic == QUEUE && sent->qos > 0 && world->has_queue;
    for (size_t i = 0; i < CLIENTS && sent->topic != QUEUE; i++) {
        int8_t granted = world->actors[i].granted[sent->topic];
        if (granted > 0 && sent->qos > 0) {
            sent->due[i] = (uint8_t)granted < sent->qos ? (uint8_t)granted : sent->qos;
        }
    }
    struct outgoing outgoing = {.number = number};
    if (sent->qos != 0) {
        actor->next_id = actor->next_id == UINT16_MAX ? 1 : (uint16_t)(actor->next_id + 1);
        outgoing.packet_id = actor->next_id;
        actor->outgoing[actor->outgoing_count++] = outgoing;
    }
    send_publish(world, actor, &outgoing, false);
}

static void answer_later(struct actor *actor, enum mqtt_type type, uint16_t packet_id)
{
    ENSURE(actor->answer_count < PENDING_MAX);
    actor->answers[actor->answer_count++] = (struct answer){type, packet_id};
}

/* Sends the oldest answers, so that acknowledgements keep the order [MQTT-4.6.0-2]. */
static void answer(struct world *world, struct actor *actor, size_t count)
{
    while (count-- != 0 && actor->answer_count != 0) {
        struct answer first = actor->answers[0];
        actor->answer_count--;
        memmove(actor->answers, actor->answers + 1, actor->answer_count * sizeof first);
        if (first.type != MQTT_PUBREC && actor->counted[first.packet_id]) {
            actor->counted[first.packet_id] = false;
            actor->in_flight--;
        }
        send_ack(world, actor, first.type, first.packet_id);
    }
}

/* The message came for the first time to this client. One that was repeated at QoS 1 may be new to
 * a subscription that came after it, and then stands behind newer ones. */
static void on_first(struct actor *actor, const struct sent *sent, uint32_t number, uint8_t qos)
{
    if (sent->repeated && sent->qos == 1) {
        return;
    }
    uint32_t *newest = &actor->newest[sent->from][sent->topic][qos];
    ENSURE(number + 1 > *newest);
    *newest = number + 1;
}

static void on_publish(struct world *world, struct actor *actor, const struct mqtt_header *header,
                       struct bytes body)
{
    struct mqtt_publish publish;
    ENSURE(mqtt_publish_decode(body, header->flags, MQTT_VERSION_5, &publish) == MQTT_SUCCESS);
    char text[16] = {0};
    bytes_copy(text, bytes_of(publish.payload.data,
                              publish.payload.len < sizeof text ? publish.payload.len : 15));
    uint32_t number = (uint32_t)strtoul(text, NULL, 10);
    ENSURE(number < world->sent_count);
    struct sent *sent = &world->sent[number];
    size_t self = (size_t)(actor - world->actors);
    ENSURE((publish.qos <= sent->qos || sent->topic == QUEUE) && !publish.retain);
    if (publish.qos != 0) {
        ENSURE(!actor->counted[publish.packet_id]);
        actor->counted[publish.packet_id] = true;
        actor->in_flight++;
        ENSURE(actor->in_flight <= actor->receive_maximum);
    }
    /* What a publisher repeats at QoS 1 is a new message to the broker: its copies carry no DUP. */
    bool is_repeated = sent->count[self] != 0;
    if (sent->topic == QUEUE) { /* it may have been another's before, and come back to it */
        ENSURE(publish.qos == 1);
        sent->count[self]++;
        answer_later(actor, MQTT_PUBACK, publish.packet_id);
    } else if (publish.qos == 0) {
        ENSURE((!is_repeated || sent->qos == 1) && !publish.dup);
        if (!is_repeated) {
            on_first(actor, sent, number, 0);
        }
        sent->count[self]++;
    } else if (publish.qos == 1) {
        ENSURE(!is_repeated || sent->qos == 1 || publish.dup);
        if (!is_repeated) {
            on_first(actor, sent, number, 1);
        }
        sent->count[self]++;
        answer_later(actor, MQTT_PUBACK, publish.packet_id);
    } else {
        if (!actor->half_received[publish.packet_id]) {
            ENSURE(sent->count[self] == 0); /* exactly once */
            sent->count[self]++;
            actor->half_received[publish.packet_id] = true;
            on_first(actor, sent, number, 2);
        } else {
            ENSURE(publish.dup);
        }
        answer_later(actor, MQTT_PUBREC, publish.packet_id);
    }
}

static struct outgoing *find_outgoing(struct actor *actor, uint16_t packet_id)
{
    for (size_t i = 0; i < actor->outgoing_count; i++) {
        if (actor->outgoing[i].packet_id == packet_id) {
            return &actor->outgoing[i];
        }
    }
    return NULL;
}

static void complete(struct actor *actor, const struct outgoing *outgoing)
{
    size_t index = (size_t)(outgoing - actor->outgoing);
    actor->outgoing_count--;
    memmove(actor->outgoing + index, actor->outgoing + index + 1,
            (actor->outgoing_count - index) * sizeof *outgoing);
}

static void on_ack(struct world *world, struct actor *actor, enum mqtt_type type, struct bytes body)
{
    struct mqtt_ack ack;
    ENSURE(mqtt_ack_decode(body, type, MQTT_VERSION_5, &ack) == MQTT_SUCCESS);
    if (type == MQTT_PUBREL) {
        actor->half_received[ack.packet_id] = false;
        answer_later(actor, MQTT_PUBCOMP, ack.packet_id);
        return;
    }
    struct outgoing *outgoing = find_outgoing(actor, ack.packet_id);
    ENSURE(outgoing != NULL && ack.reason != MQTT_QUOTA_EXCEEDED);
    if (type != MQTT_PUBREC) {
        complete(actor, outgoing);
    } else if (!outgoing->released) {
        outgoing->released = true;
        send_ack(world, actor, MQTT_PUBREL, ack.packet_id);
    }
}

/* Everything that the link received is looked at. */
static void read_all(struct world *world, struct actor *actor)
{
    struct mqtt_header header;
    struct bytes body;
    while (sim_read(actor->link, &header, &body)) {
        if (header.type == MQTT_PUBLISH) {
            on_publish(world, actor, &header, body);
        } else if (header.type == MQTT_CONNACK) {
            actor->is_online = true;
            resume(world, actor);
        } else if (header.type != MQTT_SUBACK && header.type != MQTT_UNSUBACK) {
            on_ack(world, actor, header.type, body);
        }
    }
}

static void read_everybody(struct world *world)
{
    sim_turn(&world->sim);
    for (size_t i = 0; i < CLIENTS; i++) {
        read_all(world, &world->actors[i]);
        ENSURE(!world->actors[i].link->gone && !world->actors[i].link->refused);
    }
    sim_turn(&world->sim);
}

static void lose(struct world *world, struct actor *actor)
{
    sim_cut(actor->link);
    read_all(world, actor); /* what it received before: it was on the wire */
    actor->is_online = false;
}

static void commit_all(struct world *world)
{
    for (unsigned i = 0; i < 4; i++) {
        sim_commit(&world->sim);
    }
    world->must_commit = false;
}

static void crash(struct world *world)
{
    if (world->must_commit) {
        commit_all(world);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        read_all(world, &world->actors[i]);
    }
    ENSURE(sim_crash(&world->sim));
    for (size_t i = 0; i < CLIENTS; i++) {
        struct actor *actor = &world->actors[i];
        read_all(world, actor);
        actor->is_online = false;
        for (size_t k = 0; k < actor->outgoing_count; k++) {
            world->sent[actor->outgoing[k].number].may_be_lost = true;
        }
    }
}

/* The store does something, or nothing, or dies with the process. */
static void step_store(struct world *world)
{
    uint32_t what = random_below(&world->random, 1000);
    if (what < 200) {
        store_flush(world->sim.store); /* the next commit is of what there is now */
    } else if (what < 400) {
        sim_commit(&world->sim);
    } else if (what < 700) {
        sim_answer(&world->sim);
    } else if (what < 704) {
        crash(world);
    }
}

static void step(struct world *world)
{
    struct random *random = &world->random;
    struct actor *actor = &world->actors[random_below(random, CLIENTS)];
    uint32_t what = random_below(random, 100);
    if (!actor->is_online || actor->link->client == NULL) {
        if (what < 40 && world->step >= actor->away_until) {
            connect_actor(world, actor);
        }
    } else if (what < 45) {
        for (uint32_t count = what == 0 ? BURST : 1; count != 0; count--) {
            publish(world, actor);
        }
    } else if (what < 52) {
        subscribe(world, actor, random_below(random, TOPICS));
    } else if (what < 54) {
        unsubscribe(world, actor, random_below(random, TOPICS));
    } else if (what < 84) {
        answer(world, actor, 1 + random_below(random, 8));
    } else if (what < 88) {
        actor->link->stalled = !actor->link->stalled;
    } else if (what < 92) {
        sim_take_one(actor->link);
    } else {
        lose(world, actor);
        actor->away_until = what == 99 ? world->step + LONG_ABSENCE : 0;
    }
    if (world->sim.with_store) {
        step_store(world);
    }
    if (what % 10 == 0) {
        sim_advance(&world->sim, world->sim.now_ms + random_below(random, 100000));
    }
    read_everybody(world);
}

/* All come back, read and answer until nothing moves. */
static void settle(struct world *world)
{
    world->sim.store_held = false;
    world->sim.fetches_held = false;
    for (unsigned round = 0; round < SENT_MAX; round++) {
        for (size_t i = 0; i < CLIENTS; i++) {
            struct actor *actor = &world->actors[i];
            actor->link->stalled = false;
            connect_actor(world, actor);
            answer(world, actor, PENDING_MAX);
        }
        if (round == 2) {
            subscribe(world, &world->actors[0], QUEUE); /* somebody must take what waits there */
        }
        read_everybody(world);
    }
}

static void check_all_came(struct world *world)
{
    ENSURE(core_stats(world->sim.core).queued_messages == 0);
    if (!world->sim.with_store) { /* with one, a client that goes loses what waits at QoS 0 */
        ENSURE(core_stats(world->sim.core).dropped == 0);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        ENSURE(world->actors[i].outgoing_count == 0 && world->actors[i].answer_count == 0);
    }
    for (uint32_t number = 0; number < world->sent_count; number++) {
        const struct sent *sent = &world->sent[number];
        uint32_t all = 0;
        for (size_t i = 0; i < CLIENTS; i++) {
            all += sent->count[i];
            if (sent->due[i] != 0) {
                ENSURE(sent->count[i] >= 1 && (sent->due[i] == 1 || sent->count[i] == 1));
            }
        }
        ENSURE(all != 0 || !sent->is_due_to_one);
    }
}

static void run(uint64_t seed)
{
    struct world *world = calloc(1, sizeof *world);
    ENSURE(world != NULL);
    world->seed = seed;
    world->random.state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    sim_init(&world->sim);
    world->sim.options.queued_messages_max = 0;
    world->sim.options.queued_bytes_max = 0;
    world->sim.options.inflight_max = (uint16_t)random_below(&world->random, 30);
    world->sim.with_store = seed % 2 == 0;
    world->sim.store_held = world->sim.with_store;
    world->sim.fetches_held = world->sim.with_store;
    ENSURE(sim_start(&world->sim));
    for (size_t i = 0; i < CLIENTS; i++) {
        struct actor *actor = &world->actors[i];
        char name[8];
        (void)snprintf(name, sizeof name, "c%zu", i);
        actor->link = sim_link(&world->sim, name);
        memset(actor->granted, -1, sizeof actor->granted);
    }
    for (world->step = 0; world->step < STEPS; world->step++) {
        step(world);
    }
    settle(world);
    check_all_came(world);
    struct core_stats stats = core_stats(world->sim.core);
    (void)printf("%llu messages, %llu deliveries\n", (unsigned long long)stats.published,
                 (unsigned long long)stats.delivered);
    sim_fini(&world->sim);
    free(world);
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 1 ? 1 : FIXED_SEEDS;
    if (argc > 2) {
        count = strtoull(argv[2], NULL, 10);
    }
    for (uint64_t seed = first; seed < first + count; seed++) {
        (void)printf("seed %llu: ", (unsigned long long)seed);
        (void)fflush(stdout);
        run(seed);
    }
    return 0;
}
