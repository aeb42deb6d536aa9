"""Two threads in C calls that release the GIL, with Python code of their own between the calls."""

import hashlib
import threading
import zlib
from time import thread_time

from recording import Truth, record

DATA = bytes(range(256)) * 4000


def compress(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.150:
        zlib.compress(DATA, 9)
    truth.add_flat("__main__.compress", thread_time() - begin)


def derive(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.100:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 5000)
    truth.add_flat("__main__.derive", thread_time() - begin)


def plain(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.050:
        for _ in range(200):
            pass
    truth.add_flat("__main__.plain", thread_time() - begin)


def compressing(truth: Truth) -> None:
    for _ in range(8):
        compress(truth)
        plain(truth)
    truth.add_cum("__main__.compressing", thread_time())
    truth.end_thread()


def deriving(truth: Truth) -> None:
    for _ in range(8):
        derive(truth)
        plain(truth)
    truth.add_cum("__main__.deriving", thread_time())
    truth.end_thread()


def run(truth: Truth) -> None:
    threads = [threading.Thread(target=target, args=(truth,)) for target in (compressing, deriving)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


record(run)
