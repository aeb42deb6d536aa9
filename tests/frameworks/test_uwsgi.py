"""uWSGI: its workers are profiled, by the profiler that each of them starts when it has been forked.

It forks without Python's hooks, unless an option says otherwise, and the master keeps the GIL.

Seen to fail, each with one line changed:
- `awaits_workers` that says no: with a master nothing is delivered, and the workers end three seconds late;
- `pyprof_correct_native_thread_id` not called: no CPU time with a master, but with options that call hooks;
- `_is_uwsgi` that says no: autostart with a master;
- `call_in_workers` without `uwsgidecorators`: `test_a_hook_of_the_application`.
"""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .app import BURN
from .processes import processes
from .web_server import HERE, STARTS, assert_profiles, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

OPTIONS = [
    *("--http-socket", "fd://{fd}", "--home", sys.prefix),
    *("--need-app", "--die-on-term", "--disable-logging"),
]
ENDED = 30
"""uWSGI's status after SIGINT or SIGTERM without a master."""


def wait_until_idle(pid: int) -> None:
    """Until it sleeps. A worker that is told to end while it closes a request runs nothing of `atexit`."""
    end = time.monotonic() + 30
    looks = 0
    while looks < 3:  # more than one, for it may have to wait for the GIL in between
        asleep = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
        looks = looks + 1 if asleep else 0
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("start", "options", "status"),
    [
        ("by code", "", ENDED),
        ("autostart", "--enable-threads", ENDED),
        ("by code", "--master", 0),
        ("autostart", "--master --enable-threads", 0),
        ("by code", "--master --lazy-apps", 0),
        ("autostart", "--master --enable-threads --lazy-apps", 0),
        ("by code", "--master --enable-threads --py-call-uwsgi-fork-hooks", 0),
        ("autostart", "--master --enable-threads --py-call-osafterfork", 0),
    ],
)
def test_workers(require: Any, tmp_path: Path, start: str, options: str, status: int) -> None:
    command = [require.program("uwsgi"), *OPTIONS, *options.split(), "--module", "app"]
    with serving(command, tmp_path, STARTS[start]) as server:
        worker = server.get("/burn")
        child = server.get("/fork")
        wait_until_idle(worker)
        assert server.end(signal.SIGINT) == status
    assert_profiles(tmp_path, {worker: BURN}, child, masters=0)


def test_settings_of_a_framework_reach_the_workers(require: Any, tmp_path: Path) -> None:
    """Seen to fail: with the arguments of a start that waits for them kept without its settings."""
    command = [require.program("uwsgi"), *OPTIONS, "--master", "--module", "app"]
    environ = {**STARTS["by code"], "ONLY_SETTINGS": str(tmp_path), "PYPROF_OUTPUT": ""}
    with serving(command, tmp_path, environ) as server:
        worker = server.get("/burn")
        wait_until_idle(worker)
        assert server.end(signal.SIGINT) == 0
    assert processes(tmp_path)[worker].seconds("burn") >= BURN / 2


@pytest.mark.parametrize("options", ["--master --enable-threads --threads 2", "--master --gevent 2"])
def test_intervals(require: Any, tmp_path: Path, options: str) -> None:
    """Profiles leave while the worker waits. uWSGI ends it without `atexit` where a thread is in a request,
    or its threads are greenlets: what the last interval has seen is lost.
    """
    if "gevent" in options:
        require.module("gevent")
    command = [require.program("uwsgi"), *OPTIONS, *options.split(), "--module", "app"]
    environ = {**STARTS["autostart"], "PYPROF_UPLOAD_INTERVAL": "0.5"}
    with serving(command, tmp_path, environ) as server:
        worker = server.get("/burn")
        end = time.monotonic() + 30
        while (found := processes(tmp_path).get(worker)) is None or found.seconds("burn") < BURN / 2:
            assert time.monotonic() < end, found
            time.sleep(0.1)
        server.end(signal.SIGINT)
    assert found.roles == {"worker"}


HOOKS = """
import uwsgi
called = []
if {first}:
    uwsgi.spooler = uwsgi.post_fork_hook = lambda *_: called.append("attribute")
from app import application as app
if not {first}:
    import uwsgidecorators
    uwsgidecorators.postfork(lambda: called.append("decorator"))

def application(environ, start_response):
    if environ["PATH_INFO"] == "/called":
        start_response("200 OK", [])
        return [str(len(called)).encode()]
    return app(environ, start_response)
"""


@pytest.mark.parametrize("first", [True, False])
def test_a_hook_of_the_application(require: Any, tmp_path: Path, first: bool) -> None:
    """There is room for one. It runs as well, whether it was there before ours or comes later."""
    script = tmp_path / "hooks.py"
    script.write_text(HOOKS.format(first=first))
    command = [
        require.program("uwsgi"),
        *OPTIONS,
        "--master",
        "--pythonpath",
        str(HERE),
        "--wsgi-file",
        str(script),
    ]
    with serving(command, tmp_path / "out", STARTS["by code"]) as server:
        assert server.get("/called") == 1
        worker = server.get("/burn")
        child = server.get("/fork")
        wait_until_idle(worker)
        assert server.end(signal.SIGINT) == 0
    assert_profiles(tmp_path / "out", {worker: BURN}, child, masters=0)
