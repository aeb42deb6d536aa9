"""`with pyprof.profile() as p:` — one profile of one block, beside or without the continuous one."""

import os
from typing import TYPE_CHECKING

from . import _native
from .collectors.sampler import Consumer
from .collectors.stacks import Stacks
from .config import Config
from .profiler import close_one_off, open_one_off

if TYPE_CHECKING:
    from types import TracebackType

    from .pprof import Profile

_OPTIONS = frozenset({"cpu", "wall", "gil", "max_frames", "tags", "service_name"})
_INTERVAL = 3600.0  # seconds: one window, as a rule
_WINDOW_BYTES = 64 * 1024 * 1024


class OneOff:
    """The profile of the block that it was entered for, of all threads of the process.

    Where the continuous profiler runs, it goes on meanwhile, at this sample rate if that is higher, and with
    this `max_overhead` if that is; its own profiles stay true, since samples carry their weight.
    """

    def __init__(self, config: Config) -> None:
        self._stacks = Stacks(config, "main")
        self._consumer = Consumer(
            sample_rate=config.sample_rate,
            interval=_INTERVAL,
            max_frames=config.max_frames,
            max_windows=None,
            window_bytes=_WINDOW_BYTES,
            engine=config.engine,
            max_overhead=config.max_overhead,
            gil=config.wall and config.gil,
        )
        self._state = "new"

    def __enter__(self) -> "OneOff":
        if self._state != "new":
            raise RuntimeError("this profile was taken already: make a new one with pyprof.profile()")
        open_one_off(self._consumer)
        self._state = "open"
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        close_one_off(self._consumer)
        self._state = "complete"

    def pprof(self) -> bytes:
        """The profile as an uncompressed pprof message: samples, cpu, wall, gil_held and gil_wait."""
        from .pprof import write

        return write(self._profile())

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the profile to `path`: pprof (`.pb.gz`, or `.pb`, not compressed), or one of the formats of
        `pyprof convert`. Raises ValueError for a name that ends in none of them.
        """
        from .pprof import save

        save(self._profile(), path)

    def top(self, n: int = 20, *, sample_type: str | None = None) -> str:
        """The table of the `n` functions with the largest flat value, as `pyprof top` prints it."""
        from .pprof import format_top, top

        profile = self._profile()
        unit = profile.sample_types[profile.sample_type_index(sample_type)].unit
        return format_top(top(profile, sample_type, limit=n), unit)

    def flamegraph(self, path: "str | os.PathLike[str]", *, sample_type: str | None = None) -> None:
        """Write the profile as one self-contained HTML page."""
        from .pprof import flamegraph, replace_file

        page = flamegraph.render(self._profile(), sample_type)
        with replace_file(path) as file:
            file.write(page.encode())

    def _profile(self) -> "Profile":
        from .pprof import merge, read

        if self._state != "complete":
            raise RuntimeError(
                "the profile is complete when its block has ended (`with pyprof.profile() as p:`)"
            )
        # None in the child of a fork within the block, which leaves it as the parent does.
        windows = self._consumer.windows or [
            _native.Window(period_ns=round(1e9 / self._consumer.sample_rate))
        ]
        return merge(
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
    options: cpu, wall, gil, max_frames, tags and service_name, as in `pyprof.start()`.
    Raises ValueError with the name of a bad one.
    """
    for name in options:
        if name not in _OPTIONS:
            known = ", ".join(["sample_rate", "max_overhead", *sorted(_OPTIONS)])
            raise ValueError(f"profile() has no option {name!r}: it takes {known}")
    return OneOff(Config(sample_rate=sample_rate, max_overhead=max_overhead, **options))
