"""The exporter around a fork: what pause promises, whatever a target does, and what the child begins with.

Seen to fail where `Delivery` sends again whatever was cut: `test_what_was_handed_over_is_not_sent_again`.
"""

import os
import time

import pytest

from pyprof import _native

from .exporting import Target


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


def test_what_was_handed_over_is_not_sent_again(setup):
    """The answer would have come; the server does not notice what it gets twice."""
    s = setup(timeout=600)
    s.target.hang = s.target.hands_over = True
    s.exporter.start()
    s.ring.push("a", "b")
    assert s.target.sending.wait(30)
    assert s.exporter.pause(30)
    s.target.hang = False
    s.exporter.start()
    assert s.exporter.flush(30)
    assert s.delivered == [b"a", b"b"]
    counters = s.exporter.counters
    assert (counters.uploads, counters.unconfirmed, counters.uploaded_bytes) == (2, 1, 20)
    assert counters.undelivered == counters.upload_failures == 0


@pytest.mark.parametrize("paused", [False, True])
def test_what_was_handed_over_at_the_end(paused, setup, messages):
    """Cut by the end it is lost as far as anybody knows; cut by a fork before that it is not."""
    s = setup(timeout=600)
    s.target.hang = s.target.hands_over = True
    s.exporter.start()
    s.ring.push("a")
    assert s.target.sending.wait(30)
    if paused:
        assert s.exporter.pause(30)
    assert s.exporter.stop(0.5 if not paused else 30)
    assert s.delivered == [b"a"]
    counters = s.exporter.counters
    assert (counters.uploads, counters.unconfirmed, counters.undelivered) == (paused, paused, not paused)
    assert len(messages()) == (not paused)


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
