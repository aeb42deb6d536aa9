"""Many more threads than CPUs that all want one, and end at the same moment."""

import threading
from time import monotonic

from recording import Truth, record

THREADS, SECONDS = 100, 3.0


def burn(end: float, truth: Truth) -> None:
    while monotonic() < end:
        for _ in range(200):
            pass
    truth.end_thread()


def run(truth: Truth) -> None:
    end = monotonic() + SECONDS
    threads = [threading.Thread(target=burn, args=(end, truth)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


record(run)
