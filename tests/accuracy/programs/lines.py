"""Lines: where a function burns, where its callers stand, and where a waiting thread waits."""

import sys
import threading
from time import thread_time

from recording import Truth, record


# fmt: off
def burn(truth: Truth) -> None:
    first = thread_time()
    end = first + 0.6
    while thread_time() < end: pass  # noqa: E701  line: short
    second = thread_time()
    end = second + 1.2
    while thread_time() < end: pass  # noqa: E701  line: long
    third = thread_time()
    truth.notes["lines"] = {"short": second - first, "long": third - second}


def caller(truth: Truth) -> None:
    numbers = [
        1,
        2,
    ]
    numbers.append(3)
    burn(  # line: call
        truth,
    )


def wait(over: threading.Event, truth: Truth) -> None:
    if over.is_set():
        return
    (
        over
        .wait()
    )
    truth.end_thread()
# fmt: on


def run(truth: Truth) -> None:
    over = threading.Event()
    thread = threading.Thread(target=wait, args=(over, truth))
    thread.start()
    caller(truth)
    # The interpreter's own word on where that thread stands, leaf first.
    frame = sys._current_frames()[thread.ident or 0]
    waiting = []
    while frame is not None:
        waiting.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    truth.notes["waiting"] = waiting
    over.set()
    thread.join()


record(run)
