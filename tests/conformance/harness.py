"""What a test is, which statements it proves, and what it may use."""
import threading
import time

import mqtt

TESTS = {}      # name: Test
LABEL = {3: "3.1", 4: "3.1.1", 5: "5.0"}


class Skip(Exception):
    """The test does not apply to this server's configuration."""


class Test:
    def __init__(self, function, v311, v5, versions, websocket):
        self.name, self.function = function.__name__, function
        self.v311 = ["MQTT-" + s for s in v311.split()]
        self.v5 = ["MQTT-" + s for s in v5.split()]
        self.versions, self.websocket = versions, websocket


def proves(v311="", v5="", versions=None, websocket=False):
    """Registers a test. `v311` and `v5`: the numbers of the statements it proves, without "MQTT-".

    A test runs once for each version in `versions`: by default those whose statements it names. One with
    `websocket` runs over WebSocket only.
    """
    def register(function):
        chosen = versions or tuple(v for v, ids in ((4, v311), (5, v5)) if ids)
        if not chosen:
            raise ValueError("%s names neither statements nor versions" % function.__name__)
        if function.__name__ in TESTS:
            raise ValueError("two tests are called %s" % function.__name__)
        TESTS[function.__name__] = Test(function, v311, v5, chosen, websocket)
        return function
    return register


class Broker:
    def __init__(self, host, port, websocket, ws_port):
        self.host, self.port, self.websocket, self.ws_port = host, port, websocket, ws_port

    def stream(self, websocket=None, **arguments):
        if self.websocket if websocket is None else websocket:
            return mqtt.WsStream(self.host, self.ws_port, **arguments)
        return mqtt.TcpStream(self.host, self.port)


class Context:
    """One run of one test: its clients are closed at its end, its names are its own."""
    _count = 0
    _lock = threading.Lock()
    _run = "%x" % (int(time.time() * 1000) & 0xFFFFFF)

    def __init__(self, broker, version):
        self.broker, self.v = broker, version
        self.clients = []
        with Context._lock:
            Context._count += 1
            self.number = Context._count
        self.names = 0

    def id(self):
        """A client identifier of at most 23 letters and digits that no other test has."""
        self.names += 1
        return "c%sx%dx%d" % (self._run, self.number, self.names)

    def topic(self, tail=""):
        """A topic that no other test has."""
        self.names += 1
        return "t%s/%d/%d%s" % (self._run, self.number, self.names, tail)

    def open(self, version=None, stream=None):
        """A connection on which nothing has been sent."""
        client = mqtt.Client(stream or self.broker.stream(), version or self.v)
        self.clients.append(client)
        return client

    def client(self, client_id=None, version=None, **arguments):
        """A connected client."""
        client = self.open(version)
        p = client.connect(self.id() if client_id is None else client_id, **arguments)
        if p.reason:
            mqtt.fail("the connection was refused: %r", p)
        return client

    def session(self, client_id=None, expiry=120, version=None, clean=False, **arguments):
        """A client whose session outlives the connection."""
        if (version or self.v) == 5:
            properties = dict(arguments.pop("properties", ()))
            properties.setdefault("session_expiry", expiry)
            arguments["properties"] = properties
        return self.client(client_id, version, clean=clean, **arguments)

    def fence(self, publisher, *subscribers):
        """What reached each subscriber of all that `publisher` has sent: a message sent after it arrives last."""
        topic = self.topic("/fence")
        collected = []
        for s in subscribers:
            collected.append(list(s.subscribe(topic).before))
        publisher.send(mqtt.publish(publisher.version, topic, b"fence"))
        for s, got in zip(subscribers, collected):
            while True:
                p = s._next("the fence message")
                if p.kind == mqtt.PUBLISH and p.topic == topic:
                    break
                got.append(p)
        return collected

    def nothing(self, publisher, *subscribers):
        for got in self.fence(publisher, *subscribers):
            if got:
                mqtt.fail("unexpected %r", got)

    def refused(self, raw, *codes, version=None):
        """A CONNECT that breaks the standard: 3.x closes without CONNACK; 5.0 may send CONNACK with one of `codes`."""
        c = self.open(version)
        c.send(raw)
        try:
            got = c.drain()
        except mqtt.TestFailure as failure:
            mqtt.fail("%s after %s", failure, raw[:100].hex(" "))
        if c.version < 5 and got:
            mqtt.fail("expected the end of the connection without CONNACK, got %r", got)
        if got and (len(got) != 1 or got[0].kind != mqtt.CONNACK or got[0].reason not in codes):
            mqtt.fail("expected CONNACK %s or none, got %r", "/".join("%#04x" % x for x in codes), got)
        if got and got[0].session_present:
            mqtt.fail("session present in %r", got[0])

    @staticmethod
    def wait(seconds):
        """Lets the server's clock pass an interval that the standard names; never waits for an event."""
        time.sleep(seconds)

    def close(self):
        for client in self.clients:
            client.stream.close()


def same(what, got, wanted):
    if got != wanted:
        mqtt.fail("%s: got %r, expected %r", what, got, wanted)


def check(condition, text, *args):
    if not condition:
        mqtt.fail(text, *args)
