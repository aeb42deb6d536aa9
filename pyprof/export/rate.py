"""What a Pyroscope server takes at once and a second of one tenant, and how to keep within it.

By default it is 2 MiB at once and 4 MiB a second, of profiles before compression and their labels. It judges
each series of a push for itself: beyond the limit it stores some, refuses others, and answers 429 for the
whole. To send that again would count twice, so no push is made that does not fit.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from .series import Series

MAX_BYTES = 1945 << 10
"""Of one push. Five per cent below the limit: the server counts profiles as it would write them itself."""
BYTES_PER_SECOND = 4 << 20


def pack(parts: Iterable[Series], size: Callable[[Series], int]) -> Iterator[list[Series]]:
    """The parts in as few pushes as their order allows, none above `MAX_BYTES` unless a part alone is."""
    push: list[Series] = []
    total = 0
    for part in parts:
        one = size(part)
        if push and total + one > MAX_BYTES:
            yield push
            push, total = [], 0
        push.append(part)
        total += one
    if push:
        yield push


class Pace:
    """The server's allowance as it looks from here: spent by each push, full again after a while."""

    def __init__(self) -> None:
        self._full_at = 0.0  # time.monotonic

    def wait(self, size: int) -> float:
        """Seconds until the server takes a push of so many bytes; none to wait if not above 0."""
        return self._full_at - (MAX_BYTES - size) / BYTES_PER_SECOND - time.monotonic()

    def spend(self, size: int) -> None:
        """To be called when the server has answered: when before that it counted the push is not known."""
        self._full_at = max(self._full_at, time.monotonic()) + size / BYTES_PER_SECOND
