"""The brokers that are measured: how each is found, configured and started."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

TRANSPORTS = ("tcp", "ws", "tls", "wss")
START_TIMEOUT_S = 10
LOADING_TIMEOUT_S = 120


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


def data_directory(directory):
    """Where the broker of a run keeps its files: made, and free to all, since mosquitto changes its user."""
    data = os.path.join(directory, "data")
    os.makedirs(data)
    os.chmod(data, 0o777)
    return data


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
        data = data_directory(directory)
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


def started(process, ports, transport):
    """The broker once it listens; one that does not is stopped."""
    running = Running("127.0.0.1", ports, process.pid, process)
    try:
        wait_for_port(ports[transport], process)
    except RuntimeError:
        running.stop()
        raise
    return running


class Broker:
    """`note` says what of the promise that a PUBACK makes it keeps, where that is not all."""

    def __init__(self, name, version, note=""):
        self.name = name
        self.version = version
        self.note = note

    def can(self, _scenario):
        return True


class ConfiguredBroker(Broker):
    """Dunlin and mosquitto: the same configuration file serves both."""

    def __init__(self, name, version, binary, extra="", note=""):
        super().__init__(name, version, note)
        self.binary = binary
        self.extra = extra

    def can(self, scenario):
        return scenario.section != "scaling" or self.name == "dunlin"

    def start(self, scenario, directory, bench, persistence=None):
        ports = dict(zip(TRANSPORTS, free_ports(len(TRANSPORTS))))
        path = os.path.join(directory, "broker.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(configuration(ports, directory, bench.certificate,
                                     scenario.persistence if persistence is None else persistence,
                                     limits=scenario.section == "fairness"))
            file.write(self.extra)
        process = bench.spawn([self.binary, "-c", path])
        return started(process, ports, scenario.transport)


class Nats(Broker):
    """NATS with JetStream, whose MQTT listener keeps sessions and QoS 1 messages in files."""

    def __init__(self, version, binary):
        self.binary = binary
        self.synced = self.takes("sync_interval: always")
        super().__init__("nats", version, "" if self.synced else "synced every 2 minutes")

    def takes(self, line):
        """Whether this version knows a line of the `jetstream` block; the one named came with 2.10."""
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(f"jetstream {{ {line} }}\n")
            file.flush()
            test = subprocess.run([self.binary, "-t", "-c", file.name], capture_output=True, check=False)
        return test.returncode == 0

    def can(self, scenario):
        """Only what is durable, and of that not what takes it minutes."""
        long = scenario.restart or scenario.name == "offline-tcp-long" or "--rate" in scenario.arguments
        return scenario.persistence and scenario.transport == "tcp" and not long

    def start(self, scenario, directory, bench):
        own, port = free_ports(2)
        path = os.path.join(directory, "broker.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write("server_name: bench\n"
                       f"listen: 127.0.0.1:{own}\n"
                       f"log_file: {json.dumps(os.path.join(directory, 'log'))}\n"
                       "jetstream {\n"
                       f"  store_dir: {json.dumps(data_directory(directory))}\n"
                       f"{'  sync_interval: always' if self.synced else ''}\n"
                       "}\n"
                       f"mqtt {{ listen: 127.0.0.1:{port} }}\n")
        process = bench.spawn([self.binary, "-c", path])
        return started(process, {scenario.transport: port}, scenario.transport)


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
        return started(process, {scenario.transport: port}, scenario.transport)


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


def find_program(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def command_version(command, fallback):
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return fallback
    words = (output.stdout + output.stderr).split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), fallback)


def find_brokers(options):
    brokers = []
    floor = options.floor or os.environ.get("FLOOR")
    if floor:
        brokers.append(Floor(floor))
    mosquitto = find_program("mosquitto")
    if mosquitto:
        brokers.append(ConfiguredBroker("mosquitto", command_version([mosquitto, "-h"], ""), mosquitto,
                                        note="not synced"))
    nats = find_program("nats-server")
    if nats:
        brokers.append(Nats(command_version([nats, "--version"], ""), nats))
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
