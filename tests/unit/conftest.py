"""What several unit tests share."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..conftest import RunCommand
from .exporting import Setup, Target

PYPROF_RUN = [sys.executable, "-m", "pyprof", "run"]
WORK = """
import json, os, socket, sys, threading, time
import pyprof
from pyprof import _native

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))

def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, pyprof.stats()
        burn(0.002)

def tasks():
    return len(os.listdir("/proc/self/task"))
"""


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level("DEBUG", logger="pyprof")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "pyprof"]


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"http://127.0.0.1:{gone.getsockname()[1]}"


@pytest.fixture
def setup() -> Iterator[Callable[..., Setup]]:
    """Makes exporters, `setup(*targets, timeout=…)`, and ends them."""
    setups: list[Setup] = []

    def make(*targets: Target, **keywords: float) -> Setup:
        setups.append(Setup(*targets, **keywords))
        return setups[-1]

    yield make
    for one in setups:
        for target in one.targets:
            target.ended.set()
        deadline = time.monotonic() + 30
        while not one.exporter.stop(0):  # False as long as a thread that was left behind has not ended
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def pyprof_run(run_process: RunCommand) -> RunCommand:
    return lambda *words, **keywords: run_process(
        [sys.executable, "-m", "pyprof", "run", *map(str, words)], **keywords
    )


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(code: str) -> Path:
        path = tmp_path / "program.py"
        path.write_text(code)
        return path

    return write
