"""Memory of one moment: Go's heap and allocs profiles."""

from typing import TYPE_CHECKING

from .report import Report

if TYPE_CHECKING:
    from . import _native
    from .collectors.stacks import Stacks
    from .pprof import Profile


class Heap(Report):
    """The memory profile of this process at the moment at which it was made."""

    def __init__(self, stacks: "Stacks", window: "_native.Window", default: tuple[str, str, int]) -> None:
        """default: the sample type that is shown first."""
        self._message = stacks.encode_heap(window, default)

    def pprof(self) -> bytes:
        """The profile as an uncompressed pprof message."""
        return self._message

    def _profile(self) -> "Profile":
        from .pprof import read

        return read(self._message)
