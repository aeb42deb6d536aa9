"""What do many threads, many tasks and a high rate cost? CPU of the profiler's own threads, case by case.

The cases are those that the engine has budgets for: 50 threads that wait and 50 that want the GIL, 40 frames
each; 5,000 asyncio tasks that sleep, once in a loop that sleeps as well and once in one that wakes 100 times
a second; and one busy thread at 10 kHz.

Own CPU is that of all threads that are not the application's, in percent of a core, over one upload interval
with its upload. What counts is what is above the empty timer loop of the same round, rate and application.
pyprof is measured with both of its ways to read stacks; the table says which one it was, how many of its
ticks were taken, how many there were a second, and what one that was taken comes to. pyprof and the empty
loop have a process for each case, in which they are started and stopped in turn, in an order that changes;
while it is not its turn, nothing goes on there. Peers have fewer turns, each in a process of its own, since
ddtrace does not find the event loop again when it is started a second time.

Usage: python -m benchmarks.bench_threads [--quick] [--rounds N] [--peer-rounds N] [--seconds S]
                                          [--cases CASE …] [--only NAME …] [--json FILE]
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .harness import (
    Ask,
    Estimate,
    compiled_empty_loop,
    conversation,
    note,
    print_machine,
    print_table,
    received,
    save,
    those_installed,
    warn_if_busy,
)
from .harness import sink as local_sink
from .profilers import PEERS, PROFILERS, RATE, environment

WORKER = "benchmarks.overhead_worker"
OURS = ("pyprof", "pyprof-slow")
SETTLE = 0.5
"""Seconds after each start that are not measured: first ticks."""


@dataclass(frozen=True)
class Case:
    title: str
    budgets: Mapping[str, float]
    """By profiler: percent of a core above the empty loop."""
    rate: int = RATE
    taken: float = 0.0
    """Budget: percent of the ticks that must be taken."""
    left_out: tuple[str, ...] = ()


CASES = {
    "idle": Case("50 idle threads", dict.fromkeys(OURS, 0.8)),
    "contending": Case("50 contending threads", {"pyprof": 1.0, "pyprof-slow": 2.0}),
    "tasks": Case("5,000 sleeping tasks", dict.fromkeys(OURS, 0.2)),
    "busy-tasks": Case("… in a loop that wakes", {}, left_out=("pyprof-slow", "ddtrace")),
    "one": Case("1 thread at 10 kHz", {"pyprof": 10.0}, 10_000, 99.0, ("ddtrace",)),  # has a rate of its own
}
"""By workload."""

Turn = dict[str, float]


def take_turn(ask: Ask, warm_up: float, seconds: float, url: str) -> Turn:
    """One turn: started, measured, stopped."""
    ask("start")
    ask(str(round(1000 * warm_up)))
    before, uploads = ask("counters"), sum(received(url)["requests"].values())
    clocks = ask(str(round(1000 * seconds)))
    after = ask("counters")
    uploads = sum(received(url)["requests"].values()) - uploads
    ask("stop")
    turn: Turn = {
        "percent": 100 * clocks["own_cpu"] / clocks["wall"],
        "app_cores": clocks["app_cpu"] / clocks["wall"],
        "uploads": uploads,
        "load_average": os.getloadavg()[0],
    }
    if before:
        counted = {
            name: after[name] - before[name]
            for name in ("ticks", "missed", "unverified", "torn", "fallbacks", "stacks")
        }
        turn |= counted
        turn["rate"] = counted["ticks"] / clocks["wall"]
        turn["taken"] = 100 * (1 - counted["missed"] / max(1, counted["ticks"]))
        turn["us_a_tick"] = 1e6 * clocks["own_cpu"] / max(1, counted["ticks"] - counted["missed"])
        turn["reads"] = after["memory_reads"]
    return turn


def measure(workload: str, names: list[str], arguments: argparse.Namespace, url: str, library: str) -> Any:
    """The turns of each profiler, one a round, None where it has none in that round."""
    case = CASES[workload]
    turns: dict[str, list[Turn | None]] = {name: [] for name in names}
    request = {"mode": "turns", "workload": workload, "rate": case.rate, "url": url}

    def process(name: str) -> contextlib.AbstractContextManager[Ask]:
        environ = {"EMPTY_LOOP": library, **environment(name, url)}
        return conversation(WORKER, {**request, "profiler": name}, **environ)

    def turn(name: str) -> Turn | None:
        if name in asks:
            return take_turn(asks[name], SETTLE, arguments.seconds, url)
        if number >= arguments.peer_rounds:
            return None
        with process(name) as ask:
            return take_turn(ask, SETTLE, arguments.seconds, url)

    with contextlib.ExitStack() as stack:
        asks = {name: stack.enter_context(process(name)) for name in names if name not in PEERS}
        for ask in asks.values():
            take_turn(ask, 0, SETTLE, url)  # does not count: what is imported late is there now
        for number in range(arguments.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                turns[name].append(turn(name))
    return turns


def report(results: Mapping[str, Any]) -> dict[str, Any]:
    """The table, and what it says."""
    rows: list[list[str]] = []
    summary: dict[str, Any] = {}
    for workload, turns in results.items():
        case = CASES[workload]
        summary[workload] = {}
        for name in turns:
            pairs = [(turn, floor) for turn, floor in zip(turns[name], turns["empty"], strict=True) if turn]
            last = pairs[-1][0]
            own = Estimate.of([turn["percent"] for turn, _ in pairs])
            above = Estimate.of([turn["percent"] - floor["percent"] for turn, floor in pairs])
            taken = [turn["taken"] for turn, _ in pairs if "taken" in turn]
            known = {
                key: f"{statistics.median(turn[key] for turn, _ in pairs):.0f}" if key in last else ""
                for key in ("rate", "us_a_tick")
            }
            share = Estimate.of(taken) if taken else None
            budget = case.budgets.get(name)
            met = budget is None or above.median <= budget
            if share is not None and budget is not None:
                met = met and share.median >= case.taken
            asked = "" if budget is None else f"{budget:g} %"
            if asked and case.taken:
                asked += f", {case.taken:g} % taken"
            rows.append(
                [
                    case.title,
                    PROFILERS[name].title,
                    f"{own.median:.2f} %",
                    "" if name == "empty" else above.text(),
                    asked if met else f"{asked}: missed",
                    f"{share.median:.1f} %" if share else "",
                    *known.values(),
                    str(last.get("reads", "")),
                    str(len(pairs)),
                ]
            )
            summary[workload][name] = {
                "own_percent": own.as_dict(),
                "above_empty_loop": above.as_dict(),
                "taken_percent": share.as_dict() if share else None,
                "budget": budget,
                "budget_taken": case.taken if budget is not None else None,
                "met": met if budget is not None else None,
                "memory_reads": last.get("reads"),
            }
    print_table(
        [
            "case",
            "profiler",
            "own CPU",
            "above empty",
            "budget",
            "taken",
            "ticks/s",
            "µs/tick",
            "reads by",
            "rounds",
        ],
        rows,
    )
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description="Own CPU with many threads, many tasks, a high rate.")
    parser.add_argument("--quick", action="store_true", help="a minute or two; for a look, not for a claim")
    parser.add_argument("--rounds", type=int, default=3, help="turns of pyprof and the empty loop")
    parser.add_argument("--peer-rounds", type=int, default=1, help="turns of the others")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn; an upload interval has 10")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--only", nargs="+", default=[*OURS, *PEERS], help="profilers by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.peer_rounds, arguments.seconds = 1, 1, 2.0
    names = ["empty", *those_installed(arguments.only)]
    warn_if_busy()
    begin = time.monotonic()
    results = {}
    with tempfile.TemporaryDirectory() as directory, local_sink() as url:
        library = str(compiled_empty_loop(Path(directory)))
        for workload in arguments.cases:
            of_case = [name for name in names if name not in CASES[workload].left_out]
            note(f"{CASES[workload].title}: {arguments.rounds} rounds of {', '.join(of_case)}")
            results[workload] = measure(workload, of_case, arguments, url, library)
    print_machine()
    print("\nCPU of the profiler's own threads, percent of a core: medians, [95 % intervals]\n")
    summary = report(results)
    path = save("threads", {"summary": summary, "raw": results, "quick": arguments.quick}, arguments.json)
    note(f"{path} ({time.monotonic() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
