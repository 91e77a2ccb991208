"""A small MQTT codec and client for testing servers: 3.1, 3.1.1 and 5.0 over TCP and WebSocket.

It is written to break rules on purpose (any bytes can be sent, in pieces of any size) and to
break none by accident: whatever the server sends is decoded strictly, so that a reserved flag, a
property in the wrong packet, an undefined reason code, a trailing byte, a zero packet identifier
or a packet above the client's Maximum Packet Size fails the test that received it.
"""
import base64
import hashlib
import os
import select
import socket
import struct
import time

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT, AUTH = 12, 13, 14, 15

NAMES = ("type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
         "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT",
         "AUTH")

WILL = -1  # will properties: not a packet, but a property list of its own

# name: (identifier, encoding, where it may appear); 5.0 section 2.2.2.2
PROPERTIES = {
    "payload_format": (0x01, "byte", (PUBLISH, WILL)),
    "message_expiry": (0x02, "u32", (PUBLISH, WILL)),
    "content_type": (0x03, "str", (PUBLISH, WILL)),
    "response_topic": (0x08, "str", (PUBLISH, WILL)),
    "correlation_data": (0x09, "bin", (PUBLISH, WILL)),
    "subscription_id": (0x0B, "varint", (PUBLISH, SUBSCRIBE)),
    "session_expiry": (0x11, "u32", (CONNECT, CONNACK, DISCONNECT)),
    "assigned_client_id": (0x12, "str", (CONNACK,)),
    "server_keep_alive": (0x13, "u16", (CONNACK,)),
    "auth_method": (0x15, "str", (CONNECT, CONNACK, AUTH)),
    "auth_data": (0x16, "bin", (CONNECT, CONNACK, AUTH)),
    "request_problem_info": (0x17, "byte", (CONNECT,)),
    "will_delay": (0x18, "u32", (WILL,)),
    "request_response_info": (0x19, "byte", (CONNECT,)),
    "response_info": (0x1A, "str", (CONNACK,)),
    "server_reference": (0x1C, "str", (CONNACK, DISCONNECT)),
    "reason_string": (0x1F, "str", (CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK,
                                    DISCONNECT, AUTH)),
    "receive_maximum": (0x21, "u16", (CONNECT, CONNACK)),
    "topic_alias_maximum": (0x22, "u16", (CONNECT, CONNACK)),
    "topic_alias": (0x23, "u16", (PUBLISH,)),
    "maximum_qos": (0x24, "byte", (CONNACK,)),
    "retain_available": (0x25, "byte", (CONNACK,)),
    "user": (0x26, "pair", (CONNECT, CONNACK, PUBLISH, WILL, PUBACK, PUBREC, PUBREL, PUBCOMP,
                            SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH)),
    "maximum_packet_size": (0x27, "u32", (CONNECT, CONNACK)),
    "wildcard_available": (0x28, "byte", (CONNACK,)),
    "subscription_id_available": (0x29, "byte", (CONNACK,)),
    "shared_available": (0x2A, "byte", (CONNACK,)),
}
BY_ID = {v[0]: (k, v[1], v[2]) for k, v in PROPERTIES.items()}

# Reason codes that a server may send; 5.0 section 2.4
_DISCONNECT_CODES = {0x00, *range(0x80, 0x84), 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90,
                     *range(0x93, 0xA3)}
REASONS = {
    CONNACK: {0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D,
              0x9F},
    PUBACK: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREC: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREL: {0x00, 0x92},
    PUBCOMP: {0x00, 0x92},
    SUBACK: {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
    UNSUBACK: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
    DISCONNECT: _DISCONNECT_CODES,
    AUTH: {0x00, 0x18},
}


LENIENT = False  # a 5.0 server may close without DISCONNECT where the standard says SHOULD


class TestFailure(Exception):
    """The server did something that the standard does not allow, or failed to do what it demands."""


class Closed(Exception):
    """The server closed the network connection."""


class Timeout(TestFailure):
    """Nothing came in time."""


def fail(text, *args):
    raise TestFailure(text % args if args else text)


# ---- encoding ---------------------------------------------------------------------------------

def varint(value):
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def binary(data):
    return struct.pack("!H", len(data)) + data


def string(text):
    return binary(text.encode() if isinstance(text, str) else text)


def u16(value):
    return struct.pack("!H", value)


def u32(value):
    return struct.pack("!I", value)


def prop(name, value):
    identifier, kind, _ = PROPERTIES[name]
    head = bytes([identifier])
    if kind == "byte":
        return head + bytes([value])
    if kind == "u16":
        return head + u16(value)
    if kind == "u32":
        return head + u32(value)
    if kind == "varint":
        return head + varint(value)
    if kind == "pair":
        return head + string(value[0]) + string(value[1])
    return head + string(value)


def props(items=()):
    """A property list with its length. `items`: a dict, pairs, or raw bytes that are taken as they are."""
    if isinstance(items, bytes):
        return varint(len(items)) + items
    if isinstance(items, dict):
        items = items.items()
    body = b"".join(item if isinstance(item, bytes) else prop(*item) for item in items)
    return varint(len(body)) + body


def packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


class Will:
    def __init__(self, topic, payload=b"will", qos=0, retain=False, properties=()):
        self.topic, self.payload, self.qos, self.retain = topic, payload, qos, retain
        self.properties = properties


def connect(version, client_id, clean=True, keepalive=60, will=None, username=None, password=None,
            properties=(), name=None, level=None, flags=None, fixed_flags=0, payload=None):
    """CONNECT. `name`, `level`, `flags`, `fixed_flags` and `payload` replace what would be right."""
    if name is None:
        name = "MQIsdp" if version == 3 else "MQTT"
    bits = 0x02 if clean else 0
    tail = string(client_id)
    if will:
        bits |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        tail += props(will.properties) if version == 5 else b""
        tail += string(will.topic) + binary(will.payload)
    if username is not None:
        bits |= 0x80
        tail += string(username)
    if password is not None:
        bits |= 0x40
        tail += string(password)
    body = string(name) + bytes([version if level is None else level])
    body += bytes([bits if flags is None else flags]) + u16(keepalive)
    if version == 5:
        body += props(properties)
    return packet(CONNECT, fixed_flags, body + (tail if payload is None else payload))


def publish(version, topic, payload=b"", qos=0, pid=None, retain=False, dup=False, properties=()):
    body = string(topic)
    if pid is not None:
        body += u16(pid)
    if version == 5:
        body += props(properties)
    payload = payload.encode() if isinstance(payload, str) else payload
    return packet(PUBLISH, (8 if dup else 0) | qos << 1 | (1 if retain else 0), body + payload)


def ack(kind, pid, reason=None, properties=None):
    body = u16(pid)
    if reason is not None:
        body += bytes([reason])
        if properties is not None:
            body += props(properties)
    return packet(kind, 2 if kind == PUBREL else 0, body)


def subscribe(version, pid, filters, properties=()):
    """`filters`: pairs of filter and options byte."""
    body = u16(pid) + (props(properties) if version == 5 else b"")
    return packet(SUBSCRIBE, 2, body + b"".join(string(f) + bytes([o]) for f, o in filters))


def unsubscribe(version, pid, filters, properties=()):
    body = u16(pid) + (props(properties) if version == 5 else b"")
    return packet(UNSUBSCRIBE, 2, body + b"".join(string(f) for f in filters))


def disconnect(version, reason=None, properties=None):
    body = b""
    if version == 5 and (reason is not None or properties is not None):
        body = bytes([reason or 0]) + (props(properties) if properties is not None else b"")
    return packet(DISCONNECT, 0, body)


def auth(reason, properties):
    return packet(AUTH, 0, bytes([reason]) + props(properties))


def options(qos=0, no_local=False, retain_as_published=False, retain_handling=0):
    return qos | (4 if no_local else 0) | (8 if retain_as_published else 0) | retain_handling << 4


# ---- decoding ---------------------------------------------------------------------------------

class Packet:
    """One decoded packet; only the fields that its type has are set."""
    pid = reason = None
    properties = ()

    def __init__(self, kind, flags, raw):
        self.kind, self.flags, self.raw = kind, flags, raw

    def get(self, name, default=None):
        for key, value in self.properties:
            if key == name:
                return value
        return default

    def all(self, name):
        return [value for key, value in self.properties if key == name]

    def __repr__(self):
        shown = self.raw if len(self.raw) <= 64 else self.raw[:64]
        return "%s[%s%s]" % (NAMES[self.kind], shown.hex(" "),
                             "" if shown is self.raw else " ... %d bytes" % len(self.raw))


class Cursor:
    def __init__(self, data, whole):
        self.data, self.at, self.whole = data, 0, whole

    def take(self, count):
        if self.at + count > len(self.data):
            fail("packet too short: %r", self.whole)
        self.at += count
        return self.data[self.at - count:self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def left(self):
        return len(self.data) - self.at

    def byte(self):
        return self.take(1)[0]

    def u16(self):
        return struct.unpack("!H", self.take(2))[0]

    def u32(self):
        return struct.unpack("!I", self.take(4))[0]

    def binary(self):
        return self.take(self.u16())

    def string(self):
        data = self.binary()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            fail("ill-formed UTF-8 %r in %r", data, self.whole)
        if "\0" in text:
            fail("U+0000 in %r", self.whole)
        return text

    def varint(self):
        value = shift = 0
        for count in range(1, 5):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                if count > 1 and byte == 0:
                    fail("a Variable Byte Integer longer than needed in %r", self.whole)
                return value
        return fail("a Variable Byte Integer of more than four bytes in %r", self.whole)

    def properties(self, kind):
        inner = Cursor(self.take(self.varint()), self.whole)
        found = []
        while inner.left():
            identifier = inner.varint()
            if identifier not in BY_ID:
                fail("unknown property %#x in %r", identifier, self.whole)
            name, encoding, where = BY_ID[identifier]
            if kind not in where:
                fail("property %s may not be in %r", name, self.whole)
            if encoding == "pair":
                value = (inner.string(), inner.string())
            else:
                value = {"byte": inner.byte, "u16": inner.u16, "u32": inner.u32,
                         "varint": inner.varint, "str": inner.string, "bin": inner.binary}[encoding]()
            many = name == "user" or (name == "subscription_id" and kind == PUBLISH)
            if not many and any(name == key for key, _ in found):
                fail("property %s twice in %r", name, self.whole)
            found.append((name, value))
        return found


def check_reason(p, reason):
    if reason not in REASONS[p.kind]:
        fail("reason code %#04x is not defined for %r", reason, p)


def decode(version, kind, flags, body, raw):
    """A packet that a server may send, or TestFailure."""
    p = Packet(kind, flags, raw)
    c = Cursor(body, p)
    if kind not in (CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP,
                    DISCONNECT, AUTH) or (version < 5 and kind in (DISCONNECT, AUTH)):
        fail("a server may not send %r", p)
    if kind != PUBLISH and flags != (2 if kind == PUBREL else 0):
        fail("reserved flags of %r", p)
    if kind == CONNACK:
        acknowledge = c.byte()
        if acknowledge & 0xFE:
            fail("reserved acknowledge flags of %r", p)
        p.session_present, p.reason = bool(acknowledge), c.byte()
        if version == 5 and p.reason == 1 and not c.left():
            return p  # the answer of a 3.1.1 server to a protocol level it does not know
        if version == 5:
            p.properties = c.properties(kind)
            check_reason(p, p.reason)
        elif p.reason > 5 and p.reason != 0x84:
            fail("return code of %r", p)
        elif p.reason == 0x84:
            c.rest()
    elif kind == PUBLISH:
        p.dup, p.qos, p.retain = bool(flags & 8), flags >> 1 & 3, bool(flags & 1)
        if p.qos == 3 or (p.qos == 0 and p.dup):
            fail("flags of %r", p)
        p.topic = c.string()
        if "+" in p.topic or "#" in p.topic:
            fail("wildcard in the topic name of %r", p)
        if p.qos:
            p.pid = c.u16()
        p.properties = c.properties(kind) if version == 5 else ()
        p.payload = c.rest()
    elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        p.pid, p.reason = c.u16(), 0
        if version == 5 and c.left():
            p.reason = c.byte()
            check_reason(p, p.reason)
            if c.left():
                p.properties = c.properties(kind)
    elif kind == SUBACK:
        p.pid = c.u16()
        p.properties = c.properties(kind) if version == 5 else ()
        p.reasons = list(c.rest())
        for reason in p.reasons:
            if version == 5:
                check_reason(p, reason)
            elif reason not in (0, 1, 2, 0x80):
                fail("return code of %r", p)
    elif kind == UNSUBACK:
        p.pid = c.u16()
        if version == 5:
            p.properties = c.properties(kind)
            p.reasons = list(c.rest())
            for reason in p.reasons:
                check_reason(p, reason)
    elif kind in (DISCONNECT, AUTH):
        p.reason = 0
        if c.left():
            p.reason = c.byte()
            check_reason(p, p.reason)
            if c.left():
                p.properties = c.properties(kind)
        if kind == DISCONNECT and p.get("session_expiry") is not None:
            fail("a server may not send a Session Expiry Interval: %r", p)
    if c.left():
        fail("%d bytes too many in %r", c.left(), p)
    if p.pid == 0:
        fail("packet identifier 0 in %r", p)
    return p


# ---- byte streams -----------------------------------------------------------------------------

class TcpStream:
    def __init__(self, host, port):
        self.sock = socket.create_connection((host, port), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.sock.sendall(data)

    def receive(self, deadline):
        """Some bytes; b"" when the peer has closed. Raises Timeout."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.sock], [], [], left)[0]:
            raise Timeout("nothing came in time")
        try:
            return self.sock.recv(65536)
        except (ConnectionError, OSError):
            return b""

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass


class WsStream:
    """MQTT in WebSocket binary frames; the client side of RFC 6455, as far as it is needed."""

    def __init__(self, host, port, protocols=("mqtt",), path="/mqtt", headers=()):
        self.tcp = TcpStream(host, port)
        self.buffer = b""
        self.closing = None      # the status code of the server's close frame
        self.pongs = []
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET %s HTTP/1.1" % path, "Host: %s:%d" % (host, port), "Upgrade: websocket",
                 "Connection: Upgrade", "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: 13"]
        if protocols:
            lines.append("Sec-WebSocket-Protocol: " + ", ".join(protocols))
        lines += list(headers)
        self.tcp.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        deadline = time.monotonic() + 5
        while b"\r\n\r\n" not in self.buffer:
            data = self.tcp.receive(deadline)
            if not data:
                fail("closed during the WebSocket handshake after %r", self.buffer)
            self.buffer += data
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        self.status = lines[0]
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if " 101 " not in self.status + " ":
            fail("WebSocket handshake refused: %s", self.status)
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if self.headers.get("sec-websocket-accept") != base64.b64encode(digest).decode():
            fail("wrong Sec-WebSocket-Accept in %r", head)

    def frame(self, opcode, data, fin=True, mask=True, rsv=0):
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if mask else 0
        if len(data) < 126:
            head += bytes([bit | len(data)])
        elif len(data) < 65536:
            head += bytes([bit | 126]) + u16(len(data))
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", len(data))
        if mask:
            key = os.urandom(4)
            head += key
            if data:
                pad = (key * (len(data) // 4 + 1))[:len(data)]
                data = (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(
                    len(data), "big")
        self.tcp.send(head + data)

    def send(self, data):
        self.frame(2, data)

    def _frame(self):
        """The next complete frame in the buffer as (opcode, payload), or None."""
        if len(self.buffer) < 2:
            return None
        first, second = self.buffer[0], self.buffer[1]
        if second & 0x80:
            fail("a masked frame from the server")
        if first & 0x70:
            fail("reserved bits in a frame from the server")
        size, at = second & 0x7F, 2
        if size == 126:
            if len(self.buffer) < 4:
                return None
            size, at = struct.unpack("!H", self.buffer[2:4])[0], 4
        elif size == 127:
            if len(self.buffer) < 10:
                return None
            size, at = struct.unpack("!Q", self.buffer[2:10])[0], 10
        if len(self.buffer) < at + size:
            return None
        data, self.buffer = self.buffer[at:at + size], self.buffer[at + size:]
        return first & 0x0F, data

    def receive(self, deadline):
        while True:
            frame = self._frame()
            if frame is None:
                data = self.tcp.receive(deadline)
                if not data:
                    return b""
                self.buffer += data
                continue
            opcode, data = frame
            if opcode in (0, 2):
                if data:
                    return data
            elif opcode == 8:
                self.closing = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
                return b""
            elif opcode == 9:
                self.frame(10, data)
            elif opcode == 10:
                self.pongs.append(data)
            else:
                fail("a frame of opcode %d, not binary, from the server", opcode)

    def close(self):
        self.tcp.close()


# ---- client -----------------------------------------------------------------------------------

class Client:
    """One connection. Every wait has a limit (`patience` seconds); nothing is answered by itself."""

    def __init__(self, stream, version, patience=5.0):
        self.stream, self.version, self.patience = stream, version, patience
        self.buffer = b""
        self.connack = None
        self.maximum_packet_size = None
        self.alias_maximum = 0
        self.aliases = {}
        self.closed = False
        self.after_disconnect = False
        self.id = None
        self._pid = 0

    # sending
    def send(self, *parts):
        try:
            self.stream.send(b"".join(parts))
        except OSError:
            pass  # the next receive tells that the connection is closed

    def dribble(self, data):
        for i in range(len(data)):
            self.send(data[i:i + 1])

    def pid(self):
        self._pid = self._pid % 65535 + 1
        return self._pid

    # receiving
    def receive(self, patience=None):
        """The next packet. Raises Closed, or Timeout after `patience` seconds."""
        deadline = time.monotonic() + (self.patience if patience is None else patience)
        while True:
            p = self._decode()
            if p:
                return p
            data = b"" if self.closed else self.stream.receive(deadline)
            if not data:
                self.closed = True
                if self.buffer:
                    fail("closed in the middle of a packet: %s", self.buffer.hex(" "))
                raise Closed("the server closed the connection")
            self.buffer += data

    def _decode(self):
        size = shift = 0
        for at in range(1, 6):
            if len(self.buffer) <= at:
                return None
            if at == 5:
                fail("remaining length of more than four bytes: %s", self.buffer[:8].hex(" "))
            byte = self.buffer[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                if at > 1 and byte == 0:
                    fail("remaining length longer than needed: %s", self.buffer[:8].hex(" "))
                break
        end = at + 1 + size
        if len(self.buffer) < end:
            return None
        raw, self.buffer = self.buffer[:end], self.buffer[end:]
        if self.after_disconnect:
            fail("a packet after DISCONNECT: %s", raw[:64].hex(" "))
        if self.maximum_packet_size and len(raw) > self.maximum_packet_size:
            fail("a packet of %d bytes, above the Maximum Packet Size %d", len(raw),
                 self.maximum_packet_size)
        p = decode(self.version, raw[0] >> 4, raw[0] & 15, raw[at + 1:], raw)
        if p.kind == DISCONNECT:
            self.after_disconnect = True
        if p.kind == CONNACK:
            if self.connack:
                fail("a second CONNACK")
            self.connack = p
        elif not self.connack and p.kind != AUTH:
            fail("%r before CONNACK", p)
        if p.kind == PUBLISH:
            self._alias(p)
        return p

    def _alias(self, p):
        alias = p.get("topic_alias")
        if alias is not None:
            if not 1 <= alias <= self.alias_maximum:
                fail("topic alias %d, maximum %d", alias, self.alias_maximum)
            if p.topic:
                self.aliases[alias] = p.topic
            elif alias not in self.aliases:
                fail("unknown topic alias %d", alias)
            p.wire_topic, p.topic = p.topic, self.aliases[alias]
        elif not p.topic:
            fail("empty topic name in %r", p)

    def expect(self, kind, patience=None, **fields):
        """The next packet, which must be of this kind and have these fields."""
        try:
            p = self.receive(patience)
        except Closed:
            fail("expected %s %s, but the server closed the connection", NAMES[kind], fields or "")
        except Timeout:
            fail("expected %s %s, but nothing came", NAMES[kind], fields or "")
        if p.kind != kind:
            fail("expected %s %s, got %r", NAMES[kind], fields or "", p)
        for name, wanted in fields.items():
            got = getattr(p, name)
            if (got not in wanted) if isinstance(wanted, (set, frozenset)) else got != wanted:
                fail("expected %s with %s %r, got %r in %r", NAMES[kind], name, wanted, got, p)
        return p

    def expect_closed(self, patience=None):
        """The connection ends without another packet."""
        try:
            p = self.receive(patience)
        except Closed:
            return
        except Timeout:
            fail("the server did not close the connection")
        fail("expected the end of the connection, got %r", p)

    def drain(self, patience=None):
        """All packets until the connection ends."""
        got = []
        try:
            while True:
                got.append(self.receive(patience))
        except Closed:
            return got
        except Timeout:
            return fail("the server did not close the connection; got %r", got)

    def expect_error(self, *codes, patience=None):
        """A protocol error after CONNACK: 3.x closes; 5.0 sends DISCONNECT with one of `codes`, and closes.

        The standard lets a server close without DISCONNECT (4.13.1 says SHOULD). The suite asks for it all the
        same unless it runs with --lenient: without it a client cannot tell its own bug from a network failure.
        """
        if self.version < 5:
            self.expect_closed(patience)
            return
        got = self.drain(patience)
        if not got and LENIENT:
            return
        if len(got) != 1 or got[0].kind != DISCONNECT or got[0].reason not in codes:
            fail("expected DISCONNECT %s and the end of the connection, got %r",
                 "/".join("%#04x" % c for c in codes), got or "no DISCONNECT before it")

    # exchanges
    def connect(self, client_id, **arguments):
        self.id = client_id
        properties = dict(arguments.get("properties") or ())
        self.maximum_packet_size = properties.get("maximum_packet_size")
        self.alias_maximum = properties.get("topic_alias_maximum", 0)
        self.send(connect(self.version, client_id, **arguments))
        p = self.expect(CONNACK)
        if self.version == 5 and p.get("assigned_client_id"):
            self.id = p.get("assigned_client_id")
        return p

    def subscribe(self, *filters, properties=(), codes=None):
        """Filters are strings (QoS 0) or pairs of filter and options. Returns SUBACK and what came before it."""
        pairs = [(f, 0) if isinstance(f, (str, bytes)) else f for f in filters]
        pid = self.pid()
        self.send(subscribe(self.version, pid, pairs, properties))
        before = []
        while True:
            p = self._next("SUBACK")
            if p.kind == SUBACK:
                break
            before.append(p)
        if p.pid != pid:
            fail("SUBACK with packet identifier %d, not %d", p.pid, pid)
        if len(p.reasons) != len(pairs):
            fail("%d codes for %d filters in %r", len(p.reasons), len(pairs), p)
        wanted = [o & 3 for _, o in pairs] if codes is None else codes
        if codes is not False and p.reasons != wanted:
            fail("SUBACK codes %r, expected %r", p.reasons, wanted)
        p.before = before
        return p

    def unsubscribe(self, *filters, codes=None):
        pid = self.pid()
        self.send(unsubscribe(self.version, pid, filters))
        before = []
        while True:
            p = self._next("UNSUBACK")
            if p.kind == UNSUBACK:
                break
            before.append(p)
        if p.pid != pid:
            fail("UNSUBACK with packet identifier %d, not %d", p.pid, pid)
        if self.version == 5 and p.reasons != ([0] * len(filters) if codes is None else codes):
            fail("UNSUBACK codes %r, expected %r", p.reasons, codes or [0] * len(filters))
        p.before = before
        return p

    def _next(self, wanted):
        try:
            return self.receive()
        except Closed:
            return fail("expected %s, but the server closed the connection", wanted)
        except Timeout:
            return fail("expected %s, but nothing came", wanted)

    def publish(self, topic, payload=b"", qos=0, retain=False, properties=(), dup=False):
        """PUBLISH with the whole exchange that its QoS asks for. Returns the reason code of the first answer."""
        pid = self.pid() if qos else None
        self.send(publish(self.version, topic, payload, qos, pid, retain, dup, properties))
        if qos == 1:
            return self.expect(PUBACK, pid=pid).reason
        if qos == 2:
            reason = self.expect(PUBREC, pid=pid).reason
            if reason < 0x80:
                self.send(ack(PUBREL, pid))
                self.expect(PUBCOMP, pid=pid)
            return reason
        return 0

    def message(self, topic=None, payload=None, patience=None, **fields):
        """The next PUBLISH, answered as its QoS asks for."""
        if topic is not None:
            fields["topic"] = topic
        if payload is not None:
            fields["payload"] = payload.encode() if isinstance(payload, str) else payload
        p = self.expect(PUBLISH, patience, **fields)
        self.answer(p)
        return p

    def answer(self, p):
        if p.qos == 1:
            self.send(ack(PUBACK, p.pid))
        elif p.qos == 2:
            self.send(ack(PUBREC, p.pid))
            self.expect(PUBREL, pid=p.pid)
            self.send(ack(PUBCOMP, p.pid))

    def messages_until(self, last):
        """Messages with their exchanges, which may overlap, until `last(messages so far)` holds."""
        got, open_exchanges = [], set()
        while open_exchanges or not last(got):
            p = self._next("message %d" % (len(got) + 1))
            if p.kind == PUBREL and p.pid in open_exchanges:
                open_exchanges.remove(p.pid)
                self.send(ack(PUBCOMP, p.pid))
                continue
            if p.kind != PUBLISH or last(got):
                fail("unexpected %r after %d messages", p, len(got))
            got.append(p)
            if p.qos == 1:
                self.send(ack(PUBACK, p.pid))
            elif p.qos == 2:
                open_exchanges.add(p.pid)
                self.send(ack(PUBREC, p.pid))
        return got

    def messages(self, count, **fields):
        """The next `count` messages, which must have these fields."""
        got = self.messages_until(lambda so_far: len(so_far) == count)
        for p in got:
            for name, wanted in fields.items():
                if getattr(p, name) != wanted:
                    fail("expected a message with %s %r, got %r", name, wanted, p)
        return got

    def ping(self):
        """PINGREQ; returns the packets that come before PINGRESP."""
        self.send(packet(PINGREQ, 0, b""))
        before = []
        while True:
            p = self._next("PINGRESP")
            if p.kind == PINGRESP:
                return before
            before.append(p)

    def quiet(self):
        """Nothing is on its way to this client."""
        before = self.ping()
        if before:
            fail("unexpected %r", before)

    def disconnect(self, reason=None, properties=None):
        """A normal end; returns when the server has closed."""
        self.send(disconnect(self.version, reason, properties))
        self.drain()
        self.stream.close()

    def drop(self):
        """The network fails: no DISCONNECT."""
        self.closed = True
        self.stream.close()
