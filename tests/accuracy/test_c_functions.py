"""C functions have their own frames, with their own time.

Seen to fail: with the place of what is called taken one word further on, there are no such frames; with
objects of classes of Python code taken for those of types written in C.
"""

import pytest

from .conftest import Record
from .reading import ENGINE, Recording

pytestmark = pytest.mark.accuracy


def check_one_line(recording: Recording) -> None:
    true = recording.truth["flat"]
    calls = recording.with_c_functions.where(
        lambda stack: any(frame.name == "__main__.call" for frame in stack.frames)
    )
    flat = calls.flat()
    for name, seconds in true.items():
        measured = 100 * flat[name] / calls.total()
        assert measured == pytest.approx(100 * seconds / sum(true.values()), abs=3), flat
    # What is not in one of them is the call's own: next to nothing.
    assert set(flat) <= {*true, "__main__.call"}
    assert flat["__main__.call"] < 0.02 * calls.total()


def check_objects(recording: Recording) -> None:
    """json's encoder is one of a type written in C, which shows; one of a class of Python code does not."""
    encoding, calling = (
        recording.with_c_functions.where(
            lambda stack, name=name: any(frame.name == name for frame in stack.frames)
        )
        for name in ("__main__.encode", "__main__.call_object")
    )
    assert encoding.flat()["_json.Encoder"] > 0.9 * encoding.total(), encoding.flat()
    names = {frame.name for stack in calling.stacks for frame in stack.frames if frame.is_of_c}
    assert names <= {"time.thread_time", "builtins.range"}


def check_sorting(recording: Recording) -> None:
    """A C function between two of Python."""
    sorting = recording.with_c_functions.where(
        lambda stack: any(frame.name == "__main__.sort_by_key" for frame in stack.frames)
    )
    in_key = sorting.where(lambda stack: any(frame.name == "__main__.key" for frame in stack.frames))
    assert in_key.total() > 0.9 * sorting.total()
    for stack in in_key.stacks:
        names = [frame.name for frame in stack.frames]
        at = names.index("__main__.key")
        assert names[at : at + 3] == ["__main__.key", "builtins.sorted", "__main__.sort_by_key"]


def test_c_functions_have_their_own_time(recorded: Record) -> None:
    # Turns of 2 to 5 ms in 4 s, gap 1 ms: 4,000 ticks, 0.7 points of chance.
    recording = recorded("c_functions", sample_rate=1000)
    check_sorting(recording)
    if ENGINE == "gilfree":  # the other one does not see C code that holds the GIL
        check_one_line(recording)
        check_objects(recording)
