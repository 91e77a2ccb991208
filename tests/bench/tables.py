"""Tables of merged reports, and the file that they are written to."""

import datetime
import json
import math
import os
import platform
import tempfile
import textwrap

from running import SLOW_RUN_S
from scenarios import NOTES, PROMISES

BEGIN_MARK = "<!-- begin of what ./dev bench writes -->\n"
END_MARK = "<!-- end of what ./dev bench writes -->\n"
MISSED = " **NO**"


def figure(value):
    """Three significant digits without an exponent."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "?"
    if isinstance(value, (tuple, list)):
        return " / ".join(figure(each) for each in value)
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 4)}f}"


def cell(report, field):
    if report is None:
        return "-"
    if "error" in report:
        return "failed"
    if field not in report:
        return "-"
    text = figure(report[field])
    notes = []
    if (report.get("lost") or 0) > 0:
        notes.append(f"lost {report['lost']:,.0f}")
    if (report.get("lost") or 0) < 0:
        notes.append(f"{-report['lost']:,.0f} too many")
    if (report.get("lost_clients") or 0) > 0:
        notes.append(f"{report['lost_clients']:,.0f} clients dropped")
    return f"{text} ({', '.join(notes)})" if notes else text


def comparable(report, field):
    value = None if report is None else report.get(field)
    return value[1] if isinstance(value, (tuple, list)) else value


def verdict(row, results, subject):
    """What to reach, and whether the subject does."""
    value = comparable(results.get(subject), row.field)
    floor = comparable(results.get("floor"), row.field)
    ratio = value / floor if value and floor else None
    if row.reach is None:
        return "-" if ratio is None else f"{figure(ratio)}x", ""
    kind, limit = row.reach
    shown = "-" if ratio is None else f"{figure(ratio)}x"
    if kind == "ratio":
        wanted, met = f"<= {limit}x floor", None if ratio is None else ratio <= limit
    elif kind == "min":
        wanted, met = f">= {limit:,.0f}", None if value is None else value >= limit
    else:
        wanted = f"{'p99 ' if row.field == 'latency' else ''}<= {limit:,}"
        met = None if value is None else value <= limit
    mark = "" if met is None else " yes" if met else MISSED
    return shown, wanted + mark


def growth(row, outcome, subject, smallest):
    """How much dearer than with the first size of its group; 1x is flat."""
    value = comparable(outcome.get(subject), row.field)
    first = smallest.setdefault(row.group, value)
    return f"{figure(value / first)}x the first" if value and first else ""


class Table:
    """A section's rows. `missed` are the titles of those in which the subject does not reach what it is to."""

    def __init__(self, section):
        self.section = section
        self.lines = []
        self.missed = []

    def text(self, header):
        """The note and the table, without the columns in which nobody has anything."""
        used = [i for i in range(len(header)) if any(line[i] not in ("", "-") for line in self.lines)]
        rows = render([header[i] for i in used], [[line[i] for i in used] for line in self.lines])
        note = NOTES.get(self.section)
        return f"{textwrap.fill(note, 120)}\n\n{rows}" if note else rows


def column(broker, section):
    """The head of a broker's column, which says in tables about promises where one does not keep them."""
    return f"{broker.name}, {broker.note}" if broker.note and section in PROMISES else broker.name


def make_tables(scenarios, results, brokers, subject):
    """[(table, its header)] in the order in which sections first appear."""
    made = {}
    smallest = {}
    for scenario in scenarios:
        outcome = results[scenario.name]
        for row in scenario.rows:
            table = made.setdefault(row.section, Table(row.section))
            shown, wanted = verdict(row, outcome, subject)
            if row.group is not None:
                wanted = growth(row, outcome, subject, smallest)
            cells = [cell(outcome.get(broker.name), row.field) for broker in brokers]
            table.lines.append([row.title] + cells + [shown, wanted])
            if wanted.endswith(MISSED):
                table.missed.append(row.title)
    return [(table, ["scenario"] + [column(broker, section) for broker in brokers]
             + [f"{subject} / floor", "to reach"]) for section, table in made.items()]


def render(header, lines):
    widths = [max(len(line[i]) for line in [header] + lines) for i in range(len(header))]

    def one(line):
        return "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |"

    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([one(header), rule] + [one(line) for line in lines])


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def file_system(directory):
    """The kind of file system that a directory is on."""
    best = ("", "?")
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, mounted, kind = line.split()[:3]
            if len(mounted) >= len(best[0]) and os.path.commonpath([mounted, directory]) == mounted:
                best = (mounted, kind)
    return best[1]


def machine(brokers, options):
    """The lines that say where, when and of what the figures are."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{broker.name} {broker.version}".strip() + (f" ({broker.note})" if broker.note else "")
                         for broker in brokers)
    with open("/proc/loadavg", encoding="utf-8") as file:
        load = file.read().split()[0]
    return [
        f"- Date: {datetime.date.today().isoformat()}",
        f"- Machine: {cpu_model()}, {os.cpu_count()} CPUs, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, load before the run {load}; "
        f"files on {file_system(os.path.realpath(tempfile.gettempdir()))}",
        f"- Brokers: {versions}",
        f"- Each figure: median of {options.repeat} runs of {options.duration_ms / 1000:g} s after "
        f"{options.warmup_ms / 1000:g} s of warm-up, of one where a run takes longer than {SLOW_RUN_S} s; "
        "64-byte payloads, QoS 0 and MQTT 3.1.1 unless said",
    ]


def around_marks(path):
    """What a file has outside its marks, which stays; nothing when there is no such file."""
    if not os.path.exists(path):
        return "", ""
    with open(path, encoding="utf-8") as file:
        before, begin, rest = file.read().partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise SystemExit(f"{path} has no marks to write between: {BEGIN_MARK.strip()} ... {END_MARK.strip()}")
    return before + begin, end + after


def write_json(path, head, results):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"about": head, "results": results}, file, indent=1)
        file.write("\n")


def write_markdown(path, head, made):
    """Returns the titles of the rows that miss what they are to reach and that the file does not explain: the text
    behind the tables has each of them, as the table has it."""
    text = "\n".join(head) + "\n"
    for table, header in made:
        text += f"\n### {table.section}\n\n{table.text(header)}\n"
    before, after = around_marks(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + text + after)
    prose = " ".join(after.split())
    return [title for table, _ in made for title in table.missed if title not in prose]
