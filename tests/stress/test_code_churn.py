"""Code that is made and freed all the time: memory stays flat, and nobody who watches code is disturbed.

Seen to fail, each with one line changed:
- `begin_snapshot` removes nothing: `test_memory_is_flat` finds the cache growing with every function;
- `pyprof_watch_code_deaths` wraps although its wrapper is still in the chain: the stack overflows in
  `test_somebody_else_wraps_the_destructor`;
- `pyprof_code_cache_close` without the world stopped: crash of `test_starts_and_stops` in one of three runs
  under AddressSanitizer on 3.14t.
"""

import json
import sys
from typing import Any

import pytest

from ..conftest import ROOT

PRELUDE = """
import ctypes, gc, os, sys, threading, time
from types import CodeType
import pyprof
from pyprof import _native

def make(n):
    "Calls a function made for this one call, long enough to be seen."
    namespace = {"clock": time.perf_counter}
    source = f"def f{n}():\\n end = clock() + 0.0003\\n while clock() < end: pass"
    exec(compile(source, f"/churn/{n}.py", "exec"), namespace)
    namespace[f"f{n}"]()

def churn(functions, first=0):
    for n in range(first, first + functions):
        make(n)

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

# PyCode_Type.tp_dealloc stands after the header, ob_size, tp_name, tp_basicsize and tp_itemsize.
type_slot = ctypes.c_void_p.from_address(id(CodeType) + object.__basicsize__ + 4 * 8)
"""


@pytest.mark.parametrize("functions", [1500, pytest.param(30_000, marks=pytest.mark.slow)])
def test_memory_is_flat(functions: int, run_python: Any) -> None:
    """The code cache holds what lives; what died goes with the next sample, and with the window it is in.

    A symbol of these takes 300 bytes and more, so 1,500 that stayed would be 450,000.
    """
    program = (
        PRELUDE
        + """
_native.start(period_ns=200_000, window_ns=10**15, max_frames=100, ring_windows=1, window_bytes=8 << 20,
              max_overhead=1, raw_walk=True, gilfree=True, gil=True)
sizes, seen, called = [], 0, 0
end = time.monotonic() + 200
while seen < int(sys.argv[1]):
    assert time.monotonic() < end, "too few are seen to say anything"
    churn(300, called)
    gc.collect()  # free-threaded builds free code objects then
    called += 300
    assert _native.rotate(30)
    window = _native.take()
    seen += sum(name.startswith("/churn/") for name in window.files)
    del window
    sizes.append(_native.stats()["bytes"])
_native.stop()
_native.take()
print(seen, *sizes)
assert max(sizes) < 300_000, sizes
assert _native.stats()["bytes"] == 0
"""
    )
    run_python(program, str(functions), check=True, timeout=300)


@pytest.mark.slow
def test_resident_memory_does_not_grow(run_python: Any, sink: Any) -> None:
    """The slope over a long run with code, threads and stacks that come and go, and uploads all the while."""
    program = (
        PRELUDE
        + """
pyprof.start(server_url=sys.argv[1], sample_rate=2000, max_overhead=1, upload_interval=0.2)
def threads_and_stacks(depth):
    if depth: return threads_and_stacks(depth - 1)
    thread = threading.Thread(target=churn, args=(20,))
    thread.start()
    thread.join()
def round():
    for depth in range(100):
        threads_and_stacks(depth)
    assert pyprof.flush(60)
    gc.collect()
    return rss()
for _ in range(3): round()
sizes = [round() for _ in range(15)]
print(*sizes)
# Least squares; what allocators keep back levels off, what leaks does not.
n = len(sizes)
mean = sum(sizes) / n
slope = sum((i - (n - 1) / 2) * (size - mean) for i, size in enumerate(sizes)) / (n * (n * n - 1) / 12)
assert slope < 100_000, f"{slope} bytes for each round of 2,000 functions and 100 threads: {sizes}"
"""
    )
    run_python(program, sink().url, check=True, timeout=600)


@pytest.mark.slow
def test_the_long_run_in_short(run_process: Any) -> None:
    """`churn.py`, which else runs for an hour: whether it works, and finds what grows fast."""
    command = [sys.executable, "-m", "tests.stress.churn", "--minutes=0.3", "--interval=1", "--share=1"]
    result = run_process([*command, "--least-rounds=6000", "--file-names=500"], timeout=400, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    last = json.loads(result.stdout.splitlines()[-1])["last"]
    assert last["stacks"] > 1000, last
    assert last["uploads"] > 2, last


def test_starts_and_stops(run_python: Any) -> None:
    """While four threads free code, some of it known to the cache that is being taken down."""
    program = (
        PRELUDE
        + """
going = True
def forever(k):
    n = k * 10**9
    while going:
        n += 1
        make(n)
threads = [threading.Thread(target=forever, args=(k,)) for k in range(4)]
for thread in threads: thread.start()
end = time.monotonic() + 3
while time.monotonic() < end:
    pyprof.start(exporter="none", sample_rate=10_000, max_overhead=1)
    make(0)
    pyprof.stop()
going = False
for thread in threads: thread.join()
assert _native.own_threads() == 0
"""
    )
    run_python(program, check=True, timeout=90)


def test_stops_while_code_dies_all_the_time(run_python: Any) -> None:
    """Who frees code may be in our destructor while that is put in and taken out."""
    program = (
        PRELUDE
        + """
going = True
def forever():
    while going:
        exec("def f(): return 1\\nf()", {})
threads = [threading.Thread(target=forever) for _ in range(6)]
for thread in threads: thread.start()
end = time.monotonic() + 5
while time.monotonic() < end:
    pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
    pyprof.stop(flush=False)
going = False
for thread in threads: thread.join()
"""
    )
    run_python(program, check=True, timeout=90)


def test_somebody_else_wraps_the_destructor(run_python: Any) -> None:
    """Another tool puts its wrapper around ours, and keeps it there while we stop and start again."""
    program = (
        PRELUDE
        + """
original = type_slot.value
deaths = 0
destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # no object: this one has no references left
@destructor
def wrapper(code):
    global deaths
    deaths += 1
    inner(code)

pyprof.start(exporter="none", sample_rate=5000, max_overhead=1)
ours = type_slot.value
inner = destructor(ours)
type_slot.value = ctypes.cast(wrapper, ctypes.c_void_p).value
for _ in range(3):
    pyprof.stop()
    churn(20)
    pyprof.start(exporter="none", sample_rate=5000, max_overhead=1)
    churn(20)
gc.collect()  # without a GIL functions die by it alone
assert deaths >= 120
type_slot.value = ours  # it goes, and leaves things as it found them
churn(20)
pyprof.stop()
churn(20)
assert type_slot.value == original, "what was restored is not what was there before all"
"""
    )
    run_python(program, check=True)
