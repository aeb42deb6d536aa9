"""Labels that nobody sets: names of threads and of asyncio tasks (options `thread_labels`, `task_labels`).

They are set where a thread or task begins, in its context, so that nothing has to be asked for at a switch.
For that `threading` and asyncio's loops are patched from `start()` to `stop()`. What began before has none;
nor have tasks of loops that are not written in Python, as uvloop's.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import TYPE_CHECKING

from .context import set_labels

if TYPE_CHECKING:
    from asyncio import BaseEventLoop
    from collections.abc import Callable
    from typing import Any


class Patch:
    """A function of a class that ours stands for meanwhile."""

    def __init__(self, owner: type, name: str, make: Callable[[Any], Any]) -> None:
        self._owner, self._name = owner, name
        self._theirs = getattr(owner, name)
        self._ours = make(self._theirs)
        setattr(owner, name, self._ours)

    def undo(self) -> None:
        """Leaves in place what somebody has put over it."""
        if getattr(self._owner, self._name) is self._ours:
            setattr(self._owner, self._name, self._theirs)


class NameLabels:
    """The patches of one profiler."""

    def __init__(self, threads: bool, tasks: bool) -> None:
        self._threads, self._tasks = threads, tasks
        self._patches: list[Patch] = []

    def install(self) -> None:
        if self._threads:
            if sys.version_info >= (3, 14):
                self._patches.append(Patch(threading.Thread, "start", _labelled_start))
            else:
                self._patches.append(Patch(threading.Thread, "_bootstrap_inner", _labelled_bootstrap))
        if self._tasks:
            from wrapt import when_imported

            when_imported("asyncio.base_events")(self._patch_loops)

    def _patch_loops(self, module: Any) -> None:
        if self._tasks:
            self._patches.append(Patch(module.BaseEventLoop, "create_task", _labelled_create_task))

    def uninstall(self) -> None:
        self._tasks = False  # asyncio may be imported later
        while self._patches:
            self._patches.pop().undo()


def _labelled_bootstrap(theirs: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """In the new thread, whose context is empty."""

    def _bootstrap_inner(self: threading.Thread) -> None:
        set_labels(thread=self.name)
        theirs(self)

    return _bootstrap_inner


def _labelled_start(theirs: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """A thread has a context from its start on (3.14): its creator's where it inherits, else an empty one."""

    def start(self: threading.Thread) -> None:
        if getattr(self, "_context", self) is None:  # else it is somebody else's, too
            inherits = getattr(sys.flags, "thread_inherit_context", False)
            context = contextvars.copy_context() if inherits else contextvars.Context()
            context.run(set_labels, thread=self.name)
            self._context = context  # type: ignore[attr-defined]
        theirs(self)

    return start


def _labelled_create_task(theirs: Callable[..., Any]) -> Callable[..., Any]:
    def create_task(self: BaseEventLoop, coro: Any, **options: Any) -> Any:
        """By the name that it is given, else its function's: what asyncio makes up is a number each.

        Until 3.12 tasks get their names when they have been made: there only `loop.create_task` knows them.
        """
        if options.get("context") is None and _takes_context(self):
            context = options["context"] = contextvars.copy_context()
            name = options.get("name") or getattr(coro, "__qualname__", type(coro).__name__)
            context.run(set_labels, task=name)
        return theirs(self, coro, **options)

    return create_task


def _takes_context(loop: BaseEventLoop) -> bool:
    """Whether tasks are made by asyncio itself: a factory of somebody else need not know the argument."""
    factory = loop.get_task_factory()
    eager = getattr(sys.modules["asyncio"], "eager_task_factory", None)  # from 3.12 on
    return factory is None or factory is eager
