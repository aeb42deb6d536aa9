"""`Window` from Python: bounds, conservation, wrong arguments, threads, sub-interpreters."""

import re
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest

from pyprof import _native
from pyprof.pprof.proto import profile_messages

INT64_MAX = 2**63 - 1
TYPES = [("samples", "count", _native.SAMPLES), ("cpu", "nanoseconds", _native.CPU_NS)]

RunPython = Callable[..., Any]


def totals(window: _native.Window) -> tuple[int, int]:
    encoded = window.encode(TYPES, period_type=("cpu", "nanoseconds"), period=1)
    samples = profile_messages()["Profile"].FromString(encoded).sample
    return sum(s.value[0] for s in samples), sum(s.value[1] for s in samples)


def test_a_new_window_is_empty_and_small() -> None:
    window = _native.Window()
    assert (window.stacks, window.files) == (0, [])
    assert window.bytes < 1024
    assert window.counters == {
        "ticks": 0,
        "missed": 0,
        "overflowed": 0,
        "unplaced_cpu_ns": 0,
        "dropped_windows": 0,
    }
    assert (window.start_ns, window.duration_ns, window.period_ns) == (0, 0, 0)
    window = _native.Window(start_ns=1, duration_ns=2, period_ns=INT64_MAX)
    assert (window.start_ns, window.duration_ns, window.period_ns) == (1, 2, INT64_MAX)


def test_equal_stacks_are_one() -> None:
    window = _native.Window()
    for _ in range(3):
        window.add([("f", "x.py", 1, 2), ("f", "x.py", 1, 2)], samples=1, cpu_ns=10)
    assert window.stacks == 1
    size = window.bytes
    assert totals(window) == (3, 30)
    different = [
        [("f", "x.py", 1, 2)],  # depth
        [("f", "x.py", 1, 2), ("f", "x.py", 1, 3)],  # line
        [("f", "x.py", 2, 2), ("f", "x.py", 1, 2)],  # first line
        [("f", "y.py", 1, 2), ("f", "x.py", 1, 2)],  # file
        [("g", "x.py", 1, 2), ("f", "x.py", 1, 2)],  # name
        [],
    ]
    for stack in different:
        window.add(stack, samples=1)
    assert window.stacks == 1 + len(different)
    window.add([("f", "x.py", 1, 2), ("f", "x.py", 1, 2)], samples=1, truncated=True)
    assert window.stacks == 2 + len(different)
    assert window.bytes > size
    assert window.files == ["x.py", "y.py"]
    assert totals(window) == (4 + len(different), 30)


def test_the_cap_holds_and_no_value_is_lost() -> None:
    cap = 300_000
    window = _native.Window(cap)
    for number in range(20_000):
        # Every stack brings a function of its own too: symbols count like everything else.
        window.add(
            [(f"f{number}", f"{number % 7}.py", 1, 1), ("main", "main.py", 1, number)],
            samples=1,
            cpu_ns=number,
        )
        assert window.bytes <= cap
    kept = window.stacks
    assert 500 < kept < 20_000
    assert window.counters["overflowed"] == 20_000 - kept
    assert totals(window) == (20_000, sum(range(20_000)))
    # What was kept goes on to be kept apart.
    window.add([("f0", "0.py", 1, 1), ("main", "main.py", 1, 0)], samples=1)
    assert window.counters["overflowed"] == 20_000 - kept


def test_symbols_of_refused_stacks_do_not_pile_up() -> None:
    window = _native.Window(20_000)
    line = 0
    while window.counters["overflowed"] == 0:
        window.add([("f", "x.py", 1, line)], samples=1)
        line += 1
    sizes = []
    for number in range(1000):
        window.add([(f"never seen again {number} {i}", "x.py", 1, 1) for i in range(20)], samples=1)
        sizes.append(window.bytes)
    assert sizes[3:] == [sizes[3]] * 997  # the first may still have found room for some of their symbols


def test_functions_with_equal_hashes_stay_apart() -> None:
    # So many that the 32 bits of some hashes are equal.
    window = _native.Window(2**30)
    for first_line in range(200_000):
        window.add((("f", "x.py", first_line, 1),))
    assert window.stacks == 200_000


@pytest.mark.parametrize("cap", [0, 1, 400, 1000, 3000, 5000])
def test_any_cap_works(cap: int) -> None:
    window = _native.Window(cap)
    empty = window.bytes
    for number in range(200):
        window.add([(f"f{number}", "x.py", 1, 1)] * 50, samples=1, cpu_ns=2, truncated=True)
    assert window.bytes <= max(cap, empty)
    assert totals(window) == (200, 400)


def test_a_stack_of_any_depth() -> None:
    window = _native.Window(2**26)
    window.add((("f", "x.py", 1, line) for line in range(100_000)), samples=1)
    encoded = window.encode(TYPES, period_type=("", ""), period=1)
    (sample,) = profile_messages()["Profile"].FromString(encoded).sample
    assert list(sample.location_id) == list(range(1, 100_001))


def test_sums_stay_at_the_largest_number() -> None:
    window = _native.Window()
    for _ in range(3):
        window.add([("f", "x.py", 1, 1)], samples=INT64_MAX, cpu_ns=INT64_MAX // 2)
    assert totals(window) == (INT64_MAX, INT64_MAX)


FRAME = ("f", "x.py", 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"stack": None}, TypeError, "not iterable"),
        ({"stack": [FRAME, None]}, TypeError, "(qualname, filename, first line, line)"),
        ({"stack": [("f", "x.py", 1)]}, TypeError, "(qualname, filename, first line, line)"),
        ({"stack": [["f", "x.py", 1, 1]]}, TypeError, "(qualname, filename, first line, line)"),
        ({"stack": [(b"f", "x.py", 1, 1)]}, TypeError, "qualname must be str, not bytes"),
        ({"stack": [("f", None, 1, 1)]}, TypeError, "filename must be str"),
        ({"stack": [("f", "x.py", "1", 1)]}, TypeError, "first line must be an integer, not str"),
        ({"stack": [("f", "x.py", -1, 1)]}, ValueError, "first line must be from 0 to 2147483647"),
        ({"stack": [("f", "x.py", 1, -1)]}, ValueError, "line must be from 0 to 2147483647"),
        ({"stack": [("f", "x.py", 1, 2**31)]}, ValueError, "line must be from 0 to 2147483647"),
        ({"stack": [("f", "x.py", 1, 10**5000)]}, ValueError, "line must be from 0"),
        ({"stack": [FRAME], "samples": -1}, ValueError, "samples must be from 0 to 9223372036854775807"),
        ({"stack": [FRAME], "cpu_samples": 2**63}, ValueError, "cpu_samples must be from 0"),
        ({"stack": [FRAME], "cpu_ns": 1.0}, TypeError, "cpu_ns must be an integer, not float"),
        ({"stack": [FRAME], "wall_ns": None}, TypeError, "wall_ns must be an integer"),
        ({"stack": [FRAME], "wall": 1}, TypeError, "wall"),
    ],
)
def test_wrong_arguments_of_add_are_named(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    window = _native.Window()
    with pytest.raises(error, match=re.escape(says)):
        window.add(**arguments)
    assert (window.stacks, window.bytes) == (0, _native.Window().bytes)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"max_bytes": -1}, ValueError, "max_bytes must be from 0"),
        ({"max_bytes": 2**64}, ValueError, "max_bytes must be from 0"),
        ({"max_bytes": "1"}, TypeError, "max_bytes must be an integer, not str"),
        ({"start_ns": -1}, ValueError, "start_ns"),
        ({"duration_ns": 0.5}, TypeError, "duration_ns"),
        ({"period_ns": 2**63}, ValueError, "period_ns"),
    ],
)
def test_wrong_arguments_of_the_type_are_named(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        _native.Window(**arguments)


def test_an_iterator_that_raises_leaves_the_window_alone() -> None:
    window = _native.Window()

    def frames() -> Any:
        yield FRAME
        window.add([FRAME], samples=5)  # a window may be used while its arguments are read
        raise LookupError("stop here")

    with pytest.raises(LookupError, match="stop here"):
        window.add(frames(), samples=1)
    assert totals(window) == (5, 0)


def test_the_type_is_closed() -> None:
    with pytest.raises(TypeError):
        type("Derived", (_native.Window,), {})
    with pytest.raises(TypeError):
        _native.Window.add = None  # type: ignore[method-assign,assignment]


CONCURRENT = """
import sys, threading
from pyprof import _native
from pyprof.pprof.proto import profile_messages

sys.setswitchinterval(1e-5)
ROUNDS, WRITERS = 400, 3
window = _native.Window(2**22)
barrier = threading.Barrier(WRITERS + 3)
done = threading.Event()

def write(number):
    barrier.wait()
    for i in range(ROUNDS):
        stack = [(f"f{number}_{i % 50}", f"{i % 9}.py", 1, i), ("main", "m.py", 1, i)]
        window.add(stack, samples=1, cpu_ns=2)

def read():
    barrier.wait()
    last = 0
    while not done.is_set():
        encoded = window.encode([("s", "count", 0)], period_type=("", ""), period=1)
        total = sum(s.value[0] for s in profile_messages()["Profile"].FromString(encoded).sample)
        assert total >= last
        last = total
        try:
            files = [(file, "m") for file in window.files]
            window.encode([("s", "count", 0)], period_type=("", ""), period=1, files=files)
        except ValueError:
            pass  # a file came in between
        window.stacks, window.bytes, window.counters, window.start_ns

failures = []
threading.excepthook = failures.append
profile_messages()
threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
readers = [threading.Thread(target=read) for _ in range(2)]
for thread in threads + readers:
    thread.start()
barrier.wait()
for thread in threads:
    thread.join()
done.set()
for thread in readers:
    thread.join()
encoded = window.encode([("s", "count", 0), ("c", "ns", 2)], period_type=("", ""), period=1)
samples = profile_messages()["Profile"].FromString(encoded).sample
assert not failures, failures
print(sum(s.value[0] for s in samples), sum(s.value[1] for s in samples), window.stacks)
"""


def test_threads_may_share_a_window(run_python: RunPython) -> None:
    result = run_python(CONCURRENT, check=True, timeout=120)
    assert result.stdout.split() == ["1200", "2400", "1200"]


GROWTH = """
import resource
from pyprof import _native

def work():
    for _ in range(300):
        window = _native.Window(100_000)
        for i in range(100):
            window.add([(f"f{i}", "x.py", 1, i)] * 20, samples=1, truncated=True)
        window.files
        arguments = dict(period_type=("a", "b"), period=1, labels={"pid": 1}, comments=["c"])
        window.encode([("s", "count", 0)], files=[("x.py", "x")], **arguments)
        for bad in ({"files": []}, {"comments": [1]}, {"labels": {"a": "b"}}):
            try:
                window.encode([("s", "count", 0)], **{**arguments, **bad})
            except (TypeError, ValueError):
                pass
        try:
            window.add([("f", "x.py", 1, 1), ("g", "x.py", -1, 1)])
        except ValueError:
            pass

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_nothing_is_left_behind(run_python: RunPython) -> None:
    # 3,000 windows of some 30 KB: a leak of one object in each of them would be 100 KB, of the window 90 MB.
    result = run_python(GROWTH, check=True, timeout=120)
    assert int(result.stdout) < 2048, f"grew by {result.stdout.strip()} KiB"


SUBINTERPRETERS = """
import sys, threading
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    create, run = lambda: interpreters.create("isolated"), interpreters.exec
    failure = lambda outcome: outcome
elif sys.version_info >= (3, 12):
    import _xxsubinterpreters as interpreters
    create, run = lambda: interpreters.create(isolated=True), interpreters.run_string
    failure = lambda outcome: outcome
else:
    import _xxsubinterpreters as interpreters
    create, run = lambda: interpreters.create(isolated=False), interpreters.run_string
    failure = lambda outcome: outcome

CODE = '''
from pyprof import _native
window = _native.Window(50_000)
for i in range(2000):
    window.add([(f"f{i}", "x.py", 1, i)], samples=1)
assert 0 < window.stacks < 2000
assert window.encode([("s", "count", 0)], period_type=("", ""), period=1)
'''
from pyprof import _native
main_type = _native.Window
failures = []

def work():
    for _ in range(3):
        interpreter = create()
        outcome = run(interpreter, CODE)
        if outcome is not None:
            failures.append(outcome)
        interpreters.destroy(interpreter)

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
exec(CODE)
assert _native.Window is main_type
print("done")
"""


def test_every_interpreter_has_its_own_type(run_python: RunPython) -> None:
    result = run_python(SUBINTERPRETERS, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "done\n"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="only free-threaded builds can keep it off"
)
def test_the_gil_stays_off(run_python: RunPython) -> None:
    code = "import sys; from pyprof import _native; _native.Window().add([]); print(sys._is_gil_enabled())"
    assert run_python(code, check=True, env={"PYTHON_GIL": None}).stdout == "False\n"


ENCODE_BESIDE_A_THREAD = """
import sys, threading, time
from pyprof import _native
window = _native.Window(2**28)
for i in range(1000):
    window.add([("f", "x.py", 1, (i * 31 + j) % 4096) for j in range(300)], samples=1)
sys.setswitchinterval(1000)  # a thread gives up the GIL only where it does so by itself
counts = [0]
stop = False
started = threading.Event()

def count():
    while not stop:
        counts[0] += 1
        started.set()
        time.sleep(0)

thread = threading.Thread(target=count)
thread.start()
started.wait()
before, encodings = counts[0], 0
while counts[0] == before and encodings < 10_000:
    window.encode([("s", "count", 0)], period_type=("", ""), period=1)
    encodings += 1
counted = counts[0] - before
stop = True
thread.join()
print(counted)
"""


def test_encoding_lets_other_threads_run(run_python: RunPython) -> None:
    assert int(run_python(ENCODE_BESIDE_A_THREAD, check=True, timeout=120).stdout) > 0


assert sys.maxsize > 2**32, "the sizes above are those of 64-bit machines"
