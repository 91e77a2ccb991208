"""WebSocket framing, closing and handshake, against ws_echo: ws_echo_test.py PATH_TO_WS_ECHO"""

import base64
import hashlib
import os
import select
import socket
import struct
import sys
import unittest

from ws_client import (BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Client, Server, close_payload, frame,
                       random_key, request)

PROGRAM = None


class Base(unittest.TestCase):
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(PROGRAM, *cls.options)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def client(self, **options):
        client = Client(self.server.port, **options)
        self.addCleanup(client.close)
        return client

    def echo(self, client, opcode, payload):
        client.send(frame(opcode, payload))
        got = client.frame()
        self.assertEqual(got[0], opcode)
        self.assertTrue(got[1] == payload, "payload of %d bytes differs" % len(payload))

    def expect_close(self, data, code, log=None, pieces=None):
        """Sends `data` and expects a Close with `code`, then the end."""
        client = self.client()
        for piece in pieces or [data]:
            client.send(piece)
        self.assertEqual(client.close_code()[0], code)
        self.assertTrue(client.at_end())
        if log:
            self.server.wait_for(log)


class Messages(Base):
    def test_lengths(self):
        client = self.client()
        for n in (0, 1, 125, 126, 127, 128, 4085, 4086, 4096, 65535, 65536, 65537, 1 << 20):
            self.echo(client, BINARY, os.urandom(n))
            self.echo(client, TEXT, b"*" * n)

    def test_largest(self):
        self.echo(self.client(), BINARY, os.urandom(16 << 20))

    def test_too_large(self):
        self.expect_close(frame(BINARY, b"x" * ((16 << 20) + 1))[:100], 1009, "message too big")

    def test_too_large_in_fragments(self):
        part = b"x" * (8 << 20)
        self.expect_close(None, 1009, pieces=[frame(BINARY, part, fin=False), frame(CONTINUATION, part, fin=False),
                                              frame(CONTINUATION, b"x")])

    def test_byte_at_a_time(self):
        client = self.client()
        text = "Grüße, Ωμέγα 𝄞".encode()
        data = frame(TEXT, text[:7], fin=False) + frame(PING, b"mid") + frame(CONTINUATION, text[7:])
        data += frame(BINARY, b"z" * 200)
        for i in range(len(data)):
            client.send(data[i : i + 1])
        self.assertEqual(client.frame(), (PONG, b"mid"))
        self.assertEqual(client.frame(), (TEXT, text))
        self.assertEqual(client.frame(), (BINARY, b"z" * 200))

    def test_many_in_one_write(self):
        client = self.client()
        messages = [os.urandom(i * 7 % 700) for i in range(2000)]
        client.socket.setblocking(True)
        client.send(b"".join(frame(BINARY if i % 2 else TEXT, m if i % 2 else m.hex().encode())
                             for i, m in enumerate(messages[:1000])))
        for i, m in enumerate(messages[:1000]):
            self.assertEqual(client.frame(), (BINARY, m) if i % 2 else (TEXT, m.hex().encode()))

    def test_request_and_frames_in_one_write(self):
        client = self.client(upgrade=False)
        client.send(request() + frame(TEXT, b"early") + frame(PING))
        self.assertEqual(client.response()[0], 101)
        got = {client.frame(), client.frame()}
        self.assertEqual(got, {(TEXT, b"early"), (PONG, b"")})

    def test_request_byte_at_a_time(self):
        client = self.client(upgrade=False)
        for byte in request():
            client.send(bytes([byte]))
        self.assertEqual(client.response()[0], 101)
        self.echo(client, TEXT, b"hello")

    def test_fragments(self):
        client = self.client()
        for opcode in (TEXT, BINARY):
            client.send(frame(opcode, b"a", fin=False) + frame(CONTINUATION, b"", fin=False) +
                        frame(CONTINUATION, b"b", fin=False) + frame(CONTINUATION, b"c"))
            self.assertEqual(client.frame(), (opcode, b"abc"))
            client.send(frame(opcode, b"", fin=False) + frame(CONTINUATION, b""))
            self.assertEqual(client.frame(), (opcode, b""))

    def test_slow_reader(self):
        """A client that does not read is not read from; all comes back once it does."""
        client = self.client()
        part = os.urandom(1 << 20)
        sent = 0
        client.socket.setblocking(False)
        data = frame(BINARY, part)
        rest = memoryview(data)
        while sent < 200:  # far more than all buffers: only back-pressure ends this loop
            try:
                rest = rest[client.socket.send(rest) :]
            except BlockingIOError:
                if not select.select([], [client.socket], [], 0.5)[1]:
                    break
            if len(rest) == 0:
                sent += 1
                rest = memoryview(data)
        self.assertLess(sent, 200)
        client.socket.setblocking(True)
        for _ in range(sent):
            self.assertTrue(client.frame() == (BINARY, part))
        client.send(rest)
        if len(rest) not in (0, len(data)):
            self.assertTrue(client.frame() == (BINARY, part))


class Control(Base):
    def test_pings(self):
        client = self.client()
        for payload in (b"", b"hello", bytes(range(125))):
            client.send(frame(PING, payload))
            self.assertEqual(client.frame(), (PONG, payload))

    def test_only_the_last_of_several_pings_needs_an_answer(self):
        client = self.client()
        client.send(b"".join(frame(PING, b"%d" % i) for i in range(100)) + frame(TEXT, b"end"))
        pongs = []
        while True:
            opcode, payload = client.frame()
            if opcode == TEXT:
                break
            self.assertEqual(opcode, PONG)
            pongs.append(payload)
        self.assertEqual(pongs[-1], b"99")

    def test_unsolicited_pong(self):
        client = self.client()
        client.send(frame(PONG, b"why"))
        self.echo(client, TEXT, b"still here")

    def test_ping_between_fragments(self):
        client = self.client()
        client.send(frame(TEXT, b"a", fin=False) + frame(PING, b"p"))
        self.assertEqual(client.frame(), (PONG, b"p"))
        client.send(frame(CONTINUATION, b"b"))
        self.assertEqual(client.frame(), (TEXT, b"ab"))

    def test_bad_control_frames(self):
        for opcode in (PING, PONG, CLOSE):
            self.expect_close(frame(opcode, b"x" * 126), 1002, "malformed frame header")
            self.expect_close(frame(opcode, b"x", fin=False), 1002)


class Violations(Base):
    def test_no_mask(self):
        self.expect_close(frame(TEXT, b"hello", mask=False), 1002, "without a mask")
        self.expect_close(frame(PING, b"", mask=False), 1002)

    def test_reserved_bits(self):
        for rsv in range(1, 8):
            self.expect_close(frame(TEXT, b"hello", rsv=rsv), 1002, "reserved bit")
            self.expect_close(frame(PING, b"", rsv=rsv), 1002)

    def test_reserved_opcodes(self):
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            self.expect_close(frame(opcode, b"x"), 1002, "reserved opcode")

    def test_continuation_without_start(self):
        for fin in (True, False):
            self.expect_close(frame(CONTINUATION, b"x", fin=fin), 1002, "without a message")

    def test_continuation_after_end(self):
        client = self.client()
        client.send(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"))
        self.assertEqual(client.frame(), (TEXT, b"ab"))
        client.send(frame(CONTINUATION, b"c"))
        self.assertEqual(client.close_code()[0], 1002)

    def test_message_inside_message(self):
        for opcode in (TEXT, BINARY):
            self.expect_close(frame(TEXT, b"a", fin=False) + frame(opcode, b"b"), 1002, "inside a fragmented one")

    def test_length_not_minimal(self):
        self.expect_close(frame(BINARY, b"x" * 10, length=16), 1002)
        self.expect_close(frame(BINARY, b"x" * 10, length=64), 1002)
        self.expect_close(frame(BINARY, b"x" * 1000, length=64), 1002)

    def test_length_with_top_bit(self):
        self.expect_close(b"\x82\xff" + b"\xff" * 8 + b"mask" + b"x", 1002)

    def test_huge_length(self):
        self.expect_close(b"\x82\xff" + struct.pack(">Q", 1 << 62) + b"mask" + b"x", 1009)

    def test_garbage(self):
        self.expect_close(b"\xff" * 500, 1002)


INVALID_UTF8 = (b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2\x20", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
                b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80",
                b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"\xe2\x28\xa1", b"\xf0\x9d\x28\x9e")


class Utf8(Base):
    def test_valid(self):
        client = self.client()
        for text in ("\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\uffff",
                     "\U00010000", "\U0010ffff", "κόσμε", "a" * 100 + "𝄞" * 50 + "b" * 9):
            self.echo(client, TEXT, text.encode())

    def test_invalid(self):
        for bad in INVALID_UTF8:
            self.expect_close(frame(TEXT, b"plain ascii text " + bad), 1007, "not UTF-8|UTF-8 character")
            self.expect_close(frame(TEXT, bad + b" tail"), 1007)

    def test_unfinished(self):
        for bad in (b"\xc3", b"\xe2\x82", b"\xf0\x9d\x84"):
            self.expect_close(frame(TEXT, b"x" + bad), 1007, "inside a UTF-8 character")

    def test_binary_is_not_checked(self):
        self.echo(self.client(), BINARY, b"\xff\xfe\x80")

    def test_split_character(self):
        client = self.client()
        text = "κόσμε𝄞".encode()
        for cut in range(len(text) + 1):
            client.send(frame(TEXT, text[:cut], fin=False) + frame(CONTINUATION, text[cut:]))
            self.assertEqual(client.frame(), (TEXT, text))

    def test_fails_fast(self):
        """The violation is found in the middle of the frame, without the rest of it."""
        whole = frame(TEXT, b"abc\xff" + b"x" * 1000)
        self.expect_close(whole[: 8 + 4], 1007)
        whole = frame(TEXT, b"\xf4\x90" + b"x" * 1000)
        self.expect_close(whole[: 8 + 2], 1007)
        self.expect_close(frame(TEXT, b"\xce\xba\xf4", fin=False) + frame(CONTINUATION, b"\x90", fin=False), 1007)


class Closing(Base):
    def test_echoed(self):
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
            client = self.client()
            client.send(frame(CLOSE, close_payload(code)))
            self.assertEqual(client.close_code()[0], code)
            self.assertTrue(client.at_end())
            self.server.wait_for("WebSocket close %d$" % code)

    def test_without_code(self):
        client = self.client()
        client.send(frame(CLOSE))
        self.assertEqual(client.close_code(), (None, ""))
        self.assertTrue(client.at_end())
        self.server.wait_for("WebSocket close without a code")

    def test_reason(self):
        client = self.client()
        client.send(frame(CLOSE, close_payload(1000, "tschüß".encode())))
        self.assertEqual(client.close_code()[0], 1000)
        self.server.wait_for("WebSocket close 1000: tschüß")
        client = self.client()
        client.send(frame(CLOSE, close_payload(1000, b"x" * 123)))
        self.assertEqual(client.close_code()[0], 1000)

    def test_invalid_codes(self):
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
            self.expect_close(frame(CLOSE, close_payload(code)), 1002, "invalid code")

    def test_one_byte(self):
        self.expect_close(frame(CLOSE, b"\x03"), 1002, "one byte")

    def test_bad_reason(self):
        for bad in INVALID_UTF8 + (b"\xf0\x9d",):
            self.expect_close(frame(CLOSE, close_payload(1000, b"x" + bad)), 1007, "reason is not UTF-8")

    def test_nothing_after_close(self):
        client = self.client()
        client.send(frame(CLOSE, close_payload(1000)) + frame(TEXT, b"late") + frame(PING))
        self.assertEqual(client.close_code()[0], 1000)
        self.assertTrue(client.at_end())

    def test_close_inside_message(self):
        client = self.client()
        client.send(frame(TEXT, b"a", fin=False) + frame(CLOSE, close_payload(1001)))
        self.assertEqual(client.close_code()[0], 1001)

    def test_end_without_close(self):
        client = self.client()
        client.socket.shutdown(socket.SHUT_WR)
        self.assertTrue(client.at_end())
        self.server.wait_for("^end 0 0 peer closed the connection without a WebSocket Close")

    def test_reset(self):
        client = self.client()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.server.wait_for("^end 2 0 connection reset by peer")


class Shutdown(unittest.TestCase):
    def test_going_away(self):
        server = Server(PROGRAM)
        good, silent, early = (Client(server.port), Client(server.port), Client(server.port, upgrade=False))
        for client in (good, silent, early):
            self.addCleanup(client.close)
        server.terminate()
        self.assertEqual(good.close_code(), (1001, "the server stops"))
        good.send(frame(TEXT, b"too late"))
        good.send(frame(CLOSE, close_payload(1001)))
        self.assertTrue(good.at_end())
        self.assertEqual(silent.close_code()[0], 1001)
        self.assertTrue(early.at_end())
        silent.close()
        server.wait_for("^end 6 0 the server stops")
        server.stop()

    def test_peer_that_never_answers(self):
        """The closing handshake has a deadline."""
        server = Server(PROGRAM, "--close", 200)
        client = Client(server.port)
        self.addCleanup(client.close)
        server.terminate()
        self.assertEqual(client.close_code()[0], 1001)
        self.assertTrue(client.at_end())
        server.stop()


class Handshake(Base):
    options = ("--subprotocol", "mqtt", "--subprotocol", "mqttv3.1", "--raw", "yes", "--head", "2000")

    def ask(self, data):
        client = self.client(upgrade=False)
        client.send(data)
        return client, *client.response()

    def expect_refusal(self, data, status, log, headers=None):
        client, got, fields, body = self.ask(data)
        self.assertEqual(got, status)
        self.assertIn("close", fields["connection"])
        self.assertTrue(body.endswith("\n") and len(body) > 10)
        for name, value in (headers or {}).items():
            self.assertEqual(fields[name], value)
        self.assertTrue(client.at_end())
        self.server.wait_for("^refused 127.0.0.1:[0-9]+ .*" + log)
        return body

    def test_accept_value(self):
        key = random_key()
        _, status, fields, _ = self.ask(request("Sec-WebSocket-Key: " + key))
        self.assertEqual(status, 101)
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        self.assertEqual(fields["sec-websocket-accept"], base64.b64encode(digest).decode())
        self.assertEqual(fields["upgrade"].lower(), "websocket")
        self.assertEqual(fields["connection"].lower(), "upgrade")
        self.assertNotIn("sec-websocket-protocol", fields)

    def test_example_of_the_rfc(self):
        _, _, fields, _ = self.ask(request())
        self.assertEqual(fields["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

    def test_case_does_not_matter(self):
        _, status, _, _ = self.ask(request("Upgrade: foo/1, WebSocket", "Connection: UPGRADE"))
        self.assertEqual(status, 101)

    def test_any_path(self):
        for target in ("/", "/mqtt", "/ws?token=a%20b", "/a/b/c"):
            _, status, _, _ = self.ask(request(target=target))
            self.assertEqual(status, 101)
            self.server.wait_for("^open .*path=" + target.replace("?", "\\?") + " ")

    def test_deflate_is_declined(self):
        _, status, fields, _ = self.ask(request("Sec-WebSocket-Extensions: permessage-deflate"))
        self.assertEqual(status, 101)
        self.assertNotIn("sec-websocket-extensions", fields)

    def test_subprotocols(self):
        for offered, chosen in (("mqtt", "mqtt"), ("MQTT", "MQTT"), ("mqttv3.1", "mqttv3.1"),
                                ("foo, mqttv3.1 ,mqtt", "mqttv3.1"), (",,mqtt,", "mqtt")):
            _, status, fields, _ = self.ask(request("Sec-WebSocket-Protocol: " + offered))
            self.assertEqual((status, fields.get("sec-websocket-protocol")), (101, chosen))
        _, status, fields, _ = self.ask(request("Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c, mqtt"))
        self.assertEqual((status, fields.get("sec-websocket-protocol")), (101, "mqtt"))

    def test_no_common_subprotocol(self):
        body = self.expect_refusal(request("Sec-WebSocket-Protocol: chat, mqtt5"), 400, "subprotocol")
        self.assertIn("mqtt mqttv3.1", body)

    def test_refusals(self):
        self.expect_refusal(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 405, "not GET",
                            {"allow": "GET"})
        self.expect_refusal(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426, "does not open",
                            {"upgrade": "websocket"})
        self.expect_refusal(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 400, "version below")
        self.expect_refusal(request("Host:"), 400, "Host")
        self.expect_refusal(request("Host: a", "Host: b"), 400, "Host")
        self.expect_refusal(request("Upgrade: h2c"), 426, "does not open")
        self.expect_refusal(request("Connection: close"), 400, "Connection header")
        self.expect_refusal(request("Sec-WebSocket-Version:"), 426, "version", {"sec-websocket-version": "13"})
        self.expect_refusal(request("Sec-WebSocket-Version: 8"), 426, "version", {"sec-websocket-version": "13"})
        for key in ("Sec-WebSocket-Key:", "Sec-WebSocket-Key: short", "Sec-WebSocket-Key: " + "!" * 24,
                    "Sec-WebSocket-Key: " + base64.b64encode(b"x" * 15).decode(),
                    "Sec-WebSocket-Key: " + base64.b64encode(b"x" * 17).decode()):
            self.expect_refusal(request(key), 400, "Key")
        self.expect_refusal(request("Sec-WebSocket-Key: " + random_key(), "Sec-WebSocket-Key: " + random_key()), 400,
                            "Key")

    def test_not_http(self):
        self.expect_refusal(b"HELLO\r\n\r\n", 400, "malformed")
        self.expect_refusal(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "malformed")
        self.expect_refusal(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "")

    def test_head_too_large(self):
        self.expect_refusal(request("X: " + "y" * 3000), 431, "too large")
        self.expect_refusal(request("X: " + "y" * 3000)[:2001], 431, "too large")
        fits = request("X: y")
        fits = request("X: y" + "y" * (2000 - len(fits)))
        self.assertEqual(len(fits), 2000)
        self.assertEqual(self.ask(fits)[1], 101)
        self.expect_refusal(request(*["Sec-WebSocket-Protocol: a"] * 40), 431, "too large")

    def test_garbage(self):
        client = self.client(upgrade=False)
        client.send(b"\x00\x01\x02")
        self.assertTrue(client.at_end())
        self.server.wait_for("^refused .* unknown protocol, first byte 0x00")

    def test_tls_without_tls(self):
        client = self.client(upgrade=False)
        client.send(b"\x16\x03\x01\x02\x00\x01")
        self.assertTrue(client.at_end())
        self.server.wait_for("^refused .* TLS on a listener without TLS")

    def test_silent_close(self):
        """Health checks connect and leave, some with a reset. Nobody was refused."""
        self.client(upgrade=False).close()
        reset = self.client(upgrade=False)
        reset.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()
        garbage = self.client(upgrade=False)
        garbage.send(b"\x00")
        self.assertTrue(garbage.at_end())
        self.assertIn("first byte 0x00", self.server.wait_for("^refused"))

    def test_raw(self):
        client = self.client(upgrade=False)
        client.send(b"\x10\x02ab")
        self.assertEqual(client.take(4), b"\x10\x02ab")
        client.send(b"more")
        self.assertEqual(client.take(4), b"more")
        client.close()
        self.server.wait_for("^end 0 0 peer closed the connection$")


class Limits(Base):
    options = ("--origin", "https://a.example", "--origin", "https://b.example", "--max-connections", 1,
               "--handshake", 300, "--ping", 100)

    def ask(self, *lines):
        client = self.client(upgrade=False)
        client.send(request(*lines))
        return client, client.response()[0]

    def test_origin(self):
        for origin in ("Origin: https://evil.example", "Origin: https://a.example.evil", "X: no origin"):
            self.assertEqual(self.ask(origin)[1], 403)
            self.server.wait_for("^refused .* Origin is not allowed")
        client, status = self.ask("Origin: https://b.example")
        self.assertEqual(status, 101)
        client.close()
        self.server.wait_for("^end")

    def test_full(self):
        first, status = self.ask("Origin: https://a.example")
        self.assertEqual(status, 101)
        self.assertEqual(self.ask("Origin: https://a.example")[1], 503)
        self.server.wait_for("^refused .* too many connections")
        first.close()
        self.server.wait_for("^end")
        last, status = self.ask("Origin: https://a.example")
        self.assertEqual(status, 101)
        last.close()
        self.server.wait_for("^end")

    def test_silence(self):
        client = self.client(upgrade=False)
        self.assertTrue(client.at_end())
        self.server.wait_for("^refused .* silent after connecting")

    def test_slow_request(self):
        """Bytes do not extend the deadline."""
        client = self.client(upgrade=False)
        client.socket.settimeout(0.05)
        client.send(b"GET / HTTP/1.1\r\n")
        try:
            for _ in range(100):
                client.send(b"X: y\r\n")
                try:
                    if client.socket.recv(1) == b"":
                        break
                except socket.timeout:
                    pass
            else:
                self.fail("the server waits for ever")
        except (ConnectionResetError, BrokenPipeError):
            pass
        self.server.wait_for("^refused .* HTTP request took too long")

    def test_pings(self):
        client, status = self.ask("Origin: https://a.example")
        self.assertEqual(status, 101)
        for _ in range(8):  # far longer than two intervals: answers keep the connection
            opcode, payload = client.frame()
            self.assertEqual(opcode, PING)
            client.send(frame(PONG, payload))
        client.frame()
        client.frame()  # two pings without an answer
        self.assertTrue(client.at_end())
        self.server.wait_for("^end 3 0 no answer to pings")


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main(verbosity=1)
