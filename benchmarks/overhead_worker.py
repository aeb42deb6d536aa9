"""One process of bench_overhead or bench_threads: one workload under one profiler.

Off and on by command, or steadily on.

Own CPU is the process's CPU clock less the clocks of the application's threads: whatever else runs in the
process is the profiler, threads that have ended included, and it is the same rule for every profiler.
"""

import json
import os
import sys
import time
from typing import Any

from .profilers import PROFILERS, RATE, Profiler, obey
from .workloads import WORKLOADS, Workload, thread_clock


class Clocks:
    """Wall, the application's CPU and everybody else's CPU since it was made, seconds."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.begin = self.read()

    def read(self) -> tuple[int, int, int]:
        return (
            time.perf_counter_ns(),
            sum(thread_clock(tid) for tid in self.workload.threads),
            time.process_time_ns(),
        )

    def passed(self) -> dict[str, float]:
        wall, app, process = ((now - then) / 1e9 for now, then in zip(self.read(), self.begin, strict=True))
        return {"wall": wall, "app_cpu": app, "own_cpu": process - app}


def measured(workload: Workload, amount: int) -> dict[str, float]:
    workload.prepare()
    clocks = Clocks(workload)
    workload.run(amount)
    return clocks.passed()


def calibrated(workload: Workload, seconds: float) -> int:
    """The amount of work that takes about `seconds`; it warms everything up, too."""
    amount = 50
    while (taken := measured(workload, amount)["wall"]) < 0.3:
        amount = int(amount * max(1.5, min(10, 0.4 / taken)))
    return max(1, int(amount * seconds / taken))


def take_turns(workload: Workload, profiler: Profiler, request: dict[str, Any]) -> None:
    """Obey; further commands are `calibrate`, and an amount of work, to tell its clocks."""
    if "cpu" in request:  # before the profiler has threads, which inherit it
        os.sched_setaffinity(0, {request["cpu"]})
        for tid in workload.threads:
            os.sched_setaffinity(tid, {request["cpu"]})

    def do(command: str) -> dict[str, float]:
        if command == "calibrate":
            return {"amount": calibrated(workload, request["seconds"])}
        return measured(workload, int(command))

    obey(profiler, request["url"], do)


def steady(workload: Workload, profiler: Profiler, request: dict[str, Any]) -> dict[str, Any]:
    """On for good: after the warm-up (a first upload, with what it imports), the CPU of `seconds`."""
    amount = calibrated(workload, 0.25)
    profiler.start(request["url"])
    profiler.check()
    begin = time.monotonic()
    while time.monotonic() < begin + request["warm_up"]:
        measured(workload, amount)
    # Whole blocks; what `prepare` does between them is the application's as well.
    clocks = Clocks(workload)
    begin = time.monotonic()
    while time.monotonic() < begin + request["seconds"]:
        measured(workload, amount)
    result: dict[str, Any] = clocks.passed()
    result["counters"] = profiler.counters()
    profiler.stop()
    return result


def main() -> None:
    request = json.loads(sys.argv[1])
    workload = WORKLOADS[request["workload"]]()
    profiler = PROFILERS[request["profiler"]](request.get("rate", RATE))
    if request["mode"] == "turns":
        take_turns(workload, profiler, request)
    else:
        print(json.dumps(steady(workload, profiler, request), default=str), flush=True)
    workload.close()


if __name__ == "__main__":
    main()
