"""Threads that wait for anything but the GIL, each in a function of its own, until the program ends."""

import os
import sqlite3
import tempfile
import threading
import time

SETTLED = 0.2
kept: list[sqlite3.Connection] = []


def asleep(seconds: float) -> None:
    time.sleep(seconds)


def locked(lock: threading.Lock) -> None:
    lock.acquire()


def reading(pipe: int) -> None:
    os.read(pipe, 1)


def busy(database: str) -> None:
    """Looks every 100 ms, in C, whether the database is free: its clock moves, and it needs no GIL."""
    sqlite3.connect(database, timeout=3600).execute("begin exclusive")


def start_waiting() -> None:
    """Daemons: the end of such a wait would be a moment at which they do want the GIL."""
    lock = threading.Lock()
    lock.acquire()
    database = os.path.join(tempfile.mkdtemp(), "database")
    owner = sqlite3.connect(database, check_same_thread=False)
    owner.execute("begin exclusive")
    kept.append(owner)
    for target, argument in ((asleep, 3600), (locked, lock), (reading, os.pipe()[0]), (busy, database)):
        threading.Thread(target=target, args=(argument,), daemon=True).start()
    time.sleep(SETTLED)
