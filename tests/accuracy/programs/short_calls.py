"""The same loop of microseconds in five functions, called equally often: directly, through others, from a
generator in a generator, from a generator expression and from a coroutine in a coroutine.

Truth is their number: no clock is read in between. They take some 5 microseconds; on free-threaded builds,
where new generators have new addresses, some 50.
"""

import sys
from collections.abc import Iterator
from time import monotonic, thread_time

from recording import Truth, record

STEPS = 150 if getattr(sys, "_is_gil_enabled", lambda: True)() else 1500
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
