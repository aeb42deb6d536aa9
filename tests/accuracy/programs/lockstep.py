"""A loop of one sampling period on the same clock: 70 % of each turn in one function, 30 % in another."""

import json
import sys
from time import perf_counter, thread_time

from recording import Truth, record

PERIOD = 1 / json.loads(sys.argv[1])["options"]["sample_rate"]


def most(until: float) -> None:
    while perf_counter() < until:
        pass


def rest(until: float) -> None:
    while perf_counter() < until:
        pass


def run(truth: Truth) -> None:
    spent_most = spent_rest = 0.0
    end = thread_time() + 6.5
    turn = perf_counter()
    after = thread_time()
    while after < end:
        begin = after
        most(turn + 0.7 * PERIOD)
        between = thread_time()
        rest(turn + PERIOD)
        after = thread_time()
        spent_most += between - begin
        spent_rest += after - between
        # A turn that the machine took away is skipped, and the next one is in step again.
        now = perf_counter()
        turn += PERIOD * max(1, int((now - turn) / PERIOD))
    truth.add_flat("__main__.most", spent_most)
    truth.add_flat("__main__.rest", spent_rest)


record(run)
