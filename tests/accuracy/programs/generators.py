"""Generators inside generators, by `yield`, `yield from` and iteration; each level burns its own share."""

from collections.abc import Iterator
from time import thread_time

from recording import Truth, record


def leaf(truth: Truth) -> Iterator[int]:
    for number in range(20):
        begin = thread_time()
        while thread_time() < begin + 0.050:
            for _ in range(200):
                pass
        truth.add_flat("__main__.leaf", thread_time() - begin)
        yield number


def delegating(truth: Truth) -> Iterator[int]:
    yield from leaf(truth)


def middle(truth: Truth) -> Iterator[int]:
    for number in delegating(truth):
        begin = thread_time()
        while thread_time() < begin + 0.030:
            for _ in range(200):
                pass
        truth.add_flat("__main__.middle", thread_time() - begin)
        yield number


def outer(truth: Truth) -> Iterator[int]:
    for number in middle(truth):
        begin = thread_time()
        while thread_time() < begin + 0.020:
            for _ in range(200):
                pass
        truth.add_flat("__main__.outer", thread_time() - begin)
        yield number


def run(truth: Truth) -> None:
    begin = thread_time()
    for _ in outer(truth):
        pass
    truth.add_cum("__main__.outer", thread_time() - begin)
    # Time in `leaf` is the leaf's, `delegating`'s, the middle's and the outer's, in this order.
    truth.cum["__main__.delegating"] = truth.flat["__main__.leaf"]
    truth.cum["__main__.middle"] = truth.flat["__main__.leaf"] + truth.flat["__main__.middle"]


record(run)
