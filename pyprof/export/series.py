"""What is exported: one profile of one interval, with the labels of its series.

Named tuples, here and in `target`: importing `dataclasses` would cost more than all the rest of `start()`.
"""

from collections.abc import Mapping
from typing import NamedTuple

COMBINED = "profile"
"""The name of a series that holds several kinds side by side, as files do."""


class Series(NamedTuple):
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
