"""One thread alone, then a crowd with deep stacks that all want the CPU at once, then one alone again.

What a tick costs differs by some twenty times between them.
"""

import threading
import time
from time import thread_time

from recording import Truth, record

import pyprof

THREADS, FRAMES = 16, 240
ALONE, TOGETHER = 1.5, 8.0  # seconds of CPU, of all threads
PATIENCE = 60.0


def spin(seconds: float) -> None:
    end = thread_time() + seconds
    while thread_time() < end:
        for _ in range(200):
            pass


def alone(truth: Truth) -> None:
    begin = thread_time()
    spin(ALONE)
    truth.add_cum("__main__.alone", thread_time() - begin)


def descend(depth: int) -> None:
    if depth > 1:
        descend(depth - 1)
    else:
        spin(TOGETHER / THREADS)


def one_of_many(gates: "Gates", truth: Truth) -> None:
    gates.begin.wait()
    begin = thread_time()
    descend(FRAMES - 2)
    truth.add_cum("__main__.descend", thread_time() - begin)
    gates.done.release()
    gates.end.wait()
    truth.end_thread()


class Gates:
    """Threads begin together, and none ends while others work: what it used last would be an estimate."""

    def __init__(self) -> None:
        self.begin, self.end = threading.Event(), threading.Event()
        self.done = threading.Semaphore(0)


def together(gates: Gates, truth: Truth) -> None:
    begin, ticks = time.monotonic(), pyprof.stats().ticks
    gates.begin.set()
    for _ in range(THREADS):
        gates.done.acquire()
    truth.notes["crowd_rate"] = (pyprof.stats().ticks - ticks) / (time.monotonic() - begin)


def recover(truth: Truth) -> None:
    """The load is gone: until the rate is about what it was with one thread."""
    deadline = time.monotonic() + PATIENCE
    while pyprof.stats().sample_rate < 0.5 * truth.notes["first_rate"] and time.monotonic() < deadline:
        time.sleep(0.1)
    truth.notes["recovered_rate"] = pyprof.stats().sample_rate


def run(truth: Truth) -> None:
    gates = Gates()
    threads = [threading.Thread(target=one_of_many, args=(gates, truth)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    begin = time.monotonic()
    alone(truth)
    truth.notes["first_rate"] = pyprof.stats().sample_rate
    together(gates, truth)
    alone(truth)
    stats = pyprof.stats()
    truth.notes["own_share"] = stats.own_cpu_ns / 1e9 / (time.monotonic() - begin)
    truth.notes["rate_changes"] = stats.rate_changes
    recover(truth)
    gates.end.set()
    for thread in threads:
        thread.join()


record(run)
