"""Burns 5 ms, then sleeps 150 ms, over and over: half a sampling period, asleep at nearly every tick."""

from time import sleep, thread_time

from recording import Truth, record


def burst(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.005:
        for _ in range(200):
            pass
    truth.add_flat("__main__.burst", thread_time() - begin)


def rest(truth: Truth) -> None:
    begin = thread_time()
    sleep(0.150)
    truth.add_flat("__main__.rest", thread_time() - begin)


def run(truth: Truth) -> None:
    for _ in range(40):
        burst(truth)
        rest(truth)


record(run)
