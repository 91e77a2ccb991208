"""Paho as a client of the broker under test: paho_client.py TRANSPORT PORT VERSION CAFILE.

Exit code 0 when everything arrived as it should; paho.test.mjs runs it for each transport.
"""
import os
import queue
import socket
import ssl
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TRANSPORT, PORT, VERSION, CAFILE = sys.argv[1:5]
PROTOCOL = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[VERSION]
ROOT = f"paho/{TRANSPORT}/{VERSION}/{os.getpid()}"
WAIT_S = 10


class Client:
    """A paho client whose callbacks put what happens into queues that the test waits on."""

    def __init__(self, name, clean=True, will=None):
        options = {"client_id": f"{name}-{os.getpid()}", "protocol": PROTOCOL}
        options["transport"] = "websockets" if TRANSPORT.startswith("ws") else "tcp"
        if PROTOCOL != mqtt.MQTTv5:
            options["clean_session"] = clean
        if hasattr(mqtt, "CallbackAPIVersion"):  # paho 2, which Debian 13 has
            options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        self.paho = mqtt.Client(**options)
        self.clean = clean
        self.connected, self.messages, self.subscribed = queue.Queue(), queue.Queue(), queue.Queue()
        self.paho.on_connect = lambda c, u, flags, reason, *rest: self.connected.put((flags, reason))
        self.paho.on_message = lambda c, u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda c, u, mid, *rest: self.subscribed.put(mid)
        if TRANSPORT in ("tls", "wss"):
            self.paho.tls_set(ca_certs=CAFILE, cert_reqs=ssl.CERT_REQUIRED)
        if will:
            self.paho.will_set(will, "gone", qos=1)
        self.connect()

    def connect(self):
        options = {}
        if PROTOCOL == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if self.clean else 300
            options = {"clean_start": self.clean, "properties": properties}
        self.paho.connect("127.0.0.1", int(PORT), keepalive=30, **options)
        self.paho.loop_start()
        flags, reason = self.connected.get(timeout=WAIT_S)
        assert reason == 0, f"connect refused: {reason}"
        self.session_present = flags["session present"]

    def subscribe(self, topic, qos):
        code, mid = self.paho.subscribe(topic, qos)
        assert code == 0 and self.subscribed.get(timeout=WAIT_S) == mid

    def publish(self, topic, payload, qos, retain=False, **more):
        info = self.paho.publish(topic, payload, qos, retain, **more)
        info.wait_for_publish(WAIT_S)
        assert info.is_published(), "publish was not acknowledged"

    def receive(self):
        return self.messages.get(timeout=WAIT_S)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def cut(self):
        """Loses the network without a DISCONNECT."""
        self.paho.loop_stop()
        sock = self.paho.socket()
        # A WebSocket wrapper has no shutdown; the descriptor below it does.
        raw = socket.socket(fileno=os.dup(sock.fileno()))
        raw.shutdown(socket.SHUT_RDWR)
        raw.close()


def main():
    a, b = Client("a"), Client("b")

    a.subscribe(f"{ROOT}/qos/#", 2)
    for qos in (0, 1, 2):
        b.publish(f"{ROOT}/qos/{qos}", f"at {qos}", qos)
    got = sorted((m.topic[-1:], m.payload, m.qos) for m in (a.receive() for _ in range(3)))
    assert got == [(str(q), b"at %d" % q, q) for q in (0, 1, 2)], got

    payload = os.urandom(300_000)
    b.publish(f"{ROOT}/qos/large", payload, 1)
    assert a.receive().payload == payload, "large payload changed"

    b.publish(f"{ROOT}/kept", "kept", 1, retain=True)
    a.subscribe(f"{ROOT}/kept", 1)
    message = a.receive()
    assert (message.payload, message.retain) == (b"kept", True)
    b.publish(f"{ROOT}/kept", "", 1, retain=True)
    assert a.receive().payload == b""

    a.subscribe(f"{ROOT}/order", 1)
    for i in range(300):
        b.paho.publish(f"{ROOT}/order", str(i), 1)
    assert [int(a.receive().payload) for _ in range(300)] == list(range(300))

    a.subscribe(f"{ROOT}/will", 1)
    Client("victim", will=f"{ROOT}/will").cut()
    assert a.receive().payload == b"gone"

    if PROTOCOL == mqtt.MQTTv5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "text/plain"
        properties.UserProperty = [("k", "1"), ("k", "2")]
        b.publish(f"{ROOT}/qos/properties", "x", 1, properties=properties)
        got = a.receive().properties
        assert got.ContentType == "text/plain" and got.UserProperty == [("k", "1"), ("k", "2")]

    session = Client("session", clean=False)
    session.subscribe(f"{ROOT}/session", 1)
    session.close()
    for i in range(20):
        b.publish(f"{ROOT}/session", str(i), 1)
    session = Client("session", clean=False)
    assert session.session_present or PROTOCOL == mqtt.MQTTv31
    assert [int(session.receive().payload) for _ in range(20)] == list(range(20))

    for client in (a, b, session):
        client.close()


main()
