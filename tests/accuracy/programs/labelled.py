"""Work under labels, in every way that contexts come to code: in slices of 2 ms, so that ticks meet others.

Each way has a label of its own, with two values that take one part and two parts; the functions that burn are
named after the values, so that a sample with another one's label can be told.
"""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

from recording import Truth, record
from slices import SLICE, Slice, one, two

import pyprof

SLICES = 120


async def in_tasks(truth: Truth) -> None:
    """Two tasks on one loop that take turns."""

    async def task(work: Slice) -> None:
        with pyprof.labels(task=work.__name__):
            for _ in range(SLICES):
                work(truth, "task")
                await asyncio.sleep(0)

    await asyncio.gather(task(one), task(two))


async def nested(truth: Truth) -> None:
    """A block within a block: the inner value holds, then the outer one again."""
    with pyprof.labels(nested="one", outer="kept"):
        for _ in range(SLICES):
            with pyprof.labels(nested="two"):
                two(truth, "nested")
                await asyncio.sleep(0)
            one(truth, "nested")


async def in_threads_of_tasks(truth: Truth) -> None:
    """asyncio.to_thread: a thread of a pool, each time with another task's context."""

    async def task(work: Slice) -> None:
        with pyprof.labels(to_thread=work.__name__):
            for _ in range(SLICES):
                await asyncio.to_thread(work, truth, "to_thread")

    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        await asyncio.gather(task(one), task(two))
        await asyncio.to_thread(truth.end_thread)


def in_copied_contexts(truth: Truth) -> None:
    contexts = []
    for work in (one, two):
        with pyprof.labels(copied=work.__name__):
            contexts.append((contextvars.copy_context(), work))
    for _ in range(SLICES):
        for context, work in contexts:
            context.run(work, truth, "copied")


def in_reused_workers(truth: Truth) -> None:
    """One thread for all jobs; what comes after a labelled job has none."""

    def labelled() -> None:
        with pyprof.labels(job="one"):
            one(truth, "job")

    def plain() -> None:
        two(truth, "no job")

    with ThreadPoolExecutor(1) as pool:
        for _ in range(SLICES):
            pool.submit(labelled).result()
            pool.submit(plain).result()
        pool.submit(truth.end_thread).result()


@pyprof.labels(decorated="one")
def decorated(truth: Truth) -> None:
    one(truth, "decorated")


@pyprof.labels(decorated="two")
def generator(truth: Truth) -> "object":
    for _ in range(SLICES):
        two(truth, "decorated")
        yield


def in_decorated_functions(truth: Truth) -> None:
    """A generator has its labels while it runs, and its caller none of them in between."""
    for _ in generator(truth):  # type: ignore[attr-defined]
        decorated(truth)


def in_short_blocks(truth: Truth) -> None:
    """Blocks of some 50 microseconds in one context."""
    for _ in range(20 * SLICES):
        with pyprof.labels(short="one"):
            one(truth, "short", SLICE / 40)
        with pyprof.labels(short="two"):
            two(truth, "short", SLICE / 40)


def in_child_threads(truth: Truth) -> None:
    """A thread has its creator's labels where there is no GIL, or flag thread_inherit_context; else none."""

    def child(work: Slice) -> None:
        for _ in range(SLICES):
            work(truth, "child")
        truth.end_thread()

    for work in (one, two):
        with pyprof.labels(child=work.__name__):
            thread = threading.Thread(target=child, args=(work,))
            thread.start()
        thread.join()


async def asynchronous(truth: Truth) -> None:
    await in_tasks(truth)
    await nested(truth)
    await in_threads_of_tasks(truth)


def everything(truth: Truth) -> None:
    asyncio.run(asynchronous(truth))
    in_copied_contexts(truth)
    in_reused_workers(truth)
    in_decorated_functions(truth)
    in_short_blocks(truth)
    in_child_threads(truth)


record(everything)
