"""The profilers side by side: each with CPU and wall time, at 100 Hz unless asked otherwise, nothing else,
uploading to the sink.

What each is, so that no figure flatters: pyroscope-io embeds py-spy's sampler and has no wall time; it gets
threads on a CPU only, its default. ddtrace comes twice: as it is by default, when it lowers its own rate to
stay near 1 % of the application's CPU and looks at 25 threads and 50 tasks at most, and held at the rate,
with all of them. Its memory, lock and exception collectors are off. pyprof is held at the rate and looks at
all threads always; it comes twice, too: with the faster way to read stacks that the kernel offers, and with
the slower one, as where that is not to be had.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

RATE = 100


class Profiler(ABC):
    """Something that can be started and stopped over and over in one process."""

    title: str
    module: str = ""
    """What must be installed."""
    environ: dict[str, str] = {}  # noqa: RUF012  (never changed)
    """What its process needs in its environment."""
    url_variable: str = ""
    """Where it takes the address of the server from, at import, if it does not take it as an argument."""

    def __init__(self, rate: int = RATE) -> None:
        self.rate = rate

    @abstractmethod
    def start(self, url: str) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    def check(self) -> None:  # noqa: B027  (most cannot be asked)
        """Raise where the profiler runs, but not as asked."""

    def counters(self) -> dict[str, Any]:
        """What it says of itself."""
        return {}

    def run_blocks(self, count: int) -> None:  # noqa: B027  (not every profiler has them)
        """Enter and leave so many blocks whose samples say what they were for."""


class Nothing(Profiler):
    title = "nothing"

    def start(self, url: str) -> None:
        pass

    def stop(self) -> None:
        pass


class EmptyLoop(Profiler):
    """A thread that does nothing as often: the floor."""

    title = "empty loop"

    def __init__(self, rate: int = RATE) -> None:
        super().__init__(rate)
        self.library = ctypes.CDLL(os.environ["EMPTY_LOOP"])
        self.library.start.argtypes = [ctypes.c_int64]

    def start(self, url: str) -> None:
        if self.library.start(1_000_000_000 // self.rate) != 0:
            raise OSError("cannot start the empty loop")

    def stop(self) -> None:
        self.library.stop()


class Pyprof(Profiler):
    title = "pyprof"
    module = "pyprof"
    options: dict[str, Any] = {"memory": "off"}  # noqa: RUF012

    def start(self, url: str) -> None:
        import pyprof
        from pyprof.config import OPTIONS

        # The rate must not give way: what it costs is the question. Versions before lack some options.
        wanted = {"max_overhead": 1.0, **self.options}
        known = {option.name for option in OPTIONS}
        options = {name: value for name, value in wanted.items() if name in known}
        pyprof.start("benchmark", server_url=url, sample_rate=self.rate, upload_interval=10, **options)

    def stop(self) -> None:
        import pyprof

        pyprof.stop()

    def check(self) -> None:
        if not sys.modules["pyprof"].is_running():
            raise RuntimeError("pyprof is not running")

    def counters(self) -> dict[str, Any]:
        return dataclasses.asdict(sys.modules["pyprof"].stats())

    def run_blocks(self, count: int) -> None:
        import pyprof

        for _ in range(count):
            with pyprof.labels(endpoint="/checkout"):
                pass


class PyprofFlask(Pyprof):
    """With its middleware in front of a Flask application, while it runs."""

    title = "pyprof with labels"

    def __init__(self, rate: int = RATE) -> None:
        super().__init__(rate)
        self.app: Any = None

    def start(self, url: str) -> None:
        from pyprof.integrations.flask import Pyprof as Integration

        super().start(url)
        self.without = self.app.wsgi_app
        Integration(self.app)

    def stop(self) -> None:
        self.app.wsgi_app = self.without
        del self.app.extensions["pyprof"]
        self.app.url_value_preprocessors[None].pop(0)
        super().stop()


@contextlib.contextmanager
def no_file_grows() -> Iterator[None]:
    """RLIMIT_FSIZE is 0 meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class PyprofSlowReads(Pyprof):
    """pyprof where the file cannot be had through which it would read."""

    title = "pyprof (slow reads)"
    READS = "process_vm_readv"

    def start(self, url: str) -> None:
        with no_file_grows():
            super().start(url)

    def check(self) -> None:
        super().check()
        reads = self.counters()["memory_reads"]
        if reads != self.READS:
            raise RuntimeError(f"pyprof reads by {reads}, not {self.READS}")


class Pyroscope(Profiler):
    title = "pyroscope-io"
    module = "pyroscope"

    def start(self, url: str) -> None:
        import pyroscope

        if not pyroscope.configure(application_name="benchmark", server_address=url, sample_rate=self.rate):
            raise RuntimeError("pyroscope-io did not start")

    def stop(self) -> None:
        import pyroscope

        pyroscope.shutdown()


class Ddtrace(Profiler):
    title = "ddtrace (default)"
    module = "ddtrace"
    url_variable = "DD_TRACE_AGENT_URL"
    environ = {  # noqa: RUF012
        "DD_SERVICE": "benchmark",
        "DD_PROFILING_UPLOAD_INTERVAL": "10",
        "DD_PROFILING_MEMORY_ENABLED": "false",
        "DD_PROFILING_HEAP_ENABLED": "false",
        "DD_PROFILING_LOCK_ENABLED": "false",
        "DD_PROFILING_EXCEPTION_ENABLED": "false",
        "DD_PROFILING_PYTORCH_ENABLED": "false",
        "DD_TRACE_ENABLED": "false",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }

    def __init__(self, rate: int = RATE) -> None:
        super().__init__(rate)
        self.profiler: Any = None

    def start(self, url: str) -> None:
        from ddtrace.internal.datadog.profiling.stack import _stack
        from ddtrace.profiling import Profiler as DatadogProfiler

        # Some versions read in a slower way for the first 15 seconds, which is not what it is like later.
        if hasattr(_stack, "_set_fast_copy_warmup_seconds"):
            _stack._set_fast_copy_warmup_seconds(0.0)
        self.profiler = DatadogProfiler()
        self.profiler.start()

    def stop(self) -> None:
        self.profiler.stop()


class DdtraceTraced(Ddtrace):
    """With its tracer: samples say what a block did by the block's span."""

    title = "ddtrace"
    environ = {**Ddtrace.environ, "DD_TRACE_ENABLED": "true"}  # noqa: RUF012

    def run_blocks(self, count: int) -> None:
        from ddtrace.trace import tracer

        for _ in range(count):
            with tracer.trace("checkout", resource="/checkout"):
                pass


class DdtraceFull(Ddtrace):
    title = "ddtrace (held, all)"
    environ = {  # noqa: RUF012
        **Ddtrace.environ,
        "_DD_PROFILING_STACK_ADAPTIVE_SAMPLING_ENABLED": "false",
        "_DD_PROFILING_STACK_MAX_THREADS": "0",  # no bound
        "_DD_PROFILING_STACK_MAX_TASKS": "0",
    }

    def start(self, url: str) -> None:
        super().start(url)
        from ddtrace.internal.datadog.profiling import stack

        stack.set_interval(1 / self.rate)


class PyprofMemory(Pyprof):
    title = "pyprof"
    options = {"cpu": False, "wall": False, "memory": "hook"}  # noqa: RUF012


class PyprofTracemalloc(Pyprof):
    title = "pyprof (tracemalloc)"
    options = {"cpu": False, "wall": False, "memory": "tracemalloc"}  # noqa: RUF012


class PyroscopeMemory(Pyroscope):
    def start(self, url: str) -> None:
        import pyroscope

        pyroscope.configure(
            application_name="benchmark", server_address=url, cpu_enabled=False, mem_enabled=True
        )


class DdtraceMemory(Ddtrace):
    title = "ddtrace"
    environ = {  # noqa: RUF012
        **Ddtrace.environ,
        "DD_PROFILING_STACK_ENABLED": "false",
        "DD_PROFILING_MEMORY_ENABLED": "true",
        "DD_PROFILING_HEAP_ENABLED": "true",
        "DD_PROFILING_HEAP_SAMPLE_SIZE": "524288",
    }

    def start(self, url: str) -> None:
        from ddtrace.profiling import Profiler as DatadogProfiler

        self.profiler = DatadogProfiler()
        self.profiler.start()


class Memray(Profiler):
    """Writes every allocation to where it is thrown away."""

    title = "memray"
    module = "memray"

    def start(self, url: str) -> None:
        import memray

        self.tracker = memray.Tracker(destination=memray.FileDestination(os.devnull, overwrite=True))
        self.tracker.__enter__()

    def stop(self) -> None:
        self.tracker.__exit__(None, None, None)


class Tracemalloc(Profiler):
    title = "tracemalloc, 1 frame"
    module = "tracemalloc"
    frames = 1

    def start(self, url: str) -> None:
        import tracemalloc

        tracemalloc.start(self.frames)

    def stop(self) -> None:
        import tracemalloc

        tracemalloc.stop()


class TracemallocDeep(Tracemalloc):
    title = "tracemalloc, 25 frames"
    frames = 25


PROFILERS: dict[str, type[Profiler]] = {
    "nothing": Nothing,
    "empty": EmptyLoop,
    "pyprof": Pyprof,
    "pyprof-slow": PyprofSlowReads,
    "pyroscope": Pyroscope,
    "ddtrace": Ddtrace,
    "ddtrace-full": DdtraceFull,
    "ddtrace-traced": DdtraceTraced,
    "pyprof-flask": PyprofFlask,
}
PEERS = ("pyroscope", "ddtrace", "ddtrace-full")

MEMORY_PROFILERS: dict[str, type[Profiler]] = {
    "nothing": Nothing,
    "pyprof-memory": PyprofMemory,
    "pyprof-tracemalloc": PyprofTracemalloc,
    "pyroscope-memory": PyroscopeMemory,
    "ddtrace-memory": DdtraceMemory,
    "memray": Memray,
    "tracemalloc": Tracemalloc,
    "tracemalloc-25": TracemallocDeep,
}
"""Memory alone, at one sample in 512 KiB where there are samples."""
PROFILERS |= MEMORY_PROFILERS


def environment(name: str, url: str) -> dict[str, str]:
    """The environment of a process that runs this profiler."""
    profiler = PROFILERS[name]
    return {**profiler.environ, **({profiler.url_variable: url} if profiler.url_variable else {})}


def obey(profiler: Profiler, url: str, do: Callable[[str], dict[str, Any]]) -> None:
    """Answer each line of stdin with a line of JSON: `start`, `stop`, `counters`, or what `do` can do."""
    for line in sys.stdin:
        command = line.strip()
        answer: dict[str, Any] = {}
        if command == "start":
            profiler.start(url)
            profiler.check()
        elif command == "stop":
            profiler.stop()
        elif command == "counters":
            answer = profiler.counters()
        else:
            answer = do(command)
        print(json.dumps(answer), flush=True)
