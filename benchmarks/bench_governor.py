"""Does pyprof stay within `max_overhead`? 120 threads x 40 frames that all want the GIL.

Every thread's clock moves between two ticks, so that most stacks are read at every tick. From `start()` on,
for 30 seconds, `max_overhead=0.01`:

- own CPU: that of the process less that of the application's threads, whoever used it, in percent of a core;
  beside it what `stats()` says;
- CPU time in the profile, in percent of what the threads' own clocks say;
- how often the rate changed, and what it was in the end and on average.

Once more without the governor (`max_overhead=1`), to show what it has to do.

Usage: python -m benchmarks.bench_governor [--quick] [--rounds N] [--rate HZ] [--json FILE]
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from .harness import machine, note, print_table, save, warn_if_busy, worker

THREADS, FRAMES = 120, 40
LIMITS = (0.01, 1.0)


def measure(arguments: argparse.Namespace, max_overhead: float) -> list[dict[str, Any]]:
    request = {
        "threads": THREADS,
        "frames": FRAMES,
        "seconds": arguments.seconds,
        "options": {"sample_rate": arguments.rate, "max_overhead": max_overhead},
    }
    return [
        worker("benchmarks.governor_worker", request, timeout=120 + 10 * arguments.seconds)
        for _ in range(arguments.rounds)
    ]


def row(max_overhead: float, results: list[dict[str, Any]]) -> list[str]:
    def shown(key: str, form: str) -> str:
        values = [result[key] for result in results]
        low, middle, high = min(values), statistics.median(values), max(values)
        spread = f" [{form.format(low)}, {form.format(high)}]" if len(values) > 1 else ""
        return form.format(middle) + spread

    return [
        f"{max_overhead:g}",
        shown("own_percent", "{:.2f}"),
        shown("own_percent_by_stats", "{:.2f}"),
        shown("cpu_percent_of_truth", "{:.2f}"),
        shown("rate_changes", "{:g}"),
        shown("mean_rate", "{:.1f}"),
        shown("last_rate", "{:.1f}"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="The overhead governor under load.")
    parser.add_argument("--quick", action="store_true", help="a look, not a claim")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.seconds = 30.0
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 10.0
    warn_if_busy()
    results = {limit: measure(arguments, limit) for limit in LIMITS}
    details = machine()
    print(f"{details['cpu']}, {details['cpus']} CPUs, Python {sys.version.split()[0]}:")
    print(f"{THREADS} threads of {FRAMES} frames, {arguments.rate:g} Hz, {arguments.seconds:g} s,", end=" ")
    print(f"{arguments.rounds} rounds; medians [smallest, largest]\n")
    print_table(
        [
            "max_overhead", "own CPU, %", "by stats(), %", "CPU in the profile, %", "rate changes",
            "mean rate, Hz", "last rate, Hz",
        ],
        [row(limit, results[limit]) for limit in LIMITS],
    )  # fmt: skip
    named = {f"{limit:g}": result for limit, result in results.items()}
    note(str(save("governor", {"results": named, "quick": arguments.quick}, arguments.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
