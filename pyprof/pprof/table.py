"""The tables that `top` prints: flat and cumulative values by function, and sums by a label's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyprof.pprof.errors import printable
from pyprof.pprof.model import Profile, Sample
from pyprof.pprof.units import choose_scale, format_percent

__all__ = ["LabelRow", "Row", "by_label", "format_by_label", "format_top", "top"]


@dataclass(frozen=True, slots=True)
class Row:
    """One function of the table.

    flat: value of the samples in which it runs itself; cum: of those that have it anywhere on the
    stack, counted once a stack; running: flat of this row and all above it; total: the profile's.
    The shares are of the total, 0 to 1.
    """

    name: str
    flat: int
    cum: int
    running: int
    total: int

    @property
    def flat_share(self) -> float:
        return self.flat / (self.total or 1)

    @property
    def sum_share(self) -> float:
        return self.running / (self.total or 1)

    @property
    def cum_share(self) -> float:
        return self.cum / (self.total or 1)


def top(
    profile: Profile, sample_type: str | None = None, *, by_cum: bool = False, limit: int | None = None
) -> list[Row]:
    """Rows by flat (or cum) value, largest first, equal ones by name; at most `limit` of them."""
    index = profile.sample_type_index(sample_type)
    flat: dict[str, int] = {}
    cum: dict[str, int] = {}
    names: dict[int, tuple[str, ...]] = {}
    total = 0
    for sample in profile.samples:
        value = sample.values[index]
        if value == 0:
            continue
        total += abs(value)
        stack = _distinct_names(sample, names)
        for name in stack:
            cum[name] = cum.get(name, 0) + value
        if stack:
            leaf = next(iter(stack))
            flat[leaf] = flat.get(leaf, 0) + value

    def order(name: str) -> tuple[int, str, int]:
        own, all_ = abs(flat.get(name, 0)), abs(cum[name])
        return (-all_, name, -own) if by_cum else (-own, name, -all_)

    rows = []
    running = 0
    for name in sorted(cum, key=order)[:limit]:
        own = flat.get(name, 0)
        running += own
        rows.append(Row(name, own, cum[name], running, total))
    return rows


def format_top(rows: Sequence[Row], unit: str) -> str:
    """The rows as text in the columns Flat, Flat%, Sum%, Cum, Cum%, Name, all values in one scale.

    unit: of the values, as in the profile's sample type (`nanoseconds`, `bytes`, `count`).
    """
    scale = choose_scale(unit, (row.flat or row.cum for row in rows), rows[0].total if rows else 0)
    table = [("Flat", " Flat%", "  Sum%", "Cum", "  Cum%", "Name")]
    for row in rows:
        table.append(
            (
                scale.format(row.flat),
                format_percent(row.flat_share),
                format_percent(row.sum_share),
                scale.format(row.cum),
                format_percent(row.cum_share),
                printable(row.name),
            )
        )
    flat_width = max(len(line[0]) for line in table)
    cum_width = max(len(line[3]) for line in table)
    return "".join(
        f"{flat:>{flat_width}}  {flat_share}  {sum_share}  {cum:>{cum_width}}  {cum_share}  {name}\n"
        for flat, flat_share, sum_share, cum, cum_share, name in table
    )


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One value of a label.

    value: None for the samples without that label; flat: of the samples that carry it; total: the
    profile's. The share is of the total, 0 to 1.
    """

    value: str | None
    flat: int
    total: int

    @property
    def flat_share(self) -> float:
        return self.flat / (self.total or 1)


def by_label(profile: Profile, key: str, sample_type: str | None = None) -> list[LabelRow]:
    """What the samples with each value of a label add up to, largest first, equal ones by value.

    A row is the sum of what `with_label` selects, so a sample with several values of one key counts for
    each of them; numbers go by their decimal digits.
    """
    index = profile.sample_type_index(sample_type)
    flat: dict[str | None, int] = {}
    total = 0
    for sample in profile.samples:
        value = sample.values[index]
        if value == 0:
            continue
        total += abs(value)
        told: set[str | None] = {str(label.value) for label in sample.labels if label.key == key}
        for one in told or {None}:
            flat[one] = flat.get(one, 0) + value
    rows = [LabelRow(value, own, total) for value, own in flat.items()]
    return sorted(rows, key=lambda row: (-abs(row.flat), row.value is None, row.value or ""))


def format_by_label(rows: Sequence[LabelRow], key: str, unit: str) -> str:
    """The rows as text in the columns Flat, Flat% and the label's name, all values in one scale.

    unit: of the values, as in the profile's sample type. Samples without the label are `[no KEY]`.
    """
    scale = choose_scale(unit, (row.flat for row in rows), rows[0].total if rows else 0)
    table = [("Flat", " Flat%", printable(key))]
    for row in rows:
        shown = f"[no {key}]" if row.value is None else row.value
        table.append((scale.format(row.flat), format_percent(row.flat_share), printable(shown)))
    width = max(len(line[0]) for line in table)
    return "".join(f"{flat:>{width}}  {share}  {value}\n" for flat, share, value in table)


def _distinct_names(sample: Sample, names: dict[int, tuple[str, ...]]) -> dict[str, None]:
    """The functions of a stack, leaf first, each once."""
    stack: dict[str, None] = {}
    for location in sample.locations:
        called = names.get(id(location))
        if called is None:
            called = names[id(location)] = tuple(location.names())
        stack.update(dict.fromkeys(called))
    return stack
