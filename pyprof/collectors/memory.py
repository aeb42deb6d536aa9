"""Memory: which code allocates, and which holds what was allocated."""

import sys

from pyprof import _native, log
from pyprof.locks import Lock

from .memory_limit import cgroup_limit

MAX_BYTES = 16 * 1024 * 1024
"""What the stacks of samples, and their symbols, may take."""

ALLOC_SPACE = ("alloc_space", "bytes", _native.ALLOC_SPACE)
INUSE_SPACE = ("inuse_space", "bytes", _native.INUSE_SPACE)
TYPES = [
    ("alloc_objects", "count", _native.ALLOC_OBJECTS),
    ALLOC_SPACE,
    ("inuse_objects", "count", _native.INUSE_OBJECTS),
    INUSE_SPACE,
]


class Recording:
    """What somebody wants of the allocator hook.

    period: mean number of bytes between two samples.
    oom_threshold: share of the limit of memory at which what is in use is reported at once; None: never.
    """

    def __init__(self, period: int, max_frames: int, oom_threshold: float | None = None) -> None:
        self.period = period
        self.max_frames = max_frames
        self.oom_threshold = oom_threshold


class Recorder:
    """The allocator hook of the process, in while somebody wants it; shared, with the shortest period wanted.

    Samples keep their weight, so that each one's profile is true whatever the others want.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._recordings: list[Recording] = []

    def add(self, recording: Recording) -> None:
        """Record from now on. RuntimeError where that is impossible."""
        with self._lock:
            _native.start_memory(
                period=self._period(recording), max_frames=recording.max_frames, max_bytes=MAX_BYTES
            )
            if recording not in self._recordings:  # as it is in the child of a fork
                self._recordings.append(recording)
            self._apply()

    def remove(self, recording: Recording) -> None:
        """The end of `add`: when nobody is left the hook is out, and what lives is forgotten."""
        with self._lock:
            if recording in self._recordings:
                self._recordings.remove(recording)
                self._apply()

    def change_period(self, recording: Recording, period: int) -> None:
        with self._lock:
            recording.period = period
            self._apply()

    def check(self) -> None:
        """Now and then, from any thread: have other tools cut the hook out, and have limits changed?"""
        with self._lock:
            if not self._recordings:
                return
            if not _native.check_memory():
                self._recordings.clear()
                log.error(
                    "memory is not profiled any more: other tools have cut the hook out of the allocators "
                    "again and again"
                )
            self._apply()

    def after_fork_in_child(self) -> None:
        """Who held the lock may not exist here; the hook goes on."""
        self._lock = Lock()

    def _period(self, *more: Recording) -> float:
        return float(min(recording.period for recording in (*self._recordings, *more)))

    def _apply(self) -> None:
        if not self._recordings:
            _native.limit_memory(resident=0, address_space=0)
            _native.stop_memory()
            return
        _native.set_memory_period(self._period())
        thresholds = [one.oom_threshold for one in self._recordings if one.oom_threshold is not None]
        resident, address_space = limits() if thresholds else (0, 0)
        share = max(thresholds, default=0.0)
        _native.limit_memory(resident=int(resident * share), address_space=int(address_space * share))


def limits() -> tuple[int, int]:
    """Of resident memory and of address space, in bytes; 0: none."""
    import resource

    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    return cgroup_limit(), 0 if address_space == resource.RLIM_INFINITY else min(address_space, sys.maxsize)
