"""Greenlets that take turns under labels of their own, beside an asyncio thread: one part and two parts.

The first argument's `patch` says whether gevent patches before pyprof starts, after it, or not at all. Some
greenlets begin before pyprof does.
"""

import asyncio
import contextvars
import json
import sys

import gevent
import gevent.event
from gevent import monkey
from recording import Truth, record
from slices import Slice, one, two

import pyprof

PATCH = json.loads(sys.argv[1])["patch"]
if PATCH == "before":
    monkey.patch_all()

SLICES = 200

truths: list[Truth] = []
started_before = gevent.event.Event()


def turns(work: Slice, label: str) -> None:
    started_before.wait()
    with pyprof.labels(**{label: work.__name__}):
        for _ in range(SLICES):
            work(truths[0], label)
            gevent.sleep(0)


early = [gevent.spawn(turns, work, "early") for work in (one, two)]
gevent.sleep(0)


def in_asyncio(truth: Truth) -> None:
    """A loop in a thread of its own, which gevent has no part in."""

    async def task(work: Slice) -> None:
        with pyprof.labels(task=work.__name__):
            for _ in range(SLICES):
                work(truth, "task")
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(task(one), task(two))

    asyncio.run(main())
    truth.end_thread()


def everything(truth: Truth) -> None:
    if PATCH == "after":
        monkey.patch_all()
    truths.append(truth)
    started_before.set()
    late = [gevent.spawn(turns, work, "late") for work in (one, two)]
    heirs = [gevent.Greenlet(turns, work, "inherited") for work in (one, two)]
    with pyprof.labels(spawned="by me"):
        for heir in heirs:  # gevent has greenlets begin with an empty context
            heir.gr_context = contextvars.copy_context()
            heir.start()
    if PATCH == "no":
        start, done = monkey.get_original("_thread", "start_new_thread"), gevent.get_hub().loop.async_()
        start(lambda: (in_asyncio(truth), done.send()), ())
        gevent.get_hub().wait(done)
    gevent.joinall([*early, *late, *heirs], raise_error=True)


record(everything)
