"""Sixteen threads that burn 5 ms, then sleep 150 ms: half a sampling period, asleep at nearly every tick."""

import json
import sys
import threading
from time import sleep, thread_time

from recording import Truth, record

BURSTS = 10 + 4_000 // json.loads(sys.argv[1])["options"]["sample_rate"]


def burst(begin: float) -> None:
    while thread_time() < begin + 0.005:
        for _ in range(200):
            pass


def rest() -> None:
    sleep(0.150)


def bursts(truth: Truth, number: int) -> None:
    sleep(0.0097 * number)
    burning = resting = 0.0
    for _ in range(BURSTS):
        begin = thread_time()
        burst(begin)
        between = thread_time()
        rest()
        burning += between - begin
        resting += thread_time() - between
    truth.add_flat("__main__.burst", burning)
    truth.add_flat("__main__.rest", resting)
    truth.end_thread()


def run(truth: Truth) -> None:
    threads = [threading.Thread(target=bursts, args=(truth, number)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


record(run)
