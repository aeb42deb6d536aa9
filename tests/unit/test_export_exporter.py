"""The exporter's thread: what flush and stop promise, whatever a target does."""

import threading
import time

from pyprof import _native
from pyprof.export.exporter import Exporter
from pyprof.export.target import Outcome

from .exporting import Target, encode


def test_windows_are_delivered_in_order_and_counted(setup):
    s = setup()
    s.exporter.start()
    s.ring.push("a", "b")
    assert s.exporter.flush(30)
    s.ring.push("c")
    assert s.exporter.flush(30)
    assert s.delivered == [b"a", b"b", b"c"]
    counters = s.exporter.counters
    assert (counters.uploads, counters.uploaded_bytes, counters.upload_failures, counters.undelivered) == (
        3,
        30,
        0,
        0,
    )


def test_a_window_pushed_while_an_empty_ring_is_looked_at_is_not_left_there(setup):
    """Seen to fail with an order to end that is looked for after the ring was."""
    s = setup()
    target, ring = s.target, s.ring
    looked, answer = threading.Event(), threading.Event()

    def take(timeout):
        window = ring.take(timeout)
        if window is None and not looked.is_set():
            looked.set()
            assert answer.wait(30)
        return window

    exporter = Exporter([target], take, encode, timeout=30, wake=lambda: (answer.set(), ring.wake()))
    exporter.start()
    ring.wake()
    assert looked.wait(30)
    ring.push("last")
    assert exporter.stop(30)  # wakes the thread after it has told it to end
    assert len(target.sent) == 1
    assert exporter.counters.undelivered == 0


def test_each_target_gets_its_layout_and_an_idle_interval_nothing(setup):
    server, files = Target(), Target(combined=True)
    files.stores = True
    s = setup(server, files)
    s.exporter.start()
    s.ring.push("a")
    assert s.exporter.flush(30)
    assert [series.name for series in server.sent] == ["process_cpu"]
    assert [series.name for series in files.sent] == ["profile"]
    assert (s.exporter.counters.uploads, s.exporter.counters.files_written) == (1, 1)


def test_flush_is_false_when_a_profile_was_lost(setup):
    s = setup()
    s.target.outcome = Outcome(False, "down", retriable=True)
    s.exporter.start()
    s.ring.push("a")
    assert not s.exporter.flush(30, lost_before=0)  # the thread may have taken it before the call
    s.target.outcome = Outcome(True)
    s.ring.push("b")
    assert s.exporter.flush(30)
    assert s.exporter.counters.undelivered == s.exporter.counters.upload_failures == 1


def test_flush_is_bounded(setup):
    s = setup()
    s.target.hang = True
    s.exporter.start()
    s.ring.push("a")
    begin = time.monotonic()
    assert not s.exporter.flush(0.2)
    assert time.monotonic() - begin < 10


def test_flush_without_a_thread_is_false(setup):
    assert not setup().exporter.flush(5)


def test_flushes_from_many_threads(setup):
    s = setup()
    s.exporter.start()
    results = []

    def ask():
        for number in range(20):
            s.ring.push(number)
            results.append(s.exporter.flush(60))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert results == [True] * 80
    assert len(s.delivered) == 80


def test_stop_delivers_what_is_there_and_closes(setup):
    s = setup()
    s.exporter.start()
    s.ring.push("a", "b", "c")
    assert s.exporter.stop(30)
    assert s.delivered == [b"a", b"b", b"c"]
    assert s.target.closed == 1
    assert not s.exporter.running


def test_stop_cuts_an_upload_when_the_time_is_over(setup, caplog):
    s = setup(timeout=600)
    s.exporter.start()
    s.target.hang = True
    s.ring.push("a", "b")
    assert s.target.sending.wait(30)
    begin = time.monotonic()
    assert s.exporter.stop(0.5)
    assert time.monotonic() - begin < 10
    assert s.exporter.counters.undelivered == 2
    assert [r.getMessage() for r in caplog.records] == [
        "pyprof: 2 profiles lost: the time for the last upload (option exit_timeout) was over"
    ]


def test_an_upload_that_begins_while_stopping_gets_what_is_left(setup):
    s = setup(timeout=600)
    s.target.hang = True
    s.exporter.start()
    s.ring.push("a")
    end = time.monotonic() + 1
    s.exporter.stop(1)
    assert s.target.deadlines
    assert min(s.target.deadlines) <= end + 600
    assert s.exporter.counters.undelivered == 1


def test_stop_comes_back_even_where_nothing_can_be_cut(setup):
    s = setup()
    s.target.deaf = True
    s.exporter.start()
    s.ring.push("a")
    assert s.target.sending.wait(30)
    begin = time.monotonic()
    assert not s.exporter.stop(0.3)
    assert time.monotonic() - begin < 10


def test_stop_at_once_delivers_nothing(setup):
    s = setup()
    s.exporter.start()
    assert s.exporter.flush(30)
    s.exporter.pause()
    s.ring.push("a")
    s.target.hang = True
    s.exporter.start()
    begin = time.monotonic()
    s.exporter.stop(0)
    assert time.monotonic() - begin < 10
    assert s.delivered == []


def test_stop_twice_and_start_again(setup):
    s = setup()
    for number in range(3):
        s.exporter.start()
        s.exporter.start()
        s.ring.push(number)
        assert s.exporter.stop(30)
        assert s.exporter.stop(30)
    assert s.delivered == [b"0", b"1", b"2"]


def test_stop_without_a_thread_delivers_in_the_caller_s(setup):
    """After `pause`, at the interpreter's exit, where no thread can be started."""
    s = setup()
    s.exporter.start()
    assert s.exporter.pause(30)
    before = _native.native_threads()
    s.ring.push("a", "b")
    assert s.exporter.stop(30)
    assert s.delivered == [b"a", b"b"]
    assert _native.native_threads() == before


def test_a_fault_is_logged_once_and_ends_nothing(setup, caplog):
    s = setup()
    s.exporter.start()
    s.ring.push(ValueError("no encoding"), ValueError("no encoding"), "a")
    assert not s.exporter.flush(30)
    s.target.error = RuntimeError("bug")
    s.ring.push("b", "c")
    assert not s.exporter.flush(30)
    s.target.error = None
    s.ring.push("d")
    assert s.exporter.flush(30)
    assert s.delivered == [b"a", b"d"]
    assert [r.getMessage() for r in caplog.records] == [
        "pyprof: a profile for server could not be made or sent: ValueError: no encoding",
        "pyprof: a profile for server could not be made or sent: RuntimeError: bug",
    ]
    assert s.exporter.counters.undelivered == 4


def test_a_broken_ring_does_not_spin(setup, caplog):
    calls = []

    def take(timeout):
        calls.append(timeout)
        raise OSError("no ring")

    s = setup()
    exporter = Exporter(s.targets, take, encode, timeout=1, wake=lambda: None)
    exporter.start()
    assert not exporter.flush(0.3)
    assert exporter.pause(30)
    assert len(calls) <= 5
    assert len(caplog.records) == 1
