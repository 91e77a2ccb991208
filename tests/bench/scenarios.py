"""What is measured: each scenario is one run of the load generator, and each of its rows a line of a table."""

class Row:
    """One line of a table: a field of the generator's report, and what to reach."""

    def __init__(self, section, title, field, reach=None):
        self.section = section
        self.title = title
        self.field = field
        self.reach = reach  # ("ratio", x): at most x times the floor; ("max", x); ("min", x)
        self.group = None  # of a scaling row


class Scenario:
    def __init__(self, name, section, arguments, transport, rows, **needs):
        self.name = name
        self.section = section
        self.arguments = arguments.split()
        self.transport = transport
        self.rows = rows
        self.basic = needs.get("basic", False)  # exact topics at QoS 0: the floor can do it
        self.persistence = needs.get("persistence", False)
        self.beside_memory = needs.get("beside_memory", False)  # once more, with persistence off
        self.syncs = needs.get("syncs", False)  # one sync is measured in the same run
        self.turns = needs.get("turns", False)  # the turns of the broker's loop are measured
        self.once = needs.get("once", False)  # takes so long that it is not repeated
        self.restart = needs.get("restart", False)  # what is measured is the start with what the generator left


CPU = "CPU: broker microseconds a delivery"
RATE = "Throughput: deliveries a second"
LATENCY = "Latency: milliseconds from the intended send time, p50 / p99 / p99.9"
CONNECTIONS = "Connections"
STORED = "Stored messages"
DURABLE = "Durability"
STARTS = "Durability: the start with what is on disk"
FAIRNESS = "Fairness: a full-speed publisher whose subscriber does not read, beside normal clients"
SCALING = "Scaling: broker microseconds a delivery"

# Sections in which it counts what a PUBACK promises.
PROMISES = (DURABLE, STARTS)

# What a table's reader has to know about it.
NOTES = {
    DURABLE: (
        "QoS 1 messages to sessions whose clients are away, persistence on. Dunlin syncs before PUBACK; a column says "
        "where a broker does not. One sync is the median of 4 KiB appended to a file and fdatasync, in the directory "
        "of the broker's files, before and after the run. A turn of the loop is what lies between two waits for "
        "events; what it did not have a CPU for, or waited for otherwise, is its time without its CPU time. All of a "
        "broker's threads share one CPU. Memory is what no file can give back; resident includes pages of files."),
    SCALING: "One run each.",
    STARTS: "Stopped as an operator does, started again, and connected to until the first CONNACK comes; one run each.",
}

# What a run without names measures: each says something that no other does.
QUICK = ("fanout-ws", "fanout10-ws", "pairs-ws", "pairs-ws-qos1", "pairs-tcp", "rate-ws", "retained-tcp", "durable-100",
         "durable-single")



def messages(name, section, title, arguments, transport, reach=None, **needs):
    rows = [Row(CPU, title, "broker_us", reach)]
    if "--rate" in arguments:
        rows.append(Row(LATENCY, title, "latency", needs.pop("latency_reach", None)))
    else:
        rows.append(Row(RATE, title, "deliveries_per_s"))
    if "--timed" in arguments:
        rows.append(Row(LATENCY, title, "latency"))
    return Scenario(name, section, arguments, transport, rows, **needs)


def idle(transport, title, bytes_reach, connect_reach, arguments=""):
    rows = [
        Row(CONNECTIONS, f"10,000 idle {title} clients: bytes each", "bytes_each", bytes_reach),
        Row(CONNECTIONS, f"10,000 idle {title} clients: us a connect", "broker_us", connect_reach),
        Row(CONNECTIONS, f"10,000 idle {title} clients: CPU while idle, %", "idle_cpu_percent"),
    ]
    return Scenario(f"idle-{transport}", "idle", f"idle --clients 10000 {arguments}", transport, rows,
                    basic=transport in ("tcp", "ws"))


def storm(name, transport, title, reach=None, arguments=""):
    rows = [
        Row(CONNECTIONS, f"connection storm, {title}: connects a second", "connects_per_s"),
        Row(CONNECTIONS, f"connection storm, {title}: us a connect", "broker_us", reach),
    ]
    return Scenario(name, "storm", f"storm {arguments}", transport, rows,
                    basic=transport in ("tcp", "ws"))


def scaling(name, title, arguments, basic=False):
    """`name` ends in the size; the first scenario of a name is what its larger ones are compared with."""
    row = Row(SCALING, title, "broker_us")
    row.group = name.rpartition("-")[0]
    return Scenario(name, "scaling", arguments, "tcp", [row], basic=basic, once=True)


def start_scenario(name, title, arguments, *more_rows):
    return Scenario(name, "durable", f"fill --publishers 4 {arguments}", "tcp", [
        Row(STARTS, f"{title}: seconds until the first CONNACK", "start_s"),
        Row(STARTS, f"{title}: resident MiB then", "resident_mib"),
        Row(STARTS, f"{title}: memory then, MiB", "memory_mib"),
        Row(STARTS, f"{title}: files, MiB", "files_mib"),
        *more_rows,
    ], persistence=True, restart=True, once=True)


def offline(name, count, *reaches):
    """`reaches` are pairs of a field and what it is to reach."""
    title = f"100 x {count:,} queued"
    rows = [
        Row(DURABLE, f"{title}: messages a second", "queued_per_s"),
        Row(DURABLE, f"{title}: us each", "broker_us"),
        Row(DURABLE, f"{title}: memory each", "memory_each"),
        Row(DURABLE, f"{title}: resident each", "bytes_each"),
        Row(DURABLE, f"{title}: bytes of file each, after the replay", "file_bytes_each"),
        Row(DURABLE, f"{title}: replayed a second", "replayed_per_s"),
        Row(DURABLE, f"{title}: us to replay", "replay_us"),
    ]
    for row in rows:
        row.reach = dict(reaches).get(row.field)
    return Scenario(name, "offline", f"offline --publishers 4 --clients 100 --count {count}", "tcp", rows,
                    persistence=True)


def durable_scenarios():
    needs = {"persistence": True}
    return [
        Scenario("durable-100", "durable", "durable --publishers 100 --clients 100 --window 200", "tcp", [
            Row(DURABLE, "100 publishers: durable messages a second", "durable_per_s", ("min", 200e3)),
            Row(DURABLE, "100 publishers: us a message", "broker_us"),
            Row(DURABLE, "100 publishers, persistence off: us a message", "memory_us"),
            Row(DURABLE, "100 publishers: CPU against persistence off", "cpu_ratio", ("max", 2)),
            Row(DURABLE, "100 publishers: memory a queued message", "memory_each", ("max", 32)),
            Row(DURABLE, "100 publishers: resident a queued message", "bytes_each"),
            Row(DURABLE, "100 publishers: bytes of file a queued message", "file_bytes_each"),
            Row(DURABLE, "100 publishers: longest turn of the loop, ms", "turn_max_ms", ("max", 5)),
            Row(DURABLE, "100 publishers: CPU time of that turn, ms", "turn_max_cpu_ms"),
            Row(DURABLE, "100 publishers: most CPU time of any turn, ms", "turn_busiest_ms"),
            Row(DURABLE, "100 publishers, persistence off: longest turn, ms", "memory_turn_max_ms"),
        ], beside_memory=True, turns=True, **needs),
        Scenario("durable-1", "durable", "durable --publishers 1 --clients 100 --window 1000", "tcp", [
            Row(DURABLE, "1 publisher, window 1,000: durable messages a second", "durable_per_s"),
            Row(DURABLE, "1 publisher, window 1,000: us a message", "broker_us"),
            Row(DURABLE, "1 publisher, window 1,000, persistence off: us a message", "memory_us"),
            Row(DURABLE, "1 publisher, window 1,000: CPU against persistence off", "cpu_ratio", ("max", 2)),
        ], beside_memory=True, **needs),
        Scenario("durable-single", "durable", "durable --publishers 1 --clients 100 --window 1", "tcp", [
            Row(DURABLE, "1 publisher, window 1: median us from PUBLISH to PUBACK", "p50_us"),
            Row(DURABLE, "the same run: median us of one sync", "sync_us"),
            Row(DURABLE, "the same run: median us of a commit as LMDB makes it", "commit_us"),
            Row(DURABLE, "PUBACK in syncs", "syncs", ("max", 1.5)),
            Row(DURABLE, "PUBACK in such commits", "commits"),
        ], syncs=True, **needs),
        Scenario("durable-rate", "durable", "durable --publishers 100 --clients 100 --window 1000 --rate 200000",
                 "tcp", [
            Row(DURABLE, "at 200,000 a second: durable messages a second", "durable_per_s", ("min", 195e3)),
            Row(DURABLE, "at 200,000 a second: longest turn of the loop, ms", "turn_max_ms", ("max", 5)),
            Row(DURABLE, "at 200,000 a second: CPU time of that turn, ms", "turn_max_cpu_ms"),
            Row(DURABLE, "at 200,000 a second: most CPU time of any turn, ms", "turn_busiest_ms"),
            Row(DURABLE, "at 200,000 a second: longest wait of an unrelated QoS 0 pair, ms", "stall_max_ms"),
            Row(DURABLE, "at 200,000 a second: p99 of that pair, ms", "stall_p99_ms"),
            Row(DURABLE, "at 200,000 a second, persistence off: longest wait, ms", "memory_stall_max_ms"),
        ], beside_memory=True, turns=True, **needs),
        start_scenario("start-messages", "1,000,000 queued messages", "--clients 1000 --count 1000"),
        start_scenario("start-retained", "1,000,000 retained messages",
                       "--clients 1 --count 1 --retained 1000000"),
        start_scenario("start-sessions", "100,000 sessions", "--clients 100000 --count 1",
                       Row(STARTS, "100,000 sessions: made a second", "sessions_per_s")),
    ]


def all_scenarios():
    basic = {"basic": True}
    result = [
        messages("fanout-ws", "fanout", "WebSocket fan-out 1 -> 1,000", "fanout", "ws",
                 ("ratio", 1.6), **basic),
        messages("fanout-ws-single", "fanout", "WebSocket fan-out 1 -> 1,000, one message at a time",
                 "fanout --window 1 --timed", "ws", ("ratio", 1.07), **basic),
        messages("fanout10-ws", "fanout", "WebSocket fan-out 1 -> 10", "fanout --subscribers 10",
                 "ws", ("ratio", 2.5), **basic),
        messages("fanout-ws-16", "fanout", "WebSocket fan-out 1 -> 1,000, 16 B payload",
                 "fanout --payload 16", "ws", ("ratio", 1.6), **basic),
        messages("fanout10-ws-64k", "large", "WebSocket fan-out 1 -> 10, 64 KiB payload",
                 "fanout --subscribers 10 --payload 65536", "ws", ("ratio", 1.07), **basic),
        messages("fanout10-tcp-64k", "large", "TCP fan-out 1 -> 10, 64 KiB payload",
                 "fanout --subscribers 10 --payload 65536", "tcp", None, **basic),
        messages("fanout10-ws-1m", "large", "WebSocket fan-out 1 -> 10, 1 MiB payload",
                 "fanout --subscribers 10 --payload 1048576 --window 160", "ws", None, **basic),
        messages("fanout10-tcp-1m", "large", "TCP fan-out 1 -> 10, 1 MiB payload",
                 "fanout --subscribers 10 --payload 1048576 --window 160", "tcp", None, **basic),
        messages("fanout-tcp", "fanout", "TCP fan-out 1 -> 1,000", "fanout", "tcp", ("ratio", 1.3),
                 **basic),
        messages("pairs-ws", "pairs", "WebSocket 100 pairs", "pairs", "ws", ("ratio", 1.6), **basic),
        messages("pairs1000-ws", "pairs", "WebSocket 1,000 pairs", "pairs --pairs 1000", "ws",
                 ("ratio", 1.1), **basic),
        messages("rate-ws", "rate", "WebSocket 1,000 pairs at 5,000 msg/s",
                 "pairs --pairs 1000 --rate 5000", "ws", ("ratio", 1.11),
                 latency_reach=("max", 0.15), **basic),
        messages("rate-tcp", "rate", "TCP 1,000 pairs at 5,000 msg/s",
                 "pairs --pairs 1000 --rate 5000", "tcp", None, **basic),
        messages("pairs-ws-qos1", "pairs", "WebSocket 100 pairs, QoS 1", "pairs --qos 1", "ws",
                 ("max", 1.4)),
        messages("pairs-ws-qos2", "pairs", "WebSocket 100 pairs, QoS 2", "pairs --qos 2", "ws",
                 ("max", 2.0)),
        messages("pairs-tcp", "pairs", "TCP 100 pairs", "pairs", "tcp", ("ratio", 1.56), **basic),
        messages("pairs-tcp-v5", "pairs", "TCP 100 pairs, MQTT 5", "pairs --mqtt 5", "tcp", None,
                 **basic),
        messages("pairs-tcp-qos1", "pairs", "TCP 100 pairs, QoS 1", "pairs --qos 1", "tcp",
                 ("max", 1.2)),
        messages("pairs-tcp-qos2-v5", "pairs", "TCP 100 pairs, QoS 2, MQTT 5",
                 "pairs --qos 2 --mqtt 5", "tcp"),
        messages("shared-ws", "shared", "WebSocket 100 -> 5 shared, QoS 1",
                 "shared --publishers 100 --subscribers 5 --qos 1", "ws", ("max", 1.6)),
        messages("subscriptions-tcp", "subscriptions",
                 "100,000 subscriptions (10 % with +, 1 % with #) of 100 clients, 3.2 matches a message",
                 "subscriptions --publishers 10 --subscribers 100", "tcp", ("max", 1.2)),
        messages("subscriptions1000-tcp", "subscriptions", "100,000 subscriptions of 1,000 clients",
                 "subscriptions --publishers 10", "tcp"),
        messages("fanout-wss", "tls", "wss fan-out 1 -> 1,000", "fanout", "wss", ("max", 3)),
        messages("pairs-wss", "tls", "wss 100 pairs", "pairs", "wss", ("max", 2)),
        Scenario("retained-tcp", "retained", "retained --count 50000", "tcp", [
            Row(STORED, "50,000 retained to a new subscriber: us a message", "broker_us",
                ("max", 0.4)),
            Row(STORED, "50,000 retained: bytes each", "bytes_each", ("max", 300)),
            Row(STORED, "50,000 retained: us to set one at QoS 1", "set_us"),
        ]),
        idle("ws", "WebSocket", ("max", 1024), ("ratio", 1.29)),
        idle("tcp", "TCP", ("max", 900), ("ratio", 1.14)),
        idle("wss", "wss", ("max", 12000), ("max", 700)),
        idle("tls", "TLS", ("max", 12000), ("max", 700)),
        storm("storm-ws", "ws", "WebSocket"),
        storm("storm-tcp", "tcp", "TCP"),
        storm("storm-wss", "wss", "wss", ("max", 700)),
        storm("storm-wss-resumed", "wss", "wss with session resumption", ("max", 150), "--resume"),
        Scenario("fairness-tcp", "fairness", "fairness --pairs 500 --rate 5000 --qos 1", "tcp", [
            Row(FAIRNESS, "500 TCP pairs, QoS 1: p99 quiet, ms", "quiet_p99_ms"),
            Row(FAIRNESS, "the same: p99 beside the flood, ms", "p99_ms"),
            Row(FAIRNESS, "the same: ratio of the two", "p99_ratio", ("max", 2)),
            Row(FAIRNESS, "the same: memory growth, MiB", "growth_mib"),
            Row(FAIRNESS, "the same: flood messages a second", "flood_per_s"),
        ]),
    ]
    result += durable_scenarios()
    result += [
        offline("offline-tcp", 200, ("queued_per_s", ("min", 200e3)), ("broker_us", ("max", 4)),
                ("memory_each", ("max", 32)), ("replayed_per_s", ("min", 300e3))),
        offline("offline-tcp-long", 5000),
    ]
    for count in (100, 1000, 10_000, 100_000, 1_000_000):
        result.append(scaling(f"scale-subscriptions-{count}", f"{count:,} subscriptions",
                              f"subscriptions --publishers 10 --subscriptions {count} "
                              "--subscribers 10"))
    for count in (10, 100, 1000, 10_000, 18_000):
        result.append(scaling(f"scale-connections-{count}", f"5 busy pairs among {count:,} connections",
                              f"pairs --pairs 5 --bystanders {count - 10}", basic=True))
    for depth in (0, 4, 16, 64):
        result.append(scaling(f"scale-depth-{depth}", f"topics {depth + 4} levels deep",
                              f"subscriptions --publishers 10 --subscriptions 10000 --depth {depth}"))
    for count in (100, 1000, 10_000, 100_000, 1_000_000):
        result.append(scaling(f"scale-retained-{count}", f"reading {count:,} retained messages",
                              f"retained --count {count}"))
    return result
