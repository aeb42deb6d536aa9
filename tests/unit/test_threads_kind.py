"""`Profiler.threads()`: all threads, greenlets and tasks, with what each awaits."""

import asyncio
import contextvars
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyprof
from pyprof.collectors import tasks
from pyprof.pprof import read

AWAITING = 0.05


@pytest.fixture
def profiler(tmp_path: Path) -> Iterator[pyprof.Profiler]:
    yield pyprof.start(output=tmp_path, memory=False)
    pyprof.stop()


def found(profiler: pyprof.Profiler, **options: Any) -> list[tuple[list[str], dict[str, Any], int]]:
    """Names of the frames, leaf first, text labels, and how many."""
    profile = read(profiler.threads(**options).pprof())
    assert [(one.type, one.unit) for one in profile.sample_types] == [("threads", "count")]
    return [
        (
            [
                line.function.name.rpartition(".")[2]
                for location in sample.locations
                for line in location.lines
            ],
            {label.key: label.value for label in sample.labels if isinstance(label.value, str)},
            sample.values[0],
        )
        for sample in profile.samples
    ]


async def sleeps() -> None:
    await asyncio.sleep(60)


async def awaits_coroutine() -> None:
    await sleeps()


@types.coroutine
def generator() -> Generator[Any, Any, None]:
    yield from sleeps().__await__()


class Wrapped:
    def __await__(self) -> Generator[Any, Any, None]:
        return sleeps().__await__()


class Own:
    def __await__(self) -> Generator[Any, Any, None]:
        yield from generator()  # type: ignore[misc]


async def items() -> AsyncIterator[int]:
    await sleeps()
    yield 1


async def iterates() -> None:
    async for _ in items():
        pass


async def takes(awaitable: Awaitable[Any]) -> None:
    await awaitable


EXPECTED = {
    "coroutine": ["sleep", "sleeps", "awaits_coroutine"],
    "generator": ["sleep", "sleeps", "generator", "takes"],
    "wrapped": ["sleep", "sleeps", "takes"],
    "own": ["sleep", "sleeps", "generator", "__await__", "takes"],
    "iteration": ["sleep", "sleeps", "items", "iterates"],
    "future": ["takes"],
}


def begin_all() -> list["asyncio.Task[None]"]:
    coroutines = {
        "coroutine": awaits_coroutine(),
        "generator": takes(generator()),  # type: ignore[arg-type]
        "wrapped": takes(Wrapped()),
        "own": takes(Own()),
        "iteration": iterates(),
        "future": takes(asyncio.get_running_loop().create_future()),
    }
    assert coroutines.keys() == EXPECTED.keys()
    return [asyncio.create_task(coroutine, name=name) for name, coroutine in coroutines.items()]


async def end_all(every: list["asyncio.Task[None]"]) -> None:
    for task in every:
        task.cancel()
    await asyncio.gather(*every, return_exceptions=True)


def test_await_stacks_whatever_is_awaited() -> None:
    async def main() -> None:
        every = begin_all()
        await asyncio.sleep(AWAITING)
        stacks = {
            task.get_name(): [code.co_name for code, _ in tasks.await_stack(task)]
            for task in tasks.all_tasks()
            if task in every
        }
        assert stacks == EXPECTED
        await end_all(every)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks before 3.12")
def test_eager_tasks_and_groups() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with asyncio.TaskGroup() as group:
            every = [group.create_task(awaits_coroutine(), name=f"in group {i}") for i in range(3)]
            mine = {task.get_name() for task in tasks.all_tasks()}
            assert {"in group 0", "in group 1", "in group 2"} <= mine
            for task in every:
                task.cancel()

    asyncio.run(main())


def test_tasks_of_every_loop(profiler: pyprof.Profiler) -> None:
    """Of another thread's loop, too; with the labels of their contexts."""
    ready, end = threading.Event(), threading.Event()

    async def labelled() -> None:
        with pyprof.labels(job="nightly"):
            await awaits_coroutine()

    async def other() -> None:
        every = [asyncio.create_task(labelled()) for _ in range(20)]
        await asyncio.sleep(AWAITING)
        ready.set()
        await asyncio.to_thread(end.wait)
        await end_all(every)

    thread = threading.Thread(target=lambda: asyncio.run(other()), name="other loop", daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        every, named = found(profiler), found(profiler, names=True)
    finally:
        end.set()
        thread.join()
    nightly = [one for one in every if one[1].get("job") == "nightly"]
    assert nightly == [
        (
            ["sleep", "sleeps", "awaits_coroutine", "labelled"],
            {"job": "nightly", "kind": "task", "state": "awaiting"},
            20,
        )
    ]
    assert sum(labels["name"].startswith("Task-") for _, labels, _ in named) >= 20
    [loop] = [one for one in named if one[1]["name"] == "other loop"]
    assert loop[1]["kind"] == "thread"
    assert loop[1]["state"] in ("waiting", "running")
    assert "run_forever" in loop[0]


def test_threads_without_those_of_pyprof(profiler: pyprof.Profiler) -> None:
    end = threading.Event()

    def waits() -> None:
        end.wait()

    def burns() -> None:
        while not end.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=waits, daemon=True) for _ in range(5)] + [
        threading.Thread(target=burns, daemon=True)
    ]
    before = sum(count for _, labels, count in found(profiler) if labels["kind"] == "thread")
    deadline = time.monotonic() + 30
    while len(sys._current_frames()) <= before:  # the exporter begins
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for thread in threads:
        thread.start()
    with pyprof.labels(asks="me"):
        every = found(profiler)
    end.set()
    for thread in threads:
        thread.join()
    now = sum(count for _, labels, count in every if labels["kind"] == "thread")
    assert now == before + len(threads)
    assert sum(count for frames, _, count in every if "waits" in frames) == 5
    assert sum(count for frames, _, count in every if "burns" in frames) == 1
    [mine] = [one for one in every if one[1].get("asks") == "me"]
    assert mine[0][0] == "found"


def test_greenlets_that_are_suspended(profiler: pyprof.Profiler) -> None:
    greenlet = pytest.importorskip("greenlet")

    def waits(parent: Any) -> None:
        pyprof.set_labels(job="in greenlet")
        parent.switch()

    suspended = [greenlet.greenlet(waits) for _ in range(3)]
    for one in suspended:
        one.gr_context = contextvars.copy_context()
        one.switch(greenlet.getcurrent())
    every = [one for one in found(profiler) if one[1]["kind"] == "greenlet"]
    assert every == [
        (["waits"], {"kind": "greenlet", "state": "suspended", "job": "in greenlet"}, 3),
    ]
    for one in suspended:
        one.switch()
    assert [one for one in found(profiler) if one[1]["kind"] == "greenlet"] == []


def test_nobody_waits_long_for_many_tasks(profiler: pyprof.Profiler) -> None:
    """That they are paused for is asked here; how long others wait is a matter of benchmarks."""
    pauses: list[float] = []
    sleep = time.sleep

    async def main() -> None:
        every = [asyncio.create_task(sleeps()) for _ in range(1000)]
        await asyncio.sleep(0)
        time.sleep = pauses.append  # type: ignore[assignment]
        try:
            [many] = [one for one in found(profiler) if one[2] >= 1000]
        finally:
            time.sleep = sleep
        assert many[0] == ["sleep", "sleeps"]
        assert len(pauses) == 1001 // 100
        await end_all(every)

    asyncio.run(main())
