"""One process of bench_import: import, start, and one upload of one profiler."""

import importlib
import json
import sys
import time
from pathlib import Path

from .harness import received
from .profilers import PROFILERS, Pyprof

# What an application that has them for itself would have imported.
REQUESTS_AND_PROTOBUF = (
    "requests",
    "google.protobuf.descriptor_pb2",
    "google.protobuf.descriptor_pool",
    "google.protobuf.message_factory",
)
IMPORTS = {"pyprof": "pyprof", "pyroscope": "pyroscope", "ddtrace": "ddtrace.profiling"}


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS in /proc/self/status")


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def main() -> None:
    request = json.loads(sys.argv[1])
    name, url = request["profiler"], request["url"]
    profiler = PROFILERS[name]()
    if request.get("beside"):
        for module in REQUESTS_AND_PROTOBUF:
            importlib.import_module(module)
    before = resident_mb()
    begin = time.perf_counter()
    importlib.import_module(IMPORTS[name])
    imported = time.perf_counter()
    result = {"import_ms": 1e3 * (imported - begin), "rss_import_mb": resident_mb() - before}
    begin = time.perf_counter()
    profiler.start(url)
    result["start_ms"] = 1e3 * (time.perf_counter() - begin)
    result["rss_start_mb"] = resident_mb() - before
    if request["upload"]:
        uploads = sum(received(url)["requests"].values())
        burn(0.5)
        if isinstance(profiler, Pyprof):
            import pyprof

            pyprof.flush(timeout=10)
        deadline = time.monotonic() + 30
        while sum(received(url)["requests"].values()) == uploads and time.monotonic() < deadline:
            burn(0.1)
        time.sleep(0.2)
        result["rss_uploaded_mb"] = resident_mb() - before
    profiler.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
