"""CPU and wall time: which stacks the threads were at, and what that cost."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyprof import _native
from pyprof._version import __version__

from .source_files import SourceFiles

if TYPE_CHECKING:
    from pyprof.config import Config
    from pyprof.export.series import Series

_NS = 1_000_000_000


class Stacks:
    """Turns windows of the timer thread into profiles."""

    def __init__(self, config: "Config", role: str) -> None:
        self._config = config
        self._role = role
        self._files = SourceFiles()

    def encode(self, window: "_native.Window", combined: bool) -> "list[Series]":
        """The profiles of one window: one a kind for servers, or a single one with all types side by side."""
        from pyprof.export.series import Series

        config = self._config
        labels = {"service_name": config.service_name, "role": self._role, **config.tags}
        cpu = ("cpu", "nanoseconds", _native.CPU_NS)
        wall = ("wall", "nanoseconds", _native.WALL_NS)
        ticks = ("samples", "count", _native.SAMPLES)
        walls = [wall, *self._gil_types()] if config.wall else []
        layouts = []
        if combined:
            types = [ticks, *([cpu] if config.cpu else []), *walls]
            if len(types) > 1:
                layouts.append(("profile", types, types[1]))
        else:
            if config.cpu:
                layouts.append(("process_cpu", [("samples", "count", _native.CPU_SAMPLES), cpu], cpu))
            if config.wall:
                layouts.append(("wall", [ticks, *walls], wall))
        files = self._files.describe(window.files)
        comments = self.comments(window)
        return [
            Series(
                name=name,
                labels=labels,
                pprof=window.encode(
                    types,
                    period_type=period_type[:2],
                    period=window.period_ns,
                    files=files,
                    labels={"pid": (os.getpid(), "id")},
                    comments=comments,
                    default_sample_type=period_type[0],
                    mapping=sys.executable or "python",
                ),
                start_ns=window.start_ns,
                duration_ns=window.duration_ns,
            )
            for name, types, period_type in layouts
        ]

    def _gil_types(self) -> list[tuple[str, str, int]]:
        """The parts of wall time that can be told here: a column of zeros would look like a truth."""
        if not self._config.gil:
            return []
        stats = _native.stats()
        held = ("gil_held", "nanoseconds", _native.GIL_HELD_NS)
        wait = ("gil_wait", "nanoseconds", _native.GIL_WAIT_NS)
        return [
            *([held] if stats["walk_obstacle"] is None else []),
            *([wait] if stats["gil_wait_obstacle"] is None else []),
        ]

    def comments(self, window: "_native.Window") -> list[str]:
        """What a reader of the profile should know: who measured, how, and what was lost."""
        lines = [
            f"pyprof {__version__}, CPython {sys.version.split()[0]}",
            f"pid {os.getpid()}, role {self._role}",
            f"engine {_native.stats()['engine']}, {_rate(window)}",
        ]
        losses = {name: n for name, n in window.counters.items() if n and name != "ticks"}
        lines += [_LOSSES[name].format(n=n, ms=n / 1e6) for name, n in losses.items() if name in _LOSSES]
        return lines


def _rate(window: "_native.Window") -> str:
    """The effective rate. Two digits of a lowered one: a file of many windows has few different lines."""
    effective, wanted = _NS / window.period_ns, window.wanted_period_ns
    if not 0 < wanted < window.period_ns:
        return f"{effective:g} Hz"
    rounded = float(f"{effective:.2g}")
    return f"{rounded:g} Hz: lowered from {_NS / wanted:g} Hz to keep pyprof's CPU within max_overhead"


_LOSSES: Mapping[str, str] = {
    "missed": "{n} ticks missed; their weight is in the samples after them",
    "overflowed": "{n} samples of stacks that found no room, in [overflow]",
    "unplaced_cpu_ns": "{ms:.1f} ms of CPU time placed at the thread's last stack",
    "dropped_windows": "{n} windows before this one dropped: the exporter did not keep up",
}
