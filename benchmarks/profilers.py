"""The profilers side by side: each with CPU and wall time at 100 Hz, nothing else, uploading to the sink.

What each is, so that no figure flatters: pyroscope-io embeds py-spy's sampler and has no wall time; it gets
threads on a CPU only, its default. ddtrace comes twice: as it is by default, when it lowers its own rate to
stay near 1 % of the application's CPU, and held at 100 Hz. Its memory, lock and exception collectors are off.
"""

import ctypes
import os
import sys
from abc import ABC, abstractmethod
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

    @abstractmethod
    def start(self, url: str) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...


class Nothing(Profiler):
    title = "nothing"

    def start(self, url: str) -> None:
        pass

    def stop(self) -> None:
        pass


class EmptyLoop(Profiler):
    """A thread that does nothing 100 times a second: the floor."""

    title = "empty loop"

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["EMPTY_LOOP"])
        self.library.start.argtypes = [ctypes.c_int64]

    def start(self, url: str) -> None:
        if self.library.start(1_000_000_000 // RATE) != 0:
            raise OSError("cannot start the empty loop")

    def stop(self) -> None:
        self.library.stop()


class Pyprof(Profiler):
    title = "pyprof"
    module = "pyprof"

    def start(self, url: str) -> None:
        import pyprof

        pyprof.start("benchmark", server_url=url, sample_rate=RATE, upload_interval=10)

    def stop(self) -> None:
        import pyprof

        pyprof.stop()


class Pyroscope(Profiler):
    title = "pyroscope-io"
    module = "pyroscope"

    def start(self, url: str) -> None:
        import pyroscope

        if not pyroscope.configure(application_name="benchmark", server_address=url, sample_rate=RATE):
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

    def __init__(self) -> None:
        self.profiler: Any = None

    def start(self, url: str) -> None:
        from ddtrace.profiling import Profiler as DatadogProfiler

        self.profiler = DatadogProfiler()
        self.profiler.start()

    def stop(self) -> None:
        self.profiler.stop()


class DdtraceFixed(Ddtrace):
    title = "ddtrace (100 Hz)"
    environ = {  # noqa: RUF012
        **Ddtrace.environ,
        "_DD_PROFILING_STACK_ADAPTIVE_SAMPLING_ENABLED": "false",
    }


PROFILERS: dict[str, type[Profiler]] = {
    "nothing": Nothing,
    "empty": EmptyLoop,
    "pyprof": Pyprof,
    "pyroscope": Pyroscope,
    "ddtrace": Ddtrace,
    "ddtrace-100": DdtraceFixed,
}
PEERS = ("pyroscope", "ddtrace", "ddtrace-100")


def environment(name: str, url: str) -> dict[str, str]:
    """The environment of a process that runs this profiler."""
    profiler = PROFILERS[name]
    return {**profiler.environ, **({profiler.url_variable: url} if profiler.url_variable else {})}


def check(profiler: Profiler) -> None:
    """Raise where the profiler runs, but not as asked."""
    if isinstance(profiler, Pyprof):
        pyprof = sys.modules["pyprof"]
        if not pyprof.is_running():
            raise RuntimeError("pyprof is not running")
