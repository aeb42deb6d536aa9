"""Memory: which code allocates, and which holds what was allocated."""

import sys
import time

from pyprof import _native, log
from pyprof.locks import Lock

from .memory_limit import cgroup_limit

MAX_BYTES = 16 * 1024 * 1024
"""What the stacks of samples, and their symbols, may take."""

_CRAMPED = 1 << 30  # bytes
_LIMITS_LAST = 60.0
"""Seconds after which limits of memory are read again."""

ALLOC_SPACE = ("alloc_space", "bytes", _native.ALLOC_SPACE)
INUSE_SPACE = ("inuse_space", "bytes", _native.INUSE_SPACE)
INUSE_TYPES = [("inuse_objects", "count", _native.INUSE_OBJECTS), INUSE_SPACE]
TYPES = [("alloc_objects", "count", _native.ALLOC_OBJECTS), ALLOC_SPACE, *INUSE_TYPES]


class Recording:
    """What somebody wants of the memory profile.

    engine: `hook`, or `tracemalloc`. period: mean number of bytes between two samples.
    oom_threshold: share of the limit of memory at which what is in use is reported at once; None: never.
    """

    def __init__(self, engine: str, period: int, max_frames: int, oom_threshold: float | None = None) -> None:
        self.engine = engine
        self.period = period
        self.max_frames = max_frames
        self.oom_threshold = oom_threshold


class Recorder:
    """The hook on the allocators of the process, in while somebody wants it; with the shortest period wanted.

    Samples keep their weight, so that each one's profile is true whatever the others want. Engine
    `tracemalloc` hands what is sampled to that module, which it starts; where the application has it trace
    already, nothing is hooked, and everything is there.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._recordings: list[Recording] = []
        self._tracer: object | None = None  # who waits for what tracemalloc traces
        self._tracer_began = False  # and has turned it on
        self._limits = (0, 0)
        self._limits_read = -_LIMITS_LAST
        self.watches_size = False
        """There is a limit of memory, and somebody wants to know when the process is close to it."""
        self.is_cramped = False
        """One that may be reached within some tenths of a second."""

    def add(self, recording: Recording) -> None:
        """Record from now on. RuntimeError where that is impossible."""
        with self._lock:
            if recording not in self._recordings:  # as it is in the child of a fork
                self._start(recording)
                self._recordings.append(recording)
            self._apply()

    def _start(self, recording: Recording) -> None:
        others = {one.engine for one in self._recordings} - {recording.engine}
        if others:
            raise RuntimeError(f"it is profiled already, by engine {others.pop()}")
        if not self._recordings and not (recording.engine == "tracemalloc" and is_tracing()):
            self._start_hook(recording)

    def _start_hook(self, recording: Recording) -> None:
        _native.start_memory(
            period=float(recording.period),
            max_frames=recording.max_frames,
            max_bytes=MAX_BYTES,
            traced=recording.engine == "tracemalloc",
        )

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
            if self._recordings[0].engine == "tracemalloc" and not is_tracing():
                self._end("tracemalloc was stopped by the application")
            elif not _native.check_memory():
                self._end("others have cut the hook out of the allocators, or begun to trace themselves")
            self._apply()

    def has(self, recording: Recording) -> bool:
        """Whether it is recorded."""
        return recording in self._recordings

    def begin_trace(self, owner: object, max_frames: int) -> bool:
        """Have tracemalloc trace everything; whether it did not before. RuntimeError while others do.

        The end is `end_trace`, also where this is interrupted by an exception.
        """
        import tracemalloc

        with self._lock:
            if self._tracer is not None:
                raise RuntimeError("trace_memory(): another call is under way")
            is_sampled = bool(self._recordings) and self._recordings[0].engine == "tracemalloc"
            is_ours = (is_sampled and _is_hooked()) or not is_tracing()
            self._tracer, self._tracer_began = owner, is_ours
            if is_ours:
                if is_sampled:
                    _native.stop_memory()
                tracemalloc.start(max_frames)
            return is_ours

    def end_trace(self, owner: object) -> None:
        """The end of `begin_trace`, if that was this owner's."""
        import tracemalloc

        with self._lock:
            if self._tracer is not owner:
                return
            self._tracer = None
            if self._tracer_began:
                tracemalloc.stop()
                if self._recordings and self._recordings[0].engine == "tracemalloc":
                    self._start_hook(self._recordings[0])

    def _end(self, reason: str) -> None:
        self._recordings.clear()
        log.error("memory is not profiled any more: %s", reason)

    def _apply(self) -> None:
        if not self._recordings:
            self.watches_size = self.is_cramped = False
            _native.limit_memory(resident=0, address_space_share=0.0)
            _native.stop_memory()
            return
        _native.set_memory_period(float(min(recording.period for recording in self._recordings)))
        thresholds = [one.oom_threshold for one in self._recordings if one.oom_threshold is not None]
        # Beside a busy thread every file that is read costs a wait for the GIL.
        if thresholds and time.monotonic() >= self._limits_read + _LIMITS_LAST:
            self._limits, self._limits_read = limits(), time.monotonic()
        share = max(thresholds, default=0.0)
        self.watches_size = share > 0 and any(self._limits)
        self.is_cramped = share > 0 and any(0 < limit < _CRAMPED for limit in self._limits)
        _native.limit_memory(resident=int(self._limits[0] * share), address_space_share=share)

    def after_fork_in_child(self) -> None:
        """Who held the lock may not exist here; the hook goes on."""
        self._lock = Lock()


def _is_hooked() -> bool:
    return _native.memory_stats()["period"] > 0


def is_tracing() -> bool:
    """Whether tracemalloc is on; the environment turns it on without an import."""
    import _tracemalloc

    return bool(_tracemalloc.is_tracing())


def limits() -> tuple[int, int]:
    """Of resident memory and of address space, in bytes; 0: none."""
    import resource

    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    return cgroup_limit(), 0 if address_space == resource.RLIM_INFINITY else min(address_space, sys.maxsize)
