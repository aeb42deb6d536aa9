"""What does a look at all asyncio tasks cost? `Profiler.threads()` with many tasks that sleep.

CPU of the thread that asks, and the longest time that another thread, which does nothing but look at the
clock and let go of the GIL, did not come to it meanwhile; beside the longest next to plain bytecode, which is
the interpreter's switch interval.

Usage: python -m benchmarks.bench_tasks [--quick] [--tasks N] [--rounds N] [--json FILE]
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyprof

from .harness import print_machine, print_table, save, warn_if_busy


def longest_gap(during: Callable[[], object]) -> float:
    """Milliseconds."""
    gaps = []
    done = threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    during()
    done.set()
    watcher.join()
    return 1000 * max(gaps)


def cpu_of(look: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = time.thread_time()
    look()
    return 1000 * (time.thread_time() - begin)


def bytecode() -> None:
    for _ in range(2_000_000):
        pass


async def measure(profiler: pyprof.Profiler, tasks: int, rounds: int) -> dict[str, list[float]]:
    async def sleeper() -> None:
        await asyncio.sleep(3600)

    async def outer() -> None:
        await sleeper()

    every = [asyncio.create_task(outer()) for _ in range(tasks)]
    await asyncio.sleep(0.1)
    found: dict[str, list[float]] = {"cpu": [], "gap": [], "gap beside bytecode": []}
    for _ in range(rounds):
        found["cpu"].append(cpu_of(profiler.threads))
        found["gap"].append(longest_gap(profiler.threads))
        found["gap beside bytecode"].append(longest_gap(bytecode))
    for task in every:
        task.cancel()
    await asyncio.gather(*every, return_exceptions=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="The cost of a look at all tasks.")
    parser.add_argument("--quick", action="store_true", help="for a look, not for a claim")
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 3
    warn_if_busy()
    with tempfile.TemporaryDirectory() as directory:
        profiler = pyprof.start(output=directory, memory=False)
        found = asyncio.run(measure(profiler, arguments.tasks, arguments.rounds))
        pyprof.stop()
    print_machine()
    rows = [[name, f"{statistics.median(ms):.1f}", f"{max(ms):.1f}"] for name, ms in found.items()]
    print_table(["ms", "median", "largest"], rows)
    save("tasks", {"tasks": arguments.tasks, "raw": found}, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
