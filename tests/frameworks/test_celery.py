"""Celery: tasks by name in a real worker with every pool, and eagerly; the last profile of a pool's child.

Seen to fail: see each test.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ..conftest import clean_environment
from .serving import BURN, assert_shares, by_label, labels_of, read, wait_for

TASKS = (
    BURN
    + """
import json, os, pathlib
from celery import Celery
from pyprof.integrations.celery import Pyprof

here = pathlib.Path(os.environ["TASKS_DIRECTORY"])
app = Celery("tasks")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(here / "queue"),
        "data_folder_out": str(here / "queue"),
        "control_folder": str(here / "control"),
    },
    result_backend=f"file://{here}/results",
    worker_hijack_root_logger=False,
    pyprof={"service_name": "from-conf", "sample_rate": 1},
)
Pyprof(app)


def done(name, burnt):
    with open(here / "done" / os.urandom(8).hex(), "x") as file:
        json.dump([name, float(burnt)], file)


@app.task
def light():
    done("tasks.light", burn(0.01))


@app.task(name="named")
def heavy():
    done("named", burn(0.03))


@app.task
def outer():
    burnt = float(burn(0.02))
    inner.apply()
    done("tasks.outer", burnt + float(burn(0.02)))


@app.task
def inner():
    inner_work()


def inner_work():
    burn(0.02)


@app.task
def fail():
    try:
        burn(0.02)
        raise LookupError("the task's")
    finally:
        done("tasks.fail", 0.02)
"""
)
SEND = """
import random
from tasks import fail, heavy, light, outer
import pyprof

assert not pyprof.is_running()
for task in random.Random(1).sample([light, heavy] * 40 + [outer] * 5 + [fail] * 5, k=90):
    task.delay()
assert not pyprof.is_running(), "who only sends tasks starts nothing"
"""
SENT = 90


@pytest.fixture
def directory(tmp_path: Path, require: Any) -> Path:
    require.module("celery", "frameworks")
    for name in ("queue", "control", "results", "done"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


def environment(directory: Path) -> dict[str, str | None]:
    return {
        "TASKS_DIRECTORY": str(directory),
        "PYTHONPATH": str(directory),
        "PYPROF_OUTPUT": str(directory / "profiles"),
        "PYPROF_SAMPLE_RATE": "1000",
        "PYPROF_MAX_OVERHEAD": "1",
        "PYPROF_UPLOAD_INTERVAL": "3600",
        "PYPROF_MEMORY": "off",
    }


@pytest.mark.accuracy
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_cpu_by_task_is_true(pool: str, directory: Path, run_python: Any, require: Any) -> None:
    """An inner task is itself, and after it the outer one goes on.

    Seen to fail: with labels that the inner task's end takes away; without `worker_process_shutdown`, which
    leaves no profile of the children of prefork.
    """
    if pool == "gevent":
        require.module("gevent")
    env = environment(directory)
    run_python(SEND, env=env, cwd=directory, check=True)
    with open(directory / "log", "w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", pool, "-c", "2", "-l", "warning"],
            cwd=directory,
            env=clean_environment(env),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(lambda: len(os.listdir(directory / "done")) >= SENT, "end of all tasks")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0, (directory / "log").read_text()
        finally:
            if worker.returncode is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
    profiles = read(directory / "profiles")
    truth: Counter[str] = Counter()
    for path in (directory / "done").iterdir():
        name, burnt = json.loads(path.read_text())
        truth[name] += burnt
    truth["tasks.inner"] = 5 * 0.02
    assert_shares(profiles, "task", truth)
    assert set(by_label(profiles, "task")) <= {"", *truth}
    for function, task in (("light", "tasks.light"), ("heavy", "named"), ("inner_work", "tasks.inner")):
        assert {labels[0] for labels in labels_of(profiles, f"tasks.{function}", "task")} == {task}
    assert labels_of(profiles, "tasks.fail", "task", "queue") == {("tasks.fail", "celery")}
    assert all(path.name.startswith("from-conf-") for path in (directory / "profiles").iterdir())


def test_a_task_that_is_called_is_what_calls_it(directory: Path, run_python: Any) -> None:
    """Eager tasks have labels, exceptions come out as they went in. Seen to fail: `_enter` that raises."""
    program = """
import pyprof, tasks
pyprof.start()
try:
    with pyprof.labels(task="caller"):
        tasks.light()
        tasks.fail.apply(throw=True)
except LookupError as error:
    assert error.args == ("the task's",)
else:
    raise AssertionError
tasks.heavy.apply()
"""
    run_python(program, env=environment(directory), cwd=directory, check=True)
    profiles = read(directory / "profiles")
    assert labels_of(profiles, "tasks.light", "task") == {("caller",)}
    assert labels_of(profiles, "tasks.fail", "task") == {("tasks.fail",)}
    assert labels_of(profiles, "tasks.heavy", "task") == {("named",)}
