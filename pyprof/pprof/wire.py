"""The outermost level of a pprof message, walked before protobuf sees it.

Parsed in one go, a hostile file of 128 MiB becomes gigabytes of messages of two bytes each. Here
its fields are counted and measured first and cut into pieces of bounded size.
"""

from __future__ import annotations

from array import array

__all__ = ["MAX_ENTRIES", "MAX_ENTRY_BYTES", "Malformed", "TooLarge", "scan"]

MAX_ENTRIES = 2_000_000
"""Samples, locations, functions, strings and all else at the outermost level."""

MAX_ENTRY_BYTES = 256 << 10
"""One sample, one string; also what protobuf gets to parse at a time."""

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_KNOWN = dict.fromkeys((1, 2, 3, 4, 5, 6, 11), _DELIMITED) | dict.fromkeys((7, 8, 9, 10, 12, 14, 15), _VARINT)
_TIME_NANOS = 9
_COMMENT = 13


class Malformed(Exception):
    """The bytes are not a pprof message; the text says why."""


class TooLarge(Exception):
    """The message holds more than a reader with bounded memory takes; the text says of what."""


def scan(data: bytes | bytearray) -> dict[int, array[int]]:
    """Where the fields of a pprof message are, by number, in the order of the message.

    A start and an end in turn, each pair around fields of that number that follow one another, at
    most about twice MAX_ENTRY_BYTES: any such range is a message of its own. Raises Malformed, TooLarge.
    """
    runs: dict[int, array[int]] = {}
    position, end = 0, len(data)
    entries = 0
    run_number, run_start = 0, 0
    while position < end:
        start = position
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = _varint(data, start)
        number, kind = tag >> 3, tag & 7
        if kind != _KNOWN.get(number, kind):
            raise Malformed(f"field {number} has the wrong type")
        if kind == _DELIMITED:
            if position >= end:
                raise Malformed("it ends in the middle of a field")
            length = data[position]
            position += 1
            if length > 127:
                length, position = _varint(data, position - 1)
            if length > MAX_ENTRY_BYTES:
                if length > end - position:
                    raise Malformed("it ends in the middle of a field")
                raise TooLarge(f"one entry of {length} bytes")
            position += length
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _FIXED64:
            position += 8
        elif kind == _FIXED32:
            position += 4
        else:
            raise Malformed(f"field {number} has an unknown type")
        if number == 0:
            raise Malformed("a field has number 0")
        if position > end:
            raise Malformed("it ends in the middle of a field")
        entries += 1
        if entries > MAX_ENTRIES:
            raise TooLarge(f"more than {MAX_ENTRIES:,} entries")
        if number == run_number and position - run_start <= MAX_ENTRY_BYTES:
            runs[number][-1] = position
            continue
        if number == _TIME_NANOS and number in runs:
            raise Malformed("several profiles follow one another in it")
        run_number, run_start = number, start
        runs.setdefault(number, array("Q")).extend((start, position))
    return runs


def _varint(data: bytes | bytearray, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[position : position + 10]:
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 1 << 64:
                raise Malformed("a number has more than 64 bits")
            return value, position
        shift += 7
    raise Malformed("a number does not end" if shift == 70 else "it ends in the middle of a field")
