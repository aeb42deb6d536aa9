"""Windows as profiles: which stacks used CPU and wall time, which allocated, and which hold memory."""

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyprof import _native, servers
from pyprof._version import __version__

from . import memory
from .label_bound import LabelBound
from .source_files import SourceFiles

if TYPE_CHECKING:
    from pyprof.config import Config
    from pyprof.export.series import Series

    from .traced import Traced

_NS = 1_000_000_000


_Type = tuple[str, str, int]

_TICKS = ("samples", "count", _native.SAMPLES)
_THREADS = ("threads", "count", _native.SAMPLES)
_CPU = ("cpu", "nanoseconds", _native.CPU_NS)
_WALL = ("wall", "nanoseconds", _native.WALL_NS)


class _Kind:
    """One profile that can be made of a window."""

    def __init__(
        self, name: str, types: list[_Type], period_type: _Type, period: int, default: _Type | None = None
    ) -> None:
        self.name, self.types, self.period_type, self.period = name, types, period_type, period
        self.default = default or period_type


def memory_kind(window: "_native.Window", default: _Type = memory.INUSE_SPACE) -> _Kind:
    """The memory profile. `default`: the type that is shown first."""
    return _Kind("memory", memory.TYPES, ("space", "bytes", 0), window.memory_period, default)


def traced_kind() -> _Kind:
    """The memory profile of engine `tracemalloc`, which knows only what is in use."""
    period = round(_native.memory_stats()["period"]) or 1  # exact
    return _Kind("memory", memory.INUSE_TYPES, ("space", "bytes", 0), period, memory.INUSE_SPACE)


class Stacks:
    """Turns windows of the timer thread into profiles."""

    def __init__(self, config: "Config", role: str, engine: str | None = None) -> None:
        """engine: of memory, if it is not the configured one."""
        self._config = config
        self._role = role
        self._files = SourceFiles()
        self.label_bound = LabelBound(config.label_values_max, len(config.tags))
        self._memory_ended_ns: int | None = None
        self.traced: Traced | None = None  # its module loads where it is wanted: it needs `re`
        """What knows the stacks that hold memory, where windows do not."""
        self.begin_memory(config.memory if engine is None else engine)

    @property
    def role(self) -> str:
        """Of this process, as far as it is known now."""
        return servers.role_now(self._role)

    def begin_memory(self, engine: str) -> None:
        """From now on windows show what they have of memory, or what tracemalloc has; `off`: they do not."""
        self.traced = None
        if engine == "tracemalloc":
            from .traced import Traced

            self.traced = Traced()
        self._memory_ended_ns = 0 if engine == "off" else None

    def end_memory(self) -> None:
        """Windows that begin after this do not show memory."""
        self._memory_ended_ns = time.time_ns()

    def _shows_memory(self, window: "_native.Window") -> bool:
        return self._memory_ended_ns is None or window.start_ns < self._memory_ended_ns

    def encode(self, window: "_native.Window", combined: bool, records: bool = True) -> "list[Series]":
        """The profiles of one window: one a kind for servers, or a single one with all types side by side.

        records: whether tracemalloc is still to be asked, if it is at all.
        """
        series = self._encode(window, *self._kinds(window, combined))
        traced = self.traced if self._shows_memory(window) else None
        if traced is not None and (records or traced.is_kept):
            in_use = traced.window(window.start_ns, window.duration_ns)
            series += self._encode(in_use, traced_kind(), is_short=window.memory_is_short)
        return series

    def encode_heap(self, window: "_native.Window", default: _Type) -> bytes:
        """A window of nothing but memory."""
        kind = memory_kind(window, default) if self.traced is None else traced_kind()
        [series] = self._encode(window, kind)
        return series.pprof

    def encode_threads(self, window: "_native.Window") -> bytes:
        """A window of threads, greenlets and tasks, each of which counts one."""
        kind = _Kind("goroutine", [_THREADS], _THREADS, 1)
        [series] = self._encode(window, kind)
        return series.pprof

    def _encode(self, window: "_native.Window", *kinds: _Kind, is_short: bool = False) -> "list[Series]":
        from pyprof.export.series import Series

        config = self._config
        labels = {"service_name": config.service_name, "role": self.role, **config.tags}
        of_memory = labels | ({"trigger": "oom"} if is_short or window.memory_is_short else {})
        files = self._files.describe(window.files)
        label_values = self.label_bound.admit(window.labels)
        comments = self.comments(window)
        return [
            Series(
                name=kind.name,
                labels=of_memory if memory.INUSE_SPACE in kind.types else labels,
                pprof=window.encode(
                    kind.types,
                    period_type=kind.period_type[:2],
                    period=kind.period,
                    files=files,
                    labels={"pid": (os.getpid(), "id")},
                    label_values=label_values,
                    comments=comments,
                    default_sample_type=kind.default[0],
                    mapping=sys.executable or "python",
                ),
                start_ns=window.start_ns,
                duration_ns=window.duration_ns,
            )
            for kind in kinds
        ]

    def _kinds(self, window: "_native.Window", combined: bool) -> "list[_Kind]":
        config, period = self._config, window.period_ns
        kinds = []
        if config.cpu:
            kinds.append(
                _Kind("process_cpu", [("samples", "count", _native.CPU_SAMPLES), _CPU], _CPU, period)
            )
        if config.wall:
            kinds.append(_Kind("wall", [_TICKS, _WALL, *self._gil_types()], _WALL, period))
        if combined and kinds:
            # One count for CPU and wall time: that of ticks.
            types = [_TICKS, *(one for kind in kinds for one in kind.types[1:])]
            kinds = [_Kind("profile", types, types[1], period)]
        if window.memory_period and self._shows_memory(window):
            if combined and kinds:
                kinds[0].types += memory.TYPES
            else:
                kinds.append(memory_kind(window))
        return kinds

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
            f"pid {os.getpid()}, role {self.role}",
        ]
        if window.period_ns and (self._config.cpu or self._config.wall):  # else nobody asked for threads
            lines.append(f"engine {_native.stats()['engine']}, {_rate(window)}")
        losses = {name: n for name, n in window.counters.items() if n and name != "ticks"}
        if window.memory_is_short:
            lines.append("trigger=oom: the process came close to its limit of memory")
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
