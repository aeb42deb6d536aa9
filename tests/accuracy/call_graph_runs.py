"""Running a random call graph under the sampler, and judging every stack that was accepted.

A stack must be a path of the graph, from `drive` of `programs/call_graph.py` on: each frame's line is one of
its function's, and one that calls the function of the next. Between functions of libraries (asyncio's) the
calls are taken for true that a trace function has seen in the same program; what the collector runs may be
called from anywhere. The graph's own calls are known from its making, and the trace is checked against that.
"""

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from .call_graphs import KINDS, CallGraph, Place, make_call_graph
from .reading import ENGINE, PROGRAMS, Frame, Profile, decode, run_python

PROGRAM = str(PROGRAMS / "call_graph.py")
RUN_BY_COLLECTOR = "_weakrefset.py"
RATE = 10_000


class Judge:
    """What is true of a graph's stacks."""

    def __init__(self, graph: CallGraph, file: str, traced: Sequence[Sequence[Any]]) -> None:
        self.graph = graph
        self.file = file
        self.by_name = {name: number for (name, _), number in graph.places.items()}
        self.library_calls = set()
        made: dict[Place, set[int]] = {}
        for *caller, callee_file, callee, first_line in traced:
            begin = Frame(caller[1], caller[0], caller[2])
            end = self.function(Frame(callee, callee_file, first_line))
            if self.function(begin) is not None and end is not None:
                made.setdefault((begin.name, begin.line), set()).add(end)
            else:
                self.library_calls.add((*caller, callee_file, callee))
        assert made == graph.calls, f"what was declared true of {graph.name} is not"

    def function(self, frame: Frame) -> int | None:
        """Its number; None: it has no such line, or is none of the graph."""
        if frame.file != self.file:
            return None
        if frame.line == 0:  # instructions without a line: in 3.12 a jump from the end of a comprehension
            return self.by_name.get(frame.name)
        return self.graph.places.get((frame.name, frame.line))

    def fault(self, stack: Sequence[Frame]) -> str | None:
        """What is wrong with a stack, innermost frame first."""
        # Functions of C code have no file; they stand between functions of Python.
        frames = [frame for frame in reversed(stack) if frame.file]
        if all(frame.file != self.file for frame in frames):
            return None  # before and after
        above = [(frame.name, frame.file) for frame in frames[:4]]
        if above != [(name, PROGRAM) for name in ("<module>", "main", "sample", "drive")]:
            return f"begins with {above}"
        for caller, callee in pairwise(frames[3:]):
            if not self.is_call(caller, callee):
                return f"{caller.name}:{caller.line} does not call {callee.name}:{callee.line}"
        return None

    def is_call(self, caller: Frame, callee: Frame) -> bool:
        begin, end = self.function(caller), self.function(callee)
        if callee.file == self.file and end is None:
            return False
        if begin is not None and end is not None:
            return end in self.graph.calls.get((caller.name, caller.line), ())
        if (caller.file, caller.name, caller.line, callee.file, callee.name) not in self.library_calls:
            return callee.file.endswith(RUN_BY_COLLECTOR)
        # The first function of the graph, and those that the event loop runs.
        return end is None or callee.name == "work" or end in self.graph.tasks


@dataclass(frozen=True)
class Outcome:
    graph: CallGraph
    accepted: int
    """Stacks of a thread on a CPU."""
    faults: Counter[str]
    stats: dict[str, Any]

    @property
    def wrong(self) -> int:
        return self.faults.total()

    @property
    def looked(self) -> int:
        """Ticks at which a stack was to be read: in time, and the thread had run since the one before."""
        return int(self.stats["stacks"] + self.stats["discarded"])

    def __str__(self) -> str:
        worst = "".join(f"\n  {count} x {text}" for text, count in self.faults.most_common(20))
        return (
            f"kind {self.graph.kind}, seed {self.graph.seed}: "
            f"{self.wrong} wrong of {self.accepted} accepted; {self.stats}{worst}"
        )


@contextlib.contextmanager
def busy(cpu: int | None) -> Iterator[None]:
    """Another process wants that CPU; None: there is none."""
    if cpu is None:
        yield
        return
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}}); parent = os.getppid()\n"
    code += "while os.getppid() == parent: pass"
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run_call_graph(
    kind: str,
    seed: int,
    directory: Path,
    *,
    seconds: float,
    cpu: int | None = None,
    pinned: tuple[int, int] | None = None,
    busy_cpu: int | None = None,
    engine: str = ENGINE,
) -> Outcome:
    """cpu: for all of it; pinned: one for the program's thread, one for the timer's.

    busy_cpu: for another process.
    """
    graph = make_call_graph(kind, seed)
    file = directory / f"{graph.name}.py"
    file.write_text(graph.source)
    given = {
        "directory": str(directory),
        "module": graph.name,
        "driven_by": KINDS[kind].driven_by,
        "seconds": seconds,
        "pinned": pinned,
        "period_ns": 10**9 // RATE,
        "gilfree": engine == "gilfree",
    }
    with busy(busy_cpu):
        stdout = run_python([PROGRAM, json.dumps(given)], cpu=cpu, timeout=120 + 2 * seconds)
    found = json.loads(stdout.splitlines()[-1])
    judge = Judge(graph, str(file), found["calls"])
    accepted, faults = 0, Counter[str]()
    profile = Profile([stack for path in directory.glob("*.pb") for stack in decode(path.read_bytes())])
    for stack in profile.stacks:
        accepted += stack.values["stacks"]
        if fault := judge.fault(stack.frames):
            faults[fault] += stack.values["stacks"]
    return Outcome(graph, accepted, faults, found["stats"])
