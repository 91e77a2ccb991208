"""MQTT clients that note every packet in the model: several in one thread, over TCP and WebSocket.

A Device is what outlives connections at the client's end: its session state, that is what it has published and not
seen acknowledged, and what it owes answers for. The codec is that of tests/conformance, which refuses whatever the
standard does not allow.
"""
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import mqtt  # noqa: E402
from mqtt import (CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC,  # noqa: E402
                  PUBREL, SUBACK, UNSUBACK)

IDENTIFIERS = 40  # few, so that they are used again soon
UPGRADE = ("GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Key: ZHVubGluIGNyYXNoIHRlcw==\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Protocol: mqtt\r\n\r\n").encode()


class Connection:
    """A byte stream that does not block. Over WebSocket it sends before the upgrade has been answered, too."""

    def __init__(self, port, websocket):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.websocket, self.upgraded = websocket, not websocket
        self.raw, self.buffer, self.unsent = b"", b"", bytearray()
        self.ended = False
        if websocket:
            self.unsent += UPGRADE

    def send(self, data):
        if self.websocket:
            head = bytes([0x82])
            if len(data) < 126:
                head += bytes([0x80 | len(data)])
            elif len(data) < 65536:
                head += bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
            else:
                head += bytes([0x80 | 127]) + len(data).to_bytes(8, "big")
            data = head + bytes(4) + data  # a mask of zeros changes nothing
        self.unsent += data

    def flush(self):
        """Returns whether everything is on its way."""
        while self.unsent and not self.ended:
            try:
                del self.unsent[:self.socket.send(self.unsent)]
            except BlockingIOError:
                return False
            except OSError:
                self.unsent.clear()  # what came before the end is still to be read
        return True

    def read(self):
        """Takes what has come. Returns False at the end of the stream."""
        while not self.ended:
            try:
                data = self.socket.recv(262144)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                self.ended = True
            elif self.websocket:
                self.raw += data
                self._frames()
                if self.ended:
                    return False
            else:
                self.buffer += data
        return False

    def _frames(self):
        if not self.upgraded:
            head, separator, rest = self.raw.partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                mqtt.fail("the upgrade was answered with %r", head)
            self.upgraded, self.raw = True, rest
        while len(self.raw) >= 2:
            size, at = self.raw[1] & 0x7F, 2
            if size >= 126:
                at = 4 if size == 126 else 10
                if len(self.raw) < at:
                    return
                size = int.from_bytes(self.raw[2:at], "big")
            if len(self.raw) < at + size:
                return
            opcode, data = self.raw[0] & 15, self.raw[at:at + size]
            self.raw = self.raw[at + size:]
            if opcode in (0, 2):
                self.buffer += data
            elif opcode == 8:  # the broker waits for an answer before it closes
                self.ended = True
                return

    def packets(self, version):
        """The complete packets that have come."""
        buffer, at = self.buffer, 0
        while True:
            size = shift = 0
            position = at + 1
            while position < len(buffer):
                byte = buffer[position]
                size |= (byte & 0x7F) << shift
                shift += 7
                position += 1
                if not byte & 0x80:
                    break
            else:
                break
            if len(buffer) < position + size:
                break
            body = buffer[position:position + size]
            yield mqtt.decode(version, buffer[at] >> 4, buffer[at] & 15, body, buffer[at:position + size])
            at = position + size
        self.buffer = buffer[at:]

    def close(self):
        self.ended = True
        self.socket.close()


class Device:
    """One client identifier. `world` has model, clock, port, is_dead and on_acknowledged."""

    def __init__(self, world, name, version=5, websocket=False, expiry_s=3600):
        self.world, self.model = world, world.model
        self.name, self.version, self.websocket = name, version, websocket
        self.expiry_s = expiry_s
        self.connection = None
        self.number = 0            # of the connection
        self.older = []            # connections that were taken over and have not ended
        self.ready = False         # CONNACK came
        self.window = 8
        self.outgoing = {}         # packet identifier: [publication, released]
        self.identifier = 0
        self.pending = None        # SUBSCRIBE or UNSUBSCRIBE: its packet identifier
        self.hold_answers = False
        self.answers = []          # (packet type, packet identifier) that are held back
        self.pings = 0
        self.filters = {}          # acknowledged subscriptions
        self.on_message = None     # takes the place of the model
        self.history = []          # what was sent and received, for --trace
        world.devices[name] = self

    def note(self, text, *arguments):
        self.history.append("%.4f %s" % (self.world.now(), text % arguments))

    # ---- connections

    def connect(self, clean=False, will=None):
        """Takes over the connection that there is. Returns False when the broker does not accept."""
        world = self.world
        try:
            connection = Connection(world.port, self.websocket)
        except OSError:
            return False
        if self.connection is not None:
            self.older.append((self.connection, self.number))
        self.connection = connection
        self.number += 1
        self.ready, self.pending, self.answers, self.pings = False, None, [], 0
        properties = {"session_expiry": self.expiry_s} if self.expiry_s else {}
        self.note("-> CONNECT (%d)%s", self.number, " Clean Start" if clean else "")
        wire_will = None
        if will is not None:
            wire_will = mqtt.Will(will.topic, will.payload, will.qos, will.retain,
                                  {"will_delay": int(will.delay_s)} if will.delay_s else {})
        if clean:
            self.filters.clear()
        self.model.connect_sent(self.name, self.number, clean, self.lifetime(clean), world.now(), will)
        connection.send(mqtt.connect(self.version, self.name, clean=clean, will=wire_will,
                                     properties=properties))
        connection.flush()
        return True

    def lifetime(self, clean):
        """How long the session outlives the connection. Before 5.0 Clean Session alone decides (3.1.2.4)."""
        if self.version == 5:
            return self.expiry_s
        return 0 if clean else float("inf")

    def drop(self):
        """The network fails."""
        self.note("connection cut")
        self._close()
        self.model.closed(self.name, self.world.now())

    def disconnect(self, expiry_s=None):
        """A normal end."""
        self.note("-> DISCONNECT")
        properties = None if expiry_s is None else {"session_expiry": expiry_s}
        self.connection.send(mqtt.disconnect(self.version, 0 if properties else None, properties))
        self.connection.flush()
        self._close()
        self.model.disconnect_sent(self.name, self.world.now(), expiry_s)

    def _close(self):
        self.connection.close()
        self.forget()

    def forget(self):
        """No connection any more."""
        for connection in [self.connection] + [each for each, _ in self.older]:
            if connection is not None:
                connection.close()
        self.connection, self.older = None, []
        self.ready, self.pending, self.answers = False, None, []

    def sockets(self):
        """Those to read from now. A connection that took over waits for the end of the older one."""
        if self.older:
            return [self.older[0][0]]
        return [self.connection] if self.connection else []

    # ---- sending

    def _identifier(self):
        for _ in range(IDENTIFIERS):
            self.identifier = self.identifier % IDENTIFIERS + 1
            if self.identifier not in self.outgoing and self.identifier != self.pending:
                return self.identifier
        return None

    def may_publish(self):
        return self.ready and len(self.outgoing) < self.window and not self.connection.unsent

    def publish(self, publication):
        pid = self._identifier()
        self.outgoing[pid] = [publication, False]
        self._send_publish(pid, publication, False)

    def _send_publish(self, pid, publication, dup):
        properties = [("user", ("n", str(publication.number)))] if self.version == 5 else []
        if publication.expiry_s is not None:
            properties.append(("message_expiry", publication.expiry_s))
        self.note("-> PUBLISH #%d %s%s", pid, publication, " DUP" if dup else "")
        self.model.published(publication, self.world.now())
        self.connection.send(mqtt.publish(self.version, publication.topic, publication.payload,
                                          publication.qos, pid, publication.retain, dup, properties))

    def subscribe(self, filters):
        """`filters`: (filter, QoS, Retain Handling) each."""
        self.pending = pid = self._identifier()
        self.asked = filters
        self.note("-> SUBSCRIBE %s", filters)
        self.model.subscribing(self.name, filters)
        self.connection.send(mqtt.subscribe(self.version, pid, [
            (text, mqtt.options(qos, retain_handling=handling if self.version == 5 else 0))
            for text, qos, handling in filters]))

    def unsubscribe(self, filters):
        self.pending = pid = self._identifier()
        self.asked = filters
        self.note("-> UNSUBSCRIBE %s", filters)
        self.model.unsubscribing(self.name, filters)
        self.connection.send(mqtt.unsubscribe(self.version, pid, filters))

    def ping(self):
        self.pings += 1
        self.connection.send(mqtt.packet(PINGREQ, 0, b""))

    def release_answers(self):
        """Sends the answers that were held back, in order (4.6.0-2, 4.6.0-3)."""
        answers, self.answers = self.answers, []
        for kind, pid in answers:
            self._answer(kind, pid)

    def _answer(self, kind, pid):
        if self.world.is_dead or self.connection is None:
            return
        if self.hold_answers:
            self.answers.append((kind, pid))
            return
        session = self.model.client(self.name).session
        if kind == PUBCOMP:
            session.receiver.completed(pid)
        else:
            session.receiver.answered(pid)
        self.note("-> %s #%d", mqtt.NAMES[kind], pid)
        self.connection.send(mqtt.ack(kind, pid))

    # ---- receiving

    def read(self):
        """Handles what has come, on the connection whose turn it is."""
        while self.older:
            connection, number = self.older[0]
            alive = connection.read()
            for packet in connection.packets(self.version):
                self.received(packet, number, False)
            if alive:
                return
            connection.close()
            self.older.pop(0)
        connection = self.connection
        if connection is None:
            return
        alive = connection.read()
        for packet in connection.packets(self.version):
            self.received(packet, self.number, True)
            if self.connection is not connection:
                return
        if not alive and not self.world.is_dead:
            mqtt.fail("the broker closed the connection of %s", self.name)

    def received(self, packet, number, newest):
        kind, model, now = packet.kind, self.model, self.world.now()
        if kind != PUBLISH:
            self.note("<- %s%s%s", mqtt.NAMES[kind], " #%d" % packet.pid if packet.pid else "",
                      " session present" if kind == CONNACK and packet.session_present else "")
        if kind == PUBLISH:
            self._message(packet, number, newest, now)
        elif kind in (PUBACK, PUBREC):
            entry = self._exchange(packet)
            model.acknowledged(entry[0], now, packet.reason)
            if kind == PUBACK or packet.reason >= 0x80:
                del self.outgoing[packet.pid]
            else:
                entry[1] = True
                if newest and not self.world.is_dead:
                    self.connection.send(mqtt.ack(PUBREL, packet.pid))
        elif kind == PUBREL:
            model.client(self.name).session.receiver.release(number, packet.pid)
            if newest:
                self._answer(PUBCOMP, packet.pid)
        elif kind == PUBCOMP:
            self._exchange(packet)
            del self.outgoing[packet.pid]
            model.acknowledgements += 1
        elif kind == CONNACK:
            self._connected(packet, now)
        elif kind in (SUBACK, UNSUBACK):
            self._subscribed(packet, newest)
        elif kind == PINGRESP:
            self.pings -= 1
        elif kind == DISCONNECT and newest and not self.world.is_dead:
            mqtt.fail("%s was disconnected with %#x", self.name, packet.reason)
        if kind in (PUBACK, PUBREC, PUBCOMP, SUBACK, UNSUBACK, CONNACK):
            self.world.on_acknowledged(kind)

    def _exchange(self, packet):
        entry = self.outgoing.get(packet.pid)
        if entry is None or entry[0].qos != (1 if packet.kind == PUBACK else 2):
            mqtt.fail("%s: %r acknowledges nothing", self.name, packet)
        return entry

    def _connected(self, packet, now):
        if packet.reason:
            mqtt.fail("%s was refused with %#x", self.name, packet.reason)
        self.model.connack(self.name, packet.session_present, now)
        self.ready = True
        if not packet.session_present:
            self.outgoing.clear()  # nobody remembers the exchanges: nothing may be sent again at QoS 2
            self.filters.clear()
        if self.world.is_dead:
            return
        for pid, (publication, released) in self.outgoing.items():
            if released:
                self.connection.send(mqtt.ack(PUBREL, pid))
            else:
                self._send_publish(pid, publication, True)

    def _subscribed(self, packet, newest):
        if not newest or packet.pid != self.pending:
            return
        if packet.kind == SUBACK:
            self.model.subscribed(self.name, packet.reasons)
            self.filters.update((text, qos) for text, qos, _ in self.asked)
        else:
            self.model.unsubscribed(self.name, packet.reasons if self.version == 5 else None)
            for text in self.asked:
                self.filters.pop(text, None)
        self.pending = None

    def _message(self, packet, number, newest, now):
        marks = [value for key, value in packet.all("user") if key == "n"]
        try:
            mark = int(marks[0] if marks else packet.payload.split(b":", 1)[0])
            publication = self.world.publications[mark]
        except (ValueError, KeyError):
            return mqtt.fail("%s got a message that nobody sent: %r", self.name, packet)
        self.note("<- PUBLISH%s %s%s%s", " #%d" % packet.pid if packet.qos else "", publication,
                  " DUP" if packet.dup else "", " retained" if packet.retain else "")
        if self.on_message is not None:
            return self.on_message(publication, packet)
        self.model.delivered(self.name, number, publication, packet, now, packet.get("message_expiry"))
        if packet.qos and newest:
            self._answer(PUBACK if packet.qos == 1 else PUBREC, packet.pid)
        return None
