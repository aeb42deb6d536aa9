"""Ten thousand threads that live for a moment, at 1 kHz: each ends as it would, and leaves nothing behind.

Seen to fail, each with one line changed:
- the files of threads that are gone are not closed: the timer has more than 385 descriptors;
- threads that are gone are kept in the list from tick to tick: they are still there at the end;
- the copies of their stacks are not freed: `own_bytes`.
"""

from typing import Any

import pytest

from .host import PRELUDE

STARTERS = """
starters, each = 4, 2500
done = [[] for _ in range(starters)]  # nothing that two threads may lose

def deep(depth, k, n):
    if depth:
        return deep(depth - 1, k, n)
    sum(range(500))
    done[k].append(n)

def work(k, n):
    local.value = n  # freed with the thread
    deep(n % 40, k, n)

local = threading.local()
"""
# One after the other, in each starter; some live on while others begin.
OF_PYTHON = """
def starts(k):
    waiting = []
    for n in range(each):
        thread = threading.Thread(target=work, args=(k, n))
        thread.start()
        waiting.append(thread)
        if n % 3 == 0:
            for thread in waiting: thread.join()
            waiting.clear()
    for thread in waiting: thread.join()
"""
# Threads that only call back: a thread state is made and deleted for each, which may go on without one.
OF_C = """
pthread = ctypes.CDLL(None)
callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def starts(k):
    @callback
    def run(n):
        work(k, n or 0)
    for n in range(each):
        handle = ctypes.c_ulong()
        assert pthread.pthread_create(ctypes.byref(handle), None, run, ctypes.c_void_p(n)) == 0
        assert pthread.pthread_join(handle, None) == 0
"""
RUN = """
def all_of_them():
    running = [threading.Thread(target=starts, args=(k,)) for k in range(starters)]
    for starter in running: starter.start()
    for starter in running: starter.join()

pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
sampled()
before, tasks = descriptors(), threads()
timer_before = descriptors_of_timer()
was = pyprof.stats()
all_of_them()
now = pyprof.stats()
assert list(map(len, done)) == [each] * starters, list(map(len, done))
assert now.ticks > was.ticks + 10 and now.stacks > was.stacks + 10, (was, now)
until(lambda: threads() == tasks)
assert descriptors() == before, descriptors()
assert len(descriptors_of_timer()) <= 1 + 3 * 128
sampled()
assert pyprof.stats().threads == 1, "the threads that have ended are forgotten"
assert pyprof.stats().own_bytes < 2 << 20, pyprof.stats()
pyprof.stop()
until(lambda: threads() == 1)
"""
TIMER = """
def descriptors_of_timer():
    for tid in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{tid}/comm") as file:
            if file.read() == "pyprof-timer\\n":
                return descriptors(f"self/task/{tid}")
    raise AssertionError("there is no timer")
"""


@pytest.mark.parametrize("starts", [OF_PYTHON, OF_C], ids=["python", "c"])
def test_ten_thousand_short_threads(starts: str, run_python: Any) -> None:
    result = run_python(PRELUDE + TIMER + STARTERS + starts + RUN, check=True, timeout=240)
    assert (result.stdout, result.stderr) == ("", "")
