"""Functions that call no C code, in phases of tens of milliseconds: nothing keeps the GIL from a sampler."""

from collections.abc import Callable
from time import thread_time

from recording import Truth, record

SECONDS = 2.0


def adds(turns: int) -> int:
    total = 0
    for number in range(turns):
        total = (total + number) & 1023
    return total


def branches(turns: int) -> int:
    odd = 0
    for number in range(turns):
        if number & 1:
            odd += 1
    return odd


def nests(turns: int) -> None:
    for _ in range(turns // 100):
        for _ in range(100):
            pass


def indexes(turns: int) -> int:
    table = [3, 1, 4, 1, 5, 9, 2, 6]
    last = 0
    for number in range(turns):
        last = table[(last + number) & 7]
    return last


def one(turns: int, truth: Truth) -> None:
    measure(truth, adds, turns)
    measure(truth, nests, 2 * turns)


def two(turns: int, truth: Truth) -> None:
    measure(truth, branches, 2 * turns)
    measure(truth, indexes, turns)


def measure(truth: Truth, function: Callable[[int], object], turns: int) -> None:
    begin = thread_time()
    function(turns)
    truth.add_flat(f"__main__.{function.__name__}", thread_time() - begin)


def run(truth: Truth) -> None:
    end = thread_time() + SECONDS
    while thread_time() < end:
        one(1_000_000, truth)
        two(1_000_000, truth)


record(run)
