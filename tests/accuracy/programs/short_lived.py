"""200 functions made by `exec`, each with its own file name, run once for 20 ms of CPU and gone at once."""

import gc
from time import thread_time

from recording import Truth, record

COUNT = 200
SOURCE = """
def made_{number}(end):
    while thread_time() < end:
        for _ in range(200):
            pass
"""


def run(truth: Truth) -> None:
    for number in range(COUNT):
        names = {"thread_time": thread_time}
        exec(compile(SOURCE.format(number=number), f"/nowhere/made_{number}.py", "exec"), names)
        begin = thread_time()
        names[f"made_{number}"](begin + 0.020)  # type: ignore[operator]
        truth.add_flat(f"made_{number}.made_{number}", thread_time() - begin)
        del names
        # The next function is likely to get this one's memory.
        gc.collect(0)


record(run)
