"""Faults, and who handles them: the host, or nobody. pyprof reads memory that may be gone, and causes none.

Seen to fail, each with one line changed:
- `keeps_thread_state` always true: the seven of `test_a_fault_is_told_as_ever`, which tell of a thread more;
- `start` that touches SIGSEGV and SIGUSR2: `test_no_handler_is_installed`, and the tracebacks;
- `memcpy` instead of guarded reads: `test_reading_causes_no_fault`;
- `disarm_sigterm` not called by `stop`: `test_no_handler_is_installed`.
"""

import os
import re
import signal
from typing import Any

import pytest

from .host import AUTOSTART, PRELUDE

NO_CORE = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
"""
# Every handler of the process with its flags and mask, as the kernel has them, and the thread's own stack for
# them. 32 and 33 are the C library's own.
HANDLERS = """
libc = ctypes.CDLL(None)
def handlers():
    found = {}
    for number in set(range(1, 65)) - {32, 33}:
        action = ctypes.create_string_buffer(256)
        assert libc.sigaction(number, None, action) == 0
        restorer = 0x04000000  # SA_RESTORER, which the C library sets by itself
        flags = int.from_bytes(action.raw[136:140], sys.byteorder) & ~restorer
        found[number] = action.raw[:16], flags  # with handler and mask
    stack = ctypes.create_string_buffer(24)
    assert libc.sigaltstack(None, stack) == 0
    return found | {"stack": (stack.raw[:12], stack.raw[16:])}

def changed(before):
    now = handlers()
    return {number for number in before if before[number] != now[number]}

def handle_in_c(number, function="_exit", flags=0):
    "By the C library's own function of one integer, so that the status tells that it was called."
    action = ctypes.create_string_buffer(256)
    handler = ctypes.cast(getattr(libc, function), ctypes.c_void_p).value
    ctypes.c_void_p.from_buffer(action).value = handler
    ctypes.c_int.from_buffer(action, 8 + 128).value = flags  # after the mask of 1024 signals
    assert libc.sigaction(number, action, None) == 0

def use_own_stack():
    global own_stack
    own_stack = ctypes.create_string_buffer(1 << 16)
    class Stack(ctypes.Structure):
        _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
    assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(own_stack), 0, len(own_stack))), None) == 0
"""
ONSTACK = 0x08000000
HOSTS = {
    "nothing": "",
    "faulthandler": "faulthandler.enable()",
    "Python's": "signal.signal(signal.SIGSEGV, print)\nsignal.signal(signal.SIGTERM, print)",
    "C's on a stack": f"use_own_stack()\nfor n in (4, 7, 8, 11, 10, 15): handle_in_c(n, flags={ONSTACK})",
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("sigterm", [False, True])
def test_no_handler_is_installed(host: str, sigterm: bool, run_python: Any, sink: Any) -> None:
    """Not by the import, not by start(), but for SIGTERM where that is asked for; stop() puts that back."""
    program = (
        PRELUDE.replace("import pyprof\n", "")
        + HANDLERS
        + HOSTS[host]
        + f"""
before = handlers()
import pyprof
assert not changed(before)
free = {host in ("nothing", "faulthandler")}
for _ in range(2):
    pyprof.start(server_url=sys.argv[1], sample_rate=1000, max_overhead=1, flush_on_sigterm={sigterm})
    assert changed(before) == ({{15}} if {sigterm} and free else set()), changed(before)
    sampled()
    assert pyprof.flush(30)
    with pyprof.profile():
        sampled()
    assert changed(before) == ({{15}} if {sigterm} and free else set()), changed(before)
    pyprof.stop()
    assert not changed(before), changed(before)
"""
    )
    run_python(program, sink().url, check=True, timeout=90)


def test_reading_causes_no_fault(run_python: Any) -> None:
    """Every fault would end the process at once, by a handler of the host's: code, threads, generators and
    stacks come and go while they are read."""
    program = (
        PRELUDE
        + HANDLERS
        + """
for number in (signal.SIGSEGV, signal.SIGBUS):
    handle_in_c(number)
pyprof.start(exporter="none", sample_rate=10_000, max_overhead=1)
def deep(n):
    return deep(n - 1) if n else sum(range(100))
def generator(n):
    yield from (generator(n - 1) if n else range(3))
def work():
    for n in range(300):
        namespace = {}
        exec(f"def f{n}():\\n return sum(range(50))", namespace)
        namespace[f"f{n}"]()
        deep(n)
        list(generator(n % 30))
end = time.monotonic() + 3
while time.monotonic() < end:
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
stats = pyprof.stats()
assert stats.stacks > 100, stats
"""
    )
    run_python(program, check=True, timeout=90)


FAULTS = {
    "read of nothing": "ctypes.string_at(0)",
    "segmentation fault": "faulthandler._sigsegv()",
    "in a thread": "in_thread(lambda: ctypes.string_at(0))",
    "end of the stack": "faulthandler._stack_overflow()",
    "division by zero": "faulthandler._sigfpe()",
    "abort": "faulthandler._sigabrt()",
    "fatal error": "faulthandler._fatal_error_c_thread()",
}


@pytest.mark.skipif(
    os.environ.get("TEST_ENGINE") == "current_frames", reason="its timer keeps a thread state, which is shown"
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_as_ever(fault: str, run_python: Any) -> None:
    """PYTHONFAULTHANDLER: the same words and the same status as without pyprof, but for its module in the
    list of extension modules."""
    code = FAULTS[fault]
    program = (
        PRELUDE
        + NO_CORE
        + f"""
import _thread
gate, main = _thread.allocate_lock(), _thread.get_ident()
def waits():
    gate.acquire()
def in_thread(target):
    def runs():
        until(lambda: sys._current_frames()[main].f_code is waits.__code__)
        target()
    gate.acquire()
    _thread.start_new_thread(runs, ())
    waits()
def crashing_function(depth=10):
    if depth:
        return crashing_function(depth - 1)
    {code}
if pyprof.is_running(): sampled()
crashing_function()
"""
    )
    without, profiled = (
        run_python(
            program,
            timeout=90,
            env={"PYTHONFAULTHANDLER": "1", **AUTOSTART, "PYPROF_ENABLED": enabled},
        )
        for enabled in ("0", "1")
    )
    told = [re.sub("0x[0-9a-f]+", "ADDRESS", result.stderr) for result in (without, profiled)]
    told = [re.sub("\n+Extension modules: .*\n", "\n", text) for text in told]
    assert "(most recent call first)" in told[0]
    assert (profiled.returncode, told[1]) == (without.returncode, told[0])
    assert profiled.returncode < 0


@pytest.mark.parametrize("engine_runs", [True, False])
def test_the_hosts_own_handler_gets_the_fault(engine_runs: bool, run_python: Any) -> None:
    """One in C, on a stack of its own: it ends the process by a status of its own."""
    program = (
        PRELUDE
        + NO_CORE
        + HANDLERS
        + f"""
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
use_own_stack()
handle_in_c(signal.SIGSEGV, flags={ONSTACK})
sampled()
if not {engine_runs}: pyprof.stop()
ctypes.string_at(0)
"""
    )
    assert run_python(program, timeout=60).returncode == signal.SIGSEGV  # _exit(11), not killed


def test_tracebacks_on_demand(run_python: Any, tmp_path: Any) -> None:
    """faulthandler.register and dump_traceback_later, while profiled."""
    program = (
        PRELUDE
        + """
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
file = open(sys.argv[1], "w+")
def told():
    file.seek(0)
    return file.read()
faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
def here():
    sampled()
    os.kill(os.getpid(), signal.SIGUSR1)
here()
assert told().count(" in here") == 1, told()
faulthandler.dump_traceback_later(0.05, repeat=True, file=file)
def later():
    until(lambda: told().count("Timeout") >= 3)
later()
faulthandler.cancel_dump_traceback_later()
assert told().count(" in later") >= 3, told()
faulthandler.unregister(signal.SIGUSR1)
sampled()
"""
    )
    assert run_python(program, str(tmp_path / "told"), check=True, timeout=90).stderr == ""


@pytest.mark.parametrize("when", ["before", "after", "registered"])
@pytest.mark.parametrize("running", [True, False])
def test_a_segmentation_fault_is_the_hosts_own(when: str, running: bool, run_python: Any, sink: Any) -> None:
    """faulthandler prints its traceback, and the process dies by SIGSEGV; pyprof is in the way of neither."""
    program = (
        PRELUDE
        + NO_CORE
        + f"""
if {when!r} == "before": faulthandler.enable()
if {when!r} == "registered": signal.signal(signal.SIGSEGV, signal.SIG_DFL)
pyprof.start(server_url=sys.argv[1], sample_rate=5000, max_overhead=1)
if {when!r} != "before": faulthandler.enable()
assert pyprof.flush(60)
if not {running}: pyprof.stop()

def crashing_function():
    burn(0.01)
    ctypes.string_at(0)
crashing_function()
"""
    )
    result = run_python(program, sink().url, timeout=60)
    assert result.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in result.stderr
    assert "crashing_function" in result.stderr


@pytest.mark.parametrize(
    "number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT]
)
def test_death_by_a_fault_without_a_handler(number: signal.Signals, run_python: Any) -> None:
    program = (
        PRELUDE
        + NO_CORE
        + f"""
pyprof.start(exporter="none", sample_rate=5000, max_overhead=1)
burn(0.01)
signal.raise_signal({int(number)})
"""
    )
    result = run_python(program, timeout=60)
    assert (result.returncode, result.stderr) == (-number, "")
