"""How much memory the process's control group may use, version 1 or 2."""

import os
from collections.abc import Iterator

_UNLIMITED = 1 << 62
"""Version 1 says "none" with a number that is rounded to pages."""


def cgroup_limit(proc: str = "/proc/self") -> int:
    """The smallest limit among the process's control groups and those around them, bytes; 0: there is none.

    In a container the group's own directory is often the root of what is mounted, whatever the path that the
    kernel names: each directory from that path up to the root is looked at, as far as it is there.
    """
    found = []
    for directory, name in _files(proc):
        text = _read(os.path.join(directory, name)).strip()
        if text.isdigit() and 0 < int(text) < _UNLIMITED:
            found.append(int(text))
    return min(found, default=0)


def _files(proc: str) -> Iterator[tuple[str, str]]:
    mounts = list(_mounts(proc))
    for line in _read(f"{proc}/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for version, root, point in mounts:
            if version == 2 and not controllers:
                name = "memory.max"
            elif version == 1 and "memory" in controllers.split(","):
                name = "memory.limit_in_bytes"
            else:
                continue
            relative = os.path.relpath(path, root) if path.startswith(root) else path.lstrip("/")
            for directory in _upwards(point, relative):
                yield directory, name


def _mounts(proc: str) -> Iterator[tuple[int, str, str]]:
    """Version, root within the hierarchy, and mount point of where limits of memory may be."""
    for line in _read(f"{proc}/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        words, kind = fields.split(" "), rest.split(" ")
        if len(words) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            yield 2, words[3], words[4]
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield 1, words[3], words[4]


def _upwards(point: str, relative: str) -> Iterator[str]:
    parts = [part for part in relative.split("/") if part not in ("", ".", "..")]
    for length in range(len(parts), -1, -1):
        yield os.path.join(point, *parts[:length])


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
