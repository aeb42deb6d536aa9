"""Bad input to every command that reads: one line that names it, exit code 1, and bounded memory.

The memory is bounded from outside, by RLIMIT_AS: a reader that takes what a hostile file asks for ends
with MemoryError and its own message, or is killed, and the test sees another line than it expects. What
was resident at most is looked at besides, since free-threaded builds reserve a gigabyte beforehand.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyprof.pprof import Profile, Sample, save

from .profiles import CPU, MALFORMED, TOO_LARGE, VALID, field, gzip_bomb, place

Run = Callable[..., subprocess.CompletedProcess[str]]

LIMIT = 700 << 20
"""Bytes of memory that a command may take beyond what an idle interpreter has."""

LIMITED = (
    "import json, resource, sys\n"
    "size = next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if 'VmSize' in line)\n"
    f"resource.setrlimit(resource.RLIMIT_AS, (size + {LIMIT}, size + {LIMIT}))\n"
    "from pyprof.cli.main import main\n"
    "print(*[main(words) for words in json.loads(sys.argv[1])])\n"
    "peak = next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if 'VmHWM' in line)\n"
    f"assert peak < {LIMIT}, peak\n"
)
"""Runs several command lines in one process and prints their exit codes: what one leaves in memory counts for
the next."""

COMMANDS = {
    "top": ["top"],
    "flame": ["flame", "-o", "out.html"],
    "convert-pb": ["convert", "-o", "out.pb.gz"],
    "convert-folded": ["convert", "-o", "out.folded"],
    "convert-speedscope": ["convert", "-o", "out.speedscope.json"],
    "convert-html": ["convert", "-o", "out.html"],
}


def _sparse(path: Path) -> None:
    path.write_bytes(VALID)
    os.truncate(path, 1 << 30)


def _huge_gzip(path: Path) -> None:
    """A gigabyte on disk that begins as gzip does."""
    path.write_bytes(gzip.compress(VALID))
    os.truncate(path, 1 << 30)


def _directory_with_a_bad_file(path: Path) -> None:
    path.mkdir()
    (path / "good.pb").write_bytes(VALID)
    (path / "worse.pb.gz").write_bytes(b"\x1f\x8b\x08\x00")


def _packed(data: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(gzip.compress(data(), 1))


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "empty": (lambda path: path.touch(), "empty, not a pprof profile"),
    "empty gzip": (_packed(lambda: b""), "empty gzip data"),
    "sparse gigabyte": (_sparse, "too large (the file has 1,024 MiB)"),
    "sparse gigabyte, gzip": (_huge_gzip, "too large (the file has 1,024 MiB)"),
    "gzip bomb": (lambda path: path.write_bytes(gzip_bomb()), "too large (more than 128 MiB uncompressed)"),
    "bomb of zeros": (_packed(lambda: bytes(300 << 20)), "too large (more than 128 MiB uncompressed)"),
    "truncated": (lambda path: path.write_bytes(gzip.compress(VALID)[:-9]), "truncated gzip data"),
    "pipe": (os.mkfifo, "a pipe, socket or device"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a pipe, socket or device"),
    "empty directory": (Path.mkdir, "no profile in this directory"),
    "bad file in a directory": (_directory_with_a_bad_file, "worse.pb.gz: truncated gzip data"),
    "loop of links": (lambda path: path.symlink_to(path.name), "symbolic links"),
    **{f"large: {kind}": (_packed(make), "too large (") for kind, make in TOO_LARGE.items()},
    "interleaved": (
        _packed(lambda: VALID + (field(12, 1) + field(13, 1)) * 200_000 + field(4, field(1, 0))),
        "id 0",
    ),
}

# Where protobuf is pure Python, each of these takes a minute.
SLOW = ("large: millions of frames", "large: millions of labels")


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else []) for name in CASES],
    scope="module",
)
def bad(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """A bad source, and what is to be said of it."""
    make, expected = CASES[request.param]
    directory = tmp_path_factory.mktemp("hostile")
    make(directory / "bad.pb.gz")
    yield directory / "bad.pb.gz", expected
    shutil.rmtree(directory)


def test_one_line_and_bounded_memory(run_python: Run, tmp_path: Path, bad: tuple[Path, str]) -> None:
    source, expected = bad
    commands = [[*COMMANDS[command], str(source)] for command in ("top", "flame", "convert-pb")]
    result = run_python(LIMITED, json.dumps(commands), cwd=tmp_path, timeout=120)
    assert (result.returncode, result.stdout) == (0, "1 1 1\n"), result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"pyprof: {source}")
        assert expected in line
        assert line.isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_damaged_profiles(run_python: Run, tmp_path: Path, command: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for kind, data in MALFORMED.items():
        (tmp_path / f"{kind}.pb.gz").write_bytes(data)
    sources = sorted(tmp_path.glob("*.pb.gz"))
    commands = [[*COMMANDS[command], str(source)] for source in sources]
    result = run_python(LIMITED, json.dumps(commands), cwd=work)
    assert (result.returncode, set(result.stdout.split())) == (0, {"1"}), result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(sources)
    for line, source in zip(lines, sources, strict=True):
        assert line.startswith(f"pyprof: {source}: not a pprof profile")
    assert list(work.iterdir()) == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Near the largest profile that is read."""
    samples = [Sample((place("leaf", i), place("root", i % 7)), (i + 1,)) for i in range(120_000)]
    file = tmp_path_factory.mktemp("large") / "large.pb.gz"
    save(Profile([CPU], samples), file)
    return file


@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=[] if name == "top" else pytest.mark.slow) for name in COMMANDS],
)
def test_large_profiles_that_are_read_fit_too(
    run_python: Run, tmp_path: Path, large: Path, command: str
) -> None:
    """What is not refused must not be the way around the bound."""
    commands = json.dumps([[*COMMANDS[command], str(large)]])
    result = run_python(LIMITED, commands, cwd=tmp_path, timeout=180)
    assert (result.returncode, result.stdout.split()[-1]) == (0, "0"), result.stderr


@pytest.mark.parametrize(
    ("frames", "stacks", "expected"),
    [
        (1000, 3, "a stack has more than 16 MiB of names; too large to be folded"),
        (70, 100, "out.folded: would be larger than 1 GiB"),
    ],
    ids=["long lines", "many lines"],
)
def test_small_files_that_would_fill_the_disk(
    run_python: Run, tmp_path: Path, frames: int, stacks: int, expected: str
) -> None:
    names = [place(f"{i}" + "x" * 200_000) for i in range(10)]
    stack = tuple(names * (frames // 10))
    samples = [Sample((place("leaf", i), place(f"leaf{i}"), *stack), (i + 1,)) for i in range(stacks)]
    save(Profile([CPU], samples), tmp_path / "deep.pb.gz")
    assert (tmp_path / "deep.pb.gz").stat().st_size < 100_000
    commands = json.dumps(
        [[*COMMANDS[command], "deep.pb.gz"] for command in ("convert-folded", "flame", "top")]
    )
    result = run_python(LIMITED, commands, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "1 0 0"
    assert result.stderr.splitlines()[0] == f"pyprof: {expected}"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["deep.pb.gz", "out.html"]


@pytest.mark.slow
def test_names_that_grow_when_they_are_escaped(run_python: Run, tmp_path: Path) -> None:
    """Nearly as many bytes of names as are read, each of them six characters in JSON."""
    samples = [Sample((place(f"{i}" + "\x01" * 200_000),), (i + 1,)) for i in range(150)]
    save(Profile([CPU], samples), tmp_path / "odd.pb.gz")
    for command in COMMANDS:
        commands = json.dumps([[*COMMANDS[command], "odd.pb.gz"]])
        result = run_python(LIMITED, commands, cwd=tmp_path, timeout=120)
        assert (result.returncode, result.stdout.split()[-1]) == (0, "0"), result.stderr


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="these builds reserve a gigabyte beforehand"
)
def test_with_very_little_memory_it_is_still_one_line(tmp_path: Path) -> None:
    (tmp_path / "large.pb").write_bytes(VALID + field(99, bytes(250_000)) * 400)
    usage = (
        "import resource, sys\n"
        "from pyprof.cli.main import main\n"
        "from pyprof.pprof import read\n"
        "from pyprof.pprof.proto import profile_messages\n"
        "profile_messages()\n"
        "size = next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if 'VmSize' in line)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (40 << 20), resource.RLIM_INFINITY))\n"
        "sys.exit(main(['top', 'large.pb']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", usage], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "pyprof: large.pb: not enough memory to read this profile\n"


def test_the_limit_is_felt() -> None:
    """The harness itself: an allocation beyond the limit does fail under it."""
    code = LIMITED.split("from pyprof")[0] + "bytearray(4 << 30)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "MemoryError" in result.stderr
