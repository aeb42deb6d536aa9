"""The option flush_on_sigterm: SIGTERM kills as ever, but not before what was sampled is delivered.

Seen to fail, each with one line changed:
- nothing armed (`_native.arm_sigterm` not called): all that look at a profile, and `test_where_it_is_armed`;
- armed with SIG_IGN or a handler in place: `test_what_the_application_has_set_is_left_alone`;
- `disarm` without its look at whose handler it is: the same, for a handler set later;
- no SA_RESETHAND: `test_a_second_one_ends_the_process_at_once`;
- no deadline: `test_death_is_not_put_off_longer_than_exit_timeout`, in both places;
- the handler does not wait where the process sends it to itself: `test_a_process_that_kills_itself`;
- no `disarm` in `stop`, armed from any thread: `test_what_the_application_has_set_is_left_alone`;
- the timer thread does not look for the signal, or nobody passes it on: `test_to_a_server`;
- `disarm` forgets a signal that came before: `test_in_the_middle_of_start_and_stop` has some that live on;
- autostart that does not look at the variable: `test_where_it_is_armed`;
- on by default in code, not on in autostart: `test_where_it_is_armed`;
- nothing reset in the child of a fork: `test_the_child_of_a_process_that_is_about_to_die`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyprof import pprof

from ..conftest import clean_environment

PYPROF_RUN = [sys.executable, "-m", "pyprof", "run"]
ARMED = {"PYPROF_FLUSH_ON_SIGTERM": "1"}
PRELUDE = """
import os, signal, sys, threading, time
signal.alarm(100)

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(50))

def ready():
    print("ready", flush=True)

def caught():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt"))

def is_armed():
    "Known to the kernel only: Python is not told."
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return bool(caught() >> signal.SIGTERM - 1 & 1)
"""
POOL = """
import sys
from multiprocessing import get_context
from time import thread_time

def burn(seconds):
    end = thread_time() + seconds
    while thread_time() < end:
        pass

if __name__ == "__main__":
    with get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(burn, [0.2] * 6)
"""


@contextmanager
def started(*command: object, env: dict[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """A process that has said it is ready."""
    process = subprocess.Popen(
        list(map(str, command)),
        env=clean_environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def python(code: str, *arguments: object) -> list[object]:
    return [sys.executable, "-c", PRELUDE + code, *arguments]


def terminated(process: "subprocess.Popen[str]", timeout: float = 60) -> tuple[int, str]:
    """Status and stderr after a SIGTERM."""
    process.terminate()
    _, stderr = process.communicate(timeout=timeout)
    return process.returncode, stderr


def cpu_of(path: Path, function: str) -> float:
    """CPU seconds with `function` on the stack."""
    profile = pprof.read(path)
    rows = pprof.top(profile, "cpu")
    return sum(row.cum for row in rows if row.name.rpartition(".")[2] == function) / 1e9


# The profile


@pytest.mark.parametrize(
    "place", ["burn(60)", "time.sleep(60)", "threading.Lock().acquire() and sys.stdin.read()"]
)
def test_a_program_that_is_killed_under_run(place: str, tmp_path: Path) -> None:
    script, out = tmp_path / "program.py", tmp_path / "out.pb.gz"
    script.write_text(PRELUDE + f"burn(0.4)\nready()\n{place}\n")
    with started(*PYPROF_RUN, "-o", out, script) as process:
        status, stderr = terminated(process)
    assert status == -signal.SIGTERM, stderr
    assert stderr == f"pyprof: wrote {out}\n"
    assert cpu_of(out, "burn") > 0.3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_workers_of_a_pool_under_run(method: str, run_process: Any, tmp_path: Path) -> None:
    """Pool ends them by SIGTERM. Each writes a profile of its own, under its own pid."""
    script, out = tmp_path / "pool.py", tmp_path / "out"
    script.write_text(POOL)
    result = run_process([*PYPROF_RUN, "-o", f"{out}/", script, method])
    assert (result.returncode, result.stderr) == (0, "")
    spent = {path.name.split("-")[1]: cpu_of(path, "burn") for path in out.iterdir()}
    workers = [seconds for seconds in spent.values() if seconds > 0]
    assert len(workers) == 2, spent
    assert sum(workers) == pytest.approx(1.2, rel=0.15)


def test_to_a_server(sink: Any) -> None:
    """And as soon as it is there, the process dies."""
    here = sink()
    code = """
import pyprof
pyprof.start(server_url=sys.argv[1], exit_timeout=90, upload_interval=3600)
burn(0.3)
ready()
time.sleep(60)
"""
    with started(*python(code, here.url), env=ARMED) as process:
        assert terminated(process, timeout=30) == (-signal.SIGTERM, "")
        assert {pid for series in here.series() for pid in series.pids} == {process.pid}


def test_the_child_of_a_fork(tmp_path: Path) -> None:
    """It inherits the option, and works under its own pid; its parent goes on."""
    code = """
import pyprof
pyprof.start(output=sys.argv[1], flush_on_sigterm=True)
child = os.fork()
if child == 0:
    assert is_armed()
    burn(0.3)
    ready()
    time.sleep(60)
    os._exit(1)
ready_pipe = sys.stdin.readline()
os.kill(child, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
print(child, flush=True)
assert is_armed()
"""
    with started(*python(code, tmp_path / "out"), env=ARMED) as process:
        stdout, stderr = process.communicate("\n", timeout=60)
        assert (process.returncode, stderr) == (0, "")
    files = {path.name.split("-")[1]: path for path in (tmp_path / "out").iterdir()}
    assert cpu_of(files[stdout.strip()], "burn") > 0.2


def test_a_process_that_kills_itself(run_python: Any, tmp_path: Path) -> None:
    """The next line does not run, though the profile is still on its way."""
    code = """
import pyprof
pyprof.start(output=sys.argv[1], flush_on_sigterm=True, exit_timeout=90)
burn(0.3)
ready()
signal.raise_signal(signal.SIGTERM) if sys.argv[2] == "raise" else os.kill(os.getpid(), signal.SIGTERM)
os.write(1, b"survived")
os._exit(0)
"""
    for how in ("raise", "kill"):
        out = tmp_path / f"{how}.pb.gz"
        result = run_python(PRELUDE + code, str(out), how, timeout=30)
        assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGTERM, "ready\n", "")
        assert cpu_of(out, "burn") > 0.2


# Death


def test_a_second_one_ends_the_process_at_once(sink: Any) -> None:
    here = sink("hangs")
    code = """
import pyprof
pyprof.start(server_url=sys.argv[1], exit_timeout=90, timeout=90)
burn(0.1)
ready()
burn(90)
"""
    with started(*python(code, here.url), env=ARMED) as process:
        process.terminate()
        assert here.wait_for(lambda sink: sink.bodies), "the flush has not begun"
        assert process.poll() is None
        assert terminated(process, timeout=10)[0] == -signal.SIGTERM


@pytest.mark.parametrize(
    "place",
    [
        "time.sleep(90)",
        pytest.param(
            "sum(range(10**12))",
            marks=pytest.mark.skipif(
                not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="nothing waits for the GIL"
            ),
        ),
    ],
)
def test_death_is_not_put_off_longer_than_exit_timeout(place: str, sink: Any) -> None:
    """By a server that does not answer, or by a thread that keeps the GIL in C code."""
    here = sink("hangs" if "sleep" in place else "answers")
    code = (
        f"import pyprof\npyprof.start(server_url=sys.argv[1], exit_timeout=0.5)\nburn(0.1)\nready()\n{place}"
    )
    with started(*python(code, here.url), env=ARMED) as process:
        began = time.monotonic()
        assert terminated(process)[0] == -signal.SIGTERM
        assert 0.4 < time.monotonic() - began < 10


def test_in_the_middle_of_start_and_stop(tmp_path: Path) -> None:
    """Wherever it hits, the process dies of it, and not only by the bound."""
    code = """
import pyprof
while True:
    pyprof.start(output=sys.argv[1], flush_on_sigterm=True, exit_timeout=50)
    try:
        ready()
    except BrokenPipeError:
        pass
    with pyprof.profile():
        pass
    pyprof.stop()
"""
    for attempt in range(20):
        with started(*python(code, tmp_path / "x.pb.gz")) as process:
            time.sleep(attempt * 0.004)
            assert terminated(process, timeout=25)[0] == -signal.SIGTERM


def test_the_child_of_a_process_that_is_about_to_die(sink: Any) -> None:
    """The signal was its parent's: the child lives on, whatever it has set since."""
    here = sink("hangs")
    code = """
import pyprof
pyprof.start(server_url=sys.argv[1], flush_on_sigterm=True, exit_timeout=10)
burn(0.05)
ready()
sys.stdin.readline()
assert not is_armed()
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))
if os.fork() == 0:
    end = time.monotonic() + 1
    while time.monotonic() < end:
        burn(0.01)
    print("alive" if not got else "killed", flush=True)
    pyprof.stop(flush=False)
    os._exit(0)
os.wait()
while not got:  # the fork has cut the upload, so nothing is left to wait for: the parent's handler gets it
    burn(0.01)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGTERM)
"""
    with started(*python(code, here.url)) as process:
        process.terminate()
        assert here.wait_for(lambda sink: sink.bodies)
        stdout, stderr = process.communicate("\n", timeout=60)
        assert (process.returncode, stdout, stderr) == (-signal.SIGTERM, "alive\n", "")


# Where it is armed


ASK = PRELUDE + "import pyprof\nassert pyprof.is_running()\nprint(is_armed())"


@pytest.mark.parametrize(
    ("variable", "armed"), [(None, "True"), (" ", "True"), ("0", "False"), ("1", "True"), ("off", "False")]
)
def test_where_it_is_armed(
    variable: str | None, armed: str, run_python: Any, run_process: Any, tmp_path: Path
) -> None:
    """Under `pyprof run` and autostart, unless the environment says otherwise; in code only if asked for."""
    env = {"PYPROF_FLUSH_ON_SIGTERM": variable}
    output = {"PYPROF_OUTPUT": str(tmp_path / "x.pb.gz")}
    assert run_python(ASK, env=env | output | {"PYPROF_ENABLED": "1"}).stdout == f"{armed}\n"
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    assert run_process([*PYPROF_RUN, "-o", tmp_path / "y.pb.gz", script], env=env).stdout == f"{armed}\n"
    in_code = PRELUDE + "import pyprof\npyprof.start()\nprint(is_armed())"
    wanted = "True" if variable == "1" else "False"
    assert run_python(in_code, env=env | output).stdout == f"{wanted}\n"


def test_the_flag_of_run_turns_it_off(run_process: Any, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    command = [*PYPROF_RUN, "--no-flush-on-sigterm", "-o", tmp_path / "y.pb.gz", script]
    assert run_process(command).stdout == "False\n"


@pytest.mark.parametrize("without", ['exporter="none"', "exit_timeout=0", "flush_on_sigterm=False"])
def test_nothing_is_armed_where_nothing_would_be_delivered(without: str, run_python: Any) -> None:
    options = f"dict(flush_on_sigterm=True) | dict({without})"
    code = f"import pyprof\npyprof.start(**({options}))\nassert not is_armed()"
    run_python(PRELUDE + code, check=True, env={"PYPROF_LOG_LEVEL": "critical"})


OPTIONS = "output=sys.argv[1], flush_on_sigterm=True"


@pytest.mark.parametrize(
    "code",
    [
        f"signal.signal(signal.SIGTERM, theirs); pyprof.start({OPTIONS}); there(); pyprof.stop(); there()",
        f"pyprof.start({OPTIONS}); signal.signal(signal.SIGTERM, theirs); there(); pyprof.stop(); there()",
        f"ignore(); pyprof.start({OPTIONS}); ignored(); pyprof.stop(); ignored()",
        f"pyprof.start({OPTIONS}); ignore(); ignored(); pyprof.stop(); ignored()",
        f"pyprof.start({OPTIONS}); assert is_armed(); pyprof.stop(); assert not is_armed()",
        f"pyprof.start({OPTIONS}); pyprof.stop(); pyprof.start({OPTIONS}); assert is_armed()",
        f"in_thread(lambda: pyprof.start({OPTIONS})); assert not is_armed() and pyprof.is_running()",
    ],
)
def test_what_the_application_has_set_is_left_alone(code: str, run_python: Any, tmp_path: Path) -> None:
    helpers = """
import pyprof
got = []
def theirs(number, frame):
    got.append(number)
def there():
    assert signal.getsignal(signal.SIGTERM) is theirs
    got.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    assert got == [signal.SIGTERM]
def ignore():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def ignored():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGTERM)
def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
"""
    result = run_python(PRELUDE + helpers + code, str(tmp_path / "x.pb.gz"), check=True)
    assert result.stderr == ""


def test_a_handler_set_after_the_signal_gets_it(sink: Any) -> None:
    """What would have been death comes to who has learned to handle it meanwhile."""
    here = sink("hangs")
    code = """
import pyprof
pyprof.start(server_url=sys.argv[1], flush_on_sigterm=True, exit_timeout=0.5)
ready()
while is_armed():
    time.sleep(0.001)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
time.sleep(60)
"""
    with started(*python(code, here.url)) as process:
        assert terminated(process) == (7, "")


def test_the_environment_is_what_the_tests_think() -> None:
    """An ignored SIGTERM would be inherited by all of them."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert os.name == "posix"
