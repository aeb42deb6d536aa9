"""Other interpreters of the process: never entered, and never in the way.

Seen to fail, each with one line changed:
- `start` without its look at `is_main_interpreter`: a start in another interpreter raises or starts threads;
- `open_one_off` without it: the timer of the process ends (`test_they_do_not_touch_the_profiler`);
- `ATTACH_AFTER_NS` for ever: `stop` waits for the busy interpreter (`test_a_busy_interpreter`, 3.13 on);
- the GIL's last holder for its holder: the layout seems to be another, and 4 points are in the wrong place; a
  thread state of the other for its holder: all is (`test_the_thread_that_runs_one`, 3.11);
- `autostart.start` without it, and a thread of ours there: Py_EndInterpreter aborts (3.12, 3.13).
"""

import sys
from typing import Any

import pytest

from ..interpreters import KINDS
from ..interpreters import PRELUDE as INTERPRETERS
from .host import AUTOSTART
from .host import PRELUDE as HOST

PRELUDE = (
    HOST
    + INTERPRETERS
    + """

def goes_on():
    sampled(stacks=5)
    return True
"""
)


@KINDS
def test_they_do_not_touch_the_profiler(kind: str, run_python: Any) -> None:
    program = (
        PRELUDE
        + """
import pyprof
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
assert goes_on()
before = threads()
other = create(sys.argv[1])
execute(other, '''
import pyprof
profiler = pyprof.start(exporter="none", strict=True)
assert not profiler.running and not pyprof.is_running()
pyprof.stats()
assert not pyprof.flush(1)
try:
    with pyprof.profile():
        raise AssertionError("a profile in another interpreter")
except RuntimeError as error:
    assert "main interpreter" in str(error), error
pyprof.stop()
''')
assert threads() == before and goes_on()
destroy(other)
assert threads() == before and goes_on()
pyprof.stop()
assert threads() == 1
"""
    )
    assert run_python(program, kind, check=True, options=["-X", "dev"]).stderr == ""


@KINDS
@pytest.mark.parametrize("times", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_created_and_destroyed_while_sampling(kind: str, times: int, run_python: Any) -> None:
    """Their code objects are freed, at addresses that the cache may know."""
    program = (
        PRELUDE
        + """
import pyprof
pyprof.start(exporter="none", sample_rate=10_000, max_overhead=1)
CODE = '''
for i in range(30):
    namespace = {}
    exec(compile(f"def f{i}():\\\\n    return sum(range(100))", f"/there/{i}", "exec"), namespace)
    namespace[f"f{i}"]()
'''
def work(n):
    for _ in range(n):
        other = create(sys.argv[1])
        execute(other, CODE)
        destroy(other)
times = int(sys.argv[2])
beside = 2 if sys.argv[1] == "isolated" else 0
workers = [threading.Thread(target=work, args=(times // 2,)) for _ in range(beside)]
before, was = descriptors(), pyprof.stats()
for worker in workers: worker.start()
work(times)
for worker in workers: worker.join()
now = pyprof.stats()
assert now.ticks > was.ticks + times and now.stacks > was.stacks, (was, now)
assert goes_on()
assert descriptors() == before, (before, descriptors())
pyprof.stop()
assert threads() == 1
"""
    )
    assert run_python(program, kind, str(times), check=True, timeout=120 + times).stderr == ""


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("rate", [1000, 10_000])
def test_thousands_of_them(kind: str, rate: int, run_python: Any) -> None:
    """Threads in them begin and end, and profilers, while their memory goes and comes back."""
    if kind == "isolated" and sys.version_info < (3, 12):
        pytest.skip("CPython allows no threads there")
    program = (
        PRELUDE
        + """
import pyprof
kind, rate = sys.argv[1], int(sys.argv[2])
CODE = '''
import threading
def work(depth):
    return work(depth - 1) if depth else sum(range(2000))
thread = threading.Thread(target=work, args=(30,))
thread.start()
for i in range(20):
    namespace = {}
    exec(compile(f"def f{i}(): return sum(range(100))", f"/there/{i}", "exec"), namespace)
    namespace[f"f{i}"]()
work(40)
thread.join()
'''
made = 0
def churn():
    global made
    while made < 500:
        other = create(kind)
        made += 1
        for _ in range(3):
            execute(other, CODE)
        destroy(other)
workers = [threading.Thread(target=churn) for _ in range(2 if kind == "isolated" else 1)]
for worker in workers: worker.start()
while made < 500:
    pyprof.start(exporter="none", sample_rate=rate, max_overhead=1)
    assert goes_on()
    pyprof.stop()
for worker in workers: worker.join()
until(lambda: threads() == 1)
"""
    )
    run_python(program, kind, str(rate), check=True, timeout=900)


@pytest.mark.accuracy
@KINDS
def test_the_thread_that_runs_one(kind: str, run_python: Any) -> None:
    """Its CPU is charged to where it went into the other. 20 borders of a 1 ms gap in 2 s: 0.1 points."""
    program = (
        PRELUDE
        + """
import pyprof
from pyprof.pprof import read
BURN = "import time\\nend = time.thread_time() + 0.1\\nwhile time.thread_time() < end: sum(range(100))"
def in_other():
    execute(other, BURN)
def in_main():
    exec(BURN, {})
other = create(sys.argv[1])
execute(other, "import time; time.sleep(0.001)")  # takes the GIL there
truth = dict.fromkeys(("in_other", "in_main"), 0)
with pyprof.profile() as p:
    begin = time.thread_time_ns()
    for _ in range(10):
        for function in in_other, in_main:
            before = time.thread_time_ns()
            function()
            truth[function.__name__] += time.thread_time_ns() - before
    total = time.thread_time_ns() - begin
destroy(other)
profile = read(p.pprof())
cpu = [kind.type for kind in profile.sample_types].index("cpu")
for name, true in truth.items():
    measured = sum(
        sample.values[cpu]
        for sample in profile.samples
        if any(name == line.function.name for place in sample.locations for line in place.lines)
    )
    assert abs(measured - true) < 0.02 * total, (name, measured, true)
"""
    )
    run_python(program, kind, check=True)


ASKED = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="a thread that wants the GIL asks only those of its own interpreter: time.sleep() takes as long",
)


@pytest.mark.parametrize(
    ("kind", "seconds"), [pytest.param("isolated", 3), pytest.param("legacy", 5, marks=ASKED)]
)
def test_a_busy_interpreter(kind: str, seconds: float, run_python: Any) -> None:
    """While a thread of its own computes in it, stopping does not wait for that thread.

    In a legacy interpreter, which shares the GIL, it lets go of that only when asked to. A stop that does not
    ask takes the rest of its time, more than half here; others took a quarter of a second at most.
    """
    program = (
        PRELUDE
        + """
import pyprof
seconds = float(sys.argv[2])
other = create(sys.argv[1])
code = f"import time\\nend = time.monotonic() + {seconds}\\nwhile time.monotonic() < end: pass"
thread = threading.Thread(target=execute, args=(other, code))
thread.start()
slowest, end = 0, time.monotonic() + seconds / 2
while time.monotonic() < end:
    pyprof.start(exporter="none", sample_rate=10_000, max_overhead=1)
    for _ in range(3000): pass
    before = time.monotonic()
    pyprof.stop()
    slowest = max(slowest, time.monotonic() - before)
thread.join()
destroy(other)
assert slowest < seconds / 2.5, slowest
"""
    )
    run_python(program, kind, str(seconds), timeout=120, check=True)


@KINDS
@pytest.mark.parametrize("alive", [False, True])
def test_alive_at_the_exit(kind: str, alive: bool, run_python: Any) -> None:
    program = (
        PRELUDE
        + """
import pyprof
pyprof.start(exporter="none", sample_rate=10_000, max_overhead=1)
others = [create(sys.argv[1]) for _ in range(3)]
for other in others:
    execute(other, "import pyprof; pyprof.start(exporter='none')")
    if sys.argv[2] == "False":
        destroy(other)
sys.exit(5)
"""
    )
    options = ["-W", "ignore"]  # CPython's own word on interpreters that nobody destroyed
    result = run_python(program, kind, str(alive), options=options)
    assert result.returncode == 5, result.stderr


@KINDS
def test_autostart_is_for_the_main_interpreter(kind: str, run_python: Any) -> None:
    program = (
        PRELUDE
        + """
import pyprof_autostart
pyprof_autostart.main()
import pyprof
assert pyprof.is_running()
before = threads()
for _ in range(3):
    other = create(sys.argv[1])
    execute(other, "import pyprof_autostart; pyprof_autostart.main(); import sys; assert len(sys.argv) >= 0")
    assert threads() == before
    destroy(other)
assert threads() == before and goes_on()
"""
    )
    assert run_python(program, kind, env=AUTOSTART, check=True).stderr == ""
