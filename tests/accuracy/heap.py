"""Programs that record memory and answer what they saw, and what theory says of estimates from samples.

A block of S bytes is sampled with the probability p = 1 - exp(-S/R), R being the period, and then stands for
1/p blocks; one of R and 4,096 bytes or more always, for what it is. The estimate of one block has the
variance (1 - p) / p, in blocks, and S^2 times that in bytes; blocks are independent. Some 300 means are
compared with the truth, at 3 sigma: each run of all tests has one that is outside by chance, and is
`asked_again`. Where R is so small that p is 1, what is said is exact.
"""

import functools
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

SIGMAS = 3
SURE = 4096  # bytes from which blocks of a period and more are always sampled
MEASURES = "alloc_objects", "alloc_space", "inuse_objects", "inuse_space"

# `ALLOCATING`: the library of programs/allocating.c.
PRELUDE = """
import importlib.util
import pyprof

MEASURES = "alloc_objects", "alloc_space", "inuse_objects", "inuse_space"
COLUMNS = [(name, "", getattr(_native, name.upper())) for name in MEASURES]

if "ALLOCATING" in os.environ:
    spec = importlib.util.spec_from_file_location("allocating", os.environ["ALLOCATING"])
    allocating = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(allocating)
    allocate, reallocate, release = allocating.allocate, allocating.reallocate, allocating.release
    track, untrack, hook = allocating.track, allocating.untrack, allocating.hook

def record(period, max_frames=64):
    _native.start_memory(period=period, max_frames=max_frames, max_bytes=16 << 20, traced=False)

def report(peak=False):
    return _native.report_memory(max_bytes=16 << 20, peak=peak)

def stacks(window=None):
    "[(frames as (name, line), leaf first; values)]"
    message = (window or report()).encode(COLUMNS, period_type=("space", "bytes"), period=1)
    return [
        (tuple((line.function.name, line.line) for location in sample.locations for line in location.lines),
         sample.values)
        for sample in read(message).samples
    ]

def by(key, stacks):
    "Sums of the values, by what `key` says of the frame that allocates."
    sums = {}
    for frames, values in stacks:
        sum_ = sums.setdefault(key(*frames[0]), [0] * 4)
        sum_[:] = [a + b for a, b in zip(sum_, values)]
    return sums

def functions(window=None):
    return by(lambda name, line: name, stacks(window))

stacks(_native.Window())  # what is imported for it is so
"""


def asked_again(test: Callable[..., None]) -> Callable[..., None]:
    """A test whose estimates may be outside by chance, which they are not three times: a bias is."""

    @functools.wraps(test)
    def repeat(*args: Any, **kwargs: Any) -> None:
        for _ in range(2):
            with suppress(AssertionError):
                test(*args, **kwargs)
                return
        test(*args, **kwargs)

    return repeat


def spread(sizes: Iterable[int], period: float) -> tuple[float, float]:
    """Standard deviations of the estimated number of such blocks, and of their bytes."""
    odds = [
        (size, 0 if size >= max(period, SURE) else 1 / math.expm1(max(size, 1) / period)) for size in sizes
    ]
    return math.sqrt(sum(odd for _, odd in odds)), math.sqrt(sum(odd * size**2 for size, odd in odds))


def check(
    values: Iterable[float], allocated: list[int], used: list[int], period: float, runs: int = 1
) -> None:
    """Are these the four measures, on average of so many runs, of blocks of these sizes?

    Each run's are whole numbers; where chance is nil their rounding is not.
    """
    for i, (measure, value) in enumerate(zip(MEASURES, values, strict=True)):
        sizes = allocated if i < 2 else used
        true = sum(sizes) if i % 2 else len(sizes)
        sigma = spread(sizes, period)[i % 2] / math.sqrt(runs)
        assert abs(value - true) <= SIGMAS * sigma + 0.5, (measure, value, true, sigma)
