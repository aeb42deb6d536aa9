"""However much the program does, pyprof's memory is bounded; and what found no room is counted, not lost.

Seen to fail, each with one line changed:
- a window without limit, one that forgets what overflows, one that counts stacks without values: the two
  million stacks;
- CPU time since the last tick charged as one period: the functions without room;
- overflow not summed up over windows: there, and in the profile;
- the ring gives up a newer window than the oldest, or does not count: the eras;
- windows that a consumer drops not counted: those that nobody takes;
- deaths of code not noted, or its symbols still counted: the code cache.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..engine import Run, asking

PRELUDE = """
def decode(message):
    "[(names, leaf first; values)]"
    return [([line.function.name for location in sample.locations for line in location.lines], sample.values)
            for sample in read(message).samples]

def encode(window):
    columns = ("samples", _native.SAMPLES), ("cpu", _native.CPU_NS)
    return window.encode([(name, "count", column) for name, column in columns],
                         period_type=("cpu", "nanoseconds"), period=1)

def make(name, file="churn.py"):
    namespace = {"stats": _native.stats, "clock": time.monotonic}
    exec(compile(f'''
def {name}(times):
    end, deadline = stats()["stacks"] + times, clock() + {PATIENCE}
    while stats()["stacks"] < end:
        assert clock() < deadline
''', file, "exec"), namespace)
    return namespace.pop(name)  # no cycle: it dies with its last reference

def memory(kind="VmRSS"):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(kind))
"""


@pytest.fixture
def engine(run_python: Run) -> Run:
    """Runs a program in a process of its own and returns its answer."""
    return asking(run_python, PRELUDE)


def test_two_million_stacks_in_one_window(engine: Callable[..., Any]) -> None:
    n, cap = 2_000_000, 8 << 20
    found = engine(
        """
n, cap = json.loads(sys.argv[1])
add = _native.Window(cap).add
for i in range(100):
    add([("f", "x.py", 1, i)], samples=1)
del add
window = _native.Window(cap)
add, before, most = window.add, memory(), 0
for first in range(0, n, n // 100):
    for i in range(first, first + n // 100):
        add((("f", "x.py", 1, i),), samples=1, cpu_ns=i)
    most = max(most, window.bytes)
grown = memory("VmHWM") - before
stacks = decode(encode(window))
answer(grown=grown, most=most, stacks=window.stacks, overflowed=window.counters["overflowed"],
       total=[sum(values[i] for _, values in stacks) for i in (0, 1)],
       overflow=[values for names, values in stacks if names == ["[overflow]"]])
""",
        json.dumps([n, cap]),
    )
    kept = found["stacks"]
    assert 10_000 < kept < n
    assert found["most"] <= cap
    assert found["grown"] < 1.5 * cap
    assert found["total"] == [n, n * (n - 1) // 2]
    # What came first was kept.
    assert found["overflowed"] == n - kept
    assert found["overflow"] == [[n - kept, sum(range(kept, n))]]


def test_more_functions_than_a_window_has_room_for(engine: Callable[..., Any]) -> None:
    cap = 128 << 10
    found = engine(
        """
functions = [make(f"f{i}", f"{i}.py") for i in range(2000)]
clock = time.thread_time_ns
outer = clock()
start(period_ns=100_000, window_bytes=json.loads(sys.argv[1]))
inner = clock()
for function in functions:
    function(2)
inner, before = clock() - inner, clock()
_native.stop()
outer = clock() - outer
window = _native.take()
stacks = decode(encode(window))
cpu = dict.fromkeys(["overflow", "named"], 0)
for names, values in stacks:
    cpu["overflow" if names == ["[overflow]"] else "named"] += values[1]
answer(bytes=window.bytes, overflowed=[window.counters["overflowed"], _native.stats()["overflowed"]], cpu=cpu,
       inner=inner, outer=outer, names=len({name for names, _ in stacks for name in names}))
""",
        json.dumps(cap),
    )
    assert found["bytes"] <= cap
    assert found["overflowed"][0] == found["overflowed"][1] > 1000
    assert 100 < found["names"] < 1900
    assert found["cpu"]["overflow"] > 0.2 * found["outer"]
    assert 0.999 * found["inner"] <= sum(found["cpu"].values()) <= 1.001 * found["outer"]


def test_the_profile_and_the_counters_tell_of_the_overflow(
    engine: Callable[..., Any], tmp_path: Path
) -> None:
    found = engine(
        """
import pyprof, pyprof.profiler
pyprof.profiler._WINDOW_BYTES = 64 << 10
functions = [make(f"f{i}", f"{i}.py") for i in range(1000)]
pyprof.start(exporter="none", output=sys.argv[1], sample_rate=5000, max_overhead=1)
for function in functions:
    function(2)
pyprof.stop()
profile = read(sys.argv[1])
answer(overflowed=pyprof.stats().overflowed, comments=profile.comments,
       overflow=sum(sample.values[0] for sample in profile.samples
                    if any(name == "[overflow]" for l in sample.locations for name in l.names())))
""",
        str(tmp_path / "profile.pb.gz"),
    )
    assert found["overflowed"] > 500
    assert found["overflow"] >= 500
    assert any(line.startswith(f"{found['overflowed']} samples") for line in found["comments"])


ERAS = """
def era(n):
    function = make(f"era{n}")
    function(3)

def eras(window_message):
    names = {name for names, _ in decode(window_message) for name in names}
    return {name for name in names if name.startswith("era") and name != "era"}
"""


def test_a_full_ring_drops_its_oldest_windows(engine: Callable[..., Any]) -> None:
    found = engine(
        ERAS
        + """
start(ring_windows=3)
for n in range(10):
    era(n)
    assert _native.rotate(PATIENCE)
era("last")
_native.stop()
windows = list(iter(_native.take, None))
answer(eras=[sorted(eras(encode(window))) for window in windows], dropped=_native.stats()["dropped_windows"],
       noted=[window.counters["dropped_windows"] for window in windows])
"""
    )
    assert found["eras"] == [["era8"], ["era9"], ["eralast"]]
    assert found["dropped"] == 8
    assert sum(found["noted"]) == 8


def test_windows_that_nobody_takes_are_counted(engine: Callable[..., Any]) -> None:
    found = engine("""
import pyprof
pyprof.start(exporter="none", ring_windows=2, sample_rate=1000, max_overhead=1)
work = make("work")
for n in range(7):
    work(3)
    assert pyprof.flush()
stats = pyprof.stats()
for n in range(3):
    with pyprof.profile():  # what the ring holds is distributed, and dropped again one step further on
        work(3)
pyprof.stop()
last = pyprof.stats()
answer(windows=stats.windows, dropped=stats.dropped_windows, running=stats.running,
       kept=last.windows - last.dropped_windows)
""")
    assert found == {"windows": 7, "dropped": 5, "running": True, "kept": 2}


def test_the_code_cache_forgets_code_that_is_gone(engine: Callable[..., Any]) -> None:
    """Each function brings a kilobyte of name: 1,500 that were kept would be 1.5 MB."""
    found = engine("""
start(period_ns=100_000, window_bytes=1 << 20)
sizes, last = [], make("last")
for n in range(1, 1501):
    make(f"f{n}", f"{n}{'x' * 1000}.py")(2)
    if n % 100 == 0:
        gc.collect()  # free-threaded builds leave code objects to it
        last(3)
        sizes.append(_native.stats()["bytes"])
kept = [make(f"f{n}", f"{n}{'x' * 1000}.py") for n in range(500)]
for function in kept:
    function(2)
most = _native.stats()["bytes"]
del kept, function
gc.collect()
last(3)
forgotten = _native.stats()["bytes"]
_native.stop()
rest = _native.stats()["bytes"]
_native.take()
answer(sizes=sizes, most=most, forgotten=forgotten, rest=rest, end=_native.stats()["bytes"])
""")
    flat = found["sizes"][0]
    assert max(found["sizes"]) < flat + 20_000
    assert found["most"] > flat + 400_000  # those that live are kept: the bytes are counted
    assert found["forgotten"] < flat + 50_000  # the table itself does not shrink
    assert found["rest"] <= 1 << 20  # the finished window
    assert found["end"] == 0
