"""What `pyprof.stats()` answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of this process since its first `pyprof.start()`; a forked child begins anew."""

    running: bool
    engine: str
    """Engine in use, or the last one used; "none" before the first start."""
    engine_notes: tuple[str, ...]
    """Why the engine does less than it could, one line each."""
    ticks: int
    """Ticks that were due."""
    missed: int
    """Ticks without a snapshot; the next sample carries their weight."""
    unverified: int
    """Stacks that are credible, although their thread moved while it was read."""
    torn: int
    """Times that no credible stack could be read from a running thread."""
    fallbacks: int
    """Snapshots that engine `gilfree` left to `current_frames`: for code not seen before, or a torn stack."""
    stacks: int
    """Stacks walked. A thread that has not run since the last tick needs no walk."""
    threads: int
    """Threads seen at the last tick."""
    windows: int
    dropped_windows: int
    """Windows dropped because the ring was full."""
    overflowed: int
    """Samples whose stack found no room in its window; they are in `[overflow]`."""
    unplaced_cpu_ns: int
    """CPU time, nanoseconds, that no tick could place; charged to the thread's last stack."""
    own_cpu_ns: int
    """CPU time of pyprof itself, nanoseconds: its threads, and its work on the application's."""
    own_bytes: int
    """Memory of the code cache, of copied stacks and of the finished windows, bytes."""
    uploads: int
    upload_failures: int
    undelivered: int
    """Profiles given up after a failed upload or write."""
    uploaded_bytes: int
    files_written: int
