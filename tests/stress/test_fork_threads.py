"""Several threads that fork at once, at 1 kHz: all children come up, are profiled, may fork again, and end.

What the hosts of `test_fork.py` do one after the other; there are the locks and uploads that a fork may cut.

Seen to fail, each with one line changed:
- `reset_child` not registered (`pthread_atfork`): children hang;
- `_after_fork_in_child` makes no new `_lock`: children hang;
- the profiler not started in the child: no sample comes.
"""

from typing import Any

import pytest

from .host import PRELUDE

QUIET = ["-W", "ignore::DeprecationWarning"]  # a host with threads of its own is told so at every fork
STORM = """
each, forkers = int(sys.argv[1]), 4
signal.alarm(int(100 + each))

def check_child():
    "A child has one thread and pyprof's, no descriptor of its parent's profiler, and is sampled."
    signal.alarm(60)
    sampled(ticks=2)
    assert descriptors() == expected, (descriptors(), expected)
    names = []
    for tid in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{tid}/comm") as file:
            names.append(file.read().strip())
    assert names.count("pyprof-timer") == 1 and len(names) == 2, names

def child(n, generation, of_main):
    try:
        check_child()
        if generation and n % 3 == 0:
            fork(n + 1, generation - 1, of_main)  # beside its own profiler; n + 1: another way to end
    except Exception:
        sys.excepthook(*sys.exc_info())
        os._exit(9)
    if n % 3 == 0:
        os._exit(5)
    sys.exit(6)

def fork(n, generation, of_main):
    pid = os.fork()
    if pid == 0:
        child(n, generation, of_main)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # The only thread of a child is the one that forked: where that was not the main thread, sys.exit ends a
    # thread, and with the last one the process.
    assert code == (5 if n % 3 == 0 else 6 if of_main else 0), (n, of_main, code)
    return code

def forking(k):
    while not begin.is_set(): time.sleep(0)
    for n in range(each):
        codes[fork(n, 1, k < 0)] += 1
    ended.append(k)

codes, ended, begin = [0] * 256, [], threading.Event()
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
sampled()
expected = descriptors()
running = [threading.Thread(target=forking, args=(k,)) for k in range(forkers - 1)]
for thread in running: thread.start()
begin.set()
if sys.argv[2] == "main too": forking(-1)
before = pyprof.stats()
for thread in running: thread.join()
assert len(ended) == forkers - (sys.argv[2] != "main too"), ended
sampled()
assert descriptors() == expected, (descriptors(), expected)
pyprof.stop()
until(lambda: threads() == 1)
print({code: n for code, n in enumerate(codes) if n})
"""


@pytest.mark.parametrize("each", [12, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("who", ["main too", "others"])
def test_threads_that_fork_at_once(who: str, each: int, run_python: Any) -> None:
    result = run_python(PRELUDE + STORM, str(each), who, options=QUIET, check=True, timeout=120 + 2 * each)
    assert result.stderr == ""
