"""Several profiles as one."""

from __future__ import annotations

from collections.abc import Iterable

from pyprof.pprof.decode import MAX_MODEL_BYTES
from pyprof.pprof.errors import ProfileError
from pyprof.pprof.model import Label, Location, Profile, Sample, ValueType

__all__ = ["Merger", "join", "merge"]

# A merged sample beside what `decode` counts: its key and the list its values add up in.
_SAMPLE_BYTES = 600
_REFERENCE_BYTES = 16
_VALUE_BYTES = 40


def merge(profiles: Iterable[Profile]) -> Profile:
    """The sum of profiles, as google/pprof merges: equal stacks with equal labels become one sample.

    The start is the earliest known, durations add up, the period is the largest, comments are
    united; for what can only be one thing (period type, default type, frame filters) the first
    profile that has it decides. Profiles of different kinds get all their sample types side by
    side, with zeros where a profile lacks one. Samples of zeros only disappear.
    Raises ProfileError when there is nothing to merge or the result grows too large.
    """
    merger = Merger()
    for profile in profiles:
        merger.add(profile)
    return merger.profile()


def join(windows: Iterable[Profile]) -> Profile:
    """The windows of one process, oldest first, as one profile of all that time.

    As `merge`, but for what is in use (types `inuse_…`): that is what the last window says which has them.
    Raises ProfileError as `merge` does.
    """
    merger = Merger()
    for window in windows:
        merger.follow(window)
    return merger.profile()


def _is_state(value_type: ValueType) -> bool:
    """Whether its values are of a moment, not of a time: they do not add up over windows."""
    return value_type.type.startswith("inuse_")


class Merger:
    """Merges one profile after another, so that only the sum need be in memory."""

    def __init__(self) -> None:
        self._merged: Profile | None = None
        self._types: dict[ValueType, int] = {}
        self._sums: dict[tuple[tuple[int, ...], frozenset[Label]], list[int]] = {}
        self._locations: dict[Location, int] = {}
        self._by_number: list[Location] = []
        self._room = MAX_MODEL_BYTES * 3 // 2

    def add(self, profile: Profile) -> None:
        """Add a profile, which stays as it is."""
        self._add_header(profile)
        columns = [self._column(value_type) for value_type in profile.sample_types]
        known: dict[int, int] = {}
        for sample in profile.samples:
            if not any(sample.values):
                continue
            stack = tuple([self._number(location, known) for location in sample.locations])
            key = (stack, frozenset(sample.labels))
            sums = self._sums.get(key)
            if sums is None:
                self._spend(_SAMPLE_BYTES + len(stack) * _REFERENCE_BYTES + len(columns) * _VALUE_BYTES)
                sums = self._sums[key] = [0] * len(self._types)
            elif len(sums) < len(self._types):
                sums += [0] * (len(self._types) - len(sums))
            for column, value in zip(columns, sample.values, strict=True):
                sums[column] += value

    def follow(self, window: Profile) -> None:
        """Add a later window of the process that everything before came from."""
        columns = [self._types[one] for one in window.sample_types if _is_state(one) and one in self._types]
        if columns:
            for sums in self._sums.values():
                for column in columns:
                    if column < len(sums):
                        sums[column] = 0
        self.add(window)

    def profile(self) -> Profile:
        """The sum of what was added."""
        if self._merged is None:
            raise ProfileError("there are no profiles to merge")
        width = len(self._types)
        self._merged.sample_types = list(self._types)
        self._merged.samples = [
            Sample(
                tuple([self._by_number[number] for number in stack]),
                tuple(sums) + (0,) * (width - len(sums)),
                tuple(sorted(labels, key=lambda label: (label.key, str(label.value), label.unit))),
            )
            for (stack, labels), sums in self._sums.items()
            if any(sums)
        ]
        return self._merged

    def _add_header(self, profile: Profile) -> None:
        merged = self._merged
        if merged is None:
            merged = self._merged = Profile(sample_types=[])
        if profile.time_ns and (not merged.time_ns or profile.time_ns < merged.time_ns):
            merged.time_ns = profile.time_ns
        merged.duration_ns += profile.duration_ns
        merged.period = max(merged.period, profile.period)
        merged.period_type = merged.period_type or profile.period_type
        merged.default_sample_type = merged.default_sample_type or profile.default_sample_type
        merged.drop_frames = merged.drop_frames or profile.drop_frames
        merged.keep_frames = merged.keep_frames or profile.keep_frames
        merged.doc_url = merged.doc_url or profile.doc_url
        merged.comments = list(dict.fromkeys(merged.comments + profile.comments))
        merged.mappings = list(dict.fromkeys(merged.mappings + profile.mappings))

    def _column(self, value_type: ValueType) -> int:
        return self._types.setdefault(value_type, len(self._types))

    def _number(self, location: Location, known: dict[int, int]) -> int:
        number = known.get(id(location))
        if number is None:
            number = self._locations.get(location)
            if number is None:
                number = self._locations[location] = len(self._by_number)
                self._by_number.append(location)
                self._spend(_SAMPLE_BYTES)
            known[id(location)] = number
        return number

    def _spend(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise ProfileError("the merged profile gets too large; merge fewer files at a time")
