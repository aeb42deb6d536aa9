"""RQ and Dramatiq: jobs by name in real workers; what a job's child has sampled is delivered.

Seen to fail: see each test.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import clean_environment
from .serving import BURN, free_port, is_listening, labels_of, read, wait_for

ENVIRONMENT = {
    "PYPROF_SAMPLE_RATE": "1000",
    "PYPROF_MAX_OVERHEAD": "1",
    "PYPROF_UPLOAD_INTERVAL": "3600",
    "PYPROF_MEMORY": "off",
}
JOBS = (
    BURN
    + """
def light():
    burn(0.02)


def heavy(fails=False):
    burn(0.05)
    if fails:
        raise LookupError("the job's")
"""
)


@pytest.fixture
def redis(tmp_path: Path, require: Any) -> Iterator[int]:
    """The port of a server of our own."""
    server = require.tool("redis-server")
    port = free_port()
    process = subprocess.Popen(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )

    try:
        wait_for(lambda: is_listening(port), "redis")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("worker", ["PyprofWorker", "PyprofSimpleWorker"])
def test_rq(worker: str, redis: int, tmp_path: Path, run_python: Any, require: Any) -> None:
    """Seen to fail: without `stop` in the child, which leaves no profile of the jobs of PyprofWorker."""
    require.module("rq", "frameworks")
    (tmp_path / "jobs.py").write_text(JOBS)
    url = f"redis://127.0.0.1:{redis}"
    send = f"""
import jobs
from redis import Redis
from rq import Queue
queue = Queue("fast", connection=Redis.from_url("{url}"))
for _ in range(2):
    queue.enqueue(jobs.light)
    queue.enqueue(jobs.heavy, fails=True)
"""
    env = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path), "PYPROF_OUTPUT": str(tmp_path / "profiles")}
    run_python(send, env=env, cwd=tmp_path, check=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", url),
            *("-w", f"pyprof.integrations.rq.{worker}", "fast"),
        ],
        env=clean_environment({**env, "PYPROF_ENABLED": "1"}),
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    profiles = read(tmp_path / "profiles")
    assert labels_of(profiles, "jobs.light", "task", "queue") == {("jobs.light", "fast")}
    assert labels_of(profiles, "jobs.heavy", "task", "queue") == {("jobs.heavy", "fast")}


DRAMATIQ = (
    BURN
    + """
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware, SkipMessage
from pyprof.integrations.dramatiq import PyprofMiddleware
import pyprof


class Skipping(Middleware):
    def before_process_message(self, broker, message):
        if message.kwargs.get("skip"):
            burn(0.02)
            raise SkipMessage


broker = StubBroker()
broker.add_middleware(PyprofMiddleware())
broker.add_middleware(Skipping())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="fast", max_retries=0)
def light(skip=False):
    burn(0.02)


@dramatiq.actor(actor_name="named", max_retries=0)
def heavy():
    burn(0.05)
    raise LookupError("the job's")


def afterwards():
    burn(0.02)


class Worker(Middleware):
    def after_ack(self, broker, message):
        afterwards()


broker.add_middleware(Worker())
pyprof.start()
worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=10)
for _ in range(4):
    light.send()
    heavy.send()
    light.send(skip=True)
worker.start()
for queue in ("fast", "default"):
    broker.join(queue, fail_fast=False)
worker.join()
worker.stop()
"""
)


def test_dramatiq(tmp_path: Path, run_python: Any, require: Any) -> None:
    """Nothing after a message is on the message. Seen to fail: with labels that a skipped message keeps."""
    require.module("dramatiq", "frameworks")
    program = tmp_path / "jobs.py"
    program.write_text(DRAMATIQ)
    env = {**ENVIRONMENT, "PYPROF_OUTPUT": str(tmp_path / "profiles")}
    run_python(program, env=env, cwd=tmp_path, check=True)
    profiles = read(tmp_path / "profiles")
    assert labels_of(profiles, "__main__.light", "task", "queue") == {("light", "fast")}
    assert labels_of(profiles, "__main__.heavy", "task", "queue") == {("named", "default")}
    assert labels_of(profiles, "__main__.Skipping.before_process_message", "task") == {("light",)}
    assert labels_of(profiles, "__main__.afterwards", "task", "queue") == {(None, None)}
