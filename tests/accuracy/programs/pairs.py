"""2,000 times: 1 ms in `first`, 2 ms in `second`, 2 ms asleep: half a period, a period, a period.

Whoever charges all CPU since the last tick to the stack at a tick charges the beginnings of bursts too
little: the tick that finds `first` finds it soon after it began, and the rest of it goes to `second`.
"""

from time import sleep, thread_time

from recording import Truth, record


def first() -> None:
    end = thread_time() + 0.001
    while thread_time() < end:
        pass


def second() -> None:
    end = thread_time() + 0.002
    while thread_time() < end:
        pass


def run(truth: Truth) -> None:
    spent_first = spent_second = 0.0
    for _ in range(2000):
        begin = thread_time()
        first()
        between = thread_time()
        second()
        spent_first += between - begin
        spent_second += thread_time() - between
        sleep(0.002)
    truth.add_flat("__main__.first", spent_first)
    truth.add_flat("__main__.second", spent_second)


record(run)
