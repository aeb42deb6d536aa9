"""C functions in stacks: named where it is certain which one it is, never guessed.

Seen to fail: with the place of what is called taken one word further on, nothing is found; from one copy of a
running thread, what other functions call; without a look at whether a name is still the same, the old one of
test_names_of_definitions_that_change; without the check of the type, `Made` itself; where a trace function
runs, `sum` is found to call it.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pyprof import _native

pytestmark = pytest.mark.skipif(not _native.SUPPORTED, reason="sampling is for Linux")

Run = Callable[..., Any]
IS_FALLBACK = os.environ.get("TEST_ENGINE") == "current_frames"

# An expression, and the C function that it calls, if it is certain.
CALLS = {
    "len(TEXT)": "builtins.len",
    "max(NUMBERS)": "builtins.max",
    "sorted(NUMBERS, reverse=True)": "builtins.sorted",
    "sum(*ARGUMENTS)": "builtins.sum",
    "sum(*ARGUMENTS, **NAMED)": "builtins.sum",
    "TEXT.upper()": "builtins.str.upper",
    "str.title(TEXT)": "builtins.str.title",
    "bound()": "builtins.str.lower",
    "NUMBERS.count(3)": "builtins.list.count",
    "dict.fromkeys(NUMBERS)": "builtins.dict.fromkeys",
    "list(NUMBERS)": "builtins.list",
    "math.fsum(NUMBERS)": "math.fsum",
    "zlib.crc32(BYTES)": "zlib.crc32",
    "PATTERN.match(TEXT)": "re.Pattern.match",
    "Made()": None,
    "functools.partial(max)(NUMBERS)": None,
}

# So short that they may be over before both copies of a stack are made.
BRIEF = {"builtins.len", "builtins.str.upper", "builtins.str.lower"}

EACH_CALLS_ONE = """
import functools, math, re, zlib

calls, seconds = json.loads(sys.argv[1])
NUMBERS, TEXT, BYTES = list(range(300)), "ab" * 300, b"x" * 4000
ARGUMENTS, NAMED, PATTERN, bound = (NUMBERS, ), {"start": 1}, re.compile("(a|b)*"), TEXT.lower

class Made(dict):
    def __init__(self):
        self.n = 1

for i, call in enumerate(calls):
    exec(f"def function_{i}(): return {call}")
functions = [globals()[f"function_{i}"] for i in range(len(calls))]

start(period_ns=100_000)
end = time.monotonic() + seconds
while time.monotonic() < end:
    for function in functions:
        function()
seen, _ = stop(c_functions=True)
answer(seen=[([name for name, _, _ in frames], values["samples"]) for frames, values in seen])
"""


@pytest.mark.skipif(IS_FALLBACK, reason="the other engine does not see C code that holds the GIL")
@pytest.mark.parametrize("cpus", ["several", "one"])
def test_what_each_function_calls(engine: Run, cpus: str) -> None:
    pinned = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" if cpus == "one" else ""
    found = engine(pinned + EACH_CALLS_ONE, json.dumps([[*CALLS], 4]))
    names = [*CALLS.values()]
    certain = {name for name in names if name is not None}
    right, wrong = set(), []
    for stack, samples in found["seen"]:
        functions = [name for name in stack if name.startswith("function_")]
        if functions:
            called = stack[: stack.index(functions[0])]
            expected = names[int(functions[0].removeprefix("function_"))]
            if called and called[-1] == expected:
                right.add(expected)
            # Of what is constructed, `__init__` and the creation of the partial object are there.
            elif called and (expected is not None or set(called) & certain):
                wrong.append((stack, samples))
    assert not wrong
    assert certain - BRIEF <= right <= certain
    assert not any(
        "Made" in stack for stack, _ in found["seen"]
    )  # a class of Python code; its `__init__` may be


@pytest.mark.parametrize("how", ["settrace", "setprofile", "monitoring"])
def test_what_traces_is_not_called_by_what_it_traces(engine: Run, how: str) -> None:
    """It runs before the function does that the instruction calls."""
    found = engine(
        """
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def traces(*_):
    burn(0.01)
    return traces

def calls(end):
    while time.monotonic() < end:
        sum(
            [
                1,
                2,
            ],
        )

how = sys.argv[1]
start()
calls(time.monotonic() + 0.3)  # its calls are known when they come to be traced
if how == "monitoring":
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is not None:
        monitoring.use_tool_id(monitoring.PROFILER_ID, "test")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.CALL, traces)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.CALL)
else:
    getattr(sys, how)(traces)
calls(time.monotonic() + 1)
if how == "monitoring" and monitoring is not None:
    monitoring.set_events(monitoring.PROFILER_ID, 0)
elif how != "monitoring":
    getattr(sys, how)(None)
seen, _ = stop(c_functions=True)
answer(calls_traces=sorted({frames[i + 1][0] for frames, _ in seen for i in range(len(frames) - 1)
                            if frames[i][0] == "traces"}))
""",
        how,
    )
    callers = {name for name in found["calls_traces"] if name != "burn"}
    assert callers <= {"calls", "burn", "<module>"}
    if how != "monitoring" or hasattr(sys, "monitoring"):
        assert "calls" in callers


MADE_BY_HAND = """
class MethodDef(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("method", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_void_p)]

def burns():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass

@ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
def method(*_):
    burns()

new = ctypes.pythonapi.PyCFunction_NewEx
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_void_p, ctypes.py_object]
name = ctypes.create_string_buffer(300)
METH_NOARGS = 4
definition = MethodDef(ctypes.addressof(name), ctypes.cast(method, ctypes.c_void_p).value, METH_NOARGS, None)
function = new(ctypes.addressof(definition), None, "made.by_hand")

def calls():
    function()

start()
names = json.loads(sys.argv[1])
for text in names:
    name.value = text.encode()
    calls()
seen, _ = stop(c_functions=True)
answer(between=[sorted({frames[i + 1][0] for frames, _ in seen for i in range(len(frames) - 1)
                        if frames[i][0] == "method" and frames[i + 1][0] != "calls"})])
"""


def test_names_of_definitions_that_change(engine: Run) -> None:
    """A definition at the same address, in the same owner, with another name at the same place."""
    found = engine(MADE_BY_HAND, json.dumps(["first", "secnd"]))
    assert found["between"] == [["made.by_hand.first", "made.by_hand.secnd"]]


def test_names_that_are_out_of_the_common(engine: Run) -> None:
    """Not ASCII, too long, none: there is no frame then."""
    found = engine(MADE_BY_HAND, json.dumps(["имя", "x" * 250, "", "a b"]))
    assert found["between"] == [[]]
