"""The host's process, looked at from outside: what pyprof leaves behind, and how the host dies.

(Forks, exits, signals, faults and other interpreters have files of their own.)

Seen to fail, each with one line changed:
- targets that are not closed: `test_restarts_leak_…` for servers; a timer that is not ended: for all of them;
- a Thread that dies unjoined leaves its handle: `test_a_thread_that_a_stop_could_not_wait_for`;
- windows that are kept: `test_restarts_keep_the_memory_flat`;
- a timer with a copy of the host's descriptors, or with files among them: `test_the_timer_shares_no_…`;
- fast reads that fail are failures: `test_a_host_that_may_write_no_file`;
- `start` with a handler for SIGTERM: `test_death_by_a_signal`.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from .host import PRELUDE


@pytest.mark.parametrize("target", ["none", "file", "directory", "server", "hanging server"])
def test_restarts_leak_no_thread_and_no_descriptor(
    target: str, run_python: Any, sink: Any, tmp_path: Path
) -> None:
    """Uploads included: the connections of a profiler are closed when it is stopped."""
    options = {
        "none": {"exporter": "none"},
        "file": {"output": str(tmp_path / "x.pb.gz")},
        "directory": {"output": str(tmp_path / "out")},
        "server": {"server_url": sink().url},
        "hanging server": {"server_url": sink("hangs").url, "exit_timeout": 0},
    }[target]
    count = 15 if "server" in target else 50
    program = (
        PRELUDE
        + f"""
def cycle(n):
    pyprof.start(sample_rate=1000, max_overhead=1, upload_interval=0.1, **{options!r})
    assert threads() >= 2
    burn(0.002)
    pyprof.flush(0.05 if "hanging" in {target!r} else 60)
    with pyprof.profile():
        burn(0.001)
    pyprof.stop(flush=n % 2 == 0)
    until(lambda: threads() == 1)  # at once, unless the exporter is in the middle of its imports

for n in range(3):
    cycle(n)
before = descriptors()
for n in range({count}):
    cycle(n)
assert descriptors() == before, (before, descriptors())
"""
    )
    run_python(program, check=True, timeout=120)


def test_the_timer_shares_no_descriptor_with_the_host(run_python: Any) -> None:
    """What it keeps open takes no number of the host's, and nothing that the host closes is kept open."""
    program = (
        PRELUDE
        + """
import threading
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # where it has to ask who was preempted
read, write = os.pipe()
before = descriptors()
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
def work():
    for _ in range(100):
        burn(0.002)
        time.sleep(0.001)
workers = [threading.Thread(target=work) for _ in range(3)]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert descriptors() == before, descriptors()
def name(tid):
    try:
        with open(f"/proc/self/task/{tid}/comm") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "a worker that has just ended"
(timer,) = [tid for tid in os.listdir("/proc/self/task") if name(tid) == "pyprof-timer"]
kept = descriptors(f"self/task/{timer}")
names = {os.path.basename(path) for path in kept}
assert 2 <= len(kept) <= 1 + 3 * 128, kept
assert names <= {"sched", "stat", "syscall", "memfd:pyprof (deleted)"}, kept
os.close(write)
signal.alarm(10)
assert os.read(read, 1) == b""
"""
    )
    run_python(program, check=True)


@pytest.mark.skipif(os.environ.get("TEST_ENGINE") == "current_frames", reason="of the other engine")
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_host_that_may_write_no_file(when: str, run_python: Any) -> None:
    """The timer's file in memory is one for the kernel; what exceeds RLIMIT_FSIZE is a signal that kills."""
    program = (
        PRELUDE
        + f"""
import resource
def forbid():
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
if {when!r} == "before": forbid()
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
burn(0.1)
before = pyprof.stats()
if {when!r} == "meanwhile": forbid()
burn(0.5)
after = pyprof.stats()
assert after.engine == "gilfree", after
stacks, fallbacks = after.stacks - before.stacks, after.fallbacks - before.fallbacks
assert stacks > 20 and fallbacks < stacks / 2, (before, after)
assert after.memory_reads == "process_vm_readv", after
assert before.memory_reads == {"process_vm_readv" if when == "before" else "memfd"!r}, before
assert before.own_bytes > 128 << 10 or {when!r} == "before"
pyprof.stop()
assert pyprof.stats().memory_reads == "none"
"""
    )
    run_python(program, check=True)


def test_restarts_keep_the_memory_flat(run_python: Any) -> None:
    """The code cache and the stack tables are freed: a leak of either would be 100 KiB a round and more.

    The windows hold deep stacks of code that is new in every round. The bound is 4 MiB for 200 rounds above
    what the same program needs without pyprof (on 3.14t that grows as well).
    """
    program = (
        PRELUDE
        + """
profiled = sys.argv[1] == "profiled"
lines = "\\n".join(f"def f{n}(i): return f{n - 1}(i) if i else None" for n in range(1, 100))
def fresh_code(round):
    names = {"burn": burn}
    exec(compile("def f0(i): burn(0.004)\\n" + lines, f"/generated/{round}", "exec"), names)
    names["f99"](1)

def cycle(n):
    if not profiled:
        return fresh_code(n)
    pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
    fresh_code(n)
    with pyprof.profile():
        burn(0.001)
    pyprof.stop(flush=n % 2 == 0)

for n in range(50):
    cycle(n)
gc.collect()
before = resident()
for n in range(50, 250):
    cycle(n)
gc.collect()
print(resident() - before)
assert pyprof.stats().own_bytes < 4 << 20, pyprof.stats()
"""
    )
    bare, profiled = (
        int(run_python(program, how, check=True, timeout=120).stdout) for how in ("bare", "profiled")
    )
    assert profiled - bare < 4 << 20


def test_a_thread_that_a_stop_could_not_wait_for(run_python: Any) -> None:
    """It is in a look-up of a name, which nothing ends; when it has ended, it is as if it had never been."""
    program = (
        PRELUDE
        + """
import socket, threading
from pyprof import _native
asked, answer = threading.Event(), threading.Event()
def getaddrinfo(*arguments):
    asked.set()
    answer.wait(50)
    raise socket.gaierror(socket.EAI_AGAIN, "try again")
socket.getaddrinfo = getaddrinfo
for _ in range(3):
    asked.clear()
    answer.clear()
    pyprof.start(server_url="http://pyprof.invalid", upload_interval=0.1, sample_rate=1000, max_overhead=1,
                 timeout=50)
    assert asked.wait(30)
    pyprof.stop(flush=False)
    assert _native.own_threads() == 1 and threads() == 2, (_native.own_threads(), threads())
    answer.set()
    until(lambda: _native.own_threads() == 0 and threads() == 1)
pyprof.start(exporter="none")
pid = os.fork()  # warns on 3.12 and later if a thread of ours is taken for the host's
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    )
    result = run_python(program, check=True, options=["-W", "error::DeprecationWarning"])
    assert "Warning" not in result.stderr, result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
@pytest.mark.parametrize("place", ["computing", "sleeping", "uploading"])
def test_death_by_a_signal(number: signal.Signals, place: str, run_python: Any, sink: Any) -> None:
    """From another process, at once, with the status that says so: a supervisor waits for it."""
    program = (
        PRELUDE
        + """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
number, place, url = int(sys.argv[1]), *sys.argv[2:]
read, write = os.pipe()
victim = os.fork()
if victim == 0:
    signal.alarm(50)
    pyprof.start(server_url=url, sample_rate=1000, max_overhead=1, upload_interval=0.1, timeout=60)
    burn(0.02)
    os.write(write, b"x")
    if place == "sleeping":
        time.sleep(60)
    while True:
        pyprof.flush(60) if place == "uploading" else burn(0.1)
assert os.read(read, 1)
time.sleep(0.2)  # for an upload to be under way, most of the time
os.kill(victim, number)
print(os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]))
"""
    )
    result = run_python(program, str(int(number)), place, sink("hangs").url, timeout=60, check=True)
    assert result.stdout == f"{-int(number)}\n"
