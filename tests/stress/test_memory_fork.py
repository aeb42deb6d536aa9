"""The memory profile and forks: the child has what lived, and none of what was allocated.

A fork in C leaves the interpreter's own locks as they were: there, no other Python thread may run.

Seen to fail: without the hooks for forks, what the parent had allocated is the child's.
"""

from typing import Any

import pytest

from .heaps import PRELUDE

QUIET = ["-W", "ignore::DeprecationWarning"]  # a host with threads of its own is told so at every fork

CHILD = """
def allocate(n):
    return [bytes(1_000_000) for _ in range(n)]

def in_child(check):
    "By os.fork."
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            signal.alarm(30)
            check()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def close(kind, true):
    found = values(kind).get("allocate", 0)
    assert abs(found - true) < 300_000, (kind, found, true)
    return True
"""


def test_what_lives_goes_on(run_python: Any) -> None:
    program = (
        PRELUDE
        + CHILD
        + """
def check():
    assert close("inuse_space", 5_000_000) and close("alloc_space", 0)
    del kept[:2]
    assert close("inuse_space", 3_000_000)
    more = allocate(2)
    assert close("inuse_space", 5_000_000) and close("alloc_space", 2_000_000)
    del more
    in_child(lambda: close("inuse_space", 3_000_000) and close("alloc_space", 0))
    kept.clear()
    assert close("inuse_space", 0) and close("alloc_space", 2_000_000)

start(memory_period=4096)
kept = allocate(5)
for _ in range(3):
    in_child(check)
    assert close("inuse_space", 5_000_000) and close("alloc_space", 5_000_000)
kept.clear()
assert close("inuse_space", 0)
pyprof.stop()
"""
    )
    assert run_python(program, check=True, timeout=90).stderr == ""


def test_siblings_draw_other_samples(run_python: Any) -> None:
    program = (
        PRELUDE
        + CHILD
        + """
def check():
    kept = [bytes(100) for _ in range(20_000)]
    os.write(writable, f"{_native.memory_stats()['live']}:{in_use()}\\n".encode())

readable, writable = os.pipe()
start(memory_period=5000)
for _ in range(6):
    in_child(check)
found = os.read(readable, 10_000).split()
assert len(found) == 6 and len(set(found)) >= 4, found
pyprof.stop()
"""
    )
    assert run_python(program, check=True, timeout=60).stderr == ""


@pytest.mark.parametrize("how", ["os.fork", "libc"])
@pytest.mark.parametrize("times", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_while_others_allocate(how: str, times: int, run_python: Any) -> None:
    """Whatever locks they hold at that moment, the child can allocate, and free what was theirs."""
    program = (
        PRELUDE
        + CHILD
        + """
def work(k):
    kept = {}
    while not ended:
        for size in range(0, 2000, 60):
            kept[size] = bytearray(size + k)
        deep(30, lambda: [bytes(600) for _ in range(10)])

def check():
    kept = [bytearray(size) for size in range(0, 5000, 100)]
    objects.clear()
    del kept
    assert in_use() >= 0 and _native.memory_stats()["samples"] > 0

def fork_in_c():
    pid = fork()
    if pid == 0:
        try:
            signal.alarm(30)
            check()
        except BaseException:
            os._exit(9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

fork = ctypes.PyDLL(None).fork
one = fork_in_c if sys.argv[1] == "libc" else lambda: in_child(check)
ended, objects = False, [bytes(3000) for _ in range(100)]
start()
workers = [threading.Thread(target=work, args=(k,), daemon=True)
           for k in range(0 if sys.argv[1] == "libc" else 4)]
for worker in workers: worker.start()
for _ in range(int(sys.argv[2])):
    one()
ended = True
join(workers)
pyprof.stop()
"""
    )
    result = run_python(program, how, str(times), options=QUIET, check=True, timeout=100 + times // 10)
    assert result.stderr == ""


def test_multiprocessing(run_python: Any) -> None:
    program = (
        PRELUDE
        + CHILD
        + """
import multiprocessing

def job(n):
    more = allocate(n)
    assert values("inuse_space")["allocate"] >= (5 + n - 0.3) * 1_000_000
    kept.clear()
    found = values("inuse_space")["allocate"]
    assert abs(found - n * 1_000_000) < 300_000, found
    kept.extend(allocate(5))
    return n

if __name__ == "__main__":
    start(memory_period=4096)
    kept = allocate(5)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(job, [1, 2, 3, 4] * 3) == [1, 2, 3, 4] * 3
    assert close("inuse_space", 5_000_000)
    pyprof.stop()
"""
    )
    assert run_python(program, options=QUIET, check=True, timeout=60).stderr == ""
