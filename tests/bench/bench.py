#!/usr/bin/env python3
"""Runs the load generator against Dunlin, Debian's mosquitto and others in turn, and prints tables.

    bench.py --build-dir build [--repeat 2] [--floor PATH] [--json FILE] [--markdown FILE] [SCENARIO...]

A SCENARIO is a name, a section or a pattern of names ("pairs*", "tls", "idle-ws", "*" for all); without any all but
the section `scaling` run. Every broker is started anew for every run, on CPU 0, with the generator on CPU 1; each scenario visits
all brokers before it repeats, so that a machine that slows down slows down everybody. Figures are medians of the
repeats, except for lost messages, of which the worst run counts.
"""

import argparse
import datetime
import fnmatch
import json
import math
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TRANSPORTS = ("tcp", "ws", "tls", "wss")
START_TIMEOUT_S = 10
LOADING_TIMEOUT_S = 120
SYNC_BLOCKS = 200
RUN_TIMEOUT_S = 240


# ---- what is measured


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
        self.restart = needs.get("restart", False)  # what is measured is the start with what the generator left


CPU = "CPU: broker microseconds a delivery"
RATE = "Throughput: deliveries a second"
LATENCY = "Latency: milliseconds from the intended send time, p50 / p99 / p99.9"
CONNECTIONS = "Connections"
STORED = "Stored messages"
DURABLE = "Durability: QoS 1 to offline sessions, persistence on; where a broker syncs before PUBACK, that is in it"
STARTS = "Starts with what is on disk"
FAIRNESS = "Fairness: a full-speed publisher whose subscriber does not read, beside normal clients"
SCALING = "Scaling: broker microseconds a delivery"


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
    return Scenario(name, "scaling", arguments, "tcp", [row], basic=basic)


def start_scenario(name, title, arguments):
    return Scenario(name, "durable", f"fill --publishers 4 {arguments}", "tcp", [
        Row(STARTS, f"{title}: seconds until the first CONNACK", "start_s"),
        Row(STARTS, f"{title}: resident MiB then", "resident_mib"),
    ], persistence=True, restart=True)


def durable_scenarios():
    needs = {"persistence": True}
    return [
        Scenario("durable-100", "durable", "durable --publishers 100 --clients 100 --window 200", "tcp", [
            Row(DURABLE, "100 publishers: durable messages a second", "durable_per_s", ("min", 200e3)),
            Row(DURABLE, "100 publishers: us a message", "broker_us"),
            Row(DURABLE, "100 publishers: CPU against persistence off", "cpu_ratio", ("max", 2)),
            Row(DURABLE, "100 publishers: memory a queued message", "bytes_each", ("max", 32)),
        ], beside_memory=True, **needs),
        Scenario("durable-1", "durable", "durable --publishers 1 --clients 100 --window 1000", "tcp", [
            Row(DURABLE, "1 publisher, window 1,000: durable messages a second", "durable_per_s"),
            Row(DURABLE, "1 publisher, window 1,000: us a message", "broker_us"),
            Row(DURABLE, "1 publisher, window 1,000: CPU against persistence off", "cpu_ratio", ("max", 2)),
        ], beside_memory=True, **needs),
        Scenario("durable-single", "durable", "durable --publishers 1 --clients 100 --window 1", "tcp", [
            Row(DURABLE, "1 publisher, window 1: median us from PUBLISH to PUBACK", "p50_us"),
            Row(DURABLE, "the same run: median us of one sync (4 KiB, fdatasync)", "sync_us"),
            Row(DURABLE, "PUBACK in syncs", "syncs", ("max", 1.5)),
        ], **needs),
        Scenario("durable-rate", "durable", "durable --publishers 100 --clients 100 --window 1000 --rate 200000",
                 "tcp", [
            Row(DURABLE, "at 200,000 a second: durable messages a second", "durable_per_s", ("min", 195e3)),
            Row(DURABLE, "the same: longest wait of an unrelated QoS 0 pair, ms", "stall_max_ms", ("max", 5)),
            Row(DURABLE, "the same: p99 of that pair, ms", "stall_p99_ms"),
            Row(DURABLE, "the same with persistence off: longest wait, ms", "memory_stall_max_ms"),
        ], beside_memory=True, **needs),
        start_scenario("start-messages", "1,000,000 queued messages", "--clients 1000 --count 1000"),
        start_scenario("start-retained", "1,000,000 retained messages",
                       "--clients 1 --count 1 --retained 1000000"),
        start_scenario("start-sessions", "100,000 sessions", "--clients 100000 --count 1"),
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
                 "100,000 subscriptions (10 % with +, 1 % with #), 3.2 matches a message",
                 "subscriptions --publishers 10", "tcp", ("max", 1.2)),
        messages("fanout-wss", "tls", "wss fan-out 1 -> 1,000", "fanout", "wss", ("max", 3)),
        messages("pairs-wss", "tls", "wss 100 pairs", "pairs", "wss", ("max", 2)),
        Scenario("retained-tcp", "retained", "retained --count 50000", "tcp", [
            Row(STORED, "50,000 retained to a new subscriber: us a message", "broker_us",
                ("max", 0.4)),
            Row(STORED, "50,000 retained: bytes each", "bytes_each", ("max", 300)),
            Row(STORED, "50,000 retained: us to set one at QoS 1", "set_us"),
        ]),
        Scenario("offline-tcp", "offline", "offline --publishers 4 --clients 100 --count 200", "tcp", [
            Row(STORED, "offline sessions, 100 x 200 QoS 1: queued a second", "queued_per_s",
                ("min", 200e3)),
            Row(STORED, "100 x 200: us to queue", "broker_us", ("max", 4)),
            Row(STORED, "100 x 200: replayed a second", "replayed_per_s", ("min", 300e3)),
            Row(STORED, "100 x 200: us to replay", "replay_us"),
            Row(STORED, "100 x 200: memory a queued message", "bytes_each", ("max", 32)),
        ], persistence=True),
        Scenario("offline-tcp-long", "offline", "offline --publishers 4 --clients 100 --count 5000",
                 "tcp", [
            Row(STORED, "offline sessions, 100 x 5,000 QoS 1: queued a second", "queued_per_s"),
            Row(STORED, "100 x 5,000: us to queue", "broker_us"),
            Row(STORED, "100 x 5,000: replayed a second", "replayed_per_s"),
            Row(STORED, "100 x 5,000: us to replay", "replay_us"),
            Row(STORED, "100 x 5,000: memory a queued message", "bytes_each"),
        ], persistence=True),
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


# ---- brokers


def free_ports(count):
    """Ports that nobody has now. They are all held until all are found, so that they differ."""
    sockets = []
    for _ in range(count):
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        sockets.append(probe)
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def wait_for_port(port, process):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.002)
    raise RuntimeError(f"{process.args[0]} does not listen on {port}")


def wait_for_connack(port, process):
    """Until the broker serves: the kernel accepts for a broker that listens and is still reading its files."""
    wait_for_port(port, process)
    with socket.create_connection(("127.0.0.1", port), LOADING_TIMEOUT_S) as client:
        client.settimeout(LOADING_TIMEOUT_S)
        client.sendall(b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05first")
        if client.recv(4)[:1] != b"\x20":
            raise RuntimeError(f"{process.args[0]} does not answer CONNECT")


def one_sync_us(directory):
    """The median of 4 KiB written into a file and synced, as a database's commit does at least once."""
    times = []
    descriptor = os.open(os.path.join(directory, "sync"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, SYNC_BLOCKS * 4096)
        os.fsync(descriptor)
        for block in range(SYNC_BLOCKS):
            begin = time.perf_counter()
            os.pwrite(descriptor, bytes(4096), block * 4096)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - begin) * 1e6)
    finally:
        os.close(descriptor)
    return statistics.median(times)


def resident_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) / 1024
    return None


def make_certificate(directory):
    """A P-256 certificate for this run."""
    key, certificate = (os.path.join(directory, name) for name in ("key.pem", "cert.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-keyout", key, "-out", certificate],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # mosquitto drops root's privileges before it reads them.
    os.chmod(key, 0o644)
    return certificate, key


def configuration(ports, directory, certificate, persistence, limits):
    """With `limits` the broker's own limits hold; without, nothing is dropped for being queued."""
    lines = []
    for transport in TRANSPORTS:
        lines.append(f"listener {ports[transport]} 127.0.0.1")
        lines.append(f"protocol {'websockets' if transport.startswith('w') else 'mqtt'}")
        if transport in ("tls", "wss"):
            lines += [f"certfile {certificate[0]}", f"keyfile {certificate[1]}"]
    lines += ["allow_anonymous true", "log_dest stderr", "log_type error"]
    if not limits:
        lines += ["max_inflight_messages 0", "max_queued_messages 0", "max_queued_bytes 0"]
    if persistence:
        data = os.path.join(directory, "data")
        os.makedirs(data)
        os.chmod(data, 0o777)
        lines += ["persistence true", f"persistence_location {data}/"]
    else:
        lines.append("persistence false")
    return "\n".join(lines) + "\n"


class Running:
    """A started broker: where it listens and which process to measure."""

    def __init__(self, host, ports, pid, process=None):
        self.host = host
        self.ports = ports
        self.pid = pid
        self.process = process

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Broker:
    def __init__(self, name, version):
        self.name = name
        self.version = version

    def can(self, _scenario):
        return True


class ConfiguredBroker(Broker):
    """Dunlin and mosquitto: the same configuration file serves both."""

    def __init__(self, name, version, binary, extra=""):
        super().__init__(name, version)
        self.binary = binary
        self.extra = extra

    def start(self, scenario, directory, bench, persistence=None):
        ports = dict(zip(TRANSPORTS, free_ports(len(TRANSPORTS))))
        path = os.path.join(directory, "broker.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(configuration(ports, directory, bench.certificate,
                                     scenario.persistence if persistence is None else persistence,
                                     limits=scenario.section == "fairness"))
            file.write(self.extra)
        process = bench.spawn([self.binary, "-c", path])
        try:
            wait_for_port(ports[scenario.transport], process)
        except RuntimeError:
            Running("", {}, 0, process).stop()
            raise
        return Running("127.0.0.1", ports, process.pid, process)


class Floor(Broker):
    """The logic-free reference server: exact topics at QoS 0 over TCP or WebSocket."""

    def __init__(self, binary):
        super().__init__("floor", "")
        self.binary = binary

    def can(self, scenario):
        return scenario.basic

    def start(self, scenario, _directory, bench):
        port = free_ports(1)[0]
        process = bench.spawn([self.binary, str(port)] + (["ws"] if scenario.transport == "ws" else []))
        wait_for_port(port, process)
        return Running("127.0.0.1", {scenario.transport: port}, process.pid, process)


class External(Broker):
    """A broker that somebody else started, on one port: NAME=HOST:PORT:PID."""

    def __init__(self, argument, transports):
        name, _, address = argument.partition("=")
        host, port, pid = address.split(":")
        super().__init__(name, "as found")
        self.host = host
        self.port = int(port)
        self.pid = int(pid)
        self.transports = transports

    def can(self, scenario):
        return scenario.transport in self.transports and not scenario.restart

    def start(self, _scenario, _directory, _bench):
        return Running(self.host, dict.fromkeys(TRANSPORTS, self.port), self.pid)


# ---- running


# What only the broker's pid can tell.
MEASURED_BY_PID = ("broker_us", "set_us", "replay_us", "bytes_each", "broker_cpu_fraction",
                   "idle_cpu_fraction", "resident_bytes", "resident_before_bytes")


def add_derived(report, pid):
    if pid == 0:
        report = {field: value for field, value in report.items() if field not in MEASURED_BY_PID}
    if "idle_cpu_fraction" in report:
        report["idle_cpu_percent"] = report["idle_cpu_fraction"] * 100
    if "p99_us" in report:
        report["latency"] = tuple(report[field] / 1000 for field in ("p50_us", "p99_us", "p999_us"))
    for field in ("p99_us", "quiet_p99_us", "stall_p99_us", "stall_max_us"):
        if field in report:
            report[field.replace("_us", "_ms")] = report[field] / 1000
    if "flood_messages" in report:
        report["flood_per_s"] = report["flood_messages"] / report["seconds"]
    if "resident_before_bytes" in report:
        report["growth_mib"] = (report["resident_bytes"] - report["resident_before_bytes"]) / 2**20
    return report


def merge(reports):
    """Medians of what is measured; the worst of what must not happen."""
    merged = {}
    for field, value in reports[0].items():
        values = [report.get(field) for report in reports]
        if any(each is None for each in values):
            merged[field] = None
        elif field in ("lost", "lost_clients", "stalls"):
            merged[field] = max(values)
        elif isinstance(value, tuple):
            merged[field] = tuple(statistics.median(part) for part in zip(*values))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            merged[field] = statistics.median(values)
        else:
            merged[field] = value
    return merged


class Bench:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.certificate = make_certificate(directory)
        self.cpus = sorted(os.sched_getaffinity(0))
        self.load = options.load or os.path.join(options.build_dir, "tests", "bench", "load")

    def spawn(self, command):
        """Starts a broker on its CPUs. Its messages are shown: a broker that warns is not measured quietly."""
        cpus = set(self.options.broker_cpus or self.cpus[:1])
        return subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                preexec_fn=lambda: os.sched_setaffinity(0, cpus))

    def run_load(self, scenario, running):
        command = [self.load] + scenario.arguments
        command += ["--host", running.host, "--port", str(running.ports[scenario.transport]),
                    "--transport", scenario.transport, "--pid", str(running.pid),
                    "--duration-ms", str(self.options.duration_ms),
                    "--warmup-ms", str(self.options.warmup_ms)]
        if len(self.cpus) > 1:
            command += ["--cpu", str(self.cpus[-1])]
        result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S,
                                check=False)
        if result.returncode != 0:
            raise RuntimeError(result.stderr.strip() or f"load ended with {result.returncode}")
        if result.stderr:
            print(f"    {result.stderr.strip()}", file=sys.stderr)
        return add_derived(json.loads(result.stdout), running.pid)

    def run_once(self, scenario, broker, **options):
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            os.chmod(directory, 0o755)
            sync_us = one_sync_us(directory) if scenario.section == "durable" else 0
            running = broker.start(scenario, directory, self, **options)
            try:
                report = self.run_load(scenario, running)
                if scenario.restart:
                    report.update(self.start_again(scenario, running))
            finally:
                running.stop()
        if sync_us:
            report["sync_us"] = sync_us
            if "p50_us" in report:
                report["syncs"] = report["p50_us"] / sync_us
        return report

    def start_again(self, scenario, running):
        """Stops the broker as an operator does, and starts it with the same files."""
        command = running.process.args
        running.stop()
        begin = time.monotonic()
        running.process = self.spawn(command)
        wait_for_connack(running.ports[scenario.transport], running.process)
        return {"start_s": time.monotonic() - begin, "resident_mib": resident_mib(running.process.pid)}

    def run_beside_memory(self, scenario, broker):
        report = self.run_once(scenario, broker)
        if scenario.beside_memory and isinstance(broker, ConfiguredBroker):
            memory = self.run_once(scenario, broker, persistence=False)
            report["cpu_ratio"] = report["broker_us"] / memory["broker_us"]
            report["memory_stall_max_ms"] = memory["stall_max_ms"]
        return report

    def run(self, scenario, brokers):
        """The merged report of each broker, or the reason why there is none."""
        reports = {broker.name: [] for broker in brokers}
        errors = {}
        for _ in range(self.options.repeat):
            for broker in brokers:
                if not broker.can(scenario) or broker.name in errors:
                    continue
                try:
                    reports[broker.name].append(self.run_beside_memory(scenario, broker))
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    errors[broker.name] = str(error)
                    print(f"    {broker.name}: {error}", file=sys.stderr)
        results = {}
        for name, values in reports.items():
            if name in errors:
                results[name] = {"error": errors[name]}
            elif values:
                results[name] = merge(values)
        return results


# ---- tables


def figure(value):
    """Three significant digits without an exponent."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "?"
    if isinstance(value, (tuple, list)):
        return " / ".join(figure(each) for each in value)
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 4)}f}"


def cell(report, field):
    if report is None:
        return "-"
    if "error" in report:
        return "failed"
    text = figure(report.get(field))
    notes = []
    if (report.get("lost") or 0) > 0:
        notes.append(f"lost {report['lost']:,.0f}")
    if (report.get("lost") or 0) < 0:
        notes.append(f"{-report['lost']:,.0f} too many")
    if (report.get("lost_clients") or 0) > 0:
        notes.append(f"{report['lost_clients']:,.0f} clients dropped")
    return f"{text} ({', '.join(notes)})" if notes else text


def comparable(report, field):
    value = None if report is None else report.get(field)
    return value[1] if isinstance(value, (tuple, list)) else value


def verdict(row, results, subject):
    """What to reach, and whether the subject does."""
    value = comparable(results.get(subject), row.field)
    floor = comparable(results.get("floor"), row.field)
    ratio = value / floor if value and floor else None
    if row.reach is None:
        return "-" if ratio is None else f"{figure(ratio)}x", ""
    kind, limit = row.reach
    shown = "-" if ratio is None else f"{figure(ratio)}x"
    if kind == "ratio":
        wanted, met = f"<= {limit}x floor", None if ratio is None else ratio <= limit
    elif kind == "min":
        wanted, met = f">= {limit:,.0f}", None if value is None else value >= limit
    else:
        wanted = f"{'p99 ' if row.field == 'latency' else ''}<= {limit:,}"
        met = None if value is None else value <= limit
    mark = "" if met is None else " yes" if met else " NO"
    return shown, wanted + mark


def growth(row, outcome, subject, smallest):
    """How much dearer than with the first size of its group; 1x is flat."""
    value = comparable(outcome.get(subject), row.field)
    first = smallest.setdefault(row.group, value)
    return f"{figure(value / first)}x the first" if value and first else ""


def tables(scenarios, results, names, subject):
    """[(section, header, lines)] in the order in which sections first appear."""
    sections = {}
    smallest = {}
    for scenario in scenarios:
        for row in scenario.rows:
            outcome = results[scenario.name]
            shown, wanted = verdict(row, outcome, subject)
            if row.group is not None:
                wanted = growth(row, outcome, subject, smallest)
            cells = [row.title] + [cell(outcome.get(name), row.field) for name in names]
            sections.setdefault(row.section, []).append(cells + [shown, wanted])
    header = ["scenario"] + names + [f"{subject} / floor", "to reach"]
    return [(section, header, lines) for section, lines in sections.items()]


def render(header, lines):
    widths = [max(len(line[i]) for line in [header] + lines) for i in range(len(header))]
    def one(line):
        return "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |"
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([one(header), rule] + [one(line) for line in lines])


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def machine(brokers, options):
    """The lines that say where, when and of what the figures are."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{broker.name} {broker.version}".strip() for broker in brokers)
    with open("/proc/loadavg", encoding="utf-8") as file:
        load = file.read().split()[0]
    return [
        f"- Date: {datetime.date.today().isoformat()}",
        f"- Machine: {cpu_model()}, {os.cpu_count()} CPUs, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, load before the run {load}",
        f"- Brokers: {versions}",
        f"- Each figure: median of {options.repeat} runs of {options.duration_ms / 1000:g} s after "
        f"{options.warmup_ms / 1000:g} s of warm-up; 64-byte payloads, QoS 0 and MQTT 3.1.1 unless said",
    ]


# ---- command line


def command_version(command, fallback):
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return fallback
    words = (output.stdout + output.stderr).split()
    return next((word for word in words if word[:1].isdigit()), fallback)


def find_brokers(options):
    brokers = []
    floor = options.floor or os.environ.get("FLOOR")
    if floor:
        brokers.append(Floor(floor))
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if mosquitto:
        brokers.append(ConfiguredBroker("mosquitto", command_version([mosquitto, "-h"], ""), mosquitto))
    for argument in options.broker:
        brokers.append(External(argument, options.broker_transports.split(",")))
    dunlin = options.dunlin or os.path.join(options.build_dir, "dunlin")
    if os.access(dunlin, os.X_OK):
        extra = "".join(f"{line}\n" for line in ["max_subscriptions 0"] + options.set)
        brokers.append(ConfiguredBroker("dunlin", command_version([dunlin, "--version"], ""), dunlin, extra))
    else:
        print(f"no {dunlin}: it is left out", file=sys.stderr)
    if options.only:
        brokers = [broker for broker in brokers if broker.name in options.only.split(",")]
    return brokers


def choose(patterns):
    every = all_scenarios()
    if not patterns:
        return [scenario for scenario in every if scenario.section != "scaling"]
    chosen = []
    for scenario in every:
        if any(pattern == scenario.section or fnmatch.fnmatch(scenario.name, pattern)
               for pattern in patterns):
            chosen.append(scenario)
    if not chosen:
        names = ", ".join(scenario.name for scenario in every)
        raise SystemExit(f"no such scenario; there are: {names}")
    return chosen


def parse_arguments():
    parser = argparse.ArgumentParser(description="Dunlin's benchmarks")
    parser.add_argument("scenarios", nargs="*", help="names, sections or patterns")
    parser.add_argument("--build-dir", default="build")
    parser.add_argument("--load", help="the load generator, if not in the build directory")
    parser.add_argument("--dunlin", help="the broker, if not in the build directory")
    parser.add_argument("--set", action="append", default=[], metavar="'KEY VALUE'",
                        help="a line more in Dunlin's configuration, such as 'io_threads 1'")
    parser.add_argument("--floor", help="the reference server; the environment's FLOOR otherwise")
    parser.add_argument("--broker", action="append", default=[], metavar="NAME=HOST:PORT:PID",
                        help="a running broker; PID 0 when it is on another machine")
    parser.add_argument("--broker-transports", default="tcp",
                        help="what the port of --broker speaks, such as tcp,ws")
    parser.add_argument("--only", help="only these brokers, with commas")
    parser.add_argument("--broker-cpus", type=lambda text: [int(cpu) for cpu in text.split(",")],
                        help="CPUs of the broker, such as 0,1")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--duration-ms", type=int, default=3000)
    parser.add_argument("--warmup-ms", type=int, default=500)
    parser.add_argument("--json", help="write every merged report to this file")
    parser.add_argument("--markdown", help="write the tables to this file; into one that exists, between its marks")
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    return parser.parse_args()


BEGIN_MARK = "<!-- begin of what ./dev bench writes -->\n"
END_MARK = "<!-- end of what ./dev bench writes -->\n"


def around_marks(path):
    """What a file has outside its marks, which stays; nothing when there is no such file."""
    if not os.path.exists(path):
        return "", ""
    with open(path, encoding="utf-8") as file:
        before, begin, rest = file.read().partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise SystemExit(f"{path} has no marks to write between: {BEGIN_MARK.strip()} ... {END_MARK.strip()}")
    return before + begin, end + after


def write_files(options, head, made, results):
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"about": head, "results": results}, file, indent=1)
            file.write("\n")
    if options.markdown:
        text = "\n".join(head) + "\n"
        for section, header, lines in made:
            text += f"\n### {section}\n\n{render(header, lines)}\n"
        before, after = around_marks(options.markdown)
        with open(options.markdown, "w", encoding="utf-8") as file:
            file.write(before + text + after)


def main():
    options = parse_arguments()
    if options.list:
        for scenario in all_scenarios():
            print(f"{scenario.name:24} {scenario.section:14} {scenario.rows[0].title}")
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    scenarios = choose(options.scenarios)
    brokers = find_brokers(options)
    if not brokers:
        raise SystemExit("no broker to measure")
    if options.markdown:
        around_marks(options.markdown)  # better now than after an hour
    names = [broker.name for broker in brokers]
    subject = "dunlin" if "dunlin" in names else names[-1]
    head = machine(brokers, options)
    results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.chmod(directory, 0o755)
        bench = Bench(options, directory)
        for scenario in scenarios:
            results[scenario.name] = bench.run(scenario, brokers)
            shown = ", ".join(f"{name} {cell(results[scenario.name].get(name), scenario.rows[0].field)}"
                              for name in names)
            print(f"{scenario.rows[0].title}: {shown}", file=sys.stderr, flush=True)
    made = tables(scenarios, results, names, subject)
    print("\n" + "\n".join(head))
    for section, header, lines in made:
        print(f"\n{section}\n\n{render(header, lines)}")
    write_files(options, head, made, results)
    failed = any("error" in report for outcome in results.values() for report in outcome.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
