"""Names, file names and lines: exact, whatever they consist of and however short their code lived.

Seen to fail: with names resolved at export instead of at first sight, `short_lived` came out as a few names
with others' files; the encoding through Latin-1 turns every name of `names` into something else.
"""

import sys
from pathlib import Path

import pytest

from .conftest import ON_ONE_CPU, Record
from .reading import PROGRAMS

pytestmark = [pytest.mark.accuracy, ON_ONE_CPU]


def test_names_outside_ascii_are_exact(recorded: Record) -> None:
    # Five phases of 0.4 s, gap 10 ms: 0.4 points.
    recording = recorded("names")
    recording.check()
    files = {frame.name: frame.file for stack in recording.profile.stacks for frame in stack.frames}
    made = recording.truth["notes"]["file"]
    assert files[f"{Path(made).stem}.gemacht"] == made
    assert files["__main__.𠀋部"] == str(PROGRAMS / "names.py")


def test_200_short_lived_functions_keep_their_own_names_and_files(recorded: Record) -> None:
    # Twenty gaps a function: none is missed, and each has its 20 ms to within a gap at either end,
    # beside a share of what makes it.
    recording = recorded("short_lived", sample_rate=1000)
    recording.check()
    made = {
        (frame.name, frame.file)
        for stack in recording.profile.stacks
        for frame in stack.frames
        if frame.file.startswith("/nowhere/")
    }
    functions = {item for item in made if not item[0].endswith("<module>")}
    # No module has such a file: its stem stands for one.
    assert functions == {
        (f"made_{number}.made_{number}", f"/nowhere/made_{number}.py") for number in range(200)
    }
    flat = recording.profile.flat()
    mean = sum(flat[name] for name, _ in functions) / 200
    assert mean / 1e9 == pytest.approx(sum(recording.truth["flat"].values()) / 200, rel=0.1)


def marked_line(mark: str) -> int:
    lines = (PROGRAMS / "lines.py").read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f" line: {mark}")]
    return number


def test_lines_are_exact(recorded: Record) -> None:
    # Two phases on one line each, gap 2 ms in 1.8 s: 0.1 points.
    recording = recorded("lines", sample_rate=500)
    recording.check()
    total = sum(recording.truth["notes"]["lines"].values())
    burning = recording.profile.where(lambda stack: stack.frames[0].name == "__main__.burn")
    for mark, seconds in recording.truth["notes"]["lines"].items():
        line = marked_line(mark)
        here = sum(stack.values["cpu"] for stack in burning.stacks if stack.frames[0].line == line)
        assert 100 * here / burning.total() == pytest.approx(100 * seconds / total, abs=2)
    callers = {
        frame.line for stack in burning.stacks for frame in stack.frames if frame.name == "__main__.caller"
    }
    assert callers == {marked_line("call")}


def test_a_waiting_thread_stands_where_the_interpreter_says(recorded: Record) -> None:
    recording = recorded("lines", sample_rate=500)
    waiting = [
        stack
        for stack in recording.profile.stacks
        if any(frame.name == "__main__.wait" for frame in stack.frames)
    ]
    most = max(waiting, key=lambda stack: stack.values["wall"])
    said = [(str(Path(file).absolute()), line) for file, line in recording.truth["notes"]["waiting"]]
    seen = [(frame.file, frame.line) for frame in most.frames]
    assert seen[: len(said)] == said, sys.version
    assert most.values["wall"] > 0.9 * sum(stack.values["wall"] for stack in waiting)
