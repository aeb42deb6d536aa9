"""The interpreter ends as it would without pyprof: same exit code, no hang, no word on stderr.

Each process below forks a number of children that start profiling and come to their end in one way, while
the timer wants the GIL as often as it can. An alarm kills those that hang.

Seen to fail, each with one line changed:
- `pyprof_timer_stop` joins the timer without releasing the GIL: all hang but `os_exit`, `killed` (under
  `current_frames`; `gilfree` seldom wants the GIL);
- `_at_exit` called by the death of a module's global instead of `atexit`: `main_returns` hangs, since the
  timer has been ended or frozen by then and is waited for;
- the exit flush waits for the server without `exit_timeout`: `upload_in_flight` is killed by the alarm;
- no look at `pyprof_is_finalizing` in the pending call's loop: `starts_again_at_exit` hangs on 3.13.
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .host import AUTOSTART, PRELUDE

PROGRAM = """
import atexit, gc, os, signal, sys, threading, time, pyprof

ending, exits, url = sys.argv[1], int(sys.argv[2]), sys.argv[3]
options = dict(server_url=url) if url else dict(exporter="none")
children = []
while len(children) < exits:
    pid = os.fork()
    if pid == 0:
        break
    children.append(pid)
    if len(children) % 4 == 0:
        for pid in children[-4:]:
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    for pid in children[exits // 4 * 4:]:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)

signal.alarm(30)  # kills the child, whatever state it is in
seen = []

def burn(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(50))

class Dying:
    "Its code runs after the atexit handlers, when modules are torn down."
    def __init__(self, seconds=0.003):
        self.burn, self.seconds = burn, seconds
    def __del__(self, clock=time.perf_counter):
        end = clock() + self.seconds
        while clock() < end:
            pass

def before():
    if ending == "starts_again_at_exit":
        pyprof.start(sample_rate=10_000, max_overhead=1, **options)
    burn(0.003)

def spin():
    while True:
        sum(range(50))

atexit.register(before)
bound = float(os.environ.get("BOUND", 1))
pyprof.start(sample_rate=10_000, max_overhead=1, exit_timeout=bound, timeout=20, **options)
atexit.register(burn, 0.003)
dying = Dying()
dying.itself = dying  # freed by the garbage collection at the end
burn(0.004)
if ending == "main_returns":
    pass
elif ending == "exit_code":
    sys.exit(3)
elif ending == "exception":
    sys.stderr = None
    raise ValueError("an error of the application")
elif ending == "os_exit":
    os._exit(5)
elif ending == "killed":
    os.kill(os.getpid(), signal.SIGTERM)
    burn(10)
elif ending == "daemon_threads":
    for _ in range(4):
        threading.Thread(target=spin, daemon=True).start()
    burn(0.004)
    sys.exit(4)
elif ending == "exit_in_threads":
    for _ in range(4):
        threading.Thread(target=lambda: (burn(0.002), sys.exit(9))).start()
elif ending == "threads_that_outlive_main":
    for n in range(4):
        threading.Thread(target=burn, args=(0.002 * n,)).start()
elif ending == "in_a_profile":
    block = pyprof.profile(sample_rate=10_000, max_overhead=1)
    block.__enter__()
    burn(0.003)
elif ending == "upload_in_flight":
    threading.Thread(target=pyprof.flush, daemon=True).start()
    burn(0.02)
elif ending == "flush_in_a_daemon":
    threading.Thread(target=pyprof.flush, args=(25,), daemon=True).start()
    burn(0.02)
elif ending == "starts_again_at_exit":
    pass
elif ending == "generator_left_open":
    def generator():
        try:
            yield
        finally:
            burn(0.003)
    left = generator()
    next(left)
else:
    os._exit(99)
"""
ENDINGS = {
    "main_returns": 0,
    "exit_code": 3,
    "exception": 1,
    "os_exit": 5,
    "killed": -signal.SIGTERM,
    "daemon_threads": 4,
    "exit_in_threads": 0,
    "threads_that_outlive_main": 0,
    "in_a_profile": 0,
    "starts_again_at_exit": 0,
    "generator_left_open": 0,
}


def exits(run_python: Any, ending: str, count: int, url: str = "", bound: float = 1) -> tuple[list[int], str]:
    env = {"BOUND": str(bound)}
    result = run_python(PROGRAM, ending, str(count), url, timeout=60 + count, env=env, check=True)
    return [int(code) for code in result.stdout.split()], result.stderr


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_exit_is_unchanged(ending: str, run_python: Any) -> None:
    codes, stderr = exits(run_python, ending, 12)
    assert codes == [ENDINGS[ending]] * 12
    assert stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_hundred_exits(ending: str, run_python: Any) -> None:
    codes, stderr = exits(run_python, ending, 100)
    assert codes == [ENDINGS[ending]] * 100
    assert stderr == ""


@pytest.mark.parametrize("ending", ["upload_in_flight", "flush_in_a_daemon"])
@pytest.mark.parametrize("server", ["answers", "hangs", "garbage"])
def test_an_exit_does_not_wait_for_a_server(ending: str, server: str, run_python: Any, sink: Any) -> None:
    """Where it answers, what was sampled gets there, though importing what uploads need takes its time."""
    here = sink(server)
    codes, _ = exits(run_python, ending, 4, here.url, bound=0.5 if server == "hangs" else 20)
    assert codes == [0] * 4
    if server == "answers":
        assert len({pid for series in here.series() for pid in series.pids}) == 4


def test_a_flush_of_a_daemon_thread_does_not_hold_the_exit_up(run_python: Any, sink: Any) -> None:
    """`exit_timeout` is the bound, not what another thread has asked `flush` to wait for."""
    program = """
import sys, threading, time, atexit
import pyprof
def report(began=[]):
    if began: print(time.monotonic() - began[0])
    began.append(time.monotonic())
atexit.register(report)
pyprof.start(server_url=sys.argv[1], exit_timeout=0.5, timeout=60, upload_interval=3600)
atexit.register(report)
threading.Thread(target=pyprof.flush, args=(60,), daemon=True).start()
end = time.monotonic() + 30
while sys.stdin.readline() != "arrived\\n" and time.monotonic() < end: pass
"""
    import subprocess
    import sys

    here = sink("hangs")
    with subprocess.Popen(
        [sys.executable, "-c", program, here.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert here.wait_for(lambda sink: sink.bodies)
            stdout, _ = process.communicate("arrived\n", timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert float(stdout) < 5, "the handlers of the exit took longer than exit_timeout and a wide margin"


def test_a_look_up_that_never_returns_does_not_hold_the_exit_up(run_python: Any) -> None:
    """Nothing can end a thread in getaddrinfo: the process leaves without it."""
    program = """
import pyprof, socket, threading, time, sys
asked = threading.Event()
def getaddrinfo(*arguments):
    asked.set()
    time.sleep(3600)
socket.getaddrinfo = getaddrinfo
pyprof.start(server_url="http://pyprof.invalid", exit_timeout=0.3, upload_interval=0.1)
assert asked.wait(30)
sys.exit(7)
"""
    assert run_python(program, timeout=30).returncode == 7


@pytest.mark.parametrize("loaded", [False, True])
def test_a_fork_that_ends_at_once(loaded: bool, run_python: Any) -> None:
    """os._exit in the child, right after os.fork: no thread of ours is in its way."""
    program = f"""
import os, pyprof
pyprof.start(exporter="none", sample_rate=10_000, max_overhead=1)
if {loaded}:
    import threading
codes = set()
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        os._exit(6)
    codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(codes)
"""
    assert run_python(program, check=True, timeout=60).stdout == "{6}\n"


# A whole life each: started by autostart, sampled at 1 kHz, ended.
LIFE = (
    PRELUDE
    + """
import atexit
ending = sys.argv[1]
signal.alarm(60)

def spin(depth=20):
    if depth: spin(depth - 1)
    while True: sum(range(100))

def imports():
    while True:
        try:
            for name in [name for name in sys.modules if name.startswith(("json", "email", "colorsys"))]:
                sys.modules.pop(name, None)
            import json, email.message, colorsys
        except Exception:  # another thread has taken a module away
            pass

def daemon(target):
    for _ in range(3): threading.Thread(target=target, daemon=True).start()

class Ends:
    "Found by an import, which is as far as the program gets."
    def find_spec(self, name, path=None, target=None):
        if name == "the_end":
            sampled()
            sys.exit(4)

assert pyprof.is_running() and pyprof.stats().engine == sys.argv[2], pyprof.stats()
if ending == "atexit":
    atexit.register(burn, 0.02)
elif ending == "daemons":
    daemon(spin)
elif ending == "daemons import":
    daemon(imports)
elif ending == "threads":
    for n in range(4): threading.Thread(target=burn, args=(0.01 * n,)).start()
elif ending == "main imports":
    sys.meta_path.insert(0, Ends())
    import the_end
elif ending == "tasks":
    import asyncio
    async def task(n):
        burn(0.001)
        await (task(n - 1) if n else asyncio.sleep(60))
    async def main():
        tasks = [asyncio.create_task(task(n)) for n in range(30)]
        await asyncio.sleep(0.01)
        sampled()
        sys.exit(4)
    asyncio.run(main())
elif ending == "cycles":
    class Dying:
        def __init__(self): self.itself = self
        def __del__(self, clock=time.perf_counter, sum=sum, range=range):
            end = clock() + 0.002
            while clock() < end: sum(range(100))
    left = [Dying() for _ in range(10)]
sampled()
if ending == "os_exit": os._exit(4)
sys.exit(4)
"""
)
LIVES = (
    "returns",
    "os_exit",
    "atexit",
    "daemons",
    "daemons import",
    "threads",
    "main imports",
    "tasks",
    "cycles",
)


@pytest.mark.parametrize("count", [2, pytest.param(56, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", LIVES)
def test_interpreters_that_end(ending: str, count: int, run_python: Any) -> None:
    """Nine ways, 56 times: 504 interpreters, four at a time."""
    engine = os.environ.get("TEST_ENGINE", "gilfree")

    def live(_: int) -> tuple[int, str, str]:
        result = run_python(LIFE, ending, engine, env=AUTOSTART, timeout=90)
        return result.returncode, result.stdout, result.stderr

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(live, range(count))) == {(4, "", "")}


def test_the_environment_is_what_the_tests_think() -> None:
    assert os.name == "posix"
