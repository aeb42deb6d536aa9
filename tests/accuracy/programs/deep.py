"""A recursion far deeper than `max_frames`, burning at its bottom, beside a shallow function."""

import sys
from time import thread_time

from recording import Truth, record

DEPTH = 3000


def descend(depth: int, truth: Truth) -> None:
    if depth:
        descend(depth - 1, truth)
    else:
        bottom(truth)


def bottom(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.8:
        for _ in range(200):
            pass
    truth.add_flat("__main__.bottom", thread_time() - begin)


def shallow(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.4:
        for _ in range(200):
            pass
    truth.add_flat("__main__.shallow", thread_time() - begin)


def run(truth: Truth) -> None:
    sys.setrecursionlimit(DEPTH + 1000)
    descend(DEPTH, truth)
    shallow(truth)


record(run)
