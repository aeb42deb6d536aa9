"""Two threads, each in turn in C code without the GIL and in Python code, for a few milliseconds or less.

Their clocks are read at the borders. Where two threads share a CPU, the kernel takes it from one at such a
system call, mostly. So that is where the one stands that has none.
"""

import hashlib
import os
import threading
import zlib
from collections.abc import Callable
from time import monotonic, thread_time

from recording import Truth, record

DATA = os.urandom(200_000)
SECONDS = 5


def compresses() -> None:
    zlib.compress(DATA, 6)


def hashes() -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 6000)


def loops() -> None:
    for _ in range(40_000):
        pass


def counts() -> None:
    for _ in range(40_000):
        pass


def work(truth: Truth, in_c: Callable[[], None], in_python: Callable[[], None]) -> None:
    in_c_seconds = in_python_seconds = 0.0
    end = monotonic() + SECONDS
    begin = thread_time()
    while monotonic() < end:
        in_c()
        between = thread_time()
        in_python()
        after = thread_time()
        in_c_seconds += between - begin
        in_python_seconds += after - between
        begin = after
    truth.add_flat(f"__main__.{in_c.__name__}", in_c_seconds)
    truth.add_flat(f"__main__.{in_python.__name__}", in_python_seconds)
    truth.end_thread()


def run(truth: Truth) -> None:
    threads = [
        threading.Thread(target=work, args=(truth, *functions))
        for functions in ((compresses, loops), (hashes, counts))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


record(run)
