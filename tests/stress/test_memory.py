"""The memory profile under stress: threads, collections, other allocators, code that dies.

Seen to fail: with deaths of code told to nobody, `test_code_that_dies` sees names of what was there before.
"""

import shlex
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from ..interpreters import KINDS
from ..interpreters import PRELUDE as INTERPRETERS
from .heaps import PRELUDE

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def test_threads_while_it_is_turned_on_and_off(run_python: Any) -> None:
    program = (
        PRELUDE
        + """
profiler = start()
ended = False

def work():
    kept = []
    while not ended:
        kept = [bytearray(size) for size in range(0, 3000, 70)], kept[:1]
        deep(200, lambda: [bytes(size) for size in range(0, 900, 50)])

workers = [threading.Thread(target=work, daemon=True) for _ in range(10)]
for worker in workers: worker.start()
for i in range(50):
    profiler.set_memory("off")
    profiler.set_memory("hook", period=64 << i % 4)
    assert _native.check_memory()
pyprof.stop()
for i in range(5):
    start()
    time.sleep(0.02)
    assert _native.memory_stats()["samples"] > 0
    pyprof.stop()
ended = True
join(workers)
"""
    )
    assert run_python(program, check=True, timeout=120).stderr == ""


def test_collections_inside_allocations(run_python: Any) -> None:
    program = (
        PRELUDE
        + """
class Ends:
    def __init__(self):
        self.itself = self
    def __del__(self):
        time.sleep(0)
        ended.append(len([bytes(size) for size in range(0, 2000, 100)]))

class Revives:
    def __del__(self):
        if len(ended) < 100_000:
            ended.append(Revives())

def work():
    for i in range(400):
        [Ends() for _ in range(3)]
        Revives()
        {i: [i] * 50}, bytes(1000)

ended = []
start(memory_period=16)
gc.set_threshold(1)
workers = [threading.Thread(target=work) for _ in range(3)]
for worker in workers: worker.start()
work()
join(workers)
gc.set_threshold(700)
gc.collect()
assert len(ended) > 4000, len(ended)
assert values("alloc_space")["__del__"] > 0
pyprof.stop()
"""
    )
    assert run_python(program, check=True, timeout=120).stderr == ""


# Free-threaded builds have one allocator, with debug hooks or without.
ALLOCATORS = ["default", "debug"] if FREE_THREADED else ["default", "debug", "malloc", "malloc_debug"]


@pytest.mark.parametrize("name", ALLOCATORS)
def test_other_allocators(name: str, run_python: Any) -> None:
    """Blocks of all sizes and ways, begun before, meanwhile and afterwards. Debug hooks check them."""
    program = (
        PRELUDE
        + """
def work():
    kept = []
    for size in [*range(0, 1100), *range(1100, 70_000, 997), MB]:
        kept.append(bytearray(size))
        kept.append([None] * (size // 8))
        kept.append("é" * size)
        kept.append({i: i for i in range(size % 90)})
        kept[-4].extend(b"x" * 700)
        kept[-3].append(kept[-1])
        if size % 3:
            del kept[size % len(kept)]
    return kept

before = work()
for _ in range(3):
    start()
    meanwhile = work()
    del before
    assert in_use() > 4 * MB, in_use()
    before = work()
    pyprof.stop()
    del meanwhile
del before
"""
    )
    assert run_python(program, check=True, timeout=60, env={"PYTHONMALLOC": name}).stderr == ""


FOREIGN = """
#include <Python.h>
#include <pthread.h>

static void *without_state(void *argument) {
    void **blocks = argument;
    for (int i = 0; i < 64; i++) {
        PyMem_RawFree(PyMem_RawMalloc(100 + i * 50));
        blocks[i] = PyMem_RawRealloc(PyMem_RawMalloc(1), 100000);
    }
    return NULL;
}

static void *with_state(void *argument) {
    for (int i = 0; i < 200; i++) {
        PyGILState_STATE state = PyGILState_Ensure();
        PyObject_Free(PyObject_Malloc(300));
        ((void **)argument)[i % 64] = PyObject_Realloc(((void **)argument)[i % 64], 2000);
        PyGILState_Release(state);
    }
    return NULL;
}

static void run(void *(*function)(void *), void *argument) {
    pthread_t thread;
    pthread_create(&thread, NULL, function, argument);
    pthread_join(thread, NULL);
}

void run_without_state(void **blocks) { run(without_state, blocks); }
void run_with_state(void **blocks) { run(with_state, blocks); }

void free_without_state(void **blocks) {
    for (int i = 0; i < 64; i++) {
        PyMem_RawFree(blocks[i]);
    }
}
"""


@pytest.fixture
def foreign(tmp_path: Path, require: Any, run_process: Any) -> Path:
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    compiler[0] = require.tool(compiler[0], "cc", "gcc", "clang")
    source, library = tmp_path / "foreign.c", tmp_path / "foreign.so"
    source.write_text(FOREIGN)
    headers = [f"-I{sysconfig.get_path(kind)}" for kind in ("include", "platinclude")]
    command = [*compiler, "-shared", "-fPIC", "-O1", "-pthread", *headers, "-o", str(library), str(source)]
    built = run_process(command)
    assert built.returncode == 0, built.stderr
    return library


def test_threads_that_are_not_pythons(foreign: Path, run_python: Any) -> None:
    """Without a thread state as `[native]`; with one of PyGILState_Ensure, and calling Python from there."""
    program = (
        PRELUDE
        + """
library = ctypes.CDLL(sys.argv[1])
start()
blocks = (ctypes.c_void_p * 64)()
before = values("inuse_space").get("[native]", 0)
library.run_without_state(blocks)
native = values("inuse_space")["[native]"] - before
assert abs(native - 64 * 100_000) < 640_000, native
library.free_without_state(blocks)
assert abs(values("inuse_space").get("[native]", 0) - before) < 100_000

others = (ctypes.c_void_p * 64)()
before = _native.memory_stats()["samples"]
library.run_with_state(others)
assert _native.memory_stats()["samples"] > before + 200

def called():
    kept.append(bytes(100_000))
    return 0

kept = []
callback = ctypes.CFUNCTYPE(ctypes.c_int)(called)
THREAD = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
thread_main = THREAD(lambda _: callback())
libc, thread = ctypes.CDLL(None), ctypes.c_ulong()
for _ in range(50):
    libc.pthread_create(ctypes.byref(thread), None, thread_main, None)
    libc.pthread_join(thread, None)
assert abs(values("inuse_space")["called"] - 5_000_000) < 500_000, values("inuse_space")["called"]
pyprof.stop()
"""
    )
    assert run_python(program, str(foreign), check=True, timeout=60).stderr == ""


def test_names_that_are_no_text(run_python: Any) -> None:
    program = (
        PRELUDE
        + r"""
NAMES = ["\udc80", "f" * 100_000, "é\udcff" * 1000, "\0", ""]
start()
kept = []
for name in NAMES:
    file = name.replace("\0", "n") + ".py"
    exec(compile("def f(): kept.append(bytes(2_000_000))", file, "exec"))
    f.__code__ = f.__code__.replace(co_name=name, co_qualname=name)
    f()
profile = read(profiler.heap().pprof())
column = [one.type for one in profile.sample_types].index("inuse_space")
large = [sample for sample in profile.samples if sample.values[column] >= 2_000_000]
assert len(large) == len(NAMES), len(large)
pyprof.stop()
"""
    )
    assert run_python(program, check=True, timeout=60).stderr == ""


def test_code_that_dies(run_python: Any) -> None:
    """Each function allocates blocks of a size of its own: no other's are ever under its name."""
    program = (
        PRELUDE
        + r"""
def churn(seconds):
    global n
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        n += 1
        space = {}
        source = f"def f_{n}(): return bytes({SIZE + n % 50 * 1000})"
        exec(compile(source, f"/made/{n % 7}.py", "exec"), space)
        kept[n % 40] = n, space[f"f_{n}"]()
        if n % 200 == 0:
            window = _native.report_memory(max_bytes=64 * MB, peak=False)
            look()
    _native.rotate(1)

def look():
    found = values("inuse_space")
    for number, block in kept.values():
        measured = found.get(f"f_{number}", 0)
        assert abs(measured - len(block)) < 2500, (number, measured, len(block))

SIZE, n, kept = 20_000, 0, {}
start(upload_interval=1)
churn(1)
sizes, residents = [], []
for _ in range(3):
    churn(1)
    sizes.append(pyprof.stats().own_bytes)
    residents.append(resident())
look()
made = n
pyprof.stop()
assert made > 600, made
assert max(sizes) < 40 * MB, sizes
assert residents[-1] - residents[0] < 8 * MB, residents
"""
    )
    assert run_python(program, check=True, timeout=60).stderr == ""


@KINDS
def test_other_interpreters(kind: str, run_python: Any) -> None:
    program = (
        PRELUDE
        + INTERPRETERS
        + """
CODE = '''
def work(depth):
    return work(depth - 1) if depth else [bytes(size) for size in range(0, 4000, 10)]
for _ in range(5):
    kept = work(50)
'''
def make(times):
    for _ in range(times):
        other = create(sys.argv[1])
        execute(other, CODE)
        destroy(other)
start()
beside = 2 if sys.argv[1] == "isolated" and sys.version_info >= (3, 12) else 0
workers = [threading.Thread(target=make, args=(5,)) for _ in range(beside)]
for worker in workers: worker.start()
make(20)
join(workers)
assert values("alloc_space")["work"] > 5 * MB
pyprof.stop()
make(2)
"""
    )
    assert run_python(program, kind, check=True, timeout=120, options=["-W", "ignore"]).stderr == ""


def test_off_and_on(run_python: Any) -> None:
    """In use begins with zero; samples keep the weight of the period that they were taken with."""
    program = (
        PRELUDE
        + """
def allocate(n, size):
    return [bytes(size) for _ in range(n)]

def measured(true):
    found = values("inuse_space").get("allocate", 0)
    assert abs(found - true) <= true * 0.15 + 3000, (found, true)
    return True

profiler = start(memory_period=1000)
first = allocate(4000, 467)
assert measured(2_000_000)
for period in 8000, 100, 5000:
    profiler.set_memory("hook", period=period)
    more = allocate(8000, 467)
    assert measured(6_000_000)
    more.clear()
    assert measured(2_000_000)
profiler.set_memory("off")
first.clear()
second = allocate(1000, 1000)
try:
    profiler.heap()
    raise AssertionError("nothing is recorded")
except RuntimeError:
    pass
profiler.set_memory("hook", period=500)
assert in_use() < 100_000, in_use()
second.clear()
assert measured(0)
pyprof.stop()

sizes = []
for i in range(100):
    start(memory_period=256)
    assert in_use() < MB, in_use()
    kept = allocate(200, 1000)
    assert measured(200_000)
    pyprof.stop()
    assert _native.memory_stats()["bytes"] == 0
    sizes.append(resident())
assert sizes[-1] - sizes[30] < 4 * MB, sizes
"""
    )
    assert run_python(program, check=True, timeout=120).stderr == ""


def test_what_was_there_before(run_python: Any) -> None:
    """Freed meanwhile, beside new blocks at the same addresses: never less than nothing."""
    program = (
        PRELUDE
        + """
def allocate(n):
    return [bytearray(size % 3000) for size in range(n)]
before = allocate(20_000)
start()
while before:
    del before[-4000:]
    meanwhile = allocate(500)
    assert min(values("inuse_space").values()) >= 0 <= in_use()
    meanwhile = [block + block for block in meanwhile]
meanwhile = None
assert abs(values("inuse_space").get("allocate", 0)) < 30_000, values("inuse_space")
pyprof.stop()
"""
    )
    assert run_python(program, check=True, timeout=60).stderr == ""


@pytest.mark.parametrize("when", ["before", "meanwhile", "afterwards"])
def test_numpy(when: str, run_python: Any, require: Any) -> None:
    """What it reports is counted while it is recorded; it is as it was afterwards, and so is the import."""
    require.module("numpy")
    program = (
        PRELUDE
        + """
import _imp
when, create = sys.argv[1], _imp.create_dynamic

def arrays():
    return [numpy.ones(size) for size in range(1, 3000, 7)] + [numpy.ones(MB // 8)]

def tracked():
    "What the library calls: CPython's function, or ours."
    import tracemalloc
    tracemalloc.start()
    kept = arrays()
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, 389047)]).traces
    tracemalloc.stop()
    return len(found)

if when == "before": import numpy
start()
assert _imp.create_dynamic is not create
if when == "meanwhile": import numpy
if when != "afterwards":
    kept, before = arrays(), in_use()
    large = numpy.ones(MB)
    assert abs(in_use() - before - 8 * MB) < MB, in_use() - before
    del large
    assert abs(in_use() - before) < MB
    assert values("inuse_space")["arrays"] > 4 * MB
pyprof.stop()
assert _imp.create_dynamic is create
import numpy
kept = arrays()
assert tracked() > 400, tracked()
for _ in range(3):
    start()
    kept = arrays()
    pyprof.stop()
assert _imp.create_dynamic is create and tracked() > 400
"""
    )
    assert run_python(program, when, check=True, timeout=60).stderr == ""
