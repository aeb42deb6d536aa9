"""Recordings: running one of `programs/` under a sampler, and what its profile says.

The pprof files are decoded here, from the wire format, on purpose: a mistake that pyprof's reader and writer
share would otherwise go unseen.
"""

import gzip
import json
import os
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
PROGRAMS = Path(__file__).with_name("programs")
ENGINE = os.environ.get("TEST_ENGINE", "gilfree")


class Frame(NamedTuple):
    name: str
    file: str
    line: int

    @property
    def is_of_c(self) -> bool:
        """Of a C function. What stands for something lost has brackets."""
        return not self.file and not self.name.startswith("[")


class Stack(NamedTuple):
    frames: tuple[Frame, ...]
    """Leaf first."""
    values: dict[str, int]
    """By sample type; times in nanoseconds."""
    labels: dict[str, str] = {}  # noqa: RUF012
    """Text labels."""


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, int or bytes) of one protobuf message."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            assert key & 7 == 2, "profile.proto has varints and bytes only"
            size = varint()
            assert position + size <= len(data)
            yield key >> 3, data[position : position + size]
            position += size


def integers(value: Any) -> list[int]:
    """A repeated integer field's value, packed or not."""
    if isinstance(value, int):
        return [value]
    return [item for _, item in fields(b"".join(b"\x08" + v for v in split_varints(value)))]


def split_varints(data: bytes) -> Iterator[bytes]:
    start = 0
    for position, byte in enumerate(data):
        if byte < 0x80:
            yield data[start : position + 1]
            start = position + 1


def decode(data: bytes) -> list[Stack]:
    """The stacks of one pprof message, gzipped or not; without those that have only allocated."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    types, samples, locations, functions, strings = [], [], {}, {}, []
    for number, value in fields(data):
        if number == 1:
            types.append(dict(fields(value)).get(1, 0))
        elif number == 2:
            samples.append(value)
        elif number == 4:
            identity, lines = 0, []
            for inner, content in fields(value):
                if inner == 1:
                    identity = content
                elif inner == 4:
                    lines.append(dict(fields(content)))
            locations[identity] = lines
        elif number == 5:
            function = dict(fields(value))
            functions[function[1]] = function
        elif number == 6:
            strings.append(value.decode())
    stacks = []
    for sample in samples:
        ids: list[int] = []
        values: list[int] = []
        for number, value in fields(sample):
            if number in (1, 2):
                (ids if number == 1 else values).extend(integers(value))
        labels = {}
        for number, value in fields(sample):
            label = dict(fields(value)) if number == 3 else {}
            if 2 in label:
                labels[strings[label[1]]] = strings[label[2]]
        frames = []
        for identity in ids:
            for line in locations[identity]:
                function = functions[line[1]]
                frames.append(Frame(strings[function.get(2, 0)], strings[function.get(4, 0)], line.get(2, 0)))
        named = {strings[kind]: value for kind, value in zip(types, values, strict=True)}
        if any(value for kind, value in named.items() if not kind.startswith(("alloc_", "inuse_"))):
            stacks.append(Stack(tuple(frames), named, labels))
    return stacks


def is_profilers(stack: Stack) -> bool:
    """Whether the stack is of `pyprof.start` or `stop` themselves, called by the program."""
    ours = (frame.name for frame in stack.frames if frame.name.startswith("pyprof."))
    return any(
        not name.startswith("pyprof.context.") for name in ours
    )  # decorated functions are the program's


@dataclass(frozen=True)
class Profile:
    """Stacks with sums over them."""

    stacks: Sequence[Stack]

    def total(self, kind: str = "cpu") -> int:
        return sum(stack.values[kind] for stack in self.stacks)

    def flat(self, kind: str = "cpu") -> dict[str, int]:
        sums: dict[str, int] = defaultdict(int)
        for stack in self.stacks:
            sums[stack.frames[0].name] += stack.values[kind]
        return sums

    def cum(self, kind: str = "cpu") -> dict[str, int]:
        sums: dict[str, int] = defaultdict(int)
        for stack in self.stacks:
            for name in {frame.name for frame in stack.frames}:
                sums[name] += stack.values[kind]
        return sums

    def by_label(self, name: str, kind: str = "cpu") -> dict[str | None, int]:
        """By the label's value; None: what does not have it."""
        sums: dict[str | None, int] = defaultdict(int)
        for stack in self.stacks:
            sums[stack.labels.get(name)] += stack.values[kind]
        return sums

    def where(self, keep: Callable[[Stack], bool]) -> "Profile":
        return Profile([stack for stack in self.stacks if keep(stack)])

    def of_python(self) -> "Profile":
        """With what C functions used at the lines that called them."""
        return Profile(
            [
                stack._replace(frames=tuple(frame for frame in stack.frames if not frame.is_of_c))
                for stack in self.stacks
            ]
        )


@dataclass(frozen=True)
class Recording:
    """A program's profile and its own account of what it did."""

    profile: Profile
    """Without the stacks of `start` and `stop`, and without frames of C functions."""
    with_c_functions: Profile
    whole: Profile
    truth: dict[str, Any]

    def share_errors(self) -> dict[str, tuple[float, float]]:
        """(measured, true) of each function that the program measured, in points of the CPU total."""
        total = self.profile.total()
        assert total > 0, "no CPU time in the profile"
        true_total = self.truth["cpu_least"]
        result = {}
        for kind in ("flat", "cum"):
            measured = getattr(self.profile, kind)()
            for name, seconds in self.truth[kind].items():
                result[f"{name} ({kind})"] = (
                    100 * measured.get(name, 0) / total,
                    100 * seconds / true_total,
                )
        return result

    def check(self, points: float = 2.0, percent: float = 2.0) -> None:
        """Every share within `points` of the truth, and the total within `percent` of the threads' clocks."""
        shares = self.share_errors()
        wrong = {
            name: f"measured {measured:.2f} %, true {true:.2f} %"
            for name, (measured, true) in shares.items()
            if abs(measured - true) > points
        }
        assert not wrong, f"{wrong}\nall: {shares}\n{self.truth['notes'].get('stats')}"
        total = self.whole.total() / 1e9
        least, most = self.truth["cpu_least"], self.truth["cpu_most"]
        assert least * (1 - percent / 100) <= total <= most * (1 + percent / 100), (
            f"{total:.3f} CPU seconds in the profile, {least:.3f} to {most:.3f} by the threads' clocks"
        )


def run_python(arguments: Sequence[str], *, cpu: int | None, timeout: float = 120, **environ: str) -> str:
    """Run this interpreter, pinned to a CPU or not, and return its stdout."""
    pinning = "" if cpu is None else f"os.sched_setaffinity(0, {{{cpu}}});"
    code = f"import os, sys; {pinning} os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYPROF_")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**inherited, "PYTHONIOENCODING": "utf-8", **environ},
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def read_directory(directory: Path) -> Profile:
    files = sorted(directory.rglob("*.pb.gz"))
    assert files, f"no profile in {directory}: {list(directory.rglob('*'))}"
    return Profile([stack for file in files for stack in decode(file.read_bytes())])


def record(
    program: str,
    directory: Path,
    *,
    cpu: int | None = None,
    sampler: str = "pyprof",
    arguments: dict[str, str] | None = None,
    **options: Any,
) -> Recording:
    """Run `programs/<program>.py` under the sampler; `options` are those of `pyprof.start`."""
    options.setdefault("sample_rate", 100)
    options.setdefault("engine", ENGINE)
    options.setdefault("max_overhead", 1)  # else the rate would be what the machine makes of it
    request = {
        **(arguments or {}),
        "sampler": sampler,
        "output": str(directory),
        "options": options,
        "cpu": cpu,
    }
    stdout = run_python([str(PROGRAMS / f"{program}.py"), json.dumps(request)], cpu=cpu)
    truth = json.loads(stdout.splitlines()[-1])
    if sampler == "pyprof":
        assert truth["notes"]["stats"]["engine"] == options["engine"]
    if sampler == "naive":
        whole = Profile(
            [
                Stack(tuple(Frame(*frame) for frame in stack["frames"]), stack["values"])
                for stack in truth["stacks"]
            ]
        )
    else:
        whole = read_directory(directory)
    program_alone = whole.where(lambda stack: not is_profilers(stack))
    return Recording(program_alone.of_python(), program_alone, whole, truth)
