"""How many stacks are wrong, and how many ticks are given up, in programs that do nothing but call?

Random call graphs of tiny functions (`tests/accuracy/call_graphs.py`), one kind after the other, sampled
10,000 times a second by a timer thread that has a CPU of its own, unless there is only one. Each accepted
stack is checked against what the graph's functions call from which line. Discarded, left to the other engine
and unverified are shares of the ticks at which there was something to read.

Usage: python -m benchmarks.bench_call_graphs [--quick] [--seconds S] [--graphs N] [--kinds KIND …] [--seed N]
       [--engine gilfree|current_frames] [--one-cpu] [--busy] [--json FILE]
"""

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.accuracy.call_graph_runs import Outcome, run_call_graph
from tests.accuracy.call_graphs import KINDS

from .harness import machine, note, print_table, save, warn_if_busy

COUNTERS = ("ticks", "missed", "discarded", "stacks", "unverified", "incomplete", "torn", "fallbacks")
WORST = 10
HEADER = (
    "accepted",
    "wrong",
    "wrong %",
    "discarded %",
    "to current_frames %",
    "unverified %",
    "incomplete %",
    "torn",
)


@dataclass
class Total:
    """The outcomes of one kind."""

    accepted: int = 0
    wrong: int = 0
    looked: int = 0
    seconds: float = 0
    stats: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, seconds: float) -> None:
        self.accepted += outcome.accepted
        self.wrong += outcome.wrong
        self.looked += outcome.looked
        self.seconds += seconds
        self.stats.update({name: outcome.stats[name] for name in COUNTERS})
        self.faults.update({f"seed {outcome.graph.seed}: {text}": n for text, n in outcome.faults.items()})

    def row(self) -> list[str]:
        stats = self.stats
        return [
            f"{self.accepted}",
            f"{self.wrong}",
            percent(self.wrong, self.accepted),
            percent(stats["discarded"], self.looked),
            percent(stats["fallbacks"], self.looked),
            percent(stats["unverified"], self.looked),
            percent(stats["incomplete"], self.looked),
            f"{stats['torn']}",
        ]

    def as_dict(self) -> dict[str, Any]:
        counted = {name: getattr(self, name) for name in ("accepted", "wrong", "looked", "seconds")}
        return {**counted, **self.stats, "faults": dict(self.faults.most_common())}


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3f}" if whole > 0 else "–"


def main() -> int:
    parser = argparse.ArgumentParser(description="Wrong stacks and discarded ticks in random call graphs.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=10, help="of each graph")
    parser.add_argument("--graphs", type=int, default=2, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, help="of the first graph of each kind")
    parser.add_argument("--engine", choices=("gilfree", "current_frames"), default="gilfree")
    parser.add_argument("--one-cpu", action="store_true", help="for the program and the timer")
    parser.add_argument("--busy", action="store_true", help="another process wants the timer's CPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warn_if_busy()
    seconds, graphs = (1.5, 1) if arguments.quick else (arguments.seconds, arguments.graphs)
    first = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    cpus = sorted(os.sched_getaffinity(0))
    pinned = None if arguments.one_cpu or len(cpus) < 2 else (cpus[0], cpus[1])
    totals = {kind: Total() for kind in arguments.kinds}
    for kind, total in totals.items():
        note(f"{kind}: seeds {first} to {first + graphs - 1}, {seconds} s each")
        for seed in range(first, first + graphs):
            with tempfile.TemporaryDirectory() as directory:
                outcome = run_call_graph(
                    kind,
                    seed,
                    Path(directory),
                    seconds=seconds,
                    cpu=None if pinned else cpus[0],
                    pinned=pinned,
                    busy_cpu=cpus[-1] if arguments.busy else None,
                    engine=arguments.engine,
                )
            total.add(outcome, seconds)
    print(f"{machine()['cpu']}, Python {sys.version.split()[0]}, engine {arguments.engine}\n")
    print_table(["kind", *HEADER], [[kind, *total.row()] for kind, total in totals.items()])
    for kind, total in totals.items():
        for text, count in total.faults.most_common(WORST):
            print(f"{kind}: {count} x {text}")
    asked = {name: getattr(arguments, name) for name in ("engine", "one_cpu", "busy")}
    result = {**asked, "kinds": {kind: total.as_dict() for kind, total in totals.items()}}
    note(str(save("call_graphs", result, arguments.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
