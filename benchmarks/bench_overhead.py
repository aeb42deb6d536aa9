"""What does profiling cost? Own-thread CPU and slowdown at 100 Hz, pyprof beside its peers in one run.

Two workloads: the talk's program (one thread in plain loops) and the Flask shop (four threads).

- Slowdown: each profiler has a process of its own, and the processes take turns: the same work with the
  profiler off, on and off again. A turn compares `on` with the mean of the two `off` around it, so that drift
  cancels; the turns of one round follow one another, so that every profiler meets the same machine, and the
  difference to pyprof is taken round by round. "nothing" is a profiler that does nothing: what it shows is
  the noise. Wall time and the CPU time of the application's own threads.
- Own CPU: CPU of all threads that are not the application's, in percent of a core, over whole upload
  intervals after the first upload; the empty timer loop of the same run is the floor.

Usage: python -m benchmarks.bench_overhead [--quick] [--rounds N] [--block S] [--only NAME …] [--json FILE]
"""

import argparse
import contextlib
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
    installed,
    machine,
    note,
    print_table,
    received,
    save,
    warn_if_busy,
    worker,
)
from .harness import sink as local_sink
from .profilers import PEERS, PROFILERS, environment

WORKER = "benchmarks.overhead_worker"
WORKLOADS = {"talk": "talk's program", "flask": "Flask application"}


def slowdown(turn: dict[str, Any], clock: str) -> float:
    """Percent by which the `on` block took longer than the `off` blocks around it."""
    off = (turn["before"][clock] + turn["after"][clock]) / 2
    return 100 * (turn["on"][clock] / off - 1)


Turns = dict[str, list[dict[str, Any]]]


def alternate(arguments: argparse.Namespace, workload: str, names: list[str], url: str) -> Turns:
    """One turn a round of each profiler, in an order that changes from round to round."""
    turns: Turns = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        ask: dict[str, Ask] = {}
        for name in names:
            request = {
                "mode": "turns",
                "workload": workload,
                "profiler": name,
                "seconds": arguments.block,
                "url": url,
            }
            ask[name] = stack.enter_context(conversation(WORKER, request, **environment(name, url)))
            ask[name]("")  # calibrated
            ask[name]("")  # a turn that does not count: what is imported late is there now
        for number in range(arguments.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                turns[name].append(ask[name](""))
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


def report_slowdown(turns: Turns) -> dict[str, Any]:
    rows, summary = [], {}
    for name, own in turns.items():
        wall = [slowdown(turn, "wall") for turn in own]
        estimates = {
            "wall": Estimate.of(wall),
            "app_cpu": Estimate.of([slowdown(turn, "app_cpu") for turn in own]),
        }
        if "pyprof" in turns and name != "pyprof":
            pyprof = [slowdown(turn, "wall") for turn in turns["pyprof"]]
            estimates["wall_above_pyprof"] = Estimate.of(
                [mine - its for mine, its in zip(wall, pyprof, strict=True)]
            )
        low, high = estimates["wall"].quartiles
        above = estimates.get("wall_above_pyprof")
        rows.append(
            [
                PROFILERS[name].title,
                estimates["wall"].text(),
                f"{low:+.2f} … {high:+.2f}",
                "" if above is None else above.text(),
                estimates["app_cpu"].text(),
            ]
        )
        summary[name] = {what: estimate.as_dict() for what, estimate in estimates.items()}
    print("\nSlowdown: medians [95 % interval], quartiles\n")
    print_table(["profiler", "wall", "quartiles", "above pyprof's, round by round", "app CPU"], rows)
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
    parser.add_argument("--block", type=float, default=0.5, help="seconds of a block")
    parser.add_argument("--only", nargs="+", default=["pyprof", *PEERS], help="profilers by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.steady, arguments.warm_up = 20.0, 15.0
    if arguments.quick:
        arguments.rounds, arguments.block = 4, 0.3
        arguments.steady, arguments.warm_up = 3.0, 1.0
    names = [name for name in arguments.only if installed(PROFILERS[name].module)]
    for name in arguments.only:
        if name not in names:
            note(f"left out: {name} ({PROFILERS[name].module} is not installed)")
    if not names:
        return 1
    warn_if_busy()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, local_sink() as url:
        library = compiled_empty_loop(Path(directory))
        data = measure(arguments, names, url, str(library))
    details = machine()
    print(
        f"{details['cpu']}, {details['cpus']} CPUs, Linux {details['kernel']},"
        f" Python {sys.version.split()[0]}"
    )
    summary = report(data, names)
    path = save("overhead", {"summary": summary, "raw": data, "quick": arguments.quick}, arguments.json)
    note(f"{path} ({time.monotonic() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
