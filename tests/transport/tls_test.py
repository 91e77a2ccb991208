"""TLS under WebSocket and raw streams, against ws_echo: tls_test.py PATH_TO_WS_ECHO. Needs the openssl program."""

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import warnings

from ws_client import BINARY, TEXT, Client, Server, close_payload, frame, request

PROGRAM = None
FILES = None


def resident_bytes(pid):
    with open("/proc/%d/statm" % pid) as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def path(name):
    return os.path.join(FILES.name, name)


def openssl(*arguments, **options):
    subprocess.run(["openssl", *arguments], check=True, cwd=FILES.name, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, **options)


def key(name, kind):
    if kind == "rsa":
        openssl("genrsa", "-out", name + ".key", "2048")
    else:
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name + ".key")


def authority(name):
    key(name, "ec")
    openssl("req", "-x509", "-new", "-key", name + ".key", "-subj", "/CN=" + name, "-days", "30",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", name + ".crt")


def certificate(name, ca, subject, names=None, kind="ec", days="30"):
    key(name, kind)
    openssl("req", "-new", "-key", name + ".key", "-subj", subject, "-out", name + ".csr")
    with open(path(name + ".ext"), "w") as extensions:
        extensions.write("basicConstraints=CA:FALSE\n")
        if names:
            extensions.write("subjectAltName=" + ",".join("DNS:" + n for n in names) + "\n")
    openssl("x509", "-req", "-in", name + ".csr", "-CA", ca + ".crt", "-CAkey", ca + ".key", "-CAcreateserial",
            "-days", days, "-extfile", name + ".ext", "-out", name + ".crt")


def make_files():
    authority("ca")
    authority("other-ca")
    certificate("first", "ca", "/CN=localhost", ["localhost"], "rsa")
    certificate("second", "ca", "/CN=ignored.example", ["mqtt.example", "*.wild.example"])
    certificate("third", "ca", "/CN=common.example")
    certificate("client", "ca", "/C=DE/O=Acme, Inc./OU=#1\\+x+L=here/CN=device 7")
    certificate("revoked", "ca", "/CN=revoked")
    certificate("stranger", "other-ca", "/CN=stranger")
    with open(path("crl.conf"), "w") as conf:
        conf.write("[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\n"
                   "default_crl_days=30\n")
    open(path("index.txt"), "w").close()
    with open(path("crlnumber"), "w") as number:
        number.write("01\n")
    common = ("ca", "-config", "crl.conf", "-cert", "ca.crt", "-keyfile", "ca.key")
    openssl(*common, "-revoke", "revoked.crt")
    openssl(*common, "-gencrl", "-out", "crl.pem")


def context(certificate_name=None, alpn=None, version=ssl.TLSVersion.TLSv1_2, ciphers=None):
    tls = ssl.create_default_context(cafile=path("ca.crt"))
    tls.minimum_version = version
    tls.maximum_version = version
    if certificate_name:
        tls.load_cert_chain(path(certificate_name + ".crt"), path(certificate_name + ".key"))
    if alpn:
        tls.set_alpn_protocols(alpn)
    if ciphers:
        tls.set_ciphers(ciphers)
    return tls


def pair(name):
    return ("--cert", path(name + ".crt"), "--key", path(name + ".key"))


class Base(unittest.TestCase):
    def start(self, *options):
        server = Server(PROGRAM, *options)
        self.addCleanup(server.stop)
        return server

    def client(self, server, **options):
        client = Client(server.port, **options)
        self.addCleanup(client.close)
        return client


class Stream(Base):
    def test_echo(self):
        server = self.start(*pair("first"))
        client = self.client(server, tls=context())
        server.wait_for("^open .* tls=TLSv1.2 cipher=TLS-ECDHE-RSA-WITH-(CHACHA20-POLY1305|AES-128-GCM)-SHA256 sni=localhost cn=- ")
        for n in (0, 1, 125, 126, 16000, 16384, 16385, 65536, 1 << 20, 16 << 20):
            data = os.urandom(n)
            client.send(frame(BINARY, data))
            self.assertTrue(client.frame() == (BINARY, data))
        for n in range(500):
            client.send(frame(TEXT, b"%d" % n))
        for n in range(500):
            self.assertEqual(client.frame(), (TEXT, b"%d" % n))
        client.send(frame(8, close_payload(1000)))
        self.assertEqual(client.close_code()[0], 1000)
        self.assertTrue(client.at_end())
        server.wait_for("^end 1 1000 WebSocket close 1000")

    def test_many_large_messages_at_once(self):
        """More output than the buffers hold: what waits is encrypted later."""
        server = self.start(*pair("first"))
        client = self.client(server, tls=context())
        data = [os.urandom(900000), b"small", os.urandom(300000), b"", os.urandom(20000)] * 4
        for part in data:
            client.send(frame(BINARY, part))
        for part in data:
            self.assertTrue(client.frame() == (BINARY, part))

    def test_byte_at_a_time(self):
        """Records and handshake messages in pieces of one byte."""
        server = self.start(*pair("first"))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        wire = self.client(server, upgrade=False).socket

        def step(function, *arguments):
            while True:
                try:
                    result = function(*arguments)
                except ssl.SSLWantReadError:
                    result = None
                for byte in outgoing.read():
                    wire.sendall(bytes([byte]))
                if result is not None:
                    return result
                incoming.write(wire.recv(65536))

        step(self.handshake, tls)
        step(tls.write, request() + frame(TEXT, b"hello"))
        got = b""
        while not got.endswith(b"\x81\x05hello"):
            got += step(tls.read, 65536)
        self.assertTrue(got.startswith(b"HTTP/1.1 101"))

    @staticmethod
    def handshake(tls):
        tls.do_handshake()
        return True

    def test_raw(self):
        server = self.start(*pair("first"), "--raw", "yes")
        client = self.client(server, tls=context(), upgrade=False)
        client.send(b"\x10\x00hello")
        self.assertEqual(client.take(7), b"\x10\x00hello")
        client.socket.unwrap()  # close_notify
        server.wait_for("^end 0 0 peer closed the connection$")

    def test_end_without_close_notify(self):
        server = self.start(*pair("first"))
        client = self.client(server, tls=context())
        client.socket.shutdown(socket.SHUT_RDWR)
        server.wait_for("^end 0 0 peer closed the connection without")

    def test_server_says_close_notify(self):
        server = self.start(*pair("first"), "--raw", "yes")
        client = self.client(server, tls=context(), upgrade=False)
        client.socket.suppress_ragged_eofs = False
        client.send(b"\x10\x00hello")
        client.take(7)
        server.terminate()
        self.assertEqual(client.socket.recv(10), b"")  # would raise without close_notify

    def test_corrupt_record(self):
        server = self.start(*pair("first"))
        client = self.client(server, tls=context())
        raw = socket.socket(fileno=os.dup(client.socket.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        server.wait_for("^end 5 0 TLS: ")
        raw.close()


class Modes(Base):
    def test_plain_on_a_tls_listener(self):
        server = self.start(*pair("first"))
        client = self.client(server, upgrade=False)
        client.send(request())
        self.assertTrue(client.at_end())
        server.wait_for("^refused .* no TLS on a listener that requires it")

    def test_both_on_one_port(self):
        server = self.start(*pair("first"), "--tls", "optional")
        for tls in (None, context()):
            client = self.client(server, tls=tls)
            client.send(frame(TEXT, b"hello"))
            self.assertEqual(client.frame(), (TEXT, b"hello"))

    def test_garbage_after_the_first_byte(self):
        server = self.start(*pair("first"))
        client = self.client(server, upgrade=False)
        client.send(b"\x16" + b"\xff" * 500)
        client.at_end()
        server.wait_for("^refused .* TLS: ")

    def test_silence_during_the_handshake(self):
        server = self.start(*pair("first"), "--handshake", "200")
        client = self.client(server, upgrade=False)
        client.send(b"\x16\x03\x01")
        self.assertTrue(client.at_end())
        server.wait_for("^refused .* TLS handshake took too long")

    def test_old_versions_are_refused(self):
        server = self.start(*pair("first"))
        with self.assertRaises(ssl.SSLError):
            tls = context(version=ssl.TLSVersion.TLSv1_1, ciphers="DEFAULT@SECLEVEL=0")
            self.client(server, tls=tls)
        server.wait_for("^refused .* TLS: ")

    def test_alpn(self):
        server = self.start(*pair("first"))
        for offered, chosen in ((["http/1.1"], "http/1.1"), (["mqtt"], "mqtt"), (["h2", "http/1.1"], "http/1.1"),
                                (None, None)):
            client = self.client(server, tls=context(alpn=offered))
            self.assertEqual(client.socket.selected_alpn_protocol(), chosen)

    def test_resumption(self):
        server = self.start(*pair("first"))
        for no_ticket in (False, True):
            tls = context()
            if no_ticket:
                tls.options |= ssl.OP_NO_TICKET
            first = self.client(server, tls=tls)
            second = self.client(server, tls=tls, session=first.socket.session)
            self.assertTrue(second.socket.session_reused)
            second.send(frame(TEXT, b"hello"))
            self.assertEqual(second.frame(), (TEXT, b"hello"))

    def test_idle_sessions_shrink(self):
        """Their record buffers go back to the system after some seconds, and they talk on."""
        server = self.start(*pair("first"))
        clients = [self.client(server, tls=context()) for _ in range(40)]
        messages = [bytes([i]) * size for i, size in enumerate((1, 5000, 16000, 70000))]
        for client in clients:
            client.send(frame(BINARY, messages[2]))
            self.assertEqual(client.frame(), (BINARY, messages[2]))
        before = resident_bytes(server.process.pid)
        deadline = time.monotonic() + 20
        while before - resident_bytes(server.process.pid) < 20000 * len(clients):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        for message in messages:
            for client in clients:
                client.send(frame(BINARY, message))
                self.assertEqual(client.frame(), (BINARY, message))

    def test_cheapest_curve(self):
        server = self.start(*pair("first"))
        for offered, chosen in (("P-521:P-384:X25519:P-256", "X25519"), ("P-521:P-384:P-256", "256"),
                                ("P-521:P-384", "384"), ("P-521", "521")):
            found = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port, "-tls1_2",
                                    "-curves", offered], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, check=False, text=True).stdout
            self.assertRegex(found, "Temp Key: .*" + chosen)

    def test_ciphers(self):
        server = self.start(*pair("first"))
        for cipher in ("ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES256-GCM-SHA384", "AES128-SHA256"):
            client = self.client(server, tls=context(ciphers=cipher))
            self.assertEqual(client.socket.cipher()[0], cipher)


class Certificates(Base):
    def test_chosen_by_name(self):
        server = self.start(*pair("first"), *pair("second"), *pair("third"))
        for name, common in (("localhost", "localhost"), ("mqtt.example", "ignored.example"),
                             ("MQTT.example", "ignored.example"), ("a.wild.example", "ignored.example"),
                             ("common.example", "common.example"), ("wild.example", "localhost"),
                             ("a.b.wild.example", "localhost"), ("ignored.example", "localhost"),
                             ("unknown.example", "localhost")):
            tls = context()
            tls.check_hostname = False
            client = self.client(server, tls=tls, server_name=name)
            subject = dict(item[0] for item in client.socket.getpeercert()["subject"])
            self.assertEqual(subject["commonName"], common)
            server.wait_for("^open .* sni=" + name + " ")

    def test_client_certificate(self):
        server = self.start(*pair("first"), "--ca", path("ca.crt"))
        tls = context("client")
        for _ in range(2):
            client = self.client(server, tls=tls)
            line = server.wait_for("^open ")
            self.assertIn("cn=device 7 subject=", line)
            wanted = subprocess.run(["openssl", "x509", "-in", path("client.crt"), "-noout", "-subject", "-nameopt",
                                     "RFC2253"], check=True, capture_output=True, text=True).stdout
            self.assertEqual(line.split("subject=")[1], wanted.split("subject=")[1])
        resumed = self.client(server, tls=tls, session=client.socket.session)
        self.assertTrue(resumed.socket.session_reused)
        self.assertIn("cn=device 7 ", server.wait_for("^open "))

    def refused(self, server, certificate_name, log):
        with self.assertRaises((ssl.SSLError, EOFError, ConnectionError)):
            self.client(server, tls=context(certificate_name))
        server.wait_for("^refused .* TLS: .*" + log)

    def test_bad_client_certificates(self):
        server = self.start(*pair("first"), "--ca", path("ca.crt"), "--crl", path("crl.pem"))
        self.refused(server, None, "(?:[Nn]o client certif|fatal alert)")
        self.refused(server, "stranger", "client certificate: .*not correctly signed by the trusted CA")
        self.refused(server, "revoked", "client certificate: .*revoked")
        self.client(server, tls=context("client"))
        server.wait_for("^open .*cn=device 7")

    def test_errors_at_start(self):
        def error(*options):
            with self.assertRaises(RuntimeError) as raised:
                Server(PROGRAM, *options)
            return str(raised.exception)

        self.assertIn("/nowhere.crt: No such file or directory",
                      error("--cert", path("nowhere.crt"), "--key", path("first.key")))
        self.assertIn("/nowhere.key: No such file", error("--cert", path("first.crt"), "--key", path("nowhere.key")))
        self.assertIn("first.key: ", error("--cert", path("first.key"), "--key", path("first.key")))
        self.assertIn("first.crt: ", error("--cert", path("first.crt"), "--key", path("first.crt")))
        self.assertIn("the key does not belong", error("--cert", path("first.crt"), "--key", path("second.key")))
        self.assertIn("crl.conf: ", error(*pair("first"), "--ca", path("crl.conf")))
        self.assertIn("ca.crt: ", error(*pair("first"), "--ca", path("ca.crt"), "--crl", path("ca.crt")))


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    warnings.simplefilter("ignore", DeprecationWarning)  # old versions are spoken to see them refused
    FILES = tempfile.TemporaryDirectory()
    try:
        make_files()
        unittest.main(verbosity=1, warnings="ignore")
    finally:
        FILES.cleanup()
