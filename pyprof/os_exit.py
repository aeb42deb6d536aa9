"""What is left of a process that leaves by `os._exit`, which runs none of the handlers of `atexit`.

That is how children of `os.fork` end, those of multiprocessing and billiard (Celery's prefork pool) among
them, and the processes in between when a program makes itself a daemon. So `os._exit` is replaced while the
profiler runs.
"""

import os
from typing import TYPE_CHECKING, NoReturn

from . import _native

if TYPE_CHECKING:
    from collections.abc import Callable

_MARGIN = 0.5  # seconds beyond the bound of the last upload, for the ends of threads


class LastWords:
    """Delivers what was sampled before `os._exit` ends the process."""

    def __init__(self, deliver: "Callable[[], None]") -> None:
        self._deliver = deliver
        self._bound = 0.0
        self._exit: Callable[[int], NoReturn] | None = None

    def install(self, bound: float) -> None:
        """bound: seconds that `deliver` may take."""
        self._bound = bound + _MARGIN
        if self._exit is None:
            self._exit = os._exit
            os._exit = self._leave

    def uninstall(self) -> None:
        """Leaves in place what somebody has put over it."""
        if self._exit is not None and getattr(os._exit, "__self__", None) is self:
            os._exit = self._exit  # type: ignore[assignment]
            self._exit = None

    def _leave(self, status: int) -> NoReturn:
        """Exit to the system with the given status: `os._exit`, after pyprof's last upload."""
        leave = self._exit or os._exit
        try:
            # It ends whatever state it is in: a thread that never lets go of the GIL may be why it is to.
            if _native.exit_within(status, self._bound):
                self._deliver()
        finally:
            leave(status)
