"""A thread in zlib, which releases the GIL during a call, beside some that wait for other things."""

import threading
import zlib
from time import monotonic

from recording import Truth, record
from waiting import start_waiting

SECONDS = 3.0
DATA = bytes(range(256)) * 20_000


def squeeze() -> None:
    end = monotonic() + SECONDS
    while monotonic() < end:
        zlib.compress(DATA, 9)


def run(truth: Truth) -> None:
    start_waiting()
    thread = threading.Thread(target=squeeze)
    thread.start()
    thread.join()


record(run)
