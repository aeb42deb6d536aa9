"""C calls of several milliseconds each that keep the GIL, each in a function of its own.

The calls take turns: a sampler that waits for the GIL and then charges the wrong side of a call is found out.
How long a call takes depends on the machine: the work is scaled to it first, the truth is measured.
"""

import json
import random
import sys
from collections.abc import Callable
from time import thread_time

from recording import Truth, record

SECONDS = 1 + 1_600 / json.loads(sys.argv[1])["options"]["sample_rate"]
SHUFFLED = random.Random(1).sample(range(1_000_000), 1_000_000)


def power(size: int) -> None:
    pow(3, size)


def add_up(size: int) -> None:
    sum(range(size))


def sort(size: int) -> None:
    sorted(SHUFFLED[:size])


def scaled(call: Callable[[int], None], size: int, seconds: float) -> int:
    """A size for which `call` takes about `seconds`."""
    while True:
        begin = thread_time()
        call(size)
        if thread_time() - begin >= seconds:
            return size
        size = size * 5 // 4


WORK = [
    ("__main__.power", power, scaled(power, 30_000, 0.005)),
    ("__main__.add_up", add_up, scaled(add_up, 100_000, 0.012)),
    ("__main__.sort", sort, scaled(sort, 5_000, 0.003)),
]


def run(truth: Truth) -> None:
    end = thread_time() + SECONDS
    while thread_time() < end:
        for name, call, size in WORK:
            begin = thread_time()
            call(size)
            truth.add_flat(name, thread_time() - begin)


record(run)
