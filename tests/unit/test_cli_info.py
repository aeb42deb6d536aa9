"""`pyprof info`."""

import platform
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pyprof._version import __version__
from pyprof.pprof.proto import implementation

RunPython = Callable[..., CompletedProcess[str]]


@pytest.fixture
def info(run_python: RunPython) -> Callable[..., CompletedProcess[str]]:
    def call(*words: str, **env: str) -> CompletedProcess[str]:
        code = "import sys; from pyprof.cli.main import main; sys.exit(main(['info', *sys.argv[1:]]))"
        return run_python(code, *words, env=env)

    return call


def facts(text: str) -> dict[str, str]:
    lines = [line.split("  ", 1) for line in text.replace("* ", "  ").splitlines() if "  " in line.strip()]
    return {name.strip(): value.strip() for name, value in (line[0:2] for line in _joined(lines))}


def _joined(lines: list[list[str]]) -> list[list[str]]:
    return [line if line[0] else line[1].split("  ", 1) for line in lines]


def test_versions_and_engine(info: Any) -> None:
    result = info()
    assert (result.returncode, result.stderr) == (0, "")
    known = facts(result.stdout)
    assert known["pyprof"] == __version__
    assert known["python"].startswith(platform.python_version())
    assert "GIL" in known["python"]
    assert "JIT" in known["python"]
    assert known["protobuf"] == implementation()
    assert platform.machine() in known["platform"]
    assert known["native part"].startswith("present")
    engine, *reads = known["sampling engine"].split(", memory read by ")
    assert engine.split()[0] in ("current_frames", "gilfree")
    if engine.startswith("gilfree"):
        assert reads[0] in ("memfd", "process_vm_readv", "/proc/self/mem")
    assert Path(known["autostart path"], "sitecustomize.py").is_file()


def test_configuration_comes_from_the_environment_and_keeps_secrets(info: Any) -> None:
    result = info(
        PYPROF_SAMPLE_RATE="250",
        PYPROF_AUTH_TOKEN="hunter2",
        PYPROF_HEADERS="X-Key=hunter3",
        PYPROF_SERVER_URL="http://user:hunter4@example.org:4040",
        PYPROF_ENGINE="current_frames",
    )
    assert result.returncode == 0
    assert "hunter" not in result.stdout + result.stderr
    known = facts(result.stdout)
    assert known["sample_rate"] == "250.0"
    assert "example.org:4040" in known["server_url"]
    assert known["engine"] == "'current_frames'"
    marked = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("* ")]
    assert marked == ["server_url", "sample_rate", "engine", "auth_token", "headers"]


def test_a_bad_variable_is_a_note(info: Any) -> None:
    result = info(PYPROF_SAMPLE_RATE="fast", PYPROF_SAMPEL_RATE="5")
    assert result.returncode == 0
    notes = result.stderr.splitlines()
    assert len(notes) == 2
    assert all(line.startswith("pyprof: ") for line in notes)
    assert "PYPROF_SAMPLE_RATE" in result.stderr
    assert facts(result.stdout)["sample_rate"] == "100.0"


def test_service_name_is_not_that_of_this_command(info: Any) -> None:
    assert facts(info().stdout)["service_name"] == "the program's name"
    assert facts(info(PYPROF_SERVICE_NAME="shop").stdout)["service_name"] == "'shop'"
    assert facts(info(OTEL_SERVICE_NAME="cart").stdout)["service_name"] == "'cart'"


def test_autostart_path_alone(info: Any) -> None:
    result = info("--autostart-path", PYPROF_SAMPLE_RATE="bad")
    assert result.returncode == 0
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    assert Path(result.stdout.strip(), "sitecustomize.py").is_file()
