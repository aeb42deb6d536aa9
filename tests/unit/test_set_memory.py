"""The memory profile turned on and off, and to another engine, while the profiler runs; each in a process.

Seen to fail, as it was once: the engine reduced to on and off; a forked child that goes by the configuration;
a series that goes on after the end.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyprof import pprof

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="profiling is for Linux")
Run = Callable[..., Any]

PRELUDE = """
import os, sys, time
import pyprof
from pyprof import pprof

def hold(size):
    return [bytearray(100_000) for _ in range(size // 100_000)]

def in_use(heap):
    return pprof.read(heap.pprof()).total("inuse_space")

def refused(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except (RuntimeError, ValueError) as error:
        return str(error)
    raise AssertionError("not refused")
"""


def types_of(path: Path) -> list[bool]:
    """Of each profile, oldest first: whether it tells what is in use."""
    return [
        any(one.type == "inuse_space" for one in pprof.read(file).sample_types)
        for file in sorted(path.glob("*.pb.gz"))
    ]


def test_off_and_on_again(run_python: Run, tmp_path: Path) -> None:
    program = """
profiler = pyprof.start(output=sys.argv[1], upload_interval=3600, memory_period=1000)
kept = hold(20_000_000)
profiler.set_memory("off")  # ends a window that has it
assert "memory is not profiled" in refused(profiler.heap)
assert pyprof.stats().memory_period == 0
pyprof.flush()
profiler.set_memory("hook", period=2000)
assert pyprof.stats().memory_period == 2000
assert in_use(profiler.heap()) < 1_000_000  # what lived is forgotten
more = hold(10_000_000)
assert abs(in_use(profiler.heap()) - 10_000_000) < 1_000_000
pyprof.stop()
assert "does not run" in refused(profiler.set_memory, "hook")
"""
    run_python(PRELUDE + program, str(tmp_path), check=True)
    assert types_of(tmp_path) == [True, False, True]


def test_it_holds_in_a_forked_child(run_python: Run, tmp_path: Path) -> None:
    program = """
profiler = pyprof.start(output=sys.argv[1], upload_interval=3600, memory="off", memory_period=1000)
profiler.set_memory("hook")
kept = hold(5_000_000)
if os.fork() == 0:
    assert in_use(profiler.heap()) > 4_000_000
    pyprof.stop()
    os._exit(0)
assert os.wait()[1] == 0
pyprof.stop()
"""
    run_python(PRELUDE + program, str(tmp_path), check=True)
    assert types_of(tmp_path) == [True, True]


def test_memory_alone(run_python: Run, tmp_path: Path) -> None:
    """Threads are hardly looked at, which would cost more; intervals and the end are as always."""
    program = """
import sys, time
import pyprof
profiler = pyprof.start(output=sys.argv[1], cpu=False, wall=False, memory_period=64, upload_interval=0.2)
def hold():
    return [bytes(1000) for _ in range(100)]
held = hold()
deadline = time.monotonic() + 30
while pyprof.stats().files_written < 3:
    assert time.monotonic() < deadline
    time.sleep(0.01)
stats = pyprof.stats()
assert stats.sample_rate == 1 and stats.ticks <= 1 + stats.windows, stats
assert "hold" in profiler.heap().top()
pyprof.stop()
with pyprof.profile(cpu=False, wall=False, memory_period=64) as one_off:
    held += hold()
assert "hold" in one_off.top()
"""
    run_python(program, str(tmp_path), check=True)
    profile = pprof.read(sorted(tmp_path.glob("*.pb.gz"))[-1])
    assert [kind.type for kind in profile.sample_types] == [
        "alloc_objects",
        "alloc_space",
        "inuse_objects",
        "inuse_space",
    ]
    assert not any("engine" in comment for comment in profile.comments)


@pytest.mark.skipif("t" in sys.abiflags, reason="tracemalloc needs a GIL")
def test_another_engine(run_python: Run) -> None:
    program = """
import tracemalloc
profiler = pyprof.start(exporter="none", memory_period=1000)
for _ in range(2):
    profiler.set_memory("tracemalloc")
    assert tracemalloc.is_tracing() and "only what is in use" in refused(profiler.allocs)
    kept = hold(5_000_000)
    assert abs(in_use(profiler.heap()) - 5_000_000) < 1_000_000
    profiler.set_memory("hook")
    assert not tracemalloc.is_tracing()
    kept = hold(5_000_000)
    assert abs(in_use(profiler.allocs()) - 5_000_000) < 1_000_000
pyprof.stop()
"""
    run_python(PRELUDE + program, check=True)


def test_what_is_wrong_is_named(run_python: Run) -> None:
    program = """
profiler = pyprof.start(exporter="none")
assert refused(profiler.set_memory, "heap").startswith("memory ")
assert refused(profiler.set_memory, "hook", period=0).startswith("memory_period ")
if "t" not in sys.abiflags:
    assert refused(profiler.trace_memory, -1).startswith("seconds ")
pyprof.stop()
"""
    run_python(PRELUDE + program, check=True)
