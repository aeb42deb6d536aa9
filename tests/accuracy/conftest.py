"""Accuracy tests: programs whose truth is known, measured by themselves, against what the profile says.

Where the tolerance of 2 points comes from. Gaps between ticks are independent and random around
1/sample_rate, and CPU time is charged by the exact clock, so errors arise in one place only: at the border
between two phases, where half of the CPU since the last tick goes to either. That is at most half a gap a
border, of either sign: k borders give a standard deviation of less than 0.4 gaps x sqrt(k). A program
with phases of many gaps, T seconds of CPU in all, so has a share's standard deviation of
0.4 x gap x sqrt(k) / T; the programs here stay below 0.6 points by that (each test says its own).

Where phases are as short as a gap or shorter, each of the n ticks on a CPU finds a phase by chance, and a
share p has the standard deviation sqrt(p (1 - p) / n). Two points are 3.3 of them (one run in 1,000 outside)
for n >= 2,700 x 10 x p (1 - p): 5,700 at p = 0.3.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..conftest import run_process
from ..engine import Run, asking, compile_library
from .heap import PRELUDE
from .reading import PROGRAMS, Recording, record

Record = Callable[..., Recording]

# For what does not depend on how many CPUs there are.
ON_ONE_CPU = pytest.mark.parametrize(
    "cpu", [pytest.param("one-cpu", marks=pytest.mark.one_cpu)], indirect=True
)


@pytest.fixture(params=["every-cpu", pytest.param("one-cpu", marks=pytest.mark.one_cpu)])
def cpu(request: pytest.FixtureRequest) -> int | None:
    """The CPU to pin the program to; once none, once this worker's own: both must tell the truth."""
    if request.param == "every-cpu":
        return None
    cpus = sorted(os.sched_getaffinity(0))
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return cpus[int(worker) % len(cpus)]


def fresh_directory(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=parent))


@pytest.fixture
def recorded(tmp_path: Path, cpu: int | None) -> Record:
    """Run a program of `programs/` under pyprof on the test's CPUs."""

    def run(program: str, **options: Any) -> Recording:
        return record(program, fresh_directory(tmp_path), cpu=cpu, **options)

    return run


@pytest.fixture
def recording_memory(run_python: Run) -> Run:
    """Runs a program that records memory in a process of its own and returns its answer."""
    return asking(run_python, PRELUDE)


@pytest.fixture(scope="session")
def allocating_library(tmp_path_factory: pytest.TempPathFactory, require: Any) -> Path:
    directory = tmp_path_factory.mktemp("allocating")
    return compile_library(PROGRAMS / "allocating.c", directory, require, run_process)


@pytest.fixture
def allocating(recording_memory: Run, allocating_library: Path) -> Run:
    """The same for one that has blocks of exact sizes; its arguments as JSON."""

    def run(program: str, *arguments: Any, env: dict[str, str] | None = None) -> Any:
        env = {"ALLOCATING": str(allocating_library), **(env or {})}
        return recording_memory(program, *map(json.dumps, arguments), env=env)

    return run
