"""The profile as plain values: what a pprof file says, without its tables and ids.

A sample holds its locations themselves, so there is no id that could dangle. Functions, lines,
locations, mappings and labels are immutable and compare by value; the reader shares one object for
one table entry, and the writer numbers them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pyprof.pprof.errors import ProfileError, printable

__all__ = ["Function", "Label", "Line", "Location", "Mapping", "Profile", "Sample", "ValueType"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ValueType:
    """What a value counts (`cpu`, `alloc_space`) and in which unit (`nanoseconds`, `bytes`, `count`)."""

    type: str
    unit: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function: `name` is what is shown, `system_name` the mangled name, often empty."""

    name: str
    system_name: str = ""
    filename: str = ""
    start_line: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A source line within a function; 0 where the line or column is not known."""

    function: Function
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Mapping:
    """A binary, or what stands for it, that locations belong to."""

    memory_start: int = 0
    memory_limit: int = 0
    file_offset: int = 0
    filename: str = ""
    build_id: str = ""
    has_functions: bool = False
    has_filenames: bool = False
    has_line_numbers: bool = False
    has_inline_frames: bool = False


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the program. More than one line means inlining: the innermost callee is first."""

    lines: tuple[Line, ...] = ()
    mapping: Mapping | None = None
    address: int = 0
    is_folded: bool = False

    def names(self) -> Iterator[str]:
        """Function names, innermost first; the address where there is no function."""
        if not self.lines:
            yield hex(self.address)
        for line in self.lines:
            yield line.function.name or hex(self.address)


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a sample: text, or a number with its unit. Text is never empty."""

    key: str
    value: str | int
    unit: str = ""


@dataclass(slots=True)
class Sample:
    """A stack, leaf first, with one value for each sample type of the profile."""

    locations: tuple[Location, ...]
    values: tuple[int, ...]
    labels: tuple[Label, ...] = ()


@dataclass(slots=True)
class Profile:
    """A whole profile. Times are nanoseconds; `time_ns` is Unix time, 0 where it is not known.

    `mappings[0]` is the main binary. `default_sample_type` is the `type` to show first, or "".
    """

    sample_types: list[ValueType]
    samples: list[Sample] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    period_type: ValueType | None = None
    period: int = 0
    time_ns: int = 0
    duration_ns: int = 0
    comments: list[str] = field(default_factory=list)
    default_sample_type: str = ""
    drop_frames: str = ""
    keep_frames: str = ""
    doc_url: str = ""

    def sample_type_index(self, sample_type: str | None = None) -> int:
        """Position of a sample type by its `type`; None is the default one, else the last.

        Raises ProfileError, naming those there are, when the profile has no such type.
        """
        names = [value_type.type for value_type in self.sample_types]
        if not names:
            raise ProfileError("the profile has no sample types")
        if sample_type is None:
            default = self.default_sample_type
            return names.index(default) if default in names else len(names) - 1
        if sample_type not in names:
            known = printable(", ".join(names[:20]))
            raise ProfileError(f"no sample type {sample_type!r} in the profile; there are: {known}")
        return names.index(sample_type)

    def value_type(self, sample_type: str | None = None) -> ValueType:
        """The sample type that `sample_type_index` selects."""
        return self.sample_types[self.sample_type_index(sample_type)]

    def total(self, sample_type: str | None = None) -> int:
        """Sum of the absolute values of all samples: what 100 % is."""
        index = self.sample_type_index(sample_type)
        return sum(abs(sample.values[index]) for sample in self.samples)

    def locations(self) -> list[Location]:
        """The distinct locations of the samples, in order of appearance."""
        return _distinct(location for sample in self.samples for location in sample.locations)

    def functions(self) -> list[Function]:
        """The distinct functions of the samples, in order of appearance."""
        return _distinct(line.function for location in self.locations() for line in location.lines)


def _distinct(items: Iterable[_T]) -> list[_T]:
    # By identity first: hashing a location by value walks down to its functions' strings.
    by_identity = {id(item): item for item in items}
    return list(dict.fromkeys(by_identity.values()))
