"""One thread that computes in Python and has the GIL for itself, beside some that wait for other things."""

from time import monotonic

from recording import Truth, record
from waiting import start_waiting

SECONDS = 3.0


def compute() -> None:
    end = monotonic() + SECONDS
    while monotonic() < end:
        for _ in range(200):
            pass


def run(truth: Truth) -> None:
    start_waiting()
    compute()


record(run)
