"""Profiles as files: one an interval in a directory, or all merged into one file."""

import errno
import os
import stat
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from .. import log
from .series import Series
from .target import Outcome

GZIP_LEVEL = 6
SUFFIXES = (".pb.gz", ".pprof", ".gz", ".pb")
_SAME_NAME = 1000  # files of one service, pid and millisecond
_CLOCK_STEP = 10_000_000  # ns: files are stamped by the kernel's coarse clock
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def is_file(output: str) -> bool:
    """Whether the option `output` means one file, by its name."""
    return output.endswith(SUFFIXES) and not os.path.isdir(output)


def file_name(service: str, pid: int, start_ns: int, number: int = 0) -> str:
    """SERVICE-PID-UTCTIME.pb.gz in characters that need no quoting, and nothing that hides or escapes.

    number: among those of one millisecond; "_001" sorts after the name without it.
    """
    safe = "".join(character if character in _SAFE else "_" for character in service).strip(".-")[:100]
    seconds, rest = divmod(start_ns, 1_000_000_000)
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    suffix = f"_{number:03}" if number else ""
    return f"{safe or 'python'}-{pid}-{moment}.{rest // 1_000_000:03}Z{suffix}.pb.gz"


class _FileTarget:
    combined = True
    stores = True
    imports = "files"

    def __init__(self, output: str) -> None:
        self._output = os.path.abspath(output)
        self._was_cut = False
        self.name = f"output {output}"

    def prepare(self) -> Outcome:
        try:
            self._check()
        except OSError as error:
            return _failure(error)
        return Outcome(True)

    def _check(self) -> None:
        """Raise the error that writing would end with, where that can be known before."""
        raise NotImplementedError

    def _write(self, series: Series) -> int:
        raise NotImplementedError

    def portions(self, series: Sequence[Series]) -> Iterable[Sequence[Series]]:
        return [series] if series else []

    def send(self, portion: Sequence[Series], deadline: float) -> Outcome:
        written = 0
        for one in portion:
            if self._was_cut or time.monotonic() >= deadline:
                return Outcome(False, "given up", retriable=True, cut=self._was_cut)
            try:
                written += self._write(one)
            except OSError as error:
                return _failure(error)
        return Outcome(True, bytes=written)

    def cut(self) -> None:
        self._was_cut = True

    def resume(self) -> None:
        self._was_cut = False

    def after_fork_child(self) -> None:
        self._was_cut = False

    def close(self) -> None:
        pass


class DirectoryTarget(_FileTarget):
    """One file an interval. The directory is made if its parent is there."""

    def _check(self) -> None:
        self._make()
        _check_directory(self._output)

    def _make(self) -> None:
        try:
            os.mkdir(self._output)
        except FileExistsError:
            if not os.path.isdir(self._output):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None

    def _write(self, series: Series) -> int:
        self._make()
        service = series.labels.get("service_name", "python")
        data = zlib.compress(series.pprof, GZIP_LEVEL, wbits=31)
        # A flush takes less than a millisecond; and in another container another process has our pid.
        for number in range(_SAME_NAME):
            name = file_name(service, os.getpid(), series.start_ns, number)
            if _create(os.path.join(self._output, name), data):
                return len(data)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


_Version = tuple[int, int, int]  # pid, inode and time of change

_written: dict[str, _Version] = {}
"""What this process wrote last, by path: a restart goes on with it."""
_began = time.time_ns()


def _version(path: str) -> _Version | None:
    """None: there is none, or no ordinary file, which is nobody's."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (os.getpid(), found.st_ino, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class FileTarget(_FileTarget):
    """One file for all the process has delivered so far, over restarts.

    A forked child writes one beside it, and so does who finds that another process has written the file since
    this one began: a program that was started with the same environment.
    """

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self._merged: Any = None
        self._pid = os.getpid()
        self._is_anothers = False

    def _check(self) -> None:
        # Not the file itself: a new one takes its place, whoever may write to the old one.
        _check_directory(os.path.dirname(os.path.realpath(self._output)))

    def _path(self) -> str:
        pid = os.getpid()
        if pid == self._pid and not self._is_anothers and self._was_taken():
            self._is_anothers = True
            log.info("option output: another process has written %s, this writes beside it", self._output)
        if pid == self._pid and not self._is_anothers:
            return self._output
        suffix = next(suffix for suffix in SUFFIXES if self._output.endswith(suffix))
        return f"{self._output.removesuffix(suffix)}.{pid}{suffix}"

    def _was_taken(self) -> bool:
        found = _version(self._output)
        return found is not None and found != _written.get(self._output) and found[-1] > _began - _CLOCK_STEP

    def _write(self, series: Series) -> int:
        from .. import pprof

        path, profile = self._path(), pprof.read(series.pprof)
        if self._merged is None and path in _written and _version(path) == _written[path]:
            self._merged = pprof.read(path)
        merged = profile if self._merged is None else pprof.join([self._merged, profile])
        data = pprof.write(merged, compress=not self._output.endswith(".pb"))
        size = _replace(path, data)
        written = _version(path)
        if written is not None:
            _written[path] = written
        self._merged = merged  # only now: what is not on disk is tried again, or counted as lost
        return size

    def after_fork_child(self) -> None:
        super().after_fork_child()
        self._merged = None


def _check_directory(directory: str) -> None:
    """Raise what a new file in it would meet. access() says no without a reason, and of the real user."""
    if not os.access(directory, os.W_OK | os.X_OK):
        path = os.path.join(directory, f".{os.urandom(4).hex()}.tmp")
        with open(path, "xb"):
            os.unlink(path)


def _create(path: str, data: bytes) -> bool:
    """Write a file that appears whole; False where there is one of that name.

    Who has made the temporary file holds the name, so that none comes up between the look for it and the
    renaming. A hard link would not replace one either, but not every file system has them.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.tmp")
    try:
        file = open(temporary, "xb")  # noqa: SIM115
    except FileExistsError:
        return False
    held = True
    try:
        with file:
            if os.path.lexists(path):
                return False
            file.write(data)
        os.rename(temporary, path)
        held = False
    finally:
        if held:
            os.unlink(temporary)
    return True


def _replace(path: str, data: bytes) -> int:
    from ..pprof.output import replace_file

    with replace_file(path) as file:
        file.write(data)
    return len(data)


def _failure(error: OSError) -> Outcome:
    what = {
        errno.ENOENT: "the directory does not exist",
        errno.ENOTDIR: "it, or a part of its path, is not a directory",
        errno.EACCES: "it is not writable (permission denied)",
        errno.EPERM: "it is not writable (not permitted)",
        errno.EROFS: "it is not writable (read-only file system)",
        errno.ENOSPC: "no space is left on the device",
        errno.EDQUOT: "the disk quota is exceeded",
        errno.ENAMETOOLONG: "the name is too long",
    }.get(error.errno or 0, error.strerror or type(error).__name__)
    return Outcome(
        False, f"option output: {what}", retriable=error.errno in (errno.ENOSPC, errno.EDQUOT), cause=what
    )
