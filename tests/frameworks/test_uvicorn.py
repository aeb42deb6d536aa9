"""uvicorn, which ends by raising the signal that it got, and its workers, which multiprocessing spawns.

Seen to fail, each with one line changed:
- `raise_signal` not replaced: all;
- `role_now` that returns what it was given: the workers are `main`.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from .app import BURN
from .processes import processes
from .web_server import STARTS, assert_profiles, assert_worked, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

UVICORN = [sys.executable, "-m", "uvicorn", "--fd", "{fd}", "app:asgi"]


@pytest.mark.parametrize("start", STARTS)
def test_alone(require: Any, tmp_path: Path, start: str) -> None:
    require.module("uvicorn", "frameworks")
    with serving(UVICORN, tmp_path, STARTS[start]) as server:
        pid = server.get("/burn")
        child = server.get("/fork")
        assert server.end() == -signal.SIGTERM
    found = processes(tmp_path)
    assert found.keys() == {pid, child}
    assert_worked(found[pid], "main")
    assert_worked(found[child], "child")


@pytest.mark.parametrize("start", STARTS)
def test_workers(require: Any, tmp_path: Path, start: str) -> None:
    """The supervisor has a profile under autostart only: it does not load the application."""
    require.module("uvicorn", "frameworks")
    with serving([*UVICORN, "--workers", "2"], tmp_path, STARTS[start]) as server:
        worker = server.get("/burn")
        child = server.get("/fork")
        assert server.end() == 0
    assert_profiles(tmp_path, {worker: BURN}, child, masters=start == "autostart")
