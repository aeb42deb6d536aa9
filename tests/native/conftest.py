"""Programs that drive the sampler directly and answer what it saw."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]

# Every program begins with this. Its answer is its last line, as JSON.
PRELUDE = """
import ctypes, gc, json, os, sys, _thread, threading, time
from types import CodeType
from pyprof import _native
from pyprof.pprof import read

COLUMNS = dict(samples=_native.SAMPLES, cpu=_native.CPU_NS, wall=_native.WALL_NS)
PATIENCE = 60

def start(**options):
    _native.start(**dict(period_ns=1_000_000, window_ns=10**15, max_frames=1000, ring_windows=9,
                         window_bytes=8 << 20, raw_walk=True,
                         gilfree=os.environ.get("PYPROF_ENGINE") != "current_frames") | options)

def stop():
    "[(frames as (name, file, line), leaf first; values)], counters"
    _native.stop()
    window = _native.take()
    assert _native.take() is None
    message = window.encode([(name, "count", column) for name, column in COLUMNS.items()],
                            period_type=("wall", "nanoseconds"), period=1)
    return [
        (tuple((line.function.name, line.function.filename, line.line)
               for location in sample.locations for line in location.lines),
         dict(zip(COLUMNS, sample.values)))
        for sample in read(message).samples
    ], window.counters

def work_until_walked(times):
    "Uses CPU time until that many stacks were walked; the first of them may be of before."
    end, deadline = _native.stats()["stacks"] + times, time.monotonic() + PATIENCE
    while _native.stats()["stacks"] < end:
        assert time.monotonic() < deadline

def answer(**found):
    print(json.dumps(found))
"""


@pytest.fixture
def engine(run_python: Run) -> Callable[..., Any]:
    """Runs a program in a process of its own and returns its answer."""

    def run(program: str, *arguments: str, **keywords: Any) -> Any:
        result = run_python(PRELUDE + program, *arguments, check=True, timeout=120, **keywords)
        assert result.stderr == ""
        return json.loads(result.stdout.splitlines()[-1])

    return run
