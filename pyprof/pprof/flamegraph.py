"""The flame graph: one self-contained HTML page that asks the network for nothing.

The page draws with its own renderer (`static/flamegraph-*.js`) rather than a bundled d3-flame-graph,
which makes five SVG and HTML elements of each frame and animates them all on every zoom, holds one value
a frame, and knows neither keys nor focus nor a screen reader. Ours paints what can be seen on one canvas,
so 50,000 frames stay smooth, switches between all sample types of the profile, works by keyboard alone,
and is a third of d3's size.

Nothing in a profile can become markup or script: the data stand in a JSON block in which `<`, `>`, `&`
and everything outside ASCII are escaped; the script puts them into the page as text only; and the page's
Content-Security-Policy allows exactly its one script and one style (by hash), no request of any kind, and
no way from a string to markup (trusted types).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

from pyprof.pprof.model import Function, Location, Profile, Sample
from pyprof.pprof.tree import LIMIT_NAME

__all__ = ["render"]

MAX_NODES = 200_000
"""Frames that a page holds; beyond them it stays correct but folds the lightest stacks (as `tree` does)."""

KIND_OTHER, KIND_APPLICATION, KIND_LIBRARY, KIND_STDLIB = range(4)
"""Where a function comes from, by its file: the page's colours."""

_SCRIPTS = ("flamegraph-data.js", "flamegraph-chart.js", "flamegraph-page.js")
_STDLIB_PATH = re.compile(
    r"/lib(?:64)?/(?:python|pypy)\d[^/]*/|/python\d[^/]*/lib/|/python\d+\.zip/|^<frozen ", re.IGNORECASE
)


def render(
    profile: Profile, sample_type: str | None = None, title: str | None = None, *, max_nodes: int = MAX_NODES
) -> str:
    """The page that shows `profile`, as ASCII text; the same profile always gives the same text.

    sample_type: the type to show first (None: the profile's default); the page can switch to the others.
    title: heading and window title, "Flame graph" where it is None.
    Raises ProfileError when the profile has no such sample type.
    """
    selected = profile.sample_type_index(sample_type)
    graph = _Graph(len(profile.sample_types), selected)
    graph.add(profile.samples, max_nodes)
    strings = _Strings()
    types = [[strings[t.type], strings[t.unit]] for t in profile.sample_types]
    data = {
        "title": title or "Flame graph",
        "facts": _facts(profile),
        "notes": [*graph.notes(), *profile.comments],
        "type": selected,
        "types": types,
        "functions": [
            [strings[f.name] for f in graph.functions],
            [strings[f.filename] for f in graph.functions],
            [f.start_line for f in graph.functions],
            [_kind(f) for f in graph.functions],
        ],
        "nodes": graph.nodes(),
        "lines": graph.lines(),
        "strings": strings.list,
    }
    return _page(data)


class _Strings:
    """Numbers strings in order of appearance."""

    def __init__(self) -> None:
        self.list: list[str] = []
        self._numbers: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        number = self._numbers.setdefault(text, len(self.list))
        if number == len(self.list):
            self.list.append(text)
        return number


class _Graph:
    """The call tree of all sample types at once, and the lines of every function.

    Functions are kept apart by name, file and first line. Node 0 is the root, "all".
    """

    def __init__(self, types: int, order_by: int) -> None:
        self.functions: list[Function] = []
        self._numbers: dict[Function, int] = {}
        self._frames: dict[int, tuple[tuple[int, int], ...]] = {}
        self._order_by = order_by
        self._owner = [self._number(Function("all"))]
        self._children: list[dict[int, int]] = [{}]
        self._flat: list[list[int]] = [[0] for _ in range(types)]
        self._lines: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        self._negative = 0
        self._folded = 0

    def add(self, samples: Sequence[Sample], max_nodes: int) -> None:
        """Count samples in, those with the largest share of any type first: they get the nodes there are."""
        totals = [sum(column) or 1 for column in zip(*(self._values(s) for s in samples), strict=True)]

        def weight(sample: Sample) -> float:
            return max((v / t for v, t in zip(self._values(sample), totals, strict=True)), default=0.0)

        for sample in sorted(samples, key=weight, reverse=True):
            values = self._values(sample)
            self._negative += any(v < 0 for v in sample.values)
            if any(values):
                self._add(sample.locations, values, max_nodes)

    def _values(self, sample: Sample) -> list[int]:
        # Only a difference of profiles holds negative values, and a negative width cannot be drawn.
        return [max(0, v) for v in sample.values]

    def _add(self, locations: tuple[Location, ...], values: list[int], max_nodes: int) -> None:
        node = 0
        folded = False
        frames = [frame for location in reversed(locations) for frame in self._frames_of(location)]
        for number, _ in frames:
            child = self._children[node].get(number)
            if child is None and len(self._owner) >= max_nodes:
                folded = True
                number = self._number(Function(LIMIT_NAME))
                child = self._children[node].get(number)
            if child is None:
                child = self._children[node][number] = len(self._owner)
                self._owner.append(number)
                self._children.append({})
                for column in self._flat:
                    column.append(0)
            node = child
            if folded:
                self._folded += 1
                break
        for column, value in zip(self._flat, values, strict=True):
            column[node] += value
        for frame in set(frames):
            cum = self._line(frame)[1]
            for k, value in enumerate(values):
                cum[k] += value
        if frames:
            flat = self._line(frames[-1])[0]
            for k, value in enumerate(values):
                flat[k] += value

    def _line(self, frame: tuple[int, int]) -> tuple[list[int], list[int]]:
        found = self._lines.get(frame)
        if found is None:
            found = self._lines[frame] = ([0] * len(self._flat), [0] * len(self._flat))
        return found

    def _frames_of(self, location: Location) -> tuple[tuple[int, int], ...]:
        """(function, line) of a location, outermost first. By identity: locations hash by value, slowly."""
        frames = self._frames.get(id(location))
        if frames is None:
            named = zip(location.names(), location.lines or (None,), strict=True)
            frames = self._frames[id(location)] = tuple(
                (
                    (self._number(Function(name)), 0)
                    if line is None
                    else (
                        self._number(Function(name, "", line.function.filename, line.function.start_line)),
                        line.line,
                    )
                )
                for name, line in named
            )[::-1]
        return frames

    def _number(self, function: Function) -> int:
        number = self._numbers.setdefault(function, len(self.functions))
        if number == len(self.functions):
            self.functions.append(function)
        return number

    def nodes(self) -> list[list[int]]:
        """Columns of the nodes in depth-first order: depth, function, then a flat value for each sample type.

        Siblings stand in the order of the first shown type, the largest first; they keep it when the page
        switches the type, so that frames do not jump about.
        """
        cum = list(self._flat[self._order_by])
        parents = [0] * len(cum)
        for node, children in enumerate(self._children):
            for child in children.values():
                parents[child] = node
        for node in range(len(cum) - 1, 0, -1):  # a child is always younger than its parent
            cum[parents[node]] += cum[node]

        def order(node: int) -> tuple[int, str, str, int]:
            function = self.functions[self._owner[node]]
            return -cum[node], function.name, function.filename, function.start_line

        columns: list[list[int]] = [[] for _ in range(2 + len(self._flat))]
        pending = [(0, 0)]
        while pending:
            node, depth = pending.pop()
            columns[0].append(depth)
            columns[1].append(self._owner[node])
            for column, flat in zip(columns[2:], self._flat, strict=True):
                column.append(flat[node])
            # The last one pushed is the next one out.
            callees = sorted(self._children[node].values(), key=order, reverse=True)
            pending.extend((callee, depth + 1) for callee in callees)
        return columns

    def lines(self) -> list[list[int]]:
        """Columns: function, line, then flat and cum for each sample type."""
        rows = [
            [*frame, *(v for pair in zip(flat, cum, strict=True) for v in pair)]
            for frame, (flat, cum) in sorted(self._lines.items())
        ]
        return [list(column) for column in zip(*rows, strict=True)] or [[], []]

    def notes(self) -> list[str]:
        """What the page shows differently from the profile."""
        notes = []
        if self._folded:
            notes.append(f"Too many frames for one page: the lightest stacks are cut at {LIMIT_NAME}.")
        if self._negative:
            notes.append(f"Negative values cannot be drawn and are left out ({self._negative} samples).")
        return notes


def _kind(function: Function) -> int:
    path = function.filename.replace("\\", "/")
    if not path or function.name.startswith("["):
        return KIND_OTHER
    if "/site-packages/" in path or "/dist-packages/" in path:
        return KIND_LIBRARY
    if _STDLIB_PATH.search(path):
        return KIND_STDLIB
    # Shortened paths (redact_paths) leave the module's name alone to tell.
    module = path.partition("/")[0].removesuffix(".py")
    if not path.startswith("/") and module in sys.stdlib_module_names:
        return KIND_STDLIB
    return KIND_APPLICATION


def _facts(profile: Profile) -> list[str]:
    """When the profile was taken and how long it took, for people."""
    facts = []
    if profile.time_ns:
        start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=profile.time_ns // 1000)
        facts.append(f"{start:%Y-%m-%d %H:%M:%S} UTC")
    if profile.duration_ns > 0:
        facts.append(_duration(profile.duration_ns / 1e9))
    if profile.period > 0 and profile.period_type and profile.period_type.unit == "nanoseconds":
        facts.append(f"a sample every {profile.period / 1e6:.4g} ms")
    return facts


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _page(data: dict[str, Any]) -> str:
    static = resources.files("pyprof.pprof") / "static"

    def read(name: str, escape: str) -> str:
        # Plain ASCII, so that the page survives being written in any encoding.
        text = (static / name).read_text(encoding="utf-8")
        return re.sub(r"[^\x00-\x7f]", lambda match: escape.format(ord(match[0])), text)

    style = read("flamegraph.css", "\\{:06x}")
    script = '"use strict";(() => {\n' + "".join(read(name, "\\u{:04x}") for name in _SCRIPTS) + "})();"
    parts = {
        "policy": _policy(script, style),
        "style": style,
        "script": script,
        "profile": _json(data),
    }
    # In one pass: what is put in is not searched for places again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], read("flamegraph.html", "&#{};"))


def _policy(script: str, style: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_source_hash(script)}",
            f"style-src {_source_hash(style)}",
            "img-src data:",  # the icon in the window's tab
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element of an ASCII page, whatever the strings hold."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
