"""Runs scenarios: a broker started anew for each run, the generator against it, and what the runs say together."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from brokers import ConfiguredBroker, make_certificate, wait_for_connack

SYNCS = 100
PAGE = bytes(4096)
RUN_TIMEOUT_S = 180
SLOW_RUN_S = 30  # a broker that takes longer for a run is not made to repeat it
TURNS_BYTES = 32  # struct turns of turns.h

# What only the broker's pid can tell.
MEASURED_BY_PID = ("broker_us", "set_us", "replay_us", "bytes_each", "memory_each", "broker_cpu_fraction",
                   "idle_cpu_fraction", "resident_bytes", "resident_before_bytes")


def timed_us(call, *arguments):
    begin = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - begin) * 1e6


def append_and_sync(descriptor):
    os.write(descriptor, PAGE)
    os.fdatasync(descriptor)


def commit_pages(descriptor, meta, at):
    """What LMDB does for the smallest change: pages are written and synced, and then one that names them."""
    for page in range(4):
        os.pwrite(descriptor, PAGE, (at * 4 + page + 2) * len(PAGE))
    os.fdatasync(descriptor)
    os.pwrite(meta, PAGE[:56], at % 2 * len(PAGE))


def measure_syncs(directory):
    """Microseconds of each of SYNCS syncs, and of as many commits, in a file beside the broker's."""
    path = os.path.join(directory, "sync")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    meta = os.open(path, os.O_RDWR | os.O_DSYNC)
    try:
        syncs = [timed_us(append_and_sync, descriptor) for _ in range(SYNCS)]
        commits = [timed_us(commit_pages, descriptor, meta, at) for at in range(SYNCS)]
    finally:
        os.close(meta)
        os.close(descriptor)
    return syncs, commits


def memory_mib(pid):
    """Resident memory of a process, and what of it no file backs, in MiB."""
    kib = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("Rss", "Anonymous"):
                kib[name] = int(value.split()[0])
    return kib["Rss"] / 1024, kib["Anonymous"] / 1024


def files_bytes(directory):
    """What the files of a broker take of the disk."""
    total = 0
    for path, _, names in os.walk(directory):
        total += sum(os.stat(os.path.join(path, name)).st_blocks * 512 for name in names)
    return total


def add_derived(report, pid):
    if pid == 0:
        report = {field: value for field, value in report.items() if field not in MEASURED_BY_PID}
    if "idle_cpu_fraction" in report:
        report["idle_cpu_percent"] = report["idle_cpu_fraction"] * 100
    if "p99_us" in report:
        report["latency"] = tuple(report[field] / 1000 for field in ("p50_us", "p99_us", "p999_us"))
    for field in ("p99_us", "quiet_p99_us", "stall_p99_us", "stall_max_us", "turn_max_us", "turn_max_cpu_us",
                  "turn_busiest_us"):
        if field in report:
            report[field.replace("_us", "_ms")] = report[field] / 1000
    if "flood_messages" in report:
        report["flood_per_s"] = report["flood_messages"] / report["seconds"]
    if "resident_before_bytes" in report:
        report["growth_mib"] = (report["resident_bytes"] - report["resident_before_bytes"]) / 2**20
    return report


def add_files(report, directory):
    total = files_bytes(directory)
    report["files_mib"] = total / 2**20
    if report.get("messages"):
        report["file_bytes_each"] = total / report["messages"]


def add_synced(report, before, after):
    """What the disk could do before and after the run, and how many times as long the broker took."""
    for field, ratio, times in (("sync_us", "syncs", before[0] + after[0]),
                                ("commit_us", "commits", before[1] + after[1])):
        report[field] = statistics.median(times)
        if "p50_us" in report:
            report[ratio] = report["p50_us"] / report[field]


def merge(reports):
    """Medians of what is measured; the worst of what must not happen."""
    merged = {}
    for field, value in reports[0].items():
        values = [report.get(field) for report in reports]
        if any(each is None for each in values):
            merged[field] = None
        elif field in ("lost", "lost_clients", "stalls"):
            merged[field] = max(values)
        elif isinstance(value, tuple):
            merged[field] = tuple(statistics.median(part) for part in zip(*values))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            merged[field] = statistics.median(values)
        else:
            merged[field] = value
    return merged


class Bench:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.certificate = make_certificate(directory)
        self.cpus = sorted(os.sched_getaffinity(0))
        programs = os.path.join(options.build_dir, "tests", "bench")
        self.load = options.load or os.path.join(programs, "load")
        self.turns_shim = os.path.abspath(os.path.join(programs, "libturns_shim.so"))
        self.turns = None  # the file of the run's turns, when they are measured

    def spawn(self, command):
        """Starts a broker on its CPUs. Its messages are shown: a broker that warns is not measured quietly."""
        cpus = set(self.options.broker_cpus or self.cpus[:1])
        shim = {"LD_PRELOAD": self.turns_shim, "BENCH_TURNS": self.turns} if self.turns else {}
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **shim},
                                preexec_fn=lambda: os.sched_setaffinity(0, cpus))

    def run_load(self, scenario, running):
        command = [self.load] + scenario.arguments
        command += ["--host", running.host, "--port", str(running.ports[scenario.transport]),
                    "--transport", scenario.transport, "--pid", str(running.pid),
                    "--duration-ms", str(self.options.duration_ms),
                    "--warmup-ms", str(self.options.warmup_ms)]
        if len(self.cpus) > 1:
            command += ["--cpu", str(self.cpus[-1])]
        if self.turns:
            command += ["--turns", self.turns]
        result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S,
                                check=False)
        if result.returncode != 0:
            raise RuntimeError(result.stderr.strip() or f"load ended with {result.returncode}")
        if result.stderr:
            print(f"    {result.stderr.strip()}", file=sys.stderr)
        return add_derived(json.loads(result.stdout), running.pid)

    def run_once(self, scenario, broker, **options):
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            os.chmod(directory, 0o755)
            self.turns = self.make_turns(directory) if scenario.turns else None
            before = measure_syncs(directory) if scenario.syncs else None
            running = broker.start(scenario, directory, self, **options)
            try:
                report = self.run_load(scenario, running)
                if scenario.restart:
                    report.update(self.start_again(scenario, running))
            finally:
                running.stop()
            if scenario.syncs:
                add_synced(report, before, measure_syncs(directory))
            add_files(report, os.path.join(directory, "data"))
        return report

    def make_turns(self, directory):
        """A file for the turns of a broker; None: there is no shim to keep them."""
        if not os.path.exists(self.turns_shim):
            return None
        path = os.path.join(directory, "turns")
        with open(path, "wb") as file:
            file.write(bytes(TURNS_BYTES))
        os.chmod(path, 0o666)
        return path

    def start_again(self, scenario, running):
        """Stops the broker as an operator does, and starts it with the same files."""
        command = running.process.args
        running.stop()
        begin = time.monotonic()
        running.process = self.spawn(command)
        wait_for_connack(running.ports[scenario.transport], running.process)
        took = time.monotonic() - begin
        resident, memory = memory_mib(running.process.pid)
        return {"start_s": took, "resident_mib": resident, "memory_mib": memory}

    def run_beside_memory(self, scenario, broker):
        report = self.run_once(scenario, broker)
        if scenario.beside_memory and isinstance(broker, ConfiguredBroker):
            memory = self.run_once(scenario, broker, persistence=False)
            report["memory_us"] = memory["broker_us"]
            report["cpu_ratio"] = report["broker_us"] / memory["broker_us"]
            report["memory_stall_max_ms"] = memory["stall_max_ms"]
            report["memory_turn_max_ms"] = memory.get("turn_max_ms")
        return report

    def run(self, scenario, brokers):
        """The merged report of each broker, or the reason why there is none."""
        reports = {broker.name: [] for broker in brokers}
        errors = {}
        slow = set()
        for _ in range(1 if scenario.once else self.options.repeat):
            for broker in brokers:
                if not broker.can(scenario) or broker.name in errors or broker.name in slow:
                    continue
                begin = time.monotonic()
                try:
                    reports[broker.name].append(self.run_beside_memory(scenario, broker))
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    errors[broker.name] = str(error)
                    print(f"    {broker.name}: {error}", file=sys.stderr)
                if time.monotonic() - begin > SLOW_RUN_S:
                    slow.add(broker.name)
        results = {}
        for name, values in reports.items():
            if name in errors:
                results[name] = {"error": errors[name]}
            elif values:
                results[name] = merge(values)
        return results
