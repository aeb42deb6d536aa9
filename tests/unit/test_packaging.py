"""What is built and installed: wheel, sdist, editable install, the build without the Linux parts."""

import base64
import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import pyprof

ROOT = Path(__file__).resolve().parents[2]
RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]
AUTOSTART_FILES = {"pyprof_autostart.py", "pyprof_autostart.pth"} | (
    {"pyprof.start"} if sys.version_info >= (3, 15) else set()
)


def test_version_is_that_of_the_distribution() -> None:
    assert pyprof.__version__ == metadata.version("pyprof-agent")


def test_dependencies_have_no_upper_bounds() -> None:
    requires = metadata.requires("pyprof-agent")
    assert requires is not None
    runtime = [line for line in requires if "extra ==" not in line]
    names = {re.split(r"[^\w-]", line)[0] for line in runtime}
    assert names == {"greenlet", "protobuf", "requests", "wrapt"}
    for line in runtime:
        requirement = line.partition(";")[0]
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), line


def test_this_installation_has_the_autostart_files_on_record() -> None:
    # Not metadata.files: a build leaves an egg-info in the sources, which would be found first.
    directory = sysconfig.get_path("purelib")
    (distribution,) = metadata.distributions(name="pyprof-agent", path=[directory])
    files = [str(file) for file in distribution.files or ()]
    for name in AUTOSTART_FILES:
        assert files.count(name) == 1
        assert Path(directory, name).is_file()


def test_command_is_installed() -> None:
    (entry,) = (point for point in metadata.entry_points(group="console_scripts") if point.name == "pyprof")
    assert entry.value == "pyprof.cli.main:main"
    assert callable(entry.load())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources without anything that was built, so that builds cannot pick that up."""
    copy = tmp_path_factory.mktemp("source") / "pyprof"
    copy.mkdir()
    for name in ("_native", "pyprof", "examples", "tests"):
        ignore = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", ".*_cache")
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What `python -m build` makes: the sdist, and the wheel that is built from it."""
    dist = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source],
        check=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=dist,
    )
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
@pytest.mark.xdist_group("build")
def test_wheel_is_complete(built: tuple[Path, Path]) -> None:
    wheel = built[1]
    assert wheel.name.startswith("pyprof_agent-")
    assert wheel.stat().st_size <= 1 << 20
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert sorted(row[0] for row in rows) == sorted(names)
        for name, digest, _ in rows:
            if name != record:
                algorithm, _, value = digest.partition("=")
                computed = hashlib.new(algorithm, archive.read(name)).digest()
                assert base64.urlsafe_b64encode(computed).rstrip(b"=").decode() == value, name
    ours = {name for name in names if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "pyprof").rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc") and "__pycache__" not in path.parts
    }
    (native,) = (name for name in ours if name.endswith(".so"))
    assert re.fullmatch(r"pyprof/_native\.cpython-.*\.so", native)
    assert "abi3" not in native
    assert ours - {native} == sources | AUTOSTART_FILES


@pytest.mark.slow
@pytest.mark.xdist_group("build")
def test_sdist_has_what_is_compiled_and_what_tells_how(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = {str(path.relative_to(ROOT)) for path in (ROOT / "_native").rglob("*.[ch]")}
    assert native
    assert native <= names
    assert {"LICENSE", "pyproject.toml", "setup.py", "Makefile", "CHANGELOG.md", "tests/conftest.py"} <= names
    assert not {name for name in names if name.endswith((".so", ".pyc")) or "cache/" in name}


def environment_with(wheel: Path, directory: Path, run_process: RunCommand) -> Path:
    """The Python of a virtual environment that has only this wheel."""
    python = directory / "bin/python"
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", directory],
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel],
    ):
        result = run_process(command, timeout=120)
        assert result.returncode == 0, result.stderr
    return python


@pytest.mark.slow
@pytest.mark.xdist_group("build")
def test_wheel_built_from_the_sdist_works_and_starts_by_itself(
    built: tuple[Path, Path], tmp_path: Path, run_process: RunCommand
) -> None:
    """The wheel comes from the sdist alone (`python -m build`); only its own files can have compiled."""
    python = environment_with(built[1], tmp_path / "venv", run_process)
    result = run_process(
        [python, "-c", "import pyprof; print(pyprof.__file__, pyprof.is_running())"],
        env={"PYPROF_ENABLED": "1", "PYPROF_EXPORTER": "none"},
        cwd=tmp_path,
    )
    assert result.stderr == ""
    path, running = result.stdout.split()
    assert Path(path).is_relative_to(tmp_path)
    assert running == "True"
    result = run_process([tmp_path / "venv/bin/pyprof", "--version"])
    assert result.stdout == f"pyprof {pyprof.__version__}\n"
    removed = run_process(
        [sys.executable, "-m", "pip", "--python", python, "uninstall", "-y", "pyprof-agent"]
    )
    assert removed.returncode == 0
    assert not list((tmp_path / "venv").rglob("*pyprof*"))


PORTABLE = """
import pyprof, pyprof._native, sys
assert pyprof._native.SUPPORTED is False
pyprof.start(exporter="none")
assert not pyprof.is_running()
try:
    pyprof.start(exporter="none", strict=True)
except Exception as error:
    print(type(error).__name__)
pyprof.stop()
"""


@pytest.mark.slow
@pytest.mark.xdist_group("build")
def test_build_without_the_linux_parts_imports_and_warns(
    source: Path, tmp_path: Path, run_process: RunCommand
) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    result = run_process(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy],
        env={"PYPROF_PORTABLE": "1", "CFLAGS": "-Werror"},
        cwd=tmp_path,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    python = environment_with(wheel, tmp_path / "venv", run_process)
    result = run_process([python, "-c", PORTABLE], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip(), "strict has to raise"
    assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("build")
def test_the_extension_compiles_without_a_warning(
    source: Path, tmp_path: Path, run_process: RunCommand
) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    result = run_process(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-temp", tmp_path, "--build-lib", tmp_path],
        env={"CFLAGS": "-Werror", "PATH": os.environ["PATH"]},
        cwd=copy,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
