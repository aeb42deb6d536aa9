"""What the sampler says about running programs is true: stacks, names, weights; and it leaves no trace in them."""

import http.server
import json
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pyprof import _native

pytestmark = pytest.mark.skipif(not _native.SUPPORTED, reason="sampling is for Linux")

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

Run = Callable[..., Any]

# Every program below begins with this. Its answer is its last line, as JSON.
PRELUDE = """
import ctypes, gc, json, sys, _thread, threading, time
from types import CodeType
from pyprof import _native
from pyprof.pprof import read

COLUMNS = dict(samples=_native.SAMPLES, cpu=_native.CPU_NS, wall=_native.WALL_NS)
PATIENCE = 60

def start(**options):
    _native.start(**dict(period_ns=1_000_000, window_ns=10**15, max_frames=1000, ring_windows=9,
                         window_bytes=8 << 20, raw_walk=True) | options)

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


PARKED = """
import functools

gates, here, is_over = [], threading.Semaphore(0), False
raw_walk, deep, max_frames = json.loads(sys.argv[1])

def park():
    if is_over:
        return
    gate = _thread.allocate_lock()
    gate.acquire()
    gates.append(gate)
    here.release()
    gate.acquire()

def nested():
    def inner():
        def innermost(): park()
        innermost()
    return (
        inner()
    )

def generator():
    yield 1
    for _ in range(2):
        park()
        yield 2

def delegating():
    yield from generator()

def generators():
    list(delegating())

def in_generator_expression():
    return sum(
        park() or x
        for x in range(1)
    )

async def coroutine():
    await inner_coroutine()

async def inner_coroutine():
    park()

def drive(coroutine):
    try:
        coroutine.send(None)
    except StopIteration:
        pass

async def asynchronous_generator():
    yield 1
    park()
    yield 2

async def iterates():
    async for value in asynchronous_generator():
        async with Manager():
            pass

class Manager:
    async def __aenter__(self): pass
    async def __aexit__(self, *error): park()

def comprehensions():
    return {k: [
        park() for _ in range(1)
    ] for k in range(1)}

def class_body():
    class Body:
        x = 1
        park()

def executed():
    exec(compile("a = 1\\n\\n\\npark()\\n", "/no/such/file.py", "exec"), {"park": park})

def evaluated():
    eval("[(lambda: park())(), 1]", {"park": park})

decorated_lambda = lambda: (
    None,
    park())

def decorator(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@decorator
@functools.lru_cache
def decorated():
    park()

def called_by_sorted():
    sorted([1], key=lambda x: park())

def called_by_c():
    list(map(functools.partial(functools.reduce, lambda a, b: park()), [[1, 2]]))

class Descriptor:
    @property
    def value(self): park()
    def __getattr__(self, name): return self.value
    def __del__(self): getattr(self, "other")

def special_methods():
    Descriptor()

def recursion(n=0):
    if n:
        recursion(n - 1)
    else:
        park()

def handling():
    try:
        1 / 0
    except ZeroDivisionError:
        try:
            pass
        finally:
            park()

def thread_in_c():
    callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: recursion(3) or 0)
    callbacks.append(callback)
    thread = ctypes.c_ulong()
    libc = ctypes.CDLL(None)
    assert libc.pthread_create(ctypes.byref(thread), None, callback, None) == 0
    joins.append(lambda: libc.pthread_join(thread, None))

callbacks, joins = [], []
functions = [
    nested, generators, in_generator_expression, lambda: drive(coroutine()), lambda: drive(iterates()),
    comprehensions, class_body, executed, evaluated, decorated_lambda, decorated, called_by_sorted, called_by_c,
    special_methods, handling, lambda: recursion(deep),
]
sys.setrecursionlimit(deep * 2 + 1000)
threads = [threading.Thread(target=function) for function in functions]
for thread in threads:
    thread.start()
_thread.start_new_thread(recursion, (1,))
thread_in_c()
for _ in range(len(functions) + 2):
    assert here.acquire(timeout=PATIENCE)
time.sleep(0.05)  # until the last has fallen asleep; if not, it is in the same stack all the same

start(raw_walk=raw_walk, max_frames=max_frames)
while _native.stats()["ticks"] < 50:
    time.sleep(0.01)
obstacle = _native.stats()["walk_obstacle"]
seen, counters = stop()

def stack(frame):
    while frame is not None:
        yield frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back

true = [list(stack(frame)) for ident, frame in sys._current_frames().items() if ident != _thread.get_ident()]
is_over = True
for gate in gates:
    gate.release()
for thread in threads:
    thread.join()
for join in joins:
    join()
answer(seen=[frames for frames, _ in seen if not any(name == "<module>" and file == "<string>"
                                                     for name, file, _ in frames[-1:])],
       samples=sorted({values["samples"] for frames, values in seen if frames[0][0] == "park"}),
       ticks=counters["ticks"] + counters["missed"], true=true, obstacle=obstacle)
"""


@pytest.mark.parametrize("raw_walk", [True, False], ids=["raw", "public"])
@pytest.mark.parametrize("max_frames", [1000, 7])
def test_stacks_are_what_cpython_says(engine: Run, raw_walk: bool, max_frames: int) -> None:
    found = engine(PARKED, json.dumps([raw_walk, 1500, max_frames]))
    assert found["obstacle"] == (None if raw_walk else "turned off")
    true = found["true"]
    assert len(true) == 18
    assert max(map(len, true)) > 1500
    cut = [s if len(s) <= max_frames else [*s[:max_frames], ["[truncated]", "", 0]] for s in true]
    assert sorted(found["seen"]) == sorted(cut)
    # Every tick saw every thread where it was.
    assert len(found["samples"]) == 1
    assert found["ticks"] - 10 <= found["samples"][0] <= found["ticks"]


@pytest.mark.parametrize("raw_walk", [True, False], ids=["raw", "public"])
def test_nothing_is_kept_of_what_is_walked(engine: Run, raw_walk: bool) -> None:
    depth = 500
    found = engine(
        """
raw_walk, depth = json.loads(sys.argv[1])
done, there = _thread.allocate_lock(), threading.Event()
done.acquire()

def descend(n):
    if n:
        return descend(n - 1)
    there.set()
    return wakes_often()

def wakes_often():
    while not done.acquire(timeout=0.0002):  # its clock goes on, so that it is walked again and again
        pass

def walk(times):
    start(raw_walk=raw_walk, period_ns=200_000)
    end, deadline = _native.stats()["stacks"] + times, time.monotonic() + PATIENCE
    while _native.stats()["stacks"] < end and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _native.stats()["stacks"] >= end
    _native.stop()
    _native.take()

sys.setrecursionlimit(depth + 1000)
walk(10)
thread = threading.Thread(target=descend, args=(depth,))
thread.start()
assert there.wait(PATIENCE)
gc.collect()
gc.disable()
blocks = sys.getallocatedblocks()
walk(2000)
blocks = sys.getallocatedblocks() - blocks

frame = sys._current_frames()[thread.ident]
while frame.f_code is not descend.__code__:
    frame = frame.f_back
frames = [frame]
while frame.f_back is not None:
    frame = frame.f_back
    frames.append(frame)
objects = [*frames, *{frame.f_code for frame in frames}, wakes_often.__code__]
before = [sys.getrefcount(object) for object in objects]
walk(2000)
after = [sys.getrefcount(object) for object in objects]
done.release()
thread.join()
answer(blocks=blocks, before=before, after=after)
""",
        json.dumps([raw_walk, depth]),
    )
    assert found["before"] == found["after"]
    assert len(found["before"]) > depth
    if raw_walk:
        assert found["blocks"] < depth / 5
    else:  # CPython keeps the frame objects that the public API makes as long as the frames: the check sees them
        assert found["blocks"] > depth


def test_code_that_dies_before_the_export_keeps_its_name(engine: Run) -> None:
    found = engine("""
start()
for n in range(200):
    namespace = {"work_until_walked": work_until_walked}
    exec(compile("\\n" * n + f"def f{n}():\\n    work_until_walked(3)\\n", f"/gone/{n}.py", "exec"), namespace)
    namespace[f"f{n}"]()
    del namespace
gc.collect()
seen, _ = stop()
answer(frames=sorted({frame for frames, _ in seen for frame in frames if frame[1].startswith("/gone/")}))
""")
    functions = [frame for frame in found["frames"] if frame[0] != "<module>"]
    assert sorted(functions) == sorted([f"f{n}", f"/gone/{n}.py", n + 2] for n in range(200))


# `calls` lives on, and the line it is at tells which function it runs: a stale name would contradict it.
CHURN = """
slots_taken, rounds = json.loads(sys.argv[1])

def type_slot():
    "PyCode_Type.tp_dealloc: after the header, ob_size, tp_name, tp_basicsize and tp_itemsize."
    return ctypes.c_void_p.from_address(id(CodeType) + object.__basicsize__ + 4 * 8).value

def take_slots():
    slots = []
    # abs() is a callback that does no harm: it answers the event's number, and only -1 would be an error.
    callback = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p)
    while sys.version_info >= (3, 12):
        try:
            slots.append(ctypes.pythonapi.PyCode_AddWatcher(callback))
        except RuntimeError:
            break
    return slots

def free_slots(slots):
    for slot in slots:
        assert ctypes.pythonapi.PyCode_ClearWatcher(slot) == 0

def count_slots():
    slots = take_slots()
    free_slots(slots)
    return len(slots)

def call(k):
    global number
    name, number = f"f{number}", number + 1
    namespace = {"clock": time.perf_counter}
    exec(compile(f"def {name}():\\n end = clock() + 0.0002\\n while clock() < end: pass", name + ".py", "exec"),
         namespace)
    namespace[name]()

number = 0
lines = "".join(f"    call({k})\\n" for k in range(1000))
exec(compile("def calls():\\n" + lines, "calls.py", "exec"))
slots = take_slots() if slots_taken else []
states = [[type_slot(), count_slots()]]
start()
states.append([type_slot(), count_slots()])
for _ in range(rounds):
    calls()
seen, counters = stop()
states.append([type_slot(), count_slots()])
free_slots(slots)
pairs = []
for frames, _ in seen:
    lines = [line for name, _, line in frames if name == "calls"]
    pairs += [(name, file, lines[0] - 2) for name, file, _ in frames if name[0] == "f" and name[1:].isdigit()]
answer(pairs=pairs, states=states, taken=len(slots), last=count_slots())
"""


@pytest.mark.parametrize("slots_taken", [False, True], ids=["watcher", "wrapped"])
def test_an_address_that_is_used_again_has_its_new_name(engine: Run, slots_taken: bool) -> None:
    has_watchers = sys.version_info >= (3, 12)
    if slots_taken and not has_watchers:
        pytest.skip("no wheels: this Python has no code watchers, the other case is this one")
    found = engine(CHURN, json.dumps([slots_taken, 10]))
    pairs = found["pairs"]
    assert len(pairs) > 300
    for name, file, k in pairs:
        assert file == name + ".py"
        assert int(name[1:]) % 1000 == k
    (dealloc, free), (dealloc_meanwhile, free_meanwhile), after = found["states"]
    assert after == [dealloc, free]
    assert found["last"] == free + found["taken"] == (8 if has_watchers else 0)
    assert free == (8 if has_watchers and not slots_taken else 0)
    wraps = slots_taken or not has_watchers
    assert (dealloc_meanwhile != dealloc) == wraps
    assert free_meanwhile == (free if wraps else free - 1)


def test_names_that_are_not_ascii(engine: Run) -> None:
    found = engine("""
def f():
    work_until_walked(3)

names = ["имя", "名前", "𝒻𓀀", "\\xff", "\\ud800x", "a\\udcff\\udc80", "", "nul\\0nul", "é" * 5000]
start()
for name in names:
    exec(f.__code__.replace(co_name="x", co_qualname=name, co_filename=f"/πath/{name}.py"))
bare = f.__code__.replace(co_qualname="no lines", co_linetable=b"")
exec(bare)
seen, _ = stop()
answer(seen=sorted({frames[1][:2] for frames, _ in seen if frames[0][0] == "work_until_walked"}), names=names,
       lines=[frames[1][2] for frames, _ in seen if frames[1:] and frames[1][0] == "no lines"])
""")

    def shown(name: str) -> str:
        return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in name)

    seen = [pair for pair in found["seen"] if pair[0] != "no lines"]
    assert sorted(seen) == sorted([shown(name), f"/πath/{shown(name)}.py"] for name in found["names"])
    assert set(found["lines"]) == {0}


def test_a_call_that_holds_the_gil_has_its_weight(engine: Run) -> None:
    """Two kinds of C calls in which no safe point comes: one that uses the CPU, one that sleeps."""
    found = engine("""
holding_gil, slept = ctypes.PyDLL(None), []

def uses_cpu(n):
    sum(range(n))

def sleeps():
    begin = time.perf_counter()
    holding_gil.usleep(100_000)
    slept.append((time.perf_counter() - begin) * 1e9)

n = 1_000_000
while True:
    begin = time.thread_time()
    uses_cpu(n)
    if time.thread_time() - begin > 0.1:
        break
    n *= 2
clocks = time.thread_time, time.perf_counter
start()
begin = [clock() for clock in clocks]
for _ in range(5):
    uses_cpu(n)
    sleeps()
end = [clock() for clock in clocks]
seen, counters = stop()
cpu, wall = ((b - a) * 1e9 for a, b in zip(begin, end))
answer(cpu=cpu, wall=wall, counters=counters, ticks=_native.stats()["ticks"], missed=_native.stats()["missed"],
       total={kind: sum(values[kind] for _, values in seen) for kind in COLUMNS},
       on_cpu=sum(values["cpu"] for frames, values in seen if any(f[0] == "uses_cpu" for f in frames)),
       asleep=sum(values["wall"] for frames, values in seen if any(f[0] == "sleeps" for f in frames)),
       slept=sum(slept))
""")
    assert found["missed"] > 500
    assert found["counters"]["missed"] == found["missed"]
    total = found["total"]
    assert total["cpu"] == pytest.approx(found["cpu"], rel=0.02)
    assert total["wall"] == pytest.approx(found["wall"], rel=0.02)
    assert 0.85 * found["ticks"] <= total["samples"] <= found["ticks"]
    assert found["on_cpu"] > 0.9 * found["cpu"]
    assert found["asleep"] == pytest.approx(found["slept"], rel=0.1)


def test_idle_threads_cost_no_walks(engine: Run, require: Any) -> None:
    found = engine("""
gate = _thread.allocate_lock()
gate.acquire()

def idle():
    with gate:
        pass

threads = [threading.Thread(target=idle) for _ in range(50)]
for thread in threads:
    thread.start()
for _ in range(5):  # the proof that clocks are fine-grained may fail on a machine that has much to do
    start()
    if _native.stats()["trusted_clocks"]:
        break
    _native.stop()
    _native.take()
work_until_walked(60)  # each at least once
first = _native.stats()
deadline = time.monotonic() + PATIENCE
while _native.stats()["ticks"] < first["ticks"] + 500:
    assert time.monotonic() < deadline
last = _native.stats()
seen, _ = stop()
gate.release()
for thread in threads:
    thread.join()
answer(trusted=last["trusted_clocks"], walks=last["stacks"] - first["stacks"], ticks=last["ticks"] - first["ticks"],
       threads=last["threads"],
       idle=sum(v["wall"] for f, v in seen if any(name == "idle" for name, _, _ in f)),
       busy=sum(v["wall"] for f, v in seen if not any(name == "idle" for name, _, _ in f)))
""")
    require.that(found["trusted"], "thread clocks are coarse here")
    assert found["threads"] == 51
    assert 1 <= found["walks"] < 3 * found["ticks"]
    assert found["idle"] == pytest.approx(50 * found["busy"], rel=0.01)


@contextmanager
def sink() -> Iterator[str]:
    """A server that takes everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(not FREE_THREADED, reason="of free-threaded builds only")
def test_the_gil_stays_off(run_python: Run) -> None:
    program = """
import sys, pyprof
answers = [sys._is_gil_enabled()]
pyprof.start(server_url=sys.argv[1], sample_rate=1000)
answers.append(sys._is_gil_enabled())
sum(range(3_000_000))
assert pyprof.flush(30)
assert pyprof.stats().uploads > 0
answers.append(sys._is_gil_enabled())
pyprof.stop()
print(answers)
"""
    with sink() as url:
        result = run_python(program, url, options=["-W", "error"], env={"PYTHON_GIL": None}, check=True)
    assert result.stdout.strip() == "[False, False, False]"
    assert result.stderr == ""
