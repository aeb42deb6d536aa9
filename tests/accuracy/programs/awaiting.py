"""Three tasks that await for 1, 2 and 4 seconds, each under a label of its own."""

import asyncio

from recording import Truth, record

import pyprof


async def waits(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def job(seconds: float) -> None:
    with pyprof.labels(job=f"{seconds:g}"):
        await waits(seconds)


async def main(truth: Truth) -> None:
    await asyncio.gather(*(job(seconds) for seconds in (1, 2, 4)))


record(lambda truth: asyncio.run(main(truth)))
