"""What is exported: one profile of one interval, with the labels of its series.

Plain classes, here and in `target`: what data classes and typed named tuples import costs more than the rest
of `start()`. On 3.15 the latter import lazily, and lock up with a thread that imports the same just then.
"""

from collections.abc import Mapping

COMBINED = "profile"
"""The name of a series that holds several kinds side by side, as files do."""


class Series:
    """One profile of one interval with the labels of its series.

    name: `process_cpu`, `wall`, … (Pyroscope's `__name__`), or `COMBINED`. labels: service_name, role, tags …
    pprof: the uncompressed message. start_ns: of Unix time. Both times in nanoseconds.
    """

    __slots__ = ("duration_ns", "labels", "name", "pprof", "start_ns")

    def __init__(
        self, name: str, labels: Mapping[str, str], pprof: bytes, start_ns: int, duration_ns: int
    ) -> None:
        self.name = name
        self.labels = labels
        self.pprof = pprof
        self.start_ns = start_ns
        self.duration_ns = duration_ns
