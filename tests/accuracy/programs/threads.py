"""Three threads that burn CPU as 1 : 2 : 3 through one shared function, beside twenty that wait."""

import threading
from time import monotonic, thread_time

from recording import Truth, record

UNIT = 0.6


def spin(seconds: float) -> None:
    end = thread_time() + seconds
    while thread_time() < end:
        for _ in range(200):
            pass


def one(truth: Truth) -> None:
    spin(UNIT)
    truth.add_cum("__main__.one", thread_time())
    truth.end_thread()


def two(truth: Truth) -> None:
    spin(2 * UNIT)
    truth.add_cum("__main__.two", thread_time())
    truth.end_thread()


def three(truth: Truth) -> None:
    spin(3 * UNIT)
    truth.add_cum("__main__.three", thread_time())
    truth.end_thread()


def idle(ready: threading.Barrier, over: threading.Event, truth: Truth) -> None:
    ready.wait()
    over.wait()
    truth.end_thread()


def lonely(ready: threading.Barrier, over: threading.Event, truth: Truth) -> None:
    """One of the idle ones under a name of its own, so that its wall time can be told from the others'."""
    begin = monotonic()
    ready.wait()
    over.wait()
    truth.notes["lonely_wall"] = monotonic() - begin
    truth.end_thread()


def run(truth: Truth) -> None:
    over = threading.Event()
    ready = threading.Barrier(21)
    sleepers = [threading.Thread(target=idle, args=(ready, over, truth)) for _ in range(19)]
    sleepers.append(threading.Thread(target=lonely, args=(ready, over, truth)))
    begin = monotonic()
    for thread in sleepers:
        thread.start()
    ready.wait()
    workers = [threading.Thread(target=target, args=(truth,)) for target in (one, two, three)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    for thread in sleepers:
        thread.join()
    truth.notes["idle_wall"] = monotonic() - begin
    truth.cum["__main__.idle"] = 0.0


record(run)
