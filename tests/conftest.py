"""What all tests share: processes with a hard time-out, tools that may be missing, no sampler left behind."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("REQUIRE_ALL_TOOLS") == "1"

# A shell that runs the tests in the background has them ignored, and so would the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)

RunPython = Callable[..., subprocess.CompletedProcess[str]]
RunCommand = Callable[..., subprocess.CompletedProcess[str]]


def clean_environment(extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment without what would steer Python or pyprof; None in `extra` removes a variable."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYPROF_", "PYTHON", "OTEL_", "COV_"))}
    if "TEST_ENGINE" in os.environ:  # else the programs run under the default, not under its fallback
        kept["PYPROF_ENGINE"] = os.environ["TEST_ENGINE"]
    for name, value in (extra or {}).items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept


def run_process(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 60.0,
    cwd: str | os.PathLike[str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in its own session; after `timeout` seconds all of it is killed and the test fails."""
    process = subprocess.Popen(
        list(command),
        env=clean_environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        pytest.fail(f"no end within {timeout} s: {command}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)


@pytest.fixture(name="run_process")
def _run_process() -> RunCommand:
    """`run_process(command, env=…, timeout=…, cwd=…, stdin=…)` for any program."""
    return run_process


@pytest.fixture
def run_python() -> RunPython:
    """Call with code (str) or a script (Path) and its arguments: runs this interpreter in a new process.

    Keywords: `env` (added to a clean environment; None removes), `timeout` in seconds, `cwd`, `stdin`,
    `options` (the interpreter's own, before the code), `interpreter`, and `check` (exit code 0 is asserted).
    """

    def run(
        code: str | Path,
        *arguments: str,
        options: Sequence[str] = (),
        interpreter: str | os.PathLike[str] = sys.executable,
        check: bool = False,
        **keywords: Any,
    ) -> subprocess.CompletedProcess[str]:
        target = [str(code)] if isinstance(code, Path) else ["-c", code]
        result = run_process([interpreter, *options, *target, *arguments], **keywords)
        if check:
            assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    return run


class Require:
    """Skips the test where something is missing, with one counted line; with REQUIRE_ALL_TOOLS=1 it fails.

    Only wheels that do not exist for this interpreter (listed in `no-wheels` of the virtual environment by
    those who tried to install them) are a skip in CI too.
    """

    def tool(self, name: str, *others: str) -> str:
        """The path of the first of these programs that is there."""
        for candidate in (name, *others):
            if path := shutil.which(candidate):
                return path
        return self._missing(f"{name} is not installed")

    def module(self, name: str, group: str | None = None) -> ModuleType:
        """The module, imported. group: the dependency group that brings it, if it is not called like it."""
        try:
            return importlib.import_module(name)
        except ImportError:
            return self._not_installed(name, group)

    def program(self, name: str, group: str | None = None) -> str:
        """The path of a program that a package of this environment brings, of the same name."""
        path = Path(sys.executable).with_name(name)
        return str(path) if path.exists() else self._not_installed(name, group)

    def that(self, condition: object, reason: str) -> None:
        """Anything else a machine may lack."""
        if not condition:
            self._missing(reason)

    def _not_installed(self, package: str, group: str | None) -> Any:
        listed = Path(sys.prefix, "no-wheels")
        if listed.exists() and (group or package) in listed.read_text().split():
            pytest.skip(f"no wheels: {package} has none for this interpreter")
        return self._missing(f"{package} is not installed")

    @staticmethod
    def _missing(reason: str) -> Any:
        if IN_CI:
            pytest.fail(f"missing in CI: {reason}")
        pytest.skip(f"missing: {reason}")


@pytest.fixture(scope="session")
def require() -> Require:
    return Require()


def _as_failure_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skip decided on while a test ran is a missing tool; `skipif` marks say what does not apply."""
    if (
        not IN_CI
        or not report.skipped
        or hasattr(report, "wasxfail")
        or not isinstance(report.longrepr, tuple)
    ):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not reason.startswith("no wheels"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    by_mark = any(item.iter_markers("skipif")) or any(item.iter_markers("skip"))
    if not by_mark:
        _as_failure_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    report = yield
    _as_failure_in_ci(report)
    return report


@pytest.fixture(autouse=True)
def no_profiler_left_running() -> Iterator[None]:
    """A profiler that outlives its test would be measured, and stopped, by another one."""
    yield
    pyprof = sys.modules.get("pyprof")
    if pyprof is not None and hasattr(pyprof, "is_running") and pyprof.is_running():
        pyprof.stop(flush=False)
        pytest.fail("pyprof was still running at the end of the test")
