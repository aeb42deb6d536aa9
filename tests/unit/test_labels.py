"""What labels hold where, as the calling context sees it; accuracy/test_labels.py asks the profiles."""

import asyncio
import contextvars
import gc
import inspect
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyprof
from pyprof import _native
from pyprof.collectors.label_bound import LabelBound
from pyprof.pprof import read

current = _native.current_labels


def test_blocks_add_and_take_away() -> None:
    assert current() == {}
    with pyprof.labels(endpoint="/a", method="GET") as block:
        assert isinstance(block, pyprof.labels)
        with pyprof.labels(endpoint="/b", plan="pro"):
            assert current() == {"endpoint": "/b", "method": "GET", "plan": "pro"}
            with pyprof.labels(method=None, plan=""):
                assert current() == {"endpoint": "/b"}
        assert current() == {"endpoint": "/a", "method": "GET"}
    assert current() == {}


def test_values_are_text() -> None:
    with pyprof.labels(number=5, none=None, empty="", text="é", lone="\ud800", long="é" * 1025):
        found = current()
    assert found == {"number": "5", "text": "é", "lone": "\\ud800", "long": "é" * 1024}


@pytest.mark.parametrize("name", ["a-b", "1a", "", "é", "__name__", "service_name", "role", "pid", "n" * 256])
def test_bad_names_are_refused(name: str) -> None:
    for use in (pyprof.labels, pyprof.set_labels, pyprof.labels().add):
        with pytest.raises(ValueError, match="label names must be like"):
            use(**{name: "x"})


def test_other_misuse_is_refused() -> None:
    with pytest.raises(TypeError, match="keyword arguments only"):
        pyprof.labels("x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="keyword arguments only"):
        pyprof.set_labels("x")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="at most 32 labels"):
        pyprof.labels(**{f"n{i}": "x" for i in range(33)})

    class Broken:
        def __str__(self) -> str:
            raise LookupError("broken")

    with pytest.raises(LookupError):
        pyprof.labels(a=Broken())
    assert current() == {}


def test_set_labels_lasts_until_the_block_or_the_context_ends() -> None:
    def within() -> None:
        pyprof.set_labels(job="1")
        with pyprof.labels(step="a"):
            pyprof.set_labels(part="x", job="2")
            assert current() == {"job": "2", "part": "x", "step": "a"}
            pyprof.set_labels(part=None)
            assert current() == {"job": "2", "step": "a"}
        assert current() == {"job": "1"}
        for number in range(100_000):
            pyprof.set_labels(job=number)
        assert current() == {"job": "99999"}

    contextvars.copy_context().run(within)
    assert current() == {}


def test_exceptions_pass_through() -> None:
    with pytest.raises(LookupError), pyprof.labels(a="1"):
        raise LookupError
    assert current() == {}


def test_a_block_may_be_entered_again_and_within_itself() -> None:
    block = pyprof.labels(a="1")
    with pyprof.labels(outer="1"), block:
        assert current() == {"a": "1", "outer": "1"}
    with block, pyprof.labels(a="2"), block:
        assert current() == {"a": "1"}
        block.__exit__(None, None, None)
        assert current() == {"a": "2"}
    assert current() == {}


def test_a_block_that_is_left_elsewhere_changes_nothing_there() -> None:
    block, other = pyprof.labels(a="1"), contextvars.copy_context()
    with block, pyprof.labels(b="1"):
        other.run(block.__exit__, None, None, None)
        assert current() == {"a": "1", "b": "1"}
    block.__exit__(None, None, None)
    assert current() == {}
    assert other.run(current) == {}


def test_threads_may_share_a_block() -> None:
    block = pyprof.labels(shared="1")
    wrong: list[dict[str, str]] = []

    def work(name: str) -> None:
        for _ in range(2000):
            with pyprof.labels(own=name), block:
                if current() != {"own": name, "shared": "1"}:
                    wrong.append(current())
            if current():
                wrong.append(current())

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_added_labels_hold_for_the_whole_block_and_the_next_ones() -> None:
    block = pyprof.labels(a="1")
    block.add(before="1")
    with block:
        inner = contextvars.copy_context()
        block.add(status="2xx", a="2")
        assert current() == {"a": "2", "before": "1", "status": "2xx"}
        with pyprof.labels(status="inner"):
            assert current()["status"] == "inner"
    block.add(late="1", status=None)
    assert inner.run(current) == {"a": "2", "before": "1", "late": "1"}
    with block:
        assert current() == {"a": "2", "before": "1", "late": "1"}


def labels_of(data: bytes, sample_type: str) -> dict[tuple[tuple[str, str], ...], int]:
    """By text labels, what is not zero."""
    profile = read(data)
    at = [one.type for one in profile.sample_types].index(sample_type)
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for sample in profile.samples:
        if sample.values[at]:
            key = tuple((label.key, label.value) for label in sample.labels if isinstance(label.value, str))
            found[key] = found.get(key, 0) + sample.values[at]
    return found


def test_what_is_added_is_on_what_was_sampled_before() -> None:
    block = pyprof.labels(a="1")
    with pyprof.profile(sample_rate=1000, max_overhead=1) as profile:
        with block:
            sum(range(3_000_000))
        block.add(status="5xx")
    labels = labels_of(profile.pprof(), "cpu")
    assert (("a", "1"), ("status", "5xx")) in labels
    assert (("a", "1"),) not in labels


def test_memory_has_labels_without_spans(run_python: Any, tmp_path: Path) -> None:
    program = """
import sys, pyprof
profiler = pyprof.start(output=sys.argv[1], memory_period=4096, wall=False, cpu=False)
kept = []
for number in range(2000):
    with pyprof.labels(endpoint=f"/{number % 2}", span_id=f"{number:016x}"):
        kept.append(bytes(1000 + 1000 * (number % 2)))
open(sys.argv[1] + "/heap", "wb").write(profiler.heap().pprof())
"""
    run_python(program, tmp_path, check=True)
    found = labels_of((tmp_path / "heap").read_bytes(), "inuse_space")
    labels = dict(pair for key in found for pair in key)
    assert labels.keys() == {"endpoint"}
    for number in (0, 1):
        bytes_there = found[(("endpoint", f"/{number}"),)]
        assert bytes_there == pytest.approx(1_000_000 * (1 + number), rel=0.2)


def test_decorated_functions_of_every_kind() -> None:
    block = pyprof.labels(a="1")

    @block
    def plain(value: int) -> tuple[int, dict[str, str]]:
        """The function's own."""
        return value, current()

    @block
    async def coroutine() -> dict[str, str]:
        await asyncio.sleep(0)
        return current()

    @block
    def generator() -> Iterator[Any]:
        try:
            received = yield current()
        except LookupError:
            received = "thrown"
        yield received, current()

    @block
    async def async_generator() -> AsyncIterator[Any]:
        yield current()
        await asyncio.sleep(0)
        yield current()

    class Some:
        @block
        def method(self) -> dict[str, str]:
            return current()

    async def asynchronous() -> None:
        assert await coroutine() == {"a": "1"}
        async for found in async_generator():
            assert found == {"a": "1"}
            assert current() == {}

    assert plain(3) == (3, {"a": "1"})
    assert plain.__doc__ == "The function's own."
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert Some().method() == {"a": "1"}
    asyncio.run(asynchronous())
    sent, thrown = generator(), generator()
    assert next(sent) == next(thrown) == {"a": "1"}
    assert current() == {}
    assert sent.send("sent") == ("sent", {"a": "1"})  # type: ignore[attr-defined]
    assert thrown.throw(LookupError) == ("thrown", {"a": "1"})  # type: ignore[attr-defined]
    sent.close()  # type: ignore[attr-defined]
    assert list(generator())[1] == (None, {"a": "1"})
    assert current() == {}


def test_tasks_and_threads_of_tasks_have_their_creators() -> None:
    async def task() -> dict[str, str]:
        found = dict(current())
        pyprof.set_labels(own="1")
        await asyncio.sleep(0)
        return found | {"thread": str(await asyncio.to_thread(current))}

    async def main() -> None:
        with pyprof.labels(a="1"):
            tasks = [asyncio.create_task(task()) for _ in range(2)]
        for found in await asyncio.gather(*tasks):
            assert found == {"a": "1", "thread": "{'a': '1', 'own': '1'}"}
        assert current() == {}

    asyncio.run(main())


def test_labels_hold_nothing_for_ever() -> None:
    """Blocks, their sets and contexts go; the memory of sets is used again."""

    def use() -> None:
        for number in range(20_000):
            with pyprof.labels(number=number) as block, pyprof.labels(inner="1"):
                pyprof.set_labels(more="2")
                block.add(status="2xx")

    use()
    gc.collect()
    before = _native.stats()["bytes"]
    objects = len(gc.get_objects())
    use()
    gc.collect()
    assert _native.stats()["bytes"] == before
    assert len(gc.get_objects()) <= objects + 10


def test_values_are_bounded_by_name() -> None:
    bound = LabelBound(2, names_taken=0)
    assert bound.admit([("a", "1"), ("a", "2"), ("a", "3"), ("b", "3")]) == ["1", "2", "__other__", "3"]
    assert bound.admit([("a", "2"), ("a", "4")]) == ["2", "__other__"]
    spans = [("span_id", f"{i:016x}") for i in range(100)] + [("trace_id", f"{i:032x}") for i in range(100)]
    assert bound.admit(spans) == [value for _, value in spans]
    assert (bound.other_values, bound.left_out) == (2, 0)


def test_names_are_bounded() -> None:
    bound = LabelBound(10, names_taken=24)
    assert bound.admit([("a", "1"), ("b", "1"), ("c", "1"), ("span_id", "x")]) == ["1", "1", None, "x"]
    assert bound.left_out == 1


def test_values_beyond_the_bound_are_counted_in_stats(run_python: Any, tmp_path: Path) -> None:
    program = """
import sys, pyprof
pyprof.start(output=sys.argv[1], label_values_max=3, sample_rate=1000, max_overhead=1)
for number in range(30):
    with pyprof.labels(number=number):
        sum(range(400_000))
pyprof.flush()
assert pyprof.stats().label_values_other > 0, pyprof.stats()
"""
    run_python(program, tmp_path, check=True)


NAMES = """
import asyncio, contextvars, json, sys, threading
import pyprof
from pyprof import _native

current = _native.current_labels
pyprof.start(output=sys.argv[1], thread_labels=True, task_labels=True, memory=False)
found = {}

def remember():
    found[threading.current_thread().name] = current()

for name in ("one", "two"):
    thread = threading.Thread(target=remember, name=name)
    thread.start()
    thread.join()

async def function():
    await asyncio.sleep(0)
    return current()

async def main():
    with pyprof.labels(endpoint="/"):
        found["function"] = await asyncio.create_task(function())
        found["named"] = await asyncio.create_task(function(), name="mine")
        found["own context"] = await asyncio.create_task(function(), context=contextvars.Context())
    async with asyncio.TaskGroup() as group:
        found["group"] = group.create_task(function(), name="in group")
    found["group"] = found["group"].result()
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))  # knows no contexts
    if sys.version_info < (3, 13):
        found["factory"] = await loop.create_task(function())
    if hasattr(asyncio, "eager_task_factory"):
        loop.set_task_factory(asyncio.eager_task_factory)
        found["eager"] = await loop.create_task(function(), name="eager")
    loop.set_task_factory(None)

asyncio.run(main())
pyprof.stop()
thread = threading.Thread(target=remember, name="after")
thread.start()
thread.join()
assert asyncio.run(function()) == current() == {}
print(json.dumps(found))
"""


def test_names_of_threads_and_tasks_as_labels(run_python: Any, tmp_path: Path) -> None:
    """Each where it begins; nothing of it is left after stop(), no factory of others is asked for more."""
    found = json.loads(run_python(NAMES, tmp_path, check=True).stdout)
    assert found.pop("factory", {}) == {}
    assert found.pop("eager", {"task": "eager"})["task"] == "eager"
    knows_names = sys.version_info >= (3, 13)
    assert found == {
        "one": {"thread": "one"},
        "two": {"thread": "two"},
        "after": {},
        "function": {"task": "function", "endpoint": "/"},
        "named": {"task": "mine" if knows_names else "function", "endpoint": "/"},
        "own context": {},
        "group": {"task": "in group" if knows_names else "function"},
    }
