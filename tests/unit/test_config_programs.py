"""The options in programs of their own: how the service is called by default, and what their import loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyprof import config as module

PROGRAM = "import pyprof.config as c; print(c.Config.load({}, {}).service_name)"


def service_name_of(*command: str, cwd: Path, site: bool = False) -> str:
    root = str(Path(module.__file__).parent.parent)
    path = os.pathsep.join([str(cwd / "site"), root] if site else [root])
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name in (
        "shop.py",
        "package/__init__.py",
        "package/__main__.py",
        "package/sub.py",
        "folder/__main__.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "__init__" in name else PROGRAM)
    return tmp_path


COMMANDS = [
    (["shop.py"], "shop"),
    (["-m", "shop"], "shop"),
    (["-m", "package"], "package"),
    (["-um", "package.sub"], "package.sub"),
    (["-W", "ignore", "-X", "utf8", "-mpackage.sub"], "package.sub"),
    (["folder"], "folder"),
    (["folder/__main__.py"], "folder"),
    (["-c", PROGRAM], "python"),
]


@pytest.mark.parametrize(("command", "expected"), COMMANDS)
def test_service_name_is_the_program_s(programs, command, expected):
    assert service_name_of(*command, cwd=programs) == expected


@pytest.mark.parametrize(("command", "expected"), COMMANDS)
def test_service_name_when_asked_before_the_program_is_loaded(programs, command, expected):
    """As autostart asks: from `site`, when `__main__` is not there yet."""
    (programs / "site").mkdir()
    (programs / "site/sitecustomize.py").write_text(PROGRAM)
    lines = service_name_of(*command, cwd=programs, site=True).splitlines()
    assert lines == [expected, expected]


def test_import_is_light(tmp_path):
    place = str(Path(module.__file__).parent)
    code = f"""
import sys, types
package = sys.modules["pyprof"] = types.ModuleType("pyprof")  # the options alone, without the rest of pyprof
package.__path__ = [{place!r}]
before = set(sys.modules)
import pyprof.config
print(*sorted(set(sys.modules) - before))
"""
    loaded = set(service_name_of("-I", "-S", "-c", code, cwd=tmp_path).split())
    heavy = {
        "dataclasses",
        "inspect",
        "re",
        "urllib",
        "difflib",
        "pathlib",
        "logging",
        "socket",
        "ssl",
        "requests",
    }
    assert "pyprof.option_kinds" in loaded
    assert not heavy & {name.split(".")[0] for name in loaded}
