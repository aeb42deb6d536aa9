"""One process of bench_governor: many threads of deep stacks that want the GIL, profiled for a while."""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from .workloads import thread_clock


class Contenders:
    """Threads that wait until `go` and then do nothing but compete for the GIL."""

    def __init__(self, threads: int, frames: int) -> None:
        self.frames = frames
        self.gate, self.over = threading.Event(), False
        self.used: list[float] = []
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        self.gate.wait()
        self.descend(self.frames - 3)
        self.used.append(time.thread_time())

    def descend(self, depth: int) -> None:
        if depth > 1:
            self.descend(depth - 1)
        while not self.over:
            for _ in range(200):
                pass

    def cpu_ns(self) -> int:
        ids = [thread.native_id for thread in self.threads]
        return sum(thread_clock(number) for number in ids if number is not None)

    def end(self) -> float:
        """CPU seconds that the threads have used in their lives, by their own clocks."""
        self.over = True
        for thread in self.threads:
            thread.join()
        return sum(self.used)


def main() -> None:
    request = json.loads(sys.argv[1])
    import pyprof
    from pyprof import pprof

    contenders = Contenders(request["threads"], request["frames"])
    main_thread = threading.get_native_id()
    # The main thread spends hardly anything but for start() and stop(), and the last look at the clocks.
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "profile.pb.gz")
        idle, main_before = contenders.cpu_ns(), thread_clock(main_thread)
        process, begin = time.process_time_ns(), time.monotonic()
        pyprof.start(output=str(output), **request["options"])
        contenders.gate.set()
        time.sleep(request["seconds"])
        stats, elapsed = pyprof.stats(), time.monotonic() - begin
        process, application = time.process_time_ns() - process, contenders.cpu_ns() - idle
        application += thread_clock(main_thread) - main_before
        used = contenders.end() - idle / 1e9 + (thread_clock(main_thread) - main_before) / 1e9
        pyprof.stop()
        profile = pprof.read(output)
    index = profile.sample_type_index("cpu")
    cpu = sum(sample.values[index] for sample in profile.samples) / 1e9
    answer = {
        "own_percent": (process - application) / 1e7 / elapsed,
        "own_percent_by_stats": stats.own_cpu_ns / 1e7 / elapsed,
        "cpu_percent_of_truth": 100 * cpu / used,
        "rate_changes": stats.rate_changes,
        "last_rate": stats.sample_rate,
        "mean_rate": stats.ticks / elapsed,
        "ticks": stats.ticks,
        "missed": stats.missed,
        "elapsed": elapsed,
        "comments": profile.comments,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
