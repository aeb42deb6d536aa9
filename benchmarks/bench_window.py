"""What does the export of a full window cost the application? 10,000 distinct stacks of 30 frames.

- Stall: how long another Python thread that only counts stands still while the window is encoded: the longest
  gap between two of its turns, less what it sees while nothing happens. That is what holding the GIL does.
- CPU of the exporting thread for encoding and for gzip.

Usage: python -m benchmarks.bench_window [--quick] [--json FILE]
"""

import argparse
import gzip
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .harness import machine, note, print_table, save, warn_if_busy

STACKS = 10_000
DEPTH = 30
FUNCTIONS = 2_000


class Watcher(threading.Thread):
    """Counts turns of a Python loop and keeps the longest gap between two of them, seconds."""

    def __init__(self) -> None:
        super().__init__(name="watcher")
        self.longest = 0.0
        self.ended = False

    def reset(self) -> None:
        self.longest = 0.0

    def run(self) -> None:
        before = time.perf_counter()
        while not self.ended:
            now = time.perf_counter()
            if now - before > self.longest:
                self.longest = now - before
            before = now


def full_window() -> object:
    """A window with the stacks, as a busy application of many functions would leave it."""
    from pyprof import _native

    window = _native.Window(max_bytes=256 << 20)
    names = [
        (f"Class{number % 97}.method_{number}", f"/srv/app/package_{number % 61}/module_{number % 211}.py")
        for number in range(FUNCTIONS)
    ]
    for number in range(STACKS):
        stack = []
        for level in range(DEPTH):
            # Roots are shared, leaves differ, as in a real tree of calls.
            function = (number // (1 + 7 * level) + 131 * level) % FUNCTIONS
            name, file = names[function]
            stack.append((name, file, 1 + function % 400, 3 + function % 400 + number % 5))
        stack[0] = (*stack[0][:3], number)
        window.add(stack, samples=1 + number % 3, cpu_samples=1, cpu_ns=10_000_000, wall_ns=10_000_000)
    if window.stacks < STACKS:
        raise RuntimeError(f"{window.stacks} stacks")
    return window


def encode(window: object) -> bytes:
    from pyprof import _native

    assert isinstance(window, _native.Window)
    return window.encode(
        [("samples", "count", _native.SAMPLES), ("cpu", "nanoseconds", _native.CPU_NS)],
        period_type=("cpu", "nanoseconds"),
        period=10_000_000,
        files=[(file, Path(file).stem) for file in window.files],
        labels={"pid": 1},
    )


def idle_gap(watcher: Watcher, seconds: float) -> float:
    """The watcher's longest gap while this thread sleeps: the machine's own doing."""
    watcher.reset()
    time.sleep(seconds)
    return watcher.longest


def main() -> int:
    parser = argparse.ArgumentParser(description="The cost of exporting 10,000 stacks.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warn_if_busy()
    rounds = 5 if arguments.quick else 25
    window = full_window()
    data = encode(window)
    results: dict[str, list[float]] = {"stall": [], "idle": [], "encode_cpu": [], "gzip_cpu": []}
    watcher = Watcher()
    watcher.start()
    try:
        for _ in range(rounds):
            results["idle"].append(idle_gap(watcher, 0.05))
            watcher.reset()
            begin = time.thread_time()
            encode(window)
            results["encode_cpu"].append(time.thread_time() - begin)
            results["stall"].append(watcher.longest)
            begin = time.thread_time()
            packed = gzip.compress(data, 6)
            results["gzip_cpu"].append(time.thread_time() - begin)
    finally:
        watcher.ended = True
        watcher.join()
    print(f"{machine()['cpu']}, Python {sys.version.split()[0]}: {STACKS} stacks of {DEPTH} frames,")
    print(f"{len(data) / 1e3:.0f} KB of pprof, {len(packed) / 1e3:.0f} KB gzipped\n")
    pick: dict[str, Callable[[list[float]], float]] = {"smallest": min, "median": statistics.median}
    titles = {
        "idle": "longest gap of another thread, nothing going on",
        "stall": "longest gap of another thread, while encoding",
        "encode_cpu": "encode, CPU",
        "gzip_cpu": "gzip level 6, CPU",
    }
    print_table(
        ["", *(f"{name}, ms" for name in pick)],
        [
            [titles[key], *(f"{1e3 * function(results[key]):.3f}" for function in pick.values())]
            for key in titles
        ],
    )
    note(
        str(save("window", {"results": results, "bytes": len(data), "gzipped": len(packed)}, arguments.json))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
