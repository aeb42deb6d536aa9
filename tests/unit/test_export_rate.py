"""Pushes that a server takes at once, and when the next one fits."""

from types import SimpleNamespace

import pytest

from pyprof.export import rate
from pyprof.export.rate import MAX_BYTES, Pace, pack
from pyprof.export.series import Series


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(rate, "time", clock)
    return clock


def packed(*sizes):
    parts = [Series(str(size), {}, b"", 0, 0) for size in sizes]
    return [[int(part.name) for part in push] for push in pack(parts, lambda part: int(part.name))]


def test_what_fits_together_is_one_push():
    assert packed() == []
    assert packed(10, 20) == [[10, 20]]
    assert packed(MAX_BYTES - 1, 1) == [[MAX_BYTES - 1, 1]]


def test_a_push_is_never_above_the_limit_unless_a_part_is():
    most = MAX_BYTES - 1
    assert packed(most, 1, 2, most, 1, 1) == [[most, 1], [2], [most, 1], [1]]
    assert packed(1, 3 * MAX_BYTES, 1) == [[1], [3 * MAX_BYTES], [1]]


def test_ordinary_windows_never_wait(clock):
    """Thirty of them at once, after an outage say."""
    pace = Pace()
    for _ in range(30):
        assert pace.wait(60_000) <= 0
        pace.spend(60_000)


def test_the_server_s_bucket_is_never_overdrawn(clock):
    """Whatever is pushed and whenever, a bucket of the documented size and rate has it."""
    pace, tokens, at = Pace(), 2 << 20, clock.now
    for number in range(200):
        size = (number * 7919 % 97) * MAX_BYTES // 96
        clock.now += max(0.0, pace.wait(size)) + number % 3 * 0.05
        tokens = min(2 << 20, tokens + (clock.now - at) * (4 << 20))
        at = clock.now
        assert size <= tokens
        tokens -= size
        clock.now += 0.01  # until the answer
        pace.spend(size)


def test_no_wait_is_longer_than_the_server_needs(clock):
    pace = Pace()
    assert pace.wait(MAX_BYTES) <= 0
    pace.spend(MAX_BYTES)
    assert pace.wait(MAX_BYTES) == pytest.approx(MAX_BYTES / (4 << 20))
    assert pace.wait(MAX_BYTES // 2) == pytest.approx(MAX_BYTES / (8 << 20), abs=1e-5)
    clock.now += MAX_BYTES / (4 << 20)
    assert pace.wait(MAX_BYTES) == pytest.approx(0)
