"""The life of the one profiler of a process: start, stop, fork, exit.

`_lock` guards start, stop, flush and one-off profiles. The exporter never takes it, and a fork does not wait
for it: the child gets a new one.
"""

import atexit
import os
import sys
import time
from typing import TYPE_CHECKING

from . import _native, log, servers
from .collectors import memory
from .collectors.memory import Recorder, Recording
from .collectors.sampler import Consumer, Sampler
from .collectors.stacks import Stacks
from .config import TRACEMALLOC_NEEDS_GIL, Config, Option
from .fork import Forks, end_with_multiprocessing
from .heap import Heap
from .last_words import LastWords
from .locks import Lock
from .option_kinds import Number
from .report import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .collectors.label_bound import LabelBound
    from .collectors.tasks import TaskWall
    from .counters import Stats
    from .export.delivery import Counters
    from .export.exporter import Exporter
    from .export.series import Series
    from .export.target import Target
    from .name_labels import NameLabels

# A window holds at most this; the timer thread, the ring and the exporter together ring_windows + 2 of them.
_WINDOW_BYTES = 8 * 1024 * 1024

_HEAP_BYTES = 64 * 1024 * 1024
_ROTATION = 1.0  # seconds that the end of a window may take

_UNSUPPORTED = f"profiling works on Linux only; this is {sys.platform}, or a build without the Linux parts"


class Profiler:
    """What `pyprof.start()` returns."""

    def __init__(self, config: Config, previous: "Profiler | None" = None) -> None:
        """previous: the one that ran before in this process; its counters go on."""
        self.config = config
        self._counters = previous.counters if previous is not None else None
        self._dropped_before = previous.dropped_windows if previous is not None else 0
        self._stacks = Stacks(config, servers.role_of_starter())
        if previous is not None:
            self.label_bound.count_on(previous.label_bound)
        self._exporter: Exporter | None = None
        self._consumer = _consumer(config)
        self._recording = Recording(
            config.memory, config.memory_period, config.max_frames, config.memory_oom_threshold
        )
        self._task_wall = _task_wall(config)
        self._names = _name_labels(config)
        self._memory = config.memory  # the engine that is wanted now
        self._running = False
        self._discards = False

    def __repr__(self) -> str:
        state = "running" if self._running else "stopped"
        return f"<pyprof.Profiler {self.config.service_name!r} {state}>"

    @property
    def running(self) -> bool:
        return self._running

    @property
    def exporter(self) -> "Exporter | None":
        return self._exporter

    @property
    def dropped_windows(self) -> int:
        """Windows that were finished but not taken by the exporter in time."""
        return self._dropped_before + self._consumer.dropped

    @property
    def label_bound(self) -> "LabelBound":
        return self._stacks.label_bound

    @property
    def counters(self) -> "Counters | None":
        """What was delivered, if anything was to be."""
        return self._exporter.counters if self._exporter is not None else self._counters

    def heap(self, *, gc: bool = False) -> "Heap":
        """What is in use now, and what was allocated since the start, or since the process was forked.

        gc: collect garbage first, so that what nobody can reach is not in it.
        Raises RuntimeError where memory is not profiled. Engine `tracemalloc` knows only what is in use.
        """
        if gc:
            import gc as collector

            collector.collect()
        return self._heap(memory.INUSE_SPACE)

    def allocs(self) -> "Heap":
        """The same, shown as what was allocated. RuntimeError where engine `hook` does not run."""
        return self._heap(memory.ALLOC_SPACE, needs_hook=True)

    def heap_peak(self) -> "Heap":
        """What was in use when that was most, since the start. RuntimeError without engine `hook`."""
        return self._heap(memory.INUSE_SPACE, needs_hook=True, peak=True)

    def trace_memory(self, seconds: float) -> "Heap":
        """Exactly what is allocated within the next seconds and still in use at their end, by tracemalloc.

        Where that is not on already, it is for this time: allocations take several times as long meanwhile.
        Where engine `tracemalloc` runs, what was in use before is forgotten. RuntimeError on free-threaded
        builds, which cannot have it, and while another call is under way. ValueError for more than an hour.
        """
        _TRACE_SECONDS.check(seconds)
        if "t" in sys.abiflags:
            raise RuntimeError(f"trace_memory(): {TRACEMALLOC_NEEDS_GIL}")
        from .collectors.traced import MOST_ON_DEMAND, Traced

        traced = Traced()
        if _is_interrupted():
            raise RuntimeError(f"trace_memory() {_INTERRUPTED}")
        owner = object()
        try:
            with _lock:
                began = _recorder.begin_trace(owner, self.config.max_frames)
            before = [] if began else traced.exact(MOST_ON_DEMAND)
            time.sleep(seconds)
            in_use = traced.difference(before)
        finally:
            with _lock:
                _recorder.end_trace(owner)
        stacks = Stacks(self.config, self._stacks.role)
        stacks.traced = traced
        return Heap(stacks.encode_heap(traced.window_of(in_use), memory.INUSE_SPACE))

    def _heap(self, default: tuple[str, str, int], *, needs_hook: bool = False, peak: bool = False) -> "Heap":
        traced = self._stacks.traced if self._memory == "tracemalloc" else None
        if traced is not None and needs_hook:
            raise RuntimeError("engine tracemalloc knows only what is in use (option memory)")
        if traced is not None:
            window, known = traced.window(), _recorder.has(self._recording) and memory.is_tracing()
        else:
            window = _native.report_memory(max_bytes=_HEAP_BYTES, peak=peak)
            known = window.memory_period > 0
        if not known:
            raise RuntimeError("memory is not profiled (option memory)")
        return Heap(self._stacks.encode_heap(window, default))

    def threads(self, *, names: bool = False) -> "Moment":
        """All threads, greenlets and asyncio tasks of the process, with their stacks: a goroutine profile.

        Each counts one. Labels: `kind` (thread, greenlet, task), `state`, and those of its context.
        names: `name` as well, so that each is a sample of its own.
        """
        from .collectors.threads import capture

        return Moment(self._stacks.encode_threads(capture(names)))

    def set_memory(self, engine: "str | bool", *, period: "int | None" = None) -> None:
        """Turn the memory profile on or off, or change its period, while the profiler runs.

        engine: as the option `memory`. period: as the option `memory_period`; None leaves it as it is.
        Turned off, it forgets what lives. Raises ValueError with the name of a bad one, RuntimeError where
        the profiler does not run, or memory cannot be profiled.
        """
        options = {"memory": engine} if period is None else {"memory": engine, "memory_period": period}
        wanted = Config(**options)
        if _is_interrupted():
            raise RuntimeError(f"set_memory() {_INTERRUPTED}")
        with _lock:
            if not self._running:
                raise RuntimeError("the profiler does not run")
            if period is not None:
                _recorder.change_period(self._recording, wanted.memory_period)
            if wanted.memory != self._memory or not _recorder.has(self._recording):
                self._end_memory()
                self._begin_memory(wanted.memory)

    def _end_memory(self) -> None:
        if self._memory != "off":
            self._stacks.end_memory()
            _native.rotate(_ROTATION)  # with what there was up to now
            _recorder.remove(self._recording)
            self._memory = "off"

    def _begin_memory(self, engine: str) -> None:
        if engine != "off":
            self._recording.engine = engine
            _recorder.add(self._recording)
            self._memory = engine
            self._stacks.begin_memory(engine)

    # All of these are called with _lock held, or where there is no other thread.

    def start(self) -> None:
        self._exporter = _make_exporter(self)
        if self._exporter is not None:
            if self._counters is not None:
                self._exporter.counters = self._counters
            self._exporter.prepare()
        self._start_threads()
        if self._names is not None:
            self._names.install()

    def start_in_child(self) -> None:
        """Go on in the child of a fork, where nothing of the parent's is left to do."""
        self._running = False
        self._stacks = Stacks(self.config, servers.role_of_child(self._stacks.role), self._memory)
        self._consumer = _consumer(self.config)
        self._counters, self._dropped_before = None, 0
        self._task_wall = _task_wall(self.config)
        if self._exporter is not None:
            self._exporter.after_fork_child()
        self._start_threads()

    def _start_threads(self) -> None:
        if self._memory != "off":
            _record(self._recording)
        try:
            _sampler.add(self._consumer)
            self._running = True
            if self._exporter is not None:
                if _recorder.is_cramped:
                    self._exporter.load()
                self._exporter.start(hurry=_recorder.watches_size)
        except BaseException:
            self._running = False
            _sampler.remove(self._consumer)
            _recorder.remove(self._recording)
            raise
        if self._exporter is not None and self.config.exit_timeout:
            _last_words.install(self.config.exit_timeout)
            if self.config.flush_on_sigterm:
                _native.arm_sigterm(self.config.exit_timeout)

    def stop(self, flush: bool) -> None:
        self._discards = not flush
        self._running = False
        try:
            _sampler.remove(self._consumer)
            if flush and self._stacks.traced is not None and _recorder.has(self._recording):
                self._stacks.traced.keep_last()
            _recorder.remove(self._recording)
            if self._exporter is not None:
                self._exporter.stop(self.config.exit_timeout if flush else 0)
        finally:
            _native.disarm_sigterm()
            _last_words.uninstall()
            if self._names is not None:
                self._names.uninstall()

    def pause(self, timeout: float) -> None:
        """End the threads; nothing is lost."""
        _sampler.pause()
        if self._exporter is not None:
            self._exporter.pause(timeout)

    def resume(self) -> None:
        """Start the threads that `pause` ended."""
        _sampler.resume()
        if self._running and self._exporter is not None:
            self._exporter.start()

    def take(self, timeout: float) -> "_native.Window | None":
        """The next window, for the exporter."""
        abandoned, terminated = _native.abandoned(), _native.sigterm_came()
        window = self._wait(0 if abandoned or terminated else timeout)
        if terminated and window is None:
            _native.pass_sigterm_on()  # asking for the next window, the exporter is done with all others
        if abandoned and window is None and self._exporter is not None:
            self._exporter.finish(self.config.exit_timeout)
        # Looked at last: the waiting may have begun before, and ended with the last window.
        if self._discards:
            self._consumer.windows.clear()
            return None
        return window

    def _wait(self, timeout: float) -> "_native.Window | None":
        """The next window, waiting until there is one, or a wake; meanwhile tasks are looked at."""
        task_wall, now = self._task_wall, time.monotonic()
        if task_wall is None:
            return _sampler.take(self._consumer, timeout)
        end = now + timeout
        while True:
            until = min(end, now + task_wall.seconds_left)
            window = _sampler.take(self._consumer, until - now)
            now = time.monotonic()
            if window is not None or now < until or now >= end:
                return window
            task_wall.look()

    def encode(self, window: "_native.Window", combined: bool) -> "list[Series]":
        _recorder.check()
        if self._task_wall is not None:
            self._task_wall.put(window)
        return self._stacks.encode(window, combined, records=_recorder.has(self._recording))


def _task_wall(config: Config) -> "TaskWall | None":
    if not (config.task_wall and config.wall):
        return None
    from .collectors.tasks import TaskWall

    return TaskWall(config.max_overhead)


def _name_labels(config: Config) -> "NameLabels | None":
    if not (config.thread_labels or config.task_labels):
        return None
    from .name_labels import NameLabels

    return NameLabels(config.thread_labels, config.task_labels)


def _consumer(config: Config) -> Consumer:
    return Consumer(
        sample_rate=config.tick_rate,
        interval=config.upload_interval,
        max_frames=config.max_frames,
        max_windows=config.ring_windows,
        window_bytes=_WINDOW_BYTES,
        engine=config.engine,
        max_overhead=config.max_overhead,
        gil=config.wall and config.gil,
    )


_lock = Lock()
_sampler = Sampler()
_recorder = Recorder()
_current: Profiler | None = None
_deferred: dict[str, object] | None = None
"""Arguments of a `start()` that takes effect in the workers of this process."""
_hooked = False
_ending = False


def start(
    service_name: str | None = None, *, settings: "Mapping[str, object] | None" = None, **options: object
) -> Profiler:
    """Start profiling this process, until it ends or `stop()`.

    service_name: what the service is called in the profiling server.
    settings: options from the configuration of a framework, over which the environment wins. With
        `enabled` among them, it or PYPROF_ENABLED may say that nothing is to be started.
    options: those of the documentation's table; each may also be given as PYPROF_<NAME> in the environment.
    Returns the running profiler. A second call warns and returns the one that runs.
    Raises ValueError with the name of an option whose value or type is wrong.
    """
    global _current, _deferred
    if service_name is not None:
        options["service_name"] = service_name
    warnings: list[str] = []
    config = Config.load(options, os.environ, warnings.append, settings)
    log.set_level(config.log_level)
    for warning in warnings:
        log.warning("%s", warning)
    if settings is not None and "enabled" in settings and not config.enabled:
        return Profiler(config)
    if not _native.SUPPORTED:
        return _refuse(config, f"{_UNSUPPORTED}: nothing is profiled")
    if _ending:
        return Profiler(config)  # nobody would end the threads before the interpreter turns them away
    if not _native.is_main_interpreter():
        return Profiler(config)  # the main interpreter's profiler speaks for the process
    if _is_interrupted():
        log.warning("start() %s: this call changes nothing", _INTERRUPTED)
        return _current or Profiler(config)
    if servers.awaits_workers():
        if _deferred is not None:
            log.warning(_RUNS_ALREADY)
        else:
            _deferred = {**options, "settings": settings}
            servers.call_in_workers(_start_deferred)
        return Profiler(config)
    _hook()  # before the lock: a child forked by another thread meanwhile needs a new one
    with _lock:
        if _current is not None and _current.running:
            log.warning(_RUNS_ALREADY)
            return _current
        profiler = Profiler(config, _current)
        try:
            profiler.start()
        except Exception as error:  # no threads to be had, a module of ours or of Python that cannot be read
            return _refuse(config, f"not started: {error}", error)
        _current = profiler
    threads_obstacle = servers.threads_obstacle()
    if threads_obstacle is not None:
        log.warning("%s", threads_obstacle)
    obstacle = _native.stats()["gilfree_obstacle"]
    if obstacle is not None and config.engine != "current_frames":
        say = log.warning if config.engine == "gilfree" else log.info
        say("engine current_frames instead of gilfree: %s", obstacle)
    return profiler


def _start_deferred() -> None:
    global _deferred
    options, _deferred = _deferred, None
    if options is not None:
        start(**options)  # type: ignore[arg-type]


_RUNS_ALREADY = "start() while pyprof runs already: this call changes nothing (call stop() first)"
_INTERRUPTED = "by a signal handler in the middle of pyprof's start, stop or flush"


def _is_interrupted() -> bool:
    """Whether the caller is a signal handler that has interrupted this thread within the lock.

    Waiting for what it interrupts would never end.
    """
    return _native.SUPPORTED and _lock.is_mine()


def _refuse(config: Config, reason: str, error: Exception | None = None) -> Profiler:
    if config.strict:
        raise RuntimeError(f"pyprof: {reason}") from error
    log.warning("%s", reason)
    return Profiler(config)


def stop(flush: bool = True) -> None:
    """Stop profiling and undo what `start()` did.

    flush: deliver what was sampled, within `exit_timeout`; otherwise it is thrown away.
    """
    global _deferred
    if _is_interrupted():
        log.warning("stop() %s: this call changes nothing", _INTERRUPTED)
        return
    _deferred = None
    with _lock:
        if _current is not None and _current.running:
            _current.stop(flush)


def is_running() -> bool:
    """Whether this process is being profiled by `start()`."""
    return _current is not None and _current.running


_TRACE_SECONDS = Option("seconds", Number(0, 3600, "seconds"), 10.0, "time of trace_memory()")
_FLUSH_TIMEOUT = Option("timeout", Number(0, 3600, "seconds"), 10.0, "bound of flush()")


def flush(timeout: float = 10.0) -> bool:
    """Deliver what was sampled up to now, for instance before a function service is frozen.

    timeout: seconds, at most an hour; ValueError for anything else. Returns whether everything was delivered
    within them; False where nothing runs.
    """
    _FLUSH_TIMEOUT.check(timeout)
    end = time.monotonic() + timeout
    if _is_interrupted():
        return False
    with _lock:
        if _current is None or not _current.running:
            return False
        exporter = _current.exporter
        # Before the exporter sees the window: it may have failed with it before we ask.
        lost = exporter.counters.undelivered if exporter is not None else 0
        if not _native.rotate(timeout):
            return False
    # Not under the lock: stop(), at the program's exit above all, shall not wait for this.
    return exporter is None or exporter.flush(max(0.0, end - time.monotonic()), lost)


def stats() -> "Stats":
    """Counters of this process: what was sampled, lost, delivered, and what that cost."""
    from .counters import gather

    return gather(
        _native.stats(),
        _native.memory_stats(),
        _current.counters if _current is not None else None,
        running=is_running(),
        dropped_windows=_current.dropped_windows if _current is not None else 0,
        label_bound=_current.label_bound if _current is not None else None,
    )


def open_one_off(consumer: Consumer, recording: "Recording | None") -> None:
    """Sample for a one-off profile, until `close_one_off`; None: without memory."""
    if not _native.SUPPORTED:
        raise RuntimeError(_UNSUPPORTED)
    if not _native.is_main_interpreter():
        raise RuntimeError("profiles are taken in the main interpreter only")
    if _is_interrupted():
        raise RuntimeError(f"profile() {_INTERRUPTED}")
    _hook()
    with _lock:
        if recording is not None:
            _record(recording, log.info)  # whoever wants a block may not even want its memory
        try:
            _sampler.add(consumer)
        except BaseException:
            if recording is not None:
                _recorder.remove(recording)
            raise


def close_one_off(consumer: Consumer, recording: "Recording | None") -> None:
    """The end of `open_one_off`."""
    with _lock:
        _sampler.remove(consumer)
        if recording is not None:
            _recorder.remove(recording)


def _record(recording: Recording, say: "Callable[..., None]" = log.warning) -> None:
    """Without memory all the rest goes on."""
    try:
        _recorder.add(recording)
    except RuntimeError as error:
        say("memory is not profiled: %s", error)


def _make_exporter(profiler: Profiler) -> "Exporter | None":
    config = profiler.config
    targets: list[Target] = []
    if config.output is not None:  # first: a server that hangs takes all the time there is at the exit
        from .export.files import DirectoryTarget, FileTarget, is_file

        targets.append((FileTarget if is_file(config.output) else DirectoryTarget)(config.output))
    if config.exporter == "pyroscope":
        from .export.pyroscope import PyroscopeTarget

        targets.append(PyroscopeTarget(config))
    if not targets:
        return None
    from .export import imports
    from .export.exporter import Exporter

    imports.on_logging = _forks.get_ahead_of_logging
    return Exporter(targets, profiler.take, profiler.encode, timeout=config.timeout)


# -- exit and fork --


def _hook() -> None:
    """Once a process: what must happen at its exit and when it forks."""
    global _hooked
    if not _hooked:
        _hooked = True
        atexit.register(_at_exit)
        _forks.register(_after_fork_in_child)


def _at_exit() -> None:
    """The last Python code that may use threads: afterwards an attaching thread would be ended or frozen."""
    global _ending
    _ending = True
    try:
        stop()
    finally:
        _native.stop()  # a one-off profile that was never left


def _pause_for_fork(timeout: float) -> None:
    if _current is not None:
        _current.pause(timeout)
    else:
        _sampler.pause()


def _resume_after_fork() -> None:
    if _current is not None:
        _current.resume()
    else:
        _sampler.resume()


def _at_os_exit() -> None:
    if not _is_interrupted():  # otherwise it is this very thread that would have to go on
        _at_exit()


_last_words = LastWords(_at_os_exit, flush)


_forks = Forks(_pause_for_fork, _resume_after_fork)


def _after_fork_in_child() -> None:
    global _lock, _sampler
    _lock = Lock()
    _sampler = Sampler()
    _recorder.after_fork_in_child()
    _forks.enter_child()
    if _current is not None and _current.running:
        try:
            _current.start_in_child()
        except Exception as error:  # the child of a fork must come up, profiled or not
            log.error("the child of a fork is not profiled: %s", error)
        end_with_multiprocessing(_current, stop)
