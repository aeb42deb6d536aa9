"""The flame graph page, without a browser: its data, its escaping, its policy, its colours.

What a browser makes of it is tested in tests/frameworks/test_flamegraph_*.py.
"""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.pprof.errors import ProfileError
from pyprof.pprof.flamegraph import KIND_APPLICATION, KIND_LIBRARY, KIND_OTHER, KIND_STDLIB, render
from pyprof.pprof.model import Function, Line, Location, Profile, Sample, ValueType
from pyprof.pprof.table import top
from pyprof.pprof.tree import LIMIT_NAME, Node, call_tree

TYPES = [ValueType("samples", "count"), ValueType("cpu", "nanoseconds"), ValueType("wall", "nanoseconds")]
HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>&lt;&amp;",
    '"onload="alert(1)',
    "a\u2028b\u2029c",
    "nul\x00 tab\t line\n",
    "{{script}}{{profile}}",
    "lone \ud800 surrogate",
    "функция.日本語.🔥",
    "\u202egnp.exe",
]


def frame(name: str, line: int = 2, filename: str = "/srv/app.py", start: int = 1) -> Location:
    return Location((Line(Function(name, "", filename, start), line),))


def stack(*names: str) -> tuple[Location, ...]:
    """A stack, root first as one reads it."""
    return tuple(frame(name) for name in reversed(names))


def profile(*samples: tuple[tuple[Location, ...], tuple[int, ...]], **fields: Any) -> Profile:
    fields.setdefault("default_sample_type", "cpu")
    return Profile(TYPES, [Sample(locations, values) for locations, values in samples], **fields)


TALK = profile(
    (stack("main"), (3, 30, 31)),
    (stack("main", "doALot"), (20, 200, 201)),
    (stack("main", "doALot", "prepare"), (5, 50, 51)),
    (stack("main", "doLittle"), (5, 50, 51)),
    (stack("main", "doLittle", "prepare"), (5, 50, 51)),
)


class Elements(HTMLParser):
    """What a browser finds: elements with their attributes, and the contents of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.contents.append((tag, ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in ("script", "style"):  # newer parsers read titles that way too
            tag, text = self.contents.pop()
            self.contents.append((tag, text + data))

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def content(self, tag: str) -> list[str]:
        return [text for name, text in self.contents if name == tag]

    def policy(self) -> dict[str, list[str]]:
        [meta] = [a for _, a in self.elements if a.get("http-equiv") == "Content-Security-Policy"]
        directives = [directive.split() for directive in str(meta["content"]).split(";")]
        return {words[0]: words[1:] for words in directives}


def data_of(page: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Elements(page).content("script")[0])
    return data


def paths_of(page: str) -> dict[tuple[str, ...], list[int]]:
    """Flat values of every node by its path, root first: the page's encoding undone."""
    data = data_of(page)
    names = [data["strings"][number] for number in data["functions"][0]]
    depths, owners, *flats = data["nodes"]
    path: list[str] = []
    found: dict[tuple[str, ...], list[int]] = {}
    for depth, owner, *flat in zip(depths, owners, *flats, strict=True):
        assert depth <= len(path), "a node deeper than a child of the one before it"
        path[depth:] = [names[owner]]
        assert tuple(path) not in found, "siblings of one function"
        found[tuple(path)] = flat
    return found


def cum_of(paths: dict[tuple[str, ...], list[int]], path: tuple[str, ...], column: int) -> int:
    return sum(flat[column] for below, flat in paths.items() if below[: len(path)] == path)


def test_the_nodes_hold_every_sample_type() -> None:
    paths = paths_of(render(TALK))
    assert paths == {
        ("all",): [0, 0, 0],
        ("all", "main"): [3, 30, 31],
        ("all", "main", "doALot"): [20, 200, 201],
        ("all", "main", "doALot", "prepare"): [5, 50, 51],
        ("all", "main", "doLittle"): [5, 50, 51],
        ("all", "main", "doLittle", "prepare"): [5, 50, 51],
    }
    assert list(paths)[2][-1] == "doALot", "the largest sibling comes first"


def test_shown_type_and_title() -> None:
    data = data_of(render(TALK, "wall", "shop & <co>"))
    assert [[data["strings"][t], data["strings"][u]] for t, u in data["types"]][data["type"]] == [
        "wall",
        "nanoseconds",
    ]
    assert data["title"] == "shop & <co>"
    assert data_of(render(TALK))["type"] == 1, "the profile's default type"


def test_unknown_type() -> None:
    with pytest.raises(ProfileError, match="'heap'"):
        render(TALK, "heap")


def test_the_same_profile_gives_the_same_page() -> None:
    assert render(TALK) == render(TALK)


def test_facts_and_comments() -> None:
    taken = profile(
        time_ns=1_700_000_000_123_456_789,
        duration_ns=90_500_000_000,
        period_type=ValueType("cpu", "nanoseconds"),
        period=10_000_000,
        comments=["pid 42", "<b>0 dropped</b>"],
    )
    data = data_of(render(taken))
    assert data["facts"] == ["2023-11-14 22:13:20 UTC", "1 min 30 s", "a sample every 10 ms"]
    assert data["notes"] == ["pid 42", "<b>0 dropped</b>"]
    assert data_of(render(profile()))["facts"] == []


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_becomes_markup(text: str) -> None:
    hostile = profile(
        ((Location((Line(Function(text, "", text, 1), 2),)),), (1, 2, 3)),
        comments=[text],
        default_sample_type="cpu",
    )
    page = render(hostile, title=text)
    assert page.isascii()
    calm = Elements(render(profile((stack("f"), (1, 2, 3)), comments=["c"]), title="t"))
    seen = Elements(page)
    assert seen.elements == calm.elements, (
        "the elements and their attributes are the same whatever the names are"
    )
    assert seen.content("script")[1:] == calm.content("script")[1:]
    data = data_of(page)
    assert data["title"] == data["notes"][0] == text
    assert data["strings"].count(text) == 1, "function and file share one string, unchanged"
    block = seen.content("script")[0]
    assert not set(block) & set("<>&\u2028\u2029"), "the block cannot end, nor hold a comment or an entity"


def test_the_policy_allows_this_script_and_this_style_only() -> None:
    page = Elements(render(TALK))

    def source(text: str) -> list[str]:
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"]

    [style] = page.content("style")
    [_, script] = page.content("script")
    assert page.policy() == {
        "default-src": ["'none'"],
        "script-src": source(script),
        "style-src": source(style),
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }
    first = page.tags().index("style")
    assert page.elements[first - 1][0] == "title"
    policy = next(
        i for i, (_, a) in enumerate(page.elements) if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy < first, "a policy holds for what comes after it"
    addresses = [
        a[name] for _, a in page.elements for name in ("src", "href", "action", "srcset") if name in a
    ]
    assert [str(address).partition(",")[0] for address in addresses] == ["data:image/svg+xml"]
    assert not [a for _, a in page.elements if any(name.startswith("on") or name == "style" for name in a)]
    assert "url(" not in style
    assert "@import" not in style


def test_the_script_has_no_way_to_markup_or_code() -> None:
    script = Elements(render(TALK)).content("script")[1]
    ways = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|fetch\(|XMLHttp|import\("
    )
    assert re.findall(ways, script) == []


def test_beyond_its_limit_the_page_folds_the_lightest_stacks() -> None:
    heavy = (stack("main", "heavy", "leaf"), (100, 1000, 1000))
    light = [(stack("main", f"f{i}", f"g{i}", f"h{i}"), (1, 10 + i, 10)) for i in range(50)]
    big = profile(*light, heavy)
    page = render(big, max_nodes=40)
    paths = paths_of(page)
    assert paths["all", "main", "heavy", "leaf"] == [100, 1000, 1000]
    assert len(paths) < 40 + 50
    assert any(path[-1] == LIMIT_NAME for path in paths)
    for column, value_type in enumerate(TYPES):
        assert cum_of(paths, ("all",), column) == big.total(value_type.type), "nothing is lost"
    assert any(LIMIT_NAME in note for note in data_of(page)["notes"])
    assert data_of(render(big))["notes"] == []


def test_negative_values_are_left_out_and_said() -> None:
    difference = profile((stack("a"), (1, -5, 3)), (stack("b"), (1, 7, 0)))
    page = render(difference)
    assert paths_of(page)["all", "a"] == [1, 0, 3]
    assert "1 samples" in data_of(page)["notes"][0]


def test_deep_stacks() -> None:
    names = [f"f{i}" for i in range(5000)]
    assert len(paths_of(render(profile((stack(*names), (1, 1, 1)))))) == 5001


def test_no_samples_and_no_frames() -> None:
    assert paths_of(render(profile())) == {("all",): [0, 0, 0]}
    assert paths_of(render(profile(((), (1, 2, 3))))) == {("all",): [1, 2, 3]}


def test_inlined_functions_and_addresses() -> None:
    inlined = Location((Line(Function("inner"), 1), Line(Function("outer"), 2)))
    paths = paths_of(render(profile(((Location(address=0x1F), inlined), (1, 1, 1)))))
    assert ("all", "outer", "inner", "0x1f") in paths


def test_lines_count_a_stack_once() -> None:
    recursive = (frame("f", 7), frame("f", 7), frame("f", 9), frame("main", 3))
    data = data_of(render(profile((recursive, (1, 10, 100)), ((frame("f", 9),), (1, 1, 1)))))
    names = [data["strings"][number] for number in data["functions"][0]]
    rows = {(names[f], line): values for f, line, *values in zip(*data["lines"], strict=True)}
    assert rows == {  # flat and cum of samples, cpu, wall
        ("f", 7): [1, 1, 10, 10, 100, 100],
        ("f", 9): [1, 2, 1, 11, 1, 101],
        ("main", 3): [0, 1, 0, 10, 0, 100],
    }


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("/srv/shop/app.py", KIND_APPLICATION),
        ("<string>", KIND_APPLICATION),
        ("/srv/venv/lib/python3.12/site-packages/flask/app.py", KIND_LIBRARY),
        ("C:\\Python312\\Lib\\site-packages\\flask\\app.py", KIND_LIBRARY),
        ("/usr/lib/python3/dist-packages/apt.py", KIND_LIBRARY),
        ("/usr/lib/python3.12/json/decoder.py", KIND_STDLIB),
        ("/opt/lib/python3.14t/queue.py", KIND_STDLIB),
        ("C:\\Python312\\Lib\\queue.py", KIND_STDLIB),
        ("<frozen importlib._bootstrap>", KIND_STDLIB),
        ("json/decoder.py", KIND_STDLIB),
        ("shop/app.py", KIND_APPLICATION),
        ("", KIND_OTHER),
    ],
)
def test_where_a_function_comes_from(filename: str, kind: int) -> None:
    data = data_of(render(profile(((frame("f", filename=filename),), (1, 1, 1)))))
    assert data["functions"][3][1] == kind


def names_of_random_stacks() -> st.SearchStrategy[list[tuple[list[str], tuple[int, int, int]]]]:
    values = st.integers(0, 1000)
    return st.lists(
        st.tuples(st.lists(st.sampled_from("abcd"), max_size=6), st.tuples(values, values, values)),
        max_size=20,
    )


@settings(deadline=None)
@given(names_of_random_stacks())
def test_agrees_with_the_table_and_the_tree(samples: list[tuple[list[str], tuple[int, int, int]]]) -> None:
    anything = profile(*((stack(*names), values) for names, values in samples))
    paths = paths_of(render(anything))
    for column, value_type in enumerate(TYPES):
        for row in top(anything, value_type.type):
            assert row.flat == sum(flat[column] for path, flat in paths.items() if path[-1] == row.name)
            outermost = {path[: path.index(row.name) + 1] for path in paths if row.name in path}
            assert row.cum == sum(cum_of(paths, path, column) for path in outermost)
        pending: list[tuple[tuple[str, ...], Node]] = [(("all",), call_tree(anything, value_type.type))]
        while pending:
            path, node = pending.pop()
            assert paths[path][column] == node.flat
            assert cum_of(paths, path, column) == node.cum
            pending.extend(((*path, child.name), child) for child in node.children.values())


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def mixed(over: str, under: str, opacity: float) -> str:
    pairs = ((int(over[i : i + 2], 16), int(under[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a * opacity + b * (1 - opacity)):02x}" for a, b in pairs)


def static(name: str) -> str:
    return (resources.files("pyprof.pprof") / "static" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_frames_can_be_read(theme: str) -> None:
    palettes = static("flamegraph-chart.js").split("const PALETTES", 1)[1].split("};", 1)[0]
    palette = palettes.split(f"{theme}: {{", 1)[1].split("\n  },", 1)[0]
    named = dict(re.findall(r'(\w+): "(#[0-9a-f]{6})"', palette))
    fills = re.findall(r'"(#[0-9a-f]{6})"', palette.split("fills: [", 1)[1].split("],\n    ]", 1)[0])
    assert len(fills) > 15
    too_faint = [fill for fill in fills if contrast(named["text"], fill) < 4.5]
    too_faint += [fill for fill in fills if contrast(mixed(named["text"], fill, 0.85), fill) < 4.5]
    assert too_faint == [], "4.5 is what WCAG asks for text of this size (level AA)"
    assert contrast(named["matchText"], named["match"]) >= 4.5
    assert contrast(named["dimText"], named["dim"]) >= 4.5
    assert min(contrast(named["match"], fill) for fill in [named["dim"]]) >= 3


@pytest.mark.parametrize("theme", ["", '[data-theme="dark"]'])
def test_text_of_the_page_can_be_read(theme: str) -> None:
    block = static("flamegraph.css").split(f":root{theme} {{", 1)[1].split("}", 1)[0]
    named = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    for text in ("text", "muted", "accent", "match"):
        for ground in ("page", "panel", "raised"):
            assert contrast(named[text], named[ground]) >= 4.5, (text, ground)
    assert contrast(named["on-accent"], named["accent"]) >= 4.5
    assert contrast(named["control"], named["panel"]) >= 3, "the edge of the search field"


def test_size() -> None:
    assert len(render(TALK)) < 64_000
