"""A thread in one long C call without the GIL, beside two that contend for it all the while."""

import hashlib
import threading
from time import thread_time

from recording import Truth, record

SECONDS = 3.0
TRIAL = 20_000


def derive(rounds: int) -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", rounds)


def spin(over: threading.Event) -> None:
    while not over.is_set():
        for _ in range(200):
            pass


def run(truth: Truth) -> None:
    over = threading.Event()
    begin = thread_time()
    derive(TRIAL)
    rounds = round(TRIAL * SECONDS / (thread_time() - begin))
    threads = [threading.Thread(target=spin, args=(over,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    deriving = threading.Thread(target=derive, args=(rounds,))
    deriving.start()
    deriving.join()
    over.set()
    for thread in threads:
        thread.join()


record(run)
