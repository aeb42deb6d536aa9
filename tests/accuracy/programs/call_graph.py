"""A call graph of `call_graphs.py`: for some seconds under the sampler, then once under a trace function,
which tells the calls of library functions.

The sampler is driven directly, for the column that counts each stack once: a sample has the weight of the
ticks missed before it. The first argument is a JSON object, see `call_graph_runs.py`; the last line of stdout
is one too.
"""

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from pyprof import _native

GIVEN = json.loads(sys.argv[1])
sys.path.append(GIVEN["directory"])
graph = importlib.import_module(GIVEN["module"])


def drive(seconds: float) -> None:
    work = graph.work(monotonic() + seconds)
    if GIVEN["driven_by"] == "asyncio":
        asyncio.run(work)
    elif GIVEN["driven_by"] == "send":
        try:
            work.send(None)
        except StopIteration:
            pass


def pin(cpu: int, timer_cpu: int) -> None:
    """This thread to one CPU, the timer's to another."""
    end = monotonic() + 60
    while monotonic() < end:  # it gives itself its name
        for task in Path("/proc/self/task").iterdir():
            if (task / "comm").read_text() == "pyprof-timer\n":
                os.sched_setaffinity(int(task.name), {timer_cpu})
                os.sched_setaffinity(0, {cpu})
                return
    raise AssertionError("there is no timer thread")


def sample() -> dict[str, int | str | None]:
    """Leaves the profile in the directory, a file a window."""
    _native.start(
        period_ns=GIVEN["period_ns"],
        window_ns=10 * 10**9,
        max_frames=1000,
        ring_windows=1024,
        window_bytes=8 << 20,
        raw_walk=True,
        gilfree=GIVEN["gilfree"],
        max_overhead=1,
        gil=False,
    )
    if GIVEN["pinned"]:
        pin(*GIVEN["pinned"])
    drive(GIVEN["seconds"])
    stats = _native.stats()
    _native.stop()
    number = 0
    while window := _native.take():
        message = window.encode(
            [("stacks", "count", _native.CPU_SAMPLES)], period_type=("wall", "nanoseconds"), period=1
        )
        Path(GIVEN["directory"], f"{number}.pb").write_bytes(message)
        number += 1
    return dict(stats)


def trace() -> list[tuple[str, str, int, str, str, int]]:
    """The calls that are made: caller's file, name and line, callee's file, name and first line."""

    def note(frame: FrameType, event: str, _: Any) -> None:
        caller = frame.f_back
        if event == "call" and caller is not None:
            ends = [(one.f_code.co_filename, one.f_code.co_qualname) for one in (caller, frame)]
            calls.add((*ends[0], caller.f_lineno, *ends[1], frame.f_code.co_firstlineno))

    calls: set[tuple[str, str, int, str, str, int]] = set()
    sys.setprofile(note)
    drive(0)
    sys.setprofile(None)
    return sorted(calls)


def main() -> None:
    drive(0)  # whatever only the first time does is over then
    stats = sample()
    print(json.dumps({"stats": stats, "calls": trace()}))


main()
