"""MQTT over WebSocket: chapter 6 of both standards, and RFC 6455 as far as it binds the server."""
import time

import mqtt
from harness import check, proves, same
from mqtt import CONNACK, PINGREQ, PINGRESP, PUBLISH, SUBACK, Will, connect, packet, publish, subscribe

PING = packet(PINGREQ, 0, b"")


def socket(t, **arguments):
    return t.open(stream=t.broker.stream(websocket=True, **arguments))


def connected(t, **arguments):
    c = socket(t)
    c.connect(t.id(), **arguments)
    return c


@proves("6.0.0-4", "6.0.0-4", websocket=True)
def websocket_subprotocol_is_mqtt(t):
    for offered in (("mqtt",), ("foo", "mqtt"), ("mqtt", "bar")):
        c = socket(t, protocols=offered)
        same("subprotocol", c.stream.headers.get("sec-websocket-protocol"), "mqtt")
        c.connect(t.id())
        c.quiet()


@proves(versions=(4,), websocket=True)
def websocket_needs_no_subprotocol(t):
    c = socket(t, protocols=())
    same("subprotocol", c.stream.headers.get("sec-websocket-protocol"), None)
    c.connect(t.id())
    c.quiet()


@proves("6.0.0-1", "6.0.0-1", websocket=True)
def websocket_server_sends_binary_frames(t):
    # WsStream fails text frames, masked frames and reserved bits from the server.
    c = connected(t)
    topic = t.topic()
    c.subscribe((topic, 2))
    for size in (0, 125, 126, 65535, 65536, 200000):
        c.publish(topic, b"x" * size)
        check(len(c.message(topic).payload) == size, "not %d bytes", size)


@proves("6.0.0-1", "6.0.0-1", websocket=True)
def websocket_text_frame_closes(t):
    for early in (True, False):
        c = socket(t) if early else connected(t)
        c.stream.frame(1, connect(t.v, "text") if early else PING)
        for p in c.drain():
            same("a packet before the end", p.kind, mqtt.DISCONNECT)
        check(c.stream.closing in (None, 1002, 1003, 1007, 1008), "close code %r", c.stream.closing)


@proves("6.0.0-2", "6.0.0-2", websocket=True)
def websocket_frames_may_hold_several_packets(t):
    topic = t.topic()
    c = socket(t)
    c.send(connect(t.v, t.id()), subscribe(t.v, 1, [(topic, 0)]), PING)
    c.expect(CONNACK, reason=0)
    c.expect(SUBACK)
    c.expect(PINGRESP)


@proves("6.0.0-2", "6.0.0-2", websocket=True)
def websocket_packets_may_cross_frames(t):
    topic = t.topic()
    c = socket(t)
    c.dribble(connect(t.v, t.id()))                     # one frame for each byte
    c.expect(CONNACK, reason=0)
    c.subscribe(topic)
    stream = b"".join(publish(t.v, topic, b"%d" % i) for i in range(20)) + PING
    for i in range(0, len(stream), 11):
        c.send(stream[i:i + 11])
    got = [c.receive() for _ in range(21)]  # PINGRESP may overtake messages
    same("payloads", [x.payload for x in got if x.kind == PUBLISH], [b"%d" % i for i in range(20)])


@proves("6.0.0-2", "6.0.0-2", websocket=True)
def websocket_messages_may_be_fragmented(t):
    c = socket(t)
    raw = connect(t.v, t.id()) + PING
    c.stream.frame(2, raw[:5], fin=False)
    c.stream.frame(9, b"between")                       # a control frame may come between fragments
    c.stream.frame(0, raw[5:9], fin=False)
    c.stream.frame(0, b"", fin=False)
    c.stream.frame(0, raw[9:])
    c.expect(CONNACK, reason=0)
    c.expect(PINGRESP)
    same("pong", c.stream.pongs, [b"between"])


@proves("6.0.0-2", "6.0.0-2", websocket=True)
def websocket_frames_may_be_empty(t):
    c = connected(t)
    c.stream.frame(2, b"")
    c.quiet()


@proves("6.0.0-2", "6.0.0-2", websocket=True)
def websocket_bytes_may_come_one_by_one(t):
    c = connected(t)

    class Dribble:
        def __init__(self, tcp):
            self.tcp = tcp

        def __getattr__(self, name):
            return getattr(self.tcp, name)

        def send(self, data):
            for i in range(len(data)):
                self.tcp.send(data[i:i + 1])
    c.stream.tcp = Dribble(c.stream.tcp)
    topic = t.topic()
    c.subscribe(topic)
    c.publish(topic, "x" * 200)
    c.message(topic, "x" * 200)


@proves(versions=(4,), websocket=True)
def websocket_ping_gets_pong(t):
    c = connected(t)
    for data in (b"", b"are you there", b"x" * 125):
        c.stream.frame(9, data)
        c.quiet()
        same("pongs", c.stream.pongs, [data])
        c.stream.pongs.clear()
    c.stream.frame(10, b"an unasked pong is ignored")
    for data in (b"1", b"2", b"3"):  # of pings that came together the last one may be answered alone
        c.stream.frame(9, data)
    c.quiet()
    same("last pong", c.stream.pongs[-1], b"3")


@proves(versions=(4,), websocket=True)
def websocket_close_is_answered(t):
    c = connected(t)
    c.stream.frame(8, b"\x03\xe8")
    c.expect_closed()
    same("close code", c.stream.closing, 1000)


@proves("3.1.2-8", "3.1.2-8", websocket=True)
def websocket_close_without_disconnect_publishes_the_will(t):
    topic = t.topic()
    s = connected(t)
    s.subscribe(topic)
    c = connected(t, will=Will(topic, b"closed"))
    c.stream.frame(8, b"\x03\xe8")
    c.expect_closed()
    c.drop()
    s.message(topic, "closed")


@proves(versions=(4,), websocket=True)
def websocket_violations_close(t):
    cases = {"unmasked": lambda s: s.frame(2, PING, mask=False),
             "reserved bit": lambda s: s.frame(2, PING, rsv=4),
             "unknown opcode": lambda s: s.frame(3, PING),
             "unknown control opcode": lambda s: s.frame(11, b""),
             "continuation without a start": lambda s: s.frame(0, PING),
             "fragmented control frame": lambda s: s.frame(9, b"x", fin=False),
             "long control frame": lambda s: s.frame(9, b"x" * 126),
             "new message within a message": lambda s: (s.frame(2, PING[:1], fin=False), s.frame(2, PING))}
    for name, send in cases.items():
        c = connected(t)
        send(c.stream)
        got = c.drain()
        check(not got, "%s: got %r", name, got)
        check(c.stream.closing in (None, 1002), "%s: close code %r", name, c.stream.closing)


def handshake(t, text):
    """The answer to a raw HTTP request."""
    stream = mqtt.TcpStream(t.broker.host, t.broker.ws_port)
    stream.send(text.replace("\n", "\r\n").encode())
    answer, deadline = b"", time.monotonic() + 5
    while b"\r\n\r\n" not in answer:
        data = stream.receive(deadline)
        if not data:
            break
        answer += data
    stream.close()
    return answer.decode("latin-1")


@proves(versions=(4,), websocket=True)
def websocket_bad_handshakes_are_refused(t):
    base = "GET /mqtt HTTP/1.1\nHost: x\nUpgrade: websocket\nConnection: Upgrade\n"
    for name, text in (("no key", base + "Sec-WebSocket-Version: 13\n\n"),
                       ("version 99", base + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n"
                        "Sec-WebSocket-Version: 99\n\n"),
                       ("short key", base + "Sec-WebSocket-Key: AAAA\nSec-WebSocket-Version: 13\n\n")):
        answer = handshake(t, text)
        check(not answer.startswith("HTTP/1.1 101"), "%s: %s", name, answer)


@proves(versions=(4,), websocket=True)
def websocket_header_names_and_tokens_ignore_case(t):
    answer = handshake(t, "GET / HTTP/1.1\nhost: x\nUPGRADE: WebSocket\nconnection: keep-alive, upgrade\n"
                       "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\nSEC-WEBSOCKET-VERSION: 13\n"
                       "Sec-WebSocket-Protocol: foo\nSec-WebSocket-Protocol: mqtt\n\n")
    check(answer.startswith("HTTP/1.1 101"), "refused: %s", answer)
    lines = answer.lower().split("\r\n")
    check("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in lines, "accept: %s", answer)
    check("sec-websocket-protocol: mqtt" in lines, "subprotocol: %s", answer)
