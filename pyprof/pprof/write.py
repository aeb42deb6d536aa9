"""From a Profile to the bytes of a pprof message."""

from __future__ import annotations

from itertools import islice
from typing import Any

from pyprof.pprof.errors import ProfileError
from pyprof.pprof.model import Function, Location, Mapping, Profile
from pyprof.pprof.proto import profile_messages

__all__ = ["write"]

_BATCH = 1000
# Level 9 takes several times as long for two per cent.
_GZIP_LEVEL = 6


def write(profile: Profile, *, compress: bool = False) -> bytes:
    """The profile as a pprof message: ids 1 to n in order of appearance, gzipped if asked.

    The same profile always gives the same bytes. Raises ProfileError for a value that does not fit
    in 64 bits or a sample whose values do not match the sample types.
    """
    try:
        data = _Encoder(profile).message()
    except (ValueError, OverflowError) as error:
        raise ProfileError(f"a number of the profile does not fit in 64 bits ({error})") from error
    if compress:
        import gzip

        return gzip.compress(data, _GZIP_LEVEL, mtime=0)
    return data


class _Encoder:
    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._message = profile_messages()["Profile"]
        self._tables = self._message()
        self._strings: dict[str, int] = {"": 0}
        # Tables by value; in front of those that are slow to hash, one by identity.
        self._functions: dict[Function, int] = {}
        self._mappings: dict[Mapping, int] = {}
        self._locations: dict[Location, int] = {}
        self._known: dict[int, int] = {}

    def message(self) -> bytes:
        profile = self._profile
        head = self._message()
        for value_type in profile.sample_types:
            head.sample_type.add(type=self._string(value_type.type), unit=self._string(value_type.unit))
        if profile.period_type is not None:
            head.period_type.type = self._string(profile.period_type.type)
            head.period_type.unit = self._string(profile.period_type.unit)
        head.period = profile.period
        head.time_nanos = profile.time_ns
        head.duration_nanos = profile.duration_ns
        head.drop_frames = self._string(profile.drop_frames)
        head.keep_frames = self._string(profile.keep_frames)
        head.default_sample_type = self._string(profile.default_sample_type)
        head.doc_url = self._string(profile.doc_url)
        head.comment.extend(map(self._string, profile.comments))
        for mapping in profile.mappings:
            self._mapping(mapping)
        # Messages written one after another are one message, and batches need less memory.
        parts = [head.SerializeToString(deterministic=True)]
        samples = iter(profile.samples)
        while batch := list(islice(samples, _BATCH)):
            message = self._message()
            for sample in batch:
                self._sample(message.sample.add(), sample)
            parts.append(message.SerializeToString(deterministic=True))
        self._tables.string_table.extend(text.encode("utf-8", "backslashreplace") for text in self._strings)
        parts.append(self._tables.SerializeToString(deterministic=True))
        return b"".join(parts)

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _sample(self, entry: Any, sample: Any) -> None:
        if len(sample.values) != len(self._profile.sample_types):
            raise ProfileError(
                f"a sample has {len(sample.values)} values for {len(self._profile.sample_types)} sample types"
            )
        known = self._known
        entry.location_id.extend(
            [known.get(id(location)) or self._location(location) for location in sample.locations]
        )
        entry.value.extend(sample.values)
        for label in sample.labels:
            if label.value == "":
                continue
            item = entry.label.add(key=self._string(label.key), num_unit=self._string(label.unit))
            if isinstance(label.value, str):
                item.str = self._string(label.value)
            else:
                item.num = label.value

    def _location(self, location: Location) -> int:
        number = self._locations.get(location)
        if number is None:
            number = self._locations[location] = len(self._locations) + 1
            entry = self._tables.location.add(
                id=number,
                mapping_id=self._mapping(location.mapping) if location.mapping else 0,
                address=location.address,
                is_folded=location.is_folded,
            )
            for line in location.lines:
                entry.line.add(function_id=self._function(line.function), line=line.line, column=line.column)
        self._known[id(location)] = number
        return number

    def _function(self, function: Function) -> int:
        number = self._functions.get(function)
        if number is None:
            number = self._functions[function] = len(self._functions) + 1
            self._tables.function.add(
                id=number,
                name=self._string(function.name),
                system_name=self._string(function.system_name),
                filename=self._string(function.filename),
                start_line=function.start_line,
            )
        return number

    def _mapping(self, mapping: Mapping) -> int:
        number = self._mappings.get(mapping)
        if number is None:
            number = self._mappings[mapping] = len(self._mappings) + 1
            self._tables.mapping.add(
                id=number,
                memory_start=mapping.memory_start,
                memory_limit=mapping.memory_limit,
                file_offset=mapping.file_offset,
                filename=self._string(mapping.filename),
                build_id=self._string(mapping.build_id),
                has_functions=mapping.has_functions,
                has_filenames=mapping.has_filenames,
                has_line_numbers=mapping.has_line_numbers,
                has_inline_frames=mapping.has_inline_frames,
            )
        return number
