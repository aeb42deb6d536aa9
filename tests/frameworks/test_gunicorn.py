"""gunicorn: its workers are profiled to their end, whatever their class, and however they end.

Seen to fail, each with one line changed:
- `_is_below_root` that finds nothing: all, the workers are then `child`, or `main` where they call `start()`;
- `LastWords.install` that replaces nothing: all (the application's own child), and the workers of uvicorn;
- `start_in_child` that keeps the role of its parent: all.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from .app import BURN
from .web_server import STARTS, assert_profiles, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

GUNICORN = [sys.executable, "-m", "gunicorn", "-b", "fd://{fd}", "--no-control-socket"]


@pytest.mark.parametrize(
    ("start", "options", "number"),
    [
        ("by code", "app", signal.SIGTERM),
        ("autostart", "app", signal.SIGINT),
        ("by code", "--preload app", signal.SIGQUIT),
        ("autostart", "--preload -k gthread --threads 2 app", signal.SIGTERM),
        ("by code", "-k gthread --threads 2 app", signal.SIGTERM),
        ("by code", "--preload -k gevent app", signal.SIGTERM),
        ("autostart", "-k gevent app", signal.SIGQUIT),
        ("by code", "-k uvicorn_worker.UvicornWorker app:asgi", signal.SIGTERM),
        ("autostart", "-k uvicorn_worker.UvicornWorker app:asgi", signal.SIGTERM),
    ],
)
def test_workers(require: Any, tmp_path: Path, start: str, options: str, number: int) -> None:
    """The master has a profile where it is profiled: under autostart, and where it loads the application."""
    for module in ("gunicorn", "gevent", "uvicorn_worker"):
        if module in options or module == "gunicorn":
            require.module(module, None if module in ("gunicorn", "gevent") else "frameworks")
    with serving([*GUNICORN, *options.split()], tmp_path, STARTS[start]) as server:
        worker = server.get("/burn")
        child = server.get("/fork")
        assert server.end(number) == 0
    assert_profiles(tmp_path, {worker: BURN}, child, start == "autostart" or "--preload" in options)


def test_workers_that_are_replaced(require: Any, tmp_path: Path) -> None:
    """One that has answered as many requests as it shall, and one that is aborted because it is stuck."""
    require.module("gunicorn")
    options = ["--max-requests", "1", "--timeout", "2", "app"]
    with serving([*GUNICORN, *options], tmp_path, STARTS["autostart"]) as server:
        first = server.get("/burn")
        try:
            server.get("/stuck")
        except AssertionError:
            pass  # the answer of a worker that is aborted
        child = server.get("/fork")
        assert server.end() == 0
    assert_profiles(tmp_path, {first: BURN}, child, masters=1)
