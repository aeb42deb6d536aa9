"""Engine `tracemalloc`: exact where the application has it on, sampled where pyprof has, and on demand.

Seen to fail, as it was once: what the environment has turned on taken for off; a hook put on what the
application has begun anew; on demand, no end where an exception comes.
"""

import sys
from typing import Any

import pytest

from ..engine import Run

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "t" in sys.abiflags, reason="needs Linux and a GIL"
)

PRELUDE = """
import gc, json, os, sys, tracemalloc
import pyprof
from pyprof import pprof

def held(heap):
    "Bytes in use by function."
    found = {}
    profile = pprof.read(heap.pprof())
    index = [t.type for t in profile.sample_types].index("inuse_space")
    for sample in profile.samples:
        leaf = sample.locations[0].lines[0]
        name = leaf.function.name.removesuffix(".<locals>.<listcomp>")
        found[name] = found.get(name, 0) + sample.values[index]
    return found

def blocks(n, size):
    return [bytearray(size) for _ in range(n)]

def table(n):
    return {number: str(number) for number in range(n)}
"""


@pytest.fixture
def run(run_python: Run, tmp_path: Any) -> Run:
    """Runs a program, from a file: its functions are found there."""

    def run(program: str, *options: str) -> Any:
        path = tmp_path / "program.py"
        path.write_text(PRELUDE + program)
        result = run_python(path, options=options, timeout=120, check=True)
        assert result.stderr == "", result.stderr
        return result

    return run


def test_what_tracemalloc_holds_is_shown_exactly(run: Run) -> None:
    run("""
tracemalloc.start(5)
before = blocks(50, 1000)
profiler = pyprof.start(exporter="none", memory="tracemalloc")
mine, other = blocks(1000, 5000), table(20_000)
def sizes():
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, __file__)])
    return {s.traceback[-1].lineno: s.size for s in snapshot.statistics("lineno")}
before_it = sizes()
found = held(profiler.heap())
after_it = sizes()
for function in (blocks, table):
    line = function.__code__.co_firstlineno + 1
    # An object of a free list that is used again belongs to another line then: some bytes of millions.
    least, most = sorted((before_it[line], after_it[line]))
    assert most - least < 500
    assert least <= found["__main__." + function.__name__] <= most, (function, found, before_it, after_it)
assert found["__main__.blocks"] >= 5_050_000
mine.clear()
assert 50_000 <= held(profiler.heap())["__main__.blocks"] < 60_000
pyprof.stop()
assert tracemalloc.is_tracing()  # it is the application's
assert tracemalloc.get_object_traceback(before[0]) is not None
""")


def test_sampled(run: Run) -> None:
    """600 blocks of 10,000 bytes at a period of 5,000: a standard deviation of 2 % of the 6 MB."""
    run("""
profiler = pyprof.start(exporter="none", memory="tracemalloc", memory_period=5000)
assert tracemalloc.is_tracing()
kept = blocks(600, 10_000)
growing = []
for number in range(200_000):
    growing.append(None)  # 1.6 MB, by realloc
found = held(profiler.heap())
assert abs(found["__main__.blocks"] - 6_000_000) < 500_000, found
assert abs(found["__main__.<module>"] - sys.getsizeof(growing)) < 100_000, found
del kept, growing
found = held(profiler.heap(gc=True))
assert found.get("__main__.blocks", 0) == 0, found
assert found.get("__main__.<module>", 0) < 50_000, found
pyprof.stop()
assert not tracemalloc.is_tracing()
""")


def test_only_samples_reach_tracemalloc(run: Run) -> None:
    run("""
profiler = pyprof.start(exporter="none", memory="tracemalloc", memory_period=100_000)
kept = [str(number) for number in range(200_000)]
traced = len(tracemalloc.take_snapshot().traces)
assert traced < 2_000, traced
pyprof.stop()
""")


def test_what_it_does_not_know_is_refused(run: Run) -> None:
    run("""
profiler = pyprof.start(exporter="none", memory="tracemalloc")
for what in (profiler.allocs, profiler.heap_peak):
    try:
        what()
    except RuntimeError as error:
        assert "only what is in use" in str(error)
    else:
        raise AssertionError(what)
pyprof.stop()
""")


@pytest.mark.parametrize("memory", ["hook", "tracemalloc", "off"])
@pytest.mark.parametrize("is_on", [False, True])
def test_on_demand_everything_is_seen(memory: str, is_on: bool, run: Run) -> None:
    """In a thread, 500 blocks come and 100 of an older kind go: exactly that is shown, and afterwards the
    application's tracemalloc is as it was."""
    run(f"""
import threading, time
if {is_on}:
    tracemalloc.start(2)
profiler = pyprof.start(exporter="none", memory={memory!r})
def later():
    time.sleep(0.2)
    global kept
    kept = blocks(500, 1000)
thread = threading.Thread(target=later)
thread.start()
found = held(profiler.trace_memory(0.6))
thread.join()
size = sum(map(sys.getsizeof, kept))
assert size - 1000 < found["__main__.blocks"] < size + 50_000, (found, size)
assert tracemalloc.is_tracing() == ({is_on} or {memory!r} == "tracemalloc")
kept = blocks(1, 5_000_000)
if {memory!r} != "off":
    assert held(profiler.heap())["__main__.blocks"] > 4_000_000
pyprof.stop()
assert tracemalloc.is_tracing() == {is_on}
""")


def test_the_application_stops_tracemalloc(run_python: Run) -> None:
    """Said once; everything else goes on."""
    result = run_python(
        """
import tracemalloc, pyprof
pyprof.start(exporter="none", memory="tracemalloc", memory_period=1000)
kept = [bytes(1000) for _ in range(100)]
tracemalloc.stop()
from pyprof.profiler import _recorder
_recorder.check(); _recorder.check()
kept = [bytes(1000) for _ in range(100)]
assert pyprof.is_running() and pyprof.stats().memory_period == 0
pyprof.stop()
""",
        timeout=60,
        check=True,
    )
    assert result.stderr.count("\n") == 1
    assert "tracemalloc was stopped by the application" in result.stderr


def test_what_the_environment_turned_on_is_the_applications(run: Run) -> None:
    """Nobody has imported the module then."""
    run(
        """
kept = blocks(100, 100_000)
profiler = pyprof.start(exporter="none", memory="tracemalloc")
assert held(profiler.heap())["__main__.blocks"] >= 10_000_000
pyprof.stop()
assert tracemalloc.is_tracing()
assert tracemalloc.get_traced_memory()[0] >= 10_000_000
""",
        "-X",
        "tracemalloc=5",
    )


def test_the_application_begins_anew(run_python: Run) -> None:
    """What traces then is the application's, and loses nothing."""
    result = run_python(
        """
import tracemalloc, pyprof
from pyprof.profiler import _recorder
pyprof.start(exporter="none", memory="tracemalloc", memory_period=1000)
tracemalloc.stop()
tracemalloc.start(1)
kept = [bytes(1000) for _ in range(100_000)]
_recorder.check()
more = [bytes(1000) for _ in range(100_000)]
del more
assert tracemalloc.get_traced_memory()[0] >= 100_000_000
pyprof.stop()
assert tracemalloc.is_tracing()
""",
        timeout=60,
        check=True,
    )
    assert "begun to trace themselves" in result.stderr


def test_the_application_asks_tracemalloc_meanwhile(run: Run) -> None:
    """From 3.14 on it makes objects while it holds the lock that reporting them takes: seen to hang."""
    run("""
profiler = pyprof.start(exporter="none", memory="tracemalloc", memory_period=16)
kept = blocks(2000, 100)
for block in kept * 3:
    tracemalloc.get_object_traceback(block)
for _ in range(3):
    assert len(tracemalloc.take_snapshot().traces) > 1000
assert held(profiler.heap())["__main__.blocks"] > 100_000
pyprof.stop()
""")


def test_on_demand_it_ends_whatever_happens(run: Run) -> None:
    run("""
import signal, threading
profiler = pyprof.start(exporter="none", memory="off")
class Enough(Exception):
    pass
def handler(*_):
    raise Enough
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    profiler.trace_memory(60)
except Enough:
    pass
assert not tracemalloc.is_tracing()
first = threading.Thread(target=profiler.trace_memory, args=(1,))
first.start()
while not tracemalloc.is_tracing():
    pass
try:
    profiler.trace_memory(0)
except RuntimeError as error:
    assert "another call" in str(error)
else:
    raise AssertionError
first.join()
assert not tracemalloc.is_tracing()
pyprof.stop()
""")


def test_on_demand_a_signal_handler_may_stop_everything(run: Run) -> None:
    """Once the handler waited for what it had interrupted."""
    run("""
import signal, threading, time
profiler = pyprof.start(exporter="none")
stopped = []
def handler(*_):
    pyprof.stop()
    stopped.append(time.monotonic())
signal.signal(signal.SIGUSR1, handler)
signal.alarm(60)  # kills who hangs
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
heap = profiler.trace_memory(1)
assert stopped and not profiler.running
assert not tracemalloc.is_tracing()
assert heap.pprof()
pyprof.start(exporter="none").heap()
""")


def test_windows_have_it_too(run_python: Run, tmp_path: Any) -> None:
    run_python(
        """
import pyprof, sys
pyprof.start(output=sys.argv[1], memory="tracemalloc", memory_period=1000)
def hold():
    return [bytes(10_000) for _ in range(500)]
kept = hold()
pyprof.stop()
""",
        str(tmp_path / "out.pb.gz"),
        check=True,
    )
    from pyprof import pprof

    profile = pprof.read(tmp_path / "out.pb.gz")
    assert [t.type for t in profile.sample_types][-2:] == ["inuse_objects", "inuse_space"]
    assert profile.total("inuse_space") == pytest.approx(5_000_000, rel=0.15)
