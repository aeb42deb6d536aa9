"""CPU shares, totals and wall time of single programs.

Seen to fail: under the naive sampler of `programs/recording.py` (a Python thread, `sys._current_frames`, the
clock's delta charged to whatever the tick finds) `burst`, `gil_held` and `foreign_threads` fail as the tests
at the end assert; so does `lockstep` at 100 Hz (99.9 % and 0 % for 70 and 30). With ticks that are taken
however late they come, `lockstep` on one CPU is 3 to 4 points off; up to 0.3 ms late, 2 to 3. With a timer
that attaches when it finds the GIL free once, `releases` loses 10 to 40 % of the CPU time in every third run
(3.12). With late snapshots that place only what was asked for, `gil_held` is 2 to 4 points off in every third
run under `current_frames` (one CPU); with who has the GIL taken for who had the CPU until then, `preempted`
is 6 to 8. With slow guarded reads, and what they give up not left to `current_frames`, `short_calls` is up to
29 points off with several CPUs.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Record
from .reading import ENGINE, FREE_THREADED, Recording, record

MISSED = 0.1


def check_ratio(recording: Recording, names: list[str], points: float) -> None:
    """The first one's share of what they measure: starting and ending is in the profile, but in no truth."""
    shares = [recording.share_errors()[f"__main__.{name} (cum)"] for name in names]
    measured, true = (values[0] / sum(values) for values in zip(*shares, strict=True))
    assert measured == pytest.approx(true, abs=points / 100), shares


def check_by_chance(run: Callable[[], Recording], points: float) -> None:
    """Check shares that rest on independent ticks: again where the machine was busy.

    Where other processes keep the timer from its CPU, the ticks missed in between leave the next one several
    gaps of CPU time: fewer samples of very unequal weight, for which the tests' standard deviations are not
    valid.
    """
    for _ in range(3):
        recording = run()
        stats = recording.truth["notes"]["stats"]
        if stats["missed"] <= MISSED * stats["ticks"]:
            break
    recording.check(points)


pytestmark = pytest.mark.accuracy


@pytest.mark.parametrize("rate", [100, 1000])
def test_bursts_are_charged_to_the_function_that_burns(recorded: Record, rate: int) -> None:
    # At 100 Hz some 400 ticks find a thread on a CPU; what is not the burst (going to sleep, waking up) takes
    # 1 % of the CPU, so 4 ticks of 0.25 points on average: two points more are 12 ticks.
    recorded("burst", sample_rate=rate).check()


def test_three_threads_in_a_known_ratio_beside_twenty_idle_ones(recorded: Record) -> None:
    # Each thread has one phase: at most one gap a thread at its end, 10 ms of 3.6 s.
    recording = recorded("threads")
    recording.check()
    wall = recording.profile.cum("wall")
    notes = recording.truth["notes"]
    assert wall["__main__.lonely"] / 1e9 == pytest.approx(notes["lonely_wall"], rel=0.02)
    assert wall["__main__.idle"] / 1e9 == pytest.approx(19 * notes["idle_wall"], rel=0.02)
    assert wall["__main__.run"] / 1e9 == pytest.approx(recording.truth["elapsed"], rel=0.02)


def test_many_threads_that_hardly_run(recorded: Record) -> None:
    # They move at every tick, and not all are read: two standard deviations are some 3 %.
    recording = recorded("many_waiting", sample_rate=100)
    wall = recording.profile.cum("wall")
    for name, seconds in recording.truth["notes"]["waited"].items():
        assert wall[f"__main__.{name}"] / 1e9 == pytest.approx(seconds, rel=0.05), name


def test_two_tasks_on_one_loop(recorded: Record) -> None:
    # 32 borders of a 2 ms gap in 2.4 s: 0.2 points.
    recorded("tasks", sample_rate=500).check()


def test_nested_generators(recorded: Record) -> None:
    # 60 borders of a 2 ms gap in 2 s: 0.3 points.
    recording = recorded("generators", sample_rate=500)
    recording.check()
    leaves = recording.profile.where(lambda stack: stack.frames[0].name == "__main__.leaf")
    callers = {tuple(frame.name for frame in stack.frames[:5]) for stack in leaves.stacks}
    assert callers == {
        ("__main__.leaf", "__main__.delegating", "__main__.middle", "__main__.outer", "__main__.run")
    }


def test_functions_of_microseconds(recorded: Record) -> None:
    # 6,000 ticks: 0.5 points of chance. Where a stack that moves while it is read is given up for the next
    # that does not, which functions lose depends on how they are called: up to 20 points with several CPUs.
    # What generators call lacks 2 to 3 where a cache line takes some 300 ns from one CPU to another.
    recording = recorded("short_calls", sample_rate=1000)
    recording.check(points=100)
    names = ["directly", "deeper", "generated", "expressed", "awaited"]
    for name in names:
        check_ratio(recording, [name, *(other for other in names if other != name)], points=4)


def test_c_calls_that_hold_the_gil(recorded: Record) -> None:
    # 390 borders of a 1 ms gap in 2.6 s: 0.3 points.
    recorded("gil_held", sample_rate=1000).check()


def test_c_calls_that_hold_the_gil_for_about_one_period(recorded: Record) -> None:
    # Calls of about 5, 12 and 3 ms at a 2.5 ms gap; a call's end is a border: 750 of them in 5 s, 0.5 points.
    recorded("gil_held", sample_rate=400).check()


def test_c_calls_that_release_the_gil_in_two_threads(recorded: Record) -> None:
    # 32 borders of a 2 ms gap in 2.8 s: 0.2 points.
    recorded("gil_released", sample_rate=500).check()


def test_threads_that_take_the_cpu_from_each_other(recorded: Record) -> None:
    # 5,000 ticks: 0.7 points of chance; and 1 of bias with one CPU, since ticks are among what makes the
    # kernel go on with another thread. Where who has the GIL is taken for who has the CPU, or who runs
    # while the timer naps for who did before, C code lacks 3 to 9 points. With gaps of half a period at
    # least, what takes less after a clock call has half of its share. The fallback places only what stays on
    # its CPU until the GIL is free: C code lacks 1 to 2 points more.
    recorded("preempted", sample_rate=1000).check(points=3 if ENGINE == "gilfree" else 5)


def test_threads_that_release_the_gil_all_the_time(recorded: Record) -> None:
    # 4,000 ticks: 0.7 points of chance. A sampler that gets the GIL only when somebody lets go of it of its
    # own accord is 40 off; one that takes a thread which was just woken for the GIL for one that runs is 20
    # off beside other processes. The fallback gets a GIL that is just passed on more often than one in use.
    # The last moments before a thread blocks are seen less than others: 1 to 2.6 of 2 to 3.5 points.
    recorded("releases", sample_rate=1000).check(points=3.5 if ENGINE == "gilfree" else 4)


def test_a_loop_in_lock_step_with_the_sampler(recorded: Record) -> None:
    # 6,500 independent ticks: 2 points are 3.5 standard deviations.
    check_by_chance(lambda: recorded("lockstep", sample_rate=1000), points=2)


def test_threads_that_threading_does_not_know(recorded: Record) -> None:
    # One phase a thread: at most one gap each, 10 ms of 1.8 s.
    recorded("foreign_threads").check()


def test_threads_that_end_before_the_next_tick(recorded: Record) -> None:
    # What a thread used after its last sample is an estimate: for 900 threads it has a standard deviation of
    # 0.4 gaps x 30, 12 ms of 3.2 s. Ticks that come while threads begin and end are later than others: where
    # they take a thread that had not begun when they were due, the brief ones' share is 2 to 3 points too
    # high with one CPU and the total 4 to 6 %. Without the estimate a third of their time is lost.
    recording = recorded("thread_churn", sample_rate=1000)
    recording.check(points=100, percent=4)
    check_ratio(recording, ["brief", "longer"], points=2)


def test_threads_that_end_before_the_next_tick_in_code_without_the_gil(recorded: Record) -> None:
    # About 800 hits: 2 points and 4 %. Where a thread from which the timer has the CPU is not taken for one
    # that was on it, C code lacks two thirds of its time. Where it is as likely on a CPU as all threads that
    # have just begun or use little, the main thread among them: 5 points, and 12 % of the total (one CPU).
    recording = recorded("thread_churn_in_c", sample_rate=250)
    recording.check(points=100, percent=15)
    check_ratio(recording, ["in_python", "in_c"], points=8)


def test_many_threads_that_want_a_cpu_and_end(recorded: Record) -> None:
    # An end is an estimate: where all that are attached are taken to be on a CPU, and charged a gap each, the
    # total was 15 % too large in one of four runs (3.14t).
    recorded("crowd_ends", sample_rate=20).check(points=100, percent=4)


def test_deep_recursion_keeps_the_leaves_under_a_visible_root(recorded: Record) -> None:
    recording = recorded("deep", max_frames=64)
    recording.check()
    deep = recording.profile.where(lambda stack: stack.frames[0].name == "__main__.bottom")
    for stack in deep.stacks:
        names = [frame.name for frame in stack.frames]
        # The clock that the leaf reads is one of the 64.
        assert names in (
            ["__main__.bottom", *["__main__.descend"] * rest, "[truncated]"] for rest in (62, 63)
        )
    shallow = recording.profile.where(lambda stack: stack.frames[0].name == "__main__.shallow")
    assert "[truncated]" not in shallow.cum()


@pytest.mark.slow
def test_the_naive_sampler_charges_the_sleeper(tmp_path: Path) -> None:
    recording = record("burst", tmp_path, sampler="naive", sample_rate=100)
    measured, true = recording.share_errors()["__main__.rest (flat)"]
    assert true < 5
    assert measured > 20
    with pytest.raises(AssertionError, match=r"__main__\.rest"):
        recording.check()


@pytest.mark.slow
@pytest.mark.skipif(FREE_THREADED, reason="nobody waits for a GIL here, so that the naive sampler is right")
def test_the_naive_sampler_charges_the_wrong_c_call(tmp_path: Path) -> None:
    # Which call it favours depends on how the machine's switch interval meets the calls' lengths.
    def is_right() -> bool:
        errors = record("gil_held", tmp_path, sampler="naive", sample_rate=1000).share_errors()
        return all(abs(measured - true) <= 2 for measured, true in errors.values())

    assert not all(is_right() for _ in range(3))


@pytest.mark.slow
def test_the_naive_sampler_misses_foreign_threads(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"__main__\.from_c|no CPU time"):
        record("foreign_threads", tmp_path, sampler="naive", sample_rate=100).check()
