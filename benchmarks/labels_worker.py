"""One process of bench_labels."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from .profilers import PROFILERS, Profiler, obey

RUNS = 7
BLOCKS = 20_000
TASKS = 100
ROUNDS_OF_TASKS = 40
SWITCHES = 20_000


def best(run: Callable[[], None], count: int) -> float:
    """Nanoseconds of one of `count`, in the fastest run."""
    taken = []
    for _ in range(RUNS):
        begin = time.perf_counter_ns()
        run()
        taken.append(time.perf_counter_ns() - begin)
    return min(taken) / count


def labels(profiler: Profiler) -> float:
    def empty() -> None:
        for _ in range(BLOCKS):
            pass

    return best(lambda: profiler.run_blocks(BLOCKS), BLOCKS) - best(empty, BLOCKS)


def tasks() -> float:
    async def nothing() -> None:
        pass

    async def make() -> None:
        for _ in range(ROUNDS_OF_TASKS):
            await asyncio.gather(*(asyncio.create_task(nothing()) for _ in range(TASKS)))

    return best(lambda: asyncio.run(make()), TASKS * ROUNDS_OF_TASKS)


def switches() -> float:
    with contextlib.suppress(ImportError):
        import gevent

        def turns() -> None:
            for _ in range(SWITCHES):
                gevent.sleep(0)

        return best(lambda: gevent.joinall([gevent.spawn(turns), gevent.spawn(turns)]), 4 * SWITCHES)
    return float("nan")


def main() -> None:
    request = json.loads(sys.argv[1])
    profiler = PROFILERS[request["profiler"]]()
    work = {"labels": lambda: labels(profiler), "tasks": tasks, "switches": switches}

    def do(command: str) -> dict[str, Any]:
        return {"ns": work[command]()}

    obey(profiler, request["url"], do)


if __name__ == "__main__":
    main()
