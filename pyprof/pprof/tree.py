"""The call tree by function name, root first: what a flame graph draws."""

from __future__ import annotations

from collections.abc import Iterator

from pyprof.pprof.model import Profile, Sample

__all__ = ["LIMIT_NAME", "Node", "call_tree"]

LIMIT_NAME = "[small stacks]"
"""Stands for the callees that a tree at its limit has no nodes for."""


class Node:
    """A function called by the functions above it.

    flat: the value of samples that end here; cum: with everything called from here.
    """

    __slots__ = ("children", "cum", "flat", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.flat = 0
        self.cum = 0
        self.children: dict[str, Node] = {}


def call_tree(profile: Profile, sample_type: str | None = None, *, max_nodes: int = 500_000) -> Node:
    """The tree of all samples under one root named "all"; its cum is the sum of all values.

    Children stand in the order of their names. A profile with more than `max_nodes` distinct call
    paths keeps the heaviest samples whole; what the rest has beyond the nodes made so far goes to
    a child named LIMIT_NAME, so the sums stay exact.
    """
    index = profile.sample_type_index(sample_type)
    root = Node("all")
    room = max_nodes
    names: dict[int, tuple[str, ...]] = {}

    def weight(sample: Sample) -> int:
        return abs(sample.values[index])

    for sample in sorted(profile.samples, key=weight, reverse=True):
        value = sample.values[index]
        if value == 0:
            break
        node = root
        node.cum += value
        for name in _root_first(sample, names):
            child = node.children.get(name)
            if child is None and room <= 0:
                name = LIMIT_NAME
                child = node.children.get(name)
            if child is None:
                child = node.children[name] = Node(name)
                room -= 1
            node = child
            node.cum += value
            if name is LIMIT_NAME:
                break
        node.flat += value
    _sort_children(root)
    return root


def _root_first(sample: Sample, names: dict[int, tuple[str, ...]]) -> Iterator[str]:
    for location in reversed(sample.locations):
        called = names.get(id(location))
        if called is None:
            called = names[id(location)] = tuple(location.names())[::-1]
        yield from called


def _sort_children(root: Node) -> None:
    pending = [root]
    while pending:
        node = pending.pop()
        node.children = dict(sorted(node.children.items()))
        pending.extend(node.children.values())
