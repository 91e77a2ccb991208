#!/usr/bin/env python3
"""Checks the boundaries between the rooms of the tree: boundaries.py BUILD_DIRECTORY

- The sans-I/O rooms call nothing but memory and string functions, assertions and each other (nm -u).
- No file includes a header of a room, or of a library, that its room may not use.
- No file of code is longer than LINES_MAX, and none names a directory of somebody's machine.

docs/architecture.md says why. Prints each offence as file:line: text; exit code 1 if there is one.
"""
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
LINES_MAX = 850  # "about 800"

# Which rooms a room sees besides itself.
ROOMS = {
    "base": [],
    "protocol": ["base"],
    "http": ["base"],
    "broker/core": ["base", "protocol"],
    "broker/access": ["base", "protocol"],
    "broker/store": ["base", "broker/core"],
    "broker/hashing": ["base", "protocol", "broker/access"],
    "broker/clients": ["base", "protocol", "http", "broker/core", "broker/access"],
    "transport": ["base"],
    "broker/server": ["base", "protocol", "http", "broker/core", "broker/access", "broker/hashing",
                      "broker/clients", "broker/store", "transport"],
}
SANS_IO = ["protocol", "http", "broker/core", "broker/access", "broker/clients"]

# Headers outside the tree: what rooms without I/O may include, and who may use a library.
PLAIN_HEADERS = {"assert.h", "inttypes.h", "limits.h", "stdalign.h", "stdarg.h", "stdbool.h",
                 "stddef.h", "stdint.h", "string.h"}
LIBRARIES = {
    re.compile(r"uv\.h|uv/"): ["transport", "broker/server"],
    re.compile(r"lmdb\.h"): ["broker/store"],
    re.compile(r"wslay/|psa/"): ["transport"],
    re.compile(r"http_parser\.h"): ["transport", "http"],
    re.compile(r"jansson\.h"): ["broker/clients"],
    re.compile(r"mbedtls/"): ["transport", "broker/hashing"],
    re.compile(r"argon2\.h"): ["broker/hashing"],
}

LIBRARY_HEADERS = {"broker/core": {"stdlib.h"}, "broker/clients": {"jansson.h"},
                   "http": {"http_parser.h"}}

# Texts for peers and logs are put together here; that is still no I/O.
FORMATTING_ROOMS = ["http", "broker/access", "broker/clients"]
FORMATTING_SYMBOLS = {"snprintf", "__snprintf_chk", "vsnprintf", "__vsnprintf_chk"}

# Libraries that do no I/O either. The JSON library's hash seed is injected.
LIBRARY_SYMBOLS = {
    "broker/clients": re.compile(r"json_[a-z_]+"),
    "http": re.compile(r"http_parser_[a-z]+|http_should_keep_alive"),
}

# What a sans-I/O archive may leave for somebody else to define.
ALLOWED_SYMBOLS = re.compile(
    r"""(?x)
    _?(mem|str)[a-z]* (_chk)?               # the C library's memory and string functions ...
  | __(mem|str)[a-z]*_chk                   # ... also as _FORTIFY_SOURCE names them
  | qsort | bsearch
  | __assert_fail | __stack_chk_fail
  | _GLOBAL_OFFSET_TABLE_
  | __(asan|ubsan|tsan|sanitizer)_ .*
    """)
# The string functions that keep state between calls, read the locale or allocate.
FORBIDDEN_SYMBOLS = {"strdup", "strndup", "strerror", "strsignal", "strtok", "strcoll", "strftime",
                     "strptime", "memfd_create"}
# base is where the allocator and the end of a failed assertion live, so it alone may call these.
BASE_SYMBOLS = {"malloc", "calloc", "realloc", "free", "abort", "stderr", "fprintf",
                "__fprintf_chk"}
ARCHIVES = {
    "base": "base/libbase.a",
    "protocol": "protocol/libprotocol.a",
    "http": "http/libhttp.a",
    "broker/core": "broker/core/libcore.a",
    "broker/access": "broker/access/libaccess.a",
    "broker/clients": "broker/clients/libclients.a",
}

SKIPPED = {".git", "node_modules", "corpus", "__pycache__"}
CODE_SUFFIXES = {".c", ".h", ".py", ".mjs", ".html", ".build"}
TEXT_SUFFIXES = CODE_SUFFIXES | {".md", ".txt", ".json", ".conf", ".yml", ""}
# Spelled in two parts so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:" + "home|root|work|Users|var/" + "tmp)/[\\w.]")
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')

offences = []


def offence(path, line, text):
    offences.append(f"{path.relative_to(TOP) if path.is_absolute() else path}:{line}: {text}")


def files():
    def walk(directory):
        for path in sorted(directory.iterdir()):
            if path.name in SKIPPED or (directory == TOP and re.match(r"build($|-)", path.name)):
                continue
            if path.is_dir() and not path.is_symlink():
                yield from walk(path)
            elif path.suffix in TEXT_SUFFIXES:
                yield path
    return list(walk(TOP))


def nm(archive, *options):
    output = subprocess.run(["nm", "-P", *options, str(archive)], check=True, text=True,
                            capture_output=True).stdout
    return {line.split()[0] for line in output.splitlines() if line and not line.endswith(":")}


def symbol_allowed(room, symbol):
    if room == "base" and symbol in BASE_SYMBOLS:
        return True
    if room in FORMATTING_ROOMS and symbol in FORMATTING_SYMBOLS:
        return True
    if room in LIBRARY_SYMBOLS and LIBRARY_SYMBOLS[room].fullmatch(symbol):
        return True
    return bool(ALLOWED_SYMBOLS.fullmatch(symbol)) and symbol not in FORBIDDEN_SYMBOLS


def check_symbols(build):
    defined = {}
    for room, name in ARCHIVES.items():
        archive = build / name
        if not archive.exists():
            offence(pathlib.Path(name), 0, "archive is missing; was everything built?")
            continue
        defined[room] = nm(archive, "--defined-only", "--extern-only")
    for room in defined:
        own = set().union(*(defined.get(r, set()) for r in [room, *ROOMS[room]]))
        for symbol in sorted(nm(build / ARCHIVES[room], "-u") - own):
            if not symbol_allowed(room, symbol):
                offence(pathlib.Path(ARCHIVES[room]), 0, f"{room} may not call {symbol}")


def room_of(path):
    parent = path.relative_to(TOP).parent.as_posix()
    return parent if parent in ROOMS else None


def check_project_include(path, line, name, headers):
    room = room_of(path)
    owners = headers.get(name, [])
    if "/" in name:
        offence(path, line, f'"{name}": rooms include by bare name, without a folder')
    elif not owners:
        offence(path, line, f'"{name}" is in no room')
    elif not set(owners) & {room, *ROOMS[room]}:
        offence(path, line, f'{room} may not use "{name}" of {owners[0]}')


def check_library_include(path, line, name):
    room = room_of(path)
    for pattern, users in LIBRARIES.items():
        if pattern.match(name) and room not in users:
            offence(path, line, f"{room} may not use <{name}>")
    if room in FORMATTING_ROOMS and name == "stdio.h":
        return
    if room in SANS_IO and name not in PLAIN_HEADERS and name not in LIBRARY_HEADERS.get(room, ()):
        offence(path, line, f"{room} does no I/O and may not use <{name}>")


def check_includes(paths):
    headers = {}
    for path in paths:
        if path.suffix == ".h" and room_of(path):
            headers.setdefault(path.name, []).append(room_of(path))
    for name, owners in headers.items():
        if len(owners) > 1:
            offence(pathlib.Path(owners[1]) / name, 1, f"another {name} is in {owners[0]}")
    for path in paths:
        if not room_of(path) or path.suffix not in {".c", ".h"}:
            continue
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(text)
            if match and match.group(1) == '"':
                check_project_include(path, line, match.group(2), headers)
            elif match:
                check_library_include(path, line, match.group(2))


def check_texts(paths):
    for path in paths:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if path.suffix in CODE_SUFFIXES and len(lines) > LINES_MAX:
            offence(path, len(lines), f"{len(lines)} lines; at most {LINES_MAX}")
        for line, text in enumerate(lines, 1):
            match = MACHINE_PATH.search(text)
            if match:
                offence(path, line, f"absolute path {match.group(0)}...")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    paths = files()
    check_symbols(pathlib.Path(sys.argv[1]).resolve())
    check_includes(paths)
    check_texts(paths)
    print("\n".join(offences) or f"boundaries: {len(paths)} files, no offence")
    sys.exit(1 if offences else 0)


main()
