"""What does it cost to have pyprof there? Import, start(), memory, size on disk and of the wheel.

Beside its peers; medians over fresh processes. Memory is what the kernel counts as resident (VmRSS), above a
bare interpreter: after import, after start, and after the first upload to a sink on the loopback, once alone
and once in an application that has imported requests and protobuf for itself. Then what the installation
costs an interpreter that nobody wants to profile (PYPROF_ENABLED unset): see `autostart`.

Usage: python -m benchmarks.bench_import [--quick] [--json FILE]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from . import autostart
from .harness import ROOT, installed, machine, note, print_table, received, save, sink, warn_if_busy, worker
from .profilers import PROFILERS, environment

NAMES = ("pyprof", "pyroscope", "ddtrace")
DISTRIBUTIONS = {"pyprof": "pyprof-agent", "pyroscope": "pyroscope-io", "ddtrace": "ddtrace"}


def size_on_disk(name: str) -> float | None:
    """MB of the installed distribution's files; an editable one counts its source tree's package."""
    try:
        files = metadata.files(DISTRIBUTIONS[name]) or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files]
    if name == "pyprof" and not any(path.name.startswith("_native") for path in paths):
        paths += [path for path in (ROOT / "pyprof").rglob("*") if "__pycache__" not in path.parts]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def wheel_size() -> float:
    """MB of the wheel built from this tree."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, str(ROOT)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (wheel,) = Path(directory).glob("*.whl")
        return wheel.stat().st_size / 1e6


def medians(name: str, rounds: int, url: str, **request: Any) -> dict[str, float]:
    results = [
        worker(
            "benchmarks.import_worker",
            {"profiler": name, "url": url, **request},
            timeout=120,
            **environment(name, url),
        )
        for _ in range(rounds)
    ]
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Import, start, memory and size.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warn_if_busy()
    rounds = 3 if arguments.quick else 11
    names = [name for name in NAMES if installed(PROFILERS[name].module)]
    summary: dict[str, dict[str, float | None]] = {}
    with sink() as url:
        for name in names:
            note(f"{name}: {rounds} processes")
            figures: dict[str, float | None] = {**medians(name, rounds, url, upload=False)}
            before = sum(received(url)["requests"].values())
            alone = medians(name, 1 if arguments.quick else 3, url, upload=True)
            beside = medians(name, 1 if arguments.quick else 3, url, upload=True, beside=True)
            if sum(received(url)["requests"].values()) == before:
                raise RuntimeError(f"{name} uploaded nothing")
            figures["rss_uploaded_mb"] = alone["rss_uploaded_mb"]
            figures["rss_uploaded_beside_mb"] = beside["rss_uploaded_mb"]
            figures["disk_mb"] = size_on_disk(name)
            figures["wheel_mb"] = wheel_size() if name == "pyprof" else None
            summary[name] = figures
    print(f"{machine()['cpu']}, Python {sys.version.split()[0]}\n")
    columns = {
        "import_ms": "import, ms",
        "start_ms": "start, ms",
        "rss_import_mb": "RSS, import",
        "rss_start_mb": "start",
        "rss_uploaded_mb": "upload",
        "rss_uploaded_beside_mb": "upload, requests there",
        "disk_mb": "disk, MB",
        "wheel_mb": "wheel, MB",
    }
    rows = []
    for name in names:
        cells = [summary[name][column] for column in columns]
        rows.append([PROFILERS[name].title, *("–" if cell is None else f"{cell:.2f}" for cell in cells)])
    print_table(["profiler", *columns.values()], rows)
    note("autostart: PYPROF_ENABLED unset")
    unset = autostart.compare(20 if arguments.quick else 300)
    print("\nStart of an interpreter, PYPROF_ENABLED unset: CPU time and its 95 % interval")
    print_table(["site-packages", "ms"], [[what, estimate.text("ms")] for what, estimate in unset.items()])
    result = {"summary": summary, "autostart": {what: each.as_dict() for what, each in unset.items()}}
    note(str(save("import", result, arguments.json)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
