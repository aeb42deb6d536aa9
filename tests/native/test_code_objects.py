"""Samples name the code that ran, whatever becomes of it and whatever it is called.

Seen to fail, each with one line changed:
- deaths are not noted: functions have the names of dead ones;
- a log of deaths that overflows is taken for a whole one: functions have the names of the generation before;
- the destructor is not put back: it is another one after `stop()`;
- `co_name` for `co_qualname`, surrogates as three bytes, an empty line table taken as it is: the names.
"""

from collections.abc import Callable
from typing import Any

import pytest

from pyprof import _native

pytestmark = pytest.mark.skipif(not _native.SUPPORTED, reason="sampling is for Linux")

Run = Callable[..., Any]


def test_code_that_dies_before_the_export_keeps_its_name(engine: Run) -> None:
    found = engine("""
start()
for n in range(200):
    namespace = {"work_until_walked": work_until_walked}
    source = "\\n" * n + f"def f{n}():\\n    work_until_walked(3)\\n"
    exec(compile(source, f"/gone/{n}.py", "exec"), namespace)
    namespace.pop(f"f{n}")()  # with no reference left it is gone; on free-threaded builds a collection later
gc.collect()
seen, _ = stop()
answer(frames=sorted({frame for frames, _ in seen for frame in frames if frame[1].startswith("/gone/")}))
""")
    lines: dict[tuple[str, str], set[int]] = {}
    for name, file, line in found["frames"]:
        if name != "<module>":
            lines.setdefault((name, file), set()).add(line)
    assert lines.keys() == {(f"f{n}", f"/gone/{n}.py") for n in range(200)}
    for (name, _), seen in lines.items():
        first = int(name[1:]) + 1
        assert {first + 1} <= seen <= {first, first + 1}  # a call begins at the line of its `def`


# `calls` lives on, and the line it is at tells which function it runs: a stale name would contradict it.
DYING_CODE = """
def call(k):
    global number
    name, number = f"f{number}", number + 1
    namespace = {"clock": time.perf_counter}
    source = f"def {name}():\\n end = clock() + 0.0002\\n while clock() < end: pass"
    exec(compile(source, name + ".py", "exec"), namespace)
    namespace[name]()

number = 0
lines = "".join(f"    call({k})\\n" for k in range(1000))
exec(compile("def calls():\\n" + lines, "calls.py", "exec"))
"""

CHURN = (
    """
rounds = int(sys.argv[1])

def type_slot():
    "PyCode_Type.tp_dealloc: after the header, ob_size, tp_name, tp_basicsize and tp_itemsize."
    return ctypes.c_void_p.from_address(id(CodeType) + object.__basicsize__ + 4 * 8).value
"""
    + DYING_CODE
    + """
destructors = [type_slot()]
start()
destructors.append(type_slot())
for _ in range(rounds):
    calls()
seen, counters = stop()
destructors.append(type_slot())
pairs = []
for frames, _ in seen:
    lines = [line for name, _, line in frames if name == "calls"]
    pairs += [(name, file, lines[0] - 2) for name, file, _ in frames if name[0] == "f" and name[1:].isdigit()]
answer(pairs=pairs, destructors=destructors)
"""
)


def test_an_address_that_is_used_again_has_its_new_name(engine: Run) -> None:
    found = engine(CHURN, "10")
    pairs = found["pairs"]
    assert len(pairs) > 300
    for name, file, k in pairs:
        assert file == name + ".py"
        assert int(name[1:]) % 1000 == k
    before, meanwhile, after = found["destructors"]
    assert before == after != meanwhile


def test_more_code_dies_between_two_ticks_than_can_be_noted(engine: Run) -> None:
    """Each generation of functions dies at once and the next takes its addresses; who calls them lives on."""
    found = engine("""
def function():
    end = clock() + 0.00003
    while clock() < end: pass

namespace = {"clock": time.perf_counter}
start(period_ns=10_000_000)
for generation in range(8):
    name = f"function {generation}"
    functions = [function.__code__.replace(co_qualname=name, co_filename=f"/{n}.py") for n in range(6000)]
    namespace["functions"] = functions
    exec(f"def caller():\\n for function in functions: exec(function)", namespace)
    caller = namespace["caller"]
    caller.__code__ = caller.__code__.replace(co_qualname=f"caller {generation}")
    caller()
    functions.clear()
seen, _ = stop()
kinds = "function ", "caller "
answer(names=[[name for name, _, _ in frames if name.startswith(kinds)] for frames, _ in seen])
""")
    pairs = [names for names in found["names"] if len(names) == 2]
    assert len(pairs) > 40
    for callee, caller in pairs:
        assert callee.removeprefix("function") == caller.removeprefix("caller")


def test_names_that_are_not_ascii(engine: Run) -> None:
    found = engine("""
def f():
    work_until_walked(3)

names = ["имя", "名前", "𝒻𓀀", "\\xff", "\\ud800x", "a\\udcff\\udc80", "", "nul\\0nul", "é" * 5000]
start()
for name in names:
    exec(f.__code__.replace(co_name="x", co_qualname=name, co_filename=f"/πath/{name}.py"))
bare = f.__code__.replace(co_qualname="no lines", co_linetable=b"")
exec(bare)
seen, _ = stop()
answer(seen=sorted({frames[1][:2] for frames, _ in seen if frames[0][0] == "work_until_walked"}), names=names,
       lines=[frames[1][2] for frames, _ in seen if frames[1:] and frames[1][0] == "no lines"])
""")

    def shown(name: str) -> str:
        return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in name)

    seen = [pair for pair in found["seen"] if pair[0] != "no lines"]
    assert sorted(seen) == sorted([shown(name), f"/πath/{shown(name)}.py"] for name in found["names"])
    assert set(found["lines"]) == {0}
