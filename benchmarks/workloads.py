"""Work of a fixed amount: the talk's program and requests to the shop's Flask application."""

import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from .harness import ROOT


def thread_clock(tid: int) -> int:
    """CPU time of any thread of this process, nanoseconds."""
    return time.clock_gettime_ns((~tid << 3) | 6)


class Workload(ABC):
    """Does `amount` units of work; `threads` are all the application's threads, by native id."""

    threads: list[int]

    @abstractmethod
    def run(self, amount: int) -> None: ...

    def prepare(self) -> None:  # noqa: B027  (most need none)
        """Called before each block, outside of what is measured."""

    def close(self) -> None:  # noqa: B027
        """Called last."""


class Talk(Workload):
    """The talk's call tree by counts instead of clocks: the work is fixed, so its time says something."""

    def __init__(self) -> None:
        self.threads = [threading.get_native_id()]

    def run(self, amount: int) -> None:
        main(amount)


def prepare(part: int) -> None:
    for _ in range(5 * part):
        for _ in range(100):
            pass


def doALot(part: int) -> None:
    for _ in range(20 * part):
        for _ in range(100):
            pass
    prepare(part)


def doLittle(part: int) -> None:
    for _ in range(5 * part):
        for _ in range(100):
            pass
    prepare(part)


def main(part: int) -> None:
    for _ in range(3 * part):
        for _ in range(100):
            pass
    doALot(part)
    doLittle(part)


MEMORY = Path("/dev/shm")


class Shop(Workload):
    """Requests to the shop in process, through WSGI, by four threads as a threaded server has them.

    Every block begins with the same database and makes the same requests. The database lies in memory where
    the system has files there: how long a disk takes varies by more than what is measured.
    """

    THREADS = 4
    VISITS = 200

    def __init__(self) -> None:
        sys.path.insert(0, str(ROOT / "examples"))
        from shop import catalog, create_app
        from shop.load import next_request

        self.directory = Path(tempfile.mkdtemp(prefix="shop-", dir=MEMORY if MEMORY.is_dir() else None))
        self.original = self.directory / "original.sqlite"
        catalog.build(self.original)
        self.database = self.directory / "shop.sqlite"
        self.prepare()
        self.app = create_app(self.database)
        rng = random.Random(2)
        self.requests = [next_request(rng, 400) for _ in range(self.VISITS)]
        self.work: queue.SimpleQueue[range | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.pool = [threading.Thread(target=self.serve) for _ in range(self.THREADS)]
        for thread in self.pool:
            thread.start()
        self.threads = [threading.get_native_id(), *(thread.native_id or 0 for thread in self.pool)]

    def prepare(self) -> None:
        for old in self.directory.glob("shop.sqlite*"):
            old.unlink()
        shutil.copyfile(self.original, self.database)

    def serve(self) -> None:
        client = self.app.test_client()
        while (visits := self.work.get()) is not None:
            try:
                for visit in visits:
                    self.visit(client, *self.requests[visit % self.VISITS])
            except BaseException as error:
                self.done.put(error)
                raise
            self.done.put(None)

    def visit(self, client: Any, method: str, path: str, body: bytes | None) -> None:
        kind = "application/json" if body else None
        response = client.open(path, method=method, data=body, content_type=kind)
        if response.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {response.status_code}")

    def run(self, amount: int) -> None:
        for thread in range(self.THREADS):
            self.work.put(range(thread, amount, self.THREADS))
        for _ in range(self.THREADS):
            error = self.done.get()
            if error is not None:
                raise error

    def close(self) -> None:
        for _ in self.pool:
            self.work.put(None)
        for thread in self.pool:
            thread.join()
        shutil.rmtree(self.directory)


WORKLOADS: dict[str, type[Workload]] = {"talk": Talk, "flask": Shop}
