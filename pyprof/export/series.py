"""What is exported: one profile of one interval, with the labels of its series."""

from collections.abc import Mapping
from dataclasses import dataclass

COMBINED = "profile"
"""The name of a series that holds several kinds side by side, as files do."""


@dataclass(frozen=True, slots=True)
class Series:
    """One profile of one interval with the labels of its series."""

    name: str
    """`process_cpu`, `wall`, … (Pyroscope's `__name__`), or `COMBINED`."""
    labels: Mapping[str, str]
    """service_name, role, tags …"""
    pprof: bytes
    """The uncompressed pprof message."""
    start_ns: int
    """Nanoseconds of Unix time."""
    duration_ns: int
