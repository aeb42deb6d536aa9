"""The C core: timer thread, engines, windows and the pprof encoder.

Everything here is internal to pyprof; applications use the names of `pyprof` itself.
"""

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, Literal, Self, TypedDict, TypeVar, final

_Function = TypeVar("_Function", bound=Callable[..., Any])

SUPPORTED: bool
"""Whether sampling is compiled in (Linux, not `-DPYPROF_PORTABLE`)."""

# Columns of a window: what `Window.encode` can put under a sample type.
SAMPLES: int
"""Ticks at which the stack was seen, missed ticks included."""
CPU_SAMPLES: int
"""Ticks at which the stack was charged with CPU time."""
CPU_NS: int
"""CPU time by the thread's own clock, nanoseconds."""
WALL_NS: int
"""Wall time, nanoseconds."""
GIL_HELD_NS: int
"""The part of it in which the thread held the GIL."""
GIL_WAIT_NS: int
"""The part of it in which the thread waited for the GIL."""
ALLOC_OBJECTS: int
"""Blocks allocated, estimated from samples."""
ALLOC_SPACE: int
"""Their bytes."""
INUSE_OBJECTS: int
"""Of the blocks allocated since memory is recorded, those that were not freed at the window's end."""
INUSE_SPACE: int
"""Their bytes."""

@final
class Window:
    """Stacks and their values over one upload interval.

    The sampler makes and fills windows; one made from Python is for tests and converters.
    """

    def __init__(
        self, max_bytes: int = ..., *, start_ns: int = 0, duration_ns: int = 0, period_ns: int = 0
    ) -> None: ...
    def add(
        self,
        stack: Iterable[tuple[str, str, int, int]],
        *,
        samples: int = 0,
        cpu_samples: int = 0,
        cpu_ns: int = 0,
        wall_ns: int = 0,
        gil_held_ns: int = 0,
        gil_wait_ns: int = 0,
        alloc_objects: int = 0,
        alloc_space: int = 0,
        inuse_objects: int = 0,
        inuse_space: int = 0,
        truncated: bool = False,
        labels: Mapping[str, object] | None = None,
    ) -> None:
        """Add values to a stack of (qualname, filename, first line, line), leaf first, with these labels.

        `truncated` adds a visible `[truncated]` root. Raises ValueError for a negative number, a line beyond
        2**31 - 1, a value beyond 2**63 - 1; sums stay at that. Lone surrogates become escapes.
        """

    @property
    def files(self) -> list[str]:
        """The distinct `co_filename`s of the window, in the order `encode` wants them described."""

    @property
    def labels(self) -> list[tuple[str, str]]:
        """The distinct labels (name, value) of its samples, in the order `encode` wants values for them."""

    @property
    def start_ns(self) -> int:
        """Start, nanoseconds of Unix time."""

    @property
    def duration_ns(self) -> int: ...
    @property
    def period_ns(self) -> int:
        """Mean gap between ticks, nanoseconds."""

    @property
    def wanted_period_ns(self) -> int:
        """What `period_ns` is where `max_overhead` does not lower the rate; 0 if not known."""

    @property
    def memory_period(self) -> int:
        """Bytes between two samples of memory, on average; 0: there are none in this window."""

    @property
    def memory_is_short(self) -> bool:
        """Whether it ended early because the process came close to its limit of memory."""

    @property
    def stacks(self) -> int:
        """Number of distinct stacks, `[overflow]` apart."""

    @property
    def bytes(self) -> int:
        """Memory held, symbols included; at most `max_bytes`, or an empty window's few hundred."""

    @property
    def counters(self) -> dict[str, int]:
        """What happened: ticks, missed, overflowed, unplaced_cpu_ns, dropped_windows (before this one)."""

    def encode(
        self,
        sample_types: Sequence[tuple[str, str, int]],
        *,
        period_type: tuple[str, str],
        period: int,
        files: Sequence[tuple[str, str]] | None = None,
        labels: Mapping[str, int | tuple[int, str]] | None = None,
        label_values: Sequence[str | None] | None = None,
        comments: Sequence[str] = (),
        default_sample_type: str = "",
        mapping: str = "",
    ) -> builtins.bytes:
        """The window as an uncompressed pprof message.

        sample_types: (type, unit, column) in order.
        files: for each entry of `Window.files` the path to show and the module that prefixes its
            functions ("" for none); None shows `co_filename` and bare qualnames. ValueError if the window has
            another number of files.
        labels: numeric labels put on every sample, each a number or (number, unit).
        label_values: for each entry of `Window.labels` the value to show, None for leaving it out; None shows
            all as they are. ValueError if the window has another number of labels.
        A sample whose selected values are all zero is left out; samples that show the same are one.
        """

@final
class Labels:
    """Labels on everything that is sampled in a block of code; a decorator, too.

    They go with the context (contextvars): to asyncio tasks, to_thread, copied contexts, and on free-threaded
    builds to threads that are started in the block. Within another block's they are added; a value None takes
    that one's away. Values are text, or made text by str(), and cut at 2048 bytes. A block may be entered
    again and again, by several threads and tasks at once; it never raises at its end.
    """

    def __init__(self, **labels: object) -> None:
        """ValueError for a name that profiles cannot have, or for more than 32."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> Literal[False]: ...
    def __call__(self, function: _Function) -> _Function:
        """The function with its body in the block; coroutine functions and generators, too."""

    def add(self, **labels: object) -> None:
        """Add labels to the block, and to what was sampled in it before.

        That is: as far as the profile of that interval has not been made yet. Also after the block has
        ended, and from any thread; of a block that runs several times, the one that began last.
        """

def set_labels(**labels: object) -> None:
    """Set labels until the innermost `with labels` block ends, or for the rest of this context.

    None takes one away. Raises ValueError as `labels` does.
    """

def current_labels() -> dict[str, str]:
    """Those of the calling context."""

def context_labels(context: Context) -> dict[str, str]: ...

@final
class Thread:
    """An operating system thread of our own, joined by `join`; no `threading` machinery, no patched locks."""

    def __init__(self, target: Callable[[], object], name: str) -> None:
        """Starts at once; every signal but the synchronous ones is blocked in it."""

    def join(self, timeout: float) -> bool:
        """Wait (GIL released) at most `timeout` seconds for the end; whether it ended."""

@final
class Event:
    """A flag that threads of any kind wait for without the GIL and without Python locks."""

    def __init__(self) -> None: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float) -> bool: ...

@final
class Lock:
    """A lock that no patched module can turn into something else. Not reentrant."""

    def __init__(self) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...
    def is_mine(self) -> bool:
        """Whether the calling thread holds it."""

def start(
    *,
    period_ns: int,
    window_ns: int,
    max_frames: int,
    ring_windows: int,
    window_bytes: int,
    raw_walk: bool,
    gilfree: bool,
    max_overhead: float,
    gil: bool,
) -> None:
    """Start the timer thread (main interpreter only; RuntimeError elsewhere or when one runs).

    max_overhead: share of one core that pyprof's own CPU time keeps within, by longer periods; 1: no limit.
    """

def stop() -> None:
    """End the timer thread, join it, and push the window it was filling onto the ring."""

def pause() -> None:
    """End the timer thread for a fork; `resume` goes on with the window it was filling, `stop` ends it."""

def resume() -> None:
    """After `pause`, else nothing. RuntimeError where no thread can be had; then it is as after `stop`."""

def rotate(timeout: float) -> bool:
    """Push the current window onto the ring now; whether that happened within `timeout` seconds."""

def wait(timeout: float) -> bool:
    """Wait (GIL released) at most `timeout` seconds for a window or `wake()`; whether there is a window."""

def take() -> Window | None:
    """The oldest window of the ring, None if it is empty."""

def wake() -> None:
    """End a `wait`, the one under way or else the next."""

def prepare_after_fork(callable: Callable[[], object] | None) -> None:
    """From a `before` hook: what to call in the parent once os.fork() has returned; None for nothing."""

def schedule_after_fork() -> None:
    """The `after_in_parent` hook that goes with `prepare_after_fork`."""

def unlock_in_child(object: object) -> None:
    """In the child of a fork, on free-threaded builds: a thread that is not here may hold its lock."""

def gilfree_obstacle() -> str | None:
    """Why the `gilfree` engine cannot be used in this process, if it cannot."""

class _Stats(TypedDict):
    ticks: int
    missed: int
    stacks: int
    threads: int
    windows: int
    unplaced_cpu_ns: int
    overflowed: int
    dropped_windows: int
    own_cpu_ns: int
    bytes: int
    unverified: int
    incomplete: int
    torn: int
    fallbacks: int
    discarded: int
    period_ns: int
    rate_changes: int
    untold_gil_ns: int
    walk_obstacle: str | None
    gilfree_obstacle: str | None
    gil_wait_obstacle: str | None
    label_obstacle: str | None
    engine: str | None
    memory_reads: str | None
    trusted_clocks: bool

def stats() -> _Stats:
    """Counters of this process; they go on over a restart and begin anew in the child of a fork."""

def start_memory(*, period: float, max_frames: int, max_bytes: int, traced: bool) -> None:
    """Hook the allocators and record memory; nothing where that is so. RuntimeError where it cannot be.

    period: bytes between two samples, on average. max_bytes: for stacks and symbols.
    traced: start tracemalloc and have it keep the stacks of what is sampled, and of nothing else.
    """

def stop_memory() -> None:
    """The end of `start_memory`; what lives is forgotten."""

def set_memory_period(period: float) -> None: ...
def check_memory() -> bool:
    """Put right what other tools did to the hook of the allocators; False: that cannot be done any more."""

def report_memory(*, max_bytes: int, peak: bool) -> Window:
    """What was allocated since the start, and is in use now; or what was in use when that was most."""

def live_blocks() -> list[tuple[int, int, int, float]]:
    """(domain, address, size, weight) of what is sampled and not freed."""

def traceback_of(domain: int, address: int) -> tuple[tuple[str, int], ...] | None:
    """What tracemalloc knows of a block: file names and lines, leaf first."""

def traces() -> list[tuple[int, int, tuple[tuple[str, int], ...]]] | None:
    """Blocks, bytes, and file names and lines, leaf first, of all that tracemalloc traces.

    None where its tables cannot be read: CPython 3.11, free-threaded builds.
    """

def limit_memory(*, resident: int, address_space_share: float) -> None:
    """Sizes of the process at which the timer thread ends its window at once; 0: none.

    resident: bytes. address_space_share: of RLIMIT_AS, whatever that is then.
    """

class _MemoryStats(TypedDict):
    samples: int
    live: int
    overflowed: int
    unkept: int
    evicted: int
    gaps: int
    inuse_bytes: int
    peak_bytes: int
    period: float
    bytes: int

def memory_stats() -> _MemoryStats:
    """Counters of this process; `period` is 0 where memory is not recorded."""

def is_main_interpreter() -> bool: ...
def main_thread_id() -> int:
    """`threading.get_ident()` of the main thread. For 3.11 and 3.12."""

def abandoned() -> bool:
    """Whether the timer thread has ended because no Python thread is left: then our others must end too."""

def arm_sigterm(bound: float) -> bool:
    """Put death by SIGTERM off until `pass_sigterm_on`, at most `bound` seconds; whether that can be done.

    Not where the application ignores or handles SIGTERM, and from the main thread only.
    """

def disarm_sigterm() -> None:
    """The end of `arm_sigterm`. A SIGTERM that came before takes effect."""

def sigterm_came() -> bool:
    """Whether SIGTERM came, and all windows up to then are on the ring."""

def pass_sigterm_on() -> None:
    """Die of it; returns where the process has a handler by now, or is the first of a container."""

def exit_within(status: int, seconds: float) -> bool:
    """Call `_exit(status)` so many seconds from now, whoever has the GIL then; False: no thread for that."""

def own_threads() -> int:
    """Threads of pyprof's own that were made and not joined."""

def native_threads() -> int:
    """Threads of the process as the kernel counts them; 0 where it cannot be told."""
