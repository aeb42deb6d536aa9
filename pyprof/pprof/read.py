"""Read profiles from files, directories, URLs and bytes, within bounds whatever they hold."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pyprof.pprof.decode import Malformed, TooLarge, decode
from pyprof.pprof.errors import ProfileError, printable
from pyprof.pprof.merge import Merger
from pyprof.pprof.model import Profile

__all__ = ["MAX_PROFILE_BYTES", "Source", "by_process", "is_url", "process_of", "profile_files", "read"]

MAX_PROFILE_BYTES = 128 << 20
"""Largest profile that is read, uncompressed."""

Source = str | os.PathLike[str] | bytes | bytearray | memoryview
Progress = Callable[[float], None]
"""Gets the share done, 0 to 1."""

_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_SUFFIXES = (".pb.gz", ".pb")


def read(source: Source, *, progress: Progress | None = None) -> Profile:
    """Read a pprof profile, gzipped or not.

    source: a file; a directory, which is the merge of its `*.pb.gz` and `*.pb` files; an `http://`
    or `https://` URL (a string); or the bytes themselves.
    Raises ProfileError, one line that names the source, for everything that goes wrong.
    """
    note = progress or _ignore
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _parse(io.BytesIO(source), "the data", len(source), note)
    name = os.fspath(source)
    shown = printable(name)
    if isinstance(source, str) and is_url(source):
        from pyprof.pprof.fetch import fetch, shown_url

        content = fetch(source, MAX_PROFILE_BYTES)
        return _parse(io.BytesIO(content), shown_url(source), len(content), note)
    try:
        if Path(name).is_dir():
            return _read_directory(Path(name), note)
        return _read_file(name, shown, note)
    except OSError as error:
        raise ProfileError(f"{shown}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise ProfileError(f"{shown}: {error}") from error


def is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def profile_files(directory: Path) -> list[Path]:
    """The profiles of a directory by name, hidden files (those being written) left out."""
    return sorted(
        entry
        for entry in directory.iterdir()
        if entry.name.endswith(_SUFFIXES) and not entry.name.startswith(".")
    )


# SERVICE-PID-TIME.pb.gz: one an interval and process. _001 after the time is the second of its millisecond.
_NAME = re.compile(r"(?P<process>.*-\d+)-\d{8}T\d{6}\.\d{3}Z(_\d+)?\.pb\.gz")


def process_of(name: str) -> str:
    """What the name of a file says of the process that wrote it; the name itself where it says nothing."""
    match = _NAME.fullmatch(name)
    return match["process"] if match else name


def by_process(files: Iterable[Path]) -> list[list[Path]]:
    """The files of each process, oldest interval first."""
    processes: dict[str, list[Path]] = {}
    for file in sorted(files):
        processes.setdefault(process_of(file.name), []).append(file)
    return list(processes.values())


def _read_directory(directory: Path, note: Progress) -> Profile:
    files = profile_files(directory)
    if not files:
        raise ProfileError(f"{printable(str(directory))}: no profile in this directory (no *.pb.gz, no *.pb)")
    merger = Merger()
    done = 0
    for process in by_process(files):
        windows = Merger()
        for file in process:
            note(done / len(files))
            done += 1
            try:
                windows.follow(_read_file(os.fspath(file), printable(str(file)), _ignore))
            except OSError as error:
                raise ProfileError(f"{printable(str(file))}: {error.strerror or error}") from error
        merger.add(windows.profile())
    return merger.profile()


def _read_file(name: str, shown: str, note: Progress) -> Profile:
    # A pipe or a device could block for ever, or hand out bytes for ever; not even open it.
    _check_regular(Path(name).stat(), shown)
    with open(name, "rb", opener=_open_unblocked) as file:
        status = os.fstat(file.fileno())
        _check_regular(status, shown)
        if status.st_size > MAX_PROFILE_BYTES:
            raise _too_large(shown, f"the file has {status.st_size >> 20:,} MiB")
        return _parse(file, shown, status.st_size, note)


def _open_unblocked(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(status: os.stat_result, shown: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ProfileError(f"{shown}: a directory, not a profile")
    if not stat.S_ISREG(status.st_mode):
        raise ProfileError(f"{shown}: a pipe, socket or device; write the profile to a file first")


def _parse(file: BinaryIO, shown: str, size: int, note: Progress) -> Profile:
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if not magic:
        raise ProfileError(f"{shown}: empty, not a pprof profile; record it again")
    try:
        data = bytearray()
        for chunk in _chunks(file, compressed=magic == _GZIP_MAGIC):
            if len(data) + len(chunk) > MAX_PROFILE_BYTES:
                raise _too_large(shown, f"more than {MAX_PROFILE_BYTES >> 20} MiB uncompressed")
            data += chunk
            note(min(1.0, file.tell() / size) if size else 0.0)
        if not data:
            raise ProfileError(f"{shown}: empty gzip data, not a pprof profile; record it again")
        return decode(data)
    except EOFError as error:
        raise ProfileError(f"{shown}: truncated gzip data; copy or record the profile again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ProfileError(f"{shown}: damaged gzip data; copy or record the profile again") from error
    except Malformed as error:
        raise ProfileError(
            f"{shown}: not a pprof profile, or a damaged one ({error}); "
            "a file as `pyprof run -o` or `go tool pprof -proto` write it is needed"
        ) from error
    except TooLarge as error:
        raise _too_large(shown, str(error)) from error
    except MemoryError as error:
        raise ProfileError(f"{shown}: not enough memory to read this profile") from error


def _chunks(file: BinaryIO, *, compressed: bool) -> Iterator[bytes]:
    if not compressed:
        yield from iter(lambda: file.read(_CHUNK), b"")
        return
    with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
        yield from iter(lambda: unpacked.read(_CHUNK), b"")


def _too_large(shown: str, what: str) -> ProfileError:
    return ProfileError(f"{shown}: too large ({what}); record a shorter time, or split it with go tool pprof")


def _ignore(share: float) -> None:
    pass
