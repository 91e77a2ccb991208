#!/usr/bin/python3
"""MQTT conformance suite: black-box tests over real sockets against any server.

    run.py HOST PORT [--ws] [--ws-port PORT] [--only NAME] [--jobs N] [--lenient]
    run.py --start "build/dunlin -p {port}" [--ws] ...
    run.py --list
    run.py --coverage docs/conformance.md

--ws runs every test over WebSocket. The tests of WebSocket itself run at --ws-port (with --ws: PORT); without
either they are skipped. --only takes a name or a part of one, and may be repeated. The server must accept
anonymous clients. --start runs a server that speaks MQTT and WebSocket at one free port, and ends it afterwards.
Exit status 1 if a test fails.
"""
import argparse
import concurrent.futures
import inspect
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import harness  # noqa: E402
import mqtt     # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
for path in sorted(HERE.glob("test_*.py")):
    __import__(path.stem)


def run_one(broker, test, version):
    label = test.name if len(test.versions) == 1 else "%s[%s]" % (test.name, harness.LABEL[version])
    started = time.monotonic()
    context = harness.Context(broker, version)
    try:
        test.function(context)
        result, reason = "ok", ""
    except harness.Skip as skip:
        result, reason = "skip", str(skip)
    except (mqtt.TestFailure, mqtt.Closed) as failure:
        result, reason = "FAIL", str(failure)
    except Exception as failure:  # a test must not end the run
        result, reason = "FAIL", "%s: %s" % (type(failure).__name__, failure)
    finally:
        context.close()
    return result, label, reason, time.monotonic() - started


def run(arguments):
    ws_port = arguments.ws_port or (arguments.port if arguments.ws else None)
    broker = harness.Broker(arguments.host, arguments.port, arguments.ws, ws_port)
    chosen = [t for t in harness.TESTS.values()
              if not arguments.only or any(part in t.name for part in arguments.only)]
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    # The slow tests (they let seconds pass on the server's clock) start first.
    chosen.sort(key=lambda t: "wait(" not in _source(t))
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        futures = []
        for test in chosen:
            if test.websocket and not ws_port:
                counts["skip"] += 1
                print("skip %s: needs --ws or --ws-port" % test.name)
                continue
            futures += [pool.submit(run_one, broker, test, v) for v in test.versions]
        for future in concurrent.futures.as_completed(futures):
            result, label, reason, seconds = future.result()
            counts[result] += 1
            slow = " (%.1f s)" % seconds if arguments.times else ""
            print(result, label + (": " + reason if reason else "") + slow, flush=True)
    if counts["skip"]:
        print("%d skipped" % counts["skip"])
    print("%d passed, %d failed" % (counts["ok"], counts["FAIL"]))
    return 1 if counts["FAIL"] or not counts["ok"] else 0


def _source(test):
    return inspect.getsource(test.function)


def run_with_server(arguments):
    """Starts the server of --start, runs the tests, and ends it. It must survive them and end cleanly."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        arguments.port = probe.getsockname()[1]
    arguments.host = "127.0.0.1"
    arguments.ws_port = arguments.ws_port or arguments.port
    command = [part.replace("{port}", str(arguments.port)) for part in shlex.split(arguments.start)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((arguments.host, arguments.port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    print("the server did not start: %s" % arguments.start)
                    return 1
                time.sleep(0.02)
        failed = run(arguments)
        if server.poll() is not None:
            print("the server ended during the tests with status %d" % server.returncode)
            return 1
        return failed
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


# How many numbered statements each section has; 5.0 begins 2.2.1 with number 2.
STATEMENTS = {
    4: "1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 3.3.4:1 3.3.5:2 "
       "3.6.1:1 3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 3.14.1:1 3.14.4:3 4.1.0:2 "
       "4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 "
       "7.1.2:1",
    5: "1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13 "
       "3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 "
       "3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 "
       "4.2.0:1 4.3.1:1 4.3.2:5 4.3.3:13 4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 "
       "4.12.0:7 4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4",
}


def all_statements(version):
    found = []
    for item in STATEMENTS[version].split():
        section, count = item.split(":")
        found += ["MQTT-%s-%d" % (section, n) for n in range(1, int(count) + 1)]
    return [s for s in found if not (version == 5 and s == "MQTT-2.2.1-1")]


ROW = re.compile(r"^\|\s*(MQTT-\d+\.\d+\.\d+-\d+)\s*\|(.*)\|\s*$")


def coverage(document):
    """Every statement of the standards is in the document, as a row or as one that binds the client only; every
    test that it names exists; every statement that a test claims has a row that names the test.
    """
    text = pathlib.Path(document).read_text(encoding="utf-8")
    named, problems, section = {4: {}, 5: {}}, [], None
    other, client_only = set(), {4: set(), 5: set()}
    for line in text.splitlines():
        if line.startswith("## "):
            section = 4 if "3.1.1" in line else 5 if "5.0" in line else None
        match = ROW.match(line)
        if section and line.startswith("Bind the client only:"):
            client_only[section].update(re.findall(r"MQTT-[0-9.]+-[0-9]+", line))
        if match and section:
            cell = match.group(2).rsplit("|", 1)[1]
            if match.group(1) in named[section]:
                problems.append("%s has two rows for %s" % (match.group(1), harness.LABEL[section]))
            named[section][match.group(1)] = set(re.findall(r"`([a-z0-9_]+)`", cell))
            other.update(re.findall(r"`([a-z_0-9/]+\.(?:c|js|py|sh|txt))`", cell))
            if not cell.strip():
                problems.append("%s has neither a test nor a reason" % match.group(1))
    for version, rows in named.items():
        if not rows:
            problems.append("no rows for %s" % harness.LABEL[version])
        known = all_statements(version)
        for statement in known:
            if (statement in rows) == (statement in client_only[version]):
                problems.append("%s %s is %s" % (harness.LABEL[version], statement,
                                                 "in both lists" if statement in rows else "missing"))
        for statement in sorted((set(rows) | client_only[version]) - set(known)):
            problems.append("%s has no %s" % (harness.LABEL[version], statement))
        for statement, names in rows.items():
            for name in names:
                test = harness.TESTS.get(name)
                if not test:
                    problems.append("%s names the test %s, which does not exist" % (statement, name))
                elif statement not in (test.v311 if version == 4 else test.v5):
                    problems.append("%s (%s) names %s, which does not claim it"
                                    % (statement, harness.LABEL[version], name))
    for test in harness.TESTS.values():
        for version, statements in ((4, test.v311), (5, test.v5)):
            for statement in statements:
                if test.name not in named[version].get(statement, ()):
                    problems.append("%s claims %s (%s), but its row does not name it"
                                    % (test.name, statement, harness.LABEL[version]))
    root = pathlib.Path(document).resolve().parent.parent
    for name in sorted(other):
        if not (root / name).exists():
            problems.append("the file %s does not exist" % name)
    for problem in problems:
        print(problem)
    rows = sum(len(r) for r in named.values())
    proved = sum(1 for r in named.values() for names in r.values() if names)
    print("%d statements, %d with a test of this suite, %d tests; %d problems"
          % (rows, proved, len(harness.TESTS), len(problems)))
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("host", nargs="?")
    parser.add_argument("port", nargs="?", type=int)
    parser.add_argument("--start", metavar="COMMAND", help="start this server; {port} is replaced by a free port")
    parser.add_argument("--ws", action="store_true", help="run every test over WebSocket")
    parser.add_argument("--ws-port", type=int, help="where the tests of WebSocket run")
    parser.add_argument("--only", action="append", help="a test's name or a part of it")
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--lenient", action="store_true",
                        help="5.0: accept a close without DISCONNECT where the standard says SHOULD")
    parser.add_argument("--times", action="store_true", help="print how long each test took")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--coverage", metavar="DOCUMENT")
    arguments = parser.parse_args()
    if arguments.list:
        for test in harness.TESTS.values():
            print(test.name + ":", *("3.1.1 " + s for s in test.v311), *("5.0 " + s for s in test.v5))
        return 0
    if arguments.coverage:
        return coverage(arguments.coverage)
    mqtt.LENIENT = arguments.lenient
    if arguments.start:
        return run_with_server(arguments)
    if not arguments.host or not arguments.port:
        parser.error("HOST and PORT are needed")
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
