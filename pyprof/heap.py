"""Memory of one moment: Go's heap and allocs profiles."""

from .report import Moment


class Heap(Moment):
    """The memory profile of this process at the moment at which it was made."""
