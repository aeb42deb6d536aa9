"""Forty threads that wait in two places in turn, each for its time, and wake all the while to wait again."""

import threading
from time import monotonic, sleep

from recording import Truth, record

THREADS, TURNS = 40, 25
LONG, SHORT = 15, 5  # waits of a moment
MOMENT = 0.005


def waits_long(waited: dict[str, float]) -> None:
    begin = monotonic()
    for _ in range(LONG):
        sleep(MOMENT)
    waited["waits_long"] += monotonic() - begin


def waits_shortly(waited: dict[str, float]) -> None:
    begin = monotonic()
    for _ in range(SHORT):
        sleep(MOMENT)
    waited["waits_shortly"] += monotonic() - begin


def take_turns(number: int, waited: dict[str, float], truth: Truth) -> None:
    sleep(0.1 * number / THREADS)  # else they would all come and go at once
    for _ in range(TURNS):
        waits_long(waited)
        waits_shortly(waited)
    truth.end_thread()


def run(truth: Truth) -> None:
    waits = [{"waits_long": 0.0, "waits_shortly": 0.0} for _ in range(THREADS)]
    threads = [threading.Thread(target=take_turns, args=(i, waits[i], truth)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    truth.notes["waited"] = {name: sum(waited[name] for waited in waits) for name in waits[0]}


record(run)
