"""Random call graphs of tiny functions: their source, and the truth of who calls whom from which line.

A graph has layers; a function calls some of the layers below, each on a line of its own, and some call
themselves. What they do between is next to nothing, so that nearly every moment is one at which the stack
changes. Frames differ in size, by parameters, locals and the depth of expressions, but many have the same:
those can take each other's place in a copy that mixes two moments.

What a function is (NATURES) and how it is called (STYLES) depends on the kind of the graph (KINDS). The same
kind and seed make the same graph.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Place = tuple[str, int]
"""(qualname, line): no two functions of a graph share one."""


@dataclass(frozen=True)
class Nature:
    """How a function is written; `{i}` is its number, `{p}` its parameters."""

    group: str
    """What its callers have to do, see STYLES."""
    qualname: str
    head: Sequence[str]
    expression: str
    """What calls it, or makes the generator, coroutine or iterator that runs it; `{a}` for the arguments."""
    tail: Sequence[str] = ()
    end: str = "return n"
    has_parameters: bool = True
    also_calls: str = ""
    """A second function that the same line calls."""


def method(name: str, expression: str, end: str = "return n", *, has_parameters: bool = False) -> Nature:
    parameters = "self, {p}" if has_parameters else "self, n=1"
    return Nature(
        "function" if has_parameters else "expression",
        "C{i}." + name,
        ("class C{i}:", f"    def {name}({parameters}):"),
        expression,
        ("o{i} = C{i}()",) if name != "__init__" else (),
        end,
        has_parameters,
    )


NATURES = {
    "function": Nature("function", "f{i}", ("def f{i}({p}):",), "f{i}({a})"),
    "closure": Nature(
        "function",
        "make{i}.<locals>.f{i}",
        ("def make{i}(k):", "    def f{i}({p}):"),
        "f{i}({a})",
        ("    return f{i}", "f{i} = make{i}({i})"),
        "return n if k else k",
    ),
    "lambda": Nature("function", "<lambda>", ("f{i} = lambda {p}: ",), "f{i}({a})"),
    "method": method("f{i}", "o{i}.f{i}({a})", has_parameters=True),
    "constructor": method("__init__", "C{i}({a})", "self.n = n", has_parameters=True),
    "call": method("__call__", "o{i}({a})", has_parameters=True),
    "item": method("__getitem__", "o{i}[n]"),
    "addition": method("__add__", "o{i} + n"),
    "containment": method("__contains__", "n in o{i}"),
    "next": method("__next__", "next(o{i})"),
    "property": Nature(
        "expression",
        "C{i}.f{i}",
        ("class C{i}:", "    def f{i}(self, n=1):"),
        "o{i}.f{i}",
        ("    f{i} = property(f{i})", "o{i} = C{i}()"),
        has_parameters=False,
    ),
    "context": Nature(
        "context",
        "C{i}.__enter__",
        ("class C{i}:", "    def __enter__(self, n=1):"),
        "o{i}",
        ("    def __exit__(self, *exception): pass", "o{i} = C{i}()"),
        has_parameters=False,
        also_calls="C{i}.__exit__",
    ),
    "generator": Nature("generator", "f{i}", ("def f{i}({p}):",), "f{i}({a})", end="yield n"),
    "lasting generator": Nature(
        "expression",
        "f{i}",
        ("def f{i}(n=1):", "    while True:"),
        "next(g{i})",
        ("g{i} = f{i}()",),
        "yield n",
        has_parameters=False,
    ),
    "coroutine": Nature("coroutine", "f{i}", ("async def f{i}({p}):",), "f{i}({a})"),
    "async generator": Nature(
        "async generator", "f{i}", ("async def f{i}({p}):",), "f{i}({a})", end="yield n"
    ),
}


GROUPS = tuple({nature.group: None for nature in NATURES.values()})


@dataclass(frozen=True)
class Style:
    """A line that calls: `{e}` is the callee's expression, `{r}` what that calls, `{n}` its argument."""

    group: str
    line: str
    callers: Sequence[str] = GROUPS
    """Groups of functions that can have this line."""
    between: str = ""
    """A function that CPython makes of a part of the line: it calls the callee, and is called by the line."""
    begins_task: bool = False
    """The callee is called by the event loop."""

    @property
    def is_expression(self) -> bool:
        return not self.line.startswith(("for", "with", "async for"))


COMPREHENSION = "<listcomp>" if sys.version_info < (3, 12) else ""  # inlined later on
ASYNC = ("coroutine", "async generator")
STYLES = {
    "call": Style("function", "{e}"),
    "deep": Style("function", "n + (n + (n + (n, {e}, n)[0]))"),
    "unpacking": Style("function", "{r}(*({n},))"),
    "map": Style("function", "list(map({r}, ({n},)))"),
    "key": Style("function", "sorted(({n},), key={r})"),
    "partial": Style("function", "partial({r}, {n})()"),
    "comprehension": Style("function", "[{e} for _ in (n,)]", between=COMPREHENSION),
    "generator expression": Style("function", "list({e} for _ in (n,))", between="<genexpr>"),
    "operation": Style("expression", "{e}"),
    "operation in a comprehension": Style("expression", "[{e} for _ in (n,)]", between=COMPREHENSION),
    "with": Style("context", "with {e}: pass"),
    "for": Style("generator", "for _ in {e}: pass"),
    "list": Style("generator", "list({e})"),
    "sum": Style("generator", "sum(1 for _ in {e})", between="<genexpr>"),
    "yield from": Style("generator", "yield from {e}", ("generator",)),
    "for yield": Style("generator", "for x in {e}: yield x", ("generator",)),
    "await": Style("coroutine", "await {e}", ASYNC),
    "async comprehension": Style("coroutine", "[await {e} for _ in (n,)]", ASYNC, between=COMPREHENSION),
    "async for": Style("async generator", "async for _ in {e}: pass", ASYNC),
    "async for in a comprehension": Style(
        "async generator", "[_ async for _ in {e}]", ASYNC, between=COMPREHENSION
    ),
    "async for yield": Style("async generator", "async for x in {e}: yield x", ("async generator",)),
    "gather": Style("coroutine", "await gather({e}, {e})", ASYNC, begins_task=True),
    "task": Style("coroutine", "await create_task({e})", ASYNC, begins_task=True),
}


@dataclass(frozen=True)
class Kind:
    natures: Sequence[str]
    styles: Sequence[str]
    driven_by: str = "call"
    """`call`, `send` (a coroutine without a loop) or `asyncio`."""


FUNCTIONS = ("function", "closure", "lambda", "method", "constructor", "call")
OPERATIONS = ("item", "addition", "containment", "next", "property", "context")
STYLES_OF_FUNCTIONS = ("call", "deep", "unpacking", "comprehension", "generator expression")
STYLES_OF_GENERATORS = ("for", "list", "sum", "yield from", "for yield", "operation")
KINDS = {
    "calls": Kind(("function",), ("call", "deep")),
    "c_calls": Kind(("function",), ("map", "key", "partial", "unpacking", "call")),
    "methods": Kind(
        (*FUNCTIONS, *OPERATIONS),
        (*STYLES_OF_FUNCTIONS, "operation", "operation in a comprehension", "with"),
    ),
    "generators": Kind(
        ("generator", "generator", "lasting generator", "function"), ("call", *STYLES_OF_GENERATORS)
    ),
    "coroutines": Kind(("coroutine", "coroutine", "function"), ("call", "await"), "send"),
    "async_generators": Kind(
        ("async generator", "async generator", "coroutine", "function"),
        ("call", "await", "async for", "async for in a comprehension", "async for yield"),
        "send",
    ),
    "asyncio": Kind(
        ("coroutine", "coroutine", "coroutine", "async generator", "generator", "function"),
        ("call", "await", "async comprehension", "async for", "for", "gather", "task"),
        "asyncio",
    ),
    "mixed": Kind(tuple(NATURES), tuple(STYLES), "asyncio"),
}

LAYERS = 6
LAYERS_WITH_TASKS = 2
DEPTH = 2  # of recursion
RECURSIVE = 0.15
SLEEPING = 0.1
SIZES = (0, 0, 0, 0, 1, 2, 3, 5, 8)  # of parameters, locals and expressions


@dataclass
class Function:
    number: int
    layer: int
    nature: Nature
    parameters: int
    """Beside the first."""
    called: bool = False

    def fill(self, template: str) -> str:
        parameters = ["n", *(f"p{k}={k}" for k in range(self.parameters))]
        return template.replace("{i}", str(self.number)).replace("{p}", ", ".join(parameters))


@dataclass
class CallGraph:
    kind: str
    seed: int
    source: str = ""
    """A module; its `work(end)` calls all of the graph until `monotonic() > end`."""
    places: dict[Place, int] = field(default_factory=dict)
    """The function that a line belongs to: a number, since lambdas share a name."""
    calls: dict[Place, set[int]] = field(default_factory=dict)
    """The functions that a line calls."""
    tasks: set[int] = field(default_factory=set)
    """The functions that the event loop calls."""

    @property
    def name(self) -> str:
        """The module's."""
        return f"graph_{self.kind}_{self.seed}"


class _Writer:
    """Writes the functions of a graph one after the other, and notes what is true of each line."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind = KINDS[kind]
        self.random = random.Random(f"{kind} {seed}")
        self.graph = CallGraph(kind, seed)
        self.lines = [
            "from asyncio import create_task, gather, sleep",
            "from functools import partial",
            "from time import monotonic",
        ]
        count = self.random.randint(40, 120)
        self.functions = [self.make_function(i, i * LAYERS // count) for i in range(count)]
        self.numbers = count  # of functions, those included that CPython makes

    def make_function(self, number: int, layer: int) -> Function:
        nature = NATURES[self.random.choice(self.kind.natures)]
        return Function(number, layer, nature, self.random.choice(SIZES) if nature.has_parameters else 0)

    def next_number(self) -> int:
        self.numbers += 1
        return self.numbers - 1

    def add(self, line: str, qualname: str = "", number: int = 0) -> Place:
        self.lines.append(line)
        place = (qualname, len(self.lines))
        if qualname:
            self.graph.places[place] = number
        return place

    def styles(self, group: str, layer: int, callee: Function, in_expression: bool = False) -> list[Style]:
        """Ways in which a function of that group and layer can call this one."""
        return [
            style
            for style in map(STYLES.__getitem__, self.kind.styles)
            if style.group == callee.nature.group
            and group in style.callers
            and (style.is_expression or not in_expression)
            and not (style.begins_task and layer >= LAYERS_WITH_TASKS)
        ]

    def text_of_call(self, callee: Function, style: Style, n: str = "n") -> str:
        expression = callee.fill(callee.nature.expression)
        given = self.random.choice((0, callee.parameters))
        arguments = ", ".join([n, *map(str, range(given))])
        return style.line.format(e=expression.format(a=arguments), r=expression.removesuffix("({a})"), n=n)

    def declare(self, place: Place, callee: Function, style: Style) -> None:
        """That line calls that function, in that way."""
        if style.begins_task:
            self.graph.tasks.add(callee.number)
            return
        calls = self.graph.calls
        if style.between:
            qualname, line = place
            between = (f"{qualname}.<locals>.{style.between}", line)
            if between not in self.graph.places:
                self.graph.places[between] = self.next_number()
            calls.setdefault(place, set()).add(self.graph.places[between])
            place = between
        calls.setdefault(place, set()).add(callee.number)
        if callee.nature.also_calls:
            calls[place].add(~callee.number)

    def choose_calls(self, caller: Function) -> Iterator[tuple[Function, Style]]:
        is_lambda = caller.nature is NATURES["lambda"]
        below = [
            (callee, styles)
            for callee in self.functions
            if caller.layer < callee.layer <= caller.layer + 2
            and (styles := self.styles(caller.nature.group, caller.layer, callee, is_lambda))
        ]
        for callee, styles in self.random.sample(below, min(len(below), self.random.randint(1, 3))):
            callee.called = True
            yield callee, self.random.choice(styles)

    def write_lambda(self, function: Function) -> None:
        calls = list(self.choose_calls(function))
        texts = [self.text_of_call(*one) for one in calls]
        line = function.fill(function.nature.head[0]) + f"({', '.join([*texts, 'n'])},)[-1]"
        place = self.add(line, "<lambda>", function.number)
        for one in calls:
            self.declare(place, *one)

    def write_function(self, function: Function) -> None:
        nature = function.nature
        qualname = function.fill(nature.qualname)
        first = max(k for k, line in enumerate(nature.head) if "def " in line)
        for k, line in enumerate(nature.head):
            self.add(function.fill(line), qualname if k >= first else "", function.number)
        indent = " " * (len(line) - len(line.lstrip()) + 4)

        def add(line: str) -> Place:
            return self.add(indent + line, qualname, function.number)

        if size := self.random.choice(SIZES):
            add(" = ".join(f"x{k}" for k in range(size)) + " = n")
        if size := self.random.choice(SIZES):
            add("y = " + "n + (" * size + "n" + ")" * size)
        itself = self.styles(nature.group, LAYERS_WITH_TASKS, function, in_expression=True)
        if itself and nature.has_parameters and self.random.random() < RECURSIVE:
            style = self.random.choice(itself)
            self.declare(add(f"if n > 0: {self.text_of_call(function, style, 'n - 1')}"), function, style)
        for callee, style in self.choose_calls(function):
            self.declare(add(self.text_of_call(callee, style)), callee, style)
        sleeps = self.kind.driven_by == "asyncio" and nature.group == "coroutine"
        if sleeps and self.random.random() < SLEEPING:
            add("await sleep(0)")
        add(nature.end)
        for line in nature.tail:
            is_function = "def " in line
            self.add(
                function.fill(line), function.fill(nature.also_calls) if is_function else "", ~function.number
            )

    def write_work(self) -> None:
        number = self.next_number()
        is_async = self.kind.driven_by != "call"
        for line in (f"{'async ' * is_async}def work(end):", f"    n = {DEPTH}", "    while True:"):
            self.add(line, "work", number)
        for function in self.functions:
            if function.layer == 0 or not function.called:
                style = self.random.choice(self.styles("coroutine" if is_async else "function", 0, function))
                text = self.text_of_call(function, style)
                self.declare(self.add(f"        {text}", "work", number), function, style)
        self.add("        if monotonic() > end: return", "work", number)

    def write(self) -> CallGraph:
        for function in self.functions:
            if function.nature is NATURES["lambda"]:
                self.write_lambda(function)
            else:
                self.write_function(function)
        self.write_work()
        self.graph.source = "\n".join([*self.lines, ""])
        return self.graph


def make_call_graph(kind: str, seed: int) -> CallGraph:
    return _Writer(kind, seed).write()
