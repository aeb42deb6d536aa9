"""What the benchmarks share: machine, local sink for uploads, workers in processes, statistics, results."""

import contextlib
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .profilers import PROFILERS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "benchmarks"


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    model = "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    versions = {}
    for name in ("pyprof-agent", "pyroscope-io", "ddtrace", "flask"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": sys.version,
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "load_average": os.getloadavg(),
        "versions": versions,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def print_machine() -> None:
    """What the figures are of; they come next."""
    details = machine()
    print(
        f"{details['cpu']}, {details['cpus']} CPUs, Linux {details['kernel']},"
        f" Python {sys.version.split()[0]}, load {details['load_average'][0]:.1f}"
    )


def those_installed(names: Sequence[str]) -> list[str]:
    """Of these profilers; says which are left out."""
    for name in names:
        if not installed(PROFILERS[name].module):
            note(f"left out: {name} ({PROFILERS[name].module} is not installed)")
    return [name for name in names if installed(PROFILERS[name].module)]


@dataclass(frozen=True)
class Estimate:
    """A median, its 95 % interval by bootstrap, and the quartiles as spread."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]
    values: Sequence[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        rng = random.Random(1)
        medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(4000))
        ordered = sorted(values)
        return cls(
            statistics.median(ordered),
            medians[int(0.025 * len(medians))],
            medians[int(0.975 * len(medians)) - 1],
            (ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]),
            list(values),
        )

    def text(self, unit: str = "%") -> str:
        return f"{self.median:+.2f} {unit} [{self.low:+.2f}, {self.high:+.2f}]"

    def as_dict(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "interval95": [self.low, self.high],
            "quartiles": list(self.quartiles),
            "values": list(self.values),
        }


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """The URL of a server on the loopback, in a process of its own, that takes every upload."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sink"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=10)


def received(url: str) -> dict[str, Any]:
    """What the sink has got so far: requests and bytes."""
    with urllib.request.urlopen(f"{url}/received", timeout=10) as response:
        result: dict[str, Any] = json.load(response)
    return result


def environment_of_worker(environ: Mapping[str, str]) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYPROF_", "DD_", "_DD_"))
    }
    return {**inherited, "PYTHONHASHSEED": "0", **environ}


def worker(module: str, request: Mapping[str, Any], *, timeout: float, **environ: str) -> dict[str, Any]:
    """Run `python -m module REQUEST` in a fresh process; its last line of stdout is its JSON answer."""
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(request)],
        cwd=ROOT,
        env=environment_of_worker(environ),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} {dict(request)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


Ask = Callable[[str], dict[str, Any]]


@contextlib.contextmanager
def conversation(module: str, request: Mapping[str, Any], **environ: str) -> Iterator[Ask]:
    """`python -m module REQUEST` in a process that answers each line it is sent with a line of JSON."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(request)],
            cwd=ROOT,
            env=environment_of_worker(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(line: str) -> dict[str, Any]:
            print(line, file=process.stdin, flush=True)
            answer = process.stdout.readline()
            if not answer:
                errors.seek(0)
                raise RuntimeError(f"{module} {dict(request)}: no answer\n{errors.read()[-3000:]}")
            result: dict[str, Any] = json.loads(answer)
            return result

        try:
            yield ask
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def compiled_empty_loop(directory: Path) -> Path:
    """benchmarks/empty_loop.c as a shared library."""
    library = directory / "empty_loop.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    source = str(ROOT / "benchmarks" / "empty_loop.c")
    subprocess.run([*compiler, "-O2", "-shared", "-fPIC", "-pthread", "-o", str(library), source], check=True)
    return library


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    for line in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def save(name: str, result: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write the result with the machine's details as JSON."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path


def warn_if_busy() -> None:
    """Unstable figures are worse than none: say so beforehand."""
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > 0.5 * cpus:
        note(f"warning: the machine is busy (load {load:.1f} on {cpus} CPUs); expect wide intervals")


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin
