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
from pathlib import Path
from typing import Any

import pytest

from .app import BURN
from .web_server import STARTS, assert_profiles, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

UWSGI = [
    *(str(Path(sys.executable).with_name("uwsgi")), "--http-socket", "fd://{fd}", "--home", sys.prefix),
    *("--need-app", "--die-on-term", "--disable-logging"),
]
ENDED = 30
"""uWSGI's status after SIGINT or SIGTERM without a master."""


@pytest.mark.parametrize(
    ("start", "options", "status"),
    [
        ("by code", "", ENDED),
        ("autostart", "--enable-threads", ENDED),
        ("by code", "--master", 0),
        ("autostart", "--master --enable-threads", 0),
        ("by code", "--master --threads 2", 0),
        ("by code", "--master --lazy-apps", 0),
        ("autostart", "--master --enable-threads --lazy-apps", 0),
        ("by code", "--master --enable-threads --py-call-uwsgi-fork-hooks", 0),
        ("autostart", "--master --enable-threads --py-call-osafterfork", 0),
    ],
)
def test_workers(require: Any, tmp_path: Path, start: str, options: str, status: int) -> None:
    require.that(Path(UWSGI[0]).exists(), "uWSGI is not installed")
    command = [*UWSGI, *options.split(), "--module", "app"]
    with serving(command, tmp_path, STARTS[start]) as server:
        worker = server.get("/burn")
        child = server.get("/fork")
        assert server.end(signal.SIGINT) == status
    assert_profiles(tmp_path, {worker: BURN}, child, masters=0)
