"""Forks of a process with threads: every child comes up, is profiled under its own pid, and nothing hangs.

Seen to fail, each with one line changed:
- `_after_fork_in_child` makes no new `_lock`: `test_children_of_a_thread` hangs (the lock was held);
- `reset_child` not registered (`pthread_atfork`): children find "the timer thread is already running" and
  deliver nothing in `test_a_storm_of_forks`;
- `Wire.after_fork_child` keeps its lock and connection: children of `test_a_storm_of_forks` upload over the
  parent's connection or wait for its lock for ever;
- `Forks._before` without `imports.hold`: the children of `test_a_fork_while_uploads_import` hang in `import`;
- `_is_gone` true for the exporter's thread only: the child hangs in `[by the host]` of the same test;
- `pyprof_unlock_in_child` empty: `test_a_fork_while_a_thread_gets_the_lock_of_all_modules` hangs;
- `join_fork_of_logging` not called: CPython complains in `test_a_fork_while_logging_is_imported`;
- `end_with_multiprocessing` not called: no profile of a `multiprocessing.Process` arrives.
"""

import multiprocessing
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from pyprof import pprof

QUIET = ["-W", "ignore::DeprecationWarning"]  # these hosts have threads of their own, and are told so
CHILD = """
import os, signal, sys, threading, time
import pyprof

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))

def child_work():
    "Until it was seen, for the CPU it gets may lie between two ticks if others want that too."
    stacks, end = pyprof.stats().stacks + 2, time.monotonic() + 20  # one may have been under way
    burn(0.03)
    while pyprof.is_running() and pyprof.stats().stacks < stacks and time.monotonic() < end:
        burn(0.01)

def fork(work=child_work, at_end=pyprof.stop):
    "The child works, stops pyprof and leaves; an alarm kills it if it hangs."
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        code = 9
        try:
            work()
            at_end()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return pid

def reap(pids):
    for pid in pids:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            print("child", pid, "ended with", code, flush=True)
            os._exit(1)
        print(pid, flush=True)

def spin():
    while True:
        sum(range(1000))
        time.sleep(0)
"""
STORM = (
    CHILD
    + """
forks, url, output = int(sys.argv[1]), sys.argv[2], sys.argv[3]
options = dict(output=output) if output else {}
for _ in range(4):
    threading.Thread(target=spin, daemon=True).start()
# Beside a server that hangs a child's second window would wait for the first: it has but one.
pyprof.start("storm", server_url=url, upload_interval=1 if output else 0.1, exit_timeout=1 if output else 30,
             sample_rate=1000, max_overhead=1, **options)
while pyprof.stats().windows < (1 if output else 3) or output and not pyprof.stats().files_written:
    burn(0.02)
print("parent", os.getpid(), flush=True)
running = []
for n in range(forks):
    running.append(fork())
    if len(running) == 8:
        reap(running)
        running = []
    burn(0.003)
reap(running)
before = pyprof.stats()
assert before.running and before.upload_failures == 0 or output, before
burn(0.05)
after = pyprof.stats()
assert after.ticks > before.ticks and after.stacks > before.stacks, "the parent is not sampled any more"
os._exit(0)
"""
)


def children_of(stdout: str) -> tuple[int, set[int]]:
    words = stdout.split()
    assert words[0] == "parent", stdout
    return int(words[1]), {int(word) for word in words[2:]}


def functions(profile: pprof.Profile) -> set[str]:
    return {n for sample in profile.samples for location in sample.locations for n in location.names()}


@pytest.mark.parametrize("forks", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_a_storm_of_forks(forks: int, run_python: Any, sink: Any) -> None:
    here = sink()
    result = run_python(STORM, str(forks), here.url, "", options=QUIET, timeout=60 + forks, check=True)
    parent, children = children_of(result.stdout)
    assert len(children) == forks
    worked = set()
    for series in here.series():
        assert len(series.pids) == 1, series
        (pid,) = series.pids
        assert series.labels["role"] == ("main" if pid == parent else "child")
        if pid != parent and "child_work" in functions(series.profile):
            worked.add(pid)
    assert worked == children


@pytest.mark.parametrize("forks", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_a_storm_beside_a_server_that_never_answers(
    forks: int, run_python: Any, sink: Any, tmp_path: Path
) -> None:
    """The files are there all the same: a target that hangs does not keep the others from their profiles."""
    here = sink("hangs")
    result = run_python(
        STORM, str(forks), here.url, str(tmp_path / "out"), options=QUIET, timeout=60 + forks, check=True
    )
    _, children = children_of(result.stdout)
    worked = {
        int(file.name.split("-")[1])
        for file in (tmp_path / "out").iterdir()
        if "child_work" in functions(pprof.read(file))
    }
    assert worked >= children
    assert here.bodies, "no upload was under way"


def test_children_of_a_thread(run_python: Any, sink: Any) -> None:
    """Forked by threads while another thread starts, stops and flushes, so that locks are held."""
    program = (
        CHILD
        + """
def restless():
    while True:
        pyprof.start("restless", server_url=sys.argv[1], sample_rate=1000, max_overhead=1)
        pyprof.flush(0.01)
        pyprof.stop(flush=False)

threading.Thread(target=restless, daemon=True).start()
def forking():
    for _ in range(10):
        reap([fork(at_end=lambda: pyprof.stop(flush=False))])
forkers = [threading.Thread(target=forking) for _ in range(2)]
for thread in forkers: thread.start()
for thread in forkers: thread.join()
os._exit(0)
"""
    )
    result = run_python(program, sink().url, options=QUIET, timeout=120, check=True)
    assert len(result.stdout.split()) == 20


def test_children_of_children(run_python: Any, sink: Any) -> None:
    program = (
        CHILD
        + """
pyprof.start("family", server_url=sys.argv[1], exit_timeout=30)
def generation(n):
    child_work()
    if n:
        reap([fork(lambda: generation(n - 1))])
reap([fork(lambda: generation(3))])
os._exit(0)
"""
    )
    here = sink()
    result = run_python(program, here.url, options=QUIET, timeout=120, check=True)
    descendants = {int(word) for word in result.stdout.split()}
    assert len(descendants) == 4
    assert {pid for series in here.series() for pid in series.pids} >= descendants


@pytest.mark.parametrize(
    ("importer", "seconds"),
    [("exporter", 0.02), ("exporter", 1), ("host", 1)],
    ids=["short", "longer than a fork waits", "by the host"],
)
def test_a_fork_while_uploads_import(importer: str, seconds: float, run_python: Any, sink: Any) -> None:
    """A module that another thread is in the middle of importing can be imported in the child."""
    program = (
        CHILD
        + """
importing = threading.Event()
class Slow:
    "Lets the fork begin while a thread is inside the import of `requests`."
    def find_spec(self, name, path=None, target=None):
        if name == "requests.adapters":
            importing.set()
            time.sleep(float(sys.argv[2]))

def imports():
    assert pyprof.flush(30)
    import requests.adapters
    assert requests.adapters.HTTPAdapter

sys.meta_path.insert(0, Slow())
if sys.argv[3] == "host":
    threading.Thread(target=__import__, args=["requests.adapters"]).start()
    assert importing.wait(30)
pyprof.start(server_url=sys.argv[1], upload_interval=0.1)
assert importing.wait(30)
reap([fork(imports)])
assert pyprof.flush(30)
"""
    )
    here = sink()
    result = run_python(program, here.url, str(seconds), importer, options=QUIET, timeout=90, check=True)
    assert len(result.stdout.split()) == 1
    assert result.stderr == ""
    assert here.bodies, "the parent's uploads go on"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="of free-threaded builds only")
def test_a_fork_while_a_thread_gets_the_lock_of_all_modules(run_python: Any, tmp_path: Path) -> None:
    """Some of a thousand children beside a thread that imports; here each, in the state that those had."""
    program = (
        CHILD
        + """
import ctypes
lock = id(sys.modules) + 10  # PyObject.ob_mutex
assert ctypes.c_uint8.from_address(lock).value == 0
os.register_at_fork(after_in_child=lambda: ctypes.memset(lock, 1, 1))
pyprof.start(output=sys.argv[1])

def imports():
    import this_one_is_new

sys.path.insert(0, sys.argv[2])
reap([fork(imports)])
os._exit(0)
"""
    )
    (tmp_path / "this_one_is_new.py").touch()
    run_python(program, str(tmp_path / "out"), str(tmp_path), options=QUIET, timeout=90, check=True)


def test_a_fork_while_logging_is_imported(run_python: Any, sink: Any) -> None:
    """It registers hooks for forks: one that runs afterwards only complains of a lock that nobody holds."""
    program = """
import os, signal, sys, time
import pyprof
importing = []
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "logging":
            importing.append(name)
            time.sleep(0.02)  # the fork has begun, and waits for the import

sys.meta_path.insert(0, Slow())
assert "logging" not in sys.modules
pyprof.start(server_url=sys.argv[1], upload_interval=0.1, exit_timeout=30)
end = time.monotonic() + 30
while not importing:
    assert time.monotonic() < end
    time.sleep(0.001)
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        import logging
        logging.getLogger("child").debug("nobody holds the lock of the handlers")
        free = logging._lock.acquire(timeout=20)
        logging._lock.release()  # the last upload logs, too
        os._exit(0 if free else 1)
    assert os.waitpid(pid, 0)[1] == 0
import logging
pyprof.stop()
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert run_python(program, sink().url, options=QUIET, timeout=90, check=True).stderr == ""


@pytest.mark.parametrize("exporter", ["none", "pyroscope"])
def test_children_of_a_thread_that_end_at_once(exporter: str, run_python: Any, sink: Any) -> None:
    """The only Python thread of such a child ends while ours begin: a thread state made after that is fatal
    (3.11, 3.12), where the starting one does not wait for ours.
    """
    program = """
import os, sys, threading
import pyprof
pyprof.start(exporter=sys.argv[1], server_url=sys.argv[2])
statuses = []
def work():
    pid = os.fork()
    if pid:
        statuses.append(os.waitpid(pid, 0)[1])
for _ in range(25):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
assert statuses == [0] * 25, statuses
pyprof.stop(flush=False)
"""
    assert run_python(program, exporter, sink().url, options=QUIET, timeout=90, check=True).stderr == ""


def test_a_profile_block_across_a_fork(run_python: Any) -> None:
    """The block is the parent's; the child leaves it without harm, and its counters begin anew."""
    program = (
        CHILD
        + """
for continuous in (False, True):
    if continuous:
        pyprof.start(exporter="none", sample_rate=500)
    with pyprof.profile() as p:
        burn(0.2)
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            assert pyprof.stats().windows == 0 and pyprof.stats().uploads == 0
            burn(0.03)
    text = p.top()
    if pid == 0:
        with pyprof.profile() as own:
            child_work()
        pyprof.stop()
        os._exit(0 if "burn" in own.top() and len(os.listdir("/proc/self/task")) == 1 else 3)
    assert os.waitpid(pid, 0)[1] == 0
    assert "burn" in text, text
"""
    )
    run_python(program, options=QUIET, check=True)


@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "forkserver"])
def test_multiprocessing(method: str, run_python: Any, sink: Any, tmp_path: Path) -> None:
    """Its children leave by os._exit, before `atexit`; what they did arrives nevertheless."""
    script = tmp_path / "app.py"
    script.write_text(
        CHILD
        + """
import multiprocessing

def work(n=0):
    child_work()
    return os.getpid()

if __name__ == "__main__":
    method, url = sys.argv[1:]
    pyprof.start(server_url=url, exit_timeout=30)
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes: process.start()
    for process in processes: process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with context.Pool(2) as pool:
        workers = set(pool.map(work, range(6)))
        pool.close()
        pool.join()
    print(*(process.pid for process in processes))
    print(*workers)
"""
    )
    here = sink()
    result = run_python(script, method, here.url, options=QUIET, timeout=90, check=True)
    assert result.stderr == ""
    expected = {int(word) for word in result.stdout.split()}
    worked = {
        pid
        for series in here.series()
        for pid in series.pids
        if any(name.endswith("child_work") for name in functions(series.profile))
    }
    assert worked >= expected if method == "fork" else worked.isdisjoint(expected)


def test_preexec_functions(run_python: Any) -> None:
    """subprocess with `preexec_fn` runs the fork hooks, then replaces the child."""
    program = """
import os, subprocess, sys, threading, pyprof
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
for _ in range(10):
    done = subprocess.run(["true"], preexec_fn=os.setsid, timeout=30)
    assert done.returncode == 0
assert pyprof.is_running()
"""
    assert run_python(program, options=QUIET, timeout=120, check=True).stderr == ""
