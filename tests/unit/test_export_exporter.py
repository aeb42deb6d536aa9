"""The exporter's thread: what flush, stop and pause promise, whatever a target does."""

import os
import threading
import time
from collections import deque

import pytest

from pyprof import _native
from pyprof.export.exporter import Exporter
from pyprof.export.series import Series
from pyprof.export.target import Outcome


class Ring:
    """Stands for the native ring: the same `take` and `wake`, filled from Python."""

    def __init__(self):
        self.windows = deque()
        self._changed = _native.Event()

    def push(self, *windows):
        self.windows.extend(windows)
        self.wake()

    def wake(self):
        self._changed.set()

    def take(self, timeout):
        if not self.windows:
            self._changed.wait(timeout)
        self._changed.clear()
        return self.windows.popleft() if self.windows else None


class Target:
    """Keeps what it is sent; may be made to fail, to raise, or to hang until it is cut."""

    stores = False
    imports = "log"

    def __init__(self, name="server", combined=False):
        self.name, self.combined = name, combined
        self.sent = []
        self.outcome = Outcome(True, bytes=10)
        self.error = None
        self.hang = self.deaf = False
        self.sending = threading.Event()
        self.ended = threading.Event()
        self.deadlines = []
        self.closed = 0
        self._cut = threading.Event()

    def prepare(self):
        return self.outcome

    def send(self, series, deadline):
        self.deadlines.append(deadline)
        self.sending.set()
        if self.deaf:  # like a look-up of a host's name
            self.ended.wait(60)
        elif self.hang:
            self._cut.wait(max(0, min(60, deadline - time.monotonic())))
        if self._cut.is_set():
            return Outcome(False, "given up", cut=True)
        if self.hang:
            return Outcome(False, "late", retriable=True)
        if self.error:
            raise self.error
        self.sent.extend(series)
        return self.outcome

    def cut(self):
        self._cut.set()

    def resume(self):
        self._cut.clear()

    def after_fork_child(self):
        self._cut.clear()

    def close(self):
        self.closed += 1


def encode(window, combined):
    if isinstance(window, Exception):
        raise window
    if window is None:
        return []
    return [Series("profile" if combined else "process_cpu", {}, str(window).encode(), 0, 0)]


class Setup:
    def __init__(self, *targets, timeout=30.0):
        self.ring = Ring()
        self.targets = targets or (Target(),)
        self.target = self.targets[0]
        self.exporter = Exporter(self.targets, self.ring.take, encode, timeout=timeout, wake=self.ring.wake)

    @property
    def delivered(self):
        return [series.pprof for series in self.target.sent]


@pytest.fixture
def setup():
    setups = []

    def make(*targets, **keywords):
        setups.append(Setup(*targets, **keywords))
        return setups[-1]

    yield make
    for one in setups:
        for target in one.targets:
            target.ended.set()
        deadline = time.monotonic() + 30
        while not one.exporter.stop(0):  # False as long as a thread that was left behind has not ended
            assert time.monotonic() < deadline
            time.sleep(0.01)


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
    assert not s.exporter.flush(30)
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


def test_pause_cuts_and_keeps_the_window(setup):
    s = setup(timeout=600)
    s.target.hang = True
    s.exporter.start()
    s.ring.push("a", "b")
    assert s.target.sending.wait(30)
    begin = time.monotonic()
    assert s.exporter.pause(30)
    assert time.monotonic() - begin < 10
    assert s.delivered == []
    s.target.hang = False
    s.exporter.start()
    assert s.exporter.flush(30)
    assert s.delivered == [b"a", b"b"]
    assert s.exporter.counters.undelivered == 0


def test_what_one_target_has_is_not_sent_to_it_again_after_a_pause(setup):
    first, second = Target("first"), Target("second")
    s = setup(first, second, timeout=600)
    second.hang = True
    s.exporter.start()
    s.ring.push("a")
    assert second.sending.wait(30)
    assert s.exporter.pause(30)
    second.hang = False
    s.exporter.start()
    assert s.exporter.flush(30)
    assert (len(first.sent), len(second.sent)) == (1, 1)


def test_the_thread_is_gone_after_a_pause(setup):
    s = setup()
    before = _native.native_threads()
    for _ in range(20):
        s.exporter.start()
        assert _native.native_threads() == before + 1
        assert s.exporter.pause(30)
        deadline = time.monotonic() + 10
        while (
            _native.native_threads() != before
        ):  # the kernel takes a joined thread off its list a moment later
            assert time.monotonic() < deadline


@pytest.mark.parametrize("pauses", [1, 2])
def test_a_start_while_the_paused_thread_cannot_end(pauses, setup):
    """Two threads would talk over one connection; the second pause ends one that was only waiting."""
    s = setup()
    s.target.deaf = True
    s.exporter.start()
    s.ring.push("a", "b")
    assert s.target.sending.wait(30)
    s.target.sending.clear()
    for _ in range(pauses):
        assert not s.exporter.pause(0.1)
        s.exporter.start()
    assert not s.target.sending.wait(0.2)
    s.target.deaf = False
    s.target.ended.set()
    assert s.exporter.flush(30)
    assert s.delivered == [b"a", b"b"]


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


# The process that runs the tests has threads of its own, whatever ours do.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_after_a_fork_the_child_has_its_own(setup):
    """The child goes on with a new thread and nothing of the parent's; the parent is not disturbed."""
    s = setup(timeout=600)
    s.target.hang = True
    s.exporter.start()
    s.ring.push("a")
    assert s.target.sending.wait(30)
    assert s.exporter.pause(30)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            s.target.hang = False
            s.exporter.after_fork_child()
            s.exporter.start()
            s.ring.push("child")
            good = s.exporter.flush(30) and s.delivered == [b"child"] and s.exporter.counters.uploads == 1
            os.write(write, b"1" if good else b"0")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"1"
    os.waitpid(child, 0)
    s.target.hang = False
    s.exporter.start()
    assert s.exporter.flush(30)
    assert s.delivered == [b"a"]
