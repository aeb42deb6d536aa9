"""Two asyncio tasks on one loop, 50 ms against 100 ms a turn."""

import asyncio
from time import thread_time

from recording import Truth, record


async def short(truth: Truth) -> None:
    for _ in range(16):
        begin = thread_time()
        while thread_time() < begin + 0.050:
            for _ in range(200):
                pass
        truth.add_flat("__main__.short", thread_time() - begin)
        await asyncio.sleep(0)


async def long(truth: Truth) -> None:
    for _ in range(16):
        begin = thread_time()
        while thread_time() < begin + 0.100:
            for _ in range(200):
                pass
        truth.add_flat("__main__.long", thread_time() - begin)
        await asyncio.sleep(0)


async def both(truth: Truth) -> None:
    await asyncio.gather(short(truth), long(truth))


record(lambda truth: asyncio.run(both(truth)))
