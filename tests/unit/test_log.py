"""Messages arrive somewhere, and never raise, whatever becomes of `logging` and of our own modules.

Seen to fail with an unguarded `import logging` in `log`, an unguarded `import difflib` in `config`, and a
`start` that lets an ImportError out.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyprof
from pyprof import log

BROKEN = "raise ModuleNotFoundError('no permission')"
PROGRAM = """
import pyprof
pyprof.start(output="missing/directory/out")  # the first message: nowhere to write to
print(pyprof.is_running())
sum(range(3_000_000))
pyprof.stop()
print(pyprof.is_running(), pyprof.stats().undelivered)
"""


@pytest.mark.parametrize(
    "code", [BROKEN, "", "def broken(:"], ids=["no module", "half a module", "no syntax"]
)
def test_without_logging_messages_go_to_stderr(code: str, run_python: Any, tmp_path: Path) -> None:
    """As for a user who may not read the standard library, or a program with a `logging.py` of its own."""
    (tmp_path / "logging.py").write_text(code)
    result = run_python(PROGRAM, env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, check=True)
    assert result.stdout == "True\nFalse 1\n"
    lines = result.stderr.splitlines()
    assert lines[0].startswith(
        "pyprof: output missing/directory/out: option output: the directory does not exist"
    )
    assert all(line.startswith("pyprof: ") for line in lines)


def test_without_a_stderr_they_go_nowhere(run_python: Any, tmp_path: Path) -> None:
    (tmp_path / "logging.py").write_text(BROKEN)
    code = f"import sys; sys.stderr = None\n{PROGRAM}"
    result = run_python(code, env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, check=True)
    assert (result.stdout, result.stderr) == ("True\nFalse 1\n", "")


def test_each_start_sets_its_level(run_python: Any) -> None:
    program = """
import logging
import pyprof
from pyprof import log
logging.basicConfig(format="%(message)s")
def start(level):
    pyprof.start(exporter="none", log_level=level)
    log.info("a word")
    log.warning("a warning")
    pyprof.stop()
for level in "warning", "debug", "error":
    start(level)
logging.getLogger("pyprof").setLevel("CRITICAL")
start("debug")
"""
    lines = run_python(program, check=True).stderr.splitlines()
    said = [line for line in lines if line in ("pyprof: a word", "pyprof: a warning")]
    assert said == ["pyprof: a warning", "pyprof: a word", "pyprof: a warning"]


def test_a_hint_that_cannot_be_had_is_left_out(
    monkeypatch: pytest.MonkeyPatch, messages: Callable[[], list[str]]
) -> None:
    monkeypatch.setitem(sys.modules, "difflib", None)
    monkeypatch.setenv("PYPROF_SAMPEL_RATE", "5")
    pyprof.start(exporter="none")
    pyprof.stop()
    assert messages() == ["pyprof: unknown environment variable PYPROF_SAMPEL_RATE"]
    with pytest.raises(ValueError, match="unknown option 'sampel_rate'"):
        pyprof.start(sampel_rate=5)


def test_a_module_of_ours_that_cannot_be_read_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, messages: Callable[[], list[str]]
) -> None:
    monkeypatch.setitem(sys.modules, "pyprof.export.exporter", None)
    assert not pyprof.start().running
    [line] = messages()
    assert line.startswith("pyprof: not started: import of pyprof.export.exporter halted")
    with pytest.raises(RuntimeError, match="not started"):
        pyprof.start(strict=True)


def test_a_filter_of_the_application_that_raises(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    import logging

    def refuse(record: logging.LogRecord) -> bool:
        raise RuntimeError("a bug of the application's")

    logger = logging.getLogger("pyprof")
    logger.addFilter(refuse)
    try:
        log.warning("%d of them", 3)
    finally:
        logger.removeFilter(refuse)
    assert capsys.readouterr().err == "pyprof: 3 of them\n"
