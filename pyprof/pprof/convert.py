"""Profiles in the formats of other tools: folded stacks and speedscope."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pyprof.pprof.errors import ProfileError, printable
from pyprof.pprof.model import Location, Profile

__all__ = ["folded", "iter_folded", "iter_speedscope", "speedscope"]

_MAX_LINE = 16 << 20
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_SPEEDSCOPE_UNITS = ("bytes", "microseconds", "milliseconds", "nanoseconds", "seconds")


def folded(profile: Profile, sample_type: str | None = None) -> str:
    """Folded stacks, `root;caller;leaf value` a line, as flamegraph.pl and others read them."""
    return "".join(iter_folded(profile, sample_type))


def iter_folded(profile: Profile, sample_type: str | None = None) -> Iterator[str]:
    """The lines of `folded`, one by one, in the order of their first samples.

    Equal stacks are one line. A semicolon within a name becomes a colon, for want of an escape in
    the format.
    """
    index = profile.sample_type_index(sample_type)
    stacks: dict[tuple[int, ...], int] = {}
    numbers: dict[str, int] = {}
    names: list[str] = []
    by_location: dict[int, tuple[int, ...]] = {}

    def number(location: Location) -> tuple[int, ...]:
        found = []
        for name in location.names():
            text = printable(name).replace(";", ":")
            if text not in numbers:
                numbers[text] = len(names)
                names.append(text)
            found.append(numbers[text])
        return tuple(found[::-1])

    for sample in profile.samples:
        value = sample.values[index]
        if value == 0:
            continue
        stack: list[int] = []
        for location in reversed(sample.locations):
            called = by_location.get(id(location))
            if called is None:
                called = by_location[id(location)] = number(location)
            stack += called
        key = tuple(stack)
        stacks[key] = stacks.get(key, 0) + value
    for key, value in stacks.items():
        called_names = [names[name] for name in key]
        if sum(map(len, called_names)) > _MAX_LINE:
            raise ProfileError(
                f"a stack has more than {_MAX_LINE >> 20} MiB of names; too large to be folded"
            )
        yield f"{';'.join(called_names) or '[no stack]'} {value}\n"


def speedscope(profile: Profile, name: str = "profile", sample_type: str | None = None) -> str:
    """A speedscope file: one speedscope profile for each sample type, the default one in front of the eye.

    name: shown as the file's title; sample_type: the type shown first, None for the profile's own choice.
    """
    return "".join(iter_speedscope(profile, name, sample_type))


def iter_speedscope(profile: Profile, name: str = "profile", sample_type: str | None = None) -> Iterator[str]:
    """The text of `speedscope` in pieces. Values below zero, which the format has not, are left out."""
    active = profile.sample_type_index(sample_type)
    frames: dict[tuple[str, str, int], int] = {}
    by_location: dict[int, tuple[int, ...]] = {}

    def number(location: Location) -> tuple[int, ...]:
        if not location.lines:
            places = [(hex(location.address), "", 0)]
        else:
            places = [
                (shown, line.function.filename, line.line)
                for shown, line in zip(location.names(), location.lines, strict=True)
            ]
        return tuple([frames.setdefault(place, len(frames)) for place in reversed(places)])

    yield '{"$schema":' + json.dumps(_SCHEMA)
    yield f',"name":{json.dumps(name)},"exporter":"pyprof","activeProfileIndex":{active},"profiles":['
    for index, value_type in enumerate(profile.sample_types):
        unit = value_type.unit if value_type.unit in _SPEEDSCOPE_UNITS else "none"
        weights: list[int] = []
        yield "," if index else ""
        yield f'{{"type":"sampled","name":{json.dumps(value_type.type)},"unit":"{unit}","startValue":0,'
        yield '"samples":['
        for sample in profile.samples:
            value = sample.values[index]
            if value <= 0:
                continue
            stack: list[int] = []
            for location in reversed(sample.locations):
                called = by_location.get(id(location))
                if called is None:
                    called = by_location[id(location)] = number(location)
                stack += called
            yield ("," if weights else "") + json.dumps(stack, separators=(",", ":"))
            weights.append(value)
        yield f'],"weights":{json.dumps(weights, separators=(",", ":"))},"endValue":{sum(weights)}}}'
    yield '],"shared":{"frames":['
    for position, (shown, filename, line) in enumerate(frames):
        frame: dict[str, str | int] = {"name": shown}
        if filename:
            frame["file"] = filename
        if line > 0:
            frame["line"] = line
        yield ("," if position else "") + json.dumps(frame, ensure_ascii=False)
    yield "]}}\n"
