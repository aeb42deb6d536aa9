"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replace_file"]


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end of the block, unless that raises.

    Symbolic links are followed. What is no ordinary file (a pipe, `/dev/stdout`) is written to
    directly. Raises OSError, which names `path`.
    """
    try:
        try:
            existing = Path(path).stat()
        except FileNotFoundError:
            existing = None
        if existing and not stat.S_ISREG(existing.st_mode):
            with open(path, "wb") as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        temporary = target.with_name(f".{target.name[:100]}.{os.urandom(4).hex()}.tmp")
        try:
            with open(temporary, "xb") as file:
                yield file
            if existing:
                temporary.chmod(stat.S_IMODE(existing.st_mode))
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        # A full disk names no file, and the temporary one would tell nobody anything.
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
