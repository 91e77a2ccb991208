#!/usr/bin/env python3
"""Runs the load generator against Dunlin, Debian's mosquitto and others in turn, and prints tables.

    bench.py --build-dir build [--repeat 2] [--floor PATH] [--json FILE] [--markdown FILE] [SCENARIO...]

A SCENARIO is a name, a section or a pattern of names ("pairs*", "tls", "idle-ws", "*" for all); without any a few that
stand for the others run once each. Every broker is started anew for every run, on CPU 0, with the generator on CPU 1;
each scenario visits all brokers before it repeats, so that a machine that slows down slows down everybody. Figures are
medians of the repeats, except for lost messages, of which the worst run counts.
"""

import argparse
import fnmatch
import os
import resource
import sys
import tempfile
import time

from brokers import find_brokers
from running import Bench
from scenarios import QUICK, all_scenarios
from tables import around_marks, cell, machine, make_tables, write_json, write_markdown


def choose(patterns):
    every = all_scenarios()
    if not patterns:
        return [scenario for scenario in every if scenario.name in QUICK]
    chosen = []
    for scenario in every:
        if any(pattern == scenario.section or fnmatch.fnmatch(scenario.name, pattern)
               for pattern in patterns):
            chosen.append(scenario)
    if not chosen:
        names = ", ".join(scenario.name for scenario in every)
        raise SystemExit(f"no such scenario; there are: {names}")
    return chosen


def parse_arguments():
    parser = argparse.ArgumentParser(description="Dunlin's benchmarks")
    parser.add_argument("scenarios", nargs="*", help="names, sections or patterns")
    parser.add_argument("--build-dir", default="build")
    parser.add_argument("--load", help="the load generator, if not in the build directory")
    parser.add_argument("--dunlin", help="the broker, if not in the build directory")
    parser.add_argument("--set", action="append", default=[], metavar="'KEY VALUE'",
                        help="a line more in Dunlin's configuration, such as 'io_threads 1'")
    parser.add_argument("--floor", help="the reference server; the environment's FLOOR otherwise")
    parser.add_argument("--broker", action="append", default=[], metavar="NAME=HOST:PORT:PID",
                        help="a running broker; PID 0 when it is on another machine")
    parser.add_argument("--broker-transports", default="tcp",
                        help="what the port of --broker speaks, such as tcp,ws")
    parser.add_argument("--only", help="only these brokers, with commas")
    parser.add_argument("--broker-cpus", type=lambda text: [int(cpu) for cpu in text.split(",")],
                        help="CPUs of the broker, such as 0,1")
    parser.add_argument("--repeat", type=int, help="runs of each scenario: 2, or 1 when none is named")
    parser.add_argument("--duration-ms", type=int, default=2000)
    parser.add_argument("--warmup-ms", type=int, default=500)
    parser.add_argument("--json", help="write every merged report to this file")
    parser.add_argument("--markdown", help="write the tables to this file; into one that exists, between its marks")
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    options = parser.parse_args()
    if options.repeat is None:
        options.repeat = 2 if options.scenarios else 1
    return options


def main():
    options = parse_arguments()
    if options.list:
        for scenario in all_scenarios():
            print(f"{scenario.name:24} {scenario.section:14} {scenario.rows[0].title}")
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    scenarios = choose(options.scenarios)
    brokers = find_brokers(options)
    if not brokers:
        raise SystemExit("no broker to measure")
    if options.markdown:
        around_marks(options.markdown)  # better now than after an hour
    names = [broker.name for broker in brokers]
    subject = "dunlin" if "dunlin" in names else names[-1]
    head = machine(brokers, options)
    results = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.chmod(directory, 0o755)
        bench = Bench(options, directory)
        for scenario in scenarios:
            before = time.monotonic()
            results[scenario.name] = bench.run(scenario, brokers)
            shown = ", ".join(f"{name} {cell(results[scenario.name].get(name), scenario.rows[0].field)}"
                              for name in names)
            print(f"{scenario.rows[0].title}: {shown} [{time.monotonic() - before:.0f} s]", file=sys.stderr, flush=True)
    made = make_tables(scenarios, results, brokers, subject)
    head.append(f"- The whole took {(time.monotonic() - began) / 60:.0f} minutes")
    print("\n" + "\n".join(head))
    for table, header in made:
        print(f"\n{table.section}\n\n{table.text(header)}")
    if options.json:
        write_json(options.json, head, results)
    if options.markdown:
        for title in write_markdown(options.markdown, head, made):
            print(f"{options.markdown} does not say why this is not reached: {title}", file=sys.stderr)
    failed = any("error" in report for outcome in results.values() for report in outcome.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
