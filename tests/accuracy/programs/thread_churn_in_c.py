"""Threads that live for about a tick: one runs Python code, the next one C code that releases the GIL."""

import hashlib
import threading
from time import thread_time

from recording import Truth, record

DATA = b"x" * (1 << 20)


def in_python(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.0035:
        pass
    truth.add_cum("__main__.in_python", thread_time() - begin)
    truth.end_thread()


def in_c(truth: Truth) -> None:
    begin = thread_time()
    for _ in range(6):
        hashlib.sha256(DATA).digest()
    truth.add_cum("__main__.in_c", thread_time() - begin)
    truth.end_thread()


def run(truth: Truth) -> None:
    for _ in range(400):
        for work in (in_python, in_c):
            thread = threading.Thread(target=work, args=(truth,))
            thread.start()
            thread.join()


record(run)
