"""What the processes of a program have left in a directory of profiles."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pyprof import pprof


@dataclass
class Process:
    """One process, by the profiles that bear its pid."""

    pid: int
    roles: set[str] = field(default_factory=set)
    files: int = 0
    cpu: Counter[str] = field(default_factory=Counter)
    """Nanoseconds by function, cumulative."""
    wall: Counter[str] = field(default_factory=Counter)

    def seconds(self, function: str) -> float:
        """CPU time of a function, its module left out."""
        return sum(value for name, value in self.cpu.items() if name.split(".")[-1] == function) / 1e9


def processes(directory: Path) -> dict[int, Process]:
    """By pid. Asserted is that name, comment and numeric label of each file agree about the pid."""
    found: dict[int, Process] = {}
    for path in sorted(directory.glob("*.pb.gz")):
        profile = pprof.read(path)
        [(pid, role)] = re.findall(r"^pid (\d+), role (\w+)$", "\n".join(profile.comments), re.MULTILINE)
        labels = {label.value for sample in profile.samples for label in sample.labels if label.key == "pid"}
        assert labels <= {int(pid)}, (path, labels)
        assert f"-{pid}-" in path.name, path
        process = found.setdefault(int(pid), Process(int(pid)))
        process.roles.add(role)
        process.files += 1
        for kind, sums in (("cpu", process.cpu), ("wall", process.wall)):
            sums += _cumulative(profile, kind)
    return found


def _cumulative(profile: pprof.Profile, kind: str) -> Counter[str]:
    names = [one.type for one in profile.sample_types]
    sums: Counter[str] = Counter()
    if kind in names:
        index = names.index(kind)
        for sample in profile.samples:
            functions = {line.function.name for place in sample.locations for line in place.lines}
            for name in functions:
                sums[name] += sample.values[index]
    return sums
