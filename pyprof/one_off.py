"""`with pyprof.profile() as p:` — one profile of one block, beside or without the continuous one."""

from typing import TYPE_CHECKING

from . import _native
from .collectors.memory import Recording
from .collectors.sampler import Consumer
from .collectors.stacks import Stacks
from .config import Config
from .profiler import close_one_off, open_one_off
from .report import Report

if TYPE_CHECKING:
    from types import TracebackType

    from .pprof import Profile

_OPTIONS = frozenset({"cpu", "wall", "gil", "memory", "memory_period", "max_frames", "tags", "service_name"})
_INTERVAL = 3600.0  # seconds: one window, as a rule
_WINDOW_BYTES = 64 * 1024 * 1024


class OneOff(Report):
    """The profile of the block that it was entered for, of all threads of the process.

    Where the continuous profiler runs, it goes on meanwhile, at this sample rate if that is higher, and with
    this `max_overhead` if that is, and with this `memory_period` if that is lower; its own profiles stay
    true, since samples carry their weight. In use is what was allocated while memory was profiled.
    """

    def __init__(self, config: Config) -> None:
        self._stacks = Stacks(config, "main")
        self._consumer = Consumer(
            sample_rate=config.tick_rate,
            interval=_INTERVAL,
            max_frames=config.max_frames,
            max_windows=None,
            window_bytes=_WINDOW_BYTES,
            engine=config.engine,
            max_overhead=config.max_overhead,
            gil=config.wall and config.gil,
        )
        self._recording = (
            Recording(config.memory, config.memory_period, config.max_frames)
            if config.memory != "off"
            else None
        )
        self._state = "new"

    def __enter__(self) -> "OneOff":
        if self._state != "new":
            raise RuntimeError("this profile was taken already: make a new one with pyprof.profile()")
        open_one_off(self._consumer, self._recording)
        self._state = "open"
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        close_one_off(self._consumer, self._recording)
        self._state = "complete"

    def _profile(self) -> "Profile":
        from .pprof import join, read

        if self._state != "complete":
            raise RuntimeError(
                "the profile is complete when its block has ended (`with pyprof.profile() as p:`)"
            )
        # None in the child of a fork within the block, which leaves it as the parent does.
        windows = self._consumer.windows or [_native.Window(period_ns=self._consumer.period_ns)]
        return join(
            [
                read(series.pprof)
                for window in windows
                for series in self._stacks.encode(window, combined=True)
            ]
        )


def profile(*, sample_rate: float = 1000, max_overhead: float = 1.0, **options: object) -> OneOff:
    """Profile a block: `with pyprof.profile() as p: …; print(p.top())`.

    sample_rate: Hz.
    max_overhead: share of one core that pyprof's own CPU may take; below 1 the rate gives way to it.
    options: cpu, wall, gil, memory, memory_period, max_frames, tags and service_name, as in `pyprof.start()`.
    Raises ValueError with the name of a bad one.
    """
    for name in options:
        if name not in _OPTIONS:
            known = ", ".join(["sample_rate", "max_overhead", *sorted(_OPTIONS)])
            raise ValueError(f"profile() has no option {name!r}: it takes {known}")
    return OneOff(Config(sample_rate=sample_rate, max_overhead=max_overhead, **options))
