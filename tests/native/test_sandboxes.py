"""Sandboxes that forbid ways in which `gilfree` reads memory: another is taken, or the other engine.

Seen to fail: without /proc/self/mem, where both other ways are forbidden every stack is torn.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from pyprof import _native

pytestmark = [
    pytest.mark.skipif(not _native.SUPPORTED, reason="sampling is for Linux"),
    pytest.mark.skipif(os.environ.get("TEST_ENGINE") == "current_frames", reason="of the other engine"),
]

Run = Callable[..., Any]

FORBIDDEN = """
import ctypes, json, os, platform, struct, sys, threading, time
import pyprof

NUMBERS = {"process_vm_readv": {"x86_64": 310, "aarch64": 270}, "pwritev": {"x86_64": 296, "aarch64": 70},
           "pread64": {"x86_64": 17, "aarch64": 67}}

def forbid(call):
    "A seccomp filter as container runtimes have them: EPERM for this one call."
    number = NUMBERS[call][platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    program = b"".join(struct.pack("HBBI", *line) for line in [
        (load, 0, 0, 0), (equal, 0, 1, number), (give, 0, 0, 0x00050001), (give, 0, 0, 0x7fff0000)])
    buffer = ctypes.create_string_buffer(program)
    filter = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    assert libc.prctl(no_new_privileges, 1, 0, 0, 0) == 0
    # In every thread that there is, the timer's too.
    flags = ctypes.c_ulong(1)
    assert libc.syscall({"x86_64": 317, "aarch64": 277}[platform.machine()], ctypes.c_ulong(1), flags,
                        filter) == 0, os.strerror(ctypes.get_errno())

def work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

when, engine, output, *calls = sys.argv[1:]
if when == "meanwhile":
    pyprof.start(output=output, sample_rate=500, engine=engine)
    work(0.2)
for call in calls:
    forbid(call)
if when == "before":
    pyprof.start(output=output, sample_rate=500, engine=engine)
work(0.5)
stats = pyprof.stats()
pyprof.stop()
print(json.dumps([stats.engine, stats.engine_notes, stats.ticks, stats.missed, stats.torn,
                  stats.memory_reads]))
"""

EVERY_WAY = ["pwritev", "process_vm_readv", "pread64"]


@pytest.mark.parametrize("chosen", ["auto", "gilfree"])
def test_a_sandbox_that_forbids_reading_memory(chosen: str, run_python: Run, tmp_path: Any) -> None:
    result = run_python(FORBIDDEN, "before", chosen, str(tmp_path / "out"), *EVERY_WAY, check=True)
    name, notes, ticks, missed, _, _ = json.loads(result.stdout)
    assert name == "current_frames"
    assert any("process_vm_readv" in note for note in notes)
    assert ticks - missed > 20  # a busy machine misses most
    # Who asked for the engine is told that it is not there.
    assert result.stderr.count("process_vm_readv") == (chosen == "gilfree")
    assert len(result.stderr.splitlines()) == (chosen == "gilfree")


WAYS = [
    ([], "memfd"),
    (["process_vm_readv"], "memfd"),
    (["pwritev"], "process_vm_readv"),
    (["pwritev", "process_vm_readv"], "/proc/self/mem"),
]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize(("calls", "way"), WAYS)
def test_one_way_of_reading_memory_suffices(
    when: str, calls: list[str], way: str, run_python: Run, tmp_path: Any
) -> None:
    result = run_python(FORBIDDEN, when, "auto", str(tmp_path / "out"), *calls, check=True)
    name, notes, ticks, missed, torn, memory_reads = json.loads(result.stdout)
    assert (name, notes, result.stderr, memory_reads) == ("gilfree", [], "", way)
    assert torn < 10
    assert ticks - missed > 20


def test_reading_memory_is_forbidden_later(run_python: Run, tmp_path: Any) -> None:
    """All ticks are taken by the other engine then."""
    result = run_python(FORBIDDEN, "meanwhile", "auto", str(tmp_path / "out"), *EVERY_WAY, check=True)
    name, notes, ticks, missed, torn, _ = json.loads(result.stdout)
    assert (name, notes, result.stderr) == ("gilfree", [], "")
    assert torn > 20
    assert ticks - missed > 20
