"""Snapshots are taken on threads of the application, at any moment: they take little room and run no code.

Seen to fail, each with one line changed:
- `pyprof_walk_public` without `PyGC_Disable`: finalizers run in the timer thread (3.11; later versions
  collect at safe points only);
- 32 KiB of frames on the stack in `walk`: threads with small stacks crash (3.12).
"""

import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize("raw_walk", [True, False])
def test_no_finalizer_runs_in_a_snapshot(raw_walk: bool, run_python: Any) -> None:
    program = """
import gc, sys, _thread, threading, time
from pyprof import _native

class Dying:
    def __init__(self):
        self.itself = self
    def __del__(self):
        by.add(_thread.get_native_id())

def park(depth):
    return park(depth - 1) if depth else gate.wait()

by, gate = set(), threading.Event()
threads = [threading.Thread(target=park, args=(50,)) for _ in range(4)]
for thread in threads: thread.start()
_native.start(period_ns=200_000, window_ns=10**15, max_frames=100, ring_windows=1, window_bytes=1 << 20,
              max_overhead=1, raw_walk=sys.argv[1] == "True", gilfree=False, gil=True)
gc.set_threshold(20)
end = time.monotonic() + 60
while (_native.stats()["stacks"] < 500 or not by) and time.monotonic() < end:
    Dying()
    sum(range(100))
assert gc.isenabled()
_native.stop()
gate.set()
assert by == {_thread.get_native_id()}, by
"""
    run_python(program, str(raw_walk), check=True)


def test_threads_with_small_stacks(run_python: Any) -> None:
    """The smallest with which CPython runs the program by itself."""
    program = """
import sys, threading, time
def work(depth=20):
    if depth:
        return work(depth - 1)
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        sorted([3, 1, 2], key=lambda x: x)
if sys.argv[2] == "profiled":
    import pyprof
    pyprof.start(exporter="none", sample_rate=10_000, max_overhead=1)
threading.stack_size(int(sys.argv[1]) * 1024)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert sys.argv[2] == "alone" or pyprof.stats().stacks > 50
"""

    def runs(kilobytes: int) -> bool:
        command = [sys.executable, "-c", program, str(kilobytes), "alone"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0

    # What it does by itself differs by a page from run to run: one more than enough.
    smallest = next(kilobytes for kilobytes in range(32, 257, 4) if runs(kilobytes)) + 4
    run_python(program, str(smallest), "profiled", check=True)
