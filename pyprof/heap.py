"""What is in use and what was allocated, now: Go's heap and allocs profiles."""

from typing import TYPE_CHECKING

from . import _native
from .report import Report

if TYPE_CHECKING:
    from .collectors.stacks import Stacks
    from .pprof import Profile

_WINDOW_BYTES = 64 * 1024 * 1024


class Heap(Report):
    """The memory profile of this process at the moment at which it was made."""

    def __init__(
        self, stacks: "Stacks", default: tuple[str, str, int], *, gc: bool = False, peak: bool = False
    ) -> None:
        """default: the sample type that is shown first. gc: collect garbage before.

        peak: what was in use when that was most, instead of now. RuntimeError where memory is not profiled.
        """
        if gc:
            import gc as collector

            collector.collect()
        window = _native.report_memory(max_bytes=_WINDOW_BYTES, peak=peak)
        if not window.memory_period:
            raise RuntimeError("memory is not profiled (option memory)")
        self._message = stacks.encode_heap(window, default)

    def pprof(self) -> bytes:
        """The profile as an uncompressed pprof message."""
        return self._message

    def _profile(self) -> "Profile":
        from .pprof import read

        return read(self._message)
