"""What grows while code comes and goes for a long time? As long as is asked for, an hour if nothing is:

    nice python -m tests.stress.churn [--minutes 60] [--share 0.5] [--memory-period 64] [--bare]

Functions, classes, modules, generators, coroutines and threads are made of new code, run for a moment and
are forgotten, at 1 kHz and with uploads to a server on the loopback, all the time; with `--memory-period
64` nearly every allocation is a sample of the memory profile. A line a minute says what there is: resident
memory, `pyprof.stats().own_bytes`, file names that the exporter remembers, descriptors, threads. The last
one says by how much each has grown from the second third of the run to the last, for by then every table
has had to make room, and the slopes over its second half; exit code 1 if something grows.
`--bare` is the same without pyprof, whose growth is the interpreter's own.

`test_code_churn.py` runs it for some seconds. Seen to fail there, each with one line changed:
- what the code cache forgets is not freed: `own_bytes` grows;
- `SourceFiles` without its limit: the file names grow;
- each window leaves an array behind: resident memory alone grows.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import pyprof
import pyprof.profiler
from pyprof.collectors import source_files

SERVER = """
import sys, time
from tests.stress.sinks import running
with running() as sink:
    print(sink.url, flush=True)
    while sink.wait_for(lambda sink: sink.bodies, timeout=86400):
        sink.bodies.clear()
"""
SOURCE = """
import time
def spin(seconds, clock=time.perf_counter):
    end = clock() + seconds
    while clock() < end: pass
def function_{n}():
    spin(0.0003)
    return [spin(0.0001) for _ in range(2)]
class Class_{n}:
    def method(self):
        spin(0.0003)
        self.itself = self
    @property
    def value(self):
        return (lambda: spin(0.0002))()
def generator_{n}(depth):
    if depth:
        yield from generator_{n}(depth - 1)
    for _ in range(3):
        spin(0.0001)
        yield
async def coroutine_{n}(sleep):
    spin(0.0002)
    await sleep(0)
    spin(0.0002)
"""


# Interned names, as those of functions are, live as long as some versions of CPython: they come again, but
# are more than the file names that the exporter remembers.
NAMES = 25_000


def new_module(n: int) -> types.ModuleType:
    """New code under a new file name, for a moment in `sys.modules`."""
    module = types.ModuleType(f"churn_{n}")
    module.__file__ = f"/churn/{n}/module.py"
    exec(compile(SOURCE.format(n=n), module.__file__, "exec"), module.__dict__)
    return module


def run_all_of(module: types.ModuleType, n: int) -> None:
    names = vars(module)
    sys.modules[module.__name__] = module
    names[f"function_{n}"]()
    one = names[f"Class_{n}"]()
    one.method()
    one.value  # noqa: B018
    for _ in names[f"generator_{n}"](5):
        pass
    next(names[f"generator_{n}"](3))  # left where it is
    del sys.modules[module.__name__]


def in_threads(module: types.ModuleType, n: int) -> None:
    def deep(depth: int) -> None:
        return deep(depth - 1) if depth else vars(module)[f"function_{n}"]()

    threads = [threading.Thread(target=deep, args=(10 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def tasks(module: types.ModuleType, n: int) -> None:
    coroutine: Callable[..., object] = vars(module)[f"coroutine_{n}"]
    await asyncio.gather(*(coroutine(asyncio.sleep) for _ in range(3)))  # type: ignore[call-overload]


def churn(n: int) -> None:
    n %= NAMES
    module = new_module(n)
    run_all_of(module, n)
    if n % 10 == 0:
        in_threads(module, n)
    if n % 50 == 0:
        asyncio.run(tasks(module, n))


# By how much the most in the last third of a run may exceed the most in the third before. Not a slope: tables
# make room from time to time, and free-threaded builds leave code to the garbage collector.
LIMITS = {"resident": 4 << 20, "own_bytes": 700_000, "descriptors": 2, "threads": 2}
NEW_FILE_NAMES = 3000  # in one window, at most: more than the exporter remembers otherwise


@dataclass(frozen=True)
class State:
    seconds: float
    rounds: int
    resident: int
    own_bytes: int
    file_names: int
    descriptors: int
    threads: int
    ticks: int
    stacks: int
    uploads: int


def state(seconds: float, rounds: int) -> State:
    gc.collect()
    pyprof.flush(60)  # so that no window waits
    stats = pyprof.stats()
    profiler = pyprof.profiler._current
    statm = Path("/proc/self/statm").read_text().split()
    return State(
        round(seconds, 1),
        rounds,
        int(statm[1]) * os.sysconf("SC_PAGE_SIZE"),
        stats.own_bytes,
        len(profiler._stacks._files._known) if profiler is not None else 0,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        stats.ticks,
        stats.stacks,
        stats.uploads,
    )


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def growth(states: list[State]) -> dict[str, float]:
    third = states[-1].seconds / 3

    def most(name: str, begin: float, end: float) -> float:
        return max(getattr(one, name) for one in states if begin <= one.seconds <= end)

    return {name: most(name, 2 * third, 3 * third) - most(name, third, 2 * third) for name in LIMITS}


def slope_an_hour(states: list[State], name: str) -> float:
    """Of the second half."""
    half = [one for one in states if one.seconds >= states[-1].seconds / 2]
    return 3600 * slope([(one.seconds, getattr(one, name)) for one in half])


@contextmanager
def server() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def observe(seconds: float, least_rounds: int, interval: float, share: float) -> Iterator[State]:
    """Churns, asleep for the rest of a core's `share`, and says what there is every `interval` seconds."""
    began = time.monotonic()
    observed = rounds = 0
    while (passed := time.monotonic() - began) < seconds or rounds < least_rounds:
        if passed >= observed * interval:
            observed += 1
            yield state(passed, rounds)
        before = time.thread_time()
        churn(rounds)
        rounds += 1
        time.sleep((time.thread_time() - before) * (1 / share - 1))
    yield state(time.monotonic() - began, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.churn")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--least-rounds", type=int, default=0, help="however long they take")
    parser.add_argument("--interval", type=float, default=60, help="seconds from one line to the next")
    parser.add_argument("--share", type=float, default=0.5, help="of one core")
    parser.add_argument("--file-names", type=int, help="that the exporter remembers; for a short run")
    parser.add_argument("--memory-period", type=int, default=524288, help="bytes between samples of memory")
    parser.add_argument("--bare", action="store_true", help="without pyprof")
    arguments = parser.parse_args()
    if arguments.file_names:
        source_files._MAX_KNOWN = arguments.file_names
    states = []
    with server() as url:
        if not arguments.bare:
            options = {"sample_rate": 1000, "max_overhead": 1, "memory_period": arguments.memory_period}
            pyprof.start(server_url=url, upload_interval=2, timeout=60, **options)
        print(*(field.name for field in fields(State)), flush=True)
        seconds = 60 * arguments.minutes
        for one in observe(seconds, arguments.least_rounds, arguments.interval, arguments.share):
            states.append(one)
            print(*astuple(one), flush=True)
        failures = pyprof.stats().upload_failures
        pyprof.stop()
    grown = growth(states)
    slopes = {name: slope_an_hour(states, name) for name in ("resident", "own_bytes")}
    last = asdict(states[-1]) | {"upload_failures": failures}
    print(json.dumps({"grown": grown, "slopes_an_hour": slopes, "last": last}))
    too_much = {name: amount for name, amount in grown.items() if amount > LIMITS[name]}
    file_names = max(one.file_names for one in states)
    if file_names > source_files._MAX_KNOWN + NEW_FILE_NAMES:
        too_much["file_names"] = file_names
    if too_much:
        print("grows:", too_much, file=sys.stderr)
    return bool(too_much)


if __name__ == "__main__":
    sys.exit(main())
