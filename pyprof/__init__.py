"""Continuous profiling for Python services.

    import pyprof
    pyprof.start(service_name="checkout")

shows, in production and all the time, where a service's CPU and wall time go.
"""

from ._version import __version__
from .context import labels, set_labels
from .heap import Heap
from .one_off import OneOff, profile
from .profiler import Profiler, flush, is_running, start, stats, stop

__all__ = [
    "Heap",
    "OneOff",
    "Profiler",
    "__version__",
    "flush",
    "is_running",
    "labels",
    "profile",
    "set_labels",
    "start",
    "stats",
    "stop",
]
