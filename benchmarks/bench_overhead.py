"""What does profiling cost? Own-thread CPU and slowdown at 100 Hz, pyprof beside its peers in one run.

Two workloads: the talk's program (one thread in plain loops) and the Flask shop (four threads).

- Slowdown: wall time of the same work with the profiler on and off, where the application and the profiler
  share one CPU, so that whatever the profiler takes is missing. The speed of a virtual machine's CPU varies
  by tens of per cent within milliseconds, and what matters here is one; so each piece of work is followed by
  the same piece in a process without profiler on the same CPU, the meter, and what counts is the ratio of the
  two. The meter is read by its threads' CPU clocks, which stand still while a profiler has the CPU.
  A turn is a block of such pairs with the profiler off and one with it on, each represented by its median
  ratio; the profilers take turns in an order that changes, and the difference to pyprof is taken round by
  round. "nothing" is a profiler that does nothing: what it shows is the noise.
- Own CPU: CPU of all threads that are not the application's, in percent of a core, over whole upload
  intervals after the first upload; the empty timer loop of the same run is the floor.

Usage: python -m benchmarks.bench_overhead [--quick] [--rounds N] [--pairs N] [--only NAME …] [--json FILE]
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
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
    worker,
)
from .harness import sink as local_sink
from .profilers import PEERS, PROFILERS, environment

WORKER = "benchmarks.overhead_worker"
WORKLOADS = {"talk": "talk's program", "flask": "Flask application"}


UNIT = {"talk": 0.025, "flask": 0.05, "allocations": 0.025}
"""Seconds of a piece of work. The shop's begins with a fresh database, which must not be most of it."""
SETTLE = 0.25
"""Seconds of work after each start and stop that are not measured: first ticks."""

Turns = dict[str, list[dict[str, list[float]]]]
"""By profiler and turn: wall time over the meter's CPU time, of each pair, `off` and `on`."""


def slowdown(turn: dict[str, list[float]]) -> float:
    """Percent by which the profiler slows the work down."""
    return 100 * (statistics.median(turn["on"]) / statistics.median(turn["off"]) - 1)


def alternate(arguments: argparse.Namespace, workload: str, names: list[str], url: str) -> Turns:
    """One turn a round of each profiler, in an order that changes from round to round."""
    turns: Turns = {name: [] for name in names}
    cpus = sorted(os.sched_getaffinity(0))
    unit = UNIT[workload]
    request = {"mode": "turns", "workload": workload, "seconds": unit, "url": url, "cpu": cpus[0]}
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cpus)
        os.sched_setaffinity(0, cpus[1:] or cpus)  # nothing of ours beside what is measured

        def begin(name: str) -> tuple[Ask, str]:
            ask = stack.enter_context(
                conversation(WORKER, {**request, "profiler": name}, **environment(name, url))
            )
            return ask, str(ask("calibrate")["amount"])

        meter, amount = begin("nothing")
        asks = {name: begin(name)[0] for name in names}

        def pairs(ask: Ask) -> list[float]:
            for _ in range(round(SETTLE / unit)):
                ask(amount)
            return [ask(amount)["wall"] / meter(amount)["app_cpu"] for _ in range(arguments.pairs)]

        def turn(ask: Ask) -> dict[str, list[float]]:
            off = pairs(ask)
            ask("start")
            on = pairs(ask)
            ask("stop")
            return {"off": off, "on": on}

        for ask in asks.values():
            turn(ask)  # does not count: what is imported late is there now
        for number in range(arguments.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                turns[name].append(turn(asks[name]))
    return turns


def measure(arguments: argparse.Namespace, names: list[str], url: str, library: str) -> dict[str, Any]:
    """Everything, by workload and profiler."""
    turns: dict[str, Turns] = {}
    own: dict[str, dict[str, Any]] = defaultdict(dict)
    for workload in WORKLOADS:
        note(f"{workload}: {arguments.rounds} rounds of {', '.join(names)}")
        turns[workload] = alternate(arguments, workload, ["nothing", *names], url)
        for name in ["empty", *names]:
            note(f"{workload}: {name}, own CPU")
            before = received(url)
            own[workload][name] = worker(
                WORKER,
                {
                    "mode": "steady",
                    "workload": workload,
                    "profiler": name,
                    "seconds": arguments.steady,
                    "warm_up": arguments.warm_up,
                    "url": url,
                },
                timeout=120 + 5 * (arguments.steady + arguments.warm_up),
                EMPTY_LOOP=library,
                **environment(name, url),
            )
            after = received(url)
            for what in ("requests", "bytes"):
                own[workload][name][f"uploaded_{what}"] = sum(after[what].values()) - sum(
                    before[what].values()
                )
    return {"turns": turns, "own": own}


def report_own_cpu(own: dict[str, Any], names: list[str]) -> dict[str, Any]:
    percent = {name: 100 * result["own_cpu"] / result["wall"] for name, result in own.items()}
    rows, summary = [], {}
    for name in names:
        above, uploads = percent[name] - percent["empty"], own[name]["uploaded_requests"]
        ratio = percent[name] / percent["pyprof"] if "pyprof" in percent else float("nan")
        rows.append(
            [
                PROFILERS[name].title,
                f"{percent[name]:.2f} %",
                f"{above:+.2f} %",
                f"{ratio:.1f} x",
                f"{uploads}",
            ]
        )
        summary[name] = {
            "percent": percent[name],
            "percent_above_empty_loop": above,
            "ratio_to_pyprof": ratio,
            "uploads": uploads,
            "uploaded_bytes": own[name]["uploaded_bytes"],
        }
    print(f"\nCPU of the profiler's own threads; the empty loop has {percent['empty']:.2f} % of a core\n")
    print_table(["profiler", "own CPU", "above empty", "ratio", "uploads"], rows)
    return summary


def report_slowdown(turns: Turns, ours: str = "pyprof") -> dict[str, Any]:
    rows, summary = [], {}
    slowdowns = {name: [slowdown(turn) for turn in own] for name, own in turns.items()}
    for name, values in slowdowns.items():
        wall = Estimate.of(values)
        above = (
            Estimate.of([mine - its for mine, its in zip(values, slowdowns[ours], strict=True)])
            if ours in slowdowns and name != ours
            else None
        )
        low, high = wall.quartiles
        rows.append(
            [
                PROFILERS[name].title,
                wall.text(),
                f"{low:+.2f} … {high:+.2f}",
                "" if above is None else above.text(),
            ]
        )
        summary[name] = {"wall": wall.as_dict(), "above_pyprof": above and above.as_dict()}
    print("\nSlowdown on one CPU: medians [95 % interval], quartiles\n")
    print_table(["profiler", "slowdown", "quartiles", "above pyprof's, round by round"], rows)
    return summary


def report(data: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Print the tables; return them as plain data."""
    summary: dict[str, Any] = {}
    for workload, title in WORKLOADS.items():
        print(f"\n{title}, 100 Hz, {len(data['turns'][workload]['nothing'])} rounds")
        summary[workload] = {
            "own_cpu": report_own_cpu(data["own"][workload], names),
            "slowdown": report_slowdown(data["turns"][workload]),
        }
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description="Own CPU and slowdown, side by side.")
    parser.add_argument("--quick", action="store_true", help="a minute or two; for a look, not for a claim")
    parser.add_argument("--rounds", type=int, default=30, help="on/off alternations a workload and profiler")
    parser.add_argument("--pairs", type=int, default=25, help="pieces of work of a block")
    parser.add_argument(
        "--only", nargs="+", default=["pyprof", "pyprof-slow", *PEERS], help="profilers by name"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.steady, arguments.warm_up = 20.0, 15.0
    if arguments.quick:
        arguments.rounds, arguments.pairs = 4, 10
        arguments.steady, arguments.warm_up = 3.0, 1.0
    names = those_installed(arguments.only)
    if not names:
        return 1
    warn_if_busy()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, local_sink() as url:
        library = compiled_empty_loop(Path(directory))
        data = measure(arguments, names, url, str(library))
    print_machine()
    summary = report(data, names)
    path = save("overhead", {"summary": summary, "raw": data, "quick": arguments.quick}, arguments.json)
    note(f"{path} ({time.monotonic() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
