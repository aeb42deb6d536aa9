"""A process that replaces itself, `os.execv`, while it is profiled: what the next program finds is unchanged.

With autostart that one is profiled in its turn, and begins with the descriptors and the signals that one
began with which was not.

Seen to fail, each with one line changed:
- the timer's file in memory among the host's descriptors, and not closed by exec: all of them;
- the signals that ours block left blocked in the thread that starts them: all that are Python;
- autostart that believes that it has started already: those as well.
"""

import os
import sys
import sysconfig
from typing import Any

import pytest

from .host import AUTOSTART, PRELUDE

# The process looks at itself, and becomes the same program with a generation less to go.
GENERATION = """
left, place = int(sys.argv[1]), sys.argv[2]

def signals():
    with open("/proc/self/status") as file:
        masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigBlk", "SigIgn", "ShdPnd"))]
    return [mask & ~(0b11 << 31) for mask in masks]  # without 32 and 33, which the C library uses for threads

def become_the_next(left):
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-2], str(left), place])

found = repr((place == "fork" or os.getpid(), descriptors(), signals()))
if "FOUND" not in os.environ:  # the first is not profiled
    assert not pyprof.is_running()
    os.environ |= {"FOUND": found, "PYPROF_ENABLED": "1"}
    become_the_next(left)
assert os.environ["FOUND"] == found, (found, os.environ["FOUND"])
assert pyprof.is_running(), "not started by autostart"
assert {name for name in map(comm, os.listdir("/proc/self/task")) if name.startswith("pyprof-")} <= {
    "pyprof-timer", "pyprof-exporter"}

def again():
    sampled()
    if left == 0:
        print(os.getpid(), pyprof.stats().engine, flush=True)
        pyprof.stop(flush=False)
        os._exit(7)
    if place == "fork":  # the child goes on; the first process waits for all of them
        pid = os.fork()
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    become_the_next(left - 1)

def spin():
    while True: sum(range(100))

if place in ("threads", "thread"):
    threading.Thread(target=spin, daemon=True).start()
if place == "uploading":
    threading.Thread(target=pyprof.flush, args=(60,), daemon=True).start()
if place == "thread":
    threading.Thread(target=again).start()
else:
    again()
"""
COMM = """
def comm(tid):
    try:
        with open(f"/proc/self/task/{tid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""
"""


# 3.15.0rc2, free-threaded: two threads that set attributes of classes, as imports do, wait for each other for
# ever, without pyprof too.
TWO_MAY_IMPORT = not (sys.version_info[:2] == (3, 15) and sysconfig.get_config_var("Py_GIL_DISABLED"))


@pytest.mark.parametrize("generations", [4, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "place", ["main", "threads", "thread", "fork", *(["uploading"] if TWO_MAY_IMPORT else [])]
)
def test_a_process_that_execs_itself(
    place: str, generations: int, run_process: Any, sink: Any, tmp_path: Any
) -> None:
    """From its only thread, beside another, from another than the main one, in a child, with an upload under
    way: five ways, 40 times are 200."""
    environment = AUTOSTART | {
        "PYPROF_ENABLED": "0",
        "PYPROF_EXPORTER": "pyroscope" if place == "uploading" else "none",
        "PYPROF_SERVER_URL": sink("hangs").url,
        "PYTHONWARNINGS": "ignore::DeprecationWarning" if place == "fork" else "",
    }
    script = tmp_path / "generation.py"
    script.write_text(PRELUDE + COMM + GENERATION)
    command = [sys.executable, script, str(generations), place]
    result = run_process(command, env=environment, timeout=60 + 2 * generations)
    engine = os.environ.get("TEST_ENGINE", "gilfree")
    assert (result.returncode, result.stderr) == (7, "")
    assert result.stdout.split()[1:] == [engine]


def test_a_program_that_is_no_python(run_python: Any) -> None:
    """It gets the descriptors that are meant to be inherited, and no others: of 200 one would be seen."""
    program = (
        PRELUDE
        + """
import subprocess
os.dup2(0, 90, inheritable=False)
os.dup2(0, 91, inheritable=True)
pyprof.start(exporter="none", sample_rate=1000, max_overhead=1)
expected = None
for n in range(200):
    if n % 4 == 0: sampled(ticks=1)
    done = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, timeout=60,
                          close_fds=False, preexec_fn=os.getpid if n % 2 else None)
    assert (done.returncode, done.stderr) == (0, "")
    expected = expected or done.stdout
    assert done.stdout == expected, (n, done.stdout)
assert expected.split() == ["0", "1", "2", "3", "91"], expected  # 3 is what `ls` has opened
assert pyprof.is_running()
"""
    )
    options = ["-W", "ignore::DeprecationWarning"]  # of preexec_fn beside threads
    assert run_python(program, options=options, check=True, timeout=120).stderr == ""
