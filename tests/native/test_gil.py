"""Who holds the GIL and who waits for it, where that is hard to tell or cannot be told.

Seen to fail:
- threads that have not moved said not to wait: with a long switch interval 14 ms of 6 s are left;
- no thread standing for others: forty wait 8 % of their time, not 88;
- no look whether the kernel answers: nothing says why waiting is missing.
"""

import sys
import sysconfig
from typing import Any

import pytest

from pyprof import _native

from ..engine import Run

pytestmark = [
    pytest.mark.skipif(not _native.SUPPORTED, reason="sampling is for Linux"),
    pytest.mark.skipif(
        bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="there is no GIL to hold or to wait for"
    ),
]

NAMES_WAITERS = sys.version_info >= (3, 15)
"""Thread states say who waits: the kernel has to be asked for little."""

BURN = """
gate, opening = os.pipe()  # who comes through one wants nothing but the GIL

def burn():
    os.read(gate, 1)
    while time.monotonic() < end:
        for _ in range(200):
            pass

def burning(count, **options):
    global end
    threads = [threading.Thread(target=burn) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    start(**options)
    end = time.monotonic() + float(sys.argv[1])
    os.write(opening, b"x" * 100)
    for thread in threads:
        thread.join()

def parts_of(seen, function):
    own = [values for frames, values in seen if any(name == function for name, _, _ in frames)]
    return {kind: sum(values[kind] for values in own) for kind in ("wall", "gil_held", "gil_wait")}

def parts():
    return parts_of(stop()[0], "burn")
"""


def check_turns(parts: dict[str, int], threads: int) -> None:
    """One of the threads holds the GIL and all others wait for it, but for the time it takes to pass on."""
    assert parts["gil_held"] == pytest.approx(parts["wall"] / threads, rel=0.15)
    assert parts["gil_wait"] == pytest.approx(parts["wall"] * (threads - 1) / threads, rel=0.15)


def test_who_has_not_moved_still_waits(engine: Run) -> None:
    # For three seconds a thread that waits does nothing at all.
    program = BURN + "sys.setswitchinterval(3); burning(2); answer(**parts())"
    check_turns(engine(program, "6"), 2)


def test_more_threads_than_can_be_asked(engine: Run) -> None:
    check_turns(engine(BURN + "burning(40); answer(**parts())", "4"), 40)


BESIDE_C = """
import hashlib

def derive():
    "Ready to run without the GIL, for ever: nobody can tell where it stands when it has no CPU."
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 10**9)

def nap():
    os.read(gate, 1)
    while time.monotonic() < end:
        time.sleep(0.001)

for _ in range(2 + os.cpu_count()):
    threading.Thread(target=derive, daemon=True).start()
napping = [threading.Thread(target=nap) for _ in range(40)]
for thread in napping:
    thread.start()
burning(1)
for thread in napping:
    thread.join()
seen, _ = stop()
answer(**{name: parts_of(seen, name) for name in ("derive", "nap", "burn")})
"""


def test_some_stand_for_others_where_more_have_run_than_can_be_asked(engine: Run) -> None:
    # After a millisecond each of forty waits for one that computes for five. At 1000 Hz one is asked a tick.
    found = engine(BURN + BESIDE_C, "5")
    nap, burn = found["nap"], found["burn"]
    assert nap["gil_wait"] / nap["wall"] == pytest.approx(burn["gil_held"] / burn["wall"], abs=0.3)
    assert found["derive"]["gil_wait"] < 0.02 * found["derive"]["wall"]


UNREADABLE = """
from pyprof.pprof.proto import profile_messages
profile_messages()  # what is imported has to be found before
prctl = ctypes.CDLL(None).prctl
PR_SET_DUMPABLE = 4

def become_untraceable():
    "As a server does that gives up root: what /proc tells the owner of a process only, root owns now."
    if os.geteuid() == 0:
        os.setuid(65534)
    prctl(PR_SET_DUMPABLE, 0)
"""


def told(found: dict[str, Any]) -> bool:
    obstacle = found["stats"]["gil_wait_obstacle"]
    assert obstacle is None or "/proc/self/task/*/syscall" in obstacle
    return obstacle is None


def test_where_the_kernel_does_not_answer(engine: Run) -> None:
    found = engine(
        BURN + UNREADABLE + "become_untraceable(); burning(2); answer(stats=_native.stats(), **parts())",
        "2",
    )
    assert told(found) == NAMES_WAITERS
    assert found["gil_held"] == pytest.approx(found["wall"] / 2, rel=0.1)
    if NAMES_WAITERS:
        check_turns(found, 2)


def test_where_it_ceases_to(engine: Run) -> None:
    found = engine(
        BURN
        + UNREADABLE
        + """
start()
become_untraceable()
end = time.monotonic() + 2
threads = [threading.Thread(target=burn) for _ in range(2)]
for thread in threads:
    thread.start()
os.write(opening, b"xx")
for thread in threads:
    thread.join()
answer(stats=_native.stats(), **parts())
"""
    )
    assert told(found) == NAMES_WAITERS


def test_nobody_asks_where_it_is_not_wanted(engine: Run) -> None:
    found = engine(BURN + "burning(2, gil=False); answer(stats=_native.stats(), **parts())", "1")
    assert (found["gil_held"], found["gil_wait"]) == (0, 0)
    assert found["stats"]["untold_gil_ns"] == 0
