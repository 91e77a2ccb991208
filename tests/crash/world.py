"""A broker that is killed and started again on the same files, and the clients around it."""
import os
import random
import selectors
import signal
import socket
import subprocess
import time

import client  # noqa: F401  (finds the codec)
import mqtt
from model import Model, Publication

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A process, its configuration and its files."""

    def __init__(self, binary, directory, settings=(), wrapper=()):
        self.command = [*wrapper, binary, "-c", os.path.join(directory, "broker.conf")]
        self.log_path = os.path.join(directory, "log")
        data = os.path.join(directory, "data")
        os.makedirs(data, exist_ok=True)
        self.port = free_port()
        lines = ["listener %d 127.0.0.1" % self.port, "allow_anonymous true", "log_dest stderr",
                 "persistence true", "persistence_location %s/" % data, *settings]
        with open(self.command[-1], "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        self.process = None

    def spawn(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_accepting(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise mqtt.TestFailure("the broker ended at its start with %d" % self.process.returncode)
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.002)
        raise mqtt.TestFailure("the broker does not accept connections")

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise mqtt.TestFailure("the broker does not stop") from None
        if code != 0:
            raise mqtt.TestFailure("the broker ended with %d" % code)

    def log_tail(self):
        with open(self.log_path, "rb") as file:
            return file.read()[-3000:].decode(errors="replace")


class World:
    """Devices, their model and the broker. One thread: what the model is told has one order."""

    def __init__(self, broker, seed, network_only=False):
        self.broker, self.port = broker, broker.port
        self.network_only = network_only  # all connections are cut, and the broker lives on
        self.random = random.Random(seed)
        self.model = Model()
        self.devices = {}
        self.publications = {}
        self.is_dead = True
        self.kill_in = None     # acknowledgements until the broker is killed
        self.killed_at = None
        self.start_s = []       # how long each start took

    def now(self):
        """What is read after the broker's end came before it."""
        return self.killed_at if self.is_dead and self.killed_at else time.time()

    # ---- the broker's lives

    def start(self, killed_first=0):
        """Starts the broker; first `killed_first` times only to kill it while it starts."""
        begin = time.monotonic()
        if self.network_only and self.broker.process is not None:
            time.sleep(0.05)  # it finishes what it had received
            killed_first = 0
        for _ in range(killed_first):
            self.broker.spawn()
            time.sleep(self.random.uniform(0, 0.03))
            self.broker.kill()
            begin = time.monotonic()
        if self.broker.process is None or self.broker.process.poll() is not None:
            self.broker.spawn()
        self.broker.wait_accepting()
        self.start_s.append(time.monotonic() - begin)
        self.is_dead = False
        self.model.restarted(self.now())

    def crash(self, gently=False):
        """Ends the broker if it has not been, and reads what it sent before."""
        if not self.is_dead:
            self.kill(gently)
        for device in self.devices.values():
            for _ in range(1 + len(device.older)):
                device.read()
        for device in self.devices.values():
            device.note("---- crash")
        self.model.crashed(self.killed_at, not self.network_only)
        for device in self.devices.values():
            device.forget()

    def kill(self, gently=False):
        self.killed_at = self.now()
        self.is_dead = True
        self.kill_in = None
        if self.network_only:
            return
        if gently:
            self.broker.terminate()
        else:
            self.broker.kill()

    def on_acknowledged(self, _kind):
        """The next thing that happens after an acknowledgement may be the end."""
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in <= 0:
                self.kill()

    # ---- turning

    def pump(self, timeout_s):
        """One turn: what is to be sent goes, what has come is handled."""
        with selectors.SelectSelector() as selector:
            for device in self.devices.values():
                if device.connection is None:
                    continue
                done = device.connection.flush()
                newest = device.connection.socket
                for each in device.sockets():
                    events = selectors.EVENT_READ
                    if each.socket is newest and not done:
                        events |= selectors.EVENT_WRITE
                    selector.register(each.socket, events, device)
            if not selector.get_map():
                time.sleep(timeout_s)
                return
            for key, events in selector.select(timeout_s):
                if events & selectors.EVENT_READ and not self.is_dead:
                    key.data.read()

    def pump_until(self, condition, what, patience_s=6.0):
        """Turns until `condition()`, as long as something moves."""
        model, moved, at = self.model, None, time.monotonic()
        while not condition():
            self.pump(0.02)
            now = (model.acknowledgements, model.deliveries)
            if now != moved:
                moved, at = now, time.monotonic()
            elif time.monotonic() - at > patience_s:
                return what
            if self.broker.process.poll() is not None and not self.is_dead:
                raise mqtt.TestFailure("the broker ended with %d" % self.broker.process.returncode)
        return None

    # ---- messages

    def publication(self, publisher, topic, qos, retain=False, size=0, expiry_s=None, clear=False):
        number = len(self.publications) + 1
        payload = b""
        if not clear:
            payload = b"%d:" % number
            payload += self.random.randbytes(max(0, size - len(payload)))
        made = Publication(number, publisher, topic, qos, payload, retain, expiry_s)
        self.publications[number] = made
        return made
