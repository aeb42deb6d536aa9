"""Around a fork: no import of ours is cut in two, and a host without threads has none while it forks.

The hooks run in whatever thread forks.
"""

import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from . import _native, log

if TYPE_CHECKING:
    from collections.abc import Callable

_BOUND = 1.0  # seconds that a fork waits for our threads
_IMPORTS_BOUND = 0.5  # of those, for the import under way in the exporter, which normally takes a hundredth


class _Fork:
    """What the hook before a fork has done, for the hooks after it."""

    holds_imports = False


class Forks:
    """The forks of this process."""

    def __init__(self, pause: "Callable[[float], None]", resume: "Callable[[], None]") -> None:
        """pause, resume: end our threads and start them again, for a fork of a host that has no others.

        pause gets the seconds that it may take.
        """
        self._pause = pause
        self._resume = resume
        self._forks: dict[int, _Fork] = {}  # by thread: on free-threaded builds several may fork at once

    def register(self, in_child: "Callable[[], None]") -> None:
        """Once a process. in_child: runs in every child, and has to call `enter_child`."""
        os.register_at_fork(
            before=partial(self._before, "logging" in sys.modules),
            after_in_parent=self._after_in_parent,
            after_in_child=in_child,
        )
        os.register_at_fork(after_in_parent=_native.schedule_after_fork)

    def get_ahead_of_logging(self) -> None:
        """Once `logging` has been imported: its hook is to take its lock after we waited for our threads."""
        os.register_at_fork(before=partial(self._before, True))

    def _before(self, ahead_of_logging: bool) -> None:
        """Nothing in here may wait for a thread that waits for something the fork already holds."""
        if _thread_id() in self._forks:
            return
        end = time.monotonic() + _BOUND
        fork = self._forks[_thread_id()] = _Fork()
        imports = sys.modules.get("pyprof.export.imports")
        if imports is not None:
            fork.holds_imports = imports.hold(_IMPORTS_BOUND)
        if _host_is_single_threaded():
            # CPython warns when a process with threads forks; a host that has none shall not hear of ours.
            try:
                self._pause(end - time.monotonic())
            finally:
                # From the hook itself: its caller is the frame in which the threads are started again.
                _native.prepare_after_fork(self._resume_in_parent)
        if imports is not None and not ahead_of_logging:
            imports.join_fork_of_logging()

    def _resume_in_parent(self) -> None:
        try:
            self._resume()
        except RuntimeError as error:
            log.error("profiling ended after a fork: %s", error)

    def _after_in_parent(self) -> None:
        fork = self._forks.pop(_thread_id(), None)
        if fork is not None and fork.holds_imports:
            sys.modules["pyprof.export.imports"].release()

    def enter_child(self) -> None:
        """In the child, before anything of ours is started or imported there."""
        _native.unlock_in_child(sys.modules)
        self._forks.clear()
        _native.prepare_after_fork(None)
        imports = sys.modules.get("pyprof.export.imports")
        if imports is not None:
            imports.after_fork_child()


def _thread_id() -> int:
    import _thread

    return _thread.get_ident()


def _host_is_single_threaded() -> bool:
    own = _native.own_threads()
    return own > 0 and _native.native_threads() == own + 1


def end_with_multiprocessing(profiler: object, stop: "Callable[[], None]") -> None:
    """Its children leave by os._exit, however short they were: it runs its own finalizers before."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # A finalizer registered here would not last: the child forgets its parent's first thing.
        util.register_after_fork(profiler, lambda _: util.Finalize(None, stop, exitpriority=-1000))
