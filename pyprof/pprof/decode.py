"""From the bytes of a pprof message to a Profile, within bounded memory and trusting no index."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from pyprof.pprof import wire
from pyprof.pprof.model import Function, Label, Line, Location, Mapping, Profile, Sample, ValueType
from pyprof.pprof.proto import profile_messages
from pyprof.pprof.wire import Malformed, TooLarge

__all__ = ["MAX_MODEL_BYTES", "Malformed", "TooLarge", "decode"]

MAX_MODEL_BYTES = 256 << 20
"""Memory that the objects of one profile may take, by the estimates below."""

MAX_STRING_BYTES = 32 << 20
"""All names together: escaped in a flame graph page, a byte of them can become six."""

MAX_SAMPLE_TYPES = 32
MAX_COMMENTS = 100_000

# Sizes of the objects on 64-bit CPython, rounded up.
_SAMPLE_BYTES = 200
_REFERENCE_BYTES = 8
_VALUE_BYTES = 40
_LABEL_BYTES = 120
_TABLE_ENTRY_BYTES = 300


def decode(data: bytes | bytearray) -> Profile:
    """Decode an uncompressed message. Raises Malformed, TooLarge."""
    return _Decoder(data).profile()


class _Decoder:
    def __init__(self, data: bytes | bytearray) -> None:
        self._message = profile_messages()["Profile"]

        from google.protobuf.message import DecodeError

        self._decode_error = DecodeError
        self._data = memoryview(data)
        self._runs = wire.scan(data)
        self._room = MAX_MODEL_BYTES
        self._strings: list[str] = []
        self._inlined = False
        self._labels: dict[tuple[str, str | int, str], Label] = {}

    def profile(self) -> Profile:
        self._read_strings()
        sample_types = self._sample_types()
        mappings = self._table(3, "mapping", self._mapping)
        functions = self._table(5, "function", self._function)
        locations = self._table(4, "location", lambda entry: self._location(entry, functions, mappings))
        header = self._message()
        for number in (7, 8, 9, 10, 11, 12, 14, 15):
            for message in self._pieces(number):
                header.MergeFrom(message)
        profile = Profile(
            sample_types=sample_types,
            mappings=list(mappings.values()),
            period_type=self._value_type(header.period_type) if header.HasField("period_type") else None,
            period=header.period,
            time_ns=header.time_nanos,
            duration_ns=header.duration_nanos,
            comments=self._comments(),
            default_sample_type=self._string(header.default_sample_type),
            drop_frames=self._string(header.drop_frames),
            keep_frames=self._string(header.keep_frames),
            doc_url=self._string(header.doc_url),
        )
        profile.samples = list(self._samples(len(sample_types), locations))
        return profile

    def _pieces(self, number: int) -> Iterator[Any]:
        bounds = iter(self._runs.get(number, ()))
        for start, end in zip(bounds, bounds, strict=True):
            try:
                yield self._message.FromString(bytes(self._data[start:end]))
            except self._decode_error as error:
                raise Malformed("protobuf cannot parse it") from error

    def _spend(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise TooLarge(f"more than {MAX_MODEL_BYTES >> 20} MiB of samples")

    def _read_strings(self) -> None:
        size = 0
        for message in self._pieces(6):
            for encoded in message.string_table:
                size += len(encoded)
                if size > MAX_STRING_BYTES:
                    raise TooLarge(f"more than {MAX_STRING_BYTES >> 20} MiB of names")
                text = encoded.decode("utf-8", "backslashreplace")
                self._spend(sys.getsizeof(text))
                self._strings.append(text)
        if self._strings and self._strings[0]:
            raise Malformed("its first string is not empty")

    def _sample_types(self) -> list[ValueType]:
        sample_types: list[ValueType] = []
        for message in self._pieces(1):
            sample_types += map(self._value_type, message.sample_type)
            if len(sample_types) > MAX_SAMPLE_TYPES:
                raise TooLarge(f"more than {MAX_SAMPLE_TYPES} sample types")
        if not sample_types:
            raise Malformed("it has no sample types")
        return sample_types

    def _comments(self) -> list[str]:
        comments: list[str] = []
        for message in self._pieces(13):
            if len(comments) + len(message.comment) > MAX_COMMENTS:
                raise TooLarge(f"more than {MAX_COMMENTS:,} comments")
            comments += map(self._string, message.comment)
        return comments

    def _string(self, index: int) -> str:
        if index == 0:
            return ""
        if not 0 < index < len(self._strings):
            raise Malformed(f"string {index} of {len(self._strings)} does not exist")
        return self._strings[index]

    def _table(self, number: int, field: str, make: Any) -> dict[int, Any]:
        table: dict[int, Any] = {}
        for message in self._pieces(number):
            for entry in getattr(message, field):
                if entry.id == 0:
                    raise Malformed(f"a {field} has id 0")
                if entry.id in table:
                    raise Malformed(f"two entries are {field} {entry.id}")
                self._spend(_TABLE_ENTRY_BYTES)
                table[entry.id] = make(entry)
        return table

    def _value_type(self, entry: Any) -> ValueType:
        return ValueType(self._string(entry.type), self._string(entry.unit))

    def _mapping(self, entry: Any) -> Mapping:
        return Mapping(
            memory_start=entry.memory_start,
            memory_limit=entry.memory_limit,
            file_offset=entry.file_offset,
            filename=self._string(entry.filename),
            build_id=self._string(entry.build_id),
            has_functions=entry.has_functions,
            has_filenames=entry.has_filenames,
            has_line_numbers=entry.has_line_numbers,
            has_inline_frames=entry.has_inline_frames,
        )

    def _function(self, entry: Any) -> Function:
        return Function(
            name=self._string(entry.name),
            system_name=self._string(entry.system_name),
            filename=self._string(entry.filename),
            start_line=entry.start_line,
        )

    def _location(self, entry: Any, functions: dict[int, Function], mappings: dict[int, Mapping]) -> Location:
        lines = []
        for line in entry.line:
            function = functions.get(line.function_id)
            if function is None:
                raise Malformed(f"location {entry.id} names function {line.function_id}, which is missing")
            lines.append(Line(function, line.line, line.column))
        self._spend(len(lines) * _TABLE_ENTRY_BYTES)
        self._inlined = self._inlined or len(lines) > 1
        mapping = mappings.get(entry.mapping_id)
        if mapping is None and entry.mapping_id:
            raise Malformed(f"location {entry.id} names mapping {entry.mapping_id}, which is missing")
        return Location(tuple(lines), mapping, entry.address, entry.is_folded)

    def _samples(self, width: int, locations: dict[int, Location]) -> Iterator[Sample]:
        for message in self._pieces(2):
            for entry in message.sample:
                values = tuple(entry.value)
                if len(values) != width:
                    raise Malformed(f"a sample has {len(values)} values for {width} sample types")
                labels = entry.label
                frames = len(entry.location_id)
                self._spend(
                    _SAMPLE_BYTES
                    + frames * _REFERENCE_BYTES
                    + width * _VALUE_BYTES
                    + len(labels) * _LABEL_BYTES
                )
                try:
                    stack = tuple(map(locations.__getitem__, entry.location_id))
                except KeyError as missing:
                    raise Malformed(f"a sample names location {missing.args[0]}, which is missing") from None
                if self._inlined:
                    # A location of a thousand inlined frames is small, a stack of a thousand of it is not.
                    inlined = sum([len(location.lines) for location in stack]) - frames
                    self._spend(max(inlined, 0) * _REFERENCE_BYTES)
                yield Sample(stack, values, tuple(map(self._label, labels)) if labels else ())

    def _label(self, entry: Any) -> Label:
        value = self._string(entry.str) if entry.str else entry.num
        identity = (self._string(entry.key), value, self._string(entry.num_unit))
        # Most samples carry the same few labels.
        label = self._labels.get(identity)
        if label is None:
            label = self._labels[identity] = Label(*identity)
        return label
