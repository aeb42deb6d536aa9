"""Two threads of Python code that release the GIL every half a millisecond, in a function that burns little.

A sampler that gets the GIL only when somebody lets go of it of its own accord finds nothing but those places.
"""

import os
import threading
from time import thread_time

from recording import Truth, record


def compute() -> None:
    end = thread_time() + 0.0005
    while thread_time() < end:
        for _ in range(50):
            pass


def release(file: int) -> None:
    os.write(file, b"x")


def requests(truth: Truth) -> None:
    file = os.open(os.devnull, os.O_WRONLY)
    computing = releasing = 0.0
    end = thread_time() + 2.0
    after = thread_time()
    while after < end:
        begin = after
        compute()
        between = thread_time()
        release(file)
        after = thread_time()
        computing += between - begin
        releasing += after - between
    os.close(file)
    truth.add_flat("__main__.compute", computing)
    truth.add_flat("__main__.release", releasing)
    truth.end_thread()


def run(truth: Truth) -> None:
    threads = [threading.Thread(target=requests, args=(truth,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


record(run)
