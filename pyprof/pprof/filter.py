"""Profiles that hold a part of another's samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pyprof.pprof.model import Profile, Sample

__all__ = ["focus", "label_keys", "with_label"]


def with_label(profile: Profile, key: str, value: str) -> Profile:
    """The samples that carry the label; a number matches by its decimal digits."""

    def carries(sample: Sample) -> bool:
        return any(label.key == key and str(label.value) == value for label in sample.labels)

    return _keep(profile, carries)


def focus(profile: Profile, name: str) -> Profile:
    """The samples that have a function of exactly this name on their stack."""
    matching: dict[int, bool] = {}

    def has_name(sample: Sample) -> bool:
        for location in sample.locations:
            found = matching.get(id(location))
            if found is None:
                found = matching[id(location)] = name in location.names()
            if found:
                return True
        return False

    return _keep(profile, has_name)


def label_keys(profile: Profile) -> list[str]:
    """The keys of all labels, sorted."""
    return sorted({label.key for sample in profile.samples for label in sample.labels})


def _keep(profile: Profile, condition: Callable[[Sample], bool]) -> Profile:
    return replace(profile, samples=[sample for sample in profile.samples if condition(sample)])
