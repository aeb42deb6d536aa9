"""CPython's own tests, with and without autostart at 1 kHz: does every test end the same way?

    make cpython-suites [PYTHON=…] [SUITES="test_threading test_gc"]
    python -m tests.stress.cpython_suites [--logs DIRECTORY] [--repeats 4] [SUITE …]

runs those that a profiler can harm most, in the environment that pyprof is installed in, whose `.pth` file
starts it in every process that the tests start as well (unless they ask for `-S` or an empty environment).
What differs is repeated alone, both ways; a test is "different" if it then mostly ends in another way than
without, and "unstable" if it ends in a way at least once that it never took without. Both are shown; exit
code 1 if one is different, or if the profiler did not run. What has to differ stands in `EXPLAINED`.

Seen to fail: a timer that keeps its Python thread state, which 21 tests of test_faulthandler tell of.
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from xml.etree import ElementTree

from ..conftest import clean_environment

SUITES = (
    "test_threading",
    "test_asyncio",
    "test_generators",
    "test_gc",
    "test_faulthandler",
    "test_sys",
    "test_signal",
    "test_fork1",
    "test_interpreters",
)
PROFILED = {
    "PYPROF_ENABLED": "1",
    "PYPROF_SAMPLE_RATE": "1000",
    "PYPROF_MAX_OVERHEAD": "1",
    "PYPROF_EXPORTER": "none",
}
# What has to differ, and what its log then says: a test that tells what else is there.
EXPLAINED = {
    # 3.15: no extension module but the standard library's.
    "test.test_faulthandler.FaultHandlerTests.test_dump_ext_modules": (
        r"'Extension modules:' unexpectedly found in .*\\nExtension modules: pyprof\._native \(total: 1\)'"
    ),
}
EXIT_CODE = "(exit code)"  # of the suite: 0, or 3 for files, threads or variables that it has left behind


# -- the timer threads, seen from outside --


def _fields(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:  # it has ended
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _is_of_session(process: Path, session: int) -> bool:
    try:
        return int((process / "stat").read_text(errors="replace").rpartition(") ")[2].split()[3]) == session
    except (OSError, IndexError):
        return False


def _threads_of(process: Path) -> list[Path]:
    try:
        return list((process / "task").iterdir())
    except OSError:
        return []


@dataclass
class Timers:
    """How often the timer threads of a session woke up: that it was profiled, and how much."""

    wakes_by_thread: dict[str, int] = field(default_factory=dict)

    def look(self, session: int) -> None:
        for process in Path("/proc").iterdir():
            if process.name.isdecimal() and _is_of_session(process, session):
                for thread in _threads_of(process):
                    status = _fields(thread / "status")
                    if status.get("Name") == "pyprof-timer":
                        self.wakes_by_thread[str(thread)] = int(status["voluntary_ctxt_switches"])

    @property
    def wakes(self) -> int:
        return sum(self.wakes_by_thread.values())

    @property
    def processes(self) -> int:
        return len({thread.split("/")[2] for thread in self.wakes_by_thread})


# -- one run of one suite --


@dataclass(frozen=True)
class Run:
    outcomes: dict[str, str]
    seconds: float
    cpu_seconds: float  # of the suite and of what it has waited for
    timers: Timers
    log: Path


def _outcome(case: ElementTree.Element) -> str:
    for kind in ("error", "failure"):
        if case.find(kind) is not None:
            return "failed"
    skipped = case.find("skipped")
    if skipped is not None:
        return f"skipped: {skipped.text}"
    if case.find("output") is not None:
        return "failed as expected"
    return "succeeded unexpectedly" if case.find("outcome") is not None else "passed"


def _outcomes(xml: Path, log: str) -> dict[str, str]:
    """Of every test; where only a part of one fails (a subTest) the XML does not say of which."""
    found: dict[str, str] = {}
    if xml.exists():
        for case in ElementTree.parse(xml).iter("testcase"):
            if name := case.get("name"):
                found[name] = max(found.get(name, ""), _outcome(case))
    for name in re.findall(r"^(?:FAIL|ERROR): \S+ \(([\w.]+)\)", log, re.MULTILINE):
        found[name] = "failed"
    return found


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_suite(suite: str, *, profiled: bool, logs: Path, only: Sequence[str] = (), limit: float = 900) -> Run:
    """only: ids of tests, else all of them. limit: seconds."""
    logs.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f"{suite}-{'with' if profiled else 'without'}-", suffix=".log", dir=logs
    )
    log, xml = Path(name), Path(name).with_suffix(".xml")
    command = [
        sys.executable,
        "-m",
        "test",
        "-v",
        "--fail-env-changed",
        f"--timeout={limit}",
        f"--junit-xml={xml}",
    ]
    for test in only:
        command += ["--match", test]
    environment = clean_environment(PROFILED if profiled else None)
    if not profiled:
        environment.pop("PYPROF_ENGINE", None)
    timers, began, cpu = Timers(), monotonic(), _cpu_of_children()
    with open(handle, "w") as output:
        process = subprocess.Popen(
            [*command, suite],
            env=environment,
            cwd=logs,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):  # test_generators takes a third of a second
                timers.look(process.pid)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            code = str(process.wait(limit + 60))
        except subprocess.TimeoutExpired:
            code = f"no end within {limit + 60:.0f} s"
        finally:
            ended.set()
            watcher.join()
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what it has left running, too
            except ProcessLookupError:
                pass
            process.wait()
    outcomes = _outcomes(xml, log.read_text(errors="replace"))
    seconds = monotonic() - began
    return Run({**outcomes, EXIT_CODE: code}, seconds, _cpu_of_children() - cpu, timers, log)


# -- both ways --


@dataclass
class Difference:
    """How one test ended in all runs, first of all the whole suite's."""

    test: str
    without: list[str]
    profiled: list[str]
    explained: bool = False

    @property
    def kind(self) -> str:
        """different, explained, unstable, or flaky: without pyprof it ends that way too."""
        if self.explained:
            return "explained"
        if set(self.profiled) <= set(self.without):
            return "flaky"
        most = [Counter(outcomes).most_common(1)[0][0] for outcomes in (self.without, self.profiled)]
        return "different" if most[0] != most[1] else "unstable"


@dataclass(frozen=True)
class Comparison:
    suite: str
    without: Run
    profiled: Run
    differences: list[Difference]

    def of_kind(self, kind: str) -> list[Difference]:
        return [one for one in self.differences if one.kind == kind]


def differing(without: Mapping[str, str], profiled: Mapping[str, str]) -> list[str]:
    return sorted(
        test
        for test in {*without, *profiled}
        if without.get(test, "did not run") != profiled.get(test, "did not run")
    )


def compare(suite: str, *, logs: Path, repeats: int = 4) -> Comparison:
    without, profiled = (run_suite(suite, profiled=way, logs=logs) for way in (False, True))
    differences = [
        Difference(
            test, [without.outcomes.get(test, "did not run")], [profiled.outcomes.get(test, "did not run")]
        )
        for test in differing(without.outcomes, profiled.outcomes)
    ]
    # Where the suite as a whole has crashed, all of it is what differs.
    only = [one.test for one in differences if one.test != EXIT_CODE and len(differences) < 50]
    for _ in range(repeats if differences else 0):
        for way in (False, True):
            again = run_suite(suite, profiled=way, logs=logs, only=only)
            for one in differences:
                (one.profiled if way else one.without).append(again.outcomes.get(one.test, "did not run"))
    explain(differences, profiled.log.read_text(errors="replace"))
    return Comparison(suite, without, profiled, differences)


def explain(differences: list[Difference], log: str) -> None:
    for one in differences:
        one.explained = one.test in EXPLAINED and re.search(EXPLAINED[one.test], log) is not None
    for one in differences:  # a suite fails with its tests
        if one.test == EXIT_CODE and set(one.profiled) == {"2"}:
            one.explained = len(differences) > 1 and all(
                other.explained for other in differences if other is not one
            )


def report(found: Comparison) -> str:
    run = found.profiled
    lines = [
        f"{found.suite:18} {len(found.without.outcomes) - 1:4} tests, "
        f"{len(found.of_kind('different'))} different, {len(found.of_kind('unstable'))} unstable, "
        f"{len(found.of_kind('explained'))} explained, "
        f"{len(found.of_kind('flaky'))} flaky without pyprof too; "
        f"{found.without.seconds:.0f} s ({found.without.cpu_seconds:.1f} s of CPU) without, "
        f"{run.seconds:.0f} s ({run.cpu_seconds:.1f} s) with; "
        f"{run.timers.processes} processes seen profiled, {run.timers.wakes} wakes of their timers"
    ]
    for one in found.differences:
        lines.append(f"    {one.kind}: {one.test}")
        for way, outcomes in (("without", one.without), ("with", one.profiled)):
            counted = "; ".join(f"{n} x {outcome}" for outcome, n in Counter(outcomes).items())
            lines.append(f"        {way:8} {counted}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress.cpython_suites")
    parser.add_argument("suites", nargs="*", default=SUITES, metavar="SUITE")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--logs", type=Path, help="where the output of all runs is left")
    arguments = parser.parse_args()
    logs = arguments.logs or Path(tempfile.mkdtemp(prefix="pyprof-cpython-suites-"))
    failed = False
    print(f"{sys.version}\nlogs are in {logs}", flush=True)
    for suite in arguments.suites:
        found = compare(suite, logs=logs.absolute(), repeats=arguments.repeats)
        print(report(found), flush=True)
        failed |= bool(found.of_kind("different")) or found.profiled.timers.wakes == 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
