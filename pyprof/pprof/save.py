"""Write a profile to a file, in the format that the file's name ends in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from pyprof.pprof.convert import iter_folded, iter_speedscope
from pyprof.pprof.errors import ProfileError, printable
from pyprof.pprof.model import Profile
from pyprof.pprof.output import replace_file
from pyprof.pprof.write import write

__all__ = ["FORMATS", "MAX_OUTPUT_BYTES", "PPROF", "format_of", "save", "save_flamegraph"]

MAX_OUTPUT_BYTES = 1 << 30
"""A file of a few megabytes can hold long names in deep stacks: folded, that is terabytes."""

_Pieces = Iterable[bytes]
_Format = Callable[[Profile, str | None, str], _Pieces]


def save(
    profile: Profile,
    path: str | os.PathLike[str],
    *,
    sample_type: str | None = None,
    title: str | None = None,
) -> None:
    """Write pprof (`.pb.gz`, `.pprof`, `.gz`; `.pb`: not compressed), `.folded`, `.speedscope.json`, `.html`.

    The file appears whole or not at all.

    sample_type: what folded stacks hold, and what the two viewers show first; None is the default
    one. title: heading of the two viewers.
    Raises ValueError for another ending or a sample type with pprof, which holds them all,
    ProfileError for what the format cannot hold, OSError from the file system.
    """
    suffix = format_of(path)
    if suffix is None:
        raise ValueError(f"{os.fspath(path)}: the name must end in one of {', '.join(FORMATS)}")
    if sample_type is not None and suffix in PPROF:
        raise ValueError(f"{suffix} always holds all sample types")
    _write(FORMATS[suffix](profile, sample_type, title or "profile"), path)


def save_flamegraph(
    profile: Profile, path: str | os.PathLike[str], sample_type: str | None = None, title: str | None = None
) -> None:
    """Write the flame graph page, whatever the file's name."""
    _write(_html(profile, sample_type, title or "profile"), path)


def format_of(path: str | os.PathLike[str]) -> str | None:
    """The ending of the name that says the format; None if it is none that can be written."""
    name = os.fspath(path)
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), None)


def _pb_gz(profile: Profile, sample_type: str | None, title: str) -> _Pieces:
    yield write(profile, compress=True)


def _pb(profile: Profile, sample_type: str | None, title: str) -> _Pieces:
    yield write(profile)


def _folded(profile: Profile, sample_type: str | None, title: str) -> _Pieces:
    return (line.encode("utf-8", "backslashreplace") for line in iter_folded(profile, sample_type))


def _speedscope(profile: Profile, sample_type: str | None, title: str) -> _Pieces:
    pieces = iter_speedscope(profile, title, sample_type)
    return (piece.encode("utf-8", "backslashreplace") for piece in pieces)


def _html(profile: Profile, sample_type: str | None, title: str) -> _Pieces:
    from pyprof.pprof.flamegraph import render

    yield render(profile, sample_type, title).encode()


FORMATS: dict[str, _Format] = {
    ".pb.gz": _pb_gz,
    ".pb": _pb,
    ".pprof": _pb_gz,
    ".gz": _pb_gz,
    ".folded": _folded,
    ".speedscope.json": _speedscope,
    ".html": _html,
}


PPROF = tuple(suffix for suffix, pieces in FORMATS.items() if pieces in (_pb, _pb_gz))


def _write(pieces: _Pieces, path: str | os.PathLike[str]) -> None:
    size = 0
    with replace_file(path) as file:
        for piece in pieces:
            size += len(piece)
            if size > MAX_OUTPUT_BYTES:
                shown = printable(os.fspath(path))
                raise ProfileError(f"{shown}: would be larger than {MAX_OUTPUT_BYTES >> 30} GiB")
            file.write(piece)
