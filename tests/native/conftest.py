"""Programs that drive the sampler directly and answer what it saw."""

import pytest

from ..engine import Run, asking

PRELUDE = """
from types import CodeType

COLUMNS = dict(samples=_native.SAMPLES, cpu=_native.CPU_NS, wall=_native.WALL_NS,
               gil_held=_native.GIL_HELD_NS, gil_wait=_native.GIL_WAIT_NS)

def is_of_c(name, file):
    return not file and not name.startswith("[")

def stop(c_functions=False):
    "[(frames as (name, file, line), leaf first; values)], counters. Frames of C functions if asked for."
    _native.stop()
    window = _native.take()
    assert _native.take() is None
    message = window.encode([(name, "count", column) for name, column in COLUMNS.items()],
                            period_type=("wall", "nanoseconds"), period=1)
    return [
        (tuple((line.function.name, line.function.filename, line.line)
               for location in sample.locations for line in location.lines
               if c_functions or not is_of_c(line.function.name, line.function.filename)),
         dict(zip(COLUMNS, sample.values)))
        for sample in read(message).samples
    ], window.counters

def work_until_walked(times):
    "Uses CPU time until that many stacks were walked; the first of them may be of before."
    end, deadline = _native.stats()["stacks"] + times, time.monotonic() + PATIENCE
    while _native.stats()["stacks"] < end:
        assert time.monotonic() < deadline
"""


@pytest.fixture
def engine(run_python: Run) -> Run:
    """Runs a program in a process of its own and returns its answer."""
    return asking(run_python, PRELUDE)
