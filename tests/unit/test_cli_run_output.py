"""`pyprof run`: what is written and printed when the program has ended."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyprof import pprof

from ..conftest import RunCommand
from .conftest import PYPROF_RUN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="profiling is for Linux")

BURNING = """
import time
def burn():
    end = time.thread_time() + 0.5
    while time.thread_time() < end:
        pass
burn()
"""


def test_a_process_that_outlives_the_run_leaves_nothing_behind(
    pyprof_run: RunCommand, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """What it has at its end comes too late; the directory of the run is not made again for that."""
    path = script(
        "import os, subprocess, sys, time\n"
        "if len(sys.argv) < 2:\n"
        "    os.environ['PARENT'] = str(os.getpid())\n"
        "    child = subprocess.Popen([sys.executable, __file__, 'child'], stderr=subprocess.DEVNULL)\n"
        "    print(child.pid)\n"
        "else:\n"
        "    while os.getppid() == int(os.environ['PARENT']): time.sleep(0.01)\n"
        "    time.sleep(1)\n"
    )
    result = pyprof_run("-o", "out.pb.gz", path, cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    child = Path("/proc") / result.stdout.strip()
    end = time.monotonic() + 30
    while child.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert list(tmp_path.glob("pyprof-*")) == []


def test_output_is_the_merge_of_the_process_tree(
    pyprof_run: RunCommand, script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script(
        "import subprocess, sys\n"
        + BURNING
        + "def in_the_parent(): burn()\n"
        + "in_the_parent()\n"
        + "if len(sys.argv) < 2:\n"
        + "    subprocess.run([sys.executable, __file__, 'child'], check=True)\n"
    )
    result = pyprof_run("-o", "out.pb.gz", path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    profile = pprof.read(tmp_path / "out.pb.gz")
    index = profile.sample_type_index("cpu")
    pids = {label.value for sample in profile.samples for label in sample.labels if label.key == "pid"}
    assert len(pids) == 2
    burnt = sum(
        sample.values[index]
        for sample in profile.samples
        if any(name == "__main__.burn" for location in sample.locations for name in location.names())
    )
    assert burnt == pytest.approx(2.0e9, rel=0.1)
    assert list(tmp_path.glob("*.pb.gz")) == [tmp_path / "out.pb.gz"]


def test_a_directory_gets_one_file_for_each_process(
    pyprof_run: RunCommand, script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script(
        "import subprocess, sys\n"
        + BURNING
        + "if len(sys.argv) < 2:\n"
        + "    subprocess.run([sys.executable, __file__, 'child'], check=True, cwd='/')\n"
    )
    result = pyprof_run("-o", "profiles/", path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "profiles").rglob("*.pb.gz"))) == 2


def test_without_a_target_the_table_is_printed_to_stderr(
    pyprof_run: RunCommand, script: Callable[[str], Path], tmp_path: Path
) -> None:
    # Without the governor, which lowers the rate where the machine is busy.
    result = pyprof_run("--max-overhead", "1", script("print('output')\n" + BURNING), cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout == "output\n"
    header, *lines = result.stderr.splitlines()
    assert header.split() == ["Flat", "Flat%", "Sum%", "Cum", "Cum%", "Name"]
    # Which of the two takes longer, the loop or the clock that it reads, is not for this test.
    names = [line.split()[-1] for line in lines]
    assert names[0] in ("__main__.burn", "time.thread_time")
    assert "__main__.burn" in names
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]


def test_a_run_without_a_sample_says_so_instead_of_an_empty_table(
    pyprof_run: RunCommand, script: Callable[[str], Path]
) -> None:
    result = pyprof_run("--sample-rate", "1", script("pass"))
    assert result.returncode == 0
    assert "too short" in result.stderr
    assert "Flat" not in result.stderr


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(
    pyprof_run: RunCommand, script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script("open('it-ran', 'w')")
    for output in ("missing/out.pb.gz", "/proc/out.pb.gz", "/proc/out/"):
        result = pyprof_run("-o", output, path, cwd=tmp_path)
        assert result.returncode == 1, result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert not (tmp_path / "it-ran").exists()


def test_a_program_that_is_not_python_leaves_a_note_and_no_file(
    pyprof_run: RunCommand, tmp_path: Path
) -> None:
    result = pyprof_run("-o", "out.pb.gz", "true", cwd=tmp_path)
    assert "no process wrote a profile" in result.stderr
    assert result.returncode == 0
    assert not (tmp_path / "out.pb.gz").exists()


def test_nested_runs_both_write(
    pyprof_run: RunCommand, script: Callable[[str], Path], tmp_path: Path
) -> None:
    path = script(BURNING)
    result = pyprof_run("-o", "outer.pb.gz", "--", *PYPROF_RUN, "-o", "inner.pb.gz", path, cwd=tmp_path)
    inner = pprof.read(tmp_path / "inner.pb.gz")
    assert any(name == "__main__.burn" for s in inner.samples for at in s.locations for name in at.names())
    assert result.returncode == 0
    outer = pprof.read(tmp_path / "outer.pb.gz")
    assert all(sample in outer.samples for sample in inner.samples)
