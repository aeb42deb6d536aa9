"""Profiles for the tests of the model and the command line: the talk's, random ones, and hostile bytes."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from pyprof.pprof import Function, Label, Line, Location, Mapping, Profile, Sample, ValueType

CPU = ValueType("cpu", "nanoseconds")
SAMPLES = ValueType("samples", "count")
ODD_NAMES = [
    "m.<listcomp>",
    "m.<lambda>",
    "<module>",
    "pkg.Größe.日本語",
    "f.<locals>.g",
    "a b;c",
    "naïve.🙂",
]


def place(name: str, line: int = 1, filename: str = "/srv/app.py") -> Location:
    """A location in a function of this name."""
    return Location((Line(Function(name, "", filename, 1), line),))


def talk() -> Profile:
    """The talk's program: main, doALot, doLittle and prepare, 38 samples of 10 ms."""
    main, much, little, prepare = (
        place(f"__main__.{name}") for name in ("main", "doALot", "doLittle", "prepare")
    )
    stacks = [
        ((main,), 3),
        ((much, main), 20),
        ((prepare, much, main), 5),
        ((little, main), 5),
        ((prepare, little, main), 5),
    ]
    return Profile(
        sample_types=[SAMPLES, CPU],
        samples=[Sample(stack, (count, count * 10_000_000), (Label("pid", 7),)) for stack, count in stacks],
        mappings=[Mapping(filename="/usr/bin/python3", has_functions=True, has_filenames=True)],
        period_type=CPU,
        period=10_000_000,
        time_ns=1_700_000_000_000_000_000,
        duration_ns=10_000_000_000,
        comments=["pid 7"],
        default_sample_type="cpu",
    )


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
uint64 = st.integers(0, (1 << 64) - 1)
value_types = st.builds(ValueType, text, text)
functions = st.builds(Function, text, text, text, int64)
lines = st.builds(Line, functions, int64, int64)
mappings = st.builds(
    Mapping, uint64, uint64, uint64, text, text, st.booleans(), st.booleans(), st.booleans(), st.booleans()
)


def locations(mapping: st.SearchStrategy[Mapping | None]) -> st.SearchStrategy[Location]:
    """Any locations whose mappings are of the given ones."""
    return st.builds(Location, st.lists(lines, max_size=3).map(tuple), mapping, uint64, st.booleans())


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Anything that a pprof file can say, all 64 bits of it."""
    sample_types = draw(st.lists(value_types, min_size=1, max_size=4))
    known = draw(st.lists(mappings, max_size=3, unique=True))
    stack = st.lists(locations(st.sampled_from([None, *known])), max_size=5).map(tuple)
    values = st.tuples(*[int64] * len(sample_types))
    label = st.builds(Label, text, st.one_of(int64, text.filter(bool)), text)
    samples = st.builds(Sample, stack, values, st.lists(label, max_size=3).map(tuple))
    return Profile(
        sample_types=sample_types,
        samples=draw(st.lists(samples, max_size=5)),
        mappings=known,
        period_type=draw(st.none() | value_types),
        period=draw(int64),
        time_ns=draw(int64),
        duration_ns=draw(int64),
        comments=draw(st.lists(text, max_size=3)),
        default_sample_type=draw(text),
        drop_frames=draw(text),
        keep_frames=draw(text),
        doc_url=draw(text),
    )


@st.composite
def ordinary_profiles(draw: st.DrawFn, *, unit: str | None = None) -> Profile:
    """Profiles as profilers make them: recursion, shared functions, odd names."""
    names = st.sampled_from(["main.a", "main.b", "main.c", "lib.d", *ODD_NAMES])
    stack = st.lists(st.builds(place, names, st.integers(1, 4)), min_size=1, max_size=6).map(tuple)
    unit = unit or draw(st.sampled_from(["nanoseconds", "bytes", "count"]))
    value = st.one_of(st.integers(0, 50), st.integers(0, 10**12))
    samples = st.builds(Sample, stack, st.tuples(st.integers(1, 100), value))
    return Profile(
        sample_types=[SAMPLES, ValueType("amount", unit)],
        samples=draw(st.lists(samples, min_size=1, max_size=8)),
        mappings=[Mapping(memory_limit=1 << 40, filename="python3", has_functions=True)],
        period_type=ValueType("amount", unit),
        period=1,
        time_ns=1_700_000_000_000_000_000,
    )


def go_pprof(go: str, *arguments: str, cwd: Path) -> str:
    """What `go tool pprof` prints, for profiles that are symbolized already."""
    command = [go, "tool", "pprof", "-symbolize=none", *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, timeout=60, check=False, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    return result.stdout


def field(number: int, payload: bytes | int) -> bytes:
    """One field of a message as protobuf encodes it."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


TYPE = field(1, field(1, 1) + field(2, 2))
"""One sample type, of the strings 1 and 2."""

STRINGS = b"".join(field(6, text) for text in (b"", b"cpu", b"nanoseconds", b"f"))
FUNCTION = field(5, field(1, 1) + field(2, 3))
LOCATION = field(4, field(1, 1) + field(4, field(1, 1)))
SAMPLE = field(2, field(1, 1) + field(2, 10))
VALID = TYPE + SAMPLE + LOCATION + FUNCTION + STRINGS

MALFORMED = {
    "text": b"this is no profile\n" * 20,
    "elf": b"\x7fELF\x02\x01\x01\x00" + bytes(200),
    "json": b'{"samples": []}',
    "zeros": bytes(1000),
    "random": bytes((i * 7919 + i // 3 * 104729) % 251 for i in range(4096)),
    "cut short": VALID[:-3],
    "cut in a length": VALID + b"\x12",
    "no sample types": SAMPLE + LOCATION + FUNCTION + STRINGS,
    "first string not empty": TYPE + field(6, b"cpu") + STRINGS,
    "no strings at all": TYPE + SAMPLE + LOCATION + FUNCTION,
    "string index too large": VALID + field(5, field(1, 2) + field(2, 1000)),
    "string index negative": VALID + field(5, field(1, 2) + field(2, -1)),
    "comment index too large": VALID + field(13, 99),
    "default type index too large": VALID + field(14, 1 << 62),
    "unknown location": VALID + field(2, field(1, 2) + field(2, 10)),
    "negative location": VALID + field(2, field(1, -5) + field(2, 10)),
    "location zero": VALID + field(4, field(1, 0)),
    "location twice": VALID + LOCATION,
    "function twice": VALID + FUNCTION,
    "function zero": VALID + field(5, field(2, 3)),
    "unknown function": VALID + field(4, field(1, 2) + field(4, field(1, 77))),
    "unknown mapping": VALID + field(4, field(1, 2) + field(2, 9)),
    "mapping twice": VALID + field(3, field(1, 1)) * 2,
    "too few values": VALID + field(2, field(1, 1)),
    "too many values": VALID + field(2, field(1, 1) + field(2, bytes([1, 2, 3]))),
    "endless number": VALID + b"\x48" + b"\xff" * 40,
    "number of 70 bits": VALID + b"\x48" + b"\xff" * 9 + b"\x7f",
    "endless number in a sample": VALID + field(2, b"\x10" + b"\xff" * 40),
    "length past the end": VALID + b"\x12\xff\xff\xff\xff\x0f",
    "length of 2**63": VALID + b"\x12" + varint(1 << 63),
    "field number zero": VALID + b"\x02\x00",
    "group": VALID + b"\x7b\x7c",
    "wrong type of field": VALID + b"\x10\x01",
    "two profiles": (VALID + field(9, 5)) * 2,
}

TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "an entry of a megabyte": lambda: VALID + field(6, b"x" * (1 << 20)),
    "millions of entries": lambda: VALID + b"\x12\x00" * 3_000_000,
    "millions of labels": lambda: VALID + field(2, field(1, 1) + field(2, 1) + b"\x1a\x00" * 100_000) * 100,
    "millions of frames": lambda: VALID + field(2, field(1, bytes([1]) * 200_000) + field(2, 1)) * 300,
    "millions of inlined frames": lambda: (
        VALID
        + field(4, field(1, 2) + field(4, field(1, 1)) * 20_000)
        + field(2, field(1, bytes([2]) * 5_000) + field(2, 1))
    ),
    "long strings": lambda: VALID + field(6, b"x" * 200_000 + "🔥".encode()) * 600,
    "names": lambda: VALID + field(6, b"x" * 200_000) * 200,
    "thousands of sample types": lambda: TYPE * 5000 + STRINGS,
    "millions of comments": lambda: VALID + field(13, bytes(200_000)) * 600,
}
"""Made when asked for: together they are hundreds of megabytes."""


def gzip_bomb() -> bytes:
    """Less than a megabyte that unpacks to half a gigabyte of valid fields nobody knows."""
    piece = gzip.compress(field(99, bytes(100_000)) * 320, 9)
    return gzip.compress(VALID) + piece * 16
