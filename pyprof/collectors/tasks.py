"""The asyncio tasks of the process: which there are, and what each awaits."""

import gc
import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import Context
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any

from pyprof import _native

if TYPE_CHECKING:
    import asyncio

Stack = tuple[tuple[CodeType, int], ...]
"""Code and line, leaf first."""
Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted."""

_PAUSE_AFTER = 100  # tasks: a millisecond, after which others may have the GIL


def all_tasks() -> "list[asyncio.Task[Any]]":
    """Those that are not done, of all loops of the process; asyncio is not imported for it."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "all_tasks"):
        return []
    every = _registered(asyncio.tasks)
    if every is None:
        every = [task for loop in _running_loops(asyncio) for task in asyncio.all_tasks(loop)]
    return [task for task in every if not task.done()]


def _registered(tasks: Any) -> "list[asyncio.Task[Any]] | None":
    """What asyncio has a list of; None: each loop has its own (from 3.14 on)."""
    if sys.version_info >= (3, 14):
        return None
    known = tasks._scheduled_tasks if hasattr(tasks, "_scheduled_tasks") else tasks._all_tasks
    for _ in range(1000):  # it changes while it is copied, if another thread makes a task
        try:
            return list({*known, *getattr(tasks, "_eager_tasks", ())})
        except RuntimeError:
            continue
    return []


def _running_loops(asyncio: Any) -> "set[asyncio.AbstractEventLoop]":
    """By the frames that run them. A loop that is not asyncio's own has none, but who began it has."""
    runs = asyncio.BaseEventLoop.run_forever.__code__
    begins = asyncio.Runner.run.__code__
    loops = set()
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code is runs:
                loops.add(frame.f_locals["self"])
            elif frame.f_code is begins:
                loops.add(frame.f_locals["self"].get_loop())
            frame = frame.f_back
    return loops


def await_stack(task: "asyncio.Task[Any]") -> Stack:
    """From what it awaits, the innermost coroutine, to its own. Empty where there is no Python code."""
    stack = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        kind = type(awaited)
        if kind is CoroutineType:
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif kind is GeneratorType:
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        elif kind is AsyncGeneratorType:
            frame, awaited = awaited.ag_frame, awaited.ag_await
        else:
            frame, awaited = _of_other_kind(awaited)
        if frame is not None:
            stack.append((frame.f_code, frame.f_lineno or 0))
    return tuple(reversed(stack))


# What stands between a coroutine and what it awaits, and does not say for what.
_WRAPPERS = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"})


def _of_other_kind(awaited: Any) -> tuple[FrameType | None, Any]:
    """Its frame, if it has one, and what it awaits; compiled coroutines look like those of Python."""
    name = type(awaited).__name__
    if name in _WRAPPERS:
        for inner in gc.get_referents(awaited):
            if type(inner) in (CoroutineType, AsyncGeneratorType):
                return None, inner
    if name == "FutureIter" or not hasattr(awaited, "cr_frame"):
        return None, None
    return awaited.cr_frame, awaited.cr_await


def labels_of(task: "asyncio.Task[Any]") -> Labels:
    """Those of its context."""
    for one in gc.get_referents(task):  # until 3.12 it does not tell
        if type(one) is Context:
            return tuple(sorted(_native.context_labels(one).items()))
    return ()


def captured() -> "Iterator[tuple[asyncio.Task[Any], Stack, Labels]]":
    """All tasks; pauses now and then, so that nobody waits long for the GIL."""
    for number, task in enumerate(all_tasks(), start=1):
        if number % _PAUSE_AFTER == 0:
            time.sleep(0)
        stack = await_stack(task)
        if stack:
            yield task, stack, labels_of(task)


def is_running(task: "asyncio.Task[Any]") -> bool:
    """Whether it is on its thread's stack now."""
    return bool(getattr(task.get_coro(), "cr_running", False))


def frames_of(stack: Iterable[tuple[CodeType, int]]) -> list[tuple[str, str, int, int]]:
    """As `Window.add` takes them."""
    return [(code.co_qualname, code.co_filename, code.co_firstlineno, line) for code, line in stack]


class TaskWall:
    """Wall time of tasks that await something: each counts the time since the last look.

    Tasks are looked at some times a second, less often where that takes more of a core than `max_overhead`.
    """

    def __init__(self, max_overhead: float) -> None:
        self._max_overhead = max_overhead
        self._sums: dict[tuple[Stack, Labels], int] = {}
        self._last_ns = time.monotonic_ns()
        self._next_ns = self._last_ns + _INTERVAL_NS

    @property
    def seconds_left(self) -> float:
        """Until the next look is due."""
        return max(0, self._next_ns - time.monotonic_ns()) / 1e9

    def look(self) -> None:
        began, cpu = time.monotonic_ns(), time.thread_time_ns()
        elapsed, self._last_ns = began - self._last_ns, began
        for task, stack, labels in captured():
            if not is_running(task):
                key = (stack, labels)
                self._sums[key] = self._sums.get(key, 0) + elapsed
        cost = time.thread_time_ns() - cpu
        self._next_ns = began + max(_INTERVAL_NS, round(cost / self._max_overhead))

    def put(self, window: "_native.Window") -> None:
        """Into the window, what was seen since the last one."""
        sums, self._sums = self._sums, {}
        period = window.period_ns or 1
        for (stack, labels), wall_ns in sums.items():
            window.add(
                [*frames_of(stack), _AWAITING],
                samples=round(wall_ns / period),
                wall_ns=wall_ns,
                labels=dict(labels),
            )


_INTERVAL_NS = 100_000_000
_AWAITING = ("[awaiting]", "", 0, 0)
"""The root of these stacks: what tells them from those of threads, whose time is another one."""
