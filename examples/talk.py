"""The program of the talk "Introduction into Profiling in Python".

`main` calls `doALot` and `doLittle`, and both call `prepare`. Each spins on its thread's own CPU clock, so
the shares are the same on a fast, a slow and a busy machine. Of 38 parts of CPU time

    main      3 of its own
    doALot   20 of its own, and  5 in prepare
    doLittle  5 of its own, and  5 in prepare

so a true profile says

    Flat%    Cum%   Name
    52.6%   65.8%   __main__.doALot
    26.3%   26.3%   __main__.prepare
    13.2%   26.3%   __main__.doLittle
     7.9%  100.0%   __main__.main

Usage: talk.py [SECONDS]    CPU seconds to burn, 10 unless given
"""

import sys
from time import thread_time

PARTS = 38


# The loops stand in each function, not in a helper: the CPU time has to be the function's own. The inner
# loop keeps the clock reads rare, so that the time goes into Python code and not into system calls.
def prepare(part: float) -> None:
    end = thread_time() + 5 * part
    while thread_time() < end:
        for _ in range(1000):
            pass


def doALot(part: float) -> None:
    end = thread_time() + 20 * part
    while thread_time() < end:
        for _ in range(1000):
            pass
    prepare(part)


def doLittle(part: float) -> None:
    end = thread_time() + 5 * part
    while thread_time() < end:
        for _ in range(1000):
            pass
    prepare(part)


def main(seconds: float) -> None:
    part = seconds / PARTS
    end = thread_time() + 3 * part
    while thread_time() < end:
        for _ in range(1000):
            pass
    doALot(part)
    doLittle(part)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
