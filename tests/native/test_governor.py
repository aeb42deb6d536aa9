"""What a window and the counters say when the rate is lowered, and where CPU time goes that few ticks see.

Seen to fail, each with one line changed:
- wall time by the period that was asked for, or that as the window's: the effective period;
- the governor made anew when the thread starts again after a fork: there, where it resumes;
- CPU time that no tick placed charged to the last stack at which the clock had moved: the last test.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sampling is for Linux")

Run = Callable[..., Any]


@pytest.mark.parametrize("gilfree", [True, False])
def test_the_period_of_a_window_is_the_effective_one(engine: Run, gilfree: bool) -> None:
    found = engine(
        """
def burn_until(name, least):
    deadline = time.monotonic() + PATIENCE
    while _native.stats()[name] < least:
        assert time.monotonic() < deadline
        sum(range(1000))

clocks = time.thread_time_ns, time.monotonic_ns
outer = [clock() for clock in clocks]
start(period_ns=200_000, max_overhead=0.005, gilfree=json.loads(sys.argv[1]))
inner = [clock() for clock in clocks]
first = _native.stats()
burn_until("rate_changes", 3)
lowered = _native.stats()
_native.pause()
_native.resume()
burn_until("ticks", lowered["ticks"] + 2)
resumed = _native.stats()
burn_until("ticks", resumed["ticks"] + 300)
inner = [clock() - begin for clock, begin in zip(clocks, inner)]
_native.stop()
outer = [clock() - begin for clock, begin in zip(clocks, outer)]
window = _native.take()
total = [sum(sample.values[i] for sample in read(window.encode(
    [("samples", "count", _native.SAMPLES), ("cpu", "n", _native.CPU_NS), ("wall", "n", _native.WALL_NS)],
    period_type=("cpu", "n"), period=1)).samples) for i in range(3)]
answer(first=first["period_ns"], lowered=lowered["period_ns"], resumed=resumed["period_ns"],
       last=_native.stats()["period_ns"], ticks=_native.stats()["ticks"], total=total,
       inner=inner, outer=outer,
       period=window.period_ns, wanted=window.wanted_period_ns, duration=window.duration_ns)
""",
        json.dumps(gilfree),
    )
    wanted = 200_000
    assert (found["first"], found["wanted"], found["last"]) == (wanted, wanted, 0)
    assert found["lowered"] > 2 * wanted
    assert found["resumed"] > 2 * wanted, "a fork does not change the rate"
    assert found["period"] > 1.1 * wanted
    assert found["period"] * found["ticks"] == pytest.approx(found["duration"], rel=0.01)
    samples, cpu, wall = found["total"]
    assert samples == pytest.approx(found["ticks"], rel=0.1), "ticks, whatever the gaps between them"
    for measured, least, most in zip((cpu, wall), found["inner"], found["outer"], strict=True):
        assert 0.98 * least <= measured <= 1.02 * most


def test_what_no_tick_saw_on_a_cpu_goes_to_where_the_thread_had_used_most(engine: Run) -> None:
    """Where threads take turns and ticks are few, a window may end before any of them was seen on a CPU."""
    found = engine("""
def spin(ns):
    end = time.thread_time_ns() + ns
    while time.thread_time_ns() < end:
        pass

def wait_after_much():
    arrived.release()
    much.acquire()

def wait_after_little():
    arrived.release()
    little.acquire()

def work():
    begin.acquire()
    spin(20_000_000)
    wait_after_much()
    spin(1_000_000)
    wait_after_little()

def let_ticks_pass():
    end, deadline = _native.stats()["ticks"] + 4, time.monotonic() + PATIENCE
    while _native.stats()["ticks"] < end:
        assert time.monotonic() < deadline
        time.sleep(0.01)

answers = []
for _ in range(10):
    begin, much, little, arrived = (threading.Semaphore(0) for _ in range(4))
    thread = threading.Thread(target=work)
    thread.start()
    start(period_ns=200_000_000)
    for gate in begin, much:
        let_ticks_pass()
        gate.release()
        arrived.acquire()
    let_ticks_pass()
    seen, _ = stop()
    little.release()
    thread.join()
    cpu = {name: sum(values["cpu"] for frames, values in seen if any(f[0] == name for f in frames))
           for name in ("wait_after_much", "wait_after_little", "spin")}
    answers.append(cpu)
    if cpu["spin"] == 0 and cpu["wait_after_much"] + cpu["wait_after_little"] > 20_000_000:
        break
answer(cpu=cpu, answers=answers)
""")
    cpu = found["cpu"]
    assert cpu["spin"] == 0, f"ticks at 20 ms of 200 every time: {found['answers']}"
    assert cpu["wait_after_much"] >= 20_000_000
    assert cpu["wait_after_little"] == 0
