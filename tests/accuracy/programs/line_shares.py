"""One function whose four lines take CPU time as 1 : 2 : 3 : 4, having as many equal statements.

First alone, then in turns with code that calls and returns all the time: what that does to how its stacks are
read must not touch the function.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any

from recording import Truth, record

SECONDS = 1.5
UNIT = 25
STATEMENT = "x = (x * 31 + 5) & 255"


def line(weight: int) -> str:
    return "; ".join([STATEMENT] * (weight * UNIT))


SOURCE = f"""
def NAME(turns):
    x = 7
    for _ in range(turns):
        {line(1)}
        {line(2)}
        {line(3)}
        {line(4)}
"""
TREE = ast.parse(Path(ast.__file__).read_text())


def four_lines(name: str) -> Callable[[int], None]:
    names: dict[str, Any] = {}
    file = str(Path(__file__).with_name("four_lines.py"))
    exec(compile(SOURCE.replace("NAME", name), file, "exec"), names)
    function: Callable[[int], None] = names[name]
    return function


def calls() -> None:
    for _ in ast.walk(TREE):
        pass


def run(truth: Truth) -> None:
    alone, in_turns = four_lines("alone"), four_lines("in_turns")
    end = thread_time() + SECONDS
    while thread_time() < end:
        alone(600)
    used = 0.0
    while used < SECONDS:
        begin = thread_time()
        in_turns(600)
        used += thread_time() - begin
        calls()
    lines = SOURCE.splitlines()
    truth.notes["lines"] = {
        number: text.count(";") + 1 for number, text in enumerate(lines, 1) if ";" in text
    }


record(run)
