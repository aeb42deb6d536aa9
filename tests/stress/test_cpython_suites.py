"""CPython's own tests end the same way with autostart at 1 kHz: a part of them, see cpython_suites.py."""

import os
from pathlib import Path

import pytest

from . import cpython_suites

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("TEST_ENGINE") == "current_frames",
        reason="its timer is a thread with a thread state, of which test_faulthandler would have to know",
    ),
]


@pytest.mark.parametrize(
    "suite", ["test_threading", "test_generators", "test_gc", "test_fork1", "test_faulthandler"]
)
def test_every_test_ends_as_without(suite: str, tmp_path: Path) -> None:
    found = cpython_suites.compare(suite, logs=tmp_path, repeats=2)
    assert not found.of_kind("different"), cpython_suites.report(found)
    assert found.profiled.timers.wakes > 20, "it was not profiled"
    assert len(found.without.outcomes) > 4
