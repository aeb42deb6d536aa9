"""Work in slices of known CPU time: one part and two parts, by functions that can be told in a profile."""

from collections.abc import Callable
from time import thread_time

from recording import Truth

SLICE = 0.002


def burn_until(end: float) -> None:
    while thread_time() < end:
        for _ in range(50):
            pass


def one(truth: Truth, label: str, seconds: float = SLICE) -> None:
    begin = thread_time()
    burn_until(begin + seconds)
    truth.add_label(label, "one", thread_time() - begin)


def two(truth: Truth, label: str, seconds: float = 2 * SLICE) -> None:
    begin = thread_time()
    burn_until(begin + seconds)
    truth.add_label(label, "two", thread_time() - begin)


Slice = Callable[[Truth, str], None]
