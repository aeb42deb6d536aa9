"""Which labels a profile shows: bounded, since a server keeps a series for each combination of values."""

from collections.abc import Iterable

OTHER = "__other__"
OF_SPANS = frozenset({"span_id", "trace_id"})
"""Servers keep these with the samples, and not as series: their values are not bounded."""

# A server takes 30 names a series; what the profile itself says, `trigger` included, are four of them, and
# those of spans are split off.
_MOST_NAMES = 26


class LabelBound:
    """Bounds the names, and the values of each, of all profiles of one profiler: first come, first served."""

    def __init__(self, values_max: int, names_taken: int) -> None:
        """values_max: of one name. names_taken: labels that are on every profile."""
        self._values_max = values_max
        self._names_left = max(0, _MOST_NAMES - names_taken)
        self._known: dict[str, set[str]] = {}
        self.other_values = 0
        """Values, one a profile and label, that `__other__` stands for."""
        self.left_out = 0
        """Labels, one a profile and value, that were left out: too many names."""

    def count_on(self, previous: "LabelBound") -> None:
        """From the counts of the one before."""
        self.other_values, self.left_out = previous.other_values, previous.left_out

    def admit(self, labels: Iterable[tuple[str, str]]) -> list[str | None]:
        """What to show for each (name, value): the value, `__other__`, or None for nothing."""
        return [self._admit(name, value) for name, value in labels]

    def _admit(self, name: str, value: str) -> str | None:
        if name in OF_SPANS:
            return value
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= self._names_left:
                self.left_out += 1
                return None
            known = self._known[name] = set()
        if value in known:
            return value
        if len(known) < self._values_max:
            known.add(value)
            return value
        self.other_values += 1
        return OTHER
