"""`with pyprof.profile() as p:` — with and without the continuous profiler, nested, failing, empty.

Seen to fail, each with one line changed:
- `__enter__` without its check: `test_entered_twice_…` and, by the threads left, all after it;
- `__exit__` returns True: `test_an_exception_passes_through_…`;
- `_profile` without its check: `test_there_is_no_result_before_the_end`;
- `profile` without a look at `_OPTIONS`: `test_a_bad_option_is_named`; without that at cpu and wall:
  `test_neither_cpu_nor_wall`; with `Config.load`: `test_the_environment_is_no_part_of_it`;
- `max_overhead` the smallest of all instead of the largest, not passed on, or 0.01 by default:
  `test_a_block_has_…`;
- windows for the last consumer only: `test_beside_…`, `test_nested_…`; the first one's rate instead of the
  highest: `test_beside_…`; `max_frames` not passed on: `test_max_frames_…`;
- `gil` of the first consumer for all: `test_the_gil_beside_…`; its types shown with or without `wall`:
  `test_the_parts_of_wall_time`.
"""

import gzip
import re
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyprof
from pyprof import _native, pprof

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
GIL_ON = ["wall", "gil_held", "gil_wait"]
GIL_TYPES = [] if FREE_THREADED else GIL_ON[1:]
MEMORY_TYPES = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="profiling is for Linux")


def burn(seconds: float = 0.05) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))


def first(seconds: float = 0.05) -> None:
    burn(seconds)


def second(seconds: float = 0.05) -> None:
    burn(seconds)


def cum(
    profile: pprof.Profile | pyprof.OneOff, function: Callable[..., object], sample_type: str = "cpu"
) -> float:
    """Seconds of the samples that have the function on their stack."""
    if isinstance(profile, pyprof.OneOff):
        profile = pprof.read(profile.pprof())
    name = f".{function.__qualname__}"
    rows = pprof.top(profile, sample_type)
    return sum(row.cum for row in rows if row.name.endswith(name)) / 1e9


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    yield
    pyprof.stop(flush=False)
    assert _native.own_threads() == 0


def test_without_the_continuous_profiler() -> None:
    with pyprof.profile() as p:
        assert not pyprof.is_running(), "that is said of start() only"
        first()
    assert _native.own_threads() == 0
    second()  # is in nobody's profile
    profile = pprof.read(p.pprof())
    assert [(t.type, t.unit) for t in profile.sample_types] == [
        ("samples", "count"), ("cpu", "nanoseconds"), ("wall", "nanoseconds"),
        *((kind, "nanoseconds") for kind in GIL_TYPES),
        *zip(MEMORY_TYPES, ["count", "bytes"] * 2, strict=True),
    ]  # fmt: skip
    assert profile.default_sample_type == "cpu"
    assert profile.period == 1_000_000
    assert cum(profile, first) == pytest.approx(0.05, abs=0.03)
    assert cum(profile, first, "wall") >= 0.03
    assert cum(profile, second) == 0
    assert 0.05e9 <= profile.duration_ns < 60e9
    assert abs(profile.time_ns - time.time_ns()) < 600e9


def test_beside_the_continuous_profiler(tmp_path: Path) -> None:
    """Both are complete and true: the continuous one does not count the faster ticks of the other twice."""
    pyprof.start(output=str(tmp_path / "all.pb.gz"), sample_rate=200)
    first(0.1)
    with pyprof.profile(sample_rate=1000) as p:
        second(0.1)
    assert pyprof.is_running()
    burn(0.1)
    pyprof.stop()
    assert cum(p, first) == 0
    assert cum(p, second) == pytest.approx(0.1, abs=0.04)
    assert pprof.read(p.pprof()).period == 1_000_000, "the faster of the two rates"
    continuous = pprof.read(tmp_path / "all.pb.gz")
    assert cum(continuous, first) == pytest.approx(0.1, abs=0.04)
    assert cum(continuous, second) == pytest.approx(0.1, abs=0.04)
    assert cum(continuous, burn) == pytest.approx(0.3, abs=0.06)


def burn_until_the_rate_changes(timeout: float = 60) -> None:
    before, end = pyprof.stats().rate_changes, time.monotonic() + timeout
    while pyprof.stats().rate_changes == before:
        assert time.monotonic() < end
        burn()


def test_a_block_has_its_rate_unless_it_says_otherwise() -> None:
    """The continuous profiler's limit does not hold for it, nor after it for the continuous one."""
    pyprof.start(exporter="none", sample_rate=1000, max_overhead=0.0001)
    burn_until_the_rate_changes()
    changes = pyprof.stats().rate_changes
    with pyprof.profile(sample_rate=1000) as p:
        burn(0.3)
        assert (pyprof.stats().sample_rate, pyprof.stats().rate_changes) == (1000, changes)
    burn_until_the_rate_changes()
    pyprof.stop()
    assert pyprof.stats().sample_rate == 0
    assert pprof.read(p.pprof()).period == 1_000_000

    with pyprof.profile(sample_rate=1000, max_overhead=0.0001) as p:
        burn_until_the_rate_changes()
        burn(0.3)
    profile = pprof.read(p.pprof())
    [line] = [line for line in profile.comments if line.startswith("engine ")]
    assert re.search(r", [\d.]+ Hz: lowered from 1000 Hz to keep pyprof's CPU within max_overhead$", line)
    assert profile.period > 1_000_000


def test_the_continuous_profiler_stops_inside_the_block(tmp_path: Path) -> None:
    pyprof.start(output=str(tmp_path / "all.pb.gz"), sample_rate=1000)
    with pyprof.profile() as p:
        first()
        pyprof.stop()
        second()
    assert cum(p, first) == pytest.approx(0.05, abs=0.03)
    assert cum(p, second) == pytest.approx(0.05, abs=0.03)
    assert cum(pprof.read(tmp_path / "all.pb.gz"), second) == 0


def test_nested_blocks_and_blocks_that_overlap() -> None:
    outer, inner, late = pyprof.profile(), pyprof.profile(sample_rate=2000), pyprof.profile(sample_rate=100)
    with outer:
        first()
        with inner:
            second()
            late.__enter__()
    burn()
    late.__exit__(None, None, None)
    assert cum(outer, first) == pytest.approx(0.05, abs=0.03)
    assert cum(outer, second) == pytest.approx(0.05, abs=0.03)
    assert cum(inner, first) == 0
    assert cum(inner, second) == pytest.approx(0.05, abs=0.03)
    assert cum(late, second) == 0
    assert cum(late, burn) == pytest.approx(0.05, abs=0.03)


def test_entered_twice_is_an_error_that_costs_nothing() -> None:
    p = pyprof.profile()
    with p:
        first()
        with pytest.raises(RuntimeError, match="make a new one"):
            p.__enter__()
        second()
    with pytest.raises(RuntimeError, match="make a new one"):
        p.__enter__()
    assert _native.own_threads() == 0
    assert cum(p, first) > 0.02
    assert cum(p, second) > 0.02


def test_an_exception_passes_through_and_the_profile_is_there() -> None:
    error = LookupError("of the application")
    p = pyprof.profile()

    def failing() -> None:
        with p:
            first()
            raise error

    with pytest.raises(LookupError) as caught:
        failing()
    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    assert cum(p, first) > 0.02


def test_leaving_by_a_generator_that_is_closed() -> None:
    def profiled() -> Any:
        with pyprof.profile() as p:
            first()
            yield p

    generator = profiled()
    p = next(generator)
    generator.close()
    assert cum(p, first) > 0.02


def test_in_a_thread_and_of_all_threads() -> None:
    """Entered in one thread, left in another; the block is the process's."""
    p = pyprof.profile()
    thread = threading.Thread(target=p.__enter__)
    thread.start()
    thread.join()
    worker = threading.Thread(target=second)
    worker.start()
    first()
    worker.join()
    p.__exit__(None, None, None)
    assert cum(p, first) == pytest.approx(0.05, abs=0.03)
    assert cum(p, second) == pytest.approx(0.05, abs=0.03)


def test_in_many_threads_at_once() -> None:
    shares: list[float] = []

    def block() -> None:
        for _ in range(3):
            with pyprof.profile() as p:
                first()
            shares.append(cum(p, first))

    threads = [threading.Thread(target=block) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shares) == 12
    assert sum(shares) > 12 * 0.05 / 2, (
        "the blocks saw their work, but for that beside a start of another one"
    )


@pytest.fixture(scope="module")
def taken() -> pyprof.OneOff:
    with pyprof.profile() as p:
        first(0.1)
        second(0.05)
    return p


def test_top_is_the_table(taken: pyprof.OneOff) -> None:
    lines = taken.top(10_000).splitlines()
    assert lines[0].split() == ["Flat", "Flat%", "Sum%", "Cum", "Cum%", "Name"]
    [row] = [line.split() for line in lines if line.endswith(".first")]
    assert 50 < float(row[-2].rstrip("%")) < 80
    assert len(taken.top(1).splitlines()) == 2
    assert "ms" in lines[1] or "s" in lines[1].split()[0]
    [row] = [
        line.split()
        for line in taken.top(10_000, sample_type="samples").splitlines()
        if line.endswith(".first")
    ]
    assert float(row[3]) >= 50
    with pytest.raises(pprof.ProfileError, match="samples, cpu, wall"):
        taken.top(sample_type="heap")


@pytest.mark.parametrize("name", ["x.pb.gz", "x.pb"])
def test_save_is_the_same_profile(taken: pyprof.OneOff, tmp_path: Path, name: str) -> None:
    taken.save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert data.startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert (gzip.decompress(data) if name.endswith(".gz") else data) == taken.pprof()
    saved = pprof.read(tmp_path / name)
    assert pprof.top(saved) == pprof.top(pprof.read(taken.pprof()))
    with pytest.raises(OSError, match="missing"):
        taken.save(tmp_path / "missing" / name)
    taken.save(str(tmp_path / name))  # replaces


def test_a_flame_graph(taken: pyprof.OneOff, tmp_path: Path) -> None:
    taken.flamegraph(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "test_one_off.first" in page
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"], "no temporary file is left"


def test_go_reads_it(taken: pyprof.OneOff, tmp_path: Path, require: Any, run_process: Any) -> None:
    go = require.tool("go")
    taken.save(tmp_path / "x.pb.gz")
    result = run_process(
        [go, "tool", "pprof", "-top", "-cum", "-sample_index=cpu", tmp_path / "x.pb.gz"], timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "Type: cpu" in result.stdout
    [row] = [line.split() for line in result.stdout.splitlines() if line.endswith(".first")]
    assert 50 < float(row[4].rstrip("%")) < 80


@pytest.mark.parametrize("method", ["pprof", "top", "save", "flamegraph"])
def test_there_is_no_result_before_the_end(method: str, tmp_path: Path) -> None:
    arguments = [tmp_path / "x.pb"] if method in ("save", "flamegraph") else []
    p = pyprof.profile()
    with pytest.raises(RuntimeError, match="complete when its block has ended"):
        getattr(p, method)(*arguments)
    with p, pytest.raises(RuntimeError, match="complete when its block has ended"):
        getattr(p, method)(*arguments)
    getattr(p, method)(*arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 0), ("sample_rate", "fast"), ("sample_rate", float("nan")), ("sample_rate", None),
        ("cpu", 1), ("wall", "yes"), ("max_frames", 0), ("max_frames", 1001), ("max_frames", 2.5),
        ("tags", {"a-b": "c"}), ("service_name", ""),
        ("exporter", "none"), ("output", "x"), ("server_url", "http://x"), ("sampel_rate", 5),
        ("memory", "heap"), ("memory_period", 0), ("memory_oom_threshold", 0.5),
        ("max_overhead", 0), ("max_overhead", 2),
    ],
)  # fmt: skip
def test_a_bad_option_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        pyprof.profile(**{name: value})  # type: ignore[arg-type]


def test_the_environment_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The options of the continuous profiler are not those of a block."""
    monkeypatch.setenv("PYPROF_SAMPLE_RATE", "7")
    monkeypatch.setenv("PYPROF_MAX_FRAMES", "1")
    monkeypatch.setenv("PYPROF_WALL", "off")
    with pyprof.profile(cpu=False) as p:
        first()
    profile = pprof.read(p.pprof())
    assert profile.period == 1_000_000
    assert [t.type for t in profile.sample_types] == ["samples", "wall", *GIL_TYPES, *MEMORY_TYPES]
    assert max(len(sample.locations) for sample in profile.samples) > 2


@pytest.mark.parametrize(
    ("options", "types"),
    [({"gil": False}, ["cpu", "wall"]), ({"wall": False}, ["cpu"]), ({"cpu": False, "gil": True}, GIL_ON)],
)
def test_the_parts_of_wall_time(options: dict[str, bool], types: list[str]) -> None:
    with pyprof.profile(**options) as p:
        first()
    assert [t.type for t in pprof.read(p.pprof()).sample_types] == ["samples", *types, *MEMORY_TYPES]


def test_the_gil_beside_a_profiler_that_does_not_ask(tmp_path: Path) -> None:
    pyprof.start(output=tmp_path, gil=False)
    with pyprof.profile(gil=True) as p:
        first()
    profile = pprof.read(p.pprof())
    held = cum(profile, first, "gil_held")
    assert held == 0 if FREE_THREADED else held > 0.5 * cum(profile, first, "wall") > 0


def test_max_frames_keeps_the_leaf_side() -> None:
    def deep(n: int) -> None:
        deep(n - 1) if n else first()

    with pyprof.profile(max_frames=5) as p:
        deep(20)
    profile = pprof.read(p.pprof())
    stacks = [[n for location in s.locations for n in location.names()] for s in profile.samples]
    mine = [stack for stack in stacks if any(name.endswith(".first") for name in stack)]
    assert mine
    assert all(stack[-1] == "[truncated]" and len(stack) <= 6 for stack in mine), mine


def test_an_empty_block(tmp_path: Path) -> None:
    with pyprof.profile(sample_rate=1) as p:
        pass
    profile = pprof.read(p.pprof())
    assert [t.type for t in profile.sample_types] == ["samples", "cpu", "wall", *GIL_TYPES, *MEMORY_TYPES]
    assert p.top().splitlines()[0].split()[0] == "Flat"
    p.save(tmp_path / "x.pb.gz")
    assert pprof.read(tmp_path / "x.pb.gz") == profile
    p.flamegraph(tmp_path / "x.html")
    assert (tmp_path / "x.html").stat().st_size > 1000


def test_neither_cpu_nor_wall() -> None:
    with pytest.raises(ValueError, match="cpu, wall and memory"):
        pyprof.profile(cpu=False, wall=False, memory="off")
