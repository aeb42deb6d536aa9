"""What `pyprof.stats()` answers."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from . import _native
    from .collectors.label_bound import LabelBound
    from .export.delivery import Counters


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of this process since its first `pyprof.start()`; a forked child begins anew."""

    running: bool
    engine: str
    """Engine in use, or the last one used; "none" before the first start."""
    engine_notes: tuple[str, ...]
    """Why the engine does less than it could, one line each."""
    memory_reads: str
    """How engine `gilfree` reads: "memfd", slower "process_vm_readv" or "/proc/self/mem"; else "none"."""
    sample_rate: float
    """Ticks a second, Hz, now: the configured rate, or what `max_overhead` leaves of it; 0 if none runs.
    Once a second where neither CPU nor wall time is wanted."""
    rate_changes: int
    """Times that the rate was changed to keep pyprof's CPU within `max_overhead`."""
    ticks: int
    """Ticks that were due."""
    missed: int
    """Ticks without a snapshot; the next sample carries their weight."""
    discarded: int
    """Of `missed`, those that came in time, but at which no engine could read every stack."""
    unverified: int
    """Stacks that are credible, although their thread moved while it was read."""
    incomplete: int
    """Stacks that end at a caller: what it called moved too fast, and no other engine can be asked."""
    torn: int
    """Times that no credible stack could be read from a running thread."""
    fallbacks: int
    """Snapshots that engine `gilfree` left to `current_frames`: stacks torn, unknown, or moving too fast."""
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
    """CPU time, nanoseconds, that no tick could place; charged to where the thread was last seen on a CPU."""
    untold_gil_ns: int
    """Wall time, nanoseconds, of threads of which it could not be told whether they waited for the GIL."""
    memory_period: float
    """Bytes between two samples of memory, on average, now; more than configured where many live. 0: off."""
    memory_samples: int
    """Allocations sampled."""
    memory_live: int
    """Of these, not freed yet."""
    memory_inuse_bytes: int
    """Bytes in use, of what was allocated since memory is recorded; estimated from samples."""
    memory_peak_bytes: int
    """The most that this was."""
    memory_overflowed: int
    """Samples of memory whose stack found no room; they are in `[overflow]`."""
    memory_unkept: int
    """Samples that are in what was allocated, but found no room in what is in use."""
    memory_evicted: int
    """Stacks without memory in use that made room for others; what they had allocated is in `[overflow]`."""
    memory_gaps: int
    """Times that another tool had cut pyprof out of the allocators: what was in use is unknown since."""
    label_values_other: int
    """Label values beyond `label_values_max`, counted once a profile: `__other__` stands for them."""
    labels_left_out: int
    """Labels, counted once a profile and value, whose names are more than a server takes."""
    own_cpu_ns: int
    """CPU time of pyprof itself, nanoseconds: its threads, and its work on the application's."""
    own_bytes: int
    """Memory of the code cache, of copied stacks and what copies them, of the finished windows, and of the
    memory profile, bytes."""
    uploads: int = 0
    unconfirmed: int = 0
    """Uploads whose answer a fork did not wait for; not sent again, since that would count twice."""
    upload_failures: int = 0
    undelivered: int = 0
    """Profiles given up, whole or in part, after a failed upload or write."""
    uploaded_bytes: int = 0
    files_written: int = 0


def gather(
    native: "_native._Stats",
    memory: "_native._MemoryStats",
    exported: "Counters | None",
    *,
    running: bool,
    dropped_windows: int,
    label_bound: "LabelBound | None",
) -> Stats:
    """Each counter is taken by the name of its field; only what is called or counted otherwise stands here.

    exported: None where nothing was to be delivered. dropped_windows: of those that had left the ring.
    """
    found: dict[str, Any] = {
        **native,
        **{f"memory_{name}": value for name, value in memory.items()},
        **(vars(exported) if exported is not None else {}),
        "running": running,
        "sample_rate": 1e9 / native["period_ns"] if native["period_ns"] else 0.0,
        "engine": native["engine"] or "none",
        "memory_reads": native["memory_reads"] or "none",
        "engine_notes": tuple(_engine_notes(native, running)),
        "dropped_windows": native["dropped_windows"] + dropped_windows,
        "label_values_other": label_bound.other_values if label_bound is not None else 0,
        "labels_left_out": label_bound.left_out if label_bound is not None else 0,
        "own_bytes": native["bytes"] + memory["bytes"],
    }
    return Stats(**{field.name: found[field.name] for field in fields(Stats) if field.name in found})


def _engine_notes(native: "_native._Stats", running: bool) -> "Iterator[str]":
    if native["walk_obstacle"] is not None:
        yield f"stacks are read through the public C API: {native['walk_obstacle']}"
    if native["gilfree_obstacle"] is not None:
        yield f"engine gilfree is not in use: {native['gilfree_obstacle']}"
    if native["label_obstacle"] is not None:
        yield f"labels are not in the profiles: {native['label_obstacle']}"
    if native["gil_wait_obstacle"] is not None:
        yield f"gil_wait is not in the profiles: {native['gil_wait_obstacle']}"
    if running and not native["trusted_clocks"]:
        yield "thread clocks are coarse here: every thread is walked at every tick, idle or not"
