"""Celery's prefork pool, of billiard's processes, which end by `os._exit`.

Seen to fail, each with one line changed:
- `LastWords.install` that replaces nothing: the workers have no profile;
- no `billiard.popen_fork` among `_ROOTS`: they are `child`.
"""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ..conftest import clean_environment
from .app import BURN
from .processes import processes
from .web_server import HERE, STARTS, assert_worked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

WORKER = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--concurrency", "2", "-l", "error"]
CALL = """
import celery_tasks
results = [celery_tasks.work.delay() for _ in range(3)]
print(*(result.get(timeout=60) for result in results))
"""


@pytest.mark.parametrize(
    ("start", "options", "number"),
    [
        ("by code", [], signal.SIGTERM),
        ("autostart", ["--max-tasks-per-child", "1"], signal.SIGTERM),
        ("autostart", [], signal.SIGQUIT),
    ],
)
def test_workers(
    require: Any, run_python: Any, tmp_path: Path, start: str, options: list[str], number: int
) -> None:
    """Ended softly, replaced after a task, ended at once."""
    require.module("celery", "frameworks")
    root = {"CELERY_ROOT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    profiling = {
        "PYPROF_OUTPUT": str(tmp_path / "out"),
        "PYPROF_UPLOAD_INTERVAL": "600",
        "PYPROF_EXIT_TIMEOUT": "20",
    }
    worker = subprocess.Popen(
        [*WORKER, *options],
        cwd=HERE,
        env=clean_environment({**root, **profiling, **STARTS[start]}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        result = run_python(CALL, env=root, cwd=HERE, timeout=90, check=True)
        worker.send_signal(number)
        _, stderr = worker.communicate(timeout=60)
    finally:
        if worker.poll() is None:
            worker.kill()
        worker.communicate()
    assert worker.returncode == 0
    assert "pyprof:" not in stderr
    found = processes(tmp_path / "out")
    worked = Counter(int(word) for word in result.stdout.split())
    for pid, tasks in worked.items():
        assert_worked(found[pid], "worker", tasks * BURN)
    [main] = [process for process in found.values() if process.roles == {"main"}]
    assert main.pid == worker.pid
    assert main.seconds("burn") == 0
