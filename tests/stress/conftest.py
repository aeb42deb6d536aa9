"""Tests that pyprof never harms its host. What could hang or crash is a process with a time-out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .sinks import Sink, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="profiling is for Linux")
    for item in items:
        if "stress" in item.path.parts:
            item.add_marker(skip)


@pytest.fixture
def sink() -> Iterator[Callable[..., Sink]]:
    """Starts servers: sink(), sink("hangs"), sink("garbage")."""
    with ExitStack() as stack:
        yield lambda behaviour="answers": stack.enter_context(running(behaviour))
