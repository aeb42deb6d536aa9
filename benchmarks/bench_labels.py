"""What do labels, tasks and greenlets cost the application? Nanoseconds of each, under each profiler.

- labels: entering and leaving a block with one label; ddtrace's way to the same is a span (`tracer.trace`).
- tasks: making an asyncio task and awaiting it, among a hundred.
- switches: from one gevent greenlet to another and back, half of that.

A turn is the same work with the profiler off and on, in an order that changes; each is the best of some runs,
since what else the machine does only adds. "nothing" is a profiler that does nothing: its pairs are noise.
Without a profiler labels cost what they cost with one; for them the difference is against an empty loop.

Usage: python -m benchmarks.bench_labels [--quick] [--rounds N] [--only NAME …] [--json FILE]
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from .harness import (
    Ask,
    Estimate,
    conversation,
    note,
    print_machine,
    print_table,
    save,
    those_installed,
    warn_if_busy,
)
from .harness import sink as local_sink
from .profilers import PROFILERS, Profiler, environment

WORKER = "benchmarks.labels_worker"
WORK = ("labels", "tasks", "switches")
NAMES = ("pyprof", "ddtrace-traced", "pyroscope")
Turn = dict[str, float]


def take_turn(ask: Ask, work: str, on_first: bool) -> Turn:
    turn = {}
    for state in ("on", "off") if on_first else ("off", "on"):
        if state == "on":
            ask("start")
        turn[state] = ask(work)["ns"]
        if state == "on":
            ask("stop")
    return turn


def measure(rounds: int, names: list[str], url: str) -> dict[str, dict[str, list[Turn]]]:
    """By work and profiler."""
    turns: dict[str, dict[str, list[Turn]]] = {work: {name: [] for name in names} for work in WORK}
    with contextlib.ExitStack() as stack:
        asks = {
            name: stack.enter_context(
                conversation(WORKER, {"profiler": name, "url": url}, **environment(name, url))
            )
            for name in names
        }
        for number in range(rounds):
            for work in WORK:
                for name in names:
                    turns[work][name].append(take_turn(asks[name], work, number % 2 == 1))
    return turns


def has_blocks(name: str) -> bool:
    return PROFILERS[name].run_blocks is not Profiler.run_blocks


def report(turns: dict[str, dict[str, list[Turn]]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    rows = []
    for work, of_work in turns.items():
        for name, pairs in of_work.items():
            if work == "labels" and not has_blocks(name):
                continue
            on = Estimate.of([turn["on"] for turn in pairs])
            if work == "labels":
                difference = on
            else:
                difference = Estimate.of([turn["on"] - turn["off"] for turn in pairs])
            rows.append([work, PROFILERS[name].title, f"{on.median:.0f}", difference.text("ns")])
            summary.setdefault(work, {})[name] = {"on": on.as_dict(), "difference": difference.as_dict()}
    print_table(["work", "profiler", "ns", "what it costs"], rows)
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description="The cost of labels, tasks and greenlets.")
    parser.add_argument("--quick", action="store_true", help="a minute or two; for a look, not for a claim")
    parser.add_argument("--rounds", type=int, default=15, help="alternations")
    parser.add_argument("--only", nargs="+", default=list(NAMES), help="profilers by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 3
    names = ["nothing", *those_installed(arguments.only)]
    warn_if_busy()
    begin = time.monotonic()
    with local_sink() as url:
        turns = measure(arguments.rounds, names, url)
    print_machine()
    path = save("labels", {"summary": report(turns), "raw": turns}, arguments.json)
    note(f"{path} ({time.monotonic() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
