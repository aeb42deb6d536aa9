"""Large profiles go out in parts that servers take and that add up to the whole."""

import time

import pytest

from pyprof import _native, pprof
from pyprof.export.series import Series
from pyprof.export.split import MAX_SAMPLES, count_samples, split

MAX_BYTES = 2 << 20


def series(stacks: int, width: int = 20, depth: int = 2) -> Series:
    window = _native.Window(256 << 20)
    for number in range(stacks):
        stack = [
            (f"f{number}_".ljust(width, "x"), f"/srv/{number % 7}.py", 1, 1 + level) for level in range(depth)
        ]
        window.add(stack, samples=1, cpu_ns=number + 1)
    data = window.encode(
        [("samples", "count", _native.SAMPLES), ("cpu", "nanoseconds", _native.CPU_NS)],
        period_type=("cpu", "nanoseconds"),
        period=10,
        labels={"pid": 4711},
        comments=["c"],
    )
    return Series("process_cpu", {"service_name": "s"}, data, time.time_ns(), 10)


@pytest.mark.parametrize("stacks", [0, 1, 2, 300])
def test_samples_are_counted_as_they_are(stacks):
    assert count_samples(series(stacks).pprof) == stacks


@pytest.mark.parametrize("stacks", [1, 1000, 16_000])
def test_what_fits_is_sent_as_it_is(stacks):
    whole = series(stacks)
    assert list(split(whole, MAX_BYTES)) == [whole]


@pytest.mark.parametrize(
    ("stacks", "width"), [(16_001, 8), pytest.param(40_000, 8, marks=pytest.mark.slow), (9_000, 400)]
)
def test_parts_fit_and_add_up(stacks, width):
    whole = series(stacks, width)
    parts = list(split(whole, MAX_BYTES))
    assert len(parts) >= 2
    read = [pprof.read(part.pprof) for part in parts]
    for part, profile in zip(parts, read, strict=True):
        assert len(part.pprof) <= MAX_BYTES
        assert len(profile.samples) <= MAX_SAMPLES
        assert (part.name, part.labels) == (whole.name, whole.labels)
        assert profile.comments == ["c"]
    assert len({profile.time_ns // 1_000_000 for profile in read}) == len(parts)
    both, original = pprof.merge(read), pprof.read(whole.pprof)
    for kind in ("samples", "cpu"):
        assert both.total(kind) == original.total(kind)
    assert len(both.samples) == stacks


def test_samples_are_not_split():
    parts = list(split(series(3), 10))
    assert [len(pprof.read(part.pprof).samples) for part in parts] == [1, 1, 1]


@pytest.mark.parametrize(
    "broken", [b"\x12\x00" * 2_000_000, series(2, width=3 << 20).pprof], ids=["junk", "name"]
)
def test_what_cannot_be_read_goes_out_as_it_is(broken):
    whole = Series("process_cpu", {}, broken, 0, 0)
    assert list(split(whole, MAX_BYTES)) == [whole]
