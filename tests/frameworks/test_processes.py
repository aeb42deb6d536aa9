"""Programs of several processes: each has its own profile, with its work, its pid and its role, to its end.

Seen to fail, each with one line changed:
- `LastWords.install` that replaces nothing: what ends by `os._exit`, and `raise_signal`;
- `role_of_child` that always says `main`: everything that looks at a forked child;
- `role_now` that returns what it was given: spawn, whose children are then `main`;
- `exit_within` not called: `test_os_exit_ends_whatever_the_threads_do`;
- `_raise_signal` that does not look at the disposition: `test_a_signal_that_is_handled_…`;
- `uninstall` not called, or `install` again over what somebody has left: `test_stop_undoes_it`.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .processes import Process, processes
from .web_server import assert_worked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

PRELUDE = """
import os, signal, sys, threading, time

def burn(seconds=0.3):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(50))

def work(*unused):
    burn()
    return os.getpid()
"""
BY_CODE = "import pyprof; pyprof.start()\n"
RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["by code", "autostart"])
def run(request: Any, run_python: RunPython, tmp_path: Path) -> Callable[..., Any]:
    """Runs a program that prints the pids of what it has started: those, and all that were profiled."""

    def run(program: str, *arguments: str) -> tuple[list[int], dict[int, Process]]:
        script = tmp_path / "program.py"
        by_code = request.param == "by code"
        script.write_text((BY_CODE if by_code else "") + PRELUDE + program)
        environ = {"PYPROF_OUTPUT": str(tmp_path / "out"), "PYPROF_EXIT_TIMEOUT": "20"}
        if not by_code:
            environ["PYPROF_ENABLED"] = "1"
        options = ["-W", "ignore::DeprecationWarning"]  # of a fork beside threads of the host
        result = run_python(script, *arguments, options=options, env=environ, timeout=90, check=True)
        assert result.stderr == ""
        return [int(word) for word in result.stdout.split()], processes(tmp_path / "out")

    return run


MULTIPROCESSING = """
import concurrent.futures, multiprocessing

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    child = context.Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    print(child.pid)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        print(executor.submit(work).result(60))
    with context.Pool(1) as pool:
        print(pool.apply(work))
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(run: Callable[..., Any], method: str) -> None:
    """A process, one of a ProcessPoolExecutor and one of a Pool. All leave by os._exit but the spawned."""
    pids, found = run(MULTIPROCESSING, method)
    for pid in pids:
        assert_worked(found[pid], "child")
    [main] = [process for process in found.values() if process.roles == {"main"}]
    assert main.seconds("burn") == 0, "the children have windows of their own"


FORKS = """
def fork():
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(3)
    print(pid, flush=True)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3

fork()
thread = threading.Thread(target=fork)
thread.start()
thread.join()
os._exit(0)
"""


def test_os_fork_and_os_exit(run: Callable[..., Any]) -> None:
    """From the main thread and from another; the parent leaves by os._exit as well."""
    pids, found = run(FORKS)
    assert len(pids) == 2
    for pid in pids:
        assert_worked(found[pid], "child")
    [parent] = [process for pid, process in found.items() if pid not in pids]
    assert parent.roles == {"main"}
    assert parent.seconds("burn") == 0


DAEMON = """
reader, writer = os.pipe()
burn()
if os.fork():
    os.close(writer)
    print(os.getpid(), os.read(reader, 100).decode(), flush=True)
    os.read(reader, 1)  # until the daemon ends
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.umask(0)
os.dup2(writer, 200)
os.closerange(0, 200)
os.closerange(201, 4096)
for _ in range(3):
    os.open(os.devnull, os.O_RDWR)
os.write(200, b"%d" % os.getpid())
work()
sys.exit()
"""


def test_a_daemon(run: Callable[..., Any]) -> None:
    """Forked twice, in a session of its own, every descriptor closed."""
    (parent, daemon), found = run(DAEMON)
    assert_worked(found[parent], "main")
    assert_worked(found[daemon], "child")


def test_half_a_second(run: Callable[..., Any]) -> None:
    (pid,), found = run("print(os.getpid())\nwork()\n")
    assert list(found) == [pid]
    assert_worked(found[pid], "main")


ENDS = """
def ends():
    if sys.argv[1] == "os._exit":
        os._exit(7)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as uvicorn does: what was there for Python, ours not
    signal.raise_signal(signal.SIGTERM)

import pyprof
pyprof.start()
work()
ends()
"""


@pytest.mark.parametrize(("how", "status"), [("os._exit", 7), ("raise_signal", -signal.SIGTERM)])
def test_a_process_that_ends_itself(run_python: RunPython, tmp_path: Path, how: str, status: int) -> None:
    result = run_python(PRELUDE + ENDS, how, env={"PYPROF_OUTPUT": str(tmp_path / "out")}, timeout=60)
    assert (result.returncode, result.stderr) == (status, "")
    [process] = processes(tmp_path / "out").values()
    assert_worked(process, "main")


STUCK = """
import pyprof, re
pyprof.start(output=sys.argv[1], exit_timeout=0.5)

def stuck():
    time.sleep(0.2)
    re.match("(a+)+b", "a" * 60)  # never lets go of the GIL, on builds with one

threading.Thread(target=stuck, daemon=True).start()
sys.setswitchinterval(100)  # the main thread is not asked for the GIL before it gives it away itself
end = time.monotonic() + 0.3
while time.monotonic() < end:
    pass
os._exit(7)
"""


def test_os_exit_ends_whatever_the_threads_do(run_python: RunPython, tmp_path: Path) -> None:
    """The upload needs the GIL, and who gets it never gives it back: the process ends with its status."""
    result = run_python(PRELUDE + STUCK, str(tmp_path / "out"), timeout=30)
    assert result.returncode == 7


UNDONE = """
import pyprof, _signal
before = os._exit, signal.raise_signal, _signal.raise_signal
pyprof.start(exporter="none")
assert (os._exit, signal.raise_signal, _signal.raise_signal) == before, "nothing is to be delivered"
pyprof.stop()
for _ in range(2):
    pyprof.start(output=sys.argv[1])
    assert os._exit != before[0] and signal.raise_signal != before[1]
    try:
        os._exit("no status")
    except TypeError:
        pass
    assert pyprof.is_running()
    pyprof.stop()
    assert (os._exit, signal.raise_signal, _signal.raise_signal) == before
ours = []
for _ in range(2):
    pyprof.start(output=sys.argv[1])
    ours.append(os._exit)
    os._exit = lambda status: ours[0](status)  # of somebody who leaves it there
    pyprof.stop()
pyprof.start(output=sys.argv[1])
os._exit(5)
"""


def test_stop_undoes_it(run_python: RunPython, tmp_path: Path) -> None:
    result = run_python(PRELUDE + UNDONE, str(tmp_path / "out"))
    assert (result.returncode, result.stderr) == (5, "")


HANDLED = """
import pyprof
pyprof.start(output=sys.argv[1])
came = []
burn()
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
signal.raise_signal(signal.SIGTERM)
assert came and pyprof.is_running() and os.listdir(sys.argv[1]) == []
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.raise_signal(signal.SIGTERM)
assert pyprof.is_running() and os.listdir(sys.argv[1]) == []
"""


def test_a_signal_that_is_handled_is_raised_and_no_more(run_python: RunPython, tmp_path: Path) -> None:
    run_python(PRELUDE + HANDLED, str(tmp_path / "out"), check=True)
