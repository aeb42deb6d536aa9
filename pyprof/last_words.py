"""What is left of a process that ends itself without `atexit`: by `os._exit`, or by raising a signal.

The first is how children of `os.fork` end, those of billiard (Celery's prefork pool) among them, and the
processes in between when a program makes itself a daemon. The second is how uvicorn ends:
it puts the default disposition of SIGTERM back, and raises the signal that it has got. So both functions are
replaced while the profiler runs.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys
import time
from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import NoReturn

_MARGIN = 0.5  # seconds beyond the bound of the last upload, for the ends of threads
_SHORTEST = 0.1  # seconds
"""What ends by `os._exit` sooner after the profiler's start delivers nothing: a server that forks for each
request would be held up by more than the request takes, for a few samples."""
_DEADLY = frozenset(getattr(_signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"))


class LastWords:
    """Delivers what was sampled before the process ends itself."""

    def __init__(self, stop: "Callable[[], object]", flush: "Callable[[float], object]") -> None:
        """stop: delivers and ends, for good. flush: delivers within so many seconds, and goes on."""
        self._stop = stop
        self._flush = flush
        self._bound = 0.0
        self._begin = 0.0
        self._exit: Callable[[int], NoReturn] | None = None
        self._raise = _signal.raise_signal

    def install(self, bound: float) -> None:
        """bound: seconds that `stop` may take."""
        self._bound = bound
        self._begin = time.monotonic()
        if self._exit is None:  # else ours is still there, beneath what somebody has put over it
            self._exit = os._exit
            os._exit = self._leave
        for module in _signal_modules():
            if vars(module)["raise_signal"] == self._raise:
                vars(module)["raise_signal"] = self._raise_signal

    def uninstall(self) -> None:
        """Leaves in place what somebody has put over it."""
        if self._exit is not None and os._exit == self._leave:
            os._exit = self._exit  # type: ignore[assignment]
            self._exit = None
        for module in _signal_modules():
            if vars(module)["raise_signal"] == self._raise_signal:
                vars(module)["raise_signal"] = self._raise

    def _leave(self, status: int) -> "NoReturn":
        """`os._exit`, after pyprof's last upload: exit to the system with the given status."""
        leave = self._exit or os._exit
        try:
            is_short = time.monotonic() < self._begin + _SHORTEST
            # It ends whatever state it is in: a thread that never lets go of the GIL may be why it is to.
            if not is_short and _native.exit_within(status, self._bound + _MARGIN):
                self._stop()
        finally:
            leave(status)

    def _raise_signal(self, signalnum: int, /) -> None:
        """`signal.raise_signal`, after an upload where that ends the process: send it a signal."""
        try:
            if signalnum in _DEADLY and _signal.getsignal(signalnum) == _signal.SIG_DFL:
                self._flush(self._bound)
        finally:
            self._raise(signalnum)


def _signal_modules() -> "list[ModuleType]":
    """`signal` has what `_signal` had when it was imported, which is not everywhere by now."""
    return [module for module in (_signal, sys.modules.get("signal")) if module is not None]
