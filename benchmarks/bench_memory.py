"""What does profiling memory cost? pyprof beside its peers in one run, memory alone.

- Slowdown of the Flask application and of a program that hardly does anything but allocate: as in
  bench_overhead, alternating on and off on one CPU against a meter.
- The hook itself: a pair of allocation and free that is not sampled, by a loop with and without it; and a
  sampled one under 16 frames, by the same loop at a period at which every block is sampled.

Usage: python -m benchmarks.bench_memory [--quick] [--rounds N] [--pairs N] [--only NAME …] [--json FILE]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from .bench_overhead import alternate, report_slowdown
from .harness import Estimate, note, print_machine, save, those_installed, warn_if_busy
from .harness import sink as local_sink
from .profilers import MEMORY_PROFILERS

WORKLOADS = {"flask": "Flask application", "allocations": "program that allocates"}
OURS = "pyprof-memory"
DEPTH = 16
BATCH = 20_000


def timed(depth: int) -> float:
    """Nanoseconds of one pair of allocation and free, and of the loop around it, at that depth."""
    if depth > 1:
        return timed(depth - 1)
    make = object
    begin = time.perf_counter_ns()
    for _ in [None] * BATCH:
        make()
    return (time.perf_counter_ns() - begin) / BATCH


def hook_costs(rounds: int) -> dict[str, Any]:
    """Differences between neighbouring batches with the hook and without."""
    from pyprof import _native

    def differences(period: float) -> tuple[list[float], float]:
        found, samples = [], 0
        for _ in range(rounds):
            off = timed(DEPTH)
            _native.start_memory(period=period, max_frames=256, max_bytes=1 << 24, traced=False)
            before = _native.memory_stats()["samples"]
            timed(DEPTH)  # what is new at the first sample
            samples = _native.memory_stats()["samples"] - before
            on = timed(DEPTH)
            _native.stop_memory()
            found.append(on - off)
        return found, samples / BATCH

    unsampled, _ = differences(float(1 << 40))
    sampled, share = differences(1.0)
    note(f"at a period of one byte {share:.3f} samples a block")
    return {"pair": unsampled, "sample": [one / share for one in sampled]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost of memory profiles, side by side.")
    parser.add_argument("--quick", action="store_true", help="a minute or two; for a look, not for a claim")
    parser.add_argument("--rounds", type=int, default=30, help="on/off alternations a workload and profiler")
    parser.add_argument("--pairs", type=int, default=25, help="pieces of work of a block")
    names = [name for name in MEMORY_PROFILERS if name != "nothing"]
    parser.add_argument("--only", nargs="+", default=names, help="profilers by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.pairs = 4, 10
    names = those_installed(arguments.only)
    if not names:
        return 1
    warn_if_busy()
    begin = time.monotonic()
    print_machine()
    summary: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    with local_sink() as url:
        for workload, title in WORKLOADS.items():
            note(f"{workload}: {arguments.rounds} rounds of {', '.join(names)}")
            raw[workload] = alternate(arguments, workload, ["nothing", *names], url)
            print(f"\n{title}, {arguments.rounds} rounds")
            summary[workload] = report_slowdown(raw[workload], OURS)
    raw["hook"] = hook_costs(20 if arguments.quick else 200)
    print("\nThe hook, nanoseconds: medians [95 % interval]\n")
    for what, values in raw["hook"].items():
        estimate = Estimate.of(values)
        summary[what] = estimate.as_dict()
        print(f"  {what:8} {statistics.median(values):.1f} [{estimate.low:.1f}, {estimate.high:.1f}]")
    path = save("memory", {"summary": summary, "raw": raw, "quick": arguments.quick}, arguments.json)
    note(f"{path} ({time.monotonic() - begin:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
