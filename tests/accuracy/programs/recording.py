"""Runs a program under a sampler and reports, beside the profile, what the program truly spent.

A program measures itself with its threads' own CPU clocks (`time.thread_time`) and puts the result into a
`Truth`; nothing about the machine is assumed. The last line of stdout is one JSON object. The first argument
is a JSON object too: `sampler` ("pyprof" or "naive"), `output`, `options` of `pyprof.start`, `cpu` to pin to.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any


@dataclass
class Truth:
    """CPU seconds by function, as the program measured them."""

    flat: dict[str, float] = field(default_factory=dict)
    cum: dict[str, float] = field(default_factory=dict)
    labels: dict[str, dict[str, float]] = field(default_factory=dict)
    """By name and value."""
    threads_cpu: float = 0.0
    """CPU of all threads but the main one."""
    notes: dict[str, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock, repr=False)

    def add_flat(self, name: str, seconds: float) -> None:
        with self.lock:
            self.flat[name] = self.flat.get(name, 0.0) + seconds

    def add_cum(self, name: str, seconds: float) -> None:
        with self.lock:
            self.cum[name] = self.cum.get(name, 0.0) + seconds

    def add_label(self, name: str, value: str, seconds: float) -> None:
        with self.lock:
            values = self.labels.setdefault(name, {})
            values[value] = values.get(value, 0.0) + seconds

    def end_thread(self) -> None:
        """Called by each thread but the main one, last of all."""
        with self.lock:
            self.threads_cpu += time.thread_time()


class NaiveSampler:
    """What a profiler must not do: a fixed beat, all CPU since the last tick charged to this tick's stack."""

    def __init__(self, rate: float) -> None:
        self.period = 1 / rate
        self.stacks: dict[tuple[tuple[str, str, int], ...], dict[str, int]] = {}
        self.clocks: dict[int, int] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.loop, name="naive")
        self.thread.start()

    def stop(self) -> list[dict[str, Any]]:
        self.ended.set()
        self.thread.join()
        return [{"frames": frames, "values": values} for frames, values in self.stacks.items()]

    def loop(self) -> None:
        before = time.monotonic_ns()
        while not self.ended.wait(self.period - time.monotonic() % self.period):
            now = time.monotonic_ns()
            native = {thread.ident: thread.native_id for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                tid = native.get(ident)
                if tid is not None and ident != threading.get_ident():
                    self.charge(tid, frame, now - before)
            before = now

    def charge(self, tid: int, frame: FrameType | None, wall: int) -> None:
        clock = time.clock_gettime_ns((~tid << 3) | 6)
        cpu = clock - self.clocks.get(tid, clock)
        self.clocks[tid] = clock
        frames = []
        while frame is not None:
            code = frame.f_code
            module = frame.f_globals.get("__name__", "")
            frames.append((f"{module}.{code.co_qualname}", code.co_filename, frame.f_lineno))
            frame = frame.f_back
        values = self.stacks.setdefault(tuple(frames), {"samples": 0, "cpu": 0, "wall": 0})
        values["samples"] += 1
        values["cpu"] += cpu
        values["wall"] += wall


def record(program: Callable[[Truth], None]) -> None:
    """Run `program` from start to stop of the sampler that the command line asks for."""
    request = json.loads(sys.argv[1])
    if request.get("cpu") is not None:
        os.sched_setaffinity(0, {request["cpu"]})
    truth = Truth()
    stacks, own = None, 0.0
    outer, process = time.thread_time(), time.process_time()
    if request["sampler"] == "naive":
        sampler = NaiveSampler(request["options"]["sample_rate"])
    else:
        import pyprof

        pyprof.start(output=request["output"], **request["options"])
    inner, begin = time.thread_time(), time.monotonic()
    program(truth)
    elapsed, inner_end = time.monotonic() - begin, time.thread_time()
    if request["sampler"] == "naive":
        process_end = time.process_time()
        stacks = sampler.stop()
    else:
        truth.notes["stats"] = asdict(pyprof.stats())
        own = truth.notes["stats"]["own_cpu_ns"] / 1e9
        process_end = time.process_time()
        pyprof.stop(flush=True)
    # Two things may or may not be in the profile, hence two bounds: what start() and stop() take in the main
    # thread, and what a thread takes to end after it has read its clock (9 % of 2 ms if free-threaded).
    result = {
        "flat": truth.flat,
        "cum": truth.cum,
        "labels": truth.labels,
        "cpu_least": inner_end - inner + truth.threads_cpu,
        "cpu_most": max(time.thread_time() - outer + truth.threads_cpu, process_end - process - own),
        "elapsed": elapsed,
        "notes": truth.notes,
        "stacks": stacks,
    }
    print(json.dumps(result, default=str), flush=True)
