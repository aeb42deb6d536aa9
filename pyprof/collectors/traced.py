"""What tracemalloc knows: which code holds memory, by file and line."""

import os
from collections.abc import Iterable

from pyprof import _native, log

from .enclosing import EnclosingFunctions

_Frames = tuple[tuple[str, int], ...]  # file name and line, leaf first
InUse = tuple[float, float, _Frames]
"""Blocks, bytes, and the stack that holds them."""

_HERE = os.path.dirname(__file__)
_MOST_STACKS = 16_384
_WINDOW_BYTES = 64 * 1024 * 1024
_MOST_TABLE_BYTES = 32 * 1024 * 1024
"""Of tracemalloc, where its tables can be had as objects only, with the GIL held: some 100 ms for those."""

MOST_ON_DEMAND = 512 * 1024 * 1024
"""The same where somebody waits for it."""


class Traced:
    """Turns tracemalloc's tables into windows: exactly, or, of what is sampled, by the samples' weights."""

    def __init__(self) -> None:
        self._functions = EnclosingFunctions()
        self._in_use: list[InUse] | None = None  # at the end
        self._warned = False

    def window(self, start_ns: int = 0, duration_ns: int = 0) -> "_native.Window":
        """What is in use now."""
        in_use = self._read() if self._in_use is None else self._in_use
        return self.window_of(in_use, start_ns, duration_ns)

    def difference(self, before: Iterable[InUse]) -> list[InUse]:
        """What is in use now, less what was; without what this takes itself."""
        known = [*self.exact(MOST_ON_DEMAND), *((-blocks, -size, frames) for blocks, size, frames in before)]
        return [one for one in known if not (one[2] and one[2][0][0].startswith(_HERE))]

    @property
    def is_kept(self) -> bool:
        return self._in_use is not None

    def keep_last(self) -> None:
        """Before it ends: what is in use now is what the windows after this show."""
        self._in_use = list(self._read())

    def _read(self) -> Iterable[InUse]:
        return self._sampled() if _native.memory_stats()["period"] > 0 else self.exact()

    def window_of(self, in_use: Iterable[InUse], start_ns: int = 0, duration_ns: int = 0) -> "_native.Window":
        """Of equal stacks the sum; of more than fit those with most bytes, the rest in `[overflow]`."""
        sums: dict[_Frames, list[float]] = {}
        for blocks, size, frames in in_use:
            found = sums.setdefault(frames, [0.0, 0.0])
            found[0] += blocks
            found[1] += size
        window = _native.Window(_WINDOW_BYTES, start_ns=start_ns, duration_ns=duration_ns)
        ordered = sorted(sums.items(), key=lambda item: -item[1][1])
        for frames, (blocks, size) in ordered[:_MOST_STACKS]:
            self._add(window, [self._frame(*frame) for frame in frames], blocks, size)
        rest = [values for _, values in ordered[_MOST_STACKS:]]
        if rest:
            blocks, size = map(sum, zip(*rest, strict=True))
            self._add(window, [("[overflow]", "", 0, 0)], blocks, size)
        return window

    def _add(
        self, window: "_native.Window", stack: list[tuple[str, str, int, int]], blocks: float, size: float
    ) -> None:
        window.add(stack, inuse_objects=max(0, round(blocks)), inuse_space=max(0, round(size)))

    def _frame(self, filename: str, line: int) -> tuple[str, str, int, int]:
        name, first_line = self._functions.find(filename, line)
        return name, filename, first_line, line

    def _sampled(self) -> Iterable[InUse]:
        for domain, address, size, weight in _native.live_blocks():
            frames = _native.traceback_of(domain, address)
            if frames is not None:  # else it has just been freed, or no Python thread has allocated it
                yield weight, weight * size, frames

    def exact(self, most_table_bytes: int = _MOST_TABLE_BYTES) -> list[InUse]:
        """Every block that is traced, those of one traceback together; nothing where there are too many."""
        found = _native.traces()
        if found is not None:
            return list(found)
        import tracemalloc

        size = tracemalloc.get_tracemalloc_memory()
        if size > most_table_bytes:
            if not self._warned:
                self._warned = True
                log.warning(
                    "tracemalloc holds %d MB of traces, which this version of Python hands out only all at "
                    "once: what is in use is not in the profiles (engine hook can tell)",
                    size >> 20,
                )
            return []
        import _tracemalloc

        return [(1, trace[1], tuple(trace[2])) for trace in _tracemalloc._get_traces()]
