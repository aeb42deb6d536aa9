"""Threads that `threading` knows nothing of: from `_thread`, and from pthread_create in C."""

import _thread
import ctypes
import threading
from time import thread_time

from recording import Truth, record

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def raw(truth: Truth, over: threading.Event) -> None:
    begin = thread_time()
    while thread_time() < begin + 0.6:
        for _ in range(200):
            pass
    truth.add_flat("__main__.raw", thread_time() - begin)
    truth.end_thread()
    over.set()


def from_c(truth: Truth) -> None:
    begin = thread_time()
    while thread_time() < begin + 1.2:
        for _ in range(200):
            pass
    truth.add_flat("__main__.from_c", thread_time() - begin)
    truth.end_thread()


def run(truth: Truth) -> None:
    over = threading.Event()

    def callback(argument: int) -> None:
        from_c(truth)

    entry = CALLBACK(callback)
    library = ctypes.CDLL(None)
    handle = ctypes.c_ulong()
    _thread.start_new_thread(raw, (truth, over))
    if library.pthread_create(ctypes.byref(handle), None, entry, None) != 0:
        raise OSError("pthread_create failed")
    library.pthread_join(handle, None)
    over.wait()


record(run)
