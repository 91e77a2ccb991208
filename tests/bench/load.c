/*
 * load: the load generator of Dunlin's benchmarks. One process, one thread, raw epoll, pre-encoded
 * messages, so that what is measured is the broker. `load --help` lists scenarios and options;
 * bench.py beside this file drives it.
 */
#include "load.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

struct scenario {
    const char *name;
    void (*run)(const struct load_options *options);
    const char *help;
};

static const struct scenario scenarios[] = {
    {"fanout", scenario_fanout, "--publishers to --subscribers of one topic"},
    {"pairs", scenario_pairs, "--pairs of a publisher and a subscriber, a topic each"},
    {"shared", scenario_shared, "--publishers to one $share group of --subscribers"},
    {"subscriptions", scenario_subscriptions, "--subscriptions of --subscribers, 10 % +, 1 % #"},
    {"fairness", scenario_fairness,
     "--pairs at --rate, without and with a flood to a stalled reader"},
    {"retained", scenario_retained, "--count retained messages, set and read by new subscribers"},
    {"idle", scenario_idle, "--clients with one subscription each"},
    {"storm", scenario_storm, "connect, CONNACK, DISCONNECT, --concurrency at a time"},
    {"offline", scenario_offline, "--count messages to each of --clients offline sessions"},
    {"durable", scenario_durable,
     "--publishers at QoS 1 to --clients offline sessions, --window unacknowledged each"},
    {"fill", scenario_fill, "leaves --clients sessions, --count messages each, --retained"},
};

enum option_kind { OPTION_NUMBER, OPTION_TEXT, OPTION_FLAG };

struct option_row {
    const char *name;
    enum option_kind kind;
    void *value;
    const char *help;
};

/* What the options are stored in before they are checked. */
struct raw_options {
    struct load_options load;
    uint64_t port;
    uint64_t version;
    uint64_t cpu;
    const char *frames;
};

#define OPTION_ROWS 29

static void option_rows(struct raw_options *raw, struct option_row rows[OPTION_ROWS])
{
    struct load_options *load = &raw->load;
    const struct option_row all[OPTION_ROWS] = {
        {"host", OPTION_TEXT, &load->net.host, "IPv4 address"},
        {"port", OPTION_NUMBER, &raw->port, ""},
        {"transport", OPTION_TEXT, &load->net.transport, "tcp, ws, tls or wss"},
        {"path", OPTION_TEXT, &load->net.path, "of the WebSocket"},
        {"frames", OPTION_TEXT, &raw->frames, "packet or write: what a WebSocket frame holds"},
        {"mqtt", OPTION_NUMBER, &raw->version, "4 for 3.1.1, 5"},
        {"pid", OPTION_NUMBER, &load->pid, "broker whose CPU and memory are measured"},
        {"turns", OPTION_TEXT, &load->turns, "file that turns_shim keeps in the broker"},
        {"cpu", OPTION_NUMBER, &raw->cpu, "run on this CPU only"},
        {"qos", OPTION_NUMBER, &load->qos, ""},
        {"payload", OPTION_NUMBER, &load->payload_bytes, "bytes, 12 or more"},
        {"publishers", OPTION_NUMBER, &load->publishers, ""},
        {"subscribers", OPTION_NUMBER, &load->subscribers, ""},
        {"pairs", OPTION_NUMBER, &load->pairs, ""},
        {"bystanders", OPTION_NUMBER, &load->bystanders, "idle clients beside them"},
        {"window", OPTION_NUMBER, &load->window, "deliveries; 0: max(2000, 16 fan-outs)"},
        {"rate", OPTION_NUMBER, &load->rate, "messages a second instead of a window"},
        {"messages", OPTION_NUMBER, &load->messages, "end after so many, 0: never"},
        {"duration-ms", OPTION_NUMBER, &load->duration_ms, "of the measured phase"},
        {"warmup-ms", OPTION_NUMBER, &load->warmup_ms, "before it"},
        {"subscriptions", OPTION_NUMBER, &load->subscriptions, ""},
        {"depth", OPTION_NUMBER, &load->depth, "levels more in each topic"},
        {"clients", OPTION_NUMBER, &load->clients, ""},
        {"count", OPTION_NUMBER, &load->count, ""},
        {"retained", OPTION_NUMBER, &load->retained, "messages that fill leaves"},
        {"concurrency", OPTION_NUMBER, &load->concurrency, "connects under way"},
        {"timed", OPTION_FLAG, &load->timed, "latency in a closed loop too"},
        {"resume", OPTION_FLAG, &load->net.tls_resume, "resume the first TLS session"},
        {NULL, OPTION_FLAG, NULL, NULL},
    };
    memcpy(rows, all, sizeof all);
}

static void print_help(const struct option_row *rows)
{
    (void)puts("usage: load SCENARIO --port N [--option value ...]\n\nscenarios:");
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        (void)printf("  %-14s %s\n", scenarios[i].name, scenarios[i].help);
    }
    (void)puts("\noptions:");
    for (; rows->name != NULL; rows++) {
        (void)printf("  --%-14s %s\n", rows->name, rows->help);
    }
}

static void store_option(const struct option_row *row, char *value)
{
    char *end = NULL;
    switch (row->kind) {
    case OPTION_TEXT:
        *(const char **)row->value = value;
        break;
    case OPTION_FLAG:
        *(bool *)row->value = true;
        break;
    case OPTION_NUMBER:
        *(uint64_t *)row->value = strtoull(value, &end, 10);
        if (end == value || *end != '\0' || value[0] == '-') {
            die("--%s %s is not a number", row->name, value);
        }
        break;
    }
}

static void read_options(const struct option_row *rows, int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        const struct option_row *row = rows;
        while (row->name != NULL &&
               (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, row->name) != 0)) {
            row++;
        }
        if (row->name == NULL) {
            die("unknown option %s", argv[i]);
        }
        if (row->kind != OPTION_FLAG && ++i == argc) {
            die("--%s needs a value", row->name);
        }
        store_option(row, argv[i]);
    }
}

static void check_options(const struct raw_options *raw)
{
    const struct load_options *load = &raw->load;
    if (raw->port == 0 || raw->port > UINT16_MAX) {
        die("--port is missing or out of range");
    }
    if (raw->version != 4 && raw->version != 5) {
        die("--mqtt is 4 or 5");
    }
    if (load->payload_bytes < STAMP_BYTES || load->payload_bytes > (64u << 20)) {
        die("--payload is %d to 64 MiB", STAMP_BYTES);
    }
    if (load->qos > 2 || load->publishers == 0 || load->subscribers == 0 || load->pairs == 0 ||
        load->clients == 0 || load->count == 0 || load->concurrency == 0 ||
        load->rate > SECOND_NS) {
        die("an option is out of range");
    }
}

/* Sockets of 10,000 clients, a CPU of its own, and timeouts that are not rounded to 50 us. */
static void prepare_process(uint64_t cpu)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
    (void)signal(SIGPIPE, SIG_IGN);
    if (cpu != UINT64_MAX) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0) {
            die("no CPU %llu", (unsigned long long)cpu);
        }
    }
}

void report_options(const struct load_options *options)
{
    report_text("transport", options->net.transport);
    report_count("mqtt", options->net.version);
    report_count("qos", options->qos);
    report_count("payload", options->payload_bytes);
    report_count("publishers", options->publishers);
    report_count("subscribers", options->subscribers);
    report_count("pairs", options->pairs);
    report_count("bystanders", options->bystanders);
    report_count("rate", options->rate);
}

int main(int argc, char **argv)
{
    struct raw_options raw = {
        .load =
            {
                .net = {.host = "127.0.0.1", .transport = "tcp", .path = "/mqtt"},
                .payload_bytes = 64,
                .publishers = 1,
                .subscribers = 1000,
                .pairs = 100,
                .duration_ms = 3000,
                .warmup_ms = 500,
                .subscriptions = 100000,
                .clients = 1000,
                .count = 1000,
                .concurrency = 64,
            },
        .version = 4,
        .cpu = UINT64_MAX,
        .frames = "packet",
    };
    struct option_row rows[OPTION_ROWS];
    option_rows(&raw, rows);
    if (argc < 2 || argv[1][0] == '-') {
        print_help(rows);
        return argc < 2 ? 2 : 0;
    }
    read_options(rows, argc, argv);
    check_options(&raw);
    raw.load.net.port = (uint16_t)raw.port;
    raw.load.net.version = (uint8_t)raw.version;
    raw.load.net.frame_per_write = strcmp(raw.frames, "write") == 0;
    prepare_process(raw.cpu);
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(argv[1], scenarios[i].name) == 0) {
            raw.load.scenario = scenarios[i].name;
            scenarios[i].run(&raw.load);
            return 0;
        }
    }
    die("no scenario %s", argv[1]);
}
