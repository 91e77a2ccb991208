"""A WebSocket client that can also break every rule, and a runner for ws_echo. Standard library only."""

import base64
import os
import re
import socket
import ssl
import struct
import subprocess
import threading

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
TIMEOUT_S = 20


class Server:
    """A running ws_echo. Its lines on standard error can be waited for."""

    def __init__(self, program, *options):
        self.process = subprocess.Popen(
            [program, *map(str, options), "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.terminated = False
        self.lines = []
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        first = self.process.stdout.readline()
        if not first.startswith("port "):
            self.process.wait()
            self.reader.join()
            self.process.stdout.close()
            self.process.stderr.close()
            raise RuntimeError("ws_echo did not start: " + "".join(self.lines))
        self.port = int(first.split()[1])

    def _read(self):
        for line in self.process.stderr:
            with self.news:
                self.lines.append(line)
                self.news.notify_all()

    def wait_for(self, pattern):
        """Waits for a line on standard error, which is then forgotten with all before it."""

        def find():
            for i, line in enumerate(self.lines):
                if re.search(pattern, line):
                    del self.lines[: i + 1]
                    return line
            return None

        with self.news:
            found = None

            def ready():
                nonlocal found
                found = find()
                return found is not None

            if not self.news.wait_for(ready, TIMEOUT_S):
                raise AssertionError("no line like %r, but: %s" % (pattern, self.lines))
            return found

    def terminate(self):
        if not self.terminated:
            self.terminated = True
            self.process.terminate()

    def stop(self):
        self.terminate()
        code = self.process.wait(TIMEOUT_S)
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        if code != 0:
            raise AssertionError("ws_echo ended with %d: %s" % (code, "".join(self.lines)))


def request(*lines, target="/", headers=True):
    """An upgrade request; `lines` replace headers of the same name, or remove them when they end in ':'."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    extra = []
    for line in lines:
        name = line.split(":")[0]
        if name in fields:
            del fields[name]
        if not line.endswith(":"):
            extra.append(line)
    all_lines = ["%s: %s" % item for item in fields.items()] + extra
    return ("GET %s HTTP/1.1\r\n" % target + "\r\n".join(all_lines) + "\r\n\r\n").encode()


def frame(opcode, payload=b"", fin=True, mask=True, rsv=0, length=None):
    """One frame; `length` overrides how the length is written: 7, 16 or 64 bits."""
    n = len(payload)
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if length is None:
        length = 7 if n < 126 else 16 if n < 65536 else 64
    head = {7: lambda: bytes([bit | n]), 16: lambda: bytes([bit | 126]) + struct.pack(">H", n)}.get(
        length, lambda: bytes([bit | 127]) + struct.pack(">Q", n)
    )()
    if not mask:
        return first + head + payload
    key = os.urandom(4)
    stream = (key * (n // 4 + 1))[:n]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(n, "big")
    return first + head + key + masked


class Client:
    def __init__(self, port, tls=None, upgrade=True, server_name="localhost", **options):
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name, **options)
        self.buffer = b""
        if upgrade:
            self.send(request())
            status, _, _ = self.response()
            assert status == 101, status

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        try:
            data = self.socket.recv(1 << 18)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.buffer += data
        return len(data) != 0

    def take(self, n):
        if len(self.buffer) < n:
            parts, have = [self.buffer], len(self.buffer)
            while have < n:
                self.buffer = b""
                if not self.fill():
                    raise EOFError("the server closed the connection")
                parts.append(self.buffer)
                have += len(self.buffer)
            self.buffer = b"".join(parts)
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def response(self):
        """An HTTP response head, and its body: (status, headers by lower-case name, body)."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                raise EOFError("the server closed the connection")
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            name = name.lower()
            headers[name] = headers[name] + ", " + value.strip() if name in headers else value.strip()
        body = self.take(int(headers.get("content-length", 0))).decode()
        return int(lines[0].split()[1]), headers, body

    def frame(self):
        """(opcode, payload) of the next frame, which must be whole and unmasked."""
        first, second = self.take(2)
        assert first & 0x70 == 0 and first & 0x80, "reserved bits or a fragment"
        assert second & 0x80 == 0, "a masked frame from a server"
        n = second & 0x7F
        if n == 126:
            n = struct.unpack(">H", self.take(2))[0]
            assert n > 125
        elif n == 127:
            n = struct.unpack(">Q", self.take(8))[0]
            assert n > 65535
        return first & 15, self.take(n)

    def close_code(self):
        """The next frame must be a Close: (code, reason)."""
        opcode, payload = self.frame()
        assert opcode == CLOSE, "opcode %d: %r" % (opcode, payload[:50])
        if len(payload) == 0:
            return None, ""
        return struct.unpack(">H", payload[:2])[0], payload[2:].decode()

    def at_end(self):
        """True when the server has closed and sent nothing more."""
        while self.fill():
            pass
        return self.buffer == b""

    def close(self):
        self.socket.close()


def close_payload(code, reason=b""):
    return struct.pack(">H", code) + reason


def random_key():
    return base64.b64encode(os.urandom(16)).decode()
