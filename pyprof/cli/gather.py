"""What the processes of a `pyprof run` have written, brought into the form that was asked for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyprof import pprof
from pyprof.cli.terminal import Progress, note
from pyprof.pprof.read import by_process, process_of
from pyprof.pprof.save import format_of

__all__ = ["Gathered", "is_file", "unwritable"]

_HINT = "was one of them Python with pyprof installed, and did it end by itself, or by SIGTERM?"


def is_file(output: str) -> bool:
    """Whether an output means one file, by its name; any other is a directory."""
    return format_of(output) is not None and not output.endswith(os.sep) and not os.path.isdir(output)


def unwritable(output: str) -> str | None:
    """Why an output cannot be written, known before the program has run for an hour. Makes a directory."""
    if not is_file(output):
        try:
            os.makedirs(output, exist_ok=True)
        except OSError as error:
            return error.strerror
        return None if os.access(output, os.W_OK | os.X_OK) else "it is not writable"
    parent = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(parent):
        return f"there is no directory {parent}"
    try:
        if os.path.exists(output):
            return None if os.access(output, os.W_OK) else "it is not writable"
        with tempfile.TemporaryFile(dir=parent):  # access() knows neither full disks nor odd file systems
            return None
    except OSError as error:
        return error.strerror


class Gathered:
    """The profiles in a directory that were not there when this object was made."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._before = set(self._all())

    def _all(self) -> Iterator[Path]:
        return Path(self.directory).glob("*.pb.gz")

    def files(self) -> list[Path]:
        """Oldest interval of a process first."""
        return sorted(set(self._all()) - self._before)

    def keep_one_a_process(self) -> int:
        """Merge the intervals of each process into the first one's file; the number of processes."""
        processes = by_process(self.files())
        with Progress("merging the profiles of each process") as progress:
            for number, files in enumerate(processes):
                progress.update(number / len(processes))
                if len(files) > 1:
                    self._merge_into_first(files)
        return len(processes)

    def _merge_into_first(self, files: list[Path]) -> None:
        try:
            pprof.save(_joined(files), files[0])
        except (OSError, pprof.ProfileError) as error:
            note(f"the {len(files)} files of one process stay as they are: {error}")
            return
        for file in files[1:]:
            file.unlink(missing_ok=True)

    def merge(self) -> pprof.Profile | None:
        """The sum of all; None, and a word about it, where there is nothing."""
        files = self.files()
        try:
            with Progress("merging the profiles") as progress:
                return _merged(files, progress)
        except pprof.ProfileError as error:
            note(f"no process wrote a profile: {_HINT}" if not files else str(error))
            return None

    def save(self, profile: pprof.Profile, output: str) -> bool:
        """Write the merged profile; if that fails, say where what it was made from is kept."""
        try:
            pprof.save(profile, output)
        except (OSError, pprof.ProfileError) as error:
            kept = tempfile.mkdtemp(prefix="pyprof-kept-")
            copy(self.files(), kept)
            reason = error.strerror if isinstance(error, OSError) else error
            note(f"cannot write {output}: {reason}; the profiles of the processes are in {kept}")
            return False
        count = len({process_of(file.name) for file in self.files()})
        note(f"wrote {output}" + (f", the sum of {count} processes" if count > 1 else ""))
        return True


def copy(files: Iterable[Path], directory: str) -> None:
    """Copy files into a directory that may have gone."""
    for file in files:
        try:
            shutil.copy(file, directory)
        except OSError:
            return


@contextmanager
def temporary_directory() -> Iterator[str]:
    """Where a run collects whose output is one file or a table."""
    # A process that outlives the run and still writes may be in the way; what it makes anew is its directory,
    # not that one's parent.
    with tempfile.TemporaryDirectory(prefix="pyprof-run-", ignore_cleanup_errors=True) as parent:
        directory = os.path.join(parent, "profiles")
        os.mkdir(directory)
        yield directory


def _merged(files: list[Path], progress: Progress) -> pprof.Profile:
    merger = pprof.Merger()
    processes = by_process(files)
    for number, windows in enumerate(processes):
        progress.update(number / len(processes))
        try:
            merger.add(_joined(windows))
        except pprof.ProfileError:
            continue  # said already
    return merger.profile()


def _joined(windows: list[Path]) -> pprof.Profile:
    merger = pprof.Merger()
    for window in windows:
        try:
            merger.follow(pprof.read(window))
        except pprof.ProfileError as error:
            note(str(error))  # of a process that was killed while it wrote
    return merger.profile()
