#!/usr/bin/env python3
"""No acknowledgement leaves the broker before what it promises has been synced: seen in a trace of its system calls.

    sync_test.py BROKER

kill -9 cannot show this, because what a process has written outlives it in the system's cache. Here the broker runs
under strace. Every acknowledged thing carries a random mark (payload, topic, filter or client identifier). In the
trace the mark must be written to a file of the persistence directory, and between the end of that write and the
beginning of the write that sends the acknowledgement an fdatasync or fsync of that file must have begun and returned.
Where the file is also open with O_DSYNC (LMDB's meta page, which makes a transaction count), such a write must have
returned after that, too. Exits with 77, which means skipped, where strace is missing or tracing is not allowed.
"""
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import mqtt  # noqa: E402
from world import Broker  # noqa: E402

PUBLISHERS = 12
ROUNDS = 6
CALLS = "openat,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync"
LINE = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")
CALL = re.compile(r"^(\w+)\((?:AT_FDCWD[^,]*|(\d+)<([^>]*(?:>[^>(),]*)?)>)?(.*)$", re.S)
HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def skip(why):
    print("skipped: %s" % why)
    sys.exit(77)


def may_trace():
    if shutil.which("strace") is None:
        skip("strace is not installed")
    probe = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        skip("this system does not allow tracing: %s" % probe.stderr.strip())


class Event:
    """One system call that succeeded."""
    __slots__ = ("name", "path", "data", "begin", "end", "dsync")

    def __init__(self, name, path, data, begin, end, dsync):
        self.name, self.path, self.data, self.begin, self.end, self.dsync = name, path, data, begin, end, dsync


def read_trace(path):
    with open(path, encoding="latin-1") as file:
        return parse_trace(file)


def parse_trace(lines):
    """The calls in the order of their ends. Times are line numbers: strace writes a line when a call ends, and one
    when it began if another thread's comes in between."""
    events, unfinished, dsync = [], {}, set()
    for number, line in enumerate(lines):
        match = LINE.match(line.rstrip("\n"))
        if not match:
            continue
        pid, text = match.group(1), match.group(3)
        begin = number
        if text.endswith("<unfinished ...>"):
            unfinished[pid] = (number, text[:-len("<unfinished ...>")])
            continue
        if text.startswith("<... "):
            if pid not in unfinished:
                continue
            begin, start = unfinished.pop(pid)
            text = start + text.split("resumed>", 1)[1]
        add_event(events, dsync, text, begin, number)
    return events


def add_event(events, dsync, text, begin, end):
    result = re.search(r"\) += (-?\d+)(<[^>]*>)?", text)
    call = CALL.match(text)
    if not result or not call or int(result.group(1)) < 0:
        return
    name, descriptor = call.group(1), call.group(2)
    if name == "openat":
        key = result.group(1)
        (dsync.add if "SYNC" in text else dsync.discard)(key)
        return
    data = b"".join(unhex(piece) for piece in HEX.findall(text))
    path = call.group(3) or ""
    if path.startswith("\\x"):
        path = unhex(path).decode()
    events.append(Event(name, path, data, begin, end, descriptor in dsync))


def unhex(text):
    return bytes.fromhex(text.replace("\\x", ""))


class Promise:
    """An acknowledgement that must not leave early."""

    def __init__(self, what, mark, packet):
        self.what, self.mark, self.packet = what, mark, packet


def exercise(port, rng):
    """Every kind of promise. Returns them in the order in which each client got them."""
    promises = []

    def mark():
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=20))

    def session():
        name = "id-" + mark()
        client = mqtt.Client(mqtt.TcpStream("127.0.0.1", port), 5, patience=30)
        client.connack = client.connect(name, clean=False, properties={"session_expiry": 3600})
        promises.append((client, Promise("CONNACK", name, b"\x20")))
        return client

    offline = session()
    for _ in range(4):
        topic_filter = "marks/" + mark()
        pid = offline.subscribe((topic_filter, 2)).pid
        promises.append((offline, Promise("SUBACK", topic_filter, b"\x90" + reply(pid, 4))))
    offline.subscribe(("t/#", 2))
    offline.disconnect()
    publishers = [session() for _ in range(PUBLISHERS)]
    for _ in range(ROUNDS):
        waiting = []
        for number, client in enumerate(publishers):
            qos, pid, text = 1 + number % 2, client.pid(), mark()
            client.send(mqtt.publish(5, "t/%d" % number, text, qos, pid, retain=number % 3 == 0))
            waiting.append((client, qos, pid))
            head = b"\x40" if qos == 1 else b"\x50"
            promises.append((client, Promise("PUBACK" if qos == 1 else "PUBREC", text, head + reply(pid, 2))))
        for client, qos, pid in waiting:
            client.expect(mqtt.PUBACK if qos == 1 else mqtt.PUBREC, pid=pid)
            if qos == 2:
                client.send(mqtt.ack(mqtt.PUBREL, pid))
                client.expect(mqtt.PUBCOMP, pid=pid)
    ports = {client: client.stream.sock.getsockname()[1] for client in publishers}
    for client in publishers:
        client.disconnect()
    return [(ports.get(client), promise) for client, promise in promises]


def reply(pid, length):
    return bytes([length]) + pid.to_bytes(2, "big")


def check(events, port, promise):
    """Why the promise was given too early, or None."""
    mark = promise.mark.encode()
    written = next((each for each in events if mark in each.data and "/data/" in each.path), None)
    sends = [each for each in events if each.path.startswith("TCP") and promise.packet in each.data and
             (port is None or each.path.rstrip("]").endswith(":%d" % port))]
    if written is None:
        return "was never written to a file"
    if promise.what == "CONNACK" and sends:
        sends = sends[:1]
    if not sends:
        return "was not seen to leave"
    sent = sends[0]
    synced = next((each for each in events if each.name in ("fdatasync", "fsync") and
                   each.path == written.path and each.begin > written.end and each.end < sent.begin), None)
    if synced is None:
        return "left at line %d, and its data, written at line %d, had not been synced" % (sent.begin, written.end)
    if any(each.dsync and each.path == written.path for each in events):
        if not any(each.dsync and each.path == written.path and each.begin > synced.end and each.end < sent.begin
                   for each in events):
            return "left at line %d, before the transaction of its data counted" % sent.begin
    return None


def main():
    may_trace()
    directory = tempfile.mkdtemp(prefix="sync-")
    trace = os.path.join(directory, "trace")
    wrapper = ["strace", "-f", "-ttt", "-yy", "-xx", "-s", "65536", "-e", "trace=" + CALLS, "-o", trace]
    environment = os.environ.get("ASAN_OPTIONS", "")
    os.environ["ASAN_OPTIONS"] = environment + ":detect_leaks=0"  # which traces, too
    broker = Broker(sys.argv[1], directory, wrapper=wrapper)
    passed = failed = 0
    try:
        broker.spawn()
        broker.wait_accepting()
        promises = exercise(broker.port, random.Random(1))
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(broker.process.pid)], capture_output=True,
                                  text=True, check=True).stdout.split()
        os.kill(int(children[0]), 15)
        broker.process.wait(30)
        events = read_trace(trace)
        for port, promise in promises:
            why = check(events, port, promise)
            if why is None:
                passed += 1
            else:
                failed += 1
                print("%s of %s %s" % (promise.what, promise.mark, why))
    finally:
        broker.kill()
        if os.environ.get("KEEP_TRACE"):
            shutil.copy(trace, os.environ["KEEP_TRACE"])
        shutil.rmtree(directory, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
