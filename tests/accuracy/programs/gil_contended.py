"""Two threads that compute in Python, and so take turns, beside some that wait for other things."""

import threading
from collections.abc import Callable
from time import monotonic

from recording import Truth, record
from waiting import start_waiting

SECONDS = 6.0
begin = threading.Event()


def spin() -> None:
    end = monotonic() + SECONDS
    while monotonic() < end:
        for _ in range(200):
            pass


def one() -> None:
    spin()


def two() -> None:
    spin()


def wait_for(target: Callable[[], None]) -> None:
    begin.wait()
    target()


def run(truth: Truth) -> None:
    threads = [threading.Thread(target=wait_for, args=(target,)) for target in (one, two)]
    for thread in threads:
        thread.start()
    start_waiting()  # after them: CPython has the newest thread first, and so have those who look
    begin.set()
    for thread in threads:
        thread.join()


record(run)
