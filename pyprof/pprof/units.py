"""Values with their units as people read them, in the scales and with the rounding of `go tool pprof`."""

from __future__ import annotations

from collections.abc import Iterable

from pyprof.pprof.errors import printable

__all__ = ["Scale", "choose_scale", "format_percent"]

_BYTES = (("B", 1), ("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40), ("PB", 1 << 50))
_TIMES = (("ns", 1), ("us", 10**3), ("ms", 10**6), ("s", 10**9), ("hrs", 3600 * 10**9))
_SILENT = ("", "count", "sample", "samples", "unit", "objects")

_FAMILIES: dict[str, tuple[tuple[tuple[str, int], ...], int]] = {
    "b": (_BYTES, 1),
    "byte": (_BYTES, 1),
    "kb": (_BYTES, 1 << 10),
    "kilobyte": (_BYTES, 1 << 10),
    "mb": (_BYTES, 1 << 20),
    "megabyte": (_BYTES, 1 << 20),
    "gb": (_BYTES, 1 << 30),
    "gigabyte": (_BYTES, 1 << 30),
    "ns": (_TIMES, 1),
    "nanosecond": (_TIMES, 1),
    "us": (_TIMES, 10**3),
    "μs": (_TIMES, 10**3),
    "microsecond": (_TIMES, 10**3),
    "ms": (_TIMES, 10**6),
    "millisecond": (_TIMES, 10**6),
    "s": (_TIMES, 10**9),
    "sec": (_TIMES, 10**9),
    "second": (_TIMES, 10**9),
}


class Scale:
    """A display unit: `factor` of the profile's units make one of `suffix`."""

    __slots__ = ("factor", "suffix")

    def __init__(self, suffix: str, factor: float) -> None:
        self.suffix = suffix
        self.factor = factor

    def format(self, value: int) -> str:
        """At most two decimals, none where they are zero: `1.20s`, `12.50MB`, `38`, `0`."""
        number = f"{value / self.factor:.2f}".removesuffix(".00")
        return "0" if number in ("0", "-0") else number + self.suffix


def choose_scale(unit: str, values: Iterable[int], total: int) -> Scale:
    """One scale for a whole column, so that its values compare at a glance.

    It is the scale of the smallest value other than zero; where the total is in another scale and
    more than a hundred times that, of a hundred times the smallest (which then still shows as 0.01).
    """
    family = _family(unit)
    if family is None:
        return Scale("" if unit.lower() in _SILENT else printable(unit), 1)
    steps, base = family
    smallest = min((abs(value) for value in values if value), default=abs(total)) * base
    whole = abs(total) * base
    step = _step(steps, smallest)
    if step != _step(steps, whole) and smallest * 100 < whole:
        step = _step(steps, smallest * 100)
    return Scale(step[0], step[1] / base)


def format_percent(share: float) -> str:
    """A share of 1 as six columns of percent, at least two significant digits: ` 52.63%`, `  100%`."""
    percent = abs(share) * 100
    if 99.95 <= percent <= 100.05:
        return "  100%"
    return f"{percent:5.2f}%" if percent >= 1 else f"{percent:5.2g}%"


def _family(unit: str) -> tuple[tuple[tuple[str, int], ...], int] | None:
    name = unit.lower()
    if len(name) > 2:
        name = name.removesuffix("s")
    return _FAMILIES.get(name)


def _step(steps: tuple[tuple[str, int], ...], value: int) -> tuple[str, int]:
    if value == 0:
        return ("s", 10**9) if steps is _TIMES else steps[0]
    return max((step for step in steps if value >= step[1]), key=lambda step: step[1], default=steps[0])
