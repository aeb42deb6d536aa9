"""The same loop of microseconds in five functions, called equally often: directly, through others, from a
generator in a generator, from a generator expression and from a coroutine in a coroutine.

Truth is their number: no clock is read in between. They take some 8 microseconds, whatever the machine and
the interpreter; on free-threaded builds, where new generators have new addresses and what they call loses
some 5 of each call with several CPUs, some 200.
"""

import sys
from collections.abc import Iterator
from time import monotonic, thread_time
from timeit import repeat

from recording import Truth, record

CALL = 8e-6 if getattr(sys, "_is_gil_enabled", lambda: True)() else 200e-6
STEPS = round(CALL * 10_000 / min(repeat("x = (x * 31 + 5) & 255", "x = 7", repeat=9, number=10_000)))
SECONDS = 6


def directly() -> None:
    x = 7
    for _ in range(STEPS):
        x = (x * 31 + 5) & 255


def deeper() -> None:
    x = 7
    for _ in range(STEPS):
        x = (x * 31 + 5) & 255


def generated() -> None:
    x = 7
    for _ in range(STEPS):
        x = (x * 31 + 5) & 255


def expressed() -> None:
    x = 7
    for _ in range(STEPS):
        x = (x * 31 + 5) & 255


def awaited() -> None:
    x = 7
    for _ in range(STEPS):
        x = (x * 31 + 5) & 255


def calls() -> None:
    calls_on()


def calls_on() -> None:
    deeper()


def delegates() -> Iterator[None]:
    yield from generates()


def generates() -> Iterator[None]:
    generated()
    yield


async def awaits() -> None:
    await awaits_on()


async def awaits_on() -> None:
    awaited()


def run(truth: Truth) -> None:
    end = monotonic() + SECONDS
    begin = thread_time()
    while monotonic() < end:
        for _ in range(100):
            directly()
            calls()
            for _ in delegates():
                pass
            for _ in (expressed() for _ in range(1)):
                pass
            try:
                awaits().send(None)
            except StopIteration:
                pass
    for function in (directly, deeper, generated, expressed, awaited):
        truth.add_cum(f"__main__.{function.__name__}", (thread_time() - begin) / 5)


record(run)
