"""Threads that live for one tick or for three: one after the other, 900 in all."""

import threading
from time import thread_time

from recording import Truth, record


def burn(end: float) -> None:
    while thread_time() < end:
        for _ in range(20):
            pass


def brief(truth: Truth) -> None:
    begin = thread_time()
    burn(begin + 0.002)
    truth.add_cum("__main__.brief", thread_time() - begin)
    truth.end_thread()


def longer(truth: Truth) -> None:
    begin = thread_time()
    burn(begin + 0.006)
    truth.add_cum("__main__.longer", thread_time() - begin)
    truth.end_thread()


def run(truth: Truth) -> None:
    for _ in range(300):
        for work in (brief, longer, brief):
            thread = threading.Thread(target=work, args=(truth,))
            thread.start()
            thread.join()


record(run)
