"""What is profiled: work of a fixed amount, the talk's program and requests to the shop's Flask application,
and programs of threads and tasks that wait or want the GIL."""

import asyncio
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
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
VISITS = 200
Request = tuple[str, str, bytes | None]
"""Method, path, body."""


def with_examples() -> None:
    if (examples := str(ROOT / "examples")) not in sys.path:
        sys.path.insert(0, examples)


def shop_visits() -> list[Request]:
    """What visitors ask of the shop, over and over."""
    with_examples()
    from shop.load import next_request

    rng = random.Random(2)
    return [next_request(rng, 400) for _ in range(VISITS)]


class ShopApplication:
    """The shop on a database of its own.

    After `renew` the database is what it was at first. It lies in memory where the system has files there:
    how long a disk takes varies by more than what is measured.
    """

    def __init__(self) -> None:
        with_examples()
        from shop import catalog, create_app

        self.directory = Path(tempfile.mkdtemp(prefix="shop-", dir=MEMORY if MEMORY.is_dir() else None))
        self.original = self.directory / "original.sqlite"
        catalog.build(self.original)
        self.database = self.directory / "shop.sqlite"
        self.renew()
        self.app = create_app(self.database)

    def renew(self) -> None:
        for old in self.directory.glob("shop.sqlite*"):
            old.unlink()
        shutil.copyfile(self.original, self.database)

    def close(self) -> None:
        shutil.rmtree(self.directory)


class Shop(Workload):
    """Requests to the shop in process, through WSGI, by four threads as a threaded server has them.

    Every block begins with the same database and makes the same requests.
    """

    THREADS = 4

    def __init__(self) -> None:
        self.shop = ShopApplication()
        self.visits = shop_visits()
        self.work: queue.SimpleQueue[range | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.pool = [threading.Thread(target=self.serve) for _ in range(self.THREADS)]
        for thread in self.pool:
            thread.start()
        self.threads = [threading.get_native_id(), *(thread.native_id or 0 for thread in self.pool)]

    def prepare(self) -> None:
        self.shop.renew()

    def serve(self) -> None:
        client = self.shop.app.test_client()
        while (numbers := self.work.get()) is not None:
            try:
                for number in numbers:
                    self.visit(client, *self.visits[number % VISITS])
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
        self.shop.close()


class Allocations(Workload):
    """Hardly anything but small objects that come and go, a thousand of them at a time."""

    KEPT = 1000

    def __init__(self) -> None:
        self.threads = [threading.get_native_id()]
        self.kept: deque[Any] = deque(maxlen=self.KEPT)

    def run(self, amount: int) -> None:
        for number in range(10 * amount):
            self.kept.append({"number": number, "text": str(number), "parts": [number, (number, None)]})


FRAMES = 40
THREAD_FRAMES = 3
"""Those of `threading` at the bottom of each thread."""


def chain(length: int, leaf: Callable[[], None]) -> Callable[[], None]:
    """Calls `leaf` through functions that call one another, each with code of its own as in a program."""
    scope: dict[str, Any] = {f"level_{length}": leaf}
    for level in range(length):
        exec(f"def level_{level}():\n    level_{level + 1}()", scope)
    first: Callable[[], None] = scope["level_0"]
    return first


class Threads(Workload):
    """Threads with stacks of 40 frames that are left to themselves for `amount` milliseconds. They all want
    the GIL then; at other times they wait."""

    number = 50
    LEAF_FRAMES = 2
    """`work` and what it calls."""

    def __init__(self) -> None:
        self.may_run = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.ended = False
        body = chain(FRAMES - THREAD_FRAMES - self.LEAF_FRAMES, self.work)
        self.pool = [threading.Thread(target=body, daemon=True) for _ in range(self.number)]
        for thread in self.pool:
            thread.start()
        self.wait_for_all()
        self.threads = [threading.get_native_id(), *(thread.native_id or 0 for thread in self.pool)]

    def work(self) -> None:
        while not self.ended:
            self.waiting.release()
            self.may_run.wait()
            while self.may_run.is_set() and not self.ended:
                add()
                multiply()

    def wait_for_all(self) -> None:
        for _ in self.pool:
            self.waiting.acquire()

    def run(self, amount: int) -> None:
        self.may_run.set()
        time.sleep(amount / 1000)
        self.may_run.clear()
        self.wait_for_all()

    def close(self) -> None:
        self.ended = True
        self.may_run.set()
        for thread in self.pool:
            thread.join()


def add() -> None:
    total = 0
    for number in range(3000):
        total += number


def multiply() -> None:
    total = 1
    for number in range(3000):
        total = total * number & 0xFFFF


class OneThread(Threads):
    number = 1


class IdleThreads(Threads):
    """They wait all the time."""

    LEAF_FRAMES = 3  # `work`, Event.wait, Condition.wait

    def run(self, amount: int) -> None:
        time.sleep(amount / 1000)


class Tasks(Workload):
    """A thread with a loop and 5,000 tasks, all of which sleep.

    It begins with the first block, when the profiler is there: some know only what has begun after them.
    """

    NUMBER = 5000

    def __init__(self) -> None:
        self.threads = [threading.get_native_id()]
        self.thread: threading.Thread | None = None
        self.has_begun = threading.Event()
        self.ended = False

    def prepare(self) -> None:
        if self.thread is None:
            self.thread = threading.Thread(target=lambda: asyncio.run(self.live()))
            self.thread.start()
            self.has_begun.wait()
            self.threads.append(self.thread.native_id or 0)

    async def live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.awake = asyncio.Event()
        tasks = [asyncio.create_task(self.sleep()) for _ in range(self.NUMBER)]
        await asyncio.sleep(0)
        self.has_begun.set()
        while not self.ended:
            await self.awake.wait()
            while self.awake.is_set() and not self.ended:
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()

    async def sleep(self) -> None:
        await asyncio.sleep(100_000)

    def run(self, amount: int) -> None:
        time.sleep(amount / 1000)

    def close(self) -> None:
        if self.thread is not None:
            self.ended = True
            self.loop.call_soon_threadsafe(self.awake.set)
            self.thread.join()


class BusyTasks(Tasks):
    """The loop wakes 100 times a second, so that its thread has moved at nearly every tick."""

    def run(self, amount: int) -> None:
        self.loop.call_soon_threadsafe(self.awake.set)
        super().run(amount)
        self.loop.call_soon_threadsafe(self.awake.clear)


WORKLOADS: dict[str, type[Workload]] = {
    "talk": Talk,
    "flask": Shop,
    "allocations": Allocations,
    "idle": IdleThreads,
    "contending": Threads,
    "one": OneThread,
    "tasks": Tasks,
    "busy-tasks": BusyTasks,
}
