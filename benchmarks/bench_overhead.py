"""What does profiling cost? Own-thread CPU and slowdown at 100 Hz, pyprof beside its peers in one run.

Two workloads: the talk's program (one thread in plain loops) and the Flask shop (four threads).

- Slowdown: in one process blocks of the same work alternate, profiler off and on; a pair compares an `on`
  block with the mean of the two `off` blocks around it, so that drift cancels. The processes of the profilers
  take turns. Wall time and the CPU time of the application's own threads.
- Own CPU: CPU of all threads that are not the application's, in percent of a core, over whole upload
  intervals after the first upload; the empty timer loop of the same run is the floor.

Usage: python -m benchmarks.bench_overhead [--quick] [--pairs N] [--block S] [--only NAME …] [--json FILE]
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from .harness import (
    Estimate,
    compiled_empty_loop,
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


def slowdowns(result: dict[str, Any], clock: str) -> list[float]:
    """Percent by which each `on` block took longer than the `off` blocks around it."""
    off = [block[clock] for block in result["off"]]
    return [
        100 * (block[clock] / ((before + after) / 2) - 1)
        for block, before, after in zip(result["on"], off[:-1], off[1:], strict=True)
    ]


def measure(arguments: argparse.Namespace, names: list[str], url: str, library: str) -> dict[str, Any]:
    """Everything, by workload and profiler."""
    pairs = arguments.pairs
    rounds = min(arguments.rounds, pairs)
    slow: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: {"wall": [], "app_cpu": []})
    )
    own: dict[str, dict[str, Any]] = defaultdict(dict)
    for workload in WORKLOADS:
        for number in range(rounds):
            share = pairs // rounds + (number < pairs % rounds)
            # Another order each round: nobody always runs after the same one.
            for name in names[number % len(names) :] + names[: number % len(names)]:
                note(f"{workload}: {name}, {share} pairs")
                result = worker(
                    WORKER,
                    {
                        "mode": "alternate",
                        "workload": workload,
                        "profiler": name,
                        "pairs": share,
                        "seconds": arguments.block,
                        "url": url,
                    },
                    timeout=120 + share * arguments.block * 10,
                    **environment(name, url),
                )
                for clock in ("wall", "app_cpu"):
                    slow[workload][name][clock] += slowdowns(result, clock)
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
            own[workload][name]["uploads"] = sum(after["requests"].values()) - sum(
                before["requests"].values()
            )
            own[workload][name]["uploaded_bytes"] = sum(after["bytes"].values()) - sum(
                before["bytes"].values()
            )
    return {"slowdown": slow, "own": own}


def report(data: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Print the tables; return them as plain data."""
    summary: dict[str, Any] = {}
    for workload, title in WORKLOADS.items():
        own = {
            name: 100 * result["own_cpu"] / result["wall"] for name, result in data["own"][workload].items()
        }
        floor = own["empty"]
        rows = []
        summary[workload] = {"empty_loop_percent": floor, "profilers": {}}
        for name in names:
            wall = Estimate.of(data["slowdown"][workload][name]["wall"])
            cpu = Estimate.of(data["slowdown"][workload][name]["app_cpu"])
            uploads = data["own"][workload][name]["uploads"]
            ratio = own[name] / own["pyprof"] if own.get("pyprof") else float("nan")
            rows.append(
                [
                    PROFILERS[name].title,
                    f"{own[name]:.2f} %",
                    f"{own[name] - floor:+.2f} %",
                    f"{ratio:.1f} x",
                    wall.text(),
                    f"{wall.quartiles[0]:+.2f} … {wall.quartiles[1]:+.2f}",
                    cpu.text(),
                    f"{uploads}",
                ]
            )
            summary[workload]["profilers"][name] = {
                "own_percent": own[name],
                "own_percent_above_empty_loop": own[name] - floor,
                "ratio_to_pyprof": ratio,
                "slowdown_wall_percent": wall.as_dict(),
                "slowdown_app_cpu_percent": cpu.as_dict(),
                "uploads": uploads,
                "uploaded_bytes": data["own"][workload][name]["uploaded_bytes"],
            }
        pairs = len(data["slowdown"][workload][names[0]]["wall"])
        print(f"\n{title}, 100 Hz, {pairs} on/off pairs; empty loop {floor:.2f} % of a core\n")
        print_table(
            [
                *("profiler", "own CPU", "above empty", "ratio", "slowdown, wall [95 %]"),
                *("quartiles", "slowdown, app CPU [95 %]", "uploads"),
            ],
            rows,
        )
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description="Own CPU and slowdown, side by side.")
    parser.add_argument("--quick", action="store_true", help="a minute or two; for a look, not for a claim")
    parser.add_argument("--pairs", type=int, default=12, help="on/off pairs a workload and profiler")
    parser.add_argument("--rounds", type=int, default=3, help="processes that share them")
    parser.add_argument("--block", type=float, default=1.5, help="seconds of a block")
    parser.add_argument("--only", nargs="+", default=["pyprof", *PEERS], help="profilers by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.steady, arguments.warm_up = 20.0, 15.0
    if arguments.quick:
        arguments.pairs, arguments.rounds, arguments.block = 3, 1, 0.7
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
