"""All threads, greenlets and tasks of the process, with stacks and states: Python's goroutine profile."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from pyprof import _native

from . import tasks
from .tasks import Labels, Stack

_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_WINDOW_BYTES = 64 * 1024 * 1024


def capture(names: bool = False) -> "_native.Window":
    """One sample for each, in column `SAMPLES`; labels `kind`, `state`, and those of its context.

    names: `name` as well.
    """
    window = _native.Window(_WINDOW_BYTES)
    counts: dict[tuple[Stack, Labels], int] = {}
    for name, stack, labels in (*_threads(), *_greenlets(), *_tasks()):
        key = (stack, (*labels, ("name", name)) if names else labels)
        counts[key] = counts.get(key, 0) + 1
    for (stack, labels), count in counts.items():
        window.add(tasks.frames_of(stack), samples=count, labels=dict(labels))
    return window


_One = tuple[str, Stack, Labels]


def _described(kind: str, state: str, labels: Labels = ()) -> Labels:
    return (*labels, ("kind", kind), ("state", state))


def _stack(frame: FrameType | None) -> Stack:
    stack = []
    while frame is not None:
        stack.append((frame.f_code, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(stack)


def _threads() -> Iterator[_One]:
    known = {thread.ident: thread for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = _stack(frame)
        if stack[-1][0].co_filename.startswith(_OWN):
            continue  # a thread of ours
        while ident == threading.get_ident() and stack[0][0].co_filename.startswith(_OWN):
            stack = stack[1:]  # what asks
        thread = known.get(ident)
        name = thread.name if thread is not None else str(ident)
        labels = tuple(_native.current_labels().items()) if ident == threading.get_ident() else ()
        yield name, stack, _described("thread", _state(thread), labels)


def _state(thread: threading.Thread | None) -> str:
    try:
        with open(f"/proc/self/task/{thread.native_id if thread is not None else 0}/stat") as file:
            return "running" if file.read().rpartition(")")[2].split()[0] == "R" else "waiting"
    except OSError:
        return "unknown"


def _greenlets() -> Iterator[_One]:
    """Those that are suspended; the others are on their threads' stacks."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return
    for one in gc.get_objects():
        if isinstance(one, greenlet.greenlet) and one.gr_frame is not None:
            context = one.gr_context
            labels = tuple(_native.context_labels(context).items()) if context is not None else ()
            yield _name(one), _stack(one.gr_frame), _described("greenlet", "suspended", labels)


def _name(greenlet: Any) -> str:
    return str(getattr(greenlet, "name", "") or f"Greenlet-{id(greenlet):#x}")


def _tasks() -> Iterator[_One]:
    for task, stack, labels in tasks.captured():
        state = "running" if tasks.is_running(task) else "awaiting"
        yield task.get_name(), stack, _described("task", state, labels)
