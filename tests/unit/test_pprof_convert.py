"""Folded stacks, speedscope, the call tree, filters, and the functions' names on the way."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings

from pyprof.pprof import (
    Function,
    Label,
    Line,
    Location,
    Node,
    Profile,
    ProfileError,
    Sample,
    call_tree,
    focus,
    folded,
    label_keys,
    read,
    speedscope,
    top,
    with_label,
    write,
)
from pyprof.pprof.tree import LIMIT_NAME

from .profiles import CPU, ODD_NAMES, ordinary_profiles, place, profiles, talk

INLINED = Location((Line(Function("inner"), 3), Line(Function("outer"), 9)))


def one(*stack: Location, value: int = 1) -> Profile:
    return Profile([CPU], [Sample(stack, (value,))])


def walk(node: Node) -> list[Node]:
    return [node, *(below for child in node.children.values() for below in walk(child))]


def test_folded() -> None:
    assert folded(talk(), "samples").splitlines() == [
        "__main__.main 3",
        "__main__.main;__main__.doALot 20",
        "__main__.main;__main__.doALot;__main__.prepare 5",
        "__main__.main;__main__.doLittle 5",
        "__main__.main;__main__.doLittle;__main__.prepare 5",
    ]
    assert folded(talk()).startswith("__main__.main 30000000\n")


def test_folded_keeps_one_line_a_stack() -> None:
    profile = one(place("odd;name\nof two"), place("root"))
    assert folded(profile) == "root;odd:name\\nof two 1\n"
    assert folded(one(INLINED, place("root"))) == "root;outer;inner 1\n"
    assert folded(one(Location(address=255))) == "0xff 1\n"
    assert folded(one()) == "[no stack] 1\n"
    lines = Profile([CPU], [Sample((place("f", line),), (line,)) for line in (0, 1, 2)])
    assert folded(lines) == "f 3\n"


@given(ordinary_profiles())
@settings(max_examples=50, deadline=None)
def test_all_views_agree_on_the_sums(profile: Profile) -> None:
    total = profile.total()
    tree = call_tree(profile)
    assert tree.cum == total == sum(node.flat for node in walk(tree))
    for node in walk(tree):
        assert node.cum == node.flat + sum(child.cum for child in node.children.values())
    lines = [line.rpartition(" ") for line in folded(profile).splitlines()]
    assert sum(int(value) for _, _, value in lines) == total
    flat = {row.name: row.flat for row in top(profile)}
    leaves: dict[str, int] = {}
    for node in walk(tree):
        leaves[node.name] = leaves.get(node.name, 0) + node.flat
    assert {name: value for name, value in flat.items() if value} == {k: v for k, v in leaves.items() if v}


def test_call_tree() -> None:
    tree = call_tree(talk(), "samples")
    (main,) = tree.children.values()
    assert (tree.name, tree.cum, tree.flat) == ("all", 38, 0)
    assert (main.name, main.cum, main.flat) == ("__main__.main", 38, 3)
    assert {name: (child.cum, child.flat) for name, child in main.children.items()} == {
        "__main__.doALot": (25, 20),
        "__main__.doLittle": (10, 5),
    }


def test_a_tree_at_its_limit_keeps_heavy_stacks_and_all_sums() -> None:
    heavy = [Sample((place(f"heavy{i}"), place("root")), (1000 + i,)) for i in range(3)]
    light = [Sample((place(f"leaf{i}"), place(f"light{i}"), place("root")), (1,)) for i in range(50)]
    samples = heavy + light
    random.Random(7).shuffle(samples)
    tree = call_tree(Profile([CPU], samples), max_nodes=6)
    nodes = walk(tree)
    assert tree.cum == 3003 + 50 == sum(node.flat for node in nodes)
    assert len(nodes) <= 2 * 6 + 1
    root = tree.children["root"]
    assert [root.children[f"heavy{i}"].cum for i in range(3)] == [1000, 1001, 1002]
    assert root.children[LIMIT_NAME].cum >= 48


def test_a_stack_of_thousands_is_no_recursion() -> None:
    deep = one(*[place(f"f{i}") for i in range(20_000)])
    node, depth = call_tree(deep), 0
    while node.children:
        (node,) = node.children.values()
        depth += 1
    assert depth == 20_000
    assert folded(deep).count(";") == 19_999
    assert json.loads(speedscope(deep))["profiles"][0]["samples"][0] == list(range(20_000))


@given(profiles())
@settings(max_examples=50, deadline=None)
def test_speedscope_holds_to_its_schema(profile: Profile) -> None:
    check_speedscope(json.loads(speedscope(profile, "a name")))


def test_speedscope() -> None:
    document = json.loads(speedscope(talk(), "talk", "samples"))
    check_speedscope(document)
    frames = document["shared"]["frames"]
    assert frames[0] == {"name": "__main__.main", "file": "/srv/app.py", "line": 1}
    counts, times = document["profiles"]
    assert document["activeProfileIndex"] == 0
    assert json.loads(speedscope(talk()))["activeProfileIndex"] == 1
    assert (counts["name"], counts["unit"]) == ("samples", "none")
    assert (times["name"], times["unit"]) == ("cpu", "nanoseconds")
    stacks = [[frames[index]["name"][9:] for index in stack] for stack in counts["samples"]]
    assert [";".join(stack) for stack in stacks] == [
        "main",
        "main;doALot",
        "main;doALot;prepare",
        "main;doLittle",
        "main;doLittle;prepare",
    ]
    assert counts["weights"] == [3, 20, 5, 5, 5]
    assert times["endValue"] == 380_000_000


def check_speedscope(document: dict[str, Any]) -> None:
    """The rules of speedscope's file-format-schema.json for sampled profiles, and that indices exist."""
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert set(document) <= {"$schema", "name", "exporter", "activeProfileIndex", "shared", "profiles"}
    assert set(document["shared"]) == {"frames"}
    frames = document["shared"]["frames"]
    for frame in frames:
        assert isinstance(frame["name"], str)
        assert isinstance(frame.get("file", ""), str)
        assert type(frame.get("line", 1)) is int
        assert set(frame) <= {"name", "file", "line", "col"}
    assert 0 <= document["activeProfileIndex"] < len(document["profiles"])
    for part in document["profiles"]:
        assert set(part) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
        assert part["type"] == "sampled"
        assert part["unit"] in ("none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes")
        assert len(part["samples"]) == len(part["weights"])
        assert all(weight > 0 for weight in part["weights"])
        assert part["startValue"] == 0
        assert part["endValue"] == sum(part["weights"])
        assert all(0 <= index < len(frames) for stack in part["samples"] for index in stack)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_survive(name: str) -> None:
    profile = read(write(one(place(name))))
    assert [row.name for row in top(profile)] == [name]
    assert list(call_tree(profile).children) == [name]
    assert json.loads(speedscope(profile))["shared"]["frames"][0]["name"] == name
    assert folded(profile) == name.replace(";", ":") + " 1\n"


def test_inlined_frames_count_one_each() -> None:
    profile = one(INLINED, place("root"), value=4)
    assert {row.name: (row.flat, row.cum) for row in top(profile)} == {
        "inner": (4, 4),
        "outer": (0, 4),
        "root": (0, 4),
    }


def test_with_label() -> None:
    profile = talk()
    profile.samples[1].labels = (Label("endpoint", "/a=b"), Label("pid", 8))
    assert [sample.values[0] for sample in with_label(profile, "pid", "7").samples] == [3, 5, 5, 5]
    assert [sample.values[0] for sample in with_label(profile, "endpoint", "/a=b").samples] == [20]
    assert with_label(profile, "endpoint", "8").samples == []
    assert with_label(profile, "pid", "7").comments == profile.comments
    assert label_keys(profile) == ["endpoint", "pid"]


def test_focus() -> None:
    assert focus(talk(), "__main__.doLittle").total("samples") == 10
    assert focus(talk(), "doLittle").samples == []


def test_views_refuse_a_type_that_is_not_there() -> None:
    for view in (top, call_tree, folded, lambda profile, kind: speedscope(profile, "x", kind)):
        with pytest.raises(ProfileError, match="no sample type 'nope'"):
            view(talk(), "nope")
